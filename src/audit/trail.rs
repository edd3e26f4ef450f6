//! The segments of a directory: begun, written, forced to the disk, found again after a crash.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tracing::error;

use crate::bets::audit::{
    Chain, Digest, Entry, ExpectedCheckpoint, Finding, Hex, SegmentHeader, ShortId, SigningKey, StartRecord, Timestamp,
    VERSION,
};
use crate::config::WhenFailing;

use super::recover::{Found, failed, find};
use super::sink::SinkOptions;

/// Segments may be read by the group, which collects them, and by nobody else.
const FILE_MODE: u32 = 0o640;
const DIRECTORY_MODE: u32 = 0o750;

/// What a trail needs to know.
#[derive(Debug)]
pub struct TrailOptions {
    /// Where its segments are.
    pub directory: PathBuf,
    /// The node's name.
    pub node: String,
    /// Who signs.
    pub key: Arc<SigningKey>,
    /// Where copies are: the trail has to hold the newest checkpoint that is there of this node.
    pub sink: Option<SinkOptions>,
    /// With [`WhenFailing::Count`] a new chain begins where it does not, and nothing waits for a sink that cannot be read.
    pub when_failing: WhenFailing,
}

impl TrailOptions {
    /// The newest checkpoint in the sink, and its place.
    fn evidence(&self) -> Result<Option<(String, ExpectedCheckpoint)>, OpenError> {
        let Some(sink) = &self.sink else { return Ok(None) };
        match sink.open().newest(&self.node) {
            Ok(newest) => Ok(newest),
            Err(error) if self.when_failing == WhenFailing::Count => {
                error!(%error, "the audit sink cannot be read: the trail is gone on with, and not held against it");
                Ok(None)
            }
            Err(error) => Err(OpenError::Sink(error)),
        }
    }
}

/// Why a trail cannot be gone on with.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The disk.
    #[error("cannot {what} {path}: {source}")]
    Io {
        /// To do what.
        what: &'static str,
        /// With what.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// Somebody else writes it.
    #[error("{0} is written by another process: give each process an audit.directory of its own")]
    Locked(PathBuf),
    /// It is not as it was written.
    #[error(
        "the audit trail is damaged: {0}. Move the directory elsewhere as evidence; a new trail then begins by itself, where a \
         sink has checkpoints of this one if audit.when_failing is \"count\" at that start"
    )]
    Damaged(Finding),
    /// The last segment says nothing that could be gone on with.
    #[error("{0} is no segment of an audit trail, or not the one that its name says: move it elsewhere")]
    NoSegment(PathBuf),
    /// Nobody has signed for what it ends with.
    #[error(
        "{0} and what is before it in its directory have no checkpoint, which the node writes before any record: somebody has \
         removed it. Move the directory elsewhere as evidence; a new trail then begins by itself"
    )]
    Unsigned(PathBuf),
    /// What has left the node says that there was more, or something else.
    #[error(
        "{file} signs for {seq} records up to {at}, and the audit trail in {directory} does not contain it: it was cut off, \
         written anew or exchanged. Put it back as it was (its finished segments are beside that checkpoint). If that cannot be, move \
         the directory elsewhere as evidence and start once with audit.when_failing = \"count\": a new chain begins, and says so"
    )]
    NotInTrail {
        /// The checkpoint's place in the sink.
        file: String,
        /// How many lines it signs for.
        seq: u64,
        /// When it was made.
        at: Timestamp,
        /// The SHA-256 of its line.
        hash: Digest,
        /// Where the trail is.
        directory: PathBuf,
    },
    /// The sink cannot be read, so that nothing can be held against it.
    #[error("cannot read the audit sink, which the trail has to be held against: {0}")]
    Sink(io::Error),
    /// No random numbers.
    #[error("no random numbers: {0}")]
    Random(#[from] getrandom::Error),
}

impl OpenError {
    /// Whether it may pass by itself, as a full disk does.
    pub fn may_pass(&self) -> bool {
        use io::ErrorKind::{FileTooLarge, QuotaExceeded, ReadOnlyFilesystem, StorageFull};
        match self {
            Self::Io { source, .. } => {
                let kinds = [StorageFull, QuotaExceeded, ReadOnlyFilesystem, FileTooLarge];
                kinds.contains(&source.kind()) || source.raw_os_error() == Some(libc::EIO)
            }
            Self::Sink(_) => true,
            _ => false,
        }
    }

    /// The key of the configuration that it is about, where the text does not say so.
    pub(super) fn key(&self) -> &'static str {
        match self {
            Self::Io { .. } | Self::Damaged(_) | Self::NoSegment(_) | Self::Unsigned(_) => " (audit.directory)",
            Self::Locked(_) | Self::NotInTrail { .. } | Self::Sink(_) | Self::Random(_) => "",
        }
    }
}

/// A place in the chain that the disk has.
#[derive(Clone, Copy, Debug)]
struct Mark {
    chain: Chain,
    /// Bytes of the segment.
    length: u64,
    /// Lines since the last checkpoint.
    unsealed: u64,
}

/// The trail of a directory, of which this process is the only writer.
///
/// What is appended counts once [`Trail::commit`] has succeeded. After an error everything since the last commit has to be
/// appended again, when [`Trail::repair`] has succeeded.
#[derive(Debug)]
pub struct Trail {
    options: TrailOptions,
    /// Held for the lock on it.
    _lock: File,
    chain_id: ShortId,
    replaces: Option<Digest>,
    boot: ShortId,
    /// The segment that is written, or the next one where none is.
    segment: u64,
    file: Option<File>,
    at: Mark,
    committed: Mark,
    /// Something has failed, and the file is not as [`Trail::at`] says.
    failed: bool,
}

/// A trail that was opened.
#[derive(Debug)]
pub struct Opened {
    /// It.
    pub trail: Trail,
    /// The checkpoint that it begins with: the number of lines, and the line.
    pub checkpoint: (u64, Vec<u8>),
    /// Another chain was to be here, and was not: why.
    pub replaced: Option<OpenError>,
}

impl Trail {
    /// Goes on with the trail of a directory, or begins one: holds it against the sink, begins a segment that says what was left
    /// unsigned and unfinished, signs for all of it, and puts aside what was unfinished.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(options: TrailOptions, now: Timestamp) -> Result<Opened, OpenError> {
        let directory = options.directory.clone();
        match DirBuilder::new().mode(DIRECTORY_MODE).create(&directory) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(failed("make the directory", &directory)(error));
            }
            _ => {}
        }
        let lock = lock(&directory)?;
        let (mut boot, mut chain_id) = ([0; 8], [0; 8]);
        getrandom::fill(&mut boot)?;
        getrandom::fill(&mut chain_id)?;
        let boot = Hex(boot);
        let evidence = options.evidence()?;
        let (found, replaced) = match find(&directory, &options.key, boot, evidence.as_ref()) {
            Err(error @ OpenError::NotInTrail { .. }) if options.when_failing == WhenFailing::Count => {
                set_aside(&directory, boot).map_err(failed("move the segments of", &directory))?;
                (Found::nothing(0), Some(error))
            }
            found => (found?, None),
        };
        let confirmed = evidence.filter(|_| replaced.is_none()).map(|(_, checkpoint)| checkpoint.seq());
        let replaces = match replaced {
            Some(OpenError::NotInTrail { hash, .. }) => Some(hash),
            _ => None,
        };
        let Found { chain_id: found_id, chain, segment, clean, torn, unsealed, cut } = found;
        let start = StartRecord {
            node: options.node.clone(),
            boot,
            software: env!("CARGO_PKG_VERSION").to_owned(),
            clean,
            torn,
            unsealed,
            confirmed,
        };
        let (segment, at) = (segment + 1, Mark { chain, length: 0, unsealed });
        let mut trail = Self {
            options,
            _lock: lock,
            chain_id: found_id.unwrap_or(Hex(chain_id)),
            replaces,
            boot,
            segment,
            file: None,
            at,
            committed: at,
            failed: false,
        };
        let checkpoint = trail.seal_with(now, &[Entry::Start(start)]).map_err(|error| {
            // It says nothing that the next try will not say.
            let _ = std::fs::remove_file(trail.path());
            failed("write the audit trail in", &directory)(error)
        })?;
        if let Some((path, keep)) = cut {
            let mut aside = path.clone().into_os_string();
            aside.push(format!(".torn-{boot}"));
            put_aside(&path, keep, Path::new(&aside)).map_err(failed("mend", &path))?;
        }
        Ok(Opened { trail, checkpoint, replaced })
    }

    /// Lines so far.
    pub fn count(&self) -> u64 {
        self.at.chain.count()
    }

    /// Lines since the last checkpoint.
    pub fn unsealed(&self) -> u64 {
        self.at.unsealed
    }

    /// Whether anything was appended and not committed.
    pub fn is_pending(&self) -> bool {
        self.at.chain != self.committed.chain
    }

    /// The size of the segment in bytes.
    pub fn length(&self) -> u64 {
        self.at.length
    }

    /// Names the trail in a sink: the node, and the chain.
    pub fn prefix(&self) -> String {
        format!("{}/{}", self.options.node, self.chain_id)
    }

    /// The number of the segment that is written, or will be next.
    pub fn segment(&self) -> u64 {
        self.segment
    }

    /// Where its segments are.
    pub fn directory(&self) -> &Path {
        &self.options.directory
    }

    /// Appends lines with one write, to a new segment where the last is finished.
    ///
    /// # Errors
    /// The disk's; see [`Trail::repair`].
    pub fn append(&mut self, now: Timestamp, entries: &[Entry]) -> io::Result<()> {
        self.writable()?;
        let (mut bytes, mut chain) = self.begin(now)?;
        entries.iter().for_each(|entry| chain.append(&mut bytes, now, entry));
        self.write(&bytes, chain, false)
    }

    /// Appends lines, each with the time that it has.
    ///
    /// # Errors
    /// The disk's; see [`Trail::repair`].
    pub fn append_stamped<'a>(&mut self, lines: impl Iterator<Item = &'a (Timestamp, Entry)>) -> io::Result<()> {
        let mut lines = lines.peekable();
        let Some((first, _)) = lines.peek() else { return Ok(()) };
        self.writable()?;
        let (mut bytes, mut chain) = self.begin(*first)?;
        lines.for_each(|(ts, entry)| chain.append(&mut bytes, *ts, entry));
        self.write(&bytes, chain, false)
    }

    /// Signs for everything so far, forces it to the disk and returns the line.
    ///
    /// # Errors
    /// The disk's; see [`Trail::repair`].
    pub fn seal(&mut self, now: Timestamp) -> io::Result<(u64, Vec<u8>)> {
        self.seal_with(now, &[])
    }

    /// As [`Trail::seal`], with more lines before: all of it at once.
    fn seal_with(&mut self, now: Timestamp, entries: &[Entry]) -> io::Result<(u64, Vec<u8>)> {
        self.writable()?;
        let (mut bytes, mut chain) = self.begin(now)?;
        entries.iter().for_each(|entry| chain.append(&mut bytes, now, entry));
        let (seq, before) = (chain.count(), bytes.len());
        chain.seal(&mut bytes, now, &self.options.key);
        self.write(&bytes, chain, true)?;
        let there = self.is_in_its_place();
        self.note(there)?;
        self.commit()?;
        Ok((seq, bytes.split_off(before)))
    }

    /// Ends the segment with a checkpoint. The next append begins another.
    ///
    /// # Errors
    /// The disk's; see [`Trail::repair`].
    pub fn finish_segment(&mut self, now: Timestamp) -> io::Result<(u64, Vec<u8>)> {
        let sealed = self.seal(now)?;
        self.file = None;
        self.segment += 1;
        self.at.length = 0;
        self.committed = self.at;
        Ok(sealed)
    }

    /// What was appended counts from now on: the disk has it.
    ///
    /// # Errors
    /// The disk's; see [`Trail::repair`].
    pub fn commit(&mut self) -> io::Result<()> {
        self.writable()?;
        if let Some(file) = &self.file {
            let outcome = file.sync_data();
            self.note(outcome)?;
        }
        self.committed = self.at;
        Ok(())
    }

    /// After an error: goes back to what was committed. A failed sync leaves nobody sure of what the disk has, so all since
    /// then is cut off and has to be written again.
    ///
    /// # Errors
    /// It does not work yet.
    pub fn repair(&mut self) -> io::Result<()> {
        let path = self.path();
        if self.committed.length == 0 {
            // Begun and not committed, or not even begun.
            self.file = None;
        } else {
            let mut file = OpenOptions::new().write(true).open(path)?;
            // Whoever has put another in its place, or cut it, is not to have that signed.
            let (there, ours) = (file.metadata()?, self.file.as_ref().map(File::metadata).transpose()?);
            if ours.is_some_and(|ours| ours.ino() != there.ino()) || there.len() < self.committed.length {
                return Err(self.not_in_its_place());
            }
            file.set_len(self.committed.length)?;
            file.seek(SeekFrom::End(0))?;
            file.sync_all()?;
            self.file = Some(file);
        }
        self.at = self.committed;
        self.failed = false;
        Ok(())
    }

    fn path(&self) -> PathBuf {
        self.options.directory.join(segment_name(self.segment))
    }

    fn header(&self) -> SegmentHeader {
        SegmentHeader {
            version: VERSION,
            chain: self.chain_id,
            segment: self.segment,
            node: self.options.node.clone(),
            boot: self.boot,
            key: self.options.key.id(),
            replaces: self.replaces.filter(|_| self.segment == 1),
        }
    }

    /// The next segment's file. What is there of it by now was left by a try of ours that failed: nothing of it counts.
    fn create(&mut self) -> io::Result<()> {
        let path = self.path();
        let made = OpenOptions::new().write(true).create(true).truncate(true).mode(FILE_MODE).open(path);
        let made = made.and_then(|file| sync_directory(&self.options.directory).map(|()| file));
        self.file = Some(self.note(made)?);
        Ok(())
    }

    /// Where lines go: those of a new segment after its header.
    fn begin(&mut self, now: Timestamp) -> io::Result<(Vec<u8>, Chain)> {
        let (mut bytes, mut chain) = (Vec::new(), self.at.chain);
        if self.file.is_none() {
            self.create()?;
        }
        if self.at.length == 0 {
            chain.append(&mut bytes, now, &Entry::Segment(self.header()));
        }
        Ok((bytes, chain))
    }

    fn write(&mut self, bytes: &[u8], chain: Chain, sealed: bool) -> io::Result<()> {
        let Some(file) = &mut self.file else { return Err(io::Error::other("no segment is open")) };
        let written = file.write_all(bytes);
        self.note(written)?;
        self.at.unsealed = if sealed { 0 } else { self.at.unsealed + chain.count() - self.at.chain.count() };
        self.at.chain = chain;
        self.at.length += bytes.len() as u64;
        Ok(())
    }

    /// A file that was removed or exchanged takes bytes as if nothing were wrong.
    fn is_in_its_place(&self) -> io::Result<()> {
        let Some(file) = &self.file else { return Ok(()) };
        let ours = file.metadata()?;
        match std::fs::metadata(self.path()) {
            Ok(there) if (there.dev(), there.ino()) == (ours.dev(), ours.ino()) && ours.len() == self.at.length => {
                Ok(())
            }
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Err(self.not_in_its_place()),
        }
    }

    fn not_in_its_place(&self) -> io::Error {
        io::Error::other(format!("{} was removed, exchanged or cut while it was written", self.path().display()))
    }

    fn writable(&self) -> io::Result<()> {
        if self.failed { Err(io::Error::other("writing has failed before")) } else { Ok(()) }
    }

    fn note<T>(&mut self, outcome: io::Result<T>) -> io::Result<T> {
        self.failed |= outcome.is_err();
        outcome
    }
}

/// The file of a segment.
pub(super) fn segment_name(number: u64) -> String {
    format!("audit-{number:010}.jsonl")
}

/// The segments of a directory by their numbers.
///
/// # Errors
/// It cannot be read.
pub(super) fn segments(directory: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        let number = name.and_then(|name| name.strip_prefix("audit-")?.strip_suffix(".jsonl")?.parse().ok());
        if let Some(number) = number {
            found.push((number, path));
        }
    }
    found.sort();
    Ok(found)
}

/// A new name lasts once its directory was forced to the disk.
pub(super) fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

fn lock(directory: &Path) -> Result<File, OpenError> {
    let path = directory.join("lock");
    let io = |source| OpenError::Io { what: "lock", path: path.clone(), source };
    let file = OpenOptions::new().write(true).create(true).truncate(false).mode(FILE_MODE).open(&path).map_err(io)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(OpenError::Locked(directory.to_owned())),
        Err(TryLockError::Error(source)) => Err(io(source)),
    }
}

/// Moves what follows the first `keep` bytes into a file of its own, which is durable before it is cut off.
pub(super) fn put_aside(path: &Path, keep: u64, aside: &Path) -> io::Result<()> {
    let mut file = OpenOptions::new().read(true).write(true).open(path)?;
    file.seek(SeekFrom::Start(keep))?;
    let mut copy = OpenOptions::new().write(true).create(true).truncate(true).mode(FILE_MODE).open(aside)?;
    io::copy(&mut file, &mut copy)?;
    copy.sync_all()?;
    if let Some(directory) = aside.parent() {
        sync_directory(directory)?;
    }
    file.set_len(keep)?;
    file.sync_all()
}

/// Moves all segments into a directory below, so that another chain can begin.
fn set_aside(directory: &Path, boot: ShortId) -> io::Result<()> {
    let all = segments(directory)?;
    if all.is_empty() {
        return Ok(());
    }
    let aside = directory.join(format!("replaced-{boot}"));
    DirBuilder::new().mode(DIRECTORY_MODE).create(&aside)?;
    for (number, path) in all {
        std::fs::rename(path, aside.join(segment_name(number)))?;
    }
    sync_directory(&aside)?;
    sync_directory(directory)
}
