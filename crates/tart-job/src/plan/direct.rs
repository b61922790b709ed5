//! Stages whose work is too little for a shell in the guest: the runner does it with the agent alone.
//!
//! A shell costs a guest more than all the rest of such a stage. The log and the files are those that the script of the
//! stage would make; a job that traces its scripts has the script.

use super::JobPlan;
use crate::context::RunnerContext;
use crate::scripts::{SKIPPED_SOURCES, notice, running_on};
use crate::settings::GitStrategy;
use crate::stages::Stage;

/// What such a stage does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirectWork {
    /// What it prints, with line feeds.
    pub text: String,
    /// Directories that it makes, each after the one that it is in.
    pub directories: Vec<String>,
    /// Files that it makes, or empties.
    pub files: Vec<String>,
}

impl JobPlan {
    /// What the runner does itself instead of having [`Self::script`] run. `hostname` is the guest's. `None` for a
    /// stage that needs a shell.
    pub fn direct(&self, stage: &Stage, context: &RunnerContext, hostname: &str) -> Option<DirectWork> {
        if self.settings.debug_trace {
            return None;
        }
        match stage {
            Stage::PrepareScript => Some(DirectWork {
                text: running_on(hostname, context.host_name.as_deref()),
                directories: Vec::new(),
                // Its directory is a mount of the guest.
                files: vec![self.dirs.gitlab_env()],
            }),
            Stage::GetSources if self.settings.git.strategy == GitStrategy::None => Some(DirectWork {
                text: SKIPPED_SOURCES.map(|line| notice(line) + "\n").concat(),
                directories: below(&self.dirs.builds_dir, &self.dirs.build_dir),
                files: Vec::new(),
            }),
            _ => None,
        }
    }
}

/// The directories from `top`, which is there, to `path`.
fn below(top: &str, path: &str) -> Vec<String> {
    let Some(rest) = path.strip_prefix(top) else { return vec![path.to_owned()] };
    let ends =
        rest.char_indices().filter(|(at, c)| *c == '/' && *at > 0).map(|(at, _)| at).chain([rest.len()]);
    ends.filter_map(|end| rest.get(..end))
        .filter(|part| !part.is_empty())
        .map(|part| format!("{top}{part}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_are_made_from_the_top() {
        assert_eq!(below("/builds", "/builds/g/p"), ["/builds/g", "/builds/g/p"]);
        assert_eq!(below("/", "/g/p"), ["/g", "/g/p"]);
        assert!(below("/builds", "/builds").is_empty());
        assert_eq!(below("/builds", "/else/p"), ["/else/p"]);
    }
}
