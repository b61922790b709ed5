//! Long steps on the standard error.

use std::io::IsTerminal as _;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use tart_assets::Progress;

use crate::output;

/// How often a line on a terminal is renewed.
const TICK: Duration = Duration::from_secs(1);

/// After how much time a log without a terminal is told that a step goes on.
const REMINDER: Duration = Duration::from_secs(30);

/// Shows each step while it runs, and how long it took when it ends. On a terminal the line is renewed in place.
#[derive(Debug)]
pub(crate) struct Steps {
    terminal: bool,
    current: Mutex<Option<Step>>,
}

#[derive(Debug)]
struct Step {
    text: String,
    start: Instant,
    reminded: Instant,
    bytes: Option<(u64, Option<u64>)>,
}

impl Steps {
    /// Shows steps until it is dropped.
    pub(crate) fn show() -> Arc<Self> {
        let terminal = std::io::stderr().is_terminal();
        let steps = Arc::new(Self { terminal, current: Mutex::new(None) });
        let shown = Arc::downgrade(&steps);
        // It ends by itself within a tick after the last step was shown.
        let _ticker = thread::Builder::new().name("progress".to_owned()).spawn(move || tick(&shown));
        steps
    }

    /// Ends the step that is shown.
    pub(crate) fn finish(&self) {
        let ended = self.current.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(step) = ended else { return };
        let took = step.start.elapsed();
        if self.terminal {
            output::to_stderr(&format!("\r\x1b[K{} ({})\n", step.text, seconds(took)));
        } else if took >= TICK {
            output::to_stderr(&format!("{}: done ({})\n", step.text, seconds(took)));
        }
    }

    fn renew(&self) {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(step) = current.as_mut() else { return };
        if self.terminal {
            output::to_stderr(&format!("\r\x1b[K{}", step.line()));
        } else if step.reminded.elapsed() >= REMINDER {
            step.reminded = Instant::now();
            output::to_stderr(&format!("{} ...\n", step.line()));
        }
    }
}

fn tick(steps: &Weak<Steps>) {
    loop {
        thread::sleep(TICK);
        let Some(steps) = steps.upgrade() else { return };
        steps.renew();
    }
}

impl Step {
    fn line(&self) -> String {
        let done = match self.bytes {
            Some((done, Some(total))) => format!("{} of {}, ", output::bytes(done), output::bytes(total)),
            Some((done, None)) => format!("{}, ", output::bytes(done)),
            None => String::new(),
        };
        format!("{} ({done}{})", self.text, seconds(self.start.elapsed()))
    }
}

impl Progress for Steps {
    fn step(&self, text: &str) {
        self.finish();
        output::to_stderr(&if self.terminal { text.to_owned() } else { format!("{text}\n") });
        let now = Instant::now();
        let step = Step { text: text.to_owned(), start: now, reminded: now, bytes: None };
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = Some(step);
    }

    fn bytes(&self, done: u64, total: Option<u64>) {
        if let Some(step) = self.current.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            step.bytes = Some((done, total));
        }
    }
}

impl Drop for Steps {
    fn drop(&mut self) {
        self.finish();
    }
}

/// `5 s`, `2 min 5 s`
/// A time of a step or a job.
pub(crate) fn seconds(time: Duration) -> String {
    match time.as_secs() {
        seconds @ 0..60 => format!("{seconds} s"),
        seconds => format!("{} min {} s", seconds / 60, seconds % 60),
    }
}
