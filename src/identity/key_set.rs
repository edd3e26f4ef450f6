//! JWK Sets (RFC 7517 §5).

use std::collections::HashSet;
use std::sync::Arc;

use serde::Deserialize;

use super::key::{Algorithm, Key, Read};
use super::object::Object;
use super::token::TokenError;

/// Bytes of the longest key set that is read.
pub const MAX_KEY_SET: usize = 256 * 1024;

/// Keys in one set. An issuer has one or two.
const MAX_KEYS: usize = 64;

/// The public keys of an issuer. Cheap to clone.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct KeySet {
    keys: Arc<[Key]>,
    ignored: Arc<[Ignored]>,
}

/// A key that is not used, by its place in the set, from 1.
type Ignored = (usize, &'static str);

/// Why a text is no key set to be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeySetError {
    /// It is far longer than any.
    #[error("a key set has at most {MAX_KEY_SET} bytes")]
    TooLong,
    /// It is not `{"keys": […]}`, or a name comes twice in a key.
    #[error("it is not a JWK Set, {{\"keys\": […]}}: {0}")]
    Malformed(String),
    /// There are too many keys in it.
    #[error("it has {0} keys; at most {MAX_KEYS} are read")]
    TooMany(usize),
    /// A key that nobody but the issuer may know.
    #[error(
        "key {0} of it is private or symmetric: whoever has read it can sign tokens. Make new keys, and publish the public \
         halves alone"
    )]
    Secret(usize),
    /// Two keys have one name.
    #[error("two of its keys have the `kid` {0:?}; give each a name of its own")]
    Ambiguous(String),
    /// Nothing can be verified with it.
    #[error("none of its keys can be used{0}")]
    NoKey(String),
}

#[derive(Deserialize)]
struct Document {
    keys: Vec<Object>,
}

impl KeySet {
    /// Reads the text of a JWK Set. Keys for something else are ignored, see [`KeySet::ignored`].
    ///
    /// # Errors
    /// See [`KeySetError`]. No message repeats anything of a key but its `kid`.
    pub fn parse(text: &[u8]) -> Result<Self, KeySetError> {
        if text.len() > MAX_KEY_SET {
            return Err(KeySetError::TooLong);
        }
        let document: Document =
            serde_json::from_slice(text).map_err(|error| KeySetError::Malformed(without_excerpt(&error)))?;
        if document.keys.len() > MAX_KEYS {
            return Err(KeySetError::TooMany(document.keys.len()));
        }
        let (mut keys, mut ignored) = (Vec::new(), Vec::new());
        for (place, jwk) in (1..).zip(&document.keys) {
            match Key::read(jwk) {
                Read::Usable(key) => keys.push(key),
                Read::Ignored(reason) => ignored.push((place, reason)),
                Read::Secret => return Err(KeySetError::Secret(place)),
            }
        }
        let mut names = HashSet::new();
        if let Some(twice) = keys.iter().filter_map(|key| key.kid.as_deref()).find(|kid| !names.insert(*kid)) {
            return Err(KeySetError::Ambiguous(twice.chars().take(64).collect()));
        }
        if keys.is_empty() {
            return Err(KeySetError::NoKey(listed(&ignored)));
        }
        Ok(Self { keys: keys.into(), ignored: ignored.into() })
    }

    /// How many keys there are to verify with.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// There are none.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Which keys of the set are not used, and why: a sentence, empty if all are.
    pub fn ignored(&self) -> String {
        listed(&self.ignored)
    }

    /// The key that a token with this header is verified with.
    ///
    /// # Errors
    /// There is none, or it is for another algorithm, or there are several and the token does not say which.
    pub(super) fn find(&self, kid: Option<&str>, algorithm: Algorithm) -> Result<&Key, TokenError> {
        if let Some(kid) = kid {
            let key = self.keys.iter().find(|key| key.kid.as_deref() == Some(kid)).ok_or(TokenError::UnknownKey)?;
            return if key.algorithm == algorithm { Ok(key) } else { Err(TokenError::OtherAlgorithm) };
        }
        let mut fitting = self.keys.iter().filter(|key| key.algorithm == algorithm);
        match (fitting.next(), fitting.next()) {
            (Some(key), None) => Ok(key),
            (Some(_), Some(_)) => Err(TokenError::AmbiguousKey),
            (None, _) => Err(TokenError::UnknownKey),
        }
    }
}

fn listed(ignored: &[Ignored]) -> String {
    ignored.iter().map(|(place, reason)| format!("; key {place} is ignored: {reason}")).collect()
}

/// The parser's message may quote a value, which by mistake may be a secret.
fn without_excerpt(error: &serde_json::Error) -> String {
    let what = match error.classify() {
        serde_json::error::Category::Data => "another form than expected, or a name twice in one key",
        _ => "not JSON",
    };
    format!("{what}, line {} column {}", error.line(), error.column())
}
