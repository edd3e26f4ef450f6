//! A publisher and a player that share no code with the gateway: the `webrtc` crate does ICE, DTLS, SRTP, RTCP and SCTP,
//! HTTP goes over `reqwest`. What they are told they check by the standards' text alone.
//!
//! Used by `tests/full_stack.rs` and by the crowd of `tools/interop` (`tests/peers/crowd.rs`).

// Each user takes a part of it.
#![allow(dead_code, unused_imports)]
// A peer on a real network runs on the real clock.
#![allow(clippy::disallowed_methods)]

mod player;
mod publisher;
mod session;
mod tally;

pub use player::{Player, PlayerOptions, Seen};
pub use publisher::Publisher;
pub use session::client;
