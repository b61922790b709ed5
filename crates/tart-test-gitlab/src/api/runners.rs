//! Registration and identity of runners.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::{HeaderName, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use crate::api::answer::{Outcome, finish, forbidden, json_answer, message};
use crate::api::call::Call;
use crate::runner::{RunnerOptions, create};
use crate::state::Shared;
use crate::strict::{Fields, Problems, check_info, check_system_id};

/// The shortest `maximum_timeout` a server takes, in seconds.
const MIN_TIMEOUT_SECS: i64 = 600;
const MAX_NOTE_CHARS: usize = 1024;

/// `POST runners`: the legacy registration.
pub(crate) async fn register(State(shared): State<Arc<Shared>>, call: Call) -> Response {
    finish(try_register(&shared, &call))
}

fn try_register(shared: &Shared, call: &Call) -> Outcome {
    let mut problems = Problems::default();
    problems.common_headers(&call.headers);
    problems.json_headers(&call.headers, true);
    let body = call.object(&mut problems);
    let mut fields = Fields::new(&body, "body");
    let token = fields.word(&mut problems, "token");
    call.runner_token_header(&mut problems, token);
    let description = fields.text(&mut problems, "description");
    let note = fields.text(&mut problems, "maintenance_note");
    let tags = fields.text(&mut problems, "tag_list").unwrap_or_default();
    let run_untagged = fields.boolean(&mut problems, "run_untagged").unwrap_or(false);
    fields.boolean(&mut problems, "locked");
    let access_level = fields.text(&mut problems, "access_level");
    problems.check(matches!(access_level, None | Some("not_protected" | "ref_protected")), || {
        format!("access_level {access_level:?} is not known")
    });
    let maximum_timeout = fields.integer(&mut problems, "maximum_timeout");
    let paused = fields.boolean(&mut problems, "paused").unwrap_or(false);
    if let Some(info) = fields.required_object(&mut problems, "info") {
        check_info(&mut problems, info, false);
    }
    fields.finish(&mut problems);
    call.refuse(shared, problems)?;

    if !shared.read(|state| state.registration_enabled) {
        return Ok(message(StatusCode::GONE, "410 Gone - runner registration disallowed"));
    }
    if token != Some(&*shared.settings.registration_token) {
        return Ok(message(StatusCode::FORBIDDEN, "403 Forbidden - invalid token supplied"));
    }
    let tags: Vec<&str> = tags.split(',').map(str::trim).filter(|tag| !tag.is_empty()).collect();
    let mut invalid = serde_json::Map::new();
    if tags.is_empty() && !run_untagged {
        let text = "can not be empty when runner is not allowed to pick untagged jobs";
        invalid.insert("tags_list".into(), json!([text]));
    }
    if maximum_timeout.is_some_and(|seconds| seconds < MIN_TIMEOUT_SECS) {
        invalid.insert("maximum_timeout".into(), json!(["needs to be at least 10 minutes"]));
    }
    if note.is_some_and(|note| note.chars().count() > MAX_NOTE_CHARS) {
        let text = format!("is too long (maximum is {MAX_NOTE_CHARS} characters)");
        invalid.insert("maintenance_note".into(), json!([text]));
    }
    if !invalid.is_empty() {
        return Ok(json_answer(StatusCode::BAD_REQUEST, &json!({ "message": invalid })));
    }

    let mut options = RunnerOptions::default()
        .description(description.unwrap_or_default())
        .tags(tags)
        .run_untagged(run_untagged);
    if paused {
        options = options.paused();
    }
    let credentials = shared.update(|state| {
        let id = create(state, options, "t1_");
        state.runners[&id].credentials()
    });
    Ok(json_answer(StatusCode::CREATED, &credentials))
}

/// `POST runners/verify`.
pub(crate) async fn verify(State(shared): State<Arc<Shared>>, call: Call) -> Response {
    finish(try_verify(&shared, &call))
}

fn try_verify(shared: &Shared, call: &Call) -> Outcome {
    let mut problems = Problems::default();
    problems.common_headers(&call.headers);
    problems.json_headers(&call.headers, true);
    let body = call.object(&mut problems);
    let mut fields = Fields::new(&body, "body");
    let token = fields.word(&mut problems, "token");
    call.runner_token_header(&mut problems, token);
    let system_id = fields.text(&mut problems, "system_id");
    if let Some(id) = system_id {
        check_system_id(&mut problems, id);
    }
    let info = fields.object(&mut problems, "info");
    if let Some(info) = info {
        check_info(&mut problems, info, false);
    }
    fields.finish(&mut problems);
    call.refuse(shared, problems)?;

    Ok(shared.update(|state| {
        let runner = token.and_then(|token| state.runners.values_mut().find(|runner| runner.token == token));
        let Some(runner) = runner else { return forbidden() };
        if runner.orphaned {
            return orphaned();
        }
        if let Some(id) = system_id {
            let info = info.cloned().map_or(Value::Null, Value::Object);
            runner.managers.insert(id.into(), info);
        }
        json_answer(StatusCode::OK, &runner.credentials())
    }))
}

pub(crate) fn orphaned() -> Response {
    message(StatusCode::UNPROCESSABLE_ENTITY, "422 Unprocessable entity - Runner is orphaned")
}

/// `DELETE runners`.
pub(crate) async fn delete(State(shared): State<Arc<Shared>>, call: Call) -> Response {
    finish(try_delete(&shared, &call, false))
}

/// `DELETE runners/managers`.
pub(crate) async fn delete_manager(State(shared): State<Arc<Shared>>, call: Call) -> Response {
    finish(try_delete(&shared, &call, true))
}

fn try_delete(shared: &Shared, call: &Call, manager: bool) -> Outcome {
    let mut problems = Problems::default();
    problems.common_headers(&call.headers);
    problems.json_headers(&call.headers, false);
    let body = call.object(&mut problems);
    let mut fields = Fields::new(&body, "body");
    let token = fields.word(&mut problems, "token");
    call.runner_token_header(&mut problems, token);
    let system_id = if manager { fields.word(&mut problems, "system_id") } else { None };
    fields.finish(&mut problems);
    call.refuse(shared, problems)?;

    Ok(shared.update(|state| {
        let id = token.and_then(|token| state.runner_by_token(token)).map(|runner| runner.id);
        let Some(id) = id else { return forbidden() };
        if let Some(system_id) = system_id {
            let removed = state.runners.get_mut(&id).and_then(|runner| runner.managers.remove(system_id));
            if removed.is_none() {
                return message(StatusCode::NOT_FOUND, "404 Runner manager Not Found");
            }
        } else {
            state.runners.remove(&id);
        }
        state.tick_queue();
        StatusCode::NO_CONTENT.into_response()
    }))
}

/// `POST runners/reset_authentication_token`, with the token itself.
pub(crate) async fn reset_own_token(State(shared): State<Arc<Shared>>, call: Call) -> Response {
    finish(try_reset_own(&shared, &call))
}

fn try_reset_own(shared: &Shared, call: &Call) -> Outcome {
    let mut problems = Problems::default();
    problems.common_headers(&call.headers);
    problems.json_headers(&call.headers, true);
    let body = call.object(&mut problems);
    let mut fields = Fields::new(&body, "body");
    let token = fields.word(&mut problems, "token");
    fields.finish(&mut problems);
    call.refuse(shared, problems)?;

    Ok(shared.update(|state| {
        let runner = token.and_then(|token| state.runners.values_mut().find(|runner| runner.token == token));
        let Some(runner) = runner else { return forbidden() };
        runner.rotate();
        json_answer(StatusCode::CREATED, &runner.credentials())
    }))
}

/// `POST runners/:id/reset_authentication_token`, with a personal access token.
pub(crate) async fn reset_token(
    State(shared): State<Arc<Shared>>,
    Path(id): Path<u64>,
    call: Call,
) -> Response {
    finish(try_reset(&shared, id, &call))
}

fn try_reset(shared: &Shared, id: u64, call: &Call) -> Outcome {
    let mut problems = Problems::default();
    problems.common_headers(&call.headers);
    problems.json_headers(&call.headers, true);
    let private = problems.header(&call.headers, &HeaderName::from_static("private-token"));
    problems.check(call.body.trim_ascii() == b"null", || "the body is not the JSON null".into());
    call.refuse(shared, problems)?;

    if private != Some(&*shared.settings.private_token) {
        return Ok(message(StatusCode::UNAUTHORIZED, "401 Unauthorized"));
    }
    Ok(shared.update(|state| match state.runners.get_mut(&id) {
        Some(runner) => {
            runner.rotate();
            json_answer(StatusCode::CREATED, &runner.credentials())
        }
        None => message(StatusCode::NOT_FOUND, "404 Runner Not Found"),
    }))
}
