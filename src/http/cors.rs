//! Cross-origin access: players and studio pages live on other origins than the node.

use axum::extract::Request;
use axum::http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderName, HeaderValue, Method};
use axum::middleware::Next;
use axum::response::Response;

/// On *every* response, errors too: without the list of exposed headers a browser sees a 201 whose Location is null.
const HEADERS: [(HeaderName, &str); 5] = [
    (ACCESS_CONTROL_ALLOW_ORIGIN, "*"),
    (ACCESS_CONTROL_ALLOW_METHODS, "OPTIONS, GET, HEAD, POST, PATCH, DELETE"),
    // By name: `*` does not cover Authorization. ETag for a client that sends it in place of If-Match.
    (ACCESS_CONTROL_ALLOW_HEADERS, "Authorization, Content-Type, If-Match, ETag"),
    // Some clients read from their own OPTIONS request which methods there are, so that is exposed too.
    (ACCESS_CONTROL_EXPOSE_HEADERS, "Location, ETag, Link, Retry-After, Accept-Patch, Access-Control-Allow-Methods"),
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
];

/// How long a browser may remember a preflight, in seconds; browsers cap it lower themselves.
const PREFLIGHT_AGE: &str = "7200";

/// Middleware: adds [`HEADERS`].
pub(super) async fn allow(request: Request, next: Next) -> Response {
    let preflight = request.method() == Method::OPTIONS;
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    for (name, value) in HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    if preflight {
        headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static(PREFLIGHT_AGE));
    }
    response
}
