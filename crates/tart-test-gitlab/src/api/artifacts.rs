//! Upload and download of artifacts.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::multipart::Field;
use axum::extract::{FromRequest, Multipart, Path, Request, State as Shares};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::{Bytes, BytesMut};

use crate::api::answer::{Outcome, Refusal, drain, finish, forbidden, job_headers, message, violation};
use crate::api::call::{Call, JOB_TOKEN, query, what};
use crate::api::update::{authorize, job_token};
use crate::job::{Artifact, Job};
use crate::settings::Settings;
use crate::state::{Shared, State, random_hex};
use crate::strict::Problems;

/// What a client may say about an artifact, as query parameters or as form fields.
const PARAMETERS: [&str; 3] = ["artifact_format", "artifact_type", "expire_in"];
const MAX_FIELD_BYTES: usize = 64 << 10;

/// `POST jobs/:id/artifacts`.
pub(crate) async fn upload(
    Shares(shared): Shares<Arc<Shared>>,
    Path(id): Path<u64>,
    request: Request,
) -> Response {
    finish(try_upload(&shared, id, request).await)
}

async fn try_upload(shared: &Shared, id: u64, request: Request) -> Outcome {
    let what = what(&request);
    let refuse = |problems: Problems| -> Result<(), Refusal> {
        let refused = |problem: String| shared.update(|state| violation(state, &what, &problem)).into();
        problems.into_result().map_err(refused)
    };
    let mut problems = Problems::default();
    problems.common_headers(request.headers());
    problems.media_type(request.headers(), "multipart/form-data");
    let token = job_token(&mut problems, request.headers());
    let mut parameters = query(&mut problems, request.uri().query(), &PARAMETERS);
    let allowed = refuse(problems).and_then(|()| shared.update(|state| check_active(state, id, &token)));
    if let Err(refusal) = allowed {
        drain(request.into_body()).await;
        return Err(refusal);
    }

    let mut problems = Problems::default();
    let form = Multipart::from_request(request, &()).await;
    let form = form.map_err(|error| message(StatusCode::BAD_REQUEST, &error.body_text()))?;
    let file = read_form(form, &mut parameters, &mut problems, shared.settings.max_artifact_bytes).await?;
    problems.check(file.is_some(), || "there is no part `file`".into());
    let (filename, content) = file.unwrap_or_default();
    let text = |key: &str, default: &str| parameters.get(key).map_or(default, |text| text).to_owned();
    let artifact = Artifact {
        kind: text("artifact_type", "archive"),
        format: text("artifact_format", "zip"),
        expire_in: parameters.get("expire_in").cloned(),
        filename,
        content,
    };
    shared.update(|state| {
        let interval = state.update_interval;
        // The job may have ended while the body came in.
        check_active(state, id, &token)?;
        let job = authorize(state, id, &token)?;
        check_artifact(job, &artifact, &mut problems);
        if let Err(problem) = problems.into_result() {
            return Ok(violation(state, &what, &problem));
        }
        let twin = job.artifacts.iter().find(|other| other.kind == artifact.kind);
        let mut response = match twin {
            Some(twin) if twin.content != artifact.content => {
                message(StatusCode::BAD_REQUEST, "another artifact of the same type already exists")
            }
            Some(_) => message(StatusCode::CREATED, "201 Created"),
            None => {
                job.artifacts.push(artifact);
                message(StatusCode::CREATED, "201 Created")
            }
        };
        job_headers(&mut response, job.state, interval);
        Ok(response)
    })
}

fn check_active(state: &mut State, id: u64, token: &str) -> Result<(), Refusal> {
    let job = authorize(state, id, token)?;
    if job.state.is_active() {
        return Ok(());
    }
    let mut response = forbidden();
    job_headers(&mut response, job.state, 0);
    Err(response.into())
}

/// The file with its name; other fields go to `parameters`.
async fn read_form(
    mut form: Multipart,
    parameters: &mut BTreeMap<String, String>,
    problems: &mut Problems,
    max_bytes: usize,
) -> Result<Option<(String, Bytes)>, Refusal> {
    let cut = |error: axum::extract::multipart::MultipartError| {
        Refusal::from(message(StatusCode::BAD_REQUEST, &format!("400 the form is broken: {error}")))
    };
    let mut file = None;
    while let Some(field) = form.next_field().await.map_err(cut)? {
        let name = field.name().unwrap_or_default().to_owned();
        if name == "file" {
            problems.check(file.is_none(), || "there is more than one part `file`".into());
            let filename = field.file_name().unwrap_or_default().to_owned();
            problems.check(!filename.is_empty(), || "the part `file` has no filename".into());
            let too_large = || message(StatusCode::PAYLOAD_TOO_LARGE, "413 Request Entity Too Large");
            let content = read_field(field, max_bytes).await.map_err(cut)?.ok_or_else(too_large)?;
            file = Some((filename, content));
        } else if PARAMETERS.contains(&&*name) {
            let too_large = || message(StatusCode::BAD_REQUEST, "400 a form field is too large");
            let value = read_field(field, MAX_FIELD_BYTES).await.map_err(cut)?.ok_or_else(too_large)?;
            let value = String::from_utf8_lossy(&value).into_owned();
            let in_query = parameters.insert(name.clone(), value.clone());
            problems.check(in_query.is_none_or(|in_query| in_query == value), || {
                format!("the form and the query disagree about {name}")
            });
        } else {
            problems.add(format!("the form has an unknown part {name:?}"));
        }
    }
    Ok(file)
}

/// The whole field, or `None` if it is longer than `max_bytes`.
async fn read_field(
    mut field: Field<'_>,
    max_bytes: usize,
) -> Result<Option<Bytes>, axum::extract::multipart::MultipartError> {
    let mut content = BytesMut::new();
    let mut fits = true;
    // What is too long is read to its end, so that the client gets to see the answer.
    while let Some(chunk) = field.chunk().await? {
        fits = fits && content.len() + chunk.len() <= max_bytes;
        if fits {
            content.extend_from_slice(&chunk);
        }
    }
    Ok(fits.then(|| content.freeze()))
}

fn check_artifact(job: &Job, artifact: &Artifact, problems: &mut Problems) {
    let Artifact { kind, format, filename, expire_in, content } = artifact;
    // A payload with its own `artifacts` says for itself what is wanted.
    let declared = job.spec.artifacts.iter().find(|entry| entry.kind == *kind);
    match declared {
        Some(entry) => {
            problems.check(entry.expire_in == *expire_in, || {
                format!("expire_in is {expire_in:?} instead of {:?}", entry.expire_in)
            });
            let upgraded = entry.format == "zip" && matches!(format.as_str(), "zipzstd" | "tarzstd");
            problems.check(entry.format == *format || upgraded, || {
                format!("{kind} has the format {format} instead of {}", entry.format)
            });
        }
        None => problems.check(job.spec.fields.contains_key("artifacts"), || {
            format!("the job has no artifacts of the type {kind:?}")
        }),
    }
    let (suffix, magic): (&str, &[u8]) = match format.as_str() {
        "zip" | "zipzstd" => (".zip", b"PK"),
        "gzip" => (".gz", b"\x1f\x8b"),
        "tarzstd" => (".tar.zst", b"\x28\xb5\x2f\xfd"),
        "raw" => ("", b""),
        _ => {
            problems.add(format!("artifact_format {format:?} is not known"));
            ("", b"")
        }
    };
    problems.check(filename.ends_with(suffix), || format!("{filename:?} does not end in {suffix}"));
    problems.check(!filename.contains('/'), || format!("{filename:?} is not a plain file name"));
    problems.check(content.starts_with(magic), || format!("the content is not of the format {format}"));
}

/// `GET jobs/:id/artifacts`.
pub(crate) async fn download(
    Shares(shared): Shares<Arc<Shared>>,
    Path(id): Path<u64>,
    call: Call,
) -> Response {
    finish(try_download(&shared, id, &call))
}

fn try_download(shared: &Shared, id: u64, call: &Call) -> Outcome {
    let mut problems = Problems::default();
    problems.common_headers(&call.headers);
    let token = job_token(&mut problems, &call.headers);
    let parameters = query(&mut problems, call.query.as_deref(), &["direct_download"]);
    let direct = parameters.get("direct_download").map(String::as_str);
    problems.check(matches!(direct, None | Some("true")), || "direct_download is only ever true".into());
    call.refuse(shared, problems)?;

    shared.update(|state| {
        let reader = state.running_job_by_token(&token).ok_or_else(forbidden)?;
        let readable = reader.spec.dependencies.contains(&id) || reader.id == id;
        let job = state.jobs.get(&id).filter(|_| readable).ok_or_else(forbidden)?;
        let archive = job.archive().ok_or_else(|| message(StatusCode::NOT_FOUND, "404 Not Found"))?;
        let (filename, content) = (archive.filename.clone(), archive.content.clone());
        if direct.is_some() && shared.settings.direct_download {
            return Ok(redirect(state, &shared.settings, filename, content));
        }
        Ok(file(&filename, content))
    })
}

fn redirect(state: &mut State, settings: &Settings, filename: String, content: Bytes) -> Response {
    let name = random_hex();
    let location = format!("{}/-/storage/{name}", settings.storage_url);
    state.storage.insert(name, (filename, content));
    (StatusCode::FOUND, [(header::LOCATION, location)]).into_response()
}

fn file(filename: &str, content: Bytes) -> Response {
    let disposition = format!("attachment; filename=\"{filename}\"");
    let headers = [
        (header::CONTENT_TYPE, "application/octet-stream".to_owned()),
        (header::CONTENT_DISPOSITION, disposition),
    ];
    (headers, content).into_response()
}

/// The object storage behind a direct download, at another origin than the API.
pub(crate) async fn stored(
    Shares(shared): Shares<Arc<Shared>>,
    Path(name): Path<String>,
    call: Call,
) -> Response {
    if call.headers.contains_key(JOB_TOKEN) {
        let problem = "JOB-TOKEN was sent to another origin than the server's";
        return shared.update(|state| violation(state, &call.what, problem));
    }
    match shared.read(|state| state.storage.get(&name).cloned()) {
        Some((filename, content)) => match part(&call.headers, &content) {
            Some((range, part)) => {
                let mut response = file(&filename, part);
                *response.status_mut() = StatusCode::PARTIAL_CONTENT;
                response.headers_mut().insert(header::CONTENT_RANGE, range);
                response
            }
            None => file(&filename, content),
        },
        None => {
            let body = "<Error><Code>NoSuchKey</Code><Message>no such object</Message></Error>";
            (StatusCode::NOT_FOUND, [(header::CONTENT_TYPE, "application/xml")], body).into_response()
        }
    }
}

/// The part that a request asks for with `Range: bytes=a-b`, and what is said of it.
fn part(headers: &HeaderMap, content: &Bytes) -> Option<(HeaderValue, Bytes)> {
    let range = headers.get(header::RANGE)?.to_str().ok()?.strip_prefix("bytes=")?;
    let (start, end) = range.split_once('-')?;
    let (start, end): (usize, usize) = (start.parse().ok()?, end.parse().ok()?);
    let end = end.saturating_add(1).min(content.len());
    let range = format!("bytes {start}-{}/{}", end.checked_sub(1)?, content.len());
    (start < end)
        .then(|| content.slice(start..end))
        .zip(range.parse().ok())
        .map(|(part, range)| (range, part))
}
