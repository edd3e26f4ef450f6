//! What becomes of a signal.

use std::borrow::Cow;

use serde::Serialize;

/// Bytes of the longest reason of a bet service that is passed on.
const MAX_REASON: usize = 200;

/// The four outcomes. Exported as `tableside_bet_signals_total{outcome}`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
#[repr(usize)]
pub enum Status {
    /// The service's word.
    Accepted,
    /// The service's word, with its reason.
    Rejected,
    /// Never passed on.
    Refused,
    /// Passed on, and no answer by the deadline.
    Unconfirmed,
}

impl Status {
    /// Every status with its name, in the order of the discriminants.
    pub const ALL: [(Status, &'static str); 4] = [
        (Status::Accepted, "accepted"),
        (Status::Rejected, "rejected"),
        (Status::Refused, "refused"),
        (Status::Unconfirmed, "unconfirmed"),
    ];

    /// Its name.
    pub const fn as_str(self) -> &'static str {
        Self::ALL[self as usize].1
    }
}

/// Why a signal was not passed on. Exported as `tableside_bet_signals_refused_total{reason}`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(usize)]
pub enum Refused {
    /// No signal of this protocol, or nested too deeply.
    Malformed,
    /// Longer than a signal may be.
    TooLarge,
    /// More signals than a session may send in the time.
    RateLimited,
    /// More of the player's signals wait for the service than may.
    TooManyWaiting,
    /// The key stands for another bet of the round.
    KeyReused,
    /// There is no bet service, it cannot be reached, the audit trail cannot be written, or the node is too busy.
    Unavailable,
}

impl Refused {
    /// Every reason with its name, in the order of the discriminants.
    pub const ALL: [(Refused, &'static str); 6] = [
        (Refused::Malformed, "malformed"),
        (Refused::TooLarge, "too_large"),
        (Refused::RateLimited, "rate_limited"),
        (Refused::TooManyWaiting, "too_many_waiting"),
        (Refused::KeyReused, "key_reused"),
        (Refused::Unavailable, "unavailable"),
    ];

    /// Its name.
    pub const fn as_str(self) -> &'static str {
        Self::ALL[self as usize].1
    }
}

/// What a player is told of a signal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// By the service.
    Accepted,
    /// By the service.
    Rejected {
        /// The service's own words, at most 200 bytes.
        reason: Cow<'static, str>,
    },
    /// By the edge; the service has not heard of it.
    Refused(Refused),
    /// The service may have heard of it.
    Unconfirmed,
}

impl Outcome {
    /// A rejection. What is too long of the reason is cut off.
    pub fn rejected(reason: impl Into<Cow<'static, str>>) -> Self {
        let reason = reason.into();
        let end = reason.floor_char_boundary(MAX_REASON);
        let reason = if end < reason.len() { Cow::Owned(reason[..end].to_owned()) } else { reason };
        Self::Rejected { reason }
    }

    /// Its status.
    pub fn status(&self) -> Status {
        match self {
            Self::Accepted => Status::Accepted,
            Self::Rejected { .. } => Status::Rejected,
            Self::Refused(_) => Status::Refused,
            Self::Unconfirmed => Status::Unconfirmed,
        }
    }

    /// Its reason, where it has one.
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::Rejected { reason } => Some(reason),
            Self::Refused(reason) => Some(reason.as_str()),
            Self::Accepted | Self::Unconfirmed => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_in_the_order_of_the_discriminants() {
        for (n, (status, name)) in Status::ALL.into_iter().enumerate() {
            assert_eq!((status as usize, serde_json::to_value(status).unwrap()), (n, name.into()));
        }
        assert!(Refused::ALL.iter().enumerate().all(|(n, (reason, _))| *reason as usize == n));
    }

    #[test]
    fn a_long_reason_is_cut_between_characters() {
        let Outcome::Rejected { reason } = Outcome::rejected("é".repeat(150)) else { panic!("rejected") };
        assert_eq!(reason.len(), 200);
        let Outcome::Rejected { reason } = Outcome::rejected(format!("x{}", "é".repeat(150))) else {
            panic!("rejected")
        };
        assert_eq!(reason.len(), 199);
    }
}
