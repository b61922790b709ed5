//! The variables of a job: what the runner adds, in which order, and what programs see of them.

mod expand;
mod set;

#[cfg(test)]
pub(crate) mod tests;

use std::time::Duration;

use tart_spec::JobPayload;

use crate::context::RunnerContext;
use crate::dirs::JobDirs;
use crate::flags::{FeatureFlags, Flag};
use crate::outcome::JobStatus;
use crate::scripts::JOB_TREE_NAMES;
use crate::stages::Place;

pub use expand::expand;
pub use set::{JobVariable, VariableSet};

/// The longest string Linux lets a program have in its environment, with the name, `=` and the final NUL.
const LONGEST_ENTRY: usize = 128 * 1024;

/// A file whose path is the value of a variable.
#[derive(Clone, PartialEq, Eq)]
pub struct VariableFile {
    /// Absolute, in the guest.
    pub path: String,
    /// Written as it is.
    pub content: String,
}

impl std::fmt::Debug for VariableFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("VariableFile").field("path", &self.path).finish_non_exhaustive()
    }
}

/// All variables of a job, expanded. `Debug` shows names only.
#[derive(Clone)]
pub struct JobVariables {
    set: VariableSet,
    /// Values of masked variables as they were before expansion.
    unexpanded_phrases: Vec<String>,
    job_token: String,
    gitlab_env: String,
}

impl std::fmt::Debug for JobVariables {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("JobVariables").field("set", &self.set).finish_non_exhaustive()
    }
}

impl JobVariables {
    /// Puts the variables together, in the order in which later ones win, and expands each once.
    ///
    /// Variables that no program could see are left out, with a warning.
    pub fn build(
        payload: &JobPayload,
        context: &RunnerContext,
        flags: &FeatureFlags,
        dirs: &JobDirs,
        warnings: &mut Vec<String>,
    ) -> Self {
        let mut set = VariableSet::new(&dirs.temp_dir);
        for variable in all_variables(payload, context, flags, dirs) {
            match refusal(&variable) {
                None => set.push(variable),
                Some(reason) => warnings.push(format!("variable {:?} left out: {reason}", variable.key)),
            }
        }
        let unexpanded_phrases = masked(&set).map(str::to_owned).collect();
        let expanded = set.expanded();
        Self {
            set: expanded,
            unexpanded_phrases,
            job_token: payload.token.clone(),
            gitlab_env: dirs.gitlab_env(),
        }
    }

    /// The value of a setting: the last one of its name, and the content, for a file variable.
    pub fn value(&self, key: &str) -> Option<&str> {
        self.set.value(key)
    }

    /// The variables in order.
    pub fn set(&self) -> &VariableSet {
        &self.set
    }

    /// Expands text of the job with its variables; a file variable stands for its path.
    pub fn expand(&self, text: &str) -> String {
        self.set.expand(text)
    }

    /// The path of a file variable, if there is one of that name.
    pub fn file_path(&self, key: &str) -> Option<String> {
        self.set.get(key).filter(|variable| variable.file).map(|variable| self.set.file_path(&variable.key))
    }

    /// The environment of a script, each name once.
    pub fn environment(&self, place: Place, status: JobStatus) -> Vec<(String, String)> {
        let of_runner = [("CI_JOB_STATUS", status.as_str()), ("GITLAB_ENV", self.gitlab_env.as_str())];
        let mut environment: Vec<(String, String)> = self
            .set
            .effective()
            .filter(|variable| of_runner.iter().all(|(name, _)| *name != variable.key))
            .filter(|variable| place == Place::Job || !JOB_TREE_NAMES.contains(&variable.key.as_str()))
            .map(|variable| (variable.key.clone(), self.set.exported(variable)))
            .collect();
        environment.extend(of_runner.map(|(key, value)| (key.to_owned(), value.to_owned())));
        environment
    }

    /// The files to be written before each stage.
    pub fn files(&self) -> Vec<VariableFile> {
        let files = self.set.effective().filter(|variable| variable.file);
        files
            .map(|variable| VariableFile {
                path: self.set.file_path(&variable.key),
                content: variable.value.clone(),
            })
            .collect()
    }

    /// Everything that must not be readable in the log.
    pub fn masked_phrases(&self) -> impl Iterator<Item = &str> {
        let unexpanded = self.unexpanded_phrases.iter().map(String::as_str);
        masked(&self.set).chain(unexpanded).chain([self.job_token.as_str()])
    }

    /// The environment of a service: what is public or set by the runner, then the service's own variables,
    /// expanded with all variables of the job. File variables stay away: a service has no such files.
    pub fn service_environment(&self, own: &[tart_spec::Variable]) -> Vec<(String, String)> {
        let shared =
            self.set.effective().filter(|variable| (variable.public || variable.internal) && !variable.file);
        let mut environment = VariableSet::new("");
        for variable in shared {
            environment.push(variable.clone());
        }
        for variable in own {
            let mut variable = JobVariable::from(variable);
            if !variable.raw {
                variable.value = self.expand(&variable.value);
            }
            if refusal(&variable).is_none() {
                environment.push(variable);
            }
        }
        environment.effective().map(|variable| (variable.key.clone(), variable.value.clone())).collect()
    }
}

/// The job's timeout: 2 hours if the server names none.
pub fn job_timeout(payload: &JobPayload) -> Duration {
    const DEFAULT_SECONDS: u64 = 7200;
    match u64::try_from(payload.runner_info.timeout) {
        Ok(seconds) if seconds > 0 => Duration::from_secs(seconds),
        _ => Duration::from_secs(DEFAULT_SECONDS),
    }
}

fn masked(set: &VariableSet) -> impl Iterator<Item = &str> {
    set.iter().filter(|variable| variable.masked).map(|variable| variable.value.as_str())
}

/// Why a variable cannot be given to a program.
fn refusal(variable: &JobVariable) -> Option<String> {
    let key = &variable.key;
    if key.is_empty() || key.contains(['=', '\0']) {
        return Some("its name cannot be the name of a variable".to_owned());
    }
    if variable.file {
        let unusable = key.contains('/') || matches!(key.as_str(), "." | "..") || key.len() > 255;
        return unusable.then(|| "its name cannot be the name of a file".to_owned());
    }
    if variable.value.contains('\0') {
        return Some("its value contains a NUL byte".to_owned());
    }
    let size = key.len() + variable.value.len() + 2;
    (size > LONGEST_ENTRY).then(|| {
        format!("it takes {size} bytes, and no program starts with more than {LONGEST_ENTRY}; make it a file variable")
    })
}

/// The variables in the order in which later ones win.
fn all_variables(
    payload: &JobPayload,
    context: &RunnerContext,
    flags: &FeatureFlags,
    dirs: &JobDirs,
) -> Vec<JobVariable> {
    let text = |key: &str, value: &str| JobVariable::internal(key, value);
    let expandable = |key: &str, value: &str| JobVariable { raw: false, ..JobVariable::internal(key, value) };
    let mut all: Vec<JobVariable> =
        Flag::ALL.iter().map(|flag| text(flag.name(), &flags.is_on(*flag).to_string())).collect();
    if let Some(image) = payload.image.as_ref().filter(|image| !image.name.is_empty()) {
        all.push(expandable("CI_JOB_IMAGE", &image.name));
    }
    all.push(text("CI_RUNNER_SHORT_TOKEN", &context.short_token));
    all.extend(context.environment.iter().map(|(key, value)| expandable(key, value)));
    all.extend([
        text("CI_BUILDS_DIR", &dirs.builds_dir),
        text("CI_PROJECT_DIR", &dirs.build_dir),
        text("CI_CONCURRENT_ID", &context.concurrent_id.to_string()),
        text("CI_CONCURRENT_PROJECT_ID", &context.concurrent_project_id.to_string()),
        text("CI_SERVER", "yes"),
        text("CI_JOB_STATUS", JobStatus::Running.as_str()),
        text("CI_JOB_TIMEOUT", &job_timeout(payload).as_secs().to_string()),
    ]);
    let tls = &context.tls;
    for (key, content, masked) in [
        ("CI_SERVER_TLS_CA_FILE", &tls.ca, false),
        ("CI_SERVER_TLS_CERT_FILE", &tls.certificate, false),
        ("CI_SERVER_TLS_KEY_FILE", &tls.key, true),
    ] {
        let file = |content: &str| JobVariable { file: true, masked, ..text(key, content) };
        all.extend(content.as_deref().map(file));
    }
    all.extend(payload.variables.iter().map(JobVariable::from).filter(|v| Flag::by_name(&v.key).is_none()));
    let product = &context.product;
    all.extend([
        text("CI_DISPOSABLE_ENVIRONMENT", "true"),
        text("CI_RUNNER_VERSION", &product.version),
        text("CI_RUNNER_REVISION", &product.revision),
        text("CI_RUNNER_EXECUTABLE_ARCH", &format!("{}/{}", product.os, product.architecture)),
    ]);
    all.extend(
        context.secrets.iter().map(|secret| JobVariable { masked: true, ..JobVariable::from(secret) }),
    );
    all.push(text("RUNNER_TEMP_PROJECT_DIR", &dirs.temp_dir));
    all
}
