//! The examples of RFC 9725 and of the WHEP draft, sent as they are printed, to a whole node.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::gateway::{Gateway, Session, assert_strong};
use crate::http_support::{FRAGMENT, ROULETTE, SDP, assert_problem, header};

/// RFC 9725, Figure 2 and draft-ietf-wish-whep-03's example of an accepted offer.
const WHIP_OFFER: &str = include_str!("../fixtures/offers/rfc9725-example.sdp");
const WHEP_OFFER: &str = include_str!("../fixtures/offers/whep-draft-example.sdp");
/// "Example of a Trickle ICE Request and Response": the ufrag of the WHIP offer, and a password that is not.
const TRICKLE: &str = include_str!("../fixtures/fragments/rfc9725-trickle.sdpfrag");
/// "Example of an ICE Restart Request and Response".
const RESTART: &str = include_str!("../fixtures/fragments/rfc9725-restart.sdpfrag");

/// A line of an SDP answer or fragment, its name taken off.
fn value<'a>(text: &'a str, name: &str) -> &'a str {
    text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("no {name} in\n{text}"))
}

fn candidates(section: &str) -> Vec<&str> {
    section.lines().filter(|line| line.starts_with("a=candidate:")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whip_session_setup_trickle_restart_and_teardown() {
    let gateway = Gateway::start().await;
    let options = gateway.request("OPTIONS", "/whip/roulette").send().await.unwrap();
    assert_eq!((options.status().as_u16(), header(&options, "accept-post")), (200, SDP));
    let created = Session::read(gateway.publish("roulette", &ROULETTE, WHIP_OFFER).send().await.unwrap()).await;
    // §4.2: the answer is recvonly; the figure's own has one candidate and says so.
    assert!(created.answer.contains("a=recvonly") && created.answer.contains("a=end-of-candidates"));
    follow(&gateway, &created, TRICKLE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whep_session_setup_trickle_restart_and_teardown() {
    let gateway = Gateway::start().await;
    let created = Session::read(gateway.play("watched", WHEP_OFFER).send().await.unwrap()).await;
    assert!(created.answer.contains("a=sendonly"));
    // The draft's trickle example belongs to another offer than the one it prints: its ufrag is made this offer's.
    follow(&gateway, &created, &TRICKLE.replace("EsAw", "zjkk")).await;
}

/// Everything after the 201. `trickle` has the offer's ufrag.
async fn follow(gateway: &Gateway, created: &Session, trickle: &str) {
    let send = async |fragment: &str, condition: &str| {
        gateway.patch(created, fragment).header("if-match", condition).send().await.unwrap()
    };
    // §4.3.2: 204 without a body and without an ETag.
    let response = send(trickle, &created.etag).await;
    assert_eq!(response.status(), 204);
    assert!(response.headers().get("etag").is_none());
    assert!(response.bytes().await.unwrap().is_empty());

    // §4.3.1: "428 Precondition Required" for a missing entity-tag, "412 Precondition Failed" for another one, for a restart
    // as well.
    for fragment in [trickle, RESTART] {
        let response = gateway.patch(created, fragment).send().await.unwrap();
        assert_problem(response, 428, "precondition-required").await;
        assert_problem(send(fragment, "\"xyzzy\"").await, 412, "other-ice-session").await;
    }

    // §4.3.3, with the quotes that the figure has.
    let (etag, fragment) = restarted(send(RESTART, "\"*\"").await).await;
    assert_ne!(etag, created.etag);
    assert_same_agent(&fragment, &created.answer);

    // The old entity-tag is stale now, and the new ufrag is that of a trickle request.
    assert_problem(send(RESTART, &created.etag).await, 412, "other-ice-session").await;
    assert_eq!(send(RESTART, &etag).await.status(), 204);

    // Again, with the field value that the text asks for.
    let (again, second) = restarted(send(&RESTART.replace("ysXw", "ysXx"), "*").await).await;
    assert_ne!(again, etag);
    assert_ne!(value(&second, "a=ice-ufrag:"), value(&fragment, "a=ice-ufrag:"));
    assert_ne!(value(&second, "a=ice-pwd:"), value(&fragment, "a=ice-pwd:"));

    // §4.3.1: any entity-tag with DELETE is ignored.
    let request = gateway.request("DELETE", &created.url).header("if-match", &created.etag);
    let response = request.send().await.unwrap();
    assert_eq!(response.status(), 200);
    assert!(response.bytes().await.unwrap().is_empty());
    assert_problem(gateway.delete(created).await, 404, "unknown-session").await;
    assert_problem(send(trickle, "*").await, 404, "unknown-session").await;
}

async fn restarted(response: reqwest::Response) -> (String, String) {
    assert_eq!(response.status(), 200);
    assert_eq!(header(&response, "content-type"), FRAGMENT);
    let etag = header(&response, "etag").to_owned();
    assert_strong(&etag);
    (etag, response.text().await.unwrap())
}

/// §4.3.3: new credentials; ice-lite and ice-options of the answer; the tagged section, and all our candidates.
fn assert_same_agent(fragment: &str, answer: &str) {
    for attribute in ["a=ice-options:", "a=group:", "a=mid:", "m="] {
        assert_eq!(value(fragment, attribute), value(answer, attribute));
    }
    assert!(fragment.starts_with("a=ice-lite\r\n") && fragment.ends_with("a=end-of-candidates\r\n"), "{fragment}");
    assert_ne!(value(fragment, "a=ice-ufrag:"), value(answer, "a=ice-ufrag:"));
    assert_ne!(value(fragment, "a=ice-pwd:"), value(answer, "a=ice-pwd:"));
    let tagged = answer.split("\r\nm=").nth(1).unwrap();
    assert!(!candidates(tagged).is_empty());
    assert_eq!(candidates(fragment), candidates(tagged));
}

/// Its precondition held when the head came, and another restart was quicker.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_restarts_at_once_the_one_whose_body_is_late_is_refused() {
    let gateway = Gateway::start().await;
    let created = Session::read(gateway.play("watched", WHEP_OFFER).send().await.unwrap()).await;
    let url: reqwest::Url = created.url.parse().unwrap();
    let (host, path) = (format!("{}:{}", url.host_str().unwrap(), url.port().unwrap()), url.path());
    let head = format!(
        "PATCH {path} HTTP/1.1\r\nHost: {host}\r\nIf-Match: {}\r\nContent-Type: {FRAGMENT}\r\n\
         Content-Length: {}\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n",
        created.etag,
        RESTART.len()
    );
    let mut late = TcpStream::connect(&host).await.unwrap();
    late.write_all(head.as_bytes()).await.unwrap();
    // RFC 9110 §10.1.1: from here on nothing but the body is waited for.
    let mut go_on = [0; 25];
    late.read_exact(&mut go_on).await.unwrap();
    assert_eq!(&go_on, b"HTTP/1.1 100 Continue\r\n\r\n");

    let quick = gateway.patch(&created, RESTART.replace("ysXw", "ysXx")).header("if-match", &created.etag);
    let (etag, _) = restarted(quick.send().await.unwrap()).await;
    late.write_all(RESTART.as_bytes()).await.unwrap();
    let mut answer = String::new();
    late.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 412 ") && answer.contains("other-ice-session"), "{answer}");
    let trickled = gateway.patch(&created, RESTART.replace("ysXw", "ysXx")).header("if-match", &etag);
    assert_eq!(trickled.send().await.unwrap().status(), 204, "the quick one's credentials hold");
}

/// RFC 9725 §4.3.3: a restart that cannot be done MUST NOT end the session.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_refused_leaves_the_session_as_it_was() {
    let gateway = Gateway::start().await;
    let created = Session::read(gateway.play("watched", WHEP_OFFER).send().await.unwrap()).await;
    let send = async |fragment: String| {
        gateway.patch(&created, fragment).header("if-match", &created.etag).send().await.unwrap()
    };
    for malformed in ["hello", "a=ice-ufrag:ysXw\r\n", "a=ice-ufrag:y\r\na=ice-pwd:vw5LmwG4y/e6dPP/zAP9Gp5k\r\n"] {
        assert_problem(send(malformed.to_owned()).await, 400, "malformed-fragment").await;
    }
    assert_problem(send("a=x\r\n".repeat(4000)).await, 413, "fragment-too-large").await;
    let wrong = gateway.request("PATCH", &created.url).header("content-type", SDP).header("if-match", "*");
    let wrong = wrong.body(RESTART).send().await.unwrap();
    assert_eq!(header(&wrong, "accept-patch"), FRAGMENT);
    assert_problem(wrong, 415, "unsupported-patch-type").await;

    let mut refused = 0;
    while refused == 0 {
        let response = send(TRICKLE.replace("EsAw", "zjkk")).await;
        match response.status().as_u16() {
            204 => {}
            _ => {
                assert_eq!(header(&response, "retry-after"), "1");
                assert_problem(response, 429, "too-many-patches").await;
                refused += 1;
            }
        }
    }
    assert_eq!(gateway.request("HEAD", &created.url).send().await.unwrap().status(), 200);
    assert_eq!(gateway.delete(&created).await.status(), 200, "DELETE is not counted");
}
