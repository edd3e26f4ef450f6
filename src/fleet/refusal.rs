//! Why an offer or a PATCH is not accepted.

use std::time::Duration;

use crate::rtc::sdp::{FragmentError, OfferError};

/// Why an offer was not accepted. `http` turns it into a problem document.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Refusal {
    /// 404: no such table in the configuration.
    #[error("there is no table of this name")]
    UnknownTable,
    /// 409 with Retry-After: nobody publishes the table now.
    #[error("the table is not live")]
    NotLive {
        /// When to ask again.
        retry_after: Duration,
    },
    /// 409: somebody else publishes the table.
    #[error("the table is already published")]
    AlreadyPublished,
    /// 400: the body is not SDP.
    #[error("the offer is not valid SDP: {0}")]
    Malformed(String),
    /// 422: valid SDP that we do not support; says which part.
    #[error("the offer cannot be accepted: {0}")]
    Unsupported(String),
    /// 422: no codec of the table is in the offer.
    #[error("no codec in common: {0}")]
    NoCommonCodec(String),
    /// 503 with Retry-After.
    #[error("the node is full")]
    Full {
        /// When to ask again.
        retry_after: Duration,
    },
    /// 503 with Retry-After: more offers came than can be judged.
    #[error("too many offers at once")]
    Busy {
        /// When to ask again.
        retry_after: Duration,
    },
    /// 503 with Retry-After: too many sessions were answered and have not connected.
    #[error("too many sessions have not connected yet")]
    HalfOpen {
        /// When to ask again.
        retry_after: Duration,
    },
    /// 503 with Retry-After: the node is on its way out.
    #[error("the node is shutting down")]
    ShuttingDown,
}

impl From<OfferError> for Refusal {
    fn from(error: OfferError) -> Self {
        match error {
            OfferError::Malformed(what) => Self::Malformed(what),
            OfferError::Unsupported(what) => Self::Unsupported(what),
            OfferError::NoCommonCodec(what) => Self::NoCommonCodec(what),
        }
    }
}

/// Why a PATCH was not accepted. The session goes on as it was.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum PatchRefusal {
    /// 404: no such session, or no longer.
    #[error("there is no such session")]
    UnknownSession,
    /// 412: the request was meant for another ICE session.
    #[error("the entity-tag is not that of the current ICE session")]
    OtherIceSession,
    /// 429 with Retry-After.
    #[error("too many requests for this session")]
    TooMany {
        /// When the next one is taken.
        retry_after: Duration,
    },
    /// 400: the body is no fragment of SDP.
    #[error("the fragment cannot be read: {0}")]
    Malformed(String),
    /// 503 with Retry-After: the session's shard takes no more work just now.
    #[error("the node is busy")]
    Busy,
}

impl From<FragmentError> for PatchRefusal {
    fn from(error: FragmentError) -> Self {
        Self::Malformed(error.to_string())
    }
}
