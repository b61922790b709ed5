//! The language of `if:`: variables, strings, `null` and patterns, compared and combined.
//!
//! It is evaluated as GitLab does, in Ruby: a result counts unless it is `null`, false or blank, but for `&&` and `||` an
//! empty text is as good as any other; `&&` binds more than `||`; patterns are those of RE2.

mod lexer;

use std::borrow::Cow;

use regex::{Regex, RegexBuilder};

use lexer::{Operator, Token, tokens};

/// The largest compiled pattern, in bytes.
const MAX_PATTERN: usize = 1 << 20;

/// A parsed expression.
#[derive(Debug, Clone)]
pub(crate) struct Expression {
    text: String,
    root: Term,
}

impl PartialEq for Expression {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

#[derive(Debug, Clone)]
enum Term {
    Variable(String),
    Text(String),
    Null,
    Pattern(Regex),
    Operation(Operator, Box<Self>, Box<Self>),
}

/// What a term is worth.
#[derive(Debug, Clone)]
enum Value<'a> {
    Null,
    Bool(bool),
    Text(Cow<'a, str>),
    Pattern(&'a Regex),
}

impl Value<'_> {
    /// Whether Ruby takes it for true, as `&&` and `||` do.
    fn holds(&self) -> bool {
        !matches!(self, Self::Null | Self::Bool(false))
    }

    /// Whether it counts as the result of a whole expression.
    fn is_present(&self) -> bool {
        match self {
            Self::Text(text) => !text.trim().is_empty(),
            other => other.holds(),
        }
    }

    fn equals(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Null, Self::Null) => true,
            (Self::Bool(left), Self::Bool(right)) => left == right,
            (Self::Text(left), Self::Text(right)) => left == right,
            (Self::Pattern(left), Self::Pattern(right)) => left.as_str() == right.as_str(),
            _ => false,
        }
    }

    fn text(&self) -> Cow<'_, str> {
        match self {
            Self::Null => "".into(),
            Self::Bool(value) => value.to_string().into(),
            Self::Text(text) => text.as_ref().into(),
            Self::Pattern(pattern) => pattern.as_str().into(),
        }
    }
}

impl Expression {
    /// Parses an expression. The error says what is wrong and, if known, what to write.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut parser = Parser { tokens: tokens(text)?.into_iter().peekable() };
        let root = parser.any_of()?;
        match parser.tokens.next() {
            None => Ok(Self { text: text.trim().to_owned(), root }),
            Some(Token::Close) => Err("there is a `)` without its `(`".to_owned()),
            Some(token) => Err(format!("{token} stands where an operator such as `&&` was expected")),
        }
    }

    /// The expression as it is written.
    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether it holds with these variables; `None` is a variable that is not set.
    pub(crate) fn holds(&self, variables: &dyn Fn(&str) -> Option<String>) -> bool {
        evaluate(&self.root, variables).is_present()
    }
}

fn evaluate<'a>(term: &'a Term, variables: &dyn Fn(&str) -> Option<String>) -> Value<'a> {
    let of = |term: &'a Term| evaluate(term, variables);
    match term {
        Term::Null => Value::Null,
        Term::Text(text) => Value::Text(text.as_str().into()),
        Term::Pattern(pattern) => Value::Pattern(pattern),
        Term::Variable(name) => variables(name).map_or(Value::Null, |value| Value::Text(value.into())),
        Term::Operation(operator, left, right) => match operator {
            Operator::And => {
                let value = of(left);
                if value.holds() { of(right) } else { value }
            }
            Operator::Or => {
                let value = of(left);
                // As in Ruby, an empty text hides what comes after it.
                if value.holds() { value } else { of(right) }
            }
            Operator::Equals => Value::Bool(of(left).equals(&of(right))),
            Operator::Differs => Value::Bool(!of(left).equals(&of(right))),
            Operator::Matches => Value::Bool(matches(&of(left), &of(right)) == Some(true)),
            Operator::MatchesNot => Value::Bool(matches(&of(left), &of(right)) != Some(true)),
        },
    }
}

/// Whether a value matches a pattern. A text that is written as a pattern is one; any other text has to contain the
/// value. `None` if there is no pattern.
fn matches(value: &Value<'_>, pattern: &Value<'_>) -> Option<bool> {
    let text = value.text();
    match pattern {
        Value::Null | Value::Bool(_) => None,
        Value::Pattern(pattern) => Some(pattern.is_match(&text)),
        Value::Text(written) => {
            Some(match lexer::whole_pattern(written).map(|(body, flags)| compile(&body, &flags)) {
                Some(Ok(pattern)) => pattern.is_match(&text),
                _ => written.contains(text.as_ref()),
            })
        }
    }
}

/// Compiles a pattern with GitLab's flags, which are those of RE2.
pub(crate) fn compile(body: &str, flags: &str) -> Result<Regex, String> {
    let with_flags = if flags.is_empty() { body.to_owned() } else { format!("(?{flags}){body}") };
    RegexBuilder::new(&with_flags).size_limit(MAX_PATTERN).build().map_err(|error| match error {
        regex::Error::CompiledTooBig(_) => format!("the pattern `/{body}/` is too large"),
        error => {
            let text = error.to_string();
            let why = text.lines().last().unwrap_or_default().trim().trim_start_matches("error: ").to_owned();
            format!("the pattern `/{body}/` is not valid: {why}")
        }
    })
}

/// The pattern that a text is, if it is written as one: `/.../` with flags.
pub(crate) fn pattern(text: &str) -> Option<Result<Regex, String>> {
    lexer::whole_pattern(text).map(|(body, flags)| compile(&body, &flags))
}

struct Parser {
    tokens: std::iter::Peekable<std::vec::IntoIter<Token>>,
}

impl Parser {
    fn any_of(&mut self) -> Result<Term, String> {
        let mut left = self.all_of()?;
        while self.take(&Operator::Or) {
            left = Term::Operation(Operator::Or, left.into(), self.all_of()?.into());
        }
        Ok(left)
    }

    fn all_of(&mut self) -> Result<Term, String> {
        let mut left = self.comparison()?;
        while self.take(&Operator::And) {
            left = Term::Operation(Operator::And, left.into(), self.comparison()?.into());
        }
        Ok(left)
    }

    fn comparison(&mut self) -> Result<Term, String> {
        let mut left = self.value()?;
        while let Some(Token::Operator(operator)) = self.tokens.peek() {
            if matches!(operator, Operator::And | Operator::Or) {
                break;
            }
            let operator = *operator;
            self.tokens.next();
            left = Term::Operation(operator, left.into(), self.value()?.into());
        }
        Ok(left)
    }

    fn value(&mut self) -> Result<Term, String> {
        match self.tokens.next() {
            Some(Token::Variable(name)) => Ok(Term::Variable(name)),
            Some(Token::Text(text)) => Ok(Term::Text(text)),
            Some(Token::Null) => Ok(Term::Null),
            Some(Token::Pattern(body, flags)) => compile(&body, &flags).map(Term::Pattern),
            Some(Token::Open) => {
                let inner = self.any_of()?;
                match self.tokens.next() {
                    Some(Token::Close) => Ok(inner),
                    _ => Err("there is a `(` without its `)`".to_owned()),
                }
            }
            Some(token) => Err(format!("{token} stands where a value was expected")),
            None => Err("it ends where a value was expected".to_owned()),
        }
    }

    fn take(&mut self, wanted: &Operator) -> bool {
        let found = matches!(self.tokens.peek(), Some(Token::Operator(operator)) if operator == wanted);
        if found {
            self.tokens.next();
        }
        found
    }
}

#[cfg(test)]
mod tests;
