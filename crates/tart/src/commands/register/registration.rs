//! The server's part of `tart register`.

use tart_config::Runner;
use tart_gitlab::{Client, RegisterError, Registration, RunnerCredentials, SystemId, VerifyOutcome};

use super::RegisterArgs;
use super::questions::{Credential, Wish};
use crate::failure::{Annotate as _, Exit};
use crate::server::{client, info, unreachable};

/// A runner that the server knows.
#[derive(Debug)]
pub(super) struct Registered {
    pub(super) client: Client,
    pub(super) credentials: RunnerCredentials,
}

/// Makes a runner, or checks that it exists.
pub(super) async fn register(
    wish: &Wish,
    args: &RegisterArgs,
    system_id: &SystemId,
) -> anyhow::Result<Registered> {
    let runner = Runner {
        name: wish.name.clone(),
        url: wish.url.clone(),
        tls_ca_file: args.keys.tls_ca_file.clone(),
        tls_cert_file: args.keys.tls_cert_file.clone(),
        tls_key_file: args.keys.tls_key_file.clone(),
        ..Runner::default()
    };
    let (client, info) = (client(&runner)?, info(&runner));
    let credentials = match &wish.credential {
        Credential::Runner(token) => match client.verify(token, system_id, &info).await {
            VerifyOutcome::Valid(Some(credentials)) => credentials,
            VerifyOutcome::Valid(None) => {
                let now = jiff::Timestamp::from_second(jiff::Timestamp::now().as_second())?;
                RunnerCredentials {
                    id: None,
                    token: token.clone(),
                    token_expires_at: None,
                    token_obtained_at: now,
                }
            }
            VerifyOutcome::Removed => {
                return Err(anyhow::anyhow!("{} does not know this token ({})", runner.url, token.short()))
                    .hint("check that it was copied completely; a registration token goes to --registration-token")
                    .exit(Exit::Server);
            }
            VerifyOutcome::Unknown(error) => return Err(unreachable(&runner, error)),
        },
        Credential::Registration(token) => {
            match client.register(token, &registration(wish, args), &info).await {
                Ok(credentials) => credentials,
                Err(RegisterError::Failed(error)) => return Err(unreachable(&runner, error)),
                Err(refused) => return Err(refused).exit(Exit::Server),
            }
        }
    };
    Ok(Registered { client, credentials })
}

fn registration(wish: &Wish, args: &RegisterArgs) -> Registration {
    let legacy = &args.legacy;
    Registration {
        description: Some(wish.name.clone()),
        maintenance_note: wish.maintenance_note.clone(),
        tags: wish.tags.clone(),
        // A runner that took neither would be of no use.
        run_untagged: wish.tags.is_empty() || legacy.run_untagged.unwrap_or(false),
        locked: legacy.locked.unwrap_or(true),
        access_level: legacy.access_level.clone().filter(|level| !level.is_empty()),
        maximum_timeout: legacy.maximum_timeout.filter(|limit| !limit.is_zero()),
        paused: legacy.paused.unwrap_or(false),
    }
}
