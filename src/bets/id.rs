//! Names that others choose: bounded, and safe to put into logs, headers and URLs' values.

use std::fmt;
use std::sync::Arc;

/// Why a text is no id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an id has 1 to {most} characters of visible ASCII")]
pub struct InvalidId {
    /// How long it may be.
    pub most: usize,
}

/// Names a bet, a round or an attempt: 1 to 64 characters of visible ASCII.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Id(Box<str>);

impl Id {
    /// Characters of the longest.
    pub const MAX: usize = 64;

    /// Checks a text.
    ///
    /// # Errors
    /// It is empty, too long, or has another character than visible ASCII.
    pub fn new(text: &str) -> Result<Self, InvalidId> {
        check(text, Self::MAX).map(|text| Self(text.into()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Who plays: 1 to 128 characters of visible ASCII. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PlayerId(Arc<str>);

impl PlayerId {
    /// Characters of the longest.
    pub const MAX: usize = 128;

    /// Checks a text.
    ///
    /// # Errors
    /// It is empty, too long, or has another character than visible ASCII.
    pub fn new(text: &str) -> Result<Self, InvalidId> {
        check(text, Self::MAX).map(|text| Self(text.into()))
    }

    /// A name for one who has none, made of random bytes: each such session is a player of its own.
    pub fn anonymous(random: [u8; 16]) -> Self {
        Self(format!("anonymous-{:032x}", u128::from_be_bytes(random)).into())
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PlayerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn check(text: &str, most: usize) -> Result<&str, InvalidId> {
    let valid = (1..=most).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
    if valid { Ok(text) } else { Err(InvalidId { most }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_short_and_visible() {
        assert_eq!(Id::new("b-1").unwrap().as_str(), "b-1");
        for wrong in ["", " ", "a b", "a\n", "é", &"x".repeat(65)] {
            assert_eq!(Id::new(wrong), Err(InvalidId { most: 64 }), "{wrong:?}");
        }
        assert!(Id::new(&"x".repeat(64)).is_ok());
        assert!(PlayerId::new(&"x".repeat(128)).is_ok() && PlayerId::new(&"x".repeat(129)).is_err());
        let anonymous = PlayerId::anonymous([255; 16]);
        assert_eq!(PlayerId::new(anonymous.as_str()), Ok(anonymous));
    }
}
