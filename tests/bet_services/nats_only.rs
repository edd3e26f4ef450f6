//! What NATS has of its own.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_nats::ConnectOptions;
use serde_json::{Value, json};
use tableside::bet_service::{EventResult, Failure, NatsService};
use tableside::config::Config;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::bench::{Bench, ForeignBench, run};
use super::faults::{audit, repeat_until_known};
use super::files::{Authority, Files};
use super::http_only::tls_section;
use super::nats::{NatsBench, Server};
use super::node::Node;
use super::proxy::{Proxy, Rewrite};

async fn seated(bench: &NatsBench) -> (Node, String) {
    let (mut node, _task) = bench.connect().await;
    node.table("one", true);
    node.until("a round is open", |node| node.open_round("one").is_some()).await;
    let round = node.open_round("one").expect("open");
    (node, round)
}

/// Signals come without a pause while the server dies, is gone for a while, and comes back.
pub async fn the_server_restarts_in_mid_request(mut bench: NatsBench) {
    let (mut node, round) = seated(&bench).await;
    let mut number = 0;
    let mut steady = async |node: &mut Node, signals: usize| {
        for _ in 0..signals {
            node.bet(&format!("player-{}", number % 100), "one", &round, &format!("k-{number}"), 1);
            number += 1;
            node.during(Duration::from_millis(4)).await;
        }
    };
    bench.fault(super::ledger::Fault::Slow(Duration::from_millis(50)));
    steady(&mut node, 100).await;
    bench.server.kill().await;
    steady(&mut node, 50).await;
    bench.server.again().await;
    steady(&mut node, 150).await;
    node.all_told().await;
    assert_eq!(node.sent.len(), 300);
    let tally = node.tally();
    assert!(tally["accepted"] >= 50 && tally["refused unavailable"] >= 20, "{tally:?}");
    // Before anybody repeats anything: who was told `refused` has not bet.
    audit(&node, &bench);
    let broken = node.report().failures[Failure::Broken as usize];
    assert!(broken >= 5, "{broken} were under way: the test would prove nothing with none");
    node.until("the connection", |node| node.report().connected == Some(true)).await;
    repeat_until_known(&mut node, &round).await;
    assert!(node.report().reconnects >= 1);
    assert_eq!(bench.ledger().len(), 300, "each bet once");
    audit(&node, &bench);
}

pub async fn a_node_that_is_started_first_finds_the_server_later(mut bench: NatsBench) {
    bench.kill().await;
    bench.server.kill().await;
    let (link, _task) = bench.join();
    let mut node = Node::new(link);
    node.table("one", true);
    node.bet("ann", "one", "r-1", "early", 1);
    node.all_told().await;
    assert_eq!(node.tally()["refused unavailable"], 1);
    assert!(node.report().health().is_err());
    bench.server.again().await;
    bench.back().await;
    node.until("a round is open", |node| node.open_round("one").is_some()).await;
    assert!(node.report().health().is_ok());
    audit(&node, &bench);
}

pub async fn a_table_is_spoken_for_on_its_own_subject_alone(bench: NatsBench) {
    let (mut node, round) = seated(&bench).await;
    let of_one = |kind: &str| json!({ "table": "one", "type": kind, "roundId": round, "captureTs": 1 }).to_string();
    let client = bench.client().clone();
    client.publish("casino.test.rounds.two", of_one("void").into()).await.expect("published");
    client.publish("casino.test.rounds.one", "no event".into()).await.expect("published");
    client.publish("casino.test.rounds.one", "x".repeat(100_000).into()).await.expect("published");
    client.publish("casino.test.rounds.three", of_one("void").replace("one", "three").into()).await.expect("published");
    client.publish("casino.test.rounds.one", of_one("round.close").into()).await.expect("published");
    node.until("the close", |node| node.told("one").len() == 2).await;
    assert_eq!(node.told("one")[1].0, "round.close");
    let events = node.report().events;
    let counted =
        [EventResult::Malformed, EventResult::TooLarge, EventResult::UnknownTable].map(|r| events[r as usize]);
    assert_eq!(counted, [2, 1, 1]);
}

/// Bets that are accepted over a connection of any kind.
async fn plays(bench: &NatsBench) {
    let (mut node, round) = seated(bench).await;
    for n in 0..20 {
        node.bet(&format!("player-{n}"), "one", &round, "k", 1);
    }
    node.all_told().await;
    assert_eq!(node.tally()["accepted"], 20, "{:?}", node.tally());
    audit(&node, bench);
}

pub async fn over_tls() {
    let (authority, files) = (Authority::new(), Files::new());
    let (server, node) = (authority.sign("localhost"), authority.sign("node"));
    let section = tls_section(&files, &authority, Some(&node));
    let password = files.write("password", "secret\n");
    let section = format!("username = \"node\"\npassword_file = {password:?}\n{section}");
    let (certificate, key) = (files.write("server.crt", &server.certificate), files.write("server.key", &server.key));
    let config = format!(
        "tls {{ cert_file: {certificate:?}, key_file: {key:?}, ca_file: {:?}, verify: true }}\n\
         authorization {{ users: [ {{ user: node, password: secret }} ] }}",
        files.path().join("ca.crt")
    );
    // The service comes in by the same door.
    let folder = files.path().to_owned();
    FOLDER.set(folder).expect("once");
    let server = Server::start(files, &config).await;
    let options = || {
        let folder = FOLDER.get().expect("set");
        ConnectOptions::with_user_and_password("node".to_owned(), "secret".to_owned())
            .add_root_certificates(folder.join("ca.crt"))
            .add_client_certificate(folder.join("node.crt"), folder.join("node.key"))
    };
    let bench = NatsBench::with(server, "tls", &section, options).await;
    plays(&bench).await;
}

/// A server that wants a password, over TLS with a certificate of `authority`; with `verify`, of the node as well.
async fn guarded(authority: &Authority, verify: bool) -> Server {
    let (files, pair) = (Files::new(), authority.sign("localhost"));
    let (certificate, key) = (files.write("server.crt", &pair.certificate), files.write("server.key", &pair.key));
    let ca = files.write("authority.crt", &authority.pem());
    let config = format!(
        "tls {{ cert_file: {certificate:?}, key_file: {key:?}, ca_file: {ca:?}, verify: {verify} }}\n\
         authorization {{ users: [ {{ user: node, password: secret }} ] }}"
    );
    Server::start(files, &config).await
}

/// A node that finds its server over TLS behind a proxy.
fn behind(proxy: &Proxy, files: &Files, section: &str) -> Node {
    let password = files.write("password", "secret\n");
    let text = format!(
        "[bet_service]\nkind = \"nats\"\n[bet_service.nats]\nservers = [\"tls://localhost:{}\"]\nusername = \"node\"\n\
         password_file = {password:?}\n{section}\n[tables.one]\n",
        proxy.port
    );
    let config = Config::parse("test.toml".as_ref(), &text).expect("a configuration");
    let tables = config.tables.keys().map(|name| name.as_str().into());
    let (link, _task) = run(NatsService::new(&config.bet_service, tables).expect("a connector"));
    Node::new(link)
}

fn at(port: u16) -> SocketAddr {
    ([127, 0, 0, 1], port).into()
}

pub async fn strangers_get_no_connection() {
    let (authority, stranger, files) = (Authority::new(), Authority::new(), Files::new());
    let plain = Server::start(Files::new(), "authorization { users: [ { user: node, password: secret } ] }").await;
    let (good, false_one) = (guarded(&authority, true).await, guarded(&stranger, false).await);
    let pair = authority.sign("node");
    let with = tls_section(&files, &authority, Some(&pair));
    let proxy = Proxy::start(at(good.port), None).await;
    let mut node = behind(&proxy, &files, &with);
    node.until("who is known is connected", |node| node.report().connected == Some(true)).await;

    let without = tls_section(&files, &authority, None);
    for (what, server, section) in [
        ("a server that nobody has vouched for", &false_one, &with),
        ("a server without TLS", &plain, &with),
        ("a node without a certificate", &good, &without),
    ] {
        let proxy = Proxy::start(at(server.port), None).await;
        let mut node = behind(&proxy, &files, section);
        // It has tried in earnest when it tries for the third time.
        node.until(what, |node| {
            assert_ne!(node.report().connected, Some(true), "{what}");
            proxy.accepted() >= 3
        })
        .await;
        node.bet("ann", "one", "r", "k", 1);
        node.all_told().await;
        assert_eq!(node.tally()["refused unavailable"], 1, "{what}");
    }
}

/// Before TLS begins, whoever is between can name other servers, as a cluster does.
pub async fn nobody_is_led_to_a_server_without_tls() {
    let (authority, files) = (Authority::new(), Files::new());
    let server = guarded(&authority, false).await;
    let trap = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let trap_port = trap.local_addr().expect("bound").port();
    let heard: Arc<Mutex<Vec<u8>>> = Arc::default();
    let ear = heard.clone();
    let trapped = tokio::spawn(async move {
        while let Ok((mut stream, _)) = trap.accept().await {
            let info = r#"INFO {"server_id":"x","version":"2.10.0","proto":1,"host":"0","port":1,"headers":true,"max_payload":1048576,"nonce":"n"}"#;
            let _ = stream.write_all(format!("{info}\r\n").as_bytes()).await;
            let mut said = [0; 4096];
            let said = match stream.read(&mut said).await {
                Ok(bytes) => said[..bytes].to_vec(),
                Err(_) => Vec::new(),
            };
            ear.lock().expect("whole").extend(said);
        }
    });
    let rewrite: Rewrite = Arc::new(move |info| {
        let named = format!(r#"INFO {{"connect_urls":["127.0.0.1:{trap_port}","ws://127.0.0.1:{trap_port}"],"#);
        info.replacen("INFO {", &named, 1)
    });
    let proxy = Proxy::start(at(server.port), Some(rewrite)).await;
    let mut node = behind(&proxy, &files, &tls_section(&files, &authority, None));
    node.until("the connection", |node| node.report().connected == Some(true)).await;
    let before = proxy.accepted();
    proxy.close();
    // By then it has tried what else it knows.
    node.until("it looks for a server", |_| proxy.accepted() >= before + 5).await;
    trapped.abort();
    let heard = heard.lock().expect("whole").clone();
    assert!(heard.is_empty(), "{}", String::from_utf8_lossy(&heard));
}

static FOLDER: std::sync::OnceLock<std::path::PathBuf> = std::sync::OnceLock::new();

/// A claim of the NATS JWT library's second version, signed by its issuer.
fn jwt(issuer: &nkeys::KeyPair, subject: &nkeys::KeyPair, name: &str, nats: &Value) -> String {
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let head = encode(&json!({ "typ": "JWT", "alg": "ed25519-nkey" }));
    let claims = json!({
        "jti": name, "iat": 1_700_000_000, "iss": issuer.public_key(), "sub": subject.public_key(), "name": name, "nats": nats,
    });
    let signed = format!("{head}.{}", encode(&claims));
    let signature = URL_SAFE_NO_PAD.encode(issuer.sign(signed.as_bytes()).expect("a signature"));
    format!("{signed}.{signature}")
}

/// Operator, account and user, as `nsc` makes them.
pub async fn with_credentials() {
    let (operator, account, user) =
        (nkeys::KeyPair::new_operator(), nkeys::KeyPair::new_account(), nkeys::KeyPair::new_user());
    let limits = json!({ "subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": true, "conn": -1, "leaf": -1 });
    let operator_jwt = jwt(&operator, &operator, "operator", &json!({ "type": "operator", "version": 2 }));
    let account_jwt =
        jwt(&operator, &account, "account", &json!({ "type": "account", "version": 2, "limits": limits }));
    let user_jwt = jwt(
        &account,
        &user,
        "user",
        &json!({ "type": "user", "version": 2, "pub": {}, "sub": {}, "subs": -1, "data": -1, "payload": -1 }),
    );
    let files = Files::new();
    let text = format!(
        "-----BEGIN NATS USER JWT-----\n{user_jwt}\n------END NATS USER JWT------\n\n-----BEGIN USER NKEY SEED-----\n{}\n\
         ------END USER NKEY SEED------\n",
        user.seed().expect("a seed")
    );
    let credentials = files.write("node.creds", &text);
    let config = format!(
        "operator: {:?}\nresolver: MEMORY\nresolver_preload: {{ {}: {account_jwt:?} }}",
        files.write("operator.jwt", &operator_jwt),
        account.public_key()
    );
    CREDENTIALS.set(text).expect("once");
    let server = Server::start(files, &config).await;
    let options = || ConnectOptions::with_credentials(CREDENTIALS.get().expect("set")).expect("credentials");
    let bench = NatsBench::with(server, "nats", &format!("credentials_file = {credentials:?}\n"), options).await;
    plays(&bench).await;
}

static CREDENTIALS: std::sync::OnceLock<String> = std::sync::OnceLock::new();
