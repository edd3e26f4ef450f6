//! Reads a chain and says where it is not as it was written.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::chain::{Chain, signed_part};
use super::digest::Digest;
use super::key::VerifyingKey;
use super::line::{Checkpoint, Entry, LONGEST, Line, NotALine, SegmentHeader, VERSION};
use super::time::Timestamp;
use super::verdict::{Finding, Place, Problem, Recovery, Verdict};
use crate::bets::Status;

/// Findings that are kept; further ones are counted.
const MOST_FINDINGS: usize = 1000;

/// Gaps that are remembered, to tell moved records from removed ones.
const MOST_GAPS: usize = 1000;

/// Starts that are named.
const MOST_RECOVERIES: usize = 1000;

/// A checkpoint that was exported: its line, kept where nobody can change it.
#[derive(Clone, Debug, PartialEq)]
pub struct ExpectedCheckpoint {
    seq: u64,
    ts: Timestamp,
    checkpoint: Checkpoint,
    line: Vec<u8>,
}

impl ExpectedCheckpoint {
    /// Reads an exported checkpoint.
    ///
    /// # Errors
    /// It is no checkpoint's line.
    pub fn parse(bytes: &[u8]) -> Result<Self, NotALine> {
        let Line { seq, ts, entry, .. } = Line::parse(bytes)?;
        let Entry::Checkpoint(checkpoint) = entry else { return Err(NotALine::Malformed) };
        Ok(Self { seq, ts, checkpoint, line: bytes.to_vec() })
    }

    /// How many lines it signs for.
    pub fn seq(&self) -> u64 {
        self.seq
    }

    /// When it was signed.
    pub fn ts(&self) -> Timestamp {
        self.ts
    }

    /// The SHA-256 of its line.
    pub fn hash(&self) -> Digest {
        Digest::of(&self.line)
    }

    /// Whether one of these keys has signed it.
    pub fn is_signed_by(&self, keys: &[VerifyingKey]) -> bool {
        let Checkpoint { key, signature } = &self.checkpoint;
        keys.iter().any(|known| known.id() == *key && known.has_signed(&signed_part(&self.line), signature))
    }
}

/// The record that the next one has to name.
#[derive(Clone, Debug)]
struct Head {
    seq: u64,
    hash: Digest,
    /// Unreadable lines that have come since.
    unreadable: u64,
}

/// A link that does not hold, until the next one tells which end was changed.
#[derive(Clone, Debug)]
struct Suspicion {
    /// The record that names another predecessor.
    seq: u64,
    place: Place,
    before: Place,
}

/// Verifies the segments of one chain, in their order, as a stream of bytes.
///
/// For each segment [`Verifier::begin`], then its bytes in any pieces; [`Verifier::finish`] at the end.
#[derive(Debug)]
pub struct Verifier {
    keys: Vec<VerifyingKey>,
    /// Number and hash → time: there may be hundreds of thousands.
    expected: BTreeMap<(u64, Digest), Timestamp>,
    node: Option<String>,
    partial: bool,
    sealed: bool,
    goes_on: bool,
    place: Place,
    /// The beginning of a line.
    rest: Vec<u8>,
    /// The line is too long, and the rest of it is skipped.
    skipping: bool,
    head: Option<Head>,
    last_place: Place,
    suspicion: Option<Suspicion>,
    /// First → last of what is missing, and before which line.
    gaps: BTreeMap<u64, (u64, Place)>,
    /// The header of the segment, and whether the last line was a checkpoint.
    segment: Option<SegmentHeader>,
    at_checkpoint: bool,
    /// Lines since the last checkpoint.
    unsealed: u64,
    /// A segment has ended without a checkpoint: where, and with how many lines since the last one.
    open_end: Option<(Place, u64)>,
    verdict: Verdict,
}

impl Verifier {
    /// One that has seen nothing. Without keys signatures are not checked, and the verdict says so.
    pub fn new(keys: Vec<VerifyingKey>) -> Self {
        let place = Place { file: Arc::from(""), line: 0 };
        let verdict = Verdict { signatures_checked: !keys.is_empty(), ..Verdict::default() };
        Self {
            keys,
            expected: BTreeMap::new(),
            node: None,
            partial: false,
            sealed: false,
            goes_on: false,
            last_place: place.clone(),
            place,
            rest: Vec::new(),
            skipping: false,
            head: None,
            suspicion: None,
            gaps: BTreeMap::new(),
            segment: None,
            at_checkpoint: false,
            unsealed: 0,
            open_end: None,
            verdict,
        }
    }

    /// The chain has to have these checkpoints.
    pub fn expect(mut self, checkpoints: impl IntoIterator<Item = ExpectedCheckpoint>) -> Self {
        self.expected = checkpoints.into_iter().map(|each| ((each.seq, each.hash()), each.ts)).collect();
        self
    }

    /// It has to be this node's.
    pub fn of_node(mut self, node: String) -> Self {
        self.node = Some(node);
        self
    }

    /// For who writes the chain and goes on with it: a key that is not given is an earlier one, whose signatures are not
    /// judged, and nothing need be signed yet.
    pub fn going_on(mut self) -> Self {
        self.goes_on = true;
        self
    }

    /// The first segments may be missing: they were removed on purpose.
    pub fn partial(mut self) -> Self {
        self.partial = true;
        self
    }

    /// No record may follow the last checkpoint: the node has ended as it should.
    pub fn sealed(mut self) -> Self {
        self.sealed = true;
        self
    }

    /// The next segment begins; `file` is for messages.
    pub fn begin(&mut self, file: &str) {
        self.end_file();
        if self.head.is_some() && !self.at_checkpoint {
            self.open_end = Some((self.place.clone(), self.unsealed));
        }
        self.verdict.segments += 1;
        self.place = Place { file: Arc::from(file), line: 0 };
    }

    /// The next bytes of the segment. `see` is shown each line that could be read, with the header of its segment,
    /// where that is known.
    pub fn feed(&mut self, mut bytes: &[u8], see: &mut impl FnMut(&Line, Option<&SegmentHeader>)) {
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            let (line, more) = bytes.split_at(end + 1);
            bytes = more;
            if self.skipping || self.rest.len() + line.len() > LONGEST {
                self.rest.clear();
                if !std::mem::take(&mut self.skipping) {
                    self.place.line += 1;
                    self.unreadable(NotALine::TooLong);
                }
            } else if self.rest.is_empty() {
                self.take(line, see);
            } else {
                let mut whole = std::mem::take(&mut self.rest);
                whole.extend_from_slice(line);
                self.take(&whole, see);
            }
        }
        if self.skipping || bytes.is_empty() {
            return;
        }
        if self.rest.len() + bytes.len() > LONGEST {
            self.rest.clear();
            self.skipping = true;
            self.place.line += 1;
            self.unreadable(NotALine::TooLong);
        } else {
            self.rest.extend_from_slice(bytes);
        }
    }

    /// All segments were fed.
    pub fn finish(mut self) -> Verdict {
        self.end_file();
        self.place = self.last_place.clone();
        if let Some(Suspicion { seq, place, .. }) = self.suspicion.take() {
            self.find_at(place, Problem::BrokenLink { before: seq.saturating_sub(1), after: seq });
        }
        for (first, (last, place)) in std::mem::take(&mut self.gaps) {
            self.find_at(place, Problem::Removed { first, last });
        }
        let Some(head) = self.head.take() else {
            if self.verdict.is_intact() {
                self.find(Problem::Empty);
            }
            return self.judge();
        };
        self.verdict.unsealed = match self.verdict.sealed {
            Some((seq, _)) => head.seq.saturating_sub(seq),
            None => self.verdict.lines,
        };
        if self.verdict.signatures_checked && self.verdict.sealed.is_none() && !self.goes_on {
            self.find(Problem::NothingSigned);
        } else if self.sealed && self.verdict.unsealed > 0 {
            self.find(Problem::Unsealed { lines: self.verdict.unsealed });
        }
        let begins = self.verdict.first.map_or(0, |(seq, _)| seq);
        for ((seq, _), at) in std::mem::take(&mut self.expected) {
            match seq {
                _ if seq > head.seq => {
                    self.find(Problem::Truncated { expected: seq, found: head.seq.saturating_add(1), at })
                }
                _ if seq < begins && self.partial => self.verdict.unconfirmed += 1,
                _ => self.find(Problem::Contradicted { seq }),
            }
        }
        self.judge()
    }

    fn judge(mut self) -> Verdict {
        self.verdict.findings.sort_by_key(|finding| finding.place.line);
        let mut files: Vec<Arc<str>> = Vec::new();
        for finding in &self.verdict.findings {
            if !files.contains(&finding.place.file) {
                files.push(finding.place.file.clone());
            }
        }
        files.sort();
        self.verdict.findings.sort_by_key(|finding| files.iter().position(|file| *file == finding.place.file));
        self.verdict
    }

    fn end_file(&mut self) {
        self.skipping = false;
        if !std::mem::take(&mut self.rest).is_empty() {
            self.place.line += 1;
            self.find(Problem::Torn);
        }
    }

    fn take(&mut self, bytes: &[u8], see: &mut impl FnMut(&Line, Option<&SegmentHeader>)) {
        self.place.line += 1;
        let line = match Line::parse(bytes) {
            Ok(line) => line,
            Err(why) => return self.unreadable(why),
        };
        self.verdict.lines += 1;
        if self.link(&line, Digest::of(bytes)) {
            self.last_place = self.place.clone();
            self.verdict.first.get_or_insert((line.seq, line.ts));
            self.verdict.last = Some((line.seq, line.ts));
            self.at_checkpoint = matches!(line.entry, Entry::Checkpoint(_));
            self.structure(&line);
            self.confirm(&line, bytes);
            self.unsealed = if self.at_checkpoint { 0 } else { self.unsealed + 1 };
        }
        self.count(&line);
        see(&line, self.segment.as_ref());
    }

    fn unreadable(&mut self, why: NotALine) {
        self.find(Problem::Unreadable { why });
        self.at_checkpoint = false;
        if let Some(head) = &mut self.head {
            head.unreadable += 1;
        }
    }

    /// Holds a line against the one before it; `false` for one that is out of its place.
    fn link(&mut self, line: &Line, hash: Digest) -> bool {
        let next = Head { seq: line.seq, hash, unreadable: 0 };
        let Some(head) = self.head.replace(next) else {
            let is_first = line.seq == 0 && line.prev == Digest::ZERO;
            if !is_first && (line.seq == 0 || !self.partial) {
                let problem =
                    if line.seq == 0 { Problem::Changed { seq: 0 } } else { Problem::NoBeginning { seq: line.seq } };
                self.find(problem);
            }
            return true;
        };
        let expected = head.seq.saturating_add(1);
        if line.seq < expected {
            self.head = Some(head);
            self.misplaced(line.seq);
            return false;
        }
        if line.seq == expected {
            self.neighbours(line, &head);
            return true;
        }
        self.settle(None);
        // Lines that cannot be read may be those that are not there: they have a finding of their own.
        let first = expected.saturating_add(head.unreadable).min(line.seq);
        if first < line.seq && self.gaps.len() < MOST_GAPS {
            self.gaps.insert(first, (line.seq - 1, self.place.clone()));
        } else if first < line.seq {
            self.find(Problem::Removed { first, last: line.seq - 1 });
        }
        true
    }

    /// A line that follows the one before by its number: does it by its hash?
    fn neighbours(&mut self, line: &Line, head: &Head) {
        let holds = line.prev == head.hash;
        self.settle(Some(holds));
        if !holds {
            let (place, before) = (self.place.clone(), self.last_place.clone());
            self.suspicion = Some(Suspicion { seq: line.seq, place, before });
        }
    }

    /// What the link after a broken one says of it: if that holds, the record between is as it was written.
    fn settle(&mut self, holds: Option<bool>) {
        let Some(Suspicion { seq, place, before }) = self.suspicion.take() else { return };
        let (place, problem) = match holds {
            Some(true) => (before, Problem::Changed { seq: seq.saturating_sub(1) }),
            Some(false) => (place, Problem::Changed { seq }),
            None => (place, Problem::BrokenLink { before: seq.saturating_sub(1), after: seq }),
        };
        // Of a record whose own link was changed both links are broken.
        if self.verdict.findings.last().is_none_or(|last| last.problem != problem) {
            self.find_at(place, problem);
        }
    }

    /// A line whose number has been passed.
    fn misplaced(&mut self, seq: u64) {
        let around = self.gaps.range(..=seq).next_back().map(|(first, (last, place))| (*first, *last, place.clone()));
        let Some((first, last, place)) = around.filter(|(_, last, _)| seq <= *last) else {
            return self.find(Problem::Repeated { seq });
        };
        self.gaps.remove(&first);
        if first < seq {
            self.gaps.insert(first, (seq - 1, place.clone()));
        }
        if seq < last {
            self.gaps.insert(seq + 1, (last, place));
        }
        self.find(Problem::Moved { seq });
    }

    /// Headers stand first and continue each other.
    fn structure(&mut self, line: &Line) {
        let Entry::Segment(header) = &line.entry else {
            if self.place.line == 1 {
                self.find(Problem::Header);
            } else if let Some((place, unsealed)) = self.open_end.take()
                && !matches!(&line.entry, Entry::Start(start) if start.unsealed == unsealed)
            {
                self.find_at(place, Problem::NotSealed);
            }
            return;
        };
        if header.version != VERSION {
            self.find(Problem::Version { version: header.version });
        }
        if self.place.line != 1 {
            self.find(Problem::Header);
        }
        let continues = self.segment.as_ref().is_none_or(|before| {
            // Where records are missing, segments may be.
            let follows = header.segment == before.segment.saturating_add(1) || !self.gaps.is_empty();
            header.chain == before.chain && follows
        });
        if !continues {
            self.find(Problem::OtherChain);
        }
        if self.node.as_ref().is_some_and(|node| *node != header.node) {
            self.find(Problem::OtherNode { node: header.node.clone() });
        }
        self.verdict.node = Some(header.node.clone());
        self.verdict.chain = Some(header.chain);
        if header.replaces.is_some() {
            self.verdict.replaces = header.replaces;
        }
        self.segment = Some(header.clone());
    }

    /// Signs off, and meets what was exported.
    fn confirm(&mut self, line: &Line, bytes: &[u8]) {
        if let Entry::Checkpoint(checkpoint) = &line.entry
            && self.is_signed(line.seq, checkpoint, bytes)
        {
            self.verdict.checkpoints += 1;
            self.verdict.sealed = Some((line.seq, line.ts));
        }
        let of_this_place = (line.seq, Digest::ZERO)..=(line.seq, Digest::LAST);
        let here: Vec<_> = self.expected.range(of_this_place).map(|(place, _)| *place).collect();
        for place in here {
            self.expected.remove(&place);
            if place.1 == Digest::of(bytes) {
                self.verdict.confirmed += 1;
            } else {
                self.find(Problem::Contradicted { seq: line.seq });
            }
        }
    }

    fn is_signed(&mut self, seq: u64, checkpoint: &Checkpoint, bytes: &[u8]) -> bool {
        let Checkpoint { key, signature } = checkpoint;
        if self.segment.as_ref().is_some_and(|header| header.key != *key) {
            self.find(Problem::OtherKey { seq, key: *key });
            return false;
        }
        match self.keys.iter().find(|known| known.id() == *key) {
            _ if self.keys.is_empty() => true,
            None if self.goes_on => true,
            Some(known) if known.has_signed(&signed_part(bytes), signature) => true,
            Some(_) => {
                self.find(Problem::BadSignature { seq });
                false
            }
            None => {
                self.find(Problem::UnknownKey { seq, key: *key });
                false
            }
        }
    }

    fn count(&mut self, line: &Line) {
        match &line.entry {
            Entry::Signal(signal) if signal.late => self.verdict.late += 1,
            Entry::Signal(signal) => {
                let of = Status::ALL.into_iter().find(|(status, _)| signal.is(*status));
                if let Some((status, _)) = of {
                    self.verdict.outcomes[status as usize] += 1;
                }
            }
            Entry::Gap(gap) => self.verdict.lost = self.verdict.lost.saturating_add(gap.lost),
            Entry::Start(start) => {
                self.verdict.starts += 1;
                self.verdict.crashes += u64::from(!start.clean);
                if (start.unsealed > 0 || start.torn > 0) && self.verdict.recoveries.len() < MOST_RECOVERIES {
                    let (seq, at, unsealed, torn) = (line.seq, line.ts, start.unsealed, start.torn);
                    self.verdict.recoveries.push(Recovery { seq, at, unsealed, torn });
                }
            }
            Entry::Segment(_) | Entry::Totals(_) | Entry::Stop {} | Entry::Checkpoint(_) => {}
        }
    }

    fn find(&mut self, problem: Problem) {
        self.find_at(self.place.clone(), problem);
    }

    fn find_at(&mut self, place: Place, problem: Problem) {
        if self.verdict.findings.len() < MOST_FINDINGS {
            self.verdict.findings.push(Finding { place, problem });
        } else {
            self.verdict.further_findings += 1;
        }
    }
}

/// What the writer needs to know of the last segments, to go on with them.
impl Verifier {
    /// The chain as it stands, and the last header: only if nothing is wrong so far.
    pub fn standing(&self) -> Option<(Chain, &SegmentHeader)> {
        let head = self.head.as_ref().filter(|_| self.verdict.is_intact() && self.suspicion.is_none())?;
        Some((Chain::after(head.seq.saturating_add(1), head.hash), self.segment.as_ref()?))
    }

    /// Lines since the last checkpoint.
    pub fn unsealed(&self) -> u64 {
        self.unsealed
    }
}
