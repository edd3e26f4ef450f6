//! The directory of tables on this node, the placement of sessions on shards, and the shards' threads.
//!
//! Enters: offers and session ends from `http`. Leaves: answers, refusals with their reason, the state of tables.
//! Refuses to know: HTTP, packets.

mod admission;
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
