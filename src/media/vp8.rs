//! VP8 payloads (RFC 7741), as far as a forwarder reads them.

use super::PayloadFacts;
use super::codec::Climb;

/// Facts of a payload: the descriptor of RFC 7741 §4.2 and the first bit of the frame header (§4.3).
pub(super) fn facts(payload: &[u8]) -> PayloadFacts {
    read(payload).unwrap_or_default()
}

fn read(payload: &[u8]) -> Option<PayloadFacts> {
    let (layer, first, rest) = descriptor(payload)?;
    let (starts_partition, partition) = (first & 0x10 != 0, first & 0x07);
    let &frame_header = rest.first()?;
    let starts_frame = starts_partition && partition == 0;
    // RFC 7741 §4.3: the inverse key frame flag "P" is 0 for a key frame.
    let keyframe = starts_frame && frame_header & 0x01 == 0;
    let (temporal_layer, climb) = (layer.map(|layer| layer.id), layer.and_then(Layer::climb));
    Some(PayloadFacts {
        starts_frame,
        parameter_sets: keyframe,
        keyframe,
        temporal_layer,
        climb,
        ..PayloadFacts::default()
    })
}

/// The first bytes of a key frame, if the payload begins with one: RFC 6386 §9.1 puts the picture's size there.
pub(super) fn keyframe(payload: &[u8]) -> Option<&[u8]> {
    let (_, _, frame) = descriptor(payload).filter(|_| facts(payload).keyframe)?;
    Some(frame)
}

/// TID and Y of a descriptor.
#[derive(Clone, Copy)]
struct Layer {
    id: u8,
    is_sync: bool,
}

impl Layer {
    /// Y (RFC 7741 §4.2) is set where a frame depends on nothing but the frame of the base layer that has its TL0PICIDX.
    ///
    /// There may have been a frame of a layer between these two, on which others rest: so this is for who has the layer below.
    /// What Y says of the base layer itself is not believed.
    fn climb(self) -> Option<Climb> {
        let needs = self.id.checked_sub(1).filter(|_| self.is_sync)?;
        Some(Climb::of(needs, self.id))
    }
}

/// The temporal layer, the descriptor's first byte, and what follows the descriptor.
fn descriptor(payload: &[u8]) -> Option<(Option<Layer>, u8, &[u8])> {
    let (&first, mut rest) = payload.split_first()?;
    let temporal_layer = if first & 0x80 != 0 { extension(&mut rest)? } else { None };
    Some((temporal_layer, first, rest))
}

/// Steps over the descriptor's extension, `I L T K` and what they announce; the temporal layer where T says so.
fn extension(rest: &mut &[u8]) -> Option<Option<Layer>> {
    let present = take(rest)?;
    if present & 0x80 != 0 && take(rest)? & 0x80 != 0 {
        // M: the picture id has 15 bits.
        take(rest)?;
    }
    if present & 0x40 != 0 {
        take(rest)?;
    }
    if present & 0x30 == 0 {
        return Some(None);
    }
    let layer = take(rest)?;
    Some((present & 0x20 != 0).then_some(Layer { id: layer >> 6, is_sync: layer & 0x20 != 0 }))
}

/// The numbers of a descriptor that count pictures (RFC 7741 §4.2): a receiver with temporal layers waits for what they say is
/// missing, so they have to go on when the source is another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Vp8Numbers {
    /// PictureID, of 7 or 15 bits.
    pub picture_id: Option<u16>,
    /// TL0PICIDX.
    pub tl0_picture_index: Option<u8>,
}

impl Vp8Numbers {
    /// Those of a payload.
    pub fn of(payload: &[u8]) -> Self {
        let at = Places::of(payload);
        Self {
            picture_id: at.picture_id.map(|(at, long)| read_picture_id(payload, at, long)),
            tl0_picture_index: at.tl0_picture_index.map(|at| payload[at]),
        }
    }

    /// Adds `offset` to those of a payload, each in the bits that it has.
    pub fn advance(payload: &mut [u8], offset: &Vp8Numbers) {
        let at = Places::of(payload);
        if let (Some((at, long)), Some(offset)) = (at.picture_id, offset.picture_id) {
            let moved = read_picture_id(payload, at, long).wrapping_add(offset);
            if long {
                payload[at..at + 2].copy_from_slice(&(moved | 0x8000).to_be_bytes());
            } else {
                payload[at] = moved as u8 & 0x7f;
            }
        }
        if let (Some(at), Some(offset)) = (at.tl0_picture_index, offset.tl0_picture_index) {
            payload[at] = payload[at].wrapping_add(offset);
        }
    }
}

fn read_picture_id(payload: &[u8], at: usize, long: bool) -> u16 {
    if long { u16::from_be_bytes([payload[at] & 0x7f, payload[at + 1]]) } else { payload[at].into() }
}

/// Where the numbers stand in a payload.
#[derive(Clone, Copy, Debug, Default)]
struct Places {
    /// And whether it has 15 bits.
    picture_id: Option<(usize, bool)>,
    tl0_picture_index: Option<usize>,
}

impl Places {
    fn of(payload: &[u8]) -> Self {
        let mut places = Self::default();
        let &[first, present, ..] = payload else { return places };
        if first & 0x80 == 0 {
            return places;
        }
        let mut at = 2;
        if present & 0x80 != 0 {
            let Some(id) = payload.get(at) else { return places };
            let long = id & 0x80 != 0;
            let len = 1 + usize::from(long);
            if payload.len() < at + len {
                return places;
            }
            places.picture_id = Some((at, long));
            at += len;
        }
        if present & 0x40 != 0 && payload.len() > at {
            places.tl0_picture_index = Some(at);
        }
        places
    }
}

fn take(rest: &mut &[u8]) -> Option<u8> {
    let (&byte, after) = rest.split_first()?;
    *rest = after;
    Some(byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_descriptor() {
        let key = facts(&[0x10, 0x50, 0x01]);
        assert!(key.starts_frame && key.keyframe && key.parameter_sets);
        let inter = facts(&[0x10, 0x51, 0x01]);
        assert!(inter.starts_frame && !inter.keyframe);
        let continuation = facts(&[0x00, 0x50, 0x01]);
        assert!(!continuation.starts_frame && !continuation.keyframe, "bit 0 means nothing behind the first packet");
        let second_partition = facts(&[0x11, 0x50]);
        assert!(!second_partition.starts_frame && !second_partition.keyframe);
    }

    #[test]
    fn extended_descriptor_with_every_field() {
        let long_id = [0x90, 0xf0, 0x81, 0x23, 0x07, 0x40, 0x50];
        let read = facts(&long_id);
        assert!(read.keyframe);
        assert_eq!(read.temporal_layer, Some(1));
        let short_id = facts(&[0x90, 0xe0, 0x23, 0x07, 0x80, 0x51]);
        assert!(short_id.starts_frame && !short_id.keyframe);
        assert_eq!(short_id.temporal_layer, Some(2));
    }

    #[test]
    fn a_sync_frame_lets_in_who_has_the_layer_below() {
        let climb = |layer: u8| facts(&[0x90, 0x20, layer, 0x51]).climb;
        assert_eq!(climb(0x60), Some(Climb::of(0, 1)));
        assert_eq!(climb(0xa0), Some(Climb::of(1, 2)));
        assert_eq!([climb(0x40), climb(0x80)], [None; 2], "without Y");
        assert_eq!(climb(0x20), None, "the base layer");
        assert_eq!(facts(&[0x90, 0x10, 0x60, 0x51]).climb, None, "a key index alone");
    }

    #[test]
    fn key_index_without_layer_occupies_the_octet_but_names_no_layer() {
        let read = facts(&[0x90, 0x10, 0xc1, 0x50]);
        assert!(read.keyframe);
        assert_eq!(read.temporal_layer, None);
    }

    #[test]
    fn numbers_go_on_in_the_bits_that_they_have() {
        let numbers = |picture_id, tl0_picture_index| Vp8Numbers { picture_id, tl0_picture_index };
        let mut long = [0x90, 0xf0, 0xff, 0xfe, 0xff, 0x40, 0x50];
        assert_eq!(Vp8Numbers::of(&long), numbers(Some(0x7ffe), Some(255)));
        Vp8Numbers::advance(&mut long, &numbers(Some(3), Some(2)));
        assert_eq!(long, [0x90, 0xf0, 0x80, 0x01, 0x01, 0x40, 0x50]);
        let mut short = [0x90, 0x80, 0x7f, 0x50];
        Vp8Numbers::advance(&mut short, &numbers(Some(0x1ff), Some(9)));
        assert_eq!(short, [0x90, 0x80, 0x7e, 0x50]);
        let mut none = [0x10, 0xc0, 0x50];
        Vp8Numbers::advance(&mut none, &numbers(Some(1), Some(1)));
        assert_eq!((Vp8Numbers::of(&none), none), (Vp8Numbers::default(), [0x10, 0xc0, 0x50]));
    }

    proptest::proptest! {
        /// Of any bytes, nothing else is changed, and what was added can be taken away again.
        #[test]
        fn any_payload_is_moved_there_and_back(
            payload in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..12),
            picture_id: u16,
            tl0: u8,
        ) {
            let mut moved = payload.clone();
            let there = Vp8Numbers { picture_id: Some(picture_id), tl0_picture_index: Some(tl0) };
            let back = Vp8Numbers {
                picture_id: Some(picture_id.wrapping_neg()),
                tl0_picture_index: Some(tl0.wrapping_neg()),
            };
            Vp8Numbers::advance(&mut moved, &there);
            proptest::prop_assert_eq!(facts(&moved), facts(&payload));
            Vp8Numbers::advance(&mut moved, &back);
            proptest::prop_assert_eq!(moved, payload);
        }
    }

    #[test]
    fn a_descriptor_that_is_cut_off_says_nothing() {
        let whole = [0x90, 0xf0, 0x81, 0x23, 0x07, 0x40, 0x50];
        for len in 0..whole.len() {
            assert_eq!(facts(&whole[..len]), PayloadFacts::default(), "{len} bytes");
        }
    }
}
