//! The sections of the file with their defaults. `check` holds the ranges.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::MaxLayer;
use super::units::{ip_address, milliseconds, seconds, socket_address};

/// `[admin]`: metrics, health, status, drain.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Admin {
    /// Address and TCP port.
    #[serde(with = "socket_address")]
    pub listen: SocketAddr,
    /// Connections at once.
    pub max_connections: usize,
}

impl Default for Admin {
    fn default() -> Self {
        Self { listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 9090)), max_connections: 256 }
    }
}

/// `[media]`: UDP sockets and what is kept of a stream.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Media {
    /// The address that every shard's socket is bound to; `::` takes IPv4 too.
    #[serde(with = "ip_address")]
    pub listen: IpAddr,
    /// UDP port of the first shard; each further one takes the next port.
    pub first_port: u16,
    /// How many shards; 0 for one per core, of pinned ones for one fewer.
    pub shards: usize,
    /// Whether each shard has a core for itself.
    pub pin_shards: bool,
    /// Addresses to put in candidates, best first; empty for those of the host.
    pub announce: Vec<IpAddr>,
    /// SO_RCVBUF of a shard's socket, in bytes.
    pub receive_buffer_bytes: usize,
    /// SO_SNDBUF of a shard's socket, in bytes.
    pub send_buffer_bytes: usize,
    /// RTP packets that are kept of each track: the cached GOP and what a NACK can be answered from.
    pub ring_packets: usize,
    /// Whether a large frame is spread over the time until the next.
    pub pacing: bool,
    /// `[media.dscp]`
    pub dscp: Dscp,
    /// `[media.tcp]`
    pub tcp: Tcp,
}

impl Default for Media {
    fn default() -> Self {
        Self {
            listen: IpAddr::V6(Ipv6Addr::UNSPECIFIED),
            first_port: 7000,
            shards: 0,
            pin_shards: false,
            announce: Vec::new(),
            receive_buffer_bytes: 8 << 20,
            send_buffer_bytes: 8 << 20,
            ring_packets: 2048,
            pacing: true,
            dscp: Dscp::default(),
            tcp: Tcp::default(),
        }
    }
}

/// `[media.dscp]`: how datagrams are marked (RFC 8837 §5); 0 leaves them unmarked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Dscp {
    /// EF by default.
    pub audio: u8,
    /// AF41 by default. Of STUN, RTCP and TCP connections too.
    pub video: u8,
    /// Data channels; EF by default.
    pub data: u8,
}

impl Default for Dscp {
    fn default() -> Self {
        Self { audio: 46, video: 34, data: 46 }
    }
}

/// `[media.tcp]`: ICE-TCP (RFC 6544), for players whose network lets no UDP through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Tcp {
    /// Whether there are candidates over TCP, on the port numbers of UDP.
    pub enabled: bool,
    /// Connections beyond this are closed, those first that have not proved to belong to a session.
    pub max_connections_per_shard: usize,
    /// Connections beyond this from one IPv4 address or one IPv6 /64 are closed.
    pub max_connections_per_address: usize,
}

impl Default for Tcp {
    fn default() -> Self {
        Self { enabled: true, max_connections_per_shard: 4096, max_connections_per_address: 64 }
    }
}

/// `[sessions]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Sessions {
    /// From the answer to the end of the DTLS handshake.
    #[serde(rename = "setup_timeout_ms", with = "milliseconds")]
    pub setup_timeout: Duration,
    /// Silence after which a session ends (RFC 7675 §5.1).
    #[serde(rename = "consent_timeout_s", with = "seconds")]
    pub consent_timeout: Duration,
    /// How long players wait for a publisher to return before their sessions end.
    #[serde(rename = "publisher_grace_s", with = "seconds")]
    pub publisher_grace: Duration,
    /// Players beyond this are refused with 503.
    pub max_players_per_shard: usize,
    /// Players who would make every shard use more of its core than this are refused with 503; 100 for no limit.
    pub max_shard_utilisation_percent: u8,
    /// Offers that are judged and answered at once; 0 for two a core.
    pub offers_at_once: usize,
    /// Offers that wait for that, beyond which 503 is the answer.
    pub offers_waiting: usize,
    /// How long an offer waits before 503 is the answer.
    #[serde(rename = "offer_wait_ms", with = "milliseconds")]
    pub offer_wait: Duration,
    /// Sessions of a shard that were answered and have not completed DTLS.
    pub max_half_open_per_shard: usize,
    /// The same of one address on all shards, an IPv6 /64 being one.
    pub max_half_open_per_address: usize,
}

impl Default for Sessions {
    fn default() -> Self {
        Self {
            setup_timeout: Duration::from_secs(15),
            consent_timeout: Duration::from_secs(30),
            publisher_grace: Duration::from_secs(30),
            max_players_per_shard: 2000,
            max_shard_utilisation_percent: 85,
            offers_at_once: 0,
            offers_waiting: 1024,
            offer_wait: Duration::from_secs(3),
            max_half_open_per_shard: 2000,
            max_half_open_per_address: 1000,
        }
    }
}

/// `[tables.NAME]`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Table {
    /// The smallest playout delay asked of players, milliseconds.
    pub playout_delay_min_ms: Option<u16>,
    /// The largest one, milliseconds.
    pub playout_delay_max_ms: Option<u16>,
    /// The highest layer of a simulcast that any player of the table is given; 0 is the least.
    pub max_layer: Option<u8>,
}

impl Table {
    /// Smallest and largest playout delay; `None` for 0 and 0, which has players show each frame at once.
    pub fn playout_delay(&self) -> Option<(Duration, Duration)> {
        let millis = |ms: u16| Duration::from_millis(ms.into());
        Some((millis(self.playout_delay_min_ms?), millis(self.playout_delay_max_ms?)))
    }

    /// The highest layer that its players are given; `None` for no limit.
    pub fn max_layer(&self) -> Option<MaxLayer> {
        MaxLayer::new(self.max_layer?)
    }
}
