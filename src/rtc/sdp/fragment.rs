//! Fragments of SDP that carry ICE information alone: `application/trickle-ice-sdpfrag` (RFC 8840 §9).
//!
//! A session exchanges them over HTTP PATCH once it has begun (RFC 9725 §4.3). [`IceFragment`] reads the peer's,
//! [`FragmentTemplate`] writes ours.

use super::IceCredentials;
use super::error::quoted;

/// Why a fragment was not accepted: names the line and what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct FragmentError(String);

/// What a peer's fragment says about its ICE session. Borrows from the body.
///
/// Only `a=` lines are looked at. Clients put the credentials at session level or in a section, leave `a=group` out, and
/// write m-lines of any media, format or protocol, or none. Candidates are checked for their form and forgotten: a lite
/// agent sends no checks, so it needs none. That also does what RFC 9725 §4.3.2 wants of a candidate of an unknown
/// transport or with an address that does not resolve: the session "MUST silently discard the candidate".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IceFragment<'a> {
    /// The first `a=ice-ufrag`.
    pub ufrag: Option<&'a str>,
    /// The first `a=ice-pwd`.
    pub pwd: Option<&'a str>,
}

impl<'a> IceFragment<'a> {
    /// Reads a fragment; the caller bounds the size of `body`.
    ///
    /// # Errors
    /// The body is not lines of SDP, has no attribute, or has credentials or a candidate that RFC 8839 §5 does not allow.
    pub fn parse(body: &'a [u8]) -> Result<Self, FragmentError> {
        let text = std::str::from_utf8(body).map_err(|_| FragmentError("the fragment is not UTF-8".into()))?;
        let mut fragment = Self::default();
        let mut attributes = 0;
        for (index, line) in text.split('\n').enumerate() {
            let line = line.strip_suffix('\r').unwrap_or(line);
            if line.is_empty() {
                continue;
            }
            let wrong = |what: &str| FragmentError(format!("line {} {what}: {}", index + 1, quoted(line)));
            let attribute = match line.as_bytes() {
                [b'a', b'=', ..] => &line[2..],
                [b'a'..=b'z', b'=', ..] => continue,
                _ => return Err(wrong("is not SDP")),
            };
            attributes += 1;
            let (name, value) = attribute.split_once(':').unwrap_or((attribute, ""));
            let value = value.trim();
            match name {
                "ice-ufrag" if !is_credential(value, 4) => return Err(wrong("is no a=ice-ufrag")),
                "ice-pwd" if !is_credential(value, 22) => return Err(wrong("is no a=ice-pwd")),
                "candidate" if !is_candidate(value) => return Err(wrong("is no a=candidate")),
                "ice-ufrag" => fragment.ufrag = fragment.ufrag.or(Some(value)),
                "ice-pwd" => fragment.pwd = fragment.pwd.or(Some(value)),
                _ => {}
            }
        }
        if attributes == 0 {
            return Err(FragmentError("the fragment has no a= line".into()));
        }
        Ok(fragment)
    }

    /// The credentials of a new ICE session, if the fragment begins one: a ufrag that is not `current`. RFC 9725 §4.3.3: a
    /// session that receives updated credentials MUST "consider the request as performing an ICE restart".
    ///
    /// The ufrag decides. RFC 8839 §4.4.1.1.1 has both change in a restart, and in the RFC's own example of a trickle
    /// request the password is not that of its offer.
    ///
    /// # Errors
    /// A new ufrag without a password.
    pub fn restart(&self, current: &str) -> Result<Option<&'a str>, FragmentError> {
        match (self.ufrag.filter(|ufrag| *ufrag != current), self.pwd) {
            (Some(_), None) => Err(FragmentError("the fragment has a new a=ice-ufrag and no a=ice-pwd".into())),
            (ufrag, _) => Ok(ufrag),
        }
    }
}

/// RFC 8839 §5.4: from `least` to 256 characters. As in offers, more of them are taken than the ice-chars.
fn is_credential(value: &str, least: usize) -> bool {
    (least..=256).contains(&value.len()) && value.bytes().all(|b| b.is_ascii_graphic() && b != b':')
}

/// `foundation component transport priority address port typ type …` (RFC 8839 §5.1), whatever the transport, address
/// and type.
fn is_candidate(value: &str) -> bool {
    let mut words = value.split_ascii_whitespace();
    let mut next = || words.next().unwrap_or("");
    let (foundation, component, transport, priority) = (next(), next(), next(), next());
    let (address, port, typ, kind) = (next(), next(), next(), next());
    let is_number = |text: &str| text.bytes().all(|b| b.is_ascii_digit()) && text.parse::<u32>().is_ok();
    !foundation.is_empty()
        && is_number(component)
        && !transport.is_empty()
        && is_number(priority)
        && !address.is_empty()
        && port.parse::<u16>().is_ok()
        && typ == "typ"
        && !kind.is_empty()
}

/// Our answer's ICE lines, to be sent again with new credentials.
///
/// They are taken from the answer itself, since by RFC 9725 §4.3.3 fragments MUST include the same `ice-options`, `ice-pacing`
/// and `ice-lite` attributes as it did, and since it has all the candidates there will be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FragmentTemplate {
    text: Box<str>,
    /// Where the credentials go.
    credentials_at: usize,
}

impl FragmentTemplate {
    /// Keeps the ICE lines of `answer`, which [`super::write_answer`] has written: those of the session level, and the
    /// bundle's tagged section (RFC 9725 §4.3.2).
    pub fn of_answer(answer: &str) -> Self {
        let mut parts = answer.split("\r\nm=");
        let session = parts.next().unwrap_or_default();
        let mut text = String::new();
        keep(&mut text, session, &["a=ice-lite", "a=ice-options:", "a=ice-pacing:", "a=group:BUNDLE"]);
        let bundle = session.lines().find_map(|line| line.strip_prefix("a=group:BUNDLE "));
        let mid = format!("a=mid:{}", bundle.and_then(|mids| mids.split(' ').next()).unwrap_or_default());
        let tagged = parts.find(|section| section.lines().any(|line| line == mid)).unwrap_or_default();
        text.push_str("m=");
        keep(&mut text, tagged.lines().next().unwrap_or_default(), &[""]);
        keep(&mut text, tagged, &["a=mid:"]);
        let credentials_at = text.len();
        keep(&mut text, tagged, &["a=candidate:", "a=end-of-candidates"]);
        Self { text: text.into(), credentials_at }
    }

    /// The fragment that offers `credentials`.
    pub fn with(&self, credentials: &IceCredentials) -> String {
        let (head, tail) = self.text.split_at(self.credentials_at);
        let IceCredentials { ufrag, pwd } = credentials;
        format!("{head}a=ice-ufrag:{ufrag}\r\na=ice-pwd:{pwd}\r\n{tail}")
    }
}

/// Appends the lines of `from` that begin with one of `prefixes`.
fn keep(text: &mut String, from: &str, prefixes: &[&str]) {
    for line in from.lines().filter(|line| prefixes.iter().any(|prefix| line.starts_with(prefix))) {
        text.push_str(line);
        text.push_str("\r\n");
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const UFRAG: &str = "EsAw";
    const PWD: &str = "P2uYro0UCOQ4zxjKXaWCBui1";

    fn parse(text: &str) -> Result<IceFragment<'_>, FragmentError> {
        IceFragment::parse(text.as_bytes())
    }

    /// How clients write what RFC 9725's figure says.
    #[test]
    fn credentials_are_found_wherever_they_stand() {
        let both = format!("a=ice-ufrag:{UFRAG}\r\na=ice-pwd:{PWD}\r\n");
        let candidate = "a=candidate:1387637174 1 udp 2122260223 192.0.2.1 61764 typ host generation 0 ufrag EsAw\r\n";
        for text in [
            // In the section, as the RFC has it.
            format!("a=group:BUNDLE 0 1\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=mid:0\r\n{both}{candidate}"),
            // At session level, with an m-line of a kind of its own, as JavaScript clients do.
            format!("{both}m=audio 9 RTP/AVP 0\r\na=mid:0\r\n{candidate}a=end-of-candidates\r\n"),
            format!("{both}m=0 9 RTP/AVP 0\r\na=mid:video0\r\n{candidate}"),
            // Without an m-line, as the drafts had it.
            both.clone(),
            // Line feeds alone, a blank line, and an attribute without a name where there was no candidate.
            format!("{}\n\na=\n{candidate}", both.replace("\r\n", "\n")),
            // A section's other credentials do not count once there are some.
            format!("{both}m=video 9 RTP/AVP 0\r\na=ice-ufrag:other\r\n"),
        ] {
            assert_eq!(parse(&text), Ok(IceFragment { ufrag: Some(UFRAG), pwd: Some(PWD) }), "{text}");
        }
        assert_eq!(parse("a=end-of-candidates\r\n"), Ok(IceFragment::default()));
    }

    #[test]
    fn candidates_that_are_of_no_use_are_no_fault() {
        for candidate in [
            "1 1 udp 1 00000000-1111-2222-3333-444444444444.local 5000 typ host",
            "473322822 1 tcp 1518280447 192.0.2.1 9 typ host tcptype active generation 0",
            "1 1 SCTP 1 192.0.2.1 9 typ host",
            "1 2 UDP 1 turn.example.com 5000 typ relay raddr 0.0.0.0 rport 0",
            "1 1 udp 1 1:2:3 5000 typ peculiar",
        ] {
            assert!(parse(&format!("a=candidate:{candidate}\r\n")).is_ok(), "{candidate}");
        }
    }

    #[test]
    fn malformed_fragments_name_the_line() {
        for (text, says) in [
            ("", "no a= line"),
            ("\r\n\r\n", "no a= line"),
            ("m=audio 9 RTP/AVP 0\r\n", "no a= line"),
            ("a=mid:0\r\nhello\r\n", "line 2 is not SDP: hello"),
            ("{\"candidate\":\"\"}", "line 1 is not SDP"),
            ("a=ice-ufrag:abc\r\n", "line 1 is no a=ice-ufrag"),
            ("a=ice-ufrag:abc:d\r\n", "no a=ice-ufrag"),
            ("a=ice-pwd:short\r\n", "no a=ice-pwd"),
            ("a=candidate:\r\n", "no a=candidate"),
            ("a=candidate:1 1 udp 1 192.0.2.1 99999 typ host\r\n", "no a=candidate"),
            ("a=candidate:1 1 udp x 192.0.2.1 9 typ host\r\n", "no a=candidate"),
            ("a=candidate:1 1 udp 1 192.0.2.1 9 host\r\n", "no a=candidate"),
            ("a=candidate:1 1 udp 1 192.0.2.1 9 typ\r\n", "no a=candidate"),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(says), "{text:?}: {error}");
        }
        assert!(IceFragment::parse(b"a=\xff\r\n").is_err());
    }

    #[test]
    fn a_changed_ufrag_is_a_restart_and_needs_a_password() {
        let fragment = IceFragment { ufrag: Some(UFRAG), pwd: Some(PWD) };
        assert_eq!(fragment.restart(UFRAG), Ok(None));
        assert_eq!(fragment.restart("ysXw"), Ok(Some(UFRAG)));
        assert!(IceFragment { pwd: None, ..fragment }.restart("ysXw").is_err());
        assert_eq!(IceFragment { pwd: None, ..fragment }.restart(UFRAG), Ok(None));
        assert_eq!(IceFragment { ufrag: None, ..fragment }.restart(UFRAG), Ok(None), "of nobody else");
    }

    const ANSWERS: [(&str, &str); 2] = [
        (
            include_str!("../../../tests/fixtures/answers/chromium-player-h264.sdp"),
            "a=group:BUNDLE 0 1 2\r\nm=video 9 UDP/TLS/RTP/SAVPF 102 103\r\na=mid:0\r\n",
        ),
        (
            include_str!("../../../tests/fixtures/answers/gstreamer-publisher.sdp"),
            "a=group:BUNDLE video0 audio1\r\nm=video 9 UDP/TLS/RTP/SAVPF 96\r\na=mid:video0\r\n",
        ),
    ];

    #[test]
    fn a_restart_repeats_the_answer_with_new_credentials() {
        let credentials = IceCredentials { ufrag: "289b31b754eaa438".into(), pwd: "0b66f472495ef0ccac7bda65".into() };
        for (answer, head) in ANSWERS {
            let fragment = FragmentTemplate::of_answer(answer).with(&credentials);
            let candidates: String = answer.split_inclusive("\r\n").filter(|l| l.starts_with("a=candidate:")).collect();
            let sections = answer.matches("a=end-of-candidates").count();
            let first = candidates.split_inclusive("\r\n").take(candidates.matches("\r\n").count() / sections);
            let expected = format!(
                "a=ice-lite\r\na=ice-options:ice2\r\n{head}a=ice-ufrag:{}\r\na=ice-pwd:{}\r\n{}a=end-of-candidates\r\n",
                credentials.ufrag,
                credentials.pwd,
                first.collect::<String>()
            );
            assert_eq!(fragment, expected);
            let read = parse(&fragment).unwrap();
            assert_eq!((read.ufrag, read.pwd), (Some(&*credentials.ufrag), Some(&*credentials.pwd)));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn no_body_panics(body in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = IceFragment::parse(&body);
        }

        #[test]
        fn no_text_panics(text in "(a=(ice-ufrag|ice-pwd|candidate|mid|x):?[ -~é]{0,40}\r?\n){0,6}") {
            let _ = parse(&text);
        }

        #[test]
        fn what_is_written_is_read(ufrag in "[A-Za-z0-9+/]{4,256}", pwd in "[A-Za-z0-9+/]{22,256}") {
            let template = FragmentTemplate::of_answer(ANSWERS[0].0);
            let written = template.with(&IceCredentials { ufrag: ufrag.clone(), pwd: pwd.clone() });
            prop_assert_eq!(parse(&written), Ok(IceFragment { ufrag: Some(&ufrag), pwd: Some(&pwd) }));
        }
    }
}
