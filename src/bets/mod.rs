//! Bet signals and round events: what players and bet services say, and the edge's word that every signal has an
//! outcome.
//!
//! In: messages of players and answers of a bet service, neither of which anybody vouches for, and `now`. Out: signals
//! to pass on, one first outcome for each, at most one late one, and texts for players. The edge relays and never
//! decides whether a bet is accepted. The audit trail's chain and its verifier are here as well. Knows no session, socket or clock; `docs/bets.md` has the protocol.

mod ack;
pub mod audit;
mod counts;
mod desk;
mod id;
mod outcome;
mod round;
mod round_book;
mod signal;
mod trace;

pub use ack::{Ack, Stamps, Timing};
pub use counts::{BetCounts, Leg, LegBounds, LegHistogram, SettleBounds, SettleHistogram};
pub use desk::{Answer, Arrival, Decision, Desk, DeskLimits, Passed, Ticket};
pub use id::{Id, InvalidId, PlayerId};
pub use outcome::{Outcome, Refused, Status};
pub use round::{Announcement, InvalidEvent, RoundEvent, RoundKind};
pub use round_book::{AbortCause, RoundBook, RoundReport};
pub use signal::{MAX_DEPTH, MAX_MESSAGE, NotTaken, Signal};
pub use trace::{SpanId, TraceId, TraceParent};
