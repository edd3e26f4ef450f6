//! The answer's text.

use std::fmt::Write;
use std::net::SocketAddr;

use super::attributes::{extension, is_token_char};
use super::simulcast;
use super::{
    DataSection, DtlsRole, ExtensionIds, LocalDescription, MediaDirection, MediaSection, Negotiated, Section,
    StreamParameters,
};
use crate::media::MediaKind;

/// RFC 8445 §5.1.2.2: the recommended type preference of host candidates.
const HOST_TYPE_PREFERENCE: u32 = 126;

/// The local preference of the first candidate over UDP (RFC 8445 §5.1.2.1).
const UDP_PREFERENCE: u32 = 65_535;

/// Over TCP (RFC 6544 §4.2): 2¹³ times the direction's preference, which is 4 for passive, and the highest of the other
/// preferences. So every candidate over UDP goes first.
const TCP_PREFERENCE: u32 = (4 << 13) + 8191;

/// Our SCTP port, "5000" by habit of everybody (RFC 8841 §5).
const SCTP_PORT: u16 = 5000;

/// The longest msid identifier (RFC 8830 §2).
const MAX_MSID: usize = 64;

/// Writes the answer to an offer (RFC 8829 §5.3.1), CRLF-terminated, beginning with `v=`.
///
/// ICE, DTLS and mux attributes are repeated in every accepted section: RFC 9143 §7.1.3 needs them in the tagged one only,
/// and every client takes them in all. `a=rtcp-mux-only` is left out: RFC 9725 §4.4.1 demands it and RFC 8858 §3 forbids
/// it in answers.
pub fn write_answer(negotiated: &Negotiated, local: &LocalDescription) -> String {
    let mut answer = Answer { negotiated, stream_id: msid_token(&local.stream_id), local, text: String::new() };
    answer.session_level();
    for section in &negotiated.sections {
        match section {
            Section::Media(media) => answer.media(media),
            Section::Data(data) => answer.data(data),
            Section::Rejected { media_line, mid } => answer.rejected(media_line, mid.as_deref()),
        }
    }
    answer.text
}

struct Answer<'a> {
    negotiated: &'a Negotiated,
    local: &'a LocalDescription,
    stream_id: String,
    text: String,
}

/// What we want to receive in a section in which we send: feedback, at a twentieth of this. RFC 3264 §5.1, of offers: "it
/// indicates the desired bandwidth that the offerer would like to receive"; an answer's has the same sense. TIAS is of RFC 3890.
///
/// Browsers give a twentieth of what they believe they may send to transport-wide feedback, within 50 and 250 ms between two.
/// A player sends nothing else, so it stays at its first guess of 300 kbit/s, and reports 16 times a second whatever comes
/// of it. With this line Chromium reports four times a second (`docs/whip-whep.md`).
const FEEDBACK_BITS_PER_SECOND: u32 = 43_000;

/// The same where the player gets the layer that its path carries: more often, so that it is noticed soon when that is less.
const FEEDBACK_BITS_PER_SECOND_WITH_LAYERS: u32 = 120_000;

/// Appends one line.
macro_rules! line {
    ($answer:expr, $($format:tt)+) => {{
        // Writing to a String cannot fail.
        let _ = write!($answer.text, $($format)+);
        $answer.text.push_str("\r\n");
    }};
}

impl Answer<'_> {
    fn session_level(&mut self) {
        line!(self, "v=0");
        // RFC 8829 §5.2.1: a session id with the highest bit zero.
        line!(self, "o=- {} 1 IN IP4 0.0.0.0", self.local.session_id & (u64::MAX >> 1));
        line!(self, "s=-");
        line!(self, "t=0 0");
        line!(self, "a=ice-lite");
        // RFC 8445 §10: what complies with it says so. Not "trickle": the answer has all candidates there will be.
        line!(self, "a=ice-options:ice2");
        if self.negotiated.bundled {
            self.group();
        }
        match self.negotiated.direction {
            MediaDirection::Send => line!(self, "a=msid-semantic: WMS {}", self.stream_id),
            MediaDirection::Receive => line!(self, "a=msid-semantic: WMS"),
        }
    }

    /// RFC 9143 §7.3.3: what is refused is not in the group.
    fn group(&mut self) {
        let mids = self.negotiated.sections.iter().filter_map(|section| match section {
            Section::Media(media) => Some(media.mid.as_str()),
            Section::Data(data) => Some(data.mid.as_str()),
            Section::Rejected { .. } => None,
        });
        let mids = mids.fold(String::new(), |list, mid| list + " " + mid);
        line!(self, "a=group:BUNDLE{mids}");
    }

    fn media(&mut self, media: &MediaSection) {
        let kind = match media.kind {
            MediaKind::Audio => "audio",
            MediaKind::Video => "video",
        };
        let payload_type = media.stream.as_ref().map_or(media.fallback_format.0, |stream| stream.payload_type);
        let mut formats = vec![payload_type];
        if let Some(stream) = &media.stream {
            let red = stream.red.as_ref();
            formats.extend(red.map(|red| red.payload_type));
            if red.is_some_and(|red| red.preferred) {
                formats.reverse();
            }
            formats.extend(stream.rtx_payload_type);
        }
        let formats: Vec<_> = formats.iter().map(u8::to_string).collect();
        line!(self, "m={kind} 9 UDP/TLS/RTP/SAVPF {}", formats.join(" "));
        line!(self, "c=IN IP4 0.0.0.0");
        if self.negotiated.direction == MediaDirection::Send
            && media.stream.as_ref().is_some_and(|stream| stream.feedback.transport_cc)
        {
            let bits = match self.negotiated.layers {
                true => FEEDBACK_BITS_PER_SECOND_WITH_LAYERS,
                false => FEEDBACK_BITS_PER_SECOND,
            };
            line!(self, "b=TIAS:{bits}");
        }
        line!(self, "a=mid:{}", media.mid);
        self.transport();
        line!(self, "a={}", self.direction(media.stream.is_some()));
        line!(self, "a=rtcp-mux");
        if media.reduced_size_rtcp {
            line!(self, "a=rtcp-rsize");
        }
        match &media.stream {
            Some(stream) => self.stream(media.kind, stream),
            None => line!(self, "a=rtpmap:{payload_type} {}", media.fallback_format.1),
        }
        self.candidates();
    }

    fn stream(&mut self, kind: MediaKind, stream: &StreamParameters) {
        let payload_type = stream.payload_type;
        self.extensions(stream);
        let channels = if kind == MediaKind::Audio { "/2" } else { "" };
        line!(self, "a=rtpmap:{payload_type} {}/{}{channels}", stream.codec, stream.codec.clock_rate());
        if !stream.fmtp.is_empty() {
            line!(self, "a=fmtp:{payload_type} {}", stream.fmtp);
        }
        self.feedback(stream);
        if let Some(rtx) = stream.rtx_payload_type {
            line!(self, "a=rtpmap:{rtx} rtx/{}", stream.codec.clock_rate());
            line!(self, "a=fmtp:{rtx} apt={payload_type}");
        }
        if let Some(red) = &stream.red {
            line!(self, "a=rtpmap:{} red/{}{channels}", red.payload_type, stream.codec.clock_rate());
            let blocks = vec![payload_type.to_string(); red.blocks];
            line!(self, "a=fmtp:{} {}", red.payload_type, blocks.join("/"));
        }
        for rid_or_simulcast in simulcast::answer_lines(&stream.layers) {
            line!(self, "a={rid_or_simulcast}");
        }
        if self.negotiated.direction == MediaDirection::Send {
            self.sources(kind, stream.rtx_payload_type.is_some());
        }
    }

    fn extensions(&mut self, stream: &StreamParameters) {
        if self.negotiated.extmap_allow_mixed && stream.extensions != ExtensionIds::default() {
            line!(self, "a=extmap-allow-mixed");
        }
        let (ids, directed) = (&stream.extensions, &stream.directed_extensions);
        self.extension(ids.mid, directed.mid, extension::MID);
        self.extension(ids.rid, directed.rid, extension::RID);
        self.extension(ids.repaired_rid, directed.repaired_rid, extension::REPAIRED_RID);
        self.extension(ids.transport_cc, directed.transport_cc, extension::TRANSPORT_CC);
        self.extension(ids.playout_delay, directed.playout_delay, extension::PLAYOUT_DELAY);
        self.extension(ids.abs_capture_time, directed.abs_capture_time, extension::ABS_CAPTURE_TIME);
        self.extension(ids.abs_send_time, directed.abs_send_time, extension::ABS_SEND_TIME);
        self.extension(ids.dependency_descriptor, directed.dependency_descriptor, extension::DEPENDENCY_DESCRIPTOR);
    }

    /// RFC 8285 §6: where the offer said in which direction it will use an extension, the answer says the reverse.
    fn extension(&mut self, id: Option<u8>, directed: Option<u8>, uri: &str) {
        let Some(id) = id else { return };
        match directed {
            Some(_) => line!(self, "a=extmap:{id}/{} {uri}", self.direction(true)),
            None => line!(self, "a=extmap:{id} {uri}"),
        }
    }

    fn feedback(&mut self, stream: &StreamParameters) {
        let feedback = &stream.feedback;
        let values = [
            (feedback.transport_cc, "transport-cc"),
            (feedback.remb, "goog-remb"),
            (feedback.fir, "ccm fir"),
            (feedback.nack, "nack"),
            (feedback.pli, "nack pli"),
        ];
        for (_, value) in values.into_iter().filter(|(agreed, _)| *agreed) {
            line!(self, "a=rtcp-fb:{} {value}", stream.payload_type);
        }
    }

    /// What we send, in the words of RFC 5576 and RFC 8830; the same for every player of a table.
    fn sources(&mut self, kind: MediaKind, rtx: bool) {
        let (ssrc, track) = match kind {
            MediaKind::Audio => (self.local.audio_ssrc, "audio"),
            MediaKind::Video => (self.local.video_ssrc, "video"),
        };
        line!(self, "a=msid:{} {track}", self.stream_id);
        let rtx = rtx.then_some(self.local.video_rtx_ssrc);
        if let Some(rtx) = rtx {
            line!(self, "a=ssrc-group:FID {ssrc} {rtx}");
        }
        for ssrc in [Some(ssrc), rtx].into_iter().flatten() {
            line!(self, "a=ssrc:{ssrc} cname:{}", self.stream_id);
        }
    }

    fn data(&mut self, data: &DataSection) {
        line!(self, "m=application 9 UDP/DTLS/SCTP webrtc-datachannel");
        line!(self, "c=IN IP4 0.0.0.0");
        line!(self, "a=mid:{}", data.mid);
        self.transport();
        line!(self, "a=sctp-port:{SCTP_PORT}");
        line!(self, "a=max-message-size:{}", self.local.max_message_size);
        self.candidates();
    }

    /// RFC 3264 §6: refused by port 0, the rest of the line as offered. Not in the bundle (RFC 9143 §7.3.3).
    fn rejected(&mut self, (media, protocol, formats): &(String, String, String), mid: Option<&str>) {
        line!(self, "m={media} 0 {protocol} {formats}");
        line!(self, "c=IN IP4 0.0.0.0");
        if let Some(mid) = mid {
            line!(self, "a=mid:{mid}");
        }
        line!(self, "a=inactive");
    }

    fn transport(&mut self) {
        line!(self, "a=ice-ufrag:{}", self.local.ice.ufrag);
        line!(self, "a=ice-pwd:{}", self.local.ice.pwd);
        let mut digest = String::with_capacity(96);
        for (index, byte) in self.local.fingerprint.iter().enumerate() {
            let _ = write!(digest, "{}{byte:02X}", if index == 0 { "" } else { ":" });
        }
        line!(self, "a=fingerprint:sha-256 {digest}");
        match self.negotiated.dtls_role {
            DtlsRole::Server => line!(self, "a=setup:passive"),
            DtlsRole::Client => line!(self, "a=setup:active"),
        }
        // RFC 8842 §5.3: only where the offer had one; 20 to 255 characters. A u64 has at most 20 digits.
        if self.negotiated.offered_tls_id {
            line!(self, "a=tls-id:{:020}", self.local.session_id);
        }
    }

    /// Host candidates with priorities that differ and follow the given order (RFC 8445 §5.1.2.1, §5.2): all over UDP
    /// first, since FFmpeg takes the first line. RFC 6544 §4.4 has a lite agent offer passive candidates over TCP alone.
    fn candidates(&mut self) {
        let addresses = &self.local.candidates;
        for (index, address) in addresses.iter().enumerate() {
            let preference = UDP_PREFERENCE.saturating_sub(index as u32);
            self.candidate(index + 1, "udp", preference, address, "");
        }
        for (index, address) in addresses.iter().enumerate().filter(|_| self.local.tcp_candidates) {
            let preference = TCP_PREFERENCE.saturating_sub(index as u32);
            self.candidate(addresses.len() + index + 1, "tcp", preference, address, " tcptype passive");
        }
        line!(self, "a=end-of-candidates");
    }

    /// Foundations differ: no two candidates share address and transport (RFC 8445 §5.1.1.3).
    fn candidate(&mut self, foundation: usize, transport: &str, preference: u32, address: &SocketAddr, kind: &str) {
        let priority = HOST_TYPE_PREFERENCE << 24 | preference << 8 | 255;
        let (ip, port) = (address.ip().to_canonical(), address.port());
        line!(self, "a=candidate:{foundation} 1 {transport} {priority} {ip} {port} typ host{kind}");
    }

    fn direction(&self, flows: bool) -> &'static str {
        match (flows, self.negotiated.direction) {
            (false, _) => "inactive",
            (true, MediaDirection::Send) => "sendonly",
            (true, MediaDirection::Receive) => "recvonly",
        }
    }
}

/// A table's name as an identifier that msid and CNAME can carry, whatever the name.
fn msid_token(name: &str) -> String {
    let token: String =
        name.bytes().take(MAX_MSID).map(|b| if is_token_char(b) { char::from(b) } else { '-' }).collect();
    if token.is_empty() { "-".to_owned() } else { token }
}
