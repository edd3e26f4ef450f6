//! The codecs that are forwarded.

use std::fmt;

use super::{h264, vp8};

/// Audio or video.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MediaKind {
    /// `m=audio`
    Audio,
    /// `m=video`
    Video,
}

/// A codec that is passed through without transcoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Codec {
    /// RFC 6184, 90 kHz, packetization-mode 1.
    H264,
    /// RFC 7741, 90 kHz.
    Vp8,
    /// RFC 7587, always 48 kHz and two channels on the wire.
    Opus,
}

impl Codec {
    /// The RTP clock rate in Hz.
    pub const fn clock_rate(self) -> u32 {
        match self {
            Codec::H264 | Codec::Vp8 => 90_000,
            Codec::Opus => 48_000,
        }
    }

    /// Whether the codec carries audio or video.
    pub const fn kind(self) -> MediaKind {
        match self {
            Codec::H264 | Codec::Vp8 => MediaKind::Video,
            Codec::Opus => MediaKind::Audio,
        }
    }

    /// The encoding name of `a=rtpmap`, compared without regard to case (RFC 8866 §6.6).
    pub const fn encoding_name(self) -> &'static str {
        match self {
            Codec::H264 => "H264",
            Codec::Vp8 => "VP8",
            Codec::Opus => "opus",
        }
    }
}

impl fmt::Display for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.encoding_name())
    }
}

/// What a payload says about the frame that it belongs to. A payload that makes no sense says nothing: all `false`.
///
/// Where a frame ends is not among it: that is the RTP marker, or a changed timestamp where a sender forgets that.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PayloadFacts {
    /// The payload can be the first of its frame. `false` is certain (before it, packets of the same frame are
    /// missing or were sent); `true` is certain for VP8 and Opus, for H.264 only likely, since several packets at the
    /// head of a frame look like a first one.
    pub starts_frame: bool,
    /// Carries what a decoder needs before a keyframe: for H.264 an SPS. VP8 and Opus need nothing beside the frame,
    /// so there it is equal to `keyframe`.
    pub parameter_sets: bool,
    /// Part of a frame that refers to no frame before it: an H.264 IDR slice, the first packet of a VP8 key frame,
    /// every Opus packet. A safe join point is a frame with both `parameter_sets` and `keyframe`:
    /// [`PacketRing::gop_start`](super::PacketRing::gop_start) finds it.
    pub keyframe: bool,
    /// The temporal layer, where the payload names one (VP8 TID).
    pub temporal_layer: Option<u8>,
}

/// Reads `payload`, a clear RTP payload without padding, as one of `codec`. Any bytes are allowed.
pub fn facts(codec: Codec, payload: &[u8]) -> PayloadFacts {
    match codec {
        Codec::H264 => h264::facts(payload),
        Codec::Vp8 => vp8::facts(payload),
        Codec::Opus => opus_facts(payload),
    }
}

/// RFC 7587 §4.2: a payload is one Opus packet, whole. Each is a frame and can be decoded first.
fn opus_facts(payload: &[u8]) -> PayloadFacts {
    let any = !payload.is_empty();
    PayloadFacts { starts_frame: any, parameter_sets: any, keyframe: any, temporal_layer: None }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_opus_packet_is_a_join_point() {
        let facts = facts(Codec::Opus, &[0x78, 1, 2]);
        assert!(facts.starts_frame && facts.parameter_sets && facts.keyframe);
    }

    #[test]
    fn an_empty_payload_says_nothing() {
        for codec in [Codec::H264, Codec::Vp8, Codec::Opus] {
            assert_eq!(facts(codec, &[]), PayloadFacts::default());
        }
    }

    proptest! {
        #[test]
        fn no_payload_panics(payload in prop::collection::vec(any::<u8>(), 0..64)) {
            for codec in [Codec::H264, Codec::Vp8, Codec::Opus] {
                facts(codec, &payload);
            }
        }
    }
}
