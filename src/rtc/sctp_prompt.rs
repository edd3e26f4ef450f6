//! Has acknowledgements sent at once: the peer's of what we send, and ours of reports.
//!
//! A receiver may hold a SACK back for 200 ms, and a sender that counts this as part of the round trip waits that much longer
//! before it sends again what was lost: 600 ms behind 80 ms of network, for the word on a bet. `rtc-sctp` reads the I bit and never
//! sets it, so it is set here on the packets that it makes.
//!
//! Ours would be held back by `rtc-sctp`, in the hope of a second message: a report comes alone, and the acknowledgement would cost
//! the shard another wake-up and all of the session's timers. So the bit is set on unordered data that comes as well.

use std::ops::Range;

const COMMON_HEADER_LEN: usize = 12;
const CHUNK_HEADER_LEN: usize = 4;

/// Type of a DATA chunk (RFC 9260 §3.3.1).
const DATA: u8 = 0;

/// The I bit: "The (I)mmediate bit MAY be set by the sender whenever the sender of a DATA chunk can benefit from the
/// corresponding SACK chunk being sent back without delay" (RFC 9260 §3.3.1, from RFC 7053).
const IMMEDIATE: u8 = 0x08;

/// The U bit of a DATA chunk: its message is unordered. Those of players are reports (`docs/qos.md`).
const UNORDERED: u8 = 0x04;

/// The packet with the I bit on its DATA chunks; `None` if it has none.
pub(super) fn asking_for_sack(packet: &[u8]) -> Option<Vec<u8>> {
    with_immediate(packet, |_| true)
}

/// A packet that came, with the I bit on chunks of unordered data; `None` if it has none without. What is damaged stays so.
pub(super) fn acknowledged_at_once(packet: &[u8]) -> Option<Vec<u8>> {
    let changed = with_immediate(packet, |flags| flags & (UNORDERED | IMMEDIATE) == UNORDERED)?;
    (packet[CHECKSUM] == checksum(&mut packet.to_vec())).then_some(changed)
}

/// The packet with the I bit on the DATA chunks whose flags are such; `None` if there is none.
fn with_immediate(packet: &[u8], is_such: impl Fn(u8) -> bool) -> Option<Vec<u8>> {
    let mut changed: Option<Vec<u8>> = None;
    let mut at = COMMON_HEADER_LEN;
    while let Some(&[kind, flags, high, low]) = packet.get(at..).and_then(|rest| rest.first_chunk()) {
        if kind == DATA && is_such(flags) {
            changed.get_or_insert_with(|| packet.to_vec())[at + 1] = flags | IMMEDIATE;
        }
        // §3.2: the length counts the chunk's header, and not what pads it to four bytes.
        let len = usize::from(u16::from_be_bytes([high, low])).max(CHUNK_HEADER_LEN);
        at += len.next_multiple_of(4);
    }
    if let Some(changed) = &mut changed {
        let checksum = checksum(changed);
        changed[CHECKSUM].copy_from_slice(&checksum);
    }
    changed
}

/// Where the checksum is (§3.1).
const CHECKSUM: Range<usize> = 8..12;

/// Appendix A: over the packet with a checksum of zero, the least significant byte first.
fn checksum(packet: &mut [u8]) -> [u8; 4] {
    packet[CHECKSUM].fill(0);
    crc32c::crc32c(packet).to_le_bytes()
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

    #[test]
    fn unordered_data_is_acknowledged_at_once() {
        let plain = packet(&[(3, 0, 12), (DATA, 3, 21), (DATA, 7, 16)]);
        let changed = packet(&[(3, 0, 12), (DATA, 3, 21), (DATA, 0x0f, 16)]);
        assert_eq!(acknowledged_at_once(&plain), Some(changed.clone()));
        assert_eq!(acknowledged_at_once(&changed), None, "it asks for that itself");
        assert_eq!(acknowledged_at_once(&packet(&[(DATA, 3, 21)])), None, "a bet is answered");
        let damaged = [&plain[..plain.len() - 1], &[0]].concat();
        assert_eq!(acknowledged_at_once(&damaged), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            for changed in [asking_for_sack(&bytes), acknowledged_at_once(&bytes)].into_iter().flatten() {
                prop_assert_eq!(changed.len(), bytes.len());
            }
        }
    }
}
