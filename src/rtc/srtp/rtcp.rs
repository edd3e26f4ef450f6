//! SRTCP packets (RFC 3711 §3.4, RFC 7714 §9).
//!
//! ```text
//! AES-GCM       | header, SSRC (8) | ciphertext | tag (16) | E ‖ index (4) |
//! counter mode  | header, SSRC (8) | ciphertext | E ‖ index (4) | tag (10) |
//! ```

use std::fmt;

use super::cipher::{CM_TAG_LEN, Cipher, CounterMode, GCM_TAG_LEN, Gcm, Position};
use super::keys::{MasterKey, Protocol, SessionKeys};
use super::replay::ReplayWindow;
use super::{MAX_SOURCES, SrtpError, be_u32};

/// Header and sender SSRC of the first packet, which stay clear.
const CLEAR_LEN: usize = 8;

/// The word with E flag and index.
pub(super) const INDEX_LEN: usize = 4;

/// "The E-flag indicates if the current SRTCP packet is encrypted or unencrypted" (RFC 3711 §3.4).
const ENCRYPTED: u32 = 1 << 31;

/// Reaches 192 packets back.
type RtcpWindow = ReplayWindow<4>;

/// Seals the RTCP packets of one session, always encrypted, all sender SSRCs under one index.
pub struct RtcpSealer {
    cipher: Cipher,
    next_index: u32,
}

impl RtcpSealer {
    /// A sealer with the session keys of `master`.
    pub fn new(master: &MasterKey) -> Self {
        Self::with_keys(&master.session_keys(Protocol::Rtcp))
    }

    fn with_keys(keys: &SessionKeys) -> Self {
        // RFC 3711 §3.4: the index "MUST be set to zero before the first SRTCP packet is sent".
        Self { cipher: Cipher::new(keys), next_index: 0 }
    }

    /// Seals a compound or reduced-size `packet` into `out` and returns the length written, which is the packet's and
    /// [`Profile::rtcp_overhead`](super::Profile::rtcp_overhead).
    ///
    /// Returns 0 for a packet of less than 8 bytes, and after 2³¹ packets: RFC 3711 §9.2 ends the key's life there.
    ///
    /// # Panics
    /// If `out` is too short.
    pub fn seal(&mut self, packet: &[u8], out: &mut [u8]) -> usize {
        if packet.len() < CLEAR_LEN || self.next_index >= ENCRYPTED {
            return 0;
        }
        let index = self.next_index;
        self.next_index += 1;
        let at = Position { ssrc: be_u32(packet, 4), index: u64::from(index) };
        let word = (index | ENCRYPTED).to_be_bytes();
        match &self.cipher {
            Cipher::Gcm(gcm) => seal_gcm(gcm, at, word, packet, out),
            Cipher::Cm(cm) => seal_cm(cm, at, word, packet, out),
        }
    }
}

fn seal_gcm(gcm: &Gcm, at: Position, word: [u8; INDEX_LEN], packet: &[u8], out: &mut [u8]) -> usize {
    let (clear, plaintext) = packet.split_at(CLEAR_LEN);
    let tag_end = packet.len() + GCM_TAG_LEN;
    out[..CLEAR_LEN].copy_from_slice(clear);
    gcm.seal(at, &associated_data(clear, word), plaintext, &[], &mut out[CLEAR_LEN..tag_end]);
    out[tag_end..tag_end + INDEX_LEN].copy_from_slice(&word);
    tag_end + INDEX_LEN
}

fn seal_cm(cm: &CounterMode, at: Position, word: [u8; INDEX_LEN], packet: &[u8], out: &mut [u8]) -> usize {
    let word_end = packet.len() + INDEX_LEN;
    out[..packet.len()].copy_from_slice(packet);
    cm.apply(at, &mut out[CLEAR_LEN..packet.len()]);
    out[packet.len()..word_end].copy_from_slice(&word);
    let tag = cm.tag(&out[..word_end], &[]);
    out[word_end..word_end + CM_TAG_LEN].copy_from_slice(&tag);
    word_end + CM_TAG_LEN
}

/// Of an encrypted packet: its first 8 bytes and the word with the index (RFC 7714 §9.2).
fn associated_data(clear: &[u8], word: [u8; INDEX_LEN]) -> [u8; CLEAR_LEN + INDEX_LEN] {
    let mut aad = [0; CLEAR_LEN + INDEX_LEN];
    aad[..CLEAR_LEN].copy_from_slice(clear);
    aad[CLEAR_LEN..].copy_from_slice(&word);
    aad
}

/// Opens the RTCP packets that a peer seals, from up to 16 sender SSRCs.
pub struct RtcpOpener {
    cipher: Cipher,
    sources: Vec<Source>,
}

#[derive(Debug)]
struct Source {
    ssrc: u32,
    window: RtcpWindow,
}

impl RtcpOpener {
    /// An opener with the session keys of `master`.
    pub fn new(master: &MasterKey) -> Self {
        Self::with_keys(&master.session_keys(Protocol::Rtcp))
    }

    fn with_keys(keys: &SessionKeys) -> Self {
        Self { cipher: Cipher::new(keys), sources: Vec::new() }
    }

    /// Opens a packet in place and returns the length of the clear one. Packets that are authenticated only (E flag 0)
    /// are taken too.
    ///
    /// # Errors
    /// A [`SrtpError`], after which the opener is as it was and the content of `packet` of no use.
    pub fn open(&mut self, packet: &mut [u8]) -> Result<usize, SrtpError> {
        let (tag_len, word_from_end) = match &self.cipher {
            Cipher::Gcm(_) => (GCM_TAG_LEN, INDEX_LEN),
            Cipher::Cm(_) => (CM_TAG_LEN, INDEX_LEN + CM_TAG_LEN),
        };
        if packet.len() < CLEAR_LEN + tag_len + INDEX_LEN {
            return Err(SrtpError::TooShort);
        }
        let clear_len = packet.len() - tag_len - INDEX_LEN;
        let word = be_u32(packet, packet.len() - word_from_end);
        let (ssrc, index) = (be_u32(packet, 4), u64::from(word & !ENCRYPTED));

        let known = self.sources.iter().position(|source| source.ssrc == ssrc);
        match known {
            Some(at) if !self.sources[at].window.admits(index) => return Err(SrtpError::Replay),
            None if self.sources.len() >= MAX_SOURCES => return Err(SrtpError::TooManySources),
            _ => {}
        }
        let at = Position { ssrc, index };
        match &self.cipher {
            Cipher::Gcm(gcm) => open_gcm(gcm, at, word, packet, clear_len)?,
            Cipher::Cm(cm) => open_cm(cm, at, word, packet, clear_len)?,
        }
        match known {
            Some(at) => self.sources[at].window.accept(index),
            None => self.sources.push(Source { ssrc, window: RtcpWindow::starting_at(index) }),
        }
        Ok(clear_len)
    }
}

fn open_gcm(gcm: &Gcm, at: Position, word: u32, packet: &mut [u8], clear_len: usize) -> Result<(), SrtpError> {
    let tag_end = clear_len + GCM_TAG_LEN;
    if word & ENCRYPTED != 0 {
        let (clear, body) = packet[..tag_end].split_at_mut(CLEAR_LEN);
        return gcm.open_in_place(at, &associated_data(clear, word.to_be_bytes()), body);
    }
    // RFC 7714 §9.3: unencrypted, the whole packet and the word are associated data. The word comes behind the tag, so
    // the tag is taken out and the word moved to its place.
    let mut tag = [0; GCM_TAG_LEN];
    tag.copy_from_slice(&packet[clear_len..tag_end]);
    packet[clear_len..clear_len + INDEX_LEN].copy_from_slice(&word.to_be_bytes());
    gcm.open_in_place(at, &packet[..clear_len + INDEX_LEN], &mut tag)
}

fn open_cm(cm: &CounterMode, at: Position, word: u32, packet: &mut [u8], clear_len: usize) -> Result<(), SrtpError> {
    let (authenticated, tag) = packet.split_at_mut(clear_len + INDEX_LEN);
    cm.verify(authenticated, &[], tag)?;
    if word & ENCRYPTED != 0 {
        cm.apply(at, &mut authenticated[CLEAR_LEN..clear_len]);
    }
    Ok(())
}

impl fmt::Debug for RtcpSealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RtcpSealer").field("next_index", &self.next_index).finish_non_exhaustive()
    }
}

impl fmt::Debug for RtcpOpener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RtcpOpener").field("sources", &self.sources).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{Profile, unhex};
    use super::*;

    const PROFILES: [Profile; 3] = [Profile::Aes128CmSha1_80, Profile::AeadAes128Gcm, Profile::AeadAes256Gcm];

    /// The packet of RFC 7714 §17, as its subsections have it.
    const PLAIN: &str =
        "81c8000d4d6172734e5450314e545032525450200000042a0000e9304c756e61deadbeefdeadbeefdeadbeefdeadbeefdeadbeef";

    fn pair(profile: Profile) -> (RtcpSealer, RtcpOpener) {
        let master = MasterKey::new(profile, &vec![7; profile.key_len()], &vec![9; profile.salt_len()]).unwrap();
        (RtcpSealer::new(&master), RtcpOpener::new(&master))
    }

    fn sealed(sealer: &mut RtcpSealer, packet: &[u8]) -> Vec<u8> {
        let mut out = vec![0xee; packet.len() + 20];
        let len = sealer.seal(packet, &mut out);
        out.truncate(len);
        out
    }

    fn rfc_7714_keys(profile: Profile) -> SessionKeys {
        let mut key = [0; 32];
        key.iter_mut().zip(0..profile.key_len() as u8).for_each(|(k, n)| *k = n);
        let mut salt = [0; 14];
        salt[..12].copy_from_slice(b"Quid pro quo");
        SessionKeys { profile, key, authentication: [0; 20], salt }
    }

    fn mars(profile: Profile, expected: &str) {
        let keys = rfc_7714_keys(profile);
        let mut sealer = RtcpSealer::with_keys(&keys);
        sealer.next_index = 0x5d4;
        let mut packet = sealed(&mut sealer, &unhex(PLAIN));
        assert_eq!(packet, unhex(expected));
        let len = RtcpOpener::with_keys(&keys).open(&mut packet).unwrap();
        assert_eq!(packet[..len], unhex(PLAIN));
    }

    #[test]
    fn rfc_7714_17_1_aes_128_gcm() {
        mars(
            Profile::AeadAes128Gcm,
            "81c8000d4d61727363e94885dcdab67ca727d7662f6b7e997ff5c0f76c06f32dc676a5f1730d6fda4ce09b4686303ded0bb9275b
             c84aa45896cf4d2fc5abf87245d9eade800005d4",
        );
    }

    #[test]
    fn rfc_7714_17_2_aes_256_gcm() {
        mars(
            Profile::AeadAes256Gcm,
            "81c8000d4d617273d50ae4d1f5ce5d304ba297e47d470c282c3ece5dbffe0a50a2eaa5c1110555be8415f658c61de0476f1b6fad
             1d1eb30c4446839f57ff6f6cb26ac3be800005d4",
        );
    }

    #[test]
    fn rfc_7714_17_3_authenticated_only() {
        let tagged = unhex(&format!("{PLAIN}841dd9683dd78ec92ae58790125f62b3000005d4"));
        let mut opener = RtcpOpener::with_keys(&rfc_7714_keys(Profile::AeadAes128Gcm));
        for at in 0..tagged.len() {
            let mut bad = tagged.clone();
            bad[at] ^= 1;
            assert_eq!(opener.open(&mut bad), Err(SrtpError::Authentication));
        }
        let mut packet = tagged.clone();
        let len = opener.open(&mut packet).unwrap();
        assert_eq!(packet[..len], unhex(PLAIN));
        assert_eq!(opener.open(&mut tagged.clone()), Err(SrtpError::Replay));
    }

    #[test]
    fn counter_mode_takes_packets_that_are_authenticated_only() {
        let (sealer, mut opener) = pair(Profile::Aes128CmSha1_80);
        let Cipher::Cm(cm) = &sealer.cipher else { unreachable!() };
        let mut packet = [unhex(PLAIN), vec![0, 0, 0, 77]].concat();
        packet.extend(cm.tag(&packet, &[]));
        let len = opener.open(&mut packet).unwrap();
        assert_eq!(packet[..len], unhex(PLAIN));
    }

    #[test]
    fn the_index_starts_at_zero_counts_up_and_ends() {
        let (mut sealer, _) = pair(Profile::AeadAes128Gcm);
        for index in 0..3_u32 {
            let packet = sealed(&mut sealer, &unhex(PLAIN));
            assert_eq!(be_u32(&packet, packet.len() - 4), ENCRYPTED | index);
        }
        sealer.next_index = ENCRYPTED - 1;
        assert_ne!(sealed(&mut sealer, &unhex(PLAIN)).len(), 0);
        assert_eq!(sealed(&mut sealer, &unhex(PLAIN)).len(), 0);
    }

    #[test]
    fn sender_ssrcs_are_bounded() {
        let (mut sealer, mut opener) = pair(Profile::Aes128CmSha1_80);
        let packet = |ssrc: u32| [&[0x80, 201, 0, 1][..], &ssrc.to_be_bytes()].concat();
        for ssrc in 0..MAX_SOURCES as u32 {
            assert_eq!(opener.open(&mut sealed(&mut sealer, &packet(ssrc))), Ok(8));
        }
        assert_eq!(opener.open(&mut sealed(&mut sealer, &packet(99))), Err(SrtpError::TooManySources));
        assert_eq!(opener.open(&mut sealed(&mut sealer, &packet(1))), Ok(8));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn opening_undoes_sealing_once(which in 0..3_usize, packet in prop::collection::vec(any::<u8>(), 8..300)) {
            let (mut sealer, mut opener) = pair(PROFILES[which]);
            let protected = sealed(&mut sealer, &packet);
            prop_assert_eq!(protected.len(), packet.len() + PROFILES[which].rtcp_overhead());
            let mut clear = protected.clone();
            let len = opener.open(&mut clear).unwrap();
            prop_assert_eq!(&clear[..len], &packet[..]);
            prop_assert_eq!(opener.open(&mut protected.clone()), Err(SrtpError::Replay));
        }

        #[test]
        fn a_changed_byte_is_noticed_and_changes_nothing(which in 0..3_usize, at in 0..80_usize, flip in 1..=255_u8) {
            let (mut sealer, mut opener) = pair(PROFILES[which]);
            opener.open(&mut sealed(&mut sealer, &[1; 40])).unwrap();
            let good = sealed(&mut sealer, &[1; 40]);
            let before = format!("{opener:?}");
            let mut bad = good.clone();
            let at = at % bad.len();
            bad[at] ^= flip;
            prop_assert!(matches!(opener.open(&mut bad), Err(SrtpError::Authentication | SrtpError::Replay)));
            prop_assert_eq!(format!("{opener:?}"), before);
            prop_assert!(opener.open(&mut good.clone()).is_ok());
        }

        #[test]
        fn arbitrary_bytes_are_refused(which in 0..3_usize, mut packet in prop::collection::vec(any::<u8>(), 0..80)) {
            let (_, mut opener) = pair(PROFILES[which]);
            prop_assert!(opener.open(&mut packet).is_err());
            prop_assert!(opener.sources.is_empty());
        }
    }
}
