//! Reports of the kind `dotenv`: variables that a job sets for later ones.

/// The most bytes of a report, as on GitLab.
pub const MAX_DOTENV_BYTES: u64 = 5 * 1024;

/// The most variables of a report, as on gitlab.com at its largest.
const MAX_VARIABLES: usize = 150;

/// The variables of a report, each once, as GitLab reads them: one `NAME=value` a line, without quotes, comments and empty
/// lines.
///
/// # Errors
/// Says what is wrong with which line.
pub fn dotenv(text: &str) -> Result<Vec<(String, String)>, String> {
    let mut variables: Vec<(String, String)> = Vec::new();
    for (at, line) in text.lines().enumerate() {
        let wrong = |what: &str| Err(format!("line {}: {what}", at + 1));
        let Some((name, value)) = line.split_once('=') else {
            return wrong("expected `NAME=value`; empty lines and comments are not allowed");
        };
        let (name, value) = (name.trim(), value.trim());
        if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
            return wrong("names of variables are letters, digits and `_`");
        }
        if value.contains('\0') {
            return wrong("a value has a null character");
        }
        variables.retain(|(other, _)| other != name);
        variables.push((name.to_owned(), value.to_owned()));
        if variables.len() > MAX_VARIABLES {
            return wrong(&format!("there are more than {MAX_VARIABLES} variables"));
        }
    }
    Ok(variables)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_is_a_variable_and_the_last_of_a_name_counts() {
        let read = dotenv("A=1\n B = x=y \r\nA=\"2\"\n").unwrap();
        let pairs: Vec<(&str, &str)> =
            read.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(pairs, [("B", "x=y"), ("A", "\"2\"")]);
        assert_eq!(dotenv(""), Ok(Vec::new()));
    }

    #[test]
    fn what_gitlab_refuses_is_explained() {
        insta::assert_snapshot!(dotenv("A=1\n\nB=2\n").unwrap_err(), @"line 2: expected `NAME=value`; empty lines and comments are not allowed");
        insta::assert_snapshot!(dotenv("# x=1\n").unwrap_err(), @"line 1: names of variables are letters, digits and `_`");
        let many: String = (0..151).map(|at| format!("A{at}=1\n")).collect();
        insta::assert_snapshot!(dotenv(&many).unwrap_err(), @"line 151: there are more than 150 variables");
    }

    proptest::proptest! {
        #[test]
        fn no_report_panics_and_names_are_names(text in "([A-Z_=# \\n\\r\\x00]|\\PC){0,80}") {
            for (name, value) in dotenv(&text).unwrap_or_default() {
                proptest::prop_assert!(name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_'));
                proptest::prop_assert!(!name.is_empty() && !value.contains(['\n', '\0']));
            }
        }
    }
}
