//! Offers as a browser makes them, cut down to what is used: Opus and one VP8 video, with RTX and transport-wide feedback.

use std::fmt::Write as _;
use std::net::SocketAddr;

use tableside::rtc::sdp::IceCredentials;

/// Payload types of our offers.
pub const AUDIO: u8 = 111;
/// VP8.
pub const VIDEO: u8 = 96;
/// Retransmissions of VP8.
pub const RTX: u8 = 97;

/// Header extension ids of our offers.
pub const MID: u8 = 1;
/// Transport-wide numbers.
pub const TRANSPORT_CC: u8 = 3;
/// Names a simulcast layer.
pub const RID: u8 = 4;
/// Names the layer that a retransmission repairs.
pub const REPAIRED_RID: u8 = 5;

/// `a=mid` of the audio section.
pub const AUDIO_MID: &str = "0";
/// `a=mid` of the video section.
pub const VIDEO_MID: &str = "1";
/// `a=mid` of the section with data channels.
pub const DATA_MID: &str = "2";

/// Of the only candidate: type preference 126, local preference 65535, component 1 (RFC 8445 §5.1.2.1).
const HOST_PRIORITY: u32 = (126 << 24) + (65_535 << 8) + 255;

const HEADER_EXTENSIONS: [(u8, &str); 2] = [
    (MID, "urn:ietf:params:rtp-hdrext:sdes:mid"),
    (TRANSPORT_CC, "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01"),
];

/// Who offers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its credentials.
    pub ice: IceCredentials,
    /// Of its certificate.
    pub fingerprint: [u8; 32],
    /// Where its socket is, as far as it knows.
    pub candidate: Option<SocketAddr>,
}

/// What a publisher sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sends {
    /// Of the audio stream.
    pub audio_ssrc: u32,
    /// Of the one video stream. A simulcast has none here: its streams are told apart by rid.
    pub video_ssrcs: Option<(u32, u32)>,
    /// The layers of a simulcast, best first; empty for one encoding.
    pub rids: Vec<String>,
}

/// A player's offer, with data channels if it `has_data`.
pub fn player(peer: &Peer, has_data: bool) -> String {
    offer(peer, None, has_data)
}

/// A publisher's offer.
pub fn publisher(peer: &Peer, sends: &Sends) -> String {
    offer(peer, Some(sends), false)
}

fn offer(peer: &Peer, sends: Option<&Sends>, channels: bool) -> String {
    let Peer { ice, fingerprint, candidate } = peer;
    let mut sdp = String::with_capacity(2048);
    let fingerprint: Vec<String> = fingerprint.iter().map(|byte| format!("{byte:02X}")).collect();
    let transport = format!(
        "c=IN IP4 0.0.0.0\r\na=ice-ufrag:{}\r\na=ice-pwd:{}\r\na=ice-options:trickle\r\na=fingerprint:sha-256 {}\r\n\
         a=setup:actpass\r\n",
        ice.ufrag,
        ice.pwd,
        fingerprint.join(":"),
    );
    let direction = if sends.is_some() { "sendonly" } else { "recvonly" };
    let common = format!("{transport}a=rtcp:9 IN IP4 0.0.0.0\r\na={direction}\r\na=rtcp-mux\r\na=rtcp-rsize\r\n");
    line(&mut sdp, "v=0");
    line(&mut sdp, &format!("o=- {} 2 IN IP4 127.0.0.1", crate::client::random() >> 2));
    line(&mut sdp, "s=-\r\nt=0 0");
    let data = if channels { format!(" {DATA_MID}") } else { String::new() };
    line(&mut sdp, &format!("a=group:BUNDLE {AUDIO_MID} {VIDEO_MID}{data}"));
    line(&mut sdp, "a=extmap-allow-mixed\r\na=msid-semantic: WMS *");

    line(&mut sdp, &format!("m=audio 9 UDP/TLS/RTP/SAVPF {AUDIO}"));
    sdp.push_str(&common);
    line(&mut sdp, &format!("a=mid:{AUDIO_MID}"));
    // The section that the others are bundled with has the candidates of all (RFC 8839 §5.1). A full agent needs one to begin.
    if let Some(candidate) = candidate {
        let (address, port) = (candidate.ip(), candidate.port());
        line(
            &mut sdp,
            &format!("a=candidate:1 1 udp {HOST_PRIORITY} {address} {port} typ host\r\na=end-of-candidates"),
        );
    }
    extensions(&mut sdp, &HEADER_EXTENSIONS);
    line(&mut sdp, &format!("a=rtpmap:{AUDIO} opus/48000/2\r\na=rtcp-fb:{AUDIO} transport-cc"));
    line(&mut sdp, &format!("a=fmtp:{AUDIO} minptime=10;useinbandfec=1"));
    if let Some(sends) = sends {
        line(&mut sdp, "a=msid:load audio");
        line(&mut sdp, &format!("a=ssrc:{} cname:load", sends.audio_ssrc));
    }

    line(&mut sdp, &format!("m=video 9 UDP/TLS/RTP/SAVPF {VIDEO} {RTX}"));
    sdp.push_str(&common);
    line(&mut sdp, &format!("a=mid:{VIDEO_MID}"));
    extensions(&mut sdp, &HEADER_EXTENSIONS);
    line(&mut sdp, &format!("a=rtpmap:{VIDEO} VP8/90000"));
    for feedback in ["goog-remb", "transport-cc", "ccm fir", "nack", "nack pli"] {
        line(&mut sdp, &format!("a=rtcp-fb:{VIDEO} {feedback}"));
    }
    line(&mut sdp, &format!("a=rtpmap:{RTX} rtx/90000\r\na=fmtp:{RTX} apt={VIDEO}"));
    if let Some(sends) = sends {
        line(&mut sdp, "a=msid:load video");
        if let Some((video, rtx)) = sends.video_ssrcs {
            line(&mut sdp, &format!("a=ssrc-group:FID {video} {rtx}"));
            line(&mut sdp, &format!("a=ssrc:{video} cname:load\r\na=ssrc:{rtx} cname:load"));
        }
        if !sends.rids.is_empty() {
            extensions(
                &mut sdp,
                &[
                    (RID, "urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id"),
                    (REPAIRED_RID, "urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id"),
                ],
            );
            sends.rids.iter().for_each(|rid| line(&mut sdp, &format!("a=rid:{rid} send")));
            line(&mut sdp, &format!("a=simulcast:send {}", sends.rids.join(";")));
        }
    }

    if channels {
        line(&mut sdp, "m=application 9 UDP/DTLS/SCTP webrtc-datachannel");
        sdp.push_str(&transport);
        line(&mut sdp, &format!("a=mid:{DATA_MID}\r\na=sctp-port:5000\r\na=max-message-size:65536"));
    }
    sdp
}

fn extensions(sdp: &mut String, extensions: &[(u8, &str)]) {
    for (id, uri) in extensions {
        line(sdp, &format!("a=extmap:{id} {uri}"));
    }
}

fn line(sdp: &mut String, line: &str) {
    // Writing to a string cannot fail.
    let _ = write!(sdp, "{line}\r\n");
}

#[cfg(test)]
mod tests {
    use tableside::media::{Codec, MediaKind};
    use tableside::rtc::sdp::{Offer, TableMedia, negotiate_player, negotiate_publisher};

    use super::*;

    #[test]
    fn a_gateway_understands_the_offers() {
        let ice = crate::client::new_credentials();
        let candidate = Some("10.0.0.7:4444".parse().unwrap());
        let peer = Peer { ice: ice.clone(), fingerprint: [0xab; 32], candidate };
        let sends = Sends { audio_ssrc: 5, video_ssrcs: Some((6, 7)), rids: Vec::new() };
        let text = publisher(&peer, &sends);
        assert_eq!(text.matches("a=candidate:1 1 udp 2130706431 10.0.0.7 4444 typ host\r\n").count(), 1);
        let negotiated = negotiate_publisher(&Offer::parse(text.as_bytes()).unwrap()).unwrap();
        let (mid, video) = negotiated.stream(MediaKind::Video).unwrap();
        assert_eq!((mid, video.codec, video.remote_ssrc, video.remote_rtx_ssrc), ("1", Codec::Vp8, Some(6), Some(7)));
        assert_eq!(negotiated.remote_ice, ice);

        let layers = Sends { video_ssrcs: None, rids: ["h", "l"].map(str::to_owned).to_vec(), ..sends };
        let text = publisher(&peer, &layers);
        let negotiated = negotiate_publisher(&Offer::parse(text.as_bytes()).unwrap()).unwrap();
        let rids: Vec<_> =
            negotiated.stream(MediaKind::Video).unwrap().1.layers.iter().map(|l| l.rid.clone()).collect();
        assert_eq!(rids, ["h", "l"]);

        let peer = Peer { candidate: None, ..peer };
        for has_data in [false, true] {
            let offer = Offer::parse(player(&peer, has_data).as_bytes()).unwrap();
            let table = TableMedia::from(&negotiated);
            assert_eq!(negotiate_player(&offer, &table).unwrap().data().is_some(), has_data);
        }
    }
}
