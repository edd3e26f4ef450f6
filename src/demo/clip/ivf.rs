//! IVF, the container of libvpx: a header of 32 bytes, then frames with a header of 12. All little endian.

use bytes::Bytes;

use super::{ClipError, VideoFrame};

const FRAME_HEADER: usize = 12;

/// The frame rate and the frames of a VP8 file in IVF.
///
/// # Errors
/// It is no such file, or is cut off.
pub fn frames(file: &Bytes) -> Result<(u32, Vec<VideoFrame>), ClipError> {
    let header = file.get(..32).ok_or(ClipError::NotA("an IVF file"))?;
    if &header[..4] != b"DKIF" {
        return Err(ClipError::NotA("an IVF file"));
    }
    if &header[8..12] != b"VP80" {
        return Err(ClipError::Unsupported("another codec than VP8 in IVF"));
    }
    let fps = frame_rate(u32_at(header, 16), u32_at(header, 20))?;
    let header_len = usize::from(u16::from_le_bytes([header[6], header[7]]));
    if header_len < header.len() || header_len > file.len() {
        return Err(ClipError::Truncated("the IVF header"));
    }
    Ok((fps, split(file.slice(header_len..))?))
}

fn split(mut rest: Bytes) -> Result<Vec<VideoFrame>, ClipError> {
    let mut frames = Vec::new();
    while !rest.is_empty() {
        let size = match rest.get(..FRAME_HEADER) {
            Some(header) => u32_at(header, 0) as usize,
            None => return Err(ClipError::Truncated("an IVF frame header")),
        };
        let mut body = rest.split_off(FRAME_HEADER);
        if size > body.len() {
            return Err(ClipError::Truncated("an IVF frame"));
        }
        rest = body.split_off(size);
        // RFC 6386 §9.1: the first bit of the frame tag is 0 for a key frame.
        let keyframe = body.first().ok_or(ClipError::Unsupported("an empty VP8 frame"))? & 1 == 0;
        frames.push(VideoFrame { data: body, keyframe });
    }
    Ok(frames)
}

fn frame_rate(rate: u32, scale: u32) -> Result<u32, ClipError> {
    match rate.checked_div(scale) {
        Some(fps @ 1..=240) if rate.is_multiple_of(scale) => Ok(fps),
        _ => Err(ClipError::Unsupported("a frame rate that is no whole number from 1 to 240")),
    }
}

/// # Panics
/// If `bytes` is shorter than `at + 4`.
fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn file(rate: u32, frames: &[Vec<u8>]) -> Vec<u8> {
        let mut out = b"DKIF\0\0\x20\0VP80\0\x05\xd0\x02".to_vec();
        out.extend(rate.to_le_bytes());
        out.extend(1u32.to_le_bytes());
        out.extend([0; 8]);
        for frame in frames {
            out.extend((frame.len() as u32).to_le_bytes());
            out.extend([0; 8]);
            out.extend(frame);
        }
        out
    }

    fn parse(bytes: Vec<u8>) -> Result<(u32, Vec<VideoFrame>), ClipError> {
        frames(&Bytes::from(bytes))
    }

    #[test]
    fn other_files_are_refused() {
        assert_eq!(parse(b"OggS".to_vec()), Err(ClipError::NotA("an IVF file")));
        assert_eq!(parse(vec![0; 64]), Err(ClipError::NotA("an IVF file")));
        let mut vp9 = file(30, &[vec![0]]);
        vp9[11] = b'9';
        assert!(matches!(parse(vp9), Err(ClipError::Unsupported(_))));
        assert!(matches!(parse(file(0, &[vec![0]])), Err(ClipError::Unsupported(_))));
        assert!(matches!(parse(file(30, &[vec![]])), Err(ClipError::Unsupported(_))));
    }

    #[test]
    fn lengths_past_the_end_are_refused() {
        let whole = file(30, &[vec![0, 1, 2], vec![1, 2, 3]]);
        assert_eq!(parse(whole.clone()).unwrap().1.len(), 2);
        assert_eq!(parse(whole[..whole.len() - 1].to_vec()), Err(ClipError::Truncated("an IVF frame")));
        assert_eq!(parse(whole[..32 + 11].to_vec()), Err(ClipError::Truncated("an IVF frame header")));
        let mut long_header = whole;
        long_header[7] = 0xff;
        assert_eq!(parse(long_header), Err(ClipError::Truncated("the IVF header")));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        #[test]
        fn no_file_panics(tail in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut bytes = file(30, &[]);
            bytes.extend(&tail);
            let _ = parse(bytes);
            let _ = parse(tail);
        }

        #[test]
        fn frames_come_back(frames in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..50), 0..8)) {
            let (fps, parsed) = parse(file(25, &frames)).unwrap();
            prop_assert_eq!(fps, 25);
            prop_assert_eq!(parsed.len(), frames.len());
            for (frame, expected) in parsed.iter().zip(&frames) {
                prop_assert_eq!(&frame.data[..], &expected[..]);
                prop_assert_eq!(frame.keyframe, expected[0] % 2 == 0);
            }
        }
    }
}
