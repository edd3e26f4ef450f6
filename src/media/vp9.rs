//! VP9 payloads (RFC 9628), as far as a forwarder reads them.

use super::PayloadFacts;
use super::codec::Climb;

/// The flags of the descriptor's first byte (RFC 9628 §4.2).
mod flag {
    /// I: a picture id follows.
    pub const PICTURE_ID: u8 = 0x80;
    /// P: predicted from other pictures.
    pub const PREDICTED: u8 = 0x40;
    /// L: layer indices follow.
    pub const LAYERS: u8 = 0x20;
    /// F: flexible mode, references are named in each packet.
    pub const FLEXIBLE: u8 = 0x10;
    /// B: the first packet of a layer frame.
    pub const BEGINS: u8 = 0x08;
    /// E: the last packet of a frame, which is one of the layer frames of a picture.
    pub const ENDS: u8 = 0x04;
    /// V: a scalability structure follows.
    pub const STRUCTURE: u8 = 0x02;
}

/// RFC 9628 §4.2: "up to three times".
const MAX_REFERENCES: usize = 3;

/// TID has three bits.
const HIGHEST_LAYER: u8 = 7;

/// Facts of a payload. A *frame* here is the picture: the layer frames of all spatial layers, with one timestamp.
pub(super) fn facts(payload: &[u8]) -> PayloadFacts {
    read(payload).unwrap_or_default()
}

/// What `L` adds: TID, U, SID and D.
#[derive(Clone, Copy)]
struct Layers {
    temporal: u8,
    /// U: "'switch up' to a higher frame rate is possible, as subsequent higher-temporal-layer pictures will not depend on any
    /// picture before the current picture (in coding order) with temporal-layer ID value greater than TID" (RFC 9628 §4.2).
    switches_up: bool,
    spatial: u8,
    /// D: depends on the layer frame below it in the same picture.
    inter_layer: bool,
}

fn read(payload: &[u8]) -> Option<PayloadFacts> {
    let mut rest = payload;
    let flags = take(&mut rest)?;
    let has = |flag: u8| flags & flag != 0;
    if has(flag::PICTURE_ID) && take(&mut rest)? & 0x80 != 0 {
        // M: the picture id has 15 bits.
        take(&mut rest)?;
    }
    let layers = if has(flag::LAYERS) { Some(layers(&mut rest, has(flag::FLEXIBLE))?) } else { None };
    if has(flag::FLEXIBLE) && has(flag::PREDICTED) {
        references(&mut rest)?;
    }
    if has(flag::STRUCTURE) {
        structure(&mut rest)?;
    }
    let is_lowest = layers.is_none_or(|layers| layers.spatial == 0);
    // A layer frame that builds on the one below it is not the first of its picture.
    let may_lead = layers.is_none_or(|layers| layers.spatial == 0 || !layers.inter_layer);
    let &frame_header = rest.first()?;
    let begins = has(flag::BEGINS);
    let keyframe = begins && is_lowest && !has(flag::PREDICTED) && is_key_frame(frame_header);
    Some(PayloadFacts {
        starts_frame: begins && may_lead,
        parameter_sets: keyframe,
        keyframe,
        temporal_layer: layers.map(|layers| layers.temporal),
        spatial_layer: layers.map(|layers| layers.spatial),
        ends_layer_frame: has(flag::ENDS),
        climb: layers.filter(|layers| layers.switches_up).map(|layers| Climb::of(layers.temporal, HIGHEST_LAYER)),
        // A layer frame of which P is 0 lets in who has the layer below (RFC 9628 §4.2), but comes behind the packet that has
        // ended the picture for a player without it. So of pictures that are no key pictures that is not made use of.
        spatial_switch: 0,
        primary: None,
    })
}

/// Where TID, U, SID and D stand.
fn layers_at(payload: &[u8]) -> Option<usize> {
    let flags = *payload.first()?;
    let at = match flags & flag::PICTURE_ID != 0 {
        true => 2 + usize::from(payload.get(1)? >> 7),
        false => 1,
    };
    Some(at).filter(|at| flags & flag::LAYERS != 0 && *at < payload.len())
}

/// D: whether the layer frame depends on the one below it in the same picture.
pub(super) fn rests_on_lower(payload: &[u8]) -> bool {
    layers_at(payload).is_some_and(|at| payload[at] & 1 == 1)
}

/// Sets D.
pub(super) fn rest_on_lower(payload: &mut [u8]) {
    if let Some(at) = layers_at(payload) {
        payload[at] |= 1;
    }
}

fn layers(rest: &mut &[u8], flexible: bool) -> Option<Layers> {
    let indices = take(rest)?;
    if !flexible {
        // TL0PICIDX
        take(rest)?;
    }
    let switches_up = indices & 0x10 != 0;
    Some(Layers { temporal: indices >> 5, switches_up, spatial: indices >> 1 & 7, inter_layer: indices & 1 != 0 })
}

/// `P_DIFF N`, the last with N = 0.
fn references(rest: &mut &[u8]) -> Option<()> {
    for _ in 0..MAX_REFERENCES {
        if take(rest)? & 1 == 0 {
            return Some(());
        }
    }
    None
}

/// The scalability structure (RFC 9628 §4.2.1): `N_S Y G`, sizes, and the pictures of a group with their references.
fn structure(rest: &mut &[u8]) -> Option<()> {
    let head = take(rest)?;
    let spatial_layers = usize::from(head >> 5) + 1;
    if head & 0x10 != 0 {
        skip(rest, 4 * spatial_layers)?;
    }
    if head & 0x08 != 0 {
        for _ in 0..take(rest)? {
            let references = take(rest)? >> 2 & 3;
            skip(rest, usize::from(references))?;
        }
    }
    Some(())
}

/// The first bits of the uncompressed header (VP9 bitstream specification §6.2): `frame_marker` 2, the profile's low and
/// high bit, for profile 3 one reserved, `show_existing_frame`, `frame_type`. The descriptor's P is 0 also for
/// intra-only frames, which leave the decoder without its reference buffers.
fn is_key_frame(header: u8) -> bool {
    let has_reserved_bit = header & 0x30 == 0x30;
    let shown_and_type = if has_reserved_bit { header >> 1 } else { header >> 2 };
    header >> 6 == 2 && shown_and_type & 3 == 0
}

fn take(rest: &mut &[u8]) -> Option<u8> {
    let (&byte, after) = rest.split_first()?;
    *rest = after;
    Some(byte)
}

fn skip(rest: &mut &[u8], bytes: usize) -> Option<()> {
    *rest = rest.get(bytes..)?;
    Some(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Uncompressed headers of profile 0.
    const KEY: u8 = 0x82;
    const INTER: u8 = 0x86;

    #[test]
    fn plain_descriptor() {
        let key = facts(&[0x08, KEY]);
        assert!(key.starts_frame && key.keyframe && key.parameter_sets);
        assert_eq!((key.temporal_layer, key.spatial_layer), (None, None));
        let inter = facts(&[0x48, INTER]);
        assert!(inter.starts_frame && !inter.keyframe);
        let continuation = facts(&[0x00, KEY]);
        assert!(!continuation.starts_frame && !continuation.keyframe);
    }

    #[test]
    fn chromiums_key_picture() {
        // I L B V, 15-bit picture id, TID 0 U SID 0, TL0PICIDX, then N_S 0, Y, G with a group of one picture.
        let payload = [0xaa, 0x81, 0x23, 0x10, 0x05, 0x18, 0x05, 0x00, 0x02, 0xd0, 1, 0x04, 1, KEY, 0x49];
        let key = facts(&payload);
        assert!(key.starts_frame && key.keyframe);
        assert_eq!((key.temporal_layer, key.spatial_layer), (Some(0), Some(0)));
        for len in 0..payload.len() - 1 {
            assert_eq!(facts(&payload[..len]), PayloadFacts::default(), "{len} bytes");
        }
    }

    /// What stands in it looks like nothing else, so that a byte too many or too few shows.
    #[test]
    fn a_structure_is_stepped_over_whatever_it_has() {
        let sizes = |layers: usize| vec![0xff; 4 * layers];
        let group = [3, 0x00, 0x04, 0xff, 0x0c, 0xff, 0xff, 0xff];
        for layers in 1..=8 {
            let head = (layers as u8 - 1) << 5;
            for structure in [
                vec![head],
                [&[head | 0x10][..], &sizes(layers)].concat(),
                [&[head | 0x08][..], &group].concat(),
                [&[head | 0x18][..], &sizes(layers), &group].concat(),
            ] {
                let payload = [&[0x0a][..], &structure, &[KEY]].concat();
                assert!(facts(&payload).keyframe, "{structure:x?}");
                let payload = [&[0x0a][..], &structure, &[INTER, KEY]].concat();
                assert!(!facts(&payload).keyframe, "{structure:x?}");
            }
        }
    }

    #[test]
    fn a_picture_of_three_spatial_layers_is_one_frame() {
        // Flexible mode; the upper layers depend on the one below, so P is 0 for them as well.
        let layer = |indices: u8| facts(&[0xb8, 0x05, indices, KEY]);
        let (base, middle, top) = (layer(0x10), layer(0x13), layer(0x15));
        assert!(base.starts_frame && base.keyframe);
        assert!(!middle.starts_frame && !middle.keyframe, "an upper layer begins no picture");
        assert!(!top.starts_frame && !top.keyframe);
        assert_eq!([base, middle, top].map(|f| f.spatial_layer), [Some(0), Some(1), Some(2)]);
        let independent = facts(&[0xb8, 0x05, 0x12, INTER]);
        assert!(independent.starts_frame, "the layer below may have been dropped by the encoder");
    }

    /// E says where a layer frame ends, whichever of the picture's it is.
    #[test]
    fn the_end_of_a_layer_frame_is_told_from_that_of_the_picture() {
        for spatial in 0..3 {
            let ends = |bounds: u8| facts(&[0xb0 | bounds, 0x05, spatial << 1, KEY]).ends_layer_frame;
            assert_eq!([0x08, 0x00, 0x04, 0x0c].map(ends), [false, false, true, true], "B, neither, E, both");
        }
    }

    #[test]
    fn flexible_references_and_temporal_layers() {
        // I P L F B, TID 2, two references.
        let read = facts(&[0xf8, 0x05, 0x50, 0x03, 0x04, INTER]);
        assert!(read.starts_frame && !read.keyframe);
        assert_eq!(read.temporal_layer, Some(2));
        assert_eq!(facts(&[0xf8, 0x05, 0x50, 0x03, 0x05, 0x07, INTER]), PayloadFacts::default(), "four references");
    }

    #[test]
    fn a_switching_up_point_lets_in_who_has_its_layer() {
        let climb = |indices: u8| facts(&[0xa8, 0x05, indices, 0x07, INTER]).climb;
        assert_eq!(climb(0x10), Some(Climb::of(0, 7)));
        assert_eq!(climb(0x30), Some(Climb::of(1, 7)));
        assert_eq!([climb(0x00), climb(0x40)], [None; 2]);
    }

    #[test]
    fn intra_only_and_repeated_frames_are_no_join() {
        assert!(!facts(&[0x08, INTER]).keyframe, "P is 0, the frame is intra-only");
        assert!(!facts(&[0x08, 0x8a]).keyframe, "show_existing_frame");
        assert!(facts(&[0x08, 0x92]).keyframe, "profile 2");
        assert!(facts(&[0x08, 0xb0]).keyframe, "profile 3");
        assert!(!facts(&[0x08, 0xb2]).keyframe, "profile 3, inter");
        assert!(!facts(&[0x08, 0x02]).keyframe, "no frame marker");
    }

    proptest! {
        #[test]
        fn keyframes_begin_frames(payload in prop::collection::vec(any::<u8>(), 0..40)) {
            let facts = facts(&payload);
            prop_assert!(!facts.keyframe || facts.starts_frame);
            prop_assert_eq!(facts.keyframe, facts.parameter_sets);
            prop_assert!(facts.temporal_layer.is_none_or(|layer| layer < 8));
            prop_assert!(facts.spatial_layer.is_none_or(|layer| layer < 8));
        }
    }
}
