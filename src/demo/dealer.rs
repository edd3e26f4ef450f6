//! The embedded dealer: publishes a clip to a table of this process, in real time, for ever.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use crate::fleet::{LocalPublisher, Node, Refusal};
use crate::media::{Codec, MediaKind};
use crate::rtc::sdp::TableMedia;
use crate::shard::LocalMedia;

use super::clip::{Clip, ClipError};
use super::packetize::{PacketizeError, Packetizer, Payloads};

/// The tables of the demo and the codecs they are published in.
pub const TABLES: [(&str, Codec); 2] = [("demo", Codec::H264), ("demo-vp8", Codec::Vp8)];

/// The longest RTP payload: with headers, tag and IPv6 it stays below 1280 bytes, which every path carries (RFC 8200 §5).
const MAX_PAYLOAD: usize = 1160;

/// A packet of Opus, in its 48 kHz clock: 20 ms.
const OPUS_STEP: u32 = 960;

/// Why there is no dealer.
#[derive(Debug, thiserror::Error)]
pub enum DealerError {
    /// The embedded clip is damaged.
    #[error("the embedded clip cannot be read: {0}")]
    Clip(#[from] ClipError),
    /// A frame of the clip cannot be packetised.
    #[error("the embedded clip cannot be sent: {0}")]
    Packetize(#[from] PacketizeError),
    /// The node does not take the table.
    #[error("the node refused the demo table: {0}")]
    Refused(#[from] Refusal),
}

/// Publishes `table` until the node goes away.
///
/// # Errors
/// The clip cannot be read or sent, or the node refuses the table.
pub async fn deal(node: Node, table: &str, codec: Codec) -> Result<(), DealerError> {
    let clip = if codec == Codec::Vp8 { Clip::vp8()? } else { Clip::h264()? };
    // Constrained baseline, level 3.1: what the clip's sequence parameter set says.
    let fmtp = if codec == Codec::H264 {
        "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f".to_owned()
    } else {
        String::new()
    };
    let media =
        TableMedia { video: Some((codec, fmtp)), audio: Some((Codec::Opus, String::new())), ..TableMedia::default() };
    let publisher = node.publish_local(table, media).await?;
    Dealer::new(&clip, publisher).run().await
}

/// One table's clip with its place in the loop.
struct Dealer<'a> {
    clip: &'a Clip,
    publisher: LocalPublisher,
    packetizer: Packetizer,
    payloads: Payloads,
    /// Frames and Opus packets sent since the start; positions in the clip and timestamps follow from them, so that
    /// the loop has no seam.
    frames: u64,
    sounds: u64,
    video_sequence: u16,
    audio_sequence: u16,
}

impl<'a> Dealer<'a> {
    fn new(clip: &'a Clip, publisher: LocalPublisher) -> Self {
        Self {
            packetizer: Packetizer::new(clip.video_codec, MAX_PAYLOAD),
            clip,
            publisher,
            payloads: Payloads::default(),
            frames: 0,
            sounds: 0,
            video_sequence: 0,
            audio_sequence: 0,
        }
    }

    #[expect(clippy::disallowed_methods, reason = "the dealer deals in real time")]
    async fn run(mut self) -> Result<(), DealerError> {
        let mut ticks = interval_at(Instant::now(), Duration::from_secs(1) / self.clip.fps);
        // After a stall the dealer catches up: its clock is the wall's.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
        loop {
            ticks.tick().await;
            let mut media = Vec::new();
            self.sound(&mut media);
            self.frame(&mut media)?;
            if !self.publisher.send(media).await {
                return Ok(());
            }
        }
    }

    /// The next frame of video.
    fn frame(&mut self, media: &mut Vec<LocalMedia>) -> Result<(), DealerError> {
        let frame = &self.clip.video[(self.frames % self.clip.video.len() as u64) as usize];
        self.payloads.clear();
        self.packetizer.packetize(&frame.data, &mut self.payloads)?;
        let clock = u64::from(self.clip.video_codec.clock_rate());
        let timestamp = (self.frames * clock / u64::from(self.clip.fps)) as u32;
        let last = self.payloads.len().saturating_sub(1);
        for (n, payload) in self.payloads.iter().enumerate() {
            media.push(LocalMedia {
                kind: MediaKind::Video,
                sequence_number: self.video_sequence,
                timestamp,
                marker: n == last,
                payload: Bytes::copy_from_slice(payload),
            });
            self.video_sequence = self.video_sequence.wrapping_add(1);
        }
        self.frames += 1;
        Ok(())
    }

    /// The Opus packets that begin before the next frame is over.
    fn sound(&mut self, media: &mut Vec<LocalMedia>) {
        let audio = &self.clip.audio;
        let due = (self.frames + 1) * audio.len() as u64 / self.clip.video.len() as u64;
        while self.sounds < due {
            media.push(LocalMedia {
                kind: MediaKind::Audio,
                sequence_number: self.audio_sequence,
                timestamp: (self.sounds as u32).wrapping_mul(OPUS_STEP),
                marker: false,
                payload: audio[(self.sounds % audio.len() as u64) as usize].clone(),
            });
            self.audio_sequence = self.audio_sequence.wrapping_add(1);
            self.sounds += 1;
        }
    }
}
