//! Whose turn it is to ask for a job, and what comes of it.

use std::sync::Arc;
use std::time::{Duration, Instant as StdInstant};

use tart_gitlab::{AssignedJob, JobRequest, RequestOutcome, SessionOffer};
use tart_images::chain;
use tart_session::Session;
use tokio::sync::watch;
use tokio::task::JoinError;
use tokio::time::Instant;

use super::entry::Entry;
use super::supervise::{self, Assignment, JobEnd};
use super::{Daemon, Phase, Polled, after};
use crate::JobSession;

impl Daemon {
    /// Offers the next runner to ask for a job. Every runner has its turn once in `check_interval`.
    pub(super) fn take_turn(&mut self) {
        let count = self.entries.len().max(1);
        let pause = self.config.check_interval / u32::try_from(count).unwrap_or(u32::MAX);
        // A turn that comes late does not make up for those before.
        self.next_turn = after(Instant::now(), pause.max(Duration::from_millis(1)));
        let entry = self.entries.get(self.turn % count).cloned();
        self.turn = (self.turn + 1) % count;
        if let Some(entry) = entry {
            self.offer(&entry);
        }
    }

    /// Lets a runner ask for a job if it may.
    fn offer(&mut self, entry: &Arc<Entry>) {
        let free = self.free();
        let waiting = self.entries.len();
        let Some(state) = self.states.get_mut(&entry.key) else { return };
        let limit = usize::try_from(entry.runner.limit).unwrap_or(usize::MAX);
        let within_limit = limit == 0 || state.jobs + state.polls < limit;
        if free == 0 || !within_limit || state.polls >= state.poll_limit(&entry.runner) {
            return;
        }
        if entry.token.is_empty() || !state.health.may_poll(StdInstant::now()) {
            return;
        }
        state.polls += 1;
        // A poll takes the place of the job it may bring. Where there are fewer places than runners, none may be taken
        // for as long as a server likes to hold a poll.
        let may_hold = free >= waiting;
        let (entry, system_id) = (Arc::clone(entry), self.options.system_id.clone());
        let session = self.session();
        tracing::debug!(runner = entry.token.short(), may_hold, "Checking for jobs");
        self.polls.spawn(async move {
            let offer = session.as_ref().map(offer);
            let request = JobRequest {
                token: &entry.token,
                system_id: &system_id,
                info: &entry.info,
                session: offer.as_ref(),
                may_hold,
            };
            let answer = entry.client.request_job(&request).await;
            Polled { entry, answer, session }
        });
    }

    /// What a request for a job offers, if there is a session server.
    fn session(&self) -> Option<Session> {
        let session = self.sessions.as_ref()?.session();
        session.inspect_err(|error| tracing::error!(error = chain(error), "No session is offered")).ok()
    }

    /// From now on, GitLab reaches it.
    fn opened(&self, session: Session) -> JobSession {
        session.open();
        JobSession { session: Arc::new(session), timeout: self.config.session_server.session_timeout }
    }

    /// How many more jobs may run.
    fn free(&self) -> usize {
        let concurrent = usize::try_from(self.config.concurrent).unwrap_or(usize::MAX);
        let left = self.options.max_builds.map(|max| max.saturating_sub(self.end.jobs));
        let left = left.map_or(usize::MAX, |left| usize::try_from(left).unwrap_or(usize::MAX));
        let running = self.jobs.len() + self.polls.len();
        concurrent.saturating_sub(running).min(left.saturating_sub(self.polls.len()))
    }

    pub(super) fn polled(&mut self, polled: Result<Polled, JoinError>) {
        let Polled { entry, answer, session } = match polled {
            Ok(polled) => polled,
            // No more jobs are wanted: nobody counts polls any more.
            Err(error) if error.is_cancelled() => return,
            Err(error) => {
                return tracing::error!(error = error.to_string(), "a poll failed by a mistake of ours");
            }
        };
        let runner = entry.token.short();
        if let Some(state) = self.states.get_mut(&entry.key) {
            state.polls = state.polls.saturating_sub(1);
            state.concurrency.record(answer.poll());
            if state.health.record(answer.is_healthy(), StdInstant::now()) {
                let pause = humantime::format_duration(entry.runner.unhealthy_interval);
                tracing::error!(runner, "Runner is unhealthy and will be disabled for {pause}");
            }
        }
        match answer.outcome {
            RequestOutcome::NoJob => {}
            RequestOutcome::Failed(error) => {
                tracing::warn!(runner, error = chain(&error), "Checking for jobs... failed");
            }
            RequestOutcome::Unhealthy(error) => {
                tracing::error!(runner, error = chain(&error), "Checking for jobs... forbidden");
            }
            RequestOutcome::Job(job) => self.assigned(&entry, job, session),
        }
    }

    fn assigned(&mut self, entry: &Arc<Entry>, job: Box<AssignedJob>, session: Option<Session>) {
        let payload = &job.payload;
        let slot = self.slots.take(&entry.key, payload.job_info.project_id);
        tracing::info!(
            job = payload.id,
            runner = entry.token.short(),
            runner_name = entry.runner.display_name(),
            project = payload.job_info.project_id,
            project_full_path = payload.job_info.project_full_path,
            correlation_id = job.correlation_id,
            "Checking for jobs... received"
        );
        if let Some(state) = self.states.get_mut(&entry.key) {
            state.jobs += 1;
        }
        self.end.jobs += 1;
        self.last_job = Instant::now();
        let assignment = Assignment {
            entry: Arc::clone(entry),
            job,
            slot,
            options: self.options.clone(),
            executor: Arc::clone(&self.executor),
            session: session.map(|session| self.opened(session)),
            interrupt: watch::Sender::subscribe(&self.interrupt),
        };
        self.jobs.spawn(supervise::run(assignment));
        if self.options.max_builds.is_some_and(|max| self.end.jobs >= max) {
            self.drain();
        } else if self.phase == Phase::Running {
            // Where one job was there may be more. The configuration may be another one since this one was asked for.
            let current = self.entries.iter().find(|current| current.key == entry.key).cloned();
            if let Some(current) = current.filter(|current| !current.runner.strict_check_interval) {
                self.offer(&current);
            }
        }
    }

    pub(super) fn job_ended(&mut self, ended: Result<JobEnd, JoinError>) {
        self.last_job = Instant::now();
        match ended {
            Ok(JobEnd { slot, succeeded }) => {
                if let Some(state) = self.states.get_mut(&slot.runner) {
                    state.jobs = state.jobs.saturating_sub(1);
                }
                self.slots.release(slot);
                self.end.failed += u64::from(!succeeded);
            }
            // Supervision catches the panics of jobs, so this one is its own.
            Err(error) => {
                self.end.failed += 1;
                tracing::error!(error = error.to_string(), "a job's supervision failed");
            }
        }
    }
}

fn offer(session: &Session) -> SessionOffer {
    let offer = session.offer();
    SessionOffer {
        url: offer.url.clone(),
        certificate: offer.certificate.clone(),
        authorization: offer.authorization.clone(),
    }
}
