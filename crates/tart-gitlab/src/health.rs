//! When a runner may ask for jobs: its health, and how many requests it may have open (protocol reference 2.4).

use std::time::{Duration, Instant};

/// Counts a runner's useless polls. A new one is made when the configuration is read again.
#[derive(Debug, Clone)]
pub struct Health {
    limit: u32,
    interval: Duration,
    failures: u32,
    /// Of the last healthy poll, of the last forced one, or the beginning.
    last_check: Instant,
}

impl Health {
    /// `limit` is `unhealthy_requests_limit` (default 3), `interval` is `unhealthy_interval` (default one hour).
    pub fn new(limit: u32, interval: Duration, now: Instant) -> Self {
        Self { limit: limit.max(1), interval, failures: 0, last_check: now }
    }

    /// Whether the runner may poll now. Once the interval of an unhealthy one is over, it starts anew.
    pub fn may_poll(&mut self, now: Instant) -> bool {
        if self.failures < self.limit {
            return true;
        }
        if now.saturating_duration_since(self.last_check) < self.interval {
            return false;
        }
        self.failures = 0;
        self.last_check = now;
        true
    }

    /// Notes how a poll went; returns whether this one made the runner unhealthy, which deserves a line in the log.
    pub fn record(&mut self, healthy: bool, now: Instant) -> bool {
        if healthy {
            self.failures = 0;
            self.last_check = now;
            return false;
        }
        self.failures = self.failures.saturating_add(1);
        self.failures == self.limit
    }
}

/// How a poll went, for [`RequestConcurrency`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Poll {
    /// It brought a job.
    Job,
    /// It brought nothing, or failed.
    Nothing,
    /// The server asked for patience at least once meanwhile, whatever came of it.
    Overload,
}

/// How many polls a runner may have open: between 1 and `request_concurrency`, by what they bring
/// (`FF_USE_ADAPTIVE_REQUEST_CONCURRENCY`).
#[derive(Debug, Clone)]
pub struct RequestConcurrency {
    max: f64,
    current: f64,
}

impl RequestConcurrency {
    /// Starts with one open poll. `max` is `request_concurrency`.
    pub fn new(max: u32) -> Self {
        Self { max: f64::from(max.max(1)), current: 1.0 }
    }

    /// How many polls may be open now.
    pub fn limit(&self) -> usize {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "it is between 1 and a u32"
        )]
        let limit = self.current.ceil() as usize;
        limit
    }

    /// Notes how a poll went.
    pub fn record(&mut self, poll: Poll) {
        let factor = match poll {
            Poll::Job => 1.1,
            Poll::Nothing => 0.95,
            Poll::Overload => 0.5,
        };
        self.current = (self.current * factor).clamp(1.0, self.max);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn three_failures_in_a_row_make_a_runner_unhealthy_for_the_interval() {
        let start = Instant::now();
        let mut health = Health::new(3, 60 * MINUTE, start);
        assert!(!health.record(false, start) && !health.record(false, start));
        assert!(!health.record(true, start + MINUTE), "a healthy poll forgives all");
        for last in [false, false, true] {
            assert!(health.may_poll(start + MINUTE));
            assert_eq!(health.record(false, start + MINUTE), last);
        }
        assert!(!health.may_poll(start + 60 * MINUTE));
        assert!(health.may_poll(start + 61 * MINUTE), "the interval counts from the last healthy poll");
        assert!(!health.record(false, start + 61 * MINUTE));
        assert!(health.may_poll(start + 61 * MINUTE));
    }

    #[test]
    fn pickups_open_more_polls_and_overload_halves_them() {
        let mut polls = RequestConcurrency::new(4);
        assert_eq!(polls.limit(), 1);
        polls.record(Poll::Job);
        assert_eq!(polls.limit(), 2);
        (0..40).for_each(|_| polls.record(Poll::Job));
        assert_eq!(polls.limit(), 4);
        polls.record(Poll::Nothing);
        assert_eq!(polls.limit(), 4);
        polls.record(Poll::Overload);
        assert_eq!(polls.limit(), 2);
        (0..40).for_each(|_| polls.record(Poll::Nothing));
        assert_eq!(polls.limit(), 1);
    }

    proptest! {
        #[test]
        fn the_limit_stays_within_its_bounds(max in 0_u32..1000, polls in proptest::collection::vec(0_usize..3, 0..200)) {
            let mut concurrency = RequestConcurrency::new(max);
            for poll in polls {
                concurrency.record([Poll::Job, Poll::Nothing, Poll::Overload][poll]);
                let limit = concurrency.limit();
                prop_assert!(limit >= 1 && limit <= usize::try_from(max.max(1)).expect("small"));
            }
        }
    }
}
