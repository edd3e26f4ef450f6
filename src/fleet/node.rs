//! One node: its tables, its sessions, its shards.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::shard::{Role, ShardReport};

/// The unguessable name of a session, 128 random bits: whoever knows the session URL may end it (RFC 9725 §5).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SessionId(pub [u8; 16]);

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

impl fmt::Debug for SessionId {
    /// Shortened: a log must not carry a capability.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SessionId({:02x}{:02x}…)", self.0[0], self.0[1])
    }
}

impl FromStr for SessionId {
    type Err = ();

    fn from_str(s: &str) -> Result<Self, ()> {
        let s = s.as_bytes();
        if s.len() != 32 || !s.iter().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(b)) {
            return Err(());
        }
        let nibble = |b: u8| if b.is_ascii_digit() { b - b'0' } else { b - b'a' + 10 };
        Ok(Self(std::array::from_fn(|i| nibble(s[2 * i]) << 4 | nibble(s[2 * i + 1]))))
    }
}

/// A session that was made, and its answer.
#[derive(Clone, Debug)]
pub struct Created {
    /// Goes into the session URL.
    pub session: SessionId,
    /// The SDP answer.
    pub answer: String,
    /// The strong entity-tag of the ICE session, quotes included (RFC 9725 §4.3.1).
    pub etag: String,
}

/// Why an offer was not accepted. `http` turns it into a problem document.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Refusal {
    /// 404: no such table in the configuration.
    #[error("there is no table of this name")]
    UnknownTable,
    /// 409 with Retry-After: nobody publishes the table now.
    #[error("the table is not live")]
    NotLive {
        /// When to ask again.
        retry_after: Duration,
    },
    /// 409: somebody else publishes the table.
    #[error("the table is already published")]
    AlreadyPublished,
    /// 400: the body is not SDP.
    #[error("the offer is not valid SDP: {0}")]
    Malformed(String),
    /// 422: valid SDP that we do not support; says which part.
    #[error("the offer cannot be accepted: {0}")]
    Unsupported(String),
    /// 422: no codec of the table is in the offer.
    #[error("no codec in common: {0}")]
    NoCommonCodec(String),
    /// 503 with Retry-After.
    #[error("the node is full")]
    Full {
        /// When to ask again.
        retry_after: Duration,
    },
    /// 503 with Retry-After: the node is on its way out.
    #[error("the node is shutting down")]
    ShuttingDown,
}

/// A table as others see it; names and counts only.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TableStatus {
    /// The table's name.
    pub name: String,
    /// A publisher is connected and sends.
    pub live: bool,
    /// Players connected now.
    pub players: u64,
    /// `H264`, `VP8`, if known.
    pub video_codec: Option<String>,
    /// `opus`, if known.
    pub audio_codec: Option<String>,
    /// Frames per second from the publisher.
    pub fps: f64,
    /// Bits per second from the publisher.
    pub bits_per_second: f64,
}

/// The node's control plane. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Node {}

impl Node {
    /// WHIP: takes an offer to publish `table`.
    ///
    /// # Errors
    /// Every [`Refusal`] but `NotLive`.
    pub async fn publish(&self, _table: &str, _offer: &[u8]) -> Result<Created, Refusal> {
        Err(Refusal::ShuttingDown)
    }

    /// WHEP: takes an offer to watch `table`.
    ///
    /// # Errors
    /// Every [`Refusal`] but `AlreadyPublished`.
    pub async fn play(&self, _table: &str, _offer: &[u8]) -> Result<Created, Refusal> {
        Err(Refusal::ShuttingDown)
    }

    /// DELETE on a session URL: ends the session and frees all of it. `false` if there is none of this role and table.
    pub async fn close(&self, _role: Role, _table: &str, _session: SessionId) -> bool {
        false
    }

    /// The current entity-tag of a session, `None` if there is no such session.
    pub fn etag(&self, _role: Role, _table: &str, _session: SessionId) -> Option<String> {
        None
    }

    /// Whether the configuration knows the table (in the demo: any valid name).
    pub fn knows(&self, _table: &str) -> bool {
        false
    }

    /// The tables, by name.
    pub fn tables(&self) -> Vec<TableStatus> {
        Vec::new()
    }

    /// The last report of every shard.
    pub fn reports(&self) -> Vec<ShardReport> {
        Vec::new()
    }

    /// What serving depends on, each with its name and, if it fails, why (for `/readyz`).
    pub fn readiness(&self) -> Vec<(&'static str, Result<(), String>)> {
        Vec::new()
    }

    /// Admits nobody any more: offers are refused with [`Refusal::ShuttingDown`] and readiness fails.
    pub fn drain(&self) {}

    /// Ends every session, telling the peers, and stops the shards.
    pub async fn shutdown(&self) {}
}
