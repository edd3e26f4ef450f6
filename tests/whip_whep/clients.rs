//! What clients in the field send that the texts do not foresee, and what they need of an answer. Their offers are in
//! tests/fixtures/offers; `rtc::sdp` checks the answers to each.

use crate::gateway::{Gateway, Session};
use crate::http_support::{PLAYER, ROULETTE, assert_problem, header};

const OBS: &str = include_str!("../fixtures/offers/obs-publisher.sdp");
const FFMPEG: &str = include_str!("../fixtures/offers/ffmpeg-publisher.sdp");
const GSTREAMER: &str = include_str!("../fixtures/offers/gstreamer-publisher.sdp");
const CHROMIUM_PUBLISHER: &str = include_str!("../fixtures/offers/chromium-publisher.sdp");
const CHROMIUM_PLAYER: &str = include_str!("../fixtures/offers/chromium-player.sdp");
const FIREFOX_PLAYER: &str = include_str!("../fixtures/offers/firefox-player.sdp");

fn ufrag(offer: &str) -> &str {
    offer.lines().find_map(|line| line.strip_prefix("a=ice-ufrag:")).expect("an ufrag")
}

fn pwd(offer: &str) -> &str {
    offer.lines().find_map(|line| line.strip_prefix("a=ice-pwd:")).expect("a password")
}

/// As JavaScript clients write it: credentials at session level, an m-line that means nothing.
fn javascript_fragment(ufrag: &str, pwd: &str) -> String {
    format!(
        "a=ice-ufrag:{ufrag}\r\na=ice-pwd:{pwd}\r\nm=audio 9 RTP/AVP 0\r\na=mid:0\r\n\
         a=candidate:1 1 udp 2113937151 0d6a3b3e-8a0f-4f5e-9d0b-6f1f1f2f3f4f.local 50000 typ host generation 0\r\n\
         a=end-of-candidates\r\n"
    )
}

/// OBS takes 201 alone, a Location that is absolute or a path, without a query, and 200 alone from its DELETE. It never
/// sends a PATCH.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn obs() {
    let gateway = Gateway::start().await;
    let created = Session::of(&gateway.publish("roulette", &ROULETTE, OBS).send().await.unwrap());
    assert!(created.url.starts_with("http://127.0.0.1:") && !created.url.contains('?'), "{}", created.url);
    assert_eq!(gateway.delete(&created).await.status(), 200);
}

/// FFmpeg wants a body that begins with `v=`, and takes the first UDP host candidate.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ffmpeg() {
    let gateway = Gateway::start().await;
    let created = Session::read(gateway.publish("roulette", &ROULETTE, FFMPEG).send().await.unwrap()).await;
    assert!(created.answer.starts_with("v=0\r\n"));
    let first = created.answer.lines().find(|line| line.starts_with("a=candidate:")).expect("a candidate");
    assert!(first.contains(" udp ") && first.contains(" 127.0.0.1 ") && first.ends_with(" typ host"), "{first}");
    assert!(created.answer.contains("a=setup:active"), "it offers passive");
    assert_eq!(gateway.delete(&created).await.status(), 200);
}

/// GStreamer resolves a relative Location against the configured endpoint, even after a redirect. Its ufrag has 32
/// characters and its mids are words.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gstreamer() {
    let gateway = Gateway::start().await;
    let created = Session::of(&gateway.publish("roulette", &ROULETTE, GSTREAMER).send().await.unwrap());
    assert!(created.url.starts_with("http://"));
    let fragment = format!(
        "m=0 9 RTP/AVP 0\r\na=ice-ufrag:{}\r\na=ice-pwd:{}\r\na=mid:audio0\r\n\
         a=candidate:1 1 TCP 1015021823 192.0.2.7 9 typ host tcptype active\r\n",
        ufrag(GSTREAMER),
        pwd(GSTREAMER)
    );
    let response = gateway.patch(&created, fragment).header("if-match", &created.etag).send().await.unwrap();
    assert_eq!(response.status(), 204);
}

/// Eyevinn's WHIP client asks OPTIONS for the methods, sends its tag as `ETag`, and its DELETE without a token.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn eyevinn_whip_web_client() {
    let gateway = Gateway::start().await;
    let options = gateway.request("OPTIONS", "/whip/roulette").send().await.unwrap();
    let exposed = header(&options, "access-control-expose-headers").to_ascii_lowercase();
    assert!(exposed.contains("access-control-allow-methods"));
    assert!(header(&options, "access-control-allow-methods").contains("PATCH"));
    assert!(header(&options, "access-control-allow-headers").to_ascii_lowercase().contains("etag"));

    // Without a token it sends the word.
    let tokenless = gateway.publish("roulette", "undefined", CHROMIUM_PUBLISHER).send().await.unwrap();
    assert_problem(tokenless, 401, "token-invalid").await;

    let created = Session::of(&gateway.publish("roulette", &ROULETTE, CHROMIUM_PUBLISHER).send().await.unwrap());
    let fragment = javascript_fragment(ufrag(CHROMIUM_PUBLISHER), pwd(CHROMIUM_PUBLISHER));
    let response = gateway.patch(&created, fragment.clone()).header("etag", &created.etag).send().await.unwrap();
    assert_eq!(response.status(), 204);
    let stale = gateway.patch(&created, fragment).header("etag", "\"another\"").send().await.unwrap();
    assert_problem(stale, 412, "other-ice-session").await;
    assert_eq!(gateway.delete(&created).await.status(), 200);
}

/// Eyevinn's player sends its token without the word `Bearer`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_without_its_scheme() {
    let gateway = Gateway::start().await;
    let bare = |token: &str| gateway.post("/whip/roulette", OBS).header("authorization", token.to_owned());
    Session::of(&bare(&ROULETTE).send().await.unwrap());
    assert_problem(bare("not-a-token").send().await.unwrap(), 401, "token-invalid").await;
    for nothing in ["Bearer", "Bearer ", ""] {
        assert_problem(bare(nothing).send().await.unwrap(), 401, "token-missing").await;
    }
    let player = gateway.post("/whep/watched", FIREFOX_PLAYER).header("authorization", PLAYER.as_str());
    Session::of(&player.send().await.unwrap());
}

/// The WHEP half of npm `whip-whep` never learns the 201's tag: its PATCH gets 428, and the session goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whip_whep_player() {
    let gateway = Gateway::start().await;
    let created = Session::of(&gateway.play("watched", CHROMIUM_PLAYER).send().await.unwrap());
    let fragment = javascript_fragment(ufrag(CHROMIUM_PLAYER), pwd(CHROMIUM_PLAYER));
    let response = gateway.patch(&created, fragment).send().await.unwrap();
    assert_problem(response, 428, "precondition-required").await;
    assert_eq!(gateway.request("GET", &created.url).send().await.unwrap().status(), 200);
    assert_eq!(gateway.delete(&created).await.status(), 200);
}

/// simple-whip-client puts If-Match with the last tag on every request, restarts and DELETE too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn simple_whip_client() {
    let gateway = Gateway::start().await;
    let created = Session::of(&gateway.publish("roulette", &ROULETTE, GSTREAMER).send().await.unwrap());
    let fragment = javascript_fragment("0123456789abcdefghijklmnopqrstuv", "0123456789abcdefghijklmnopqrstuv");
    let response = gateway.patch(&created, fragment).header("if-match", &created.etag).send().await.unwrap();
    assert_eq!(response.status(), 200, "a restart that names the ICE session it ends");
    let newest = header(&response, "etag").to_owned();
    let delete = gateway.request("DELETE", &created.url).header("if-match", newest);
    assert_eq!(delete.send().await.unwrap().status(), 200);
}
