//! `PUT jobs/:id`.

use std::sync::Arc;
use std::time::SystemTime;

use axum::extract::{Path, State as Shares};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use tokio::time::Instant;

use crate::api::answer::{Outcome, Refusal, finish, forbidden, job_headers, message, record, violation};
use crate::api::call::{Call, JOB_TOKEN};
use crate::job::{Job, JobState, Update};
use crate::state::{Shared, State};
use crate::strict::{Fields, Problems, check_info, crc32_text};

/// The reasons every server takes, whatever it says in `features.failure_reasons`.
const ALWAYS_KNOWN: [&str; 4] =
    ["script_failure", "runner_system_failure", "job_execution_timeout", "unknown_failure"];

/// Shorter values are masked too, but are found in logs by accident.
const MIN_SECRET_BYTES: usize = 8;

/// Moves a job through its states.
pub(crate) async fn update(Shares(shared): Shares<Arc<Shared>>, Path(id): Path<u64>, call: Call) -> Response {
    finish(try_update(&shared, id, &call))
}

fn try_update(shared: &Shared, id: u64, call: &Call) -> Outcome {
    let (update, token) = parse(shared, id, call)?;
    shared.update(|state| {
        let interval = state.update_interval;
        let job = authorize(state, id, &token)?;
        let before = job.state;
        let outcome = advance(state, id, &update, call, shared.settings.ack_window);
        let mut response = finish(outcome);
        let job = state.jobs.get_mut(&id).expect("it was authorized");
        job_headers(&mut response, job.state, interval);
        job.updates.push(Update { status: response.status().as_u16(), ..update });
        if job.state != before && job.state.is_finished() {
            note_secrets(state, id, call);
            // Jobs that depend on this one may go now.
            state.tick_queue();
        }
        Ok(response)
    })
}

/// The job of this token; as on a real server an unknown job is a forbidden one.
pub(crate) fn authorize<'a>(state: &'a mut State, id: u64, token: &str) -> Result<&'a mut Job, Refusal> {
    match state.jobs.get_mut(&id) {
        Some(job) if job.token == token => Ok(job),
        _ => Err(forbidden().into()),
    }
}

/// `JOB-TOKEN`, as a copy.
pub(crate) fn job_token(problems: &mut Problems, headers: &HeaderMap) -> String {
    problems.header(headers, &JOB_TOKEN).unwrap_or_default().to_owned()
}

fn parse(shared: &Shared, id: u64, call: &Call) -> Result<(Update, String), Refusal> {
    let mut problems = Problems::default();
    problems.common_headers(&call.headers);
    problems.json_headers(&call.headers, false);
    let token = job_token(&mut problems, &call.headers);
    let body = call.object(&mut problems);
    let mut fields = Fields::new(&body, "body");
    let in_body = fields.word(&mut problems, "token");
    problems.check(in_body.is_none_or(|in_body| in_body == token), || {
        "JOB-TOKEN is not the token of the body".into()
    });
    if let Some(info) = fields.required_object(&mut problems, "info") {
        check_info(&mut problems, info, true);
    }
    let state = fields.word(&mut problems, "state").unwrap_or_default();
    problems.check(matches!(state, "pending" | "running" | "success" | "failed"), || {
        format!("state {state:?} is not known")
    });
    let failure_reason = fields.text(&mut problems, "failure_reason");
    problems.check(failure_reason.is_some() == (state == "failed"), || {
        "failure_reason belongs to the state failed, and only to it".into()
    });
    if let Some(reason) = failure_reason {
        let known = ALWAYS_KNOWN.contains(&reason)
            || shared.read(|state| {
                let job = state.jobs.get(&id);
                job.is_none_or(|job| job.spec.failure_reasons.iter().any(|known| known == reason))
            });
        problems.check(known, || format!("failure_reason {reason:?} was not offered to the runner"));
    }
    let exit_code = fields.integer(&mut problems, "exit_code");
    if let Some(code) = exit_code {
        problems.check(i32::try_from(code).is_ok(), || format!("exit_code {code} has more than 32 bits"));
        problems.check(code != 0, || "exit_code 0 is not sent".into());
        problems.check(state == "failed", || "exit_code without the state failed".into());
    }
    let deprecated = fields.text(&mut problems, "checksum");
    fields.text(&mut problems, "runtime_environment_key");
    let mut update = Update {
        at: SystemTime::now(),
        state: state.into(),
        failure_reason: failure_reason.map(String::from),
        exit_code,
        checksum: None,
        bytesize: None,
        status: 0,
    };
    if let Some(output) = fields.required_object(&mut problems, "output") {
        let mut output = Fields::new(output, "output");
        update.checksum = output.text(&mut problems, "checksum").map(String::from);
        let size = output.integer(&mut problems, "bytesize");
        update.bytesize = size.and_then(|size| u64::try_from(size).ok());
        problems.check(size.is_none() || update.bytesize.is_some(), || "output.bytesize is negative".into());
        output.finish(&mut problems);
    }
    if let Some(checksum) = &update.checksum {
        problems.check(is_checksum(checksum), || {
            format!("checksum {checksum:?} is not `crc32:` with 8 lower-case hexadecimal digits")
        });
    }
    problems.check(deprecated.is_none() || deprecated == update.checksum.as_deref(), || {
        "checksum is not the copy of output.checksum".into()
    });
    problems.check(update.checksum.is_some() == update.bytesize.is_some(), || {
        "output has only one of checksum and bytesize".into()
    });
    fields.finish(&mut problems);
    call.refuse(shared, problems)?;
    Ok((update, token))
}

fn is_checksum(text: &str) -> bool {
    text.strip_prefix("crc32:").is_some_and(|digits| {
        digits.len() == 8 && digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    })
}

/// The state machine: what an update does to the job it is for.
fn advance(
    state: &mut State,
    id: u64,
    update: &Update,
    call: &Call,
    ack_window: std::time::Duration,
) -> Outcome {
    let job = state.jobs.get_mut(&id).ok_or_else(forbidden)?;
    let ok = || message(StatusCode::OK, "200 OK");
    match (job.state, update.state.as_str()) {
        (state, _) if state.is_finished() => Ok(forbidden()),
        (JobState::Pending, "pending" | "running") => match &mut job.assignment {
            None => Ok(message(StatusCode::BAD_REQUEST, "400 Bad request - the job is not assigned")),
            Some(assignment) if update.state == "pending" => {
                assignment.deadline = Instant::now() + ack_window;
                Ok(ok())
            }
            Some(_) => {
                job.state = JobState::Running;
                Ok(ok())
            }
        },
        (JobState::Pending, _) => {
            Ok(violation(state, &call.what, "the job was ended before it was acknowledged as running"))
        }
        (_, "pending") => Ok(message(StatusCode::CONFLICT, "409 Conflict - the job runs already")),
        (_, "running") => {
            if let (Some(size), stored) = (update.bytesize, job.log.len() as u64)
                && size < stored
            {
                let problem = format!("output.bytesize is {size}, but {stored} bytes were sent already");
                return Ok(violation(state, &call.what, &problem));
            }
            Ok(ok())
        }
        _ => complete(state, id, update, call),
    }
}

/// The final update: the log must be all there.
fn complete(state: &mut State, id: u64, update: &Update, call: &Call) -> Outcome {
    let job = state.jobs.get_mut(&id).ok_or_else(forbidden)?;
    let stored = (Some(crc32_text(&job.log)), Some(job.log.len() as u64));
    if (update.checksum.clone(), update.bytesize) != stored {
        let problem = format!(
            "the final update has checksum {:?} and bytesize {:?}, but the stored log has {:?} and {:?}",
            update.checksum, update.bytesize, stored.0, stored.1
        );
        if !job.spec.resend_on_mismatch {
            return Ok(violation(state, &call.what, &problem));
        }
        job.resend_allowed = true;
        return Ok(message(StatusCode::PRECONDITION_FAILED, &problem));
    }
    job.exit_code = update.exit_code;
    job.state = match (job.state, update.state.as_str()) {
        (JobState::Canceling, _) => JobState::Canceled,
        (_, "success") => JobState::Success,
        _ => {
            job.failure_reason = update.failure_reason.clone();
            JobState::Failed
        }
    };
    Ok(message(StatusCode::OK, "200 OK"))
}

/// Breaches in a log that is complete; the answer stays good, as nothing can be mended any more.
fn note_secrets(state: &mut State, id: u64, call: &Call) {
    let Some(job) = state.jobs.get(&id) else { return };
    let mut problems = Vec::new();
    if std::str::from_utf8(&job.log).is_err() {
        problems.push("the log is not UTF-8".to_owned());
    }
    let secrets = job.sent_variables.iter().filter(|variable| variable.masked);
    for variable in secrets.filter(|variable| variable.value.len() >= MIN_SECRET_BYTES) {
        let secret = variable.value.as_bytes();
        if job.log.windows(secret.len()).any(|window| window == secret) {
            problems.push(format!("the log shows the value of the masked variable {}", variable.key));
        }
    }
    for problem in problems {
        record(state, &call.what, &problem);
    }
}
