//! How many machines are kept ready. Pure; in the words of the official autoscaler's policies.

use std::cmp::Ordering;
use std::time::Duration;

use croner::errors::CronError;
use croner::{CivilDateTime, Cron, CronDateTime, Resolution, Weekday};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use tart_config::{Pool, PoolPolicy};

/// The policies of a pool, the last of those that hold counts.
#[derive(Debug)]
pub(super) struct Policies {
    policies: Vec<Policy>,
    /// The most machines that are ready, for their memory.
    most: usize,
}

#[derive(Debug)]
struct Policy {
    periods: Vec<Cron>,
    zone: TimeZone,
    settings: PoolPolicy,
}

/// What a pool is to be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Target {
    /// Machines that are ready.
    pub(super) idle: usize,
    /// How long one beyond these is kept.
    pub(super) surplus_time: Duration,
}

impl Policies {
    /// `None` if nothing is ever kept ready. `guest_bytes` is the memory of one machine.
    pub(super) fn new(pool: &Pool, guest_bytes: u64) -> Option<Self> {
        let keeps = |policy: &PoolPolicy| policy.idle_count > 0 || policy.scale_factor.get() > 0.0;
        if !pool.policy.iter().any(keeps) {
            return None;
        }
        let policies = pool.policy.iter().map(|settings| Policy {
            // The configuration's check has refused what cannot be read.
            periods: settings.periods.iter().filter_map(|period| period.parse().ok()).collect(),
            zone: zone(&settings.timezone),
            settings: settings.clone(),
        });
        let most = pool.memory.map_or(u64::MAX, |budget| budget.bytes() / guest_bytes.max(1));
        Some(Self { policies: policies.collect(), most: usize::try_from(most).unwrap_or(usize::MAX) })
    }

    /// What the pool is to be now, while so many jobs run.
    pub(super) fn target(&self, now: Timestamp, running: usize) -> Target {
        let Some(Policy { settings, .. }) = self.policies.iter().rfind(|policy| policy.holds(now)) else {
            return Target::default();
        };
        let running = f64::from(u32::try_from(running).unwrap_or(u32::MAX));
        let scaled =
            (running * settings.scale_factor.get()).ceil().min(f64::from(settings.scale_factor_limit));
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "it lies between 0 and the limit, an integer of 32 bits"
        )]
        let scaled = scaled as u32;
        let idle = usize::try_from(settings.idle_count.saturating_add(scaled)).unwrap_or(usize::MAX);
        Target { idle: idle.min(self.most), surplus_time: settings.idle_time }
    }
}

impl Policy {
    fn holds(&self, now: Timestamp) -> bool {
        let Some(minute) = Minute::of(now, &self.zone) else { return false };
        self.periods.iter().any(|period| period.is_time_matching(&minute).unwrap_or(false))
    }
}

/// A minute on the wall clock, which is what periods are made of: for matching only, not for searching.
#[derive(Debug, Clone)]
struct Minute {
    civil: CivilDateTime,
    weekday: Weekday,
}

impl Minute {
    fn of(time: Timestamp, zone: &TimeZone) -> Option<Self> {
        let time = zone.to_datetime(time);
        let part = |number: i8| u32::try_from(number).ok();
        let (month, day) = (part(time.month())?, part(time.day())?);
        let (hour, minute) = (part(time.hour())?, part(time.minute())?);
        let civil = CivilDateTime::from_ymd_hms_opt(time.year().into(), month, day, hour, minute, 0)?;
        let weekday = Weekday::from_days_from_sunday(part(time.weekday().to_sunday_zero_offset())?);
        Some(Self { civil, weekday })
    }
}

impl CronDateTime for Minute {
    fn to_civil(&self) -> CivilDateTime {
        self.civil
    }

    fn civil_weekday(&self) -> Weekday {
        self.weekday
    }

    fn resolve_civil(&self, _civil: CivilDateTime) -> Result<Resolution<Self>, CronError> {
        Ok(Resolution::Gap)
    }

    fn checked_add_seconds(&self, _seconds: i64) -> Option<Self> {
        None
    }

    fn cmp_instant(&self, other: &Self) -> Ordering {
        let key = |minute: &Self| {
            let civil = minute.civil;
            (civil.year(), civil.month(), civil.day(), civil.hour(), civil.minute())
        };
        key(self).cmp(&key(other))
    }
}

fn zone(name: &str) -> TimeZone {
    if name.is_empty() {
        return TimeZone::system();
    }
    TimeZone::get(name).unwrap_or_else(|error| {
        tracing::warn!(timezone = name, %error, "A policy of the pool goes by UTC, since its time zone is not known");
        TimeZone::UTC
    })
}

#[cfg(test)]
mod tests {
    use tart_config::ByteSize;

    use super::*;

    const GIB: u64 = 1 << 30;

    fn policy(idle_count: u32, scale_factor: f64) -> PoolPolicy {
        let timezone = "UTC".to_owned();
        PoolPolicy { idle_count, scale_factor: scale_factor.into(), timezone, ..PoolPolicy::default() }
    }

    fn idle(pool: &Pool, now: &str, running: usize) -> usize {
        Policies::new(pool, GIB).unwrap().target(now.parse().unwrap(), running).idle
    }

    const WEDNESDAY: &str = "2026-11-25T10:30:31.5Z";
    const SUNDAY: &str = "2026-11-29T10:30:00Z";

    #[test]
    fn without_machines_to_keep_there_is_no_pool() {
        assert!(Policies::new(&Pool::default(), GIB).is_none());
        let pool = Pool { policy: vec![policy(0, 0.0)], ..Pool::default() };
        assert!(Policies::new(&pool, GIB).is_none());
    }

    #[test]
    fn running_jobs_make_more_machines_ready_up_to_the_limit() {
        let pool = Pool { policy: vec![policy(2, 0.5)], ..Pool::default() };
        let counts: Vec<_> = [0, 1, 2, 3, 1_000_000].map(|running| idle(&pool, WEDNESDAY, running)).into();
        assert_eq!(counts, [2, 3, 3, 4, 102]);
        let limited = PoolPolicy { scale_factor_limit: 1, ..policy(0, 9.9) };
        assert_eq!(idle(&Pool { policy: vec![limited], ..Pool::default() }, WEDNESDAY, 7), 1);
    }

    #[test]
    fn the_last_policy_that_holds_counts() {
        let office = PoolPolicy { periods: vec!["* 8-17 * * mon-fri".into()], ..policy(5, 0.0) };
        let pool = Pool { policy: vec![policy(1, 0.0), office.clone()], ..Pool::default() };
        assert_eq!((idle(&pool, WEDNESDAY, 0), idle(&pool, SUNDAY, 0)), (5, 1));
        assert_eq!((idle(&pool, "2026-11-25T17:59:59Z", 0), idle(&pool, "2026-11-25T18:00:00Z", 0)), (5, 1));
        let only = Pool { policy: vec![office], ..Pool::default() };
        assert_eq!(idle(&only, SUNDAY, 3), 0);
    }

    #[test]
    fn memory_bounds_what_is_ready() {
        let memory = Some(ByteSize::gibibytes(3));
        assert_eq!(idle(&Pool { memory, policy: vec![policy(8, 0.0)] }, WEDNESDAY, 0), 3);
    }
}
