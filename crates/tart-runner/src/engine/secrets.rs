//! The stage before all others: secrets become variables of the job, which are masked and only ever in memory.

use tart_job::Level;
use tart_job::flags::Flag;
use tart_job::outcome::Failure;
use tart_job::plan::JobPlan;
use tart_job::stages::Stage;
use tart_secrets::{Cause, Resolver, SecretError};
use tart_spec::{FailureReason, Variable};
use tokio::time::sleep;

use super::control::{Control, Scope};
use super::job::announce_retry;
use super::log::JobLog;
use super::{EXECUTOR, JobRun};

/// Fetches the secrets of a job and plans it anew with them.
pub(super) async fn resolve(
    run: &mut JobRun,
    plan: JobPlan,
    log: &mut JobLog,
    control: &mut Control,
) -> Result<JobPlan, Failure> {
    let stage = Stage::ResolveSecrets;
    log.begin_section(&stage.name(), &stage.header(EXECUTOR));
    let result = with_tries(run, &plan, log, control).await;
    log.end_section(&stage.name());
    run.context.secrets = result?;
    let plan = JobPlan::new(&run.payload, &run.context).map_err(Failure::from)?;
    log.set_mask(plan.log_options(&run.payload).mask);
    Ok(plan)
}

async fn with_tries(
    run: &JobRun,
    plan: &JobPlan,
    log: &mut JobLog,
    control: &mut Control,
) -> Result<Vec<Variable>, Failure> {
    let scope = Scope { bounds: Vec::new(), cancellable: true };
    let mut failed = 0;
    loop {
        let error = match control.unless_halted(&scope, all(run, plan, log)).await? {
            Ok(secrets) => return Ok(secrets),
            Err(error) => error,
        };
        failed += 1;
        if failed >= plan.settings.attempts.secrets {
            return Err(failure(&error));
        }
        let delay = announce_retry(&Stage::ResolveSecrets, &error, failed, plan, log);
        control.unless_halted(&scope, sleep(delay)).await?;
    }
}

async fn all(run: &JobRun, plan: &JobPlan, log: &mut JobLog) -> Result<Vec<Variable>, SecretError> {
    let resolver = Resolver::new()?;
    let expand = |text: &str| plan.variables.expand(text);
    let missing_fails = plan.flags.is_on(Flag::SecretResolvingFailsIfMissing);
    let mut variables = Vec::new();
    for (name, secret) in &run.payload.secrets {
        log.line(Level::Print, &format!("Resolving secret \"{name}\"..."));
        let Some(provider) = secret.provider() else {
            log.line(Level::Warning, "Not resolved: no resolver that can handle the secret");
            continue;
        };
        log.line(Level::Print, &format!("Using \"{}\" secret resolver...", resolver_name(provider)));
        match resolver.resolve(secret, &expand).await {
            Ok(value) => variables.push(Variable {
                key: name.clone(),
                value,
                public: false,
                masked: true,
                file: secret.is_file(),
                raw: true,
            }),
            Err(error) if error.cause == Cause::Missing && !missing_fails => {
                log.line(Level::Warning, &format!("{error}: the variable {name} is not set"));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(variables)
}

/// What the official runner calls a provider in logs.
fn resolver_name(provider: &str) -> &str {
    if provider == "azure_key_vault" { "azure-key-vault" } else { provider }
}

fn failure(error: &SecretError) -> Failure {
    let reason = match error.cause {
        Cause::Configuration | Cause::Missing => FailureReason::RunnerConfigurationError,
        Cause::Provider => FailureReason::RunnerExternalDependencyFailure,
        Cause::Other => FailureReason::RunnerSystemFailure,
    };
    Failure::Other { message: format!("resolving secrets: {error}"), reason }
}
