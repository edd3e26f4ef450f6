//! The payload of a synthetic picture: a VP8 frame to whoever looks at its headers, a stamp to our own players.
//!
//! Each packet ends with a stamp that says when it was sent and which it is, and between header and stamp is filled so that a
//! wrong, swapped or cut byte shows.

/// What one packet of a picture says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// When the frame was handed to the network: nanoseconds since 1970.
    pub sent_at: u64,
    /// Number of the frame in its stream.
    pub frame: u32,
    /// Which packet of the frame.
    pub packet: u16,
    /// How many packets the frame has.
    pub packets: u16,
}

const MAGIC: [u8; 4] = *b"tsLd";

/// Magic, time, frame, packet, packets.
const STAMP_LEN: usize = 4 + 8 + 4 + 2 + 2;

/// VP8 payload descriptor (RFC 7741 §4.2) without extensions.
const DESCRIPTOR_LEN: usize = 1;

/// Frame tag, start code, width and height of a keyframe (RFC 6386 §9.1).
const KEYFRAME_HEADER_LEN: usize = 10;

/// The shortest payload that has room for all of it.
pub const SHORTEST: usize = DESCRIPTOR_LEN + KEYFRAME_HEADER_LEN + STAMP_LEN;

const WIDTH: u16 = 1280;
const HEIGHT: u16 = 720;

/// Writes a payload over all of `payload`.
///
/// # Panics
/// If it is shorter than [`SHORTEST`].
pub fn write(payload: &mut [u8], keyframe: bool, stamp: &Stamp) {
    let (body, tail) = payload.split_last_chunk_mut::<STAMP_LEN>().expect("room for the stamp");
    let head = header(keyframe, stamp.packet == 0, body);
    fill(&mut body[head..], stamp);
    tail[..4].copy_from_slice(&MAGIC);
    tail[4..12].copy_from_slice(&stamp.sent_at.to_be_bytes());
    tail[12..16].copy_from_slice(&stamp.frame.to_be_bytes());
    tail[16..18].copy_from_slice(&stamp.packet.to_be_bytes());
    tail[18..].copy_from_slice(&stamp.packets.to_be_bytes());
}

/// Writes what a VP8 packet begins with, and returns its length.
fn header(keyframe: bool, first: bool, body: &mut [u8]) -> usize {
    // S: start of a partition.
    body[0] = if first { 0x10 } else { 0 };
    if !first {
        return DESCRIPTOR_LEN;
    }
    // P is the inverse of "key", show_frame is set, the first partition's size says nothing.
    body[1..4].copy_from_slice(&[u8::from(!keyframe) | 0x10, 0, 0]);
    if !keyframe {
        return DESCRIPTOR_LEN + 3;
    }
    body[4..7].copy_from_slice(&[0x9d, 0x01, 0x2a]);
    body[7..9].copy_from_slice(&WIDTH.to_le_bytes());
    body[9..11].copy_from_slice(&HEIGHT.to_le_bytes());
    DESCRIPTOR_LEN + KEYFRAME_HEADER_LEN
}

fn fill(bytes: &mut [u8], stamp: &Stamp) {
    let mut value = seed(stamp);
    for byte in bytes {
        *byte = value;
        value = value.wrapping_add(0x9d);
    }
}

fn seed(stamp: &Stamp) -> u8 {
    (stamp.frame as u8).wrapping_mul(31).wrapping_add((stamp.packet as u8).wrapping_mul(7))
}

/// What is wrong with a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PayloadError {
    /// It is not one of ours: another publisher's, or its end is cut off.
    #[error("no stamp at the end of the payload")]
    NoStamp,
    /// It has a stamp and not the bytes that belong to it.
    #[error("the payload was changed on its way")]
    Changed,
}

/// Reads and checks what [`write()`] wrote. A server may have rewritten the payload descriptor, with extensions or without.
///
/// # Errors
/// [`PayloadError`].
pub fn read(payload: &[u8]) -> Result<Stamp, PayloadError> {
    let (body, tail) = payload.split_last_chunk::<STAMP_LEN>().ok_or(PayloadError::NoStamp)?;
    let (magic, rest) = tail.split_first_chunk::<4>().ok_or(PayloadError::NoStamp)?;
    if *magic != MAGIC {
        return Err(PayloadError::NoStamp);
    }
    let number = |range: std::ops::Range<usize>| rest[range].iter().fold(0_u64, |n, byte| n << 8 | u64::from(*byte));
    let stamp = Stamp {
        sent_at: number(0..8),
        frame: number(8..12) as u32,
        packet: number(12..14) as u16,
        packets: number(14..16) as u16,
    };
    let mut value = seed(&stamp);
    let head = filled_from(body, stamp.packet == 0).ok_or(PayloadError::Changed)?;
    for byte in &body[head..] {
        if *byte != value {
            return Err(PayloadError::Changed);
        }
        value = value.wrapping_add(0x9d);
    }
    Ok(stamp)
}

/// Where the filling begins (RFC 7741 §4.2, RFC 6386 §9.1).
fn filled_from(body: &[u8], first: bool) -> Option<usize> {
    let descriptor = *body.first()?;
    let mut at = DESCRIPTOR_LEN;
    if descriptor & 0x80 != 0 {
        let extensions = *body.get(at)?;
        at += 1;
        if extensions & 0x80 != 0 {
            at += if body.get(at)? & 0x80 != 0 { 2 } else { 1 };
        }
        at += usize::from(extensions & 0x40 != 0) + usize::from(extensions & 0x30 != 0);
    }
    if first {
        let keyframe = body.get(at)? & 1 == 0;
        at += if keyframe { KEYFRAME_HEADER_LEN } else { 3 };
    }
    (at <= body.len()).then_some(at)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tableside::media::{Codec, facts};

    use super::*;

    fn stamp(packet: u16) -> Stamp {
        Stamp { sent_at: 1_700_000_000_123_456_789, frame: 77, packet, packets: 9 }
    }

    #[test]
    fn a_gateway_sees_vp8() {
        for (keyframe, packet) in [(true, 0), (true, 1), (false, 0), (false, 8)] {
            let mut payload = [0; 1150];
            write(&mut payload, keyframe, &stamp(packet));
            let facts = facts(Codec::Vp8, &payload);
            assert_eq!((facts.starts_frame, facts.keyframe), (packet == 0, keyframe && packet == 0), "packet {packet}");
        }
    }

    #[test]
    fn a_descriptor_with_extensions_changes_nothing() {
        let mut payload = [0; 200];
        write(&mut payload, true, &stamp(0));
        let longer = [&[0x90, 0xf0, 0x81, 0x02, 0x07, 0x20][..], &payload[1..]].concat();
        assert_eq!(read(&longer), Ok(stamp(0)));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            len in SHORTEST..1300, keyframe: bool, sent_at: u64, frame: u32, packet in 0_u16..40, packets in 1_u16..40,
        ) {
            let stamp = Stamp { sent_at, frame, packet, packets };
            let mut payload = vec![0; len];
            write(&mut payload, keyframe, &stamp);
            prop_assert_eq!(read(&payload), Ok(stamp));
        }

        #[test]
        fn a_changed_byte_of_the_filling_is_seen(at in 11_usize..180, change in 1_u8..) {
            let mut payload = [0; 200];
            write(&mut payload, true, &stamp(0));
            payload[at] ^= change;
            prop_assert_eq!(read(&payload), Err(PayloadError::Changed));
        }

        #[test]
        fn no_payload_panics(payload in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = read(&payload);
        }
    }
}
