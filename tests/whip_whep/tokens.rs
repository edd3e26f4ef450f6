//! Tokens in requests: what is asked for, what is refused, and keys that change while everybody comes.

use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use futures_util::poll;
use reqwest::{RequestBuilder, Response};
use serde_json::{Value, json};
use tableside::bets::PlayerId;
use tableside::config::{AuthMode, Config};
use tableside::identity::{Algorithm, KeySet, Role, SigningKey, Subject};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Notify, RwLock, watch};
use tokio::task::JoinSet;

use crate::http_support::*;

const REALM: &str = "Bearer realm=\"tableside\"";

fn new_key(algorithm: Algorithm) -> SigningKey {
    SigningKey::generate(algorithm).unwrap()
}

fn player(key: &SigningKey) -> String {
    token(key, "ann", Role::Player, &["roulette"])
}

/// A player's token with these claims changed, `null` for left out.
fn with(changes: Value) -> String {
    let mut claims = json!({ "sub": "ann", "role": "player", "tables": ["*"], "jurisdiction": JURISDICTION,
        "exp": unix_time().as_secs() + 60 });
    for (name, value) in changes.as_object().unwrap() {
        claims[name] = value.clone();
    }
    claims.as_object_mut().unwrap().retain(|_, value| !value.is_null());
    ISSUER.sign_parts(&json!({ "alg": "EdDSA", "kid": ISSUER.kid() }).to_string(), &claims.to_string()).unwrap()
}

/// RFC 6750 §3: a challenge, without an error code where there was no authentication at all.
#[tokio::test]
async fn each_refusal_comes_before_the_offer_is_read_and_with_its_challenge() {
    let server = Server::public().await;
    let invalid = format!("{REALM}, error=\"invalid_token\"");
    let insufficient = format!("{REALM}, error=\"insufficient_scope\"");
    let now = unix_time().as_secs();
    let bare = |path: &str| server.post(path);
    let cases: Vec<(RequestBuilder, u16, &str, &str)> = vec![
        (bare("/whip/roulette"), 401, "token-missing", REALM),
        (bare("/whep/roulette"), 401, "token-missing", REALM),
        (bare("/whep/roulette").header("authorization", "Basic abc"), 401, "token-missing", REALM),
        (bare("/whep/roulette?player=ann"), 401, "token-missing", REALM),
        (server.publish("roulette", "undefined"), 401, "token-invalid", &invalid),
        (server.play_with("roulette", "undefined"), 401, "token-invalid", &invalid),
        (server.play_with("roulette", &format!("{}x", *PLAYER)), 401, "token-invalid", &invalid),
        (server.play_with("roulette", &with(json!({ "sub": null }))), 401, "token-invalid", &invalid),
        (server.play_with("roulette", &with(json!({ "exp": null }))), 401, "token-invalid", &invalid),
        (server.play_with("roulette", &with(json!({ "aud": "another" }))), 401, "token-invalid", &invalid),
        (server.play_with("roulette", &player(&new_key(Algorithm::EdDsa))), 401, "token-key-unknown", &invalid),
        (server.play_with("roulette", &with(json!({ "exp": now - 60 }))), 401, "token-expired", &invalid),
        (server.play_with("roulette", &with(json!({ "iat": now + 60 }))), 401, "token-not-yet-valid", &invalid),
        (server.publish("roulette", &PLAYER), 403, "token-for-other-role", &insufficient),
        (server.play_with("roulette", &ROULETTE), 403, "token-for-other-role", &insufficient),
        (server.publish("roulette", &BLACKJACK), 403, "token-for-other-table", &insufficient),
        (server.play_with("roulette", &with(json!({ "tables": [] }))), 403, "token-for-other-table", &insufficient),
        (
            server.play_with("roulette", &with(json!({ "jurisdiction": "GB" }))),
            403,
            "token-for-other-jurisdiction",
            &insufficient,
        ),
        (
            server.play_with("roulette", &with(json!({ "jurisdiction": null }))),
            403,
            "token-for-other-jurisdiction",
            &insufficient,
        ),
    ];
    for (request, status, slug, challenge) in cases {
        let response = request.send().await.unwrap();
        assert_eq!(header(&response, "www-authenticate"), challenge, "{slug}");
        assert_problem(response, status, slug).await;
    }
    assert!(server.sessions.asked.lock().unwrap().is_empty());
    for (outcome, count) in
        [("missing", 4), ("invalid", 6), ("unknown_key", 1), ("other_jurisdiction", 2), ("accepted", 0)]
    {
        server.metric(&format!("tableside_tokens_total{{outcome=\"{outcome}\"}} {count}")).await;
    }
}

#[tokio::test]
async fn what_is_wrong_with_a_token_is_said_and_nothing_of_it_repeated() {
    let server = Server::public().await;
    for (token, says) in [
        (with(json!({ "role": "dealer-17" })), "`role`"),
        ("eyJhbGciOiJub25lIn0.e30.".to_owned(), "`alg`"),
        ("x".repeat(8193), "8192 bytes"),
    ] {
        let problem =
            assert_problem(server.play_with("roulette", &token).send().await.unwrap(), 401, "token-invalid").await;
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.contains(says) && !detail.contains("dealer-17"), "{detail}");
    }
}

#[tokio::test]
async fn the_subject_is_the_player_and_the_publisher() {
    let server = Server::public().await;
    assert_eq!(server.play("roulette?player=bob").send().await.unwrap().status(), 201);
    assert_eq!(server.publish("roulette", &ROULETTE).send().await.unwrap().status(), 201);
    let ann = PlayerId::new("ann").unwrap();
    assert_eq!(*server.sessions.players.lock().unwrap(), [Some(ann)], "whatever the URL claims");
    assert_eq!(*server.sessions.publishers.lock().unwrap(), [Some(Subject::new("studio-r").unwrap())]);

    let demo = Server::public_with(Config::demo(), FakeSessions::default()).await;
    assert_eq!(demo.publish("roulette", &ROULETTE).send().await.unwrap().status(), 201);
    assert_eq!(*demo.sessions.publishers.lock().unwrap(), [None], "there it proves nothing");
}

/// Every subject that a token may have is a player's id.
#[test]
fn a_subject_is_a_players_id() {
    let longest = "x".repeat(Subject::MAX);
    for sub in ["a", "!", "~", "auth0|5f0e", longest.as_str()] {
        assert!(Subject::new(sub).is_ok() && PlayerId::new(sub).is_ok());
    }
    assert_eq!(Subject::MAX, PlayerId::MAX);
}

/// RFC 6750 §2.1 and §2.3, and what clients make of the first.
#[tokio::test]
async fn a_token_comes_in_the_header_or_in_the_url() {
    let server = Server::public().await;
    let with_header = |value: String| server.post("/whep/roulette").header("authorization", value);
    for value in [format!("bEARER  {}", *PLAYER), PLAYER.clone(), format!(" {} ", *PLAYER)] {
        assert_eq!(with_header(value).send().await.unwrap().status(), 201);
    }
    let in_url = |token: &str| server.post(&format!("/whep/roulette?x=1&access_token={token}"));
    let created = in_url(&PLAYER).send().await.unwrap();
    assert_eq!(created.status(), 201);
    let location = header(&created, "location");
    assert!(location.ends_with(SESSION), "a session URL carries no token: {location}");
    assert_eq!(header(&created, "cache-control"), "no-store");
    // Whoever redirects puts the token of the node that it leads to into the URL; some clients send the first one on.
    let both = in_url(&PLAYER).header("authorization", "Bearer of-another-node");
    assert_eq!(both.send().await.unwrap().status(), 201);
    let both = in_url("of-another-node").header("authorization", format!("Bearer {}", *PLAYER));
    assert_problem(both.send().await.unwrap(), 401, "token-invalid").await;
    assert_problem(in_url("").send().await.unwrap(), 401, "token-invalid").await;
}

#[tokio::test]
async fn who_has_the_session_url_needs_no_token() {
    let server = Server::public().await;
    let patched = server.patch("whep", SESSION, TRICKLE).header("if-match", "\"ice-1\"").send().await.unwrap();
    assert_eq!(patched.status(), 204);
    let deleted =
        server.request("DELETE", &format!("/whip/roulette/{SESSION}")).header("authorization", "Bearer undefined");
    assert_eq!(deleted.send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn where_the_mode_is_none_nobody_is_asked() {
    let mut config = config();
    config.auth.mode = AuthMode::None;
    let server = Server::public_with(config, FakeSessions::default()).await;
    for path in ["/whip/roulette", "/whep/roulette"] {
        assert_eq!(server.post(path).send().await.unwrap().status(), 201);
    }
    server.metric("tableside_tokens_required 0").await;
    let strict = Server::public().await;
    strict.metric("tableside_tokens_required 1").await;
}

/// A directory that is gone at the end of the test.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let unique = format!("tableside-tokens-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(unique);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    /// In one step, as whoever writes key sets should.
    fn write(&self, text: &str) {
        std::fs::write(self.0.join("jwks.new"), text).unwrap();
        std::fs::rename(self.0.join("jwks.new"), self.file()).unwrap();
    }

    fn file(&self) -> PathBuf {
        self.0.join("jwks.json")
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Joins without end, each with the token that is issued then, until `stop`. What was refused is said at the end.
struct Load {
    issued: watch::Sender<String>,
    joined: Arc<AtomicUsize>,
    stop: Arc<Notify>,
    joiners: JoinSet<Vec<String>>,
}

impl Load {
    fn on(server: &Server, first: String) -> Self {
        let (issued, tokens) = watch::channel(first);
        let (joined, stop) = (Arc::<AtomicUsize>::default(), Arc::new(Notify::new()));
        let mut joiners = JoinSet::new();
        for _ in 0..16 {
            let (tokens, joined, stop) = (tokens.clone(), Arc::clone(&joined), Arc::clone(&stop));
            let play = server.play("roulette");
            joiners.spawn(async move {
                let mut refused = Vec::new();
                let stopped = stop.notified();
                tokio::pin!(stopped);
                stopped.as_mut().enable();
                loop {
                    let token = tokens.borrow().clone();
                    let mut request = play.try_clone().unwrap().build().unwrap();
                    request.headers_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
                    let client = reqwest::Client::builder().no_proxy().build().unwrap();
                    let response = client.execute(request).await.unwrap();
                    if response.status() == 201 {
                        joined.fetch_add(1, Ordering::Relaxed);
                    } else {
                        refused.push(format!("{} {}", response.status(), response.text().await.unwrap()));
                    }
                    tokio::select! {
                        biased;
                        () = stopped.as_mut() => return refused,
                        () = std::future::ready(()) => {}
                    }
                }
            });
        }
        Self { issued, joined, stop, joiners }
    }

    /// Waits until so many more have joined.
    async fn more(&self, count: usize) {
        let wanted = self.joined.load(Ordering::Relaxed) + count;
        let reached = async {
            let mut looks = tokio::time::interval(Duration::from_millis(2));
            while self.joined.load(Ordering::Relaxed) < wanted {
                looks.tick().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), reached).await.expect("they join");
    }

    async fn refused(mut self) -> Vec<String> {
        self.stop.notify_waiters();
        let mut refused = Vec::new();
        while let Some(all) = self.joiners.join_next().await {
            refused.extend(all.unwrap());
        }
        refused
    }
}

fn unlimited() -> Config {
    let mut config = config();
    config.http.requests_per_second_per_address = 0;
    config
}

/// As an issuer rotates: the new key is published, tokens are signed with it, the old key is taken away once the last token of
/// it has expired. That a token names the new key brings about the first reading; the second is the look that is made every few
/// seconds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_in_a_file_are_rotated_under_load_without_one_refusal() {
    let (directory, mut config) = (Directory::new(), unlimited());
    let [first, second, third] = [Algorithm::EdDsa, Algorithm::Es256, Algorithm::Rs256].map(new_key);
    directory.write(&key_set(&[&first]));
    config.auth.jwks_file = Some(directory.file());
    config.keys = KeySet::parse(key_set(&[&first]).as_bytes()).unwrap();
    let server = Server::public_with(config, FakeSessions::default()).await;
    let load = Load::on(&server, player(&first));
    load.more(50).await;

    directory.write(&key_set(&[&first, &second]));
    load.issued.send_replace(player(&second));
    load.more(100).await;
    server.metric("tableside_token_keys 2").await;

    directory.write(&key_set(&[&second, &third]));
    server.gatekeeper.read().await;
    load.issued.send_replace(player(&third));
    load.more(100).await;
    directory.write(&key_set(&[&third]));
    server.gatekeeper.read().await;
    load.more(50).await;
    assert_eq!(load.refused().await, Vec::<String>::new());
    for old in [&first, &second] {
        assert_not_let_in(server.play_with("roulette", &player(old)).send().await.unwrap());
    }
}

/// An issuer's `/jwks.json`, whose answer a test changes.
struct Issuer {
    answer: watch::Sender<(StatusCode, String)>,
    /// Who holds it keeps answers back that have been made.
    gate: Arc<RwLock<()>>,
    asked: watch::Sender<usize>,
    url: String,
}

impl Issuer {
    async fn with(keys: &[&SigningKey]) -> Self {
        let (answer, answers) = watch::channel((StatusCode::OK, key_set(keys)));
        let (gate, asked) = (Arc::<RwLock<()>>::default(), watch::Sender::new(0));
        let (entry, counted) = (Arc::clone(&gate), asked.clone());
        let jwks = get(async move || {
            let answer = answers.borrow().clone();
            counted.send_modify(|count| *count += 1);
            let _through = entry.read().await;
            answer
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/jwks.json", listener.local_addr().unwrap());
        let router = Router::new().route("/jwks.json", jwks);
        tokio::spawn(async move { axum_serve(listener, router).await });
        Self { answer, gate, asked, url }
    }

    fn publish(&self, keys: &[&SigningKey]) {
        self.answer.send_replace((StatusCode::OK, key_set(keys)));
    }

    fn asked(&self) -> usize {
        *self.asked.borrow()
    }

    /// Waits until it was asked so often.
    async fn asked_in_all(&self, count: usize) {
        let mut asked = self.asked.subscribe();
        let reached = tokio::time::timeout(Duration::from_secs(20), asked.wait_for(|asked| *asked >= count)).await;
        reached.expect("the issuer is asked").unwrap();
    }

    async fn server(&self) -> Server {
        let mut config = unlimited();
        config.keys = KeySet::default();
        config.auth.jwks_url = Some(self.url.clone().try_into().unwrap());
        let server = Server::public_with(config, FakeSessions::default()).await;
        server.gatekeeper.read().await;
        server
    }
}

/// The least server that there is: axum's own is behind a feature that the product does not need.
async fn axum_serve(listener: TcpListener, router: Router) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let service = hyper_util::service::TowerToHyperService::new(router.clone());
        let connection = hyper::server::conn::http1::Builder::new();
        tokio::spawn(connection.serve_connection(hyper_util::rt::TokioIo::new(stream), service));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_at_a_url_are_rotated_under_load_without_one_refusal() {
    let keys = [Algorithm::EdDsa, Algorithm::Es256].map(new_key);
    let issuer = Issuer::with(&[&keys[0]]).await;
    let server = issuer.server().await;
    let load = Load::on(&server, player(&keys[0]));
    load.more(50).await;
    issuer.publish(&[&keys[0], &keys[1]]);
    // Within the interval of refreshing, which is minutes: the issuer is asked once more, by all who wait together.
    load.issued.send_replace(player(&keys[1]));
    load.more(100).await;
    assert_eq!(issuer.asked(), 2, "at start, and because of the new key");
    issuer.publish(&[&keys[1]]);
    server.gatekeeper.read().await;
    load.more(50).await;
    assert_eq!(load.refused().await, Vec::<String>::new());
    assert_not_let_in(server.play_with("roulette", &player(&keys[0])).send().await.unwrap());
}

/// A key that is not known is refused once the issuer has been asked about it; so soon after another look it has to wait.
fn assert_not_let_in(response: Response) {
    assert!([401, 503].contains(&response.status().as_u16()), "{}", response.status());
}

#[tokio::test]
async fn made_up_names_of_keys_do_not_make_us_ask_the_issuer_again_and_again() {
    let key = new_key(Algorithm::EdDsa);
    let issuer = Issuer::with(&[&key]).await;
    let server = issuer.server().await;
    let stranger = server.play_with("roulette", &player(&new_key(Algorithm::EdDsa))).send().await.unwrap();
    assert_problem(stranger, 401, "token-key-unknown").await;
    for _ in 0..20 {
        let stranger = server.play_with("roulette", &player(&new_key(Algorithm::EdDsa))).send().await.unwrap();
        let wait: u64 = header(&stranger, "retry-after").parse().unwrap();
        assert!((1..=10).contains(&wait), "{wait}");
        assert_problem(stranger, 503, "keys-unavailable").await;
    }
    assert_eq!(issuer.asked(), 2);
    assert_eq!(server.play_with("roulette", &player(&key)).send().await.unwrap().status(), 201);
}

/// A stranger must not have the players of a key turned away that was published just after the stranger made us ask.
#[tokio::test]
async fn a_key_that_came_after_the_last_look_is_not_refused_for_good() {
    let [key, next] = [Algorithm::EdDsa, Algorithm::Es256].map(new_key);
    let issuer = Issuer::with(&[&key]).await;
    let server = issuer.server().await;
    let stranger = server.play_with("roulette", &player(&new_key(Algorithm::EdDsa))).send().await.unwrap();
    assert_problem(stranger, 401, "token-key-unknown").await;
    issuer.publish(&[&key, &next]);
    let early = server.play_with("roulette", &player(&next)).send().await.unwrap();
    assert_problem(early, 503, "keys-unavailable").await;
    server.gatekeeper.read().await;
    assert_eq!(server.play_with("roulette", &player(&next)).send().await.unwrap().status(), 201);
}

#[tokio::test]
async fn who_has_a_new_key_while_the_issuer_fails_is_not_refused_for_good() {
    let [key, next] = [Algorithm::EdDsa, Algorithm::Es256].map(new_key);
    let issuer = Issuer::with(&[&key]).await;
    let server = issuer.server().await;
    issuer.answer.send_replace((StatusCode::BAD_GATEWAY, String::new()));
    let early = server.play_with("roulette", &player(&next)).send().await.unwrap();
    assert_problem(early, 503, "keys-unavailable").await;
    assert_eq!(server.play_with("roulette", &player(&key)).send().await.unwrap().status(), 201);
}

/// A reading under way may have its answer from before the key was published: who comes meanwhile has another one made.
#[tokio::test]
async fn a_reading_that_began_before_does_not_count() {
    let [key, next] = [Algorithm::EdDsa, Algorithm::Es256].map(new_key);
    let issuer = Issuer::with(&[&key]).await;
    let server = issuer.server().await;
    let held = Arc::clone(&issuer.gate).write_owned().await;
    let gatekeeper = server.gatekeeper.clone();
    let reading = tokio::spawn(async move { gatekeeper.read().await });
    issuer.asked_in_all(2).await;
    issuer.publish(&[&key, &next]);
    let token = player(&next);
    let mut joining = pin!(server.gatekeeper.admit(Some(&token), Role::Player, "roulette"));
    assert!(poll!(joining.as_mut()).is_pending(), "it waits for the reading");
    drop(held);
    reading.await.unwrap();
    assert!(joining.await.is_ok());
    assert_eq!(issuer.asked(), 3);
}

/// As a node does by itself, and sooner where that failed.
#[tokio::test]
async fn keys_are_read_again_and_again() {
    let [key, next] = [Algorithm::EdDsa, Algorithm::Es256].map(new_key);
    let issuer = Issuer::with(&[&key]).await;
    issuer.answer.send_replace((StatusCode::BAD_GATEWAY, String::new()));
    let mut config = unlimited();
    config.keys = KeySet::default();
    config.auth.jwks_url = Some(issuer.url.clone().try_into().unwrap());
    config.auth.jwks_refresh = Duration::from_millis(20);
    let server = Server::public_with(config, FakeSessions::default()).await;
    let hangups = signal(SignalKind::user_defined1()).unwrap();
    tokio::spawn(server.gatekeeper.clone().keep_fresh(hangups));
    issuer.asked_in_all(3).await;
    issuer.publish(&[&key]);
    server.metric("tableside_token_keys 1").await;
    issuer.publish(&[&key, &next]);
    server.metric("tableside_token_keys 2").await;
}

/// What could not be good whatever its key is asks nobody.
#[tokio::test]
async fn an_expired_token_with_an_unknown_key_does_not_make_us_ask_the_issuer() {
    let issuer = Issuer::with(&[&new_key(Algorithm::EdDsa)]).await;
    let server = issuer.server().await;
    let claims = json!({ "sub": "ann", "role": "player", "tables": ["*"], "exp": unix_time().as_secs() - 60 });
    let stranger = new_key(Algorithm::EdDsa);
    let header = json!({ "alg": "EdDSA", "kid": stranger.kid() }).to_string();
    let expired = stranger.sign_parts(&header, &claims.to_string()).unwrap();
    assert_problem(server.play_with("roulette", &expired).send().await.unwrap(), 401, "token-expired").await;
    assert_eq!(issuer.asked(), 1, "at start");
}

#[tokio::test]
async fn an_issuer_that_fails_leaves_the_old_keys_in_place() {
    let key = new_key(Algorithm::EdDsa);
    let issuer = Issuer::with(&[&key]).await;
    let server = issuer.server().await;
    server.metric("tableside_token_key_loads_total{outcome=\"loaded\"} 1").await;
    let secret = json!({ "keys": [key.jwk(), { "kty": "oct", "k": "c2VjcmV0" }] }).to_string();
    let answers = [
        (StatusCode::INTERNAL_SERVER_ERROR, String::new()),
        (StatusCode::FOUND, String::new()),
        (StatusCode::OK, "<html>".to_owned()),
        (StatusCode::OK, "{\"keys\":[]}".to_owned()),
        (StatusCode::OK, secret),
        (StatusCode::OK, "x".repeat(300_000)),
    ];
    for (failures, answer) in (1..).zip(answers) {
        issuer.answer.send_replace(answer);
        server.gatekeeper.read().await;
        server.metric(&format!("tableside_token_key_loads_total{{outcome=\"failed\"}} {failures}")).await;
        assert_eq!(server.play_with("roulette", &player(&key)).send().await.unwrap().status(), 201);
        assert_eq!(server.gatekeeper.readiness(), Ok(()));
    }
    issuer.publish(&[&key]);
    server.gatekeeper.read().await;
    server.metric("tableside_token_key_loads_total{outcome=\"unchanged\"} 1").await;
}

#[tokio::test]
async fn a_node_that_never_had_keys_is_not_ready_and_says_so() {
    let key = new_key(Algorithm::EdDsa);
    let issuer = Issuer::with(&[]).await;
    let server = issuer.server().await;
    assert!(server.gatekeeper.readiness().is_err_and(|missing| missing.contains(&issuer.url)));
    let response = server.play_with("roulette", &player(&key)).send().await.unwrap();
    assert_problem(response, 503, "keys-unavailable").await;
    assert_problem(server.play_with("roulette", "undefined").send().await.unwrap(), 401, "token-invalid").await;
    issuer.publish(&[&key]);
    server.gatekeeper.read().await;
    assert_eq!(server.gatekeeper.readiness(), Ok(()));
    assert_eq!(server.play_with("roulette", &player(&key)).send().await.unwrap().status(), 201);
}

#[tokio::test]
async fn readiness_has_the_keys() {
    let mut config = config();
    config.keys = KeySet::default();
    config.auth.jwks_file = Some(Path::new("/nonexistent/jwks.json").to_owned());
    let server = Server::admin_of(config, FakeSessions::default()).await;
    let ready = server.get("/readyz").await;
    assert_eq!(ready.status(), 503);
    let ready = json(ready).await;
    let keys = ready["checks"].as_array().unwrap().iter().find(|check| check["name"] == "keys").unwrap();
    assert_eq!(keys["ok"], false);
    let server = Server::admin_with(FakeSessions::default()).await;
    assert_eq!(server.get("/readyz").await.status(), 200);
}
