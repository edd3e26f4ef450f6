//! The two ciphers under SRTP, keyed once and used per packet. The only file that names the cryptographic library: a
//! second implementation of GCM goes behind [`Gcm`].

use aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::cipher::{AES_128, AES_256, EncryptingKey, EncryptionContext, UnboundCipherKey};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::hmac;
use aws_lc_rs::iv::FixedLength;

use super::keys::SessionKeys;
use super::{Profile, SrtpError};

/// RFC 7714 §13.2: "the AEAD authentication tag length MUST be 16 octets".
pub(super) const GCM_TAG_LEN: usize = 16;

/// 80 bits of HMAC-SHA1 (RFC 3711 §5.2).
pub(super) const CM_TAG_LEN: usize = 10;

/// A keyed cipher of either kind.
///
/// GCM is what nearly every session has, so its small state lies here and the large one of counter mode on the heap.
pub(super) enum Cipher {
    Gcm(Gcm),
    Cm(Box<CounterMode>),
}

impl Cipher {
    pub(super) fn new(keys: &SessionKeys) -> Self {
        match keys.profile {
            Profile::AeadAes128Gcm | Profile::AeadAes256Gcm => Cipher::Gcm(Gcm::new(keys)),
            Profile::Aes128CmSha1_80 => Cipher::Cm(Box::new(CounterMode::new(keys))),
        }
    }
}

/// Where a packet stands under its key: the SSRC and 48 bits that are the rollover counter and sequence number of RTP
/// (RFC 3711 §3.3.1), or the index of SRTCP.
#[derive(Clone, Copy, Debug)]
pub(super) struct Position {
    pub(super) ssrc: u32,
    pub(super) index: u64,
}

impl Position {
    /// SSRC and index on 10 bytes: what both ciphers mix with their salt.
    fn to_bytes(self) -> [u8; 10] {
        let mut bytes = [0; 10];
        bytes[..4].copy_from_slice(&self.ssrc.to_be_bytes());
        bytes[4..].copy_from_slice(&self.index.to_be_bytes()[2..]);
        bytes
    }
}

/// AES-GCM with SRTP's nonces (RFC 7714 §8.1, §9.1).
pub(super) struct Gcm {
    key: LessSafeKey,
    salt: [u8; 12],
}

impl Gcm {
    fn new(keys: &SessionKeys) -> Self {
        let algorithm = if keys.profile == Profile::AeadAes256Gcm { &AES_256_GCM } else { &AES_128_GCM };
        let key =
            UnboundKey::new(algorithm, &keys.key[..keys.profile.key_len()]).expect("key has the profile's length");
        let mut salt = [0; 12];
        salt.copy_from_slice(&keys.salt[..12]);
        Self { key: LessSafeKey::new(key), salt }
    }

    /// Seals `plaintext ++ trailer` into `out`, which is as long as both and a tag.
    pub(super) fn seal(&self, at: Position, aad: &[u8], plaintext: &[u8], trailer: &[u8], out: &mut [u8]) {
        let (ciphertext, rest) = out.split_at_mut(plaintext.len());
        self.key
            .seal_out_of_place_scatter(self.nonce(at), Aad::from(aad), plaintext, ciphertext, trailer, rest)
            .expect("out is as long as plaintext, trailer and tag");
    }

    /// Seals the first bytes of `in_out` where they are; the tag goes into the last [`GCM_TAG_LEN`].
    pub(super) fn seal_in_place(&self, at: Position, aad: &[u8], in_out: &mut [u8]) {
        let (plaintext, tag) = in_out.split_at_mut(in_out.len() - GCM_TAG_LEN);
        self.key
            .seal_in_place_scatter(self.nonce(at), Aad::from(aad), plaintext, &[], tag)
            .expect("the tag has its length");
    }

    /// Opens ciphertext and tag where they are: the plaintext takes the place of the ciphertext.
    pub(super) fn open_in_place(&self, at: Position, aad: &[u8], in_out: &mut [u8]) -> Result<(), SrtpError> {
        self.key
            .open_in_place(self.nonce(at), Aad::from(aad), in_out)
            .map(|_| ())
            .map_err(|_| SrtpError::Authentication)
    }

    /// Two zero bytes, SSRC and index, mixed with the salt.
    fn nonce(&self, at: Position) -> Nonce {
        let mut nonce = self.salt;
        xor(&mut nonce[2..], &at.to_bytes());
        Nonce::assume_unique_for_key(nonce)
    }
}

/// AES in counter mode with HMAC-SHA1 (RFC 3711 §4.1.1, §4.2.1).
pub(super) struct CounterMode {
    keystream: Keystream,
    authentication: hmac::Key,
    salt: [u8; 14],
}

impl CounterMode {
    fn new(keys: &SessionKeys) -> Self {
        Self {
            keystream: keystream(&keys.key[..keys.profile.key_len()]),
            authentication: hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &keys.authentication),
            salt: keys.salt,
        }
    }

    /// Encrypts or decrypts: the two are the same.
    pub(super) fn apply(&self, at: Position, in_out: &mut [u8]) {
        // IV = (k_s * 2^16) XOR (SSRC * 2^64) XOR (i * 2^16)
        let mut counter = [0; 16];
        counter[..14].copy_from_slice(&self.salt);
        xor(&mut counter[4..14], &at.to_bytes());
        self.keystream.apply(counter, in_out);
    }

    /// The tag over `packet ++ suffix`.
    pub(super) fn tag(&self, packet: &[u8], suffix: &[u8]) -> [u8; CM_TAG_LEN] {
        let mut context = hmac::Context::with_key(&self.authentication);
        context.update(packet);
        context.update(suffix);
        let mut tag = [0; CM_TAG_LEN];
        tag.copy_from_slice(&context.sign().as_ref()[..CM_TAG_LEN]);
        tag
    }

    /// Compares `tag` in constant time with the one over `packet ++ suffix`.
    pub(super) fn verify(&self, packet: &[u8], suffix: &[u8], tag: &[u8]) -> Result<(), SrtpError> {
        verify_slices_are_equal(&self.tag(packet, suffix), tag).map_err(|_| SrtpError::Authentication)
    }
}

/// An AES key stream.
pub(super) struct Keystream(EncryptingKey);

/// The key stream of a key of 16 or 32 bytes.
pub(super) fn keystream(key: &[u8]) -> Keystream {
    let algorithm = if key.len() == 32 { &AES_256 } else { &AES_128 };
    let key = UnboundCipherKey::new(algorithm, key).and_then(EncryptingKey::ctr);
    Keystream(key.expect("key has 16 or 32 bytes"))
}

impl Keystream {
    /// Mixes `in_out` with the stream that begins at `counter`.
    pub(super) fn apply(&self, counter: [u8; 16], in_out: &mut [u8]) {
        let context = EncryptionContext::Iv128(FixedLength::from(counter));
        self.0.less_safe_encrypt(in_out, context).expect("counter mode takes any length");
    }
}

fn xor(target: &mut [u8], mask: &[u8]) {
    target.iter_mut().zip(mask).for_each(|(t, m)| *t ^= m);
}

#[cfg(test)]
mod tests {
    use super::super::unhex;
    use super::*;

    #[test]
    fn keystream_of_rfc_3711_b2() {
        let cipher = CounterMode::new(&SessionKeys {
            profile: Profile::Aes128CmSha1_80,
            key: {
                let mut key = [0; 32];
                key[..16].copy_from_slice(&unhex("2B7E151628AED2A6ABF7158809CF4F3C"));
                key
            },
            authentication: [0; 20],
            salt: unhex("F0F1F2F3F4F5F6F7F8F9FAFBFCFD").try_into().unwrap(),
        });
        let mut stream = vec![0; 0xff02 * 16];
        cipher.apply(Position { ssrc: 0, index: 0 }, &mut stream);
        let blocks = |first: usize| stream[first * 16..(first + 3) * 16].to_vec();
        assert_eq!(
            blocks(0),
            unhex("E03EAD0935C95E80E166B16DD92B4EB4 D23513162B02D0F72A43A2FE4A5F97AB 41E95B3BB0A2E8DD477901E4FCA894C0")
        );
        assert_eq!(
            blocks(0xfeff),
            unhex("EC8CDF7398607CB0F2D21675EA9EA1E4 362B7C3C6773516318A077D7FC5073AE 6A2CC3787889374FBEB4C81B17BA6C44")
        );
    }
}
