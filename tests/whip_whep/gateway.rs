//! A whole node behind its public listener, which asks for tokens, on loopback.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use bytes::Bytes;
use reqwest::{Client, RequestBuilder, Response};
use tableside::config::Config;
use tableside::fleet::{LocalPublisher, Node};
use tableside::gatekeeper::Gatekeeper;
use tableside::http::{self, App};
use tableside::identity::Role;
use tableside::media::{Codec, MediaKind};
use tableside::rtc::sdp::TableMedia;
use tableside::shard::LocalMedia;
use tableside::telemetry::Metrics;
use tableside::traces::Tracer;
use tokio::net::TcpListener;

use crate::http_support::{self, FRAGMENT, ISSUER, PLAYER, SDP, header, token};

/// Another encoder's, for every table.
pub static MASTER: LazyLock<String> = LazyLock::new(|| token(&ISSUER, "studio-all", Role::Publisher, &["*"]));

/// Far longer than anything here takes.
const LIMIT: Duration = Duration::from_secs(20);

/// Tables `roulette`, `blackjack` and `watched`, of which the last is live in VP8 with Opus.
pub struct Gateway {
    address: SocketAddr,
    client: Client,
    _dealer: LocalPublisher,
}

impl Gateway {
    pub async fn start() -> Self {
        let tables = "[tables.roulette]\n[tables.blackjack]\n[tables.watched]\n";
        let mut config = Config::parse("test".as_ref(), tables).unwrap();
        let support = http_support::config();
        (config.auth, config.keys) = (support.auth, support.keys);
        Self::configured(config).await
    }

    pub async fn demo() -> Self {
        Self::configured(Config::demo()).await
    }

    async fn configured(mut config: Config) -> Self {
        config.media.listen = Ipv4Addr::LOCALHOST.into();
        (config.media.first_port, config.media.shards) = (0, 1);
        let node = Node::start(&config, &Tracer::off(&config.log)).await.expect("a node on a free port");
        let metrics = Arc::new(Metrics::new(&config, 1));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free TCP port");
        let address = listener.local_addr().expect("bound");
        let dealer = deal(&node).await;
        let gatekeeper = Gatekeeper::new(&config, Arc::clone(&metrics)).unwrap();
        let app = App::new(node, Arc::new(config), metrics, gatekeeper);
        tokio::spawn(http::serve(listener, http::public(app), std::future::pending()));
        let client = Client::builder().no_proxy().timeout(LIMIT).build().unwrap();
        Self { address, client, _dealer: dealer }
    }

    pub fn request(&self, method: &str, path: &str) -> RequestBuilder {
        let url = if path.starts_with("http") { path.to_owned() } else { format!("http://{}{path}", self.address) };
        self.client.request(method.parse().unwrap(), url)
    }

    pub fn post(&self, path: &str, offer: &'static str) -> RequestBuilder {
        self.request("POST", path).header("content-type", SDP).body(offer)
    }

    pub fn publish(&self, table: &str, token: &str, offer: &'static str) -> RequestBuilder {
        self.post(&format!("/whip/{table}"), offer).header("authorization", format!("Bearer {token}"))
    }

    pub fn play(&self, table: &str, offer: &'static str) -> RequestBuilder {
        self.post(&format!("/whep/{table}"), offer).header("authorization", format!("Bearer {}", *PLAYER))
    }

    /// PATCHes the session that `created` made.
    pub fn patch(&self, created: &Session, fragment: impl Into<String>) -> RequestBuilder {
        self.request("PATCH", &created.url).header("content-type", FRAGMENT).body(fragment.into())
    }

    pub async fn delete(&self, session: &Session) -> Response {
        self.request("DELETE", &session.url).send().await.unwrap()
    }
}

/// Live with the first packet, and until the silence is noticed.
async fn deal(node: &Node) -> LocalPublisher {
    let (video, audio) = ((Codec::Vp8, String::new()), (Codec::Opus, String::new()));
    let media = TableMedia { video: Some(video), audio: Some(audio), ..TableMedia::default() };
    let dealer = node.publish_local("watched", media).await.expect("nobody publishes it");
    let sender = dealer.clone();
    tokio::spawn(async move {
        let mut beat = tokio::time::interval(Duration::from_millis(100));
        for sequence_number in 0.. {
            beat.tick().await;
            let payload = Bytes::from_static(&[0x10, 0, 0, 0, 0x9d, 0x01, 0x2a, 0, 0, 0, 0]);
            let timestamp = u32::from(sequence_number) * 9000;
            let frame = LocalMedia { kind: MediaKind::Video, sequence_number, timestamp, marker: true, payload };
            if !sender.send(vec![frame]).await {
                break;
            }
        }
    });
    let live = async {
        let mut looks = tokio::time::interval(Duration::from_millis(10));
        while !node.tables().iter().any(|table| table.name == "watched" && table.live) {
            looks.tick().await;
        }
    };
    tokio::time::timeout(LIMIT, live).await.expect("the table is live in time");
    dealer
}

/// What a 201 said.
pub struct Session {
    pub url: String,
    pub etag: String,
    pub answer: String,
}

impl Session {
    #[track_caller]
    pub fn of(response: &Response) -> Self {
        assert_eq!(response.status(), 201);
        assert_eq!(header(response, "content-type"), SDP);
        let (url, etag) = (header(response, "location").to_owned(), header(response, "etag").to_owned());
        assert_strong(&etag);
        Self { url, etag, answer: String::new() }
    }

    /// As [`Session::of`], with the answer.
    pub async fn read(response: Response) -> Self {
        let session = Self::of(&response);
        Self { answer: response.text().await.unwrap(), ..session }
    }
}

/// RFC 9110 §8.8.3: quoted, and without `W/`.
#[track_caller]
pub fn assert_strong(etag: &str) {
    let tag = etag.strip_prefix('"').and_then(|tag| tag.strip_suffix('"')).unwrap_or_else(|| panic!("{etag}"));
    assert!(!tag.is_empty() && tag.bytes().all(|b| b.is_ascii_graphic() && b != b'"' && b != b','), "{etag}");
}
