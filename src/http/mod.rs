//! WHIP, WHEP, player pages, dashboard and the admin listener.
//!
//! Owns TCP connections, TLS and their limits. Enters: HTTP requests. Leaves: [`Sessions`] calls and their outcome as status codes, headers and RFC 9457 problem
//! documents; pages embedded in the binary; metrics, health and status for operators.
//! Refuses to know: SDP, packets, where a session lives.

mod admin;
mod api;
mod assets;
mod body;
mod cors;
mod endpoint;
mod forwarded;
mod limit;
mod link;
mod listener;
mod meter;
mod patch;
mod path;
mod problem;
mod request_rate;
mod sessions;

use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::http::Uri;
use axum::middleware::{from_fn, from_fn_with_state};

use crate::config::{Config, TableName};
use crate::gatekeeper::Gatekeeper;
use crate::shard::Role;
use crate::telemetry::Metrics;

pub use listener::{ServedCertificate, Site, serve};
pub use problem::Problem;
pub use sessions::Sessions;

use limit::RequestLimits;
use listener::ConnectionLimits;

/// What request handlers share. Cheap to clone.
#[derive(Clone, Debug)]
pub struct App<S> {
    /// The way to the media plane.
    pub sessions: S,
    /// The running configuration.
    pub config: Arc<Config>,
    /// Counts requests, and answers `/metrics`.
    pub metrics: Arc<Metrics>,
    /// Judges tokens.
    pub gatekeeper: Gatekeeper,
    /// For the uptime.
    pub started: Instant,
}

impl<S: Sessions> App<S> {
    /// An application that was started now.
    #[expect(clippy::disallowed_methods, reason = "the uptime begins here")]
    pub fn new(sessions: S, config: Arc<Config>, metrics: Arc<Metrics>, gatekeeper: Gatekeeper) -> Self {
        Self { sessions, config, metrics, gatekeeper, started: Instant::now() }
    }

    /// # Errors
    /// If `name` cannot be a table's name or there is no such table.
    fn table(&self, name: &str) -> Result<TableName, Problem> {
        let table: TableName = name.parse().map_err(|_| Problem::UnknownTable)?;
        if self.sessions.knows(table.as_str()) { Ok(table) } else { Err(Problem::UnknownTable) }
    }
}

/// The public listener (DESIGN §4). `/metrics` and everything else unknown is 404.
pub fn public<S: Sessions>(app: App<S>) -> Site {
    let (limits, metrics) = (ConnectionLimits::public(&app.config), Arc::clone(&app.metrics));
    let router = Router::new()
        .route("/whip/{table}", endpoint::endpoint(Role::Publisher))
        .route("/whip/{table}/{session}", endpoint::session(Role::Publisher))
        .route("/whep/{table}", endpoint::endpoint(Role::Player))
        .route("/whep/{table}/{session}", endpoint::session(Role::Player))
        .merge(api::routes())
        .merge(assets::routes())
        .fallback(not_found)
        .layer(from_fn_with_state(RequestLimits::new(&app.config), limit::check))
        .layer(from_fn(cors::allow))
        .layer(from_fn_with_state(app.clone(), meter::count))
        .with_state(app);
    Site::new(router, limits, metrics)
}

/// The admin listener: no authentication, so never public.
pub fn admin<S: Sessions>(app: App<S>) -> Site {
    let (limits, metrics) = (ConnectionLimits::admin(&app.config), Arc::clone(&app.metrics));
    Site::new(admin::routes().fallback(not_found).with_state(app), limits, metrics)
}

async fn not_found(uri: Uri) -> Problem {
    Problem::NotFound { path: uri.path().to_owned() }
}
