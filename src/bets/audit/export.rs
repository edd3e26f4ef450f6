//! Rows for people and programs.

use std::collections::BTreeSet;

use super::line::{Entry, Line, SegmentHeader, SignalRecord};
use super::time::Timestamp;

/// In which form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// RFC 4180, made safe for spreadsheets.
    Csv,
    /// The lines of the chain as they are.
    JsonLines,
}

/// Which records.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Those of this time and later: when a signal was received, or anything else was written.
    pub from: Option<Timestamp>,
    /// Those before this time.
    pub to: Option<Timestamp>,
    /// Signals of these tables; of all if there is none.
    pub tables: BTreeSet<String>,
    /// Signals of these players, by the names that they have in records; of all if there is none.
    pub players: BTreeSet<String>,
}

impl Filter {
    fn takes(&self, line: &Line) -> bool {
        let narrow = !self.tables.is_empty() || !self.players.is_empty();
        let (time, wanted) = match &line.entry {
            Entry::Signal(signal) => (signal.received, self.takes_signal(signal)),
            // Whose records are lost, nobody knows.
            Entry::Gap(gap) => return self.from.is_none_or(|from| gap.to >= from) && self.is_before(gap.from),
            Entry::Start(_) | Entry::Stop {} => (line.ts, !narrow),
            Entry::Segment(_) | Entry::Totals(_) | Entry::Checkpoint(_) => (line.ts, false),
        };
        wanted && self.from.is_none_or(|from| time >= from) && self.is_before(time)
    }

    fn is_before(&self, time: Timestamp) -> bool {
        self.to.is_none_or(|to| time < to)
    }

    fn takes_signal(&self, signal: &SignalRecord) -> bool {
        let among = |names: &BTreeSet<String>, name: &String| names.is_empty() || names.contains(name);
        among(&self.tables, &signal.table) && among(&self.players, &signal.player)
    }
}

/// The columns of [`Format::Csv`].
pub const CSV_HEADER: [&str; 24] = [
    "seq",
    "type",
    "received_utc",
    "table",
    "round",
    "bet",
    "player",
    "key",
    "outcome",
    "reason",
    "late",
    "edge_ms",
    "upstream_ms",
    "last_mile_ms",
    "passed_on_ms",
    "answered_ms",
    "decided_ms",
    "client_utc",
    "message_sha256",
    "written_utc",
    "node",
    "boot",
    "lost",
    "note",
];

/// Turns lines into rows.
#[derive(Clone, Debug)]
pub struct Exporter {
    format: Format,
    filter: Filter,
    /// Rows that were written.
    rows: u64,
}

impl Exporter {
    /// One that has written nothing.
    pub fn new(format: Format, filter: Filter) -> Self {
        Self { format, filter, rows: 0 }
    }

    /// How many rows it has written, the header apart.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Writes what goes before all rows. Excel takes a file for UTF-8 by its byte order mark only.
    pub fn begin(&self, byte_order_mark: bool, into: &mut Vec<u8>) {
        if self.format == Format::Csv {
            into.extend_from_slice(if byte_order_mark { "\u{feff}" } else { "" }.as_bytes());
            write_row(into, CSV_HEADER.map(String::from));
        }
    }

    /// Writes a line's row, if it is one of those that are wanted.
    pub fn write(&mut self, line: &Line, segment: Option<&SegmentHeader>, into: &mut Vec<u8>) {
        if !self.filter.takes(line) {
            return;
        }
        self.rows += 1;
        match self.format {
            Format::JsonLines => super::line::encode(into, line.seq, line.prev, line.ts, &line.entry),
            Format::Csv => write_row(into, cells(line, segment)),
        }
    }
}

fn cells(line: &Line, segment: Option<&SegmentHeader>) -> [String; CSV_HEADER.len()] {
    let mut row = Row::default();
    row.set("seq", line.seq.to_string());
    row.set("written_utc", line.ts.to_string());
    if let Some(segment) = segment {
        row.set("node", segment.node.clone());
        row.set("boot", segment.boot.to_string());
    }
    match &line.entry {
        Entry::Signal(signal) => row.signal(signal),
        Entry::Gap(gap) => {
            row.set("type", "gap".to_owned());
            row.set("lost", gap.lost.to_string());
            row.set("note", format!("records could not be written from {} to {}", gap.from, gap.to));
        }
        Entry::Start(start) => {
            row.set("type", "start".to_owned());
            row.set("node", start.node.clone());
            row.set("boot", start.boot.to_string());
            let how = if start.clean { "" } else { ", after a process that did not end as it should" };
            row.set("note", format!("tableside {} begins to write{how}", start.software));
        }
        Entry::Stop {} => {
            row.set("type", "stop".to_owned());
            row.set("note", "the process ends as it should".to_owned());
        }
        Entry::Segment(_) | Entry::Totals(_) | Entry::Checkpoint(_) => {}
    }
    row.0
}

#[derive(Default)]
struct Row([String; CSV_HEADER.len()]);

impl Row {
    fn set(&mut self, column: &str, text: String) {
        if let Some(at) = CSV_HEADER.iter().position(|name| *name == column) {
            self.0[at] = text;
        }
    }

    fn signal(&mut self, signal: &SignalRecord) {
        let mut set = |column, text: &str| self.set(column, text.to_owned());
        set("type", "signal");
        set("received_utc", &signal.received.to_string());
        set("client_utc", &signal.client.to_string());
        set("table", &signal.table);
        set("round", &signal.round);
        set("bet", &signal.bet);
        set("player", &signal.player);
        set("key", &signal.key);
        set("outcome", &signal.outcome);
        set("reason", signal.reason.as_deref().unwrap_or_default());
        set("late", if signal.late { "yes" } else { "no" });
        set("message_sha256", &signal.message.to_string());
        let mut milliseconds = |column, micros: Option<u64>| {
            let text = |micros: u64| format!("{}.{:03}", micros / 1000, micros % 1000);
            self.set(column, micros.map(text).unwrap_or_default());
        };
        milliseconds("edge_ms", Some(signal.edge()));
        milliseconds("upstream_ms", signal.upstream());
        milliseconds("last_mile_ms", signal.last_mile);
        milliseconds("passed_on_ms", signal.passed_on);
        milliseconds("answered_ms", signal.answered);
        milliseconds("decided_ms", Some(signal.decided));
    }
}

/// RFC 4180 §2.
fn write_row(into: &mut Vec<u8>, cells: [String; CSV_HEADER.len()]) {
    for (n, cell) in cells.into_iter().enumerate() {
        if n > 0 {
            into.push(b',');
        }
        let cell = guarded(&cell);
        if cell.contains([',', '"', '\r', '\n']) {
            into.extend_from_slice(format!("\"{}\"", cell.replace('"', "\"\"")).as_bytes());
        } else {
            into.extend_from_slice(cell.as_bytes());
        }
    }
    into.extend_from_slice(b"\r\n");
}

/// With an apostrophe before what a spreadsheet would take for a formula: players choose names. Some take `;` or a tab for
/// the end of a cell, and then quotes in the middle of a row mean nothing to them: there a cell begins as well.
fn guarded(cell: &str) -> String {
    let mut text = String::with_capacity(cell.len() + 1);
    let mut before = None;
    for c in cell.chars() {
        let begins = matches!(before, None | Some(';' | '\t' | '\r' | '\n'));
        let is_formula = matches!(c, '=' | '+' | '-' | '@' | '\t' | '\r') || (c == '"' && before.is_some());
        if begins && is_formula {
            text.push('\'');
        }
        text.push(c);
        before = Some(c);
    }
    text
}
