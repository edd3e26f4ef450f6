//! What the connections of a shard came to.

/// Why a TCP connection ended. Exported as `tableside_ice_tcp_connections_ended_total{cause}`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(usize)]
pub enum TcpEnd {
    /// The peer closed it, or it broke.
    Peer,
    /// Its session ended or has another way.
    SessionEnded,
    /// No valid connectivity check came first, or none in time.
    NoCheck,
    /// It claimed a frame longer than a packet may be.
    FrameTooLong,
    /// It had proved nothing, and all places were taken when another came.
    Displaced,
    /// All places were taken by connections with a session.
    Full,
    /// Too many from its address.
    AddressLimit,
    /// The host had no descriptor or memory for it.
    NoResources,
}

impl TcpEnd {
    /// Every cause with its label value, in the order of the discriminants.
    pub const ALL: [(TcpEnd, &'static str); 8] = [
        (TcpEnd::Peer, "peer"),
        (TcpEnd::SessionEnded, "session_ended"),
        (TcpEnd::NoCheck, "no_check"),
        (TcpEnd::FrameTooLong, "frame_too_long"),
        (TcpEnd::Displaced, "displaced"),
        (TcpEnd::Full, "full"),
        (TcpEnd::AddressLimit, "address_limit"),
        (TcpEnd::NoResources, "no_resources"),
    ];
}

/// Counters and gauges of a shard's TCP half.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpReport {
    /// Gauge: connections that stand.
    pub connections: u64,
    /// Connections that peers opened.
    pub accepted: u64,
    /// By [`TcpEnd`] discriminant.
    pub ended: [u64; TcpEnd::ALL.len()],
}
