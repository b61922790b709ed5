//! The schema and the model are two lists of the same keys.

use super::{load, runner, warnings};
use crate::{
    Config, Executor, Runner, Secret,
    schema::{self, Default, Key, Kind, Section, join},
    support::{self, Support},
};

/// A value that every rule accepts and that is not the default.
fn sample(path: &str, key: &Key) -> String {
    match (path, key.kind) {
        ("runners.executor", _) => "\"docker\"".into(),
        ("runners.shell", _) => "\"sh\"".into(),
        ("runners.token", _) => "\"glrt-secret\"".into(),
        ("runners.docker.network_mode", _) => "\"none\"".into(),
        ("runners.docker.pull_policy" | "runners.docker.allowed_pull_policies", _) => "[\"never\"]".into(),
        ("runners.docker.devices", _) => "[\"/dev/fuse\"]".into(),
        ("runners.docker.volumes", _) => "[\"/cache\", \"/srv/tools:/tools:ro\"]".into(),
        ("runners.cache.s3.ServerAddress", _) => "\"minio.example.com:9000\"".into(),
        ("runners.cache.gcs.UniverseDomain" | "runners.cache.azure.StorageDomain", _) => {
            "\"cloud.example.com\"".into()
        }
        ("runners.cache.s3.AuthenticationType", _) => "\"access-key\"".into(),
        (_, Kind::Bool) if key.default == Default::Toml("true") => "false".into(),
        (_, Kind::Bool) => "true".into(),
        (_, Kind::Int(..)) => "7".into(),
        (path, Kind::List) if path.ends_with(".periods") => "[\"*/5 8-17 * * mon-fri\"]".into(),
        (path, Kind::Text) if path.ends_with(".timezone") => "\"Europe/Berlin\"".into(),
        (_, Kind::Factor) => "0.5".into(),
        (_, Kind::Text | Kind::Secret | Kind::Path) => "\"/some/text\"".into(),
        (_, Kind::Url) => "\"https://git.example.com/gitlab\"".into(),
        (_, Kind::HostPort) => "\"[::1]:9000\"".into(),
        (_, Kind::Duration) => "\"7m\"".into(),
        (_, Kind::Size) => "\"30g\"".into(),
        (_, Kind::Time) => "2026-11-24T08:00:00Z".into(),
        (_, Kind::Choice(words)) => format!("{:?}", words.last().unwrap()),
        (path, Kind::List) if path.ends_with(".dns") => "[\"192.0.2.1\"]".into(),
        (path, Kind::List) if path.ends_with("network.allow") || path.ends_with("network.deny") => {
            "[\"10.0.0.0/8\", \"*.example.com:443\"]".into()
        }
        (path, Kind::List) if path.ends_with(".extra_hosts") => "[\"db:192.0.2.2\"]".into(),
        (_, Kind::List | Kind::TextOrList) => "[\"one\", \"two\"]".into(),
        (_, Kind::Environment) => "[\"A=b\"]".into(),
        (_, Kind::TextMap) => "{ some-name = \"value\" }".into(),
        (_, Kind::BoolMap) => "{ FF_SOMETHING = true }".into(),
        (_, Kind::ListMap) => "{ name = [\"/dev/fuse\"] }".into(),
        (_, Kind::Foreign) => "{ anything = [1] }".into(),
    }
}

/// A file with every section, whose keys have what `value` gives.
fn whole_file(value: impl Fn(&str, &Key) -> Option<String>) -> String {
    let mut sections: Vec<&Section> = schema::sections().collect();
    sections.sort_by_key(|section| !section.path.is_empty());
    let mut text = String::new();
    for section in sections {
        if !section.path.is_empty() {
            text.push_str(&section.heading());
            text.push('\n');
        }
        for key in section.keys {
            if let Some(value) = value(&join(section.path, key.name), key) {
                text.push_str(&format!("{} = {value}\n", key.name));
            }
        }
    }
    text
}

#[test]
fn the_model_knows_every_key_that_is_not_refused() {
    let text = whole_file(|path, key| {
        (!matches!(support::of(path), Support::Refused(_))).then(|| sample(path, key))
    });
    let loaded = load(&text).unwrap();
    let runner = &loaded.config.runners[0];
    assert_eq!(runner.executor, Executor::Docker);
    assert_eq!(runner.cache.s3.assume_role_max_concurrency, 7);
    assert_eq!(runner.docker.services[0].environment, ["A=b"]);
    assert_eq!(loaded.config.experimental.usage_logger.max_backup_files, Some(7));
}

#[test]
fn the_model_has_the_defaults_of_the_reference() {
    let required = |path: &str, key: &Key| match (path, key.default) {
        (_, Default::Toml(text)) => Some(text.to_owned()),
        ("runners.docker.services.name", _) => None,
        (_, Default::Required) => Some(sample(path, key)),
        _ => None,
    };
    let text = whole_file(required).replace("[[runners.docker.services]]\n", "");
    let text = text.replace("[[runners.monitoring.job_queuing_durations]]\n", "");
    let loaded = load(&text).unwrap();
    let mut runner = Runner {
        url: "https://git.example.com/gitlab".into(),
        token: Secret::new("glrt-secret"),
        ..Runner::default()
    };
    // The file has one entry of this list.
    runner.microvm.pool.policy = vec![crate::PoolPolicy::default()];
    assert_eq!(loaded.config, Config { runners: vec![runner], ..Config::default() });
    assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
}

#[test]
fn zero_and_empty_mean_the_default_as_in_go() {
    let text = format!(
        "check_interval = 0\nshutdown_timeout = 0\nlog_level = \"\"\n[session_server]\nsession_timeout = 0\n{}",
        runner(
            "id = 0\noutput_limit = 0\nrequest_concurrency = 0\nclone_url = \"\"\n\
             token_expires_at = 0001-01-01T00:00:00Z\n\
             [runners.cache]\nType = \"\"\nMaxUploadedArchiveSize = 0\n\
             [runners.docker]\nmemory = \"\"\nwait_for_services_timeout = 0\n"
        )
    );
    let loaded = load(&text).unwrap();
    let expected = Runner {
        url: "https://gitlab.example.com".into(),
        token: Secret::new("glrt-secretsecret"),
        ..Runner::default()
    };
    assert_eq!(loaded.config, Config { runners: vec![expected], ..Config::default() });
    assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
}

#[test]
fn services_limit_zero_really_means_none() {
    let loaded = load(&runner("[runners.docker]\nservices_limit = 0\n")).unwrap();
    assert_eq!(loaded.config.runners[0].docker.services_limit, 0);
}

#[test]
fn the_older_name_of_the_driver_is_accepted() {
    let text = runner("[runners.microvm]\nvmm = \"firecracker\"\n");
    assert_eq!(load(&text).unwrap().config.runners[0].microvm.driver, crate::Driver::Firecracker);
    assert_eq!(warnings(&text), "");
}

#[test]
fn variables_are_replaced_in_url_and_token_only() {
    let text = "[[runners]]\nname = \"$HOST\"\nurl = \"https://${HOST}/ci\"\ntoken = \"$TOKEN\"\n";
    let loaded = load(text).unwrap();
    let runner = &loaded.config.runners[0];
    assert_eq!(
        (runner.name.as_str(), runner.url.as_str(), runner.token.expose()),
        ("$HOST", "https://gitlab.example.com", "glrt-fromenv")
    );
}

#[test]
fn ceilings_are_the_values_without_maxima() {
    let vm = crate::MicroVm::default();
    assert_eq!((vm.vcpus_ceiling(), vm.memory_ceiling(), vm.disk_ceiling()), (vm.vcpus, vm.memory, vm.disk));
}
