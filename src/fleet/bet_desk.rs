//! The desk's task: between the shards' players and the bet service's connector.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};
use std::{io, thread};

use tokio::sync::{mpsc, watch};

use crate::bet_service::{Link, Said, TableChange};
use crate::bets::{Announcement, Answer, Decision, Desk, DeskLimits, RoundBook, RoundEvent, RoundReport};
use crate::shard::{ShardId, SlotKey, TableId};

use super::shard_thread::{Command, NodeBet};

/// Bets of all shards that wait for the desk. When it is full, the shard refuses further ones.
pub(super) const QUEUE: usize = 4096;

/// What is taken of one kind before all else is looked at again.
const AT_ONCE: usize = 256;

/// How often a shard whose queue is full is tried again.
const RETRY: Duration = Duration::from_millis(5);

/// A table of this node, and whether it is live.
#[derive(Clone, Debug)]
pub(super) struct TableNews {
    pub(super) id: TableId,
    pub(super) name: Arc<str>,
    pub(super) live: bool,
}

/// What the desk's task is given.
pub(super) struct Room {
    pub(super) link: Link,
    pub(super) bets: mpsc::Receiver<NodeBet>,
    /// Unbounded: one message for a table's beginning or end.
    pub(super) tables: mpsc::UnboundedReceiver<TableNews>,
    pub(super) shards: Vec<mpsc::Sender<Command>>,
    pub(super) report: watch::Sender<RoundReport>,
}

/// Starts the desk on a thread of its own: on those of the control plane, which yield to the shards, a flood of
/// requests would delay bets.
///
/// # Errors
/// The thread or its runtime cannot be started.
pub(super) fn start(room: Room) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    thread::Builder::new().name("bets".to_owned()).spawn(move || runtime.block_on(run(room))).map(drop)
}

/// Works until the node ends.
async fn run(room: Room) {
    let Room { link, mut bets, mut tables, shards, report } = room;
    let Link { requests, tables: changes, mut said, .. } = link;
    let mut counter = Counter {
        desk: Desk::new(DeskLimits::default()),
        book: RoundBook::default(),
        requests,
        changes,
        tables: HashMap::new(),
        outbox: Outbox::new(shards),
        report,
    };
    let mut has_service = true;
    loop {
        let wake = counter.poll_timeout();
        let idle = async {
            match wake {
                Some(at) => tokio::time::sleep_until(at.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            message = said.recv(), if has_service => match message {
                Some(message) => counter.handle_said(now(), message),
                // What waits for it is unconfirmed by and by, what comes is refused.
                None => {
                    tracing::error!("the connector to the bet service has ended");
                    has_service = false;
                }
            },
            news = tables.recv() => match news {
                Some(news) => counter.handle_table(news),
                None => return,
            },
            bet = bets.recv(), if !counter.outbox.is_long() => match bet {
                Some(bet) => counter.handle_bet(now(), bet),
                None => return,
            },
            () = idle => {}
        }
        // Who comes together is served together: answers go to the shards in one turn.
        for _ in 0..AT_ONCE {
            let Ok(message) = said.try_recv() else { break };
            counter.handle_said(now(), message);
        }
        for _ in 0..AT_ONCE {
            if counter.outbox.is_long() {
                break;
            }
            let Ok(bet) = bets.try_recv() else { break };
            counter.handle_bet(now(), bet);
        }
        counter.handle_timeout(now());
    }
}

/// The desk with what is around it.
struct Counter {
    desk: Desk<(ShardId, SlotKey)>,
    book: RoundBook,
    requests: mpsc::Sender<crate::bets::Passed>,
    changes: mpsc::UnboundedSender<TableChange>,
    tables: HashMap<Arc<str>, TableId>,
    outbox: Outbox,
    report: watch::Sender<RoundReport>,
}

impl Counter {
    fn handle_bet(&mut self, now: Instant, bet: NodeBet) {
        match self.desk.handle_signal(now, bet) {
            Decision::PassOn(passed) => {
                let ticket = passed.ticket;
                if self.requests.try_send(passed).is_err() {
                    self.desk.withdraw(ticket);
                }
            }
            Decision::Answer(answer) => self.outbox.answer(answer),
            Decision::Wait => {}
        }
        self.tell();
    }

    fn handle_said(&mut self, now: Instant, said: Said) {
        match said {
            // False for an answer that nobody waits for any more.
            Said::Answer { ticket, outcome } => _ = self.desk.handle_answer(now, ticket, &outcome),
            Said::NotSent(ticket) => _ = self.desk.withdraw(ticket),
            Said::Lost(ticket) => _ = self.desk.handle_loss(ticket),
            Said::Round { table, event } => self.handle_round(now, &table, &event),
        }
        self.tell();
    }

    fn handle_round(&mut self, now: Instant, table: &Arc<str>, event: &RoundEvent) {
        let Some((name, id)) = self.tables.get_key_value(table) else {
            return tracing::warn!(%table, "the bet service speaks of a table that this node does not have");
        };
        match Announcement::new(event) {
            Ok(announcement) => {
                tracing::debug!(%table, round = %event.round_id, kind = event.kind.as_str(), "round event");
                self.book.handle_event(now, name, event.kind, &event.round_id);
                self.outbox.announce(*id, &Arc::new(announcement));
                self.report.send_replace(self.book.report().clone());
            }
            Err(error) => tracing::warn!(%table, round = %event.round_id, %error, "a round event is not handed on"),
        }
    }

    fn handle_table(&mut self, news: TableNews) {
        let TableNews { id, name, live } = news;
        self.tables.insert(name.clone(), id);
        // Without a connector nobody plays.
        let _ = self.changes.send(TableChange { table: name, live });
    }

    fn poll_timeout(&self) -> Option<Instant> {
        [self.desk.poll_timeout(), self.book.poll_timeout(), self.outbox.retry_at].into_iter().flatten().min()
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.desk.handle_timeout(now);
        self.tell();
        if self.book.poll_timeout().is_some_and(|at| at <= now) {
            self.book.handle_timeout(now);
            self.report.send_replace(self.book.report().clone());
        }
        self.outbox.handle_timeout(now);
    }

    fn tell(&mut self) {
        while let Some(answer) = self.desk.poll_answer() {
            self.outbox.answer(answer);
        }
    }
}

/// The ways to the shards. What one has no room for waits here, in order: answers, of which the desk's limits bound the
/// number, and a few round events. A shard that is slow delays no other.
struct Outbox {
    shards: Vec<Way>,
    retry_at: Option<Instant>,
}

struct Way {
    commands: mpsc::Sender<Command>,
    waiting: VecDeque<Command>,
}

impl Outbox {
    fn new(shards: Vec<mpsc::Sender<Command>>) -> Self {
        let way = |commands| Way { commands, waiting: VecDeque::new() };
        Self { shards: shards.into_iter().map(way).collect(), retry_at: None }
    }

    /// So much waits for a shard that no more is taken: the queue to the desk fills, and shards refuse by themselves.
    fn is_long(&self) -> bool {
        self.shards.iter().any(|way| way.waiting.len() >= QUEUE)
    }

    fn answer(&mut self, answer: Answer<(ShardId, SlotKey)>) {
        let Answer { to: (shard, to), bet_id, outcome, stamps, late } = answer;
        let command = Command::BetAnswer(Box::new(Answer { to, bet_id, outcome, stamps, late }));
        self.send(usize::from(shard.0), command);
    }

    fn announce(&mut self, table: TableId, event: &Arc<Announcement>) {
        for shard in 0..self.shards.len() {
            self.send(shard, Command::Round { table, event: event.clone() });
        }
    }

    fn send(&mut self, shard: usize, command: Command) {
        let Some(way) = self.shards.get_mut(shard) else { return };
        way.waiting.push_back(command);
        if !way.flush() {
            self.retry_at.get_or_insert_with(|| now() + RETRY);
        }
    }

    fn handle_timeout(&mut self, now: Instant) {
        if self.retry_at.is_some_and(|at| at <= now) {
            // All of them, whichever still has no room.
            let mut all_sent = true;
            for way in &mut self.shards {
                all_sent &= way.flush();
            }
            self.retry_at = (!all_sent).then(|| now + RETRY);
        }
    }
}

impl Way {
    /// `false` if something still waits. Half of a shard's queue is left to media of other shards, which is dropped where it
    /// finds no room. A shard that has ended hears nothing.
    fn flush(&mut self) -> bool {
        while let Some(command) = self.waiting.pop_front() {
            let room = self.commands.capacity();
            if room > 0 && room < self.commands.max_capacity().div_ceil(2) {
                self.waiting.push_front(command);
                return false;
            }
            if let Err(mpsc::error::TrySendError::Full(command)) = self.commands.try_send(command) {
                self.waiting.push_front(command);
                return false;
            }
        }
        true
    }
}

#[expect(clippy::disallowed_methods, reason = "the desk's clock: all that it decides is handed this instant")]
fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bet_service::{ServiceEnd, link};
    use crate::bets::{Arrival, Id, Outcome, PlayerId, Refused, RoundKind, Signal};

    struct Table {
        service: ServiceEnd,
        bets: mpsc::Sender<NodeBet>,
        tables: mpsc::UnboundedSender<TableNews>,
        shards: Vec<mpsc::Receiver<Command>>,
        rounds: watch::Receiver<RoundReport>,
    }

    /// A desk whose shards have a queue of `room` commands.
    fn desk(room: usize) -> Table {
        let ((link, service), (bets, incoming)) = (link(), mpsc::channel(QUEUE));
        let (tables, news) = mpsc::unbounded_channel();
        let (senders, shards) = (0..2).map(|_| mpsc::channel(room)).unzip();
        let (report, rounds) = watch::channel(RoundReport::default());
        tokio::spawn(run(Room { link, bets: incoming, tables: news, shards: senders, report }));
        Table { service, bets, tables, shards, rounds }
    }

    fn bet(shard: u16, slot: u32, player: &str, key: &str) -> NodeBet {
        let text = format!(
            r#"{{"type":"bet","betId":"{key}","roundId":"r","idempotencyKey":"{key}","clientTs":0,"payload":1}}"#
        );
        Arrival {
            from: (ShardId(shard), SlotKey { slot, generation: 1 }),
            player: PlayerId::new(player).unwrap(),
            table: "roulette".into(),
            edge_in: now(),
            signal: Signal::parse(text.as_bytes()).unwrap(),
        }
    }

    async fn told(shard: &mut mpsc::Receiver<Command>) -> (u32, String, Outcome) {
        let Some(Command::BetAnswer(answer)) = shard.recv().await else { panic!("an answer") };
        (answer.to.slot, answer.bet_id.to_string(), answer.outcome)
    }

    #[tokio::test]
    async fn an_answer_goes_to_the_player_that_asked_and_a_repeated_key_is_not_passed_on() {
        let mut table = desk(16);
        table.bets.send(bet(0, 7, "ann", "k")).await.unwrap();
        let passed = table.service.requests.recv().await.unwrap();
        assert_eq!((passed.player.as_str(), &*passed.table, passed.signal.key.as_str()), ("ann", "roulette", "k"));
        table.bets.send(bet(1, 8, "ann", "k")).await.unwrap();
        table.bets.send(bet(1, 9, "bob", "k")).await.unwrap();
        let other = table.service.requests.recv().await.unwrap();
        assert_eq!(other.player.as_str(), "bob", "the repeated key waits with the first");
        let outcome = Outcome::rejected("round_closed");
        table.service.said.send(Said::Answer { ticket: passed.ticket, outcome: outcome.clone() }).await.unwrap();
        assert_eq!(told(&mut table.shards[0]).await, (7, "k".to_owned(), outcome.clone()));
        assert_eq!(told(&mut table.shards[1]).await, (8, "k".to_owned(), outcome));
        table.service.said.send(Said::NotSent(other.ticket)).await.unwrap();
        let unavailable = Outcome::Refused(Refused::Unavailable);
        assert_eq!(told(&mut table.shards[1]).await, (9, "k".to_owned(), unavailable));
    }

    #[tokio::test]
    async fn without_its_connector_bets_are_refused() {
        let mut table = desk(16);
        drop(table.service);
        table.bets.send(bet(0, 1, "ann", "k2")).await.unwrap();
        assert_eq!(told(&mut table.shards[0]).await, (1, "k2".to_owned(), Outcome::Refused(Refused::Unavailable)));
    }

    #[tokio::test]
    async fn a_connector_that_takes_nothing_has_signals_refused_and_a_slow_shard_loses_none() {
        let mut table = desk(1);
        let bets = 5000_u32;
        let sending = async {
            for n in 0..bets {
                table.bets.send(bet(0, n, &format!("p{n}"), "k")).await.unwrap();
            }
        };
        let mut refused = 0;
        let shard = &mut table.shards[0];
        let receiving = async {
            while refused < bets - 4096 {
                let (_, _, outcome) = told(shard).await;
                assert_eq!(outcome, Outcome::Refused(Refused::Unavailable));
                refused += 1;
            }
        };
        tokio::join!(sending, receiving);
    }

    #[tokio::test]
    async fn round_events_go_to_every_shard_and_are_counted() {
        let mut table = desk(16);
        table.tables.send(TableNews { id: TableId(4), name: "roulette".into(), live: true }).unwrap();
        let change = table.service.tables.recv().await.unwrap();
        assert_eq!(change, TableChange { table: "roulette".into(), live: true });
        for (name, kind) in [("nowhere", RoundKind::Open), ("roulette", RoundKind::Open), ("roulette", RoundKind::Void)]
        {
            let event =
                RoundEvent { kind, round_id: Id::new("r").unwrap(), capture_ts: 1.0, fields: serde_json::Map::new() };
            table.service.said.send(Said::Round { table: name.into(), event }).await.unwrap();
        }
        for shard in &mut table.shards {
            for kind in [RoundKind::Open, RoundKind::Void] {
                let Some(Command::Round { table: TableId(4), event }) = shard.recv().await else { panic!("an event") };
                assert_eq!(event.kind, kind);
            }
        }
        let counted = table.rounds.wait_for(|report| report.aborts.get("roulette") == Some(&[1, 0, 0])).await;
        assert!(counted.is_ok());
    }
}
