//! A bucket of an S3-compatible store as a sink: objects that are locked as they are written, and written once.

mod bucket;
mod credentials;
mod document;
mod newest;
pub mod sigv4;

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use tokio::runtime::Builder;

use crate::bets::audit::{ExpectedCheckpoint, Timestamp};
use crate::config::{self, LockMode};

use super::sink::{Put, Sink};
use bucket::{Bucket, There};

pub use document::{Listing, Next};

/// How long the newest checkpoint is looked for: a node that starts waits for it.
const NEWEST_LIMIT: Duration = Duration::from_secs(5);

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
}

impl S3Options {
    /// `None` where no bucket is configured.
    pub fn from_config(config: &config::AuditS3) -> Option<Self> {
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
        })
    }
}

/// A bucket. Each operation has a runtime of its own: it is called from a thread that does nothing else.
pub struct S3Sink {
    options: S3Options,
    /// Made when it is first of use.
    bucket: Option<Bucket>,
    /// The store has been seen to lock what it keeps, and not to overwrite it.
    proven: bool,
}

impl S3Sink {
    /// One that has not been asked yet.
    pub fn new(options: S3Options) -> Self {
        Self { options, bucket: None, proven: false }
    }

    fn keep(&mut self, name: &str, bytes: Bytes) -> io::Result<Put> {
        let key = format!("{}{name}", self.options.prefix);
        let each = self.options.request_timeout + Duration::from_secs(1 + (bytes.len() as u64 >> 20));
        let bucket = open(&mut self.bucket, &self.options)?;
        let proven = self.proven;
        // It is looked at, written, looked at and tried to be overwritten, and may have to be looked at once more.
        let put = run(6 * each, async {
            let (put, until) = put(bucket, &key, &bytes).await?;
            if !proven {
                prove(bucket, &key, &bytes, until).await?;
            }
            Ok(put)
        })?;
        self.proven = true;
        Ok(put)
    }
}

impl Sink for S3Sink {
    fn put(&mut self, name: &str, bytes: &[u8]) -> io::Result<Put> {
        self.keep(name, Bytes::copy_from_slice(bytes))
    }

    fn put_file(&mut self, name: &str, file: &Path) -> io::Result<Put> {
        self.keep(name, std::fs::read(file)?.into())
    }

    fn newest(&mut self, node: &str) -> io::Result<Option<(String, ExpectedCheckpoint)>> {
        let bucket = open(&mut self.bucket, &self.options)?;
        run(NEWEST_LIMIT, newest::newest(bucket, &format!("{}{node}/", self.options.prefix)))
    }
}

fn open<'a>(bucket: &'a mut Option<Bucket>, options: &S3Options) -> io::Result<&'a Bucket> {
    match bucket {
        Some(bucket) => Ok(bucket),
        None => Ok(bucket.insert(Bucket::new(options.clone())?)),
    }
}

fn run<T>(limit: Duration, work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let outcome = runtime.block_on(async { tokio::time::timeout(limit, work).await });
    // The look-up of a name may hang, in a thread of its own.
    runtime.shutdown_background();
    outcome.unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {limit:?}"))))
}

/// Keeps an object; if it was written, until when it has to be locked.
async fn put(bucket: &Bucket, key: &str, bytes: &Bytes) -> io::Result<(Put, Option<Timestamp>)> {
    if let Some(there) = bucket.look(key, bytes).await? {
        return already(bucket, key, &there);
    }
    let until = bucket.retained_until();
    if bucket.write(key, bytes, until).await? {
        return Ok((Put::Written, Some(until)));
    }
    // Somebody was faster, or an answer was lost.
    match bucket.look(key, bytes).await? {
        Some(there) => already(bucket, key, &there),
        None => Err(io::Error::other(format!("{} is there and cannot be seen", bucket.place(Some(key))))),
    }
}

fn already(bucket: &Bucket, key: &str, there: &There) -> io::Result<(Put, Option<Timestamp>)> {
    if there.is_same {
        return Ok((Put::Already, None));
    }
    let what = format!("{} is there with other content, and is not overwritten", bucket.place(Some(key)));
    Err(io::Error::new(io::ErrorKind::AlreadyExists, what))
}

/// Not every store that calls itself compatible knows object lock and conditional writes, and some ignore what they do not know:
/// an object that is there has to be locked, and is not to be written again.
async fn prove(bucket: &Bucket, key: &str, bytes: &Bytes, until: Option<Timestamp>) -> io::Result<()> {
    let place = bucket.place(Some(key));
    let refuse = |what: String| Err(io::Error::new(io::ErrorKind::Unsupported, format!("{place}: {what}")));
    let lock = bucket.look(key, bytes).await?.and_then(|there| there.lock);
    let Some((mode, locked_until)) = lock else {
        return refuse(
            "the store does not say that it is locked; it needs object lock, and the node s3:GetObjectRetention"
                .to_owned(),
        );
    };
    // What an earlier process has written was locked as it was configured then. Dates are in whole seconds.
    if until.is_some_and(|until| mode != bucket.lock_mode() || locked_until.0 / SECOND < until.0 / SECOND) {
        return refuse(format!(
            "was to be locked, {} until {}, and is, {mode} until {locked_until}",
            bucket.lock_mode(),
            until.unwrap_or_default()
        ));
    }
    if bucket.write(key, bytes, bucket.retained_until()).await? {
        return refuse("the store overwrites what is there (it ignores If-None-Match)".to_owned());
    }
    Ok(())
}

const SECOND: u64 = 1_000_000;

#[cfg(test)]
mod tests;
