//! The view of jobs that run at the same time: their lines as they come, and on a terminal a last line that says which
//! jobs run.

use std::io::IsTerminal as _;

use async_trait::async_trait;
use tart_runner::JobLogSink;
use tokio::io::{AsyncWrite, AsyncWriteExt as _};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::lines::{Lines, Margin};
use crate::output;

/// Pieces of text that wait to be written. Jobs wait for a reader that is slow.
const WAITING: usize = 16;

/// Columns of a terminal that does not tell.
const COLUMNS: usize = 80;

/// Erases the line that the cursor is in.
const ERASE: &str = "\r\x1b[K";

/// What is to be shown.
#[derive(Debug)]
enum Said {
    /// Whole lines.
    Lines(String),
    /// The last line of a terminal, from now on.
    Status(String),
}

/// Writes what jobs say.
#[derive(Debug)]
pub(super) struct View {
    sender: mpsc::Sender<Said>,
    margin: Margin,
    /// Whether there is a last line.
    live: bool,
    printer: JoinHandle<()>,
}

impl View {
    /// The view of jobs of these names on the standard output.
    pub(super) fn start<'a>(names: impl Iterator<Item = &'a str>) -> Self {
        let (sender, receiver) = mpsc::channel(WAITING);
        let printer = tokio::spawn(print(receiver, tokio::io::stdout()));
        let margin = Margin::of(names, output::takes_colours());
        Self { sender, margin, live: std::io::stdout().is_terminal(), printer }
    }

    /// Whether [`Self::status`] is seen.
    pub(super) fn is_live(&self) -> bool {
        self.live
    }

    /// The part of a job, which is known by its place.
    pub(super) fn job(&self, at: usize, name: &str) -> JobView {
        let lines = Lines::new(self.margin, at, name);
        JobView { sender: self.sender.clone(), lines, waiting: String::new() }
    }

    /// Renews the last line. It is the next one's turn if too much waits.
    pub(super) fn status(&self, text: &str) {
        if self.live {
            let columns = rustix::termios::tcgetwinsize(std::io::stdout()).map(|size| size.ws_col.into());
            let columns = columns.ok().filter(|columns| *columns > 0).unwrap_or(COLUMNS);
            let cut = text.chars().filter(|c| !c.is_control()).take(columns.saturating_sub(1)).collect();
            let _full = self.sender.try_send(Said::Status(cut));
        }
    }

    /// Waits until all is written.
    pub(super) async fn finish(self) {
        drop(self.sender);
        let _ended = self.printer.await;
    }
}

async fn print(mut receiver: mpsc::Receiver<Said>, mut out: impl AsyncWrite + Unpin) {
    let mut status = String::new();
    let mut broken = false;
    loop {
        let said = receiver.recv().await;
        let mut text = if status.is_empty() { String::new() } else { ERASE.to_owned() };
        let ended = said.is_none();
        match said {
            Some(Said::Lines(lines)) => text.push_str(&lines),
            Some(Said::Status(renewed)) => status = renewed,
            None => status.clear(),
        }
        text.push_str(&status);
        // Nobody may read any more. Jobs go on: they may have effects that somebody waits for.
        broken = broken || out.write_all(text.as_bytes()).await.is_err() || out.flush().await.is_err();
        if ended {
            return;
        }
    }
}

/// What one job says.
#[derive(Debug)]
pub(super) struct JobView {
    sender: mpsc::Sender<Said>,
    lines: Lines,
    waiting: String,
}

impl JobView {
    /// Says something about the job.
    pub(super) async fn say(&self, text: &str) {
        // The printer ends after all jobs.
        let _gone = self.sender.send(Said::Lines(self.lines.line(text.as_bytes()))).await;
    }
}

#[async_trait]
impl JobLogSink for JobView {
    fn write(&mut self, bytes: &[u8]) {
        self.waiting.push_str(&self.lines.feed(bytes));
    }

    async fn ready(&mut self) {
        if self.waiting.is_empty() {
            return;
        }
        if let Ok(room) = self.sender.reserve().await {
            room.send(Said::Lines(std::mem::take(&mut self.waiting)));
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt as _;

    use super::*;

    /// What is written of what is said.
    async fn printed(said: Vec<Said>) -> String {
        let (mut near, far) = tokio::io::duplex(4096);
        let (sender, receiver) = mpsc::channel(said.len().max(1));
        for piece in said {
            sender.send(piece).await.expect("there is room");
        }
        drop(sender);
        print(receiver, far).await;
        let mut text = String::new();
        near.read_to_string(&mut text).await.expect("UTF-8");
        text.replace(ERASE, "<")
    }

    #[tokio::test]
    async fn the_last_line_stays_below_all_others_and_goes_at_the_end() {
        let lines = |text: &str| Said::Lines(text.to_owned());
        let status = |text: &str| Said::Status(text.to_owned());
        let said = vec![lines("a\n"), status("1 runs"), lines("b\nc\n"), status("2 run")];
        assert_eq!(printed(said).await, "a\n1 runs<b\nc\n1 runs<2 run<");
        assert_eq!(printed(vec![lines("a\n"), lines("b\n")]).await, "a\nb\n");
    }
}
