//! The API key: a secret that never appears in a log line, an error or a debugger's print.

use std::fmt;
use std::sync::Arc;

use zeroize::Zeroizing;

/// Shortest and longest key accepted, in characters; real ones have 32 to 64. A key of one character
/// would be masked inside every word of a log line.
const MIN_KEY: usize = 2;
const MAX_KEY: usize = 256;

/// Stands for the key wherever it would be shown.
const MASK: &str = "***";

/// The secret that the service knows a user by. Clones share one copy, which is wiped at the end.
#[derive(Clone, PartialEq, Eq)]
pub struct Key(Arc<Zeroizing<String>>);

/// What the configuration says about the key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ApiKey {
    /// It names none: the feed is disabled.
    #[default]
    NotSet,
    /// A key.
    Usable(Key),
    /// It names a file that holds no key or cannot be read; one line says which and why.
    Unusable(String),
}

impl ApiKey {
    /// The key.
    pub fn key(&self) -> Option<&Key> {
        match self {
            ApiKey::Usable(key) => Some(key),
            ApiKey::NotSet | ApiKey::Unusable(_) => None,
        }
    }
}

impl From<Option<Key>> for ApiKey {
    fn from(key: Option<Key>) -> Self {
        key.map_or(ApiKey::NotSet, ApiKey::Usable)
    }
}

/// The text cannot be a key. It says why, and never quotes the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Nothing but blanks.
    #[error("the API key is empty")]
    Empty,
    /// One character.
    #[error("the API key has one character only")]
    TooShort,
    /// More than 256 characters.
    #[error("the API key is longer than 256 characters")]
    TooLong,
    /// A space or tab inside.
    #[error("the API key holds a blank; the key must stand alone")]
    Blank,
    /// Quotes around it.
    #[error("the API key is in quotes; write it without them")]
    Quoted,
    /// A control character, or something beyond ASCII: no HTTP header may carry it.
    #[error("the API key holds a character that is not printable ASCII")]
    NotPrintable,
}

impl Key {
    /// Takes 2 to 256 printable ASCII characters; blanks and line ends around them are cut off.
    pub fn new(text: &str) -> Result<Self, KeyError> {
        let text = text.trim();
        if text.is_empty() {
            Err(KeyError::Empty)
        } else if text.len() < MIN_KEY {
            Err(KeyError::TooShort)
        } else if text.len() > MAX_KEY {
            Err(KeyError::TooLong)
        } else if ['"', '\'']
            .iter()
            .any(|&quote| text.starts_with(quote) && text.ends_with(quote))
        {
            Err(KeyError::Quoted)
        } else if text.contains([' ', '\t']) {
            Err(KeyError::Blank)
        } else if !text.bytes().all(|b| b.is_ascii_graphic()) {
            Err(KeyError::NotPrintable)
        } else {
            Ok(Key(Arc::new(Zeroizing::new(text.to_owned()))))
        }
    }

    /// The secret itself, for the request and nothing else.
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }

    /// The secret as one segment of a URL's path.
    pub(crate) fn percent_encoded(&self) -> Zeroizing<String> {
        let mut out = Zeroizing::new(String::with_capacity(self.0.len() * 3));
        for b in self.0.bytes() {
            if b.is_ascii_alphanumeric() || b"-._~".contains(&b) {
                out.push(char::from(b));
            } else {
                out.push_str(&format!("%{b:02X}"));
            }
        }
        out
    }

    /// `text` with `***` wherever the key stands: as it is, percent-encoded or with backslashes.
    pub fn redact(&self, text: &str) -> String {
        let bytes = text.as_bytes();
        let mut out = String::with_capacity(text.len());
        let mut at = 0;
        while at < bytes.len() {
            if let Some(end) = self.match_at(bytes, at) {
                out.push_str(MASK);
                at = end;
            } else {
                // A match begins and ends at ASCII, so `at` is always at a character's start.
                let Some(c) = text.get(at..).and_then(|rest| rest.chars().next()) else {
                    break;
                };
                out.push(c);
                at += c.len_utf8();
            }
        }
        out
    }

    /// Where the key, in any mixture of spellings, ends if it begins at `at`.
    fn match_at(&self, text: &[u8], mut at: usize) -> Option<usize> {
        for wanted in self.0.bytes() {
            at += match text.get(at..)? {
                [b, ..] if *b == wanted => 1,
                [b'\\', b, ..] if *b == wanted => 2,
                [b'%', high, low, ..] if hex(*high, *low) == Some(wanted) => 3,
                _ => return None,
            };
        }
        Some(at)
    }
}

fn hex(high: u8, low: u8) -> Option<u8> {
    let high = char::from(high).to_digit(16)?;
    let low = char::from(low).to_digit(16)?;
    u8::try_from(high * 16 + low).ok()
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(MASK)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(MASK)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn never_printed() {
        let key = Key::new(" s3cr/t+\"k\n").unwrap();
        assert_eq!(format!("{key} {key:?}"), "*** ***");
        assert_eq!(key.expose(), "s3cr/t+\"k");
    }

    #[test]
    fn cut_out_in_every_spelling() {
        let key = Key::new("s3cr/t+\"k").unwrap();
        assert_eq!(&*key.percent_encoded(), "s3cr%2Ft%2B%22k");
        for spelled in [
            "s3cr/t+\"k",
            "s3cr%2Ft%2B%22k",
            "s3cr%2ft%2b%22k",
            "s3cr/t+\\\"k",
            "%733cr/t+\"k",
        ] {
            let text = format!("GET http://h/{spelled}/banned: ü failed");
            assert_eq!(key.redact(&text), "GET http://h/***/banned: ü failed");
        }
        assert_eq!(key.redact("s3cr"), "s3cr");
    }

    #[test]
    fn only_what_a_header_may_carry() {
        assert_eq!(Key::new(" \n"), Err(KeyError::Empty));
        assert_eq!(Key::new("a b"), Err(KeyError::Blank));
        assert_eq!(Key::new("# the key"), Err(KeyError::Blank));
        assert_eq!(Key::new("\"abc\""), Err(KeyError::Quoted));
        assert_eq!(Key::new("'abc'"), Err(KeyError::Quoted));
        assert_eq!(Key::new("a"), Err(KeyError::TooShort));
        assert_eq!(Key::new("a\u{fc}"), Err(KeyError::NotPrintable));
        assert_eq!(Key::new("a\r\nHost:b"), Err(KeyError::NotPrintable));
        assert_eq!(Key::new(&"x".repeat(257)), Err(KeyError::TooLong));
    }
}
