//! Secrets in files.

use std::fmt;
use std::fs;
use std::path::Path;

/// The shortest secret by which players' ids are hashed, in bytes.
const MIN_PLAYER_KEY: usize = 32;

/// A secret by which players' ids are hashed, where there is one. Never printed.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct PlayerKey(Option<Vec<u8>>);

impl PlayerKey {
    /// Its bytes.
    pub fn as_bytes(&self) -> Option<&[u8]> {
        self.0.as_deref()
    }

    /// Of these bytes.
    #[cfg(test)]
    pub(crate) fn from_bytes(bytes: &[u8]) -> Self {
        Self(Some(bytes.to_vec()))
    }

    /// What is in a file, but for white space around it.
    ///
    /// # Errors
    /// What is wrong with the file.
    pub(super) fn read(file: &Path) -> Result<Self, String> {
        let text = fs::read(file).map_err(|error| format!("cannot read {}: {error}", file.display()))?;
        let secret = text.trim_ascii();
        if secret.len() < MIN_PLAYER_KEY {
            let what = "bytes; `openssl rand -hex 32` makes a secret that nobody guesses";
            return Err(format!("{} has fewer than {MIN_PLAYER_KEY} {what}", file.display()));
        }
        Ok(Self(Some(secret.to_vec())))
    }
}

impl fmt::Debug for PlayerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PlayerKey")
    }
}
