//! The directory of tables on this node, the placement of sessions on shards, the shards' threads, and the desk for bets.
//!
//! Enters: offers and session ends from `http`, what a bet service says. Leaves: answers, refusals with their reason, the state of
//! tables, bets.
//! Refuses to know: HTTP, packets.

mod admission;
mod bet_desk;
mod bet_ledger;
mod client;
mod directory;
mod half_open;
mod node;
mod patch;
mod peers;
mod refusal;
mod session;
mod shard_thread;
mod utilisation;

pub use admission::{AdmissionReport, RefusedOffer};
pub use client::ClientNetwork;
pub use node::{LocalPublisher, Node, StartError, TableStatus};
pub use refusal::{PatchRefusal, Refusal};
pub use session::{Created, IfMatch, Patched, SessionId};
