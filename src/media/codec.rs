//! The codecs that are forwarded.

use std::fmt;

use super::red::PrimaryBlock;
use super::{av1, h264, h265, vp8, vp9};

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
    /// RFC 7798, 90 kHz, one stream (`tx-mode=SRST`) without decoding order numbers.
    H265,
    /// RFC 7741, 90 kHz.
    Vp8,
    /// RFC 9628, 90 kHz.
    Vp9,
    /// RTP Payload Format For AV1, v1.0.0, 90 kHz.
    Av1,
    /// RFC 7587, always 48 kHz and two channels on the wire.
    Opus,
}

impl Codec {
    /// All that are forwarded.
    pub const ALL: [Codec; 6] = [Codec::H264, Codec::H265, Codec::Vp8, Codec::Vp9, Codec::Av1, Codec::Opus];

    /// The RTP clock rate in Hz.
    pub const fn clock_rate(self) -> u32 {
        match self.kind() {
            MediaKind::Video => 90_000,
            MediaKind::Audio => 48_000,
        }
    }

    /// Whether the codec carries audio or video.
    pub const fn kind(self) -> MediaKind {
        match self {
            Codec::H264 | Codec::H265 | Codec::Vp8 | Codec::Vp9 | Codec::Av1 => MediaKind::Video,
            Codec::Opus => MediaKind::Audio,
        }
    }

    /// Whether one stream can have several spatial layers.
    pub const fn has_spatial_layers(self) -> bool {
        matches!(self, Codec::Vp9 | Codec::Av1)
    }

    /// The encoding name of `a=rtpmap`, compared without regard to case (RFC 8866 §6.6).
    pub const fn encoding_name(self) -> &'static str {
        match self {
            Codec::H264 => "H264",
            Codec::H265 => "H265",
            Codec::Vp8 => "VP8",
            Codec::Vp9 => "VP9",
            Codec::Av1 => "AV1",
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
    /// missing or were sent); `true` is certain for VP8 and Opus, for the others only likely, since several packets at
    /// the head of a frame look like a first one. Where a picture has several spatial layers, its frame is all of them.
    pub starts_frame: bool,
    /// Carries what a decoder needs before a keyframe: an SPS for H.264 and H.265, a sequence header for AV1. VP8, VP9
    /// and Opus need nothing beside the frame, so there it is equal to `keyframe`.
    pub parameter_sets: bool,
    /// Part of a frame that refers to no frame before it: a slice of an H.264 IDR or an H.265 IRAP picture, the first
    /// packet of a VP8 or VP9 key frame or of an AV1 coded video sequence, every Opus packet. A safe join point is a
    /// frame with both `parameter_sets` and `keyframe`: [`PacketRing::gop_start`](super::PacketRing::gop_start) finds it.
    pub keyframe: bool,
    /// The temporal layer, where the payload names one (VP8, VP9 and H.265 TID, AV1 `temporal_id`).
    pub temporal_layer: Option<u8>,
    /// The spatial layer, where the payload names one (VP9 SID, AV1 `spatial_id`).
    pub spatial_layer: Option<u8>,
    /// The last packet of its layer frame, where that is told from the end of the picture (VP9 E, and dependency descriptors).
    pub ends_layer_frame: bool,
    /// From this frame on a receiver may have temporal layers that it was not given before. A keyframe is one such for all.
    pub climb: Option<Climb>,
    /// From this frame on a receiver that was given it may have spatial layers that it was not given before, with all temporal
    /// layers that it has: a bit for each highest layer that it may go up to. A keyframe is such for all.
    pub spatial_switch: u8,
    /// The payload is RED (RFC 2198), and this is its newest block.
    pub primary: Option<PrimaryBlock>,
}

/// A frame from which on more temporal layers can be decoded by one who lacks what they had before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Climb {
    /// For whoever has had the layers up to this one.
    pub needs: u8,
    /// These can be decoded from this frame on, this frame included: for each highest spatial layer that a receiver may have.
    pub reaches: [Option<u8>; SPATIAL_LAYERS],
}

impl Climb {
    /// Whatever spatial layers the receiver has.
    pub const fn of(needs: u8, reaches: u8) -> Self {
        Self { needs, reaches: [Some(reaches); SPATIAL_LAYERS] }
    }

    /// What a receiver reaches that has the spatial layers up to this one.
    pub fn reaches_with(&self, spatial: u8) -> Option<u8> {
        self.reaches[usize::from(spatial).min(SPATIAL_LAYERS - 1)]
    }
}

/// Spatial layers that are told apart; higher ones count as the last. AV1 has no more, nor has anybody who encodes VP9.
pub const SPATIAL_LAYERS: usize = 4;

/// Reads `payload`, a clear RTP payload without padding, as one of `codec`. Any bytes are allowed.
pub fn facts(codec: Codec, payload: &[u8]) -> PayloadFacts {
    match codec {
        Codec::H264 => h264::facts(payload),
        Codec::H265 => h265::facts(payload),
        Codec::Vp8 => vp8::facts(payload),
        Codec::Vp9 => vp9::facts(payload),
        Codec::Av1 => av1::facts(payload),
        Codec::Opus => opus_facts(payload),
    }
}

/// RFC 7587 §4.2: a payload is one Opus packet, whole. Each is a frame and can be decoded first.
fn opus_facts(payload: &[u8]) -> PayloadFacts {
    let any = !payload.is_empty();
    PayloadFacts { starts_frame: any, parameter_sets: any, keyframe: any, ..PayloadFacts::default() }
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
        for codec in Codec::ALL {
            assert_eq!(facts(codec, &[]), PayloadFacts::default());
        }
    }

    proptest! {
        #[test]
        fn no_payload_panics(payload in prop::collection::vec(any::<u8>(), 0..64)) {
            for codec in Codec::ALL {
                facts(codec, &payload);
            }
        }
    }
}
