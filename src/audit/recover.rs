//! What a directory holds at a start: held against itself, its signatures and the sink before anything is added to it.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use crate::bets::audit::{
    Chain, Entry, ExpectedCheckpoint, Finding, LONGEST, Line, Problem, SegmentHeader, ShortId, SigningKey, Verdict,
    Verifier,
};

use super::trail::{OpenError, put_aside, segment_name, segments, sync_directory};

/// How much is read at once.
const PIECE: usize = 1 << 20;

/// What a directory held.
pub(super) struct Found {
    /// None for a directory without records.
    pub(super) chain_id: Option<ShortId>,
    pub(super) chain: Chain,
    /// The last segment; 0 for none.
    pub(super) segment: u64,
    /// The process before has ended as it should.
    pub(super) clean: bool,
    /// Bytes that are put aside.
    pub(super) torn: u64,
    /// Lines after the last checkpoint.
    pub(super) unsealed: u64,
    /// How much of the last segment is whole, if not all of it: the rest goes once a start says so.
    pub(super) cut: Option<(PathBuf, u64)>,
}

impl Found {
    /// A directory without records.
    pub(super) fn nothing(torn: u64) -> Self {
        Self { chain_id: None, chain: Chain::EMPTY, segment: 0, clean: torn == 0, torn, unsealed: 0, cut: None }
    }
}

/// Segments that were read in a row.
struct Scan {
    /// Only if nothing is wrong.
    standing: Option<(Chain, SegmentHeader)>,
    verdict: Verdict,
    clean: bool,
    unsealed: u64,
    /// There is a checkpoint among them.
    is_signed: bool,
    /// There are headers and starts, and nothing else.
    is_bare: bool,
}

/// What a directory holds. Changes nothing but a file whose first line is none, which is put aside, and an
/// end that an earlier start has recorded as put aside.
///
/// # Errors
/// It cannot be read, or is not what this node has written last; see [`OpenError`].
pub(super) fn find(
    directory: &Path,
    key: &SigningKey,
    boot: ShortId,
    evidence: Option<&(String, ExpectedCheckpoint)>,
) -> Result<Found, OpenError> {
    let mut all = segments(directory).map_err(failed("read", directory))?;
    let lost = || {
        let (file, checkpoint) = evidence?;
        let (seq, at, hash) = (checkpoint.seq(), checkpoint.ts(), checkpoint.hash());
        Some(OpenError::NotInTrail { file: file.clone(), seq, at, hash, directory: directory.to_owned() })
    };
    let (mut torn, mut limit) = (0, u64::MAX);
    loop {
        let Some((number, path)) = all.last() else { return lost().map_or(Ok(Found::nothing(torn)), Err) };
        let aside = |number: u64| directory.join(format!("{}.torn-{boot}", segment_name(number)));
        let length = std::fs::metadata(path).map_err(failed("read", path))?.len();
        if says_nothing(path, limit).map_err(failed("read", path))? {
            // Killed before it said anything that the one before does not know.
            move_aside(path, length, &aside(*number)).map_err(failed("mend", path))?;
            (torn, limit) = (torn + length, u64::MAX);
            all.pop();
            continue;
        }
        let scan = scan_back(&all, limit, key, evidence.map(|(_, checkpoint)| checkpoint))?;
        if let Some(finding) = scan.verdict.findings.into_iter().next() {
            if matches!(finding.problem, Problem::Truncated { .. } | Problem::Contradicted { .. }) {
                return Err(lost().unwrap_or(OpenError::Damaged(finding)));
            }
            let (at, keep) = damaged_end(&all, finding)?;
            if at + 1 < all.len() {
                let (number, path) = &all[at];
                put_aside(path, keep, &aside(*number)).map_err(failed("mend", path))?;
            } else {
                limit = keep;
            }
            continue;
        }
        let Some((chain, header)) = scan.standing.filter(|(_, header)| header.segment == *number) else {
            return Err(OpenError::NoSegment(path.clone()));
        };
        if scan.verdict.unconfirmed > 0
            && let Some(lost) = lost()
        {
            return Err(lost);
        }
        // Each process signs at its start, before it writes any record.
        if !(scan.is_signed || *number == 1 && scan.is_bare) {
            return Err(OpenError::Unsigned(path.clone()));
        }
        let cut = (limit < length).then(|| (path.clone(), limit));
        torn += length - limit.min(length);
        let (clean, unsealed) = (scan.clean && torn == 0, scan.unsealed);
        return Ok(Found { chain_id: Some(header.chain), chain, segment: *number, clean, torn, unsealed, cut });
    }
}

/// Reads the last segment and the one before, whose seam shows whether both are of one piece; further back, to where the
/// checkpoint of the sink has to be, or for any checkpoint.
fn scan_back(
    all: &[(u64, PathBuf)],
    limit: u64,
    key: &SigningKey,
    evidence: Option<&ExpectedCheckpoint>,
) -> Result<Scan, OpenError> {
    let mut from = all.len().saturating_sub(2);
    while from > 0 && evidence.is_some_and(|evidence| first_seq(&all[from].1).is_none_or(|seq| seq > evidence.seq())) {
        from -= 1;
    }
    loop {
        let scan = scan(&all[from..], limit, key, evidence)?;
        if scan.is_signed || from == 0 {
            return Ok(scan);
        }
        from -= 1;
    }
}

/// Reads segments, of the last one at most `limit` bytes.
fn scan(
    files: &[(u64, PathBuf)],
    limit: u64,
    key: &SigningKey,
    evidence: Option<&ExpectedCheckpoint>,
) -> Result<Scan, OpenError> {
    let keys = vec![key.verifying_key()];
    let mut verifier = Verifier::new(keys).partial().going_on().expect(evidence.cloned());
    let (mut stopped, mut clean, mut is_signed, mut is_bare) = (false, false, false, true);
    for (n, (_, path)) in files.iter().enumerate() {
        verifier.begin(&path.display().to_string());
        let length = if n + 1 == files.len() { limit } else { u64::MAX };
        let mut see = |line: &Line| {
            let is_sealed = matches!(line.entry, Entry::Checkpoint(_));
            clean = is_sealed && stopped;
            stopped = matches!(line.entry, Entry::Stop {});
            is_signed |= is_sealed;
            is_bare &= matches!(line.entry, Entry::Segment(_) | Entry::Start(_));
        };
        feed(&mut verifier, path, 0..length, &mut see).map_err(failed("read", path))?;
    }
    let standing = verifier.standing().map(|(chain, header)| (chain, header.clone()));
    let unsealed = verifier.unsealed();
    Ok(Scan { standing, verdict: verifier.finish(), clean, unsealed, is_signed, is_bare })
}

/// Where what a crash can have left begins: which of the segments, and how much of that is whole. A power failure leaves lines
/// that are none, after the last checkpoint, which the disk had; any other damage is somebody's work.
fn damaged_end(all: &[(u64, PathBuf)], finding: Finding) -> Result<(usize, u64), OpenError> {
    let is_line = |problem: &Problem| matches!(problem, Problem::Torn | Problem::Unreadable { .. });
    let at = all.iter().position(|(_, path)| *path.display().to_string() == *finding.place.file);
    let Some(at) = at.filter(|_| is_line(&finding.problem)) else { return Err(OpenError::Damaged(finding)) };
    let path = &all[at].1;
    let keep = offset(path, finding.place.line - 1).map_err(failed("read", path))?;
    let mut has_checkpoint = false;
    let mut see = |line: &Line| has_checkpoint |= matches!(line.entry, Entry::Checkpoint(_));
    let length = feed(&mut Verifier::new(Vec::new()), path, keep..u64::MAX, &mut see).map_err(failed("read", path))?;
    let is_left = if at + 1 == all.len() {
        // Of the first segment the disk had the first line before there was a record.
        keep > 0 || all.len() > 1 || finding.problem == Problem::Torn
    } else {
        // A start has said so, and was killed before it was done.
        at + 2 == all.len() && keep > 0 && recorded_as_torn(&all[at + 1].1) == Some(length)
    };
    if has_checkpoint || !is_left { Err(OpenError::Damaged(finding)) } else { Ok((at, keep)) }
}

/// Feeds a part of a file; how many bytes that were.
fn feed(
    verifier: &mut Verifier,
    path: &Path,
    part: std::ops::Range<u64>,
    see: &mut impl FnMut(&Line),
) -> io::Result<u64> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(part.start))?;
    let mut file = file.take(part.end - part.start);
    let (mut piece, mut length) = (vec![0; PIECE], 0);
    loop {
        let read = file.read(&mut piece)?;
        if read == 0 {
            return Ok(length);
        }
        length += read as u64;
        verifier.feed(&piece[..read], &mut |line, _| see(line));
    }
}

/// Where a file's line ends, counted from 1; of line 0, where the file begins.
fn offset(path: &Path, line: u64) -> io::Result<u64> {
    let mut file = File::open(path)?;
    let (mut piece, mut passed, mut left) = (vec![0; PIECE], 0, line);
    while left > 0 {
        let read = file.read(&mut piece)?;
        if read == 0 {
            break;
        }
        for byte in &piece[..read] {
            passed += u64::from(left > 0);
            left -= u64::from(left > 0 && *byte == b'\n');
        }
    }
    Ok(passed)
}

/// What the start at the beginning of a segment says that it has put aside.
fn recorded_as_torn(path: &Path) -> Option<u64> {
    match first_lines(path).ok()?.get(1)?.entry {
        Entry::Start(ref start) => Some(start.torn),
        _ => None,
    }
}

fn first_seq(path: &Path) -> Option<u64> {
    first_lines(path).ok()?.first().map(|line| line.seq)
}

/// The first two, as far as they can be read.
fn first_lines(path: &Path) -> io::Result<Vec<Line>> {
    let mut beginning = Vec::new();
    File::open(path)?.take(2 * LONGEST as u64).read_to_end(&mut beginning)?;
    let lines = beginning.split_inclusive(|byte| *byte == b'\n').take(2);
    Ok(lines.map_while(|line| Line::parse(line).ok()).collect())
}

/// Whether the first `limit` bytes of a file are no whole line, or a header and nothing else.
fn says_nothing(path: &Path, limit: u64) -> io::Result<bool> {
    let (first, second) = (offset(path, 1)?, offset(path, 2)?);
    if limit == 0 || !ends_line(path, first)? {
        return Ok(true);
    }
    let is_one = limit <= first || second == first || !ends_line(path, second)?;
    Ok(is_one && matches!(first_lines(path)?.first(), Some(Line { entry: Entry::Segment(_), .. })))
}

/// Whether a line ends at this place: not where the file ends without one.
fn ends_line(path: &Path, at: u64) -> io::Result<bool> {
    let Some(before) = at.checked_sub(1) else { return Ok(false) };
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(before))?;
    let mut byte = [0];
    Ok(file.read(&mut byte)? == 1 && byte == *b"\n")
}

fn move_aside(path: &Path, length: u64, aside: &Path) -> io::Result<()> {
    if length == 0 {
        std::fs::remove_file(path)?
    } else {
        std::fs::rename(path, aside)?
    }
    aside.parent().map_or(Ok(()), sync_directory)
}

/// An I/O error as one of opening.
pub(super) fn failed(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> OpenError + use<> {
    let path = path.to_owned();
    move |source| OpenError::Io { what, path, source }
}
