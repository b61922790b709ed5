//! What a registry wants to know of who asks: `WWW-Authenticate` (RFC 9110, section 11).

/// How to authenticate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Challenge {
    /// With name and password, in each request.
    Basic,
    /// With a token of another server.
    Bearer { realm: String, service: Option<String> },
}

/// The best challenge of a header's values.
pub(crate) fn parse<'a>(values: impl Iterator<Item = &'a str>) -> Option<Challenge> {
    let all: Vec<_> = values.filter_map(one).collect();
    let bearer = all.iter().find(|challenge| matches!(challenge, Challenge::Bearer { .. }));
    bearer.or(all.first()).cloned()
}

fn one(value: &str) -> Option<Challenge> {
    let (scheme, rest) = value.trim().split_once(' ').unwrap_or((value.trim(), ""));
    if scheme.eq_ignore_ascii_case("basic") {
        return Some(Challenge::Basic);
    }
    if !scheme.eq_ignore_ascii_case("bearer") {
        return None;
    }
    let (mut realm, mut service) = (None, None);
    for (name, value) in parameters(rest) {
        match name.to_ascii_lowercase().as_str() {
            "realm" => realm = Some(value),
            "service" => service = Some(value),
            _ => {}
        }
    }
    Some(Challenge::Bearer { realm: realm?, service })
}

/// `name=value` and `name="quoted value"`, separated by commas.
fn parameters(text: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some((name, after)) = rest.split_once('=') {
        let name = name.trim_matches([' ', ',', '\t']).to_owned();
        let (value, next) = match after.strip_prefix('"') {
            Some(quoted) => {
                let mut value = String::new();
                let mut escaped = false;
                let mut end = quoted.len();
                for (at, c) in quoted.char_indices() {
                    match c {
                        _ if escaped => {
                            value.push(c);
                            escaped = false;
                        }
                        '\\' => escaped = true,
                        '"' => {
                            end = at + 1;
                            break;
                        }
                        _ => value.push(c),
                    }
                }
                (value, quoted.get(end..).unwrap_or_default())
            }
            None => {
                let end = after.find(',').unwrap_or(after.len());
                let (value, next) = after.split_at(end);
                (value.trim().to_owned(), next)
            }
        };
        found.push((name, value));
        rest = next;
    }
    found
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn bearer_is_preferred() {
        let values =
            ["Basic realm=\"x\"", "Bearer realm=\"https://a/t?x=1,2\", scope=\"s:\\\"q\\\":pull\",service=a"];
        assert_eq!(
            parse(values.into_iter()),
            Some(Challenge::Bearer { realm: "https://a/t?x=1,2".to_owned(), service: Some("a".to_owned()) })
        );
        assert_eq!(parse(["basic"].into_iter()), Some(Challenge::Basic));
        assert_eq!(parse(["Negotiate", "Bearer service=x"].into_iter()), None);
    }

    proptest! {
        #[test]
        fn junk_never_panics(text in ".*", junk in "[Bb]earer .*") {
            let _any = parse([text.as_str(), junk.as_str()].into_iter());
        }
    }
}
