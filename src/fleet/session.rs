//! What a session is called outside.

use std::fmt;
use std::str::FromStr;

/// The unguessable name of a session, 128 random bits: whoever knows the session URL may end it (RFC 9725 §5).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SessionId(pub [u8; 16]);

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

impl fmt::Debug for SessionId {
    /// Shortened: a log must not carry a capability.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SessionId({:02x}{:02x}…)", self.0[0], self.0[1])
    }
}

impl FromStr for SessionId {
    type Err = ();

    fn from_str(s: &str) -> Result<Self, ()> {
        let s = s.as_bytes();
        if s.len() != 32 || !s.iter().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(b)) {
            return Err(());
        }
        let nibble = |b: u8| if b.is_ascii_digit() { b - b'0' } else { b - b'a' + 10 };
        Ok(Self(std::array::from_fn(|i| nibble(s[2 * i]) << 4 | nibble(s[2 * i + 1]))))
    }
}

/// A session that was made, and its answer.
#[derive(Clone, Debug)]
pub struct Created {
    /// Goes into the session URL.
    pub session: SessionId,
    /// The SDP answer.
    pub answer: String,
    /// The strong entity-tag of the ICE session, quotes included (RFC 9725 §4.3.1).
    pub etag: String,
}

/// Which ICE session a PATCH is meant for: the value of If-Match (RFC 9110 §13.1.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IfMatch {
    /// Whichever there is.
    Any,
    /// One of these entity-tags, quotes included.
    Tags(Vec<String>),
}

impl IfMatch {
    /// Whether a session whose entity-tag is `etag` is meant. RFC 9110 §13.1.1: "An origin server MUST use the strong
    /// comparison function", to which no weak tag is equal; ours are all strong.
    pub fn admits(&self, etag: &str) -> bool {
        match self {
            IfMatch::Any => true,
            IfMatch::Tags(tags) => tags.iter().any(|tag| tag == etag),
        }
    }
}

/// What a PATCH has done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Patched {
    /// Candidates were read.
    Trickled,
    /// ICE was restarted.
    Restarted {
        /// The answer: an SDP fragment with our new credentials and all our candidates.
        fragment: String,
        /// The strong entity-tag of the new ICE session, quotes included.
        etag: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn preconditions_compare_strongly() {
        let tags = |tags: &[&str]| IfMatch::Tags(tags.iter().map(|t| (*t).to_owned()).collect());
        assert!(IfMatch::Any.admits("\"a\""));
        assert!(tags(&["\"b\"", "\"a\""]).admits("\"a\""));
        assert!(!tags(&["W/\"a\""]).admits("\"a\"") && !tags(&["a"]).admits("\"a\"") && !tags(&[]).admits("\"a\""));
    }

    #[test]
    fn a_log_does_not_carry_the_capability() {
        let id = SessionId([0xab; 16]);
        assert!(!format!("{id:?}").contains(&id.to_string()));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(bytes: [u8; 16]) {
            prop_assert_eq!(SessionId(bytes).to_string().parse(), Ok(SessionId(bytes)));
        }

        #[test]
        fn anything_else_is_refused(text in ".{0,40}") {
            prop_assert_eq!(text.parse::<SessionId>().is_ok_and(|id| id.to_string() == text), text.parse::<SessionId>().is_ok());
        }
    }
}
