//! A player that bets: so many signals a second, each with one outcome, timed from the send to the answer.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use serde::Deserialize;

use crate::channels::Channels;
use crate::client::random;
use crate::tally::Times;

/// The channel of signals and their acks.
pub const BETS: &str = "bets";

/// The channel of round events.
pub const EVENTS: &str = "events";

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
    /// It does not bet yet.
    pub fn new(interval: Duration) -> Self {
        let round = "none".to_owned();
        Self { interval, next: None, run: random(), count: 0, round, waiting: HashMap::new() }
    }

    /// Bets from now on.
    pub fn begin(&mut self, now: Instant) {
        self.next = Some(now + self.wait());
    }

    /// For the next bet: the interval on average, and twice that at most. With a fixed one, each player's bets would meet the frames,
    /// and each other, in the same way all the time, and what is measured would depend on the run.
    fn wait(&self) -> Duration {
        Duration::from_micros(1 + random() % (2 * self.interval.as_micros() as u64).max(1))
    }

    /// Bets no more.
    pub fn stop(&mut self) {
        self.next = None;
    }

    /// Signals without an outcome so far.
    pub fn waiting(&self) -> u64 {
        self.waiting.len() as u64
    }

    /// A message that came on a channel of this label, which the kernel took at `at`.
    pub fn handle_message(&mut self, at: Instant, label: &str, data: &[u8], tally: &mut BetTally) {
        match serde_json::from_slice(data) {
            Ok(Message::Ack { bet_id, status, reason, timing }) if label == BETS => {
                let number = bet_id.parse().ok().filter(|number| *number < self.count);
                let Some(number) = number else {
                    tally.strange += 1;
                    return;
                };
                let Some(sent_at) = self.waiting.remove(&number) else {
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
            Ok(Message::Open { round_id }) => self.round = round_id,
            Ok(_) => {}
            Err(_) => tally.strange += 1,
        }
    }

    /// When to call [`Bettor::handle_timeout`], once the channels are open.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.next
    }

    /// Bets, if it is time.
    pub fn handle_timeout(&mut self, now: Instant, channels: &mut Channels, tally: &mut BetTally) {
        while let Some(due) = self.next.filter(|due| *due <= now && channels.is_open()) {
            self.next = Some(due + self.wait());
            let (number, run) = (self.count, self.run);
            let round = &self.round;
            let text = format!(
                r#"{{"type":"bet","betId":"{number}","roundId":"{round}","idempotencyKey":"{run:016x}-{number}","clientTs":0,"payload":{{"spot":"red","amount":1}}}}"#
            );
            if channels.send(now, BETS, &text) {
                self.count += 1;
                tally.sent += 1;
                self.waiting.insert(number, now);
            }
        }
    }
}
