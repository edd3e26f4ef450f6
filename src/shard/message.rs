//! What enters and leaves a shard besides datagrams.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use crate::bets::Arrival;
use crate::media::{Codec, MediaKind, Packet, PlayoutDelay, SPATIAL_LAYERS};
use crate::rtc::rtcp::NtpTime;
use crate::rtc::sdp::{IceCredentials, TableMedia};

use super::report::{EndCause, Role};

/// A shard of this node; also the offset of its port from the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ShardId(pub u16);

/// A table of this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TableId(pub u32);

/// A layer of a table's video, by its place in the publisher's offer. What is no simulcast has the first alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LayerIndex(pub usize);

/// A track of a table: its sound, or one layer of its video.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TrackId {
    /// The sound.
    Audio,
    /// A layer of the video.
    Video(LayerIndex),
}

impl TrackId {
    /// Audio or video.
    pub fn kind(self) -> MediaKind {
        match self {
            Self::Audio => MediaKind::Audio,
            Self::Video(_) => MediaKind::Video,
        }
    }
}

/// A layer that comes, and what it takes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LayerOffer {
    /// Which.
    pub layer: LayerIndex,
    /// Payload bits per second over the last seconds.
    pub bits_per_second: u64,
    /// Which spatial and temporal layers have a part in that.
    pub shares: LayerShares,
}

impl LayerOffer {
    /// Of which nothing is known but that it comes.
    pub fn unmeasured(layer: LayerIndex) -> Self {
        Self { layer, bits_per_second: 0, shares: LayerShares::default() }
    }
}

impl LayerOffer {
    /// Whether it takes clearly more or less than when it was told of, or has layers of which the shares matter.
    pub(super) fn is_news_after(&self, told: &Self) -> bool {
        let changed = self.bits_per_second.abs_diff(told.bits_per_second);
        changed > told.bits_per_second / 8 || self.shares.are_several() || told.shares.are_several()
    }
}

/// Temporal layers that are told apart; higher ones count as the last.
pub const TEMPORAL_LAYERS: usize = 4;

/// What each temporal layer takes, by spatial layer, beside the others; all 0 where nobody knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LayerShares(pub [TemporalShares; SPATIAL_LAYERS]);

impl LayerShares {
    /// Of a track with one spatial layer.
    pub fn of_one(temporal: TemporalShares) -> Self {
        let mut shares = Self::default();
        shares.0[0] = temporal;
        shares
    }

    /// The highest spatial layer that there is.
    pub fn highest_spatial(&self) -> u8 {
        self.0.iter().rposition(|shares| shares.total() > 0).unwrap_or(0) as u8
    }

    /// What the temporal layers take without the spatial layers above `spatial`.
    pub fn up_to(&self, spatial: u8) -> TemporalShares {
        let within = || self.0.iter().take(usize::from(spatial) + 1);
        TemporalShares(std::array::from_fn(|temporal| within().map(|shares| shares.0[temporal]).sum()))
    }

    /// All of them.
    pub fn total(&self) -> u64 {
        self.0.iter().map(TemporalShares::total).sum()
    }

    fn are_several(&self) -> bool {
        self.highest_spatial() > 0 || self.0[0].highest() > 0
    }
}

/// What each temporal layer takes beside the others, all 0 where nobody knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TemporalShares(pub [u64; TEMPORAL_LAYERS]);

impl TemporalShares {
    /// The highest layer that there is.
    pub fn highest(&self) -> u8 {
        self.0.iter().rposition(|share| *share > 0).unwrap_or(0) as u8
    }

    /// All of them.
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    /// The part of `amount` that falls to the layers up to `highest`.
    pub fn part_of(&self, amount: u64, highest: u8) -> u64 {
        let part: u64 = self.0.iter().take(usize::from(highest) + 1).sum();
        let part = u128::from(amount) * u128::from(part) / u128::from(self.total().max(1));
        part as u64
    }
}

/// A session of one shard. The generation tells a slot's tenants apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SlotKey {
    /// The slot, which the ufrag names too.
    pub slot: u32,
    /// Counts the slot's tenants.
    pub generation: u32,
}

/// What is fixed about a table for the life of the node.
#[derive(Clone, Debug, PartialEq)]
pub struct TableSpec {
    /// Its id.
    pub id: TableId,
    /// Its name.
    pub name: Arc<str>,
    /// The shard that takes its publishers, always the same one: the track's numbering lives there.
    pub home: ShardId,
    /// The SSRC every player receives the video on.
    pub video_ssrc: u32,
    /// Its RTX SSRC.
    pub video_rtx_ssrc: u32,
    /// The SSRC of the audio.
    pub audio_ssrc: u32,
    /// Sent with each keyframe.
    pub playout_delay: PlayoutDelay,
    /// Packets kept per track; a power of two.
    pub ring_packets: usize,
}

impl TableSpec {
    /// The SSRC of a kind of track.
    pub fn ssrc(&self, kind: MediaKind) -> u32 {
        match kind {
            MediaKind::Audio => self.audio_ssrc,
            MediaKind::Video => self.video_ssrc,
        }
    }
}

/// The outcome of `add_publisher` and `add_player`.
#[derive(Clone, Debug, PartialEq)]
pub struct Added {
    /// The new session.
    pub key: SlotKey,
    /// Its local ICE credentials, for the answer.
    pub ice: IceCredentials,
}

/// A publisher inside this process: the demo's dealer. Speaks clear RTP payloads.
#[derive(Clone, Debug)]
pub struct LocalMedia {
    /// Audio or video.
    pub kind: MediaKind,
    /// RTP sequence number.
    pub sequence_number: u16,
    /// RTP timestamp.
    pub timestamp: u32,
    /// Marker bit.
    pub marker: bool,
    /// The payload.
    pub payload: bytes::Bytes,
}

/// Where a frame was lost that a table's home shard never had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LossPlace {
    /// On the way to the node.
    BeforeTheNode,
    /// In its receive buffers, which overflowed.
    ReceiveBuffer,
}

/// How a track's timestamps relate to our clock: at `instant`, the timestamp was `timestamp`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TrackClock {
    /// When.
    pub instant: Instant,
    /// The track's RTP timestamp then.
    pub timestamp: u32,
    /// What a sender report said, or for a publisher inside the process our clock; `None` until there is one.
    pub capture: Option<CaptureClock>,
}

/// The publisher's clock, by a sender report of a track; ours for a publisher inside the process.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CaptureClock {
    /// The time by it that the track's timestamp stands for.
    pub ntp: NtpTime,
    /// The publisher's capture clock minus ours, NTP 32.32 signed, for abs-capture-time.
    pub offset: i64,
}

/// Whether a table has something to show.
#[derive(Clone, Debug, PartialEq)]
pub enum TableState {
    /// Nobody publishes it, and the grace time for a return is over.
    Absent,
    /// A publisher sends.
    Live,
    /// The publisher left or fell silent; players wait for its return.
    Paused,
}

/// From one shard to another.
#[derive(Clone, Debug)]
pub enum PeerMessage {
    /// The sender has players of a table whose home is the receiver.
    Subscribe {
        /// The table.
        table: TableSpec,
        /// Who asks.
        from: ShardId,
    },
    /// The sender's last player of the table left.
    Unsubscribe {
        /// The table.
        table: TableId,
        /// Who asked.
        from: ShardId,
    },
    /// A packet of a track.
    Media {
        /// The table.
        table: TableId,
        /// Which track.
        track: TrackId,
        /// The packet, shared.
        packet: Arc<Packet>,
    },
    /// A track begins, or begins anew after a republication.
    Track {
        /// The table.
        table: TableId,
        /// Which track.
        track: TrackId,
        /// Its codec.
        codec: Codec,
    },
    /// The track's clock was measured.
    Clock {
        /// The table.
        table: TableId,
        /// Which track.
        track: TrackId,
        /// The measurement.
        clock: TrackClock,
    },
    /// Home has lost frames of a layer.
    FramesLost {
        /// The table.
        table: TableId,
        /// Which layer.
        layer: LayerIndex,
        /// How many.
        count: u64,
        /// Where.
        place: LossPlace,
    },
    /// Which layers come has changed, or what they take.
    Layers {
        /// The table.
        table: TableId,
        /// The best first.
        offers: Arc<[LayerOffer]>,
        /// All layers of the publisher, from the least to the best.
        order: Arc<[LayerIndex]>,
    },
    /// The table's state changed.
    State {
        /// The table.
        table: TableId,
        /// The new state.
        state: TableState,
    },
    /// A player of the sender needs a keyframe that no ring has.
    KeyframeWanted {
        /// The table.
        table: TableId,
        /// Of which layer.
        layer: LayerIndex,
    },
}

/// From a shard to the control plane or to a peer.
#[derive(Debug)]
pub enum ShardEvent {
    /// To another shard.
    Peer {
        /// The receiver.
        to: ShardId,
        /// The message.
        message: PeerMessage,
    },
    /// A session has completed DTLS.
    SessionConnected {
        /// Which.
        key: SlotKey,
    },
    /// A session is gone; its slot will be reused.
    SessionEnded {
        /// Which.
        key: SlotKey,
        /// Publisher or player.
        role: Role,
        /// Why.
        cause: EndCause,
    },
    /// A player's bet signal, whose form is right, for the bet service. Who takes it owes it an answer.
    Bet(Box<Arrival<SlotKey>>),
    /// A TCP connection has no session any more: to be closed, once what was to be sent is sent.
    Disconnect {
        /// Its far end.
        peer: SocketAddr,
    },
    /// A table whose home is this shard changed its state.
    Table {
        /// Which.
        table: TableId,
        /// The new state.
        state: TableState,
        /// What its publisher sends.
        media: TableMedia,
    },
}
