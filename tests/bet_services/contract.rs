//! What holds of every connector with a service that works.

use super::bench::Bench;
use super::node::{LIMIT, Node};
use tableside::bets::Status;

/// A node whose table `one` is live, with its round.
async fn seated(node: &mut Node) -> String {
    node.table("one", true);
    node.until("a round is open", |node| node.open_round("one").is_some()).await;
    node.open_round("one").expect("open")
}

pub async fn every_signal_has_one_outcome(bench: impl Bench) {
    let (mut node, _task) = bench.connect().await;
    let round = seated(&mut node).await;
    for n in 0..400 {
        // A fourth is more than may be staked at once.
        node.bet(&format!("player-{}", n % 40), "one", &round, &format!("k-{n}"), if n % 4 == 3 { 101 } else { 10 });
    }
    node.all_told().await;
    let tally = node.tally();
    assert_eq!((tally["accepted"], tally["rejected limit_exceeded"]), (300, 100), "{tally:?}");
    assert!(node.sent.iter().all(|sent| sent.late.is_none()));
    let report = node.report();
    assert_eq!((report.requests, report.in_flight), ([300, 100, 0, 0], 0));
}

pub async fn a_key_that_comes_again_is_one_bet(bench: impl Bench) {
    let (mut node, _task) = bench.connect().await;
    let round = seated(&mut node).await;
    for _ in 0..8 {
        // The desk knows nothing of the last time, so the service is asked: eight bets would be more than may be staked.
        node.bet("ann", "one", &round, "again", 100);
        node.all_told().await;
        node.forget();
    }
    assert_eq!(node.tally()["accepted"], 8, "{:?}", node.tally());
    for n in 0..5 {
        node.bet("ann", "one", &round, &format!("k-{n}"), 100);
        node.all_told().await;
    }
    let tally = node.tally();
    assert_eq!((tally["accepted"], tally["rejected limit_exceeded"]), (12, 1), "{tally:?}");
}

pub async fn the_rounds_of_each_table_come_in_order(bench: impl Bench) {
    let (mut node, _task) = bench.connect().await;
    let tables = ["one", "two"];
    for times in 1..=3 {
        tables.iter().for_each(|table| node.table(table, true));
        node.until("both have a round", |node| tables.iter().all(|table| node.told(table).len() == 2 * times - 1))
            .await;
        tables.iter().for_each(|table| node.table(table, false));
        node.until("both rounds are void", |node| tables.iter().all(|table| node.told(table).len() == 2 * times)).await;
    }
    for table in tables {
        let told = node.told(table);
        let kinds: Vec<&str> = told.iter().map(|(kind, _)| kind.as_str()).collect();
        assert_eq!(kinds, ["round.open", "void", "round.open", "void", "round.open", "void"], "{table}");
        assert!(told.chunks(2).all(|round| round[0].1 == round[1].1), "{told:?}");
    }
}

pub async fn it_ends_with_the_node(bench: impl Bench) {
    let (mut node, task) = bench.connect().await;
    let round = seated(&mut node).await;
    let bet = node.bet("ann", "one", &round, "k", 5);
    node.all_told().await;
    assert_eq!(node.sent[bet].first.as_ref().map(|(outcome, _)| outcome.status()), Some(Status::Accepted));
    node.end();
    tokio::time::timeout(LIMIT, task).await.expect("in time").expect("without a panic");
}
