//! Batched UDP with GSO and GRO, ICE-TCP, socket buffers, verification of node tuning.
//!
//! Owns the sockets of each shard: three that share a UDP port, two for RTCP and one for all else, and on the same number
//! a listener for TCP and its connections; and what the shard's thread sleeps on. Enters: a
//! [`SendBatch`](crate::fanout::SendBatch) that a shard filled, and whatever the network sends. Leaves: datagrams on the wire
//! in as few system calls as the kernel allows, and a [`RecvBatch`] of datagrams with their source addresses. Also says what
//! of the host's tuning is missing and which addresses the host can be reached at.
//! Refuses to know: what is in a datagram, but for the two octets that tell RTCP and its kind; who it belongs to, what becomes
//! of one that could not be sent.
//!
//! Linux only. The only unsafe code of the crate is in `sys` and `process`.

mod addresses;
mod dscp;
mod lanes;
mod process;
mod receive;
mod send;
mod sys;
mod tcp;
mod tuning;
mod udp;
mod waiter;

#[cfg(test)]
mod tests;

pub use addresses::host_addresses;
pub use dscp::{Dscp, Markings};
pub use lanes::RtcpLane;
pub use process::{allowed_cores, keep_to, raise_open_file_limit, wake_promptly, yield_to_shards};
pub use receive::RecvBatch;
pub use send::SendOutcome;
pub use sys::thread_cpu_time;
pub use tcp::frame;
pub use tcp::{IceTcp, TcpEnd, TcpOptions, TcpReport};
pub use tuning::{SETTINGS, Setting, TuningReport, raise_open_files, verify_sysctls};
pub use udp::{ShardSocket, UdpOptions};
pub use waiter::{Arrivals, Waiter};
