//! What a verifier has found.

use std::fmt;
use std::sync::Arc;

use serde::{Serialize, Serializer};

use super::digest::{Digest, ShortId};
use super::key::KeyId;
use super::line::NotALine;
use super::time::Timestamp;

/// Where in the files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Place {
    /// The segment's file, as whoever verifies has named it.
    #[serde(serialize_with = "name")]
    pub file: Arc<str>,
    /// Its line, from 1.
    pub line: u64,
}

fn name<S: Serializer>(file: &Arc<str>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(file)
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Where it shows.
    pub place: Place,
    /// What it is.
    #[serde(flatten)]
    pub problem: Problem,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.problem)
    }
}

/// What can be wrong. Records are numbered by their `seq`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "problem", rename_all = "snake_case", rename_all_fields = "camelCase")]
pub enum Problem {
    /// There is no line at all.
    Empty,
    /// Bytes that are no record: changed, or written by somebody else.
    Unreadable {
        /// Why.
        #[serde(serialize_with = "as_text")]
        why: NotALine,
    },
    /// The last line of a file has no end.
    Torn,
    /// A record is not the one that the next one was written after.
    Changed {
        /// Which.
        seq: u64,
    },
    /// One of two neighbours is not as it was written, and nothing tells which.
    BrokenLink {
        /// The first of them.
        before: u64,
        /// The second.
        after: u64,
    },
    /// Records are not there.
    Removed {
        /// The first.
        first: u64,
        /// The last.
        last: u64,
    },
    /// A record stands where it was not written.
    Moved {
        /// Which.
        seq: u64,
    },
    /// There is a record of this number already: one was doubled or put in.
    Repeated {
        /// Which.
        seq: u64,
    },
    /// The chain begins later than with its first record.
    NoBeginning {
        /// The first record that is there.
        seq: u64,
    },
    /// A segment does not begin with its header, or a header stands elsewhere.
    Header,
    /// A header that does not continue the segment before: another chain, or a wrong number.
    OtherChain,
    /// Written by a later version of this software.
    Version {
        /// Which.
        version: u32,
    },
    /// A segment ends without a checkpoint, and the next one does not begin with the word of a start that found it so.
    NotSealed,
    /// The trail of another node than was asked for.
    OtherNode {
        /// Whose.
        node: String,
    },
    /// The signature of a checkpoint is not that of its key.
    BadSignature {
        /// The checkpoint.
        seq: u64,
    },
    /// A checkpoint is signed by somebody else.
    UnknownKey {
        /// The checkpoint.
        seq: u64,
        /// Who it says has signed.
        key: KeyId,
    },
    /// A checkpoint is signed with another key than its segment's header names.
    OtherKey {
        /// The checkpoint.
        seq: u64,
        /// Who has signed.
        key: KeyId,
    },
    /// There is no checkpoint: nothing is signed for.
    NothingSigned,
    /// Records follow the last checkpoint, and that was not to be.
    Unsealed {
        /// How many.
        lines: u64,
    },
    /// The chain ends before a checkpoint that was exported: its end was cut off, or all of it written anew.
    Truncated {
        /// Lines that there were.
        expected: u64,
        /// Lines that there are.
        found: u64,
        /// When the checkpoint was made.
        at: Timestamp,
    },
    /// The chain has another record in the place of a checkpoint that was exported: it was written anew.
    Contradicted {
        /// The checkpoint.
        seq: u64,
    },
}

fn as_text<S: Serializer>(why: &NotALine, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(why)
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => write!(f, "there is no record"),
            Self::Unreadable { why } => write!(f, "changed or put in: {why}"),
            Self::Torn => write!(
                f,
                "the file ends in the middle of a record: cut, or left so by a process that was killed and has not been \
                 started again"
            ),
            Self::Changed { seq } => write!(f, "record {seq} was changed"),
            Self::BrokenLink { before, after } => write!(f, "record {before} or record {after} was changed"),
            Self::Removed { first, last } if first == last => write!(f, "record {first} was removed"),
            Self::Removed { first, last } => {
                write!(f, "records {first} to {last} were removed, {} of them", (last - first).saturating_add(1))
            }
            Self::Moved { seq } => write!(f, "record {seq} was moved here from its place"),
            Self::Repeated { seq } => write!(f, "record {seq} is there already: this one was doubled or put in"),
            Self::NoBeginning { seq } => write!(
                f,
                "the chain begins with record {seq}: earlier segments are missing (--partial, if they were removed on \
                 purpose)"
            ),
            Self::Header => write!(f, "a segment's header is missing, or stands where none belongs"),
            Self::OtherChain => write!(f, "this segment does not continue the one before"),
            Self::Version { version } => {
                write!(f, "the format is version {version}, which this software does not know: use a newer one")
            }
            Self::NotSealed => write!(
                f,
                "the segment ends without a checkpoint, and the next does not begin with a start that says so"
            ),
            Self::OtherNode { node } => write!(f, "this is the trail of node {node}"),
            Self::BadSignature { seq } => write!(f, "the signature of checkpoint {seq} is not that of its key"),
            Self::UnknownKey { seq, key } => {
                write!(f, "checkpoint {seq} is signed by key {key}, which is none of those given")
            }
            Self::OtherKey { seq, key } => {
                write!(f, "checkpoint {seq} is signed by key {key}, which is not the one that its segment names")
            }
            Self::NothingSigned => write!(f, "there is no checkpoint: nothing here is signed for"),
            Self::Unsealed { lines } => write!(f, "{lines} records follow the last checkpoint"),
            Self::Truncated { expected, found, at } => write!(
                f,
                "the end is missing: a checkpoint of {at} signs for {expected} records, itself not counted, and the chain ends after {found}"
            ),
            Self::Contradicted { seq } => {
                write!(f, "record {seq} is not the checkpoint that was exported: the chain was written anew")
            }
        }
    }
}

/// A start that signed for lines which nothing had vouched for: whoever could write to the directory meanwhile may have
/// written them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Recovery {
    /// The start's record.
    pub seq: u64,
    /// When.
    pub at: Timestamp,
    /// How many lines.
    pub unsealed: u64,
    /// Bytes that it has put aside.
    pub torn: u64,
}

/// What was verified, and what came of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Verdict {
    /// What is wrong, in the order of the files; the first thousand.
    pub findings: Vec<Finding>,
    /// How many more there are.
    pub further_findings: u64,
    /// Whose trail it is, by its last header.
    pub node: Option<String>,
    /// Which chain.
    pub chain: Option<ShortId>,
    /// The checkpoint of another chain, in whose place this one was begun.
    pub replaces: Option<Digest>,
    /// Whether signatures were checked: only if a key was given.
    pub signatures_checked: bool,
    /// Files.
    pub segments: u64,
    /// Lines that could be read.
    pub lines: u64,
    /// The first record's number and time.
    pub first: Option<(u64, Timestamp)>,
    /// The last record's.
    pub last: Option<(u64, Timestamp)>,
    /// Checkpoints, if keys were given those with a valid signature.
    pub checkpoints: u64,
    /// The last of them.
    pub sealed: Option<(u64, Timestamp)>,
    /// Lines after the last of them: only the chain vouches for them, which who writes to the disk can continue.
    pub unsealed: u64,
    /// Exported checkpoints that were found in the chain as they are.
    pub confirmed: u64,
    /// Exported checkpoints of what was before the first record.
    pub unconfirmed: u64,
    /// First outcomes of signals, by [`crate::bets::Status`] discriminant.
    pub outcomes: [u64; 4],
    /// Second outcomes.
    pub late: u64,
    /// Records that the writer itself has declared lost.
    pub lost: u64,
    /// Processes that have written.
    pub starts: u64,
    /// Those among them that came after one that had not ended as it should.
    pub crashes: u64,
    /// Those among them that signed for what nothing had vouched for; the first thousand.
    pub recoveries: Vec<Recovery>,
}

impl Verdict {
    /// Whether nothing is wrong.
    pub fn is_intact(&self) -> bool {
        self.findings.is_empty()
    }
}
