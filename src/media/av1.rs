//! AV1 payloads (RTP Payload Format For AV1, v1.0.0), as far as a forwarder reads them.

use super::PayloadFacts;

/// The aggregation header (§4.4): `Z Y W W N - - -`.
mod aggregation {
    /// Z: the first element continues an OBU of the packet before.
    pub const CONTINUES: u8 = 0x80;
    /// W: how many elements there are; 0 is unknown, and then each has its length before it.
    pub const COUNT_SHIFT: u8 = 4;
    /// N: the first packet of a coded video sequence.
    pub const NEW_SEQUENCE: u8 = 0x08;
}

/// OBU types (AV1 bitstream specification §6.2.2) that say where in a temporal unit a packet is.
mod obu {
    pub const SEQUENCE_HEADER: u8 = 1;
    pub const TEMPORAL_DELIMITER: u8 = 2;
    pub const FRAME_HEADER: u8 = 3;
    pub const METADATA: u8 = 5;
    pub const FRAME: u8 = 6;
}

/// `obu_extension_flag` of an OBU header.
const HAS_EXTENSION: u8 = 0x04;

/// Facts of a payload. A *frame* here is the temporal unit: the frames of all spatial layers, with one timestamp.
///
/// §4.4: "N: MUST be set to 1 if the packet is the first packet of a coded video sequence, and MUST be set to 0
/// otherwise." A coded video sequence begins with a key frame; the sequence header OBU that a decoder needs is in the
/// same packet.
pub(super) fn facts(payload: &[u8]) -> PayloadFacts {
    let [header, elements @ ..] = payload else { return PayloadFacts::default() };
    let continues = header & aggregation::CONTINUES != 0;
    let mut facts = PayloadFacts::default();
    for (n, element) in Elements::new(header >> aggregation::COUNT_SHIFT & 3, elements).enumerate() {
        if n == 0 && continues {
            continue;
        }
        let Some(unit) = Unit::read(element) else { continue };
        if n == 0 {
            facts.starts_frame = unit.may_lead();
            // "If N is equal to 1, Z must be equal to 0."
            facts.keyframe = header & aggregation::NEW_SEQUENCE != 0;
        }
        facts.parameter_sets |= unit.kind == obu::SEQUENCE_HEADER;
        if let Some((temporal, spatial)) = unit.layers.filter(|_| facts.temporal_layer.is_none()) {
            facts.temporal_layer = Some(temporal);
            facts.spatial_layer = Some(spatial);
        }
    }
    facts
}

/// The OBU elements of a packet, each an OBU or a part of one. What makes no sense ends them.
struct Elements<'a> {
    /// Those that are left; `None` until the packet ends.
    left: Option<u8>,
    rest: &'a [u8],
}

impl<'a> Elements<'a> {
    fn new(count: u8, rest: &'a [u8]) -> Self {
        Self { left: (count > 0).then_some(count), rest }
    }
}

impl<'a> Iterator for Elements<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        if self.rest.is_empty() || self.left == Some(0) {
            return None;
        }
        // §4.4: with W above 0, the last element "is not preceded by a length field".
        let (element, rest) = if self.left == Some(1) {
            (self.rest, &[][..])
        } else {
            leb128(self.rest).and_then(|(len, rest)| rest.split_at_checked(len)).unwrap_or_default()
        };
        self.rest = rest;
        self.left = self.left.map(|left| left - 1);
        (!element.is_empty() || !rest.is_empty()).then_some(element)
    }
}

/// AV1 bitstream specification §4.10.5; a length of a packet has at most two bytes, longer forms are allowed.
fn leb128(bytes: &[u8]) -> Option<(usize, &[u8])> {
    const MOST: usize = 8;
    let mut value = 0_u64;
    for (n, &byte) in bytes.iter().enumerate().take(MOST) {
        value |= u64::from(byte & 0x7f) << (7 * n);
        if byte & 0x80 == 0 {
            return Some((usize::try_from(value).ok()?, &bytes[n + 1..]));
        }
    }
    None
}

/// The header of an OBU (AV1 bitstream specification §5.3.2, §5.3.3).
struct Unit {
    kind: u8,
    /// `temporal_id` and `spatial_id`
    layers: Option<(u8, u8)>,
}

impl Unit {
    fn read(element: &[u8]) -> Option<Self> {
        let &first = element.first()?;
        let extension = if first & HAS_EXTENSION != 0 { element.get(1) } else { None };
        Some(Self { kind: first >> 3 & 15, layers: extension.map(|ids| (ids >> 5, ids >> 3 & 3)) })
    }

    /// Whether a temporal unit can begin with it. Frames of upper spatial layers come behind those of the lowest.
    fn may_lead(&self) -> bool {
        let leads = [obu::SEQUENCE_HEADER, obu::TEMPORAL_DELIMITER, obu::FRAME_HEADER, obu::METADATA, obu::FRAME];
        leads.contains(&self.kind) && self.layers.is_none_or(|(_, spatial)| spatial == 0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// OBU headers without extension and without size, as they travel in RTP.
    const SEQUENCE: [u8; 3] = [0x08, 0x00, 0x00];
    const FRAME: [u8; 3] = [0x30, 0x10, 0xaa];

    fn flags(payload: &[u8]) -> (bool, bool, bool) {
        let facts = facts(payload);
        (facts.starts_frame, facts.parameter_sets, facts.keyframe)
    }

    /// A payload with a length before every element.
    fn with_lengths(header: u8, elements: &[&[u8]]) -> Vec<u8> {
        let mut payload = vec![header];
        for element in elements {
            payload.push(element.len() as u8);
            payload.extend_from_slice(element);
        }
        payload
    }

    #[test]
    fn chromiums_key_frame() {
        // W = 2, N: the sequence header with its length, then the frame.
        let mut payload = vec![0x28, 3];
        payload.extend(SEQUENCE);
        payload.extend(FRAME);
        assert_eq!(flags(&payload), (true, true, true));
        assert_eq!(flags(&with_lengths(0x08, &[&SEQUENCE, &FRAME])), (true, true, true), "W = 0");
    }

    #[test]
    fn frames_and_their_parts() {
        let one = |header: u8, obu: &[u8]| flags(&[&[header], obu].concat());
        assert_eq!(one(0x10, &FRAME), (true, false, false));
        assert_eq!(one(0x90, &FRAME), (false, false, false), "Z: a fragment's rest, whatever it looks like");
        assert_eq!(one(0x98, &FRAME), (false, false, false), "N with Z is a contradiction");
        assert_eq!(one(0x10, &[0x20, 1]), (false, false, false), "a tile group");
        assert_eq!(one(0x10, &[0x78, 1]), (false, false, false), "padding");
        assert_eq!(one(0x10, &SEQUENCE), (true, true, false), "a repeated sequence header is no key frame");
    }

    #[test]
    fn layers_are_in_the_extension() {
        let layer = |ids: u8| facts(&[0x10, 0x34, ids, 0xaa]);
        let base = layer(0x40);
        assert_eq!((base.temporal_layer, base.spatial_layer, base.starts_frame), (Some(2), Some(0), true));
        let upper = layer(0x48);
        assert_eq!((upper.temporal_layer, upper.spatial_layer, upper.starts_frame), (Some(2), Some(1), false));
        assert_eq!(facts(&[0x10, 0x34]).temporal_layer, None, "cut off");
    }

    #[test]
    fn a_sequence_header_behind_a_fragment_counts() {
        let payload = with_lengths(0x80, &[&[0x08, 1], &SEQUENCE]);
        assert_eq!(flags(&payload), (false, true, false));
    }

    #[test]
    fn lengths_that_lie_end_the_packet() {
        assert_eq!(flags(&[0x08, 200, 0x08, 0]), (false, false, false));
        assert_eq!(flags(&[0x28, 0xff, 0xff]), (false, false, false));
        assert_eq!(flags(&[0x08]), (false, false, false));
        assert_eq!(flags(&with_lengths(0x00, &[&FRAME, &SEQUENCE])[..6]), (true, false, false));
    }

    #[test]
    fn lengths_of_several_bytes() {
        assert_eq!(leb128(&[0x80, 0x01, 7]), Some((128, &[7][..])));
        assert_eq!(leb128(&[0x83, 0x80, 0x00, 7]), Some((3, &[7][..])), "a length may be longer than it need be");
        assert_eq!(leb128(&[0x80; 9]), None);
        assert_eq!(leb128(&[]), None);
    }

    proptest! {
        #[test]
        fn elements_are_read_back(
            elements in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..300), 1..4),
            counted: bool,
        ) {
            let mut payload = Vec::new();
            for (n, element) in elements.iter().enumerate() {
                if !counted || n + 1 < elements.len() {
                    payload.extend([element.len() as u8 | 0x80, (element.len() >> 7) as u8]);
                }
                payload.extend(element);
            }
            let count = if counted { elements.len() as u8 } else { 0 };
            let read: Vec<&[u8]> = Elements::new(count, &payload).collect();
            prop_assert_eq!(read, elements);
        }

        #[test]
        fn a_new_sequence_never_begins_with_a_fragment(payload in prop::collection::vec(any::<u8>(), 0..40)) {
            prop_assert!(!(facts(&payload).keyframe && payload[0] & 0x80 != 0));
        }
    }
}
