//! What the tables send, told to the generator and to the reference loop.

use std::time::Duration;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::reference::Frame;
use crate::source::{Sizes, Source};

/// Frames a second of either load.
pub const FPS: u32 = 30;

/// Packets of a frame of the paced load, and payload bytes of each.
const PACED: (usize, usize) = (9, 1150);

/// Bits a second of the trace's picture, and from keyframe to keyframe.
const TRACE: (u64, Duration) = (2_500_000, Duration::from_secs(2));

/// Payload bytes of the generator's Opus packets (`AUDIO_BYTES`); and how many there are with each of three frames, at 50 a
/// second.
const AUDIO_LEN: usize = 100;
const AUDIO: [usize; 3] = [2, 2, 1];

/// What is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Load {
    /// Thirty frames a second, each of nine equal packets; no sound.
    Paced,
    /// Frames as an encoder makes them, with large keyframes and sound.
    Trace,
}

impl Load {
    /// For the reference loop.
    pub fn frames(self) -> Vec<Frame> {
        match self {
            Self::Paced => vec![Frame::new(&[PACED.1; PACED.0], &[])],
            Self::Trace => {
                let mut source = Source::new(Sizes::Varied { bitrate: TRACE.0 }, FPS, TRACE.1, 0);
                let length = TRACE.1.as_secs() as u32 * FPS * 5;
                let frame =
                    |n: usize| Frame::new(&source.next_frame().packets, &[AUDIO_LEN; 2][..AUDIO[n % AUDIO.len()]]);
                (0..length as usize).map(frame).collect()
            }
        }
    }

    /// For the generator.
    pub fn arguments(self) -> Vec<String> {
        let words = match self {
            Self::Paced => format!("--packets {} --bytes {} --no-audio", PACED.0, PACED.1),
            Self::Trace => format!("--bitrate {} --keyframe-interval {}", TRACE.0, TRACE.1.as_secs()),
        };
        words.split_whitespace().map(str::to_owned).chain([format!("--fps={FPS}")]).collect()
    }
}
