//! What conditions are evaluated with: variables and files.

use std::collections::HashMap;

use crate::{
    context::ExecContext,
    expand::{expand, nested},
    expression::Expression,
    glob::Glob,
    job::Job,
    predefined,
    variables::Variable,
};

/// The most comparisons of a path with a pattern in one clause; more of them count as a match, as in GitLab.
const MAX_CHANGES: usize = 50_000;
const MAX_EXISTS: usize = 10_000;

/// What conditions ask about the files of the repository.
pub trait WorkTree {
    /// The paths that the event changes. `None` if there is nothing to compare with, so that everything counts as
    /// changed.
    fn changed(&self) -> Option<Vec<String>>;

    /// The paths that differ from a branch, a tag or a commit.
    ///
    /// # Errors
    ///
    /// Says why it cannot be compared with, to complete "cannot compare with ...: ".
    fn changed_since(&self, reference: &str) -> Result<Vec<String>, String>;

    /// The paths of all files.
    fn files(&self) -> Vec<String>;
}

/// The variables and files of a pipeline, or of one of its jobs.
pub(crate) struct Conditions<'a> {
    pub(crate) context: &'a ExecContext,
    pub(crate) tree: &'a dyn WorkTree,
    variables: HashMap<String, String>,
}

impl<'a> Conditions<'a> {
    /// Those of a pipeline, with variables of its file.
    pub(crate) fn of_pipeline<'v>(
        context: &'a ExecContext,
        tree: &'a dyn WorkTree,
        own: impl Iterator<Item = (&'v String, &'v Variable)>,
    ) -> Self {
        let mut variables = HashMap::from([("CI".to_owned(), "true".to_owned())]);
        variables.insert("GITLAB_CI".to_owned(), "true".to_owned());
        let predefined = predefined::of_pipeline(context).into_iter();
        variables.extend(predefined.map(|(key, value)| (key.to_owned(), value)));
        variables.extend(own.map(|(key, variable)| (key.clone(), variable.value.clone())));
        variables.extend(context.variables.iter().cloned());
        Self { context, tree, variables }
    }

    /// Those of a job, which has the variables of its file.
    pub(crate) fn of_job(context: &'a ExecContext, tree: &'a dyn WorkTree, job: &Job) -> Self {
        let mut found = Self::of_pipeline(context, tree, std::iter::empty());
        let predefined = predefined::of_job(job).into_iter();
        found.variables.extend(predefined.map(|(key, value)| (key.to_owned(), value)));
        let own = job.variables.iter().map(|(key, variable)| (key.clone(), variable.value.clone()));
        found.variables.extend(own);
        found.variables.extend(context.variables.iter().cloned());
        found
    }

    /// Whether an expression holds. Variables in values are not expanded, as in GitLab.
    pub(crate) fn hold(&self, expression: &Expression) -> bool {
        expression.holds(&|name| self.variables.get(name).cloned())
    }

    /// A text with its variables, and theirs.
    pub(crate) fn expand(&self, text: &str) -> String {
        expand(text, &|name| nested(name, &self.variables))
    }

    /// Whether a changed path matches one of the patterns.
    pub(crate) fn changes(&self, patterns: &[String], compare_to: Option<&str>) -> Result<bool, String> {
        let paths = match compare_to {
            Some(reference) => {
                let reference = self.expand(reference);
                let changed = self.tree.changed_since(&reference);
                changed.map_err(|why| format!("cannot compare with `{reference}`: {why}"))?
            }
            None => match self.tree.changed() {
                Some(paths) => paths,
                None => return Ok(true),
            },
        };
        Ok(paths.len().saturating_mul(patterns.len()) > MAX_CHANGES || self.any_matches(patterns, &paths))
    }

    /// Whether there is a file that matches one of the patterns.
    pub(crate) fn exist(&self, patterns: &[String]) -> bool {
        let paths = self.tree.files();
        let plain = |pattern: &String| !pattern.contains(['*', '?', '[', '{']);
        let (plain, others): (Vec<_>, Vec<_>) =
            patterns.iter().map(|pattern| self.expand(pattern)).partition(plain);
        paths.iter().any(|path| plain.contains(path))
            || paths.len().saturating_mul(others.len()) > MAX_EXISTS && !others.is_empty()
            || self.any_matches(&others, &paths)
    }

    fn any_matches(&self, patterns: &[String], paths: &[String]) -> bool {
        let globs: Vec<Glob> = patterns.iter().map(|pattern| Glob::new(&self.expand(pattern))).collect();
        paths.iter().any(|path| globs.iter().any(|glob| glob.matches(path)))
    }
}
