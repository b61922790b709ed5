//! `POST jobs/request`.

use std::sync::Arc;
use std::time::SystemTime;

use axum::extract::State as Shares;
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value};
use tokio::time::Instant;

use crate::api::answer::{Outcome, Refusal, finish, forbidden, json_answer, message};
use crate::api::call::Call;
use crate::api::runners::orphaned;
use crate::job::{Assignment, Job, JobState, Session};
use crate::payload::{needed_features, payload, variables};
use crate::runner::Runner;
use crate::settings::Settings;
use crate::state::{Shared, State};
use crate::strict::{Fields, Problems, check_info, check_system_id};

/// The proxy in front of a server takes no more.
const MAX_BODY_BYTES: usize = 32 << 10;

const LAST_UPDATE: HeaderName = HeaderName::from_static("x-gitlab-last-update");
const POLLING: HeaderName = HeaderName::from_static("gitlab-ci-builds-polling");

/// Answers at once, or holds the call while the runner knows of everything there is.
pub(crate) async fn request(Shares(shared): Shares<Arc<Shared>>, call: Call) -> Response {
    finish(try_request(&shared, &call).await)
}

/// What a valid call says.
struct Demand {
    token: String,
    system_id: String,
    last_update: Option<String>,
    info: Map<String, Value>,
    session: Option<Session>,
}

async fn try_request(shared: &Shared, call: &Call) -> Outcome {
    if call.body.len() > MAX_BODY_BYTES {
        return Ok(message(StatusCode::PAYLOAD_TOO_LARGE, "413 Request Entity Too Large"));
    }
    let demand = parse(shared, call)?;
    let runner_id = shared.update(|state| find_runner(state, &demand))?;
    let current = |state: &State| demand.last_update.as_ref() == Some(&state.queue);
    if shared.read(current) {
        if shared.settings.long_poll.is_zero() {
            return Ok(shared.read(nothing));
        }
        let changed = shared.wait_until(|state| (!current(state)).then_some(()));
        // Changed or not, the proxy that holds the call says 204 and knows no new value.
        let _ = tokio::time::timeout(shared.settings.long_poll, changed).await;
        return Ok((StatusCode::NO_CONTENT, [(POLLING, "yes")]).into_response());
    }
    Ok(shared.update(|state| give_job(state, &shared.settings, runner_id, &demand)))
}

fn parse(shared: &Shared, call: &Call) -> Result<Demand, Refusal> {
    let mut problems = Problems::default();
    problems.common_headers(&call.headers);
    problems.json_headers(&call.headers, true);
    let body = call.object(&mut problems);
    let mut fields = Fields::new(&body, "body");
    let token = fields.word(&mut problems, "token");
    call.runner_token_header(&mut problems, token);
    let system_id = fields.word(&mut problems, "system_id");
    if let Some(id) = system_id {
        check_system_id(&mut problems, id);
    }
    let last_update = fields.text(&mut problems, "last_update");
    if let Some(value) = last_update {
        let known = shared.read(|state| state.issued.contains(value));
        problems.check(known, || format!("last_update {value:?} was never given out"));
    }
    let info = fields.required_object(&mut problems, "info");
    if let Some(info) = info {
        check_info(&mut problems, info, true);
    }
    let session = fields.object(&mut problems, "session").and_then(|session| {
        let mut session = Fields::new(session, "session");
        let url = session.word(&mut problems, "url");
        let certificate = session.text(&mut problems, "certificate");
        let authorization = session.word(&mut problems, "authorization");
        session.finish(&mut problems);
        Some(Session {
            url: url?.into(),
            certificate: certificate.unwrap_or_default().into(),
            authorization: authorization?.into(),
        })
    });
    fields.finish(&mut problems);
    call.refuse(shared, problems)?;
    Ok(Demand {
        token: token.unwrap_or_default().into(),
        system_id: system_id.unwrap_or_default().into(),
        last_update: last_update.map(String::from),
        info: info.cloned().unwrap_or_default(),
        session,
    })
}

/// Notes the contact of the runner's manager, or says why there is nothing for it ever.
fn find_runner(state: &mut State, demand: &Demand) -> Result<u64, Refusal> {
    let runner = state.runners.values_mut().find(|runner| runner.token == demand.token);
    let runner = runner.ok_or_else(forbidden)?;
    if runner.orphaned {
        return Err(orphaned().into());
    }
    runner.managers.insert(demand.system_id.clone(), Value::Object(demand.info.clone()));
    let (id, paused) = (runner.id, runner.paused);
    if paused { Err(nothing(state).into()) } else { Ok(id) }
}

fn nothing(state: &State) -> Response {
    let value = HeaderValue::from_str(&state.queue).expect("the value is hexadecimal");
    (StatusCode::NO_CONTENT, [(LAST_UPDATE, value)]).into_response()
}

fn give_job(state: &mut State, settings: &Settings, runner_id: u64, demand: &Demand) -> Response {
    requeue_unacknowledged(state);
    let Some(runner) = state.runners.get(&runner_id).cloned() else { return forbidden() };
    let features = demand.info.get("features").and_then(Value::as_object).cloned().unwrap_or_default();
    let can = |feature: &str| features.get(feature) == Some(&Value::Bool(true));
    loop {
        let found = state.jobs.values().find(|job| is_for(state, &runner, job)).map(|job| job.id);
        let Some(id) = found else { return nothing(state) };
        let job = state.jobs.get_mut(&id).expect("it was found");
        if needed_features(job).into_iter().any(|feature| !can(feature)) {
            job.drop_with("runner_unsupported");
            continue;
        }
        job.assignment = Some(Assignment {
            runner_id,
            system_id: demand.system_id.clone(),
            features: features.clone(),
            session: demand.session.clone(),
            deadline: Instant::now() + settings.ack_window,
        });
        // With two phases the runner has the job, but has not promised to run it.
        if !can("two_phase_job_commit") {
            job.state = JobState::Running;
        }
        job.started_at = Some(SystemTime::now());
        let (job, project) = (&state.jobs[&id], &state.projects[&state.jobs[&id].project_id]);
        let variables = variables(settings, &runner, project, job);
        let body = payload(settings, state, project, job, &variables);
        if let Some(job) = state.jobs.get_mut(&id) {
            job.sent_variables = variables;
        }
        // Without the queue's value: a runner that knew it would not hear of the next waiting job.
        return json_answer(StatusCode::CREATED, &body);
    }
}

/// Whether this runner may have this job now.
fn is_for(state: &State, runner: &Runner, job: &Job) -> bool {
    let tags = &job.spec.tags;
    let suitable =
        if tags.is_empty() { runner.run_untagged } else { tags.iter().all(|tag| runner.tags.contains(tag)) };
    let ready = job
        .spec
        .dependencies
        .iter()
        .all(|id| state.jobs.get(id).is_some_and(|other| other.state == JobState::Success));
    job.is_waiting() && suitable && ready
}

/// A job nobody acknowledged in time goes to the next runner that asks.
fn requeue_unacknowledged(state: &mut State) {
    let now = Instant::now();
    for job in state.jobs.values_mut() {
        let late = job.assignment.as_ref().is_some_and(|assignment| assignment.deadline < now);
        if job.state == JobState::Pending && late {
            job.assignment = None;
        }
    }
}
