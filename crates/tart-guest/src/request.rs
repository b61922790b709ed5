//! Requests that are answered by one event, and what all requests share.

use std::{future::Future, time::Duration};

use tart_proto::{
    StreamItem, StreamReader,
    message::{Failure, FailureKind, GuestEvent, HostOpen, Stats, decode},
};

use crate::{GuestError, session::Session, text};

/// How long the guest may take to answer what costs it nothing. Generous: an emulated guest on a loaded machine is
/// slow.
pub(crate) const ANSWER_LIMIT: Duration = Duration::from_secs(60);

pub(crate) async fn within<T>(
    what: &'static str,
    limit: Duration,
    future: impl Future<Output = Result<T, GuestError>>,
) -> Result<T, GuestError> {
    let limit = tart_proto::time::scaled(limit);
    tokio::time::timeout(limit, future).await.unwrap_or(Err(GuestError::Timeout { what, limit }))
}

/// A request whose success has nothing to say.
pub(crate) async fn ask(
    session: &Session,
    request: &HostOpen,
    what: &'static str,
    limit: Duration,
) -> Result<(), GuestError> {
    within(what, limit, wait(session, request)).await
}

/// The same without a limit.
pub(crate) async fn wait(session: &Session, request: &HostOpen) -> Result<(), GuestError> {
    match event(session, request).await? {
        GuestEvent::Done => Ok(()),
        _ => Err(session.violation("an answer that does not fit its request")),
    }
}

pub(crate) async fn stats(session: &Session) -> Result<Stats, GuestError> {
    match within("report its counters", ANSWER_LIMIT, event(session, &HostOpen::Stats)).await? {
        GuestEvent::Stats(stats) => Ok(stats),
        _ => Err(session.violation("an answer that does not fit its request")),
    }
}

async fn event(session: &Session, request: &HostOpen) -> Result<GuestEvent, GuestError> {
    let (mut reader, _writer) = session.open(request).await?.split();
    next_event(session, &mut reader).await
}

/// The next event of a stream on which nothing else may come. A failure is an error.
pub(crate) async fn next_event(
    session: &Session,
    reader: &mut StreamReader,
) -> Result<GuestEvent, GuestError> {
    match reader.next().await {
        StreamItem::Message(bytes) => parse(session, &bytes),
        item => Err(unexpected(session, item)),
    }
}

pub(crate) fn parse(session: &Session, bytes: &[u8]) -> Result<GuestEvent, GuestError> {
    match decode(bytes) {
        Ok(GuestEvent::Failed(failure)) => Err(failure.into()),
        Ok(event) => Ok(event),
        Err(_) => Err(session.violation("malformed event")),
    }
}

/// What an item means where none of its kind belongs.
pub(crate) fn unexpected(session: &Session, item: StreamItem) -> GuestError {
    match item {
        StreamItem::Reset(reason) => session.lost().unwrap_or_else(|| {
            let message = format!("the guest gave the request up: {}", text::plain(&reason));
            Failure { kind: FailureKind::Other, message }.into()
        }),
        StreamItem::Closed => session.violation("a request without an answer"),
        StreamItem::Data { .. } | StreamItem::Eof { .. } => session.violation("data that nobody asked for"),
        StreamItem::Message(_) => session.violation("an event out of turn"),
    }
}
