//! The state of tables as JSON, for pages.

use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::{ALLOW, CACHE_CONTROL};
use axum::response::IntoResponse;
use axum::routing::{MethodRouter, get};
use axum::{Json, Router};

use crate::fleet::TableStatus;

use super::path::Segments;
use super::problem::Problem;
use super::{App, Sessions};

const METHODS: &str = "OPTIONS, GET, HEAD";

/// `/api/tables` and `/api/tables/{table}`.
pub(super) fn routes<S: Sessions>() -> Router<App<S>> {
    Router::new()
        .route("/api/tables", read_only(get(tables::<S>)))
        .route("/api/tables/{table}", read_only(get(table::<S>)))
}

fn read_only<S: Sessions>(methods: MethodRouter<App<S>>) -> MethodRouter<App<S>> {
    methods
        .options(async || (StatusCode::OK, [(ALLOW, METHODS)]))
        .fallback(async || Problem::MethodNotAllowed { allow: METHODS })
}

async fn tables<S: Sessions>(State(app): State<App<S>>) -> impl IntoResponse {
    ([(CACHE_CONTROL, "no-store")], Json(serde_json::json!({ "tables": app.sessions.tables() })))
}

async fn table<S: Sessions>(
    State(app): State<App<S>>,
    Segments(name): Segments<String>,
) -> Result<impl IntoResponse, Problem> {
    let name = app.table(&name)?;
    let found = app.sessions.tables().into_iter().find(|table| table.name == name.as_str());
    let status = found.unwrap_or_else(|| never_published(name.as_str()));
    Ok(([(CACHE_CONTROL, "no-store")], Json(status)))
}

/// In the demo every name is a table, also those that nobody used yet.
fn never_published(name: &str) -> TableStatus {
    TableStatus {
        name: name.to_owned(),
        live: false,
        players: 0,
        video_codec: None,
        audio_codec: None,
        fps: 0.0,
        bits_per_second: 0.0,
    }
}
