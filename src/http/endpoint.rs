//! WHIP and WHEP endpoints and their session URLs (RFC 9725; draft-ietf-wish-whep is the same with roles turned).

use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::header::{
    ALLOW, AUTHORIZATION, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, ETAG, HOST, HeaderMap, HeaderName, LOCATION,
};
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, delete, post};
use tokio::time::{Instant, timeout_at};

use crate::bets::PlayerId;
use crate::config::{InvalidMaxLayer, MaxLayer, TableName, is_authority};
use crate::fleet::{Created, SessionId};
use crate::identity::{self, Subject};
use crate::shard::Role;

use super::body::{self, BodyError};
use super::link;
use super::patch::{ACCEPT_PATCH, FRAGMENT, patch};
use super::path::Segments;
use super::problem::Problem;
use super::{App, Sessions, limit};

const SDP: &str = "application/sdp";
const ACCEPT_POST: HeaderName = HeaderName::from_static("accept-post");
const ENDPOINT_METHODS: &str = "OPTIONS, GET, HEAD, POST";
const SESSION_METHODS: &str = "OPTIONS, GET, HEAD, PATCH, DELETE";

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

/// The session URL below an endpoint. Whoever knows it may change and end the session, so no token is asked for: some
/// clients send none with their DELETE.
///
/// RFC 9725 §4.3.1: "WHIP sessions MUST ignore any entity-tag value" with DELETE.
pub(super) fn session<S: Sessions>(role: Role) -> MethodRouter<App<S>> {
    let look = async move |State(app): State<App<S>>, Segments((table, session)): Segments<(String, String)>| {
        let (table, session) = named(&app, &table, &session)?;
        app.sessions.etag(role, table.as_str(), session).map(|_| nothing()).ok_or(Problem::UnknownSession)
    };
    delete(async move |State(app): State<App<S>>, Segments((table, session)): Segments<(String, String)>| {
        let (table, session) = named(&app, &table, &session)?;
        end(&app, role, &table, session).await
    })
    .patch(async move |State(app): State<App<S>>, Segments((table, session)): Segments<(String, String)>, request| {
        let (table, session) = named(&app, &table, &session)?;
        patch(&app, role, &table, session, request).await
    })
    .get(look)
    .options(async || (StatusCode::OK, [(ALLOW, SESSION_METHODS), (ACCEPT_PATCH, FRAGMENT)]))
    .fallback(async || Problem::MethodNotAllowed { allow: SESSION_METHODS })
    .layer(DefaultBodyLimit::disable())
}

/// RFC 9725 §4.1: a GET MUST be answered with a 2xx and no content. WHEP's discovery wants the content type as well.
fn nothing() -> Response {
    (StatusCode::OK, [(CONTENT_TYPE, SDP), (CONTENT_LENGTH, "0"), (CACHE_CONTROL, "no-store")]).into_response()
}

#[expect(clippy::disallowed_methods, reason = "a client's request is timed by the wall")]
async fn create<S: Sessions>(app: &App<S>, role: Role, table: &str, request: Request) -> Result<Response, Problem> {
    let deadline = Instant::now() + app.config.http.request_timeout;
    let table = app.table(table)?;
    let admitted = timeout_at(deadline, admit(app, role, &table, request.uri(), request.headers()));
    let subject = admitted.await.map_err(|_| Problem::NodeTimeout)??;
    // RFC 9725 §4.2: another content type MUST be refused.
    if !body::has_type(request.headers(), SDP) {
        return Err(Problem::UnsupportedMediaType);
    }
    let player = match (role, &subject) {
        (Role::Publisher, _) => None,
        (Role::Player, Some(subject)) => Some(PlayerId::new(subject.as_str()).map_err(|_| Problem::InvalidPlayer)?),
        (Role::Player, None) => named_player(app, request.uri())?,
    };
    let max_layer = if role == Role::Player { asked_max_layer(request.uri())? } else { None };
    let base = base_url(app, request.uri(), request.headers());
    let client = limit::client(request.extensions());

    let offer = read_offer(app, deadline, request).await?;
    let created = async {
        match role {
            Role::Publisher => app.sessions.publish(client, table.as_str(), subject, offer).await,
            Role::Player => app.sessions.play(client, table.as_str(), player, max_layer, offer).await,
        }
    };
    let created = timeout_at(deadline, created).await.map_err(|_| Problem::NodeTimeout)??;
    let mut response = answer(&format!("{base}/{}/{table}/{}", segment(role), created.session), created);
    link::add(response.headers_mut(), &app.config.http.ice_servers);
    Ok(response)
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

/// Who plays. In the demo the page says so, with `?player=` and an id that it keeps: nobody is harmed by who claims to be another.
/// The characters are those that no URL encodes.
fn named_player<S: Sessions>(app: &App<S>, uri: &Uri) -> Result<Option<PlayerId>, Problem> {
    let Some(name) = parameter(uri, "player").filter(|_| app.config.demo) else { return Ok(None) };
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    let player = PlayerId::new(name).ok().filter(|_| name.bytes().all(is_plain));
    player.map(Some).ok_or(Problem::InvalidPlayer)
}

/// The highest layer that the player wants to be given, with `?maxLayer=`.
fn asked_max_layer(uri: &Uri) -> Result<Option<MaxLayer>, Problem> {
    let asked = parameter(uri, "maxLayer").map(str::parse).transpose();
    asked.map_err(|_: InvalidMaxLayer| Problem::InvalidMaxLayer)
}

/// The first parameter of this name in the query, as it came.
fn parameter<'a>(uri: &'a Uri, name: &str) -> Option<&'a str> {
    let mut parameters = uri.query().unwrap_or_default().split('&').filter_map(|one| one.split_once('='));
    parameters.find(|(given, _)| *given == name).map(|(_, value)| value)
}

/// Who asks, if the configuration wants to know.
async fn admit<S: Sessions>(
    app: &App<S>,
    role: Role,
    table: &TableName,
    uri: &Uri,
    headers: &HeaderMap,
) -> Result<Option<Subject>, Problem> {
    let role = match role {
        Role::Publisher => identity::Role::Publisher,
        Role::Player => identity::Role::Player,
    };
    // RFC 6750 §2.3. Browsers drop Authorization where a redirect leads to another origin, others send it on: so a token in
    // the URL, which whoever redirected has put there, goes before one in the header.
    let token = parameter(uri, "access_token").or_else(|| bearer_token(headers));
    Ok(app.gatekeeper.admit(token, role, table.as_str()).await?)
}

/// RFC 6750 §2.1; the scheme is case-insensitive (RFC 9110 §11.1). One client of the field leaves it out: a token alone is
/// taken for a bearer token.
fn bearer_token(headers: &HeaderMap) -> Option<&str> {
    let is_bearer = |scheme: &str| scheme.eq_ignore_ascii_case("bearer");
    let credentials = headers.get(AUTHORIZATION)?.to_str().ok()?.trim_matches(' ');
    match credentials.split_once(' ') {
        Some((scheme, token)) => is_bearer(scheme).then(|| token.trim_matches(' ')),
        None => Some(credentials).filter(|token| !token.is_empty() && !is_bearer(token)),
    }
}

async fn read_offer<S: Sessions>(app: &App<S>, deadline: Instant, request: Request) -> Result<Bytes, Problem> {
    let limit = app.config.http.max_sdp_bytes;
    body::read(request, limit, deadline).await.map_err(|error| match error {
        BodyError::TooLarge => Problem::TooLarge { limit },
        BodyError::Late => Problem::RequestTimeout,
        BodyError::Broken => Problem::MalformedSdp { detail: "The body ended early.".to_owned() },
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
    let headers = [
        (CONTENT_TYPE, SDP),
        (LOCATION, location),
        (ETAG, created.etag.as_str()),
        (ACCEPT_PATCH, FRAGMENT),
        (CACHE_CONTROL, "no-store"),
    ];
    (StatusCode::CREATED, headers, created.answer.clone()).into_response()
}
