//! What was measured, as a table for people and as JSON for programs.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;

use crate::bettor::BetTally;
use crate::server::Cost;
use crate::tally::{Figures, Received, Sent};
use crate::worker::{GroupTally, Tally};

/// The results.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// When the measurement began, in seconds since 1970.
    pub began: f64,
    /// How long was measured, in seconds.
    pub seconds: f64,
    /// Publishers, if any.
    pub publishers: Option<Publishers>,
    /// Those who watched from the beginning, then those who joined while it was measured.
    pub players: Vec<Players>,
    /// Bits a second to players, UDP payload.
    pub bits_per_second: f64,
    /// What the server's process used, if it was named.
    pub server: Option<Cost>,
}

/// All publishers, from their first packet to the last.
#[derive(Clone, Debug, Serialize)]
pub struct Publishers {
    /// How many offers were made.
    pub requested: u64,
    /// How many were turned down or did not last, by cause.
    pub failures: BTreeMap<String, u64>,
    /// What they sent.
    #[serde(flatten)]
    pub sent: Sent,
}

/// A group of players.
#[derive(Clone, Debug, Serialize)]
pub struct Players {
    /// Which.
    pub group: &'static str,
    /// How many offers were made.
    pub requested: u64,
    /// How many connected.
    pub connected: u64,
    /// How many of them lost no packet.
    pub without_loss: u64,
    /// How many connected and received no RTP packet while it was measured.
    pub silent: u64,
    /// How many were turned down or did not last, by cause.
    pub failures: BTreeMap<String, u64>,
    /// From the offer to the answer, in milliseconds.
    pub answered_ms: Option<Figures>,
    /// From the offer to the end of the DTLS handshake.
    pub ready_ms: Option<Figures>,
    /// From the offer to the first RTP packet.
    pub first_packet_ms: Option<Figures>,
    /// From the offer to the first whole frame, at players that open packets.
    pub first_frame_ms: Option<Figures>,
    /// From the publisher's send call to the receiving kernel, at players that open packets.
    pub delay_ms: Option<Figures>,
    /// Their bet signals, if they sent any.
    pub bets: Option<Bets>,
    /// What they received while it was measured.
    #[serde(flatten)]
    pub received: Received,
}

/// Bet signals of a group of players.
#[derive(Clone, Debug, Serialize)]
pub struct Bets {
    /// How many were sent.
    pub sent: u64,
    /// How many had no outcome in the end.
    pub without_outcome: u64,
    /// First outcomes.
    pub outcomes: BTreeMap<String, u64>,
    /// Second acks.
    pub late: u64,
    /// Acks of what was not sent, or that cannot be read.
    pub strange: u64,
    /// From the send to the first ack, in milliseconds, this generator's own queues included.
    pub round_trip_ms: Option<Figures>,
    /// On the server without the wait for its bet service, as it says.
    pub edge_ms: Option<Figures>,
    /// That wait.
    pub upstream_ms: Option<Figures>,
}

impl Bets {
    fn new(tally: &BetTally) -> Self {
        Self {
            sent: tally.sent,
            without_outcome: tally.without_outcome,
            outcomes: tally.outcomes.clone(),
            late: tally.late,
            strange: tally.strange,
            round_trip_ms: tally.round_trip.figures(),
            edge_ms: tally.edge.figures(),
            upstream_ms: tally.upstream.figures(),
        }
    }
}

impl Report {
    /// Puts together what the threads counted and what the offers met with. `began` and `seconds` as in [`Report`].
    pub fn new(
        began: f64,
        seconds: f64,
        tally: Tally,
        publishers: Option<(u64, BTreeMap<String, u64>)>,
        players: Vec<(&'static str, u64, BTreeMap<String, u64>)>,
        server: Option<Cost>,
    ) -> Self {
        let bytes: u64 = tally.groups.iter().map(|group| group.received.bytes).sum();
        let publishers = publishers.map(|(requested, refused)| Publishers {
            requested,
            failures: sum(refused, &tally.publisher_failures),
            sent: tally.sent,
        });
        let players = players
            .into_iter()
            .zip(tally.groups)
            .map(|((name, requested, refused), group)| Players::new(name, requested, refused, &group))
            .collect();
        let bits_per_second = 8.0 * bytes as f64 / seconds.max(0.001);
        Self { began, seconds, publishers, players, bits_per_second, server }
    }

    /// What went wrong, `None` if nothing did.
    pub fn complaint(&self, no_loss: bool) -> Option<String> {
        let failures = self.players.iter().map(|players| &players.failures);
        let failures: u64 =
            failures.chain(self.publishers.iter().map(|p| &p.failures)).flat_map(BTreeMap::values).sum();
        if failures > 0 {
            return Some(format!("{failures} peers could not join or were lost"));
        }
        let silent = |bets: &Bets| bets.without_outcome + bets.strange;
        let silent: u64 = self.players.iter().filter_map(|players| players.bets.as_ref()).map(silent).sum();
        if silent > 0 {
            return Some(format!("{silent} bet signals had no outcome, or another's"));
        }
        let bad = |received: &Received| {
            received.lost + received.recovered + received.torn_frames + received.changed + received.undecryptable
        };
        let bad: u64 = self.players.iter().map(|players| bad(&players.received)).sum();
        let overflowed: u64 = self.players.iter().map(|players| players.received.overflowed).sum();
        if no_loss && overflowed > 0 {
            return Some(format!(
                "this generator is too slow: its own sockets overflowed {overflowed} times, {bad} lost"
            ));
        }
        if no_loss && bad > 0 {
            return Some(format!("{bad} packets or frames were lost or changed"));
        }
        let nothing = self.players.iter().any(|players| players.requested > 0 && players.received.packets == 0);
        nothing.then(|| "players received nothing".to_owned())
    }

    /// As text.
    pub fn table(&self) -> String {
        let mut text = String::new();
        if let Some(publishers) = &self.publishers {
            let Sent {
                frames,
                keyframes,
                packets,
                refused,
                retransmitted,
                keyframe_requests,
                late_frames,
                left_out,
                ..
            } = publishers.sent;
            heading(&mut text, &format!("publishers: {}", publishers.requested));
            row(&mut text, "frames, keyframes", &format!("{frames}, {keyframes}"));
            row(&mut text, "packets, sent again", &format!("{packets}, {retransmitted}"));
            row(&mut text, "keyframes asked for", &keyframe_requests.to_string());
            if late_frames + refused > 0 {
                row(&mut text, "frames sent late, packets refused", &format!("{late_frames}, {refused}"));
            }
            if left_out > 0 {
                row(&mut text, "frames left out for being late", &left_out.to_string());
            }
            failures(&mut text, &publishers.failures);
        }
        for players in self.players.iter().filter(|players| players.requested > 0) {
            let received = players.received;
            heading(&mut text, &format!("players, {}: {}", players.group, players.requested));
            row(
                &mut text,
                "connected, of these without loss",
                &format!("{}, {}", players.connected, players.without_loss),
            );
            if players.silent > 0 {
                row(&mut text, "connected, RECEIVED NOTHING", &players.silent.to_string());
            }
            for (name, figures) in [
                ("offer to answer", players.answered_ms),
                ("offer to connected", players.ready_ms),
                ("offer to first packet", players.first_packet_ms),
                ("offer to first whole frame", players.first_frame_ms),
                ("delay", players.delay_ms),
            ] {
                times(&mut text, name, figures);
            }
            row(
                &mut text,
                "packets, a second",
                &format!("{}, {:.0}", received.packets, received.packets as f64 / self.seconds),
            );
            row(&mut text, "lost, recovered", &format!("{}, {}", received.lost, received.recovered));
            if received.overflowed > 0 {
                row(&mut text, "OVERFLOWED: this generator is too slow", &format!("{} reads", received.overflowed));
            }
            row(&mut text, "reordered, duplicates", &format!("{}, {}", received.reordered, received.duplicates));
            row(&mut text, "undecryptable, changed", &format!("{}, {}", received.undecryptable, received.changed));
            row(
                &mut text,
                "frames whole, torn (where opened)",
                &format!("{}, {}", received.frames, received.torn_frames),
            );
            row(&mut text, "RTCP packets sent", &received.reports.to_string());
            if received.said > 0 {
                row(&mut text, "reports over a data channel", &received.said.to_string());
            }
            if let Some(bets) = &players.bets {
                bets.describe(&mut text, self.seconds);
            }
            failures(&mut text, &players.failures);
        }
        if let Some(Cost { cpu_nanoseconds_per_packet, cores, resident_bytes, .. }) = self.server {
            heading(&mut text, "the server's process");
            row(&mut text, "CPU, of one", &format!("{:.1} %", 100.0 * cores));
            if let Some(nanoseconds) = cpu_nanoseconds_per_packet {
                row(&mut text, "CPU for each packet to a player", &format!("{:.2} µs", nanoseconds / 1e3));
            }
            row(&mut text, "memory", &format!("{:.1} MiB", resident_bytes as f64 / f64::from(1 << 20)));
        }
        heading(&mut text, &format!("in {:.1} s to players: {:.1} Mbit/s", self.seconds, self.bits_per_second / 1e6));
        text
    }
}

impl Bets {
    fn describe(&self, text: &mut String, seconds: f64) {
        row(text, "bets, a second", &format!("{}, {:.0}", self.sent, self.sent as f64 / seconds));
        for (outcome, count) in &self.outcomes {
            row(text, &format!("  {outcome}"), &count.to_string());
        }
        row(text, "bets without outcome, late acks", &format!("{}, {}", self.without_outcome, self.late));
        if self.strange > 0 {
            row(text, "acks of ANOTHER'S BET", &self.strange.to_string());
        }
        times(text, "bet to outcome", self.round_trip_ms);
        times(text, "of it on the edge", self.edge_ms);
        times(text, "of it the bet service", self.upstream_ms);
    }
}

impl Players {
    fn new(group: &'static str, requested: u64, refused: BTreeMap<String, u64>, tally: &GroupTally) -> Self {
        Self {
            group,
            requested,
            connected: tally.connected,
            without_loss: tally.without_loss,
            silent: tally.silent,
            failures: sum(refused, &tally.failures),
            answered_ms: tally.answered.figures(),
            ready_ms: tally.ready.figures(),
            first_packet_ms: tally.first_packet.figures(),
            first_frame_ms: tally.first_frame.figures(),
            delay_ms: tally.delay.figures(),
            bets: (tally.bets.sent > 0).then(|| Bets::new(&tally.bets)),
            received: tally.received,
        }
    }
}

fn sum(mut one: BTreeMap<String, u64>, other: &BTreeMap<String, u64>) -> BTreeMap<String, u64> {
    for (why, count) in other {
        *one.entry(why.clone()).or_default() += count;
    }
    one
}

// Writing to a string cannot fail.

fn heading(text: &mut String, heading: &str) {
    let _ = writeln!(text, "{heading}");
}

fn row(text: &mut String, name: &str, value: &str) {
    let _ = writeln!(text, "  {name:<34} {value}");
}

fn times(text: &mut String, name: &str, figures: Option<Figures>) {
    if let Some(Figures { count, p50, p95, p99, max }) = figures {
        row(text, name, &format!("p50 {p50:.2}  p95 {p95:.2}  p99 {p99:.2}  max {max:.2} ms  (of {count})"));
    }
}

fn failures(text: &mut String, failures: &BTreeMap<String, u64>) {
    for (why, count) in failures {
        let _ = writeln!(text, "  FAILED {count:>6}  {why}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(received: Received, refused: &[(&str, u64)]) -> Report {
        let refused = refused.iter().map(|(why, count)| ((*why).to_owned(), *count)).collect();
        let group = GroupTally { connected: 3, received, ..GroupTally::default() };
        let tally = Tally { groups: vec![group], ..Tally::default() };
        Report::new(0.0, 10.0, tally, None, vec![("watching", 3, refused)], None)
    }

    #[test]
    fn complaints_are_made_of_what_hurts() {
        let fine = Received { packets: 100, bytes: 1250, ..Received::default() };
        assert_eq!(report(fine, &[]).complaint(true), None);
        assert_eq!(report(fine, &[]).bits_per_second, 1000.0);
        let lossy = report(Received { lost: 2, ..fine }, &[]);
        assert_eq!((lossy.complaint(false), lossy.complaint(true).is_some()), (None, true));
        assert!(report(fine, &[("HTTP 503", 2)]).complaint(false).is_some());
        assert!(report(Received::default(), &[]).complaint(false).is_some_and(|why| why.contains("nothing")));
    }

    #[test]
    fn both_forms_say_the_same() {
        let report = report(Received { packets: 4321, lost: 7, ..Received::default() }, &[("HTTP 503", 2)]);
        let table = report.table();
        assert!(table.contains("4321, 432") && table.contains("FAILED      2  HTTP 503"), "{table}");
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(
            (&json["players"][0]["packets"], &json["players"][0]["failures"]["HTTP 503"]),
            (&4321.into(), &2.into())
        );
    }
}
