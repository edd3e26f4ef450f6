//! A router over a media plane that does what a test tells it, behind a real listener.

// Each test binary uses a part of it.
#![allow(dead_code)]

use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::{Duration, SystemTime};

use axum::body::Bytes;
use reqwest::header::HeaderMap;
use reqwest::{Client, Method, RequestBuilder, Response};
use serde_json::Value;
use tableside::bet_service::ServiceReport;
use tableside::bets::{PlayerId, RoundReport};
use tableside::config::{Config, MaxLayer};
use tableside::fleet::{
    AdmissionReport, ClientNetwork, Created, IfMatch, PatchRefusal, Patched, Refusal, SessionId, TableStatus,
};
use tableside::gatekeeper::Gatekeeper;
use tableside::http::{self, App, ServedCertificate, Sessions, Site};
use tableside::identity::{self, Algorithm, KeySet, NewToken, SigningKey, Subject};
use tableside::shard::{Role, ShardReport};
use tableside::telemetry::Metrics;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

pub const SDP: &str = "application/sdp";
pub const OFFER: &str = "v=0\r\n";
pub const ANSWER: &str = "v=0\r\no=answer\r\n";
pub const SESSION: &str = "000102030405060708090a0b0c0d0e0f";
pub const FRAGMENT: &str = "application/trickle-ice-sdpfrag";
pub const TRICKLE: &str = "a=ice-ufrag:EsAw\r\na=end-of-candidates\r\n";
pub const RESTARTED: &str = "a=ice-ufrag:ysXw\r\na=ice-pwd:vw5LmwG4y/e6dPP/zAP9Gp5k\r\n";
pub const RESTART_ANSWER: &str = "a=ice-lite\r\na=ice-ufrag:ours\r\n";
pub const OTHER_SESSION: &str = "ffffffffffffffffffffffffffffffff";

/// The issuer's key.
pub static ISSUER: LazyLock<SigningKey> = LazyLock::new(|| SigningKey::generate(Algorithm::EdDsa).unwrap());

/// Tokens of an hour: an encoder's of each table, and a player's of all.
pub static ROULETTE: LazyLock<String> =
    LazyLock::new(|| token(&ISSUER, "studio-r", identity::Role::Publisher, &["roulette"]));
pub static BLACKJACK: LazyLock<String> =
    LazyLock::new(|| token(&ISSUER, "studio-b", identity::Role::Publisher, &["blackjack"]));
pub static PLAYER: LazyLock<String> = LazyLock::new(|| token(&ISSUER, "ann", identity::Role::Player, &["*"]));

/// Where everybody is, and what the gateways of these tests serve.
pub const JURISDICTION: &str = "MT";

/// Signed now, good for an hour.
pub fn token(key: &SigningKey, sub: &str, role: identity::Role, tables: &[&str]) -> String {
    let tables: Vec<String> = tables.iter().map(|table| (*table).to_owned()).collect();
    let new = NewToken {
        subject: &Subject::new(sub).unwrap(),
        role,
        tables: &tables,
        jurisdiction: Some(JURISDICTION),
        issuer: None,
        audience: None,
        issued: unix_time(),
        lifetime: Duration::from_secs(3600),
    };
    key.sign(&new).unwrap()
}

#[allow(clippy::disallowed_methods)]
pub fn unix_time() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap()
}

/// The text of a key set.
pub fn key_set(keys: &[&SigningKey]) -> String {
    serde_json::json!({ "keys": keys.iter().map(|key| key.jwk()).collect::<Vec<_>>() }).to_string()
}

/// What was asked of the media plane: role, table, offer.
pub type Asked = (Role, String, Vec<u8>);

/// Knows the tables `roulette`, `blackjack` and `idle`, and one session of each role on `roulette`.
#[derive(Clone, Default)]
pub struct FakeSessions {
    /// Refuses every offer so.
    pub refusal: Option<Refusal>,
    /// Refuses every PATCH so, once its body is read.
    pub patch_refusal: Option<PatchRefusal>,
    /// Never answers.
    pub hangs: bool,
    pub reports: Vec<ShardReport>,
    pub admission: AdmissionReport,
    pub bet_service: ServiceReport,
    /// Who asked.
    pub clients: Arc<Mutex<Vec<ClientNetwork>>>,
    /// Who has asked to publish.
    pub publishers: Arc<Mutex<Vec<Option<Subject>>>>,
    /// Who has asked to watch.
    pub players: Arc<Mutex<Vec<Option<PlayerId>>>>,
    /// And up to which layer.
    pub max_layers: Arc<Mutex<Vec<Option<MaxLayer>>>>,
    pub asked: Arc<Mutex<Vec<Asked>>>,
    pub closed: Arc<Mutex<Vec<(Role, String, SessionId)>>>,
    pub draining: Arc<AtomicBool>,
}

impl FakeSessions {
    async fn create(&self, role: Role, table: &str, offer: &[u8]) -> Result<Created, Refusal> {
        if self.hangs {
            std::future::pending::<()>().await;
        }
        self.asked.lock().unwrap().push((role, table.to_owned(), offer.to_vec()));
        if self.draining.load(Ordering::Relaxed) {
            return Err(Refusal::ShuttingDown);
        }
        match &self.refusal {
            Some(refusal) => Err(refusal.clone()),
            None => Ok(Created {
                session: SESSION.parse().unwrap(),
                answer: ANSWER.to_owned(),
                etag: "\"ice-1\"".to_owned(),
            }),
        }
    }

    fn exists(&self, table: &str, session: SessionId) -> bool {
        table == "roulette" && session.to_string() == SESSION
    }
}

impl Sessions for FakeSessions {
    async fn publish(
        &self,
        client: ClientNetwork,
        table: &str,
        publisher: Option<Subject>,
        offer: Bytes,
    ) -> Result<Created, Refusal> {
        self.publishers.lock().unwrap().push(publisher);
        self.clients.lock().unwrap().push(client);
        self.create(Role::Publisher, table, &offer).await
    }

    async fn play(
        &self,
        client: ClientNetwork,
        table: &str,
        player: Option<PlayerId>,
        max_layer: Option<MaxLayer>,
        offer: Bytes,
    ) -> Result<Created, Refusal> {
        self.players.lock().unwrap().push(player);
        self.max_layers.lock().unwrap().push(max_layer);
        self.clients.lock().unwrap().push(client);
        self.create(Role::Player, table, &offer).await
    }

    async fn close(&self, role: Role, table: &str, session: SessionId) -> bool {
        if self.hangs {
            std::future::pending::<()>().await;
        }
        self.closed.lock().unwrap().push((role, table.to_owned(), session));
        self.exists(table, session)
    }

    fn etag(&self, _role: Role, table: &str, session: SessionId) -> Option<String> {
        self.exists(table, session).then(|| "\"ice-1\"".to_owned())
    }

    fn admit_patch(
        &self,
        role: Role,
        table: &str,
        session: SessionId,
        condition: &IfMatch,
    ) -> Result<(), PatchRefusal> {
        let etag = self.etag(role, table, session).ok_or(PatchRefusal::UnknownSession)?;
        if !condition.admits(&etag) {
            return Err(PatchRefusal::OtherIceSession);
        }
        match &self.patch_refusal {
            Some(PatchRefusal::TooMany { retry_after }) => Err(PatchRefusal::TooMany { retry_after: *retry_after }),
            _ => Ok(()),
        }
    }

    /// A fragment that names [`RESTARTED`] as its ufrag is a restart.
    async fn patch(
        &self,
        role: Role,
        table: &str,
        session: SessionId,
        condition: &IfMatch,
        fragment: &[u8],
    ) -> Result<Patched, PatchRefusal> {
        self.admit_patch(role, table, session, condition)?;
        if self.hangs {
            std::future::pending::<()>().await;
        }
        self.asked.lock().unwrap().push((role, table.to_owned(), fragment.to_vec()));
        match &self.patch_refusal {
            Some(refusal) => Err(refusal.clone()),
            None if String::from_utf8_lossy(fragment).contains(RESTARTED) => {
                Ok(Patched::Restarted { fragment: RESTART_ANSWER.to_owned(), etag: "\"ice-2\"".to_owned() })
            }
            None => Ok(Patched::Trickled),
        }
    }

    fn knows(&self, table: &str) -> bool {
        ["roulette", "blackjack", "idle"].contains(&table)
    }

    fn tables(&self) -> Vec<TableStatus> {
        let status = |name: &str| TableStatus {
            name: name.to_owned(),
            live: name == "roulette",
            players: 2,
            video_codec: Some("H264".to_owned()),
            audio_codec: None,
            fps: 30.0,
            bits_per_second: 2.5e6,
        };
        vec![status("blackjack"), status("roulette")]
    }

    fn reports(&self) -> Vec<ShardReport> {
        self.reports.clone()
    }

    fn traces(&self) -> tableside::traces::TraceReport {
        tableside::traces::TraceReport::default()
    }

    fn audit(&self) -> tableside::audit::AuditReport {
        tableside::audit::AuditReport::default()
    }

    fn rounds(&self) -> RoundReport {
        RoundReport::default()
    }

    fn bet_service(&self) -> ServiceReport {
        self.bet_service.clone()
    }

    fn admission(&self) -> AdmissionReport {
        self.admission.clone()
    }

    fn readiness(&self) -> Vec<(&'static str, Result<(), String>)> {
        let draining = self.draining.load(Ordering::Relaxed);
        let admission = if draining { Err("draining".to_owned()) } else { Ok(()) };
        vec![("sockets", Ok(())), ("admission", admission)]
    }

    fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }
}

/// A configuration that takes tokens of [`ISSUER`], with a limit of 4096 bytes on offers.
pub fn config() -> Config {
    let text = format!(
        "[http]\nmax_sdp_bytes = 4096\n[auth]\njurisdictions = [\"{JURISDICTION}\"]\n[tables.roulette]\n[tables.blackjack]\n\
         [tables.idle]\n"
    );
    let mut config = Config::parse(Path::new("test"), &text).unwrap();
    config.keys = KeySet::parse(key_set(&[&ISSUER]).as_bytes()).unwrap();
    config
}

/// A running listener; stops when dropped.
pub struct Server {
    pub address: SocketAddr,
    pub sessions: FakeSessions,
    pub metrics: Arc<Metrics>,
    pub gatekeeper: Gatekeeper,
    /// Where the configuration names one, the listener speaks HTTPS.
    pub certificate: Option<ServedCertificate>,
    client: Client,
    stop: Option<oneshot::Sender<()>>,
    ended: Option<JoinHandle<std::io::Result<()>>>,
}

impl Server {
    pub async fn public() -> Self {
        Self::public_with(config(), FakeSessions::default()).await
    }

    pub async fn refusing(refusal: Refusal) -> Self {
        Self::public_with(config(), FakeSessions { refusal: Some(refusal), ..FakeSessions::default() }).await
    }

    pub async fn public_with(config: Config, sessions: FakeSessions) -> Self {
        Self::start(config, sessions, http::public).await
    }

    pub async fn admin_with(sessions: FakeSessions) -> Self {
        Self::admin_of(config(), sessions).await
    }

    pub async fn admin_of(config: Config, sessions: FakeSessions) -> Self {
        Self::start(config, sessions, http::admin).await
    }

    async fn start(config: Config, sessions: FakeSessions, site: impl Fn(App<FakeSessions>) -> Site) -> Self {
        let metrics = Arc::new(Metrics::new(&config, 1));
        let gatekeeper = Gatekeeper::new(&config, Arc::clone(&metrics)).unwrap();
        let app = App::new(sessions.clone(), Arc::new(config), Arc::clone(&metrics), gatekeeper.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let until = async move {
            let _ = stopped.await;
        };
        let files = app.config.http.tls.files();
        let certificate = files.map(|files| ServedCertificate::load(files, Arc::clone(&metrics)).unwrap());
        let site = match &certificate {
            Some(certificate) => site(app).over_tls(certificate.clone()),
            None => site(app),
        };
        let ended = tokio::spawn(http::serve(listener, site, until));
        let client = Client::builder().no_proxy().timeout(Duration::from_secs(20)).build().unwrap();
        Self { address, sessions, metrics, gatekeeper, certificate, client, stop: Some(stop), ended: Some(ended) }
    }

    pub fn request(&self, method: &str, path: &str) -> RequestBuilder {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        self.client.request(method, format!("http://{}{path}", self.address))
    }

    pub async fn send(&self, method: &str, path: &str) -> Response {
        self.request(method, path).send().await.unwrap()
    }

    /// Stops it and waits for its end.
    pub async fn end(mut self) {
        drop(self.stop.take());
        self.ended.take().unwrap().await.unwrap().unwrap();
    }

    /// Waits until the metrics have this line.
    pub async fn metric(&self, line: &str) {
        let appears = async {
            let mut looks = tokio::time::interval(Duration::from_millis(5));
            while !self.metrics.render().lines().any(|l| l == line) {
                looks.tick().await;
            }
        };
        let found = tokio::time::timeout(Duration::from_secs(20), appears).await;
        assert!(found.is_ok(), "no line `{line}` in\n{}", self.metrics.render());
    }

    pub async fn get(&self, path: &str) -> Response {
        self.send("GET", path).await
    }

    /// POSTs an offer as a player would.
    pub fn play(&self, table: &str) -> RequestBuilder {
        self.play_with(table, &PLAYER)
    }

    /// POSTs an offer as a player would, with this token.
    pub fn play_with(&self, table: &str, token: &str) -> RequestBuilder {
        self.post(&format!("/whep/{table}")).header("authorization", format!("Bearer {token}"))
    }

    /// POSTs an offer without a token.
    pub fn post(&self, path: &str) -> RequestBuilder {
        self.request("POST", path).header("content-type", SDP).body(OFFER)
    }

    /// PATCHes the session of `role` at `roulette`.
    pub fn patch(&self, role: &str, session: &str, fragment: &'static str) -> RequestBuilder {
        let request = self.request("PATCH", &format!("/{role}/roulette/{session}"));
        request.header("content-type", FRAGMENT).body(fragment)
    }

    /// POSTs an offer as an encoder would.
    pub fn publish(&self, table: &str, token: &str) -> RequestBuilder {
        self.post(&format!("/whip/{table}")).header("authorization", format!("Bearer {token}"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
    }
}

pub fn header<'a>(response: &'a Response, name: &str) -> &'a str {
    response.headers().get(name).map_or("", |value| value.to_str().unwrap())
}

pub async fn json(response: Response) -> Value {
    serde_json::from_str(&response.text().await.unwrap()).unwrap()
}

/// That a browser's script of another origin can read the response and all that matters in it.
#[track_caller]
pub fn assert_cors(headers: &HeaderMap) {
    let list = |name: &str| -> Vec<String> {
        let value = headers.get(name).unwrap_or_else(|| panic!("no {name}")).to_str().unwrap();
        value.split(',').map(|item| item.trim().to_lowercase()).collect()
    };
    assert_eq!(list("access-control-allow-origin"), ["*"]);
    for method in ["options", "get", "head", "post", "patch", "delete"] {
        assert!(list("access-control-allow-methods").contains(&method.to_owned()), "{method} is not allowed");
    }
    for name in ["authorization", "content-type", "if-match", "etag"] {
        assert!(list("access-control-allow-headers").contains(&name.to_owned()), "{name} is not allowed");
    }
    for name in ["location", "etag", "link", "retry-after", "accept-patch", "access-control-allow-methods"] {
        assert!(list("access-control-expose-headers").contains(&name.to_owned()), "{name} is not exposed");
    }
}

/// That the response is a problem document of this status and type, readable from other origins; gives it back.
pub async fn assert_problem(response: Response, status: u16, slug: &str) -> Value {
    assert_cors(response.headers());
    assert_problem_document(response, status, slug).await
}

/// As [`assert_problem`] without CORS, for the admin listener.
pub async fn assert_problem_document(response: Response, status: u16, slug: &str) -> Value {
    assert_eq!(response.status(), status);
    assert_eq!(header(&response, "content-type"), "application/problem+json");
    let document = json(response).await;
    assert_eq!(document["type"], format!("urn:tableside:problem:{slug}"));
    assert_eq!(document["status"], status);
    assert!(document["title"].as_str().is_some_and(|title| !title.is_empty()));
    assert!(document["detail"].as_str().is_some_and(|detail| !detail.is_empty()));
    document
}
