//! A bucket of an S3-compatible store as a sink: objects that are locked as they are written, and written once.

mod bucket;
mod credentials;
mod document;
mod newest;
pub mod sigv4;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;

use crate::bets::audit::{ExpectedCheckpoint, Timestamp};
use crate::config::{self, LockMode};

use super::clock::timestamp;
use super::sink::{Put, Sink, run};
use bucket::{Bucket, There};
use newest::Patience;

pub use document::{Listing, Next};

/// A segment is sent in one piece, and held in memory meanwhile.
const LARGEST_FILE: u64 = 1 << 30;

/// Entries in a page of the search for the newest checkpoint: enough that a day of checkpoints takes a few pages, and small enough
/// to come at once.
const PAGE: u16 = 200;

/// How a bucket is reached, and how what is in it is locked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct S3Options {
    /// Its name.
    pub bucket: String,
    /// Where it is.
    pub region: String,
    /// Scheme, host and port of a store other than AWS.
    pub endpoint: Option<String>,
    /// What all keys begin with.
    pub prefix: String,
    /// Who may shorten the retention.
    pub lock_mode: LockMode,
    /// How long an object is locked, in days.
    pub retain_days: u32,
    /// The authorities that the store's certificate is checked against, if not the system's.
    pub ca_file: Option<PathBuf>,
    /// Credentials, if they are not in the environment.
    pub credentials_file: Option<PathBuf>,
    /// How long a request may take, besides a second for each MiB.
    pub request_timeout: Duration,
    /// How long segments stay on the node once they are here, if not for ever.
    pub keep_shipped: Option<Duration>,
    /// Entries in a page of the search for the newest checkpoint.
    pub page: u16,
}

impl S3Options {
    /// `None` where no bucket is configured.
    pub fn from_config(config: &config::AuditS3, keep_shipped: Option<Duration>) -> Option<Self> {
        Some(Self {
            bucket: config.bucket.clone()?,
            region: config.region.clone(),
            endpoint: config.endpoint.as_ref().map(|url| url.as_str().trim_end_matches('/').to_owned()),
            prefix: config.prefix.clone(),
            lock_mode: config.lock_mode,
            retain_days: config.retain_days,
            ca_file: config.ca_file.clone(),
            credentials_file: config.credentials_file.clone(),
            request_timeout: config.request_timeout,
            keep_shipped,
            page: PAGE,
        })
    }
}

/// A bucket. Each operation has a runtime of its own: it is called from a thread that does nothing else.
pub struct S3Sink {
    options: S3Options,
    /// Made when it is first of use.
    bucket: Option<Bucket>,
    /// The store has been seen to lock what this process has written, as it was asked to, and not to overwrite it.
    proven: bool,
    /// Until when what was written before that has to be locked, by key. What was proven goes.
    asked: BTreeMap<String, Timestamp>,
    /// An object that the store has let be written twice.
    overwritten: Option<String>,
}

impl S3Sink {
    /// One that has not been asked yet.
    pub fn new(options: S3Options) -> Self {
        Self { options, bucket: None, proven: false, asked: BTreeMap::new(), overwritten: None }
    }

    /// `needed` says until when an object that is there has to be locked; `None` allows a lock that has ended.
    fn keep(&mut self, name: &str, bytes: Bytes, needed: Option<Timestamp>) -> io::Result<Put> {
        // Each further try would lock one more version.
        if let Some(place) = &self.overwritten {
            return Err(overwrites(place));
        }
        let key = format!("{}{name}", self.options.prefix);
        let each = self.options.request_timeout + Duration::from_secs(1 + (bytes.len() as u64 >> 20));
        let bucket = open(&mut self.bucket, &self.options)?;
        let (proven, asked) = (self.proven, &mut self.asked);
        // It is looked at, written, looked at and tried to be overwritten, and may have to be looked at once more.
        let (put, again) = run(6 * each, async {
            let put = put(bucket, &key, &bytes, needed, asked, proven).await?;
            let Some(until) = asked.get(&key) else { return Ok((put, None)) };
            is_locked_as_asked(bucket, &key, &bytes, *until).await?;
            Ok((put, Some(bucket.write(&key, &bytes, bucket.retained_until()).await?)))
        })?;
        match again {
            Some(true) => {
                let place = self.overwritten.insert(bucket.place(Some(&key)));
                return Err(overwrites(place));
            }
            Some(false) => {
                self.asked.remove(&key);
                self.proven = true;
            }
            None => {}
        }
        Ok(put)
    }
}

impl Sink for S3Sink {
    fn put(&mut self, name: &str, bytes: &[u8]) -> io::Result<Put> {
        self.keep(name, Bytes::copy_from_slice(bytes), Some(timestamp()))
    }

    fn put_file(&mut self, name: &str, file: &Path) -> io::Result<Put> {
        let about = std::fs::metadata(file)?;
        if about.len() > LARGEST_FILE {
            let what = format!(
                "{} has {} bytes, more than are sent in one piece: copy it as {:?} yourself, with a lock (docs/audit.md)",
                file.display(),
                about.len(),
                format!("{}{name}", self.options.prefix),
            );
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, what));
        }
        // The copy has to be locked when the segment is removed here, which is so long after it was last written. Where segments
        // are never removed, the copy's lock ends in the end while the segment is still here, and that is no fault: each start would
        // find it again for ever.
        let needed = self.options.keep_shipped.map(|keep| -> io::Result<Timestamp> {
            let modified = about.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default();
            Ok(timestamp().max(Timestamp((modified + keep).as_micros() as u64)))
        });
        self.keep(name, std::fs::read(file)?.into(), needed.transpose()?)
    }

    fn newest(&mut self, node: &str) -> io::Result<Option<(String, ExpectedCheckpoint)>> {
        let bucket = open(&mut self.bucket, &self.options)?;
        let place = format!("{}{node}/", self.options.prefix);
        run(Patience::DEFAULT.most(), newest::newest(bucket, &place, self.options.page, Patience::DEFAULT))
    }
}

fn open<'a>(bucket: &'a mut Option<Bucket>, options: &S3Options) -> io::Result<&'a Bucket> {
    match bucket {
        Some(bucket) => Ok(bucket),
        None => Ok(bucket.insert(Bucket::new(options.clone())?)),
    }
}

/// Keeps an object. What is written before the store is proven goes to `asked`.
async fn put(
    bucket: &Bucket,
    key: &str,
    bytes: &Bytes,
    needed: Option<Timestamp>,
    asked: &mut BTreeMap<String, Timestamp>,
    proven: bool,
) -> io::Result<Put> {
    if let Some(there) = bucket.look(key, bytes).await? {
        is_same(bucket, key, &there)?;
        // What this process has written is held to what it has asked for.
        return if asked.contains_key(key) { Ok(Put::Already) } else { is_locked(bucket, key, &there, needed) };
    }
    let until = bucket.retained_until();
    if !proven {
        // Before the answer, which may be lost.
        asked.insert(key.to_owned(), until);
    }
    if bucket.write(key, bytes, until).await? {
        return Ok(Put::Written);
    }
    // Somebody was faster.
    asked.remove(key);
    match bucket.look(key, bytes).await? {
        Some(there) => is_same(bucket, key, &there).and_then(|()| is_locked(bucket, key, &there, needed)),
        None => Err(io::Error::other(format!("{} is there and cannot be seen", bucket.place(Some(key))))),
    }
}

fn is_same(bucket: &Bucket, key: &str, there: &There) -> io::Result<()> {
    if there.is_same {
        return Ok(());
    }
    let what = format!("{} is there with other content, and is not overwritten", bucket.place(Some(key)));
    Err(io::Error::new(io::ErrorKind::AlreadyExists, what))
}

/// An object that was there before has to be locked, and until `needed`.
fn is_locked(bucket: &Bucket, key: &str, there: &There, needed: Option<Timestamp>) -> io::Result<Put> {
    let place = bucket.place(Some(key));
    let (mode, until) = lock_of(&place, there)?;
    // An earlier process may have been configured with another time, and with a stricter mode.
    let is_mode = mode == bucket.lock_mode() || mode == COMPLIANCE;
    if is_mode && needed.is_none_or(|needed| until > timestamp() && until.0 / SECOND >= needed.0 / SECOND) {
        return Ok(Put::Already);
    }
    let needed = needed.map(|needed| format!(" until {needed} at least")).unwrap_or_default();
    Err(io::Error::new(
        io::ErrorKind::Unsupported,
        format!(
            "{place} is there, locked with {mode} until {until}, and has to be with {}{needed}: lengthen that \
             (aws s3api put-object-retention), or copy the object to another place with a lock",
            bucket.lock_mode()
        ),
    ))
}

fn overwrites(place: &str) -> io::Error {
    let what = "the store overwrites what is there (it ignores If-None-Match); once it does not, restart the node";
    io::Error::new(io::ErrorKind::Unsupported, format!("{place}: {what}"))
}

fn lock_of<'a>(place: &str, there: &'a There) -> io::Result<(&'a str, Timestamp)> {
    let lock = there.lock.as_ref().map(|(mode, until)| (mode.as_str(), *until));
    lock.ok_or_else(|| {
        let what = format!(
            "{place}: the store does not say that it is locked; it needs object lock, and the node s3:GetObjectRetention. If it \
             came there without a lock, lock it (aws s3api put-object-retention)"
        );
        io::Error::new(io::ErrorKind::Unsupported, what)
    })
}

/// Not every store that calls itself compatible knows object lock, and some ignore what they do not know.
async fn is_locked_as_asked(bucket: &Bucket, key: &str, bytes: &Bytes, until: Timestamp) -> io::Result<()> {
    let place = bucket.place(Some(key));
    let there = bucket.look(key, bytes).await?;
    let there = there.ok_or_else(|| io::Error::other(format!("{place} was written and cannot be seen")))?;
    let (mode, locked_until) = lock_of(&place, &there)?;
    // Dates are in whole seconds.
    if mode == bucket.lock_mode() && locked_until.0 / SECOND >= until.0 / SECOND {
        return Ok(());
    }
    let asked = bucket.lock_mode();
    let what = format!("{place}: was to be locked, {asked} until {until}, and is, {mode} until {locked_until}");
    Err(io::Error::new(io::ErrorKind::Unsupported, what))
}

const COMPLIANCE: &str = "COMPLIANCE";

const SECOND: u64 = 1_000_000;

#[cfg(test)]
mod tests;
