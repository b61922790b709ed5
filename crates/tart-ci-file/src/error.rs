//! What is wrong with a CI file, and where.

use std::{fmt, sync::Arc};

/// A place in a file of the repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Location {
    /// The path from the root of the repository.
    pub file: Arc<str>,
    /// The line, from 1.
    pub line: usize,
}

impl fmt::Display for Location {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}", self.file, self.line)
    }
}

/// Why a CI file was not evaluated, or a job not made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Something in a file is wrong.
    #[error("{at}: {text}")]
    Invalid {
        /// Where.
        at: Location,
        /// What, and what to do.
        text: String,
    },
    /// A file cannot be used.
    #[error("{text}")]
    File {
        /// The path from the root of the repository.
        path: String,
        /// Why, and what to do.
        text: String,
    },
    /// There is no such job.
    #[error("{}", unknown_job(name, jobs))]
    UnknownJob {
        /// What was asked for.
        name: String,
        /// The jobs that there are.
        jobs: Vec<String>,
    },
    /// The job cannot run on this machine.
    #[error("the job `{name}` cannot run locally: {reason}")]
    NotRunnable {
        /// The job.
        name: String,
        /// Why.
        reason: &'static str,
    },
}

impl Error {
    pub(crate) fn invalid(at: &Location, text: impl Into<String>) -> Self {
        Self::Invalid { at: at.clone(), text: text.into() }
    }
}

/// A result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

fn unknown_job(name: &str, jobs: &[String]) -> String {
    let is_instance = |job: &String| {
        job.strip_prefix(name)
            .is_some_and(|rest| rest.starts_with(": [") || (rest.starts_with(' ') && rest.contains('/')))
    };
    let hint = match jobs.iter().find(|job| is_instance(job)) {
        Some(instance) => format!(", but it has instances: name one of them, such as `{instance}`"),
        None => nearest(name, jobs.iter().map(String::as_str))
            .map(|job| format!("; did you mean `{job}`?"))
            .unwrap_or_default(),
    };
    let list: Vec<String> = jobs.iter().map(|job| format!("\n  {job}")).collect();
    format!("there is no job `{name}`{hint}\njobs in this file:{}", list.concat())
}

/// The candidate that differs least from `word`, if it is near enough to be meant.
pub(crate) fn nearest<'a>(word: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_lowercase();
    candidates
        .map(|candidate| (strsim::damerau_levenshtein(&word, &candidate.to_lowercase()), candidate))
        .filter(|(distance, candidate)| *distance <= (candidate.chars().count() / 3).max(1))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}
