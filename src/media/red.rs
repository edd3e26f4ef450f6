//! Redundant audio (RFC 2198): a payload that repeats what packets before it carried.

use super::PayloadFacts;

/// The newest block of a RED payload: what a receiver without RED gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PrimaryBlock {
    /// The payload type it would have alone, in the publisher's session.
    pub payload_type: u8,
    /// Where in the payload it begins; it ends with the payload.
    pub offset: u16,
}

/// What a packet carries of one that was sent before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RedundantBlock<'a> {
    /// The payload type it had.
    pub payload_type: u8,
    /// How much older it is than the packet, in ticks of its clock; 14 bits.
    pub timestamp_offset: u16,
    /// Its payload.
    pub payload: &'a [u8],
}

/// A RED payload, taken apart.
#[derive(Clone, Copy, Debug)]
pub struct RedPayload<'a> {
    payload: &'a [u8],
    /// Block headers of four bytes each, without the last, which has one byte.
    headers: &'a [u8],
    /// The primary block.
    pub primary: PrimaryBlock,
}

/// RFC 2198 §3: "F: 1 bit: First bit in header indicates whether another header block follows."
const FOLLOWED: u8 = 0x80;

impl<'a> RedPayload<'a> {
    /// Reads `payload`; `None` where its lengths do not add up, or nothing is left for the primary block.
    pub fn parse(payload: &'a [u8]) -> Option<Self> {
        let (mut at, mut redundant) = (0, 0);
        while *payload.get(at)? & FOLLOWED != 0 {
            redundant += length(payload.get(at..at + 4)?);
            at += 4;
        }
        let payload_type = payload[at];
        let offset = at + 1 + redundant;
        (offset < payload.len()).then_some(Self {
            payload,
            headers: &payload[..at],
            primary: PrimaryBlock { payload_type, offset: u16::try_from(offset).ok()? },
        })
    }

    /// The redundant blocks, the newest first.
    pub fn redundant(&self) -> impl Iterator<Item = RedundantBlock<'a>> + use<'a> {
        let payload = self.payload;
        let mut end = usize::from(self.primary.offset);
        self.headers.chunks_exact(4).rev().map(move |header| {
            let begin = end - length(header);
            let block = &payload[begin..end];
            end = begin;
            RedundantBlock {
                payload_type: header[0] & !FOLLOWED,
                timestamp_offset: u16::from_be_bytes([header[1], header[2]]) >> 2,
                payload: block,
            }
        })
    }
}

/// The last ten bits of a block header.
fn length(header: &[u8]) -> usize {
    usize::from(u16::from_be_bytes([header[2], header[3]]) & 0x3ff)
}

/// Facts of a RED payload of an audio codec whose every packet is a frame. One that makes no sense says nothing.
pub fn red_facts(payload: &[u8]) -> PayloadFacts {
    let Some(red) = RedPayload::parse(payload) else { return PayloadFacts::default() };
    PayloadFacts {
        starts_frame: true,
        parameter_sets: true,
        keyframe: true,
        primary: Some(red.primary),
        ..PayloadFacts::default()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// RFC 2198 §3, with blocks as (payload type, timestamp offset, payload), the oldest first.
    fn red(blocks: &[(u8, u16, Vec<u8>)], primary: (u8, &[u8])) -> Vec<u8> {
        let mut payload = Vec::new();
        for (payload_type, offset, block) in blocks {
            let rest = u32::from(*offset) << 10 | block.len() as u32;
            payload.push(payload_type | 0x80);
            payload.extend(&rest.to_be_bytes()[1..]);
        }
        payload.push(primary.0);
        blocks.iter().for_each(|(_, _, block)| payload.extend(block));
        payload.extend(primary.1);
        payload
    }

    #[test]
    fn chromiums_packet() {
        let payload = red(&[(111, 960, vec![1, 2, 3])], (111, &[7, 8]));
        assert_eq!(payload[..5], [0xef, 0x0f, 0x00, 0x03, 111]);
        let read = RedPayload::parse(&payload).expect("well-formed");
        assert_eq!(read.primary, PrimaryBlock { payload_type: 111, offset: 8 });
        let block = RedundantBlock { payload_type: 111, timestamp_offset: 960, payload: &[1, 2, 3] };
        assert_eq!(read.redundant().collect::<Vec<_>>(), [block]);
        assert_eq!(red_facts(&payload).primary, Some(read.primary));
    }

    #[test]
    fn a_packet_without_redundancy() {
        let read = RedPayload::parse(&[111, 7, 8]).expect("well-formed");
        assert_eq!((read.primary.offset, read.redundant().count()), (1, 0));
    }

    #[test]
    fn lengths_that_do_not_add_up_say_nothing() {
        let payload = red(&[(111, 960, vec![1, 2, 3])], (111, &[7]));
        for len in 0..payload.len() {
            assert_eq!(red_facts(&payload[..len]), PayloadFacts::default(), "{len} bytes");
        }
        assert!(RedPayload::parse(&[0x80; 40]).is_none(), "headers without an end");
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            blocks in prop::collection::vec((0u8..128, 0u16..1 << 14, prop::collection::vec(any::<u8>(), 0..200)), 0..5),
            primary in (0u8..128, prop::collection::vec(any::<u8>(), 1..200)),
        ) {
            let payload = red(&blocks, (primary.0, &primary.1));
            let read = RedPayload::parse(&payload).expect("well-formed");
            prop_assert_eq!(read.primary.payload_type, primary.0);
            prop_assert_eq!(&payload[usize::from(read.primary.offset)..], primary.1);
            let mut redundant: Vec<_> =
                read.redundant().map(|b| (b.payload_type, b.timestamp_offset, b.payload.to_vec())).collect();
            redundant.reverse();
            prop_assert_eq!(redundant, blocks);
        }

        #[test]
        fn no_payload_panics(payload in prop::collection::vec(any::<u8>(), 0..64)) {
            if let Some(read) = RedPayload::parse(&payload) {
                prop_assert!(usize::from(read.primary.offset) < payload.len());
                read.redundant().for_each(drop);
            }
        }
    }
}
