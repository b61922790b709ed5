//! What users read.

use super::{errors, load, runner, warnings};

#[test]
fn all_problems_are_listed_with_lines_and_what_was_meant() {
    let text = "\
concurrent = 0
chek_interval = 3
privileged = true
log_level = \"wran\"
connection_max_age = \"15\"

[session_servre]
listen_address = \":8093\"

[[runners]]
name = 5
url = \"gitlab.example.com\"
executor = \"shell\"
limit = \"3\"
tls_ca_file = \"/ca.pem\"
environment = [\"A=secretvalue\", \"B\"]
[runners.docker]
privilged = true
image = [\"alpine\"]
volumes = [\"/var/run/docker.sock:/var/run/docker.sock\", \"/srv:/srv\", \"/cache\"]
network_mode = \"host\"
gpus = \"all\"
[runners.microvm]
memory = \"64m\"
vcpus = 4
vcpus_max = 2
frobnicate = 1
[runners.autoscaler]
max_instances = 3
";
    insta::assert_snapshot!(errors(text), @r#"
    23 problems in the configuration:
    config.toml:1:14: `concurrent` must be at least 1, found 0
    config.toml:2:1: unknown key `chek_interval`: did you mean `check_interval`?
    config.toml:3:1: unknown key `privileged`: `privileged` belongs in `[runners.docker]`
    config.toml:4:13: `log_level` must be "panic", "fatal", "error", "warning", "warn", "info" or "debug", found "wran"; did you mean "warn"?
    config.toml:5:22: `connection_max_age` must be a duration such as "90s", "15m" or "1h30m", found "15"
    config.toml:7:2: unknown key `session_servre`: did you mean `session_server`?
    config.toml:10:1: the runner has no `token`: create a runner in GitLab and give its token to `tart register`
    config.toml:11:8: `runners.name` must be a string, found an integer
    config.toml:12:7: `runners.url` must be an address that begins with `https://`, such as "https://gitlab.example.com"
    config.toml:13:12: the executor "shell" is not supported: Tart runs every job in its own microVM, write "microvm"
    config.toml:14:9: `runners.limit` must be an integer without quotes, found a string
    config.toml:15:1: unknown key `runners.tls_ca_file`: did you mean `tls-ca-file`?
    config.toml:16:15: `runners.environment` must be a list of "KEY=value" strings, and one of them is not of that form
    config.toml:18:1: unknown key `runners.docker.privilged`: did you mean `privileged`?
    config.toml:19:9: `runners.docker.image` must be a string, found a list
    config.toml:20:11: `runners.docker.volumes`: "/var/run/docker.sock:/var/run/docker.sock" is not supported: jobs do not get the host's Docker; run a `docker:dind` service, each job has its own machine
    config.toml:20:11: `runners.docker.volumes`: "/srv:/srv" is not supported: a job may not write to the host; add `:ro` to only read it
    config.toml:21:16: `runners.docker.network_mode` = "host" is not supported: a VM has a network of its own: use "bridge", or "none" for no network
    config.toml:22:1: `runners.docker.gpus` is not supported: a microVM has no graphics processor: run these jobs on another runner and choose it by tags
    config.toml:24:10: `runners.microvm.memory` must be at least 128m, found 64m
    config.toml:26:13: `runners.microvm.vcpus_max` is below `vcpus`, which every job gets
    config.toml:27:1: unknown key `runners.microvm.frobnicate`: `[runners.microvm]` has no such key (docs/configuration.md lists them)
    config.toml:28:10: `runners.autoscaler` is not supported: Tart starts microVMs on this host and no cloud machines: remove it and set `limit`
    "#);
}

#[test]
fn broken_toml_is_reported_without_quoting_the_file() {
    let text = "[[runners]]\ntoken = \"glrt-secretsecret\nurl = 1\n";
    insta::assert_snapshot!(errors(text), @r#"config.toml:2:27: not valid TOML: invalid basic string, expected `"`"#);
}

#[test]
fn secrets_are_never_quoted() {
    for lines in
        ["token = \"glrt-hidden hidden\"", "sentry_dsn = [\"glrt-hidden\"]", "token = \"glrt-hidden$NOPE\""]
    {
        let text = errors(&format!("[[runners]]\nurl = \"https://gitlab.com\"\n{lines}\n"));
        assert!(!text.contains("hidden"), "{text}");
    }
    let loaded = load(&runner("[runners.cache.s3]\nSecretKey = \"hidden\"\n")).unwrap();
    assert!(!format!("{loaded:?}").contains("hidden"));
    assert!(!format!("{loaded:?}").contains("secretsecret"));
}

#[test]
fn a_file_of_the_official_runner_loads_with_warnings() {
    let text = "\
concurrent = 4
check_interval = 0
shutdown_timeout = 0
user = \"gitlab-runner\"
listen_address = \":9252\"

[session_server]
  session_timeout = 1800

[[runners]]
  name = \"docker\"
  url = \"https://gitlab.example.com/ci\"
  id = 42
  token = \"glrt-secretsecret\"
  token_obtained_at = 2026-01-01T00:00:00Z
  token_expires_at = 0001-01-01T00:00:00Z
  executor = \"docker\"
  [runners.cache]
    MaxUploadedArchiveSize = 0
    [runners.cache.s3]
      BucketName = \"cache\"
    [runners.cache.gcs]
    [runners.cache.azure]
  [runners.docker]
    tls_verify = false
    image = \"alpine:latest\"
    privileged = false
    disable_entrypoint_overwrite = false
    oom_kill_disable = false
    disable_cache = false
    volumes = [\"/cache\"]
    shm_size = 0
    network_mtu = 0
    helper_image = \"helper\"
  [runners.machine]
    IdleCount = 0
";
    insta::assert_snapshot!(warnings(text), @r#"
    config.toml:4:1: warning: `user` is ignored: there is no shell executor whose jobs could run as that user
    config.toml:5:1: warning: `listen_address` is accepted but has no effect in this version
    config.toml:12:9: warning: the `/ci` at the end of `runners.url` is left out: GitLab has had no such path since 8.0
    config.toml:17:14: note: `runners.executor` = "docker" means "microvm" here: every job runs in its own microVM
    config.toml:34:5: warning: `runners.docker.helper_image` is ignored: the helper's tools are built into the VM
    config.toml:35:12: warning: `runners.machine` is ignored: it belongs to another executor, and every job of Tart runs in its own microVM
    "#);
}

#[test]
fn what_holds_for_all_runners_is_said_once() {
    let twice = format!("{0}{0}", runner("proxy_exec = true\n"));
    insta::assert_snapshot!(warnings(&twice), @"config.toml:4:1: warning: `runners.proxy_exec` is ignored: output is always masked outside the job's processes");
}

#[test]
fn a_runner_without_address_or_token_is_refused() {
    insta::assert_snapshot!(errors("[[runners]]\nname = \"x\"\n"), @r#"
    2 problems in the configuration:
    config.toml:1:1: the runner has no `url`: write the address of the GitLab instance, such as "https://gitlab.com"
    config.toml:1:1: the runner has no `token`: create a runner in GitLab and give its token to `tart register`
    "#);
    insta::assert_snapshot!(errors("[[runners]]\nurl = \"$NOWHERE\"\ntoken = \"${TOKEN\"\n"), @"
    2 problems in the configuration:
    config.toml:2:7: `runners.url`: the environment variable `NOWHERE` is not set
    config.toml:3:9: `runners.token`: `${` must be followed by a variable's name and `}`
    ");
}

#[test]
fn sections_of_the_wrong_shape_are_explained() {
    insta::assert_snapshot!(errors("runners = 3\n[[session_server]]\nlisten_address = \":1\"\n"), @"
    2 problems in the configuration:
    config.toml:1:1: `runners` must be written as `[[runners]]`, found an integer
    config.toml:2:3: `session_server` must be written as `[session_server]`, found a list
    ");
}

#[test]
fn executors_that_do_not_exist_are_refused() {
    insta::assert_snapshot!(errors(&runner("executor = \"kubernetes\"\n")), @r#"config.toml:4:12: the executor "kubernetes" is not supported: Tart runs every job in its own microVM, write "microvm""#);
    insta::assert_snapshot!(errors(&runner("executor = \"micro-vm\"\n")), @r#"config.toml:4:12: there is no executor "micro-vm": did you mean "microvm"?"#);
}

#[test]
fn stores_of_caches_have_what_they_need() {
    let s3 = |lines: &str| runner(&format!("[runners.cache]\nType = \"s3\"\n[runners.cache.s3]\n{lines}"));
    let keys = "BucketName = \"b\"\nAccessKey = \"a\"\nSecretKey = \"hidden\"\n";
    insta::assert_snapshot!(errors(&runner("[runners.cache]\nType = \"s3\"\n")), @"config.toml:4:10: `runners.cache.Type` = \"s3\" needs a section `[runners.cache.s3]`");
    insta::assert_snapshot!(errors(&s3("AuthenticationType = \"iam\"\n")), @"
    3 problems in the configuration:
    config.toml:4:10: `runners.cache.s3` has no `BucketName`
    config.toml:4:10: `runners.cache.s3` has no `AccessKey` and `SecretKey`: the machine's role is not supported yet
    config.toml:7:22: `runners.cache.s3.AuthenticationType` = \"iam\" is not supported yet: set `AccessKey` and `SecretKey` and remove this key
    ");
    insta::assert_snapshot!(errors(&s3(keys)), @"config.toml:4:10: `runners.cache.s3` has keys but no `ServerAddress`: add `AuthenticationType = \"access-key\"` for Amazon's store");
    insta::assert_snapshot!(errors(&s3(&format!("{keys}ServerAddress = \"http://minio\"\n"))), @"config.toml:10:17: `runners.cache.s3.ServerAddress` must be `host` or `host:port`, found \"http://minio\"");
    assert_eq!(warnings(&s3(&format!("{keys}ServerAddress = \"minio:9000\"\n"))), "");
    assert_eq!(warnings(&s3(&format!("{keys}AuthenticationType = \"access-key\"\n"))), "");
    let cloud = |kind: &str, lines: &str| {
        runner(&format!("[runners.cache]\nType = {kind:?}\n[runners.cache.{kind}]\n{lines}"))
    };
    insta::assert_snapshot!(errors(&runner("[runners.cache]\nType = \"gcs\"\n")), @"config.toml:4:10: `runners.cache.Type` = \"gcs\" needs a section `[runners.cache.gcs]`");
    insta::assert_snapshot!(errors(&cloud("gcs", "AccessID = \"a\"\nUniverseDomain = \"https://x\"\n")), @"
    3 problems in the configuration:
    config.toml:4:10: `runners.cache.gcs` has no `BucketName`
    config.toml:4:10: `runners.cache.gcs` has no `CredentialsFile`, and not both `AccessID` and `PrivateKey`: the identity of a machine or workload is not supported
    config.toml:8:18: `runners.cache.gcs.UniverseDomain` must be `host` or `host:port`, found \"https://x\"
    ");
    insta::assert_snapshot!(errors(&cloud("azure", "AccountName = \"a\"\nContainerName = \"c\"\n")), @"config.toml:4:10: `runners.cache.azure` has no `AccountName` and `AccountKey`: the identity of a machine or workload is not supported");
    let key = "BucketName = \"b\"\nCredentialsFile = \"/etc/key.json\"\n";
    assert_eq!(warnings(&cloud("gcs", key)), "");
    let key = "AccountName = \"a\"\nContainerName = \"c\"\nAccountKey = \"hidden\"\n";
    assert_eq!(warnings(&cloud("azure", key)), "");
}

#[test]
fn labels_beyond_the_servers_limits_are_refused() {
    insta::assert_snapshot!(errors("[labels]\nab = \"x\"\nregion = \"a b\"\n"), @"
    2 problems in the configuration:
    config.toml:2:1: `labels.ab` is no label: its name must have 3 to 65 letters, digits, `.`, `_` and `-`, beginning with a letter, a digit or `_`
    config.toml:3:10: `labels.region` is no label: its value must have 1 to 256 letters, digits, `.`, `_` and `-`
    ");
}

#[test]
fn a_missing_file_says_how_to_make_one() {
    let error = crate::load(std::path::Path::new("/nonexistent/config.toml")).unwrap_err();
    insta::assert_snapshot!(error.to_string(), @"there is no configuration at /nonexistent/config.toml: create it with `tart register`, or name another with `--config`");
}

proptest::proptest! {
    #[test]
    fn no_text_panics(text in "\\PC{0,200}") {
        drop(load(&text));
    }

    #[test]
    fn no_combination_of_keys_panics(lines in proptest::collection::vec(
        proptest::sample::select(vec![
            "concurrent = 1", "concurrent = -1", "[[runners]]", "[runners]", "runners = [1, {}]", "url = \"$\"",
            "token = \"a\"", "[runners.docker]", "volumes = [\":\", \"\"]", "devices = [\"\"]", "[runners.microvm]",
            "vmm = \"qemu\"", "driver = \"qemu\"", "vcpus_max = 99999999999999999999", "memory_max = \"\"",
            "[labels]", "a.b = 1", "labels = {}", "[runners.cache.s3]", "token_expires_at = 1979-05-27",
            "[[runners.docker.services]]", "é = 1",
        ]),
        0..12,
    )) {
        drop(load(&lines.join("\n")));
    }
}

#[test]
fn destinations_that_are_none_are_refused() {
    let text = runner(
        "[runners.microvm.network]\nallow = [\"10.0.0.0/8:22\", \"a b\"]\ndeny = [\"::1/129\", \"[fd00::/8]:22\", \"fd00::1\"]\n",
    );
    insta::assert_snapshot!(errors(&text), @r#"
    2 problems in the configuration:
    config.toml:5:9: `runners.microvm.network.allow` must hold addresses, networks or names, perhaps with `:port`, found "a b"
    config.toml:6:8: `runners.microvm.network.deny` must hold addresses, networks or names, perhaps with `:port`, found "::1/129"
    "#);
}

#[test]
fn policies_that_never_make_sense_are_refused() {
    let text = runner(
        "[[runners.microvm.pool.policy]]\nperiods = [\"* 8-17 * * mon-fri\", \"* * *\", \"61 * * * *\"]\n\
         timezone = \"Europe/Nowhere\"\nscale_factor = -0.5\nidle_count = 2\nidle_time = \"soon\"\n",
    );
    insta::assert_snapshot!(errors(&text), @r#"
    5 problems in the configuration:
    config.toml:5:11: `runners.microvm.pool.policy.periods` must hold crontab expressions such as "* 8-17 * * mon-fri", found "* * *"
    config.toml:5:11: `runners.microvm.pool.policy.periods` must hold crontab expressions such as "* 8-17 * * mon-fri", found "61 * * * *"
    config.toml:6:12: `runners.microvm.pool.policy.timezone` must be a time zone such as "Europe/Berlin", found "Europe/Nowhere"
    config.toml:7:16: `runners.microvm.pool.policy.scale_factor` must be a number of at least 0, found -0.5
    config.toml:9:13: `runners.microvm.pool.policy.idle_time` must be a duration such as "90s", "15m" or "1h30m", found "soon"
    "#);
}
