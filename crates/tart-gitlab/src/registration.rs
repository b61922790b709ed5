//! Registration, verification, removal and renewal of runners (protocol reference section 1).

use std::time::Duration;

use jiff::Timestamp;
use reqwest::Method;
use serde::{Deserialize, Serialize};
use tart_spec::VersionInfo;

use crate::call::{Answer, Call, PRIVATE_TOKEN, RUNNER_TOKEN};
use crate::client::Client;
use crate::error::ApiError;
use crate::system_id::SystemId;
use crate::token::Token;

const MAX_BODY_BYTES: usize = 1 << 20;

/// What the legacy registration asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Registration {
    /// The name shown for the runner.
    pub description: Option<String>,
    /// Free text of at most 1024 characters.
    pub maintenance_note: Option<String>,
    /// The tags.
    pub tags: Vec<String>,
    /// Whether jobs without tags are taken.
    pub run_untagged: bool,
    /// Whether the runner stays with its first project.
    pub locked: bool,
    /// `not_protected` or `ref_protected`.
    pub access_level: Option<String>,
    /// The longest time of a job, in whole seconds on the wire.
    pub maximum_timeout: Option<Duration>,
    /// Whether the runner gets no jobs at first.
    pub paused: bool,
}

#[derive(Serialize)]
struct RegisterBody<'a> {
    token: &'a Token,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    maintenance_note: Option<&'a str>,
    #[serde(skip_serializing_if = "String::is_empty")]
    tag_list: String,
    run_untagged: bool,
    locked: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    access_level: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    maximum_timeout: Option<u64>,
    paused: bool,
    info: &'a VersionInfo,
}

#[derive(Serialize)]
struct TokenBody<'a> {
    token: &'a Token,
    #[serde(skip_serializing_if = "Option::is_none")]
    system_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    info: Option<&'a VersionInfo>,
}

/// A runner as the server confirms it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunnerCredentials {
    /// The number of the runner; a reset does not tell it.
    pub id: Option<i64>,
    /// The authentication token.
    pub token: Token,
    /// When the token ends.
    pub token_expires_at: Option<Timestamp>,
    /// When the token was obtained, in whole seconds.
    pub token_obtained_at: Timestamp,
}

impl RunnerCredentials {
    /// When the token should be renewed: after three quarters of its life.
    pub fn renew_at(&self) -> Option<Timestamp> {
        renew_at(self.token_obtained_at, self.token_expires_at?)
    }
}

/// When a token should be renewed: after three quarters of its life.
pub fn renew_at(obtained_at: Timestamp, expires_at: Timestamp) -> Option<Timestamp> {
    let life = expires_at.as_second().saturating_sub(obtained_at.as_second());
    Timestamp::from_second(obtained_at.as_second().saturating_add(life.saturating_mul(3) / 4)).ok()
}

#[derive(Deserialize)]
struct CredentialsBody {
    #[serde(default)]
    id: Option<i64>,
    #[serde(default)]
    token: Option<Token>,
    #[serde(default)]
    token_expires_at: Option<Timestamp>,
}

impl CredentialsBody {
    fn with(self, token: Token) -> RunnerCredentials {
        let now = Timestamp::from_second(Timestamp::now().as_second()).expect("the present is a valid time");
        RunnerCredentials {
            id: self.id,
            token,
            token_expires_at: self.token_expires_at,
            token_obtained_at: now,
        }
    }

    fn complete(mut self) -> Result<RunnerCredentials, ApiError> {
        match self.token.take().filter(|token| !token.is_empty()) {
            Some(token) => Ok(self.with(token)),
            None => Err(ApiError::BadBody("the token is missing".into())),
        }
    }
}

/// Why a runner was not registered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RegisterError {
    /// 400
    #[error("the server refuses this registration: {0}")]
    Invalid(String),
    /// 403
    #[error("the server does not know this registration token ({0}); check that it was copied completely")]
    Forbidden(String),
    /// 410
    #[error(
        "this server takes no registration tokens any more ({0}); create the runner in GitLab and use its token, \
         which begins with `glrt-`"
    )]
    Disabled(String),
    /// Anything else; nothing is known about the token.
    #[error("the runner was not registered: {0}")]
    Failed(#[from] ApiError),
}

/// What is known about a runner token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VerifyOutcome {
    /// It is valid. A very old server does not say more than that.
    Valid(Option<RunnerCredentials>),
    /// It is not, or no more: the runner was deleted, or the token renewed elsewhere (403).
    Removed,
    /// The server did not say, so the token may well be good; a runner must not be forgotten for this.
    Unknown(ApiError),
}

/// How the removal of a runner or of one of its managers ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UnregisterOutcome {
    /// It is gone.
    Removed,
    /// The server does not know the token (403), so there is nothing left to remove.
    Forbidden,
    /// The server does not know this manager (404).
    NotFound,
    /// Nothing is known; it may still exist.
    Failed(ApiError),
}

/// Why a token was not renewed. The old one stays in use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ResetError {
    /// 401 or 403
    #[error("the server refuses the token that asks for the reset ({0})")]
    Forbidden(String),
    /// Anything else. If the answer was lost on its way, the server may have renewed the token all the same.
    #[error("the token was not reset: {0}")]
    Failed(#[from] ApiError),
}

fn explanation(error: &ApiError) -> String {
    match error {
        ApiError::Status { message, .. } => message.clone(),
        other => other.to_string(),
    }
}

impl Client {
    /// Creates a runner with a registration token (`POST runners`, legacy). Tokens that begin with `glrt-` are not
    /// registered but verified.
    ///
    /// # Errors
    /// See [`RegisterError`].
    pub async fn register(
        &self,
        token: &Token,
        registration: &Registration,
        info: &VersionInfo,
    ) -> Result<RunnerCredentials, RegisterError> {
        let body = RegisterBody {
            token,
            description: registration.description.as_deref(),
            maintenance_note: registration.maintenance_note.as_deref(),
            tag_list: registration.tags.join(","),
            run_untagged: registration.run_untagged,
            locked: registration.locked,
            access_level: registration.access_level.as_deref(),
            maximum_timeout: registration.maximum_timeout.map(|timeout| timeout.as_secs()),
            paused: registration.paused,
            info,
        };
        let call =
            Call::json(Method::POST, "runners", &body).and_then(|call| call.token(RUNNER_TOKEN, token));
        let answer = self.send(call.map(|call| call.wants_json(MAX_BODY_BYTES))).await.result?;
        let parsed = answer.parse(201).and_then(CredentialsBody::complete);
        parsed.map_err(|error| match error.status() {
            Some(400) => RegisterError::Invalid(explanation(&error)),
            Some(403) => RegisterError::Forbidden(explanation(&error)),
            Some(410) => RegisterError::Disabled(explanation(&error)),
            _ => RegisterError::Failed(error),
        })
    }

    /// Asks whether a runner token is valid (`POST runners/verify`) and tells the server of this manager.
    pub async fn verify(&self, token: &Token, system_id: &SystemId, info: &VersionInfo) -> VerifyOutcome {
        let body = TokenBody { token, system_id: Some(system_id.as_str()), info: Some(info) };
        let call = Call::json(Method::POST, "runners/verify", &body)
            .and_then(|call| call.token(RUNNER_TOKEN, token));
        let answer = match self.send(call.map(|call| call.wants_json(MAX_BODY_BYTES))).await.result {
            Ok(answer) => answer,
            Err(error) => return VerifyOutcome::Unknown(error),
        };
        match answer.parse::<CredentialsBody>(200) {
            // The answer repeats the token, but an old server may leave it out.
            Ok(mut body) if body.id.is_some_and(|id| id != 0) => {
                let confirmed = body.token.take().filter(|confirmed| !confirmed.is_empty());
                VerifyOutcome::Valid(Some(body.with(confirmed.unwrap_or_else(|| token.clone()))))
            }
            Ok(_) => VerifyOutcome::Unknown(ApiError::BadBody("the number of the runner is missing".into())),
            Err(error) if error.status() == Some(403) => VerifyOutcome::Removed,
            Err(_) if is_legacy_confirmation(&answer) => VerifyOutcome::Valid(None),
            Err(error) => VerifyOutcome::Unknown(error),
        }
    }

    /// Deletes a runner with all its managers (`DELETE runners`).
    pub async fn unregister_runner(&self, token: &Token) -> UnregisterOutcome {
        self.delete("runners", TokenBody { token, system_id: None, info: None }).await
    }

    /// Deletes one manager of a runner (`DELETE runners/managers`), which is right for `glrt-` tokens.
    pub async fn unregister_manager(&self, token: &Token, system_id: &SystemId) -> UnregisterOutcome {
        self.delete("runners/managers", TokenBody { token, system_id: Some(system_id.as_str()), info: None })
            .await
    }

    /// Deletes what a token stands for: the manager of a runner created in GitLab, else the runner.
    pub async fn unregister(&self, token: &Token, system_id: &SystemId) -> UnregisterOutcome {
        if token.is_created_runner() {
            self.unregister_manager(token, system_id).await
        } else {
            self.unregister_runner(token).await
        }
    }

    async fn delete(&self, path: &str, body: TokenBody<'_>) -> UnregisterOutcome {
        let call =
            Call::json(Method::DELETE, path, &body).and_then(|call| call.token(RUNNER_TOKEN, body.token));
        match self.send(call).await.result {
            Ok(answer) => match answer.status {
                204 => UnregisterOutcome::Removed,
                403 => UnregisterOutcome::Forbidden,
                404 => UnregisterOutcome::NotFound,
                _ => UnregisterOutcome::Failed(answer.as_error()),
            },
            Err(error) => UnregisterOutcome::Failed(error),
        }
    }

    /// Renews a runner's token by itself (`POST runners/reset_authentication_token`); the old one is worthless at
    /// once.
    ///
    /// # Errors
    /// See [`ResetError`].
    pub async fn reset_token(&self, token: &Token) -> Result<RunnerCredentials, ResetError> {
        let body = TokenBody { token, system_id: None, info: None };
        self.reset(Call::json(Method::POST, "runners/reset_authentication_token", &body)).await
    }

    /// Renews the token of the runner with this number by a personal access token
    /// (`POST runners/:id/reset_authentication_token`).
    ///
    /// # Errors
    /// See [`ResetError`].
    pub async fn reset_token_of(&self, id: i64, access: &Token) -> Result<RunnerCredentials, ResetError> {
        let path = format!("runners/{id}/reset_authentication_token");
        let call = Call::json(Method::POST, path, &());
        self.reset(call.and_then(|call| call.token(PRIVATE_TOKEN, access))).await
    }

    async fn reset(&self, call: Result<Call, ApiError>) -> Result<RunnerCredentials, ResetError> {
        let answer = self.send(call.map(|call| call.wants_json(MAX_BODY_BYTES))).await.result?;
        answer.parse(201).and_then(CredentialsBody::complete).map_err(|error| match error.status() {
            Some(401 | 403) => ResetError::Forbidden(explanation(&error)),
            _ => ResetError::Failed(error),
        })
    }
}

/// Old servers say nothing but `200`, with or without quotes and whatever its type.
fn is_legacy_confirmation(answer: &Answer) -> bool {
    answer.status == 200 && matches!(answer.body.trim_ascii(), b"200" | b"\"200\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_renewed_after_three_quarters_of_their_life() {
        let at = |second| Timestamp::from_second(second).expect("a time");
        assert_eq!(renew_at(at(1000), at(2000)), Some(at(1750)));
        assert_eq!(renew_at(at(2000), at(1000)), Some(at(1250)), "an expired token is due at once");
    }
}
