//! H.264 byte streams (ITU-T H.264 Annex B).

use std::ops::Range;

use bytes::Bytes;

use super::{ClipError, VideoFrame};

/// `nal_unit_type` of a coded slice of an IDR picture (H.264 table 7-1).
const IDR: u8 = 5;

/// The NAL units of a byte stream, without start codes and trailing zeros; empty ones are skipped.
pub fn nal_units(stream: &[u8]) -> impl Iterator<Item = &[u8]> {
    nal_ranges(stream).map(|range| &stream[range])
}

/// Splits a byte stream into access units. Each begins with a start code of three bytes.
///
/// Arbitrary slice order and redundant pictures (extended and plain baseline) are not recognised; the clip is
/// *constrained* baseline, which has neither.
pub(super) fn access_units(stream: &Bytes) -> Result<Vec<VideoFrame>, ClipError> {
    let mut frames = Vec::new();
    let mut current: Option<AccessUnit> = None;
    for nal in nal_ranges(stream) {
        let unit = &stream[nal.clone()];
        match current.as_mut() {
            Some(access_unit) if !(access_unit.has_slice && begins_access_unit(unit)) => access_unit.extend(nal, unit),
            _ => {
                frames.extend(current.take().map(|done| done.frame(stream)));
                let mut access_unit = AccessUnit { range: nal.start - 3..nal.end, has_slice: false, keyframe: false };
                access_unit.extend(nal, unit);
                current = Some(access_unit);
            }
        }
    }
    let last = current.ok_or(ClipError::NotA("an H.264 byte stream"))?;
    if !last.has_slice {
        return Err(ClipError::Truncated("an access unit"));
    }
    frames.push(last.frame(stream));
    Ok(frames)
}

struct AccessUnit {
    range: Range<usize>,
    has_slice: bool,
    keyframe: bool,
}

impl AccessUnit {
    fn extend(&mut self, nal: Range<usize>, unit: &[u8]) {
        self.range.end = nal.end;
        self.has_slice |= is_slice(unit);
        self.keyframe |= nal_type(unit) == IDR;
    }

    fn frame(self, stream: &Bytes) -> VideoFrame {
        VideoFrame { data: stream.slice(self.range), keyframe: self.keyframe }
    }
}

/// Whether a NAL unit that follows a slice is the first of a new access unit (H.264 §7.4.1.2.3, §7.4.1.2.4).
fn begins_access_unit(unit: &[u8]) -> bool {
    match nal_type(unit) {
        // first_mb_in_slice is the first field of the slice header, ue(v): a leading 1 is the value 0.
        1 | 2 | 5 => unit.get(1).is_some_and(|byte| byte & 0x80 != 0),
        6..=9 | 14..=18 => true,
        _ => false,
    }
}

fn is_slice(unit: &[u8]) -> bool {
    (1..=5).contains(&nal_type(unit))
}

fn nal_type(unit: &[u8]) -> u8 {
    unit[0] & 0x1f
}

/// Where the non-empty NAL units lie; each is preceded by `00 00 01`.
fn nal_ranges(stream: &[u8]) -> impl Iterator<Item = Range<usize>> + '_ {
    let mut next = after_start_code(stream, 0);
    std::iter::from_fn(move || {
        let start = next?;
        next = after_start_code(stream, start);
        let end = next.map_or(stream.len(), |after| after - 3);
        // B.1: zeros before a start code belong to no NAL unit, which never ends in one (§7.4.1).
        let len = stream[start..end].iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
        Some(start..start + len)
    })
    .filter(|range| !range.is_empty())
}

/// The index behind the first `00 00 01` at or after `from`.
fn after_start_code(stream: &[u8], from: usize) -> Option<usize> {
    let mut at = from;
    while let Some(window) = stream.get(at..at + 3) {
        match window {
            [0, 0, 1] => return Some(at + 3),
            [_, _, 2..=255] => at += 3,
            _ => at += 1,
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn split(stream: &[u8]) -> Vec<(Vec<u8>, bool)> {
        let frames = access_units(&Bytes::copy_from_slice(stream)).unwrap();
        frames.into_iter().map(|frame| (frame.data.to_vec(), frame.keyframe)).collect()
    }

    #[test]
    fn start_codes_of_three_and_four_bytes_and_trailing_zeros() {
        let stream = [0, 0, 0, 1, 0x67, 9, 0, 0, 1, 0x68, 8, 0, 0, 0, 0, 1, 0x65, 0x88, 0, 0];
        let units: Vec<&[u8]> = nal_units(&stream).collect();
        assert_eq!(units, [&[0x67, 9][..], &[0x68, 8], &[0x65, 0x88]]);
    }

    #[test]
    fn slices_of_one_picture_stay_together() {
        // IDR in two slices (first_mb 0, then not 0), a P picture, parameter sets and another IDR.
        let stream = [
            &[0, 0, 1, 0x65, 0x88][..],
            &[0, 0, 1, 0x65, 0x48],
            &[0, 0, 1, 0x41, 0x9a],
            &[0, 0, 1, 0x67, 1],
            &[0, 0, 1, 0x65, 0x88],
        ]
        .concat();
        let expected = [
            (vec![0, 0, 1, 0x65, 0x88, 0, 0, 1, 0x65, 0x48], true),
            (vec![0, 0, 1, 0x41, 0x9a], false),
            (vec![0, 0, 1, 0x67, 1, 0, 0, 1, 0x65, 0x88], true),
        ];
        assert_eq!(split(&stream), expected);
    }

    #[test]
    fn no_start_code_and_no_slice_are_errors() {
        assert_eq!(access_units(&Bytes::new()), Err(ClipError::NotA("an H.264 byte stream")));
        assert_eq!(access_units(&Bytes::from_static(b"junk")), Err(ClipError::NotA("an H.264 byte stream")));
        let only_sps = Bytes::from_static(&[0, 0, 1, 0x67, 1]);
        assert_eq!(access_units(&only_sps), Err(ClipError::Truncated("an access unit")));
    }

    /// A NAL unit that needs no emulation prevention: no zero bytes.
    fn nal() -> impl Strategy<Value = Vec<u8>> {
        proptest::collection::vec(1u8.., 1..20)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        #[test]
        fn no_stream_panics(stream in proptest::collection::vec(prop_oneof![Just(0u8), Just(1), any::<u8>()], 0..200)) {
            let _ = access_units(&Bytes::from(stream));
        }

        #[test]
        fn units_come_back(units in proptest::collection::vec((nal(), 2usize..6), 1..8)) {
            let mut stream = Vec::new();
            for (unit, zeros) in &units {
                stream.extend(std::iter::repeat_n(0, *zeros));
                stream.push(1);
                stream.extend(unit);
            }
            let found: Vec<Vec<u8>> = nal_units(&stream).map(<[u8]>::to_vec).collect();
            let expected: Vec<Vec<u8>> = units.into_iter().map(|(unit, _)| unit).collect();
            prop_assert_eq!(found, expected);
        }

        #[test]
        fn access_units_keep_every_nal_unit(units in proptest::collection::vec(nal(), 1..12)) {
            let mut stream: Vec<u8> = units.iter().flat_map(|unit| [&[0, 0, 1][..], unit].concat()).collect();
            stream.extend([0, 0, 1, 0x41, 0x80]);
            let frames = access_units(&Bytes::from(stream.clone())).unwrap();
            let rejoined: Vec<u8> = frames.iter().flat_map(|frame| frame.data.to_vec()).collect();
            prop_assert_eq!(rejoined, stream);
        }
    }
}
