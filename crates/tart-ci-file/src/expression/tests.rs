//! What expressions mean, and what is said of those that mean nothing.

use proptest::prelude::*;

use super::Expression;

fn variables(name: &str) -> Option<String> {
    Some(
        match name {
            "BRANCH" => "feature/one",
            "DEFAULT" => "main",
            "EMPTY" => "",
            "PATTERN" => "/^feature/",
            "FLAGGED" => "/^FEATURE/i",
            "PLAIN" => "a feature/one b",
            "BROKEN" => "/(/",
            "TAG" => "v1.2.3",
            _ => return None,
        }
        .into(),
    )
}

fn holds(text: &str) -> bool {
    Expression::parse(text).unwrap_or_else(|error| panic!("{text}: {error}")).holds(&variables)
}

fn error(text: &str) -> String {
    Expression::parse(text).expect_err(text)
}

#[test]
fn values_alone_hold_if_they_are_there() {
    for (text, expected) in [
        ("$BRANCH", true),
        ("$EMPTY", false),
        ("$NONE", false),
        ("null", false),
        ("\"x\"", true),
        ("''", false),
        ("$EMPTY == ''", true),
        ("$NONE == null", true),
        ("$EMPTY == null", false),
        ("$EMPTY != null", true),
        ("$NONE == ''", false),
        ("$BRANCH == \"feature/one\"", true),
        ("'feature/one' == $BRANCH", true),
        ("$BRANCH != $DEFAULT", true),
    ] {
        assert_eq!(holds(text), expected, "{text}");
    }
}

#[test]
fn patterns_are_literals_or_in_variables() {
    for (text, expected) in [
        ("$BRANCH =~ /^feature\\//", true),
        ("$BRANCH =~ /^Feature/", false),
        ("$BRANCH =~ /^Feature/i", true),
        ("$BRANCH !~ /^main$/", true),
        ("$NONE =~ /x/", false),
        ("$NONE !~ /x/", true),
        ("$NONE =~ /^$/", true),
        ("$BRANCH =~ $PATTERN", true),
        ("$BRANCH =~ $FLAGGED", true),
        ("$BRANCH =~ $NONE", false),
        ("$BRANCH !~ $NONE", true),
        ("$BRANCH =~ $PLAIN", true),
        ("$DEFAULT =~ $PLAIN", false),
        ("$BRANCH =~ $BROKEN", false),
        ("$TAG =~ /^v\\d+\\.\\d+\\.\\d+$/", true),
        ("$TAG =~ /^[/]/", false),
    ] {
        if text.contains("[/]") {
            assert!(Expression::parse(text).is_err(), "{text}");
            continue;
        }
        assert_eq!(holds(text), expected, "{text}");
    }
}

#[test]
fn and_binds_more_than_or_and_parentheses_more_than_both() {
    for (text, expected) in [
        ("$NONE && $NONE || $TAG", true),
        ("$TAG || $NONE && $NONE", true),
        ("($TAG || $NONE) && $NONE", false),
        ("$TAG && ($NONE || $BRANCH)", true),
        ("$BRANCH == \"x\" || $TAG == \"v1.2.3\" && $DEFAULT == \"main\"", true),
        ("$TAG && $BRANCH =~ /one$/", true),
        ("$EMPTY || $TAG", false),
        ("$EMPTY && $TAG", true),
        ("(($TAG))", true),
        ("$TAG&&$BRANCH", true),
    ] {
        assert_eq!(holds(text), expected, "{text}");
    }
}

#[test]
fn mistakes_are_explained() {
    insta::assert_snapshot!(error("$A = \"x\""), @"`=` is no operator: write `==`");
    insta::assert_snapshot!(error("$A == x"), @r#"`x` is neither a variable nor a string: write `$x` or `"x"`"#);
    insta::assert_snapshot!(error("${A} == 'x'"), @"`${A}` is no variable here: write `$A`");
    insta::assert_snapshot!(error("$A & $B"), @"`&` is no operator: write `&&`");
    insta::assert_snapshot!(error("!$A"), @"`!` is no operator: write `!=`, `!~` or `== null`");
    insta::assert_snapshot!(error("($A"), @"there is a `(` without its `)`");
    insta::assert_snapshot!(error("$A)"), @"there is a `)` without its `(`");
    insta::assert_snapshot!(error("$A =="), @"it ends where a value was expected");
    insta::assert_snapshot!(error(""), @"it ends where a value was expected");
    insta::assert_snapshot!(error("$A $B"), @"`$B` stands where an operator such as `&&` was expected");
    insta::assert_snapshot!(error("$A == == $B"), @"`==` stands where a value was expected");
    insta::assert_snapshot!(error("$A == 'x"), @"the string that begins with `'` has no end");
    insta::assert_snapshot!(error("$A =~ /x"), @r"the pattern that begins with `/` has no end; write a `/` inside of it as `\/`");
    insta::assert_snapshot!(error("$A =~ /(/"), @"the pattern `/(/` is not valid: unclosed group");
    insta::assert_snapshot!(error("$A =~ /a(?=b)/"), @"the pattern `/a(?=b)/` is not valid: look-around, including look-ahead and look-behind, is not supported");
    insta::assert_snapshot!(error(&"$A || ".repeat(60)), @"it has more than 100 parts");
}

/// An expression with its value, by a model that knows neither tokens nor precedence.
fn model() -> impl Strategy<Value = (String, bool)> {
    let leaf = prop_oneof![
        Just(("$TAG".to_owned(), true)),
        Just(("$NONE".to_owned(), false)),
        Just(("$TAG == 'v1.2.3'".to_owned(), true)),
        Just(("$TAG != \"v1.2.3\"".to_owned(), false)),
        Just(("$BRANCH =~ /^feat/".to_owned(), true)),
        Just(("$BRANCH !~ /^feat/".to_owned(), false)),
    ];
    leaf.prop_recursive(4, 16, 2, |inner| {
        (inner.clone(), inner, any::<bool>(), 0..3_usize).prop_map(|((left, a), (right, b), and, spaces)| {
            let space = " ".repeat(spaces);
            let operator = if and { "&&" } else { "||" };
            (format!("({left}){space}{operator}{space}({right})"), if and { a && b } else { a || b })
        })
    })
}

proptest! {
    #[test]
    fn a_model_agrees((text, expected) in model()) {
        prop_assert_eq!(Expression::parse(&text).unwrap().holds(&variables), expected, "{}", text);
    }

    #[test]
    fn no_text_panics(text in "\\PC{0,60}", likely in "[$\"'/()=!~&|\\\\ A-Znulis]{0,60}") {
        for text in [text, likely] {
            if let Ok(expression) = Expression::parse(&text) {
                expression.holds(&variables);
            }
        }
    }
}
