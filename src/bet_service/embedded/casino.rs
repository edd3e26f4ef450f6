//! Rounds and bets, without a clock of their own.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::bets::{Id, Outcome, PlayerId, RoundEvent, RoundKind, Signal};

use super::accounts::Accounts;
use super::wheel::{NUMBERS, Spot, colour};

/// A round, from its beginning: closed, settled, and then the next begins. Twice the demo's clip of ten seconds, whose
/// loop began when the table did, as the rounds do.
const CLOSES: Duration = Duration::from_secs(12);
const SETTLES: Duration = Duration::from_secs(18);
const ENDS: Duration = Duration::from_secs(20);

/// Credits of a bet, and of all bets of a player in a round.
const LEAST: u64 = 1;
const MOST: u64 = 100;
const MOST_IN_ROUND: u64 = 500;

/// Bets of a player in a round that are looked at: more than there are spots.
const BETS_IN_ROUND: usize = 64;

/// Players whose credits are known, and players in a round of a table.
const PLAYERS: usize = 10_000;

/// The game at all tables.
#[derive(Debug)]
pub(super) struct Casino {
    epoch: Instant,
    unix: Duration,
    /// Number of the next round, over all tables.
    next_round: u64,
    games: BTreeMap<Arc<str>, Game>,
    accounts: Accounts,
    events: VecDeque<(Arc<str>, RoundEvent)>,
}

/// The rounds of a table.
#[derive(Debug)]
struct Game {
    round: Round,
    /// Still asked for by who repeats a key.
    before: Option<Round>,
}

#[derive(Debug)]
struct Round {
    id: Id,
    begun: Instant,
    phase: Phase,
    players: HashMap<PlayerId, Slip>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Open,
    Closed,
    Settled,
}

/// A player's bets of a round.
#[derive(Debug, Default)]
struct Slip {
    outcomes: HashMap<Id, Outcome>,
    bets: Vec<(Spot, u64)>,
}

/// `payload` of a bet signal.
#[derive(Deserialize)]
struct Bet {
    payload: Payload,
}

#[derive(Deserialize)]
struct Payload {
    spot: String,
    amount: u64,
}

impl Casino {
    /// Without tables. `unix` is the time since 1970 at `epoch`.
    pub(super) fn new(epoch: Instant, unix: Duration) -> Self {
        let (games, accounts, events) = (BTreeMap::new(), Accounts::new(PLAYERS), VecDeque::new());
        Self { epoch, unix, next_round: 1, games, accounts, events }
    }

    /// A table began or ceased to be live. A round without a picture is void.
    pub(super) fn handle_table(&mut self, now: Instant, table: &Arc<str>, live: bool) {
        match (live, self.games.contains_key(table)) {
            (true, false) => {
                let round = self.begin(now, table);
                self.games.insert(table.clone(), Game { round, before: None });
            }
            (false, true) => {
                let Some(game) = self.games.remove(table) else { return };
                if game.round.phase == Phase::Settled {
                    return;
                }
                for (player, slip) in &game.round.players {
                    self.accounts.pay(player, slip.bets.iter().map(|(_, amount)| amount).sum());
                }
                self.say(table, RoundKind::Void, &game.round.id, now, json!({ "reason": "table_stopped" }));
            }
            _ => {}
        }
    }

    /// Judges a bet. The same key gets the same answer as long as its round is known, and takes no second stake.
    pub(super) fn handle_bet(&mut self, now: Instant, player: &PlayerId, table: &Arc<str>, signal: &Signal) -> Outcome {
        let Some(game) = self.games.get_mut(table) else { return Outcome::rejected("unknown_round") };
        let rounds = [Some(&mut game.round), game.before.as_mut()].into_iter().flatten();
        let Some(round) = rounds.into_iter().find(|round| round.id == signal.round_id) else {
            return Outcome::rejected("unknown_round");
        };
        if let Some(recorded) = round.players.get(player).and_then(|slip| slip.outcomes.get(&signal.key)) {
            return recorded.clone();
        }
        // By the time as well: the round's end may not have been noticed yet.
        if round.phase != Phase::Open || now >= round.begun + CLOSES {
            return Outcome::rejected("round_closed");
        }
        if !round.players.contains_key(player) && round.players.len() >= PLAYERS {
            return Outcome::rejected("table_full");
        }
        let slip = round.players.entry(player.clone()).or_default();
        if slip.outcomes.len() >= BETS_IN_ROUND {
            return Outcome::rejected("too_many_bets");
        }
        let outcome = match judge(slip, &mut self.accounts, player, signal) {
            Ok(bet) => {
                slip.bets.push(bet);
                Outcome::Accepted
            }
            Err(reason) => Outcome::rejected(reason),
        };
        slip.outcomes.insert(signal.key.clone(), outcome.clone());
        outcome
    }

    /// When to call [`Casino::handle_timeout`].
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.games.values().map(|game| game.round.next()).min()
    }

    /// Everything that time brings. `random` is a new number each time.
    pub(super) fn handle_timeout(&mut self, now: Instant, random: u64) {
        let due = |game: &Game| game.round.next() <= now;
        let tables: Vec<Arc<str>> =
            self.games.iter().filter(|(_, game)| due(game)).map(|(table, _)| table.clone()).collect();
        for (n, table) in tables.iter().enumerate() {
            self.advance(table, random.wrapping_mul(2 * n as u64 + 1));
        }
    }

    /// What happened at which table.
    pub(super) fn poll_event(&mut self) -> Option<(Arc<str>, RoundEvent)> {
        self.events.pop_front()
    }

    /// The next step of a table's round, at the time that it was to be.
    fn advance(&mut self, table: &Arc<str>, random: u64) {
        let Some(mut game) = self.games.remove(table) else { return };
        let at = game.round.next();
        let id = game.round.id.clone();
        match game.round.phase {
            Phase::Open => {
                game.round.phase = Phase::Closed;
                let result = self.unix_ms(game.round.begun + SETTLES);
                self.say(table, RoundKind::Close, &id, at, json!({ "resultTs": result }));
            }
            Phase::Closed => {
                game.round.phase = Phase::Settled;
                // Of 2⁶⁴ values 16 more fall on some numbers than on others, which nobody will live to see.
                let number = (random % NUMBERS) as u8;
                for (player, slip) in &game.round.players {
                    let won = slip.bets.iter().filter(|(spot, _)| spot.wins(number));
                    self.accounts.pay(player, won.map(|(spot, amount)| amount * spot.pays()).sum());
                    self.accounts.refill(player, LEAST);
                }
                let winners = Spot::winners(number);
                let fields = json!({ "number": number, "colour": colour(number), "winners": winners });
                self.say(table, RoundKind::Result, &id, at, fields);
            }
            Phase::Settled => {
                let next = self.begin(at, table);
                game.before = Some(std::mem::replace(&mut game.round, next));
            }
        }
        self.games.insert(table.clone(), game);
    }

    fn begin(&mut self, at: Instant, table: &Arc<str>) -> Round {
        // The time tells rounds of another run of the demo apart.
        let id = format!("{}-{}", self.unix.as_secs(), self.next_round);
        self.next_round += 1;
        // Digits and a dash: an id whatever the numbers.
        let id = Id::new(&id).unwrap_or_else(|_| unreachable!("41 digits and a dash at most"));
        let limits = json!({ "least": LEAST, "most": MOST, "mostInRound": MOST_IN_ROUND });
        let fields = json!({ "game": "wheel", "closesTs": self.unix_ms(at + CLOSES), "limits": limits });
        self.say(table, RoundKind::Open, &id, at, fields);
        Round { id, begun: at, phase: Phase::Open, players: HashMap::new() }
    }

    fn say(&mut self, table: &Arc<str>, kind: RoundKind, id: &Id, at: Instant, fields: Value) {
        let fields = if let Value::Object(fields) = fields { fields } else { Map::new() };
        let event = RoundEvent { kind, round_id: id.clone(), capture_ts: self.unix_ms(at), fields };
        self.events.push_back((table.clone(), event));
    }

    /// Unix milliseconds, whole.
    fn unix_ms(&self, at: Instant) -> f64 {
        (self.unix + at.saturating_duration_since(self.epoch)).as_millis() as f64
    }
}

impl Round {
    /// When its next step is.
    fn next(&self) -> Instant {
        self.begun
            + match self.phase {
                Phase::Open => CLOSES,
                Phase::Closed => SETTLES,
                Phase::Settled => ENDS,
            }
    }
}

/// Whether a bet can be taken; then its stake is.
fn judge(
    slip: &Slip,
    accounts: &mut Accounts,
    player: &PlayerId,
    signal: &Signal,
) -> Result<(Spot, u64), &'static str> {
    let bet: Bet = serde_json::from_str(signal.text()).map_err(|_| "invalid_bet")?;
    let spot: Spot = bet.payload.spot.parse().map_err(|()| "invalid_bet")?;
    let amount = bet.payload.amount;
    let staked: u64 = slip.bets.iter().map(|(_, amount)| amount).sum();
    if !(LEAST..=MOST).contains(&amount) || staked + amount > MOST_IN_ROUND {
        return Err("limit_exceeded");
    }
    if accounts.withdraw(player, amount) { Ok((spot, amount)) } else { Err("insufficient_balance") }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const UNIX: Duration = Duration::from_secs(1_790_000_000);

    struct Evening {
        casino: Casino,
        now: Instant,
        table: Arc<str>,
    }

    impl Evening {
        fn begun() -> Self {
            let now = Instant::now();
            let mut evening = Self { casino: Casino::new(now, UNIX), now, table: "demo".into() };
            evening.casino.handle_table(now, &evening.table, true);
            evening
        }

        fn wait(&mut self, time: Duration, number: u64) {
            self.now += time;
            while self.casino.poll_timeout().is_some_and(|at| at <= self.now) {
                self.casino.handle_timeout(self.now, number);
            }
        }

        fn events(&mut self) -> Vec<Value> {
            let events = std::iter::from_fn(|| self.casino.poll_event());
            let text = |(_, event)| crate::bets::Announcement::new(&event).unwrap().for_player(None);
            events.map(|event| serde_json::from_str(&text(event)).unwrap()).collect()
        }

        fn bets(&mut self, player: &str, round: &str, key: &str, payload: Value) -> Outcome {
            let text = json!({
                "type": "bet", "betId": key, "roundId": round, "idempotencyKey": key, "clientTs": 0, "payload": payload,
            });
            let signal = Signal::parse(text.to_string().as_bytes()).unwrap();
            self.casino.handle_bet(self.now, &PlayerId::new(player).unwrap(), &self.table, &signal)
        }

        fn balance(&mut self, player: &str) -> u64 {
            self.casino.accounts.balance(&PlayerId::new(player).unwrap())
        }
    }

    fn on(spot: &str, amount: u64) -> Value {
        json!({ "spot": spot, "amount": amount })
    }

    const ROUND: &str = "1790000000-1";

    #[test]
    fn a_round_opens_closes_and_has_a_result_in_its_time() {
        let mut evening = Evening::begun();
        evening.wait(20 * SECOND, 17);
        let events = evening.events();
        let told: Vec<(&str, &str, u64)> = events
            .iter()
            .map(|e| {
                let ts = e["captureTs"].as_f64().unwrap() as u64 - 1_790_000_000_000;
                (e["type"].as_str().unwrap(), e["roundId"].as_str().unwrap(), ts)
            })
            .collect();
        assert_eq!(
            told,
            [
                ("round.open", ROUND, 0),
                ("round.close", ROUND, 12_000),
                ("result", ROUND, 18_000),
                ("round.open", "1790000000-2", 20_000),
            ]
        );
        assert_eq!(events[0]["closesTs"], 1_790_000_012_000.0);
        assert_eq!((&events[2]["number"], &events[2]["colour"]), (&json!(17), &json!("black")));
    }

    #[test]
    fn who_wins_is_paid_and_who_loses_is_not() {
        let mut evening = Evening::begun();
        assert_eq!(evening.bets("ann", ROUND, "1", on("17", 10)), Outcome::Accepted);
        assert_eq!(evening.bets("ann", ROUND, "2", on("black", 20)), Outcome::Accepted);
        assert_eq!(evening.bets("bob", ROUND, "1", on("red", 100)), Outcome::Accepted);
        evening.wait(19 * SECOND, 17);
        assert_eq!((evening.balance("ann"), evening.balance("bob")), (1000 - 30 + 360 + 40, 900));
    }

    #[test]
    fn a_key_stakes_once_and_gets_its_answer_again_into_the_next_round() {
        let mut evening = Evening::begun();
        for _ in 0..3 {
            assert_eq!(evening.bets("ann", ROUND, "1", on("red", 10)), Outcome::Accepted);
            assert_eq!(evening.bets("ann", ROUND, "2", on("nowhere", 10)), Outcome::rejected("invalid_bet"));
            evening.wait(7 * SECOND, 0);
        }
        assert_eq!(evening.balance("ann"), 990);
        assert_eq!(evening.bets("bob", ROUND, "1", on("red", 10)), Outcome::rejected("round_closed"));
        evening.wait(20 * SECOND, 0);
        assert_eq!(evening.bets("ann", ROUND, "1", on("red", 10)), Outcome::rejected("unknown_round"));
    }

    #[test]
    fn what_cannot_be_taken_is_rejected_with_a_reason() {
        let mut evening = Evening::begun();
        for wrong in
            [json!(null), json!({}), json!({ "spot": "red" }), on("Red", 5), json!({ "spot": "red", "amount": -1 })]
        {
            let key = format!("k{}", wrong.to_string().len());
            assert_eq!(evening.bets("ann", ROUND, &key, wrong), Outcome::rejected("invalid_bet"));
        }
        for (n, amount) in [0, 101, u64::MAX].into_iter().enumerate() {
            assert_eq!(
                evening.bets("ann", ROUND, &format!("l{n}"), on("red", amount)),
                Outcome::rejected("limit_exceeded")
            );
        }
        for n in 0..5 {
            assert_eq!(evening.bets("ann", ROUND, &format!("m{n}"), on("red", 100)), Outcome::Accepted);
        }
        assert_eq!(evening.bets("ann", ROUND, "n", on("red", 1)), Outcome::rejected("limit_exceeded"));
        evening.wait(20 * SECOND, 2);
        let next = "1790000000-2";
        for n in 0..5 {
            assert_eq!(evening.bets("ann", next, &format!("m{n}"), on("red", 100)), Outcome::Accepted);
        }
        evening.wait(20 * SECOND, 2);
        assert_eq!(evening.balance("ann"), 1000, "who has lost all begins anew");
        assert_eq!(evening.bets("ann", "1790000000-4", "x", on("red", 1)), Outcome::rejected("unknown_round"));
        for n in 0..64 {
            evening.bets("bob", "1790000000-3", &format!("k{n}"), on("red", 1));
        }
        assert_eq!(evening.bets("bob", "1790000000-3", "k64", on("red", 1)), Outcome::rejected("too_many_bets"));
    }

    #[test]
    fn no_bet_is_taken_after_the_close_even_if_that_comes_late() {
        let mut evening = Evening::begun();
        evening.now += CLOSES;
        assert_eq!(evening.bets("ann", ROUND, "1", on("red", 1)), Outcome::rejected("round_closed"));
    }

    #[test]
    fn a_table_that_stops_gives_the_stakes_back() {
        let mut evening = Evening::begun();
        evening.bets("ann", ROUND, "1", on("red", 10));
        evening.events();
        evening.casino.handle_table(evening.now, &"demo".into(), false);
        assert_eq!(evening.balance("ann"), 1000);
        let events = evening.events();
        assert_eq!((&events[0]["type"], &events[0]["reason"]), (&json!("void"), &json!("table_stopped")));
        assert_eq!(evening.casino.poll_timeout(), None);
        assert_eq!(evening.bets("ann", ROUND, "1", on("red", 10)), Outcome::rejected("unknown_round"));
    }
}
