//! References to variables inside text.

/// Replaces `$NAME` and `${NAME}` by what `lookup` gives for the name, and nothing when it gives nothing.
///
/// The rules are those of Go's `os.Expand`, which users of GitLab Runner rely on: `$$` is a dollar sign; the special
/// names `* # @ ! ? -` and the digits are empty; a dollar sign before anything else stays; `${}` and an unclosed
/// `${` vanish; shell operators such as `${NAME:-x}` are not known, so that reference is to an unset name. What
/// `lookup` gives is not expanded again.
pub fn expand<'a>(text: &str, lookup: impl Fn(&str) -> Option<&'a str>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(dollar) = rest.find('$') {
        out.push_str(&rest[..dollar]);
        let after = &rest[dollar + 1..];
        rest = match reference(after) {
            Reference::Name(name, rest) => {
                out.push_str(lookup(name).unwrap_or_default());
                rest
            }
            Reference::Special('$', rest) => {
                out.push('$');
                rest
            }
            Reference::Special(_, rest) | Reference::Malformed(rest) => rest,
            Reference::None => {
                out.push('$');
                after
            }
        };
    }
    out.push_str(rest);
    out
}

/// What follows a dollar sign, and the text after that.
enum Reference<'t> {
    Name(&'t str, &'t str),
    Special(char, &'t str),
    Malformed(&'t str),
    None,
}

fn reference(text: &str) -> Reference<'_> {
    if let Some(braced) = text.strip_prefix('{') {
        return match braced.split_once('}') {
            None => Reference::Malformed(braced),
            Some(("", rest)) => Reference::Malformed(rest),
            Some((name, rest)) => match name.chars().next() {
                Some(first) if name.len() == 1 && is_special(first) => Reference::Special(first, rest),
                _ => Reference::Name(name, rest),
            },
        };
    }
    if let Some(first) = text.chars().next().filter(|first| is_special(*first)) {
        return Reference::Special(first, &text[1..]);
    }
    let end = text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(text.len());
    if end == 0 { Reference::None } else { Reference::Name(&text[..end], &text[end..]) }
}

fn is_special(c: char) -> bool {
    matches!(c, '*' | '#' | '$' | '@' | '!' | '?' | '-' | '0'..='9')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn expanded(text: &str) -> String {
        expand(text, |name| match name {
            "A" => Some("one"),
            "LONG_name2" => Some("$A"),
            "a.b" => Some("dotted"),
            _ => None,
        })
    }

    #[test]
    fn references_are_replaced_once() {
        for (text, expected) in [
            ("$A ${A}", "one one"),
            ("x$LONG_name2/y", "x$A/y"),
            ("${LONG_name2}", "$A"),
            ("$UNKNOWN|${UNKNOWN}|", "||"),
            ("${a.b}", "dotted"),
            ("$$A", "$A"),
            ("${$}A", "$A"),
            ("$$$A", "$one"),
        ] {
            assert_eq!(expanded(text), expected, "{text}");
        }
    }

    #[test]
    fn odd_references_are_those_of_go() {
        for (text, expected) in [
            ("$", "$"),
            ("a$", "a$"),
            ("$ A", "$ A"),
            ("$/A", "$/A"),
            ("$é", "$é"),
            ("${", ""),
            ("${A", "A"),
            ("${}A", "A"),
            ("$*$#$@$!$?$-$0$9.", "."),
            ("$1A", "A"),
            ("${12}", ""),
            ("${A:-default}", ""),
            ("$(A)", "$(A)"),
            ("$A_", ""),
        ] {
            assert_eq!(expanded(text), expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn never_panics_and_leaves_plain_text_alone(text in ".*|[${}A1é*-]*") {
            let out = expanded(&text);
            if !text.contains('$') {
                prop_assert_eq!(out, text);
            }
        }

        #[test]
        fn doubled_dollars_escape_any_text(text in ".*") {
            prop_assert_eq!(expanded(&text.replace('$', "$$")), text);
        }
    }
}
