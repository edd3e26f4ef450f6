//! Synthetic video: how large each frame is, and how it is cut into packets.

use std::sync::Arc;
use std::time::Duration;

use crate::stamp;

/// A keyframe is so many times an ordinary frame, as encoders for live pictures of one camera make them.
const KEYFRAME_FACTOR: f64 = 6.0;

/// Spread of the frames' sizes: the standard deviation of their logarithm.
const SPREAD: f64 = 0.35;

/// Payload bytes of the longest packet, about as browsers cut them.
const LONGEST_PAYLOAD: usize = 1150;

/// How large frames are.
#[derive(Clone, Debug, PartialEq)]
pub enum Sizes {
    /// Every frame the same, so many packets of so many bytes of payload: what benchmarks compare.
    Fixed {
        /// Packets of a frame.
        packets: usize,
        /// Payload bytes of each.
        bytes: usize,
    },
    /// Keyframes are larger, and no two frames are alike: what an encoder makes of a bitrate.
    Varied {
        /// Bits a second, payload alone.
        bitrate: u64,
    },
    /// As in a recording, again and again.
    Recorded(Arc<[Recorded]>),
}

impl Sizes {
    /// Of layer `n` of a simulcast: each has a quarter of the one before.
    pub fn of_layer(&self, n: usize) -> Self {
        match self {
            Self::Varied { bitrate } => Self::Varied { bitrate: bitrate >> (2 * n) },
            Self::Fixed { packets, bytes } => Self::Fixed { packets: (packets >> (2 * n)).max(1), bytes: *bytes },
            Self::Recorded(frames) => Self::Recorded(
                frames.iter().map(|frame| Recorded { bytes: frame.bytes >> (2 * n), ..*frame }).collect(),
            ),
        }
    }
}

/// What is kept of a recorded frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// How large it is.
    pub bytes: usize,
    /// It refers to none before it.
    pub keyframe: bool,
}

/// The frames of one stream.
#[derive(Clone, Debug)]
pub struct Source {
    sizes: Sizes,
    fps: u32,
    /// Frames from keyframe to keyframe.
    keyframe_every: u64,
    dice: u64,
    until_keyframe: u64,
    /// Where in the recording.
    at: usize,
}

/// A frame to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// It refers to none before it.
    pub keyframe: bool,
    /// Payload bytes of each packet.
    pub packets: Vec<usize>,
}

impl Source {
    /// A stream that begins with a keyframe. The same `seed` makes the same frames.
    pub fn new(sizes: Sizes, fps: u32, keyframe_interval: Duration, seed: u64) -> Self {
        let keyframe_every = ((keyframe_interval.as_secs_f64() * f64::from(fps)).round() as u64).max(1);
        Self { sizes, fps, keyframe_every, dice: seed, until_keyframe: 0, at: 0 }
    }

    /// Somebody asked for a keyframe: it is next. A recording goes on at the next that it has.
    pub fn request_keyframe(&mut self) {
        self.until_keyframe = 0;
        if let Sizes::Recorded(frames) = &self.sizes {
            let mut places = (0..frames.len()).map(|n| (self.at + n) % frames.len());
            self.at = places.find(|at| frames[*at].keyframe).unwrap_or(self.at);
        }
    }

    /// The next frame.
    pub fn next_frame(&mut self) -> Frame {
        let (bitrate, fixed) = match &self.sizes {
            Sizes::Recorded(frames) => {
                let Recorded { bytes, keyframe } = frames[self.at];
                self.at = (self.at + 1) % frames.len();
                return Frame { keyframe, packets: cut(bytes) };
            }
            Sizes::Fixed { packets, bytes } => (0, Some(vec![(*bytes).max(stamp::SHORTEST); *packets])),
            Sizes::Varied { bitrate } => (*bitrate, None),
        };
        let keyframe = self.until_keyframe == 0;
        self.until_keyframe = if keyframe { self.keyframe_every } else { self.until_keyframe } - 1;
        Frame { keyframe, packets: fixed.unwrap_or_else(|| cut(self.frame_size(bitrate, keyframe))) }
    }

    fn frame_size(&mut self, bitrate: u64, keyframe: bool) -> usize {
        let every = self.keyframe_every as f64;
        let mean = bitrate as f64 / 8.0 / f64::from(self.fps);
        let ordinary = mean * every / (every - 1.0 + KEYFRAME_FACTOR);
        let varied = ordinary * (SPREAD * self.normal() - SPREAD * SPREAD / 2.0).exp();
        (if keyframe { KEYFRAME_FACTOR * varied } else { varied }) as usize
    }

    /// About normally distributed with mean 0 and deviation 1: twelve uniform numbers, summed.
    fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.uniform()).sum::<f64>() - 6.0
    }

    /// In [0, 1), by the SplitMix64 generator.
    fn uniform(&mut self) -> f64 {
        self.dice = self.dice.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut value = self.dice;
        value = (value ^ value >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        value = (value ^ value >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((value ^ value >> 31) >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// About equal packets, the later ones a byte longer where it does not come out even: as Chromium does.
fn cut(bytes: usize) -> Vec<usize> {
    let bytes = bytes.max(stamp::SHORTEST);
    let count = bytes.div_ceil(LONGEST_PAYLOAD);
    let (each, longer) = (bytes / count, bytes % count);
    (0..count).map(|n| each + usize::from(n >= count - longer)).map(|len| len.max(stamp::SHORTEST)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_varied_stream_keeps_to_its_bitrate() {
        let mut source = Source::new(Sizes::Varied { bitrate: 2_500_000 }, 30, Duration::from_secs(2), 5);
        let frames: Vec<Frame> = (0..3000).map(|_| source.next_frame()).collect();
        let bits = 8 * frames.iter().flat_map(|frame| &frame.packets).sum::<usize>();
        let per_second = bits as f64 / 100.0;
        assert!((2_400_000.0..2_600_000.0).contains(&per_second), "{per_second}");
        let sizes: Vec<usize> = frames.iter().filter(|f| !f.keyframe).map(|f| f.packets.iter().sum()).collect();
        let mean = sizes.iter().sum::<usize>() / sizes.len();
        assert!(sizes.iter().any(|size| *size > 2 * mean) && sizes.iter().any(|size| *size < mean / 2), "no spread");
        assert!(frames.iter().flat_map(|f| &f.packets).all(|len| (stamp::SHORTEST..=LONGEST_PAYLOAD).contains(len)));
        let keyframes: Vec<usize> = (0..3000).filter(|n| frames[*n].keyframe).collect();
        assert_eq!(keyframes[..3], [0, 60, 120]);
    }

    #[test]
    fn a_requested_keyframe_begins_the_interval_anew() {
        let mut source = Source::new(Sizes::Fixed { packets: 9, bytes: 1150 }, 10, Duration::from_secs(1), 0);
        let mut next = |n: usize| (0..n).map(|_| source.next_frame()).map(|f| u8::from(f.keyframe)).collect::<Vec<_>>();
        assert_eq!(next(4), [1, 0, 0, 0]);
        source.request_keyframe();
        let frames: Vec<_> = (0..11).map(|_| source.next_frame()).collect();
        assert!(frames[0].keyframe && frames[10].keyframe && frames[1..10].iter().all(|f| !f.keyframe));
        assert_eq!(frames[3].packets, [1150; 9]);
    }

    #[test]
    fn a_recording_is_repeated_and_a_requested_keyframe_is_its_next() {
        let frame = |bytes, keyframe| Recorded { bytes, keyframe };
        let recorded = [frame(3000, true), frame(700, false), frame(800, false), frame(2400, true), frame(600, false)];
        let sizes = Sizes::Recorded(recorded.into());
        let mut source = Source::new(sizes.clone(), 30, Duration::from_secs(2), 0);
        let mut next = || source.next_frame().packets.iter().sum::<usize>();
        assert_eq!([(); 7].map(|()| next()), [3000, 700, 800, 2400, 600, 3000, 700]);
        source.request_keyframe();
        assert_eq!(source.next_frame(), Frame { keyframe: true, packets: vec![800; 3] });
        source.request_keyframe();
        assert_eq!(source.next_frame(), Frame { keyframe: true, packets: vec![1000; 3] }, "that of the next turn");
        assert_eq!(sizes.of_layer(1), Sizes::Recorded(recorded.map(|f| frame(f.bytes / 4, f.keyframe)).into()));
    }

    #[test]
    fn packets_of_a_frame_differ_by_a_byte() {
        assert_eq!(cut(4654), [930, 931, 931, 931, 931]);
        assert_eq!(cut(1), [stamp::SHORTEST]);
    }
}
