//! From a stream to a command's standard input.

use std::{
    collections::VecDeque,
    io,
    os::fd::{AsFd, OwnedFd},
};

use bytes::{Buf, Bytes};
use rustix::io::Errno;
use tokio::io::unix::AsyncFd;

/// What ends the input of a terminal: the default `VEOF` character.
const END_OF_TRANSMISSION: &[u8] = &[4];

/// Input on its way. What waits is bounded by the credit of the stream, which is given back only as the command
/// reads. Nothing is lost when a call of [`Input::feed`] is dropped half-way.
#[derive(Debug)]
pub(super) struct Input {
    /// `None` once the input has ended or nobody reads it.
    sink: Option<AsyncFd<OwnedFd>>,
    waiting: VecDeque<Waiting>,
    ended: bool,
    terminal: bool,
}

#[derive(Debug)]
struct Waiting {
    left: Bytes,
    /// Length of the data item that it came as; 0 if it came as none.
    credit: usize,
}

impl Input {
    pub(super) fn new(sink: Option<AsyncFd<OwnedFd>>, terminal: bool) -> Self {
        Self { sink, waiting: VecDeque::new(), ended: false, terminal }
    }

    /// Takes a data item. Gives the length back whose credit is free at once, because nobody will read it.
    pub(super) fn push(&mut self, bytes: Bytes) -> Option<usize> {
        let credit = bytes.len();
        if self.sink.is_none() || self.ended {
            return Some(credit);
        }
        self.waiting.push_back(Waiting { left: bytes, credit });
        None
    }

    /// The input ends after what was pushed.
    pub(super) fn end(&mut self) {
        if self.terminal && !self.ended {
            self.waiting.push_back(Waiting { left: Bytes::from_static(END_OF_TRANSMISSION), credit: 0 });
        }
        self.ended = true;
    }

    /// The command takes no more. Gives the lengths of the data items back that are thrown away.
    pub(super) fn close(&mut self) -> Vec<usize> {
        self.sink = None;
        self.waiting.drain(..).map(|waiting| waiting.credit).filter(|credit| *credit > 0).collect()
    }

    /// Moves some of what waits; never ends while there is nothing to do. Gives the lengths of the data items back
    /// that are done with.
    pub(super) async fn feed(&mut self) -> Vec<usize> {
        let Some(sink) = &self.sink else { return std::future::pending().await };
        let Some(front) = self.waiting.front_mut() else {
            if !self.ended {
                return std::future::pending().await;
            }
            return self.close();
        };
        let Ok(len) = write(sink, &front.left).await else { return self.close() };
        front.left.advance(len);
        if !front.left.is_empty() {
            return Vec::new();
        }
        let credit = front.credit;
        self.waiting.pop_front();
        if credit > 0 { vec![credit] } else { Vec::new() }
    }
}

async fn write(sink: &AsyncFd<OwnedFd>, bytes: &[u8]) -> io::Result<usize> {
    loop {
        let mut ready = sink.writable().await?;
        match rustix::io::write(sink.get_ref().as_fd(), bytes) {
            Ok(len) => return Ok(len),
            Err(Errno::AGAIN) => ready.clear_ready(),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}
