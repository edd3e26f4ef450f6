//! The size of a picture, read from the stream: how simulcast layers are told better from worse.

use super::{Codec, h264, vp8};

/// Width and height in luma samples, before any cropping: for comparison, not for display.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PictureSize {
    /// Samples in a row.
    pub width: u32,
    /// Rows.
    pub height: u32,
}

impl PictureSize {
    /// Samples in the picture.
    pub fn area(self) -> u64 {
        u64::from(self.width) * u64::from(self.height)
    }
}

/// The size of the picture, if `payload` says it: the first packet of a VP8 key frame, an H.264 SPS. Any bytes are
/// allowed; a payload of another codec says nothing.
pub fn picture_size(codec: Codec, payload: &[u8]) -> Option<PictureSize> {
    match codec {
        Codec::Vp8 => vp8_size(vp8::keyframe(payload)?),
        Codec::H264 => sps_size(h264::sequence_parameter_set(payload)?),
        _ => None,
    }
}

/// RFC 6386 §9.1: a frame tag of three bytes, the start code, then 14 bits each of width and height and two of scale.
fn vp8_size(frame: &[u8]) -> Option<PictureSize> {
    let [_, _, _, 0x9d, 0x01, 0x2a, width_0, width_1, height_0, height_1, ..] = *frame else { return None };
    let samples = |low, high| u32::from(u16::from_le_bytes([low, high]) & 0x3fff);
    Some(PictureSize { width: samples(width_0, width_1), height: samples(height_0, height_1) })
}

/// The longest SPS that is read: with every scaling list it is shorter.
const MAX_SPS: usize = 512;

/// The profiles whose SPS has chroma format and scaling lists (ITU-T H.264 §7.3.2.1.1).
const WITH_CHROMA_FORMAT: [u32; 13] = [100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135];

/// Reads `seq_parameter_set_data` (ITU-T H.264 §7.3.2.1.1) as far as the size.
fn sps_size(sps: &[u8]) -> Option<PictureSize> {
    let mut raw = [0; MAX_SPS];
    let mut bits = Bits { bytes: unescaped(sps, &mut raw), at: 0 };
    let profile = bits.fixed(8)?;
    bits.fixed(16)?;
    bits.golomb()?;
    if WITH_CHROMA_FORMAT.contains(&profile) {
        skip_chroma_format(&mut bits)?;
    }
    // log2_max_frame_num, then the picture order count.
    bits.golomb()?;
    match bits.golomb()? {
        0 => drop(bits.golomb()?),
        1 => {
            bits.fixed(1)?;
            bits.golomb()?;
            bits.golomb()?;
            for _ in 0..bits.golomb()?.min(255) {
                bits.golomb()?;
            }
        }
        _ => {}
    }
    // max_num_ref_frames and gaps_in_frame_num_allowed.
    bits.golomb()?;
    bits.fixed(1)?;
    let macroblocks = |count: u32| count.checked_add(1)?.checked_mul(16);
    let (width, map_height) = (macroblocks(bits.golomb()?)?, macroblocks(bits.golomb()?)?);
    // Without frame_mbs_only_flag the height counts the rows of a field.
    let fields = 2 - bits.fixed(1)?;
    Some(PictureSize { width, height: map_height.checked_mul(fields)? })
}

fn skip_chroma_format(bits: &mut Bits<'_>) -> Option<()> {
    let chroma_format = bits.golomb()?;
    if chroma_format == 3 {
        bits.fixed(1)?;
    }
    bits.golomb()?;
    bits.golomb()?;
    bits.fixed(1)?;
    if bits.fixed(1)? == 1 {
        for list in 0..if chroma_format == 3 { 12 } else { 8 } {
            if bits.fixed(1)? == 1 {
                skip_scaling_list(bits, if list < 6 { 16 } else { 64 })?;
            }
        }
    }
    Some(())
}

/// ITU-T H.264 §7.3.2.1.1.1: deltas follow until one makes the next scale 0.
fn skip_scaling_list(bits: &mut Bits<'_>, entries: usize) -> Option<()> {
    let (mut last, mut next) = (8i32, 8i32);
    for _ in 0..entries {
        if next != 0 {
            next = (last + bits.signed_golomb()?).rem_euclid(256);
        }
        if next != 0 {
            last = next;
        }
    }
    Some(())
}

/// Takes out the `03` of each `00 00 03` (ITU-T H.264 §7.4.1).
fn unescaped<'a>(nal: &[u8], raw: &'a mut [u8; MAX_SPS]) -> &'a [u8] {
    let (mut len, mut zeros) = (0, 0);
    for &byte in nal.iter().take(MAX_SPS) {
        if byte == 3 && zeros >= 2 {
            zeros = 0;
            continue;
        }
        zeros = if byte == 0 { zeros + 1 } else { 0 };
        raw[len] = byte;
        len += 1;
    }
    &raw[..len]
}

/// Reads bits, the highest of each byte first.
struct Bits<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Bits<'_> {
    /// `u(n)`, at most 32 bits.
    fn fixed(&mut self, count: usize) -> Option<u32> {
        let mut value = 0;
        for _ in 0..count {
            let byte = self.bytes.get(self.at / 8)?;
            value = value << 1 | u32::from(byte >> (7 - self.at % 8) & 1);
            self.at += 1;
        }
        Some(value)
    }

    /// `ue(v)` (ITU-T H.264 §9.1).
    fn golomb(&mut self) -> Option<u32> {
        let mut zeros = 0;
        while self.fixed(1)? == 0 {
            zeros += 1;
            if zeros == 32 {
                return None;
            }
        }
        let suffix = self.fixed(zeros)?;
        Some((1u32 << zeros) - 1 + suffix)
    }

    /// `se(v)` (ITU-T H.264 §9.1.1), for values that are small.
    fn signed_golomb(&mut self) -> Option<i32> {
        let value = self.golomb()?.min(1 << 16) as i32;
        Some(if value % 2 == 0 { -value / 2 } else { (value + 1) / 2 })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn size(codec: Codec, payload: &[u8]) -> Option<(u32, u32)> {
        picture_size(codec, payload).map(|size| (size.width, size.height))
    }

    #[test]
    fn a_vp8_key_frame_says_its_size() {
        // As libvpx writes it at 1280x720, behind an extended descriptor; the scale bits do not count.
        let key = [0x90, 0x80, 0x11, 0x50, 0x92, 0x03, 0x9d, 0x01, 0x2a, 0x00, 0x45, 0xd0, 0x82, 0x3e];
        assert_eq!(size(Codec::Vp8, &key), Some((1280, 720)));
        assert_eq!(size(Codec::Vp8, &key[..12]), None);
        let inter = [0x90, 0x80, 0x11, 0x51, 0x92, 0x03, 0x9d, 0x01, 0x2a, 0x00, 0x05, 0xd0, 0x02];
        assert_eq!(size(Codec::Vp8, &inter), None);
        assert_eq!(size(Codec::Opus, &key), None);
    }

    #[test]
    fn an_h264_sps_says_its_size_alone_and_in_a_stap() {
        // x264 at 640x360, constrained baseline and High; 1080p is 1088 rows before cropping.
        let baseline = [0x67, 0x42, 0xc0, 0x1e, 0xd9, 0x00, 0xa0, 0x2f, 0xf9, 0x70, 0x11, 0x00];
        assert_eq!(size(Codec::H264, &baseline), Some((640, 368)));
        let high = [
            0x67, 0x64, 0x00, 0x28, 0xac, 0xd9, 0x40, 0x78, 0x02, 0x27, 0xe5, 0xc0, 0x44, 0x00, 0x00, 0x03, 0x00, 0x04,
        ];
        assert_eq!(size(Codec::H264, &high), Some((1920, 1088)));
        let mut stap = vec![0x78, 0, 2, 0x09, 0xf0, 0, baseline.len() as u8];
        stap.extend(baseline);
        stap.extend([0, 2, 0x68, 0xce]);
        assert_eq!(size(Codec::H264, &stap), Some((640, 368)));
        assert_eq!(size(Codec::H264, &[0x68, 0xce]), None);
        assert_eq!(size(Codec::H264, &baseline[..6]), None);
    }

    #[test]
    fn emulation_prevention_is_taken_out() {
        let mut raw = [0; MAX_SPS];
        assert_eq!(unescaped(&[0, 0, 3, 1, 0, 3, 0, 0, 3, 0, 0, 3], &mut raw), [0, 0, 1, 0, 3, 0, 0, 0, 0]);
        assert_eq!(unescaped(&[7; 600], &mut raw).len(), MAX_SPS);
    }

    #[test]
    fn scaling_lists_are_stepped_over() {
        // High, 4:2:0, 8 bit, one list of all eights by a first delta of -8 (ue 16), then 640x368.
        let mut bits = String::from("01100100 00000000 00011110 1 010 1 1 0 1 1 000010001 0000000");
        bits.push_str(" 1 011 1 0 00000101000 000010111 1");
        assert_eq!(sps_size(&packed(&bits)), Some(PictureSize { width: 640, height: 368 }));
    }

    fn packed(text: &str) -> Vec<u8> {
        let mut bits: Vec<u8> = text.bytes().filter(|b| *b != b' ').map(|b| b - b'0').collect();
        bits.resize(bits.len().next_multiple_of(8) + 16, 0);
        bits.chunks(8).map(|byte| byte.iter().fold(0, |all, bit| all << 1 | bit)).collect()
    }

    proptest! {
        #[test]
        fn no_payload_panics(payload in prop::collection::vec(any::<u8>(), 0..80), tail in any::<[u8; 8]>()) {
            for codec in [Codec::H264, Codec::Vp8, Codec::Opus] {
                picture_size(codec, &payload);
            }
            sps_size(&payload);
            sps_size(&[&[100, 0, 40][..], &tail].concat());
        }
    }
}
