//! Time as the retries see it, so that tests need not wait.

use std::fmt;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;

/// What waits between the attempts of a call. Dropping the future of a call ends its wait.
#[async_trait]
pub trait Clock: Send + Sync + fmt::Debug {
    /// The time of day, to which `RateLimit-ResetTime` is compared.
    fn now(&self) -> SystemTime;
    /// Waits.
    async fn sleep(&self, duration: Duration);
    /// A random number from 0 to 1, which spreads the retries of many runners.
    fn jitter(&self) -> f64;
}

/// The real time.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

#[async_trait]
impl Clock for SystemClock {
    fn now(&self) -> SystemTime {
        SystemTime::now()
    }

    async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }

    fn jitter(&self) -> f64 {
        // Without randomness the retries are merely less spread.
        let random = getrandom::u32().unwrap_or(u32::MAX);
        f64::from(random) / f64::from(u32::MAX)
    }
}
