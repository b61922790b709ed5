//! The characters of a template: words, numbers and strings.

use super::expression::{Evaluation, Fault};
use super::value::Value;

/// Text that is read from left to right.
pub(super) struct Text<'t> {
    all: &'t str,
    at: usize,
}

impl<'t> Text<'t> {
    pub(super) fn new(all: &'t str) -> Self {
        Self { all, at: 0 }
    }

    pub(super) fn rest(&self) -> &'t str {
        self.all.get(self.at..).unwrap_or_default()
    }

    pub(super) fn skip_space(&mut self) {
        let rest = self.rest();
        self.at += rest.len() - rest.trim_start().len();
    }

    /// Takes `token` if it is next.
    pub(super) fn take(&mut self, token: &str) -> bool {
        let found = self.rest().starts_with(token);
        if found {
            self.at += token.len();
        }
        found
    }

    pub(super) fn take_char(&mut self) -> Option<char> {
        let next = self.rest().chars().next()?;
        self.at += next.len_utf8();
        Some(next)
    }

    fn take_while(&mut self, wanted: impl Fn(char) -> bool) -> &'t str {
        let rest = self.rest();
        let taken = rest.split(|next| !wanted(next)).next().unwrap_or_default();
        self.at += taken.len();
        taken
    }

    /// The text up to `mark`, which comes next then; all of it without the mark.
    pub(super) fn take_until(&mut self, mark: &str) -> &'t str {
        let rest = self.rest();
        let taken = rest.split(mark).next().unwrap_or(rest);
        self.at += taken.len();
        taken
    }

    /// A name, if one is next.
    pub(super) fn word(&mut self) -> Option<&'t str> {
        let starts = |next: char| next == '_' || next.is_alphabetic();
        self.rest().starts_with(starts).then(|| self.take_while(|next| starts(next) || next.is_numeric()))
    }

    /// What is next, for people.
    pub(super) fn found(&self) -> String {
        match self.rest().chars().next() {
            None => "the end of the text".to_owned(),
            Some(next) => format!("`{}`", next.escape_debug()),
        }
    }

    /// A number, such as `3`, `3.14` and `2E-4`.
    pub(super) fn number(&mut self) -> Result<Value, Fault> {
        let start = self.at;
        let digits = |next: char| next.is_ascii_digit();
        self.take_while(digits);
        let fraction = self.rest().strip_prefix('.').is_some_and(|rest| rest.starts_with(digits));
        if fraction {
            self.at += 1;
            self.take_while(digits);
        }
        let exponent = self.rest().strip_prefix(['e', 'E']).map(|rest| rest.trim_start_matches(['+', '-']));
        if exponent.is_some_and(|rest| rest.starts_with(digits)) {
            self.at += 1;
            self.take_while(|next| matches!(next, '+' | '-'));
            self.take_while(digits);
        }
        let written = self.all.get(start..self.at).unwrap_or_default();
        let number = written.parse().ok().and_then(Value::number);
        number.ok_or_else(|| Fault::new(format!("`{written}` is no number that can be used")))
    }

    /// The rest of a string in single quotes.
    pub(super) fn raw_string(&mut self) -> Result<Value, Fault> {
        let mut text = String::new();
        loop {
            match self.take_char() {
                Some('\'') => return Ok(Value::text(&text)),
                Some('\\') if self.take("\\") => text.push('\\'),
                Some('\\') if self.take("'") => text.push('\''),
                Some(next) => text.push(next),
                None => return Err(Fault::new("a string that begins with `'` does not end")),
            }
        }
    }

    /// The rest of a string in double quotes, in which there may be templates.
    pub(super) fn string(&mut self, evaluation: &mut Evaluation<'_>) -> Result<Value, Fault> {
        let mut text = String::new();
        let mut made_of = Value::null();
        loop {
            if self.take("\\${{") {
                text.push_str("${{");
            } else if self.take("${{") {
                let value = evaluation.delimited(self)?;
                made_of = made_of.marked_like(&value);
                evaluation.write(&value, &mut text)?;
            } else {
                match self.take_char() {
                    Some('"') => return Ok(Value::text(&text).marked_like(&made_of)),
                    Some('\\') => text.push(self.escape()?),
                    Some(next) => text.push(next),
                    None => return Err(Fault::new("a string that begins with `\"` does not end")),
                }
            }
        }
    }

    fn escape(&mut self) -> Result<char, Fault> {
        let next = self.take_char();
        Ok(match next {
            Some('\\' | '"' | '/') => next.unwrap_or_default(),
            Some('n') => '\n',
            Some('r') => '\r',
            Some('t') => '\t',
            Some('a') => '\u{7}',
            Some('b') => '\u{8}',
            Some('f') => '\u{c}',
            Some('v') => '\u{b}',
            Some('u') => {
                let digits = self.rest().get(..4).unwrap_or_default();
                let code = u32::from_str_radix(digits, 16).ok().and_then(char::from_u32);
                self.at += digits.len();
                code.ok_or_else(|| Fault::new(format!("`\\u{digits}` is no character")))?
            }
            Some(other) => {
                return Err(Fault::new(format!("`\\{}` is no escape", other.escape_debug())));
            }
            None => return Err(Fault::new("a string does not end")),
        })
    }
}
