//! The embedded dealer: a clip that is published, for ever, to tables of this process.
//!
//! Enters: the clip's files. Leaves: RTP payloads for a table's home shard, in real time. Refuses to know: sessions,
//! players, WebRTC.

pub mod clip;
mod dealer;
pub mod packetize;

pub use dealer::{DealerError, TABLES, deal};
