//! A player that bets: so many signals a second, each with one outcome, timed from the send to the answer.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use serde::Deserialize;
use tableside::rtc::sdp::DtlsRole;

use crate::channels::Channels;
use crate::client::random;
use crate::tally::Times;

/// Labels of the channels, and where they are among them.
const LABELS: &[&str] = &["bets", "events"];
const BETS: usize = 0;

/// What signals met with.
#[derive(Clone, Debug, Default)]
pub struct BetTally {
    /// Signals that were sent.
    pub sent: u64,
    /// First acks, by status, and by reason where there is one.
    pub outcomes: BTreeMap<String, u64>,
    /// Second acks: late answers.
    pub late: u64,
    /// Acks of what was not sent, or that cannot be read.
    pub strange: u64,
    /// Signals without an outcome.
    pub without_outcome: u64,
    /// From the send to the first ack.
    pub round_trip: Times,
    /// On the server, the wait for its bet service apart, as it says.
    pub edge: Times,
    /// The wait for the bet service, as the server says.
    pub upstream: Times,
}

impl BetTally {
    /// Adds another's.
    pub fn add(&mut self, other: &Self) {
        self.sent += other.sent;
        self.late += other.late;
        self.strange += other.strange;
        self.without_outcome += other.without_outcome;
        for (outcome, count) in &other.outcomes {
            *self.outcomes.entry(outcome.clone()).or_default() += count;
        }
        self.round_trip.add(&other.round_trip);
        self.edge.add(&other.edge);
        self.upstream.add(&other.upstream);
    }
}

/// What comes from the server, as far as it is read.
#[derive(Deserialize)]
#[serde(tag = "type")]
enum Message {
    #[serde(rename = "ack", rename_all = "camelCase")]
    Ack { bet_id: String, status: String, reason: Option<String>, timing: Timing },
    #[serde(rename = "round.open", rename_all = "camelCase")]
    Open { round_id: String },
    #[serde(other)]
    Other,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Timing {
    edge_ms: f64,
    upstream_ms: Option<f64>,
}

/// See the module's text.
pub struct Bettor {
    channels: Channels,
    interval: Duration,
    /// When the next signal is due; `None` while it does not bet.
    next: Option<Instant>,
    /// Of its keys: no two runs have the same.
    run: u64,
    count: u64,
    round: String,
    waiting: HashMap<u64, Instant>,
}

impl Bettor {
    /// Of a player that is connected. It does not bet yet.
    pub fn new(now: Instant, role: DtlsRole, interval: Duration) -> Option<Self> {
        let channels = Channels::new(now, role, LABELS)?;
        let round = "none".to_owned();
        Some(Self { channels, interval, next: None, run: random(), count: 0, round, waiting: HashMap::new() })
    }

    /// Bets from now on; the first time of all players is spread over the interval.
    pub fn begin(&mut self, now: Instant) {
        let spread = random() % (self.interval.as_micros() as u64).max(1);
        self.next = Some(now + Duration::from_micros(spread));
    }

    /// Bets no more.
    pub fn stop(&mut self) {
        self.next = None;
    }

    /// Signals without an outcome so far.
    pub fn waiting(&self) -> u64 {
        self.waiting.len() as u64
    }

    /// A decrypted SCTP packet, which the kernel took at `at`.
    pub fn handle_packet(&mut self, at: Instant, packet: &[u8], tally: &mut BetTally) {
        self.channels.handle_packet(at, packet);
        let Self { channels, round, waiting, count, .. } = self;
        channels.poll_messages(at, |channel, data| match serde_json::from_slice(data) {
            Ok(Message::Ack { bet_id, status, reason, timing }) if channel == BETS => {
                let number = bet_id.parse().ok().filter(|number| *number < *count);
                let Some(number) = number else {
                    tally.strange += 1;
                    return;
                };
                let Some(sent_at) = waiting.remove(&number) else {
                    tally.late += 1;
                    return;
                };
                let outcome = reason.map_or_else(|| status.clone(), |reason| format!("{status}, {reason}"));
                *tally.outcomes.entry(outcome).or_default() += 1;
                let micros = |ms: f64| (ms * 1000.0) as u64;
                tally.round_trip.record(at.saturating_duration_since(sent_at).as_micros() as u64);
                tally.edge.record(micros(timing.edge_ms));
                timing.upstream_ms.into_iter().for_each(|ms| tally.upstream.record(micros(ms)));
            }
            Ok(Message::Open { round_id }) => *round = round_id,
            Ok(_) => {}
            Err(_) => tally.strange += 1,
        });
    }

    /// When to call [`Bettor::handle_timeout`].
    pub fn poll_timeout(&self) -> Option<Instant> {
        let next = self.next.filter(|_| self.channels.is_open());
        [self.channels.poll_timeout(), next].into_iter().flatten().min()
    }

    /// Bets, if it is time.
    pub fn handle_timeout(&mut self, now: Instant, tally: &mut BetTally) {
        if self.channels.poll_timeout().is_some_and(|at| at <= now) {
            self.channels.handle_timeout(now);
        }
        while let Some(due) = self.next.filter(|due| *due <= now && self.channels.is_open()) {
            self.next = Some(due + self.interval);
            let (number, run) = (self.count, self.run);
            let round = &self.round;
            let text = format!(
                r#"{{"type":"bet","betId":"{number}","roundId":"{round}","idempotencyKey":"{run:016x}-{number}","clientTs":0,"payload":{{"spot":"red","amount":1}}}}"#
            );
            if self.channels.send(now, BETS, &text) {
                self.count += 1;
                tally.sent += 1;
                self.waiting.insert(number, now);
            }
        }
    }

    /// Hands each packet that is due to `send`.
    pub fn poll_transmit(&mut self, now: Instant, send: impl FnMut(&[u8])) {
        self.channels.poll_transmit(now, send);
    }
}

#[cfg(test)]
mod tests {
    use tableside::rtc::data_channel::{ChannelEvent, ChannelId, DataChannels, SctpConfig};

    use super::*;

    /// A bettor at a gateway's own channels.
    struct Table {
        now: Instant,
        bettor: Bettor,
        server: DataChannels,
        tally: BetTally,
        events: Vec<ChannelEvent>,
    }

    impl Table {
        fn new(role: DtlsRole) -> Self {
            let now = Instant::now();
            let bettor = Bettor::new(now, role, Duration::from_millis(100)).expect("an association");
            let server = DataChannels::new(&SctpConfig::new(65_536));
            let mut table = Self { now, bettor, server, tally: BetTally::default(), events: Vec::new() };
            table.exchange();
            table
        }

        fn exchange(&mut self) {
            loop {
                let (mut up, mut down) = (Vec::new(), Vec::new());
                self.bettor.poll_transmit(self.now, |packet| up.push(packet.to_vec()));
                up.iter().for_each(|packet| self.server.handle_packet(self.now, packet));
                self.server.poll_events(self.now, |event| self.events.push(event));
                self.server.poll_transmit(self.now, |packet| down.push(packet.to_vec()));
                down.iter().for_each(|packet| self.bettor.handle_packet(self.now, packet, &mut self.tally));
                if up.is_empty() && down.is_empty() {
                    return;
                }
            }
        }

        fn pass(&mut self, time: Duration) {
            self.now += time;
            self.bettor.handle_timeout(self.now, &mut self.tally);
            self.exchange();
        }

        /// The channel of this label, and what came on it since the last time.
        fn bets(&mut self) -> (ChannelId, Vec<serde_json::Value>) {
            let opened = self.events.iter().find_map(|event| match event {
                ChannelEvent::Opened { id, label } if label == "bets" => Some(*id),
                _ => None,
            });
            let channel = opened.expect("it opens the channel");
            let mut came = Vec::new();
            self.events.retain(|event| match event {
                ChannelEvent::Message { id, data } if *id == channel => {
                    came.push(serde_json::from_slice(data).expect("JSON"));
                    false
                }
                _ => true,
            });
            (channel, came)
        }

        fn say(&mut self, channel: ChannelId, text: &str) {
            self.server.send(self.now, channel, text).expect("room");
            self.exchange();
        }
    }

    fn ack(bet_id: &str, status: &str) -> String {
        format!(r#"{{"type":"ack","betId":"{bet_id}","status":"{status}","timing":{{"receivedTs":1,"edgeMs":0.25}}}}"#)
    }

    #[test]
    fn each_signal_is_counted_until_it_has_its_outcome() {
        for role in [DtlsRole::Client, DtlsRole::Server] {
            let mut table = Table::new(role);
            table.bettor.begin(table.now);
            (0..10).for_each(|_| table.pass(Duration::from_millis(100)));
            table.bettor.stop();
            table.pass(Duration::from_secs(1));
            let (channel, came) = table.bets();
            assert_eq!((came.len(), table.tally.sent, table.bettor.waiting()), (10, 10, 10));
            let keys: std::collections::HashSet<_> = came.iter().map(|bet| bet["idempotencyKey"].to_string()).collect();
            assert_eq!(keys.len(), 10);
            for bet in &came[..9] {
                table.say(channel, &ack(bet["betId"].as_str().expect("a name"), "accepted"));
            }
            table.say(channel, &ack("0", "accepted"));
            table.say(channel, &ack("77", "accepted"));
            table.say(channel, "nonsense");
            assert_eq!(table.tally.outcomes, BTreeMap::from([("accepted".to_owned(), 9)]));
            assert_eq!((table.bettor.waiting(), table.tally.late, table.tally.strange), (1, 1, 2));
            assert_eq!((table.tally.round_trip.len(), table.tally.upstream.len()), (9, 0));
        }
    }

    #[test]
    fn it_bets_in_the_round_that_is_open() {
        let mut table = Table::new(DtlsRole::Client);
        let events = table.events.iter().find_map(|event| match event {
            ChannelEvent::Opened { id, label } if label == "events" => Some(*id),
            _ => None,
        });
        table.say(events.expect("it opens the channel"), r#"{"type":"round.open","roundId":"r-7","captureTs":1}"#);
        table.bettor.begin(table.now);
        table.pass(Duration::from_millis(100));
        assert_eq!(table.bets().1[0]["roundId"], "r-7");
    }
}
