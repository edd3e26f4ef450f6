//! What a client needs of a server's answer.

use std::net::SocketAddr;

use sdp_types::{Attribute, Session};
use tableside::rtc::sdp::{DtlsRole, Fingerprint, FingerprintHash, IceCredentials};

/// See the module's text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The server's.
    pub ice: IceCredentials,
    /// Of its certificate.
    pub fingerprints: Vec<Fingerprint>,
    /// The side of the handshake that the answer leaves us.
    pub our_role: DtlsRole,
    /// Its first UDP candidate.
    pub server: SocketAddr,
    /// The audio section was accepted.
    pub audio: Option<Stream>,
    /// The video section was accepted.
    pub video: Option<Stream>,
    /// So was that of data channels.
    pub data: bool,
}

/// One accepted section.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stream {
    /// The first payload type of the section.
    pub payload_type: u8,
    /// Of the retransmissions.
    pub rtx: Option<u8>,
    /// The id of the transport-wide number.
    pub transport_cc: Option<u8>,
    /// The id of the mid.
    pub mid: Option<u8>,
    /// Whether the section has `a=rtcp-fb:… transport-cc`.
    pub transport_feedback: bool,
    /// Whether RTCP packets may come without a report before them (`a=rtcp-rsize`, RFC 5506 §5).
    pub reduced_size: bool,
    /// What the server wants to receive in the section, bits per second (`b=TIAS`, or `b=AS` in thousands).
    pub limit: Option<u32>,
}

/// Why an answer is of no use.
#[derive(Debug, thiserror::Error)]
pub enum AnswerError {
    /// It is no SDP.
    #[error("the answer is not SDP: {0}")]
    Syntax(#[from] sdp_types::ParserError),
    /// It lacks something.
    #[error("the answer has no {0}")]
    Missing(&'static str),
    /// It has something that cannot be read.
    #[error("the answer's {0} cannot be read")]
    Unreadable(&'static str),
}

impl Answer {
    /// Reads an answer. ICE and DTLS are those of the first section that has them, else of the session (RFC 9143 §7.1.3).
    ///
    /// # Errors
    /// [`AnswerError`].
    pub fn parse(sdp: &str) -> Result<Self, AnswerError> {
        let session = Session::parse(sdp.as_bytes())?;
        let sections: Vec<_> = session.medias.iter().filter(|media| media.port != 0).collect();
        // Section by section, then the session's own.
        let all: Vec<&Attribute> =
            sections.iter().flat_map(|media| &media.attributes).chain(&session.attributes).collect();
        let first = |name: &'static str| value(&all, name).ok_or(AnswerError::Missing(name));
        let our_role = match first("setup")? {
            "passive" => DtlsRole::Client,
            "active" => DtlsRole::Server,
            _ => return Err(AnswerError::Unreadable("setup")),
        };
        let server = all
            .iter()
            .filter(|attribute| attribute.attribute == "candidate")
            .find_map(|attribute| udp_candidate(attribute.value.as_deref()?))
            .ok_or(AnswerError::Missing("UDP candidate"))?;
        let kind = |kind: &str| sections.iter().find(|media| media.media == kind).map(|media| stream(media));
        Ok(Self {
            ice: IceCredentials { ufrag: first("ice-ufrag")?.to_owned(), pwd: first("ice-pwd")?.to_owned() },
            fingerprints: vec![fingerprint(first("fingerprint")?).ok_or(AnswerError::Unreadable("fingerprint"))?],
            our_role,
            server,
            audio: kind("audio"),
            video: kind("video"),
            data: sections.iter().any(|media| media.media == "application"),
        })
    }
}

fn value<'a>(attributes: &[&'a Attribute], name: &str) -> Option<&'a str> {
    attributes.iter().find(|attribute| attribute.attribute == name)?.value.as_deref()
}

/// RFC 8839 §5.1: `foundation component transport priority address port typ …`.
fn udp_candidate(value: &str) -> Option<SocketAddr> {
    let fields: Vec<&str> = value.split_ascii_whitespace().collect();
    let [_, "1", transport, _, address, port, "typ", ..] = fields[..] else { return None };
    if !transport.eq_ignore_ascii_case("udp") {
        return None;
    }
    Some(SocketAddr::new(address.parse().ok()?, port.parse().ok()?))
}

fn fingerprint(value: &str) -> Option<Fingerprint> {
    let (hash, digest) = value.split_once(' ')?;
    let hash = match hash.to_ascii_lowercase().as_str() {
        "sha-256" => FingerprintHash::Sha256,
        "sha-384" => FingerprintHash::Sha384,
        "sha-512" => FingerprintHash::Sha512,
        _ => return None,
    };
    let digest = digest.trim().split(':').map(|byte| u8::from_str_radix(byte, 16)).collect::<Result<_, _>>().ok()?;
    Some(Fingerprint { hash, digest })
}

fn stream(media: &sdp_types::Media) -> Stream {
    let payload_types: Vec<u8> = media.fmt.split_ascii_whitespace().filter_map(|format| format.parse().ok()).collect();
    let mut stream = Stream { payload_type: payload_types.first().copied().unwrap_or(0), ..Stream::default() };
    stream.limit = ["TIAS", "AS"].into_iter().find_map(|kind| {
        let line = media.bandwidths.iter().find(|line| line.bwtype == kind)?;
        u32::try_from(line.bandwidth).ok()?.checked_mul(if kind == "AS" { 1000 } else { 1 })
    });
    for attribute in &media.attributes {
        let value = attribute.value.as_deref().unwrap_or_default();
        let (subject, rest) = value.split_once(' ').unwrap_or((value, ""));
        match attribute.attribute.as_str() {
            "fmtp" if rest.split(';').any(|p| p.trim() == format!("apt={}", stream.payload_type)) => {
                stream.rtx = subject.parse().ok();
            }
            "extmap" => {
                let id = subject.split('/').next().and_then(|id| id.parse().ok());
                if rest.contains("transport-wide-cc") {
                    stream.transport_cc = id;
                } else if rest.ends_with("sdes:mid") {
                    stream.mid = id;
                }
            }
            "rtcp-rsize" => stream.reduced_size = true,
            "rtcp-fb" if rest.trim() == "transport-cc" => stream.transport_feedback = true,
            _ => {}
        }
    }
    stream
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ANSWER: &str = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0 1\r\na=ice-lite\r\n\
        m=audio 9 UDP/TLS/RTP/SAVPF 111\r\nc=IN IP4 0.0.0.0\r\na=mid:0\r\na=ice-ufrag:abcd\r\na=ice-pwd:0123456789012345678901\r\n\
        a=fingerprint:sha-256 AB:CD\r\na=setup:passive\r\na=candidate:1 1 tcp 1 10.0.0.9 9 typ host tcptype passive\r\n\
        a=candidate:2 1 udp 2 10.0.0.1 7000 typ host\r\na=sendonly\r\n\
        m=video 9 UDP/TLS/RTP/SAVPF 96 97\r\nc=IN IP4 0.0.0.0\r\na=mid:1\r\na=rtpmap:96 VP8/90000\r\n\
        a=rtcp-fb:96 transport-cc\r\na=fmtp:97 apt=96\r\n\
        a=extmap:3/sendonly http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01\r\na=sendonly\r\n";

    #[test]
    fn an_answer_says_where_and_how() {
        let answer = Answer::parse(ANSWER).unwrap();
        assert_eq!(answer.server, SocketAddr::from(([10, 0, 0, 1], 7000)));
        assert_eq!(answer.our_role, DtlsRole::Client);
        assert_eq!(answer.fingerprints[0].digest, [0xab, 0xcd]);
        let video = Stream {
            payload_type: 96,
            rtx: Some(97),
            transport_cc: Some(3),
            mid: None,
            transport_feedback: true,
            reduced_size: false,
            limit: None,
        };
        assert_eq!(answer.video, Some(video));
        for (lines, limit) in [("b=AS:40", 40_000), ("b=TIAS:43000", 43_000), ("b=AS:1\r\nb=TIAS:2", 2)] {
            let limited =
                ANSWER.replace("c=IN IP4 0.0.0.0\r\na=mid:1", &format!("c=IN IP4 0.0.0.0\r\n{lines}\r\na=mid:1"));
            assert_eq!(Answer::parse(&limited).unwrap().video.and_then(|video| video.limit), Some(limit), "{lines}");
        }
        let reduced = format!("{ANSWER}a=rtcp-rsize\r\n");
        assert!(Answer::parse(&reduced).unwrap().video.is_some_and(|video| video.reduced_size));
        assert_eq!(Answer::parse(&ANSWER.replace("m=video 9", "m=video 0")).unwrap().video, None);
    }

    #[test]
    fn what_is_missing_is_named() {
        for (line, name) in [("a=ice-ufrag:abcd\r\n", "ice-ufrag"), ("a=setup:passive\r\n", "setup")] {
            let error = Answer::parse(&ANSWER.replace(line, "")).unwrap_err();
            assert_eq!(error.to_string(), format!("the answer has no {name}"));
        }
    }

    proptest! {
        #[test]
        fn no_answer_panics(cut in 0..ANSWER.len(), with in ".{0,20}") {
            drop(Answer::parse(&format!("{}{with}{}", &ANSWER[..cut], &ANSWER[cut..])));
        }
    }
}
