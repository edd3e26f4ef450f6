//! Where a peer is: the transport protocol belongs to it.

use std::fmt;
use std::net::SocketAddr;

/// What carries a peer's packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Transport {
    /// A packet is a datagram.
    Udp,
    /// A packet is a frame on a connection that the peer opened (RFC 6544, RFC 4571).
    Tcp,
}

/// RFC 8445 §4: "the combination of an IP address and the transport protocol (such as UDP or TCP) port".
///
/// The same host may send from the same number over both, and these are two peers until each has proved itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TransportAddress {
    /// IP address, canonical (never an IPv4 one mapped into IPv6), and port.
    pub socket: SocketAddr,
    /// What the port is one of.
    pub transport: Transport,
}

impl TransportAddress {
    /// A UDP port.
    pub const fn udp(socket: SocketAddr) -> Self {
        Self { socket, transport: Transport::Udp }
    }

    /// The far end of a TCP connection.
    pub const fn tcp(socket: SocketAddr) -> Self {
        Self { socket, transport: Transport::Tcp }
    }
}

impl fmt::Display for TransportAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let transport = match self.transport {
            Transport::Udp => "udp",
            Transport::Tcp => "tcp",
        };
        write!(f, "{transport} {}", self.socket)
    }
}
