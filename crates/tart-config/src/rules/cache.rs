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
        "runners.cache.Type" if matches!(text, "gcs" | "azure") => {
            let text = format!(
                "`{path}` = {text:?} has no effect in this version: caches are kept on this host, or in S3"
            );
            checker.warning(spanned.span(), text);
        }
        "runners.cache.s3.ServerAddress"
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
    if text(table, "Type") != Some("s3") {
        return;
    }
    let s3 = entries(table).into_iter().find(|(key, _)| key.get_ref() == "s3");
    let Some(s3) = s3.and_then(|(_, value)| value.get_ref().as_table()) else {
        checker.error(at, "`runners.cache.Type` = \"s3\" needs a section `[runners.cache.s3]`");
        return;
    };
    let is_set = |name: &str| text(s3, name).is_some_and(|text| !text.is_empty());
    if !is_set("BucketName") {
        checker.error(at.clone(), "`runners.cache.s3` has no `BucketName`");
    }
    if !is_set("AccessKey") || !is_set("SecretKey") {
        let text =
            "`runners.cache.s3` has no `AccessKey` and `SecretKey`: the machine's role is not supported yet";
        checker.error(at, text);
    } else if !is_set("ServerAddress") && !is_set("AuthenticationType") {
        // The official runner would take the machine's role, whatever the keys are.
        let text = "`runners.cache.s3` has keys but no `ServerAddress`: add `AuthenticationType = \"access-key\"` for Amazon's store";
        checker.error(at, text);
    }
}

fn text<'t>(table: &'t DeTable<'_>, name: &str) -> Option<&'t str> {
    let (_, value) = entries(table).into_iter().find(|(key, _)| key.get_ref() == name)?;
    value.get_ref().as_str()
}
