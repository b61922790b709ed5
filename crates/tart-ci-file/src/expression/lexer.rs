//! From text to tokens.

use std::fmt;

/// The most tokens of an expression, as in GitLab.
const MAX_TOKENS: usize = 100;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Token {
    Open,
    Close,
    Variable(String),
    Text(String),
    /// The body, in which `\/` has become `/`, and the flags.
    Pattern(String, String),
    Null,
    Operator(Operator),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operator {
    Equals,
    Differs,
    Matches,
    MatchesNot,
    And,
    Or,
}

const OPERATORS: &[(&str, Operator)] = &[
    ("==", Operator::Equals),
    ("!=", Operator::Differs),
    ("=~", Operator::Matches),
    ("!~", Operator::MatchesNot),
    ("&&", Operator::And),
    ("||", Operator::Or),
];

impl fmt::Display for Token {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open => formatter.write_str("`(`"),
            Self::Close => formatter.write_str("`)`"),
            Self::Variable(name) => write!(formatter, "`${name}`"),
            Self::Text(text) => write!(formatter, "`\"{text}\"`"),
            Self::Pattern(body, flags) => write!(formatter, "`/{body}/{flags}`"),
            Self::Null => formatter.write_str("`null`"),
            Self::Operator(operator) => {
                let written =
                    OPERATORS.iter().find(|(_, known)| known == operator).map_or("", |(text, _)| text);
                write!(formatter, "`{written}`")
            }
        }
    }
}

/// All tokens of an expression.
pub(super) fn tokens(text: &str) -> Result<Vec<Token>, String> {
    let mut tokens = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        if tokens.len() == MAX_TOKENS {
            return Err(format!("it has more than {MAX_TOKENS} parts"));
        }
        let (token, after) = next(rest)?;
        tokens.push(token);
        rest = after.trim_start();
    }
    Ok(tokens)
}

fn next(rest: &str) -> Result<(Token, &str), String> {
    for (written, operator) in OPERATORS {
        if let Some(after) = rest.strip_prefix(written) {
            return Ok((Token::Operator(*operator), after));
        }
    }
    if let Some(after) = rest.strip_prefix('(') {
        return Ok((Token::Open, after));
    }
    if let Some(after) = rest.strip_prefix(')') {
        return Ok((Token::Close, after));
    }
    if let Some(after) = rest.strip_prefix('$') {
        let (name, after) = word(after);
        if name.is_empty() {
            return Err(match after.strip_prefix('{').map(word) {
                Some((name, _)) if !name.is_empty() => {
                    format!("`${{{name}}}` is no variable here: write `${name}`")
                }
                _ => "there is a `$` without a name".to_owned(),
            });
        }
        return Ok((Token::Variable(name.to_owned()), after));
    }
    for quote in ['"', '\''] {
        if let Some(after) = rest.strip_prefix(quote) {
            let Some((text, after)) = after.split_once(quote) else {
                return Err(format!("the string that begins with `{quote}` has no end"));
            };
            return Ok((Token::Text(text.to_owned()), after));
        }
    }
    if rest.starts_with('/') {
        let Some((body, flags, after)) = pattern(rest) else {
            return Err(
                "the pattern that begins with `/` has no end; write a `/` inside of it as `\\/`".to_owned()
            );
        };
        return Ok((Token::Pattern(body, flags.to_owned()), after));
    }
    let (name, after) = word(rest);
    match name {
        "null" => Ok((Token::Null, after)),
        "" => Err(unknown(rest)),
        name => Err(format!("`{name}` is neither a variable nor a string: write `${name}` or `\"{name}\"`")),
    }
}

fn unknown(rest: &str) -> String {
    match rest.chars().next().unwrap_or_default() {
        '=' => "`=` is no operator: write `==`".to_owned(),
        '&' => "`&` is no operator: write `&&`".to_owned(),
        '|' => "`|` is no operator: write `||`".to_owned(),
        '!' => "`!` is no operator: write `!=`, `!~` or `== null`".to_owned(),
        other => format!("`{other}` has no meaning here"),
    }
}

/// The longest beginning of letters, digits and `_`.
fn word(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(text.len());
    text.split_at(end)
}

/// The body, the flags and the rest of a text that begins with a pattern. The body is not empty.
fn pattern(text: &str) -> Option<(String, &str, &str)> {
    let inner = text.strip_prefix('/')?;
    let mut body = String::new();
    let mut escaped = false;
    for (index, c) in inner.char_indices() {
        match c {
            '/' if escaped => {
                // Without its `\`, which was kept so far.
                body.pop();
                body.push('/');
                escaped = false;
            }
            '/' if body.is_empty() => return None,
            '/' => {
                let after = inner.get(index + 1..)?;
                let end = after.find(|c: char| !"ismU".contains(c)).unwrap_or(after.len());
                let (flags, rest) = after.split_at(end);
                return Some((body, flags, rest));
            }
            c => {
                escaped = c == '\\' && !escaped;
                body.push(c);
            }
        }
    }
    None
}

/// The body and the flags of a text that is a pattern and nothing else. Between the first and the last `/`, all is body.
pub(super) fn whole_pattern(text: &str) -> Option<(String, String)> {
    let (body, flags) = text.strip_prefix('/')?.rsplit_once('/')?;
    let usable = !body.is_empty() && flags.chars().all(|c| "ismU".contains(c));
    usable.then(|| (body.replace("\\/", "/"), flags.to_owned()))
}
