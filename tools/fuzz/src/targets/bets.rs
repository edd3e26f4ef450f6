//! Bet signals of a few players, as they come and damaged, and a bet service that answers, fails, or says nothing:
//! every signal has one first outcome and at most one late one, no key is passed on twice while there is a record of
//! it, and memory is bounded.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use tableside::bets::{Arrival, Decision, Desk, DeskLimits, MAX_MESSAGE, Outcome, PlayerId, Signal, Status, Ticket};

use crate::input::Input;

const LIMITS: DeskLimits = DeskLimits {
    deadline: Duration::from_secs(2),
    late: Duration::from_secs(30),
    keep: Duration::from_secs(300),
    records: 8,
    outcomes_per_player: 3,
    waiting_per_player: 3,
};

/// What was told of each signal, by its number: first outcomes, late ones.
#[derive(Default)]
struct Told(HashMap<u32, (u32, u32)>);

impl Told {
    fn note(&mut self, to: u32, late: bool, outcome: &Outcome) {
        let (first, second) = self.0.entry(to).or_default();
        *if late { second } else { first } += 1;
        assert!(!late || [Status::Accepted, Status::Rejected].contains(&outcome.status()), "a late {outcome:?}");
    }
}

pub(crate) fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let (mut desk, mut now) = (Desk::new(LIMITS), Instant::now());
    let (mut told, mut signals) = (Told::default(), 0);
    let mut tickets: Vec<Ticket> = Vec::new();
    while !input.is_empty() {
        match input.byte() % 8 {
            0 => {
                signals +=
                    u32::from(takes(&mut desk, now, signals, input.byte(), input.chunk(), &mut tickets, &mut told))
            }
            1..=3 => {
                let text = text(input.byte(), input.byte(), input.byte());
                let player = input.byte();
                signals += u32::from(takes(&mut desk, now, signals, player, &text, &mut tickets, &mut told));
            }
            choice @ 4..=6 if !tickets.is_empty() => {
                let ticket = tickets[input.below(tickets.len())];
                match choice {
                    4 if input.flag() => desk.handle_answer(now, ticket, &Outcome::rejected("no")),
                    4 => desk.handle_answer(now, ticket, &Outcome::Accepted),
                    5 => desk.withdraw(ticket),
                    _ => desk.handle_loss(ticket),
                };
            }
            _ => {
                now += Duration::from_millis(u64::from(input.word()));
                desk.handle_timeout(now);
                assert!(desk.poll_timeout().is_none_or(|at| at > now), "a timer that never rests");
            }
        }
        drain(&mut desk, &mut told);
        assert!(desk.len() <= LIMITS.records);
    }
    for _ in 0..2 {
        now += LIMITS.deadline + LIMITS.late + LIMITS.keep;
        desk.handle_timeout(now);
        drain(&mut desk, &mut told);
    }
    assert!(desk.is_empty() && desk.poll_timeout().is_none(), "something is kept for ever");
    assert_eq!(told.0.len(), signals as usize, "a signal without outcome");
    assert!(told.0.values().all(|(first, late)| *first == 1 && *late <= 1), "{:?}", told.0);
}

/// `false` for what is no signal.
fn takes(
    desk: &mut Desk<u32>,
    now: Instant,
    number: u32,
    player: u8,
    text: &[u8],
    tickets: &mut Vec<Ticket>,
    told: &mut Told,
) -> bool {
    let signal = match Signal::parse(text) {
        Ok(signal) => signal,
        Err(not) => {
            assert!(not.bet_id.is_none() || text.len() <= MAX_MESSAGE);
            return false;
        }
    };
    assert_eq!(signal.text().as_bytes(), text, "it is passed on as it came");
    let player = PlayerId::anonymous([player % 3; 16]);
    let arrival = Arrival { from: number, player, table: "roulette".into(), edge_in: now, last_mile: None, signal };
    match desk.handle_signal(now, arrival) {
        Decision::PassOn(passed) => {
            assert!(!tickets.contains(&passed.ticket));
            tickets.push(passed.ticket);
        }
        Decision::Answer(answer) => told.note(answer.to, answer.late, &answer.outcome),
        Decision::Wait => {}
    }
    true
}

fn drain(desk: &mut Desk<u32>, told: &mut Told) {
    while let Some(answer) = desk.poll_answer() {
        told.note(answer.to, answer.late, &answer.outcome);
    }
}

fn text(round: u8, key: u8, amount: u8) -> Vec<u8> {
    let (round, key, amount) = (round % 2, key % 4, amount % 2);
    format!(
        r#"{{"type":"bet","betId":"b-{key}","roundId":"r-{round}","idempotencyKey":"k-{key}","clientTs":1790000000000,"payload":{{"spot":"red","amount":{amount}}}}}"#
    )
    .into_bytes()
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let raw = |text: &[u8]| [&[0, 1][..], &(text.len() as u16).to_be_bytes(), text].concat();
    vec![
        raw(&text(0, 1, 1)),
        raw(br#"{"type":"bet","betId":"b","roundId":"r","idempotencyKey":"k","clientTs":0,"payload":[[{}]],"more":"\u0000"}"#),
        // Two players, one key twice, an answer, the key again.
        vec![1, 0, 1, 1, 0, 1, 0, 1, 1, 1, 1, 0, 1, 1, 0, 4, 0, 0, 1, 0, 1, 1, 0],
        // Without an answer: past the deadline, asked again, answered late; then past everything, and asked again.
        vec![1, 0, 1, 1, 0, 7, 8, 0, 1, 0, 1, 1, 0, 4, 0, 0, 7, 255, 255, 7, 255, 255, 1, 0, 1, 1, 0],
        // Withdrawn, lost.
        vec![1, 0, 1, 1, 0, 5, 0, 1, 0, 1, 1, 0, 6, 1, 1, 0, 2, 1, 1],
    ]
}
