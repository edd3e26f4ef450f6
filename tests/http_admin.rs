//! The admin listener.

mod http_support;

use std::collections::BTreeMap;

use http_support::*;
use tableside::bet_service::{ServiceKind, ServiceReport};
use tableside::net::Setting;
use tableside::shard::{ShardReport, TableReport};

#[tokio::test]
async fn metrics_are_of_the_moment_of_the_scrape() {
    let table = TableReport { players: 3, ..TableReport::default() };
    let report = ShardReport { tables: BTreeMap::from([("roulette".to_owned(), table)]), ..ShardReport::default() };
    let server = Server::admin_with(FakeSessions { reports: vec![report], ..FakeSessions::default() }).await;
    let response = server.get("/metrics").await;
    assert_eq!(response.status(), 200);
    assert_eq!(header(&response, "content-type"), "text/plain; version=0.0.4; charset=utf-8");
    let text = response.text().await.unwrap();
    assert!(text.contains("# TYPE tableside_players gauge\n"), "{text}");
    assert!(text.contains("\ntableside_players{table=\"roulette\"} 3\n"), "{text}");
    assert!(text.contains("\ntableside_players{table=\"blackjack\"} 0\n"), "{text}");
}

#[tokio::test]
async fn a_drained_node_is_alive_but_not_ready() {
    let server = Server::admin_with(FakeSessions::default()).await;
    assert_eq!(server.get("/healthz").await.status(), 200);
    let ready = server.get("/readyz").await;
    assert_eq!(ready.status(), 200);
    assert_eq!(json(ready).await["ready"], true);

    let drained = server.send("POST", "/drain").await;
    assert_eq!(drained.status(), 202);
    assert_eq!(json(drained).await["draining"], true);

    let ready = server.get("/readyz").await;
    assert_eq!(ready.status(), 503);
    let ready = json(ready).await;
    assert_eq!(ready["ready"], false);
    assert_eq!(ready["checks"][0], serde_json::json!({ "name": "sockets", "ok": true }));
    assert_eq!(ready["checks"][1], serde_json::json!({ "name": "admission", "ok": false, "error": "draining" }));
    assert_eq!(server.get("/healthz").await.status(), 200);
}

#[tokio::test]
async fn a_bet_service_that_fails_is_told_and_takes_no_node_out_of_service() {
    let bet_service = ServiceReport {
        kind: Some(ServiceKind::Nats),
        connected: Some(false),
        failures: [0, 0, 7, 0, 0, 0, 0, 0, 0, 0],
        ..ServiceReport::default()
    };
    let server = Server::admin_with(FakeSessions { bet_service, ..FakeSessions::default() }).await;
    let ready = server.get("/readyz").await;
    assert_eq!(ready.status(), 200);
    let checks = json(ready).await["checks"].clone();
    let wanted = serde_json::json!({
        "name": "bet_service", "ok": false, "error": "there is no connection to a NATS server", "required": false,
    });
    assert!(checks.as_array().is_some_and(|checks| checks.contains(&wanted)), "{checks}");
    let text = server.get("/metrics").await.text().await.unwrap();
    assert!(
        text.contains("\ntableside_bet_service_failures_total{kind=\"nats\",reason=\"not_connected\"} 7\n"),
        "{text}"
    );
    assert!(
        text.contains("\ntableside_bet_service_failures_total{kind=\"http\",reason=\"not_connected\"} 0\n"),
        "{text}"
    );
}

#[tokio::test]
async fn a_drained_node_refuses_offers() {
    let server = Server::public().await;
    server.sessions.draining.store(true, std::sync::atomic::Ordering::Relaxed);
    let response = server.play("roulette").send().await.unwrap();
    assert_eq!(header(&response, "retry-after"), "2");
    assert_problem(response, 503, "shutting-down").await;
}

#[tokio::test]
async fn status_tells_all_there_is_to_know() {
    let report = ShardReport { sessions: [1, 2], datagrams_sent: 5, ..ShardReport::default() };
    let server = Server::admin_with(FakeSessions { reports: vec![report], ..FakeSessions::default() }).await;
    let (wanted, found) = ("on".to_owned(), "off".to_owned());
    server.metrics.set_tuning(vec![Setting { name: "gso", ok: false, wanted, found, advice: "a newer kernel" }]);

    let response = server.get("/status").await;
    assert_eq!(response.status(), 200);
    let status = json(response).await;
    assert_eq!(status["version"], env!("CARGO_PKG_VERSION"));
    assert!(status["uptimeSeconds"].as_f64().is_some_and(|uptime| uptime >= 0.0));
    assert_eq!(status["ready"], true);
    assert_eq!(status["shards"][0]["players"], 2);
    assert_eq!(status["shards"][0]["publishers"], 1);
    assert_eq!(status["shards"][0]["datagramsSent"], 5);
    assert_eq!(status["tables"][0]["name"], "blackjack");
    assert_eq!(status["tuning"][0]["setting"], "gso");
    assert_eq!(status["tuning"][0]["advice"], "a newer kernel");
}

#[tokio::test]
async fn wrong_paths_and_methods_are_problems() {
    let server = Server::admin_with(FakeSessions::default()).await;
    assert_problem_document(server.get("/whep/roulette").await, 404, "not-found").await;
    for (method, path, allow) in [("GET", "/drain", "POST"), ("POST", "/metrics", "GET, HEAD")] {
        let response = server.send(method, path).await;
        assert_eq!(header(&response, "allow"), allow);
        assert_problem_document(response, 405, "method-not-allowed").await;
    }
}
