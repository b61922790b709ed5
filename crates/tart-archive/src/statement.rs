//! What is said of an archive inside of it: a statement whose subjects are the archive's files.

use std::io::{self, Write};

use crate::fingerprint::hex;

/// A statement of the in-toto kind (<https://in-toto.io/Statement/v1>) without its subjects.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Statement {
    /// The name of its file in the archive; empty if there is no statement.
    pub name: String,
    /// The object in JSON, which has something in it and no `subject`.
    pub text: String,
}

/// SHA-256.
pub(crate) type Sha = [u8; 32];

/// Writes a statement with its subjects: names and digests of files.
pub(crate) fn write_statement<'a>(
    text: &str,
    subjects: impl Iterator<Item = (&'a [u8], Sha)>,
    out: &mut dyn Write,
) -> io::Result<()> {
    out.write_all(b"{\"subject\":[")?;
    for (number, (name, digest)) in subjects.enumerate() {
        let comma = if number > 0 { "," } else { "" };
        let (name, digest) = (quoted(name), hex(&digest));
        write!(out, "{comma}\n{{\"name\":{name},\"digest\":{{\"sha256\":\"{digest}\"}}}}")?;
    }
    write!(out, "],\n{}", text.trim_start().trim_start_matches('{'))
}

/// A string of JSON. What is no text is replaced.
fn quoted(text: &[u8]) -> String {
    let mut quoted = "\"".to_owned();
    for character in String::from_utf8_lossy(text).chars() {
        match character {
            '"' | '\\' => quoted.extend(['\\', character]),
            control if control.is_control() => quoted.push_str(&format!("\\u{:04x}", u32::from(control))),
            other => quoted.push(other),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_names_are_strings_of_json() {
        let mut text = Vec::new();
        let subjects: [(&[u8], Sha); 2] = [(b"a\"\\\n\x7f", [0xab; 32]), (b"\xff", [0; 32])];
        write_statement("{\"x\":1}", subjects.into_iter(), &mut text).unwrap();
        insta::assert_snapshot!(String::from_utf8(text).unwrap(), @r#"
        {"subject":[
        {"name":"a\"\\\u000a\u007f","digest":{"sha256":"abababababababababababababababababababababababababababababababab"}},
        {"name":"�","digest":{"sha256":"0000000000000000000000000000000000000000000000000000000000000000"}}],
        "x":1}
        "#);
    }
}
