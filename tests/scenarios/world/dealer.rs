//! A publisher inside the node, whose frames cost nothing to make.

use bytes::Bytes;
use tableside::media::{Codec, MediaKind};
use tableside::rtc::sdp::TableMedia;
use tableside::shard::LocalMedia;

use super::peer::vp8_payload;

/// Sends VP8 frames of one size. Only numbers and timestamps change from frame to frame, so that none is allocated.
pub struct Dealer {
    frame: Vec<LocalMedia>,
    keyframe: Bytes,
    interframe: Bytes,
}

impl Dealer {
    /// Frames of `packets` packets with payloads of `payload_len` bytes.
    pub fn new(packets: u16, payload_len: usize) -> Self {
        let payload = |n, keyframe| Bytes::from(vp8_payload(0, n, keyframe, payload_len));
        let packet = |n: u16| LocalMedia {
            kind: MediaKind::Video,
            sequence_number: n.wrapping_sub(packets),
            timestamp: 0,
            marker: n + 1 == packets,
            payload: payload(usize::from(n), false),
        };
        Self { frame: (0..packets).map(packet).collect(), keyframe: payload(0, true), interframe: payload(0, false) }
    }

    /// What the table says about it; the players of the world have negotiated audio as well.
    pub fn media() -> TableMedia {
        TableMedia {
            video: Some((Codec::Vp8, String::new())),
            audio: Some((Codec::Opus, String::new())),
            ..TableMedia::default()
        }
    }

    /// The packets of the next frame.
    pub fn next_frame(&mut self, keyframe: bool) -> &[LocalMedia] {
        let packets = self.frame.len() as u16;
        for packet in &mut self.frame {
            packet.sequence_number = packet.sequence_number.wrapping_add(packets);
            packet.timestamp = packet.timestamp.wrapping_add(3000);
        }
        self.frame[0].payload = if keyframe { self.keyframe.clone() } else { self.interframe.clone() };
        &self.frame
    }
}
