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
