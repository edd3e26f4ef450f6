//! The desk's task: between the shards' players and the bet service's connector.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};
use std::{io, thread};

use tokio::sync::{mpsc, oneshot, watch};

use crate::bet_service::{Link, Said, TableChange};
use crate::bets::{Announcement, Answer, Decision, Desk, DeskLimits, RoundBook, RoundEvent, RoundReport};
use crate::net::wake_promptly;
use crate::shard::TableId;

use super::bet_ledger::{Ledger, Origin};
use super::shard_thread::{BetAnswer, Command, NodeBet};

/// Bets of all shards that wait for the desk. When it is full, the shard refuses further ones.
pub(super) const QUEUE: usize = 4096;

/// What is taken of one kind before all else is looked at again.
const AT_ONCE: usize = 256;

/// How often a shard whose queue is full is tried again.
const RETRY: Duration = Duration::from_millis(5);

/// What the node tells the desk.
#[derive(Debug)]
pub(super) enum News {
    /// About a table.
    Table(TableNews),
    /// The node is about to end its sessions. `done` once everybody who waits was told so.
    Ending { done: oneshot::Sender<()> },
}

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
    /// Unbounded: one message for a table's beginning or end, one for the node's end.
    pub(super) news: mpsc::UnboundedReceiver<News>,
    pub(super) shards: Vec<ShardWays>,
    pub(super) report: watch::Sender<RoundReport>,
    pub(super) ledger: Ledger,
}

/// The ways to one shard.
pub(super) struct ShardWays {
    pub(super) answers: mpsc::Sender<BetAnswer>,
    pub(super) commands: mpsc::Sender<Command>,
}

/// Starts the desk on a thread of its own: on those of the control plane, which yield to the shards, a flood of
/// requests would delay bets.
///
/// # Errors
/// The thread or its runtime cannot be started.
pub(super) fn start(room: Room) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    thread::Builder::new().name("bets".to_owned()).spawn(move || {
        // Where that cannot be, everything works, and later under load.
        let _ = wake_promptly();
        runtime.block_on(run(room));
    })?;
    Ok(())
}

/// Works until the node ends.
async fn run(room: Room) {
    let Room { link, mut bets, mut news, shards, report, ledger } = room;
    let Link { requests, tables: changes, mut said, .. } = link;
    let mut counter = Counter {
        desk: Desk::new(DeskLimits::default()),
        book: RoundBook::default(),
        requests,
        changes,
        tables: HashMap::new(),
        outbox: Outbox::new(shards),
        report,
        ledger,
        ending: None,
        is_ending: false,
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
            news = news.recv() => match news {
                Some(News::Table(news)) => counter.handle_table(news),
                Some(News::Ending { done }) => counter.begin_end(now(), done),
                None => return counter.end(now()),
            },
            bet = bets.recv(), if !counter.is_long() => match bet {
                Some(bet) => counter.handle_bet(now(), bet),
                None => return counter.end(now()),
            },
            () = counter.ledger.changed() => {}
            () = idle => {}
        }
        // Who comes together is served together: answers go to the shards in one turn.
        for _ in 0..AT_ONCE {
            let Ok(message) = said.try_recv() else { break };
            counter.handle_said(now(), message);
        }
        for _ in 0..AT_ONCE {
            if counter.is_long() {
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
    desk: Desk<Origin>,
    book: RoundBook,
    requests: mpsc::Sender<crate::bets::Passed>,
    changes: mpsc::UnboundedSender<TableChange>,
    tables: HashMap<Arc<str>, TableId>,
    outbox: Outbox,
    report: watch::Sender<RoundReport>,
    ledger: Ledger,
    /// Who wants to hear that all were told of the node's end.
    ending: Option<oneshot::Sender<()>>,
    is_ending: bool,
}

impl Counter {
    /// So much waits for a shard, or for the disk, that no more is taken.
    fn is_long(&self) -> bool {
        self.outbox.is_long() || self.ledger.waiting() >= QUEUE
    }

    fn handle_bet(&mut self, now: Instant, mut bet: NodeBet) {
        let origin = self.ledger.origin(&bet);
        // What the service does is a part of what the edge does for it.
        bet.signal.trace = Some(origin.active.as_parent());
        match self.desk.handle_signal(now, bet.at(|_| origin)) {
            Decision::PassOn(passed) => {
                let ticket = passed.ticket;
                // Who repeats a key gets its outcome all the same: only what is new waits for better times.
                if self.is_ending || !self.ledger.admits() || self.requests.try_send(passed).is_err() {
                    self.desk.withdraw(ticket);
                }
            }
            Decision::Answer(answer) => self.ledger.settle(now, answer),
            Decision::Wait => {}
        }
        self.tell(now);
    }

    fn handle_said(&mut self, now: Instant, said: Said) {
        match said {
            // False for an answer that nobody waits for any more.
            Said::Answer { ticket, outcome } => _ = self.desk.handle_answer(now, ticket, &outcome),
            Said::NotSent(ticket) => _ = self.desk.withdraw(ticket),
            Said::Lost(ticket) => _ = self.desk.handle_loss(ticket),
            Said::Round { table, event } => self.handle_round(now, &table, &event),
        }
        self.tell(now);
    }

    fn handle_round(&mut self, now: Instant, table: &Arc<str>, event: &RoundEvent) {
        let Some((name, id)) = self.tables.get_key_value(table) else {
            return tracing::warn!(%table, "the bet service speaks of a table that this node does not have");
        };
        match Announcement::new(event) {
            Ok(announcement) => {
                tracing::debug!(%table, roundId = %event.round_id, kind = event.kind.as_str(), "round event");
                self.book.handle_event(now, name, event.kind, &event.round_id);
                self.outbox.announce(*id, &Arc::new(announcement));
                self.report.send_replace(self.book.report().clone());
            }
            Err(error) => tracing::warn!(%table, roundId = %event.round_id, %error, "a round event is not handed on"),
        }
    }

    fn handle_table(&mut self, news: TableNews) {
        let TableNews { id, name, live } = news;
        self.tables.insert(name.clone(), id);
        // Without a connector nobody plays.
        let _ = self.changes.send(TableChange { table: name, live });
    }

    fn poll_timeout(&self) -> Option<Instant> {
        let wakes =
            [self.desk.poll_timeout(), self.book.poll_timeout(), self.ledger.poll_timeout(), self.outbox.retry_at];
        wakes.into_iter().flatten().min()
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.desk.handle_timeout(now);
        self.tell(now);
        if self.book.poll_timeout().is_some_and(|at| at <= now) {
            self.book.handle_timeout(now);
            self.report.send_replace(self.book.report().clone());
        }
        self.outbox.handle_timeout(now);
        if self.ledger.waiting() == 0 && self.outbox.is_empty() {
            self.ending.take().map(|done| done.send(()));
        }
    }

    /// The node is about to end its sessions: whoever waits is told that it is not known what becomes of the bet, so that he
    /// repeats it at another node, and what still comes is refused.
    fn begin_end(&mut self, now: Instant, done: oneshot::Sender<()>) {
        (self.is_ending, self.ending) = (true, Some(done));
        self.desk.handle_timeout(now + DeskLimits::default().deadline);
        self.tell(now);
    }

    fn tell(&mut self, now: Instant) {
        while let Some(answer) = self.desk.poll_answer() {
            self.ledger.settle(now, answer);
        }
        self.ledger.release(now);
        while let Some(answer) = self.ledger.poll() {
            self.outbox.answer(answer);
        }
    }

    /// The node has ended: signals that still wait are recorded as what they are, unconfirmed.
    fn end(&mut self, now: Instant) {
        let DeskLimits { deadline, late, .. } = DeskLimits::default();
        self.desk.handle_timeout(now + deadline + late);
        self.tell(now);
    }
}

/// The ways to the shards. What one has no room for waits here, in order: answers, of which the desk's limits bound the
/// number, and a few round events. A shard that is slow delays no other.
struct Outbox {
    answers: Vec<Way<BetAnswer>>,
    /// Half of a shard's queue of commands is left to media of other shards, which is dropped where it finds no room.
    events: Vec<Way<Command>>,
    retry_at: Option<Instant>,
}

impl Outbox {
    fn new(shards: Vec<ShardWays>) -> Self {
        let (answers, events) =
            shards.into_iter().map(|ways| (Way::new(ways.answers, 1), Way::new(ways.commands, 2))).unzip();
        Self { answers, events, retry_at: None }
    }

    /// So much waits for a shard that no more is taken: the queue to the desk fills, and shards refuse by themselves.
    fn is_long(&self) -> bool {
        self.answers.iter().any(|way| way.waiting.len() >= QUEUE)
    }

    /// No answer waits for a shard.
    fn is_empty(&self) -> bool {
        self.answers.iter().all(|way| way.waiting.is_empty())
    }

    fn answer(&mut self, answer: Answer<Origin>) {
        let Answer { to: Origin { to: (shard, to), .. }, bet_id, outcome, stamps, late } = answer;
        let Some(way) = self.answers.get_mut(usize::from(shard.0)) else { return };
        if !way.send(Box::new(Answer { to, bet_id, outcome, stamps, late })) {
            self.retry_at.get_or_insert_with(|| now() + RETRY);
        }
    }

    fn announce(&mut self, table: TableId, event: &Arc<Announcement>) {
        for way in &mut self.events {
            if !way.send(Command::Round { table, event: event.clone() }) {
                self.retry_at.get_or_insert_with(|| now() + RETRY);
            }
        }
    }

    fn handle_timeout(&mut self, now: Instant) {
        if self.retry_at.is_some_and(|at| at <= now) {
            // All of them, whichever still has no room.
            let mut all_sent = true;
            self.answers.iter_mut().for_each(|way| all_sent &= way.flush());
            self.events.iter_mut().for_each(|way| all_sent &= way.flush());
            self.retry_at = (!all_sent).then(|| now + RETRY);
        }
    }
}

/// A bounded queue, and what it has no room for.
struct Way<T> {
    queue: mpsc::Sender<T>,
    /// Of the queue one part in so many may be filled from here.
    share: usize,
    waiting: VecDeque<T>,
}

impl<T> Way<T> {
    fn new(queue: mpsc::Sender<T>, share: usize) -> Self {
        Self { queue, share, waiting: VecDeque::new() }
    }

    /// Now or later; `false` if it waits.
    fn send(&mut self, item: T) -> bool {
        self.waiting.push_back(item);
        self.flush()
    }

    /// `false` if something still waits. A shard that has ended hears nothing.
    fn flush(&mut self) -> bool {
        while let Some(item) = self.waiting.pop_front() {
            let (room, size) = (self.queue.capacity(), self.queue.max_capacity());
            if room > 0 && room < size - size / self.share {
                self.waiting.push_front(item);
                return false;
            }
            if let Err(mpsc::error::TrySendError::Full(item)) = self.queue.try_send(item) {
                self.waiting.push_front(item);
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
    use std::fs;
    use std::path::Path;

    use super::*;
    use crate::audit::tests::Directory;
    use crate::audit::{self, Audit, Recorder};
    use crate::bet_service::{ServiceEnd, link};
    use crate::bets::audit::{PlayerNames, SigningKey};
    use crate::bets::{Arrival, Id, Outcome, PlayerId, Refused, RoundKind, Signal};
    use crate::config::{Fsync, Log, WhenFailing};
    use crate::shard::{ShardId, SlotKey};
    use crate::traces::Tracer;

    struct Table {
        service: ServiceEnd,
        bets: mpsc::Sender<NodeBet>,
        news: mpsc::UnboundedSender<News>,
        answers: Vec<mpsc::Receiver<BetAnswer>>,
        commands: Vec<mpsc::Receiver<Command>>,
        rounds: watch::Receiver<RoundReport>,
    }

    /// A desk whose shards have a queue of `room` commands.
    fn desk(room: usize) -> Table {
        desk_with(room, None)
    }

    fn desk_with(room: usize, recorder: Option<Recorder>) -> Table {
        let ((link, service), (bets, incoming)) = (link(Tracer::off(&Log::default())), mpsc::channel(QUEUE));
        let (news, incoming_news) = mpsc::unbounded_channel();
        let way = |_| {
            let ((answers, answered), (commands, commanded)) = (mpsc::channel(room), mpsc::channel(room));
            (ShardWays { answers, commands }, (answered, commanded))
        };
        let (ways, (answers, commands)): (Vec<_>, (Vec<_>, Vec<_>)) = (0..2).map(way).unzip();
        let (report, rounds) = watch::channel(RoundReport::default());
        let ledger = Ledger::new(recorder, Tracer::off(&Log::default()), (now(), Duration::ZERO));
        tokio::spawn(run(Room { link, bets: incoming, news: incoming_news, shards: ways, report, ledger }));
        Table { service, bets, news, answers, commands, rounds }
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
            last_mile: None,
            signal: Signal::parse(text.as_bytes()).unwrap(),
        }
    }

    async fn told(shard: &mut mpsc::Receiver<BetAnswer>) -> (u32, String, Outcome) {
        let answer = shard.recv().await.expect("an answer");
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
        assert_eq!(told(&mut table.answers[0]).await, (7, "k".to_owned(), outcome.clone()));
        assert_eq!(told(&mut table.answers[1]).await, (8, "k".to_owned(), outcome));
        table.service.said.send(Said::NotSent(other.ticket)).await.unwrap();
        let unavailable = Outcome::Refused(Refused::Unavailable);
        assert_eq!(told(&mut table.answers[1]).await, (9, "k".to_owned(), unavailable));
    }

    #[tokio::test]
    async fn who_waits_when_the_node_is_about_to_end_is_told_so() {
        let mut table = desk(16);
        table.bets.send(bet(0, 7, "ann", "k")).await.unwrap();
        let passed = table.service.requests.recv().await.unwrap();
        let (done, ended) = oneshot::channel();
        table.news.send(News::Ending { done }).unwrap();
        ended.await.unwrap();
        // By then it is on its way to the shard, before the word to end its sessions.
        let first = table.answers[0].try_recv().expect("an answer");
        assert_eq!((first.to.slot, first.outcome), (7, Outcome::Unconfirmed));
        table.bets.send(bet(0, 8, "bob", "k")).await.unwrap();
        assert_eq!(told(&mut table.answers[0]).await.2, Outcome::Refused(Refused::Unavailable), "it comes too late");
        table.service.said.send(Said::Answer { ticket: passed.ticket, outcome: Outcome::Accepted }).await.unwrap();
        assert_eq!(told(&mut table.answers[0]).await, (7, "k".to_owned(), Outcome::Accepted), "who is still there");
    }

    /// A trail in a directory, whose records are durable before an outcome is told.
    fn trail(directory: &Path) -> (Audit, Recorder) {
        let options = audit::Options {
            directory: directory.join("trail"),
            node: "edge-1".to_owned(),
            key: Arc::new(SigningKey::generate().unwrap()),
            names: PlayerNames::Plain,
            when_failing: WhenFailing::Refuse,
            fsync: Fsync::Always,
            fsync_interval: Duration::from_secs(1),
            checkpoint_interval: Duration::from_secs(3600),
            rotate_bytes: 4096,
            rotate_after: Duration::from_secs(3600),
            sink: None,
            keep_shipped: None,
            closing_timeout: Duration::from_secs(20),
        };
        audit::start(options).unwrap()
    }

    fn records(directory: &Path) -> String {
        let mut segments: Vec<_> = fs::read_dir(directory.join("trail")).unwrap().map(|e| e.unwrap().path()).collect();
        segments.sort();
        segments.into_iter().map(|path| fs::read_to_string(path).unwrap()).collect()
    }

    async fn answers(table: &mut Table, outcome: Outcome) {
        let passed = table.service.requests.recv().await.unwrap();
        table.service.said.send(Said::Answer { ticket: passed.ticket, outcome }).await.unwrap();
    }

    #[tokio::test]
    async fn an_outcome_is_told_once_its_record_is_durable() {
        let directory = Directory::new();
        let (audit, recorder) = trail(&directory.0);
        let mut table = desk_with(16, Some(recorder));
        table.bets.send(bet(0, 7, "ann", "k")).await.unwrap();
        answers(&mut table, Outcome::rejected("round_closed")).await;
        assert_eq!(told(&mut table.answers[0]).await.0, 7);
        let written = records(&directory.0);
        for part in
            [r#""player":"ann""#, r#""bet":"k""#, r#""outcome":"rejected","reason":"round_closed","late":false"#]
        {
            assert!(written.contains(part), "{written}");
        }
        assert_eq!((audit.report().records, audit.report().told_early), (1, 0));
    }

    #[tokio::test]
    async fn a_signal_that_waits_when_the_node_ends_is_recorded() {
        let directory = Directory::new();
        let (audit, recorder) = trail(&directory.0);
        let mut table = desk_with(16, Some(recorder));
        table.bets.send(bet(0, 7, "ann", "k")).await.unwrap();
        table.service.requests.recv().await.unwrap();
        drop(table);
        assert!(audit.close(None).await);
        let written = records(&directory.0);
        assert!(written.contains(r#""bet":"k""#) && written.contains(r#""outcome":"unconfirmed""#), "{written}");
    }

    #[tokio::test]
    async fn while_the_trail_cannot_be_written_new_bets_are_refused_and_known_keys_answered() {
        let directory = Directory::new();
        let (audit, recorder) = trail(&directory.0);
        let mut table = desk_with(16, Some(recorder));
        let gone = directory.0.join("gone");
        fs::rename(directory.0.join("trail"), &gone).unwrap();
        let mut places = 0..;
        // Not all that a loop could send in a second: as refusals they would not all be kept.
        let mut pace = tokio::time::interval(Duration::from_millis(1));
        // The segment is full after a few records, and there is no place for the next one.
        let mut until = async |table: &mut Table, wanted: Outcome| loop {
            let n = places.next().unwrap();
            pace.tick().await;
            table.bets.send(bet(0, n, "ann", &format!("k{n}"))).await.unwrap();
            let outcome = tokio::select! {
                (_, _, outcome) = told(&mut table.answers[0]) => outcome,
                passed = table.service.requests.recv() => {
                    let (ticket, outcome) = (passed.unwrap().ticket, Outcome::Accepted);
                    table.service.said.send(Said::Answer { ticket, outcome }).await.unwrap();
                    told(&mut table.answers[0]).await.2
                }
            };
            if outcome == wanted {
                break;
            }
        };
        until(&mut table, Outcome::Refused(Refused::Unavailable)).await;
        assert!(audit.report().failing);
        table.bets.send(bet(0, 0, "ann", "k0")).await.unwrap();
        assert_eq!(told(&mut table.answers[0]).await, (0, "k0".to_owned(), Outcome::Accepted));
        fs::rename(&gone, directory.0.join("trail")).unwrap();
        until(&mut table, Outcome::Accepted).await;
        drop(table);
        assert!(audit.close(None).await);
        let report = audit.report();
        assert_eq!((report.lost, report.failing), (0, false));
    }

    #[tokio::test]
    async fn without_its_connector_bets_are_refused() {
        let mut table = desk(16);
        drop(table.service);
        table.bets.send(bet(0, 1, "ann", "k2")).await.unwrap();
        assert_eq!(told(&mut table.answers[0]).await, (1, "k2".to_owned(), Outcome::Refused(Refused::Unavailable)));
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
        let shard = &mut table.answers[0];
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
        table.news.send(News::Table(TableNews { id: TableId(4), name: "roulette".into(), live: true })).unwrap();
        let change = table.service.tables.recv().await.unwrap();
        assert_eq!(change, TableChange { table: "roulette".into(), live: true });
        for (name, kind) in [("nowhere", RoundKind::Open), ("roulette", RoundKind::Open), ("roulette", RoundKind::Void)]
        {
            let event =
                RoundEvent { kind, round_id: Id::new("r").unwrap(), capture_ts: 1.0, fields: serde_json::Map::new() };
            table.service.said.send(Said::Round { table: name.into(), event }).await.unwrap();
        }
        for shard in &mut table.commands {
            for kind in [RoundKind::Open, RoundKind::Void] {
                let Some(Command::Round { table: TableId(4), event }) = shard.recv().await else { panic!("an event") };
                assert_eq!(event.kind, kind);
            }
        }
        let counted = table.rounds.wait_for(|report| report.aborts.get("roulette") == Some(&[1, 0, 0])).await;
        assert!(counted.is_ok());
    }
}
