//! Jobs in real guests, emulated. They need the machine's assets (`tart assets build`) and `TART_AGENT`.
#![cfg(feature = "slow-tests")]

#[path = "support/starts.rs"]
mod starts;
mod support;

use serde_json::json;
use support::{Host, Log, host, job, run, run_until};
use tart_runner::local::Snapshot;
use tart_runner::{JobRun, JobSignal, NoObserver, run_job};
use tart_spec::FailureReason;
use tokio::sync::watch;

#[tokio::test]
async fn a_script_runs_in_a_guest_and_its_log_comes_back() {
    let host = host(|_| {}).await;
    let (report, log) = run(&host, job(&["echo hello from $CI_JOB_STATUS", "uname -r"], |_| {})).await;
    assert!(report.succeeded(), "{log}");
    assert!(log.contains("hello from running"), "{log}");
    assert!(log.contains("Job succeeded"), "{log}");
}

#[tokio::test]
async fn a_failed_script_keeps_its_exit_code_and_after_script_knows_of_it() {
    let host = host(|_| {}).await;
    let job =
        job(&["echo PASSED=on >> $GITLAB_ENV", "cat", "false || (exit 7)", "echo unreachable"], |job| {
            job["steps"].as_array_mut().unwrap().push(json!({
                "name": "after_script", "script": ["echo status $CI_JOB_STATUS passed $PASSED", "exit 3"]
            }));
            job["variables"].as_array_mut().unwrap().extend([
                json!({"key": "SECRET", "value": "hunter2-hunter2", "masked": true}),
                json!({"key": "FILE", "value": "first\nsecond\n", "file": true}),
            ]);
            job["steps"][0]["script"].as_array_mut().unwrap().insert(
                0,
                json!("echo secret $SECRET; cat $FILE; findmnt -no FSTYPE -T $FILE || stat -f -c %T $FILE"),
            );
        });
    let (report, log) = run(&host, job).await;
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
    assert_eq!(report.failure_reason(), Some(FailureReason::JobCanceled));
    assert!(log.contains("script canceled externally (UI, API)"), "{log}");
    assert!(log.contains("after canceled\n"), "{log}");
    assert!(log.contains("Job failed: canceled"), "{log}");

    let (report, log) = run_until(&host, job(ENDLESS, with_after_script), "begun\n", JobSignal::Abort).await;
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
    assert_eq!(report.failure_reason(), Some(FailureReason::JobExecutionTimeout));
    assert!(
        log.contains("step_script could not run to completion because the timeout was exceeded"),
        "{log}"
    );
    assert!(log.contains("after timedout\n"), "{log}");
    assert!(log.contains("Job failed: execution took longer than 2s seconds"), "{log}");

    let job_limit = |payload: &mut serde_json::Value| {
        with_after_script(payload);
        payload["runner_info"]["timeout"] = json!(20);
    };
    let (report, log) = run(&host, job(ENDLESS, job_limit)).await;
    assert_eq!(report.failure_reason(), Some(FailureReason::JobExecutionTimeout));
    assert!(!log.contains("after timedout"), "{log}");
    assert!(log.contains("Job failed: execution took longer than 20s seconds"), "{log}");
}

#[tokio::test]
async fn a_job_that_eats_its_memory_learns_who_was_killed() {
    let host = host(|_| {}).await;
    let eat = "perl -e '$a = \"x\" x 4000000000; print length $a' || tail /dev/zero";
    let (report, log) = run(&host, job(&[eat], |_| {})).await;
    assert_eq!(report.failure_reason(), Some(FailureReason::ScriptFailure));
    assert!(log.contains("the job ran out of memory"), "{log}");
    assert!(log.contains("The microVM has 512m of memory"), "{log}");
}

#[tokio::test]
async fn a_fork_bomb_is_cancelled() {
    let host = host(|_| {}).await;
    let bomb = "echo begun; bomb() { bomb | bomb & }; bomb; sleep 600";
    let (report, _) = run_until(&host, job(&[bomb], |_| {}), "begun\n", JobSignal::Cancel).await;
    assert_eq!(report.failure_reason(), Some(FailureReason::JobCanceled));
}

#[tokio::test]
async fn a_job_that_fills_its_disk_is_told_so() {
    let host = host(|config| config.disk = tart_config::ByteSize::mebibytes(64)).await;
    let (report, log) = run(&host, job(&["dd if=/dev/zero of=big bs=1M"], |_| {})).await;
    assert_eq!(report.failure_reason(), Some(FailureReason::ScriptFailure));
    assert!(log.contains("No space left on device"), "{log}");
    assert!(log.contains("the job's disk of 64m is full"), "{log}");
}

#[tokio::test]
async fn a_guest_that_panics_is_a_system_failure_with_its_last_words() {
    let host = host(|_| {}).await;
    let panic = "echo 1 > /proc/sys/kernel/sysrq || true; echo c > /proc/sysrq-trigger; sleep 60";
    let (report, log) = run(&host, job(&[panic], with_after_script)).await;
    assert_eq!(report.failure_reason(), Some(FailureReason::RunnerSystemFailure));
    assert!(log.contains("the guest's kernel panicked"), "{log}");
}

#[tokio::test]
async fn a_flood_of_output_arrives_whole_and_does_not_delay_a_cancellation() {
    let host = host(|_| {}).await;
    let (report, log) =
        run(&host, job(&["head -c 20000000 /dev/zero | tr '\\0' 'x'; echo; echo end"], |_| {})).await;
    assert!(report.succeeded());
    assert_eq!(log.matches('x').count() / 1000, 20_000);
    assert!(log.contains("\nend\n"));
    let (report, _) = run_until(&host, job(&["echo begun; yes"], |_| {}), "begun\n", JobSignal::Cancel).await;
    assert_eq!(report.failure_reason(), Some(FailureReason::JobCanceled));
}

#[tokio::test]
async fn a_working_tree_with_its_changes_is_fetched_by_the_guest() {
    let directory = tempfile::tempdir().unwrap();
    let script = "git init -q -b main && echo old > file && mkdir sub && git add . \
         && git -c user.name=a -c user.email=a@b commit -qm 'First one' && echo new > file && echo more > sub/untracked";
    let made =
        std::process::Command::new("sh").args(["-c", script]).current_dir(&directory).status().unwrap();
    assert!(made.success());
    let snapshot = Snapshot::take(directory.path()).await.unwrap();
    let host = host(|_| {}).await;
    let script =
        ["cat file sub/untracked", "command -v git && git log --oneline || true", "test -d $CI_PROJECT_DIR"];
    let mut job = job(&script, |payload| {
        payload["variables"] = json!([]);
        payload["token"] = json!("");
        payload["git_info"] = json!({
            "repo_url": snapshot.repo_url(), "sha": snapshot.commit().sha, "ref": snapshot.ref_name(),
            "refspecs": snapshot.refspecs(), "depth": 20
        });
    });
    job.allowed.push(snapshot.allowed().unwrap());
    let (report, log) = run(&host, job).await;
    assert!(report.succeeded(), "{log}");
    assert!(log.contains("new\nmore\n"), "{log}");
    assert!(report.usage.network.connections > 0, "{report:?}");
}

/// The monitor of the host's only machine.
fn monitor(host: &Host) -> rustix::process::Pid {
    let state = host.state.path().to_str().unwrap();
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let monitors = processes.filter(|process| {
        let line = std::fs::read_to_string(process.path().join("cmdline")).unwrap_or_default();
        line.split('\0').next().is_some_and(|program| program.contains("qemu")) && line.contains(state)
    });
    let numbers = monitors.filter_map(|process| process.file_name().to_str()?.parse().ok());
    rustix::process::Pid::from_raw(numbers.last().unwrap()).unwrap()
}

#[tokio::test]
async fn a_monitor_that_is_killed_is_a_system_failure() {
    let host = host(|_| {}).await;
    let log = Log::default();
    let (_signal, signals) = watch::channel(JobSignal::None);
    let running = run_job(&host.setup, job(ENDLESS, with_after_script), log.clone(), signals, &NoObserver);
    let kill = async {
        log.shows("begun\n").await;
        rustix::process::kill_process(monitor(&host), rustix::process::Signal::KILL).unwrap();
    };
    let (report, ()) = tokio::join!(running, kill);
    assert_eq!(report.failure_reason(), Some(FailureReason::RunnerSystemFailure));
    assert!(log.text().contains("the virtual machine is gone"), "{}", log.text());
    assert_eq!(host.left_behind(), [] as [&str; 0]);
}

#[tokio::test]
async fn a_job_whose_future_is_dropped_leaves_nothing_behind() {
    let host = host(|_| {}).await;
    let log = Log::default();
    let (_signal, signals) = watch::channel(JobSignal::None);
    let running = run_job(&host.setup, job(ENDLESS, |_| {}), log.clone(), signals, &NoObserver);
    tokio::select! {
        report = running => panic!("it ended: {report:?}"),
        () = log.shows("begun\n") => {}
    }
    assert_eq!(host.left_behind(), [] as [&str; 0]);
}

#[tokio::test]
async fn a_guest_that_does_not_come_up_is_tried_three_times() {
    let host = host(|config| config.boot_timeout = std::time::Duration::from_millis(50)).await;
    let (report, log) = run(&host, job(&["true"], |_| {})).await;
    assert_eq!(report.failure_reason(), Some(FailureReason::RunnerSystemFailure));
    assert_eq!(log.matches("Preparation failed: the virtual machine").count(), 3, "{log}");
    assert_eq!(log.matches("Will be retried in 3s ...").count(), 2, "{log}");
}

#[tokio::test]
async fn images_that_are_not_there_are_the_authors_business() {
    let host = host(|_| {}).await;
    let (report, log) =
        run(&host, job(&["true"], |payload| payload["image"] = json!({"name": "ruby:$V"}))).await;
    assert_eq!(report.failure_reason(), Some(FailureReason::RunnerConfigurationError));
    assert!(log.contains("`ruby:` is no name of an image"), "{log}");
}

#[tokio::test]
async fn a_user_other_than_root_can_work_in_the_project() {
    let host = host(|config| config.network.mode = tart_config::NetworkMode::Auto).await;
    let script =
        ["id -u", "echo hello > file", "cat $FILE", "echo A=b >> $GITLAB_ENV", "touch $CI_BUILDS_DIR/x"];
    let job = job(&script, |payload| {
        payload["image"] = json!({"name": "default", "executor_opts": {"docker": {"user": "nobody"}}});
        let variables = payload["variables"].as_array_mut().unwrap();
        variables.push(json!({"key": "FILE", "value": "mine\n", "file": true}));
        variables.push(json!({"key": "GIT_STRATEGY", "value": "empty"}));
    });
    let (report, log) = run(&host, job).await;
    assert!(report.succeeded(), "{log}");
    assert!(log.contains("\n65534\n"), "{log}");
    assert!(log.contains("\nmine\n"), "{log}");
}

#[tokio::test]
async fn sources_that_cannot_be_fetched_are_tried_again_and_no_script_runs() {
    let host = host(|_| {}).await;
    let job = job(&["echo never"], |payload| {
        with_after_script(payload);
        payload["variables"] = json!([
            {"key": "GET_SOURCES_ATTEMPTS", "value": "2"},
            {"key": "FF_USE_EXPONENTIAL_BACKOFF_STAGE_RETRY", "value": "false"}
        ]);
        payload["git_info"]["refspecs"] = json!(["+refs/pipelines/1:refs/pipelines/1"]);
    });
    let (report, log) = run(&host, job).await;
    assert_eq!(report.failure_reason(), Some(FailureReason::ScriptFailure), "{log}");
    assert_eq!(log.matches("Getting source from Git repository").count(), 2, "{log}");
    assert_eq!(log.matches("Deleting all tracked and untracked files").count(), 1, "{log}");
    assert!(!log.contains("never") && !log.contains("after failed"), "{log}");
}

#[tokio::test]
async fn a_limit_of_the_preparation_ends_the_job() {
    let host = host(|_| {}).await;
    let mut job = job(&["true"], |_| {});
    let limit = Some(std::time::Duration::from_millis(300));
    job.runner = tart_config::Runner { prepare_timeout: limit, ..tart_config::Runner::default() }.into();
    let (report, log) = run(&host, job).await;
    assert_eq!(report.failure_reason(), Some(FailureReason::JobExecutionTimeout), "{log}");
    assert!(log.contains("prepare_executor could not run to completion"), "{log}");
}

#[tokio::test]
async fn artifacts_without_a_server_are_said_and_do_not_fail_the_job() {
    let host = host(|_| {}).await;
    let job = job(&["true"], |payload| {
        payload["artifacts"] = json!([{"paths": ["out"], "when": "on_success"}]);
    });
    let (report, log) = run(&host, job).await;
    assert!(report.succeeded(), "{log}");
    assert_eq!(log.matches("artifacts are neither downloaded nor kept").count(), 1, "{log}");
}

/// A file tree with `sh` and links.
fn image_with(links: &[(&str, &str)]) -> tempfile::TempDir {
    let image = tempfile::tempdir().unwrap();
    std::fs::create_dir(image.path().join("bin")).unwrap();
    std::fs::copy("/bin/busybox", image.path().join("bin/busybox")).unwrap();
    for (link, to) in [("bin/sh", "busybox")].iter().chain(links) {
        std::os::unix::fs::symlink(to, image.path().join(link)).unwrap();
    }
    image
}

fn job_in(image: &tempfile::TempDir, script: &str, change: impl FnOnce(&mut serde_json::Value)) -> JobRun {
    JobRun { image: Some(image.path().display().to_string()), ..job(&[script], change) }
}

#[tokio::test]
async fn links_of_an_image_lead_neither_to_the_agents_files_nor_to_the_kernels() {
    let host = host(|_| {}).await;
    // The agent has a directory of that name; the image has none.
    for link in [("builds", "/run/tart/scratch"), ("cache", "../../run/tart/disk"), ("builds", "/proc")] {
        let (report, log) = run(&host, job_in(&image_with(&[link]), "echo reached", |_| {})).await;
        assert_eq!(report.failure_reason(), Some(FailureReason::RunnerSystemFailure), "{link:?}: {log}");
        assert!(log.contains("cannot make "), "{link:?}: {log}");
        assert!(!log.contains("\nreached\n"), "{link:?}: {log}");
    }
}

#[tokio::test]
async fn a_shell_as_entrypoint_keeps_its_own_variables() {
    let host = host(|_| {}).await;
    let entrypoint = ["/bin/sh", "-c", "echo entered by $0; exec \"$@\"", "door"];
    let image = image_with(&[]);
    let job = job_in(&image, "echo inside", |payload| {
        payload["image"] = json!({"name": "app", "entrypoint": entrypoint});
    });
    let (report, log) = run(&host, job).await;
    assert!(report.succeeded(), "{log}");
    for line in ["\nentered by door\n", "\ninside\n"] {
        assert!(log.contains(line), "{line:?}: {log}");
    }
}
