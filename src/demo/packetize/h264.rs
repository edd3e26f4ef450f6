//! RFC 6184, packetization-mode 1: single NAL unit packets, STAP-A and FU-A.

use super::{PacketizeError, Payloads, equal_pieces};
use crate::demo::clip::nal_units;

const ACCESS_UNIT_DELIMITER: u8 = 9;
const FILLER_DATA: u8 = 12;
const STAP_A: u8 = 24;
const FU_A: u8 = 28;

/// Bits of the first octet of a NAL unit (RFC 6184 §1.3).
const FORBIDDEN: u8 = 0x80;
const NRI: u8 = 0x60;
const TYPE: u8 = 0x1f;

/// Bits of the FU header (RFC 6184 §5.8).
const FU_START: u8 = 0x80;
const FU_END: u8 = 0x40;

/// Neighbours that fit in one payload travel together; a NAL unit that fits in none is fragmented.
pub(super) fn packetize(access_unit: &[u8], max_payload: usize, out: &mut Payloads) -> Result<(), PacketizeError> {
    let mut group = Vec::new();
    for nal in nal_units(access_unit).filter(|nal| is_worth_sending(nal)) {
        if stap_a_len(&group) + 2 + nal.len() > max_payload {
            flush(&mut group, out);
        }
        if nal.len() > max_payload {
            fragment(nal, max_payload, out);
        } else {
            group.push(nal);
        }
    }
    flush(&mut group, out);
    if out.is_empty() { Err(PacketizeError::Empty) } else { Ok(()) }
}

/// Delimiters and filler mean nothing where every packet says which frame it belongs to.
fn is_worth_sending(nal: &[u8]) -> bool {
    !matches!(nal[0] & TYPE, ACCESS_UNIT_DELIMITER | FILLER_DATA)
}

/// RFC 6184 §5.8. The first octet of the NAL unit is not sent: its parts are in the FU indicator and header.
fn fragment(nal: &[u8], max_payload: usize, out: &mut Payloads) {
    let indicator = nal[0] & (FORBIDDEN | NRI) | FU_A;
    let pieces = equal_pieces(&nal[1..], max_payload - 2);
    let last = pieces.len() - 1;
    for (i, piece) in pieces.enumerate() {
        // "The Start bit and End bit MUST NOT both be set to one in the same FU header": a NAL unit longer than
        // `max_payload` has at least two pieces.
        let start = if i == 0 { FU_START } else { 0 };
        let end = if i == last { FU_END } else { 0 };
        out.push(&[&[indicator, start | end | nal[0] & TYPE], piece]);
    }
}

/// RFC 6184 §5.7.1: one octet of its own, then each NAL unit behind its size in 16 bits.
fn stap_a_len(group: &[&[u8]]) -> usize {
    1 + group.iter().map(|nal| 2 + nal.len()).sum::<usize>()
}

/// Sends the group as a STAP-A, or as a single NAL unit packet (§5.6) where there is only one.
fn flush(group: &mut Vec<&[u8]>, out: &mut Payloads) {
    match group.as_slice() {
        [] => {}
        [nal] => out.push(&[nal]),
        nals => {
            // §5.7.1: F is set if any of the NAL units has it, "The value of NRI MUST be the maximum of all".
            let forbidden = nals.iter().fold(0, |bits, nal| bits | nal[0] & FORBIDDEN);
            let nri = nals.iter().map(|nal| nal[0] & NRI).max().unwrap_or(0);
            out.extend(&[forbidden | nri | STAP_A]);
            for nal in nals {
                // Fits: a payload has at most 65,535 bytes.
                out.extend(&(nal.len() as u16).to_be_bytes());
                out.extend(nal);
            }
            out.finish();
        }
    }
    group.clear();
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::demo::clip::Clip;
    use crate::demo::packetize::Packetizer;
    use crate::media::Codec;

    fn payloads(access_unit: &[u8], max_payload: usize) -> Vec<Vec<u8>> {
        let mut out = Payloads::default();
        Packetizer::new(Codec::H264, max_payload).packetize(access_unit, &mut out).unwrap();
        out.iter().map(<[u8]>::to_vec).collect()
    }

    /// The receiver's side of RFC 6184 §7.2; panics on anything that must not happen.
    fn depacketize(payloads: &[Vec<u8>]) -> Vec<Vec<u8>> {
        let mut nals = Vec::new();
        let mut fragmented: Option<Vec<u8>> = None;
        for payload in payloads {
            assert!(payload[0] & TYPE == FU_A || fragmented.is_none(), "a fragmented NAL unit never ended");
            match payload[0] & TYPE {
                STAP_A => {
                    let mut rest = &payload[1..];
                    while let [high, low, tail @ ..] = rest {
                        let (nal, tail) = tail.split_at(usize::from(u16::from_be_bytes([*high, *low])));
                        nals.push(nal.to_vec());
                        rest = tail;
                    }
                    assert!(rest.is_empty());
                }
                FU_A => {
                    assert_ne!(payload[1] & (FU_START | FU_END), FU_START | FU_END);
                    if payload[1] & FU_START != 0 {
                        assert!(fragmented.is_none());
                        fragmented = Some(vec![payload[0] & (FORBIDDEN | NRI) | payload[1] & TYPE]);
                    }
                    fragmented.as_mut().unwrap().extend(&payload[2..]);
                    if payload[1] & FU_END != 0 {
                        nals.extend(fragmented.take());
                    }
                }
                _ => nals.push(payload.clone()),
            }
        }
        assert!(fragmented.is_none());
        nals
    }

    fn annex_b(nals: &[Vec<u8>]) -> Vec<u8> {
        nals.iter().flat_map(|nal| [&[0, 0, 0, 1][..], nal].concat()).collect()
    }

    #[test]
    fn parameter_sets_share_a_payload_and_a_large_slice_is_fragmented() {
        let slice = [vec![0x65], vec![0xab; 149]].concat();
        let found = payloads(&annex_b(&[vec![0x67, 1, 2], vec![0x48, 3], slice]), 80);
        assert_eq!(found[0], [0x60 | STAP_A, 0, 3, 0x67, 1, 2, 0, 2, 0x48, 3]);
        assert_eq!(found[1][..3], [0x7c, FU_START | 5, 0xab]);
        assert_eq!(found[2][..3], [0x7c, FU_END | 5, 0xab]);
        assert_eq!((found[1].len(), found[2].len(), found.len()), (77, 76, 3));
    }

    #[test]
    fn a_nal_unit_as_long_as_the_payload_goes_alone() {
        let nal = [vec![0x41], vec![1; 79]].concat();
        assert_eq!(payloads(&annex_b(&[vec![0x67, 1], nal.clone()]), 80), [vec![0x67, 1], nal]);
    }

    #[test]
    fn delimiters_and_filler_stay_behind() {
        assert_eq!(payloads(&annex_b(&[vec![9, 0xf0], vec![0x41, 0x9a], vec![12, 0xff]]), 80), [[0x41, 0x9a]]);
        let mut out = Payloads::default();
        let only_filler = Packetizer::new(Codec::H264, 80).packetize(&annex_b(&[vec![12, 0xff]]), &mut out);
        assert_eq!(only_filler, Err(PacketizeError::Empty));
    }

    #[test]
    fn the_clip_survives() {
        for frame in Clip::h264().unwrap().video {
            let sent: Vec<Vec<u8>> = nal_units(&frame.data).map(<[u8]>::to_vec).collect();
            assert_eq!(depacketize(&payloads(&frame.data, 1150)), sent);
        }
    }

    /// No zeros, so that nothing looks like a start code; no type that RTP uses itself or that is not sent.
    fn nal() -> impl Strategy<Value = Vec<u8>> {
        let body = proptest::collection::vec(1u8.., 0..400);
        (prop_oneof![1u8..=8, Just(15)], 0u8..4, body).prop_map(|(kind, nri, mut body)| {
            body.insert(0, nri << 5 | kind);
            body
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        #[test]
        fn any_access_unit_survives(nals in proptest::collection::vec(nal(), 1..8), max_payload in 64usize..300) {
            let found = payloads(&annex_b(&nals), max_payload);
            prop_assert!(found.iter().all(|payload| payload.len() <= max_payload));
            prop_assert_eq!(depacketize(&found), nals);
        }
    }
}
