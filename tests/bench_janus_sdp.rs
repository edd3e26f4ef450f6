//! The node bench's bridge to Janus: what it answers to a player and to Janus, who have both offered.

#[path = "../benches/node/janus/sdp.rs"]
mod sdp;

use proptest::prelude::*;
use sdp::{Answers, CallError, connect};

/// What Janus 1.1.2's VideoRoom offers a subscriber, cut down to what counts.
const JANUS: &str = "v=0\r\no=- 1 1 IN IP4 10.88.0.1\r\ns=VideoRoom load\r\nt=0 0\r\na=group:BUNDLE 0 1\r\n\
    a=ice-options:trickle\r\na=fingerprint:sha-256 AA:BB\r\n\
    m=audio 9 UDP/TLS/RTP/SAVPF 111\r\nc=IN IP4 10.88.0.1\r\na=sendonly\r\na=mid:0\r\na=rtcp-mux\r\na=ice-ufrag:janu\r\n\
    a=ice-pwd:jjjjjjjjjjjjjjjjjjjjjj\r\na=setup:actpass\r\na=rtpmap:111 opus/48000/2\r\n\
    a=extmap:1 urn:ietf:params:rtp-hdrext:sdes:mid\r\na=ssrc:1 cname:janus\r\n\
    a=candidate:1 1 udp 2015363327 10.88.0.1 40000 typ host\r\na=end-of-candidates\r\n\
    m=video 9 UDP/TLS/RTP/SAVPF 96 97\r\nc=IN IP4 10.88.0.1\r\na=sendonly\r\na=mid:1\r\na=rtcp-mux\r\na=ice-ufrag:janu\r\n\
    a=ice-pwd:jjjjjjjjjjjjjjjjjjjjjj\r\na=setup:actpass\r\na=rtpmap:96 VP8/90000\r\na=rtcp-fb:96 nack\r\n\
    a=rtcp-fb:96 nack pli\r\na=rtcp-fb:96 x-private\r\na=extmap:1 urn:ietf:params:rtp-hdrext:sdes:mid\r\n\
    a=extmap:2 urn:3gpp:video-orientation\r\na=rtpmap:97 rtx/90000\r\na=fmtp:97 apt=96\r\na=ssrc:2 cname:janus\r\n";

const PLAYER: &str = "v=0\r\no=- 7 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE a v\r\n\
    m=video 9 UDP/TLS/RTP/SAVPF 96 97\r\nc=IN IP4 0.0.0.0\r\na=mid:v\r\na=recvonly\r\na=ice-ufrag:play\r\n\
    a=ice-pwd:pppppppppppppppppppppp\r\na=fingerprint:sha-256 CC:DD\r\na=setup:actpass\r\na=rtcp-mux\r\n\
    a=candidate:1 1 udp 2130706431 10.88.0.2 5000 typ host\r\n\
    a=extmap:1 urn:ietf:params:rtp-hdrext:sdes:mid\r\na=extmap:2 urn:ietf:params:rtp-hdrext:toffset\r\n\
    a=rtpmap:96 vp8/90000\r\na=rtcp-fb:96 nack\r\na=rtcp-fb:96 nack pli\r\na=rtcp-fb:96 goog-remb\r\n\
    a=rtpmap:97 rtx/90000\r\na=fmtp:97 apt=96\r\n\
    m=audio 9 UDP/TLS/RTP/SAVPF 111\r\nc=IN IP4 0.0.0.0\r\na=mid:a\r\na=recvonly\r\na=ice-ufrag:play\r\n\
    a=ice-pwd:pppppppppppppppppppppp\r\na=fingerprint:sha-256 CC:DD\r\na=setup:actpass\r\na=rtcp-mux\r\n\
    a=rtpmap:111 opus/48000/2\r\n";

/// The lines of the section `m=KIND`.
fn section<'a>(sdp: &'a str, kind: &str) -> Vec<&'a str> {
    let lines = sdp.lines().skip_while(|line| !line.starts_with(&format!("m={kind}")));
    let rest: Vec<&str> = lines.collect();
    let end = rest.iter().skip(1).position(|line| line.starts_with("m=")).map_or(rest.len(), |n| n + 1);
    rest[..end].to_vec()
}

fn has(sdp: &str, kind: &str, lines: &[&str]) {
    let section = section(sdp, kind);
    for line in lines {
        assert!(section.contains(line), "{kind} has no {line}: {section:#?}");
    }
}

#[test]
fn each_is_answered_with_what_the_other_is() {
    let Answers { to_janus, to_player } = connect(JANUS, PLAYER).unwrap();
    for (mid, kind) in [("a=mid:0", "audio"), ("a=mid:1", "video")] {
        let player = ["a=ice-ufrag:play", "a=ice-pwd:pppppppppppppppppppppp", "a=fingerprint:sha-256 CC:DD"];
        has(&to_janus, kind, &player);
        // Bundled, the audio section has the candidate of the video section.
        has(&to_janus, kind, &["a=candidate:1 1 udp 2130706431 10.88.0.2 5000 typ host"]);
        has(&to_janus, kind, &[mid, "a=setup:active", "a=recvonly", "a=rtcp-mux"]);
    }
    for (mid, kind) in [("a=mid:a", "audio"), ("a=mid:v", "video")] {
        // The fingerprint is the session's in Janus' offer.
        has(&to_player, kind, &["a=ice-ufrag:janu", "a=ice-pwd:jjjjjjjjjjjjjjjjjjjjjj", "a=fingerprint:sha-256 AA:BB"]);
        has(&to_player, kind, &["a=candidate:1 1 udp 2015363327 10.88.0.1 40000 typ host"]);
        has(&to_player, kind, &[mid, "a=setup:passive", "a=sendonly", "a=rtcp-mux"]);
    }
    has(&to_player, "video", &["a=ssrc:2 cname:janus"]);
    assert!(to_janus.contains("a=group:BUNDLE 0 1\r\n") && to_player.contains("a=group:BUNDLE v a\r\n"));
    // In the order of the offer that is answered.
    assert!(
        to_janus.find("m=audio") < to_janus.find("m=video") && to_player.find("m=video") < to_player.find("m=audio")
    );
}

#[test]
fn both_are_answered_what_both_can() {
    let Answers { to_janus, to_player } = connect(JANUS, PLAYER).unwrap();
    for answer in [&to_janus, &to_player] {
        has(answer, "video", &["m=video 9 UDP/TLS/RTP/SAVPF 96 97", "a=rtpmap:96 VP8/90000", "a=fmtp:97 apt=96"]);
        has(answer, "video", &["a=rtcp-fb:96 nack", "a=rtcp-fb:96 nack pli"]);
        has(answer, "video", &["a=extmap:1 urn:ietf:params:rtp-hdrext:sdes:mid"]);
        for one_sided in ["goog-remb", "x-private", "extmap:2"] {
            assert!(!answer.contains(one_sided), "{one_sided}: {answer}");
        }
    }
}

#[test]
fn a_section_that_the_other_lacks_is_refused() {
    let (silent, _) = PLAYER.split_once("m=audio").unwrap();
    let Answers { to_janus, to_player } = connect(JANUS, silent).unwrap();
    has(&to_janus, "audio", &["m=audio 0 UDP/TLS/RTP/SAVPF 111", "a=mid:0"]);
    assert!(to_janus.contains("a=group:BUNDLE 1\r\n") && !to_player.contains("m=audio"));
    let (first, rest) = JANUS.split_once("m=audio").unwrap();
    let (_, video) = rest.split_once("m=video").unwrap();
    let Answers { to_player, .. } = connect(&format!("{first}m=video{video}"), PLAYER).unwrap();
    has(&to_player, "audio", &["m=audio 0 UDP/TLS/RTP/SAVPF 111", "a=mid:a"]);
}

#[test]
fn a_retransmission_needs_what_it_repairs() {
    // Another number for the picture: Janus' RTX would repair what the player does not know.
    let other = PLAYER.replace("SAVPF 96 97", "SAVPF 97 100").replace("96 vp8", "100 vp8").replace("apt=96", "apt=100");
    let error = connect(JANUS, &other).unwrap_err();
    assert!(matches!(&error, CallError::NothingInCommon { kind, .. } if kind == "video"), "{error}");
    assert_eq!(error.to_string(), "Janus sends video in formats 96 97, the player offers 97 100");
    let without =
        PLAYER.replace("a=rtpmap:97 rtx/90000\r\na=fmtp:97 apt=96\r\n", "").replace("SAVPF 96 97", "SAVPF 96");
    has(&connect(JANUS, &without).unwrap().to_player, "video", &["m=video 9 UDP/TLS/RTP/SAVPF 96"]);
}

#[test]
fn what_is_no_offer_is_named() {
    let error = |janus, player| connect(janus, player).unwrap_err().to_string();
    assert!(error("nonsense", PLAYER).starts_with("Janus' offer is not SDP"));
    assert!(error(JANUS, "nonsense").starts_with("the player's offer is not SDP"));
}

proptest! {
    #[test]
    fn no_offer_panics(cut in 0..JANUS.len(), with in ".{0,20}") {
        drop(connect(&format!("{}{with}{}", &JANUS[..cut], &JANUS[cut..]), PLAYER));
        let cut = cut.min(PLAYER.len());
        drop(connect(JANUS, &format!("{}{with}{}", &PLAYER[..cut], &PLAYER[cut..])));
    }
}
