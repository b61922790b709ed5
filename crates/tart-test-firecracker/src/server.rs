//! The API's server: one connection at a time, one request after the other.

use std::{cell::RefCell, convert::Infallible, io::Write as _, rc::Rc, time::Duration};

use anyhow::{Context as _, Result};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{Request, Response, body::Bytes, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::{net::UnixListener, sync::mpsc, task::LocalSet};

use crate::{Behind, arguments::Arguments, guest::Guest, plan::Plan, say, state::State};

/// Longest body of a request, in bytes.
const MAX_BODY: usize = 51_200;

/// Exit code after a system call that the filter forbids.
const FORBIDDEN_CALL: u8 = 148;

/// Serves until the guest ends the machine; gives the exit code.
pub(crate) async fn run(arguments: Arguments, behind: Behind) -> Result<u8> {
    let plan = arguments.plan;
    tokio::time::sleep(Duration::from_millis(plan.delay_ms)).await;
    let listener = UnixListener::bind(&arguments.socket).context("cannot open the API socket")?;
    say("Running Firecracker (a fake)");
    let state = Rc::new(RefCell::new(State::new(plan)));
    let (ends, mut ended) = mpsc::unbounded_channel();
    let guest = (behind == Behind::Guest).then(|| Rc::new(Guest::new(ends.clone())));
    state.borrow_mut().boots = guest.is_some();
    let serve = async {
        loop {
            let (stream, _) = listener.accept().await.context("cannot accept")?;
            let service = service_fn(|request| answer(state.clone(), guest.clone(), ends.clone(), request));
            // A client that goes away is no reason to end.
            let _gone = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        }
    };
    LocalSet::new()
        .run_until(async {
            let code = tokio::select! {
                failed = serve => failed,
                Some(code) = ended.recv() => Ok(code),
            };
            if let Some(guest) = &guest {
                guest.end().await;
            }
            code
        })
        .await
}

async fn answer(
    state: Rc<RefCell<State>>,
    guest: Option<Rc<Guest>>,
    ends: mpsc::UnboundedSender<u8>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (parts, body) = request.into_parts();
    let (method, path) = (parts.method.to_string(), parts.uri.path().to_owned());
    let plan = state.borrow().plan.clone();
    if let Some((_, code)) = plan.dies_at.as_ref().filter(|(at, _)| *at == path) {
        let reports = &mut state.borrow_mut().reports;
        reports.log(&format!("[Error] Firecracker cannot go on at {path}"));
        reports.flush(u64::from(*code == FORBIDDEN_CALL));
        std::process::exit((*code).into());
    }
    if plan.silent_at.as_deref() == Some(path.as_str()) {
        std::future::pending::<()>().await;
    }
    let body = Limited::new(body, MAX_BODY).collect().await.map(http_body_util::Collected::to_bytes);
    let was_started = state.borrow().started;
    let (status, body) = match body {
        Ok(_) if plan.nonsense_at.as_deref() == Some(path.as_str()) => (299, Value::from("\u{7}nonsense")),
        Ok(body) => match &guest {
            Some(guest) => guest.answer(&state, &method, &path, &body).await,
            None => state.borrow_mut().answer(&method, &path, &body),
        },
        Err(_) => (400, serde_json::json!({ "fault_message": "The request is too large." })),
    };
    if state.borrow().broken {
        // The client still gets its answer.
        let ends = ends.clone();
        tokio::task::spawn_local(async move {
            tokio::time::sleep(Duration::from_millis(50)).await;
            let _ending = ends.send(1);
        });
    }
    let starts = !was_started && state.borrow().started;
    let plan = state.borrow().plan.clone();
    if starts && guest.is_none() {
        start(&state, &plan, ends);
    }
    let body = if body.is_null() { Bytes::new() } else { Bytes::from(body.to_string()) };
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = hyper::StatusCode::from_u16(status).unwrap_or_default();
    Ok(response)
}

/// The guest begins: it prints, reports, and perhaps ends the machine.
fn start(state: &Rc<RefCell<State>>, plan: &Plan, ends: mpsc::UnboundedSender<u8>) {
    let vsock = state.borrow_mut().vsock.take();
    if let Some(vsock) = vsock {
        tokio::task::spawn_local(vsock.play(plan.clone()));
    }
    let (prints, exits) = (plan.prints, plan.exits);
    for number in 0..plan.warnings {
        state.borrow().reports.log(&format!("[Warn] the guest did something strange, {number}"));
    }
    tokio::task::spawn_local(async move {
        let mut out = std::io::stdout();
        let line =
            [b"a line of the guest's console, of sixty-four bytes with its end\n" as &[u8]; 16].concat();
        for _ in 0..prints.div_ceil(line.len()) {
            if out.write_all(&line).is_err() {
                break;
            }
        }
        say("the guest runs");
        if let Some(code) = exits {
            // The client still gets its answer.
            tokio::time::sleep(Duration::from_millis(50)).await;
            let _ending = ends.send(code);
        }
    });
}
