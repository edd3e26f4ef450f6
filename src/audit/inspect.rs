//! `tableside audit verify` and `export`.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::bets::PlayerId;
use crate::bets::audit::{
    ExpectedCheckpoint, Exporter, Filter, Format, Line, PlayerNames, Recovery, SegmentHeader, Timestamp, Verdict,
    Verifier, VerifyingKey,
};

use super::clock::now;
use super::keys::{KeyError, read_verifying_key};
use super::sink;
use super::trail::segments;

/// How much is read at once.
const PIECE: usize = 1 << 20;

/// How often progress is shown on a terminal.
const PROGRESS: Duration = Duration::from_millis(250);

/// Why nothing can be said.
#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    /// A file.
    #[error("cannot read {path}: {source}")]
    Read {
        /// Which.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// A directory without segments.
    #[error("{0} holds no segments (audit-NUMBER.jsonl) of an audit trail")]
    NoSegments(PathBuf),
    /// A file of `--checkpoint`.
    #[error("{0} is no exported checkpoint: expected one line with \"type\":\"checkpoint\"")]
    NoCheckpoint(PathBuf),
    /// A directory of `--checkpoint`.
    #[error(
        "{0} holds no checkpoints (checkpoint-NUMBER.jsonl): give the directory of one chain in the sink, NODE/CHAIN"
    )]
    NoCheckpoints(PathBuf),
    /// The same.
    #[error("the checkpoint in {0} is not signed by the given key: it proves nothing")]
    ForeignCheckpoint(PathBuf),
    /// A file of `--key`.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// A player's name.
    #[error("{0:?} is no player's id: 1 to 128 characters of visible ASCII")]
    Player(String),
    /// Standard output.
    #[error("cannot write the export: {0}")]
    Write(#[from] io::Error),
}

/// What `verify` is asked.
#[derive(Clone, Debug, Default)]
pub struct VerifyOptions {
    /// Directories and files.
    pub paths: Vec<PathBuf>,
    /// Public keys.
    pub keys: Vec<PathBuf>,
    /// Exported checkpoints, and directories of them.
    pub checkpoints: Vec<PathBuf>,
    /// Whose trail it has to be.
    pub node: Option<String>,
    /// The first segments may be missing.
    pub partial: bool,
    /// Nothing may follow the last checkpoint.
    pub sealed: bool,
}

/// What `export` is asked.
#[derive(Clone, Debug)]
pub struct ExportOptions {
    /// Directories and files.
    pub paths: Vec<PathBuf>,
    /// Form.
    pub format: Format,
    /// Excel wants it.
    pub byte_order_mark: bool,
    /// The first segments may be missing.
    pub partial: bool,
    /// From this time on.
    pub from: Option<Timestamp>,
    /// Until this time.
    pub to: Option<Timestamp>,
    /// Only these tables.
    pub tables: Vec<String>,
    /// Only these players, by their ids.
    pub players: Vec<String>,
    /// The secret by which ids were hashed.
    pub player_key: Option<PathBuf>,
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Inspected {
    /// The verifier's word.
    pub verdict: Verdict,
    /// Rows that were exported.
    pub rows: u64,
}

/// Verifies segments.
///
/// # Errors
/// Nothing can be said: see [`InspectError`].
pub fn verify(options: &VerifyOptions) -> Result<Inspected, InspectError> {
    let keys = options.keys.iter().map(|file| read_verifying_key(file)).collect::<Result<Vec<_>, _>>()?;
    let expected = checkpoints(&options.checkpoints, &keys)?;
    let mut verifier = Verifier::new(keys).expect(expected);
    if options.partial {
        verifier = verifier.partial();
    }
    if let Some(node) = &options.node {
        verifier = verifier.of_node(node.clone());
    }
    if options.sealed {
        verifier = verifier.sealed();
    }
    let verdict = read_all(verifier, &segments_of(&options.paths)?, &mut |_, _| Ok(()))?;
    Ok(Inspected { verdict, rows: 0 })
}

/// Writes the wanted records, and verifies the chain meanwhile, all but signatures.
///
/// # Errors
/// Something cannot be read or written: see [`InspectError`].
pub fn export(options: &ExportOptions, out: &mut impl Write) -> Result<Inspected, InspectError> {
    let names = match &options.player_key {
        Some(path) => PlayerNames::hashed(read(path)?.trim_ascii()),
        None => PlayerNames::Plain,
    };
    let player = |id: &String| {
        // A name out of a record, as it stands there.
        if id.starts_with("hmac-") {
            return Ok(id.clone());
        }
        PlayerId::new(id).map(|id| names.name(&id)).map_err(|_| InspectError::Player(id.clone()))
    };
    let filter = Filter {
        from: options.from,
        to: options.to,
        tables: options.tables.iter().cloned().collect(),
        players: options.players.iter().map(player).collect::<Result<_, _>>()?,
    };
    let mut exporter = Exporter::new(options.format, filter);
    let mut bytes = Vec::new();
    exporter.begin(options.byte_order_mark, &mut bytes);
    let mut each = |line: &Line, segment: Option<&SegmentHeader>| {
        exporter.write(line, segment, &mut bytes);
        if bytes.len() >= PIECE {
            out.write_all(&bytes)?;
            bytes.clear();
        }
        Ok(())
    };
    let mut verifier = Verifier::new(Vec::new());
    if options.partial {
        verifier = verifier.partial();
    }
    let verdict = read_all(verifier, &segments_of(&options.paths)?, &mut each)?;
    out.write_all(&bytes)?;
    out.flush()?;
    Ok(Inspected { verdict, rows: exporter.rows() })
}

/// The segments that paths name, those of a directory in their order.
///
/// # Errors
/// A path cannot be read, or is a directory without segments.
pub fn segments_of(paths: &[PathBuf]) -> Result<Vec<PathBuf>, InspectError> {
    let mut files = Vec::new();
    for path in paths {
        let read = |source| InspectError::Read { path: path.clone(), source };
        if !std::fs::metadata(path).map_err(read)?.is_dir() {
            files.push(path.clone());
            continue;
        }
        let found = segments(path).map_err(read)?;
        if found.is_empty() {
            return Err(InspectError::NoSegments(path.clone()));
        }
        files.extend(found.into_iter().map(|(_, path)| path));
    }
    Ok(files)
}

fn read(path: &Path) -> Result<Vec<u8>, InspectError> {
    std::fs::read(path).map_err(|source| InspectError::Read { path: path.to_owned(), source })
}

fn checkpoints(paths: &[PathBuf], keys: &[VerifyingKey]) -> Result<Vec<ExpectedCheckpoint>, InspectError> {
    let mut files = Vec::new();
    for path in paths {
        if !path.is_dir() {
            files.push(path.clone());
            continue;
        }
        let found = sink::checkpoints(path).map_err(|source| InspectError::Read { path: path.clone(), source })?;
        if found.is_empty() {
            return Err(InspectError::NoCheckpoints(path.clone()));
        }
        files.extend(found.into_iter().map(|(_, path)| path));
    }
    let parse = |path: &PathBuf| {
        let checkpoint =
            ExpectedCheckpoint::parse(&read(path)?).map_err(|_| InspectError::NoCheckpoint(path.clone()))?;
        if !keys.is_empty() && !checkpoint.is_signed_by(keys) {
            return Err(InspectError::ForeignCheckpoint(path.clone()));
        }
        Ok(checkpoint)
    };
    files.iter().map(parse).collect()
}

type Each<'a> = &'a mut dyn FnMut(&Line, Option<&SegmentHeader>) -> io::Result<()>;

fn read_all(mut verifier: Verifier, files: &[PathBuf], each: Each<'_>) -> Result<Verdict, InspectError> {
    let mut progress = Progress::new(files);
    let mut piece = vec![0; PIECE];
    let mut written = Ok(());
    for path in files {
        let failed = |source| InspectError::Read { path: path.clone(), source };
        let mut file = File::open(path).map_err(failed)?;
        verifier.begin(&path.display().to_string());
        loop {
            let read = file.read(&mut piece).map_err(failed)?;
            if read == 0 {
                break;
            }
            verifier.feed(&piece[..read], &mut |line, segment| {
                if written.is_ok() {
                    written = each(line, segment);
                }
            });
            if let Err(error) = std::mem::replace(&mut written, Ok(())) {
                return Err(error.into());
            }
            progress.advance(read as u64);
        }
    }
    progress.end();
    Ok(verifier.finish())
}

/// How far it is, for who sits in front of it.
struct Progress {
    shown: bool,
    total: u64,
    done: u64,
    next: Instant,
}

impl Progress {
    fn new(files: &[PathBuf]) -> Self {
        let length = |file: &PathBuf| std::fs::metadata(file).map_or(0, |metadata| metadata.len());
        let total = files.iter().map(length).sum();
        Self { shown: io::stderr().is_terminal(), total, done: 0, next: now() + PROGRESS }
    }

    fn advance(&mut self, bytes: u64) {
        self.done += bytes;
        if self.shown && now() >= self.next {
            self.next = now() + PROGRESS;
            let percent = self.done.saturating_mul(100) / self.total.max(1);
            eprint!("\r{percent:3} % of {} MB", self.total >> 20);
        }
    }

    fn end(&self) {
        if self.shown && self.done > 0 {
            eprint!("\r{:30}\r", "");
        }
    }
}

/// A verdict for programs.
pub fn show_json(verdict: &Verdict) -> String {
    let mut value = serde_json::to_value(verdict).unwrap_or_default();
    value["intact"] = verdict.is_intact().into();
    value.to_string()
}

/// A verdict for people.
pub fn show_text(verdict: &Verdict) -> String {
    let mut text = String::new();
    let mut line = |what: std::fmt::Arguments<'_>| {
        let _ = writeln!(text, "{what}");
    };
    for finding in &verdict.findings {
        line(format_args!("{finding}"));
    }
    if verdict.further_findings > 0 {
        line(format_args!("… and {} more", verdict.further_findings));
    }
    let Verdict { segments, lines, outcomes, late, lost, starts, crashes, .. } = verdict;
    let [accepted, rejected, refused, unconfirmed] = outcomes;
    if let (Some(node), Some(chain)) = (&verdict.node, &verdict.chain) {
        line(format_args!("trail         of node {node}, chain {chain}"));
    }
    if let Some(checkpoint) = &verdict.replaces {
        line(format_args!(
            "replaces      a chain of this node that was gone: the SHA-256 of its last checkpoint is {checkpoint}"
        ));
    }
    line(format_args!("segments      {segments}, {lines} records"));
    if let (Some((first, from)), Some((last, to))) = (verdict.first, verdict.last) {
        line(format_args!("records       {first} to {last}, written from {from} to {to} UTC"));
    }
    line(format_args!(
        "signals       {accepted} accepted, {rejected} rejected, {refused} refused, {unconfirmed} unconfirmed; {late} late"
    ));
    line(format_args!("processes     {starts}, of which {crashes} followed one that did not end as it should"));
    for Recovery { seq, at, unsealed, torn } in &verdict.recoveries {
        line(format_args!(
            "unsigned      {unsealed} records before start {seq}, {at} UTC: nothing vouched for them until then; {torn} bytes put aside"
        ));
    }
    if *lost > 0 {
        line(format_args!("lost          {lost} records, by the trail's own word"));
    }
    let how = if verdict.signatures_checked { "signed by the given key" } else { "signatures NOT checked: --key FILE" };
    line(format_args!("checkpoints   {}, {how}", verdict.checkpoints));
    if let Some((seq, at)) = verdict.sealed {
        line(format_args!("signed for    up to record {seq}, {at} UTC; {} records follow", verdict.unsealed));
    }
    if verdict.confirmed + verdict.unconfirmed > 0 {
        line(format_args!(
            "exported      {} checkpoints are in the chain, {} are of what was before it",
            verdict.confirmed, verdict.unconfirmed
        ));
    }
    line(format_args!("{}", if verdict.is_intact() { "intact" } else { "NOT intact" }));
    text
}
