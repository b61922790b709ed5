//! Control over one job, and the waits for its events.

use std::fmt::Write as _;
use std::panic::Location;
use std::sync::Arc;
use std::time::Duration;

use crate::history::Request;
use crate::job::{Artifact, Job, JobState, Session, Update};
use crate::state::{Shared, State};

/// Control over one job.
#[derive(Clone, Debug)]
pub struct JobHandle {
    shared: Arc<Shared>,
    id: u64,
}

impl JobHandle {
    pub(crate) fn new(shared: Arc<Shared>, id: u64) -> Self {
        Self { shared, id }
    }

    /// The number of the job.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// The job token.
    pub fn token(&self) -> String {
        self.with(|job| job.token.clone())
    }

    /// The number of the job's pipeline.
    pub fn pipeline_id(&self) -> u64 {
        self.with(|job| job.pipeline_id)
    }

    /// The commit the job builds.
    pub fn sha(&self) -> String {
        self.with(|job| job.revision.sha.clone())
    }

    /// The job as the server knows it now.
    pub fn get(&self) -> Job {
        self.with(Job::clone)
    }

    /// The state of now.
    pub fn state(&self) -> JobState {
        self.with(|job| job.state)
    }

    /// The log so far, with bytes that are not UTF-8 replaced.
    pub fn log(&self) -> String {
        self.with(Job::log)
    }

    /// The log so far.
    pub fn log_bytes(&self) -> Vec<u8> {
        self.with(|job| job.log.clone())
    }

    /// Whether the first chunk of the log came with `debug_trace=true`.
    pub fn debug_trace(&self) -> bool {
        self.with(|job| job.debug_trace)
    }

    /// Why the job failed.
    pub fn failure_reason(&self) -> Option<String> {
        self.with(|job| job.failure_reason.clone())
    }

    /// The exit code of the final update.
    pub fn exit_code(&self) -> Option<i64> {
        self.with(|job| job.exit_code)
    }

    /// The updates so far.
    pub fn updates(&self) -> Vec<Update> {
        self.with(|job| job.updates.clone())
    }

    /// The artifacts so far.
    pub fn artifacts(&self) -> Vec<Artifact> {
        self.with(|job| job.artifacts.clone())
    }

    /// The session offered by the runner that got the job.
    pub fn session(&self) -> Option<Session> {
        self.with(|job| job.assignment.as_ref().and_then(|by| by.session.clone()))
    }

    /// The requests whose path names this job.
    pub fn requests(&self) -> Vec<Request> {
        self.shared.read(|state| {
            state.requests.iter().filter(|request| request.job_id == Some(self.id)).cloned().collect()
        })
    }

    /// Cancels the job as a person does: gracefully if the runner can, at once if not.
    pub fn cancel(&self) {
        self.change(Job::cancel);
    }

    /// Cancels the job at once, without `after_script`.
    pub fn abort(&self) {
        self.change(Job::abort);
    }

    /// Fails the job from the server's side, as it does when a runner was silent for too long.
    pub fn fail(&self, reason: &str) {
        self.change(|job| job.drop_with(reason));
    }

    /// Waits for a state.
    ///
    /// # Panics
    /// After `timeout`, or when the job ended in another state.
    #[track_caller]
    pub fn wait_state(&self, wanted: JobState, timeout: Duration) -> impl Future<Output = ()> + use<> {
        let caller = Location::caller();
        let this = self.clone();
        async move {
            let (reached, story) = this
                .wait(timeout, caller, &format!("job in state {}", wanted.as_str()), move |state, job| {
                    let reached = job.state == wanted;
                    (reached || job.state.is_finished()).then(|| (reached, story(state, job)))
                })
                .await;
            assert!(reached, "{caller}: waited for state {}, but {story}", wanted.as_str());
        }
    }

    /// Waits for the end of the job and returns its last state.
    ///
    /// # Panics
    /// After `timeout`.
    #[track_caller]
    pub fn wait_finished(&self, timeout: Duration) -> impl Future<Output = JobState> + use<> {
        let caller = Location::caller();
        let this = self.clone();
        async move {
            this.wait(timeout, caller, "the end of the job", |_, job| {
                job.state.is_finished().then_some(job.state)
            })
            .await
        }
    }

    /// Waits until the log contains a text.
    ///
    /// # Panics
    /// After `timeout`, or when the job ended without it.
    #[track_caller]
    pub fn wait_log_contains(&self, text: &str, timeout: Duration) -> impl Future<Output = ()> + use<> {
        let caller = Location::caller();
        let this = self.clone();
        let text = text.to_owned();
        async move {
            let (found, story) = this
                .wait(timeout, caller, &format!("{text:?} in the log"), |state, job| {
                    let found = job.log().contains(&text);
                    (found || job.state.is_finished()).then(|| (found, story(state, job)))
                })
                .await;
            assert!(found, "{caller}: waited for {text:?} in the log, but {story}");
        }
    }

    /// Waits until a condition holds.
    ///
    /// # Panics
    /// After `timeout`.
    #[track_caller]
    pub fn wait_for(
        &self,
        what: &str,
        timeout: Duration,
        mut condition: impl FnMut(&Job) -> bool,
    ) -> impl Future<Output = ()> {
        let caller = Location::caller();
        let this = self.clone();
        let what = what.to_owned();
        async move {
            this.wait(timeout, caller, &what, |_, job| condition(job).then_some(())).await;
        }
    }

    /// Calls `sink` with each new piece of the log until the job ended; returns its last state.
    pub async fn follow_log(&self, mut sink: impl FnMut(&[u8])) -> JobState {
        let mut shown = 0;
        loop {
            let (piece, state) = self
                .shared
                .wait_until(|state| {
                    let job = state.job(self.id)?;
                    // After a lost or repeated log there may be less of it than was shown.
                    let piece = job.log.get(shown..).unwrap_or_default();
                    (!piece.is_empty() || job.state.is_finished()).then(|| (piece.to_vec(), job.state))
                })
                .await;
            if piece.is_empty() {
                return state;
            }
            shown += piece.len();
            sink(&piece);
        }
    }

    async fn wait<T>(
        &self,
        timeout: Duration,
        caller: &Location<'_>,
        what: &str,
        mut look: impl FnMut(&State, &Job) -> Option<T>,
    ) -> T {
        self.shared
            .wait_or_panic(
                timeout,
                caller,
                |state| look(state, state.job(self.id)?),
                |state| match state.job(self.id) {
                    Some(job) => format!("waited for {what}, {}", story(state, job)),
                    None => format!("waited for {what}, but the job is gone"),
                },
            )
            .await
    }

    fn with<T>(&self, look: impl FnOnce(&Job) -> T) -> T {
        self.shared.read(|state| look(state.job(self.id).expect("jobs are never removed")))
    }

    fn change(&self, change: impl FnOnce(&mut Job)) {
        self.shared.update(|state| {
            change(state.jobs.get_mut(&self.id).expect("jobs are never removed"));
            state.tick_queue();
        });
    }
}

/// What a person needs to see when a wait failed.
fn story(state: &State, job: &Job) -> String {
    let mut text = format!("job {} is {}", job.id, job.state.as_str());
    if let Some(reason) = &job.failure_reason {
        let _ = write!(text, " ({reason})");
    }
    if !state.violations.is_empty() {
        let _ = write!(text, "\n--- violations\n{}", state.violations.join("\n"));
    }
    let _ = write!(text, "\n--- log\n{}\n--- end of log", job.log());
    text
}
