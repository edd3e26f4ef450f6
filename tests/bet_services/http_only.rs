//! What HTTP has of its own.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tableside::bets::Status;
use tokio_rustls::TlsAcceptor;

use super::bench::{Bench, ForeignBench};
use super::faults::audit;
use super::files::{Authority, Files, Pair};
use super::http::HttpBench;
use super::ledger::Fault;
use super::node::Node;
use super::proxy::Proxy;

async fn seated(bench: &HttpBench) -> (Node, String) {
    let (mut node, _task) = bench.connect().await;
    node.table("one", true);
    node.until("a round is open", |node| node.open_round("one").is_some()).await;
    let round = node.open_round("one").expect("open");
    (node, round)
}

pub async fn each_attempt_is_named_and_has_the_same_key(bench: HttpBench) {
    let (mut node, round) = seated(&bench).await;
    bench.fault(Fault::Error);
    node.bet("ann", "one", &round, "k", 1);
    node.all_told().await;
    node.bet("bob", "one", &round, "k", 1);
    node.all_told().await;
    let heads = bench.state.heads.lock().expect("whole").clone();
    assert_eq!(heads.len(), 6, "three attempts each");
    let of = |name: &str| heads.iter().map(|head| head[name].to_str().expect("text").to_owned()).collect::<Vec<_>>();
    let keys = of("idempotency-key");
    assert!(keys[0].len() == 34 && keys[0].starts_with('"') && keys[0].ends_with('"'), "{}", keys[0]);
    assert!(keys[..3].iter().all(|key| *key == keys[0]) && keys[3..].iter().all(|key| *key == keys[3]));
    assert_ne!(keys[0], keys[3], "two players may choose one key");
    let traces: Vec<Vec<String>> =
        of("traceparent").iter().map(|t| t.split('-').map(str::to_owned).collect()).collect();
    assert!(traces.iter().all(|t| t.len() == 4
        && t[0] == "00"
        && t[1].len() == 32
        && t[2].len() == 16
        && t[3] == "00"));
    assert!(
        traces[..3].iter().all(|t| t[1] == traces[0][1]) && traces[3][1] != traces[0][1],
        "a trace for each signal"
    );
    let mut parents: Vec<&String> = traces.iter().map(|t| &t[2]).collect();
    parents.sort();
    parents.dedup();
    assert_eq!(parents.len(), 6, "and a parent for each attempt");
    assert!(of("content-type").iter().all(|kind| kind == "application/json"));
}

pub async fn connections_that_end_after_each_answer_lose_nothing(bench: HttpBench) {
    let (mut node, round) = seated(&bench).await;
    *bench.state.ends_connections.lock().expect("whole") = true;
    for n in 0..200 {
        node.bet(&format!("player-{n}"), "one", &round, "k", 1);
        if n % 10 == 0 {
            node.all_told().await;
        }
    }
    node.all_told().await;
    assert_eq!(node.tally()["accepted"], 200, "{:?}", node.tally());
    audit(&node, &bench);
}

pub async fn a_stream_that_falls_silent_is_opened_anew(bench: HttpBench) {
    *bench.state.is_mute.lock().expect("whole") = true;
    let (mut node, _task) = bench.connect().await;
    node.until("it is opened again", |node| node.report().reconnects >= 1).await;
    *bench.state.is_mute.lock().expect("whole") = false;
    let streams = *bench.state.streams.lock().expect("whole");
    node.until("and once more", |_| *bench.state.streams.lock().expect("whole") > streams).await;
    node.table("one", true);
    node.until("a round is open", |node| node.open_round("one").is_some()).await;
    // Longer than the silence that is borne: comments keep it open.
    let streams = *bench.state.streams.lock().expect("whole");
    node.during(Duration::from_millis(2500)).await;
    assert_eq!(*bench.state.streams.lock().expect("whole"), streams);
}

pub async fn a_table_that_the_service_does_not_hear_of_holds_up_no_other(bench: HttpBench) {
    *bench.state.unknown_table.lock().expect("whole") = Some("one".to_owned());
    let (mut node, _task) = bench.connect().await;
    node.table("one", true);
    node.table("two", true);
    node.until("the service hears of the other", |_| bench.ledger().is_live("two")).await;
    node.table("two", false);
    node.until("and again", |_| !bench.ledger().is_live("two")).await;
    assert!(!bench.ledger().is_live("one"));
    *bench.state.unknown_table.lock().expect("whole") = None;
    node.until("it is told until it hears", |_| bench.ledger().is_live("one")).await;
}

/// Packets vanish on the one connection that there is.
pub async fn a_silent_connection_over_http2_is_given_up_soon() {
    let (authority, files) = (Authority::new(), Files::new());
    let (service, node) = (authority.sign("localhost"), authority.sign("node"));
    let section = tls_section(&files, &authority, Some(&node));
    let mut bench = HttpBench::with(Some(acceptor(&authority, &service, &["h2"])), &section).await;
    let proxy = Proxy::start(bench.address, None).await;
    bench.port = proxy.port;
    let (mut node, round) = seated(&bench).await;
    let first = node.bet("ann", "one", &round, "first", 1);
    node.all_told().await;
    assert_eq!(
        (node.sent[first].first.as_ref().map(|(o, _)| o.status()), proxy.accepted()),
        (Some(Status::Accepted), 1)
    );
    proxy.silence().await;
    let begun = Instant::now();
    let mut n = 0;
    while !node.sent[1..].iter().any(|sent| sent.first.as_ref().is_some_and(|(o, _)| o.status() == Status::Accepted)) {
        node.bet(&format!("player-{n}"), "one", &round, "k", 1);
        node.during(Duration::from_millis(50)).await;
        n += 1;
        assert!(begun.elapsed() < Duration::from_secs(6), "{:?}", node.tally());
    }
    assert!(proxy.accepted() >= 2);
    node.all_told().await;
    audit(&node, &bench);
}

/// A server's side that asks for a certificate of `authority`.
pub fn acceptor(authority: &Authority, pair: &Pair, protocols: &[&str]) -> TlsAcceptor {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.pem().as_bytes()).expect("PEM")).expect("an authority");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build();
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_client_cert_verifier(clients.expect("a verifier"))
        .with_single_cert(
            vec![CertificateDer::from_pem_slice(pair.certificate.as_bytes()).expect("PEM")],
            PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).expect("PEM"),
        )
        .expect("a pair");
    config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
    TlsAcceptor::from(Arc::new(config))
}

/// The lines of `[bet_service.tls]`.
pub fn tls_section(files: &Files, authority: &Authority, node: Option<&Pair>) -> String {
    let ca = files.write("ca.crt", &authority.pem());
    let mut text = format!("[bet_service.tls]\nca_file = {ca:?}\n");
    if let Some(pair) = node {
        let (certificate, key) = (files.write("node.crt", &pair.certificate), files.write("node.key", &pair.key));
        text.push_str(&format!("certificate = {certificate:?}\nkey = {key:?}\n"));
    }
    text
}

pub async fn over_tls() {
    let (authority, stranger, files) = (Authority::new(), Authority::new(), Files::new());
    let (service, node) = (authority.sign("localhost"), authority.sign("node"));
    for protocols in [&["http/1.1"][..], &["h2", "http/1.1"]] {
        let section = tls_section(&files, &authority, Some(&node));
        let mut bench = HttpBench::with(Some(acceptor(&authority, &service, protocols)), &section).await;
        let (mut known, round) = seated(&bench).await;
        for n in 0..100 {
            known.bet(&format!("player-{n}"), "one", &round, "k", 1);
        }
        known.all_told().await;
        assert_eq!(known.tally()["accepted"], 100, "{protocols:?} {:?}", known.tally());
        // Killed under way, over either version.
        bench.fault(Fault::Hang);
        known.bet("ann", "one", &round, "hung", 1);
        known.during(Duration::from_millis(100)).await;
        bench.kill().await;
        bench.fault(Fault::None);
        bench.back().await;
        known.all_told().await;
        let (outcome, _) = known.sent[100].first.clone().expect("told");
        assert_eq!(outcome.status(), Status::Accepted, "asked again with the same key");
        assert_eq!(bench.ledger().bets("ann", "hung").len(), 1);
        audit(&known, &bench);
    }

    // Without a certificate, and with a service that nobody has vouched for.
    for (authority_of_service, with_certificate) in [(&authority, false), (&stranger, true)] {
        let service = authority_of_service.sign("localhost");
        let section = tls_section(&files, &authority, with_certificate.then_some(&node));
        let acceptor = acceptor(&authority, &service, &["http/1.1"]);
        let bench = HttpBench::with(Some(acceptor), &section).await;
        let (link, _task) = bench.join();
        let mut unknown = Node::new(link);
        unknown.bet("ann", "one", "r", "k", 1);
        unknown.all_told().await;
        let (outcome, _) = unknown.sent[0].first.clone().expect("told");
        assert!(matches!(outcome.status(), Status::Refused | Status::Unconfirmed), "{outcome:?}");
        assert_eq!(bench.ledger().len(), 0, "nothing was taken from a stranger");
    }
}
