//! WHIP and WHEP endpoints and their session URLs (RFC 9725; draft-ietf-wish-whep is the same with roles turned).

use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, FromRequest, Request, State};
use axum::http::header::{
    ALLOW, AUTHORIZATION, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, ETAG, HOST, HeaderMap, HeaderName, LOCATION,
};
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, delete, post};
use tokio::time::{Instant, timeout_at};

use crate::config::{Permission, TableName, is_authority};
use crate::fleet::{Created, SessionId};
use crate::shard::Role;

use super::path::Segments;
use super::problem::Problem;
use super::{App, Sessions, limit};

const SDP: &str = "application/sdp";
const ACCEPT_POST: HeaderName = HeaderName::from_static("accept-post");
const ENDPOINT_METHODS: &str = "OPTIONS, GET, HEAD, POST";
const SESSION_METHODS: &str = "OPTIONS, GET, HEAD, DELETE";

/// `/whip/{table}` or `/whep/{table}`.
pub(super) fn endpoint<S: Sessions>(role: Role) -> MethodRouter<App<S>> {
    let look =
        async |State(app): State<App<S>>, Segments(table): Segments<String>| app.table(&table).map(|_| nothing());
    post(async move |State(app): State<App<S>>, Segments(table): Segments<String>, request: Request| {
        create(&app, role, &table, request).await
    })
    .get(look)
    // RFC 9725 §4.2: an OPTIONS response SHOULD say what can be posted. It is a CORS preflight as well, so it needs
    // no table to exist: the browser would hide the 404 from the page otherwise.
    .options(async || (StatusCode::OK, [(ALLOW, ENDPOINT_METHODS), (ACCEPT_POST, SDP)]))
    .fallback(async || Problem::MethodNotAllowed { allow: ENDPOINT_METHODS })
    // `create` sets the limit that is configured, on the body it reads.
    .layer(DefaultBodyLimit::disable())
}

/// The session URL below an endpoint. Whoever knows it may end the session, so no key is asked for: some clients
/// send none with their DELETE.
///
/// PATCH (trickle ICE and ICE restart, both OPTIONAL) is 405, which clients take for "not supported".
pub(super) fn session<S: Sessions>(role: Role) -> MethodRouter<App<S>> {
    let look = async move |State(app): State<App<S>>, Segments((table, session)): Segments<(String, String)>| {
        let (table, session) = named(&app, &table, &session)?;
        app.sessions.etag(role, table.as_str(), session).map(|_| nothing()).ok_or(Problem::UnknownSession)
    };
    delete(async move |State(app): State<App<S>>, Segments((table, session)): Segments<(String, String)>| {
        let (table, session) = named(&app, &table, &session)?;
        end(&app, role, &table, session).await
    })
    .get(look)
    .options(async || (StatusCode::OK, [(ALLOW, SESSION_METHODS)]))
    .fallback(async || Problem::MethodNotAllowed { allow: SESSION_METHODS })
}

/// RFC 9725 §4.1: a GET MUST be answered with a 2xx and no content. WHEP's discovery wants the content type as well.
fn nothing() -> Response {
    (StatusCode::OK, [(CONTENT_TYPE, SDP), (CONTENT_LENGTH, "0"), (CACHE_CONTROL, "no-store")]).into_response()
}

#[expect(clippy::disallowed_methods, reason = "a client's request is timed by the wall")]
async fn create<S: Sessions>(app: &App<S>, role: Role, table: &str, request: Request) -> Result<Response, Problem> {
    let deadline = Instant::now() + app.config.http.request_timeout;
    let table = app.table(table)?;
    if role == Role::Publisher {
        authorise(app, &table, request.headers())?;
    }
    require_sdp(request.headers())?;
    let base = base_url(app, request.uri(), request.headers());
    let client = limit::client(request.extensions());

    let offer = read_offer(app, deadline, request).await?;
    let created = async {
        match role {
            Role::Publisher => app.sessions.publish(client, table.as_str(), offer).await,
            Role::Player => app.sessions.play(client, table.as_str(), offer).await,
        }
    };
    let created = timeout_at(deadline, created).await.map_err(|_| Problem::NodeTimeout)??;
    Ok(answer(&format!("{base}/{}/{table}/{}", segment(role), created.session), created))
}

async fn end<S: Sessions>(
    app: &App<S>,
    role: Role,
    table: &TableName,
    session: SessionId,
) -> Result<StatusCode, Problem> {
    let limit: Duration = app.config.http.request_timeout;
    let closed = tokio::time::timeout(limit, app.sessions.close(role, table.as_str(), session)).await;
    match closed {
        // OBS takes nothing but 200.
        Ok(true) => Ok(StatusCode::OK),
        Ok(false) => Err(Problem::UnknownSession),
        Err(_) => Err(Problem::NodeTimeout),
    }
}

fn named<S: Sessions>(app: &App<S>, table: &str, session: &str) -> Result<(TableName, SessionId), Problem> {
    Ok((app.table(table)?, session.parse().map_err(|()| Problem::UnknownSession)?))
}

fn authorise<S: Sessions>(app: &App<S>, table: &TableName, headers: &HeaderMap) -> Result<(), Problem> {
    match app.config.may_publish(table, bearer_token(headers)) {
        Permission::Granted => Ok(()),
        Permission::Missing => Err(Problem::KeyMissing),
        Permission::Unknown => Err(Problem::KeyUnknown),
        Permission::OtherTable => Err(Problem::KeyForOtherTable),
    }
}

/// RFC 6750 §2.1; the scheme is case-insensitive (RFC 9110 §11.1).
fn bearer_token(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim_matches(' '))
}

/// RFC 9725 §4.2: another content type MUST be refused. Parameters are no other type.
fn require_sdp(headers: &HeaderMap) -> Result<(), Problem> {
    let given = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
    let essence = given.split(';').next().unwrap_or("").trim();
    if essence.eq_ignore_ascii_case(SDP) { Ok(()) } else { Err(Problem::UnsupportedMediaType) }
}

async fn read_offer<S: Sessions>(app: &App<S>, deadline: Instant, mut request: Request) -> Result<Bytes, Problem> {
    let limit = app.config.http.max_sdp_bytes;
    DefaultBodyLimit::max(limit).apply(&mut request);
    let body = timeout_at(deadline, Bytes::from_request(request, &())).await.map_err(|_| Problem::RequestTimeout)?;
    body.map_err(|rejection| match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => Problem::TooLarge { limit },
        _ => Problem::MalformedSdp { detail: "The body ended early.".to_owned() },
    })
}

/// What the session URL starts with: absolute, since some clients take nothing else. Empty, for an absolute path, if
/// there is no public URL and the request names no usable host.
fn base_url<S: Sessions>(app: &App<S>, uri: &Uri, headers: &HeaderMap) -> String {
    if let Some(url) = &app.config.http.public_url {
        return url.to_string();
    }
    // RFC 9112 §3.2.2: the target's authority goes before the Host header; HTTP/2 has it in `:authority`.
    let named = uri.authority().map(|authority| authority.as_str());
    let host = named.or_else(|| headers.get(HOST).and_then(|host| host.to_str().ok()));
    let scheme = if app.config.http.tls.files().is_some() { "https" } else { "http" };
    host.filter(|host| is_authority(host)).map(|host| format!("{scheme}://{host}")).unwrap_or_default()
}

const fn segment(role: Role) -> &'static str {
    match role {
        Role::Publisher => "whip",
        Role::Player => "whep",
    }
}

/// RFC 9725 §4.2: 201, the answer, and in Location the session URL.
fn answer(location: &str, created: Created) -> Response {
    let headers =
        [(CONTENT_TYPE, SDP), (LOCATION, location), (ETAG, created.etag.as_str()), (CACHE_CONTROL, "no-store")];
    (StatusCode::CREATED, headers, created.answer.clone()).into_response()
}
