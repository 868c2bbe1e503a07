//! The name of a table.

use std::fmt;
use std::str::FromStr;

/// Longest name; the kernel allows 255 characters.
const LONGEST: usize = 64;

/// A table name that nft itself can write back: a letter, then letters, digits, `_`, `-` or `.`, at most 64
/// in all.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TableName(String);

/// A text that is no [`TableName`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("is no table name")]
pub struct NoTableName;

impl TableName {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for TableName {
    fn default() -> Self {
        TableName("apiban".to_owned())
    }
}

impl FromStr for TableName {
    type Err = NoTableName;

    fn from_str(text: &str) -> Result<Self, NoTableName> {
        let is_name = text.len() <= LONGEST
            && text.starts_with(|c: char| c.is_ascii_alphabetic())
            && text
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte));
        match is_name {
            true => Ok(TableName(text.to_owned())),
            false => Err(NoTableName),
        }
    }
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_names() {
        for good in ["apiban", "a", "SIP-bans_2.x"] {
            assert_eq!(good.parse::<TableName>().unwrap().as_str(), good);
        }
        for bad in ["", "1a", "a b", "a;b", "a\"b", "-a", &"a".repeat(65), "ä"] {
            assert_eq!(bad.parse::<TableName>(), Err(NoTableName), "{bad}");
        }
    }
}
