//! How rounds end: settled, or aborted and why.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::counts::SettleHistogram;
use super::id::Id;
use super::round::RoundKind;

/// A round that has no result so long after it was closed is counted as aborted: the longest of live games, with the
/// stakes of a full table to be paid, take half of that.
const LONGEST_SETTLEMENT: Duration = Duration::from_secs(120);

/// Why a round ended without a result. Exported as `tableside_round_aborts_total{table,cause}`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(usize)]
pub enum AbortCause {
    /// The service said so.
    Void,
    /// It was closed, and no result came within two minutes.
    NoResult,
    /// The next round began before it had a result.
    Superseded,
}

impl AbortCause {
    /// Every cause with its label value, in the order of the discriminants.
    pub const ALL: [(AbortCause, &'static str); 3] =
        [(AbortCause::Void, "void"), (AbortCause::NoResult, "no_result"), (AbortCause::Superseded, "superseded")];
}

/// What became of rounds so far.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RoundReport {
    /// By table, then by [`AbortCause`] discriminant.
    pub aborts: BTreeMap<Arc<str>, [u64; AbortCause::ALL.len()]>,
    /// From `round.close` to `result`.
    pub settle: SettleHistogram,
}

/// The current round of each table.
#[derive(Debug, Default)]
pub struct RoundBook {
    rounds: BTreeMap<Arc<str>, Round>,
    report: RoundReport,
}

#[derive(Debug)]
struct Round {
    id: Id,
    closed: Option<Instant>,
    over: bool,
}

impl RoundBook {
    /// Takes an event that came at `now`; `table` is one of a set that somebody else bounds.
    pub fn handle_event(&mut self, now: Instant, table: &Arc<str>, kind: RoundKind, id: &Id) {
        let before = self.rounds.get(table);
        let is_new = before.is_none_or(|round| round.id != *id);
        if is_new && before.is_some() && kind != RoundKind::Open {
            // Of a round that was superseded, settled late: it says nothing of the current one.
            return;
        }
        if is_new && before.is_some_and(|round| !round.over) {
            self.abort(table, AbortCause::Superseded);
        }
        if is_new {
            self.rounds.insert(table.clone(), Round { id: id.clone(), closed: None, over: false });
        }
        let Some(round) = self.rounds.get_mut(table).filter(|round| !round.over) else { return };
        match kind {
            RoundKind::Open => {}
            RoundKind::Close => _ = round.closed.get_or_insert(now),
            RoundKind::Result => {
                round.over = true;
                if let Some(closed) = round.closed {
                    self.report.settle.observe(now.saturating_duration_since(closed));
                }
            }
            RoundKind::Void => {
                round.over = true;
                self.abort(table, AbortCause::Void);
            }
        }
    }

    /// When to call [`RoundBook::handle_timeout`].
    pub fn poll_timeout(&self) -> Option<Instant> {
        let open = self.rounds.values().filter(|round| !round.over);
        open.filter_map(|round| round.closed).min().map(|closed| closed + LONGEST_SETTLEMENT)
    }

    /// Counts rounds that will have no result.
    pub fn handle_timeout(&mut self, now: Instant) {
        let late = |round: &Round| round.closed.is_some_and(|closed| closed + LONGEST_SETTLEMENT <= now);
        let mut aborted = Vec::new();
        for (table, round) in self.rounds.iter_mut().filter(|(_, round)| !round.over && late(round)) {
            round.over = true;
            aborted.push(table.clone());
        }
        aborted.iter().for_each(|table| self.abort(table, AbortCause::NoResult));
    }

    /// What became of rounds so far.
    pub fn report(&self) -> &RoundReport {
        &self.report
    }

    fn abort(&mut self, table: &Arc<str>, cause: AbortCause) {
        self.report.aborts.entry(table.clone()).or_default()[cause as usize] += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn book(events: &[(u32, RoundKind, &str)]) -> (RoundBook, Instant) {
        let (mut book, start) = (RoundBook::default(), Instant::now());
        for (at, kind, id) in events {
            let now = start + *at * SECOND;
            book.handle_timeout(now);
            book.handle_event(now, &"roulette".into(), *kind, &Id::new(id).unwrap());
        }
        (book, start)
    }

    fn aborts(book: &RoundBook) -> [u64; 3] {
        book.report().aborts.get("roulette").copied().unwrap_or_default()
    }

    #[test]
    fn a_round_with_a_result_is_settled() {
        use RoundKind::*;
        let (book, _) =
            book(&[(0, Open, "1"), (12, Close, "1"), (18, Result, "1"), (19, Result, "1"), (20, Open, "2")]);
        assert_eq!((aborts(&book), book.report().settle.count(), book.report().settle.sum()), ([0; 3], 1, 6.0));
    }

    #[test]
    fn a_round_that_is_settled_after_the_next_has_begun_changes_nothing_for_that_one() {
        use RoundKind::*;
        let events = [(0, Open, "1"), (12, Close, "1"), (14, Open, "2"), (15, Result, "1"), (26, Close, "2")];
        let (book, _) = book(&[&events[..], &[(30, Result, "2")]].concat());
        assert_eq!((aborts(&book), book.report().settle.count(), book.report().settle.sum()), ([0, 0, 1], 1, 4.0));
    }

    #[test]
    fn every_other_end_is_an_abort_with_its_cause_once() {
        use RoundKind::*;
        assert_eq!(aborts(&book(&[(0, Open, "1"), (1, Void, "1"), (2, Void, "1"), (3, Open, "2")]).0), [1, 0, 0]);
        assert_eq!(aborts(&book(&[(0, Open, "1"), (12, Close, "1"), (14, Open, "2")]).0), [0, 0, 1]);
        let (mut late, start) = book(&[(0, Open, "1"), (12, Close, "1")]);
        assert_eq!(late.poll_timeout(), Some(start + 132 * SECOND));
        late.handle_timeout(start + 132 * SECOND);
        assert_eq!((aborts(&late), late.poll_timeout()), ([0, 1, 0], None));
        late.handle_event(start + 140 * SECOND, &"roulette".into(), Result, &Id::new("1").unwrap());
        assert_eq!((aborts(&late), late.report().settle.count()), ([0, 1, 0], 0), "too late to count as settled");
    }
}
