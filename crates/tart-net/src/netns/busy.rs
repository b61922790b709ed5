//! Knowing when the last thread has ended, so that a process does not end in the middle of its work.

use std::{
    sync::{Arc, Condvar, Mutex, PoisonError},
    time::Duration,
};

/// How long threads may take that run a few programs.
const LIMIT: Duration = Duration::from_secs(10);

/// Counts threads at work.
#[derive(Debug, Clone, Default)]
pub(super) struct Busy(Arc<(Mutex<usize>, Condvar)>);

/// A thread at work, until it is dropped.
#[derive(Debug)]
pub(super) struct AtWork(Busy);

impl Busy {
    /// Counts one more.
    pub(super) fn begin(&self) -> AtWork {
        *self.0.0.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        AtWork(self.clone())
    }

    /// Waits until there is none, or for too long.
    pub(super) fn wait(&self) {
        let (count, ended) = &*self.0;
        let count = count.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = ended.wait_timeout_while(count, LIMIT, |count| *count > 0);
        if waited.unwrap_or_else(PoisonError::into_inner).1.timed_out() {
            tracing::warn!("the network of a guest is still being set up");
        }
    }
}

impl Drop for AtWork {
    fn drop(&mut self) {
        let (count, ended) = &*self.0.0;
        *count.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        ended.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_ends_with_the_last_at_work() {
        let busy = Busy::default();
        busy.wait();
        let (one, other) = (busy.begin(), busy.begin());
        drop(one);
        let thread = std::thread::spawn(move || drop(other));
        busy.wait();
        thread.join().unwrap();
    }
}
