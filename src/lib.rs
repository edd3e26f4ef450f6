//! tableside: a WebRTC live-streaming edge gateway for live-dealer casino tables.
//!
//! # The rooms, and which may use which
//!
//! ```text
//! identity ← config ← media ← qos ← bets ← rtc ← fanout ← shard ← { net, outbound, nats, traces, bet_service, audit, fleet, telemetry, gatekeeper, http, demo } ← run ← main
//! ```
//!
//! An arrow points from the user to the used: `rtc` may use `media`, never the other way round. `identity`, `media`, `qos`,
//! `bets`, `rtc`, `fanout` and `shard` are *sans-IO*: they know no socket, no clock, no thread and no tokio. They take
//! `now` as an argument and are driven through `handle_*` and `poll_*`. `tests/architecture.rs` checks both rules.
//!
//! `docs/architecture.md` follows one packet through the rooms.

#![cfg_attr(test, allow(clippy::disallowed_methods))]

pub mod audit;
pub mod bet_service;
pub mod bets;
pub mod config;
pub mod demo;
pub mod fanout;
pub mod fleet;
pub mod gatekeeper;
pub mod http;
pub mod identity;
pub mod media;
pub mod nats;
pub mod net;
pub mod outbound;
pub mod qos;
pub mod rtc;
pub mod run;
pub mod shard;
pub mod telemetry;
pub mod traces;
