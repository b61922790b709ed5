//! What became of a pipeline, for people.

use std::time::Duration;

use tart_ci_file::{PipelineStatus, Plan, PlannedJob, Schedule, State, When};

use crate::output;
use crate::progress::seconds;

/// How the last run of a job went.
#[derive(Debug, Clone, Default)]
pub(super) struct Outcome {
    /// How long it took; `None` if it did not run.
    pub(super) took: Option<Duration>,
    /// Why it failed.
    pub(super) note: String,
}

/// A table of all jobs.
pub(super) fn table(plan: &Plan, schedule: &Schedule, outcomes: &[Outcome]) -> String {
    let row = |(at, planned): (usize, &PlannedJob)| {
        let (job, state) = (&planned.job, schedule.state(at));
        let outcome = outcomes.get(at).cloned().unwrap_or_default();
        let took = outcome.took.map(seconds).unwrap_or_default();
        let note = note(planned, state, schedule.retried(at), outcome.note);
        [job.stage.clone(), job.name.clone(), word(planned, state).to_owned(), took, note]
    };
    let rows: Vec<[String; 5]> = plan.jobs.iter().enumerate().map(row).collect();
    output::table(["STAGE", "JOB", "STATE", "TIME", "NOTE"], &rows)
}

fn word(planned: &PlannedJob, state: State) -> &'static str {
    match state {
        State::Success if planned.job.not_runnable.is_some() => "not here",
        State::Success => "passed",
        State::Failed => "failed",
        State::Warning => "failed (allowed)",
        State::Skipped => "skipped",
        State::Canceled => "canceled",
        State::Manual => "manual",
        State::Created | State::Ready | State::Running => "not reached",
    }
}

fn note(planned: &PlannedJob, state: State, retried: u32, why: String) -> String {
    match (planned.job.not_runnable, state, retried) {
        (Some(why), State::Success, _) => why.to_owned(),
        (_, State::Manual, _) => format!("`--manual '{}'` runs it", planned.job.name),
        (_, _, 0) => why,
        (_, _, retried) => {
            let tries = format!("try {} of {}", retried + 1, planned.job.retry.max + 1);
            if why.is_empty() { tries } else { format!("{why} ({tries})") }
        }
    }
}

/// What became of the pipeline, in one line.
pub(super) fn verdict(plan: &Plan, schedule: &Schedule, took: Duration) -> String {
    let named = |wanted: State| -> Vec<String> {
        let jobs = plan.jobs.iter().enumerate().filter(|(at, _)| schedule.state(*at) == wanted);
        jobs.map(|(_, planned)| format!("`{}`", planned.job.name)).collect()
    };
    let failed = named(State::Failed);
    let result = match schedule.status() {
        _ if !failed.is_empty() => format!("failed: {}", failed.join(", ")),
        PipelineStatus::Manual => format!("waits for {}", named(State::Manual).join(", ")),
        PipelineStatus::Canceled => "was canceled".to_owned(),
        PipelineStatus::Skipped => "had no job to run".to_owned(),
        PipelineStatus::Success | PipelineStatus::Failed => "passed".to_owned(),
        PipelineStatus::Running => "was not run to its end".to_owned(),
    };
    format!("the pipeline {result} ({})", seconds(took))
}

/// Which jobs run, for the last line of a terminal.
pub(super) fn status(plan: &Plan, schedule: &Schedule, ages: &[Option<Duration>]) -> String {
    let running: Vec<String> = (plan.jobs.iter().zip(schedule.states()).zip(ages))
        .filter(|((_, state), _)| **state == State::Running)
        .map(|((planned, _), age)| format!("{} ({})", planned.job.name, seconds(age.unwrap_or_default())))
        .collect();
    let over = schedule.states().iter().filter(|state| state.is_over()).count();
    format!("{over} of {} jobs are over; running: {}", plan.jobs.len(), running.join(", "))
}

/// What is said of a job when it starts.
pub(super) fn start(planned: &PlannedJob, retried: u32) -> String {
    let again = if retried > 0 { " again" } else { "" };
    match (planned.job.when, &planned.job.start_in) {
        (When::Delayed, Some(start_in)) if retried == 0 => {
            format!("started; on GitLab it would wait for {start_in}")
        }
        _ => format!("started{again}"),
    }
}

#[cfg(test)]
mod tests;
