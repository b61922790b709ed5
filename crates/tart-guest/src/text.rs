//! Text of a guest, made harmless.

/// Longest text of a guest that is kept, in bytes.
pub const MAX_TEXT: usize = 2048;

/// Text of a guest for errors and logs: at most [`MAX_TEXT`] bytes (an ellipsis more when it was cut), line ends and
/// tabs as spaces, and everything that could command a terminal or hide text as `�`.
#[must_use]
pub fn plain(text: &str) -> String {
    let end = text.floor_char_boundary(MAX_TEXT);
    let kept = text.get(..end).unwrap_or_default();
    let mut plain: String = String::with_capacity(kept.len());
    for c in kept.chars() {
        let c = match c {
            '\n' | '\r' | '\t' => ' ',
            c if c.is_control() || is_invisible(c) => char::REPLACEMENT_CHARACTER,
            c => c,
        };
        if plain.len() + c.len_utf8() > MAX_TEXT {
            break;
        }
        plain.push(c);
    }
    if end < text.len() {
        plain.push('…');
    }
    plain
}

/// Characters that change the order or visibility of others.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn escapes_and_line_ends_are_gone() {
        assert_eq!(plain("no \u{1b}[2Jsuch\nfile\u{202e}"), "no \u{fffd}[2Jsuch file\u{fffd}");
        assert_eq!(plain("größe"), "größe");
    }

    proptest! {
        #[test]
        fn any_text_is_short_and_printable(text in "(?s).{0,3000}") {
            let plain = plain(&text);
            prop_assert!(plain.len() <= MAX_TEXT + '…'.len_utf8());
            prop_assert!(!plain.chars().any(char::is_control));
        }
    }
}
