//! Variables in texts that a server expands itself: paths of rules, names of pipelines.

use std::collections::HashMap;

/// How often values are expanded in values.
const MAX_LEVELS: usize = 10;
/// The longest text that comes out, in bytes.
const MAX_BYTES: usize = 64 << 10;

/// Replaces `$NAME`, `${NAME}` and `%NAME%`. What is not set stays as it is written.
pub(crate) fn expand(text: &str, variables: &dyn Fn(&str) -> Option<String>) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(['$', '%']) {
        let (before, from) = rest.split_at(at);
        out.push_str(before);
        match reference(from) {
            Some((name, length)) => {
                let (written, after) = from.split_at(length);
                out.push_str(&variables(name).unwrap_or_else(|| written.to_owned()));
                rest = after;
            }
            None => {
                let (sign, after) = from.split_at(1);
                out.push_str(sign);
                rest = after;
            }
        }
        if out.len() > MAX_BYTES {
            break;
        }
    }
    out.push_str(rest);
    out
}

/// The value of a variable in which others are expanded, as far as they do not lead back to themselves.
pub(crate) fn nested(name: &str, variables: &HashMap<String, String>) -> Option<String> {
    resolve(name, variables, &[])
}

fn resolve(name: &str, variables: &HashMap<String, String>, path: &[String]) -> Option<String> {
    let value = variables.get(name)?;
    if path.len() >= MAX_LEVELS || path.iter().any(|seen| seen == name) {
        return Some(value.clone());
    }
    if !value.contains(['$', '%']) {
        return Some(value.clone());
    }
    let path: Vec<String> = path.iter().cloned().chain([name.to_owned()]).collect();
    Some(expand(value, &|inner| resolve(inner, variables, &path)))
}

/// The name that a reference has, and the length of the reference in bytes.
fn reference(text: &str) -> Option<(&str, usize)> {
    let name = |text: &str| {
        let starts = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
        let end = text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(text.len());
        if starts { end } else { 0 }
    };
    let (before, closing) = match text.as_bytes() {
        [b'$', b'{', ..] => (2, "}"),
        [b'$', ..] => (1, ""),
        _ => (1, "%"),
    };
    let inner = text.get(before..)?;
    let length = name(inner);
    let (name, after) = inner.split_at(length);
    (length > 0 && after.starts_with(closing)).then_some((name, before + length + closing.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(pairs: &[(&str, &str)]) -> HashMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn what_is_set_is_replaced_and_the_rest_stays() {
        let variables = set(&[("A", "one"), ("B_2", "two")]);
        let of = |text: &str| expand(text, &|name| variables.get(name).cloned());
        assert_eq!(
            of("$A/${B_2}/%A%-$NONE ${NONE} %NONE% 100% $ ${ $1"),
            "one/two/one-$NONE ${NONE} %NONE% 100% $ ${ $1"
        );
        assert_eq!(of("$AB ${A}B"), "$AB oneB");
    }

    #[test]
    fn circles_end() {
        let variables = set(&[("A", "a$B"), ("B", "b$C"), ("C", "c"), ("X", "x$Y"), ("Y", "y$X")]);
        assert_eq!(nested("A", &variables).as_deref(), Some("abc"));
        assert_eq!(nested("X", &variables).as_deref(), Some("xyx$Y"));
        let doubled: Vec<(String, String)> =
            (0..60).map(|level| (format!("V{level}"), format!("$V{0}$V{0}", level + 1))).collect();
        assert!(nested("V0", &doubled.into_iter().collect()).is_some_and(|text| text.len() < MAX_BYTES));
    }

    proptest::proptest! {
        #[test]
        fn never_panics(text in "[$%{}A-C_1 é]{0,40}") {
            let variables = set(&[("A", "$B"), ("B", "%A%"), ("C", "")]);
            expand(&text, &|name| nested(name, &variables));
        }
    }
}
