//! What a negotiation settles: the values that the rest of the endpoint works with.

use std::net::SocketAddr;

use crate::media::{Codec, MediaKind};

/// Our side of the DTLS handshake (RFC 8842 §5.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DtlsRole {
    /// We answered `a=setup:passive`.
    Server,
    /// We answered `a=setup:active`, since the offer was `passive`.
    Client,
}

/// A certificate fingerprint (RFC 8122 §5). Only SHA-256, SHA-384 and SHA-512 are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fingerprint {
    /// The hash function.
    pub hash: FingerprintHash,
    /// The digest, as long as the hash function says.
    pub digest: Vec<u8>,
}

/// Hash functions accepted in `a=fingerprint`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FingerprintHash {
    /// `sha-256`
    Sha256,
    /// `sha-384`
    Sha384,
    /// `sha-512`
    Sha512,
}

/// ICE user fragment and password (RFC 8839 §5.4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IceCredentials {
    /// 4 to 256 ice-chars.
    pub ufrag: String,
    /// 22 to 256 ice-chars.
    pub pwd: String,
}

/// Header extension ids in use in one section (RFC 8285); `None` where not negotiated.
///
/// Ids are 1–14 or 16–255; one above 14 forces the two-byte form on the packet that carries it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ExtensionIds {
    /// `urn:ietf:params:rtp-hdrext:sdes:mid` (RFC 9143 §15)
    pub mid: Option<u8>,
    /// `urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id` (RFC 8852 §3.1), where there is simulcast
    pub rid: Option<u8>,
    /// `urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id` (RFC 8852 §3.2), likewise
    pub repaired_rid: Option<u8>,
    /// `http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01`
    pub transport_cc: Option<u8>,
    /// `http://www.webrtc.org/experiments/rtp-hdrext/playout-delay`
    pub playout_delay: Option<u8>,
    /// `http://www.webrtc.org/experiments/rtp-hdrext/abs-capture-time`
    pub abs_capture_time: Option<u8>,
    /// `http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time`, where there is no `transport_cc`
    pub abs_send_time: Option<u8>,
    /// `https://aomediacodec.github.io/av1-rtp-spec/#dependency-descriptor-rtp-header-extension`
    pub dependency_descriptor: Option<u8>,
}

/// RTCP feedback agreed for a section (RFC 4585 §4.2, RFC 5104 §7.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Feedback {
    /// `nack`
    pub nack: bool,
    /// `nack pli`
    pub pli: bool,
    /// `ccm fir`
    pub fir: bool,
    /// `transport-cc`
    pub transport_cc: bool,
    /// `goog-remb`
    pub remb: bool,
}

/// One `m=audio` or `m=video` section of an offer, as it will be answered.
#[derive(Clone, Debug, PartialEq)]
pub struct MediaSection {
    /// `a=mid`
    pub mid: String,
    /// Audio or video.
    pub kind: MediaKind,
    /// What flows; `None` answers the section `inactive` (kept in the bundle, nothing is sent on it).
    pub stream: Option<StreamParameters>,
    /// A payload type of the offer to name in an inactive answer, with its rtpmap encoding (`opus/48000/2`).
    pub fallback_format: (u8, String),
    /// `a=rtcp-rsize` was offered (RFC 5506 §5) and is answered.
    pub reduced_size_rtcp: bool,
}

/// The one codec that a section was answered with.
#[derive(Clone, Debug, PartialEq)]
pub struct StreamParameters {
    /// The codec.
    pub codec: Codec,
    /// Its payload type in this session.
    pub payload_type: u8,
    /// The format parameters to answer with (`a=fmtp`), empty for none.
    pub fmtp: String,
    /// The payload type of its RTX (RFC 4588), where offered.
    pub rtx_payload_type: Option<u8>,
    /// RED of this codec (RFC 2198), where agreed.
    pub red: Option<Red>,
    /// Publisher only: the parameter sets of H.264 or H.265 that the offer carries, as NAL units.
    pub parameter_sets: Vec<Vec<u8>>,
    /// Agreed feedback.
    pub feedback: Feedback,
    /// Agreed header extensions.
    pub extensions: ExtensionIds,
    /// Those of `extensions` whose `a=extmap` named a direction; their answer names ours (RFC 8285 §6).
    pub directed_extensions: ExtensionIds,
    /// Publisher only: the SSRC announced for the media, where there was an `a=ssrc` line.
    pub remote_ssrc: Option<u32>,
    /// Publisher only: the SSRC announced for RTX (`a=ssrc-group:FID`).
    pub remote_rtx_ssrc: Option<u32>,
    /// Publisher only: the layers of a simulcast in the order of the offer, which says nothing about their quality.
    /// Empty where one stream is all there is.
    pub layers: Vec<SimulcastLayer>,
}

/// One RTP stream of a simulcast, told apart by its rid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SimulcastLayer {
    /// `a=rid` (RFC 8851), at most 16 bytes.
    pub rid: String,
    /// The offer limited the rid to payload types; this is the one that was agreed.
    pub restricted_to: Option<u8>,
    /// `max-width` and `max-height`, pixels, where the offer says both.
    pub max_picture: Option<(u32, u32)>,
}

/// RED (RFC 2198) beside the codec whose packets it repeats.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Red {
    /// Its payload type.
    pub payload_type: u8,
    /// How many blocks of the codec its `a=fmtp` lists, the primary one among them.
    pub blocks: usize,
    /// It was offered before the codec: answered in the same order, it is what a browser then sends.
    pub preferred: bool,
}

/// The data channel section (RFC 8841).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataSection {
    /// `a=mid`
    pub mid: String,
    /// `a=sctp-port` of the offer.
    pub remote_sctp_port: u16,
    /// The largest message the peer takes, bytes; `u32::MAX` where the offer says 0.
    pub remote_max_message_size: u32,
}

/// A section of the answer, in the order of the offer.
#[derive(Clone, Debug, PartialEq)]
pub enum Section {
    /// Audio or video.
    Media(MediaSection),
    /// SCTP over DTLS.
    Data(DataSection),
    /// Answered with port 0 and outside the bundle: the media type, the protocol and the formats of the offer, and its mid.
    Rejected {
        /// The `m=` line's media, protocol and formats, to be mirrored.
        media_line: (String, String, String),
        /// `a=mid`, where there was one.
        mid: Option<String>,
    },
}

/// Which way media flows, seen from us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MediaDirection {
    /// WHIP: we answer `recvonly`.
    Receive,
    /// WHEP: we answer `sendonly`.
    Send,
}

/// All that an offer and our policy settled; an answer is written from it.
#[derive(Clone, Debug, PartialEq)]
pub struct Negotiated {
    /// WHIP or WHEP.
    pub direction: MediaDirection,
    /// Our DTLS role.
    pub dtls_role: DtlsRole,
    /// The peer's ICE credentials.
    pub remote_ice: IceCredentials,
    /// The peer's certificate matches one of these, or the session ends. Never empty.
    pub remote_fingerprints: Vec<Fingerprint>,
    /// `a=tls-id` of the offer, where there was one (the answer must then carry one too, RFC 8842 §5.3).
    pub offered_tls_id: bool,
    /// `a=extmap-allow-mixed` was offered.
    pub extmap_allow_mixed: bool,
    /// Whether the offer has `a=group:BUNDLE`: the answer has one only then (RFC 9143 §7.3).
    pub bundled: bool,
    /// Of a player: the table's video comes in several layers.
    pub layers: bool,
    /// The sections, in the order of the offer.
    pub sections: Vec<Section>,
}

impl Negotiated {
    /// The stream of the first section of `kind` that has one, with its mid.
    pub fn stream(&self, kind: MediaKind) -> Option<(&str, &StreamParameters)> {
        self.sections.iter().find_map(|section| match section {
            Section::Media(m) if m.kind == kind => m.stream.as_ref().map(|s| (m.mid.as_str(), s)),
            _ => None,
        })
    }

    /// The data channel section.
    pub fn data(&self) -> Option<&DataSection> {
        self.sections.iter().find_map(|section| match section {
            Section::Data(d) => Some(d),
            _ => None,
        })
    }
}

/// What a table sends, for the negotiation of a player: taken from its publisher's [`Negotiated`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TableMedia {
    /// The video codec and the publisher's fmtp (for matching the H.264 profile).
    pub video: Option<(Codec, String)>,
    /// The audio codec and the publisher's fmtp.
    pub audio: Option<(Codec, String)>,
    /// The publisher may send its audio in RED.
    pub red: bool,
    /// The video comes in several layers, of which each player gets what its path carries.
    pub layers: bool,
    /// Parameter sets of the video that the publisher's SDP carries, as NAL units.
    pub parameter_sets: Vec<Vec<u8>>,
}

/// What we add to a [`Negotiated`] to write the answer.
#[derive(Clone, Debug)]
pub struct LocalDescription {
    /// `o=` session id.
    pub session_id: u64,
    /// Our credentials.
    pub ice: IceCredentials,
    /// SHA-256 of our certificate.
    pub fingerprint: [u8; 32],
    /// Host candidates, best first; IPv4 before IPv6 (FFmpeg takes the first `udp host` line).
    pub candidates: Vec<SocketAddr>,
    /// Whether the same can be reached over TCP (RFC 6544).
    pub tcp_candidates: bool,
    /// WHEP: SSRCs we send with, the same for every player of a table.
    pub video_ssrc: u32,
    /// WHEP: the RTX SSRC of the video.
    pub video_rtx_ssrc: u32,
    /// WHEP: the audio SSRC.
    pub audio_ssrc: u32,
    /// WHEP: `a=msid` stream id and CNAME, the same in all sections (RFC 8834 §4.9): the table's name.
    pub stream_id: String,
    /// The largest data channel message we accept, bytes.
    pub max_message_size: u32,
}
