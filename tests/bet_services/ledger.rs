//! The books of a bet service, as `docs/bet-service.md` wants them kept: what was taken, and the rounds.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use serde_json::{Value, json};

/// What the service does with what it is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// What it should.
    None,
    /// It takes its time before it takes the bet.
    Slow(Duration),
    /// It takes the bet and never answers.
    Hang,
    /// It says that it has not taken it, and has not.
    Decline,
    /// It takes the bet and answers with something that is no answer.
    Garbage,
    /// It takes the bet and answers with far too much.
    Flood,
    /// It takes the bet, and fails before it has answered: an error of a server, where there is such a thing.
    Error,
}

/// A bet that was taken.
#[derive(Clone, Debug, PartialEq)]
pub struct Taken {
    pub answer: Value,
    pub payload: String,
    player: String,
    key: String,
    /// How often it was asked for.
    pub asked: u32,
}

/// Shared by everything that is the service.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    books: Arc<Mutex<Books>>,
}

#[derive(Debug, Default)]
struct Books {
    /// By the id that the request's head has: nothing else says which bet it is, as with a service that relies on it.
    bets: HashMap<String, Taken>,
    staked: HashMap<(String, String, String), u64>,
    fault: Option<Fault>,
    rounds: BTreeMap<String, Vec<Value>>,
    round_numbers: u64,
    live: HashMap<String, bool>,
}

impl Ledger {
    pub fn set(&self, fault: Fault) {
        self.lock().fault = Some(fault);
    }

    pub fn fault(&self) -> Fault {
        self.lock().fault.unwrap_or(Fault::None)
    }

    /// Takes a bet, or finds it among those that were by the id of its request: the answer for it. As the embedded service, at most 100 a bet and
    /// 500 a round.
    pub fn take(&self, id: &str, document: &Value) -> Value {
        let text = |value: &Value| value.as_str().expect("a text").to_owned();
        assert_eq!((&document["type"], &document["requestId"]), (&"bet".into(), &id.into()));
        let signal = &document["signal"];
        let (player, table) = (text(&document["playerId"]), text(&document["table"]));
        let (round, key) = (text(&signal["roundId"]), text(&signal["idempotencyKey"]));
        let mut books = self.lock();
        if let Some(taken) = books.bets.get_mut(id) {
            taken.asked += 1;
            let bet = (&taken.player, &taken.key, &taken.payload);
            assert_eq!(bet, (&player, &key, &signal["payload"].to_string()), "one id, two bets");
            return taken.answer.clone();
        }
        let staked = books.staked.entry((player.clone(), table, round)).or_default();
        let amount = signal["payload"]["amount"].as_u64().unwrap_or(u64::MAX);
        let accepted = amount <= 100 && *staked + amount <= 500;
        if accepted {
            *staked += amount;
        }
        let answer = match accepted {
            true => json!({ "status": "accepted", "requestId": document["requestId"], "balance": 7 }),
            false => json!({ "status": "rejected", "reason": "limit_exceeded" }),
        };
        let payload = signal["payload"].to_string();
        books.bets.insert(id.to_owned(), Taken { answer: answer.clone(), payload, player, key, asked: 1 });
        answer
    }

    /// What was taken under a key by anybody, in any round.
    pub fn bets(&self, player: &str, key: &str) -> Vec<Taken> {
        let books = self.lock();
        books.bets.values().filter(|taken| taken.player == player && taken.key == key).cloned().collect()
    }

    pub fn len(&self) -> usize {
        self.lock().bets.len()
    }

    /// A table is live, or no more: its round's events that are to be told. As the embedded service, a table that begins has
    /// a round, and one that ends has it void. A round that was going on when the service died goes on.
    pub fn handle_table(&self, document: &Value) -> Vec<Value> {
        let (table, live) =
            (document["table"].as_str().expect("a table"), document["live"].as_bool().expect("a truth"));
        let was = self.lock().live.insert(table.to_owned(), live);
        let current = self.current(table);
        let goes_on = current.last().is_some_and(|last| last["type"] != "void");
        match (was, live) {
            (_, true) if goes_on => current,
            (_, true) => vec![self.say(table, "round.open")],
            (Some(true), false) => vec![self.say(table, "void")],
            (_, false) => Vec::new(),
        }
    }

    /// Something happens at a table: the event. An `open` begins a new round.
    pub fn say(&self, table: &str, kind: &str) -> Value {
        let mut books = self.lock();
        if kind == "round.open" {
            books.round_numbers += 1;
        }
        let round = format!("r-{}", books.round_numbers);
        let events = books.rounds.entry(table.to_owned()).or_default();
        if kind == "round.open" {
            events.clear();
        }
        let round = events.first().map_or(round, |open| open["roundId"].as_str().expect("a text").to_owned());
        let event = json!({ "table": table, "type": kind, "roundId": round, "captureTs": 1_790_000_000_000_u64 });
        events.push(event.clone());
        event
    }

    /// The current round of a table.
    pub fn current(&self, table: &str) -> Vec<Value> {
        self.lock().rounds.get(table).cloned().unwrap_or_default()
    }

    /// The current rounds of all tables.
    pub fn all_current(&self) -> Vec<Value> {
        self.lock().rounds.values().flatten().cloned().collect()
    }

    /// What the service knows of tables is lost with its process; its books are not.
    pub fn forget_tables(&self) {
        self.lock().live.clear();
    }

    pub fn is_live(&self, table: &str) -> bool {
        self.lock().live.get(table) == Some(&true)
    }

    fn lock(&self) -> MutexGuard<'_, Books> {
        self.books.lock().expect("no panic in the service")
    }
}
