//! The node's side: a desk between players and a connector, which counts what was sent and what came of it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::json;
use tableside::bet_service::{Link, Said, TableChange};
use tableside::bets::{Arrival, Decision, Desk, DeskLimits, Outcome, PlayerId, RoundEvent, Signal};

/// Far longer than anything here takes.
pub const LIMIT: Duration = Duration::from_secs(30);

/// A signal and what came of it.
#[derive(Clone, Debug)]
pub struct Sent {
    pub player: String,
    pub key: String,
    pub first: Option<(Outcome, Duration)>,
    pub late: Option<Outcome>,
    since: Instant,
}

/// A node.
pub struct Node {
    link: Link,
    desk: Desk<usize>,
    limits: DeskLimits,
    pub sent: Vec<Sent>,
    pub rounds: Vec<(String, RoundEvent)>,
}

impl Node {
    pub fn new(link: Link) -> Self {
        Self::with_limits(link, DeskLimits { waiting_per_player: 100_000, ..DeskLimits::default() })
    }

    pub fn with_limits(link: Link, limits: DeskLimits) -> Self {
        Self { link, desk: Desk::new(limits), limits, sent: Vec::new(), rounds: Vec::new() }
    }

    /// Forgets every key, as a node that is started anew. Nothing may be under way.
    pub fn forget(&mut self) {
        self.desk = Desk::new(self.limits);
    }

    pub fn report(&self) -> tableside::bet_service::ServiceReport {
        self.link.meter.report()
    }

    pub fn table(&self, name: &str, live: bool) {
        self.link.tables.send(TableChange { table: name.into(), live }).expect("the connector listens");
    }

    /// A player bets; the number of the signal.
    pub fn bet(&mut self, player: &str, table: &str, round: &str, key: &str, amount: u64) -> usize {
        let text = json!({
            "type": "bet", "betId": key, "roundId": round, "idempotencyKey": key, "clientTs": 0,
            "payload": { "spot": "red", "amount": amount },
        });
        let (number, now) = (self.sent.len(), Instant::now());
        let (player_id, signal) =
            (PlayerId::new(player).expect("a player"), Signal::parse(text.to_string().as_bytes()));
        self.sent.push(Sent { player: player.to_owned(), key: key.to_owned(), first: None, late: None, since: now });
        let signal = signal.expect("a signal");
        let arrival =
            Arrival { from: number, player: player_id, table: table.into(), edge_in: now, last_mile: None, signal };
        match self.desk.handle_signal(now, arrival) {
            // As the desk's task does it.
            Decision::PassOn(passed) => {
                let ticket = passed.ticket;
                if self.link.requests.try_send(passed).is_err() {
                    self.desk.withdraw(ticket);
                }
            }
            Decision::Answer(answer) => self.tell(answer.to, answer.outcome, answer.late),
            Decision::Wait => {}
        }
        self.drain();
        number
    }

    /// Works until `done` says so.
    pub async fn until(&mut self, what: &str, mut done: impl FnMut(&Self) -> bool) {
        let begun = Instant::now();
        while !done(self) {
            let tally = self.tally();
            assert!(begun.elapsed() < LIMIT, "{what}: not within {LIMIT:?}; {} signals, {tally:?}", self.sent.len());
            self.work(what, Instant::now() + Duration::from_millis(100)).await;
        }
    }

    /// Works for some time.
    pub async fn during(&mut self, time: Duration) {
        let end = Instant::now() + time;
        while Instant::now() < end {
            self.work("some time", end).await;
        }
    }

    /// Takes what comes next, or what time brings, until `end` at the latest.
    async fn work(&mut self, what: &str, end: Instant) {
        let wake = self.desk.poll_timeout().unwrap_or(end).min(end);
        match tokio::time::timeout_at(wake.into(), self.link.said.recv()).await {
            Ok(Some(said)) => self.handle(said),
            Ok(None) => panic!("{what}: the connector has ended"),
            Err(_) => {}
        }
        self.desk.handle_timeout(Instant::now());
        self.drain();
    }

    /// Works until every signal has its first outcome.
    pub async fn all_told(&mut self) {
        self.until("every signal has an outcome", |node| node.sent.iter().all(|sent| sent.first.is_some())).await;
    }

    /// How many signals had which first outcome.
    pub fn tally(&self) -> BTreeMap<String, usize> {
        let mut tally = BTreeMap::new();
        for sent in &self.sent {
            let name = match &sent.first {
                Some((outcome, _)) => {
                    format!(
                        "{:?}{}",
                        outcome.status(),
                        outcome.reason().map(|reason| format!(" {reason}")).unwrap_or_default()
                    )
                }
                None => "none".to_owned(),
            };
            *tally.entry(name.to_lowercase()).or_insert(0) += 1;
        }
        tally
    }

    /// The round that is open at a table, as far as the node was told.
    pub fn open_round(&self, table: &str) -> Option<String> {
        let of_table = self.rounds.iter().rev().filter(|(name, _)| name == table).map(|(_, event)| event);
        of_table.clone().find(|event| event.kind.as_str() == "round.open").map(|event| event.round_id.to_string())
    }

    /// Kinds and rounds that were told of a table, in order.
    pub fn told(&self, table: &str) -> Vec<(String, String)> {
        let of_table = self.rounds.iter().filter(|(name, _)| name == table);
        of_table.map(|(_, event)| (event.kind.as_str().to_owned(), event.round_id.to_string())).collect()
    }

    /// Hangs up.
    pub fn end(self) {}

    fn handle(&mut self, said: Said) {
        match said {
            Said::Answer { ticket, outcome } => _ = self.desk.handle_answer(Instant::now(), ticket, &outcome),
            Said::NotSent(ticket) => _ = self.desk.withdraw(ticket),
            Said::Lost(ticket) => _ = self.desk.handle_loss(ticket),
            Said::Round { table, event } => self.rounds.push((table.to_string(), event)),
        }
    }

    fn drain(&mut self) {
        while let Some(answer) = self.desk.poll_answer() {
            self.tell(answer.to, answer.outcome, answer.late);
        }
    }

    fn tell(&mut self, number: usize, outcome: Outcome, late: bool) {
        let sent = &mut self.sent[number];
        if late {
            assert!(sent.late.replace(outcome).is_none(), "two late outcomes of {sent:?}");
        } else {
            assert!(sent.first.is_none(), "two first outcomes of {sent:?}");
            sent.first = Some((outcome, sent.since.elapsed()));
        }
    }
}
