//! `PATCH jobs/:id/trace`.

use std::sync::Arc;

use axum::extract::{Path, State as Shares};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use crate::api::answer::{Outcome, finish, forbidden, job_headers, violation};
use crate::api::call::{Call, query};
use crate::api::update::{authorize, job_token};
use crate::job::{Job, JobState};
use crate::state::Shared;
use crate::strict::{Problems, parse_content_range};

const MAX_CHUNK_BYTES: usize = 1 << 20;

/// Appends a chunk to the log.
pub(crate) async fn append(Shares(shared): Shares<Arc<Shared>>, Path(id): Path<u64>, call: Call) -> Response {
    finish(try_append(&shared, id, &call))
}

fn try_append(shared: &Shared, id: u64, call: &Call) -> Outcome {
    let mut problems = Problems::default();
    problems.common_headers(&call.headers);
    problems.media_type(&call.headers, "text/plain");
    problems.header(&call.headers, &header::CONTENT_LENGTH);
    let token = job_token(&mut problems, &call.headers);
    let parameters = query(&mut problems, call.query.as_deref(), &["debug_trace"]);
    let debug_trace = parameters.get("debug_trace").map(String::as_str);
    problems.check(matches!(debug_trace, Some("true" | "false")), || {
        format!("debug_trace is {debug_trace:?} instead of true or false")
    });
    let length = call.body.len();
    problems.check(length > 0, || "the chunk is empty".into());
    problems.check(length <= MAX_CHUNK_BYTES, || format!("the chunk of {length} bytes is above 1 MiB"));
    let range = problems.header(&call.headers, &header::CONTENT_RANGE).unwrap_or_default();
    let start = match parse_content_range(range) {
        Some((start, end)) => {
            problems.check(end.checked_add(1) == start.checked_add(length), || {
                format!("Content-Range {range} does not fit a chunk of {length} bytes")
            });
            start
        }
        None => {
            problems.add(format!("Content-Range {range:?} is not `<start>-<end>`"));
            0
        }
    };
    call.refuse(shared, problems)?;

    shared.update(|state| {
        let interval = state.update_interval;
        let job = authorize(state, id, &token)?;
        if job.state == JobState::Pending {
            let problem = "the log was sent before the job was acknowledged as running";
            return Ok(violation(state, &call.what, problem));
        }
        let mut response = if job.state.is_active() {
            store(job, start, &call.body, debug_trace == Some("true"))
        } else {
            forbidden()
        };
        job_headers(&mut response, job.state, interval);
        Ok(response)
    })
}

fn store(job: &mut Job, start: usize, chunk: &[u8], debug_trace: bool) -> Response {
    if std::mem::take(&mut job.resend_allowed) && start == 0 {
        job.log.clear();
    }
    let status = if start != job.log.len() {
        StatusCode::RANGE_NOT_SATISFIABLE
    } else if start + chunk.len() > job.spec.log_limit {
        job.drop_with("trace_size_exceeded");
        return forbidden();
    } else {
        if start == 0 {
            job.debug_trace = debug_trace;
        }
        job.log.extend_from_slice(chunk);
        StatusCode::ACCEPTED
    };
    // The end of the answer's range is the number of bytes stored: one past the last.
    let stored = format!("0-{}", job.log.len());
    let range = HeaderValue::from_str(&stored).expect("digits are plain ASCII");
    (status, [(header::RANGE, range)], stored).into_response()
}
