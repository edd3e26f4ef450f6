//! The name of a table.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// 1 to 64 of `A-Z a-z 0-9 _ -`: safe in a URL path, in a metric label and in SDP.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TableName(String);

/// Not a table name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a table's name is 1 to 64 letters, digits, `-` or `_`")]
pub struct InvalidTableName;

impl TableName {
    /// The longest name, in bytes.
    pub const MAX_LEN: usize = 64;

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for TableName {
    type Err = InvalidTableName;

    fn from_str(s: &str) -> Result<Self, InvalidTableName> {
        let valid = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        if s.is_empty() || s.len() > Self::MAX_LEN || !s.bytes().all(valid) {
            return Err(InvalidTableName);
        }
        Ok(Self(s.to_owned()))
    }
}

impl TryFrom<String> for TableName {
    type Error = InvalidTableName;

    fn try_from(s: String) -> Result<Self, InvalidTableName> {
        s.parse()
    }
}

impl From<TableName> for String {
    fn from(name: TableName) -> Self {
        name.0
    }
}

impl Borrow<str> for TableName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_digits_dash_and_underscore() {
        for good in ["a", "demo-vp8", "Roulette_7", &"x".repeat(64)] {
            assert_eq!(good.parse::<TableName>().map(String::from), Ok(good.to_owned()));
        }
        for bad in ["", "a b", "a/b", "a.b", "tisch-ä", "%41", &"x".repeat(65)] {
            assert_eq!(bad.parse::<TableName>(), Err(InvalidTableName), "{bad:?}");
        }
    }
}
