//! PATCH on a session URL: trickle ICE and ICE restart (RFC 9725 §4.3, draft-ietf-wish-whep-03 §4.3).

use axum::extract::Request;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, HeaderMap, IF_MATCH};
use axum::http::{HeaderName, StatusCode};
use axum::response::{IntoResponse, Response};
use tokio::time::{Instant, timeout_at};

use crate::config::TableName;
use crate::fleet::{IfMatch, PatchRefusal, Patched, SessionId};
use crate::shard::Role;

use super::body::{BodyError, has_type, read};
use super::problem::Problem;
use super::{App, Sessions};

/// What a PATCH carries (RFC 8840 §9).
pub(super) const FRAGMENT: &str = "application/trickle-ice-sdpfrag";
/// RFC 5789 §3.1.
pub(super) const ACCEPT_PATCH: HeaderName = HeaderName::from_static("accept-patch");

/// The longest fragment: more than a hundred candidates.
const MAX_FRAGMENT_BYTES: usize = 16 * 1024;

/// # Errors
/// 404, 408, 412, 413, 415, 428, 429, 503, and 400 for a fragment that cannot be read. Whatever it is, the session goes on.
#[expect(clippy::disallowed_methods, reason = "a client's request is timed by the wall")]
pub(super) async fn patch<S: Sessions>(
    app: &App<S>,
    role: Role,
    table: &TableName,
    session: SessionId,
    request: Request,
) -> Result<Response, Problem> {
    let deadline = Instant::now() + app.config.http.request_timeout;
    let table = table.as_str();
    app.sessions.etag(role, table, session).ok_or(Problem::UnknownSession)?;
    // RFC 9725 §4.3.1: another content type MUST be rejected.
    if !has_type(request.headers(), FRAGMENT) {
        return Err(Problem::UnsupportedPatchType { accepted: FRAGMENT });
    }
    let condition = if_match(request.headers()).ok_or(Problem::PreconditionRequired)?;
    app.sessions.admit_patch(role, table, session, &condition)?;

    let fragment = read(request, MAX_FRAGMENT_BYTES, deadline).await.map_err(|error| match error {
        BodyError::TooLarge => Problem::FragmentTooLarge { limit: MAX_FRAGMENT_BYTES },
        BodyError::Late => Problem::RequestTimeout,
        BodyError::Broken => Problem::MalformedFragment { detail: "The body ended early.".to_owned() },
    })?;
    let patched = app.sessions.patch(role, table, session, &condition, &fragment);
    Ok(answer(timeout_at(deadline, patched).await.map_err(|_| Problem::NodeTimeout)??))
}

/// RFC 9725 §4.3.2: 204 "without a body and MUST NOT include an ETag" where no restart was asked for. §4.3.3: 200 with our
/// part and the new entity-tag where one was.
fn answer(patched: Patched) -> Response {
    match patched {
        Patched::Trickled => StatusCode::NO_CONTENT.into_response(),
        Patched::Restarted { fragment, etag } => {
            let headers = [(CONTENT_TYPE, FRAGMENT), (ETAG, etag.as_str()), (CACHE_CONTROL, "no-store")];
            (StatusCode::OK, headers, fragment).into_response()
        }
    }
}

/// The precondition of a request, `None` if it has none.
///
/// RFC 9725 §4.3.3 wants the field value `*` with a restart and prints it in quotes in its example: both are taken.
/// Eyevinn's WHIP client sends its tag in an `ETag` header instead, which counts where there is no If-Match.
fn if_match(headers: &HeaderMap) -> Option<IfMatch> {
    let name = if headers.contains_key(IF_MATCH) { IF_MATCH } else { ETAG };
    let values: Vec<&str> = headers.get_all(name).iter().filter_map(|value| value.to_str().ok()).collect();
    if values.is_empty() {
        return None;
    }
    // Our tags have no commas: a foreign one that has is equal to none of them, in pieces or whole.
    let tags: Vec<&str> = values.iter().flat_map(|value| value.split(',')).map(str::trim).collect();
    if tags.iter().any(|tag| matches!(*tag, "*" | "\"*\"")) {
        return Some(IfMatch::Any);
    }
    Some(IfMatch::Tags(tags.into_iter().map(str::to_owned).collect()))
}

impl From<PatchRefusal> for Problem {
    fn from(refusal: PatchRefusal) -> Self {
        match refusal {
            PatchRefusal::UnknownSession => Problem::UnknownSession,
            PatchRefusal::OtherIceSession => Problem::OtherIceSession,
            PatchRefusal::TooMany { retry_after } => Problem::TooManyPatches { retry_after },
            PatchRefusal::Malformed(detail) => Problem::MalformedFragment { detail },
            PatchRefusal::Busy => Problem::NodeTimeout,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_from(fields: &[(HeaderName, &str)]) -> Option<IfMatch> {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(name, value.parse().unwrap());
        }
        if_match(&headers)
    }

    #[test]
    fn preconditions() {
        let tags = |tags: &[&str]| Some(IfMatch::Tags(tags.iter().map(|t| (*t).to_owned()).collect()));
        for (fields, expected) in [
            (&[][..], None),
            (&[(IF_MATCH, "*")], Some(IfMatch::Any)),
            (&[(IF_MATCH, "\"*\"")], Some(IfMatch::Any)),
            (&[(IF_MATCH, "\"xyzzy\"")], tags(&["\"xyzzy\""])),
            (&[(IF_MATCH, "\"a\" ,W/\"b\""), (IF_MATCH, "\"c\"")], tags(&["\"a\"", "W/\"b\"", "\"c\""])),
            (&[(IF_MATCH, "")], tags(&[""])),
            (&[(ETAG, "\"xyzzy\"")], tags(&["\"xyzzy\""])),
            (&[(ETAG, "\"a\""), (IF_MATCH, "\"b\"")], tags(&["\"b\""])),
        ] {
            assert_eq!(read_from(fields), expected, "{fields:?}");
        }
    }
}
