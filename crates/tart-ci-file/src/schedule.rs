//! Which job of a pipeline may start when: a state machine that is told how jobs end.
//!
//! It decides as GitLab does: a job is looked at when all before it have ended (those of earlier stages, or those that
//! it needs), and their common status says whether it starts, is skipped, or waits for somebody.

use std::collections::BTreeSet;

use crate::job::{AllowFailure, Retry, When};

/// A job, as far as the order is concerned. Jobs are known by their place in the list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Task {
    /// The place of its stage.
    pub stage: usize,
    /// The jobs that it waits for; `None` means all of earlier stages.
    pub needs: Option<Vec<usize>>,
    /// When it runs.
    pub when: When,
    /// Which failures do not fail the pipeline.
    pub allow_failure: AllowFailure,
    /// When it is run again.
    pub retry: Retry,
    /// Jobs of the same group do not run at the same time.
    pub resource_group: Option<String>,
    /// Somebody asks for it: it does not wait for that, if it is manual.
    pub wanted: bool,
}

/// How far a job is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum State {
    /// It waits for others.
    #[default]
    Created,
    /// It waits for somebody to ask for it.
    Manual,
    /// It may start.
    Ready,
    /// It runs.
    Running,
    /// It succeeded.
    Success,
    /// It failed.
    Failed,
    /// It failed, which does not fail the pipeline.
    Warning,
    /// It does not run.
    Skipped,
    /// It was cancelled.
    Canceled,
}

impl State {
    /// Whether nothing more happens to the job.
    #[must_use]
    pub fn is_over(self) -> bool {
        matches!(self, Self::Success | Self::Failed | Self::Warning | Self::Skipped | Self::Canceled)
    }
}

/// How a run of a job ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// It succeeded.
    Success,
    /// It failed.
    Failed {
        /// As GitLab names it, such as `script_failure`.
        reason: String,
        /// The exit code of its script, if that is why.
        exit_code: Option<i32>,
    },
    /// It was cancelled.
    Canceled,
}

/// What becomes of the pipeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PipelineStatus {
    /// Jobs are to run or run.
    Running,
    /// All that had to succeed did.
    Success,
    /// A job failed.
    Failed,
    /// It was cancelled.
    Canceled,
    /// No job ran.
    Skipped,
    /// It cannot go on before somebody asks for a job.
    Manual,
}

/// The jobs of a pipeline on their way.
#[derive(Debug, Clone)]
pub struct Schedule {
    tasks: Vec<Task>,
    states: Vec<State>,
    /// How often each was run again.
    retries: Vec<u32>,
    canceled: bool,
}

impl Schedule {
    /// All of them wait.
    #[must_use]
    pub fn new(tasks: Vec<Task>) -> Self {
        let count = tasks.len();
        let (states, retries) = (vec![State::Created; count], vec![0; count]);
        let mut schedule = Self { tasks, states, retries, canceled: false };
        schedule.process();
        schedule
    }

    /// A job that is to start now, which counts as running from now on. The earliest stage comes first.
    pub fn start(&mut self) -> Option<usize> {
        let held: BTreeSet<&str> = self.in_state(State::Running).filter_map(|at| self.group(at)).collect();
        let free = |at: &usize| self.group(*at).is_none_or(|group| !held.contains(group));
        let next = self.in_state(State::Ready).filter(free).min_by_key(|at| (self.stage(*at), *at))?;
        self.set(next, State::Running);
        Some(next)
    }

    /// A running job has ended. It may become ready once more. Of a job that does not run, nothing changes.
    pub fn end(&mut self, at: usize, ending: &Ending) {
        if self.state(at) != State::Running {
            return;
        }
        let state = match ending {
            Ending::Success => State::Success,
            Ending::Canceled => State::Canceled,
            Ending::Failed { reason, exit_code } => {
                if !self.canceled && self.retries_after(at, reason, *exit_code) {
                    if let Some(count) = self.retries.get_mut(at) {
                        *count += 1;
                    }
                    State::Ready
                } else if self.allows(at, *exit_code) {
                    State::Warning
                } else {
                    State::Failed
                }
            }
        };
        self.set(at, state);
        self.process();
    }

    /// Nothing starts any more. What runs is still to be ended.
    pub fn cancel(&mut self) {
        self.canceled = true;
        for state in &mut self.states {
            if matches!(state, State::Created | State::Ready | State::Manual) {
                *state = State::Canceled;
            }
        }
    }

    /// How far a job is.
    #[must_use]
    pub fn state(&self, at: usize) -> State {
        self.states.get(at).copied().unwrap_or_default()
    }

    /// How often a job was run again.
    #[must_use]
    pub fn retried(&self, at: usize) -> u32 {
        self.retries.get(at).copied().unwrap_or_default()
    }

    /// How far all jobs are.
    #[must_use]
    pub fn states(&self) -> &[State] {
        &self.states
    }

    /// Whether nothing runs and nothing can start.
    #[must_use]
    pub fn is_over(&self) -> bool {
        !self.states.iter().any(|state| matches!(state, State::Running | State::Ready))
    }

    /// What becomes of the pipeline.
    #[must_use]
    pub fn status(&self) -> PipelineStatus {
        match self.common(0..self.tasks.len(), false) {
            Common::Success => PipelineStatus::Success,
            Common::Failed => PipelineStatus::Failed,
            Common::Skipped => PipelineStatus::Skipped,
            Common::Canceled => PipelineStatus::Canceled,
            Common::Manual => PipelineStatus::Manual,
            Common::Unfinished => PipelineStatus::Running,
        }
    }

    /// Decides on jobs that wait, until no decision leads to another.
    fn process(&mut self) {
        if self.canceled {
            return;
        }
        let mut order: Vec<usize> = (0..self.tasks.len()).collect();
        order.sort_by_key(|at| (self.stage(*at), *at));
        loop {
            let mut changed = false;
            for at in &order {
                if self.state(*at) == State::Created
                    && let Some(state) = self.decide(*at)
                {
                    self.set(*at, state);
                    changed = true;
                }
            }
            if !changed {
                return;
            }
        }
    }

    /// What becomes of a job that waits; `None` as long as others are not over.
    fn decide(&self, at: usize) -> Option<State> {
        let task = self.tasks.get(at)?;
        let before = match &task.needs {
            Some(needs) => self.common(needs.iter().copied(), true),
            None => {
                let earlier = (0..self.tasks.len()).filter(|other| self.stage(*other) < task.stage);
                self.common(earlier, false)
            }
        };
        if matches!(before, Common::Unfinished | Common::Manual) {
            return None;
        }
        let starts = match task.when {
            When::OnSuccess | When::Manual | When::Delayed => {
                before == Common::Success || before == Common::Skipped && task.needs.is_none()
            }
            When::OnFailure => before == Common::Failed,
            When::Always => matches!(before, Common::Success | Common::Failed | Common::Skipped),
            When::Never => false,
        };
        Some(match (starts, task.when) {
            (false, _) => State::Skipped,
            (true, When::Manual) if !task.wanted => State::Manual,
            (true, _) => State::Ready,
        })
    }

    /// What jobs have in common. Those that are needed have to be over, one by one.
    fn common(&self, jobs: impl Iterator<Item = usize>, needed: bool) -> Common {
        let mut found = Found::default();
        for at in jobs.filter(|at| *at < self.tasks.len()) {
            found.take(
                self.state(at),
                self.tasks.get(at).is_some_and(|task| task.allow_failure == AllowFailure::Yes),
            );
        }
        found.common(needed)
    }

    fn retries_after(&self, at: usize, reason: &str, exit_code: Option<i32>) -> bool {
        let Some(retry) = self.tasks.get(at).map(|task| &task.retry) else { return false };
        let by_code = exit_code.is_some_and(|code| retry.exit_codes.contains(&code.into()));
        let always = retry.when.is_empty() && retry.exit_codes.is_empty();
        let by_reason = retry.when.iter().any(|when| when == "always" || when == reason);
        self.retried(at) < retry.max && (always || by_code || by_reason)
    }

    fn allows(&self, at: usize, exit_code: Option<i32>) -> bool {
        match self.tasks.get(at).map(|task| &task.allow_failure) {
            Some(AllowFailure::Yes) => true,
            Some(AllowFailure::ExitCodes(codes)) => {
                exit_code.is_some_and(|code| codes.contains(&code.into()))
            }
            Some(AllowFailure::No) | None => false,
        }
    }

    fn in_state(&self, wanted: State) -> impl Iterator<Item = usize> {
        self.states.iter().enumerate().filter(move |(_, state)| **state == wanted).map(|(at, _)| at)
    }

    fn group(&self, at: usize) -> Option<&str> {
        self.tasks.get(at)?.resource_group.as_deref()
    }

    fn stage(&self, at: usize) -> usize {
        self.tasks.get(at).map(|task| task.stage).unwrap_or_default()
    }

    fn set(&mut self, at: usize, state: State) {
        if let Some(slot) = self.states.get_mut(at) {
            *slot = state;
        }
    }
}

/// The status that several jobs have together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Common {
    Success,
    Failed,
    Skipped,
    Canceled,
    Manual,
    Unfinished,
}

/// Which states there are among several jobs.
#[derive(Debug, Default)]
struct Found {
    success: bool,
    failed: bool,
    skipped: bool,
    canceled: bool,
    /// Somebody has to ask for them before the pipeline goes on.
    blocking: bool,
    /// Nobody has to.
    ignored: bool,
    waiting: bool,
    active: bool,
}

impl Found {
    fn take(&mut self, state: State, optional: bool) {
        let flag = match state {
            State::Success | State::Warning => &mut self.success,
            // Whoever may fail may also be cancelled.
            State::Canceled if optional => &mut self.success,
            State::Manual if optional => &mut self.ignored,
            State::Manual => &mut self.blocking,
            State::Failed => &mut self.failed,
            State::Skipped => &mut self.skipped,
            State::Canceled => &mut self.canceled,
            State::Created => &mut self.waiting,
            State::Ready | State::Running => &mut self.active,
        };
        *flag = true;
    }

    fn common(&self, needed: bool) -> Common {
        if self.active || needed && self.waiting {
            return Common::Unfinished;
        }
        if needed && (self.skipped || self.ignored) {
            // What is needed does not run at all. GitLab does not wait for the others then, and so may start what is
            // to run `always` before they are over.
            return Common::Skipped;
        }
        if self.blocking {
            return Common::Manual;
        }
        if self.waiting {
            return Common::Unfinished;
        }
        if self.failed {
            return Common::Failed;
        }
        if self.canceled {
            return Common::Canceled;
        }
        if self.success || !(self.skipped || self.ignored) { Common::Success } else { Common::Skipped }
    }
}

#[cfg(test)]
mod tests;
