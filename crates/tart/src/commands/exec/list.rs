//! `tart exec --list`

use std::process::ExitCode;

use tart_ci_file::{Plan, PlannedJob, When};

use super::Event;
use crate::output;

/// Prints which jobs run for an event, and why others do not.
pub(super) fn show(plan: &Plan, event: &Event) -> anyhow::Result<ExitCode> {
    output::to_stdout(&render(plan, event))?;
    Ok(ExitCode::SUCCESS)
}

fn render(plan: &Plan, event: &Event) -> String {
    let name = plan.name.as_ref().map(|name| format!("{name}: ")).unwrap_or_default();
    let mut text = format!("{name}{}\n", event.describe());
    if let Some(why) = &plan.refused {
        text.push_str(&format!("GitLab would make no pipeline: {why}\n"));
    }
    if !plan.jobs.is_empty() {
        let row = |planned: &PlannedJob| {
            let job = &planned.job;
            [job.stage.clone(), job.name.clone(), when(planned), needs(plan, planned), planned.reason.clone()]
        };
        let rows: Vec<[String; 5]> = plan.jobs.iter().map(row).collect();
        text.push('\n');
        text.push_str(&output::table(["STAGE", "JOB", "WHEN", "NEEDS", "WHY"], &rows));
    }
    if !plan.left_out.is_empty() {
        let rows: Vec<[String; 2]> = plan.left_out.iter().cloned().map(<[String; 2]>::from).collect();
        text.push('\n');
        text.push_str(&output::table(["NOT RUN", "WHY"], &rows));
    }
    text
}

fn when(planned: &PlannedJob) -> String {
    let job = &planned.job;
    match (job.not_runnable, job.when, &job.start_in) {
        (Some(_), ..) => "not here".to_owned(),
        (None, When::Delayed, Some(start_in)) => format!("delayed ({start_in})"),
        (None, when, _) => when.as_str().to_owned(),
    }
}

fn needs(plan: &Plan, planned: &PlannedJob) -> String {
    let Some(needs) = &planned.needs else {
        let first = plan.jobs.iter().all(|other| other.stage >= planned.stage);
        return if first { "nothing" } else { "earlier stages" }.to_owned();
    };
    let names: Vec<&str> =
        needs.iter().filter_map(|at| plan.jobs.get(*at)).map(|other| other.job.name.as_str()).collect();
    if names.is_empty() { "nothing".to_owned() } else { names.join(", ") }
}
