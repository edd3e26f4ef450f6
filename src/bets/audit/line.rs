//! What a line says, and its one form in bytes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::bets::{Answer, BetCounts, Id, PlayerId, Refused, Status};

use super::digest::{Digest, Hex};
use super::key::{KeyId, PlayerNames};
use super::time::Timestamp;

/// The version of the format that is written.
pub const VERSION: u32 = 1;

/// Bytes of the longest line, newline included: more than any record can have.
pub const LONGEST: usize = 8192;

/// One line of a segment: a link of the chain.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// Its number in the chain, from 0.
    pub seq: u64,
    /// The SHA-256 of the line before it, newline included; zeros for the first.
    pub prev: Digest,
    /// When it was written, by the host's clock.
    pub ts: Timestamp,
    /// What it says.
    #[serde(flatten)]
    pub entry: Entry,
}

/// As [`Line`], of an entry that somebody else has.
#[derive(Serialize)]
struct Borrowed<'a> {
    seq: u64,
    prev: Digest,
    ts: Timestamp,
    #[serde(flatten)]
    entry: &'a Entry,
}

/// What a line says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum Entry {
    /// The first line of each segment.
    Segment(SegmentHeader),
    /// A process begins to write.
    Start(StartRecord),
    /// A signal has an outcome.
    Signal(Box<SignalRecord>),
    /// Records are missing, and the writer knows it.
    Gap(GapRecord),
    /// The node's counters of signals.
    Totals(TotalsRecord),
    /// A process ends as it should.
    Stop {},
    /// All up to here is signed for.
    Checkpoint(Checkpoint),
}

/// The first line of each segment: whose chain it is, and its place in it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SegmentHeader {
    /// [`VERSION`].
    pub version: u32,
    /// Drawn when the chain began: tells it from every other.
    pub chain: Hex<8>,
    /// The segment's number, from 1.
    pub segment: u64,
    /// The node's name.
    pub node: String,
    /// The process that began the segment, drawn at its start.
    pub boot: Hex<8>,
    /// Who signs.
    pub key: KeyId,
    /// Only in the first: the SHA-256 of the newest checkpoint in the sink, where the directory did not hold its chain and
    /// this one was begun instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaces: Option<Digest>,
}

/// A process begins to write.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StartRecord {
    /// The node's name.
    pub node: String,
    /// Drawn at the start of the process.
    pub boot: Hex<8>,
    /// Of the software.
    pub software: String,
    /// Whether the process before ended as it should, or there was none.
    pub clean: bool,
    /// Bytes of an unfinished line that the process before has left, or of damage after its last checkpoint: put aside.
    pub torn: u64,
    /// Lines that were found after the last checkpoint: nothing but the chain vouched for them meanwhile.
    pub unsealed: u64,
    /// The newest checkpoint in the sink, which the trail was found to hold; not there if no sink had one to say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confirmed: Option<u64>,
}

/// A signal has an outcome. Times of day are Unix microseconds, the others microseconds since `received`, by the edge's
/// monotonic clock.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SignalRecord {
    /// When it came to the edge: `receivedTs` of its ack.
    pub received: Timestamp,
    /// `clientTs` of the player.
    pub client: Timestamp,
    /// Whose it is, as [`PlayerNames`] says.
    pub player: String,
    /// The name of the table.
    pub table: String,
    /// The round that it is for, by the player's word.
    pub round: String,
    /// Under which it is answered.
    pub bet: String,
    /// Names the attempt.
    pub key: String,
    /// The SHA-256 of the message as the player sent it.
    pub message: Digest,
    /// `accepted`, `rejected`, `refused` or `unconfirmed`.
    pub outcome: String,
    /// Why, for `rejected` and `refused`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// It was told `unconfirmed` before: there is another record of that.
    pub late: bool,
    /// When it began to wait for the bet service; not there if it never did, or in vain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub passed_on: Option<u64>,
    /// When the service's answer came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answered: Option<u64>,
    /// When the outcome was ready to be told.
    pub decided: u64,
    /// The round trip between player and edge when it came, in microseconds; not there until it was measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_mile: Option<u64>,
}

/// Records are missing, and the writer knows it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GapRecord {
    /// How many.
    pub lost: u64,
    /// When the first was lost.
    pub from: Timestamp,
    /// When the last was lost.
    pub to: Timestamp,
}

/// The node's counters of signals since its start, those among them that have no record of their own.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub struct TotalsRecord {
    /// First outcomes.
    pub accepted: u64,
    /// First outcomes.
    pub rejected: u64,
    /// First outcomes.
    pub unconfirmed: u64,
    /// Second outcomes.
    pub late: u64,
    /// Refusals by reason. These first outcomes are no records where the core that the player is on refuses by itself.
    pub malformed: u64,
    /// As above.
    pub too_large: u64,
    /// As above.
    pub rate_limited: u64,
    /// As above.
    pub too_many_waiting: u64,
    /// As above.
    pub key_reused: u64,
    /// As above.
    pub unavailable: u64,
}

impl From<&BetCounts> for TotalsRecord {
    fn from(counts: &BetCounts) -> Self {
        let first = |status: Status| counts.outcomes[status as usize];
        let refused = |reason: Refused| counts.refused[reason as usize];
        Self {
            accepted: first(Status::Accepted),
            rejected: first(Status::Rejected),
            unconfirmed: first(Status::Unconfirmed),
            late: counts.late,
            malformed: refused(Refused::Malformed),
            too_large: refused(Refused::TooLarge),
            rate_limited: refused(Refused::RateLimited),
            too_many_waiting: refused(Refused::TooManyWaiting),
            key_reused: refused(Refused::KeyReused),
            unavailable: refused(Refused::Unavailable),
        }
    }
}

/// Signs for everything before it: how many lines (`seq`), the hash of the last (`prev`), when (`ts`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// Who signs.
    pub key: KeyId,
    /// Ed25519 over `tableside-audit-checkpoint-1`, a newline, and the line up to the comma before this field.
    pub signature: Hex<64>,
}

/// What a signed message begins with, so that no signature for something else is one of a checkpoint.
pub(super) const SIGNED_AS: &[u8] = b"tableside-audit-checkpoint-1\n";

/// Bytes of a checkpoint from that comma on: `,"signature":"`, the digits, `"}` and the newline.
pub(super) const SIGNATURE_LENGTH: usize = 14 + 128 + 3;

/// Why bytes are no line of this format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotALine {
    /// It has no newline at its end.
    #[error("it is cut off")]
    Torn,
    /// More bytes than any line has.
    #[error("it is longer than any record")]
    TooLong,
    /// Not JSON, or another kind of object.
    #[error("it is no record of this format")]
    Malformed,
    /// It says something that is written in other bytes.
    #[error("it is not in the form in which records are written")]
    NotCanonical,
}

impl Line {
    /// Reads a line with its newline: it has to be, byte by byte, what is written for what it says.
    ///
    /// # Errors
    /// See [`NotALine`].
    pub fn parse(bytes: &[u8]) -> Result<Self, NotALine> {
        if bytes.len() > LONGEST {
            return Err(NotALine::TooLong);
        }
        let text = bytes.strip_suffix(b"\n").ok_or(NotALine::Torn)?;
        let line: Self = serde_json::from_slice(text).map_err(|_| NotALine::Malformed)?;
        let mut again = Vec::with_capacity(bytes.len());
        encode(&mut again, line.seq, line.prev, line.ts, &line.entry);
        if again == bytes { Ok(line) } else { Err(NotALine::NotCanonical) }
    }
}

/// Writes a line with its newline.
pub(super) fn encode(into: &mut Vec<u8>, seq: u64, prev: Digest, ts: Timestamp, entry: &Entry) {
    serde_json::to_writer(&mut *into, &Borrowed { seq, prev, ts, entry }).expect("memory takes plain fields");
    into.push(b'\n');
}

/// What the desk keeps of a signal for its record.
#[derive(Clone, Debug, PartialEq)]
pub struct Subject {
    /// Whose it is.
    pub player: PlayerId,
    /// The name of the table.
    pub table: Arc<str>,
    /// `roundId`
    pub round: Id,
    /// `idempotencyKey`
    pub key: Id,
    /// `clientTs`, Unix milliseconds.
    pub client_ts: f64,
    /// Of the message.
    pub message: Digest,
    /// The round trip between player and edge, where it was measured.
    pub last_mile: Option<Duration>,
}

impl SignalRecord {
    /// Of an answer that is decided at `now`; `received` is when its signal came, counted from 1970.
    pub fn new<W>(
        answer: &Answer<W>,
        subject: &Subject,
        received: Duration,
        now: Instant,
        names: &PlayerNames,
    ) -> Self {
        let stamps = &answer.stamps;
        let since = |at: Instant| micros(at.saturating_duration_since(stamps.edge_in));
        Self {
            received: Timestamp(micros(received)),
            client: Timestamp((subject.client_ts * 1000.0).round() as u64),
            player: names.name(&subject.player),
            table: subject.table.to_string(),
            round: subject.round.to_string(),
            bet: answer.bet_id.to_string(),
            key: subject.key.to_string(),
            message: subject.message,
            outcome: Status::ALL[answer.outcome.status() as usize].1.to_owned(),
            reason: answer.outcome.reason().map(str::to_owned),
            late: answer.late,
            passed_on: stamps.upstream.map(|(out, _)| since(out)),
            answered: stamps.upstream.map(|(_, back)| since(back)),
            decided: since(now),
            last_mile: subject.last_mile.map(micros),
        }
    }

    /// Whether this is the first outcome of its signal, with this status.
    pub(super) fn is(&self, status: Status) -> bool {
        !self.late && self.outcome == Status::ALL[status as usize].1
    }

    /// Microseconds that the signal was on the edge, the wait for the service apart.
    pub fn edge(&self) -> u64 {
        self.decided.saturating_sub(self.upstream().unwrap_or_default())
    }

    /// Microseconds that it waited for the service.
    pub fn upstream(&self) -> Option<u64> {
        Some(self.answered?.saturating_sub(self.passed_on?))
    }
}

fn micros(duration: Duration) -> u64 {
    duration.as_micros().try_into().unwrap_or(u64::MAX)
}
