//! Patterns of `changes` and `exists`: those of Ruby's `File.fnmatch` with path names, dot files and braces.

/// The most alternatives that braces may make of one pattern.
const MAX_ALTERNATIVES: usize = 512;

/// A pattern with its braces opened.
#[derive(Debug, Clone)]
pub(crate) struct Glob(Vec<Vec<Vec<char>>>);

impl Glob {
    /// Any text is a pattern.
    pub(crate) fn new(pattern: &str) -> Self {
        let parts = |pattern: String| pattern.split('/').map(|part| part.chars().collect()).collect();
        Self(alternatives(pattern).into_iter().map(parts).collect())
    }

    /// Whether a path, relative to the root of the repository, matches.
    pub(crate) fn matches(&self, path: &str) -> bool {
        let path: Vec<Vec<char>> = path.split('/').map(|part| part.chars().collect()).collect();
        self.0.iter().any(|pattern| path_matches(pattern, &path))
    }
}

/// `a{b,c}` as `ab` and `ac`. What would be too many stays as it is.
fn alternatives(pattern: &str) -> Vec<String> {
    let mut open = vec![pattern.to_owned()];
    let mut done = Vec::new();
    while let Some(pattern) = open.pop() {
        match braces(&pattern) {
            Some((before, choices, after)) if open.len() + done.len() + choices.len() <= MAX_ALTERNATIVES => {
                open.extend(choices.iter().map(|choice| format!("{before}{choice}{after}")));
            }
            _ => done.push(pattern),
        }
    }
    done
}

/// The first pair of braces: what is before it, its choices, what is after it.
fn braces(pattern: &str) -> Option<(&str, Vec<&str>, &str)> {
    let (mut depth, mut start, mut from) = (0_usize, 0, 0);
    let mut choices = Vec::new();
    let mut escaped = false;
    for (index, c) in pattern.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '{' => {
                if depth == 0 {
                    (start, from) = (index, index + 1);
                }
                depth += 1;
            }
            ',' if depth == 1 => {
                choices.push(pattern.get(from..index)?);
                from = index + 1;
            }
            '}' if depth == 1 => {
                choices.push(pattern.get(from..index)?);
                return Some((pattern.get(..start)?, choices, pattern.get(index + 1..)?));
            }
            '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    None
}

/// Matches directory by directory. `**` before a `/` stands for any number of directories.
fn path_matches(pattern: &[Vec<char>], path: &[Vec<char>]) -> bool {
    // reachable[i]: the pattern so far matches the first i parts of the path.
    let mut reachable = vec![false; path.len() + 1];
    if let Some(first) = reachable.first_mut() {
        *first = true;
    }
    for (index, part) in pattern.iter().enumerate() {
        let deep = part.as_slice() == ['*', '*'] && index + 1 < pattern.len();
        let mut next = vec![false; path.len() + 1];
        let mut open = false;
        for (at, before) in reachable.iter().enumerate() {
            if deep {
                open |= before;
                if let Some(slot) = next.get_mut(at) {
                    *slot = open;
                }
            } else if let (true, Some(name), Some(slot)) = (*before, path.get(at), next.get_mut(at + 1)) {
                *slot = name_matches(part, name);
            }
        }
        reachable = next;
    }
    reachable.last() == Some(&true)
}

/// Matches one name.
fn name_matches(pattern: &[char], name: &[char]) -> bool {
    let mut reachable = vec![false; name.len() + 1];
    if let Some(first) = reachable.first_mut() {
        *first = true;
    }
    let mut rest = pattern;
    while let Some((unit, tail)) = unit(rest) {
        rest = tail;
        let mut next = vec![false; name.len() + 1];
        let mut open = false;
        for (at, before) in reachable.iter().enumerate() {
            if matches!(unit, Unit::Any) {
                open |= before;
                if let Some(slot) = next.get_mut(at) {
                    *slot = open;
                }
            } else if let (true, Some(c), Some(slot)) = (*before, name.get(at), next.get_mut(at + 1)) {
                *slot = unit.takes(*c);
            }
        }
        reachable = next;
    }
    reachable.last() == Some(&true)
}

enum Unit<'a> {
    Any,
    One,
    Is(char),
    Set { negated: bool, members: &'a [char] },
}

impl Unit<'_> {
    fn takes(&self, c: char) -> bool {
        match self {
            Self::Any | Self::One => true,
            Self::Is(wanted) => c == *wanted,
            Self::Set { negated, members } => contains(members, c) != *negated,
        }
    }
}

fn contains(members: &[char], c: char) -> bool {
    let mut rest = members;
    loop {
        match rest {
            [low, '-', high, tail @ ..] => {
                if (*low..=*high).contains(&c) {
                    return true;
                }
                rest = tail;
            }
            [one, tail @ ..] => {
                if *one == c {
                    return true;
                }
                rest = tail;
            }
            [] => return false,
        }
    }
}

/// The first unit of a pattern and the rest.
fn unit(pattern: &[char]) -> Option<(Unit<'_>, &[char])> {
    let (first, rest) = pattern.split_first()?;
    Some(match first {
        '*' => (Unit::Any, rest),
        '?' => (Unit::One, rest),
        '\\' => match rest.split_first() {
            Some((escaped, rest)) => (Unit::Is(*escaped), rest),
            None => (Unit::Is('\\'), rest),
        },
        '[' => {
            let negated = matches!(rest.first(), Some('^' | '!'));
            let inner = rest.get(usize::from(negated)..).unwrap_or_default();
            // A `]` that comes first is a member.
            match inner.iter().skip(1).position(|c| *c == ']') {
                Some(end) => {
                    let members = inner.get(..=end).unwrap_or_default();
                    (Unit::Set { negated, members }, inner.get(end + 2..).unwrap_or_default())
                }
                None => (Unit::Is('['), rest),
            }
        }
        other => (Unit::Is(*other), rest),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_in_ruby() {
        for (pattern, path, expected) in [
            ("Dockerfile", "Dockerfile", true),
            ("Dockerfile", "sub/Dockerfile", false),
            ("*.md", "README.md", true),
            ("*.md", "docs/a.md", false),
            ("**/*.md", "README.md", true),
            ("**/*.md", "docs/deep/a.md", true),
            ("docs/**/*", "docs/a", true),
            ("docs/**/*", "docs/a/b/c", true),
            ("docs/**/*", "docsx/a", false),
            ("docs/**", "docs/a", true),
            ("docs/**", "docs/a/b", false),
            ("docs/*", "docs/.hidden", true),
            ("src/{a,b}/*.rs", "src/b/x.rs", true),
            ("src/{a,b}/*.rs", "src/c/x.rs", false),
            ("*.{rb,py,{c,h}}", "x.h", true),
            ("a/{b/**/*,c}", "a/b/d/e", true),
            ("[a-c]?.txt", "bx.txt", true),
            ("[^a-c]?.txt", "bx.txt", false),
            ("[]]x", "]x", true),
            ("[x", "[x", true),
            ("\\*.txt", "*.txt", true),
            ("\\*.txt", "a.txt", false),
            ("docs/", "docs/a", false),
            ("{a", "{a", true),
        ] {
            assert_eq!(Glob::new(pattern).matches(path), expected, "{pattern} {path}");
        }
    }

    #[test]
    fn braces_do_not_multiply_without_bound() {
        let pattern = "{a,b}".repeat(40);
        assert!(Glob::new(&pattern).0.len() <= MAX_ALTERNATIVES);
        assert!(!Glob::new(&"*".repeat(5000)).matches(&format!("{}/", "x".repeat(5000))));
    }

    proptest::proptest! {
        #[test]
        fn never_panics(pattern in "[ab*?\\[\\]{},/\\\\!^-]{0,24}", path in "[ab/.]{0,24}") {
            Glob::new(&pattern).matches(&path);
        }

        #[test]
        fn plain_names_match_themselves_only(name in "[a-z/.]{1,16}", other in "[a-z/.]{1,16}") {
            proptest::prop_assert!(Glob::new(&name).matches(&name));
            proptest::prop_assert_eq!(Glob::new(&name).matches(&other), name == other);
        }
    }
}
