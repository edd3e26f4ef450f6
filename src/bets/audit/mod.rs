//! The audit trail: records of signals in a chain of hashes, its verifier, its exports. `docs/audit.md` has the format.
//!
//! In: records, times and keys; bytes that may have been tampered with. Out: lines to be written, findings, rows for
//! people. Knows no file and no clock: `crate::audit` has those.

mod chain;
mod digest;
mod export;
mod key;
mod line;
mod time;
mod verdict;
mod verify;

#[cfg(test)]
mod tests;

pub use chain::Chain;
pub use digest::{Digest, Hex, ShortId};
pub use export::{CSV_HEADER, Exporter, Filter, Format};
pub use key::{InvalidKey, KeyId, PlayerNames, SigningKey, VerifyingKey};
pub use line::{
    Checkpoint, Entry, GapRecord, LONGEST, Line, NotALine, SegmentHeader, SignalRecord, StartRecord, Subject,
    TotalsRecord, VERSION,
};
pub use time::{InvalidTime, Timestamp};
pub use verdict::{Finding, Place, Problem, Recovery, Verdict};
pub use verify::{ExpectedCheckpoint, Verifier};
