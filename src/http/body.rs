//! Request bodies: their type, and no more of them than was said.

use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, FromRequest, Request};
use axum::http::StatusCode;
use axum::http::header::{CONTENT_TYPE, HeaderMap};
use tokio::time::{Instant, timeout_at};

/// Why a body could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BodyError {
    /// It is longer than allowed.
    TooLarge,
    /// It did not arrive in time.
    Late,
    /// It ended early.
    Broken,
}

/// Whether the body is declared to be of the media type `expected`; parameters make no other type of it.
pub(super) fn has_type(headers: &HeaderMap, expected: &str) -> bool {
    let given = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
    given.split(';').next().unwrap_or("").trim().eq_ignore_ascii_case(expected)
}

/// Reads a body of at most `limit` bytes. The route has to have axum's own limit disabled.
///
/// # Errors
/// See [`BodyError`].
pub(super) async fn read(mut request: Request, limit: usize, deadline: Instant) -> Result<Bytes, BodyError> {
    DefaultBodyLimit::max(limit).apply(&mut request);
    let body = timeout_at(deadline, Bytes::from_request(request, &())).await.map_err(|_| BodyError::Late)?;
    body.map_err(|rejection| match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => BodyError::TooLarge,
        _ => BodyError::Broken,
    })
}
