//! No bet waits while the desk moves all that it remembers: with as many records as there may be, it takes memory by small
//! pieces.

#![allow(clippy::disallowed_methods, reason = "virtual time begins at some instant")]

#[path = "../benches/allocations.rs"]
mod allocations;

use std::time::{Duration, Instant};

use tableside::bets::{Arrival, Decision, Desk, DeskLimits, Outcome, PlayerId, Signal};

/// A node of a container's tree, and not a table of a hash map, which has a slot for each record.
const PIECE: usize = 4096;

/// Each of a player of his own, so that shares grow as well.
fn bet(desk: &mut Desk<u32>, now: Instant, number: usize) {
    let text = format!(
        r#"{{"type":"bet","betId":"b","roundId":"r","idempotencyKey":"key","clientTs":0,"payload":{{"n":{number}}}}}"#
    );
    let signal = Signal::parse(text.as_bytes()).expect("a signal");
    let player = PlayerId::new(&format!("player-{number}")).expect("a player");
    let arrival = Arrival { from: 0, player, table: "one".into(), edge_in: now, last_mile: None, signal };
    let Decision::PassOn(passed) = desk.handle_signal(now, arrival) else { panic!("{number} is passed on") };
    assert!(desk.handle_answer(now, passed.ticket, &Outcome::Accepted));
    assert_eq!(desk.poll_answer().map(|answer| answer.outcome), Some(Outcome::Accepted));
}

#[test]
fn what_the_desk_remembers_grows_by_small_pieces() {
    let limits = DeskLimits::default();
    let mut desk = Desk::new(limits);
    let begun = Instant::now();
    let at = |number: usize| begun + Duration::from_micros(200) * number as u32;
    bet(&mut desk, at(0), 0);
    allocations::largest_of_this_thread();
    // Half as many again: where there are too many, the oldest is forgotten.
    for number in 1..limits.records * 3 / 2 {
        bet(&mut desk, at(number), number);
    }
    assert_eq!(desk.len(), limits.records);
    let largest = allocations::largest_of_this_thread();
    assert!(largest <= PIECE, "{largest} bytes at once");
    desk.handle_timeout(at(limits.records * 3 / 2) + limits.keep);
    assert!(desk.is_empty());
    let largest = allocations::largest_of_this_thread();
    assert!(largest <= PIECE, "{largest} bytes at once, while it forgets");
}
