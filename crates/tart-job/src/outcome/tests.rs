use super::*;

fn progress(results: &[(Stage, Result<(), Failure>)]) -> Progress {
    let mut progress = Progress::new(true);
    for (stage, result) in results {
        assert!(progress.is_due(stage), "{stage:?}");
        progress.begin(stage);
        progress.end(stage, result.clone());
    }
    progress
}

fn script() -> Stage {
    Stage::Step("script".into())
}

/// The stages that are due from the steps on.
fn due(progress: &Progress) -> Vec<String> {
    [
        script(),
        Stage::AfterScript,
        Stage::ArchiveCache,
        Stage::ArchiveCacheOnFailure,
        Stage::UploadArtifactsOnSuccess,
        Stage::UploadArtifactsOnFailure,
        Stage::CleanupFileVariables,
    ]
    .iter()
    .filter(|stage| progress.is_due(stage))
    .map(|stage| stage.name().into_owned())
    .collect()
}

fn last_line(progress: &Progress) -> String {
    let (level, text) = progress.verdict().line();
    format!("{level:?} {text}")
}

const SAVING_FAILURE: [&str; 3] =
    ["archive_cache_on_failure", "upload_artifacts_on_failure", "cleanup_file_variables"];

#[test]
fn a_good_job_saves_and_succeeds() {
    let progress = progress(&[(Stage::GetSources, Ok(())), (script(), Ok(()))]);
    assert_eq!(
        due(&progress),
        [
            "step_script",
            "after_script",
            "archive_cache",
            "upload_artifacts_on_success",
            "cleanup_file_variables"
        ]
    );
    assert_eq!(progress.status_in(&script()), JobStatus::Running);
    assert_eq!(progress.status_in(&Stage::AfterScript), JobStatus::Success);
    assert_eq!(last_line(&progress), "Info Job succeeded");
}

#[test]
fn a_failed_script_still_runs_after_script_and_saves() {
    let progress = progress(&[(script(), Err(Failure::ExitCode(3)))]);
    assert_eq!(due(&progress)[0], "after_script");
    assert_eq!(due(&progress)[1..], SAVING_FAILURE);
    assert_eq!(progress.status_in(&Stage::AfterScript), JobStatus::Failed);
    assert_eq!(last_line(&progress), "Error Job failed: exit code 3");
    let Verdict::Failed(failure) = progress.verdict() else { panic!("the job failed") };
    assert_eq!((failure.reason(), failure.exit_code()), (FailureReason::ScriptFailure, Some(3)));
}

#[test]
fn failed_sources_skip_the_scripts_but_not_the_uploads() {
    for stage in [Stage::GetSources, Stage::RestoreCache, Stage::DownloadArtifacts] {
        let progress = progress(&[(stage, Err(Failure::ExitCode(128)))]);
        assert_eq!(due(&progress), SAVING_FAILURE);
        assert!(!progress.is_due(&Stage::DownloadArtifacts));
    }
}

#[test]
fn a_failed_preparation_ends_the_job() {
    let failure = Failure::Prepare { message: "no VM".into(), reason: FailureReason::RunnerSystemFailure };
    let progress = progress(&[(Stage::PrepareExecutor, Err(failure))]);
    assert_eq!(due(&progress), ["cleanup_file_variables"]);
    assert_eq!(last_line(&progress), "Error Job failed (system failure): prepare environment: no VM");
}

#[test]
fn a_cancelled_script_still_runs_after_script() {
    let mut progress = progress(&[(Stage::GetSources, Ok(()))]);
    assert!(!progress.cancels_script_only());
    progress.begin(&script());
    assert!(progress.cancels_script_only());
    progress.end(&script(), Err(Failure::Canceled));
    assert_eq!(due(&progress)[0], "after_script");
    assert_eq!(due(&progress)[1..], SAVING_FAILURE);
    assert_eq!(progress.status_in(&Stage::AfterScript), JobStatus::Canceled);
    assert_eq!(last_line(&progress), "Error Job failed: canceled");
}

#[test]
fn a_job_cancelled_before_its_scripts_ends() {
    let progress = progress(&[(Stage::GetSources, Err(Failure::Canceled))]);
    assert_eq!(due(&progress), ["cleanup_file_variables"]);
}

#[test]
fn a_script_timeout_leaves_time_for_the_rest_and_a_job_timeout_does_not() {
    let hour = Duration::from_secs(3600);
    let script_timeout = progress(&[(script(), Err(Failure::ScriptTimeout(hour)))]);
    assert_eq!(due(&script_timeout)[0], "after_script");
    assert_eq!(script_timeout.status_in(&Stage::AfterScript), JobStatus::TimedOut);
    let job_timeout = progress(&[(script(), Err(Failure::Timeout(hour)))]);
    assert_eq!(due(&job_timeout), ["cleanup_file_variables"]);
    for progress in [script_timeout, job_timeout] {
        assert_eq!(last_line(&progress), "Error Job failed: execution took longer than 1h0m0s seconds");
        let Verdict::Failed(failure) = progress.verdict() else { panic!("the job failed") };
        assert_eq!(failure.reason(), FailureReason::JobExecutionTimeout);
    }
}

#[test]
fn an_interrupted_job_ends_and_names_the_signal() {
    let progress = progress(&[(script(), Err(Failure::Interrupted("terminated".into())))]);
    assert_eq!(due(&progress), ["cleanup_file_variables"]);
    assert_eq!(last_line(&progress), "Error Job failed: aborted: terminated");
}

#[test]
fn after_script_decides_nothing_unless_it_is_told_to() {
    let mut ignoring = progress(&[(script(), Ok(()))]);
    let warning = ignoring.end(&Stage::AfterScript, Err(Failure::ExitCode(2)));
    assert_eq!(
        warning.as_deref(),
        Some("after_script failed, but job will continue unaffected: exit code 2")
    );
    assert_eq!(ignoring.verdict(), Verdict::Success);

    let mut strict = Progress::new(false);
    strict.begin(&script());
    assert_eq!(strict.end(&Stage::AfterScript, Err(Failure::ExitCode(2))), None);
    assert_eq!(strict.verdict(), Verdict::Failed(Failure::ExitCode(2)));
    strict.end(&script(), Err(Failure::ExitCode(9)));
    assert_eq!(strict.verdict(), Verdict::Failed(Failure::ExitCode(9)));
}

#[test]
fn errors_count_in_the_order_script_cache_artifacts() {
    let mut progress = progress(&[(script(), Ok(()))]);
    progress.end(&Stage::UploadArtifactsOnSuccess, Err(Failure::system("artifacts")));
    assert_eq!(last_line(&progress), "Error Job failed (system failure): artifacts");
    progress.end(&Stage::ArchiveCache, Err(Failure::system("cache")));
    assert_eq!(last_line(&progress), "Error Job failed (system failure): cache");
    progress.end(&script(), Err(Failure::ExitCode(1)));
    assert_eq!(last_line(&progress), "Error Job failed: exit code 1");
}

#[test]
fn a_failed_clean_up_is_only_mentioned() {
    let mut progress = progress(&[(script(), Ok(()))]);
    let warning = progress.end(&Stage::CleanupFileVariables, Err(Failure::ExitCode(1)));
    assert_eq!(warning.as_deref(), Some("cleaning up failed: exit code 1"));
    assert_eq!(progress.verdict(), Verdict::Success);
}
