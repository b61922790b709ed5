//! The job's log on its way out.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use tart_job::log::{LogOptions, Source};
use tart_job::mask::MaskRules;
use tart_job::sections::SectionOptions;
use tart_job::timestamps::Channel;
use tart_job::{Level, LogPipeline};

/// Takes a job's log, masked and stamped.
#[async_trait]
pub trait JobLogSink: Send {
    /// Takes bytes. Must not block for long: whoever stores bytes elsewhere than in memory does so in
    /// [`Self::ready`].
    fn write(&mut self, bytes: &[u8]);

    /// Waits until more can be taken. The job's output waits with it; its end by a signal or a timeout does not: the
    /// future may be dropped at any await and must lose nothing then.
    async fn ready(&mut self) {}
}

/// How long the sink may take for the end of the log.
const FINISH_LIMIT: Duration = Duration::from_secs(30);

type Pipeline = LogPipeline<Box<dyn FnMut(&[u8]) + Send>, fn() -> Timestamp>;

/// One job's log.
pub(super) struct JobLog {
    pipeline: Pipeline,
    /// What the pipeline gave out and the sink has not got yet.
    passed: Arc<Mutex<Vec<u8>>>,
    sink: Box<dyn JobLogSink>,
}

impl JobLog {
    pub(super) fn new(options: LogOptions, sink: Box<dyn JobLogSink>) -> Self {
        let passed = Arc::new(Mutex::new(Vec::new()));
        let filled = passed.clone();
        let pass = move |bytes: &[u8]| {
            filled.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        };
        Self { pipeline: LogPipeline::new(options, Timestamp::now, Box::new(pass)), passed, sink }
    }

    /// Hides other phrases from now on.
    pub(super) fn set_mask(&mut self, mask: MaskRules) {
        self.pipeline.set_mask(mask);
    }

    /// Writes a line of the runner.
    pub(super) fn line(&mut self, level: Level, text: &str) {
        self.pipeline.line(level, text);
        self.pass();
    }

    /// Writes what a command printed.
    pub(super) fn output(&mut self, bytes: &[u8]) {
        self.pipeline.write(Source::Build(Channel::Stdout), bytes);
        self.pass();
    }

    /// Writes whole lines of a service.
    pub(super) fn service(&mut self, number: u8, lines: &[u8]) {
        self.pipeline.write(Source::Service(number, Channel::Stdout), lines);
        self.pass();
    }

    pub(super) fn begin_section(&mut self, name: &str, header: &str) {
        self.pipeline.begin_section(name, header, SectionOptions::default());
        self.pass();
    }

    pub(super) fn end_section(&mut self, name: &str) {
        self.pipeline.end_section(name);
        self.pass();
    }

    /// Waits until the sink takes more.
    pub(super) async fn ready(&mut self) {
        self.sink.ready().await;
    }

    /// Writes out what is held back, and gives the sink a while to take it.
    pub(super) async fn finish(self) {
        let Self { pipeline, passed, mut sink } = self;
        drop(pipeline.finish());
        let rest = std::mem::take(&mut *passed.lock().unwrap_or_else(PoisonError::into_inner));
        sink.write(&rest);
        let _slow = tokio::time::timeout(FINISH_LIMIT, sink.ready()).await;
    }

    fn pass(&mut self) {
        let mut passed = self.passed.lock().unwrap_or_else(PoisonError::into_inner);
        if !passed.is_empty() {
            self.sink.write(&passed);
            passed.clear();
        }
    }
}

impl fmt::Debug for JobLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JobLog").finish_non_exhaustive()
    }
}
