//! Jobs in real guests, emulated. They need the machine's assets (`tart assets build`) and `TART_AGENT`.
#![cfg(feature = "slow-tests")]

mod support;

use serde_json::json;
use support::{host, job, run, run_until};
use tart_runner::JobSignal;
use tart_spec::FailureReason;

#[tokio::test]
async fn a_script_runs_in_a_guest_and_its_log_comes_back() {
    let host = host(|_| {}).await;
    let (report, log) = run(&host, job(&["echo hello from $CI_JOB_STATUS", "uname -r"], |_| {})).await;
    println!("{log}\n{report:#?}");
    assert!(report.succeeded(), "{log}");
    assert!(log.contains("hello from running"), "{log}");
    assert!(log.contains("Job succeeded"), "{log}");
}

#[tokio::test]
async fn a_failed_script_keeps_its_exit_code_and_after_script_knows_of_it() {
    let host = host(|_| {}).await;
    let job = job(&["echo PASSED=on >> $GITLAB_ENV", "cat", "false || (exit 7)", "echo unreachable"], |job| {
        job["steps"].as_array_mut().unwrap().push(json!({
            "name": "after_script", "script": ["echo status $CI_JOB_STATUS passed $PASSED", "exit 3"]
        }));
        job["variables"].as_array_mut().unwrap().extend([
            json!({"key": "SECRET", "value": "hunter2-hunter2", "masked": true}),
            json!({"key": "FILE", "value": "first\nsecond\n", "file": true}),
        ]);
        job["steps"][0]["script"].as_array_mut().unwrap().insert(0, json!("echo secret $SECRET; cat $FILE; findmnt -no FSTYPE -T $FILE || stat -f -c %T $FILE"));
    });
    let (report, log) = run(&host, job).await;
    println!("{log}\n{report:#?}");
    assert_eq!((report.exit_code(), report.failure_reason()), (Some(7), Some(FailureReason::ScriptFailure)));
    for expected in [
        "secret [MASKED]\nfirst\nsecond\ntmpfs\n",
        "status failed passed on",
        "WARNING: after_script failed, but job will continue unaffected: exit code 3",
        "ERROR: Job failed: exit code 7",
    ] {
        assert!(log.contains(expected), "no {expected:?} in {log}");
    }
    assert!(!log.contains("unreachable\n"), "{log}");
}

const ENDLESS: &[&str] = &["echo begun; while true; do sleep 1; done"];

fn with_after_script(payload: &mut serde_json::Value) {
    let after = json!({"name": "after_script", "script": ["echo after $CI_JOB_STATUS"]});
    payload["steps"].as_array_mut().unwrap().push(after);
}

#[tokio::test]
async fn a_cancelled_job_still_runs_after_script_and_an_aborted_one_does_not() {
    let host = host(|_| {}).await;
    let (report, log) = run_until(&host, job(ENDLESS, with_after_script), "begun\n", JobSignal::Cancel).await;
    println!("{log}");
    assert_eq!(report.failure_reason(), Some(FailureReason::JobCanceled));
    assert!(log.contains("script canceled externally (UI, API)"), "{log}");
    assert!(log.contains("after canceled\n"), "{log}");
    assert!(log.contains("Job failed: canceled"), "{log}");

    let (report, log) = run_until(&host, job(ENDLESS, with_after_script), "begun\n", JobSignal::Abort).await;
    println!("{log}");
    assert_eq!(report.failure_reason(), Some(FailureReason::JobCanceled));
    assert!(!log.contains("after canceled"), "{log}");

    let interrupt = JobSignal::Interrupt("terminated".to_owned());
    let (report, log) = run_until(&host, job(ENDLESS, with_after_script), "begun\n", interrupt).await;
    assert_eq!(report.failure_reason(), Some(FailureReason::RunnerInterrupted));
    assert!(log.contains("Job failed: aborted: terminated"), "{log}");
}

#[tokio::test]
async fn limits_of_the_job_and_of_the_script_end_it_differently() {
    let host = host(|_| {}).await;
    let script_limit = |payload: &mut serde_json::Value| {
        with_after_script(payload);
        let variables = payload["variables"].as_array_mut().unwrap();
        variables.push(json!({"key": "RUNNER_SCRIPT_TIMEOUT", "value": "2s"}));
    };
    let (report, log) = run(&host, job(ENDLESS, script_limit)).await;
    println!("{log}");
    assert_eq!(report.failure_reason(), Some(FailureReason::JobExecutionTimeout));
    assert!(log.contains("step_script could not run to completion because the timeout was exceeded"), "{log}");
    assert!(log.contains("after timedout\n"), "{log}");
    assert!(log.contains("Job failed: execution took longer than 2s seconds"), "{log}");

    let job_limit = |payload: &mut serde_json::Value| {
        with_after_script(payload);
        payload["runner_info"]["timeout"] = json!(20);
    };
    let (report, log) = run(&host, job(ENDLESS, job_limit)).await;
    println!("{log}");
    assert_eq!(report.failure_reason(), Some(FailureReason::JobExecutionTimeout));
    assert!(!log.contains("after timedout"), "{log}");
    assert!(log.contains("Job failed: execution took longer than 20s seconds"), "{log}");
}

#[tokio::test]
async fn a_job_that_eats_its_memory_learns_who_was_killed() {
    let host = host(|_| {}).await;
    let eat = "perl -e '$a = \"x\" x 4000000000; print length $a' || tail /dev/zero";
    let (report, log) = run(&host, job(&[eat], |_| {})).await;
    println!("{log}\n{report:#?}");
    assert_eq!(report.failure_reason(), Some(FailureReason::ScriptFailure));
    assert!(log.contains("the job ran out of memory"), "{log}");
    assert!(log.contains("The microVM has 512m of memory"), "{log}");
}

#[tokio::test]
async fn a_fork_bomb_is_cancelled() {
    let host = host(|_| {}).await;
    let bomb = "echo begun; bomb() { bomb | bomb & }; bomb; sleep 600";
    let (report, log) = run_until(&host, job(&[bomb], |_| {}), "begun\n", JobSignal::Cancel).await;
    println!("{}", log.chars().rev().take(3000).collect::<String>().chars().rev().collect::<String>());
    assert_eq!(report.failure_reason(), Some(FailureReason::JobCanceled));
}

#[tokio::test]
async fn a_job_that_fills_its_disk_is_told_so() {
    let host = host(|config| config.disk = tart_config::ByteSize::mebibytes(64)).await;
    let (report, log) = run(&host, job(&["dd if=/dev/zero of=big bs=1M"], |_| {})).await;
    println!("{log}");
    assert_eq!(report.failure_reason(), Some(FailureReason::ScriptFailure));
    assert!(log.contains("No space left on device"), "{log}");
    assert!(log.contains("the job's disk of 64m is full"), "{log}");
}

#[tokio::test]
async fn a_guest_that_panics_is_a_system_failure_with_its_last_words() {
    let host = host(|_| {}).await;
    let panic = "echo 1 > /proc/sys/kernel/sysrq || true; echo c > /proc/sysrq-trigger; sleep 60";
    let (report, log) = run(&host, job(&[panic], with_after_script)).await;
    println!("{log}");
    assert_eq!(report.failure_reason(), Some(FailureReason::RunnerSystemFailure));
    assert!(log.contains("the guest's kernel panicked"), "{log}");
}

#[tokio::test]
async fn a_flood_of_output_arrives_whole_and_does_not_delay_a_cancellation() {
    let host = host(|_| {}).await;
    let (report, log) = run(&host, job(&["head -c 20000000 /dev/zero | tr '\\0' 'x'; echo; echo end"], |_| {})).await;
    assert!(report.succeeded());
    assert_eq!(log.matches('x').count() / 1000, 20_000);
    assert!(log.contains("\nend\n"));
    let (report, _) = run_until(&host, job(&["echo begun; yes"], |_| {}), "begun\n", JobSignal::Cancel).await;
    assert_eq!(report.failure_reason(), Some(FailureReason::JobCanceled));
}
