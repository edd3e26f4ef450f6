//! The chain as it grows.

use super::digest::{Digest, Hex};
use super::key::SigningKey;
use super::line::{Checkpoint, Entry, SIGNATURE_LENGTH, SIGNED_AS, encode};
use super::time::Timestamp;

/// Where the next line of a chain goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chain {
    next: u64,
    head: Digest,
}

impl Chain {
    /// One without lines.
    pub const EMPTY: Self = Self { next: 0, head: Digest::ZERO };

    /// One of `count` lines, of which the last has this hash.
    pub fn after(count: u64, head: Digest) -> Self {
        Self { next: count, head }
    }

    /// How many lines it has.
    pub fn count(&self) -> u64 {
        self.next
    }

    /// The hash of the last.
    pub fn head(&self) -> Digest {
        self.head
    }

    /// Writes the next line.
    pub fn append(&mut self, into: &mut Vec<u8>, ts: Timestamp, entry: &Entry) {
        let start = into.len();
        encode(into, self.next, self.head, ts, entry);
        self.grow(&into[start..]);
    }

    /// Writes a checkpoint: from then on all before it is signed for.
    pub fn seal(&mut self, into: &mut Vec<u8>, ts: Timestamp, key: &SigningKey) {
        let start = into.len();
        let unsigned = Checkpoint { key: key.id(), signature: Hex([0; 64]) };
        encode(into, self.next, self.head, ts, &Entry::Checkpoint(unsigned));
        let signature = key.sign(&signed_part(&into[start..]));
        into.truncate(start);
        let checkpoint = Checkpoint { key: key.id(), signature };
        encode(into, self.next, self.head, ts, &Entry::Checkpoint(checkpoint));
        self.grow(&into[start..]);
    }

    fn grow(&mut self, line: &[u8]) {
        self.head = Digest::of(line);
        self.next += 1;
    }
}

/// What the signature of a checkpoint is over, given its line with the newline.
pub(super) fn signed_part(line: &[u8]) -> Vec<u8> {
    [SIGNED_AS, &line[..line.len().saturating_sub(SIGNATURE_LENGTH)]].concat()
}
