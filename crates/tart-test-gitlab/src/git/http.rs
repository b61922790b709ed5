//! Git over smart HTTP: `git http-backend` as CGI, streamed both ways.

use std::io;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures::TryStreamExt;
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::task::JoinSet;
use tokio_util::io::{ReaderStream, StreamReader};

use crate::api::answer::{Refusal, message};
use crate::git::{Project, command, lfs};
use crate::state::Shared;

/// The longest header line a CGI program may write.
const MAX_CGI_LINE: u64 = 8192;

/// Serves `/<group>/<project>.git/*`.
pub(crate) async fn serve(
    State(shared): State<Arc<Shared>>,
    Path(path): Path<String>,
    request: Request,
) -> Response {
    let Some((project_path, rest)) = path.split_once(".git/") else {
        return message(StatusCode::NOT_FOUND, "404 Not Found");
    };
    let project = match authorize(&shared, project_path, request.headers()) {
        Ok(project) => project,
        Err(refusal) => return refusal.into_response(),
    };
    match rest {
        "info/refs" | "git-upload-pack" | "git-receive-pack" => backend(&project, rest, request).await,
        "info/lfs/objects/batch" => lfs::batch(&shared, &project, request).await,
        _ => match rest.strip_prefix("gitlab-lfs/objects/") {
            Some(oid) => lfs::object(&project, oid).await,
            None => message(StatusCode::NOT_FOUND, "404 Not Found"),
        },
    }
}

/// The project, if the credentials of the request may read it.
fn authorize(shared: &Shared, path: &str, headers: &HeaderMap) -> Result<Project, Refusal> {
    let credentials = basic_credentials(headers);
    shared.read(|state| {
        let project = state.projects.values().find(|project| project.path == path);
        if let Some(project) = project.filter(|project| project.public && credentials.is_none()) {
            return Ok(project.clone());
        }
        let job = credentials
            .filter(|(user, _)| user == "gitlab-ci-token")
            .and_then(|(_, token)| state.running_job_by_token(&token));
        // As a real server: without good credentials one does not learn which projects there are.
        let Some(job) = job else { return Err(unauthorized()) };
        let Some(project) = project else {
            let text = "The project you were looking for could not be found or you don't have permission to \
                        view it.\n";
            return Err((StatusCode::NOT_FOUND, text).into());
        };
        if !project.allowed.contains(&job.project_id) && !project.public {
            let text = "Authentication by CI/CD job token not allowed from the job's project\n";
            return Err((StatusCode::FORBIDDEN, text).into());
        }
        Ok(project.clone())
    })
}

fn unauthorized() -> Refusal {
    let challenge = [(header::WWW_AUTHENTICATE, "Basic realm=\"GitLab\"")];
    (StatusCode::UNAUTHORIZED, challenge, "HTTP Basic: Access denied\n").into()
}

fn basic_credentials(headers: &HeaderMap) -> Option<(String, String)> {
    let encoded = headers.get(header::AUTHORIZATION)?.to_str().ok()?.strip_prefix("Basic ")?;
    let decoded = String::from_utf8(STANDARD.decode(encoded).ok()?).ok()?;
    let (user, password) = decoded.split_once(':')?;
    Some((user.into(), password.into()))
}

async fn backend(project: &Project, rest: &str, request: Request) -> Response {
    match run_backend(project, rest, request).await {
        Ok(response) => response,
        Err(error) => message(StatusCode::INTERNAL_SERVER_ERROR, &format!("git http-backend: {error}")),
    }
}

async fn run_backend(project: &Project, rest: &str, request: Request) -> io::Result<Response> {
    let (parts, body) = request.into_parts();
    let header = |name: HeaderName| parts.headers.get(name).and_then(|value| value.to_str().ok());
    let mut cgi = command(&project.repository);
    let script: PathBuf = project.repository.join(rest);
    cgi.arg("http-backend")
        .env_remove("GIT_DIR")
        .env("PATH_TRANSLATED", script)
        .env("REQUEST_METHOD", parts.method.as_str())
        .env("QUERY_STRING", parts.uri.query().unwrap_or_default())
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("REMOTE_ADDR", "127.0.0.1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let variables = [
        ("CONTENT_TYPE", header::CONTENT_TYPE),
        ("CONTENT_LENGTH", header::CONTENT_LENGTH),
        ("HTTP_CONTENT_ENCODING", header::CONTENT_ENCODING),
        ("GIT_PROTOCOL", HeaderName::from_static("git-protocol")),
    ];
    for (variable, name) in variables {
        if let Some(value) = header(name) {
            cgi.env(variable, value);
        }
    }
    let mut child = cgi.spawn()?;
    let mut stdin = child.stdin.take().expect("stdin is piped");
    let mut stdout = BufReader::new(child.stdout.take().expect("stdout is piped"));
    let mut stderr = child.stderr.take().expect("stderr is piped");

    let mut helpers = JoinSet::new();
    helpers.spawn(async move {
        let mut body = StreamReader::new(body.into_data_stream().map_err(io::Error::other));
        // The backend may answer without reading everything.
        tokio::io::copy(&mut body, &mut stdin).await.ok();
    });
    helpers.spawn(async move {
        let mut text = String::new();
        stderr.read_to_string(&mut text).await.ok();
        if !text.is_empty() {
            tracing::debug!("git http-backend: {}", text.trim_end());
        }
    });

    let (status, headers) = read_head(&mut stdout).await?;
    // The stream owns the process and its helpers: an answer nobody reads any more ends them.
    let owned = (child, helpers);
    let output = ReaderStream::new(stdout).inspect_ok(move |_| {
        let _ = &owned;
    });
    Ok((status, headers, Body::from_stream(output)).into_response())
}

async fn read_head(output: &mut (impl AsyncBufRead + Unpin)) -> io::Result<(StatusCode, HeaderMap)> {
    let malformed = |line: &str| io::Error::other(format!("malformed CGI header {line:?}"));
    let mut status = StatusCode::OK;
    let mut headers = HeaderMap::new();
    loop {
        let mut line = String::new();
        (&mut *output).take(MAX_CGI_LINE).read_line(&mut line).await?;
        let Some(text) = line.strip_suffix('\n') else {
            return Err(malformed(&line));
        };
        let text = text.strip_suffix('\r').unwrap_or(text);
        if text.is_empty() {
            return Ok((status, headers));
        }
        let (name, value) = text.split_once(':').ok_or_else(|| malformed(text))?;
        let value = value.trim();
        if name.eq_ignore_ascii_case("status") {
            let code = value.split(' ').next().unwrap_or_default();
            status = code.parse().map_err(|_| malformed(text))?;
        } else {
            let name: HeaderName = name.parse().map_err(|_| malformed(text))?;
            headers.append(name, HeaderValue::from_str(value).map_err(|_| malformed(text))?);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_cgi_head_gives_status_and_headers() {
        let mut output: &[u8] = b"Status: 403 Forbidden\r\nContent-Type: text/plain\r\n\r\nrest";
        let (status, headers) = read_head(&mut output).await.expect("a good head");
        assert_eq!(status, StatusCode::FORBIDDEN);
        assert_eq!(headers["content-type"], "text/plain");
        assert_eq!(output, b"rest");
    }

    #[tokio::test]
    async fn a_cgi_head_that_ends_early_is_an_error() {
        let mut output: &[u8] = b"Content-Type: text/plain";
        read_head(&mut output).await.expect_err("no empty line");
    }
}
