//! The job's log on its way out.

use async_trait::async_trait;

/// Takes a job's log, masked and stamped.
#[async_trait]
pub trait JobLogSink: Send {
    /// Takes bytes. Must not block for long: whoever stores bytes elsewhere than in memory does so in
    /// [`Self::ready`].
    fn write(&mut self, bytes: &[u8]);

    /// Waits until more can be taken. The job's output waits with it; its end by a signal or a timeout does not.
    async fn ready(&mut self) {}
}
