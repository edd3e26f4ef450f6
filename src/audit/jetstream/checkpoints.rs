//! The checkpoints of a chain: messages on one subject, each of which signs for more lines than the one before.
//!
//! Whoever may write on the subject can write an old checkpoint once more, after all others. So the last message is not believed
//! to be the newest checkpoint: what the server has taken since that one was signed is looked at as well.

use std::cell::Cell;
use std::io;
use std::time::Duration;

use async_nats::HeaderMap;
use bytes::Bytes;
use tokio::time::timeout;

use crate::bets::audit::{ExpectedCheckpoint, Timestamp};

use super::super::sink::{Newest, Put};
use super::stream::{Message, Published, Stream};
use super::subject::Subjects;

/// How far the clocks of the node and the server may be apart.
const SKEW: u64 = 300_000_000;

/// Chains of a node that are looked at.
pub(super) const MOST_CHAINS: usize = 10_000;

/// How long the newest checkpoint is looked for: a node that starts waits for it.
pub(super) const PATIENCE: Duration = Duration::from_secs(55);

/// Keeps the checkpoint that signs for `seq` lines.
///
/// # Errors
/// It cannot be written now, or another one is there in its place.
pub(super) async fn keep(stream: &Stream, subject: &str, seq: u64, line: &[u8]) -> io::Result<Put> {
    // Who is overtaken looks once more at what there is.
    for _ in 0..2 {
        let mut after = 0;
        if let Some(last) = stream.last(subject).await? {
            let newest = lines(stream, &last)?;
            if newest >= seq {
                return find(stream, last, newest, seq, line).await;
            }
            after = last.sequence;
        }
        if ExpectedCheckpoint::parse(line).map(|checkpoint| checkpoint.seq()) != Ok(seq) {
            let what = format!("this is no checkpoint of {seq} lines, and would hide others on {subject}");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
        }
        if stream.publish(subject, after, HeaderMap::new(), Bytes::copy_from_slice(line)).await? != Published::Behind {
            return Ok(Put::Written);
        }
    }
    Err(io::Error::other(format!("somebody else writes on {subject} at the same time")))
}

/// Whether it is there, where the last one signs for as many lines or more.
async fn find(stream: &Stream, last: Message, newest: u64, seq: u64, line: &[u8]) -> io::Result<Put> {
    let found = if newest == seq {
        Some(last.clone())
    } else {
        stream.first(&last.subject, last.sequence, |message| Ok(lines(stream, message)? >= seq)).await?
    };
    match found {
        Some(found) if found.body == line => Ok(Put::Already),
        other => {
            let place = stream.place(&other.unwrap_or(last));
            let what = format!(
                "{place}: another checkpoint is in the place of the one of {seq} lines, which is not written after it"
            );
            Err(io::Error::new(io::ErrorKind::AlreadyExists, what))
        }
    }
}

/// The lines that the checkpoint in a message signs for.
fn lines(stream: &Stream, message: &Message) -> io::Result<u64> {
    Ok(read(stream, message)?.seq())
}

fn read(stream: &Stream, message: &Message) -> io::Result<ExpectedCheckpoint> {
    ExpectedCheckpoint::parse(&message.body).map_err(|error| {
        io::Error::new(io::ErrorKind::InvalidData, format!("{} is no checkpoint: {error}", stream.place(message)))
    })
}

/// The newest checkpoint of a node.
///
/// # Errors
/// The stream does not tell in time, or what is on a subject of checkpoints is none.
pub(super) async fn newest(
    stream: &Stream,
    subjects: &Subjects,
    patience: Duration,
) -> io::Result<Option<(String, ExpectedCheckpoint)>> {
    let (seen, all) = (Cell::new(0), Cell::new(0));
    let search = async {
        let mut lasts = Vec::new();
        let chains = stream.subjects(&subjects.checkpoints(), MOST_CHAINS).await?;
        all.set(chains.len());
        for chain in chains {
            lasts.extend(stream.last(&chain).await?);
        }
        // Most of the others need not be looked into after the one that was written to last.
        lasts.sort_by_key(|last| std::cmp::Reverse(last.time));
        let mut newest = Newest::default();
        for last in lasts {
            newest_of(stream, &last, &mut newest).await?;
            seen.set(seen.get() + 1);
        }
        Ok(newest.0)
    };
    timeout(patience, search).await.unwrap_or_else(|_| {
        let what = format!(
            "no newest checkpoint within {patience:?}: {} of {} chains on {} were looked at; either the server is slow, or an old \
             checkpoint was written again after many others",
            seen.get(),
            all.get(),
            subjects.checkpoints()
        );
        Err(io::Error::new(io::ErrorKind::TimedOut, what))
    })
}

/// What the chain of a last message adds to what is known of others.
async fn newest_of(stream: &Stream, last: &Message, newest: &mut Newest) -> io::Result<()> {
    let checkpoint = read(stream, last)?;
    newest.see(stream.place(last), checkpoint.seq(), &last.body)?;
    // What was signed later than the newest so far cannot have come before that was signed, clocks aside.
    let signed = newest.0.as_ref().map_or(0, |(_, newest)| newest.ts().0);
    let since = Timestamp(signed.saturating_sub(SKEW));
    if last.time < since {
        return Ok(());
    }
    let mut at = stream.first(&last.subject, last.sequence, |message| Ok(message.time >= since)).await?;
    while let Some(message) = at.filter(|message| message.sequence < last.sequence) {
        newest.see(stream.place(&message), lines(stream, &message)?, &message.body)?;
        at = stream.next(&last.subject, message.sequence + 1).await?;
    }
    Ok(())
}
