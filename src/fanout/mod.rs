//! Who gets what: header classes, each player's numbering, sealing into send buffers, retransmission.
//!
//! Enters: packets of a ring and the players' positions in it. Leaves: sealed datagrams in a [`SendBatch`].
//! Refuses to know: sockets, clocks, how a session came to be.
//!
//! # One packet, many players
//!
//! Everything that is equal for players who negotiated the same (a [`HeaderClass`]) is laid out once per batch of
//! packets in a [`Layout`]. Per player there remain the sequence number, the transport-wide number, and the seal, which
//! reads the payload from the ring and writes into the send buffer.

mod bandwidth;
mod down_track;
mod layout;
mod send_batch;
mod shift;
mod thinned;

pub use bandwidth::{Bandwidth, Estimate, ProbeOutcome, Usage};
pub use down_track::{DownTrack, Rtx};
pub use layout::{HeaderClass, Layout, MAX_DATAGRAM, Stamps};
pub use send_batch::{MAX_SEGMENTS, Message, SendBatch, TrafficClass};
pub use thinned::{ALL_SPATIAL_LAYERS, ALL_TEMPORAL_LAYERS, Highest, Lacked};
