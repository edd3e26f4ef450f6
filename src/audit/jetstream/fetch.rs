//! A node's checkpoints and segments out of a stream, as files that `tableside audit verify` takes.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

use crate::bets::audit::ExpectedCheckpoint;

use super::JetstreamOptions;
use super::checkpoints::MOST_CHAINS;
use super::files::{self, Back};
use super::stream::Stream;
use super::subject::Subjects;

/// Segments of a node that are fetched.
const MOST_SEGMENTS: usize = 1_000_000;

/// What was fetched.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fetched {
    /// The chains, which are directories.
    pub chains: Vec<String>,
    /// Messages with checkpoints.
    pub checkpoints: u64,
    /// Whole segments.
    pub segments: u64,
    /// What is not as a node writes it, one sentence each.
    pub findings: Vec<String>,
}

/// Writes what a stream has of a node to `into/CHAIN/`. Files that are there with the same bytes may stay from an earlier attempt.
///
/// # Errors
/// The stream cannot be read, a file cannot be written, or is there with other content.
pub fn fetch(options: &JetstreamOptions, node: &str, into: &Path) -> io::Result<Fetched> {
    // As long as there is an answer to each request: nobody waits but who has asked for this.
    super::run(Duration::MAX, async {
        let subjects = Subjects::new(&options.subject_prefix, node);
        let stream = Stream::connect(options, &subjects).await?;
        let mut fetched = Fetched::default();
        // What there is can be read, whatever has become of the stream since.
        fetched.findings.extend(stream.check(options, &subjects).err().map(|error| error.to_string()));
        checkpoints(&stream, &subjects, into, &mut fetched).await?;
        segments(&stream, &subjects, into, &mut fetched).await?;
        Ok(fetched)
    })
}

async fn checkpoints(stream: &Stream, subjects: &Subjects, into: &Path, fetched: &mut Fetched) -> io::Result<()> {
    for subject in stream.subjects(&subjects.checkpoints(), MOST_CHAINS).await? {
        let Some(chain) = subjects.chain(&subject) else {
            fetched.findings.push(format!("{subject} is of no chain"));
            continue;
        };
        let directory = into.join(chain);
        fs::create_dir_all(&directory)?;
        fetched.chains.push(chain.to_owned());
        let (mut from, mut newest) = (1, None);
        while let Some(message) = stream.next(&subject, from).await? {
            from = message.sequence + 1;
            let place = || stream.place(&message);
            let seq = match ExpectedCheckpoint::parse(&message.body) {
                Ok(checkpoint) => checkpoint.seq(),
                Err(error) => {
                    fetched.findings.push(format!("{} is no checkpoint: {error}", place()));
                    continue;
                }
            };
            if newest.is_some_and(|newest| newest >= seq) {
                fetched.findings.push(format!("{} signs for no more lines than one before it", place()));
            }
            newest = newest.max(Some(seq));
            let file = directory.join(format!("checkpoint-{seq:012}.jsonl"));
            match write(&file, &message.body) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    fetched.findings.push(format!("{} is not the same as {}", place(), file.display()));
                }
                outcome => outcome?,
            }
            fetched.checkpoints += 1;
        }
    }
    Ok(())
}

async fn segments(stream: &Stream, subjects: &Subjects, into: &Path, fetched: &mut Fetched) -> io::Result<()> {
    for subject in stream.subjects(&subjects.segments(), MOST_SEGMENTS).await? {
        let Some((chain, name)) = subjects.file(&subject) else {
            fetched.findings.push(format!("{subject} is of no segment"));
            continue;
        };
        let directory = into.join(chain);
        fs::create_dir_all(&directory)?;
        if !fetched.chains.iter().any(|known| known == chain) {
            fetched.chains.push(chain.to_owned());
        }
        let partial = directory.join(format!("{name}.partial"));
        let mut file = File::create(&partial)?;
        let back = files::fetch(stream, &subject, &mut file).await?;
        file.flush()?;
        match back {
            Back::Whole => {
                let whole = directory.join(&name);
                if whole.exists() && fs::read(&whole)? != fs::read(&partial)? {
                    let (whole, partial) = (whole.display(), partial.display());
                    fetched.findings.push(format!("{subject}, in {partial}, is not the same as {whole}"));
                    continue;
                }
                fs::rename(&partial, whole)?;
                fetched.segments += 1;
            }
            Back::Unfinished => {
                fetched.findings.push(format!("{subject} has no end yet: what there is is in {}", partial.display()));
            }
            Back::Damaged(what) => {
                fetched.findings.push(format!("{what}: what is before it is in {}", partial.display()));
            }
        }
    }
    Ok(())
}

/// Writes a file that is not there, or is the same.
fn write(file: &Path, bytes: &[u8]) -> io::Result<()> {
    match File::create_new(file) {
        Ok(mut file) => file.write_all(bytes),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && fs::read(file)? == bytes => Ok(()),
        Err(error) => Err(error),
    }
}
