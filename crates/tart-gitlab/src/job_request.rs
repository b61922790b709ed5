//! `POST jobs/request` (protocol reference section 2).

use reqwest::Method;
use serde::Serialize;
use tart_spec::{JobPayload, VersionInfo};

use crate::call::{Call, RUNNER_TOKEN};
use crate::client::Client;
use crate::error::ApiError;
use crate::health::Poll;
use crate::system_id::SystemId;
use crate::token::Token;

/// The largest job that is read: variables and scripts can be long.
const MAX_JOB_BYTES: usize = 64 << 20;

/// What a poll tells the server.
#[derive(Debug, Clone, Copy)]
pub struct JobRequest<'a> {
    /// The runner's token.
    pub token: &'a Token,
    /// This manager of the runner.
    pub system_id: &'a SystemId,
    /// The program, and what it can do.
    pub info: &'a VersionInfo,
    /// The interactive session on offer.
    pub session: Option<&'a SessionOffer>,
    /// The server may hold the call until there is news of its queue. Otherwise it is not told what the last answer
    /// said of the queue, and answers at once.
    pub may_hold: bool,
}

/// Where the interactive session of the job to come would be reached.
#[derive(Clone, Serialize)]
pub struct SessionOffer {
    /// The address.
    pub url: String,
    /// The certificate it shows, PEM.
    pub certificate: String,
    /// The value of the `Authorization` header it wants.
    pub authorization: String,
}

impl std::fmt::Debug for SessionOffer {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("SessionOffer").field("url", &self.url).finish_non_exhaustive()
    }
}

#[derive(Serialize)]
struct Body<'a> {
    token: &'a Token,
    system_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_update: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    session: Option<&'a SessionOffer>,
    info: &'a VersionInfo,
}

/// A job this runner got. It must be acknowledged within two minutes: [`crate::JobHandle::acknowledge`].
#[derive(Debug, Clone)]
pub struct AssignedJob {
    /// The job.
    pub payload: JobPayload,
    /// What the request is named in the server's logs; git sends it as `X-Gitaly-Correlation-ID`.
    pub correlation_id: String,
    /// PEM certificates by which curl and git trust the server of this connection (`CI_SERVER_TLS_CA_FILE`): the
    /// configured authorities and the server's own certificate. `None` without TLS.
    pub tls_certificates: Option<String>,
}

/// What a poll brought.
#[derive(Debug)]
pub enum RequestOutcome {
    /// A job.
    Job(Box<AssignedJob>),
    /// There is none (204).
    NoJob,
    /// The server could not answer, or another runner was faster; the next poll may go better.
    Failed(ApiError),
    /// The token is refused (403), or no connection can be set up: polling on is useless.
    Unhealthy(ApiError),
}

/// The answer to one poll.
#[derive(Debug)]
pub struct RequestAnswer {
    /// What it brought.
    pub outcome: RequestOutcome,
    /// Some attempt was answered with a status that asks for patience.
    pub saw_retryable: bool,
}

impl RequestAnswer {
    /// For [`crate::Health`].
    pub fn is_healthy(&self) -> bool {
        !matches!(self.outcome, RequestOutcome::Unhealthy(_))
    }

    /// For [`crate::RequestConcurrency`].
    pub fn poll(&self) -> Poll {
        match &self.outcome {
            _ if self.saw_retryable => Poll::Overload,
            RequestOutcome::Job(_) => Poll::Job,
            _ => Poll::Nothing,
        }
    }
}

impl Client {
    /// Asks for a job. The server may hold the call for about a minute while there is none.
    ///
    /// If this future is dropped after the server has assigned a job, the server gives the job to somebody else after
    /// two minutes.
    pub async fn request_job(&self, request: &JobRequest<'_>) -> RequestAnswer {
        let body = Body {
            token: request.token,
            system_id: request.system_id.as_str(),
            last_update: self.last_update(request.token).filter(|_| request.may_hold),
            session: request.session,
            info: request.info,
        };
        let call = Call::json(Method::POST, "jobs/request", &body)
            .and_then(|call| call.token(RUNNER_TOKEN, request.token));
        let sent = self.send(call.map(|call| call.wants_json(MAX_JOB_BYTES))).await;
        let outcome = match sent.result {
            Ok(answer) if answer.status == 204 => RequestOutcome::NoJob,
            Ok(answer) => match answer.parse(201) {
                Ok(payload) => RequestOutcome::Job(Box::new(AssignedJob {
                    payload,
                    correlation_id: answer.correlation_id,
                    tls_certificates: answer.certificates,
                })),
                Err(error) if error.status() == Some(403) => RequestOutcome::Unhealthy(error),
                Err(error) => RequestOutcome::Failed(error),
            },
            Err(error @ ApiError::Client(_)) => RequestOutcome::Unhealthy(error),
            Err(error) => RequestOutcome::Failed(error),
        };
        RequestAnswer { outcome, saw_retryable: sent.saw_retryable }
    }
}
