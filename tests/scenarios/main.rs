//! Scenarios in virtual time: shards, publishers and players in one thread, one behaviour a file.

#![allow(clippy::disallowed_methods, reason = "virtual time begins at some instant")]

mod world;

mod addresses;
mod bad_input;
mod check_floods;
mod connecting;
mod forwarding;
mod full_batches;
mod handshakes;
mod ice_restart;
mod joining;
mod keyframe_requests;
mod lifetimes;
mod nonces;
mod publisher_returns;
mod repair;
mod reports;
mod table_ends;
mod takeover;
