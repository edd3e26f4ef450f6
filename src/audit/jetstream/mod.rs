//! A stream of NATS JetStream as a sink: checkpoints, and segments if that is wanted, in a stream that removes nothing.
//!
//! The stream is the operator's: it is looked at with each connection, and never made or changed. Messages have no `Nats-Msg-Id`,
//! for the server calls a second one of the same id a duplicate without comparing the two: what is there is read and compared here,
//! and what is written names the message that it follows. NATS' own object store is not used: it replaces messages.

mod checkpoints;
mod fetch;
mod files;
mod settings;
mod stream;
mod subject;

use std::io;
use std::path::Path;
use std::time::Duration;

use tracing::dispatcher::{Dispatch, with_default};

use crate::bets::audit::ExpectedCheckpoint;
use crate::config::{self, NatsAccess};

use super::sink::{self, Put, Sink};
use files::Source;
use stream::Stream;
use subject::{Named, Subjects, named};

pub use fetch::{Fetched, fetch};
pub use files::Assembly;
pub use stream::Message;

/// Bytes of a segment in a message. With Base64 around it an answer stays below the 1 MiB that a server allows by default.
const CHUNK: usize = 512 << 10;

/// Requests for a checkpoint at most: each step halves what is left of a stream, in which there are less than 2^64 messages.
const MOST_REQUESTS: u32 = 140;

/// How a stream is reached, and what it gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JetstreamOptions {
    /// Its name.
    pub stream: String,
    /// What all subjects begin with.
    pub subject_prefix: String,
    /// The servers, and how the node logs in.
    pub access: NatsAccess,
    /// How long an answer may take.
    pub request_timeout: Duration,
    /// Whether segments are copied, or checkpoints alone.
    pub segments: bool,
    /// The most bytes of a segment that go into a message.
    pub chunk: usize,
}

impl JetstreamOptions {
    /// `None` where no stream is configured.
    pub fn from_config(config: &config::AuditJetstream) -> Option<Self> {
        Some(Self {
            stream: config.stream.clone()?,
            subject_prefix: config.subject_prefix.clone(),
            access: config.access(),
            request_timeout: config.request_timeout,
            segments: config.segments,
            chunk: CHUNK,
        })
    }

    /// How long it may take to be connected: each server in turn, at an address or two.
    fn connecting(&self) -> Duration {
        let servers = u32::try_from(self.access.servers.len()).unwrap_or(u32::MAX);
        self.access.connect_timeout.saturating_mul(servers.saturating_mul(2))
    }

    /// The same, and then so many requests.
    fn within(&self, requests: u32) -> Duration {
        self.connecting().saturating_add(self.request_timeout.saturating_mul(requests))
    }
}

/// A stream. Each operation has a connection of its own: it is called from a thread that does nothing else, seconds apart.
pub struct JetstreamSink {
    options: JetstreamOptions,
}

impl JetstreamSink {
    /// One that has not been asked yet.
    pub fn new(options: JetstreamOptions) -> Self {
        Self { options }
    }

    fn keep_file(&self, node: &str, subject: &str, source: &Source<'_>) -> io::Result<Put> {
        let options = &self.options;
        if !options.segments {
            let what = "segments are not copied to the stream: audit.jetstream.segments is false";
            return Err(io::Error::new(io::ErrorKind::Unsupported, what));
        }
        let parts = source.length()? / options.chunk.max(1) as u64 + 2;
        // It is read back and written, and may be once more. Parts may be smaller than they were to be.
        let requests = u32::try_from(parts.saturating_mul(64)).unwrap_or(u32::MAX);
        run(options.within(requests), async {
            let stream = Stream::open(options, &Subjects::new(&options.subject_prefix, node)).await?;
            files::keep(&stream, subject, source, options.chunk).await
        })
    }

    fn keep(&self, name: &str, source: &Source<'_>) -> io::Result<Put> {
        let options = &self.options;
        match (named(&options.subject_prefix, name)?, source) {
            ((node, Named::Checkpoint { subject, seq }), Source::Bytes(line)) => {
                run(options.within(MOST_REQUESTS), async {
                    let stream = Stream::open(options, &Subjects::new(&options.subject_prefix, &node)).await?;
                    checkpoints::keep(&stream, &subject, seq, line).await
                })
            }
            ((node, Named::File { subject }), source) => self.keep_file(&node, &subject, source),
            ((_, Named::Checkpoint { .. }), Source::File(file)) => {
                self.keep(name, &Source::Bytes(&std::fs::read(file)?))
            }
        }
    }
}

impl Sink for JetstreamSink {
    fn put(&mut self, name: &str, bytes: &[u8]) -> io::Result<Put> {
        self.keep(name, &Source::Bytes(bytes))
    }

    fn put_file(&mut self, name: &str, file: &Path) -> io::Result<Put> {
        self.keep(name, &Source::File(file))
    }

    fn newest(&mut self, node: &str) -> io::Result<Option<(String, ExpectedCheckpoint)>> {
        let options = &self.options;
        // What is in there is to end first: it knows how far it came.
        run(options.within(2).saturating_add(checkpoints::PATIENCE), async {
            let subjects = Subjects::new(&options.subject_prefix, node);
            let stream = Stream::open(options, &subjects).await?;
            checkpoints::newest(&stream, &subjects, checkpoints::PATIENCE).await
        })
    }

    fn takes_segments(&self) -> bool {
        self.options.segments
    }
}

/// As [`sink::run`]. The client logs each connection, of which there may be one a second: what matters is in the outcome.
fn run<T>(limit: Duration, work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    with_default(&Dispatch::none(), || sink::run(limit, work))
}

#[cfg(test)]
mod tests;
