//! WHIP and WHEP over HTTP: every status code, header and problem that clients rely on.

mod http_support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use http_support::*;
use tableside::config::{AuthMode, Config, MaxLayer};
use tableside::fleet::Refusal;
use tableside::shard::Role;

/// Sends `text` as it stands and gives the first bytes of what comes back.
async fn raw(address: SocketAddr, text: String) -> String {
    let exchange = move || {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(text.as_bytes()).unwrap();
        let mut answer = [0; 32];
        stream.read_exact(&mut answer).unwrap();
        String::from_utf8_lossy(&answer).into_owned()
    };
    tokio::task::spawn_blocking(exchange).await.unwrap()
}

#[tokio::test]
async fn an_offer_to_watch_is_answered_with_a_session() {
    let server = Server::public().await;
    let response = server.play("roulette").send().await.unwrap();
    assert_eq!(response.status(), 201);
    assert_cors(response.headers());
    assert_eq!(header(&response, "content-type"), SDP);
    assert_eq!(header(&response, "etag"), "\"ice-1\"");
    assert_eq!(header(&response, "location"), format!("http://{}/whep/roulette/{SESSION}", server.address));
    assert_eq!(header(&response, "accept-patch"), FRAGMENT);
    assert!(response.headers().get("link").is_none(), "no ICE server is configured");
    assert_eq!(response.text().await.unwrap(), ANSWER);
    let asked = server.sessions.asked.lock().unwrap();
    assert_eq!(*asked, [(Role::Player, "roulette".to_owned(), OFFER.as_bytes().to_vec())]);
}

#[tokio::test]
async fn an_offer_to_publish_is_answered_with_a_session() {
    let server = Server::public().await;
    let response = server.publish("roulette", &ROULETTE).send().await.unwrap();
    assert_eq!(response.status(), 201);
    assert_eq!(header(&response, "location"), format!("http://{}/whip/roulette/{SESSION}", server.address));
    assert_eq!(server.sessions.asked.lock().unwrap()[0].0, Role::Publisher);
}

#[tokio::test]
async fn the_demo_asks_for_no_token() {
    let server = Server::public_with(Config::demo(), FakeSessions::default()).await;
    for path in ["/whip/roulette", "/whep/roulette"] {
        assert_eq!(server.post(path).send().await.unwrap().status(), 201);
        let nonsense = server.post(path).header("authorization", "Bearer undefined");
        assert_eq!(nonsense.send().await.unwrap().status(), 201);
    }
}

#[tokio::test]
async fn location_is_under_the_public_url() {
    let mut config = config();
    config.http.public_url = Some("https://edge.example.com/live/".to_owned().try_into().unwrap());
    let server = Server::public_with(config, FakeSessions::default()).await;
    let response = server.play("roulette").header("host", "internal:8080").send().await.unwrap();
    assert_eq!(header(&response, "location"), format!("https://edge.example.com/live/whep/roulette/{SESSION}"));
}

#[tokio::test]
async fn location_follows_the_host_header_unless_that_is_nonsense() {
    let server = Server::public().await;
    for (host, base) in [("edge.example.com:8443", "http://edge.example.com:8443"), ("[::1]:80", "http://[::1]:80")] {
        let response = server.play("roulette").header("host", host).send().await.unwrap();
        assert_eq!(header(&response, "location"), format!("{base}/whep/roulette/{SESSION}"));
    }
    for host in ["user@evil", "evil/path", "a,b"] {
        let response = server.play("roulette").header("host", host).send().await.unwrap();
        assert_eq!(header(&response, "location"), format!("/whep/roulette/{SESSION}"), "{host}");
    }
}

#[tokio::test]
async fn each_refusal_has_its_status_and_type() {
    let five = Duration::from_millis(4200);
    for (refusal, status, slug, retry_after) in [
        (Refusal::UnknownTable, 404, "unknown-table", ""),
        (Refusal::NotLive { retry_after: five }, 409, "table-not-live", "5"),
        (Refusal::AlreadyPublished, 409, "already-published", ""),
        (Refusal::Malformed("line 3".to_owned()), 400, "malformed-sdp", ""),
        (Refusal::Unsupported("line 3".to_owned()), 422, "unsupported-offer", ""),
        (Refusal::NoCommonCodec("line 3".to_owned()), 422, "no-common-codec", ""),
        (Refusal::Full { retry_after: five }, 503, "node-full", "5"),
        (Refusal::Busy { retry_after: five }, 503, "too-many-offers", "5"),
        (Refusal::HalfOpen { retry_after: five }, 503, "too-many-half-open", "5"),
        (Refusal::ShuttingDown, 503, "shutting-down", "2"),
    ] {
        let says_why = refusal.to_string().contains("line 3");
        let server = Server::refusing(refusal).await;
        for request in [server.play("roulette"), server.publish("roulette", &ROULETTE)] {
            let response = request.send().await.unwrap();
            assert_eq!(header(&response, "retry-after"), retry_after, "{slug}");
            let problem = assert_problem(response, status, slug).await;
            assert!(!says_why || problem["detail"] == "line 3", "{problem}");
        }
    }
}

#[tokio::test]
async fn names_that_are_no_table_are_404() {
    let server = Server::public().await;
    let long = "x".repeat(65);
    for table in ["baccarat", "a.b", "a%20b", "%2fetc", &long] {
        assert_problem(server.play(table).send().await.unwrap(), 404, "unknown-table").await;
        assert_problem(server.publish(table, &ROULETTE).send().await.unwrap(), 404, "unknown-table").await;
        assert_problem(server.get(&format!("/whep/{table}")).await, 404, "unknown-table").await;
        let session = format!("/whip/{table}/{SESSION}");
        assert_problem(server.send("DELETE", &session).await, 404, "unknown-table").await;
    }
    for path in ["/whep", "/whep/", "/whep/roulette/", "/whep/a/b/c", "/whep/%ff", "/whip/roulette/%ff"] {
        assert_problem(server.get(path).await, 404, "not-found").await;
    }
}

#[tokio::test]
async fn only_sdp_is_taken() {
    let server = Server::public().await;
    let authorization = format!("Bearer {}", *PLAYER);
    let post = || server.request("POST", "/whep/roulette").header("authorization", &authorization).body(OFFER);
    for wrong in ["text/plain", "application/json", "application/sdpx", ""] {
        let response = post().header("content-type", wrong).send().await.unwrap();
        assert_problem(response, 415, "unsupported-media-type").await;
    }
    assert_problem(post().send().await.unwrap(), 415, "unsupported-media-type").await;
    for right in ["application/sdp; charset=utf-8", "Application/SDP", "application/sdp ;x=y"] {
        assert_eq!(post().header("content-type", right).send().await.unwrap().status(), 201, "{right}");
    }
}

#[tokio::test]
async fn an_offer_may_be_as_long_as_configured_and_no_longer() {
    let server = Server::public().await;
    let post = |len: usize| server.play("roulette").body("a".repeat(len));
    assert_eq!(post(4096).send().await.unwrap().status(), 201);
    let problem = assert_problem(post(4097).send().await.unwrap(), 413, "offer-too-large").await;
    assert!(problem["detail"].as_str().unwrap().contains("4096"));
    assert_eq!(server.sessions.asked.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn a_chunked_offer_has_the_same_limit() {
    let server = Server::public().await;
    let head = format!(
        "POST /whep/roulette HTTP/1.1\r\nHost: a\r\nContent-Type: application/sdp\r\nAuthorization: Bearer {}\r\n\
         Transfer-Encoding: chunked\r\n\r\n",
        *PLAYER
    );
    let chunk = format!("a00\r\n{}\r\n", "a".repeat(0xa00));
    let answer = raw(server.address, format!("{head}{chunk}{chunk}")).await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
}

#[tokio::test]
async fn a_client_that_never_sends_its_offer_is_timed_out() {
    let mut config = config();
    config.http.request_timeout = Duration::from_millis(100);
    let server = Server::public_with(config, FakeSessions::default()).await;
    let head = format!(
        "POST /whep/roulette HTTP/1.1\r\nHost: a\r\nContent-Type: application/sdp\r\nAuthorization: Bearer {}\r\n\
         Content-Length: 9\r\n\r\n",
        *PLAYER
    );
    let answer = raw(server.address, head).await;
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
}

#[tokio::test]
async fn without_a_host_the_session_url_is_a_path() {
    let server = Server::public().await;
    let request = format!(
        "POST /whep/roulette HTTP/1.0\r\nContent-Type: application/sdp\r\nAuthorization: Bearer {}\r\nContent-Length: {}\r\n\
         \r\n{OFFER}",
        *PLAYER,
        OFFER.len()
    );
    assert!(raw(server.address, request).await.starts_with("HTTP/1.0 201 "));
}

#[tokio::test]
async fn the_demo_takes_the_players_word_for_who_it_is() {
    let server = Server::public_with(Config::demo(), FakeSessions::default()).await;
    for (query, player) in [("", None), ("?x=1&player", None), ("?x=1&player=bob-7._", Some("bob-7._"))] {
        let response = server.play(&format!("roulette{query}")).send().await.unwrap();
        assert_eq!(response.status(), 201, "{query}");
        let asked = server.sessions.players.lock().unwrap().pop().unwrap();
        assert_eq!(asked.as_ref().map(|id| id.as_str()), player, "{query}");
    }
    for wrong in ["", "a%20b", "a@b", &"x".repeat(129)] {
        let response = server.play(&format!("roulette?player={wrong}")).send().await.unwrap();
        assert_problem(response, 400, "invalid-player").await;
    }
    let mut open = config();
    open.auth.mode = AuthMode::None;
    let gateway = Server::public_with(open, FakeSessions::default()).await;
    gateway.play("roulette?player=bob").send().await.unwrap();
    assert_eq!(gateway.sessions.players.lock().unwrap().pop(), Some(None), "elsewhere it would prove nothing");
}

#[tokio::test]
async fn a_player_may_bound_its_layers_and_a_publisher_may_not() {
    let server = Server::public().await;
    let asked = |server: &Server| server.sessions.max_layers.lock().unwrap().pop().unwrap();
    for (query, max_layer) in [
        ("", None),
        ("?maxLayer", None),
        ("?maxLayer=0", Some(0)),
        ("?x=1&maxLayer=5&maxLayer=1", Some(5)),
        ("?maxlayer=9", None),
    ] {
        let response = server.play(&format!("roulette{query}")).send().await.unwrap();
        assert_eq!(response.status(), 201, "{query}");
        assert_eq!(asked(&server), max_layer.and_then(MaxLayer::new), "{query}");
    }
    for wrong in ["", "6", "-1", "+1", "00", "1.0", "%31", "h", "all", "18446744073709551616"] {
        let response = server.play(&format!("roulette?maxLayer={wrong}")).send().await.unwrap();
        let document = assert_problem(response, 400, "invalid-max-layer").await;
        assert!(document["detail"].as_str().unwrap().contains("`maxLayer`"), "{document}");
    }
    assert!(server.sessions.max_layers.lock().unwrap().is_empty(), "the media plane was not asked");
    assert_eq!(server.publish("roulette?maxLayer=h", &ROULETTE).send().await.unwrap().status(), 201);
}

#[tokio::test]
async fn a_node_that_does_not_answer_is_a_503() {
    let mut config = config();
    config.http.request_timeout = Duration::from_millis(100);
    let server = Server::public_with(config, FakeSessions { hangs: true, ..FakeSessions::default() }).await;
    let response = server.play("roulette").send().await.unwrap();
    assert_eq!(header(&response, "retry-after"), "2");
    assert_problem(response, 503, "node-timeout").await;
    let response = server.send("DELETE", &format!("/whep/roulette/{SESSION}")).await;
    assert_problem(response, 503, "node-timeout").await;
}

#[tokio::test]
async fn get_and_head_are_empty_sdp() {
    let server = Server::public().await;
    let session = format!("/whep/roulette/{SESSION}");
    for method in ["GET", "HEAD"] {
        for path in ["/whip/roulette", "/whep/idle", session.as_str()] {
            let response = server.send(method, path).await;
            assert_eq!(response.status(), 200, "{method} {path}");
            assert_eq!(header(&response, "content-type"), SDP);
            assert_eq!(header(&response, "content-length"), "0");
            assert_cors(response.headers());
            assert!(response.bytes().await.unwrap().is_empty());
        }
        let response = server.send(method, &format!("/whep/roulette/{OTHER_SESSION}")).await;
        assert_eq!(response.status(), 404);
        assert_cors(response.headers());
    }
}

#[tokio::test]
async fn options_need_no_token_and_no_table() {
    let server = Server::public().await;
    for path in ["/whip/roulette", "/whep/roulette", "/whep/nobody-knows"] {
        let request = server.request("OPTIONS", path).header("access-control-request-method", "POST");
        let response = request.header("origin", "https://casino.example").send().await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(header(&response, "accept-post"), SDP);
        assert_eq!(header(&response, "allow"), "OPTIONS, GET, HEAD, POST");
        assert!(!header(&response, "access-control-max-age").is_empty());
        assert!(response.headers().get("link").is_none());
        assert_cors(response.headers());
    }
    let response = server.send("OPTIONS", &format!("/whip/roulette/{SESSION}")).await;
    assert_eq!((response.status().as_u16(), header(&response, "allow")), (200, "OPTIONS, GET, HEAD, PATCH, DELETE"));
    assert_eq!(header(&response, "accept-patch"), FRAGMENT);
    assert_cors(response.headers());
}

#[tokio::test]
async fn other_methods_are_405_with_allow() {
    let server = Server::public().await;
    let session = format!("/whip/roulette/{SESSION}");
    for (method, path, allow) in [
        ("PUT", "/whip/roulette", "OPTIONS, GET, HEAD, POST"),
        ("DELETE", "/whep/roulette", "OPTIONS, GET, HEAD, POST"),
        ("PATCH", "/whep/roulette", "OPTIONS, GET, HEAD, POST"),
        ("BREW", "/whep/roulette", "OPTIONS, GET, HEAD, POST"),
        ("POST", session.as_str(), "OPTIONS, GET, HEAD, PATCH, DELETE"),
        ("PUT", session.as_str(), "OPTIONS, GET, HEAD, PATCH, DELETE"),
        ("POST", "/api/tables", "OPTIONS, GET, HEAD"),
        ("POST", "/play/roulette", "GET, HEAD"),
        ("DELETE", "/assets/style.css", "GET, HEAD"),
    ] {
        let response = server.send(method, path).await;
        assert_eq!(header(&response, "allow"), allow, "{method} {path}");
        assert_problem(response, 405, "method-not-allowed").await;
    }
}

#[tokio::test]
async fn candidates_are_204_and_a_restart_is_200_with_a_new_tag() {
    let server = Server::public().await;
    for (role, of) in [("whip", Role::Publisher), ("whep", Role::Player)] {
        let response = server.patch(role, SESSION, TRICKLE).header("if-match", "\"ice-1\"").send().await.unwrap();
        assert_eq!(response.status(), 204);
        assert_cors(response.headers());
        for absent in ["etag", "content-type", "content-length"] {
            assert!(response.headers().get(absent).is_none(), "{absent}");
        }
        assert!(response.bytes().await.unwrap().is_empty());
        for condition in ["*", "\"*\"", "\"ice-1\"", "\"other\", \"ice-1\""] {
            let request = server.request("PATCH", &format!("/{role}/roulette/{SESSION}")).body(RESTARTED);
            let request = request.header("content-type", format!("{FRAGMENT}; charset=utf-8"));
            let response = request.header("if-match", condition).send().await.unwrap();
            assert_eq!(response.status(), 200, "{condition}");
            assert_eq!((header(&response, "content-type"), header(&response, "etag")), (FRAGMENT, "\"ice-2\""));
            assert_cors(response.headers());
            assert_eq!(response.text().await.unwrap(), RESTART_ANSWER);
        }
        let asked = server.sessions.asked.lock().unwrap().pop().unwrap();
        assert_eq!(asked, (of, "roulette".to_owned(), RESTARTED.as_bytes().to_vec()));
    }
}

#[tokio::test]
async fn a_patch_has_to_name_the_ice_session() {
    let server = Server::public().await;
    for fragment in [TRICKLE, RESTARTED] {
        let response = server.patch("whep", SESSION, fragment).send().await.unwrap();
        assert_problem(response, 428, "precondition-required").await;
        for stale in ["\"ice-0\"", "W/\"ice-1\"", "ice-1", ""] {
            let response = server.patch("whep", SESSION, fragment).header("if-match", stale).send().await.unwrap();
            assert_problem(response, 412, "other-ice-session").await;
        }
    }
    let response = server.patch("whep", OTHER_SESSION, TRICKLE).header("if-match", "*").send().await.unwrap();
    assert_problem(response, 404, "unknown-session").await;
    assert!(server.sessions.asked.lock().unwrap().is_empty());
}

#[tokio::test]
async fn ice_servers_come_with_the_answer_and_not_with_preflights() {
    let directory = std::env::temp_dir().join(format!("tableside-ice-servers-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let write = |name: &str, text: &str| std::fs::write(directory.join(name), text).unwrap();
    write("turn-password", "s3cret\n");
    write("jwks.json", &key_set(&[&ISSUER]));
    let text = "[tables.roulette]\n[auth]\njwks_file = \"jwks.json\"\njurisdictions = [\"*\"]\n[[http.ice_servers]]\n\
                url = \"stun:stun.example.com\"\n[[http.ice_servers]]\nurl = \"turn:turn.example.com?transport=udp\"\n\
                username = \"player\"\ncredential_file = \"turn-password\"\n";
    write("gateway.toml", text);
    let config = Config::load(&directory.join("gateway.toml")).unwrap();
    std::fs::remove_dir_all(&directory).unwrap();
    let server = Server::public_with(config, FakeSessions::default()).await;
    for request in [server.play("roulette"), server.publish("roulette", &ROULETTE)] {
        let response = request.send().await.unwrap();
        let links: Vec<_> = response.headers().get_all("link").iter().map(|link| link.to_str().unwrap()).collect();
        let turn =
            "<turn:turn.example.com?transport=udp>; rel=\"ice-server\"; username=\"player\"; credential=\"s3cret\"";
        assert_eq!(links, ["<stun:stun.example.com>; rel=\"ice-server\"", turn]);
    }
    for path in ["/whep/roulette".to_owned(), format!("/whep/roulette/{SESSION}")] {
        for method in ["OPTIONS", "GET"] {
            assert!(server.send(method, &path).await.headers().get("link").is_none(), "{method} {path}");
        }
    }
}

#[tokio::test]
async fn delete_ends_a_session_of_its_own_role_and_needs_no_token() {
    let server = Server::public().await;
    for (segment, role) in [("whip", Role::Publisher), ("whep", Role::Player)] {
        let path = format!("/{segment}/roulette/{SESSION}");
        let response = server.request("DELETE", &path).header("if-match", "\"stale\"").send().await.unwrap();
        assert_eq!(response.status(), 200);
        assert_cors(response.headers());
        let closed = server.sessions.closed.lock().unwrap().pop().unwrap();
        assert_eq!(closed, (role, "roulette".to_owned(), SESSION.parse().unwrap()));
    }
}

#[tokio::test]
async fn delete_of_what_is_no_session_is_404() {
    let server = Server::public().await;
    for session in [OTHER_SESSION, "short", &SESSION.to_uppercase()] {
        let response = server.send("DELETE", &format!("/whep/roulette/{session}")).await;
        assert_problem(response, 404, "unknown-session").await;
    }
    let response = server.send("DELETE", &format!("/whep/blackjack/{SESSION}")).await;
    assert_problem(response, 404, "unknown-session").await;
}

#[tokio::test]
async fn requests_are_counted_by_route_and_class() {
    let server = Server::public().await;
    server.play("roulette").send().await.unwrap();
    server.play("nobody-knows").send().await.unwrap();
    server.send("DELETE", &format!("/whip/roulette/{SESSION}")).await;
    server.get("/metrics").await;
    let text = server.metrics.render();
    for labels in [
        "class=\"2xx\",route=\"whep\"",
        "class=\"4xx\",route=\"whep\"",
        "class=\"2xx\",route=\"whip_session\"",
        "class=\"4xx\",route=\"other\"",
    ] {
        let line = format!("tableside_http_requests_total{{{labels}}} 1");
        assert!(text.lines().any(|l| l == line), "no {line} in\n{text}");
    }
}
