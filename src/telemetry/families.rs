//! The catalogue: every metric that is computed from shard reports, one row each.

use prometheus::proto::MetricType;

use crate::bets::{AbortCause, Refused, Status};
use crate::fleet::RefusedOffer;
use crate::net::TcpEnd;
use crate::qos::{Histogram, QosReport, Shares, Spread};
use crate::rtc::dtls::DtlsVersion;
use crate::rtc::srtp::Profile;
use crate::shard::{DropReason, EndCause, Role, TableReport};
use crate::traces::TraceReport;

use super::totals::Totals;

/// One metric: its name, what it means, and how its samples come out of the reports.
pub(super) struct Family {
    pub name: &'static str,
    /// The meaning, with the unit.
    pub help: &'static str,
    pub kind: MetricType,
    pub labels: &'static [&'static str],
    /// Label values, in the order of `labels`, and the value.
    pub samples: fn(&Totals) -> Vec<Sample>,
}

/// Label values and the value.
pub(super) type Sample = (Vec<String>, f64);

/// A histogram of durations for each table.
pub(super) struct TableHistogram {
    pub name: &'static str,
    /// The meaning; the unit is seconds.
    pub help: &'static str,
    pub of: fn(&QosReport) -> &Histogram,
}

pub(super) const TABLE_HISTOGRAMS: &[TableHistogram] = &[
    TableHistogram {
        name: "tableside_player_jitter_buffer_seconds",
        help: "How long a video frame waits in a player's jitter buffer, in seconds; each report of a player counts once.",
        of: |qos| &qos.jitter_buffer,
    },
    TableHistogram {
        name: "tableside_player_round_trip_seconds",
        help: "Round trip to players by RTCP, in seconds; each report of a player counts once.",
        of: |qos| &qos.round_trip,
    },
    TableHistogram {
        name: "tableside_player_capture_to_shown_seconds",
        help: "How old a video frame is when a player shows it, from its capture, in seconds; each report of a player that knows counts once.",
        of: |qos| &qos.capture_to_shown,
    },
];

/// Name and meaning of the histogram of bets by leg.
pub(super) const BET_RTT: (&str, &str) = (
    "tableside_bet_signal_rtt_seconds",
    "Round trip of bet signals that the service answered in time, in seconds, by leg: last_mile is player to edge and back by RTCP, edge is time spent on it, upstream is the service with the way there, total is the player's own clock.",
);

/// Name and meaning of the histogram of settlements.
pub(super) const ROUND_SETTLE: (&str, &str) =
    ("tableside_round_settle_seconds", "From the close of a round to its result, in seconds.");

/// One counter of a table.
type Count = fn(&TableReport) -> u64;

/// Label values of [`Role`], in the order of its discriminants.
const ROLES: [(Role, &str); 2] = [(Role::Publisher, "publisher"), (Role::Player, "player")];

/// `cause` of `tableside_frames_total{outcome="dropped"}`, with its count where shards report one by now.
const FRAME_DROP_CAUSES: [(&str, Count); 9] = [
    ("ingest_loss", |t| t.frames_dropped_ingest_loss + t.qos.losses.ingest_loss),
    ("relay_loss", |_| 0),
    ("node_queue", |t| t.frames_dropped_node_queue + t.qos.losses.node_queue),
    ("node_overload", |t| t.frames_dropped_node_overload + t.qos.losses.node_overload),
    ("layer_switch", |t| t.frames_dropped_layer_switch),
    ("congestion", |t| t.frames_dropped_congestion),
    ("network", |t| t.qos.losses.network),
    ("decoder", |t| t.qos.losses.decoder),
    ("unknown", |t| t.qos.losses.unknown),
];

pub(super) const FAMILIES: &[Family] = &[
    gauge("tableside_players", "Players connected now.", &["table"], |t| by_table(t, |r| r.players as f64)),
    gauge("tableside_table_live", "1 while a publisher is connected and sends, else 0.", &["table"], |t| {
        by_table(t, |r| f64::from(r.live))
    }),
    gauge(
        "tableside_table_gop_cached",
        "1 while the ring holds a complete group of pictures, so that a joiner starts at once, else 0.",
        &["table"],
        |t| by_table(t, |r| f64::from(r.gop_cached)),
    ),
    counter(
        "tableside_frames_total",
        "Video frames for players, each player's for itself: sent (outcome forwarded, cause none) or lost (outcome dropped), by cause.",
        &["table", "outcome", "cause"],
        frames,
    ),
    counter(
        "tableside_ingested_frames_total",
        "Video frames of publishers, of a simulcast those of the best layer that comes: received whole, or lost in part or altogether.",
        &["table", "outcome"],
        ingested_frames,
    ),
    gauge(
        "tableside_ingest_frames_per_second",
        "Video frames per second from the publisher, over the last seconds.",
        &["table"],
        |t| by_table(t, |r| r.ingest_fps),
    ),
    gauge(
        "tableside_ingest_bytes_per_second",
        "RTP payload bytes per second from the publisher, audio and video, over the last seconds.",
        &["table"],
        |t| by_table(t, |r| r.ingest_bits_per_second / 8.0),
    ),
    counter(
        "tableside_ingested_packets_total",
        "RTP packets received from publishers, first copies only, all layers of a simulcast.",
        &["table"],
        |t| by_table(t, |r| r.packets_ingested as f64),
    ),
    counter("tableside_ingested_bytes_total", "RTP payload bytes of the ingested packets.", &["table"], |t| {
        by_table(t, |r| r.bytes_ingested as f64)
    }),
    counter(
        "tableside_forwarded_packets_total",
        "RTP packets sealed for players, retransmissions excluded.",
        &["table"],
        |t| by_table(t, |r| r.packets_forwarded as f64),
    ),
    counter(
        "tableside_layer_switches_total",
        "How often a player went on with another layer of a publisher's simulcast.",
        &["table"],
        |t| by_table(t, |r| r.layer_switches as f64),
    ),
    counter("tableside_forwarded_bytes_total", "UDP payload bytes of the forwarded packets.", &["table"], |t| {
        by_table(t, |r| r.bytes_forwarded as f64)
    }),
    counter(
        "tableside_retransmissions_total",
        "RTX packets sent to players: repairs, and what a keyframe would overtake.",
        &["table"],
        |t| by_table(t, |r| r.retransmissions as f64),
    ),
    counter(
        "tableside_probe_packets_total",
        "RTX packets sent to players as padding, to find out whether their paths carry a better layer.",
        &["table"],
        |t| by_table(t, |r| r.probe_packets as f64),
    ),
    counter(
        "tableside_retransmissions_withheld_total",
        "Packets that players asked for with a NACK and that were not sent again: a repetition may be on its way, or there is no room for it on the path or in what a player may ask for.",
        &["table"],
        |t| by_table(t, |r| r.retransmissions_withheld as f64),
    ),
    counter(
        "tableside_retransmissions_missed_total",
        "Packets that players asked for with a NACK and the ring no longer had.",
        &["table"],
        |t| by_table(t, |r| r.retransmissions_missed as f64),
    ),
    counter(
        "tableside_keyframe_requests_total",
        "PLI and FIR, received from players or sent to the publisher.",
        &["table", "direction"],
        keyframe_requests,
    ),
    gauge(
        "tableside_fps_ratio",
        "Frames that players decoded of those that the table offered them: mean of the players that report, over the last 4 to 8 seconds, who falls silent counting as 0; 1 where there was no report.",
        &["table"],
        |t| seen(t, |qos| qos.frames_seen),
    ),
    gauge(
        "tableside_bitrate_ratio",
        "Bytes of video that players received of those that the table offered them: mean of the players that report, over the last 4 to 8 seconds, who falls silent counting as 0; 1 where there was no report.",
        &["table"],
        |t| seen(t, |qos| qos.bytes_seen),
    ),
    gauge(
        "tableside_player_skew_seconds",
        "How far apart players see the same, in seconds: of the times from capture to screen that they reported over the last 4 to 8 seconds, the 95th percentile minus the 5th; 0 where fewer than two did.",
        &["table"],
        skew,
    ),
    counter("tableside_player_reports_total", "Reports of players on how they play.", &["table"], |t| {
        by_table(t, |r| r.qos.reports as f64)
    }),
    counter(
        "tableside_player_frames_missed_total",
        "Frames offered to players that they never decoded, by their reports; each player's counts.",
        &["table"],
        |t| by_table(t, |r| r.qos.frames_missed as f64),
    ),
    counter(
        "tableside_player_frames_dropped_total",
        "Frames that players dropped by themselves, by their reports: too late for the picture, or for a slow decoder.",
        &["table"],
        |t| by_table(t, |r| r.qos.frames_dropped as f64),
    ),
    counter(
        "tableside_player_freezes_total",
        "How often the picture of a player stood: by its browser's count, and where nothing was decoded between two reports.",
        &["table"],
        |t| by_table(t, |r| r.qos.freezes as f64),
    ),
    counter(
        "tableside_player_freeze_seconds_total",
        "Seconds for which pictures of players stood, all players' together; one that still stands is counted report by report.",
        &["table"],
        |t| by_table(t, |r| r.qos.frozen.as_secs_f64()),
    ),
    counter(
        "tableside_player_packets_lost_total",
        "RTP packets lost on the way to players, repaired ones among them, by their reports; each player's counts.",
        &["table"],
        |t| by_table(t, |r| r.qos.packets_lost as f64),
    ),
    gauge("tableside_sessions", "WHIP (publisher) and WHEP (player) sessions that exist now.", &["role"], |t| {
        by_role(t, |shard, role| shard.sessions[role])
    }),
    gauge(
        "tableside_sessions_half_open",
        "Sessions that were answered and have not completed the DTLS handshake.",
        &[],
        |t| vec![(Vec::new(), t.admission().half_open as f64)],
    ),
    gauge("tableside_offers_waiting", "Offers in the admission queue now.", &[], |t| {
        vec![(Vec::new(), t.admission().waiting as f64)]
    }),
    counter("tableside_offers_refused_total", "Offers refused by admission with 503, by reason.", &["reason"], |t| {
        let value = |(reason, label): (RefusedOffer, &str)| {
            (vec![label.to_owned()], t.admission().refused[reason as usize] as f64)
        };
        RefusedOffer::ALL.into_iter().map(value).collect()
    }),
    counter("tableside_sessions_created_total", "Sessions whose SDP answer was sent.", &["role"], |t| {
        by_role(t, |shard, role| shard.created[role])
    }),
    counter("tableside_sessions_connected_total", "Sessions that completed the DTLS handshake.", &["role"], |t| {
        by_role(t, |shard, role| shard.connected[role])
    }),
    counter(
        "tableside_dtls_handshakes_total",
        "DTLS handshakes of sessions that connected, by version and by the SRTP profile that they agreed on.",
        &["version", "profile"],
        dtls_handshakes,
    ),
    counter("tableside_sessions_ended_total", "Sessions that ended, by cause.", &["role", "cause"], sessions_ended),
    counter(
        "tableside_bet_signals_total",
        "Bet signals by first outcome, repeated ones included; a late answer is not counted again.",
        &["outcome"],
        |t| {
            let bets = t.bets();
            let value =
                |(status, label): (Status, &str)| (vec![label.to_owned()], bets.outcomes[status as usize] as f64);
            Status::ALL.into_iter().map(value).collect()
        },
    ),
    counter(
        "tableside_bet_signals_refused_total",
        "Bet signals that were not passed on, by reason.",
        &["reason"],
        |t| {
            let bets = t.bets();
            let value =
                |(reason, label): (Refused, &str)| (vec![label.to_owned()], bets.refused[reason as usize] as f64);
            Refused::ALL.into_iter().map(value).collect()
        },
    ),
    counter(
        "tableside_bet_signals_late_total",
        "Answers of the bet service that were told to players after they had been told unconfirmed.",
        &[],
        |t| vec![(Vec::new(), t.bets().late as f64)],
    ),
    counter(
        "tableside_round_aborts_total",
        "Rounds that ended without a result: declared void, closed without a result for two minutes, or superseded by the next.",
        &["table", "cause"],
        round_aborts,
    ),
    counter(
        "tableside_audit_records_total",
        "Records of bet signals that were written to the audit trail.",
        &[],
        |t| one(t.audit().records as f64),
    ),
    counter(
        "tableside_audit_records_lost_total",
        "Records of bet signals that could not be written; the audit trail says so itself.",
        &[],
        |t| one(t.audit().lost as f64),
    ),
    counter("tableside_audit_write_errors_total", "How often the audit trail could not be written.", &[], |t| {
        one(t.audit().write_errors as f64)
    }),
    counter(
        "tableside_audit_outcomes_told_early_total",
        "With audit.fsync = always: outcomes that were told before their record was on the disk, because it failed or took more than a second.",
        &[],
        |t| one(t.audit().told_early as f64),
    ),
    counter(
        "tableside_audit_trails_replaced_total",
        "Audit trails that were begun because the directory did not hold the one of which the sink has checkpoints; see audit.when_failing.",
        &[],
        |t| one(t.audit().replaced as f64),
    ),
    counter("tableside_audit_syncs_total", "How often records were forced to the disk.", &[], |t| {
        one(t.audit().syncs as f64)
    }),
    counter("tableside_audit_checkpoints_total", "Checkpoints that were signed.", &[], |t| {
        one(t.audit().checkpoints as f64)
    }),
    counter("tableside_audit_segments_shipped_total", "Segments that were copied to the audit sink.", &[], |t| {
        one(t.audit().shipped as f64)
    }),
    counter("tableside_audit_ship_errors_total", "How often the audit sink did not take something.", &[], |t| {
        one(t.audit().ship_errors as f64)
    }),
    gauge("tableside_audit_segments_unshipped", "Finished segments that are not in the audit sink yet.", &[], |t| {
        one(t.audit().unshipped as f64)
    }),
    gauge("tableside_audit_backlog_records", "Records that wait for the writer of the audit trail.", &[], |t| {
        one(t.audit().backlog as f64)
    }),
    gauge(
        "tableside_audit_lag_seconds",
        "How long the oldest record that is not as durable as audit.fsync wants it has waited, in seconds; 0 for none.",
        &[],
        |t| one(t.audit().lag),
    ),
    gauge(
        "tableside_audit_failing",
        "1 while the audit trail cannot be written, so that bets are refused or go unrecorded, as audit.when_failing says, else 0.",
        &[],
        |t| one(f64::from(t.audit().failing)),
    ),
    counter(
        "tableside_trace_spans_total",
        "Spans of traced bet signals: exported to the collector, dropped because too many waited, or failed there.",
        &["result"],
        |t| {
            let TraceReport { exported, dropped, failed } = *t.traces();
            let results = [("exported", exported), ("dropped", dropped), ("failed", failed)];
            results.into_iter().map(|(result, count)| (vec![result.to_owned()], count as f64)).collect()
        },
    ),
    counter("tableside_packets_dropped_total", "Datagrams and packets dropped, by reason.", &["reason"], |t| {
        let value = |(reason, label): (DropReason, &str)| {
            (vec![label.to_owned()], t.sum(|shard| shard.dropped[reason as usize]))
        };
        DropReason::ALL.into_iter().map(value).collect()
    }),
    counter(
        "tableside_address_changes_total",
        "Sessions whose media goes to another address than before: NAT rebinding, a change of network.",
        &[],
        |t| vec![(Vec::new(), t.sum(|shard| shard.address_changes))],
    ),
    gauge("tableside_ice_tcp_connections", "TCP connections of peers that stand now.", &[], |t| {
        vec![(Vec::new(), t.sum(|shard| shard.tcp_connections))]
    }),
    counter("tableside_ice_tcp_connections_accepted_total", "TCP connections that peers opened.", &[], |t| {
        vec![(Vec::new(), t.sum(|shard| shard.tcp_accepted))]
    }),
    counter("tableside_ice_tcp_connections_ended_total", "TCP connections that ended, by cause.", &["cause"], |t| {
        let value =
            |(cause, label): (TcpEnd, &str)| (vec![label.to_owned()], t.sum(|shard| shard.tcp_ended[cause as usize]));
        TcpEnd::ALL.into_iter().map(value).collect()
    }),
    counter("tableside_datagrams_total", "UDP datagrams and TCP frames received and sent.", &["direction"], |t| {
        by_direction(t.sum(|shard| shard.datagrams_received), t.sum(|shard| shard.datagrams_sent))
    }),
    counter(
        "tableside_datagram_bytes_total",
        "Bytes received and sent in UDP datagrams and TCP frames.",
        &["direction"],
        |t| by_direction(t.sum(|shard| shard.bytes_received), t.sum(|shard| shard.bytes_sent)),
    ),
    counter("tableside_send_runs_total", "Runs of datagrams handed to the kernel, one sendmsg each.", &[], |t| {
        vec![(Vec::new(), t.sum(|shard| shard.runs_sent))]
    }),
    counter("tableside_shard_cpu_seconds_total", "CPU seconds of the shard's thread.", &["shard"], |t| {
        t.shards().iter().enumerate().map(|(index, shard)| (vec![index.to_string()], shard.cpu_seconds)).collect()
    }),
    gauge(
        "tableside_shard_utilisation_ratio",
        "Share of its core that the shard's thread used over the last seconds; above a limit players are refused.",
        &["shard"],
        |t| t.shards().iter().enumerate().map(|(index, shard)| (vec![index.to_string()], shard.utilisation)).collect(),
    ),
    gauge(
        "tableside_node_tuning_ok",
        "1 where the node is set up as the gateway wants it and the kernel granted what was asked, else 0.",
        &["setting"],
        |t| t.tuning().map(|(setting, ok)| (vec![setting.to_owned()], f64::from(ok))).collect(),
    ),
];

/// The only sample of a metric without labels.
fn one(value: f64) -> Vec<Sample> {
    vec![(Vec::new(), value)]
}

pub(super) const fn gauge(
    name: &'static str,
    help: &'static str,
    labels: &'static [&'static str],
    samples: fn(&Totals) -> Vec<Sample>,
) -> Family {
    Family { name, help, kind: MetricType::GAUGE, labels, samples }
}

pub(super) const fn counter(
    name: &'static str,
    help: &'static str,
    labels: &'static [&'static str],
    samples: fn(&Totals) -> Vec<Sample>,
) -> Family {
    Family { name, help, kind: MetricType::COUNTER, labels, samples }
}

fn by_table(totals: &Totals, value: impl Fn(&TableReport) -> f64) -> Vec<Sample> {
    totals.by_table(value).into_iter().map(|(table, value)| (vec![table.to_owned()], value)).collect()
}

/// The mean of all shards' players; they are added up before they are divided.
fn seen(totals: &Totals, shares: impl Fn(&QosReport) -> Shares) -> Vec<Sample> {
    let all = totals.fold_by_table(|sum: &mut Shares, table| *sum = sum.plus(shares(&table.qos)));
    all.into_iter().map(|(table, shares)| (vec![table.to_owned()], shares.mean())).collect()
}

/// Likewise.
fn skew(totals: &Totals) -> Vec<Sample> {
    let all = totals.fold_by_table(|sum: &mut Spread, table| sum.add(&table.qos.skew));
    all.into_iter().map(|(table, spread)| (vec![table.to_owned()], spread.width())).collect()
}

fn by_role(totals: &Totals, value: impl Fn(&crate::shard::ShardReport, usize) -> u64) -> Vec<Sample> {
    let sample =
        |(role, label): (Role, &str)| (vec![label.to_owned()], totals.sum(|shard| value(shard, role as usize)));
    ROLES.into_iter().map(sample).collect()
}

fn ingested_frames(totals: &Totals) -> Vec<Sample> {
    let whole = totals.by_table(|r| r.frames_ingested as f64).into_iter();
    let lost = totals.by_table(|r| r.frames_lost_before_ingest as f64).into_iter();
    let whole = whole.map(|(table, n)| (vec![table.to_owned(), "whole".to_owned()], n));
    whole.chain(lost.map(|(table, n)| (vec![table.to_owned(), "lost".to_owned()], n))).collect()
}

fn by_direction(received: f64, sent: f64) -> Vec<Sample> {
    vec![(vec!["received".to_owned()], received), (vec!["sent".to_owned()], sent)]
}

fn frames(totals: &Totals) -> Vec<Sample> {
    let labels = |table: &str, outcome: &str, cause: &str| vec![table.to_owned(), outcome.to_owned(), cause.to_owned()];
    let forwarded = totals.by_table(|r| r.frames_forwarded as f64).into_iter();
    let mut samples: Vec<_> = forwarded.map(|(table, n)| (labels(table, "forwarded", "none"), n)).collect();
    for (cause, count) in FRAME_DROP_CAUSES {
        let dropped = totals.by_table(|r| count(r) as f64).into_iter();
        samples.extend(dropped.map(|(table, n)| (labels(table, "dropped", cause), n)));
    }
    samples
}

fn round_aborts(totals: &Totals) -> Vec<Sample> {
    let counted = &totals.rounds().aborts;
    let sample = |table: &str, (cause, label): (AbortCause, &str)| {
        let count = counted.get(table).map_or(0, |causes| causes[cause as usize]);
        (vec![table.to_owned(), label.to_owned()], count as f64)
    };
    totals.tables().into_iter().flat_map(|table| AbortCause::ALL.map(|cause| sample(table, cause))).collect()
}

fn keyframe_requests(totals: &Totals) -> Vec<Sample> {
    let received = totals.by_table(|r| r.keyframe_requests_received as f64).into_iter();
    let sent = totals.by_table(|r| r.keyframe_requests_sent as f64).into_iter();
    let received = received.map(|(table, n)| (vec![table.to_owned(), "received".to_owned()], n));
    received.chain(sent.map(|(table, n)| (vec![table.to_owned(), "sent".to_owned()], n))).collect()
}

fn dtls_handshakes(totals: &Totals) -> Vec<Sample> {
    let mut samples = Vec::new();
    for version in DtlsVersion::ALL {
        for (at, profile) in Profile::ALL.into_iter().enumerate() {
            let count = totals.sum(|shard| shard.handshakes[version as usize][at]);
            samples.push((vec![version_label(version).to_owned(), profile_label(profile).to_owned()], count));
        }
    }
    samples
}

fn version_label(version: DtlsVersion) -> &'static str {
    match version {
        DtlsVersion::Dtls12 => "1.2",
        DtlsVersion::Dtls13 => "1.3",
    }
}

fn profile_label(profile: Profile) -> &'static str {
    match profile {
        Profile::Aes128CmSha1_80 => "aes128_cm_sha1_80",
        Profile::AeadAes128Gcm => "aead_aes_128_gcm",
        Profile::AeadAes256Gcm => "aead_aes_256_gcm",
    }
}

fn sessions_ended(totals: &Totals) -> Vec<Sample> {
    let sample = |(role, role_label): (Role, &str), (cause, cause_label): (EndCause, &str)| {
        let count = totals.sum(|shard| shard.ended[role as usize][cause as usize]);
        (vec![role_label.to_owned(), cause_label.to_owned()], count)
    };
    ROLES.into_iter().flat_map(|role| EndCause::ALL.into_iter().map(move |cause| sample(role, cause))).collect()
}
