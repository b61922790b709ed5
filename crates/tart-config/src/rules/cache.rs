//! Rules of `[runners.cache]`.

use std::ops::Range;

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use crate::check::{Checker, entries};

/// Checks the value of one key.
pub(super) fn check(checker: &mut Checker<'_>, path: &str, spanned: &Spanned<DeValue<'_>>) {
    let text = spanned.get_ref().as_str().unwrap_or_default();
    match path {
        "runners.cache.s3.ServerAddress"
        | "runners.cache.gcs.UniverseDomain"
        | "runners.cache.azure.StorageDomain"
            if text.contains(['/', '@', '?', '#']) || text.contains(char::is_whitespace) =>
        {
            checker.error(spanned.span(), format!("`{path}` must be `host` or `host:port`, found {text:?}"));
        }
        "runners.cache.s3.AuthenticationType" if text == "iam" => {
            let hint = "set `AccessKey` and `SecretKey` and remove this key";
            checker.error(spanned.span(), format!("`{path}` = \"iam\" is not supported yet: {hint}"));
        }
        _ => {}
    }
}

/// What a store that is used needs. A section that no `Type` leads to may be as it likes.
pub(super) fn check_together(checker: &mut Checker<'_>, table: &DeTable<'_>, at: Range<usize>) {
    let Some(kind @ ("s3" | "gcs" | "azure")) = text(table, "Type") else { return };
    let section = entries(table).into_iter().find(|(key, _)| *key.get_ref() == kind);
    let Some(section) = section.and_then(|(_, value)| value.get_ref().as_table()) else {
        let text = format!("`runners.cache.Type` = {kind:?} needs a section `[runners.cache.{kind}]`");
        checker.error(at, text);
        return;
    };
    let is_set = |name: &str| text(section, name).is_some_and(|text| !text.is_empty());
    let mut wrong = |what: &str| checker.error(at.clone(), format!("`runners.cache.{kind}` has {what}"));
    if !is_set(if kind == "azure" { "ContainerName" } else { "BucketName" }) {
        wrong(if kind == "azure" { "no `ContainerName`" } else { "no `BucketName`" });
    }
    match kind {
        "s3" if !is_set("AccessKey") || !is_set("SecretKey") => {
            wrong("no `AccessKey` and `SecretKey`: the machine's role is not supported yet");
        }
        // The official runner would take the machine's role, whatever the keys are.
        "s3" if !is_set("ServerAddress") && !is_set("AuthenticationType") => {
            wrong(
                "keys but no `ServerAddress`: add `AuthenticationType = \"access-key\"` for Amazon's store",
            );
        }
        "gcs" if !is_set("CredentialsFile") && (!is_set("AccessID") || !is_set("PrivateKey")) => {
            wrong(
                "no `CredentialsFile`, and not both `AccessID` and `PrivateKey`: the identity of a machine or workload \
                 is not supported",
            );
        }
        "azure" if !is_set("AccountName") || !is_set("AccountKey") => {
            wrong(
                "no `AccountName` and `AccountKey`: the identity of a machine or workload is not supported",
            );
        }
        _ => {}
    }
}

fn text<'t>(table: &'t DeTable<'_>, name: &str) -> Option<&'t str> {
    let (_, value) = entries(table).into_iter().find(|(key, _)| key.get_ref() == name)?;
    value.get_ref().as_str()
}
