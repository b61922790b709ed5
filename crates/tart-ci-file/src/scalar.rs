//! What a plain YAML scalar means. GitLab reads files with Psych, which follows YAML 1.1: `yes` is a boolean, `010` is
//! eight and `12:30` is a number.

use crate::node::Value;

/// The value of a plain (unquoted) scalar.
pub(crate) fn plain(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        _ => {}
    }
    match text.to_ascii_lowercase().as_str() {
        "yes" | "true" | "on" => return Value::Bool(true),
        "no" | "false" | "off" => return Value::Bool(false),
        ".inf" | "+.inf" => return Value::Float(f64::INFINITY),
        "-.inf" => return Value::Float(f64::NEG_INFINITY),
        ".nan" => return Value::Float(f64::NAN),
        _ => {}
    }
    if let Some(number) = integer(text) {
        return Value::Int(number);
    }
    match float(text) {
        Some(number) => Value::Float(number),
        None => Value::Text(text.to_owned()),
    }
}

fn sign(text: &str) -> (i64, &str) {
    match text.as_bytes().first() {
        Some(b'-') => (-1, text.get(1..).unwrap_or_default()),
        Some(b'+') => (1, text.get(1..).unwrap_or_default()),
        _ => (1, text),
    }
}

/// Decimal with `_` and `,`, `0x`, `0b`, octal with a leading `0`, and base sixty.
fn integer(text: &str) -> Option<i64> {
    let (sign, digits) = sign(text);
    if !digits.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    if digits.contains(':') {
        let mut parts = digits.split(':');
        let first = parts.next()?.replace('_', "");
        let mut total = decimal(&first)?;
        let rest: Vec<&str> = parts.collect();
        if rest.len() > 2 {
            return None;
        }
        for part in rest {
            let number = decimal(part).filter(|number| *number < 60 && part.len() <= 2)?;
            total = total.checked_mul(60)?.checked_add(number)?;
        }
        return Some(sign * total);
    }
    let plain = digits.replace(['_', ','], "");
    let number = if let Some(hexadecimal) = plain.strip_prefix("0x").or_else(|| plain.strip_prefix("0X")) {
        radix(hexadecimal, 16)?
    } else if let Some(binary) = plain.strip_prefix("0b").or_else(|| plain.strip_prefix("0B")) {
        radix(binary, 2)?
    } else if plain.len() > 1 && plain.starts_with('0') {
        radix(&plain, 8)?
    } else {
        decimal(&plain)?
    };
    Some(sign * number)
}

fn radix(text: &str, radix: u32) -> Option<i64> {
    if text.starts_with(['+', '-']) {
        return None;
    }
    i64::from_str_radix(text, radix).ok()
}

fn decimal(text: &str) -> Option<i64> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) { None } else { text.parse().ok() }
}

/// Digits with a point or an exponent.
fn float(text: &str) -> Option<f64> {
    let (_, digits) = sign(text);
    let begins = digits.strip_prefix('.').unwrap_or(digits);
    let only = |c: char| c.is_ascii_digit() || matches!(c, '.' | '_' | ',' | 'e' | 'E' | '+' | '-');
    if !begins.starts_with(|c: char| c.is_ascii_digit()) || !digits.chars().all(only) || !digits.contains('.')
    {
        return None;
    }
    text.replace(['_', ','], "").parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_scalars_mean_what_psych_makes_of_them() {
        for (text, value) in [
            ("", Value::Null),
            ("yes", Value::Bool(true)),
            ("Off", Value::Bool(false)),
            ("010", Value::Int(8)),
            ("0x1F", Value::Int(31)),
            ("1_000", Value::Int(1000)),
            ("12:30", Value::Int(750)),
            ("-3", Value::Int(-3)),
            ("1.10", Value::Float(1.1)),
            (".5", Value::Float(0.5)),
            ("1.2.3", Value::Text("1.2.3".into())),
            ("089", Value::Text("089".into())),
            ("ruby:3.2", Value::Text("ruby:3.2".into())),
            ("1e3", Value::Text("1e3".into())),
            ("y", Value::Text("y".into())),
            ("2024-01-01", Value::Text("2024-01-01".into())),
        ] {
            assert_eq!(plain(text), value, "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn never_panics(text in "[-+0-9.:_,xXeEbn]{0,24}") {
            drop(plain(&text));
        }
    }
}
