//! Scenarios in virtual time: shards, publishers and players in one thread, one behaviour a file.

#![allow(clippy::disallowed_methods, reason = "virtual time begins at some instant")]

mod world;

mod addresses;
mod asked_once;
mod bad_input;
mod bad_networks;
mod check_floods;
mod codecs;
mod congestion;
mod connecting;
mod dependency_descriptor;
mod forwarding;
mod full_batches;
mod h265_stream;
mod handshakes;
mod ice_restart;
mod joining;
mod keyframe_requests;
mod ledger;
mod lifetimes;
mod max_layer;
mod nonces;
mod pacing;
mod parameter_sets;
mod publisher_returns;
mod red;
mod repair;
mod reports;
mod simulcast;
mod svc;
mod table_ends;
mod takeover;
mod thinning;
