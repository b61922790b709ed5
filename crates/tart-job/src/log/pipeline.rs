//! From the streams of a job to one log: masking, then timestamps, then the sink.

use std::collections::BTreeMap;
use std::fmt;

use jiff::Timestamp;

use super::{Level, runner_line};
use crate::mask::{MaskRules, Masker};
use crate::sections::{SectionOptions, section_end, section_header, section_start};
use crate::timestamps::{Channel, Timestamper};

/// Where bytes of the log come from. Each source is a stream of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// The runner itself.
    Runner,
    /// The stage scripts.
    Build(Channel),
    /// The n-th service, from 0.
    Service(u8, Channel),
}

impl Source {
    fn timestamper(self) -> Timestamper {
        match self {
            Self::Runner => Timestamper::new(0, Channel::Stdout),
            Self::Build(channel) => Timestamper::new(1, channel),
            Self::Service(index, channel) => Timestamper::new(0x0f_u8.saturating_add(index), channel),
        }
    }
}

/// How a job's log is written.
#[derive(Debug, Clone)]
pub struct LogOptions {
    /// What is hidden.
    pub mask: MaskRules,
    /// `FF_TIMESTAMPS`.
    pub timestamps: bool,
    /// `features.trace_sections` of the job: whether the server understands section markers.
    pub sections: bool,
}

/// One job's log. Bytes go in by source; the sink receives what may be stored and sent.
///
/// With timestamps, the sink only ever receives whole entries, so that a line of the runner never lands in the
/// middle of a line of the build.
pub struct LogPipeline<S: FnMut(&[u8]), C: FnMut() -> Timestamp> {
    options: LogOptions,
    streams: BTreeMap<Source, Stream>,
    sink: S,
    clock: C,
    masked: Vec<u8>,
    entries: Vec<u8>,
}

struct Stream {
    masker: Masker,
    timestamper: Option<Timestamper>,
}

impl<S: FnMut(&[u8]), C: FnMut() -> Timestamp> LogPipeline<S, C> {
    /// Starts a log.
    pub fn new(options: LogOptions, clock: C, sink: S) -> Self {
        Self { options, streams: BTreeMap::new(), sink, clock, masked: Vec::new(), entries: Vec::new() }
    }

    /// Takes bytes of a source.
    pub fn write(&mut self, source: Source, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let options = &self.options;
        let stream = self.streams.entry(source).or_insert_with(|| Stream {
            masker: Masker::new(&options.mask),
            timestamper: options.timestamps.then(|| source.timestamper()),
        });
        self.masked.clear();
        stream.masker.write(bytes, &mut self.masked);
        self.entries.clear();
        stream.stamp(&mut self.clock, &self.masked, &mut self.entries);
        if !self.entries.is_empty() {
            (self.sink)(&self.entries);
        }
    }

    /// Writes a line of the runner.
    pub fn line(&mut self, level: Level, text: &str) {
        self.write(Source::Runner, runner_line(level, text).as_bytes());
    }

    /// Opens a section and writes its header line, which is written even when the server knows no sections.
    pub fn begin_section(&mut self, name: &str, header: &str, options: SectionOptions) {
        if self.options.sections {
            let now = (self.clock)().as_second();
            self.write(Source::Runner, section_start(name, now, options).as_bytes());
        }
        self.write(Source::Runner, section_header(header).as_bytes());
    }

    /// Ends a section. What the build's streams hold back belongs to the section and is written first.
    pub fn end_section(&mut self, name: &str) {
        self.flush_except_runner();
        if self.options.sections {
            let now = (self.clock)().as_second();
            self.write(Source::Runner, section_end(name, now).as_bytes());
        }
    }

    /// Replaces what is hidden, when secrets were resolved. What is held back is written first.
    pub fn set_mask(&mut self, mask: MaskRules) {
        self.flush();
        for stream in self.streams.values_mut() {
            stream.masker = Masker::new(&mask);
        }
        self.options.mask = mask;
    }

    /// Writes out everything that is held back, and gives the sink back.
    pub fn finish(mut self) -> S {
        self.flush();
        self.sink
    }

    fn flush(&mut self) {
        self.flush_where(|_| true);
    }

    fn flush_except_runner(&mut self) {
        self.flush_where(|source| source != Source::Runner);
    }

    fn flush_where(&mut self, mut wanted: impl FnMut(Source) -> bool) {
        for (_, stream) in self.streams.iter_mut().filter(|(source, _)| wanted(**source)) {
            self.masked.clear();
            stream.masker.finish(&mut self.masked);
            self.entries.clear();
            if !self.masked.is_empty() {
                stream.stamp(&mut self.clock, &self.masked, &mut self.entries);
            }
            if let Some(timestamper) = &mut stream.timestamper {
                timestamper.finish((self.clock)(), &mut self.entries);
            }
            if !self.entries.is_empty() {
                (self.sink)(&self.entries);
            }
        }
    }
}

impl Stream {
    fn stamp(&mut self, clock: &mut impl FnMut() -> Timestamp, masked: &[u8], out: &mut Vec<u8>) {
        match &mut self.timestamper {
            Some(timestamper) => timestamper.write(clock(), masked, out),
            None => out.extend_from_slice(masked),
        }
    }
}

impl<S: FnMut(&[u8]), C: FnMut() -> Timestamp> fmt::Debug for LogPipeline<S, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogPipeline").field("options", &self.options).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const OUT: Source = Source::Build(Channel::Stdout);
    const ERR: Source = Source::Build(Channel::Stderr);

    fn log(
        options: LogOptions,
        write: impl FnOnce(&mut LogPipeline<&mut dyn FnMut(&[u8]), fn() -> Timestamp>),
    ) -> String {
        let mut stored = Vec::new();
        let mut sink = |bytes: &[u8]| stored.extend_from_slice(bytes);
        let clock: fn() -> Timestamp = || Timestamp::from_second(1_790_000_000).expect("in range");
        let mut pipeline = LogPipeline::new(options, clock, &mut sink as &mut dyn FnMut(&[u8]));
        write(&mut pipeline);
        pipeline.finish();
        String::from_utf8(stored).expect("text")
    }

    fn options(timestamps: bool, sections: bool) -> LogOptions {
        LogOptions { mask: MaskRules::new(["hunter2"], [], true), timestamps, sections }
    }

    #[test]
    fn a_stage_is_a_section_with_interleaved_streams() {
        let text = log(options(true, true), |log| {
            log.begin_section(
                "step_script",
                "Executing \"step_script\" stage of the job script",
                SectionOptions::default(),
            );
            log.write(OUT, b"out: hunt");
            log.write(ERR, b"err glpat-abc\n");
            log.line(Level::Warning, "from the runner");
            log.write(OUT, b"er2!\n");
            log.write(OUT, b"unterminated");
            log.end_section("step_script");
            log.line(Level::Info, "Job succeeded");
        });
        insta::assert_snapshot!(text.replace('\x1b', "^[").replace('\r', "^M"), @r#"
        2026-09-21T14:13:20.000000Z 00O section_start:1790000000:step_script^M^[[0K
        2026-09-21T14:13:20.000000Z 00O+^[[0K^[[36;1mExecuting "step_script" stage of the job script^[[0;m^[[0;m
        2026-09-21T14:13:20.000000Z 01E err glpat-[MASKED]
        2026-09-21T14:13:20.000000Z 00O ^[[0;33mWARNING: from the runner^[[0;m
        2026-09-21T14:13:20.000000Z 01O out: [MASKED]!
        2026-09-21T14:13:20.000000Z 01O unterminated
        2026-09-21T14:13:20.000000Z 00O section_end:1790000000:step_script^M^[[0K
        2026-09-21T14:13:20.000000Z 00O+^[[32;1mJob succeeded^[[0;m
        "#);
    }

    #[test]
    fn without_timestamps_and_sections_the_bytes_pass_as_they_are() {
        let text = log(options(false, false), |log| {
            log.begin_section("x", "Header", SectionOptions::default());
            log.write(OUT, b"a hunter2\r");
            log.end_section("x");
        });
        assert_eq!(text, "\u{1b}[0K\u{1b}[36;1mHeader\u{1b}[0;m\u{1b}[0;m\na [MASKED]\r");
    }

    #[test]
    fn new_rules_hold_from_the_next_byte() {
        let text = log(options(false, false), |log| {
            log.write(OUT, b"late hunt");
            log.set_mask(MaskRules::new(["late"], [], true));
            log.write(OUT, b"er2 late");
        });
        assert_eq!(text, "late hunter2 [MASKED]");
    }

    #[test]
    fn services_have_streams_of_their_own() {
        let text = log(options(true, false), |log| {
            log.write(Source::Service(0, Channel::Stdout), b"up\n");
            log.write(Source::Service(255, Channel::Stderr), b"down\n");
        });
        assert_eq!(text, "2026-09-21T14:13:20.000000Z 0fO up\n2026-09-21T14:13:20.000000Z ffE down\n");
    }

    proptest! {
        #[test]
        fn interleaved_streams_stay_whole_and_masked(
            writes in prop::collection::vec((0..4_usize, "[hunter2\n\r x]{0,12}|hunter2|hun|ter2\n"), 0..24),
        ) {
            let sources = [Source::Runner, OUT, ERR, Source::Service(2, Channel::Stdout)];
            let ids = ["00O", "01O", "01E", "11O"];
            let text = log(options(true, true), |log| {
                for (source, bytes) in &writes {
                    log.write(sources[*source], bytes.as_bytes());
                }
            });
            prop_assert!(text.is_empty() || text.ends_with('\n'));
            prop_assert!(!text.contains("hunter2"));
            let mut written = vec![String::new(); ids.len()];
            for entry in text.split_terminator('\n') {
                prop_assert!(entry.starts_with("2026-09-21T14:13:20.000000Z "), "{entry:?}");
                let source = ids.iter().position(|id| *id == &entry[28..31]).expect("a known stream");
                if &entry[31..32] == " " && !written[source].is_empty() {
                    written[source].push('\n');
                }
                written[source].push_str(&entry[32..]);
                if entry.len() == 32 && written[source].is_empty() {
                    written[source].push('\u{0}');
                }
            }
            for (source, written) in written.iter().enumerate() {
                let input: String = writes.iter().filter(|(s, _)| *s == source).map(|(_, text)| text.as_str()).collect();
                let masked = input.replace("hunter2", "[MASKED]");
                let expected = masked.strip_suffix('\n').unwrap_or(&masked);
                prop_assert_eq!(written.replace('\u{0}', ""), expected);
            }
        }
    }
}
