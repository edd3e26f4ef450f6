//! Owns the sessions and streams of one core.
//!
//! [`Shard`] joins `rtc`, `media`, `qos`, `bets` and `fanout`, and does no I/O: `fleet` drives one on each of its threads. Shards
//! share nothing: what crosses is a [`PeerMessage`].
//!
//! Enters: datagrams, sessions to be made and ended, messages of other shards, outcomes of bets, round events, time. Leaves: batches of datagrams,
//! [`ShardEvent`]s, a [`ShardReport`]. Refuses to know: sockets, clocks, threads, HTTP, where other shards are.
//!
//! # Driving a shard
//!
//! Mutate it (`handle_*`, `add_*`, `close_*`), then drain it: [`Shard::poll_transmit`] until it has nothing more to
//! send, [`Shard::poll_event`] until it is empty. Then, if there is time, [`Shard::advance_handshake`], and drain it again;
//! without handshakes wait for input or [`Shard::poll_timeout`].

mod adaptation;
mod addresses;
mod bets;
mod bounds;
mod capture_times;
mod channels;
mod core;
mod egress;
mod failed_checks;
mod feedback;
mod handshakes;
mod inbound;
mod ingest;
mod ladder;
mod layers;
mod lead_in;
mod ledger;
mod message;
mod overtaken;
mod owed;
mod pacing;
mod path;
mod points;
mod probing;
mod repairs;
mod report;
mod session;
mod source;
mod table;
#[cfg(test)]
pub(crate) mod testing;
mod timers;

pub use self::core::{Shard, ShardConfig};
pub use message::*;
pub use report::*;
pub use session::Budget;
pub use timers::SLACK;
