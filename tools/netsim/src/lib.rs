//! Bad networks, from a seed.
//!
//! [`Conditions`] say what a link is like, a [`Link`] decides what becomes of each packet on it. Neither knows a socket or a
//! clock: scenarios in virtual time use them as they are, and the program `tableside-netsim` puts [`Relay`] between a
//! gateway and real clients. The same seed and the same packets at the same times have the same fates.

#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "tests begin at some instant"))]

mod conditions;
mod link;
pub mod relay;

pub use conditions::{Bandwidth, Conditions, Loss, Probability, Reordering, WrongConditions};
pub use link::{Arrivals, Counts, Link};
pub use relay::Relay;
