//! Who vouches for a chain, and how players are named in it.

use std::fmt;

use aws_lc_rs::hmac;
use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use serde::{Deserialize, Serialize};

use crate::bets::PlayerId;

use super::digest::{Digest, Hex};

/// Names a signing key: the first eight bytes of the SHA-256 of its public key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct KeyId(pub Hex<8>);

impl KeyId {
    fn of(public: &[u8]) -> Self {
        let mut id = [0; 8];
        id.copy_from_slice(&Digest::of(public).0[..8]);
        Self(Hex(id))
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Why bytes are no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an Ed25519 key")]
pub struct InvalidKey;

/// An Ed25519 key pair (RFC 8032).
pub struct SigningKey {
    pair: Ed25519KeyPair,
    id: KeyId,
}

impl SigningKey {
    /// A new one.
    ///
    /// # Errors
    /// The system has no random numbers.
    pub fn generate() -> Result<Self, InvalidKey> {
        Ed25519KeyPair::generate().map(Self::new).map_err(|_| InvalidKey)
    }

    /// Reads PKCS #8 (RFC 8410 §7), with or without the public key.
    ///
    /// # Errors
    /// It is something else, or the public key is not that of the private one.
    pub fn from_pkcs8(der: &[u8]) -> Result<Self, InvalidKey> {
        Ed25519KeyPair::from_pkcs8_maybe_unchecked(der).map(Self::new).map_err(|_| InvalidKey)
    }

    fn new(pair: Ed25519KeyPair) -> Self {
        let id = KeyId::of(pair.public_key().as_ref());
        Self { pair, id }
    }

    /// PKCS #8 without the public key, which is what OpenSSL writes.
    ///
    /// # Errors
    /// The key cannot be encoded.
    pub fn to_pkcs8(&self) -> Result<Vec<u8>, InvalidKey> {
        self.pair.to_pkcs8v1().map(|der| der.as_ref().to_vec()).map_err(|_| InvalidKey)
    }

    /// Its name.
    pub fn id(&self) -> KeyId {
        self.id
    }

    /// What its signatures are checked with.
    pub fn verifying_key(&self) -> VerifyingKey {
        let mut public = [0; 32];
        public.copy_from_slice(self.pair.public_key().as_ref());
        VerifyingKey::new(public)
    }

    pub(super) fn sign(&self, message: &[u8]) -> Hex<64> {
        let mut signature = [0; 64];
        signature.copy_from_slice(self.pair.sign(message).as_ref());
        Hex(signature)
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({})", self.id)
    }
}

/// The public half.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifyingKey {
    public: [u8; 32],
    id: KeyId,
}

/// What stands before the 32 bytes of an Ed25519 key in a SubjectPublicKeyInfo (RFC 8410 §4).
const SPKI_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

impl VerifyingKey {
    /// Of the 32 bytes of RFC 8032.
    pub fn new(public: [u8; 32]) -> Self {
        Self { public, id: KeyId::of(&public) }
    }

    /// Reads a SubjectPublicKeyInfo.
    ///
    /// # Errors
    /// It is of another kind of key.
    pub fn from_spki(der: &[u8]) -> Result<Self, InvalidKey> {
        let public = der.strip_prefix(&SPKI_PREFIX).and_then(|rest| rest.try_into().ok());
        public.map(Self::new).ok_or(InvalidKey)
    }

    /// As a SubjectPublicKeyInfo.
    pub fn to_spki(&self) -> Vec<u8> {
        [&SPKI_PREFIX[..], &self.public].concat()
    }

    /// Its name.
    pub fn id(&self) -> KeyId {
        self.id
    }

    pub(super) fn has_signed(&self, message: &[u8], signature: &Hex<64>) -> bool {
        UnparsedPublicKey::new(&ED25519, &self.public).verify(message, &signature.0).is_ok()
    }
}

/// How players are written.
#[derive(Clone, Default)]
pub enum PlayerNames {
    /// By their id.
    #[default]
    Plain,
    /// By HMAC-SHA-256 of their id: who has the key finds the records of a player, and nobody else knows whose they are.
    Hashed(Box<hmac::Key>),
}

impl PlayerNames {
    /// Hashed with these bytes, which have to be secret: ids are short, and guessed in no time by who has the key.
    pub fn hashed(secret: &[u8]) -> Self {
        Self::Hashed(Box::new(hmac::Key::new(hmac::HMAC_SHA256, secret)))
    }

    /// What stands in a record for this player.
    pub fn name(&self, player: &PlayerId) -> String {
        match self {
            Self::Plain => player.as_str().to_owned(),
            Self::Hashed(key) => {
                let mut tag = [0; 32];
                tag.copy_from_slice(hmac::sign(key, player.as_str().as_bytes()).as_ref());
                format!("hmac-{}", Hex(tag))
            }
        }
    }
}

impl fmt::Debug for PlayerNames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if matches!(self, Self::Plain) { "Plain" } else { "Hashed" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_written_and_read_back() {
        let key = SigningKey::generate().unwrap();
        let again = SigningKey::from_pkcs8(&key.to_pkcs8().unwrap()).unwrap();
        assert_eq!(again.verifying_key(), key.verifying_key());
        let public = VerifyingKey::from_spki(&key.verifying_key().to_spki()).unwrap();
        assert_eq!((public.id(), &public), (key.id(), &key.verifying_key()));
        assert!(public.has_signed(b"m", &key.sign(b"m")) && !public.has_signed(b"n", &key.sign(b"m")));
        assert_eq!(SigningKey::from_pkcs8(b"no key").err(), Some(InvalidKey));
        assert_eq!(VerifyingKey::from_spki(&[0; 44]), Err(InvalidKey));
    }

    #[test]
    fn debug_output_shows_no_secret() {
        let key = SigningKey::from_pkcs8(&SigningKey::generate().unwrap().to_pkcs8().unwrap()).unwrap();
        assert_eq!(format!("{key:?}"), format!("SigningKey({})", key.id()));
        assert_eq!(format!("{:?}", PlayerNames::hashed(b"secret")), "Hashed");
    }

    #[test]
    fn a_hashed_player_is_the_same_in_every_record_and_nobody_without_the_key() {
        let (ann, bob) = (PlayerId::new("ann").unwrap(), PlayerId::new("bob").unwrap());
        assert_eq!(PlayerNames::Plain.name(&ann), "ann");
        let hashed = PlayerNames::hashed(b"Jefe");
        assert_eq!((hashed.name(&ann), hashed.name(&ann).len()), (PlayerNames::hashed(b"Jefe").name(&ann), 69));
        assert_ne!(hashed.name(&ann), hashed.name(&bob));
        assert_ne!(hashed.name(&ann), PlayerNames::hashed(b"other").name(&ann));
        // RFC 4231 §4.3, whose data has spaces, which no player's name has; so by the key itself.
        let PlayerNames::Hashed(key) = hashed else { panic!("hashed") };
        let tag = hmac::sign(&key, b"what do ya want for nothing?");
        assert_eq!(tag.as_ref()[..4], [0x5b, 0xdc, 0xc1, 0x46]);
    }
}
