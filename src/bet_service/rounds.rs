//! Round events on their way from a service to the node: which are news, and which have to wait.
//!
//! A service tells the current round again whenever somebody may have missed it: after a reconnect, and when a table
//! goes live on any node. So what was told before comes again, and is not handed on. And it may speak of a table before
//! anybody publishes it here: that is kept until somebody does.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use crate::bets::{RoundEvent, RoundKind};

use super::TableChange;
use super::report::EventResult;

/// Events of a table that are known when they come again: of the last rounds.
const KNOWN: usize = 32;

/// Events that wait for a table to go live, the beginning of its round among them.
const KEPT: usize = 8;

/// The tables of the configuration, each with what was told of it.
#[derive(Debug, Default)]
pub(super) struct Rounds {
    tables: HashMap<Arc<str>, Table>,
}

#[derive(Debug, Default)]
struct Table {
    /// It has been live: the node knows it.
    known: bool,
    live: bool,
    /// Of each kind and round the last.
    told: VecDeque<RoundEvent>,
    kept: Vec<RoundEvent>,
}

impl Rounds {
    /// Of these tables; events of others are not taken.
    pub(super) fn new(tables: impl IntoIterator<Item = Arc<str>>) -> Self {
        Self { tables: tables.into_iter().map(|name| (name, Table::default())).collect() }
    }

    /// An event came. `Some` if it is to be handed on now.
    pub(super) fn handle_event(
        &mut self,
        name: &str,
        event: RoundEvent,
    ) -> (EventResult, Option<(Arc<str>, RoundEvent)>) {
        let Some((name, _)) = self.tables.get_key_value(name) else { return (EventResult::UnknownTable, None) };
        let name = name.clone();
        let Some(table) = self.tables.get_mut(&name) else { return (EventResult::UnknownTable, None) };
        // Its fields too: a round whose closing time is put off, or set back, is told again, and is news.
        let is_same = |told: &&mut RoundEvent| (told.kind, &told.round_id) == (event.kind, &event.round_id);
        match table.told.iter_mut().find(is_same) {
            Some(told) if *told == event => return (EventResult::Repeated, None),
            Some(told) => *told = event.clone(),
            None => {
                if table.told.len() >= KNOWN {
                    table.told.pop_front();
                }
                table.told.push_back(event.clone());
            }
        }
        if table.known {
            return (EventResult::Taken, Some((name, event)));
        }
        table.keep(event);
        (EventResult::Taken, None)
    }

    /// A table began or ceased to be live. What has waited for that is to be handed on.
    pub(super) fn handle_table(&mut self, change: &TableChange) -> Vec<RoundEvent> {
        // One that is not configured is one of the demo.
        let table = self.tables.entry(change.table.clone()).or_default();
        (table.known, table.live) = (true, change.live);
        std::mem::take(&mut table.kept)
    }

    /// The tables that are live.
    pub(super) fn live(&self) -> impl Iterator<Item = Arc<str>> {
        self.tables.iter().filter(|(_, table)| table.live).map(|(name, _)| name.clone())
    }
}

impl Table {
    /// For when the node knows the table: no more than its current round.
    fn keep(&mut self, event: RoundEvent) {
        if event.kind == RoundKind::Open && self.kept.first().is_some_and(|first| first.round_id != event.round_id) {
            self.kept.clear();
        }
        if self.kept.len() >= KEPT {
            self.kept.remove(1);
        }
        self.kept.push(event);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Map, json};

    use super::*;
    use crate::bets::Id;

    fn event(kind: RoundKind, round: &str) -> RoundEvent {
        RoundEvent { kind, round_id: Id::new(round).unwrap(), capture_ts: 1.0, fields: Map::new() }
    }

    fn live(table: &str) -> TableChange {
        TableChange { table: table.into(), live: true }
    }

    fn names(events: &[RoundEvent]) -> Vec<(&str, &str)> {
        events.iter().map(|event| (event.kind.as_str(), event.round_id.as_str())).collect()
    }

    #[test]
    fn an_event_is_handed_on_once_and_again_if_it_says_something_else() {
        let mut rounds = Rounds::new(["a".into()]);
        rounds.handle_table(&live("a"));
        let open = event(RoundKind::Open, "1");
        let (result, told) = rounds.handle_event("a", open.clone());
        assert_eq!((result, told), (EventResult::Taken, Some(("a".into(), open.clone()))));
        assert_eq!(rounds.handle_event("a", open.clone()), (EventResult::Repeated, None));
        let mut later = open.clone();
        later.fields.insert("closesTs".to_owned(), json!(7));
        assert!(rounds.handle_event("a", later.clone()).1.is_some());
        assert_eq!(rounds.handle_event("a", later), (EventResult::Repeated, None));
        assert!(rounds.handle_event("a", event(RoundKind::Close, "1")).1.is_some());
        assert!(rounds.handle_event("a", open.clone()).1.is_some(), "set back to what it was");
        assert_eq!(rounds.handle_event("a", open), (EventResult::Repeated, None));
        assert_eq!(rounds.handle_event("b", event(RoundKind::Open, "1")), (EventResult::UnknownTable, None));
    }

    #[test]
    fn before_a_table_is_live_its_current_round_is_kept() {
        let mut rounds = Rounds::new(["a".into()]);
        for n in 1..=3 {
            for kind in [RoundKind::Open, RoundKind::Close] {
                let (result, told) = rounds.handle_event("a", event(kind, &n.to_string()));
                assert_eq!((result, told), (EventResult::Taken, None));
            }
        }
        assert_eq!(rounds.live().count(), 0);
        assert_eq!(names(&rounds.handle_table(&live("a"))), [("round.open", "3"), ("round.close", "3")]);
        assert_eq!(rounds.live().collect::<Vec<_>>(), ["a".into()]);
        assert!(rounds.handle_table(&TableChange { table: "a".into(), live: false }).is_empty());
        assert!(rounds.handle_event("a", event(RoundKind::Result, "3")).1.is_some(), "the node knows it by now");
        assert_eq!(rounds.live().count(), 0);
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let mut rounds = Rounds::new(["a".into()]);
        for n in 0..100 {
            let mut again = event(RoundKind::Open, "1");
            again.fields.insert("closesTs".to_owned(), json!(n));
            rounds.handle_event("a", again);
        }
        let kept = rounds.handle_table(&live("a"));
        assert_eq!((kept.len(), &kept[0].fields["closesTs"], &kept[7].fields["closesTs"]), (8, &json!(0), &json!(99)));
        assert_eq!(rounds.tables["a"].told.len(), 1);
        for n in 0..100 {
            rounds.handle_event("a", event(RoundKind::Open, &n.to_string()));
        }
        assert_eq!(rounds.tables["a"].told.len(), KNOWN);
    }
}
