//! `[http]`: the public listener, its certificate and its limits. `check` holds the ranges.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::ice_server::IceServer;
use super::network::Network;
use super::public_url::PublicUrl;
use super::units::{milliseconds, seconds, socket_address};

/// `[http]`: the public listener: WHIP, WHEP, pages.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Http {
    /// Address and TCP port.
    #[serde(with = "socket_address")]
    pub listen: SocketAddr,
    /// What session URLs start with; `None` derives it from the request's Host header.
    pub public_url: Option<PublicUrl>,
    /// `[http.tls]`
    pub tls: Tls,
    /// The longest offer, in bytes.
    pub max_sdp_bytes: usize,
    /// How long a request may take, from its head to its answer, and an answer until it is read.
    #[serde(rename = "request_timeout_ms", with = "milliseconds")]
    pub request_timeout: Duration,
    /// The largest head of a request, in bytes. HTTP/2 counts each field with 32 more (RFC 9113 §6.5.2).
    pub max_header_bytes: usize,
    /// From a request's first byte to the end of its head; for the first one from the connection's beginning.
    #[serde(rename = "header_timeout_ms", with = "milliseconds")]
    pub header_timeout: Duration,
    /// How long a connection without a request is kept.
    #[serde(rename = "idle_timeout_s", with = "seconds")]
    pub idle_timeout: Duration,
    /// Connections in all.
    pub max_connections: usize,
    /// Connections from one address, an IPv6 /64 being one.
    pub max_connections_per_address: usize,
    /// Requests at once on an HTTP/2 connection (RFC 9113 §6.5.2, SETTINGS_MAX_CONCURRENT_STREAMS).
    pub max_streams_per_connection: u32,
    /// Requests a second from one address, in the long run; 0 for any number.
    pub requests_per_second_per_address: u32,
    /// Requests from one address at once.
    pub request_burst_per_address: u32,
    /// Who is believed about whom a request comes from.
    pub trusted_proxies: Vec<Network>,
    /// Where these say it.
    pub proxy_header: ProxyHeader,
    /// STUN and TURN servers for clients.
    pub ice_servers: Vec<IceServer>,
}

impl Default for Http {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::UNSPECIFIED, 8080)),
            public_url: None,
            tls: Tls::default(),
            max_sdp_bytes: 65_536,
            request_timeout: Duration::from_secs(10),
            max_header_bytes: 16_384,
            header_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(60),
            max_connections: 10_000,
            max_connections_per_address: 2000,
            max_streams_per_connection: 32,
            requests_per_second_per_address: 200,
            request_burst_per_address: 4000,
            trusted_proxies: Vec::new(),
            proxy_header: ProxyHeader::default(),
            ice_servers: Vec::new(),
        }
    }
}

/// The header in which proxies say whom a request comes from. One, not both: a proxy passes on untouched what a client
/// wrote into the one that it does not know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProxyHeader {
    /// `X-Forwarded-For`
    #[default]
    XForwardedFor,
    /// `Forwarded` (RFC 7239)
    Forwarded,
}

/// `[http.tls]`: with it the public listener speaks HTTPS and nothing else.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Tls {
    /// A PEM file: the certificate, then those of the authorities between it and the root.
    pub certificate: Option<PathBuf>,
    /// A PEM file: the private key.
    pub key: Option<PathBuf>,
    /// How long a handshake may take.
    #[serde(rename = "handshake_timeout_ms", with = "milliseconds")]
    pub handshake_timeout: Duration,
}

impl Default for Tls {
    fn default() -> Self {
        Self { certificate: None, key: None, handshake_timeout: Duration::from_secs(10) }
    }
}

impl Tls {
    /// The files, where they are configured.
    pub fn files(&self) -> Option<TlsFiles> {
        Some(TlsFiles { certificate: self.certificate.clone()?, key: self.key.clone()? })
    }
}

/// The files that make a listener HTTPS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// See [`Tls::certificate`].
    pub certificate: PathBuf,
    /// See [`Tls::key`].
    pub key: PathBuf,
}
