//! SRTP packets (RFC 3711 §3.1, RFC 7714 §8).

use std::fmt;

use super::cipher::{CM_TAG_LEN, Cipher, GCM_TAG_LEN, Position};
use super::keys::{MasterKey, Protocol, SessionKeys};
use super::replay::{ReplayWindow, estimate_index};
use super::{MAX_SOURCES, SrtpError, be_u32};

/// The fixed part of an RTP header (RFC 3550 §5.1).
const RTP_HEADER_LEN: usize = 12;

/// Reaches 960 packets back: a publisher that repairs losses on its media SSRC does so a round trip late.
type RtpWindow = ReplayWindow<16>;

/// Seals the RTP packets of one session, all SSRCs of it.
///
/// Has no state per packet or SSRC: the caller numbers its packets. Memory with GCM: 40 bytes here and one heap block
/// of 584 for the expanded key; with counter mode 1752 bytes on the heap, most of it HMAC states. The other three of a
/// session (RTCP sealer, both openers) hold as much again each.
pub struct RtpSealer {
    cipher: Cipher,
}

impl RtpSealer {
    /// A sealer with the session keys of `master`.
    pub fn new(master: &MasterKey) -> Self {
        Self::with_keys(&master.session_keys(Protocol::Rtp))
    }

    fn with_keys(keys: &SessionKeys) -> Self {
        Self { cipher: Cipher::new(keys) }
    }

    /// Seals a packet from text that stays as it is: the payload is read where it lies, by any number of sealers.
    ///
    /// `out[..header_len]` holds the clear header, CSRCs and extension included. What is sealed is
    /// `payload ++ trailer`, where `trailer` is RTP padding or empty. Ciphertext and tag go behind the header; what `out`
    /// held there is of no account. `roc` is the rollover counter that goes with the header's sequence number.
    /// Returns the length of the protected packet.
    ///
    /// RFC 3711 §9.1 asks that no (key, SSRC, index) serve twice; the caller sees to it.
    ///
    /// # Panics
    /// If `header_len` is below 12, or `out` shorter than header, payload, trailer and
    /// [`Profile::rtp_overhead`](super::Profile::rtp_overhead) together.
    pub fn seal(&self, roc: u32, out: &mut [u8], header_len: usize, payload: &[u8], trailer: &[u8]) -> usize {
        let clear_len = header_len + payload.len() + trailer.len();
        match &self.cipher {
            Cipher::Gcm(gcm) => {
                let sealed_len = clear_len + GCM_TAG_LEN;
                let (header, body) = out[..sealed_len].split_at_mut(header_len);
                gcm.seal(position(header, roc), header, payload, trailer, body);
                sealed_len
            }
            Cipher::Cm(_) => {
                // Counter mode has no out-of-place form here, and HMAC reads the ciphertext once more anyway.
                let body = &mut out[header_len..clear_len];
                body[..payload.len()].copy_from_slice(payload);
                body[payload.len()..].copy_from_slice(trailer);
                self.seal_in_place(roc, out, header_len, clear_len)
            }
        }
    }

    /// Seals a packet that is already whole: `packet[..clear_len]` is header, payload and padding. Returns the length
    /// of the protected packet. Otherwise as [`RtpSealer::seal`].
    ///
    /// # Panics
    /// If `header_len` is below 12 or above `clear_len`, or `packet` has no room for the tag.
    pub fn seal_in_place(&self, roc: u32, packet: &mut [u8], header_len: usize, clear_len: usize) -> usize {
        match &self.cipher {
            Cipher::Gcm(gcm) => {
                let sealed_len = clear_len + GCM_TAG_LEN;
                let (header, body) = packet[..sealed_len].split_at_mut(header_len);
                gcm.seal_in_place(position(header, roc), header, body);
                sealed_len
            }
            Cipher::Cm(cm) => {
                let sealed_len = clear_len + CM_TAG_LEN;
                let at = position(&packet[..header_len], roc);
                cm.apply(at, &mut packet[header_len..clear_len]);
                // RFC 3711 §4.2: M is the authenticated portion of the packet followed by the rollover counter.
                let tag = cm.tag(&packet[..clear_len], &roc.to_be_bytes());
                packet[clear_len..sealed_len].copy_from_slice(&tag);
                sealed_len
            }
        }
    }
}

/// Where a header stands, given the rollover counter.
fn position(header: &[u8], roc: u32) -> Position {
    Position { ssrc: be_u32(header, 8), index: u64::from(roc) << 16 | u64::from(sequence(header)) }
}

fn sequence(header: &[u8]) -> u16 {
    u16::from_be_bytes([header[2], header[3]])
}

/// A packet that was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opened {
    /// Bytes of the clear packet, from the start of the buffer.
    pub len: usize,
    /// Rollover counter and sequence number: the sequence number that never wraps.
    pub index: u64,
}

/// Opens the RTP packets that a peer seals, on up to 16 SSRCs.
///
/// A source's state is created by its first packet with a valid tag, and moved only by such. So it follows a stream
/// from wherever in the first 2¹⁶ numbers it is first heard.
pub struct RtpOpener {
    cipher: Cipher,
    sources: Vec<Source>,
}

#[derive(Debug)]
struct Source {
    ssrc: u32,
    window: RtpWindow,
}

impl RtpOpener {
    /// An opener with the session keys of `master`.
    pub fn new(master: &MasterKey) -> Self {
        Self::with_keys(&master.session_keys(Protocol::Rtp))
    }

    fn with_keys(keys: &SessionKeys) -> Self {
        Self { cipher: Cipher::new(keys), sources: Vec::new() }
    }

    /// Opens a packet in place. `header_len` counts the fixed header, the CSRCs and the extension.
    ///
    /// # Errors
    /// A [`SrtpError`], after which the opener is as it was and the content of `packet` of no use.
    pub fn open(&mut self, packet: &mut [u8], header_len: usize) -> Result<Opened, SrtpError> {
        if header_len < RTP_HEADER_LEN || packet.len() < header_len {
            return Err(SrtpError::TooShort);
        }
        let ssrc = be_u32(packet, 8);
        let known = self.sources.iter().position(|source| source.ssrc == ssrc);
        let index = match known {
            // RFC 3711 §3.3.1: the receiver begins with a rollover counter of zero.
            None if self.sources.len() < MAX_SOURCES => u64::from(sequence(packet)),
            None => return Err(SrtpError::TooManySources),
            Some(at) => {
                let window = &self.sources[at].window;
                let index = estimate_index(window.highest(), sequence(packet));
                // The replay list is checked before the costly part (RFC 3711 §3.3, step 5).
                if !window.admits(index) {
                    return Err(SrtpError::Replay);
                }
                index
            }
        };
        let len = self.decrypt(packet, header_len, Position { ssrc, index })?;
        // RFC 3711 §3.3, step 8: the counter and the replay list move only after the packet was authenticated.
        match known {
            Some(at) => self.sources[at].window.accept(index),
            None => self.sources.push(Source { ssrc, window: RtpWindow::starting_at(index) }),
        }
        Ok(Opened { len, index })
    }

    fn decrypt(&self, packet: &mut [u8], header_len: usize, at: Position) -> Result<usize, SrtpError> {
        let tag_len = match &self.cipher {
            Cipher::Gcm(_) => GCM_TAG_LEN,
            Cipher::Cm(_) => CM_TAG_LEN,
        };
        let clear_len =
            packet.len().checked_sub(tag_len).filter(|len| *len >= header_len).ok_or(SrtpError::TooShort)?;
        match &self.cipher {
            Cipher::Gcm(gcm) => {
                let (header, body) = packet.split_at_mut(header_len);
                gcm.open_in_place(at, header, body)?;
            }
            Cipher::Cm(cm) => {
                let roc = (at.index >> 16) as u32;
                let (clear, tag) = packet.split_at_mut(clear_len);
                cm.verify(clear, &roc.to_be_bytes(), tag)?;
                cm.apply(at, &mut clear[header_len..]);
            }
        }
        Ok(clear_len)
    }
}

impl fmt::Debug for RtpSealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RtpSealer").finish_non_exhaustive()
    }
}

impl fmt::Debug for RtpOpener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RtpOpener").field("sources", &self.sources).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::cipher::CounterMode;
    use super::super::{Profile, unhex};
    use super::*;

    const PROFILES: [Profile; 3] = [Profile::Aes128CmSha1_80, Profile::AeadAes128Gcm, Profile::AeadAes256Gcm];

    fn pair(profile: Profile) -> (RtpSealer, RtpOpener) {
        let master = MasterKey::new(profile, &vec![7; profile.key_len()], &vec![9; profile.salt_len()]).unwrap();
        (RtpSealer::new(&master), RtpOpener::new(&master))
    }

    fn header(ssrc: u32, sequence: u16) -> Vec<u8> {
        let mut header = vec![0x80, 96];
        header.extend(sequence.to_be_bytes());
        header.extend([0, 0, 0, 42]);
        header.extend(ssrc.to_be_bytes());
        header
    }

    fn sealed(sealer: &RtpSealer, header: &[u8], roc: u32, payload: &[u8], trailer: &[u8]) -> Vec<u8> {
        let mut out = vec![0xee; header.len() + payload.len() + trailer.len() + 16];
        out[..header.len()].copy_from_slice(header);
        let len = sealer.seal(roc, &mut out, header.len(), payload, trailer);
        out.truncate(len);
        out
    }

    fn gallia(key_len: usize, profile: Profile, expected: &str) {
        let mut key = [0; 32];
        key.iter_mut().zip(0..key_len as u8).for_each(|(k, n)| *k = n);
        let mut salt = [0; 14];
        salt[..12].copy_from_slice(b"Quid pro quo");
        let keys = SessionKeys { profile, key, authentication: [0; 20], salt };
        let header = unhex("8040f17b8041f8d35501a0b2");
        let payload = b"Gallia est omnis divisa in partes tres";

        let packet = sealed(&RtpSealer::with_keys(&keys), &header, 0, payload, &[]);
        assert_eq!(packet, unhex(expected));

        let mut packet = packet;
        let opened = RtpOpener::with_keys(&keys).open(&mut packet, 12).unwrap();
        assert_eq!(opened, Opened { len: 50, index: 0xf17b });
        assert_eq!(&packet[12..50], payload);
    }

    #[test]
    fn rfc_7714_16_1_aes_128_gcm() {
        gallia(
            16,
            Profile::AeadAes128Gcm,
            "8040f17b8041f8d35501a0b2f24de3a3fb34de6cacba861c9d7e4bcabe633bd50d294e6f42a5f47a51c7d19b36de3adf8833
             899d7f27beb16a9152cf765ee4390cce",
        );
    }

    #[test]
    fn rfc_7714_16_2_aes_256_gcm() {
        gallia(
            32,
            Profile::AeadAes256Gcm,
            "8040f17b8041f8d35501a0b232b1de78a822fe12ef9f78fa332e33aab18012389a58e2f3b50b2a0276ffae0f1ba63799b87b
             7aa3db36dfffd6b0f9bb7878d7a76c13",
        );
    }

    /// The packet that libsrtp checks itself with, from the master key of RFC 3711 B.3.
    #[test]
    fn counter_mode_reference_packet() {
        let master = MasterKey::new(
            Profile::Aes128CmSha1_80,
            &unhex("E1F97A0D3E018BE0D64FA32C06DE4139"),
            &unhex("0EC675AD498AFEEBB6960B3AABE6"),
        )
        .unwrap();
        let packet = sealed(&RtpSealer::new(&master), &unhex("800f1234decafbadcafebabe"), 0, &[0xab; 12], &[0xab; 4]);
        assert_eq!(packet, unhex("800f1234decafbadcafebabe4e55dc4ce79978d88ca4d215949d2402b78d6acc99ea179b8dbb"));
    }

    #[test]
    fn key_state_is_compact() {
        assert!(size_of::<RtpSealer>() <= 48, "{}", size_of::<RtpSealer>());
        assert!(size_of::<CounterMode>() <= 1792, "{}", size_of::<CounterMode>());
    }

    #[test]
    fn a_replay_is_refused_and_a_late_packet_is_not() {
        for profile in PROFILES {
            let (sealer, mut opener) = pair(profile);
            let packet = |sequence| sealed(&sealer, &header(1, sequence), 0, b"payload", &[]);
            for sequence in [100, 103, 101, 2000] {
                assert_eq!(opener.open(&mut packet(sequence), 12).unwrap().index, u64::from(sequence));
                assert_eq!(opener.open(&mut packet(sequence), 12), Err(SrtpError::Replay));
            }
            assert_eq!(opener.open(&mut packet(102), 12), Err(SrtpError::Replay), "too old to know");
            assert!(opener.open(&mut packet(1999), 12).is_ok());
        }
    }

    #[test]
    fn sources_are_bounded_and_only_authentic_packets_create_one() {
        let (sealer, mut opener) = pair(Profile::AeadAes128Gcm);
        for ssrc in 0..100 {
            let mut forged = sealed(&sealer, &header(ssrc, 1), 0, b"x", &[]);
            *forged.last_mut().unwrap() ^= 1;
            assert_eq!(opener.open(&mut forged, 12), Err(SrtpError::Authentication));
        }
        for ssrc in 0..MAX_SOURCES as u32 {
            assert!(opener.open(&mut sealed(&sealer, &header(ssrc, 1), 0, b"x", &[]), 12).is_ok());
        }
        let mut one_more = sealed(&sealer, &header(999, 1), 0, b"x", &[]);
        assert_eq!(opener.open(&mut one_more, 12), Err(SrtpError::TooManySources));
        assert!(opener.open(&mut sealed(&sealer, &header(3, 2), 0, b"x", &[]), 12).is_ok());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn opening_undoes_sealing(
            which in 0..3_usize,
            ssrc: u32,
            sequence: u16,
            extra in prop::collection::vec(any::<u8>(), 0..40),
            payload in prop::collection::vec(any::<u8>(), 0..1300),
            trailer in prop::collection::vec(any::<u8>(), 0..64),
        ) {
            let (sealer, mut opener) = pair(PROFILES[which]);
            let mut header = header(ssrc, sequence);
            header.extend(extra);
            let mut packet = sealed(&sealer, &header, 0, &payload, &trailer);
            prop_assert_eq!(packet.len(), header.len() + payload.len() + trailer.len() + PROFILES[which].rtp_overhead());

            let clear = [&header[..], &payload, &trailer].concat();
            let mut in_place = clear.clone();
            in_place.resize(clear.len() + 16, 0);
            let len = sealer.seal_in_place(0, &mut in_place, header.len(), clear.len());
            prop_assert_eq!(&in_place[..len], &packet[..]);

            let opened = opener.open(&mut packet, header.len()).unwrap();
            prop_assert_eq!(&packet[..opened.len], &clear[..]);
            prop_assert_eq!(opened.index, u64::from(sequence));
        }

        #[test]
        fn a_changed_byte_is_noticed_and_changes_nothing(which in 0..3_usize, at in 0..60_usize, flip in 1..=255_u8) {
            let (sealer, mut opener) = pair(PROFILES[which]);
            opener.open(&mut sealed(&sealer, &header(5, 10), 0, &[1; 30], &[]), 12).unwrap();
            let good = sealed(&sealer, &header(5, 11), 0, &[2; 30], &[]);
            let before = format!("{opener:?}");
            let mut bad = good.clone();
            let at = at % bad.len();
            bad[at] ^= flip;
            prop_assert!(matches!(opener.open(&mut bad, 12), Err(SrtpError::Authentication | SrtpError::Replay)));
            prop_assert_eq!(format!("{opener:?}"), before);
            prop_assert!(opener.open(&mut good.clone(), 12).is_ok());
        }

        #[test]
        fn arbitrary_bytes_are_refused(
            which in 0..3_usize,
            mut packet in prop::collection::vec(any::<u8>(), 0..100),
            header_len in 0..120_usize,
        ) {
            let (_, mut opener) = pair(PROFILES[which]);
            prop_assert!(opener.open(&mut packet, header_len).is_err());
            prop_assert!(opener.sources.is_empty());
        }
    }
}
