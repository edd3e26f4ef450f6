//! Where copies go.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::runtime::Builder;

use crate::bets::audit::ExpectedCheckpoint;
use crate::config;

use super::jetstream::{JetstreamOptions, JetstreamSink};
use super::s3::{S3Options, S3Sink};
use super::trail::sync_directory;

/// How much is compared at once.
const PIECE: usize = 1 << 16;

/// What became of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Put {
    /// It was written.
    Written,
    /// It was there, byte by byte.
    Already,
}

/// A place that keeps what it is given, and never overwrites it. May take its time: it is called from a thread that does
/// nothing else.
pub trait Sink: Send + 'static {
    /// Keeps `bytes` under `name`, whose parts are separated by slashes. Durable when it returns.
    ///
    /// # Errors
    /// It cannot be written now, or something else of this name is there.
    fn put(&mut self, name: &str, bytes: &[u8]) -> io::Result<Put>;

    /// As [`Sink::put`], of a file.
    ///
    /// # Errors
    /// As there, or the file cannot be read.
    fn put_file(&mut self, name: &str, file: &Path) -> io::Result<Put>;

    /// The newest checkpoint of a node, by the time that it names, and its place, for people. `None` says that the sink was
    /// read and has none of this node.
    ///
    /// # Errors
    /// The sink cannot be read, or what is called a checkpoint is none.
    fn newest(&mut self, node: &str) -> io::Result<Option<(String, ExpectedCheckpoint)>>;

    /// Whether it is to have segments. To one that is not, checkpoints alone are copied.
    fn takes_segments(&self) -> bool {
        true
    }
}

/// Which sink a trail has.
#[derive(Clone, Debug)]
pub enum SinkOptions {
    /// A directory, which has to be there.
    Directory(PathBuf),
    /// A bucket.
    S3(Box<S3Options>),
    /// A stream.
    Jetstream(Box<JetstreamOptions>),
}

impl SinkOptions {
    /// `None` where no sink is configured.
    pub(super) fn from_config(config: &config::Audit, keep_shipped: Option<Duration>) -> Option<Self> {
        let directory = config.sink_directory.clone().map(Self::Directory);
        let s3 = || S3Options::from_config(&config.s3, keep_shipped).map(|options| Self::S3(Box::new(options)));
        let stream =
            || JetstreamOptions::from_config(&config.jetstream).map(|options| Self::Jetstream(Box::new(options)));
        directory.or_else(s3).or_else(stream)
    }

    /// The sink. Whether it can be reached shows when it is used.
    pub fn open(&self) -> Box<dyn Sink> {
        match self {
            Self::Directory(root) => Box::new(DirectorySink::new(root.clone())),
            Self::S3(options) => Box::new(S3Sink::new((**options).clone())),
            Self::Jetstream(options) => Box::new(JetstreamSink::new((**options).clone())),
        }
    }
}

/// Does what is asked of a sink over the network, on a runtime of its own.
///
/// # Errors
/// What `work` says, or it takes longer than `limit`.
pub(super) fn run<T>(limit: Duration, work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let outcome = runtime.block_on(async { tokio::time::timeout(limit, work).await });
    // The look-up of a name may hang, in a thread of its own.
    runtime.shutdown_background();
    outcome.unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {limit:?}"))))
}

/// A directory, mostly on another machine.
#[derive(Clone, Debug)]
pub struct DirectorySink {
    root: PathBuf,
}

impl DirectorySink {
    /// One below `root`, which has to be there.
    pub fn new(root: PathBuf) -> Self {
        Self { root }
    }

    /// Writes beside the name and then moves there, so that nobody ever finds half of it.
    fn write(&self, name: &str, from: &mut impl Read) -> io::Result<Put> {
        let path = self.root.join(name);
        match File::open(&path) {
            Ok(there) if is_same(from, &there)? => return Ok(Put::Already),
            Ok(_) => {
                let what = format!("{} is there with other content, and is not overwritten", path.display());
                return Err(io::Error::new(io::ErrorKind::AlreadyExists, what));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        // Nothing is made in the place of a mount that is not there.
        fs::metadata(&self.root)?;
        let directory = path.parent().unwrap_or(&self.root);
        DirBuilder::new().recursive(true).mode(0o750).create(directory)?;
        let partial = path.with_extension("partial");
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o640).open(&partial)?;
        io::copy(from, &mut file)?;
        file.sync_all()?;
        fs::rename(&partial, &path)?;
        sync_directory(directory)?;
        Ok(Put::Written)
    }
}

impl Sink for DirectorySink {
    fn put(&mut self, name: &str, mut bytes: &[u8]) -> io::Result<Put> {
        self.write(name, &mut bytes)
    }

    fn put_file(&mut self, name: &str, file: &Path) -> io::Result<Put> {
        self.write(name, &mut File::open(file)?)
    }

    fn newest(&mut self, node: &str) -> io::Result<Option<(String, ExpectedCheckpoint)>> {
        // A mount that is not there is no empty sink.
        fs::metadata(&self.root)?;
        let chains = match fs::read_dir(self.root.join(node)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            chains => chains?,
        };
        let mut newest = Newest::default();
        for chain in chains {
            let chain = chain?.path();
            if !chain.is_dir() {
                continue;
            }
            let Some((seq, path)) = checkpoints(&chain)?.pop() else { continue };
            newest.see(path.display().to_string(), seq, &fs::read(&path)?)?;
        }
        Ok(newest.0)
    }
}

/// Which of the last checkpoints of several chains is the newest.
#[derive(Default)]
pub(super) struct Newest(pub(super) Option<(String, ExpectedCheckpoint)>);

impl Newest {
    /// `seq` is what its name says that it signs for.
    ///
    /// # Errors
    /// It is no checkpoint, or another one: an old one under a later name would hide all between.
    pub(super) fn see(&mut self, place: String, seq: u64, line: &[u8]) -> io::Result<()> {
        let invalid = |what: String| io::Error::new(io::ErrorKind::InvalidData, what);
        let checkpoint =
            ExpectedCheckpoint::parse(line).map_err(|error| invalid(format!("{place} is no checkpoint: {error}")))?;
        if checkpoint.seq() != seq {
            return Err(invalid(format!("{place} is the checkpoint of {} lines, not of {seq}", checkpoint.seq())));
        }
        if self.0.as_ref().is_none_or(|(_, newest)| newest.ts() < checkpoint.ts()) {
            self.0 = Some((place, checkpoint));
        }
        Ok(())
    }
}

/// The checkpoints of a chain in a sink, by the lines that they sign for.
///
/// # Errors
/// The directory cannot be read.
pub(super) fn checkpoints(chain: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(chain)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        let number = name.and_then(|name| name.strip_prefix("checkpoint-")?.strip_suffix(".jsonl")?.parse().ok());
        found.extend(number.map(|number| (number, path)));
    }
    found.sort();
    Ok(found)
}

fn is_same(one: &mut impl Read, mut other: impl Read) -> io::Result<bool> {
    let mut pieces = [Vec::new(), Vec::new()];
    loop {
        let [ours, theirs] = &mut pieces;
        ours.clear();
        theirs.clear();
        one.by_ref().take(PIECE as u64).read_to_end(ours)?;
        other.by_ref().take(PIECE as u64).read_to_end(theirs)?;
        if ours != theirs {
            return Ok(false);
        }
        if ours.is_empty() {
            return Ok(true);
        }
    }
}
