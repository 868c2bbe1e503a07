//! The keys of the mirror's clients.

use std::collections::HashSet;
use std::fs;

use super::shown;
use crate::cli::exit::Failure;
use crate::feed::Key;
use crate::quote::plain;

/// Who may ask.
pub enum Keys {
    /// Everybody with any key; on loopback only.
    Any,
    /// Who has one of these.
    These(HashSet<String>),
}

impl Keys {
    /// Reads a file with one key a line; `#` begins a comment. No file: any key.
    pub fn read(path: &str) -> Result<Keys, Failure> {
        if path.is_empty() {
            return Ok(Keys::Any);
        }
        let problem = |text: String| {
            Failure::trouble(format!(
                "feed_keys_file {}: {text}; expected one key a line",
                shown(path)
            ))
        };
        let text = fs::read_to_string(path).map_err(|error| problem(plain(&error)))?;
        let mut keys = HashSet::new();
        for (line, content) in (1..).zip(text.lines()) {
            let word = content.split('#').next().unwrap_or_default().trim();
            if word.is_empty() {
                continue;
            }
            // The error says why, and never quotes the text.
            let key = Key::new(word).map_err(|error| problem(format!("line {line}: {error}")))?;
            keys.insert(key.expose().to_owned());
        }
        if keys.is_empty() {
            return Err(problem("it holds no key".into()));
        }
        Ok(Keys::These(keys))
    }

    /// True if this key may ask.
    pub fn allow(&self, key: Option<&str>) -> bool {
        match self {
            Keys::Any => true,
            // A table with a random hash: the time of a look-up tells nothing of the keys.
            Keys::These(keys) => key.is_some_and(|key| keys.contains(key)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_key_a_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys");
        let path = path.to_str().unwrap();
        fs::write(path, "# consumers\nfirst  # the lab\n\nsecond\n").unwrap();
        let keys = Keys::read(path).unwrap();
        assert!(keys.allow(Some("first")) && keys.allow(Some("second")));
        assert!(!keys.allow(Some("third")) && !keys.allow(None));
        fs::write(path, "good\nse cret\n").unwrap();
        let failure = Keys::read(path).map(|_| ()).unwrap_err();
        let text = failure.text().unwrap();
        assert!(text.contains("line 2") && !text.contains("cret"), "{text}");
        fs::write(path, "# none\n").unwrap();
        assert!(Keys::read(path).is_err());
        assert!(Keys::read("").unwrap().allow(None));
    }
}
