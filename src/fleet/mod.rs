//! The directory of tables on this node, and the placement of sessions on shards.
//!
//! Enters: offers and session ends from `http`. Leaves: answers, refusals with their reason, the state of tables.
//! Refuses to know: HTTP, packets.

mod node;

pub use node::{Created, Node, Refusal, SessionId, TableStatus};
