//! What ends work before it is done: signals from outside and time limits.

use std::time::Duration;

use tart_job::outcome::Failure;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::JobSignal;

/// A time limit, and the failure that is its end.
#[derive(Debug, Clone)]
pub(super) struct Bound {
    at: Instant,
    failure: Failure,
}

impl Bound {
    /// How long it takes until then.
    pub(super) fn left(&self) -> Duration {
        self.at.saturating_duration_since(Instant::now())
    }

    /// A limit of so long from `start`. One beyond what a clock can tell is none.
    pub(super) fn new(
        start: Instant,
        limit: Duration,
        failure: impl Fn(Duration) -> Failure,
    ) -> Option<Self> {
        Some(Self { at: start.checked_add(limit)?, failure: failure(limit) })
    }
}

/// What a piece of work is subject to, besides signals that end the whole job.
#[derive(Debug, Clone, Default)]
pub(super) struct Scope {
    /// The first of them that passes ends the work.
    pub(super) bounds: Vec<Bound>,
    /// A request to cancel ends it.
    pub(super) cancellable: bool,
}

/// Watches over a job's work.
#[derive(Debug)]
pub(super) struct Control {
    signal: watch::Receiver<JobSignal>,
    /// A request to cancel has its effect once.
    cancelled: bool,
}

impl Control {
    pub(super) fn new(signal: watch::Receiver<JobSignal>) -> Self {
        Self { signal, cancelled: false }
    }

    /// Ends when work of this scope has to, and says why. May be dropped and asked again without losing anything.
    pub(super) async fn halted(&mut self, scope: &Scope) -> Failure {
        let first = scope.bounds.iter().min_by_key(|bound| bound.at);
        tokio::select! {
            biased;
            failure = self.signalled(scope.cancellable) => failure,
            failure = passed(first) => failure,
        }
    }

    /// As [`Self::halted`], without waiting.
    pub(super) fn halted_now(&mut self, scope: &Scope) -> Option<Failure> {
        use futures::FutureExt;
        self.halted(scope).now_or_never()
    }

    /// Does the work unless it has to end before.
    pub(super) async fn unless_halted<T>(
        &mut self,
        scope: &Scope,
        work: impl Future<Output = T>,
    ) -> Result<T, Failure> {
        tokio::select! {
            biased;
            failure = self.halted(scope) => Err(failure),
            done = work => Ok(done),
        }
    }

    async fn signalled(&mut self, cancellable: bool) -> Failure {
        loop {
            let signal = self.signal.borrow_and_update().clone();
            match signal {
                JobSignal::Abort => return Failure::Aborted,
                JobSignal::Interrupt(name) => return Failure::Interrupted(name),
                JobSignal::Cancel if cancellable && !self.cancelled => {
                    self.cancelled = true;
                    return Failure::Canceled;
                }
                JobSignal::Cancel | JobSignal::None => {}
            }
            if self.signal.changed().await.is_err() {
                // Nobody is left to send a signal.
                std::future::pending::<()>().await;
            }
        }
    }
}

async fn passed(bound: Option<&Bound>) -> Failure {
    match bound {
        Some(bound) => {
            sleep_until(bound.at).await;
            bound.failure.clone()
        }
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CANCELLABLE: Scope = Scope { bounds: Vec::new(), cancellable: true };
    const NOT_CANCELLABLE: Scope = Scope { bounds: Vec::new(), cancellable: false };

    fn control() -> (watch::Sender<JobSignal>, Control) {
        let (sender, receiver) = watch::channel(JobSignal::None);
        (sender, Control::new(receiver))
    }

    #[tokio::test]
    async fn a_cancellation_ends_one_piece_of_work() {
        let (sender, mut control) = control();
        assert_eq!(control.halted_now(&CANCELLABLE), None);
        sender.send_replace(JobSignal::Cancel);
        assert_eq!(control.halted_now(&NOT_CANCELLABLE), None);
        assert_eq!(control.halted_now(&CANCELLABLE), Some(Failure::Canceled));
        assert_eq!(control.halted_now(&CANCELLABLE), None);
    }

    #[tokio::test]
    async fn an_abort_ends_everything_also_after_a_cancellation() {
        let (sender, mut control) = control();
        sender.send_replace(JobSignal::Cancel);
        assert_eq!(control.halted(&CANCELLABLE).await, Failure::Canceled);
        sender.send_replace(JobSignal::Abort);
        assert_eq!(control.halted(&NOT_CANCELLABLE).await, Failure::Aborted);
        assert_eq!(control.halted(&CANCELLABLE).await, Failure::Aborted);
    }

    #[tokio::test]
    async fn an_interruption_names_its_signal() {
        let (sender, mut control) = control();
        sender.send_replace(JobSignal::Interrupt("terminated".to_owned()));
        let halted = control.unless_halted(&CANCELLABLE, std::future::pending::<()>()).await;
        assert_eq!(halted, Err(Failure::Interrupted("terminated".to_owned())));
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_limit_to_pass_is_the_reason() {
        let (_sender, mut control) = control();
        let now = Instant::now();
        let long = Bound::new(now, Duration::from_secs(60), Failure::Timeout).unwrap();
        let short = Bound::new(now, Duration::from_secs(5), Failure::ScriptTimeout).unwrap();
        let scope = Scope { bounds: vec![long, short], cancellable: true };
        assert_eq!(control.halted(&scope).await, Failure::ScriptTimeout(Duration::from_secs(5)));
        assert_eq!(now.elapsed().as_secs(), 5);
    }

    #[tokio::test(start_paused = true)]
    async fn a_lost_sender_leaves_the_limits() {
        let (sender, mut control) = control();
        drop(sender);
        let bounds =
            Bound::new(Instant::now(), Duration::from_secs(5), Failure::Timeout).into_iter().collect();
        let scope = Scope { bounds, cancellable: true };
        assert_eq!(control.halted(&scope).await, Failure::Timeout(Duration::from_secs(5)));
    }

    #[test]
    fn a_limit_beyond_all_clocks_is_none() {
        assert!(Bound::new(Instant::now(), Duration::MAX, Failure::Timeout).is_none());
    }
}
