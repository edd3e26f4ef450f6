//! H.264 payloads (RFC 6184), as far as a forwarder reads them.

use super::PayloadFacts;

/// NAL unit types (ITU-T H.264 table 7-1) and payload structures (RFC 6184 §5.2).
mod nal {
    pub const SLICE: u8 = 1;
    pub const PARTITION_A: u8 = 2;
    pub const IDR: u8 = 5;
    pub const SEI: u8 = 6;
    pub const SPS: u8 = 7;
    pub const PPS: u8 = 8;
    pub const AUD: u8 = 9;
    pub const FILLER: u8 = 12;
    pub const PREFIX: u8 = 14;
    pub const RESERVED_18: u8 = 18;
    pub const STAP_A: u8 = 24;
    pub const FU_A: u8 = 28;
}

const TYPE_MASK: u8 = 0x1f;
const FU_START: u8 = 0x80;

/// Facts of a payload of packetization-mode 0 or 1. Interleaved structures (mode 2) say nothing.
pub(super) fn facts(payload: &[u8]) -> PayloadFacts {
    match payload {
        [] => PayloadFacts::default(),
        [indicator, rest @ ..] => match indicator & TYPE_MASK {
            nal::STAP_A => aggregated(rest),
            nal::FU_A => fragment(rest),
            unit_type => unit(unit_type, rest),
        },
    }
}

/// STAP-A (RFC 6184 §5.7.1): units of one frame, each after its 16-bit size. The first decides whether it starts it.
fn aggregated(mut units: &[u8]) -> PayloadFacts {
    let mut all: Option<PayloadFacts> = None;
    while let [high, low, rest @ ..] = units {
        let size = usize::from(u16::from_be_bytes([*high, *low]));
        let Some((&[header, ref body @ ..], after)) = rest.split_at_checked(size) else { break };
        let facts = unit(header & TYPE_MASK, body);
        let all = all.get_or_insert(PayloadFacts { starts_frame: facts.starts_frame, ..PayloadFacts::default() });
        all.parameter_sets |= facts.parameter_sets;
        all.keyframe |= facts.keyframe;
        units = after;
    }
    all.unwrap_or_default()
}

/// FU-A (RFC 6184 §5.8): the FU header carries the unit's type in every fragment.
fn fragment(rest: &[u8]) -> PayloadFacts {
    let [fu_header, body @ ..] = rest else { return PayloadFacts::default() };
    let unit_type = fu_header & TYPE_MASK;
    if fu_header & FU_START != 0 {
        return unit(unit_type, body);
    }
    PayloadFacts { keyframe: unit_type == nal::IDR, ..PayloadFacts::default() }
}

/// Facts of a NAL unit, `body` being what follows its header (for a fragment: the beginning of it).
fn unit(unit_type: u8, body: &[u8]) -> PayloadFacts {
    let starts_frame = match unit_type {
        nal::SLICE | nal::PARTITION_A | nal::IDR => first_slice(body),
        // H.264 §7.4.1.2.3 lists what begins an access unit before its first slice. Filler data does not belong
        // there, yet some encoders lead a frame with it.
        nal::SEI | nal::SPS | nal::PPS | nal::AUD | nal::FILLER | nal::PREFIX..=nal::RESERVED_18 => true,
        _ => false,
    };
    PayloadFacts {
        starts_frame,
        parameter_sets: unit_type == nal::SPS,
        keyframe: unit_type == nal::IDR,
        ..PayloadFacts::default()
    }
}

/// `first_mb_in_slice` is 0: the slice header begins with it as ue(v), in which a leading 1 bit is 0.
fn first_slice(body: &[u8]) -> bool {
    body.first().is_some_and(|byte| byte & 0x80 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags(payload: &[u8]) -> (bool, bool, bool) {
        let facts = facts(payload);
        (facts.starts_frame, facts.parameter_sets, facts.keyframe)
    }

    #[test]
    fn single_units() {
        assert_eq!(flags(&[0x67, 0x42, 0x00, 0x1f]), (true, true, false), "SPS");
        assert_eq!(flags(&[0x68, 0xce]), (true, false, false), "PPS");
        assert_eq!(flags(&[0x65, 0x88]), (true, false, true), "first IDR slice");
        assert_eq!(flags(&[0x65, 0x08]), (false, false, true), "later IDR slice");
        assert_eq!(flags(&[0x41, 0x9a]), (true, false, false), "first slice");
        assert_eq!(flags(&[0x41, 0x1a]), (false, false, false), "later slice");
        assert_eq!(flags(&[0x09, 0xf0]), (true, false, false), "AUD");
        assert_eq!(flags(&[0x06, 0x05]), (true, false, false), "SEI");
        assert_eq!(flags(&[0x65]), (false, false, true), "IDR cut off behind its header");
    }

    #[test]
    fn stap_a_of_parameter_sets_and_idr() {
        let stap = [0x78, 0, 3, 0x67, 0x42, 0x1f, 0, 2, 0x68, 0xce, 0, 2, 0x65, 0x88];
        assert_eq!(flags(&stap), (true, true, true));
        assert_eq!(flags(&stap[..10]), (true, true, false), "without the IDR");
    }

    #[test]
    fn stap_a_led_by_a_delimiter() {
        assert_eq!(flags(&[0x78, 0, 2, 0x09, 0xf0, 0, 2, 0x67, 0x42]), (true, true, false));
    }

    #[test]
    fn stap_a_whose_sizes_lie_keeps_what_was_whole() {
        assert_eq!(flags(&[0x78, 0, 2, 0x67, 0x42, 0xff, 0xff, 0x65]), (true, true, false));
        assert_eq!(flags(&[0x78, 0, 0, 0, 2, 0x67, 0x42]), (false, false, false), "an empty unit");
        assert_eq!(flags(&[0x78, 0]), (false, false, false));
    }

    #[test]
    fn fu_a_fragments() {
        assert_eq!(flags(&[0x7c, 0x85, 0x88]), (true, false, true), "start of an IDR");
        assert_eq!(flags(&[0x7c, 0x05, 0x88]), (false, false, true), "middle");
        assert_eq!(flags(&[0x7c, 0x45, 0x88]), (false, false, true), "end");
        assert_eq!(flags(&[0x5c, 0x81, 0x9a]), (true, false, false), "start of a slice");
        assert_eq!(flags(&[0x5c, 0x41, 0x9a]), (false, false, false), "end of a slice");
        assert_eq!(flags(&[0x7c]), (false, false, false), "no FU header");
    }
}
