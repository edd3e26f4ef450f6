//! SRTP and SRTCP (RFC 3711, RFC 7714): sealing and opening, in place or out of place, without allocation.
//!
//! Enters: the keying material of a DTLS handshake, then clear packets to seal and protected packets to open. Leaves:
//! the other kind. The session keys of one direction are worked out once, in [`RtpSealer::new`] and its siblings; what
//! a packet costs after that is the cipher.
//!
//! Refuses to know: what an RTP header says beyond SSRC and sequence number, and who chooses them. **The sender of a
//! stream sees to it that one (key, SSRC, rollover counter, sequence number) is never sealed over different bytes**: in
//! GCM that would give away the authentication key (RFC 7714 §8.4).

mod cipher;
mod keys;
mod replay;
mod rtcp;
mod rtp;

use thiserror::Error;

pub use keys::{MasterKey, MasterKeys};
pub use rtcp::{RtcpOpener, RtcpSealer};
pub use rtp::{Opened, RtpOpener, RtpSealer};

/// Protection profiles of DTLS-SRTP (RFC 5764 §4.1.2, RFC 7714 §14.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Profile {
    /// 0x0001 `SRTP_AES128_CM_HMAC_SHA1_80`
    Aes128CmSha1_80,
    /// 0x0007 `SRTP_AEAD_AES_128_GCM`
    AeadAes128Gcm,
    /// 0x0008 `SRTP_AEAD_AES_256_GCM`
    AeadAes256Gcm,
}

impl Profile {
    /// Every profile, in the order of the declaration.
    pub const ALL: [Profile; 3] = [Profile::Aes128CmSha1_80, Profile::AeadAes128Gcm, Profile::AeadAes256Gcm];

    /// The profile with this number in the `use_srtp` extension, if it is one of ours.
    pub const fn from_id(id: u16) -> Option<Self> {
        match id {
            0x0001 => Some(Profile::Aes128CmSha1_80),
            0x0007 => Some(Profile::AeadAes128Gcm),
            0x0008 => Some(Profile::AeadAes256Gcm),
            _ => None,
        }
    }

    /// The number in the `use_srtp` extension.
    pub const fn id(self) -> u16 {
        match self {
            Profile::Aes128CmSha1_80 => 0x0001,
            Profile::AeadAes128Gcm => 0x0007,
            Profile::AeadAes256Gcm => 0x0008,
        }
    }

    /// Bytes of a master key, and of a session's cipher key.
    pub const fn key_len(self) -> usize {
        match self {
            Profile::Aes128CmSha1_80 | Profile::AeadAes128Gcm => 16,
            Profile::AeadAes256Gcm => 32,
        }
    }

    /// Bytes of a master salt, and of a session's salt.
    pub const fn salt_len(self) -> usize {
        match self {
            Profile::Aes128CmSha1_80 => 14,
            Profile::AeadAes128Gcm | Profile::AeadAes256Gcm => 12,
        }
    }

    /// Bytes that sealing adds to an RTP packet: the tag.
    pub const fn rtp_overhead(self) -> usize {
        match self {
            Profile::Aes128CmSha1_80 => cipher::CM_TAG_LEN,
            Profile::AeadAes128Gcm | Profile::AeadAes256Gcm => cipher::GCM_TAG_LEN,
        }
    }

    /// Bytes that sealing adds to an RTCP packet: the tag and the word with the index.
    pub const fn rtcp_overhead(self) -> usize {
        self.rtp_overhead() + rtcp::INDEX_LEN
    }

    /// Bytes to export from the handshake: two keys and two salts (RFC 5764 §4.2).
    pub const fn exporter_len(self) -> usize {
        2 * (self.key_len() + self.salt_len())
    }
}

/// Why a packet was not opened, or keying material not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SrtpError {
    /// There is no room for a header and a tag.
    #[error("packet is too short to be protected")]
    TooShort,
    /// The tag does not fit packet, key and index.
    #[error("authentication failed")]
    Authentication,
    /// The index was seen before, or is older than the replay window can tell.
    #[error("packet was received before, or is too old to know")]
    Replay,
    /// The peer uses more SSRCs than are kept.
    #[error("too many synchronisation sources")]
    TooManySources,
    /// Keying material of the wrong length.
    #[error("keying material is {actual} bytes, not {expected}")]
    KeyingMaterial {
        /// What the profile asks for, bytes.
        expected: usize,
        /// What was given, bytes.
        actual: usize,
    },
}

/// The most SSRCs whose receive state is kept for one key: three simulcast layers and one audio, with RTX for each, twice.
///
/// No source is forgotten to make room for another, since its packets could then be replayed.
const MAX_SOURCES: usize = 16;

fn be_u32(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

#[cfg(test)]
pub(in crate::rtc) fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(|b| !b.is_ascii_whitespace()).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn profiles_have_the_lengths_of_rfc_5764_and_rfc_7714() {
        let facts =
            |p: Profile| (p.id(), p.key_len(), p.salt_len(), p.exporter_len(), p.rtp_overhead(), p.rtcp_overhead());
        assert_eq!(facts(Profile::Aes128CmSha1_80), (1, 16, 14, 60, 10, 14));
        assert_eq!(facts(Profile::AeadAes128Gcm), (7, 16, 12, 56, 16, 20));
        assert_eq!(facts(Profile::AeadAes256Gcm), (8, 32, 12, 88, 16, 20));
    }

    #[test]
    fn only_our_profiles_have_a_number() {
        let known: Vec<u16> =
            (0..=u16::MAX).filter(|id| Profile::from_id(*id).is_some_and(|p| p.id() == *id)).collect();
        assert_eq!(known, [1, 7, 8]);
    }
}
