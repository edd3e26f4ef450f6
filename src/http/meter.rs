//! Counts what the public listener answers.

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use tracing::debug;

use crate::telemetry::{HttpRoute, Listener};

use super::{App, Sessions, limit};

/// Middleware: one count a response, and one for the limit that it tells of. The path is not logged, since a session URL is a capability.
pub(super) async fn count<S: Sessions>(State(app): State<App<S>>, request: Request, next: Next) -> Response {
    let route = route_of(request.uri().path());
    let method = request.method().clone();
    let response = next.run(request).await;
    if let Some(limit) = limit::of_status(response.status()) {
        app.metrics.listeners.limited(Listener::Public, limit);
    }
    let status = response.status().as_u16();
    app.metrics.http_request(route, status);
    debug!(%method, ?route, status, "answered");
    response
}

fn route_of(path: &str) -> HttpRoute {
    let Some(path) = path.strip_prefix('/') else {
        return HttpRoute::Other;
    };
    let mut segments = path.split('/');
    match (segments.next().unwrap_or(""), segments.count()) {
        ("whip", 1) => HttpRoute::Whip,
        ("whip", 2) => HttpRoute::WhipSession,
        ("whep", 1) => HttpRoute::Whep,
        ("whep", 2) => HttpRoute::WhepSession,
        ("api", _) => HttpRoute::Api,
        ("" | "dashboard", 0) | ("play" | "publish" | "sdk" | "assets", 1) => HttpRoute::Page,
        _ => HttpRoute::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_belong_to_routes() {
        for (path, route) in [
            ("/whip/a", HttpRoute::Whip),
            ("/whip/a/b", HttpRoute::WhipSession),
            ("/whep/a", HttpRoute::Whep),
            ("/whep/a/b", HttpRoute::WhepSession),
            ("/whep/a/b/c", HttpRoute::Other),
            ("/api/tables", HttpRoute::Api),
            ("/", HttpRoute::Page),
            ("/play/a", HttpRoute::Page),
            ("/sdk/player.js", HttpRoute::Page),
            ("/metrics", HttpRoute::Other),
            ("*", HttpRoute::Other),
        ] {
            assert_eq!(route_of(path), route, "{path}");
        }
    }
}
