//! What a shard tells the control plane, once a second: cumulative values since its start, and gauges.
//!
//! Plain numbers, no registry: the shard counts without locks, `telemetry` replaces the last report by this one and
//! sums over shards.

use std::collections::BTreeMap;

use crate::bets::BetCounts;
use crate::qos::QosReport;
use crate::rtc::dtls::DtlsVersion;
use crate::rtc::srtp::Profile;

/// Why a datagram or packet was dropped. Exported as `tableside_packets_dropped_total{reason}`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(usize)]
pub enum DropReason {
    /// First byte belongs to no protocol we speak (RFC 7983), or the datagram is empty or too long.
    Unrecognised,
    /// STUN that does not parse, or lacks USERNAME, MESSAGE-INTEGRITY or FINGERPRINT.
    StunMalformed,
    /// STUN for a ufrag that is not ours.
    StunUnknownUfrag,
    /// STUN whose MESSAGE-INTEGRITY or FINGERPRINT is wrong.
    StunIntegrity,
    /// STUN from a new address of a source whose checks have failed too often in the last second: not looked at.
    StunRateLimited,
    /// STUN from the address of another session, which is alive there.
    AddressInUse,
    /// DTLS, SRTP or SRTCP from an address that passed no connectivity check.
    UnknownSource,
    /// DTLS that ended the session: handshake failed or wrong fingerprint.
    Dtls,
    /// DTLS that is no ClientHello where one is due, or a malformed one.
    DtlsNoClientHello,
    /// More of a handshake than may wait for its turn, of one session or of all.
    HandshakeQueueFull,
    /// SRTP before the keys are known.
    NoKeys,
    /// RTP that does not parse.
    RtpMalformed,
    /// RTCP that does not parse.
    RtcpMalformed,
    /// SRTP or SRTCP whose tag is wrong.
    SrtpAuthentication,
    /// SRTP or SRTCP seen before, or older than the replay window.
    SrtpReplay,
    /// RTP from a player, an unknown SSRC, or an unknown payload type.
    UnexpectedRtp,
    /// A publisher's packet older than the ring.
    TooLate,
    /// A data channel message that is too large, on an unknown label, or malformed.
    DataChannel,
    /// A packet for another shard whose channel was full.
    ShardQueueFull,
    /// The kernel threw a datagram away because the shard did not receive in time.
    ReceiveBufferFull,
    /// No room for a datagram: the socket's send buffer, or the queue of a TCP connection, is full.
    SendBufferFull,
    /// The kernel refused a datagram (unreachable and the like), or its TCP connection is gone.
    SendError,
}

impl DropReason {
    /// Every reason with its label value, in the order of the discriminants.
    pub const ALL: [(DropReason, &'static str); 22] = [
        (DropReason::Unrecognised, "unrecognised"),
        (DropReason::StunMalformed, "stun_malformed"),
        (DropReason::StunUnknownUfrag, "stun_unknown_ufrag"),
        (DropReason::StunIntegrity, "stun_integrity"),
        (DropReason::StunRateLimited, "stun_rate_limited"),
        (DropReason::AddressInUse, "address_in_use"),
        (DropReason::UnknownSource, "unknown_source"),
        (DropReason::Dtls, "dtls"),
        (DropReason::DtlsNoClientHello, "dtls_no_client_hello"),
        (DropReason::HandshakeQueueFull, "handshake_queue_full"),
        (DropReason::NoKeys, "no_keys"),
        (DropReason::RtpMalformed, "rtp_malformed"),
        (DropReason::RtcpMalformed, "rtcp_malformed"),
        (DropReason::SrtpAuthentication, "srtp_authentication"),
        (DropReason::SrtpReplay, "srtp_replay"),
        (DropReason::UnexpectedRtp, "unexpected_rtp"),
        (DropReason::TooLate, "too_late"),
        (DropReason::DataChannel, "data_channel"),
        (DropReason::ShardQueueFull, "shard_queue_full"),
        (DropReason::ReceiveBufferFull, "receive_buffer_full"),
        (DropReason::SendBufferFull, "send_buffer_full"),
        (DropReason::SendError, "send_error"),
    ];
}

/// Why a session ended. Exported as `tableside_sessions_ended_total{role,cause}`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(usize)]
pub enum EndCause {
    /// DELETE on the session URL.
    Deleted,
    /// The peer closed DTLS.
    PeerClosed,
    /// No valid connectivity check for the consent time (RFC 7675).
    ConsentExpired,
    /// Never connected within the setup time.
    SetupTimeout,
    /// The DTLS handshake failed or the certificate did not match.
    DtlsFailed,
    /// The table stopped: grace time over, or it came back with another codec.
    TableEnded,
    /// The node shuts down.
    Shutdown,
    /// A silent publisher whose table was published anew.
    Replaced,
}

impl EndCause {
    /// Every cause with its label value, in the order of the discriminants.
    pub const ALL: [(EndCause, &'static str); 8] = [
        (EndCause::Deleted, "deleted"),
        (EndCause::PeerClosed, "peer_closed"),
        (EndCause::ConsentExpired, "consent_expired"),
        (EndCause::SetupTimeout, "setup_timeout"),
        (EndCause::DtlsFailed, "dtls_failed"),
        (EndCause::TableEnded, "table_ended"),
        (EndCause::Shutdown, "shutdown"),
        (EndCause::Replaced, "replaced"),
    ];
}

/// Publisher or player.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(usize)]
pub enum Role {
    /// Came through WHIP.
    Publisher,
    /// Came through WHEP.
    Player,
}

/// Counters and gauges of one table on one shard.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TableReport {
    /// Gauge: players connected on this shard.
    pub players: u64,
    /// Gauge: the publisher is connected on this shard and sends.
    pub live: bool,
    /// RTP packets received from the publisher, first copies only, all layers of a simulcast.
    pub packets_ingested: u64,
    /// Their payload bytes.
    pub bytes_ingested: u64,
    /// Video frames received whole from the publisher, of a simulcast those of the best layer that comes.
    pub frames_ingested: u64,
    /// Likewise, those of which a packet never came.
    pub frames_lost_before_ingest: u64,
    /// Video frames that were received whole, one for each player that got them.
    pub frames_forwarded: u64,
    /// Video frames of which a packet never came from the publisher, one for each player.
    pub frames_dropped_ingest_loss: u64,
    /// Video frames of which a packet was lost between shards because a queue was full, one for each player.
    pub frames_dropped_node_queue: u64,
    /// Video frames of which a packet was lost before this node read it, while its receive buffers overflowed, one for each
    /// player.
    pub frames_dropped_node_overload: u64,
    /// Video frames that a player did not get because it went on with another layer, one for each player.
    pub frames_dropped_layer_switch: u64,
    /// Video frames that were not sent to a player whose path did not carry its layer, until it went on with a lesser one; one for
    /// each player.
    pub frames_dropped_congestion: u64,
    /// How often a player went on with another layer.
    pub layer_switches: u64,
    /// RTP packets sealed for players, retransmissions excluded.
    pub packets_forwarded: u64,
    /// Bytes of them on the wire (UDP payload).
    pub bytes_forwarded: u64,
    /// RTX packets sent to players.
    pub retransmissions: u64,
    /// RTX packets sent to players as padding, to find out what their paths carry.
    pub probe_packets: u64,
    /// Sequence numbers players asked for that were not sent again: a repetition is on its way, or there is no room for it.
    pub retransmissions_withheld: u64,
    /// Sequence numbers players asked for that the ring no longer had.
    pub retransmissions_missed: u64,
    /// PLI and FIR received from players.
    pub keyframe_requests_received: u64,
    /// PLI or FIR sent to the publisher.
    pub keyframe_requests_sent: u64,
    /// Gauge: frames per second ingested over the last seconds.
    pub ingest_fps: f64,
    /// Gauge: video and audio payload bits per second ingested over the last seconds.
    pub ingest_bits_per_second: f64,
    /// Gauge: the ring holds a complete GOP, so that a joiner starts at once.
    pub gop_cached: bool,
    /// What players say of it.
    pub qos: QosReport,
}

/// One shard's report.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ShardReport {
    /// By [`DropReason`] discriminant.
    pub dropped: [u64; DropReason::ALL.len()],
    /// By [`Role`], then [`EndCause`] discriminant.
    pub ended: [[u64; EndCause::ALL.len()]; 2],
    /// By [`Role`]: sessions whose answer was sent.
    pub created: [u64; 2],
    /// By [`Role`]: sessions that completed DTLS.
    pub connected: [u64; 2],
    /// By [`DtlsVersion`], then by place in [`Profile::ALL`]: handshakes that led to a connected session.
    pub handshakes: [[u64; Profile::ALL.len()]; DtlsVersion::ALL.len()],
    /// Gauge, by [`Role`]: sessions that exist now.
    pub sessions: [u64; 2],
    /// Sessions whose media went to another address from then on.
    pub address_changes: u64,
    /// Datagrams received and sent, frames of TCP connections among them, and their payload bytes.
    pub datagrams_received: u64,
    /// See `datagrams_received`.
    pub bytes_received: u64,
    /// See `datagrams_received`.
    pub datagrams_sent: u64,
    /// See `datagrams_received`.
    pub bytes_sent: u64,
    /// `sendmsg`-equivalents: runs handed to the kernel.
    pub runs_sent: u64,
    /// Gauge: TCP connections of peers. This and the next two come from whoever drives the shard.
    pub tcp_connections: u64,
    /// TCP connections that peers opened.
    pub tcp_accepted: u64,
    /// Those that ended, in the order of the causes that `net` knows.
    pub tcp_ended: [u64; 8],
    /// What became of bet signals.
    pub bets: BetCounts,
    /// Thread CPU seconds of the shard.
    pub cpu_seconds: f64,
    /// Gauge: the share of its core that the shard's thread used over the last seconds.
    pub utilisation: f64,
    /// Gauge: players it had over the same time, on average.
    pub utilisation_players: f64,
    /// By table name.
    pub tables: BTreeMap<String, TableReport>,
}
