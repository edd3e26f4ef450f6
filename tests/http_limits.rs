//! Every limit of the listeners: what meets it is refused and counted, and nobody else notices.

mod http_support;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use http_support::*;
use reqwest::Client;
use tableside::config::Config;
use tableside::fleet::ClientNetwork;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

/// Far longer than anything here takes.
const LIMIT: Duration = Duration::from_secs(20);
/// For what must not be reached while a test runs.
const LONG: Duration = Duration::from_secs(3600);
const SHORT: Duration = Duration::from_millis(100);

fn limited(reason: &str, count: u32) -> String {
    format!("tableside_http_limited_total{{listener=\"public\",reason=\"{reason}\"}} {count}")
}

async fn serving(change: impl FnOnce(&mut Config)) -> Server {
    serving_with(FakeSessions::default(), change).await
}

async fn serving_with(sessions: FakeSessions, change: impl FnOnce(&mut Config)) -> Server {
    let mut config = config();
    (config.http.header_timeout, config.http.idle_timeout) = (LONG, LONG);
    change(&mut config);
    Server::public_with(config, sessions).await
}

/// All that comes until the other end closes.
async fn rest(stream: &mut TcpStream) -> String {
    let mut all = Vec::new();
    // A reset is an end as well.
    let _ = tokio::time::timeout(LIMIT, stream.read_to_end(&mut all)).await.expect("the other end closes");
    String::from_utf8(all).unwrap()
}

/// Sends `text` on a connection of its own.
async fn say(address: SocketAddr, text: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(text.as_bytes()).await.unwrap();
    stream
}

/// A connection from another address of this host that has an answer, and so a place.
async fn settle(address: SocketAddr, from: Ipv4Addr) -> TcpStream {
    let mut stream = connect_from(address, from).await;
    stream.write_all(b"GET /api/tables HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    let mut first = [0; 15];
    stream.read_exact(&mut first).await.expect("an answer");
    assert_eq!(&first, b"HTTP/1.1 200 OK");
    stream
}

async fn connect_from(address: SocketAddr, from: Ipv4Addr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::from((from, 0))).unwrap();
    socket.connect(address).await.unwrap()
}

const HERE: Ipv4Addr = Ipv4Addr::LOCALHOST;
const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

#[tokio::test]
async fn half_a_head_is_not_waited_for() {
    let server = serving(|config| config.http.header_timeout = SHORT).await;
    for (count, half) in [(1, ""), (2, "GET / HT"), (3, "GET / HTTP/1.1\r\nhost: a\r\nx-slow: ")] {
        let mut stream = say(server.address, half).await;
        assert_eq!(rest(&mut stream).await, "", "{half:?}");
        server.metric(&limited("header_time", count)).await;
    }
    let mut second = settle(server.address, HERE).await;
    second.write_all(b"GET / HT").await.unwrap();
    rest(&mut second).await;
    server.metric(&limited("header_time", 4)).await;
}

#[tokio::test]
async fn a_head_that_comes_byte_by_byte_gains_no_time() {
    let server = serving(|config| config.http.header_timeout = SHORT).await;
    let mut stream = say(server.address, "GET / HTTP/1.1\r\nx: ").await;
    let mut pace = tokio::time::interval(SHORT / 10);
    let drip = async {
        while stream.write_all(b"x").await.is_ok() {
            pace.tick().await;
        }
    };
    tokio::time::timeout(LIMIT, drip).await.expect("the other end closes");
    server.metric(&limited("header_time", 1)).await;
}

#[tokio::test]
async fn a_connection_without_requests_is_closed_and_one_with_a_request_is_not() {
    let hangs = FakeSessions { hangs: true, ..FakeSessions::default() };
    let server = serving_with(hangs, |config| {
        (config.http.idle_timeout, config.http.request_timeout) = (SHORT, 3 * SHORT);
    })
    .await;
    let response = server.play("roulette").send().await.unwrap();
    assert_problem(response, 503, "node-timeout").await;
    let mut idle = settle(server.address, HERE).await;
    rest(&mut idle).await;
    server.metric(&limited("idle_time", 2)).await;
}

#[tokio::test]
async fn a_large_head_is_refused() {
    let server = serving(|_| {}).await;
    let text = format!("GET / HTTP/1.1\r\nhost: a\r\nx-large: {}\r\n\r\n", "x".repeat(20_000));
    let answer = rest(&mut say(server.address, &text).await).await;
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
    server.metric(&limited("header_bytes", 1)).await;
    let many: String = (0..600).map(|n| format!("x-{n}: {n}\r\n")).collect();
    let answer = rest(&mut say(server.address, &format!("GET / HTTP/1.1\r\nhost: a\r\n{many}\r\n")).await).await;
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
    server.metric(&limited("header_bytes", 2)).await;
}

#[tokio::test]
async fn connections_are_limited_in_all() {
    let server = serving(|config| config.http.max_connections = 2).await;
    let first = settle(server.address, HERE).await;
    let _second = settle(server.address, ELSEWHERE).await;
    assert_eq!(rest(&mut connect_from(server.address, HERE).await).await, "");
    server.metric(&limited("connections", 1)).await;
    server.metric("tableside_http_connections{listener=\"public\"} 2").await;
    drop(first);
    server.metric("tableside_http_connections{listener=\"public\"} 1").await;
    settle(server.address, HERE).await;
}

#[tokio::test]
async fn connections_of_one_address_leave_room_for_others() {
    let server = serving(|config| config.http.max_connections_per_address = 2).await;
    let _held = [settle(server.address, HERE).await, settle(server.address, HERE).await];
    assert_eq!(rest(&mut connect_from(server.address, HERE).await).await, "");
    server.metric(&limited("connections_per_address", 1)).await;
    settle(server.address, ELSEWHERE).await;
}

#[tokio::test]
async fn a_proxy_is_not_one_address() {
    let server = serving(|config| {
        config.http.max_connections_per_address = 1;
        config.http.trusted_proxies = vec!["127.0.0.1".parse().unwrap()];
    })
    .await;
    let _held = [settle(server.address, HERE).await, settle(server.address, HERE).await];
    let _one = settle(server.address, ELSEWHERE).await;
    assert_eq!(rest(&mut connect_from(server.address, ELSEWHERE).await).await, "", "it is no proxy");
}

#[tokio::test]
async fn requests_of_one_address_are_limited_by_rate() {
    let server = serving(|config| {
        (config.http.requests_per_second_per_address, config.http.request_burst_per_address) = (1, 3);
    })
    .await;
    let mut answers = Vec::new();
    for _ in 0..20 {
        answers.push(server.play("roulette").send().await.unwrap());
    }
    let refused: Vec<_> = answers.into_iter().filter(|answer| answer.status() != 201).collect();
    // Three at once, and what was earned while they were asked.
    let admitted = 20 - refused.len();
    assert!((3..20).contains(&admitted), "{admitted} were admitted");
    assert_eq!(server.sessions.asked.lock().unwrap().len(), admitted, "the others were not even read");
    server.metric(&limited("request_rate", refused.len() as u32)).await;
    let refused = refused.into_iter().next().unwrap();
    assert_eq!(header(&refused, "retry-after"), "1");
    assert_problem(refused, 429, "too-many-requests").await;

    let elsewhere = Client::builder().no_proxy().local_address(IpAddr::from(ELSEWHERE)).build().unwrap();
    let request = elsewhere.get(format!("http://{}/api/tables", server.address));
    assert_eq!(request.send().await.unwrap().status(), 200, "another address");
}

#[tokio::test]
async fn who_is_behind_a_trusted_proxy_has_a_rate_of_its_own() {
    let server = serving(|config| {
        (config.http.requests_per_second_per_address, config.http.request_burst_per_address) = (1, 1);
        config.http.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
    })
    .await;
    for n in 1..=20 {
        let request = server.play("roulette").header("x-forwarded-for", format!("6.6.6.6, 203.0.113.{n}"));
        assert_eq!(request.send().await.unwrap().status(), 201, "{n}");
    }
    let clients = server.sessions.clients.lock().unwrap().clone();
    let expected = (1..=20).map(|n| ClientNetwork::of([203, 0, 113, n].into())).collect::<Vec<_>>();
    assert_eq!(clients, expected, "admission counts them apart as well");
}

#[tokio::test]
async fn a_stranger_cannot_pretend_to_be_many() {
    let server = serving(|config| {
        (config.http.requests_per_second_per_address, config.http.request_burst_per_address) = (1, 1);
    })
    .await;
    let mut refused = 0;
    for n in 1..=20 {
        let request = server.play("roulette").header("x-forwarded-for", format!("203.0.113.{n}"));
        refused += u32::from(request.send().await.unwrap().status() == 429);
    }
    assert!(refused > 0);
}

#[tokio::test]
async fn a_large_or_slow_body_is_counted() {
    let server = serving(|config| config.http.request_timeout = SHORT).await;
    let response = server.play("roulette").body("x".repeat(5000)).send().await.unwrap();
    assert_problem(response, 413, "offer-too-large").await;
    server.metric(&limited("body_bytes", 1)).await;
    let head = format!(
        "POST /whep/roulette?access_token={} HTTP/1.1\r\nhost: a\r\ncontent-type: application/sdp\r\ncontent-length: 9\r\n\r\nv=0",
        *PLAYER
    );
    let mut stream = say(server.address, &head).await;
    let mut answer = [0; 12];
    tokio::time::timeout(LIMIT, stream.read_exact(&mut answer)).await.expect("an answer").unwrap();
    assert_eq!(&answer, b"HTTP/1.1 408");
    server.metric(&limited("request_time", 1)).await;
}

#[tokio::test]
async fn answers_that_nobody_reads_are_given_up() {
    let server = serving(|config| config.http.idle_timeout = SHORT).await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut stream = socket.connect(server.address).await.unwrap();
    // More answers than all buffers between can hold; the listener stops reading when it cannot write.
    let request = "GET /sdk/player.js HTTP/1.1\r\nhost: a\r\n\r\n".repeat(100);
    let flood = async move { while stream.write_all(request.as_bytes()).await.is_ok() {} };
    let flood = tokio::spawn(flood);
    // Made, and waiting for room to be sent: the connection does nothing any more.
    server.metric(&limited("idle_time", 1)).await;
    tokio::time::timeout(LIMIT, flood).await.expect("the other end closes").unwrap();
}

#[tokio::test]
async fn who_never_finishes_a_request_does_not_hold_up_the_end() {
    let server = serving(|_| {}).await;
    let mut half = say(server.address, "GET / HT").await;
    let mut idle = settle(server.address, HERE).await;
    server.metric("tableside_http_connections{listener=\"public\"} 2").await;
    tokio::time::timeout(LIMIT, server.end()).await.expect("the listener ends");
    rest(&mut half).await;
    rest(&mut idle).await;
}

#[tokio::test]
async fn the_admin_listener_has_limits_of_its_own() {
    let mut config = config();
    config.http.header_timeout = SHORT;
    config.admin.max_connections = 1;
    let server = Server::admin_of(config, FakeSessions::default()).await;
    let mut half = say(server.address, "GET / HT").await;
    server.metric("tableside_http_connections{listener=\"admin\"} 1").await;
    assert_eq!(rest(&mut say(server.address, "").await).await, "");
    server.metric("tableside_http_limited_total{listener=\"admin\",reason=\"connections\"} 1").await;
    rest(&mut half).await;
    server.metric("tableside_http_limited_total{listener=\"admin\",reason=\"header_time\"} 1").await;
}
