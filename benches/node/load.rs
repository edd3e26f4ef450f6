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

/// Bits a second of the thin load, with keyframes as often.
const THIN: u64 = 500_000;

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
    /// The picture alone, at a fifth of the trace's bits: what a crowd gets that joins.
    Thin,
}

impl Load {
    /// For the reference loop.
    pub fn frames(self) -> Vec<Frame> {
        match self {
            Self::Paced => vec![Frame::new(&[PACED.1; PACED.0], &[])],
            Self::Trace => varied(TRACE.0, |n| AUDIO[n % AUDIO.len()]),
            Self::Thin => varied(THIN, |_| 0),
        }
    }

    /// For the generator.
    pub fn arguments(self) -> Vec<String> {
        let words = match self {
            Self::Paced => format!("--packets {} --bytes {} --no-audio", PACED.0, PACED.1),
            Self::Trace => format!("--bitrate {} --keyframe-interval {}", TRACE.0, TRACE.1.as_secs()),
            Self::Thin => format!("--bitrate {THIN} --keyframe-interval {} --no-audio", TRACE.1.as_secs()),
        };
        words.split_whitespace().map(str::to_owned).chain([format!("--fps={FPS}")]).collect()
    }
}

/// Five keyframe intervals of frames as an encoder makes them, and so many packets of sound with each.
fn varied(bitrate: u64, sound: impl Fn(usize) -> usize) -> Vec<Frame> {
    let mut source = Source::new(Sizes::Varied { bitrate }, FPS, TRACE.1, 0);
    let length = TRACE.1.as_secs() as u32 * FPS * 5;
    (0..length as usize).map(|n| Frame::new(&source.next_frame().packets, &[AUDIO_LEN; 2][..sound(n)])).collect()
}
