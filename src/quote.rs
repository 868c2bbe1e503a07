//! Text from outside, made fit to be shown to people in logs, errors and answers.

use std::borrow::Cow;
use std::fmt::{self, Write};

/// Ends a text that was cut.
const CUT: &str = "...";

/// True for a character that could begin a new line, steer a terminal, or hide or reverse what
/// follows it.
fn is_harmful(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// The text with `?` in place of each harmful character.
pub fn printable(text: &str) -> Cow<'_, str> {
    if text.contains(is_harmful) {
        Cow::Owned(text.replace(is_harmful, "?"))
    } else {
        Cow::Borrowed(text)
    }
}

/// Shows at most `max` characters of `text`, harmful ones as `?`. A text that is cut ends with `...`,
/// which counts.
pub fn foreign(text: &str, max: usize) -> Foreign<'_> {
    Foreign { text, max }
}

/// See [`foreign`].
#[derive(Clone, Copy, Debug)]
pub struct Foreign<'a> {
    text: &'a str,
    max: usize,
}

impl fmt::Display for Foreign<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_cut = self.text.chars().nth(self.max).is_some();
        let shown = if is_cut {
            self.max.saturating_sub(CUT.len())
        } else {
            self.max
        };
        for c in self.text.chars().take(shown) {
            f.write_char(if is_harmful(c) { '?' } else { c })?;
        }
        if is_cut {
            f.write_str(CUT)?;
        }
        Ok(())
    }
}

/// The text of an error without the system's error numbers: Rust adds ` (os error 2)` to what the C
/// library says, which tells an operator nothing.
pub fn plain(error: &dyn fmt::Display) -> String {
    let text = error.to_string();
    let mut parts = text.split(" (os error ");
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        match part.split_once(')') {
            Some((number, rest)) if number.bytes().all(|b| b.is_ascii_digit() || b == b'-') => {
                out.push_str(rest);
            }
            _ => {
                out.push_str(" (os error ");
                out.push_str(part);
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_is_shown_can_forge_a_line() {
        for (given, shown) in [
            ("friendly-scanner", "friendly-scanner"),
            ("Zoë 100 % %s", "Zoë 100 % %s"),
            ("a\r\nERROR: b", "a??ERROR: b"),
            ("\u{1b}[2J\u{7f}\u{9b}1m", "?[2J??1m"),
            ("\u{202e}txt\u{2028}", "?txt?"),
        ] {
            assert_eq!(printable(given), shown);
            assert_eq!(foreign(given, 80).to_string(), shown);
        }
    }

    #[test]
    fn a_cut_text_says_so_and_is_no_longer_than_allowed() {
        assert_eq!(foreign("abcdef", 6).to_string(), "abcdef");
        assert_eq!(foreign("abcdefg", 6).to_string(), "abc...");
        assert_eq!(foreign("ääääääää", 6).to_string(), "äää...");
        assert_eq!(foreign("", 0).to_string(), "");
    }

    #[test]
    fn error_numbers_are_left_out() {
        let missing = std::io::Error::from_raw_os_error(2);
        assert_eq!(plain(&missing), "No such file or directory");
        assert_eq!(
            plain(&format!("io: {missing}: here (os error x)")),
            "io: No such file or directory: here (os error x)"
        );
    }
}
