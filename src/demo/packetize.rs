//! Frames become RTP payloads (sans-IO).
//!
//! A frame that needs several packets is cut into pieces of one size, only the last may be shorter: a run of equal
//! datagrams goes to the kernel in one call. The caller writes the RTP headers; the marker bit belongs on the last
//! payload of a video frame.

mod h264;
mod vp8;

use crate::media::Codec;

/// The smallest `max_payload` that a [`Packetizer`] takes, in bytes.
pub const MIN_PAYLOAD: usize = 64;

/// The payloads of one frame in the order of sending, in one buffer that is used again.
#[derive(Clone, Debug, Default)]
pub struct Payloads {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Payloads {
    /// Forgets the payloads, keeps the memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
    }

    /// The payloads in the order of sending.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        (0..self.ends.len()).map(|i| {
            let start = if i == 0 { 0 } else { self.ends[i - 1] };
            &self.bytes[start..self.ends[i]]
        })
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Nothing to send.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Appends one payload made of `parts`.
    fn push(&mut self, parts: &[&[u8]]) {
        parts.iter().for_each(|part| self.extend(part));
        self.finish();
    }

    /// Appends to the payload that [`Payloads::finish`] will close.
    fn extend(&mut self, part: &[u8]) {
        self.bytes.extend_from_slice(part);
    }

    fn finish(&mut self) {
        self.ends.push(self.bytes.len());
    }
}

/// Why a frame cannot be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PacketizeError {
    /// There is nothing in it.
    #[error("the frame is empty")]
    Empty,
    /// An Opus packet cannot be split.
    #[error("an Opus packet of {len} bytes does not fit in a payload of {max_payload}")]
    TooLarge {
        /// Its length in bytes.
        len: usize,
        /// The limit in bytes.
        max_payload: usize,
    },
}

#[derive(Clone, Debug)]
enum Format {
    H264,
    Vp8(vp8::PictureId),
    Opus,
}

/// Makes the RTP payloads of one track.
#[derive(Clone, Debug)]
pub struct Packetizer {
    format: Format,
    max_payload: usize,
}

impl Packetizer {
    /// A packetiser for `codec` whose payloads have at most `max_payload` bytes. H.264 uses packetization-mode 1
    /// (RFC 6184 §6.3); VP8 counts pictures from 0 (RFC 7741 §4.2 leaves the start open).
    ///
    /// # Panics
    /// If `max_payload` is below [`MIN_PAYLOAD`] or above 65,535, or for a codec that no clip has.
    pub fn new(codec: Codec, max_payload: usize) -> Self {
        assert!((MIN_PAYLOAD..=usize::from(u16::MAX)).contains(&max_payload), "payload limit of {max_payload} bytes");
        let format = match codec {
            Codec::H264 => Format::H264,
            Codec::Vp8 => Format::Vp8(vp8::PictureId::default()),
            Codec::Opus => Format::Opus,
            Codec::H265 | Codec::Vp9 | Codec::Av1 => panic!("no clip has {codec}"),
        };
        Self { format, max_payload }
    }

    /// Replaces the contents of `out` with the payloads of one frame: an H.264 access unit in Annex B form, a VP8 frame,
    /// or an Opus packet.
    ///
    /// # Errors
    /// [`PacketizeError`]; `out` is then empty and no picture id is used up.
    pub fn packetize(&mut self, frame: &[u8], out: &mut Payloads) -> Result<(), PacketizeError> {
        out.clear();
        match &mut self.format {
            Format::H264 => h264::packetize(frame, self.max_payload, out)?,
            Format::Vp8(picture_id) => vp8::packetize(frame, picture_id, self.max_payload, out)?,
            Format::Opus => opus(frame, self.max_payload, out)?,
        }
        Ok(())
    }
}

/// RFC 7587 §4.2: "An RTP payload MUST contain exactly one Opus packet".
fn opus(packet: &[u8], max_payload: usize, out: &mut Payloads) -> Result<(), PacketizeError> {
    match packet.len() {
        0 => Err(PacketizeError::Empty),
        len if len > max_payload => Err(PacketizeError::TooLarge { len, max_payload }),
        _ => {
            out.push(&[packet]);
            Ok(())
        }
    }
}

/// Cuts `data` into the fewest pieces of at most `max` bytes, all of one size but the last, which may be shorter.
fn equal_pieces(data: &[u8], max: usize) -> std::slice::Chunks<'_, u8> {
    let pieces = data.len().div_ceil(max).max(1);
    data.chunks(data.len().div_ceil(pieces).max(1))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::demo::clip::Clip;

    #[test]
    fn an_opus_packet_is_its_payload() {
        let mut out = Payloads::default();
        let mut packetizer = Packetizer::new(Codec::Opus, 100);
        assert_eq!(packetizer.packetize(&[7; 100], &mut out), Ok(()));
        assert_eq!(out.iter().collect::<Vec<_>>(), [[7; 100]]);
        let too_large = Err(PacketizeError::TooLarge { len: 101, max_payload: 100 });
        assert_eq!(packetizer.packetize(&[7; 101], &mut out), too_large);
        assert!(out.is_empty(), "what was there before is gone");
        assert_eq!(packetizer.packetize(&[], &mut out), Err(PacketizeError::Empty));
    }

    #[test]
    fn the_clip_fills_whole_runs() {
        for clip in [Clip::h264().unwrap(), Clip::vp8().unwrap()] {
            let mut packetizer = Packetizer::new(clip.video_codec, 1150);
            let mut out = Payloads::default();
            for frame in &clip.video {
                packetizer.packetize(&frame.data, &mut out).unwrap();
                // A keyframe's parameter sets travel ahead of the run.
                let sizes: Vec<usize> = out.iter().map(<[u8]>::len).collect();
                let run = if clip.video_codec == Codec::H264 && frame.keyframe { &sizes[1..] } else { &sizes[..] };
                let (last, others) = run.split_last().unwrap();
                assert!(others.iter().all(|size| *size == run[0]) && *last <= run[0], "{sizes:?}");
                assert!(run[0] <= 1150);
                assert!(run[0] - last < run.len(), "the last is hardly shorter: {sizes:?}");
            }
        }
    }

    #[test]
    #[should_panic(expected = "payload limit")]
    fn a_tiny_payload_limit_is_a_mistake_of_the_caller() {
        Packetizer::new(Codec::H264, MIN_PAYLOAD - 1);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        #[test]
        fn pieces_are_few_and_equal(len in 1usize..5000, max in 1usize..1500) {
            let data = vec![0; len];
            let sizes: Vec<usize> = equal_pieces(&data, max).map(<[u8]>::len).collect();
            prop_assert_eq!(sizes.iter().sum::<usize>(), len);
            prop_assert!(sizes.len() <= len.div_ceil(max));
            prop_assert!(sizes[0] <= max && sizes[..sizes.len() - 1].iter().all(|size| *size == sizes[0]));
        }

        #[test]
        fn no_frame_panics(frame in proptest::collection::vec(prop_oneof![Just(0u8), Just(1), any::<u8>()], 0..400)) {
            for codec in [Codec::H264, Codec::Vp8, Codec::Opus] {
                let mut out = Payloads::default();
                if Packetizer::new(codec, MIN_PAYLOAD).packetize(&frame, &mut out).is_ok() {
                    prop_assert!(!out.is_empty());
                    prop_assert!(out.iter().all(|payload| (1..=MIN_PAYLOAD).contains(&payload.len())));
                } else {
                    prop_assert!(out.is_empty());
                }
            }
        }
    }
}
