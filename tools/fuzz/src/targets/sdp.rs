//! Offers: read, negotiated as a publisher's and as a player's, and answered. The answer has to be SDP that we ourselves
//! can read, and nothing of the offer may break out of its line.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use tableside::media::Codec;
use tableside::rtc::sdp::{
    IceCredentials, IceFragment, LocalDescription, Negotiated, Offer, TableMedia, negotiate_player,
    negotiate_publisher, write_answer,
};

pub(crate) fn run(body: &[u8]) {
    // The body of a PATCH is read by another reader.
    if let Err(error) = IceFragment::parse(body) {
        assert_is_quotable(&error.to_string());
    }
    let offer = match Offer::parse(body) {
        Ok(offer) => offer,
        Err(error) => return assert_is_quotable(&error.to_string()),
    };
    let publisher = answer(negotiate_publisher(&offer));
    let own = publisher.as_ref().map(TableMedia::from).unwrap_or_default();
    let h264 = "profile-level-id=42e01f;packetization-mode=1;level-asymmetry-allowed=1";
    let of = |codec, fmtp: &str| Some((codec, fmtp.to_owned()));
    let tables = [
        own,
        TableMedia { video: of(Codec::H264, h264), audio: of(Codec::Opus, ""), ..TableMedia::default() },
        TableMedia { video: of(Codec::Vp8, ""), ..TableMedia::default() },
    ];
    for table in tables {
        answer(negotiate_player(&offer, &table));
    }
}

fn answer<E: std::fmt::Display>(negotiated: Result<Negotiated, E>) -> Option<Negotiated> {
    let negotiated = negotiated.map_err(|error| assert_is_quotable(&error.to_string())).ok()?;
    let answer = write_answer(&negotiated, &local());
    assert!(answer.starts_with("v=0\r\n") && answer.ends_with("\r\n"));
    assert!(!answer.replace("\r\n", "").contains(['\r', '\n', '\0']), "a line was broken");
    let sections = answer.split("\r\n").filter(|line| line.starts_with("m=")).count();
    assert_eq!(sections, negotiated.sections.len(), "as many sections as were offered");
    assert!(!negotiated.remote_fingerprints.is_empty());
    let answered = Offer::parse(answer.as_bytes());
    assert!(answered.is_ok(), "{answered:?} in\n{answer}");
    Some(negotiated)
}

/// Goes into an HTTP answer and a log line.
fn assert_is_quotable(error: &str) {
    assert!(!error.is_empty() && error.len() < 2000, "{} bytes of error", error.len());
    assert!(!error.contains(char::is_control), "{error:?}");
}

fn local() -> LocalDescription {
    LocalDescription {
        session_id: 7,
        ice: IceCredentials { ufrag: "AAMAAREBCxYh".into(), pwd: "ISw3Qk1YY255hI+apbC7xtHc".into() },
        fingerprint: [7; 32],
        candidates: vec![SocketAddr::from(([192, 0, 2, 10], 7000))],
        tcp_candidates: true,
        video_ssrc: 1001,
        video_rtx_ssrc: 1002,
        audio_ssrc: 1003,
        stream_id: "roulette".into(),
        max_message_size: 65_536,
    }
}

/// The offers of real clients.
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/offers");
    let files = std::fs::read_dir(folder).expect("the fixtures").map(|entry| entry.expect("a fixture").path());
    let mut files: Vec<PathBuf> = files.collect();
    files.sort();
    files.iter().map(|file| std::fs::read(file).expect("a fixture")).collect()
}
