//! The dealer clip: ten seconds of a roulette table, embedded in the binary, that loop without a seam.
//!
//! `tools/demo-clip/make` draws and encodes it, and its `timecode.py` says where in the picture the frame number stands.
//! Everything here points into the embedded files; nothing is copied.

mod annex_b;
mod ivf;
mod ogg_opus;

use std::time::Duration;

use bytes::Bytes;

use crate::media::Codec;

pub use annex_b::nal_units;
pub use ivf::frames as ivf_frames;

static H264: &[u8] = include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/config/demo/dealer.h264"));
static VP8: &[u8] = include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/config/demo/dealer.ivf"));
static OPUS: &[u8] = include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/config/demo/dealer.ogg"));

/// Frames per second of the embedded clip. Annex B carries no clock of its own.
const FPS: u32 = 30;

/// What one Opus packet of a [`Clip`] lasts.
pub const AUDIO_PACKET: Duration = Duration::from_millis(20);

/// One picture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VideoFrame {
    /// H.264: the access unit in Annex B form, start codes included ([`nal_units`] takes it apart). VP8: the frame.
    pub data: Bytes,
    /// Decoding can start here.
    pub keyframe: bool,
}

/// A loop of video with the audio that belongs to it; both last equally long.
#[derive(Clone, Debug)]
pub struct Clip {
    /// In decoding order, which is the order of display.
    pub video: Vec<VideoFrame>,
    /// H.264 or VP8.
    pub video_codec: Codec,
    /// Frames per second, constant.
    pub fps: u32,
    /// Opus packets of 20 ms, stereo.
    pub audio: Vec<Bytes>,
}

/// Why a file is not a usable clip.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClipError {
    /// The file is of another kind.
    #[error("this is not {0}")]
    NotA(&'static str),
    /// The file ends, or a length points past its end.
    #[error("the file ends in the middle of {0}")]
    Truncated(&'static str),
    /// The file is sound but holds something that a clip cannot.
    #[error("a clip cannot hold {0}")]
    Unsupported(&'static str),
    /// An Ogg page's CRC is wrong.
    #[error("the checksum of an Ogg page is wrong")]
    Checksum,
    /// Looping would let audio and video drift apart.
    #[error("{frames} frames at {fps} a second and {packets} packets of 20 ms do not last equally long")]
    UnequalLengths {
        /// Video frames.
        frames: usize,
        /// Frames per second.
        fps: u32,
        /// Audio packets.
        packets: usize,
    },
}

impl Clip {
    /// The embedded clip with H.264 (constrained baseline).
    ///
    /// # Errors
    /// Only if the binary was built from damaged files.
    pub fn h264() -> Result<Self, ClipError> {
        let video = annex_b::access_units(&Bytes::from_static(H264))?;
        Self::new(video, Codec::H264, FPS, ogg_opus::packets(&Bytes::from_static(OPUS))?)
    }

    /// The embedded clip with VP8.
    ///
    /// # Errors
    /// Only if the binary was built from damaged files.
    pub fn vp8() -> Result<Self, ClipError> {
        let (fps, video) = ivf::frames(&Bytes::from_static(VP8))?;
        Self::new(video, Codec::Vp8, fps, ogg_opus::packets(&Bytes::from_static(OPUS))?)
    }

    fn new(video: Vec<VideoFrame>, video_codec: Codec, fps: u32, audio: Vec<Bytes>) -> Result<Self, ClipError> {
        if !video.first().is_some_and(|frame| frame.keyframe) {
            return Err(ClipError::Unsupported("a video that does not begin with a keyframe"));
        }
        // frames / fps = packets / 50, without rounding.
        if video.len() as u64 * 50 != audio.len() as u64 * u64::from(fps) {
            return Err(ClipError::UnequalLengths { frames: video.len(), fps, packets: audio.len() });
        }
        Ok(Self { video, video_codec, fps, audio })
    }

    /// How long one loop lasts.
    pub fn duration(&self) -> Duration {
        AUDIO_PACKET * self.audio.len() as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keyframes(clip: &Clip) -> Vec<usize> {
        clip.video.iter().enumerate().filter(|(_, frame)| frame.keyframe).map(|(i, _)| i).collect()
    }

    fn bits_per_second(clip: &Clip) -> u64 {
        clip.video.iter().map(|frame| frame.data.len() as u64 * 8).sum::<u64>() / clip.duration().as_secs()
    }

    #[test]
    fn both_clips_are_what_the_demo_promises() {
        for clip in [Clip::h264().unwrap(), Clip::vp8().unwrap()] {
            assert_eq!((clip.video.len(), clip.fps, clip.audio.len()), (300, 30, 500), "{}", clip.video_codec);
            assert_eq!(clip.duration(), Duration::from_secs(10));
            assert_eq!(keyframes(&clip), [0, 60, 120, 180, 240]);
            assert!((2_000_000..2_600_000).contains(&bits_per_second(&clip)), "{}", bits_per_second(&clip));
            assert!(clip.video.iter().all(|frame| frame.data.len() < 80_000));
        }
    }

    #[test]
    fn every_h264_keyframe_brings_its_parameter_sets_and_every_picture_is_one_slice() {
        for frame in Clip::h264().unwrap().video {
            let types: Vec<u8> = nal_units(&frame.data).map(|nal| nal[0] & 0x1f).collect();
            assert_eq!(types, if frame.keyframe { vec![7, 8, 5] } else { vec![1] });
        }
    }

    #[test]
    fn the_h264_clip_is_constrained_baseline() {
        let clip = Clip::h264().unwrap();
        let sps = nal_units(&clip.video[0].data).next().unwrap();
        assert_eq!(sps[1], 66, "profile_idc");
        assert_eq!(sps[2] & 0x40, 0x40, "constraint_set1_flag");
        assert_eq!(sps[3], 31, "level_idc");
    }

    #[test]
    fn nothing_is_copied() {
        let clip = Clip::vp8().unwrap();
        let embedded = VP8.as_ptr_range();
        assert!(clip.video.iter().all(|frame| embedded.contains(&frame.data.as_ptr())));
        let embedded = OPUS.as_ptr_range();
        assert!(clip.audio.iter().all(|packet| embedded.contains(&packet.as_ptr())));
    }

    #[test]
    fn unequal_lengths_and_a_headless_video_are_refused() {
        let frame = |keyframe| VideoFrame { data: Bytes::from_static(b"x"), keyframe };
        let audio = vec![Bytes::from_static(b"x"); 5];
        assert!(Clip::new(vec![frame(true); 3], Codec::Vp8, 30, audio.clone()).is_ok());
        assert_eq!(
            Clip::new(vec![frame(true); 4], Codec::Vp8, 30, audio.clone()).unwrap_err(),
            ClipError::UnequalLengths { frames: 4, fps: 30, packets: 5 }
        );
        assert!(matches!(Clip::new(vec![frame(false); 3], Codec::Vp8, 30, audio), Err(ClipError::Unsupported(_))));
        assert!(Clip::new(Vec::new(), Codec::Vp8, 30, Vec::new()).is_err());
    }
}
