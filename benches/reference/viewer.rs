//! The least that a player's SRTP needs: a key, a salt, a counter.

use std::net::SocketAddr;

use aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use clap::ValueEnum;

/// RTP header and an extension block with a transport-wide number, as the gateway's packets have it: what is authenticated and
/// what is encrypted are as long, so that AES-GCM has the same to do.
pub const HEADER_LEN: usize = FIXED_LEN + EXTENSION.len();
const FIXED_LEN: usize = 12;
/// RFC 8285 §4.2: one word of elements, one of two octets and padding.
const EXTENSION: [u8; 8] = [0xbe, 0xde, 0, 1, 0x31, 0, 0, 0];
/// Of either AEAD (RFC 7714 §14.2).
const TAG_LEN: usize = 16;

/// What a stream is sealed with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Aead {
    /// AEAD_AES_128_GCM.
    Aes128Gcm,
    /// AEAD_AES_256_GCM.
    Aes256Gcm,
}

/// One player's outgoing stream.
pub struct Viewer {
    /// Where the player is.
    pub address: SocketAddr,
    key: LessSafeKey,
    salt: [u8; 12],
    ssrc: [u8; 4],
    /// ROC and sequence number.
    next_index: u64,
}

impl Viewer {
    /// A player at `address` with a random key.
    pub fn new(address: SocketAddr, aead: Aead) -> Self {
        let algorithm = if aead == Aead::Aes128Gcm { &AES_128_GCM } else { &AES_256_GCM };
        let mut random = [0; 32 + 12 + 4];
        getrandom::fill(&mut random).expect("randomness");
        let (key, rest) = random.split_at(32);
        let (salt, ssrc) = rest.split_at(12);
        Self {
            address,
            key: LessSafeKey::new(UnboundKey::new(algorithm, &key[..algorithm.key_len()]).expect("its length")),
            salt: salt.try_into().expect("12 bytes"),
            ssrc: ssrc.try_into().expect("4 bytes"),
            next_index: 0,
        }
    }

    /// Writes the player's copy of a packet to the front of `out` and returns its length.
    pub fn seal(&mut self, payload: &[u8], out: &mut [u8]) -> usize {
        let index = self.next_index.to_be_bytes();
        self.next_index += 1;
        let sealed_len = sealed_len(payload.len());
        let (header, sealed) = out[..sealed_len].split_at_mut(HEADER_LEN);
        header[..2].copy_from_slice(&[0x90, 96]);
        header[2..4].copy_from_slice(&index[6..]);
        header[4..8].copy_from_slice(&index[..4]);
        header[8..FIXED_LEN].copy_from_slice(&self.ssrc);
        header[FIXED_LEN..].copy_from_slice(&EXTENSION);
        let (ciphertext, tag) = sealed.split_at_mut(payload.len());
        let nonce = Nonce::assume_unique_for_key(self.nonce(&index));
        self.key
            .seal_out_of_place_scatter(nonce, Aad::from(&*header), payload, ciphertext, &[], tag)
            .expect("lengths are right");
        sealed_len
    }

    /// RFC 7714 §8.1: two zero octets, SSRC, ROC, sequence number; XOR the salt.
    fn nonce(&self, index: &[u8; 8]) -> [u8; 12] {
        let mut nonce = self.salt;
        nonce[2..6].iter_mut().zip(self.ssrc).for_each(|(n, b)| *n ^= b);
        nonce[6..].iter_mut().zip(&index[2..]).for_each(|(n, b)| *n ^= b);
        nonce
    }
}

/// Length of a packet on the wire, as UDP payload.
pub const fn sealed_len(payload_len: usize) -> usize {
    HEADER_LEN + payload_len + TAG_LEN
}
