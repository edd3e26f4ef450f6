//! Values of single `a=` lines.

use super::{Feedback, Fingerprint, FingerprintHash};

/// The header extensions that are negotiated.
pub(super) mod extension {
    pub(in super::super) const MID: &str = "urn:ietf:params:rtp-hdrext:sdes:mid";
    pub(in super::super) const TRANSPORT_CC: &str =
        "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01";
    pub(in super::super) const PLAYOUT_DELAY: &str = "http://www.webrtc.org/experiments/rtp-hdrext/playout-delay";
    pub(in super::super) const ABS_CAPTURE_TIME: &str = "http://www.webrtc.org/experiments/rtp-hdrext/abs-capture-time";
    pub(in super::super) const ABS_SEND_TIME: &str = "http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time";
    pub(in super::super) const DEPENDENCY_DESCRIPTOR: &str =
        "https://aomediacodec.github.io/av1-rtp-spec/#dependency-descriptor-rtp-header-extension";
}

/// RFC 8866 §6.7.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    SendRecv,
    SendOnly,
    RecvOnly,
    Inactive,
}

impl Direction {
    pub(super) fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "sendrecv" => Direction::SendRecv,
            "sendonly" => Direction::SendOnly,
            "recvonly" => Direction::RecvOnly,
            "inactive" => Direction::Inactive,
            _ => return None,
        })
    }

    pub(super) fn sends(self) -> bool {
        matches!(self, Direction::SendRecv | Direction::SendOnly)
    }

    pub(super) fn receives(self) -> bool {
        matches!(self, Direction::SendRecv | Direction::RecvOnly)
    }
}

/// `a=extmap:<id>[/<direction>] <uri> [<attributes>]` (RFC 8285 §8).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ExtMap {
    pub(super) id: u8,
    pub(super) direction: Option<Direction>,
    pub(super) uri: String,
}

impl ExtMap {
    /// `None` also for ids that no packet can carry: 0, 15, and the 4096–4351 of RFC 8285 §7.
    pub(super) fn parse(value: &str) -> Option<Self> {
        let mut words = value.split_ascii_whitespace();
        let (id, direction) = match words.next()?.split_once('/') {
            Some((id, direction)) => (id, Some(Direction::parse(direction)?)),
            None => (value.split_ascii_whitespace().next()?, None),
        };
        let id = id.parse().ok().filter(|id| !matches!(id, 0 | 15))?;
        Some(Self { id, direction, uri: words.next()?.to_owned() })
    }
}

/// `a=rtpmap:<pt> <encoding>/<clock>[/<channels>]` (RFC 8866 §6.6), without the payload type.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Encoding {
    pub(super) name: String,
    pub(super) clock_rate: u32,
    pub(super) channels: u32,
}

impl Encoding {
    pub(super) fn parse(value: &str) -> Option<Self> {
        let mut parts = value.trim().split('/');
        let name = parts.next().filter(|name| is_token(name))?.to_owned();
        let clock_rate = parts.next()?.parse().ok()?;
        let channels = parts.next().map_or(Some(1), |channels| channels.parse().ok())?;
        Some(Self { name, clock_rate, channels })
    }

    /// The static payload types that browsers still offer, should one come without its rtpmap (RFC 3551 §6).
    pub(super) fn of_static_payload_type(payload_type: u8) -> Option<Self> {
        let name = match payload_type {
            0 => "PCMU",
            8 => "PCMA",
            9 => "G722",
            13 => "CN",
            _ => return None,
        };
        Some(Self { name: name.to_owned(), clock_rate: 8000, channels: 1 })
    }

    pub(super) fn is(&self, name: &str, clock_rate: u32) -> bool {
        self.name.eq_ignore_ascii_case(name) && self.clock_rate == clock_rate
    }

    /// As after `a=rtpmap:<pt> `.
    pub(super) fn rtpmap(&self) -> String {
        match self.channels {
            1 => format!("{}/{}", self.name, self.clock_rate),
            channels => format!("{}/{}/{channels}", self.name, self.clock_rate),
        }
    }
}

/// The value of `name` in an `a=fmtp` list (`a=1;b=2`), names without regard to case.
pub(super) fn fmtp_parameter<'a>(fmtp: &'a str, name: &str) -> Option<&'a str> {
    fmtp.split(';').find_map(|parameter| {
        let (key, value) = parameter.split_once('=')?;
        key.trim().eq_ignore_ascii_case(name).then_some(value.trim())
    })
}

/// Adds one `a=rtcp-fb` value, payload type taken off (RFC 4585 §4.2).
pub(super) fn add_feedback(feedback: &mut Feedback, value: &str) {
    let mut words = value.split_ascii_whitespace();
    match (words.next(), words.next()) {
        (Some("nack"), None) => feedback.nack = true,
        (Some("nack"), Some("pli")) => feedback.pli = true,
        (Some("ccm"), Some("fir")) => feedback.fir = true,
        (Some("transport-cc"), None) => feedback.transport_cc = true,
        (Some("goog-remb"), None) => feedback.remb = true,
        _ => {}
    }
}

/// What an `a=fingerprint` line is good for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum FingerprintLine {
    Usable(Fingerprint),
    /// MD5, SHA-1 and the like, or a name nobody knows.
    OtherHash,
    /// A hash function that is known, with a digest that is not one of its digests.
    Malformed,
}

impl FingerprintLine {
    /// `<hash> <2 hex digits>:<2 hex digits>:…` (RFC 8122 §5), either case.
    pub(super) fn parse(value: &str) -> Self {
        let (hash, digest) = value.trim().split_once(' ').unwrap_or((value, ""));
        let (hash, length) = match hash.to_ascii_lowercase().as_str() {
            "sha-256" => (FingerprintHash::Sha256, 32),
            "sha-384" => (FingerprintHash::Sha384, 48),
            "sha-512" => (FingerprintHash::Sha512, 64),
            _ => return FingerprintLine::OtherHash,
        };
        let digest: Option<Vec<u8>> = digest.trim().split(':').map(hex_byte).collect();
        match digest {
            Some(digest) if digest.len() == length => FingerprintLine::Usable(Fingerprint { hash, digest }),
            _ => FingerprintLine::Malformed,
        }
    }
}

fn hex_byte(text: &str) -> Option<u8> {
    let [high, low] = *text.as_bytes() else { return None };
    let digit = |byte: u8| char::from(byte).to_digit(16);
    Some((digit(high)? << 4 | digit(low)?) as u8)
}

/// RFC 8866 §9, `token`.
pub(super) fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(is_token_char)
}

pub(super) fn is_token_char(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`{|}~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extmap_with_and_without_direction() {
        let parse = |value| ExtMap::parse(value).map(|e| (e.id, e.direction, e.uri));
        assert_eq!(parse("3 urn:x"), Some((3, None, "urn:x".into())));
        assert_eq!(parse("6/recvonly urn:x y z"), Some((6, Some(Direction::RecvOnly), "urn:x".into())));
        for bad in ["", "0 urn:x", "15 urn:x", "256 urn:x", "4096 urn:x", "3", "3/up urn:x", "/ urn:x"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn encodings() {
        let opus = Encoding::parse("OPUS/48000/2").unwrap();
        assert!(opus.is("opus", 48_000) && opus.channels == 2);
        assert_eq!(opus.rtpmap(), "OPUS/48000/2");
        assert_eq!(Encoding::parse("VP8/90000").unwrap().rtpmap(), "VP8/90000");
        for bad in ["", "VP8", "VP8/x", "VP 8/90000", "/90000", "opus/48000/two"] {
            assert_eq!(Encoding::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn fmtp_parameters() {
        let fmtp = "level-asymmetry-allowed=1; Packetization-Mode = 1;profile-level-id=42e01f";
        assert_eq!(fmtp_parameter(fmtp, "packetization-mode"), Some("1"));
        assert_eq!(fmtp_parameter(fmtp, "profile-level-id"), Some("42e01f"));
        assert_eq!(fmtp_parameter("111/111", "apt"), None);
    }

    #[test]
    fn fingerprints_want_their_length() {
        let digest = ["aB"; 32].join(":");
        let FingerprintLine::Usable(fingerprint) = FingerprintLine::parse(&format!("SHA-256 {digest}")) else {
            panic!("a SHA-256 fingerprint");
        };
        assert_eq!(fingerprint.digest, [0xAB; 32]);
        assert_eq!(FingerprintLine::parse(&format!("sha-384 {digest}")), FingerprintLine::Malformed);
        assert_eq!(FingerprintLine::parse("sha-256"), FingerprintLine::Malformed);
        assert_eq!(FingerprintLine::parse(&format!("sha-256 {digest}:1")), FingerprintLine::Malformed);
        assert_eq!(FingerprintLine::parse("sha-1 AB"), FingerprintLine::OtherHash);
    }
}
