//! The parameter sets of an H.264 or H.265 stream, kept for keyframes that come without them.
//!
//! An encoder need not repeat them (RFC 6184 §8.4 calls it good practice), and some send them in the SDP alone
//! (`sprop-parameter-sets`). Those who watch from the beginning need nothing more; a joiner does.

use super::Codec;

/// The longest unit that is kept, in bytes. A usual SPS has 30, one with every scaling list about 300.
const MAX_UNIT: usize = 512;

/// Units kept: more ids than encoders use.
const MAX_UNITS: usize = 16;

/// The longest payload that is made of them, in bytes: what every path carries.
const MAX_PAYLOAD: usize = 1100;

/// The newest parameter sets of a track, and the payload that gives them to a decoder.
#[derive(Clone, Debug)]
pub struct ParameterSets {
    codec: Codec,
    /// What the SDP said, for each new source.
    described: Vec<Vec<u8>>,
    /// By type and id, so in the order in which a decoder wants them.
    units: Vec<(Key, Vec<u8>)>,
    payload: Vec<u8>,
}

/// NAL unit type and parameter set id.
type Key = (u8, u32);

impl ParameterSets {
    /// None known yet. For other codecs it stays so.
    pub fn new(codec: Codec) -> Self {
        Self { codec, described: Vec::new(), units: Vec::new(), payload: Vec::new() }
    }

    /// Another publisher: what is known of the one before is forgotten. `described` are NAL units of its SDP.
    pub fn begin(&mut self, codec: Codec, described: &[Vec<u8>]) {
        self.codec = codec;
        self.described = described.to_vec();
        self.restart();
    }

    /// Another source of the same publisher: only what the SDP says is known.
    pub fn restart(&mut self) {
        self.units.clear();
        self.payload.clear();
        let described = std::mem::take(&mut self.described);
        described.iter().for_each(|unit| self.keep(unit));
        self.described = described;
    }

    /// Keeps the parameter sets in `payload`, a clear RTP payload. Fragmented ones are not: they are too small for that.
    pub fn observe(&mut self, payload: &[u8]) {
        for unit in Units::of(self.codec, payload) {
            self.keep(unit);
        }
    }

    /// A payload of all of them, to go before a keyframe: a STAP-A (RFC 6184 §5.7.1), or an aggregation packet (RFC 7798
    /// §4.4.2). `None` until there is one of each kind, or if they do not fit into a packet.
    pub fn payload(&self) -> Option<&[u8]> {
        (!self.payload.is_empty()).then_some(&self.payload)
    }

    fn keep(&mut self, unit: &[u8]) {
        let Some(key) = key(self.codec, unit).filter(|_| unit.len() <= MAX_UNIT) else { return };
        match self.units.binary_search_by_key(&key, |(key, _)| *key) {
            Ok(at) if self.units[at].1 == unit => return,
            Ok(at) => {
                let kept = &mut self.units[at].1;
                kept.clear();
                kept.extend_from_slice(unit);
            }
            Err(at) if self.units.len() < MAX_UNITS => self.units.insert(at, (key, unit.to_vec())),
            Err(_) => return,
        }
        self.aggregate();
    }

    fn aggregate(&mut self) {
        self.payload.clear();
        let kinds: &[u8] = if self.codec == Codec::H264 { &h264::KINDS } else { &h265::KINDS };
        if !kinds.iter().all(|kind| self.units.iter().any(|((of, _), _)| of == kind)) {
            return;
        }
        self.payload.extend_from_slice(if self.codec == Codec::H264 { &h264::STAP_A } else { &h265::AGGREGATION });
        for (_, unit) in &self.units {
            self.payload.extend_from_slice(&(unit.len() as u16).to_be_bytes());
            self.payload.extend_from_slice(unit);
        }
        if self.payload.len() > MAX_PAYLOAD {
            self.payload.clear();
        }
    }
}

/// RFC 6184.
mod h264 {
    pub const SPS: u8 = 7;
    pub const PPS: u8 = 8;
    pub const KINDS: [u8; 2] = [SPS, PPS];
    /// The indicator of a STAP-A: type 24, with the importance of parameter sets (§5.7: the highest NRI of all units).
    pub const STAP_A: [u8; 1] = [0x78];
}

/// RFC 7798.
mod h265 {
    pub const VPS: u8 = 32;
    pub const SPS: u8 = 33;
    pub const PPS: u8 = 34;
    pub const KINDS: [u8; 3] = [VPS, SPS, PPS];
    /// The payload header of an aggregation packet: type 48, layer 0, temporal id 0.
    pub const AGGREGATION: [u8; 2] = [48 << 1, 1];
}

/// Which parameter set a NAL unit is; `None` for all other units.
fn key(codec: Codec, unit: &[u8]) -> Option<Key> {
    match (codec, unit) {
        (Codec::H264, [header, rest @ ..]) => match header & 0x1f {
            // After profile_idc, constraint flags and level_idc.
            h264::SPS => Some((h264::SPS, golomb(rest.get(3..)?)?)),
            h264::PPS => Some((h264::PPS, golomb(rest)?)),
            _ => None,
        },
        (Codec::H265, [header, _, rest @ ..]) => match header >> 1 & 0x3f {
            h265::VPS => Some((h265::VPS, u32::from(rest.first()? >> 4))),
            // The id stands behind profile, tier and level of each layer; one SPS is all that live encoders use.
            h265::SPS => Some((h265::SPS, 0)),
            h265::PPS => Some((h265::PPS, golomb(rest)?)),
            _ => None,
        },
        _ => None,
    }
}

/// ue(v) at the beginning of `bytes` (ITU-T H.264 §9.1), up to what 16 bits hold: ids are below 256.
fn golomb(bytes: &[u8]) -> Option<u32> {
    let word = bytes.iter().chain(&[0; 4]).take(4).fold(0, |word, byte| word << 8 | u32::from(*byte));
    let zeros = word.leading_zeros();
    (zeros < 16).then(|| (word >> (31 - 2 * zeros)) - 1)
}

/// The NAL units of a payload: one, or those of an aggregation.
struct Units<'a> {
    single: Option<&'a [u8]>,
    aggregated: &'a [u8],
}

impl<'a> Units<'a> {
    fn of(codec: Codec, payload: &'a [u8]) -> Self {
        let aggregated = match (codec, payload) {
            (Codec::H264, [header, rest @ ..]) if header & 0x1f == h264::STAP_A[0] & 0x1f => Some(rest),
            (Codec::H265, [header, _, rest @ ..]) if header & 0x7e == h265::AGGREGATION[0] => Some(rest),
            _ => None,
        };
        match aggregated {
            Some(aggregated) => Self { single: None, aggregated },
            None => Self { single: Some(payload), aggregated: &[] },
        }
    }
}

impl<'a> Iterator for Units<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        if let Some(single) = self.single.take() {
            return Some(single);
        }
        let (size, rest) = self.aggregated.split_first_chunk()?;
        let (unit, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*size)))?;
        self.aggregated = rest;
        Some(unit)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::media::facts;

    const SPS: &[u8] = &[0x67, 0x42, 0xc0, 0x1e, 0x95];
    const OTHER_SPS: &[u8] = &[0x67, 0x42, 0xc0, 0x1e, 0x96, 0x01];
    const PPS: &[u8] = &[0x68, 0xce, 0x3c];
    const SECOND_PPS: &[u8] = &[0x68, 0x5e, 0x3c];

    fn of(payloads: &[&[u8]]) -> ParameterSets {
        let mut sets = ParameterSets::new(Codec::H264);
        payloads.iter().for_each(|payload| sets.observe(payload));
        sets
    }

    fn stap_a(units: &[&[u8]]) -> Vec<u8> {
        let mut payload = vec![0x78];
        for unit in units {
            payload.extend((unit.len() as u16).to_be_bytes());
            payload.extend(*unit);
        }
        payload
    }

    #[test]
    fn sets_are_collected_one_by_one_and_from_an_aggregation() {
        let expected = stap_a(&[SPS, PPS]);
        assert_eq!(of(&[SPS, PPS]).payload(), Some(&expected[..]));
        assert_eq!(of(&[PPS, &[0x65, 0x88], SPS]).payload(), Some(&expected[..]), "in a decoder's order");
        assert_eq!(of(&[&stap_a(&[&[0x09, 0xf0], SPS, PPS, &[0x65, 0x88]])]).payload(), Some(&expected[..]));
        assert_eq!(of(&[SPS]).payload(), None, "no PPS");
        let facts = facts(Codec::H264, &expected);
        assert!(facts.parameter_sets && facts.starts_frame && !facts.keyframe);
    }

    #[test]
    fn the_newest_of_each_id_counts() {
        let sets = of(&[SPS, PPS, SECOND_PPS, OTHER_SPS]);
        assert_eq!(sets.payload(), Some(&stap_a(&[OTHER_SPS, PPS, SECOND_PPS])[..]));
    }

    #[test]
    fn another_source_has_what_its_sdp_says() {
        let mut sets = of(&[OTHER_SPS, PPS]);
        sets.begin(Codec::H264, &[]);
        assert_eq!(sets.payload(), None);
        sets.begin(Codec::H264, &[SPS.to_vec(), PPS.to_vec()]);
        sets.observe(OTHER_SPS);
        assert_eq!(sets.payload(), Some(&stap_a(&[OTHER_SPS, PPS])[..]));
        sets.restart();
        assert_eq!(sets.payload(), Some(&stap_a(&[SPS, PPS])[..]));
    }

    #[test]
    fn h265_needs_all_three() {
        let (vps, sps, pps): (&[u8], &[u8], &[u8]) = (&[64, 1, 0x0c], &[66, 1, 1], &[68, 1, 0xc1]);
        let mut sets = ParameterSets::new(Codec::H265);
        [vps, sps].iter().for_each(|unit| sets.observe(unit));
        assert_eq!(sets.payload(), None);
        sets.observe(&[&[96, 1, 0, 3][..], pps].concat());
        let expected = [&[96, 1, 0, 3][..], vps, &[0, 3], sps, &[0, 3], pps].concat();
        assert_eq!(sets.payload(), Some(&expected[..]));
        assert!(facts(Codec::H265, &expected).parameter_sets);
    }

    #[test]
    fn what_fits_into_no_packet_is_not_sent() {
        let long = |id: u8| [&[0x68, id][..], &[0xaa; MAX_UNIT - 2]].concat();
        let sets = of(&[SPS, &long(0xce), &long(0x5e), &long(0x7e)]);
        assert_eq!(sets.payload(), None);
        assert_eq!(of(&[SPS, PPS, &[PPS, &[0xaa; MAX_UNIT]].concat()]).payload(), Some(&stap_a(&[SPS, PPS])[..]));
    }

    #[test]
    fn exponential_golomb_codes() {
        assert_eq!(golomb(&[0x80]), Some(0));
        assert_eq!(golomb(&[0x40]), Some(1));
        assert_eq!(golomb(&[0x60]), Some(2));
        assert_eq!(golomb(&[0x00, 0xff, 0x80]), Some(510));
        assert_eq!(golomb(&[]), None);
        assert_eq!(golomb(&[0; 8]), None);
    }

    proptest! {
        #[test]
        fn no_payload_panics_or_piles_up(
            payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..64), 0..60),
            codec in prop_oneof![Just(Codec::H264), Just(Codec::H265), Just(Codec::Vp8)],
        ) {
            let mut sets = ParameterSets::new(codec);
            for payload in &payloads {
                sets.observe(payload);
                prop_assert!(sets.units.len() <= MAX_UNITS && sets.payload.len() <= MAX_PAYLOAD);
            }
            prop_assert!(codec != Codec::Vp8 || sets.payload().is_none());
        }
    }
}
