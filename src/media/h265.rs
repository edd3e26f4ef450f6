//! H.265 payloads (RFC 7798), as far as a forwarder reads them. There are never decoding order numbers: a session with
//! `sprop-max-don-diff` above 0 is not negotiated.

use super::PayloadFacts;

/// NAL unit types (ITU-T H.265 table 7-1) and payload structures (RFC 7798 §4.4).
mod nal {
    pub const LAST_VCL: u8 = 31;
    pub const FIRST_IRAP: u8 = 16;
    /// CRA. 22 and 23 are reserved.
    pub const LAST_IRAP: u8 = 21;
    pub const VPS: u8 = 32;
    pub const SPS: u8 = 33;
    pub const PPS: u8 = 34;
    pub const AUD: u8 = 35;
    pub const PREFIX_SEI: u8 = 39;
    pub const RESERVED_41: u8 = 41;
    pub const RESERVED_44: u8 = 44;
    pub const AGGREGATION: u8 = 48;
    pub const FRAGMENTATION: u8 = 49;
    pub const PACI: u8 = 50;
}

const TYPE_MASK: u8 = 0x3f;
const FU_START: u8 = 0x80;

/// Facts of a payload.
///
/// A CRA picture counts as a keyframe: the pictures that lead it and cannot be decoded by a joiner (RASL) are dropped by
/// the decoder itself when the stream begins there (ITU-T H.265 §8.1.3, NoRaslOutputFlag).
pub(super) fn facts(payload: &[u8]) -> PayloadFacts {
    // RFC 7798 §1.1.4: F 1, type 6, layer id 6, temporal id plus 1 in 3 bits.
    let &[first, second, ref body @ ..] = payload else { return PayloadFacts::default() };
    let facts = match first >> 1 & TYPE_MASK {
        nal::PACI => control(body),
        kind => structure(kind, body),
    };
    PayloadFacts { temporal_layer: (second & 7).checked_sub(1), ..facts }
}

fn structure(kind: u8, body: &[u8]) -> PayloadFacts {
    match kind {
        nal::AGGREGATION => aggregated(body),
        nal::FRAGMENTATION => fragment(body),
        // RFC 7798 §4.4.4: a PACI packet holds no other.
        nal::PACI => PayloadFacts::default(),
        kind => unit(kind, body),
    }
}

/// Aggregation packet (RFC 7798 §4.4.2): units of one picture, each after its 16-bit size.
fn aggregated(mut units: &[u8]) -> PayloadFacts {
    let mut all: Option<PayloadFacts> = None;
    while let [high, low, rest @ ..] = units {
        let size = usize::from(u16::from_be_bytes([*high, *low]));
        let Some((&[header, _, ref body @ ..], after)) = rest.split_at_checked(size) else { break };
        let facts = unit(header >> 1 & TYPE_MASK, body);
        let all = all.get_or_insert(PayloadFacts { starts_frame: facts.starts_frame, ..PayloadFacts::default() });
        all.parameter_sets |= facts.parameter_sets;
        all.keyframe |= facts.keyframe;
        units = after;
    }
    all.unwrap_or_default()
}

/// Fragmentation unit (RFC 7798 §4.4.3): `S E` and the unit's type in every fragment.
fn fragment(body: &[u8]) -> PayloadFacts {
    let [fu_header, rest @ ..] = body else { return PayloadFacts::default() };
    let kind = fu_header & TYPE_MASK;
    if fu_header & FU_START != 0 {
        return unit(kind, rest);
    }
    PayloadFacts { keyframe: is_irap(kind), ..PayloadFacts::default() }
}

/// PACI packet (RFC 7798 §4.4.4): `A 1, cType 6, PHSsize 5, F0..2, Y`, an extension of PHSsize bytes, and the payload of
/// a packet whose type is cType.
fn control(body: &[u8]) -> PayloadFacts {
    let &[first, second, ref rest @ ..] = body else { return PayloadFacts::default() };
    let extension = usize::from(u16::from_be_bytes([first, second]) >> 4 & 0x1f);
    rest.get(extension..).map_or(PayloadFacts::default(), |rest| structure(first >> 1 & TYPE_MASK, rest))
}

/// Facts of a NAL unit, `body` being what follows its header (for a fragment: the beginning of it).
fn unit(kind: u8, body: &[u8]) -> PayloadFacts {
    let starts_frame = match kind {
        // first_slice_segment_in_pic_flag leads every slice segment header.
        ..=nal::LAST_VCL => body.first().is_some_and(|byte| byte & 0x80 != 0),
        // ITU-T H.265 §7.4.2.4.4 lists what begins an access unit before its first slice segment.
        nal::VPS | nal::SPS | nal::PPS | nal::AUD | nal::PREFIX_SEI | nal::RESERVED_41..=nal::RESERVED_44 => true,
        _ => false,
    };
    PayloadFacts { starts_frame, parameter_sets: kind == nal::SPS, keyframe: is_irap(kind), ..PayloadFacts::default() }
}

fn is_irap(kind: u8) -> bool {
    (nal::FIRST_IRAP..=nal::LAST_IRAP).contains(&kind)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const IDR: u8 = 19;
    const TRAIL: u8 = 1;

    fn flags(payload: &[u8]) -> (bool, bool, bool) {
        let facts = facts(payload);
        (facts.starts_frame, facts.parameter_sets, facts.keyframe)
    }

    /// A payload of this type at temporal layer 0.
    fn of(kind: u8, body: &[u8]) -> Vec<u8> {
        [&[kind << 1, 1], body].concat()
    }

    #[test]
    fn single_units() {
        assert_eq!(flags(&of(nal::VPS, &[0x0c])), (true, false, false), "VPS");
        assert_eq!(flags(&of(nal::SPS, &[0x01])), (true, true, false), "SPS");
        assert_eq!(flags(&of(nal::PPS, &[0xc1])), (true, false, false), "PPS");
        assert_eq!(flags(&of(nal::AUD, &[0x50])), (true, false, false), "AUD");
        assert_eq!(flags(&of(nal::PREFIX_SEI, &[0x05])), (true, false, false), "SEI before");
        assert_eq!(flags(&of(40, &[0x05])), (false, false, false), "SEI behind");
        assert_eq!(flags(&of(IDR, &[0xaf])), (true, false, true), "first slice of an IDR");
        assert_eq!(flags(&of(IDR, &[0x2f])), (false, false, true), "another slice of it");
        assert_eq!(flags(&of(21, &[0xaf])), (true, false, true), "CRA");
        assert_eq!(flags(&of(22, &[0xaf])), (true, false, false), "reserved");
        assert_eq!(flags(&of(TRAIL, &[0xd0])), (true, false, false));
        assert_eq!(flags(&of(TRAIL, &[0x50])), (false, false, false));
        assert_eq!(flags(&of(38, &[0xff])), (false, false, false), "filler data");
    }

    #[test]
    fn the_temporal_layer_is_in_every_header() {
        assert_eq!(facts(&[TRAIL << 1, 3, 0x80]).temporal_layer, Some(2));
        assert_eq!(facts(&[TRAIL << 1, 0, 0x80]).temporal_layer, None, "TID 0 is forbidden");
        assert_eq!(facts(&[TRAIL << 1]), PayloadFacts::default(), "half a header");
    }

    #[test]
    fn aggregation_of_parameter_sets_and_idr() {
        let units = [0, 3, 64, 1, 9, 0, 3, 66, 1, 9, 0, 3, 68, 1, 9, 0, 3, 38, 1, 0xaf];
        assert_eq!(flags(&of(nal::AGGREGATION, &units)), (true, true, true));
        assert_eq!(flags(&of(nal::AGGREGATION, &units[..15])), (true, true, false), "without the IDR");
        assert_eq!(flags(&of(nal::AGGREGATION, &units[..4])), (false, false, false), "cut off");
        assert_eq!(flags(&of(nal::AGGREGATION, &[0, 1, 66, 0, 3, 66, 1, 9])), (false, false, false), "half a header");
    }

    #[test]
    fn fragments() {
        assert_eq!(flags(&of(nal::FRAGMENTATION, &[0x80 | IDR, 0xaf])), (true, false, true), "start");
        assert_eq!(flags(&of(nal::FRAGMENTATION, &[IDR, 0xaf])), (false, false, true), "middle");
        assert_eq!(flags(&of(nal::FRAGMENTATION, &[0x40 | IDR, 0xaf])), (false, false, true), "end");
        assert_eq!(flags(&of(nal::FRAGMENTATION, &[0x80 | TRAIL, 0xaf])), (true, false, false));
        assert_eq!(flags(&of(nal::FRAGMENTATION, &[])), (false, false, false));
    }

    #[test]
    fn control_information_is_stepped_over() {
        // cType 49 (a fragment), PHSsize 3.
        let paci = [49 << 1, 0x38, 1, 2, 3, 0x80 | IDR, 0xaf];
        assert_eq!(flags(&of(nal::PACI, &paci)), (true, false, true));
        assert_eq!(flags(&of(nal::PACI, &paci[..4])), (false, false, false), "cut off");
        assert_eq!(flags(&of(nal::PACI, &[50 << 1, 0, 0x80 | IDR])), (false, false, false), "a PACI in a PACI");
    }

    proptest! {
        #[test]
        fn no_payload_panics(payload in prop::collection::vec(any::<u8>(), 0..64),
                             kind in prop_oneof![Just(nal::AGGREGATION), Just(nal::FRAGMENTATION), Just(nal::PACI)]) {
            facts(&payload);
            facts(&of(kind, &payload));
        }
    }
}
