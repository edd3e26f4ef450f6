//! Errors as RFC 9457 problem documents.

use std::time::Duration;

use axum::http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};

use crate::config::MaxLayer;
use crate::fleet::Refusal;
use crate::gatekeeper::NotAdmitted;
use crate::identity::{Denied, TokenError};

use super::patch::ACCEPT_PATCH;

/// Every error that HTTP clients see. Its `type` is `urn:tableside:problem:` and [`Problem::slug`]; both are stable.
#[derive(Clone, Debug, PartialEq)]
pub enum Problem {
    /// 400: the body is not SDP.
    MalformedSdp {
        /// What is wrong with it.
        detail: String,
    },
    /// 400: the body of a PATCH is no fragment of SDP.
    MalformedFragment {
        /// What is wrong with it.
        detail: String,
    },
    /// 400: the player's id cannot be one.
    InvalidPlayer,
    /// 400: the highest layer that the player asks for is no place of a layer.
    InvalidMaxLayer,
    /// 401: no token came along.
    TokenMissing,
    /// 401: the token is none, or not to be believed.
    TokenInvalid {
        /// Why not.
        detail: String,
    },
    /// 401: the token was signed with a key that is not one of the issuer's.
    TokenKeyUnknown,
    /// 401: the token has expired.
    TokenExpired,
    /// 401: the token is for later.
    TokenNotYetValid,
    /// 403: the token is for players and was used to publish, or the other way round.
    TokenForOtherRole,
    /// 403: the token is for other tables.
    TokenForOtherTable,
    /// 403: the token is from a jurisdiction that is not served here.
    TokenForOtherJurisdiction,
    /// 404: no table of this name.
    UnknownTable,
    /// 404: no session of this name, or no longer.
    UnknownSession,
    /// 404: nothing at this path.
    NotFound {
        /// The path.
        path: String,
    },
    /// 405 with Allow.
    MethodNotAllowed {
        /// The methods that are.
        allow: &'static str,
    },
    /// 408: the request's body did not arrive in time.
    RequestTimeout,
    /// 409 with Retry-After: nobody publishes the table now.
    TableNotLive {
        /// When to ask again.
        retry_after: Duration,
    },
    /// 409: somebody else publishes the table.
    AlreadyPublished,
    /// 412: a PATCH for another ICE session than the current one.
    OtherIceSession,
    /// 413: the offer is too long.
    TooLarge {
        /// The longest that is taken, in bytes.
        limit: usize,
    },
    /// 413: the fragment of a PATCH is too long.
    FragmentTooLarge {
        /// The longest that is taken, in bytes.
        limit: usize,
    },
    /// 415: the body is not `application/sdp`.
    UnsupportedMediaType,
    /// 415 with Accept-Patch: the body of a PATCH is of another type.
    UnsupportedPatchType {
        /// The type that is taken.
        accepted: &'static str,
    },
    /// 422: no codec of the table is in the offer.
    NoCommonCodec {
        /// Which there are.
        detail: String,
    },
    /// 422: valid SDP that we do not support. Never 406, which in WHEP means a counter-offer.
    UnsupportedOffer {
        /// Which part.
        detail: String,
    },
    /// 428: a PATCH that does not say which ICE session it is for.
    PreconditionRequired,
    /// 429 with Retry-After: more PATCHes than a session has any use for.
    TooManyPatches {
        /// When to ask again.
        retry_after: Duration,
    },
    /// 429 with Retry-After: too many requests from this address.
    TooManyRequests {
        /// When to ask again.
        retry_after: Duration,
    },
    /// 431: the request's head is too large.
    HeadersTooLarge {
        /// The largest that is taken, in bytes.
        limit: usize,
    },
    /// 503 with Retry-After: more offers came than can be judged.
    TooManyOffers {
        /// When to ask again.
        retry_after: Duration,
    },
    /// 503 with Retry-After: too many sessions were answered and have not connected.
    TooManyHalfOpen {
        /// When to ask again.
        retry_after: Duration,
    },
    /// 503 with Retry-After: no room for another session.
    NodeFull {
        /// When to ask again.
        retry_after: Duration,
    },
    /// 503 with Retry-After: the node admits nobody any more.
    ShuttingDown,
    /// 503 with Retry-After: the node did not answer in time.
    NodeTimeout,
    /// 503 with Retry-After: the node could not fetch the issuer's keys yet, or those that the token's may be among.
    KeysUnavailable {
        /// When it is worth asking again.
        retry_after: Duration,
    },
}

/// For a node on its way out or too slow: by then a load balancer knows of it.
const RETRY_ELSEWHERE: Duration = Duration::from_secs(2);

impl Problem {
    /// The status code.
    pub const fn status(&self) -> StatusCode {
        match self {
            Problem::MalformedSdp { .. }
            | Problem::MalformedFragment { .. }
            | Problem::InvalidPlayer
            | Problem::InvalidMaxLayer => StatusCode::BAD_REQUEST,
            Problem::TokenMissing
            | Problem::TokenInvalid { .. }
            | Problem::TokenKeyUnknown
            | Problem::TokenExpired
            | Problem::TokenNotYetValid => StatusCode::UNAUTHORIZED,
            Problem::TokenForOtherRole | Problem::TokenForOtherTable | Problem::TokenForOtherJurisdiction => {
                StatusCode::FORBIDDEN
            }
            Problem::UnknownTable | Problem::UnknownSession | Problem::NotFound { .. } => StatusCode::NOT_FOUND,
            Problem::MethodNotAllowed { .. } => StatusCode::METHOD_NOT_ALLOWED,
            Problem::RequestTimeout => StatusCode::REQUEST_TIMEOUT,
            Problem::TableNotLive { .. } | Problem::AlreadyPublished => StatusCode::CONFLICT,
            Problem::OtherIceSession => StatusCode::PRECONDITION_FAILED,
            Problem::TooLarge { .. } | Problem::FragmentTooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Problem::UnsupportedMediaType | Problem::UnsupportedPatchType { .. } => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Problem::NoCommonCodec { .. } | Problem::UnsupportedOffer { .. } => StatusCode::UNPROCESSABLE_ENTITY,
            Problem::PreconditionRequired => StatusCode::PRECONDITION_REQUIRED,
            Problem::TooManyPatches { .. } | Problem::TooManyRequests { .. } => StatusCode::TOO_MANY_REQUESTS,
            Problem::HeadersTooLarge { .. } => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Problem::TooManyOffers { .. }
            | Problem::TooManyHalfOpen { .. }
            | Problem::NodeFull { .. }
            | Problem::ShuttingDown
            | Problem::NodeTimeout
            | Problem::KeysUnavailable { .. } => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// The end of the `type` URI.
    pub const fn slug(&self) -> &'static str {
        match self {
            Problem::MalformedSdp { .. } => "malformed-sdp",
            Problem::MalformedFragment { .. } => "malformed-fragment",
            Problem::InvalidPlayer => "invalid-player",
            Problem::InvalidMaxLayer => "invalid-max-layer",
            Problem::TokenMissing => "token-missing",
            Problem::TokenInvalid { .. } => "token-invalid",
            Problem::TokenKeyUnknown => "token-key-unknown",
            Problem::TokenExpired => "token-expired",
            Problem::TokenNotYetValid => "token-not-yet-valid",
            Problem::TokenForOtherRole => "token-for-other-role",
            Problem::TokenForOtherTable => "token-for-other-table",
            Problem::TokenForOtherJurisdiction => "token-for-other-jurisdiction",
            Problem::UnknownTable => "unknown-table",
            Problem::UnknownSession => "unknown-session",
            Problem::NotFound { .. } => "not-found",
            Problem::MethodNotAllowed { .. } => "method-not-allowed",
            Problem::RequestTimeout => "request-timeout",
            Problem::TableNotLive { .. } => "table-not-live",
            Problem::AlreadyPublished => "already-published",
            Problem::OtherIceSession => "other-ice-session",
            Problem::TooLarge { .. } => "offer-too-large",
            Problem::FragmentTooLarge { .. } => "fragment-too-large",
            Problem::UnsupportedMediaType => "unsupported-media-type",
            Problem::UnsupportedPatchType { .. } => "unsupported-patch-type",
            Problem::NoCommonCodec { .. } => "no-common-codec",
            Problem::UnsupportedOffer { .. } => "unsupported-offer",
            Problem::PreconditionRequired => "precondition-required",
            Problem::TooManyPatches { .. } => "too-many-patches",
            Problem::TooManyRequests { .. } => "too-many-requests",
            Problem::HeadersTooLarge { .. } => "headers-too-large",
            Problem::TooManyOffers { .. } => "too-many-offers",
            Problem::TooManyHalfOpen { .. } => "too-many-half-open",
            Problem::NodeFull { .. } => "node-full",
            Problem::ShuttingDown => "shutting-down",
            Problem::NodeTimeout => "node-timeout",
            Problem::KeysUnavailable { .. } => "keys-unavailable",
        }
    }

    const fn title(&self) -> &'static str {
        match self {
            Problem::MalformedSdp { .. } => "The offer is not valid SDP",
            Problem::MalformedFragment { .. } => "The body is not a fragment of SDP",
            Problem::InvalidPlayer => "The player's id cannot be one",
            Problem::InvalidMaxLayer => "The highest layer cannot be one",
            Problem::TokenMissing => "A token is needed",
            Problem::TokenInvalid { .. } => "The token is not valid",
            Problem::TokenKeyUnknown => "The token's key is not known",
            Problem::TokenExpired => "The token has expired",
            Problem::TokenNotYetValid => "The token is not valid yet",
            Problem::TokenForOtherRole => "The token is for another role",
            Problem::TokenForOtherTable => "The token is for another table",
            Problem::TokenForOtherJurisdiction => "The token is for another jurisdiction",
            Problem::UnknownTable => "There is no table of this name",
            Problem::UnknownSession => "There is no such session",
            Problem::NotFound { .. } => "There is nothing here",
            Problem::MethodNotAllowed { .. } => "This method is not allowed here",
            Problem::RequestTimeout => "The request took too long",
            Problem::TableNotLive { .. } => "The table is not live",
            Problem::AlreadyPublished => "The table is already published",
            Problem::OtherIceSession => "The ICE session is another one by now",
            Problem::TooLarge { .. } => "The offer is too large",
            Problem::FragmentTooLarge { .. } => "The fragment is too large",
            Problem::UnsupportedMediaType => "The offer is not application/sdp",
            Problem::UnsupportedPatchType { .. } => "The body is not of a type that a session can be patched with",
            Problem::NoCommonCodec { .. } => "There is no codec in common",
            Problem::UnsupportedOffer { .. } => "The offer cannot be accepted",
            Problem::PreconditionRequired => "The ICE session must be named",
            Problem::TooManyPatches { .. } => "Too many requests for this session",
            Problem::TooManyRequests { .. } => "There are too many requests from this address",
            Problem::HeadersTooLarge { .. } => "The request's head is too large",
            Problem::TooManyOffers { .. } => "Too many offers came at once",
            Problem::TooManyHalfOpen { .. } => "Too many sessions have not connected yet",
            Problem::NodeFull { .. } => "The node is full",
            Problem::ShuttingDown => "The node is shutting down",
            Problem::NodeTimeout => "The node did not answer in time",
            Problem::KeysUnavailable { .. } => "The node cannot verify tokens yet",
        }
    }

    fn detail(&self) -> String {
        match self {
            Problem::MalformedSdp { detail }
            | Problem::TokenInvalid { detail }
            | Problem::MalformedFragment { detail }
            | Problem::NoCommonCodec { detail }
            | Problem::UnsupportedOffer { detail } => detail.clone(),
            Problem::InvalidPlayer => "It has 1 to 128 letters, digits, `-`, `.` or `_`.".to_owned(),
            Problem::InvalidMaxLayer => {
                format!("`maxLayer` is a whole number from 0, the least layer, to {}.", MaxLayer::HIGHEST)
            }
            Problem::TokenMissing => "Send a JSON Web Token as `Authorization: Bearer TOKEN`.".to_owned(),
            Problem::TokenKeyUnknown => "No key of the issuer fits its `kid` and `alg`.".to_owned(),
            Problem::TokenExpired => "Its `exp` has passed; ask the issuer for a new one.".to_owned(),
            Problem::TokenNotYetValid => {
                "Its `nbf` or `iat` is in the future; the issuer's clock may be wrong.".to_owned()
            }
            Problem::TokenForOtherRole => {
                "Its `role` does not allow this: a publisher publishes, a player watches.".to_owned()
            }
            Problem::TokenForOtherTable => "Its `tables` do not include this one.".to_owned(),
            Problem::TokenForOtherJurisdiction => {
                "Its `jurisdiction` is missing, or not served by this node.".to_owned()
            }
            Problem::UnknownTable => {
                "Tables are named in the configuration, by 1 to 64 letters, digits, `-` or `_`.".to_owned()
            }
            Problem::UnknownSession => "It ended, or it never was; a new one starts with a POST.".to_owned(),
            Problem::NotFound { path } => format!("Nothing is served at {path}."),
            Problem::MethodNotAllowed { allow } => format!("Allowed are {allow}."),
            Problem::RequestTimeout => "The whole request must arrive within the configured time.".to_owned(),
            Problem::TableNotLive { .. } => "Nobody publishes it now; ask again later.".to_owned(),
            Problem::AlreadyPublished => {
                "Its publisher must leave first; only the same subject takes over from it.".to_owned()
            }
            Problem::OtherIceSession => {
                "If-Match is not the entity-tag of the current ICE session; a restart may say `If-Match: *`.".to_owned()
            }
            Problem::TooLarge { limit } | Problem::FragmentTooLarge { limit } => {
                format!("At most {limit} bytes are taken.")
            }
            Problem::UnsupportedPatchType { accepted } => format!("The body must be Content-Type: {accepted}."),
            Problem::PreconditionRequired => {
                "Send the ETag of the 201 or of the last restart as If-Match, or `If-Match: *` to restart ICE."
                    .to_owned()
            }
            Problem::TooManyPatches { .. } => "The session goes on; gather candidates into one request.".to_owned(),
            Problem::UnsupportedMediaType => "The body must be an SDP offer, Content-Type: application/sdp.".to_owned(),
            Problem::TooManyRequests { .. } => "Ask again later, and less often.".to_owned(),
            Problem::HeadersTooLarge { limit } => format!("At most {limit} bytes are taken."),
            Problem::TooManyOffers { .. } => "Ask again in a moment.".to_owned(),
            Problem::TooManyHalfOpen { .. } => {
                "They hold a place until they connect or their time is up; ask again in a moment.".to_owned()
            }
            Problem::NodeFull { .. } => "Those who watch keep watching; ask again later.".to_owned(),
            Problem::ShuttingDown => "It admits nobody any more; ask again to reach another node.".to_owned(),
            Problem::NodeTimeout => "Ask again.".to_owned(),
            Problem::KeysUnavailable { .. } => {
                "The issuer's newest keys could not be fetched so far; ask again.".to_owned()
            }
        }
    }

    fn headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        match self {
            // RFC 6750 §3.1: a request without any authentication SHOULD NOT get an error code.
            Problem::TokenMissing => challenge(&mut headers, "Bearer realm=\"tableside\""),
            // "The access token provided is expired, revoked, malformed, or invalid for other reasons."
            Problem::TokenInvalid { .. }
            | Problem::TokenKeyUnknown
            | Problem::TokenExpired
            | Problem::TokenNotYetValid => {
                challenge(&mut headers, "Bearer realm=\"tableside\", error=\"invalid_token\"");
            }
            Problem::TokenForOtherRole | Problem::TokenForOtherTable | Problem::TokenForOtherJurisdiction => {
                challenge(&mut headers, "Bearer realm=\"tableside\", error=\"insufficient_scope\"");
            }
            // RFC 9110 §15.5.6: the server MUST generate an Allow header field in a 405 response.
            Problem::MethodNotAllowed { allow } => {
                headers.insert(ALLOW, HeaderValue::from_static(allow));
            }
            // RFC 5789 §2.2: such a response SHOULD say which types would do.
            Problem::UnsupportedPatchType { accepted } => {
                headers.insert(ACCEPT_PATCH, HeaderValue::from_static(accepted));
            }
            Problem::TableNotLive { retry_after }
            | Problem::TooManyPatches { retry_after }
            | Problem::TooManyRequests { retry_after }
            | Problem::TooManyOffers { retry_after }
            | Problem::TooManyHalfOpen { retry_after }
            | Problem::NodeFull { retry_after }
            | Problem::KeysUnavailable { retry_after } => {
                headers.insert(RETRY_AFTER, seconds(*retry_after));
            }
            Problem::ShuttingDown | Problem::NodeTimeout => {
                headers.insert(RETRY_AFTER, seconds(RETRY_ELSEWHERE));
            }
            _ => {}
        }
        headers
    }
}

fn challenge(headers: &mut HeaderMap, value: &'static str) {
    headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static(value));
}

/// Whole seconds, rounded up: a client that comes back too early is refused once more.
fn seconds(duration: Duration) -> HeaderValue {
    let seconds = duration.as_secs() + u64::from(duration.subsec_nanos() > 0);
    HeaderValue::from(seconds.max(1))
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::UnknownTable => Problem::UnknownTable,
            Refusal::NotLive { retry_after } => Problem::TableNotLive { retry_after },
            Refusal::AlreadyPublished => Problem::AlreadyPublished,
            Refusal::Malformed(detail) => Problem::MalformedSdp { detail },
            Refusal::Unsupported(detail) => Problem::UnsupportedOffer { detail },
            Refusal::NoCommonCodec(detail) => Problem::NoCommonCodec { detail },
            Refusal::Full { retry_after } => Problem::NodeFull { retry_after },
            Refusal::Busy { retry_after } => Problem::TooManyOffers { retry_after },
            Refusal::HalfOpen { retry_after } => Problem::TooManyHalfOpen { retry_after },
            Refusal::ShuttingDown => Problem::ShuttingDown,
        }
    }
}

impl From<NotAdmitted> for Problem {
    fn from(reason: NotAdmitted) -> Self {
        match reason {
            NotAdmitted::NoToken => Problem::TokenMissing,
            NotAdmitted::NoKeys { retry_after } => Problem::KeysUnavailable { retry_after },
            NotAdmitted::Token(TokenError::UnknownKey) => Problem::TokenKeyUnknown,
            NotAdmitted::Token(TokenError::Expired) => Problem::TokenExpired,
            NotAdmitted::Token(TokenError::NotYetValid) => Problem::TokenNotYetValid,
            NotAdmitted::Token(error) => Problem::TokenInvalid { detail: format!("It is refused: {error}.") },
            NotAdmitted::Denied(Denied::Role) => Problem::TokenForOtherRole,
            NotAdmitted::Denied(Denied::Table) => Problem::TokenForOtherTable,
            NotAdmitted::Denied(Denied::Jurisdiction) => Problem::TokenForOtherJurisdiction,
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let document = serde_json::json!({
            "type": format!("urn:tableside:problem:{}", self.slug()),
            "title": self.title(),
            "status": self.status().as_u16(),
            "detail": self.detail(),
        });
        (self.status(), self.headers(), document.to_string()).into_response()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_rounded_up_and_never_zero() {
        for (millis, expected) in [(0, "1"), (1, "1"), (1000, "1"), (1001, "2"), (5000, "5")] {
            assert_eq!(seconds(Duration::from_millis(millis)), expected);
        }
    }
}
