//! A job's log on a terminal.

use std::fmt;

use async_trait::async_trait;
use bytes::{Buf, BytesMut};
use tokio::io::{AsyncWrite, AsyncWriteExt};

use crate::JobLogSink;

/// Writes a job's log as it comes. A reader that is slow makes the job wait.
pub struct TerminalSink<W> {
    out: W,
    waiting: BytesMut,
    broken: bool,
}

impl<W: AsyncWrite + Send + Unpin> TerminalSink<W> {
    /// Writes to `out`, such as the standard output.
    pub fn new(out: W) -> Self {
        Self { out, waiting: BytesMut::new(), broken: false }
    }

    async fn pass(&mut self) -> std::io::Result<()> {
        // Piece by piece, so that nothing is written twice when this is dropped in between.
        while self.waiting.has_remaining() {
            let written = self.out.write(&self.waiting).await?;
            if written == 0 {
                return Err(std::io::ErrorKind::WriteZero.into());
            }
            self.waiting.advance(written);
        }
        self.out.flush().await
    }
}

#[async_trait]
impl<W: AsyncWrite + Send + Unpin> JobLogSink for TerminalSink<W> {
    fn write(&mut self, bytes: &[u8]) {
        if !self.broken {
            self.waiting.extend_from_slice(bytes);
        }
    }

    async fn ready(&mut self) {
        if !self.broken && self.pass().await.is_err() {
            // Nobody reads any more. The job goes on: it may have effects that somebody waits for.
            self.broken = true;
            self.waiting.clear();
        }
    }
}

impl<W> fmt::Debug for TerminalSink<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TerminalSink").field("waiting", &self.waiting.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use tokio::io::AsyncReadExt;

    use super::*;

    #[tokio::test]
    async fn what_a_slow_reader_leaves_waits_and_is_written_once() {
        let (mut near, far) = tokio::io::duplex(4);
        let mut sink = TerminalSink::new(far);
        sink.write(b"123456");
        assert!(sink.ready().now_or_never().is_none());
        let mut read = [0; 4];
        near.read_exact(&mut read).await.unwrap();
        sink.ready().await;
        drop(sink);
        let mut rest = String::new();
        near.read_to_string(&mut rest).await.unwrap();
        assert_eq!((&read[..], rest.as_str()), (&b"1234"[..], "56"));
    }

    #[tokio::test]
    async fn a_reader_that_is_gone_does_not_hold_the_job() {
        let (near, far) = tokio::io::duplex(4);
        drop(near);
        let mut sink = TerminalSink::new(far);
        sink.write(b"1");
        sink.ready().await;
        sink.write(b"2");
        assert!(sink.waiting.is_empty());
    }
}
