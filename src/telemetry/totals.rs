//! The reports of all shards as one.

use std::collections::{BTreeMap, BTreeSet};

use crate::audit::AuditReport;
use crate::bet_service::ServiceReport;
use crate::bets::{BetCounts, RoundReport};
use crate::fleet::AdmissionReport;
use crate::net::{SETTINGS, Setting};
use crate::qos::{QosReport, Shares, Spread};
use crate::shard::{ShardReport, TableReport};
use crate::traces::TraceReport;

/// The last report of every shard, and what else a scrape reads.
#[derive(Debug)]
pub(super) struct Totals {
    shards: Vec<ShardReport>,
    /// Tables that are shown even where no shard has heard of them.
    configured: BTreeSet<String>,
    tuning: BTreeMap<&'static str, bool>,
    admission: AdmissionReport,
    rounds: RoundReport,
    bet_service: ServiceReport,
    audit: AuditReport,
    traces: TraceReport,
}

impl Totals {
    pub(super) fn new(tables: impl IntoIterator<Item = String>, shards: usize) -> Self {
        Self {
            shards: vec![ShardReport::default(); shards],
            configured: tables.into_iter().collect(),
            tuning: SETTINGS.iter().map(|setting| (*setting, false)).collect(),
            admission: AdmissionReport::default(),
            rounds: RoundReport::default(),
            bet_service: ServiceReport::default(),
            audit: AuditReport::default(),
            traces: TraceReport::default(),
        }
    }

    /// Cumulative values replace. A table that a shard no longer reports keeps its counters: they may not go back.
    pub(super) fn replace(&mut self, mut reports: Vec<ShardReport>) {
        for (new, old) in reports.iter_mut().zip(&self.shards) {
            for (name, table) in &old.tables {
                new.tables.entry(name.clone()).or_insert_with(|| at_rest(table));
            }
        }
        self.shards = reports;
    }

    pub(super) fn replace_admission(&mut self, report: AdmissionReport) {
        self.admission = report;
    }

    pub(super) fn admission(&self) -> &AdmissionReport {
        &self.admission
    }

    pub(super) fn replace_rounds(&mut self, report: RoundReport) {
        self.rounds = report;
    }

    pub(super) fn rounds(&self) -> &RoundReport {
        &self.rounds
    }

    pub(super) fn replace_bet_service(&mut self, report: ServiceReport) {
        self.bet_service = report;
    }

    pub(super) fn bet_service(&self) -> &ServiceReport {
        &self.bet_service
    }

    pub(super) fn replace_audit(&mut self, report: AuditReport) {
        self.audit = report;
    }

    pub(super) fn audit(&self) -> &AuditReport {
        &self.audit
    }

    pub(super) fn replace_traces(&mut self, report: TraceReport) {
        self.traces = report;
    }

    pub(super) fn traces(&self) -> &TraceReport {
        &self.traces
    }

    /// Bet signals of all shards.
    pub(super) fn bets(&self) -> BetCounts {
        let mut sum = BetCounts::default();
        self.shards.iter().for_each(|shard| sum.add(&shard.bets));
        sum
    }

    /// Tables that are configured, or that shards know.
    pub(super) fn tables(&self) -> BTreeSet<&str> {
        let reported = self.shards.iter().flat_map(|shard| shard.tables.keys());
        self.configured.iter().chain(reported).map(String::as_str).collect()
    }

    pub(super) fn set_tuning(&mut self, tuning: &[Setting]) {
        self.tuning.extend(tuning.iter().map(|t| (t.name, t.ok)));
    }

    pub(super) fn tuning(&self) -> impl Iterator<Item = (&'static str, bool)> {
        self.tuning.iter().map(|(setting, ok)| (*setting, *ok))
    }

    pub(super) fn shards(&self) -> &[ShardReport] {
        &self.shards
    }

    /// The sum of `value` over all shards.
    pub(super) fn sum(&self, value: impl Fn(&ShardReport) -> u64) -> f64 {
        self.shards.iter().map(value).sum::<u64>() as f64
    }

    /// For each table the sum of `value` over all shards.
    pub(super) fn by_table(&self, value: impl Fn(&TableReport) -> f64) -> BTreeMap<&str, f64> {
        self.fold_by_table(|sum, table| *sum += value(table))
    }

    /// For each table what `add` makes of all shards' reports.
    pub(super) fn fold_by_table<T: Default>(&self, add: impl Fn(&mut T, &TableReport)) -> BTreeMap<&str, T> {
        let mut sums: BTreeMap<&str, T> = self.configured.iter().map(|name| (name.as_str(), T::default())).collect();
        for (name, table) in self.shards.iter().flat_map(|shard| &shard.tables) {
            add(sums.entry(name).or_default(), table);
        }
        sums
    }
}

fn at_rest(table: &TableReport) -> TableReport {
    TableReport {
        players: 0,
        live: false,
        ingest_fps: 0.0,
        ingest_bits_per_second: 0.0,
        gop_cached: false,
        qos: QosReport {
            frames_seen: Shares::default(),
            bytes_seen: Shares::default(),
            skew: Spread::default(),
            ..table.qos.clone()
        },
        ..table.clone()
    }
}
