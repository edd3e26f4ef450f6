//! Which protocol a datagram belongs to, by its first bytes (RFC 7983 §7, updated by RFC 9443 §3).

/// The protocols that share the media port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PacketKind {
    /// First byte 0–3.
    Stun,
    /// First byte 20–63; DTLS 1.3 records included.
    Dtls,
    /// First byte 128–191, second byte outside 192–223.
    Rtp,
    /// First byte 128–191, second byte 192–223 (RFC 5761 §4).
    Rtcp,
    /// Anything else, an empty datagram included: dropped.
    Unrecognised,
}

/// Sorts a datagram without looking further than its second byte.
///
/// 64–79 would be a TURN channel if it came from a TURN server in use (RFC 9443 §3), and there is none; 80–127 and
/// 192–255 would be QUIC, which has its own port; 16–19 would be ZRTP. All of them are unrecognised here.
pub fn classify(datagram: &[u8]) -> PacketKind {
    match *datagram {
        [0..=3, ..] => PacketKind::Stun,
        [20..=63, ..] => PacketKind::Dtls,
        [128..=191, 192..=223, ..] => PacketKind::Rtcp,
        [128..=191, _, ..] => PacketKind::Rtp,
        _ => PacketKind::Unrecognised,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_byte_decides() {
        for first in 0..=255u8 {
            let expected = match first {
                0..=3 => PacketKind::Stun,
                20..=63 => PacketKind::Dtls,
                128..=191 => PacketKind::Rtp,
                _ => PacketKind::Unrecognised,
            };
            assert_eq!(classify(&[first, 96, 0, 0]), expected, "first byte {first}");
        }
    }

    #[test]
    fn second_byte_tells_rtcp_from_rtp() {
        for second in 0..=255u8 {
            let expected = if (192..=223).contains(&second) { PacketKind::Rtcp } else { PacketKind::Rtp };
            assert_eq!(classify(&[0x80, second]), expected, "second byte {second}");
        }
    }

    #[test]
    fn too_short_to_tell() {
        assert_eq!(classify(&[]), PacketKind::Unrecognised);
        assert_eq!(classify(&[0x80]), PacketKind::Unrecognised);
        assert_eq!(classify(&[0]), PacketKind::Stun);
    }
}
