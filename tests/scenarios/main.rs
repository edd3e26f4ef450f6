//! Scenarios in virtual time: shards, publishers and players in one thread, one behaviour a file.

mod world;

mod bad_input;
mod forwarding;
mod joining;
mod keyframe_requests;
mod lifetimes;
mod nonces;
mod publisher_returns;
mod repair;
