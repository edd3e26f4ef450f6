//! A whole node on this machine's network, with the `webrtc` crate as the other side: a second implementation of ICE,
//! DTLS, SRTP, RTCP and SCTP, which shares no code with ours but the SCTP association.

mod peers;
mod ports;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::response::Redirect;
use peers::{Player, PlayerOptions, Publisher, client};
use ports::free_ports;
use reqwest::Client;
use serde_json::{Value, json};
use tableside::bet_service::{Link, Said, link};
use tableside::bets::Outcome;
use tableside::config::{Config, Log};
use tableside::fleet::Node;
use tableside::gatekeeper::Gatekeeper;
use tableside::http::{self, App};
use tableside::qos::QosReport;
use tableside::telemetry::Metrics;
use tableside::traces::Tracer;
use tokio::net::TcpListener;
use webrtc::peer_connection::SrtpProtectionProfile;

/// Longer than a round of the embedded bet service.
const ROUND: Duration = Duration::from_secs(60);

/// Far longer than anything here takes.
const LIMIT: Duration = Duration::from_secs(20);

/// A node with its public listener.
struct Gateway {
    node: Node,
    address: SocketAddr,
}

impl Gateway {
    async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    async fn start_with(change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config::demo();
        config.media.listen = Ipv4Addr::LOCALHOST.into();
        config.media.first_port = free_ports(2);
        config.media.shards = 2;
        change(&mut config);
        let node = Node::start(&config, &Tracer::off(&config.log)).await.expect("the node starts");
        Self::serve(node, config).await
    }

    /// One whose bets go to `bet_service`.
    async fn with_bet_service(bet_service: Option<Link>) -> Self {
        let mut config = Config::demo();
        config.media.listen = Ipv4Addr::LOCALHOST.into();
        config.media.first_port = free_ports(2);
        config.media.shards = 2;
        let node = Node::start_with(&config, bet_service, &Tracer::off(&config.log)).await.expect("the node starts");
        Self::serve(node, config).await
    }

    async fn serve(node: Node, config: Config) -> Self {
        let metrics = Arc::new(Metrics::new(&config, 2));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free TCP port");
        let address = listener.local_addr().expect("bound");
        let gatekeeper = Gatekeeper::new(&config, Arc::clone(&metrics)).expect("a demo asks nobody");
        let app = App::new(node.clone(), Arc::new(config), metrics, gatekeeper);
        tokio::spawn(http::serve(listener, http::public(app), std::future::pending()));
        Self { node, address }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    async fn is_live(&self, table: &str) {
        let live = async {
            let mut looks = tokio::time::interval(Duration::from_millis(20));
            while !self.node.tables().iter().any(|t| t.name == table && t.live) {
                looks.tick().await;
            }
        };
        tokio::time::timeout(LIMIT, live).await.expect("the table is live in time");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn publishers_and_players_of_another_implementation() {
    let gateway = Gateway::start().await;
    let http = client();
    let publisher = Publisher::start(&http, &gateway.url("/whip/studio"), LIMIT).await.expect("publishes");
    gateway.is_live("studio").await;
    let whep = gateway.url("/whep/studio");

    // One on each shard: the crate's own choice of profiles, and one that knows nothing but AES-CM with SHA-1.
    let usual = Player::join(&http, &whep, &PlayerOptions::default()).await.expect("joins");
    let options = PlayerOptions { srtp: vec![SrtpProtectionProfile::Srtp_Aes128_Cm_Hmac_Sha1_80] };
    let old = Player::join(&http, &whep, &options).await.expect("joins");
    for player in [&usual, &old] {
        player.playing(LIMIT).await.expect("plays");
    }
    assert!(usual.srtp_profile().await.is_some_and(|p| p.contains("GCM")), "GCM is taken where it is offered");
    assert!(old.srtp_profile().await.is_some_and(|p| p.contains("SHA1")), "and not forced on who lacks it");

    for player in [&usual, &old] {
        let ack = player.bet("b-1", LIMIT).await.expect("no bet signal is lost silently");
        assert_eq!((&ack["status"], &ack["reason"]), (&json!("rejected"), &json!("unknown_round")));
    }

    for player in [&usual, &old] {
        player.until("400 packets", LIMIT, |seen| seen.video.packets >= 400).await.expect("goes on playing");
    }
    publisher.leave().await.expect("leaves");
    for player in [usual, old] {
        let told = |seen: &peers::Seen| {
            seen.messages
                .iter()
                .any(|m| m.channel == "events" && m.body == json!({"type": "notice", "code": "publisher_left"}))
        };
        player.until("the notice", LIMIT, told).await.expect("is told that the publisher left");
        let seen = player.leave().await.expect("DELETE is answered");
        assert_eq!((seen.video.missing(), seen.audio.missing()), (0, 0), "no gap in the numbers");
        assert_eq!((seen.video.repeated, seen.audio.repeated), (0, 0), "nothing twice");
    }
    let reports = gateway.node.reports();
    assert!(reports.iter().all(|r| r.dropped[tableside::shard::DropReason::SrtpAuthentication as usize] == 0));
    gateway.node.shutdown().await;
}

/// A player at the table `studio`, and all that it was told on a channel so far.
async fn seat(gateway: &Gateway, http: &Client, player: &str) -> Player {
    let whep = gateway.url(&format!("/whep/studio?player={player}"));
    let player = Player::join(http, &whep, &PlayerOptions::default()).await.expect("joins");
    player.playing(LIMIT).await.expect("plays");
    player
}

fn told<'a>(seen: &'a peers::Seen, channel: &'a str, kind: &'a str) -> impl Iterator<Item = &'a Value> {
    seen.messages.iter().filter(move |m| m.channel == channel && m.body["type"] == kind).map(|m| &m.body)
}

/// Signals by first outcome, over both shards: accepted, rejected, refused, unconfirmed.
async fn outcomes(gateway: &Gateway, signals: u64) -> [u64; 4] {
    let counted = async {
        let mut looks = tokio::time::interval(Duration::from_millis(50));
        loop {
            let shards = gateway.node.reports().into_iter().map(|report| report.bets.outcomes);
            let sum = shards.fold([0; 4], |sum: [u64; 4], shard| std::array::from_fn(|n| sum[n] + shard[n]));
            if sum.iter().sum::<u64>() >= signals {
                return sum;
            }
            looks.tick().await;
        }
    };
    tokio::time::timeout(LIMIT, counted).await.expect("every signal has an outcome")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_round_of_the_embedded_bet_service() {
    let gateway = Gateway::start().await;
    let http = client();
    let publisher = Publisher::start(&http, &gateway.url("/whip/studio"), LIMIT).await.expect("publishes");
    gateway.is_live("studio").await;
    let (ann, bob) = (seat(&gateway, &http, "ann").await, seat(&gateway, &http, "bob").await);
    let newest = |seen: &peers::Seen| {
        let mut newest_first = seen.messages.iter().rev();
        let of_round = newest_first.find(|m| m.channel == "events" && m.body["roundId"].is_string());
        of_round.map(|m| m.body.clone())
    };
    let told_of = |seen: &peers::Seen| newest(seen).is_some();
    let seen = bob.until("a round", ROUND, told_of).await.expect("who comes later is told");
    let joined_in = newest(&seen).expect("just seen")["roundId"].clone();
    // One that begins now has all its time before it.
    let begins = |seen: &peers::Seen| {
        newest(seen).is_some_and(|event| event["type"] == "round.open" && event["roundId"] != joined_in)
    };
    let mut round = String::new();
    for player in [&bob, &ann] {
        let seen = player.until("the next round", ROUND, begins).await.expect("rounds follow each other");
        let open = newest(&seen).expect("just seen");
        assert!(open["captureTs"].is_f64() && open["closesTs"].is_f64(), "{open}");
        assert!(open["rtpTs"].is_u64(), "a frame of the player's video: {open}");
        round = open["roundId"].as_str().expect("a name").to_owned();
    }
    let bet = |key: &str, round: &str, amount: u32| {
        json!({
            "type": "bet", "betId": key, "roundId": round, "idempotencyKey": key, "clientTs": 0,
            "payload": { "spot": "red", "amount": amount },
        })
    };
    let answered = async |player: &Player, key: &str, count: usize| -> Vec<Value> {
        let acks = |seen: &peers::Seen| told(seen, "bets", "ack").filter(|ack| ack["betId"] == key).cloned().collect();
        let enough = |seen: &peers::Seen| Vec::len(&acks(seen)) >= count;
        acks(&player.until("the acks", LIMIT, enough).await.expect("answers"))
    };
    for (key, amount, status, reason) in
        [("b-1", 10, "accepted", json!(null)), ("b-2", 101, "rejected", json!("limit_exceeded"))]
    {
        ann.send("bets", &bet(key, &round, amount)).await.expect("sent");
        let ack = answered(&ann, key, 1).await.remove(0);
        assert_eq!((&ack["status"], &ack["reason"]), (&json!(status), &reason), "{ack}");
        for field in ["receivedTs", "edgeMs", "upstreamMs"] {
            assert!(ack["timing"][field].as_f64().is_some_and(|ms| ms >= 0.0), "{ack}");
        }
    }
    // The same key: after a reconnect, and for another bet.
    ann.leave().await.expect("DELETE is answered");
    let ann = seat(&gateway, &http, "ann").await;
    ann.send("bets", &bet("b-1", &round, 10)).await.expect("sent");
    ann.send("bets", &bet("b-1", &round, 20)).await.expect("sent");
    let acks = answered(&ann, "b-1", 2).await;
    assert_eq!((&acks[0]["status"], &acks[0]["timing"]["upstreamMs"]), (&json!("accepted"), &json!(null)), "recorded");
    assert_eq!((&acks[1]["status"], &acks[1]["reason"]), (&json!("refused"), &json!("key_reused")));
    let oversized = json!({ "type": "bet", "betId": "b-3", "payload": "x".repeat(20_000) });
    bob.send("bets", &oversized).await.expect("sent");
    assert_eq!(answered(&bob, "", 1).await[0]["reason"], "too_large");
    assert_eq!(outcomes(&gateway, 5).await, [2, 1, 2, 0]);
    publisher.leave().await.expect("leaves");
    gateway.node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bet_service_that_is_slow_or_not_there() {
    let http = client();
    let nobody = Gateway::with_bet_service(None).await;
    let publisher = Publisher::start(&http, &nobody.url("/whip/studio"), LIMIT).await.expect("publishes");
    nobody.is_live("studio").await;
    let player = seat(&nobody, &http, "ann").await;
    let ack = player.bet("b-1", LIMIT).await.expect("an answer");
    assert_eq!((&ack["status"], &ack["reason"]), (&json!("refused"), &json!("unavailable")));
    publisher.leave().await.expect("leaves");
    nobody.node.shutdown().await;

    let (link, mut service) = link(Tracer::off(&Log::default()));
    let slow = Gateway::with_bet_service(Some(link)).await;
    let publisher = Publisher::start(&http, &slow.url("/whip/studio"), LIMIT).await.expect("publishes");
    slow.is_live("studio").await;
    let player = seat(&slow, &http, "ann").await;
    let ack = player.bet("b-1", LIMIT).await.expect("an answer");
    assert_eq!(ack["status"], "unconfirmed");
    let passed = service.requests.recv().await.expect("passed on");
    assert_eq!((passed.player.as_str(), &*passed.table), ("ann", "studio"));
    let answer = Said::Answer { ticket: passed.ticket, outcome: Outcome::Accepted };
    service.said.send(answer).await.expect("the desk listens");
    let late = |seen: &peers::Seen| told(seen, "bets", "ack").count() == 2;
    let seen = player.until("the late answer", LIMIT, late).await.expect("a second ack");
    assert_eq!(told(&seen, "bets", "ack").last().expect("two")["status"], "accepted");
    assert_eq!(player.bet("b-1", LIMIT).await.expect("an answer")["status"], "unconfirmed", "the first ack");
    assert_eq!(outcomes(&slow, 2).await, [1, 0, 0, 1], "the repeated key has its recorded outcome");
    assert!(service.requests.try_recv().is_err(), "and was not passed on again");
    publisher.leave().await.expect("leaves");
    slow.node.shutdown().await;
}

/// The `stats` of a player are held against what it was offered meanwhile, on its shard and for its table.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_players_report_is_counted_for_their_table() {
    let gateway = Gateway::start().await;
    let http = client();
    let publisher = Publisher::start(&http, &gateway.url("/whip/studio"), LIMIT).await.expect("publishes");
    gateway.is_live("studio").await;
    let whep = gateway.url("/whep/studio");
    // One on each shard.
    let frozen = Player::join(&http, &whep, &PlayerOptions::default()).await.expect("joins");
    let content = Player::join(&http, &whep, &PlayerOptions::default()).await.expect("joins");
    for player in [&frozen, &content] {
        player.playing(LIMIT).await.expect("plays");
    }
    let of_studio = || -> Vec<QosReport> {
        gateway.node.reports().iter().filter_map(|r| Some(r.tables.get("studio")?.qos.clone())).collect()
    };
    let reporting = async {
        let mut looks = tokio::time::interval(Duration::from_millis(100));
        for n in 0u64.. {
            looks.tick().await;
            // The one's picture stands, and the other says that it decodes more than there is.
            let stands = json!({"type": "stats", "framesDecoded": 7, "freezesMs": 100 * n, "jitterBufferDelay": 40});
            let thrives = json!({"type": "stats", "framesDecoded": 1_000_000 * n, "bytesReceived": 1_000_000_000 * n});
            frozen.send("qos", &stands).await.expect("sent");
            content.send("qos", &thrives).await.expect("sent");
            if of_studio().iter().filter(|qos| qos.reports >= 2).count() == 2 {
                return;
            }
        }
    };
    tokio::time::timeout(LIMIT, reporting).await.expect("both shards count the reports");
    let shards = of_studio();
    let mean = |qos: &QosReport| qos.frames_seen.mean();
    let (worst, best) = match mean(&shards[0]) < mean(&shards[1]) {
        true => (&shards[0], &shards[1]),
        false => (&shards[1], &shards[0]),
    };
    assert_eq!((mean(worst), mean(best)), (0.0, 1.0), "as much as there can be, and no more");
    assert!(worst.frames_missed > 0 && worst.frozen > Duration::ZERO && worst.jitter_buffer.count() >= 2);
    assert_eq!((best.frames_missed, best.bytes_seen.mean(), best.frozen), (0, 1.0, Duration::ZERO));
    publisher.leave().await.expect("leaves");
    gateway.node.shutdown().await;
}

/// RFC 9725 §4.5: a load balancer answers offers with 307; the sessions belong to the node that it names.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn peers_follow_a_redirect_and_stay_with_the_node_it_led_to() {
    let gateway = Gateway::start().await;
    let asked = Arc::new(Mutex::new(Vec::new()));
    let balancer = balancer(gateway.address, asked.clone()).await;
    let http = client();
    let publisher = Publisher::start(&http, &format!("{balancer}/whip/studio"), LIMIT).await.expect("publishes");
    gateway.is_live("studio").await;
    let whep = format!("{balancer}/whep/studio");
    let player = Player::join(&http, &whep, &PlayerOptions::default()).await.expect("joins");
    player.playing(LIMIT).await.expect("plays");
    player.leave().await.expect("DELETE is answered");
    publisher.leave().await.expect("leaves");
    assert_eq!(*asked.lock().unwrap(), ["POST /whip/studio", "POST /whep/studio"], "and no DELETE");
    gateway.node.shutdown().await;
}

/// Redirects everything to `node`, with a ticket in the URL; notes what it was asked.
async fn balancer(node: SocketAddr, asked: Arc<Mutex<Vec<String>>>) -> String {
    let redirect = async move |request: Request| {
        asked.lock().unwrap().push(format!("{} {}", request.method(), request.uri().path()));
        Redirect::temporary(&format!("http://{node}{}?ticket=for-one", request.uri().path()))
    };
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free TCP port");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move { axum::serve(listener, Router::new().fallback(redirect)).await });
    format!("http://{address}")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_had_is_said() {
    let gateway = Gateway::start().await;
    let http = client();
    let refusal = Player::join(&http, &gateway.url("/whep/nobody"), &PlayerOptions::default()).await.err();
    let refusal = refusal.expect("nobody publishes it").to_string();
    assert!(refusal.contains("409") && refusal.contains("not-live"), "{refusal}");
    let publisher = Publisher::start(&http, &gateway.url("/whip/studio"), LIMIT).await.expect("publishes");
    let second = Publisher::start(&http, &gateway.url("/whip/studio"), LIMIT).await.err();
    let second = second.expect("it is taken").to_string();
    assert!(second.contains("409") && second.contains("already-published"), "{second}");
    publisher.leave().await.expect("leaves");
    let again = Publisher::start(&http, &gateway.url("/whip/studio"), LIMIT).await.expect("the name is free again");
    again.leave().await.expect("leaves");
    gateway.node.shutdown().await;
}

/// An offer to publish of a client that then never comes.
const OFFER: &str = include_str!("fixtures/offers/chromium-publisher.sdp");

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_that_never_connect_are_bounded_and_make_room_in_time() {
    let gateway = Gateway::start_with(|config| {
        config.sessions.max_half_open_per_address = 2;
        config.sessions.setup_timeout = Duration::from_secs(5);
        config.http.trusted_proxies = vec!["127.0.0.1".parse().expect("an address")];
    })
    .await;
    let http = client();
    let offer = async |table: &str, from: &str| {
        let request = http.post(gateway.url(&format!("/whip/{table}"))).header("content-type", "application/sdp");
        request.header("x-forwarded-for", from).body(OFFER).send().await.expect("an answer")
    };
    let (one, two) = ("203.0.113.1", "203.0.113.2");
    assert_eq!(offer("a", one).await.status(), 201);
    assert_eq!(offer("b", one).await.status(), 201);
    let refused = offer("c", one).await;
    assert_eq!((refused.status().as_u16(), refused.headers()["retry-after"].as_bytes()), (503, &b"2"[..]));
    let problem = refused.text().await.expect("a problem");
    assert!(problem.contains("urn:tableside:problem:too-many-half-open"), "{problem}");
    assert_eq!(gateway.node.admission().half_open, 2);
    assert_eq!(offer("c", two).await.status(), 201, "another address has room, and the refused one left none taken");

    // Their setup time passes: whoever asks now has room again.
    let freed = async {
        let mut looks = tokio::time::interval(Duration::from_millis(20));
        while gateway.node.admission().half_open > 0 {
            looks.tick().await;
        }
    };
    tokio::time::timeout(LIMIT, freed).await.expect("they are let go");
    assert_eq!(offer("d", one).await.status(), 201);

    // Whoever connects is half open no more.
    let publisher = Publisher::start(&http, &gateway.url("/whip/studio"), LIMIT).await.expect("publishes");
    gateway.is_live("studio").await;
    assert!(gateway.node.admission().half_open <= 1, "only the one that never comes");
    publisher.leave().await.expect("leaves");
    let report = gateway.node.admission();
    assert_eq!(report.refused.iter().sum::<u64>(), 1);
    gateway.node.shutdown().await;
}
