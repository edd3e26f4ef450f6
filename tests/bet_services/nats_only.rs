//! What NATS has of its own.

use std::time::Duration;

use async_nats::ConnectOptions;
use serde_json::{Value, json};
use tableside::bet_service::{EventResult, Failure};

use super::bench::{Bench, ForeignBench};
use super::faults::{audit, repeat_until_known};
use super::files::{Authority, Files};
use super::http_only::tls_section;
use super::nats::{NatsBench, Server};
use super::node::Node;

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
