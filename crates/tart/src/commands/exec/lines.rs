//! Lines of several jobs in one text.

use std::iter::Peekable;
use std::str::Chars;

/// A longer line is broken, in bytes.
const MAX_LINE: usize = 16 * 1024;

/// The widest name before lines; longer ones are cut.
const MAX_WIDTH: usize = 24;

/// Colours of names: those that can be read on dark and bright terminals.
const COLOURS: [u8; 6] = [36, 35, 34, 33, 32, 96];

/// How names stand before lines.
#[derive(Debug, Clone, Copy)]
pub(super) struct Margin {
    width: usize,
    coloured: bool,
}

impl Margin {
    /// Wide enough for names.
    pub(super) fn of<'a>(names: impl Iterator<Item = &'a str>, coloured: bool) -> Self {
        let width = names.map(|name| name.chars().count()).max().unwrap_or_default().min(MAX_WIDTH);
        Self { width, coloured }
    }

    /// What is before each line of a job, which is known by its place.
    fn prefix(self, at: usize, name: &str) -> String {
        let mut name: String = name.chars().map(|c| if c.is_control() { '?' } else { c }).collect();
        if name.chars().count() > self.width {
            name = name.chars().take(self.width.saturating_sub(1)).chain(['…']).collect();
        }
        let width = self.width;
        match COLOURS.get(at % COLOURS.len()) {
            Some(colour) if self.coloured => format!("\x1b[{colour}m{name:width$} |\x1b[0m "),
            _ => format!("{name:width$} | "),
        }
    }
}

/// One job's log, as whole lines with its name before each. Of control sequences only colours stay, if they are wanted:
/// no job writes over the lines of another.
#[derive(Debug)]
pub(super) struct Lines {
    prefix: String,
    coloured: bool,
    /// A line that has begun.
    held: Vec<u8>,
}

impl Lines {
    pub(super) fn new(margin: Margin, at: usize, name: &str) -> Self {
        Self { prefix: margin.prefix(at, name), coloured: margin.coloured, held: Vec::new() }
    }

    /// Whole lines of what is held and `bytes`.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> String {
        let mut text = String::new();
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            for part in piece.chunks(MAX_LINE) {
                self.held.extend_from_slice(part);
                if part.ends_with(b"\n") || self.held.len() >= MAX_LINE {
                    let line = std::mem::take(&mut self.held);
                    text.push_str(&self.line(&line));
                }
            }
        }
        text
    }

    /// One line.
    pub(super) fn line(&self, line: &[u8]) -> String {
        format!("{}{}\n", self.prefix, clean(line, self.coloured))
    }
}

/// What a terminal would show of a line in the end, without what moves its cursor.
fn clean(line: &[u8], coloured: bool) -> String {
    let text = String::from_utf8_lossy(line);
    let text = text.trim_end_matches(['\r', '\n']);
    let shown = text.rsplit('\r').next().unwrap_or_default();
    let mut out = String::with_capacity(shown.len());
    let mut tinted = false;
    let mut chars = shown.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\x1b' => {
                if let Some(colour) = escape(&mut chars).filter(|_| coloured) {
                    out.push_str(&colour);
                    tinted = true;
                }
            }
            '\t' => out.push(c),
            c if c.is_control() => {}
            c => out.push(c),
        }
    }
    if tinted {
        out.push_str("\x1b[0m");
    }
    out
}

/// Takes the rest of a control sequence, and gives it if it is a colour.
fn escape(chars: &mut Peekable<Chars<'_>>) -> Option<String> {
    chars.next_if_eq(&'[')?;
    let mut sequence = "\x1b[".to_owned();
    while let Some(c) = chars.next_if(|c| matches!(c, ' '..='?')) {
        sequence.push(c);
    }
    let last = chars.next()?;
    sequence.push(last);
    (last == 'm').then_some(sequence)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(coloured: bool, chunks: &[&str]) -> String {
        let margin = Margin::of(["build", "lint"].into_iter(), coloured);
        let mut lines = Lines::new(margin, 1, "lint");
        chunks.iter().map(|chunk| lines.feed(chunk.as_bytes())).collect()
    }

    #[test]
    fn whole_lines_have_the_jobs_name_wherever_chunks_end() {
        insta::assert_snapshot!(lines(false, &["on", "e\ntwo\n\nthr", "ee\nnot yet"]), @r"
        lint  | one
        lint  | two
        lint  | 
        lint  | three
        ");
    }

    #[test]
    fn colours_stay_where_they_are_wanted_and_end_with_the_line() {
        let chunks = ["\x1b[31;1mred\x1b[0K\n"];
        assert_eq!(lines(false, &chunks), "lint  | red\n");
        assert_eq!(lines(true, &chunks), "\x1b[35mlint  |\x1b[0m \x1b[31;1mred\x1b[0m\n");
    }

    #[test]
    fn no_job_leaves_its_own_lines() {
        let hostile = "a\x1b[2J\x1b[1;1Hb\x07\x08\u{9b}2Jc\x1bMd\r\n50 %\r100 %\r\n";
        insta::assert_snapshot!(lines(true, &[hostile]).replace('\x1b', "ESC"), @r"
        ESC[35mlint  |ESC[0m ab2JcMd
        ESC[35mlint  |ESC[0m 100 %
        ");
    }

    #[test]
    fn long_lines_are_broken_and_long_names_cut() {
        let text = lines(false, &["x".repeat(2 * MAX_LINE + 1).as_str(), "\n"]);
        let lengths: Vec<usize> = text.lines().map(|line| line.len() - "lint  | ".len()).collect();
        assert_eq!(lengths, [MAX_LINE, MAX_LINE, 1]);
        let name = "a very long name of a job: [linux, 1.2]";
        let margin = Margin::of([name].into_iter(), false);
        assert_eq!(Lines::new(margin, 0, name).line(b"x"), "a very long name of a j… | x\n");
    }

    proptest::proptest! {
        #[test]
        fn whatever_a_job_prints_moves_no_cursor(
            chunks in proptest::collection::vec("(\\PC|[\\x00-\\x1f\\x7f\u{80}-\u{9f}]|\x1b\\[[0-9;]*[A-Zm]){0,40}", 0..8),
        ) {
            let chunks: Vec<&str> = chunks.iter().map(String::as_str).collect();
            let text = lines(true, &chunks);
            let colour = |rest: &str| {
                let end = rest.find('m').unwrap_or(rest.len());
                rest.starts_with('[') && rest[1..end].chars().all(|c| c.is_ascii_digit() || ";:<=>? !\"#$%&'()*+,-./".contains(c))
            };
            for (at, c) in text.char_indices().filter(|(_, c)| c.is_control()) {
                let is_colour = c == '\x1b' && colour(&text[at + 1..]);
                proptest::prop_assert!(matches!(c, '\n' | '\t') || is_colour, "{:?} in {:?}", c, text);
            }
            for line in text.lines() {
                proptest::prop_assert!(line.starts_with("\x1b[35mlint  |\x1b[0m "), "{:?}", line);
            }
        }
    }
}
