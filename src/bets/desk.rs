//! Where signals wait for the bet service: each is passed on once, and each gets its outcome.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::ack::Stamps;
use super::id::{Id, PlayerId};
use super::outcome::{Outcome, Refused};
use super::signal::Signal;

/// How long the desk waits and how much it keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeskLimits {
    /// A signal without an answer for so long is `unconfirmed`.
    pub deadline: Duration,
    /// How long after a signal's deadline the service's answer is still waited for. Then its key is in doubt, and who
    /// repeats it is asked for again.
    pub late: Duration,
    /// How long an outcome is remembered, or that a key is in doubt: longer than a round, and than a player takes to
    /// come back.
    pub keep: Duration,
    /// Records of keys in all. The oldest outcome is forgotten first, then the key that is longest in doubt; those that
    /// wait are not, and where all do, newcomers are refused.
    pub records: usize,
    /// Outcomes and keys in doubt that are remembered of one player, so that no player crowds out the others; forgotten
    /// in the same order.
    pub outcomes_per_player: usize,
    /// Signals of one player that wait, those with an unconfirmed outcome among them.
    pub waiting_per_player: usize,
}

impl Default for DeskLimits {
    /// By the sizes of its fields a record takes 800 bytes at most, names and reason being the longest: about 100 MB in
    /// all.
    fn default() -> Self {
        Self {
            deadline: Duration::from_secs(2),
            late: Duration::from_secs(30),
            keep: Duration::from_secs(300),
            records: 131_072,
            outcomes_per_player: 256,
            waiting_per_player: 16,
        }
    }
}

/// Names a signal that was passed on, between desk and connector.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ticket(u64);

/// A signal that comes to the desk; `W` says where its answers go.
#[derive(Clone, Debug)]
pub struct Arrival<W> {
    /// The player's connection.
    pub from: W,
    /// Whose it is.
    pub player: PlayerId,
    /// The name of the table.
    pub table: Arc<str>,
    /// When it came off the wire.
    pub edge_in: Instant,
    /// The round trip between player and edge by RTCP, where it was measured.
    pub last_mile: Option<Duration>,
    /// What it says.
    pub signal: Signal,
}

impl<W> Arrival<W> {
    /// The same from somewhere that `to` names otherwise.
    pub fn at<V>(self, to: impl FnOnce(W) -> V) -> Arrival<V> {
        let Self { from, player, table, edge_in, last_mile, signal } = self;
        Arrival { from: to(from), player, table, edge_in, last_mile, signal }
    }
}

/// A signal for the bet service.
#[derive(Clone, Debug, PartialEq)]
pub struct Passed {
    /// To be given back with the answer.
    pub ticket: Ticket,
    /// Whose it is: the service may rely on it, unlike on what the signal says.
    pub player: PlayerId,
    /// The name of the table.
    pub table: Arc<str>,
    /// When it came off the wire.
    pub edge_in: Instant,
    /// When its player is told `unconfirmed`, if there is no answer.
    pub deadline: Instant,
    /// When its answer is of no use to anybody any more.
    pub until: Instant,
    /// What it says.
    pub signal: Signal,
}

/// What a player is to be told of one of its signals.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer<W> {
    /// The player's connection.
    pub to: W,
    /// Which bet.
    pub bet_id: Id,
    /// What became of it.
    pub outcome: Outcome,
    /// Where its time went.
    pub stamps: Stamps,
    /// It was told `unconfirmed` before.
    pub late: bool,
}

/// What becomes of a signal at once.
#[derive(Clone, Debug, PartialEq)]
pub enum Decision<W> {
    /// To the service with it. Where that cannot be, [`Desk::withdraw`].
    PassOn(Passed),
    /// It is answered: its key has an outcome, or it is refused.
    Answer(Answer<W>),
    /// Its key waits for the service already, and it waits with it.
    Wait,
}

/// What a key belongs to: players choose keys, and rounds of two tables may have one name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    player: PlayerId,
    table: Arc<str>,
    round: Id,
    key: Id,
}

#[derive(Debug)]
struct Record<W> {
    key: Key,
    bet_id: Id,
    fingerprint: u64,
    state: State<W>,
    /// When time next changes something: the record's entry in `Desk::wakes`.
    wake: Instant,
}

#[derive(Debug)]
enum State<W> {
    /// With the service until `until` at the latest. Where it was in doubt before, only the service's word ends that.
    Open { until: Instant, waiters: Vec<Waiter<W>>, in_doubt: bool },
    /// Remembered. `Unconfirmed` is a key in doubt: the service may have taken it, and it may be passed on again.
    Settled { outcome: Outcome, place: Place },
}

/// In which order records are forgotten where there are too many: whether it is in doubt, and a number that grows.
type Place = (bool, u64);

#[derive(Debug)]
struct Waiter<W> {
    to: W,
    edge_in: Instant,
    /// When it began to wait.
    since: Instant,
    deadline: Instant,
    /// It was told `unconfirmed`.
    told: bool,
}

/// One player's part.
#[derive(Debug, Default)]
struct Share {
    waiting: usize,
    settled: BTreeSet<Place>,
}

/// Records what became of each key, and who waits for it.
///
/// Everybody's bets wait for what one of them costs: nothing here grows by moving all that there is, as a hash table does,
/// which takes 50 ms with as many records as there may be.
///
/// Every signal gets one first outcome: from the record of its key, from the service, by its deadline, or a refusal.
/// One that got `unconfirmed` gets a second, if the service answers within [`DeskLimits::late`] and the player has not
/// asked again meanwhile on the same connection. A key is not passed on again as long as it waits or has the service's
/// word. One that the service may have taken without an answer is passed on again, and never refused as long as there is
/// a record of it: if that cannot be, or fails, it stays `unconfirmed`.
#[derive(Debug)]
pub struct Desk<W> {
    limits: DeskLimits,
    /// By number, which grows.
    records: BTreeMap<u64, Box<Record<W>>>,
    /// The hash of each record's key, with its number. Players who choose keys do not know the hasher.
    by_key: BTreeSet<(u64, u64)>,
    hasher: RandomState,
    shares: BTreeMap<PlayerId, Share>,
    wakes: BTreeSet<(Instant, u64)>,
    /// Records that do not wait, in the order in which they are forgotten.
    settled: BTreeMap<Place, u64>,
    answers: VecDeque<Answer<W>>,
    next_ticket: u64,
    next_settled: u64,
}

impl<W: Clone + PartialEq> Desk<W> {
    /// One without records.
    pub fn new(limits: DeskLimits) -> Self {
        Self {
            limits,
            records: BTreeMap::new(),
            by_key: BTreeSet::new(),
            hasher: RandomState::new(),
            shares: BTreeMap::new(),
            wakes: BTreeSet::new(),
            settled: BTreeMap::new(),
            answers: VecDeque::new(),
            next_ticket: 0,
            next_settled: 0,
        }
    }

    /// How many keys there are records of.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether there is no record.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Takes a signal.
    pub fn handle_signal(&mut self, now: Instant, arrival: Arrival<W>) -> Decision<W> {
        let Arrival { from, player, table, edge_in, last_mile: _, signal } = arrival;
        let key = Key { player, table, round: signal.round_id.clone(), key: signal.key.clone() };
        let answer = |outcome| {
            let (to, bet_id, stamps) = (from.clone(), signal.bet_id.clone(), Stamps::at(edge_in));
            Decision::Answer(Answer { to, bet_id, outcome, stamps, late: false })
        };
        let refuse = |reason| answer(Outcome::Refused(reason));
        let deadline = now + self.limits.deadline;
        let waiter = Waiter { to: from.clone(), edge_in, since: now, deadline, told: false };
        let mut doubt = None;

        let hash = self.hasher.hash_one(&key);
        if let Some(id) = self.find(hash, &key) {
            let Some(record) = self.records.get_mut(&id) else { return refuse(Refused::Unavailable) };
            if record.fingerprint != signal.fingerprint {
                return refuse(Refused::KeyReused);
            }
            match &mut record.state {
                State::Settled { outcome: Outcome::Unconfirmed, .. } => doubt = Some(id),
                State::Settled { outcome, .. } => return answer(outcome.clone()),
                State::Open { waiters, .. } => {
                    let share = self.shares.entry(key.player).or_default();
                    // The question that it repeats needs no answer of its own any more.
                    if let Some(told) = waiters.iter_mut().find(|other| other.told && other.to == from) {
                        *told = waiter;
                    } else if share.waiting >= self.limits.waiting_per_player {
                        // The service has the key: no refusal.
                        return answer(Outcome::Unconfirmed);
                    } else {
                        share.waiting += 1;
                        waiters.push(waiter);
                    }
                    self.schedule(id);
                    return Decision::Wait;
                }
            }
        }

        let waiting = self.shares.get(&key.player).map_or(0, |share| share.waiting);
        if waiting >= self.limits.waiting_per_player {
            return if doubt.is_some() { answer(Outcome::Unconfirmed) } else { refuse(Refused::TooManyWaiting) };
        }
        // It gets a new record under a new ticket.
        if let Some(id) = doubt {
            self.forget(id);
        } else if self.records.len() >= self.limits.records {
            let Some((_, first)) = self.settled.first_key_value() else { return refuse(Refused::Unavailable) };
            self.forget(*first);
        }
        let id = self.next_ticket;
        self.next_ticket += 1;
        self.shares.entry(key.player.clone()).or_default().waiting += 1;
        self.by_key.insert((hash, id));
        let until = deadline + self.limits.late;
        let (player, table) = (key.player.clone(), key.table.clone());
        let passed = Passed { ticket: Ticket(id), player, table, edge_in, deadline, until, signal };
        let record = Record {
            key,
            bet_id: passed.signal.bet_id.clone(),
            fingerprint: passed.signal.fingerprint,
            state: State::Open { until, waiters: vec![waiter], in_doubt: doubt.is_some() },
            wake: deadline,
        };
        self.wakes.insert((record.wake, id));
        self.records.insert(id, Box::new(record));
        Decision::PassOn(passed)
    }

    /// The service has answered; `false` if nobody waits for that any more.
    pub fn handle_answer(&mut self, now: Instant, ticket: Ticket, outcome: &Outcome) -> bool {
        let Some(record) = self.records.get_mut(&ticket.0) else { return false };
        let State::Open { waiters, .. } = &mut record.state else { return false };
        for waiter in &*waiters {
            let stamps = Stamps { edge_in: waiter.edge_in, upstream: Some((waiter.since, now)) };
            self.answers.push_back(answer(waiter, &record.bet_id, outcome.clone(), stamps));
        }
        self.settle(ticket.0, outcome.clone(), now + self.limits.keep);
        true
    }

    /// The signal did not get to the service: nobody there has heard of it this time. `false` if nobody waits for that
    /// any more.
    pub fn withdraw(&mut self, ticket: Ticket) -> bool {
        self.end(ticket.0, Outcome::Refused(Refused::Unavailable))
    }

    /// The signal may have got to the service, and no answer to it will come. `false` if nobody waits for that any
    /// more.
    pub fn handle_loss(&mut self, ticket: Ticket) -> bool {
        self.end(ticket.0, Outcome::Unconfirmed)
    }

    /// When to call [`Desk::handle_timeout`].
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.wakes.first().map(|(at, _)| *at)
    }

    /// Everything that time brings.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some(&(at, id)) = self.wakes.first().filter(|(at, _)| *at <= now) {
            let Some(record) = self.records.get_mut(&id) else {
                self.wakes.remove(&(at, id));
                continue;
            };
            match &mut record.state {
                State::Settled { .. } => self.forget(id),
                State::Open { until, .. } if *until <= now => _ = self.end(id, Outcome::Unconfirmed),
                State::Open { waiters, .. } => {
                    for waiter in waiters.iter_mut().filter(|waiter| !waiter.told && waiter.deadline <= now) {
                        let stamps = Stamps::at(waiter.edge_in);
                        self.answers.push_back(answer(waiter, &record.bet_id, Outcome::Unconfirmed, stamps));
                        waiter.told = true;
                    }
                    self.schedule(id);
                }
            }
        }
    }

    /// What players are to be told.
    pub fn poll_answer(&mut self) -> Option<Answer<W>> {
        self.answers.pop_front()
    }

    /// The record of a key.
    fn find(&self, hash: u64, key: &Key) -> Option<u64> {
        let mut candidates = self.by_key.range((hash, 0)..=(hash, u64::MAX)).map(|(_, id)| *id);
        candidates.find(|id| self.records.get(id).is_some_and(|record| record.key == *key))
    }

    /// No answer of the service will come: those who wait get `outcome`, and the key may be passed on again.
    fn end(&mut self, id: u64, outcome: Outcome) -> bool {
        let Some(record) = self.records.get(&id) else { return false };
        let State::Open { until, waiters, in_doubt } = &record.state else { return false };
        let outcome = if *in_doubt { Outcome::Unconfirmed } else { outcome };
        for waiter in waiters.iter().filter(|waiter| !waiter.told) {
            self.answers.push_back(answer(waiter, &record.bet_id, outcome.clone(), Stamps::at(waiter.edge_in)));
        }
        if outcome == Outcome::Unconfirmed {
            let until = *until + self.limits.keep;
            self.settle(id, outcome, until);
        } else {
            self.forget(id);
        }
        true
    }

    /// Nobody waits for a record any more: it is remembered until then.
    fn settle(&mut self, id: u64, outcome: Outcome, until: Instant) {
        let Some(record) = self.records.get_mut(&id) else { return };
        let place = (outcome == Outcome::Unconfirmed, self.next_settled);
        self.next_settled += 1;
        let before = std::mem::replace(&mut record.state, State::Settled { outcome, place });
        self.wakes.remove(&(record.wake, id));
        record.wake = until;
        self.wakes.insert((until, id));
        self.settled.insert(place, id);
        let share = self.shares.entry(record.key.player.clone()).or_default();
        if let State::Open { waiters, .. } = before {
            share.waiting -= waiters.len();
        }
        share.settled.insert(place);
        if share.settled.len() > self.limits.outcomes_per_player
            && let Some(first) = share.settled.first().and_then(|place| self.settled.get(place))
        {
            self.forget(*first);
        }
    }

    /// The next thing that time changes of an open record.
    fn schedule(&mut self, id: u64) {
        let Some(record) = self.records.get_mut(&id) else { return };
        let State::Open { until, waiters, .. } = &record.state else { return };
        let deadlines = waiters.iter().filter(|waiter| !waiter.told).map(|waiter| waiter.deadline);
        let wake = deadlines.fold(*until, Instant::min);
        self.wakes.remove(&(record.wake, id));
        record.wake = wake;
        self.wakes.insert((wake, id));
    }

    /// Frees everything of a record.
    fn forget(&mut self, id: u64) {
        let Some(record) = self.records.remove(&id) else { return };
        self.by_key.remove(&(self.hasher.hash_one(&record.key), id));
        self.wakes.remove(&(record.wake, id));
        let Entry::Occupied(mut share) = self.shares.entry(record.key.player.clone()) else { return };
        match record.state {
            State::Open { waiters, .. } => share.get_mut().waiting -= waiters.len(),
            State::Settled { place, .. } => {
                self.settled.remove(&place);
                share.get_mut().settled.remove(&place);
            }
        }
        if share.get().waiting == 0 && share.get().settled.is_empty() {
            share.remove();
        }
    }
}

fn answer<W: Clone>(waiter: &Waiter<W>, bet_id: &Id, outcome: Outcome, stamps: Stamps) -> Answer<W> {
    Answer { to: waiter.to.clone(), bet_id: bet_id.clone(), outcome, stamps, late: waiter.told }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::signal::tests::signal;
    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn keys_of_one_hash_are_told_apart() {
        let mut counter = Counter::new(|_| {});
        let tickets = ["a", "b"].map(|key| counter.passes(1, "ann", key));
        let key = |ticket: Ticket| counter.desk.records[&ticket.0].key.clone();
        let keys = tickets.map(key);
        counter.desk.by_key = tickets.iter().map(|ticket| (7, ticket.0)).collect();
        let found = keys.each_ref().map(|key| counter.desk.find(7, key).map(Ticket));
        assert_eq!(found, tickets.map(Some));
        let other = Key { round: Id::new("other").unwrap(), ..keys[0].clone() };
        assert_eq!((counter.desk.find(7, &other), counter.desk.find(8, &keys[0])), (None, None));
    }

    struct Counter {
        desk: Desk<u32>,
        now: Instant,
    }

    impl Counter {
        fn new(change: impl FnOnce(&mut DeskLimits)) -> Self {
            let mut limits = DeskLimits::default();
            change(&mut limits);
            Self { desk: Desk::new(limits), now: Instant::now() }
        }

        fn says(&mut self, from: u32, player: &str, key: &str, amount: u32) -> Decision<u32> {
            let player = PlayerId::new(player).unwrap();
            let signal = signal(&format!("b-{key}"), "r", key, amount);
            let arrival =
                Arrival { from, player, table: "roulette".into(), edge_in: self.now, last_mile: None, signal };
            self.desk.handle_signal(self.now, arrival)
        }

        fn passes(&mut self, from: u32, player: &str, key: &str) -> Ticket {
            let Decision::PassOn(passed) = self.says(from, player, key, 5) else { panic!("passed on") };
            passed.ticket
        }

        fn accept(&mut self, ticket: Ticket) -> bool {
            self.desk.handle_answer(self.now, ticket, &Outcome::Accepted)
        }

        fn wait(&mut self, time: Duration) {
            self.now += time;
            self.desk.handle_timeout(self.now);
        }

        /// Who is told what, and whether that is late.
        fn told(&mut self) -> Vec<(u32, Outcome, bool)> {
            std::iter::from_fn(|| self.desk.poll_answer()).map(|a| (a.to, a.outcome, a.late)).collect()
        }
    }

    fn at_once(decision: Decision<u32>) -> Outcome {
        let Decision::Answer(answer) = decision else { panic!("{decision:?}") };
        answer.outcome
    }

    #[test]
    fn an_answer_goes_to_who_asked_with_its_stamps() {
        let mut counter = Counter::new(|_| {});
        let ticket = counter.passes(1, "ann", "k");
        counter.now += 30 * MS;
        assert!(counter.accept(ticket));
        let answer = counter.desk.poll_answer().unwrap();
        assert_eq!((answer.to, answer.bet_id.as_str(), answer.late), (1, "b-k", false));
        assert_eq!((answer.stamps.upstream(), answer.stamps.edge(counter.now)), (Some(30 * MS), Duration::ZERO));
        assert!(!counter.accept(ticket), "a service that answers twice");
        assert_eq!(counter.told(), []);
    }

    #[test]
    fn a_key_that_comes_again_waits_with_the_first_and_then_gets_the_recorded_outcome() {
        let mut counter = Counter::new(|_| {});
        let ticket = counter.passes(1, "ann", "k");
        assert_eq!(counter.says(2, "ann", "k", 5), Decision::Wait, "after a reconnect");
        assert!(counter.accept(ticket));
        assert_eq!(counter.told(), [(1, Outcome::Accepted, false), (2, Outcome::Accepted, false)]);
        assert_eq!(at_once(counter.says(3, "ann", "k", 5)), Outcome::Accepted);
        assert_eq!(at_once(counter.says(3, "ann", "k", 6)), Outcome::Refused(Refused::KeyReused));
        counter.passes(4, "bob", "k");
    }

    #[test]
    fn a_rejection_is_remembered_like_an_acceptance() {
        let mut counter = Counter::new(|_| {});
        let ticket = counter.passes(1, "ann", "k");
        counter.desk.handle_answer(counter.now, ticket, &Outcome::rejected("round_closed"));
        assert_eq!(at_once(counter.says(1, "ann", "k", 5)), Outcome::rejected("round_closed"));
    }

    #[test]
    fn without_an_answer_a_signal_is_unconfirmed_and_a_late_one_is_told() {
        let mut counter = Counter::new(|_| {});
        let ticket = counter.passes(1, "ann", "k");
        counter.wait(2 * SECOND - MS);
        assert_eq!(counter.told(), []);
        counter.wait(MS);
        assert_eq!(counter.told(), [(1, Outcome::Unconfirmed, false)]);
        counter.wait(5 * SECOND);
        assert!(counter.accept(ticket));
        assert_eq!(counter.told(), [(1, Outcome::Accepted, true)]);
        counter.wait(400 * SECOND);
        assert_eq!((counter.told(), counter.desk.len()), (vec![], 0));
    }

    #[test]
    fn who_asks_again_while_it_is_unconfirmed_gets_one_answer_for_that() {
        let mut counter = Counter::new(|_| {});
        let ticket = counter.passes(1, "ann", "k");
        counter.wait(2 * SECOND);
        assert_eq!(counter.says(1, "ann", "k", 5), Decision::Wait);
        counter.told();
        counter.accept(ticket);
        assert_eq!(counter.told(), [(1, Outcome::Accepted, false)]);
    }

    #[test]
    fn a_key_without_an_answer_for_long_is_passed_on_again() {
        let mut counter = Counter::new(|_| {});
        let first = counter.passes(1, "ann", "k");
        counter.wait(31 * SECOND);
        assert_eq!(counter.says(2, "ann", "k", 5), Decision::Wait);
        counter.told();
        counter.wait(SECOND);
        assert_eq!(counter.told(), [(2, Outcome::Unconfirmed, false)], "nothing is waited for any more");
        let second = counter.passes(3, "ann", "k");
        assert_ne!(first, second);
        assert!(!counter.accept(first) && counter.accept(second));
    }

    #[test]
    fn what_did_not_get_to_the_service_is_refused_and_may_be_tried_again() {
        let mut counter = Counter::new(|_| {});
        let ticket = counter.passes(1, "ann", "k");
        assert!(counter.desk.withdraw(ticket));
        assert_eq!(counter.told(), [(1, Outcome::Refused(Refused::Unavailable), false)]);
        let ticket = counter.passes(1, "ann", "k");
        assert!(counter.desk.handle_loss(ticket) && !counter.desk.handle_loss(ticket));
        assert_eq!(counter.told(), [(1, Outcome::Unconfirmed, false)]);
        counter.passes(1, "ann", "k");
    }

    #[test]
    fn a_key_that_may_have_been_taken_is_never_refused_until_the_service_has_spoken() {
        let mut counter = Counter::new(|limits| limits.waiting_per_player = 1);
        let refused = Outcome::Refused(Refused::Unavailable);
        let ticket = counter.passes(1, "ann", "k");
        counter.desk.handle_loss(ticket);
        assert_eq!(counter.told(), [(1, Outcome::Unconfirmed, false)]);
        // The service is left alone: the repetitions are not sent.
        for n in 2..5 {
            let ticket = counter.passes(n, "ann", "k");
            assert!(counter.desk.withdraw(ticket));
            assert_eq!(counter.told(), [(n, Outcome::Unconfirmed, false)]);
        }
        // Nor is there place for it while another waits, which has no second place either.
        let other = counter.passes(5, "ann", "other");
        assert_eq!(at_once(counter.says(6, "ann", "k", 5)), Outcome::Unconfirmed);
        assert_eq!(at_once(counter.says(7, "ann", "other", 5)), Outcome::Unconfirmed);
        assert_eq!(at_once(counter.says(8, "ann", "k", 6)), Outcome::Refused(Refused::KeyReused));
        counter.desk.withdraw(other);
        assert_eq!(counter.told(), [(5, refused, false)], "this one was not sent");
        let ticket = counter.passes(9, "ann", "k");
        assert!(counter.accept(ticket));
        assert_eq!(at_once(counter.says(10, "ann", "k", 5)), Outcome::Accepted);
    }

    #[test]
    fn doubt_is_forgotten_in_time_and_where_there_is_no_room_after_outcomes() {
        let lost = |counter: &mut Counter, key| {
            let ticket = counter.passes(1, "ann", key);
            counter.desk.handle_loss(ticket);
        };
        let withdrawn = |counter: &mut Counter, key| {
            let ticket = counter.passes(1, "ann", key);
            counter.desk.withdraw(ticket);
            counter.told().pop().map(|(_, outcome, _)| outcome)
        };
        let refused = Some(Outcome::Refused(Refused::Unavailable));
        let mut counter = Counter::new(|_| {});
        lost(&mut counter, "k");
        counter.wait(331 * SECOND);
        assert_eq!(counter.desk.len(), 1);
        counter.wait(SECOND);
        assert_eq!((counter.desk.len(), withdrawn(&mut counter, "k")), (0, refused.clone()));
        for few in
            [|limits: &mut DeskLimits| limits.records = 2, |limits: &mut DeskLimits| limits.outcomes_per_player = 2]
        {
            let mut counter = Counter::new(few);
            lost(&mut counter, "k1");
            for key in ["k2", "k3"] {
                let ticket = counter.passes(1, "ann", key);
                counter.accept(ticket);
            }
            assert_eq!(withdrawn(&mut counter, "k1"), Some(Outcome::Unconfirmed), "outcomes have made room");
            ["k4", "k5", "k6"].into_iter().for_each(|key| lost(&mut counter, key));
            assert_eq!((counter.desk.len(), withdrawn(&mut counter, "k1")), (2, refused.clone()));
        }
    }

    #[test]
    fn a_player_has_so_many_signals_waiting_and_no_more() {
        let mut counter = Counter::new(|limits| limits.waiting_per_player = 2);
        let ticket = counter.passes(1, "ann", "k1");
        counter.passes(1, "ann", "k2");
        assert_eq!(at_once(counter.says(1, "ann", "k3", 5)), Outcome::Refused(Refused::TooManyWaiting));
        assert_eq!(at_once(counter.says(1, "ann", "k1", 5)), Outcome::Unconfirmed, "it was passed on");
        counter.passes(2, "bob", "k1");
        counter.accept(ticket);
        counter.passes(1, "ann", "k3");
    }

    #[test]
    fn the_oldest_outcome_makes_room_and_nothing_that_waits() {
        let mut counter = Counter::new(|limits| limits.records = 2);
        let (first, second) = (counter.passes(1, "ann", "k1"), counter.passes(2, "bob", "k1"));
        assert_eq!(at_once(counter.says(3, "cat", "k1", 5)), Outcome::Refused(Refused::Unavailable));
        counter.accept(second);
        counter.accept(first);
        counter.passes(3, "cat", "k1");
        assert_eq!(at_once(counter.says(1, "ann", "k1", 5)), Outcome::Accepted, "the newer outcome is still there");
        assert_eq!(counter.desk.len(), 2);
    }

    #[test]
    fn a_player_forgets_its_own_outcomes_first() {
        let mut counter = Counter::new(|limits| limits.outcomes_per_player = 2);
        let other = counter.passes(9, "bob", "k");
        counter.accept(other);
        for key in ["k1", "k2", "k3"] {
            let ticket = counter.passes(1, "ann", key);
            counter.accept(ticket);
        }
        assert_eq!(counter.desk.len(), 3);
        assert_eq!(at_once(counter.says(9, "bob", "k", 5)), Outcome::Accepted);
        assert_eq!(at_once(counter.says(1, "ann", "k2", 5)), Outcome::Accepted);
        counter.passes(1, "ann", "k1");
    }

    #[derive(Clone, Debug)]
    enum Step {
        Says { from: u32, player: u8, key: u8, amount: u32 },
        Answers { which: usize },
        Withdraws { which: usize },
        Loses { which: usize },
        Waits { ms: u64 },
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            6 => (0..4_u32, 0..3_u8, 0..4_u8, 1..3_u32)
                .prop_map(|(from, player, key, amount)| Step::Says { from, player, key, amount }),
            3 => any::<usize>().prop_map(|which| Step::Answers { which }),
            1 => any::<usize>().prop_map(|which| Step::Withdraws { which }),
            1 => any::<usize>().prop_map(|which| Step::Loses { which }),
            3 => (0..3000_u64).prop_map(|ms| Step::Waits { ms }),
        ]
    }

    proptest! {
        /// Each signal comes on a connection of its own number, so that its answers can be told apart.
        #[test]
        fn every_signal_has_one_first_outcome_and_one_late_one_at_most(
            steps in prop::collection::vec(step(), 1..200),
            records in 1..6_usize, outcomes in 1..4_usize, waiting in 1..5_usize, same_connection: bool,
        ) {
            let mut counter = Counter::new(|limits| {
                (limits.records, limits.outcomes_per_player, limits.waiting_per_player) = (records, outcomes, waiting);
            });
            let (mut signals, mut first, mut late) = (0_u32, BTreeMap::<u32, u32>::new(), BTreeMap::<u32, u32>::new());
            let mut tickets: Vec<(Ticket, (u8, u8))> = Vec::new();
            // What the service has: keys that were passed on and neither answered nor given up.
            let mut outstanding: BTreeMap<(u8, u8), Ticket> = BTreeMap::new();
            let mut take = |answers: Vec<(u32, Outcome, bool)>| {
                for (to, outcome, is_late) in answers {
                    let counts = if is_late { &mut late } else { &mut first };
                    *counts.entry(to).or_default() += 1;
                    assert!(!is_late || outcome == Outcome::Accepted);
                }
            };
            for step in steps {
                match step {
                    Step::Says { from, player, key, amount } => {
                        let connection = if same_connection { from } else { signals };
                        signals += 1;
                        match counter.says(connection, &format!("p{player}"), &format!("k{key}"), amount) {
                            Decision::PassOn(passed) => {
                                prop_assert_eq!(outstanding.insert((player, key), passed.ticket), None, "passed on twice");
                                tickets.push((passed.ticket, (player, key)));
                            }
                            Decision::Answer(answer) => take(vec![(answer.to, answer.outcome, answer.late)]),
                            Decision::Wait => prop_assert!(outstanding.contains_key(&(player, key))),
                        }
                    }
                    Step::Answers { which } | Step::Withdraws { which } | Step::Loses { which } if !tickets.is_empty() => {
                        let (ticket, key) = tickets[which % tickets.len()];
                        let known = match step {
                            Step::Answers { .. } => counter.accept(ticket),
                            Step::Withdraws { .. } => counter.desk.withdraw(ticket),
                            _ => counter.desk.handle_loss(ticket),
                        };
                        prop_assert_eq!(known, outstanding.get(&key) == Some(&ticket));
                        if known {
                            outstanding.remove(&key);
                        }
                    }
                    Step::Waits { ms } => {
                        counter.wait(Duration::from_millis(10 * ms));
                        let desk = &counter.desk;
                        let is_open = |ticket: &Ticket| {
                            desk.records.get(&ticket.0).is_some_and(|record| matches!(record.state, State::Open { .. }))
                        };
                        outstanding.retain(|_, ticket| is_open(ticket));
                        prop_assert!(desk.poll_timeout().is_none_or(|at| at > counter.now), "a timer that never rests");
                    }
                    _ => {}
                }
                let desk = &counter.desk;
                prop_assert!(desk.len() <= records && desk.settled.len() <= desk.len());
                prop_assert_eq!((desk.by_key.len(), desk.wakes.len()), (desk.len(), desk.len()));
                prop_assert!(desk.shares.values().all(|s| s.waiting <= waiting && s.settled.len() <= outcomes));
                take(counter.told());
            }
            counter.wait(1000 * SECOND);
            counter.wait(1000 * SECOND);
            take(counter.told());
            prop_assert_eq!(first.values().sum::<u32>(), signals);
            if !same_connection {
                prop_assert!(first.values().all(|n| *n == 1) && late.values().all(|n| *n == 1));
            }
            prop_assert!(counter.desk.is_empty() && counter.desk.shares.is_empty() && counter.desk.wakes.is_empty());
        }

        /// Each signal comes on a connection of its own number, and there is room for all.
        #[test]
        fn what_may_have_been_taken_is_not_refused(
            steps in prop::collection::vec(step(), 1..200), waiting in 1..4_usize,
        ) {
            let mut counter = Counter::new(|limits| {
                (limits.keep, limits.waiting_per_player) = (100_000 * SECOND, waiting);
            });
            let mut keys = Vec::new();
            let mut tickets: Vec<(Ticket, (u8, u8))> = Vec::new();
            // Keys that are with the service, or were and nobody knows.
            let (mut with_service, mut in_doubt) = (BTreeMap::<(u8, u8), Ticket>::new(), BTreeSet::<(u8, u8)>::new());
            for step in steps {
                let mut told = Vec::new();
                match step {
                    Step::Says { player, key, .. } => {
                        let number = u32::try_from(keys.len()).unwrap();
                        keys.push((player, key));
                        match counter.says(number, &format!("p{player}"), &format!("k{key}"), 1) {
                            Decision::PassOn(passed) => {
                                with_service.insert((player, key), passed.ticket);
                                tickets.push((passed.ticket, (player, key)));
                            }
                            Decision::Answer(answer) => told.push((answer.to, answer.outcome, answer.late)),
                            Decision::Wait => {}
                        }
                    }
                    Step::Answers { which } | Step::Withdraws { which } | Step::Loses { which } if !tickets.is_empty() => {
                        let (ticket, key) = tickets.swap_remove(which % tickets.len());
                        let is_current = with_service.get(&key) == Some(&ticket);
                        match step {
                            Step::Answers { .. } => _ = counter.accept(ticket),
                            Step::Withdraws { .. } => _ = counter.desk.withdraw(ticket),
                            _ => _ = counter.desk.handle_loss(ticket),
                        }
                        if is_current {
                            with_service.remove(&key);
                            match step {
                                Step::Answers { .. } => _ = in_doubt.remove(&key),
                                Step::Loses { .. } => _ = in_doubt.insert(key),
                                _ => {}
                            }
                        }
                    }
                    Step::Waits { ms } => {
                        counter.wait(Duration::from_millis(ms));
                        // What is given up is in doubt.
                        let desk = &counter.desk;
                        let given_up = with_service.extract_if(.., |_, ticket| {
                            !desk.records.get(&ticket.0).is_some_and(|r| matches!(r.state, State::Open { .. }))
                        });
                        in_doubt.extend(given_up.map(|(key, _)| key));
                    }
                    _ => {}
                }
                told.extend(counter.told());
                for (to, outcome, _) in told {
                    let key = keys[to as usize];
                    let may_be_taken = with_service.contains_key(&key) || in_doubt.contains(&key);
                    prop_assert!(!may_be_taken || outcome.status() != super::super::outcome::Status::Refused, "{:?}", key);
                }
            }
        }
    }
}
