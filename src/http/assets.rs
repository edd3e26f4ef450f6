//! Pages, scripts and styles, embedded in the binary.

use std::fmt::Write;
use std::sync::LazyLock;

use aws_lc_rs::digest::{SHA256, digest};
use axum::Router;
use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, HeaderMap, IF_NONE_MATCH};
use axum::http::{HeaderName, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get};

use crate::config::TableName;

use super::path::Segments;
use super::problem::Problem;
use super::{App, Sessions};

/// One embedded file.
struct Asset {
    /// Its path, or for a page the name that [`routes`] uses.
    name: &'static str,
    content_type: &'static str,
    bytes: &'static [u8],
    /// Strong: the hash of the content.
    etag: String,
}

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const JAVASCRIPT: &str = "text/javascript; charset=utf-8";
const TEXT: &str = "text/plain; charset=utf-8";
const SVG: &str = "image/svg+xml";

/// Nothing from elsewhere, nothing inline, and no page of another origin around ours. Requests may go anywhere: a redirect
/// to a sibling (RFC 9725 §4.5) leads to an origin that cannot be known here.
const POLICY: &str = "default-src 'self'; connect-src *; base-uri 'none'; form-action 'self'; frame-ancestors 'self'; \
     object-src 'none'";

static ASSETS: LazyLock<[Asset; 14]> = LazyLock::new(|| {
    [
        asset("index.html", HTML, include_bytes!("assets/index.html")),
        asset("play.html", HTML, include_bytes!("assets/play.html")),
        asset("publish.html", HTML, include_bytes!("assets/publish.html")),
        asset("dashboard.html", HTML, include_bytes!("assets/dashboard.html")),
        asset("sdk/player.js", JAVASCRIPT, include_bytes!("assets/player.js")),
        asset("sdk/player.d.ts", TEXT, include_bytes!("assets/player.d.ts")),
        asset("assets/index.js", JAVASCRIPT, include_bytes!("assets/index.js")),
        asset("assets/play.js", JAVASCRIPT, include_bytes!("assets/play.js")),
        asset("assets/publish.js", JAVASCRIPT, include_bytes!("assets/publish.js")),
        asset("assets/dashboard.js", JAVASCRIPT, include_bytes!("assets/dashboard.js")),
        asset("assets/bets.js", JAVASCRIPT, include_bytes!("assets/bets.js")),
        asset("assets/shared.js", JAVASCRIPT, include_bytes!("assets/shared.js")),
        asset("assets/style.css", CSS, include_bytes!("assets/style.css")),
        asset("assets/favicon.svg", SVG, include_bytes!("assets/favicon.svg")),
    ]
});

fn asset(name: &'static str, content_type: &'static str, bytes: &'static [u8]) -> Asset {
    let mut etag = String::from("\"");
    for byte in &digest(&SHA256, bytes).as_ref()[..16] {
        let _ = write!(etag, "{byte:02x}");
    }
    etag.push('"');
    Asset { name, content_type, bytes, etag }
}

/// `/`, `/play/{table}`, `/publish/{table}`, `/dashboard`, `/sdk/player.js` with its types, and what the pages load from `/assets/`.
pub(super) fn routes<S: Sessions>() -> Router<App<S>> {
    Router::new()
        .route("/", page("index.html"))
        .route("/play/{table}", table_page("play.html"))
        .route("/publish/{table}", table_page("publish.html"))
        .route("/dashboard", page("dashboard.html"))
        .route("/sdk/player.js", page("sdk/player.js"))
        .route("/sdk/player.d.ts", page("sdk/player.d.ts"))
        .route("/assets/{file}", read_only(get(loaded)))
}

const METHODS: &str = "GET, HEAD";

fn read_only<S: Sessions>(methods: MethodRouter<App<S>>) -> MethodRouter<App<S>> {
    methods.fallback(async || Problem::MethodNotAllowed { allow: METHODS })
}

fn page<S: Sessions>(file: &'static str) -> MethodRouter<App<S>> {
    read_only(get(async move |headers: HeaderMap| serve(file, &headers)))
}

/// The page says itself if there is no such table; here the name has only to be one.
fn table_page<S: Sessions>(file: &'static str) -> MethodRouter<App<S>> {
    read_only(get(async move |Segments(table): Segments<String>, headers: HeaderMap| {
        match table.parse::<TableName>() {
            Ok(_) => serve(file, &headers),
            Err(_) => Problem::UnknownTable.into_response(),
        }
    }))
}

async fn loaded(Segments(file): Segments<String>, headers: HeaderMap) -> Response {
    serve(&format!("assets/{file}"), &headers)
}

fn serve(file: &str, headers: &HeaderMap) -> Response {
    let Some(asset) = ASSETS.iter().find(|asset| asset.name == file) else {
        return Problem::NotFound { path: format!("/{file}") }.into_response();
    };
    let common: [(HeaderName, &str); 4] = [
        (ETAG, asset.etag.as_str()),
        // Revalidated at each use: a new version of the gateway is a new version of its pages.
        (CACHE_CONTROL, "no-cache"),
        (CONTENT_SECURITY_POLICY, POLICY),
        (HeaderName::from_static("referrer-policy"), "no-referrer"),
    ];
    if is_current(headers, &asset.etag) {
        return (StatusCode::NOT_MODIFIED, common).into_response();
    }
    (common, [(CONTENT_TYPE, asset.content_type)], asset.bytes).into_response()
}

/// RFC 9110 §13.1.2: If-None-Match compares weakly, so that a proxy's `W/` does no harm.
fn is_current(headers: &HeaderMap, etag: &str) -> bool {
    let lists = headers.get_all(IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    let mut tags = lists.flat_map(|list| list.split(',')).map(str::trim);
    tags.any(|tag| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == etag)
}
