//! Patterns of `paths` and `exclude`, in the dialect of the official runner (doublestar, version 4).
//!
//! `*` and `?` stay within a name, `**` as a whole name stands for any number of names, `[a-z]` and `[^a-z]` are
//! classes, `{a,b}` alternatives, and `\` takes a character's meaning away. Matching takes time in proportion to the
//! product of the lengths of pattern and path, whatever the pattern.

use crate::ArchiveError;

/// How many patterns without braces one pattern may stand for.
const MOST_ALTERNATIVES: usize = 1024;

/// A pattern of paths relative to the project's directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    /// The names of the pattern, for each choice of alternatives.
    choices: Vec<Vec<Vec<u8>>>,
}

impl Pattern {
    /// Reads a pattern. Errors: brackets or braces that nobody closes, a class without content, and more than 1024
    /// combinations of alternatives.
    pub fn new(text: &str) -> Result<Self, ArchiveError> {
        let bad = |problem| ArchiveError::Pattern { pattern: text.to_owned(), problem };
        let mut choices = Vec::new();
        expand(text.as_bytes(), &mut choices).map_err(bad)?;
        let choices: Vec<Vec<Vec<u8>>> = choices.iter().map(|choice| names(choice)).collect();
        for name in choices.iter().flatten() {
            check(name).map_err(bad)?;
        }
        Ok(Self { choices })
    }

    /// Whether a path, relative and with `/` between names, is meant as a whole.
    pub fn matches(&self, path: &[u8]) -> bool {
        let path = names(path);
        self.choices.iter().any(|choice| path_matches(choice, &path))
    }
}

/// Whether a text has characters with a meaning in patterns.
pub fn is_pattern(text: &str) -> bool {
    text.contains(['*', '?', '[', '{'])
}

fn names(path: &[u8]) -> Vec<Vec<u8>> {
    path.split(|&byte| byte == b'/').map(<[u8]>::to_vec).collect()
}

/// Adds what a pattern stands for once its braces are replaced.
fn expand(pattern: &[u8], into: &mut Vec<Vec<u8>>) -> Result<(), &'static str> {
    let mut pending = vec![pattern.to_vec()];
    while let Some(next) = pending.pop() {
        if pending.len() + into.len() >= MOST_ALTERNATIVES {
            return Err("has too many alternatives");
        }
        match first_braces(&next)? {
            None => into.push(next),
            Some((before, choices, after)) => {
                if pending.len() + into.len() + choices.len() > MOST_ALTERNATIVES {
                    return Err("has too many alternatives");
                }
                // The last is taken first.
                for choice in choices.iter().rev() {
                    pending.push([before, choice, after].concat());
                }
            }
        }
    }
    Ok(())
}

type Braces<'a> = (&'a [u8], Vec<&'a [u8]>, &'a [u8]);

fn first_braces(pattern: &[u8]) -> Result<Option<Braces<'_>>, &'static str> {
    let mut depth = 0_usize;
    let (mut open, mut start) = (0, 0);
    let mut choices = Vec::new();
    let mut at = 0;
    while let Some(&byte) = pattern.get(at) {
        match byte {
            b'\\' => at += 1,
            b'[' => at = class_end(pattern, at).ok_or("has a bracket that nobody closes")? - 1,
            b'{' => {
                if depth == 0 {
                    (open, start) = (at, at + 1);
                }
                depth += 1;
            }
            b',' if depth == 1 => {
                choices.push(&pattern[start..at]);
                start = at + 1;
            }
            b'}' if depth > 0 => {
                depth -= 1;
                if depth == 0 {
                    choices.push(&pattern[start..at]);
                    return Ok(Some((&pattern[..open], choices, &pattern[at + 1..])));
                }
            }
            _ => {}
        }
        at += 1;
    }
    if depth > 0 { Err("has a brace that nobody closes") } else { Ok(None) }
}

/// Where the class that begins at `open` has ended.
fn class_end(pattern: &[u8], open: usize) -> Option<usize> {
    let mut at = open + 1;
    if matches!(pattern.get(at), Some(b'^' | b'!')) {
        at += 1;
    }
    let content = at;
    loop {
        match pattern.get(at)? {
            b'\\' => at += 2,
            b']' if at > content => return Some(at + 1),
            _ => at += 1,
        }
    }
}

fn check(name: &[u8]) -> Result<(), &'static str> {
    let mut at = 0;
    while let Some(&byte) = name.get(at) {
        match byte {
            b'[' => at = class_end(name, at).ok_or("has a bracket that nobody closes")?,
            b'\\' if at + 1 == name.len() => return Err("ends with a backslash"),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    Ok(())
}

fn path_matches(pattern: &[Vec<u8>], path: &[Vec<u8>]) -> bool {
    // `reached[n]`: the pattern so far stands for the first `n` names of the path.
    let mut reached = vec![false; path.len() + 1];
    reached[0] = true;
    for name in pattern {
        let mut next = vec![false; path.len() + 1];
        if name == b"**" {
            let mut any = false;
            for (to, from) in next.iter_mut().zip(&reached) {
                any |= *from;
                *to = any;
            }
        } else {
            for (at, text) in path.iter().enumerate() {
                next[at + 1] = reached[at] && name_matches(name, text);
            }
        }
        reached = next;
    }
    reached.last().copied().unwrap_or(false)
}

fn name_matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut at, mut read) = (0, 0);
    // Where to go on if a star has to stand for one character more.
    let mut star: Option<(usize, usize)> = None;
    loop {
        if pattern.get(at) == Some(&b'*') {
            at += 1;
            star = Some((at, read));
            continue;
        }
        if read == text.len() && at == pattern.len() {
            return true;
        }
        if let Some((end, length)) = one_matches(pattern, at, text, read) {
            (at, read) = (end, read + length);
            continue;
        }
        match star {
            Some((after, from)) if from < text.len() => {
                read = from + character(text, from);
                (at, star) = (after, Some((after, read)));
            }
            _ => return false,
        }
    }
}

/// Matches one character. Returns where the pattern goes on, and the length of the character.
fn one_matches(pattern: &[u8], at: usize, text: &[u8], read: usize) -> Option<(usize, usize)> {
    let length = if read < text.len() { character(text, read) } else { return None };
    let found = text.get(read..read + length)?;
    match *pattern.get(at)? {
        b'?' => Some((at + 1, length)),
        b'[' => {
            let end = class_end(pattern, at)?;
            class_has(pattern.get(at + 1..end - 1)?, found).then_some((end, length))
        }
        b'\\' => literal(pattern, at + 1, found),
        _ => literal(pattern, at, found),
    }
}

fn literal(pattern: &[u8], at: usize, found: &[u8]) -> Option<(usize, usize)> {
    pattern.get(at..)?.starts_with(found).then_some((at + found.len(), found.len()))
}

fn class_has(class: &[u8], found: &[u8]) -> bool {
    let (negated, class) = match class {
        [b'^' | b'!', rest @ ..] => (true, rest),
        _ => (false, class),
    };
    let found = code(found);
    let mut at = 0;
    let mut has = false;
    while let Some((low, after)) = class_character(class, at) {
        at = after;
        let mut high = low;
        if class.get(at) == Some(&b'-')
            && let Some((end, after)) = class_character(class, at + 1)
        {
            (high, at) = (end, after);
        }
        has |= (low..=high).contains(&found);
    }
    has != negated
}

fn class_character(class: &[u8], at: usize) -> Option<(u32, usize)> {
    let at = if class.get(at)? == &b'\\' { at + 1 } else { at };
    class.get(at)?;
    let end = at + character(class, at);
    Some((code(class.get(at..end)?), end))
}

/// The length in bytes of the character at `at`; 1 if it is none of UTF-8.
fn character(text: &[u8], at: usize) -> usize {
    let rest = &text[at..text.len().min(at + 4)];
    (1..=rest.len()).find(|&length| std::str::from_utf8(&rest[..length]).is_ok()).unwrap_or(1)
}

fn code(character: &[u8]) -> u32 {
    match std::str::from_utf8(character).ok().and_then(|text| text.chars().next()) {
        Some(character) => u32::from(character),
        // Bytes that are no text are beyond all characters.
        None => 0x11_0000 + u32::from(character.first().copied().unwrap_or(0)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn matches(pattern: &str, path: &str) -> bool {
        Pattern::new(pattern).unwrap().matches(path.as_bytes())
    }

    #[test]
    fn stars_stay_within_a_name_and_double_stars_do_not() {
        for (pattern, path, expected) in [
            ("*.txt", "a.txt", true),
            ("*.txt", "d/a.txt", false),
            ("d/*", "d/.hidden", true),
            ("**/*.txt", "a.txt", true),
            ("**/*.txt", "d/e/a.txt", true),
            ("d/**", "d", true),
            ("d/**", "d/e/f", true),
            ("d/**/f", "d/f", true),
            ("d/**/f", "d/e/x/f", true),
            ("d/**/f", "e/f", false),
            ("d**f", "d/f", false),
            ("d**f", "dxxf", true),
            ("?.o", "\u{e4}.o", true),
            ("?.o", "ab.o", false),
            ("a*b*c", "axbxbxc", true),
            ("a*b*c", "axbxb", false),
        ] {
            assert_eq!(matches(pattern, path), expected, "{pattern} {path}");
        }
    }

    #[test]
    fn classes_alternatives_and_escapes() {
        for (pattern, path, expected) in [
            ("[a-c]x", "bx", true),
            ("[^a-c]x", "bx", false),
            ("[!a-c]x", "dx", true),
            ("[]]x", "]x", true),
            ("[a\\]]x", "]x", true),
            ("{a,b}.txt", "b.txt", true),
            ("{a,b/{c,d}}/e", "b/d/e", true),
            ("{a,}b", "b", true),
            ("\\*", "*", true),
            ("\\*", "a", false),
            ("\\{a\\}", "{a}", true),
        ] {
            assert_eq!(matches(pattern, path), expected, "{pattern} {path}");
        }
    }

    #[test]
    fn what_is_not_closed_is_an_error() {
        for pattern in ["[a", "{a", "[]", "a\\"] {
            assert!(Pattern::new(pattern).is_err(), "{pattern}");
        }
        assert!(Pattern::new(&"{a,b}".repeat(40)).is_err());
    }

    proptest! {
        #[test]
        fn no_pattern_panics(pattern in "[ab*?\\[\\]{},/\\\\^!\u{e4}-]{0,20}", path in proptest::collection::vec(any::<u8>(), 0..20)) {
            if let Ok(pattern) = Pattern::new(&pattern) {
                pattern.matches(&path);
            }
        }

        #[test]
        fn what_is_escaped_stands_for_itself(path in "[ab*?\\[\\]{},^!-]{1,12}") {
            let escaped: String = path.chars().flat_map(|character| ['\\', character]).collect();
            prop_assert!(matches(&escaped, &path));
        }
    }
}
