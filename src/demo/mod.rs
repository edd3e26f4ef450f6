//! The embedded dealer.

pub mod clip;
pub mod packetize;
