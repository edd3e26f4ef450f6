//! Bet signals and round events on this shard: read and limited on their way in, written on their way out.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::bets::{
    Ack, Announcement, Answer, Arrival, Id, Leg, Outcome, PlayerId, Refused, RoundKind, Signal, Stamps, Timing,
};
use crate::rtc::rtcp::NtpTime;

use super::core::Shard;
use super::message::{ShardEvent, SlotKey, TableId, TrackId};
use super::session::{Budget, Session};

/// Answers of a session for which the player may still tell how long they took; the oldest is forgotten first.
const MEASURED: usize = 16;

/// Clocks of browsers are blurred: by so much less than the edge has measured a round trip may be.
const BLUR: Duration = Duration::from_millis(2);

/// Players that are told of an event at once: each costs some microseconds, and a frame must not wait for thousands.
const TOLD_AT_ONCE: usize = 64;

/// Events that wait until all players were told of those before. Beyond, the work is done at once.
const WAITING_EVENTS: usize = 64;

/// How long who comes later waits for the clock of its video track, which may still be on its way from the home shard.
/// Then it is told without.
const CLOCK_WAIT: Duration = Duration::from_secs(1);

/// Events of a round that who comes later is told: the first, and the newest of the others.
const EVENTS_OF_ROUND: usize = 8;

/// A player on `bets`.
#[derive(Debug)]
pub(super) struct BetLine {
    player: PlayerId,
    /// From its first message on: most who watch do not bet.
    talk: Option<Box<Talk>>,
}

/// What it said, and was told.
#[derive(Debug)]
struct Talk {
    budget: Budget,
    /// Bets that the service has answered, with how long that took from the edge.
    measured: VecDeque<(Id, Duration)>,
}

impl BetLine {
    pub(super) fn new(player: PlayerId) -> Self {
        Self { player, talk: None }
    }

    fn talk(&mut self) -> &mut Talk {
        self.talk.get_or_insert_with(|| Box::new(Talk { budget: Budget::of_signals(), measured: VecDeque::new() }))
    }
}

/// The rounds of the tables, whether or not they have players here.
#[derive(Debug, Default)]
pub(super) struct Rounds {
    /// What was said of each table's current round.
    current: HashMap<TableId, Vec<Arc<Announcement>>>,
    waiting: VecDeque<Telling>,
    /// Players whose channel has opened and who were told nothing yet, each with since when: no more than sessions.
    untold: Vec<(SlotKey, Instant)>,
    /// When the next players are told: as soon as there is time.
    due: Option<Instant>,
}

/// An event on its way to players.
#[derive(Debug)]
struct Telling {
    event: Arc<Announcement>,
    players: Vec<SlotKey>,
    next: usize,
}

impl Rounds {
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.due
    }
}

impl Shard {
    /// A message on `bets`. Each is answered: here, or by who takes the event. `None` if it is no signal.
    pub(super) fn handle_bet(&mut self, now: Instant, slot: u32, data: &[u8]) -> Option<()> {
        let session = self.sessions[slot as usize].session.as_deref_mut()?;
        let (key, table) = (session.key, session.table);
        let session = session.player_mut()?;
        let last_mile = session.path.round_trip();
        let line = &mut session.bets;
        let player = line.player.clone();
        if !line.talk().budget.take(now) {
            // The names alone are read: under which bet the answer goes.
            let bet_id = Signal::bet_id_of(data);
            self.acknowledge(
                now,
                slot,
                bet_id.as_ref(),
                &Outcome::Refused(Refused::RateLimited),
                &Stamps::at(now),
                false,
            );
            self.misused(now, slot);
            return Some(());
        }
        let table = self.tables.get(&table)?.spec.name.clone();
        match Signal::parse(data) {
            Ok(signal) => {
                let arrival = Arrival { from: key, player, table, edge_in: now, last_mile, signal };
                self.events.push_back(ShardEvent::Bet(Box::new(arrival)));
                Some(())
            }
            Err(not) => {
                let outcome = Outcome::Refused(not.reason);
                self.acknowledge(now, slot, not.bet_id.as_ref(), &outcome, &Stamps::at(now), false);
                None
            }
        }
    }

    /// A message on `bets` that is larger than any is read.
    pub(super) fn refuse_oversized(&mut self, now: Instant, slot: u32) {
        self.acknowledge(now, slot, None, &Outcome::Refused(Refused::TooLarge), &Stamps::at(now), false);
    }

    /// Nobody takes a signal that this shard has passed on: it is answered so.
    pub fn refuse_bet(&mut self, now: Instant, bet: &Arrival<SlotKey>, reason: Refused) {
        let stamps = Stamps::at(bet.edge_in);
        self.answer_bet(now, bet.from, &bet.signal.bet_id, &Outcome::Refused(reason), &stamps, false);
    }

    /// Tells a player the outcome of a signal that this shard has passed on. Where it has left, that is counted all the
    /// same.
    pub fn handle_bet_answer(&mut self, now: Instant, answer: &Answer<SlotKey>) {
        let Answer { to, bet_id, outcome, stamps, late } = answer;
        self.answer_bet(now, *to, bet_id, outcome, stamps, *late);
    }

    fn answer_bet(&mut self, now: Instant, to: SlotKey, bet_id: &Id, outcome: &Outcome, stamps: &Stamps, late: bool) {
        if self.session_mut(to).is_some() {
            self.acknowledge(now, to.slot, Some(bet_id), outcome, stamps, late);
        } else {
            self.count_outcome(outcome, late);
        }
    }

    fn count_outcome(&mut self, outcome: &Outcome, late: bool) {
        if late {
            self.report.bets.late += 1;
        } else {
            self.report.bets.count(outcome);
        }
    }

    fn acknowledge(
        &mut self,
        now: Instant,
        slot: u32,
        bet_id: Option<&Id>,
        outcome: &Outcome,
        stamps: &Stamps,
        late: bool,
    ) {
        self.count_outcome(outcome, late);
        let received = self.ntp(stamps.edge_in).to_unix();
        let Some(player) = self.sessions[slot as usize].session.as_deref_mut().and_then(Session::player_mut) else {
            return;
        };
        let last_mile = player.path.round_trip();
        if let (Some(upstream), Some(bet_id), false) = (stamps.upstream(), bet_id, late) {
            let edge = stamps.edge(now);
            self.report.bets.observe(Leg::Edge, edge);
            self.report.bets.observe(Leg::Upstream, upstream);
            last_mile.into_iter().for_each(|time| self.report.bets.observe(Leg::LastMile, time));
            let measured = &mut player.bets.talk().measured;
            if measured.len() == MEASURED {
                measured.pop_front();
            }
            measured.push_back((bet_id.clone(), edge + upstream));
        }
        let Some(channel) = player.channels.bets else { return };
        let timing = Timing::new(stamps, now, received, last_mile);
        let ack = Ack::new(bet_id.map_or("", Id::as_str), outcome, timing);
        if let Ok(text) = serde_json::to_string(&ack) {
            self.send_text(now, slot, channel, &text);
        }
    }

    /// A player says how long it took by its own clock. Counted once for each answer of the service, and not where the
    /// edge knows that it took longer.
    pub(super) fn handle_timing(&mut self, slot: u32, bet_id: &str, total: Duration) {
        let Some(player) = self.sessions[slot as usize].session.as_deref_mut().and_then(Session::player_mut) else {
            return;
        };
        let measured = &mut player.bets.talk().measured;
        let Some(at) = measured.iter().position(|(id, _)| id.as_str() == bet_id) else { return };
        if measured.remove(at).is_some_and(|(_, least)| total + BLUR >= least) {
            self.report.bets.observe(Leg::Total, total);
        }
    }

    /// Tells the table's players here what happened in its round, and keeps it for those who come later. `table` need
    /// not have players here.
    pub fn handle_round_event(&mut self, now: Instant, table: TableId, event: Arc<Announcement>) {
        let current = self.rounds.current.entry(table).or_default();
        // A round that is settled after the next has begun is told to who is here, and is not the current one again.
        let is_current = current.first().is_none_or(|first| first.round_id == event.round_id);
        if is_current || event.kind == RoundKind::Open {
            if !is_current {
                current.clear();
            }
            if current.len() == EVENTS_OF_ROUND {
                current.remove(1);
            }
            current.push(event.clone());
        }
        let slots = self.tables.get(&table).map(|table| table.players.as_slice()).unwrap_or_default();
        // Who has no channel yet is told when it opens.
        let has_channel = |session: &&Session| {
            session.player().is_some_and(|player| player.channels.events.is_some() && !player.untold)
        };
        let sessions = slots.iter().filter_map(|slot| self.sessions[*slot as usize].session.as_deref());
        let players: Vec<SlotKey> = sessions.filter(has_channel).map(|session| session.key).collect();
        if players.is_empty() {
            return;
        }
        self.rounds.waiting.push_back(Telling { event, players, next: 0 });
        self.rounds.due.get_or_insert(now);
        while self.rounds.waiting.len() > WAITING_EVENTS {
            self.announce(now);
        }
    }

    /// A player whose `events` channel has opened is told the current round first.
    pub(super) fn tell_round(&mut self, now: Instant, slot: u32) {
        let Some(key) = self.key_of(slot) else { return };
        if !self.is_untold(key) && !self.tell_if_ready(now, key, now) {
            self.wait_untold(key, now);
        }
    }

    /// A player is connected: what waited for that is told, unless its tracks have no clock yet.
    pub(super) fn tell_connected(&mut self, now: Instant, slot: u32) {
        let Some(key) = self.key_of(slot).filter(|key| self.is_untold(*key)) else { return };
        let Some(at) = self.rounds.untold.iter().position(|(other, _)| *other == key) else { return };
        let (_, since) = self.rounds.untold.swap_remove(at);
        if !self.tell_if_ready(now, key, since) {
            self.rounds.untold.push((key, since));
        }
    }

    /// Tells the current round to all who wait for it, if they are connected and their tracks have a clock by now.
    pub(super) fn tell_untold(&mut self, now: Instant) {
        for (key, since) in std::mem::take(&mut self.rounds.untold) {
            if !self.tell_if_ready(now, key, since) {
                self.rounds.untold.push((key, since));
            }
        }
    }

    fn is_untold(&mut self, key: SlotKey) -> bool {
        self.session_mut(key).and_then(|session| session.player()).is_some_and(|player| player.untold)
    }

    fn wait_untold(&mut self, key: SlotKey, since: Instant) {
        let Some(player) = self.session_mut(key).and_then(|session| session.player_mut()) else { return };
        player.untold = true;
        self.rounds.untold.push((key, since));
    }

    /// `false` if the player is to wait for its frames' timestamps.
    fn tell_if_ready(&mut self, now: Instant, key: SlotKey, since: Instant) -> bool {
        let session = self.sessions.get(key.slot as usize).and_then(|slot| slot.session.as_deref());
        let Some(session) = session.filter(|session| session.key == key) else { return true };
        let Some(player) = session.player() else { return true };
        // Channels can be open before the pair is nominated.
        let (connecting, has_video) = (player.wanted.is_some(), player.video.is_some());
        let table = session.table;
        let first = self.rounds.current.get(&table).and_then(|events| events.first());
        let has_clock = first.is_none_or(|event| self.timestamp_of(key, event.capture_ts).is_some());
        if connecting || (has_video && !has_clock && now < since + CLOCK_WAIT) {
            return false;
        }
        if let Some(player) = self.session_mut(key).and_then(|session| session.player_mut()) {
            player.untold = false;
        }
        for event in self.rounds.current.get(&table).cloned().unwrap_or_default() {
            self.tell_event(now, key, &event);
        }
        true
    }

    /// Tells the next players of what waits.
    pub(super) fn announce(&mut self, now: Instant) {
        if self.rounds.due.is_none_or(|due| now < due) {
            return;
        }
        let mut left = TOLD_AT_ONCE;
        while let Some(mut telling) = self.rounds.waiting.pop_front() {
            let end = telling.players.len().min(telling.next + left);
            for key in &telling.players[telling.next..end] {
                self.tell_event(now, *key, &telling.event);
            }
            left -= end - telling.next;
            telling.next = end;
            if end < telling.players.len() {
                self.rounds.waiting.push_front(telling);
                break;
            }
        }
        self.rounds.due = (!self.rounds.waiting.is_empty()).then_some(now);
    }

    fn tell_event(&mut self, now: Instant, key: SlotKey, event: &Announcement) {
        let Some(channel) = self.session_mut(key).and_then(|s| s.player()).and_then(|p| p.channels.events) else {
            return;
        };
        let text = event.for_player(self.timestamp_of(key, event.capture_ts));
        self.send_text(now, key.slot, channel, &text);
    }

    /// The timestamp that a player's video track has at a time, in Unix milliseconds.
    fn timestamp_of(&self, key: SlotKey, capture_ts: f64) -> Option<u32> {
        let session = self.sessions[key.slot as usize].session.as_deref()?;
        let player = session.player()?;
        let captured = NtpTime::from_unix(Duration::try_from_secs_f64(capture_ts / 1000.0).ok()?);
        let (epoch, ntp) = self.config.epoch;
        let at = match captured.offset_from(ntp) {
            0.. => epoch.checked_add(captured.saturating_since(ntp))?,
            _ => epoch.checked_sub(ntp.saturating_since(captured))?,
        };
        let track = self.tables.get(&session.table)?.track(TrackId::Video(player.layer))?;
        Some(player.video.as_ref()?.timestamp(track.timestamp_of_capture(captured, at)?))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Map, json};

    use super::super::report::DropReason;
    use super::super::testing::{roulette, shard_config};
    use super::*;
    use crate::bets::{RoundEvent, RoundKind, Status};
    use crate::rtc::data_channel::{ChannelEvent, ChannelId};
    use crate::rtc::sdp::{Offer, TableMedia, negotiate_player, negotiate_publisher};

    const PUBLISHER: &[u8] = include_bytes!("../../tests/fixtures/offers/chromium-publisher-vp8.sdp");
    const PLAYER: &[u8] = include_bytes!("../../tests/fixtures/offers/chromium-player.sdp");
    const BETS: ChannelId = 1;
    const QOS: ChannelId = 3;
    const MS: Duration = Duration::from_millis(1);

    /// A shard with two players at a table.
    struct Table {
        shard: Shard,
        now: Instant,
        players: Vec<SlotKey>,
    }

    impl Table {
        fn new() -> Self {
            let now = Instant::now();
            let publisher = negotiate_publisher(&Offer::parse(PUBLISHER).expect("an offer")).expect("a publisher's");
            let offer = Offer::parse(PLAYER).expect("an offer");
            let negotiated = negotiate_player(&offer, &TableMedia::from(&publisher)).expect("a player's");
            let mut shard = Shard::new(shard_config(now, Duration::from_secs(60)));
            let mut join = |n: u8| {
                let player = PlayerId::anonymous([n; 16]);
                let key = shard.add_player(now, &roulette(), player, None, &negotiated, &[n; 32]).key;
                for (id, label) in [(BETS, "bets"), (QOS, "qos")] {
                    shard.handle_channel(now, key.slot, ChannelEvent::Opened { id, label: label.into() });
                }
                key
            };
            let players = vec![join(0), join(1)];
            Self { shard, now, players }
        }

        fn says(&mut self, player: usize, id: ChannelId, text: impl Into<bytes::Bytes>) {
            let event = ChannelEvent::Message { id, data: text.into() };
            self.shard.handle_channel(self.now, self.players[player].slot, event);
        }

        fn bets(&mut self, player: usize, bet: &str) {
            let text = json!({
                "type": "bet", "betId": bet, "roundId": "r", "idempotencyKey": bet, "clientTs": 0, "payload": 1,
            });
            self.says(player, BETS, text.to_string());
        }

        /// What goes to the service.
        fn passed(&mut self) -> Vec<Arrival<SlotKey>> {
            let events = std::iter::from_fn(|| self.shard.poll_event());
            events.filter_map(|event| if let ShardEvent::Bet(bet) = event { Some(*bet) } else { None }).collect()
        }

        fn counts(&mut self) -> crate::bets::BetCounts {
            self.shard.report(self.now).bets
        }
    }

    #[test]
    fn a_signal_goes_to_the_service_in_the_name_of_its_player_and_comes_back_counted() {
        let mut table = Table::new();
        table.bets(1, "b-1");
        let bet = table.passed().remove(0);
        assert_eq!((bet.from, &*bet.table), (table.players[1], "roulette"));
        assert_eq!(bet.player, PlayerId::anonymous([1; 16]));
        let stamps = Stamps { edge_in: table.now, upstream: Some((table.now + MS, table.now + 41 * MS)) };
        table.now += 42 * MS;
        let answer = |outcome, late| Answer { to: bet.from, bet_id: bet.signal.bet_id.clone(), outcome, stamps, late };
        table.shard.handle_bet_answer(table.now, &answer(Outcome::Accepted, false));
        table.shard.handle_bet_answer(table.now, &answer(Outcome::Accepted, true));
        let counts = table.counts();
        assert_eq!((counts.outcomes, counts.late), ([1, 0, 0, 0], 1));
        let seconds = |leg: Leg| (counts.legs[leg as usize].count(), counts.legs[leg as usize].sum());
        assert_eq!((seconds(Leg::Edge), seconds(Leg::Upstream)), ((1, 0.002), (1, 0.04)));
        assert_eq!(seconds(Leg::LastMile).0, 0, "no report came");
    }

    #[test]
    fn the_outcome_of_who_has_left_is_counted() {
        let mut table = Table::new();
        table.bets(0, "b-1");
        let bet = table.passed().remove(0);
        table.shard.close_session(table.now, bet.from, crate::shard::EndCause::Deleted);
        table.shard.refuse_bet(table.now, &bet, Refused::Unavailable);
        assert_eq!(table.counts().outcomes[Status::Refused as usize], 1);
    }

    #[test]
    fn who_floods_is_refused_and_nobody_else_is() {
        let mut table = Table::new();
        (0..1000).for_each(|n| table.bets(0, &format!("b-{n}")));
        table.bets(1, "b-1");
        assert_eq!(table.passed().len(), 21);
        assert_eq!(table.counts().refused[Refused::RateLimited as usize], 980);
        table.now += 100 * MS;
        table.bets(0, "again");
        assert_eq!(table.passed().len(), 1, "ten a second");
    }

    /// Each is answered, until it is clear that nobody reads the answers: then it has no channels any more, and its media go on.
    #[test]
    fn who_floods_without_end_loses_its_channels() {
        let mut table = Table::new();
        (0..2000).for_each(|n| table.bets(0, &format!("b-{n}")));
        table.says(0, BETS, "{}");
        let counts = table.counts();
        assert_eq!(counts.outcomes.iter().sum::<u64>() + table.passed().len() as u64, 2001, "each has its outcome");
        assert!(table.shard.report(table.now).dropped[DropReason::DataChannel as usize] > 500);
        // What its SCTP would say when it is driven.
        table.shard.handle_channel(table.now, table.players[0].slot, ChannelEvent::Lost);
        table.bets(0, "b");
        table.bets(1, "b");
        assert_eq!(table.passed().len(), 1, "the other goes on");
    }

    #[test]
    fn an_answer_goes_where_the_question_came_from() {
        let mut table = Table::new();
        let slot = table.players[0].slot;
        let opened = |id| ChannelEvent::Opened { id, label: "bets".into() };
        table.shard.handle_channel(table.now, slot, opened(7));
        table.says(0, 7, "{}");
        assert_eq!(table.counts().outcomes, [0; 4], "a second channel of a kind is none");
        table.bets(0, "b-1");
        table.shard.handle_channel(table.now, slot, ChannelEvent::Closed { id: BETS });
        table.bets(0, "b-2");
        table.shard.handle_channel(table.now, slot, opened(9));
        table.says(0, 9, "{}");
        assert_eq!((table.passed().len(), table.counts().refused[Refused::Malformed as usize]), (1, 1));
    }

    #[test]
    fn what_is_too_large_or_empty_has_an_outcome() {
        let mut table = Table::new();
        table.shard.handle_channel(table.now, table.players[0].slot, ChannelEvent::Oversized { id: BETS });
        table.says(0, BETS, "");
        let refused = table.counts().refused;
        assert_eq!((refused[Refused::TooLarge as usize], refused[Refused::Malformed as usize]), (1, 1));
    }

    #[test]
    fn what_is_no_signal_is_refused_with_its_reason() {
        let mut table = Table::new();
        for text in ["", "{}", r#"{"type":"bet","betId":"b"}"#, r#"{"type":"stats"}"#] {
            table.says(0, BETS, text);
        }
        table.says(0, BETS, vec![b' '; 16_385]);
        table.says(0, BETS, "[".repeat(16_384));
        assert_eq!(table.passed().len(), 0);
        let refused = table.counts().refused;
        assert_eq!((refused[Refused::Malformed as usize], refused[Refused::TooLarge as usize]), (5, 1));
        table.bets(0, "b-1");
        assert_eq!(table.passed().len(), 1);
    }

    #[test]
    fn a_player_tells_each_time_once_and_none_that_cannot_be() {
        let mut table = Table::new();
        let tell = |table: &mut Table, bet: &str, total: f64| {
            table.says(0, QOS, json!({ "type": "timing", "betId": bet, "totalMs": total }).to_string());
            table.counts().legs[Leg::Total as usize].count()
        };
        assert_eq!(tell(&mut table, "b-1", 80.0), 0, "there was no such bet");
        let to = table.players[0];
        for bet in ["b-1", "b-2", "b-3"] {
            let stamps = Stamps { edge_in: table.now, upstream: Some((table.now, table.now + 50 * MS)) };
            let (bet_id, outcome) = (Id::new(bet).unwrap(), Outcome::Accepted);
            let answer = Answer { to, bet_id, outcome, stamps, late: false };
            table.shard.handle_bet_answer(table.now + 50 * MS, &answer);
        }
        assert_eq!(tell(&mut table, "b-1", 80.0), 1);
        assert_eq!(tell(&mut table, "b-1", 80.0), 1, "once");
        assert_eq!(tell(&mut table, "b-2", 20.0), 1, "the edge knows better");
        for (total, counted) in [(-1.0, 1), (1e9, 1), (50.0, 2)] {
            assert_eq!(tell(&mut table, "b-3", total), counted, "{total} ms");
        }
    }

    #[test]
    fn of_each_table_the_current_round_is_kept_and_no_more_than_a_few_events() {
        let mut table = Table::new();
        let mut say = |round: &str, kind| {
            let event = RoundEvent { kind, round_id: Id::new(round).unwrap(), capture_ts: 1.0, fields: Map::new() };
            let announcement = Arc::new(Announcement::new(&event).unwrap());
            table.shard.handle_round_event(table.now, TableId(0), announcement);
            let current = &table.shard.rounds.current[&TableId(0)];
            current.iter().map(|event| event.kind).collect::<Vec<_>>()
        };
        say("1", RoundKind::Open);
        assert_eq!(say("1", RoundKind::Close), [RoundKind::Open, RoundKind::Close]);
        assert_eq!(say("2", RoundKind::Open), [RoundKind::Open]);
        for _ in 0..20 {
            say("2", RoundKind::Close);
        }
        let kept = say("2", RoundKind::Result);
        assert_eq!((kept.len(), kept[0], kept[7]), (8, RoundKind::Open, RoundKind::Result));
    }
}
