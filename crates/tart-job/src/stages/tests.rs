use super::*;

const ATTEMPTS: Attempts =
    Attempts { get_sources: 3, restore_cache: 2, download_artifacts: 1, secrets: 4, job_section: 1 };

fn plan(payload: &str) -> String {
    let payload: JobPayload = serde_json::from_str(payload).expect("a payload");
    let lines = stages(&payload, ATTEMPTS).into_iter().map(|planned| {
        let place =
            planned.stage.place().map_or("runner".to_owned(), |place| format!("{place:?}").to_lowercase());
        let retry = planned.before_retry.map(|stage| format!(" after {}", stage.name())).unwrap_or_default();
        format!("{} on {place} x{}{retry}", planned.stage.name(), planned.attempts)
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn a_plain_job_has_few_stages() {
    insta::assert_snapshot!(plan(r#"{"id": 1, "token": "t", "steps": [{"name": "script", "script": ["true"]}]}"#), @"
    prepare_executor on runner x3
    prepare_script on helper x1
    get_sources on helper x3 after clear_worktree
    step_script on job x1
    cleanup_file_variables on helper x1
    ");
}

#[test]
fn a_rich_job_has_all_of_them() {
    let payload = r#"{
        "id": 1,
        "token": "t",
        "secrets": {"S": {"vault": {}}},
        "steps": [
            {"name": "script", "script": ["true"]},
            {"name": "after_script", "script": ["true"]},
            {"name": "Release", "script": ["release-cli"]},
            {"name": "empty", "script": []}
        ],
        "cache": [{"key": "k", "paths": ["a"], "when": "always"}],
        "artifacts": [
            {"paths": ["b"], "when": "on_failure"},
            {"paths": ["c"], "when": "on_success"}
        ],
        "dependencies": [{"id": 2, "token": "t", "name": "build", "artifacts_file": {"filename": "a.zip", "size": 1}}]
    }"#;
    insta::assert_snapshot!(plan(payload), @"
    resolve_secrets on runner x4
    prepare_executor on runner x3
    prepare_script on helper x1
    get_sources on helper x3 after clear_worktree
    restore_cache on helper x2
    download_artifacts on helper x1
    step_script on job x1
    step_release on job x1
    after_script on job x1
    archive_cache on helper x1
    archive_cache_on_failure on helper x1
    upload_artifacts_on_success on helper x1
    upload_artifacts_on_failure on helper x1
    cleanup_file_variables on helper x1
    ");
}

#[test]
fn stages_with_nothing_to_do_are_left_out() {
    let payload = r#"{
        "id": 1,
        "token": "t",
        "cache": [{"key": "k", "paths": [], "untracked": false}, {"key": "f", "untracked": true, "when": "on_failure"}],
        "artifacts": [{"paths": [], "when": "always"}, {"paths": ["a"], "when": "some day"}],
        "dependencies": [{"id": 3, "artifacts_file": {"filename": null}}, {"id": 2, "token": "t", "name": "build", "artifacts_file": null}]
    }"#;
    insta::assert_snapshot!(plan(payload), @"
    prepare_executor on runner x3
    prepare_script on helper x1
    get_sources on helper x3 after clear_worktree
    restore_cache on helper x2
    archive_cache_on_failure on helper x1
    cleanup_file_variables on helper x1
    ");
}

#[test]
fn headers_are_those_of_the_official_runner() {
    let headers =
        [Stage::PrepareExecutor, Stage::GetSources, Stage::Step("Script".into()), Stage::AfterScript]
            .map(|stage| stage.header("microvm").into_owned());
    insta::assert_snapshot!(headers.join("\n"), @r#"
    Preparing the "microvm" executor
    Getting source from Git repository
    Executing "step_script" stage of the job script
    Running after_script
    "#);
}

#[test]
fn pauses_between_tries_grow() {
    let pauses =
        |exponential| [1, 2, 3, 7, u32::MAX].map(|failed| retry_delay(failed, exponential).as_secs());
    assert_eq!(pauses(true), [5, 10, 20, 300, 300]);
    assert_eq!(pauses(false), [1, 2, 4, 5, 5]);
    assert_eq!(retry_delay(0, true).as_secs(), 5);
}
