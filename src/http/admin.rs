//! For operators: metrics, health, status, drain.

use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::{MethodRouter, get, post};
use axum::{Json, Router};
use serde_json::{Value, json};

use crate::shard::{Role, ShardReport};
use crate::telemetry;

use super::problem::Problem;
use super::{App, Sessions};

/// `/metrics`, `/healthz`, `/readyz`, `/status` and `POST /drain`.
pub(super) fn routes<S: Sessions>() -> Router<App<S>> {
    Router::new()
        .route("/metrics", read_only(get(metrics::<S>)))
        .route("/healthz", read_only(get(async || "ok\n")))
        .route("/readyz", read_only(get(ready::<S>)))
        .route("/status", read_only(get(status::<S>)))
        .route("/drain", post(drain::<S>).fallback(async || Problem::MethodNotAllowed { allow: "POST" }))
}

fn read_only<S: Sessions>(methods: MethodRouter<App<S>>) -> MethodRouter<App<S>> {
    methods.fallback(async || Problem::MethodNotAllowed { allow: "GET, HEAD" })
}

async fn metrics<S: Sessions>(State(app): State<App<S>>) -> impl IntoResponse {
    app.metrics.replace_reports(app.sessions.reports());
    app.metrics.replace_admission(app.sessions.admission());
    app.metrics.replace_rounds(app.sessions.rounds());
    app.metrics.replace_bet_service(app.sessions.bet_service());
    app.metrics.replace_audit(app.sessions.audit());
    app.metrics.replace_traces(app.sessions.traces());
    ([(CONTENT_TYPE, telemetry::CONTENT_TYPE)], app.metrics.render())
}

/// 200 if all that serving depends on works, else 503; both list every check. One that is not `required` does not count:
/// a node whose bet service fails still shows the game, and every other node's fails with it.
async fn ready<S: Sessions>(State(app): State<App<S>>) -> impl IntoResponse {
    let (ready, checks) = checks(&app);
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(json!({ "ready": ready, "checks": checks })))
}

fn checks<S: Sessions>(app: &App<S>) -> (bool, Vec<Value>) {
    let mut readiness = app.sessions.readiness();
    readiness.push(("keys", app.gatekeeper.readiness()));
    let ready = readiness.iter().all(|(_, outcome)| outcome.is_ok());
    let check = |(name, outcome): (&str, Result<(), String>)| match outcome {
        Ok(()) => json!({ "name": name, "ok": true }),
        Err(error) => json!({ "name": name, "ok": false, "error": error }),
    };
    let mut checks: Vec<Value> = readiness.into_iter().map(check).collect();
    let service = app.sessions.bet_service();
    if service.kind.is_some() {
        let mut state = check(("bet_service", service.health().map_err(str::to_owned)));
        state["required"] = false.into();
        checks.push(state);
    }
    (ready, checks)
}

#[expect(clippy::disallowed_methods, reason = "the uptime is real")]
async fn status<S: Sessions>(State(app): State<App<S>>) -> impl IntoResponse {
    let (ready, checks) = checks(&app);
    let shards: Vec<Value> = app.sessions.reports().iter().enumerate().map(shard).collect();
    Json(json!({
        "version": env!("CARGO_PKG_VERSION"),
        "uptimeSeconds": app.started.elapsed().as_secs_f64(),
        "ready": ready,
        "checks": checks,
        "shards": shards,
        "tables": app.sessions.tables(),
        "tuning": app.metrics.tuning(),
    }))
}

fn shard((index, report): (usize, &ShardReport)) -> Value {
    json!({
        "shard": index,
        "publishers": report.sessions[Role::Publisher as usize],
        "players": report.sessions[Role::Player as usize],
        "datagramsReceived": report.datagrams_received,
        "datagramsSent": report.datagrams_sent,
        "packetsDropped": report.dropped.iter().sum::<u64>(),
        "cpuSeconds": report.cpu_seconds,
        "utilisation": report.utilisation,
    })
}

/// Stops admitting sessions for good; the process goes on until it is told to end.
async fn drain<S: Sessions>(State(app): State<App<S>>) -> impl IntoResponse {
    app.sessions.drain();
    tracing::info!("draining: no session is admitted any more");
    (StatusCode::ACCEPTED, Json(json!({ "draining": true })))
}
