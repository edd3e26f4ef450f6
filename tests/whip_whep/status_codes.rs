//! Every status code and problem type of WHIP and WHEP, in one table, against the one in docs/whip-whep.md.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use reqwest::RequestBuilder;
use serde_json::json;
use tableside::config::Config;
use tableside::fleet::{PatchRefusal, Refusal};
use tableside::identity::{self, Algorithm, KeySet, SigningKey};

use crate::http_support::*;

const DOCUMENT: &str = include_str!("../../docs/whip-whep.md");
const PROBLEMS: &str = include_str!("../../src/http/problem.rs");

/// What the media plane says.
fn media_plane() -> FakeSessions {
    FakeSessions::default()
}

fn refusing(refusal: Refusal) -> FakeSessions {
    FakeSessions { refusal: Some(refusal), ..media_plane() }
}

fn refusing_patches(refusal: PatchRefusal) -> FakeSessions {
    FakeSessions { patch_refusal: Some(refusal), ..media_plane() }
}

/// One answer: the status, the end of the problem's type ("" for a success), the media plane, and the request.
type Case = (u16, &'static str, FakeSessions, fn(&Server) -> RequestBuilder);

fn patch(server: &Server, fragment: &'static str) -> RequestBuilder {
    server.patch("whep", SESSION, fragment).header("if-match", "\"ice-1\"")
}

fn cases() -> Vec<Case> {
    let soon = Duration::from_secs(3);
    vec![
        (200, "", media_plane(), |s| s.request("OPTIONS", "/whip/roulette")),
        (200, "", media_plane(), |s| s.request("GET", "/whep/roulette")),
        (200, "", media_plane(), |s| s.request("HEAD", &format!("/whip/roulette/{SESSION}"))),
        (200, "", media_plane(), |s| s.request("DELETE", &format!("/whep/roulette/{SESSION}"))),
        (200, "", media_plane(), |s| patch(s, RESTARTED)),
        (201, "", media_plane(), |s| s.play("roulette")),
        (201, "", media_plane(), |s| s.publish("roulette", &ROULETTE)),
        (204, "", media_plane(), |s| patch(s, TRICKLE)),
        (400, "malformed-sdp", refusing(Refusal::Malformed("line 3".into())), |s| s.play("roulette")),
        (400, "invalid-max-layer", media_plane(), |s| s.play("roulette?maxLayer=6")),
        (400, "malformed-fragment", refusing_patches(PatchRefusal::Malformed("line 3".into())), |s| patch(s, TRICKLE)),
        (401, "token-missing", media_plane(), |s| s.post("/whep/roulette")),
        (401, "token-invalid", media_plane(), |s| s.publish("roulette", "undefined")),
        (401, "token-key-unknown", media_plane(), |s| s.play_with("roulette", &of_a_stranger())),
        (401, "token-expired", media_plane(), |s| s.play_with("roulette", &valid(-3600, -60))),
        (401, "token-not-yet-valid", media_plane(), |s| s.play_with("roulette", &valid(60, 3600))),
        (403, "token-for-other-role", media_plane(), |s| s.publish("roulette", &PLAYER)),
        (403, "token-for-other-table", media_plane(), |s| s.publish("roulette", &BLACKJACK)),
        (403, "token-for-other-jurisdiction", media_plane(), |s| s.play_with("roulette", &of_nowhere())),
        (404, "unknown-table", media_plane(), |s| s.play("baccarat")),
        (404, "unknown-session", media_plane(), |s| s.patch("whep", OTHER_SESSION, TRICKLE).header("if-match", "*")),
        (404, "not-found", media_plane(), |s| s.request("GET", "/whep")),
        (405, "method-not-allowed", media_plane(), |s| s.request("PUT", "/whip/roulette")),
        (409, "table-not-live", refusing(Refusal::NotLive { retry_after: soon }), |s| s.play("roulette")),
        (409, "already-published", refusing(Refusal::AlreadyPublished), |s| s.publish("roulette", &ROULETTE)),
        (412, "other-ice-session", media_plane(), |s| {
            s.patch("whip", SESSION, TRICKLE).header("if-match", "\"ice-0\"")
        }),
        (413, "offer-too-large", media_plane(), |s| s.play("roulette").body("a".repeat(5000))),
        (413, "fragment-too-large", media_plane(), |s| patch(s, TRICKLE).body("a".repeat(20_000))),
        (415, "unsupported-media-type", media_plane(), |s| {
            let bare = s.request("POST", "/whep/roulette").header("authorization", format!("Bearer {}", *PLAYER));
            bare.body(OFFER)
        }),
        (415, "unsupported-patch-type", media_plane(), |s| {
            s.request("PATCH", &format!("/whep/roulette/{SESSION}")).header("content-type", SDP).body(OFFER)
        }),
        (422, "no-common-codec", refusing(Refusal::NoCommonCodec("VP8".into())), |s| s.play("roulette")),
        (422, "unsupported-offer", refusing(Refusal::Unsupported("line 3".into())), |s| s.play("roulette")),
        (428, "precondition-required", media_plane(), |s| s.patch("whip", SESSION, RESTARTED)),
        (429, "too-many-patches", refusing_patches(PatchRefusal::TooMany { retry_after: soon }), |s| patch(s, TRICKLE)),
        (503, "too-many-offers", refusing(Refusal::Busy { retry_after: soon }), |s| s.play("roulette")),
        (503, "too-many-half-open", refusing(Refusal::HalfOpen { retry_after: soon }), |s| s.play("roulette")),
        (503, "node-full", refusing(Refusal::Full { retry_after: soon }), |s| s.play("roulette")),
        (503, "shutting-down", refusing(Refusal::ShuttingDown), |s| s.publish("roulette", &ROULETTE)),
        (503, "node-timeout", refusing_patches(PatchRefusal::Busy), |s| patch(s, RESTARTED)),
    ]
}

/// A player's token that is good from so many seconds on until so many from now.
fn valid(from: i64, until: i64) -> String {
    let at = |offset: i64| unix_time().as_secs().saturating_add_signed(offset);
    let claims = json!({ "sub": "ann", "role": "player", "tables": ["*"], "jurisdiction": JURISDICTION, "nbf": at(from),
        "exp": at(until) });
    ISSUER.sign_parts(&json!({ "alg": "EdDSA", "kid": ISSUER.kid() }).to_string(), &claims.to_string()).unwrap()
}

/// Signed by another issuer.
fn of_a_stranger() -> String {
    token(&SigningKey::generate(Algorithm::EdDsa).unwrap(), "ann", identity::Role::Player, &["*"])
}

/// Good at every table, in no jurisdiction.
fn of_nowhere() -> String {
    let claims = json!({ "sub": "ann", "role": "player", "tables": ["*"], "exp": unix_time().as_secs() + 60 });
    ISSUER.sign_parts(&json!({ "alg": "EdDSA", "kid": ISSUER.kid() }).to_string(), &claims.to_string()).unwrap()
}

/// Which statuses promise the client a time to come back.
fn says_when(status: u16, slug: &str) -> bool {
    matches!(status, 429 | 503) || slug == "table-not-live"
}

#[tokio::test]
async fn every_documented_answer_is_given() {
    let mut given = BTreeSet::new();
    for (status, slug, sessions, request) in cases() {
        let server = Server::public_with(config(), sessions).await;
        let response = request(&server).send().await.unwrap();
        assert_eq!(header(&response, "retry-after").is_empty(), !says_when(status, slug), "{status} {slug}");
        assert_eq!(header(&response, "allow").is_empty(), status != 405 && header(&response, "accept-post").is_empty());
        assert_eq!(header(&response, "www-authenticate").starts_with("Bearer"), matches!(status, 401 | 403));
        if slug.is_empty() {
            assert_eq!(response.status(), status);
            assert_cors(response.headers());
        } else {
            assert_problem(response, status, slug).await;
        }
        given.insert((status, slug.to_owned()));
    }
    given.extend([late().await, too_often().await, wordy().await, unnamed().await, keyless().await]);
    assert_eq!(given, documented());
}

/// In the demo, a player that is called nothing.
async fn unnamed() -> (u16, String) {
    let server = Server::public_with(Config::demo(), media_plane()).await;
    let response = server.play("roulette?player=").send().await.unwrap();
    assert_problem(response, 400, "invalid-player").await;
    (400, "invalid-player".to_owned())
}

/// Keys that could not be fetched yet.
async fn keyless() -> (u16, String) {
    let mut config = config();
    config.keys = KeySet::default();
    let server = Server::public_with(config, media_plane()).await;
    let response = server.play("roulette").send().await.unwrap();
    assert_eq!(header(&response, "retry-after"), "1");
    assert_problem(response, 503, "keys-unavailable").await;
    (503, "keys-unavailable".to_owned())
}

/// A body that never comes.
async fn late() -> (u16, String) {
    let mut config = config();
    config.http.request_timeout = Duration::from_millis(100);
    let server = Server::public_with(config, media_plane()).await;
    let head = format!(
        "PATCH /whep/roulette/{SESSION} HTTP/1.1\r\nHost: a\r\nIf-Match: *\r\nContent-Type: {FRAGMENT}\r\n\
         Content-Length: 9\r\nConnection: close\r\n\r\n"
    );
    let answer = said(&server, head).await;
    assert!(
        answer.starts_with("HTTP/1.1 408 ") && answer.contains("urn:tableside:problem:request-timeout"),
        "{answer}"
    );
    (408, "request-timeout".to_owned())
}

/// A head that is larger than heads may be.
async fn wordy() -> (u16, String) {
    let mut config = config();
    config.http.max_header_bytes = 8192;
    let server = Server::public_with(config, media_plane()).await;
    let words = "a".repeat(9000);
    let head = format!("GET /whep/roulette HTTP/1.1\r\nHost: a\r\nX-Words: {words}\r\nConnection: close\r\n\r\n");
    let answer = said(&server, head).await;
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
    (431, "headers-too-large".to_owned())
}

/// More requests than an address may make.
async fn too_often() -> (u16, String) {
    let mut config = config();
    (config.http.requests_per_second_per_address, config.http.request_burst_per_address) = (1, 1);
    let server = Server::public_with(config, media_plane()).await;
    let refused = loop {
        let response = server.get("/whep/roulette").await;
        if response.status() != 200 {
            break response;
        }
    };
    assert_eq!(header(&refused, "retry-after"), "1");
    assert_problem(refused, 429, "too-many-requests").await;
    (429, "too-many-requests".to_owned())
}

/// What comes back for `text`, until the connection closes.
async fn said(server: &Server, text: String) -> String {
    let address = server.address;
    let exchange = move || {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(text.as_bytes()).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        String::from_utf8_lossy(&answer).into_owned()
    };
    tokio::task::spawn_blocking(exchange).await.unwrap()
}

/// The rows `| 404 | unknown-table | …` of the document.
fn documented() -> BTreeSet<(u16, String)> {
    let rows = DOCUMENT.lines().filter_map(|line| {
        let mut cells = line.strip_prefix('|')?.split('|').map(str::trim);
        let status = cells.next()?.parse().ok()?;
        Some((status, cells.next()?.trim_matches('`').to_owned()))
    });
    rows.collect()
}

/// A problem that is added gets a row and a case.
#[test]
fn every_problem_is_documented() {
    let slugs = PROBLEMS.split("pub const fn slug").nth(1).unwrap().split("const fn title").next().unwrap();
    let slugs: Vec<&str> = slugs.lines().filter_map(|line| line.split("=> \"").nth(1)?.split('"').next()).collect();
    assert!(slugs.len() > 20, "{slugs:?}");
    let documented = documented();
    for slug in slugs {
        assert!(documented.iter().any(|(_, known)| known == slug), "docs/whip-whep.md lacks {slug}");
    }
}
