use tart_ci_file::{Ending, Files, Job, Pipeline};

use super::*;

struct Text(&'static str);

impl Files for Text {
    fn read(&self, _path: &str) -> Result<String, String> {
        Ok(self.0.to_owned())
    }

    fn list(&self) -> Result<Vec<String>, String> {
        Ok(Vec::new())
    }
}

/// The plan of a file without conditions and `needs`.
fn plan(text: &'static str) -> Plan {
    let pipeline = Pipeline::load(&Text(text), ".gitlab-ci.yml").expect("it is valid");
    let stage = |job: &Job| pipeline.stages.iter().position(|stage| *stage == job.stage).unwrap_or_default();
    let planned = |job: Job| PlannedJob {
        stage: stage(&job),
        reason: String::new(),
        needs: None,
        artifacts_of: Vec::new(),
        job,
    };
    let jobs = pipeline.jobs.values().cloned().map(planned).collect();
    Plan { name: None, refused: None, jobs, left_out: Vec::new(), notes: Vec::new() }
}

fn failed(exit_code: i32) -> Ending {
    Ending::Failed { reason: "script_failure".to_owned(), exit_code: Some(exit_code) }
}

/// Runs jobs, of which the named ones do not succeed, and shows what became of all.
fn show(plan: &Plan, endings: &[(&str, Ending)]) -> String {
    let mut schedule = Schedule::new(plan.tasks(|_| false));
    let mut outcomes = vec![Outcome::default(); plan.jobs.len()];
    while let Some(at) = schedule.start() {
        let name = plan.jobs[at].job.name.as_str();
        let ending = endings.iter().find(|(job, _)| *job == name).map(|(_, ending)| ending.clone());
        let note = match &ending {
            Some(Ending::Failed { exit_code: Some(code), .. }) => format!("exit code {code}"),
            _ => String::new(),
        };
        if plan.jobs[at].job.not_runnable.is_none() {
            outcomes[at] = Outcome { took: Some(Duration::from_secs(61)), note };
        }
        if ending == Some(Ending::Canceled) {
            schedule.cancel();
        }
        schedule.end(at, &ending.unwrap_or(Ending::Success));
    }
    let verdict = verdict(plan, &schedule, Duration::from_secs(200));
    format!("{}{verdict}\n", table(plan, &schedule, &outcomes))
}

const FILE: &str = "
stages: [build, test, deploy]
build: { stage: build, script: x }
test: { stage: test, script: x, retry: 1 }
lint: { stage: test, script: x, allow_failure: true }
other: { stage: test, trigger: a/b }
deploy: { stage: deploy, script: x }
mend: { stage: deploy, script: x, when: on_failure }
ask: { stage: deploy, script: x, when: manual }
";

#[test]
fn everybody_sees_what_failed_and_what_did_not_run() {
    insta::assert_snapshot!(show(&plan(FILE), &[("test", failed(7)), ("lint", failed(1))]), @r"
    STAGE   JOB     STATE             TIME       NOTE
    build   build   passed            1 min 1 s
    test    test    failed            1 min 1 s  exit code 7 (try 2 of 2)
    test    lint    failed (allowed)  1 min 1 s  exit code 1
    test    other   not here                     it triggers another pipeline, which only GitLab can do
    deploy  deploy  skipped
    deploy  mend    passed            1 min 1 s
    deploy  ask     skipped
    the pipeline failed: `test` (3 min 20 s)
    ");
}

#[test]
fn a_pipeline_passes_with_failures_that_are_allowed() {
    insta::assert_snapshot!(show(&plan(FILE), &[("lint", failed(1))]), @r"
    STAGE   JOB     STATE             TIME       NOTE
    build   build   passed            1 min 1 s
    test    test    passed            1 min 1 s
    test    lint    failed (allowed)  1 min 1 s  exit code 1
    test    other   not here                     it triggers another pipeline, which only GitLab can do
    deploy  deploy  passed            1 min 1 s
    deploy  mend    skipped
    deploy  ask     manual                       `--manual 'ask'` runs it
    the pipeline passed (3 min 20 s)
    ");
}

#[test]
fn a_pipeline_may_wait_or_be_canceled() {
    let waits = "
stages: [ask, deploy]
ask: { stage: ask, script: x, when: manual, allow_failure: false }
deploy: { stage: deploy, script: x }
";
    insta::assert_snapshot!(show(&plan(waits), &[]), @r"
    STAGE   JOB     STATE        TIME  NOTE
    ask     ask     manual             `--manual 'ask'` runs it
    deploy  deploy  not reached
    the pipeline waits for `ask` (3 min 20 s)
    ");
    insta::assert_snapshot!(show(&plan(FILE), &[("build", Ending::Canceled)]), @r"
    STAGE   JOB     STATE     TIME       NOTE
    build   build   canceled  1 min 1 s
    test    test    canceled
    test    lint    canceled
    test    other   canceled
    deploy  deploy  canceled
    deploy  mend    canceled
    deploy  ask     canceled
    the pipeline was canceled (3 min 20 s)
    ");
}

#[test]
fn the_last_line_says_what_runs_and_for_how_long() {
    let plan = plan(FILE);
    let mut schedule = Schedule::new(plan.tasks(|_| false));
    let build = schedule.start().expect("it is the first");
    schedule.end(build, &Ending::Success);
    let mut ages = vec![None; plan.jobs.len()];
    while let Some(at) = schedule.start() {
        ages[at] = Some(Duration::from_secs(60 + at as u64));
    }
    insta::assert_snapshot!(status(&plan, &schedule, &ages), @"1 of 7 jobs are over; running: test (1 min 1 s), lint (1 min 2 s), other (1 min 3 s)");
}

#[test]
fn a_delay_is_told() {
    let plan = plan("later: { script: x, when: delayed, start_in: 30 minutes }\n");
    insta::assert_snapshot!(start(&plan.jobs[0], 0), @"started; on GitLab it would wait for 30 minutes");
    insta::assert_snapshot!(start(&plan.jobs[0], 1), @"started again");
}
