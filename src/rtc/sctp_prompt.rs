//! Asks the peer to acknowledge what we send at once.
//!
//! A receiver may hold a SACK back for 200 ms, and a sender that counts this as part of the round trip waits that much longer
//! before it sends again what was lost: 600 ms behind 80 ms of network, for the word on a bet. `rtc-sctp` reads the I bit and never
//! sets it, so it is set here on the packets that it makes.

const COMMON_HEADER_LEN: usize = 12;
const CHUNK_HEADER_LEN: usize = 4;

/// Type of a DATA chunk (RFC 9260 §3.3.1).
const DATA: u8 = 0;

/// The I bit: "The (I)mmediate bit MAY be set by the sender whenever the sender of a DATA chunk can benefit from the
/// corresponding SACK chunk being sent back without delay" (RFC 9260 §3.3.1, from RFC 7053).
const IMMEDIATE: u8 = 0x08;

/// The packet with the I bit on its DATA chunks; `None` if it has none.
pub(super) fn asking_for_sack(packet: &[u8]) -> Option<Vec<u8>> {
    let mut changed: Option<Vec<u8>> = None;
    let mut at = COMMON_HEADER_LEN;
    while let Some(&[kind, flags, high, low]) = packet.get(at..).and_then(|rest| rest.first_chunk()) {
        if kind == DATA {
            changed.get_or_insert_with(|| packet.to_vec())[at + 1] = flags | IMMEDIATE;
        }
        // §3.2: the length counts the chunk's header, and not what pads it to four bytes.
        let len = usize::from(u16::from_be_bytes([high, low])).max(CHUNK_HEADER_LEN);
        at += len.next_multiple_of(4);
    }
    if let Some(changed) = &mut changed {
        // Appendix A: over the packet with a checksum of zero, the least significant byte first.
        changed[8..12].fill(0);
        let checksum = crc32c::crc32c(changed).to_le_bytes();
        changed[8..12].copy_from_slice(&checksum);
    }
    changed
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A packet of these chunks: type, flags, bytes of value.
    fn packet(chunks: &[(u8, u8, usize)]) -> Vec<u8> {
        let mut packet = vec![0x13, 0x88, 0x13, 0x88, 1, 2, 3, 4, 0, 0, 0, 0];
        for (kind, flags, len) in chunks {
            packet.extend([*kind, *flags]);
            packet.extend((4 + *len as u16).to_be_bytes());
            packet.resize(packet.len() + len.next_multiple_of(4), 0xaa);
        }
        let checksum = crc32c::crc32c(&packet).to_le_bytes();
        packet[8..12].copy_from_slice(&checksum);
        packet
    }

    #[test]
    fn data_is_to_be_acknowledged_at_once() {
        let plain = packet(&[(3, 0, 12), (DATA, 3, 21), (DATA, 7, 16)]);
        assert_eq!(asking_for_sack(&plain), Some(packet(&[(3, 0, 12), (DATA, 0x0b, 21), (DATA, 0x0f, 16)])));
        assert_eq!(asking_for_sack(&packet(&[(3, 0, 12), (11, 0, 0)])), None, "nothing to acknowledge");
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Some(changed) = asking_for_sack(&bytes) {
                prop_assert_eq!(changed.len(), bytes.len());
            }
        }
    }
}
