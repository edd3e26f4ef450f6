//! What holds of every connector whatever the service does: signals sent are outcomes received, no bet is taken twice,
//! and nobody is told `refused` whose bet was taken, or may have been.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::bench::ForeignBench;
use super::ledger::Fault;
use super::node::{LIMIT, Node};
use tableside::bet_service::{BreakerState, EventResult, RequestResult};
use tableside::bets::{DeskLimits, Outcome, Refused, Status};

const MS: Duration = Duration::from_millis(1);

/// How much later than its deadline an outcome may be on a machine that has other things to do.
const SLACK: Duration = Duration::from_millis(1500);

async fn seated(bench: &impl ForeignBench) -> (Node, String) {
    let (mut node, _task) = bench.connect().await;
    node.table("one", true);
    node.until("a round is open", |node| node.open_round("one").is_some()).await;
    let round = node.open_round("one").expect("open");
    (node, round)
}

/// What must hold of all that was sent, whatever happened: see the head of this file.
pub fn audit(node: &Node, bench: &impl ForeignBench) {
    // The words that were given for a bet, over all signals with its key.
    let mut words: BTreeMap<(&str, &str), Vec<&Outcome>> = BTreeMap::new();
    for sent in &node.sent {
        let (first, after) = sent.first.as_ref().expect("every signal has an outcome");
        assert!(*after <= DeskLimits::default().deadline + SLACK, "{sent:?}");
        let words = words.entry((&sent.player, &sent.key)).or_default();
        words.extend([Some(first), sent.late.as_ref()].into_iter().flatten());
    }
    let mut in_doubt = BTreeMap::new();
    for sent in &node.sent {
        let (first, _) = sent.first.as_ref().expect("every signal has an outcome");
        let doubted = in_doubt.entry((&sent.player, &sent.key)).or_insert(false);
        assert!(!*doubted || first.status() != Status::Refused, "it was in doubt before: {sent:?}");
        *doubted |= first.status() == Status::Unconfirmed;
    }
    for ((player, key), words) in words {
        let taken = bench.ledger().bets(player, key);
        assert!(taken.len() <= 1, "{player} {key} was taken {} times", taken.len());
        let taken = taken.first().map(|taken| taken.answer["status"].as_str().expect("a status").to_owned());
        for word in &words {
            match word.status() {
                // The service's own words, and only those.
                Status::Accepted => assert_eq!(taken.as_deref(), Some("accepted"), "{player} {key}: {words:?}"),
                Status::Rejected => assert_eq!(taken.as_deref(), Some("rejected"), "{player} {key}: {words:?}"),
                Status::Refused | Status::Unconfirmed => {}
            }
        }
        let only_refused = words.iter().all(|word| word.status() == Status::Refused);
        assert!(!only_refused || taken.is_none(), "{player} {key} was told refused, and the bet was taken");
    }
}

fn status(node: &Node, signal: usize) -> Status {
    node.sent[signal].first.as_ref().expect("told").0.status()
}

pub async fn another_node_knows_nothing_and_there_is_still_one_bet(bench: impl ForeignBench) {
    let (mut here, round) = seated(&bench).await;
    let (mut there, _) = seated(&bench).await;
    for n in 0..50 {
        here.bet("ann", "one", &round, &format!("k-{n}"), 1);
        there.bet("ann", "one", &round, &format!("k-{n}"), 1);
    }
    here.all_told().await;
    there.all_told().await;
    assert_eq!((here.tally()["accepted"], there.tally()["accepted"], bench.ledger().len()), (50, 50, 50));
    assert!((0..50).all(|n| bench.ledger().bets("ann", &format!("k-{n}"))[0].asked == 2));
    audit(&here, &bench);
    audit(&there, &bench);
}

pub async fn a_slow_service_is_waited_for(bench: impl ForeignBench) {
    let (mut node, round) = seated(&bench).await;
    bench.fault(Fault::Slow(300 * MS));
    for n in 0..60 {
        node.bet(&format!("player-{n}"), "one", &round, "k", 1);
    }
    node.all_told().await;
    assert_eq!(node.tally()["accepted"], 60, "{:?}", node.tally());
    assert!(node.sent.iter().all(|sent| sent.first.as_ref().is_some_and(|(_, after)| *after >= 300 * MS)));
    assert_eq!(node.report().answer_time.count(), 60);
    audit(&node, &bench);
}

pub async fn a_late_answer_is_a_second_outcome(bench: impl ForeignBench) {
    let (mut node, round) = seated(&bench).await;
    bench.fault(Fault::Slow(3000 * MS));
    let bet = node.bet("ann", "one", &round, "k", 1);
    node.until("the late answer", |node| node.sent[bet].late.is_some()).await;
    assert_eq!((status(&node, bet), node.sent[bet].late.clone()), (Status::Unconfirmed, Some(Outcome::Accepted)));
    audit(&node, &bench);
}

pub async fn a_hung_service_is_left_alone_until_it_is_back(bench: impl ForeignBench) {
    let (mut node, round) = seated(&bench).await;
    bench.fault(Fault::Hang);
    let mut n = 0;
    // Until the first deadlines are over, which opens the breaker.
    while node.report().breaker != BreakerState::Open {
        node.bet(&format!("player-{n}"), "one", &round, "k", 1);
        n += 1;
        node.during(20 * MS).await;
        assert!(n < 1000, "the breaker stays closed: {:?}", node.tally());
    }
    let begun = Instant::now();
    let refused = node.bet("ann", "one", &round, "k", 1);
    node.until("an outcome", |node| node.sent[refused].first.is_some()).await;
    let (outcome, after) = node.sent[refused].first.clone().expect("told");
    assert_eq!(outcome, Outcome::Refused(Refused::Unavailable), "{after:?} {:?}", begun.elapsed());
    assert!(after < 500 * MS, "at once, not after {after:?}");
    assert!(bench.ledger().bets("ann", "k").is_empty(), "and nothing was sent");
    // Who bet before that, and repeats the key now, may have bet.
    node.until("the first is given up", |node| node.report().requests[RequestResult::Lost as usize] > 0).await;
    let again = node.bet("player-0", "one", &round, "k", 1);
    node.until("an outcome", |node| node.sent[again].first.is_some()).await;
    assert_eq!((status(&node, 0), status(&node, again)), (Status::Unconfirmed, Status::Unconfirmed));

    bench.fault(Fault::None);
    node.all_told().await;
    audit(&node, &bench);
    // Players repeat what is unconfirmed, with the same key, until it is known.
    repeat_until_known(&mut node, &round).await;
    assert_eq!(node.report().breaker, BreakerState::Closed);
    assert!(node.report().breaker_opened >= 1);
    audit(&node, &bench);
}

/// Players repeat what they were told `unconfirmed` and, as bets of their own, what was refused.
pub async fn repeat_until_known(node: &mut Node, round: &str) {
    let begun = Instant::now();
    loop {
        node.all_told().await;
        let mut last: BTreeMap<(String, String), bool> = BTreeMap::new();
        for sent in &node.sent {
            let outcomes = [sent.first.as_ref().map(|(outcome, _)| outcome), sent.late.as_ref()];
            let known = |outcome: &&Outcome| matches!(outcome.status(), Status::Accepted | Status::Rejected);
            *last.entry((sent.player.clone(), sent.key.clone())).or_default() |=
                outcomes.into_iter().flatten().any(|outcome| known(&outcome));
        }
        let unknown: Vec<_> = last.into_iter().filter(|(_, known)| !known).map(|(bet, _)| bet).collect();
        if unknown.is_empty() {
            return;
        }
        assert!(begun.elapsed() < LIMIT, "{} bets stay unknown, {:?}", unknown.len(), node.tally());
        for (player, key) in unknown {
            node.bet(&player, "one", round, &key, 1);
        }
        node.during(100 * MS).await;
    }
}

pub async fn a_service_that_is_not_there_refuses(mut bench: impl ForeignBench) {
    let (mut node, round) = seated(&bench).await;
    bench.kill().await;
    for n in 0..20 {
        node.bet(&format!("player-{n}"), "one", &round, "k", 1);
        node.during(5 * MS).await;
    }
    node.all_told().await;
    assert_eq!(node.tally()["refused unavailable"], 20, "{:?}", node.tally());
    assert_eq!(bench.ledger().len(), 0);
    audit(&node, &bench);
    bench.back().await;
    repeat_until_known(&mut node, &round).await;
    assert_eq!(bench.ledger().len(), 20);
    audit(&node, &bench);
}

pub async fn one_that_declines_has_taken_nothing(bench: impl ForeignBench) {
    let (mut node, round) = seated(&bench).await;
    bench.fault(Fault::Decline);
    let bet = node.bet("ann", "one", &round, "k", 1);
    node.all_told().await;
    assert_eq!(
        node.sent[bet].first.as_ref().map(|(outcome, _)| outcome),
        Some(&Outcome::Refused(Refused::Unavailable))
    );
    assert_eq!((bench.ledger().len(), node.report().requests[RequestResult::NotSent as usize]), (0, 1));
    bench.fault(Fault::None);
    repeat_until_known(&mut node, &round).await;
    audit(&node, &bench);
}

pub async fn what_cannot_be_read_may_have_been_taken(bench: impl ForeignBench) {
    let (mut node, round) = seated(&bench).await;
    for (n, fault) in [Fault::Garbage, Fault::Flood, Fault::Error].into_iter().enumerate() {
        bench.fault(fault);
        let bet = node.bet("ann", "one", &round, &format!("k-{n}"), 1);
        node.all_told().await;
        assert_eq!(status(&node, bet), Status::Unconfirmed, "{fault:?}: {:?}", node.report());
        assert_eq!(bench.ledger().bets("ann", &format!("k-{n}")).len(), 1, "{fault:?}");
    }
    assert_eq!(node.report().requests, [0, 0, 0, 3]);
    bench.fault(Fault::None);
    repeat_until_known(&mut node, &round).await;
    audit(&node, &bench);
}

/// Signals come without a pause while the service dies, is gone for a while, and comes back.
pub async fn killed_in_mid_request_and_back(mut bench: impl ForeignBench) {
    let (mut node, round) = seated(&bench).await;
    let steady = async |node: &mut Node, from: usize, signals: usize| {
        for n in from..from + signals {
            node.bet(&format!("player-{}", n % 100), "one", &round, &format!("k-{n}"), 1);
            node.during(4 * MS).await;
        }
    };
    steady(&mut node, 0, 100).await;
    // Some are being judged when it dies: taken, and nobody was told.
    bench.fault(Fault::Slow(100 * MS));
    steady(&mut node, 100, 20).await;
    bench.fault(Fault::Hang);
    steady(&mut node, 120, 20).await;
    bench.kill().await;
    bench.fault(Fault::None);
    steady(&mut node, 140, 100).await;
    bench.back().await;
    steady(&mut node, 240, 100).await;
    node.all_told().await;
    assert_eq!(node.sent.len(), 340);
    // Before anybody repeats anything: who was told `refused` has not bet.
    audit(&node, &bench);
    repeat_until_known(&mut node, &round).await;
    audit(&node, &bench);
    assert_eq!(bench.ledger().len(), 340, "each bet once, whatever came of its first signal");
    let taken_and_not_told = (0..340).filter(|n| {
        let bets = bench.ledger().bets(&format!("player-{}", n % 100), &format!("k-{n}"));
        bets[0].asked > 1
    });
    assert!(taken_and_not_told.count() >= 10, "some were asked for again: the test would prove nothing otherwise");
}

pub async fn after_a_reconnect_the_current_round_is_known(mut bench: impl ForeignBench) {
    let (mut node, round) = seated(&bench).await;
    bench.say("one", "round.close").await;
    node.until("the close", |node| node.told("one").len() == 2).await;
    bench.kill().await;
    // Nobody hears of these, and the round that they begin goes on.
    bench.ledger().say("one", "result");
    let next = bench.ledger().say("one", "round.open")["roundId"].as_str().expect("a text").to_owned();
    bench.ledger().forget_tables();
    bench.back().await;
    node.until("the next round", |node| node.open_round("one").is_some_and(|open| open == next)).await;
    bench.say_again("one").await;
    bench.say("one", "round.close").await;
    node.until("its close", |node| node.told("one").last() == Some(&("round.close".to_owned(), next.clone()))).await;
    // It is told on a way of its own.
    node.until("the service has heard of the table again", |_| bench.ledger().is_live("one")).await;

    let told = node.told("one");
    let position =
        |kind: &str, round: &str| told.iter().position(|event| *event == (kind.to_owned(), round.to_owned()));
    let mut once = told.clone();
    once.sort();
    once.dedup();
    assert_eq!(once.len(), told.len(), "nothing is told twice: {told:?}");
    assert!(position("round.open", &round) < position("round.close", &round));
    assert!(position("round.close", &round) < position("round.open", &next), "{told:?}");
    assert!(node.report().events[EventResult::Repeated as usize] >= 1, "{:?}", node.report());
}
