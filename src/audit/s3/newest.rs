//! The newest checkpoint of a node in a bucket, in a number of requests that grows with the logarithm of theirs.
//!
//! Versions are looked at, not objects: whoever deletes a locked object hides it behind a delete marker, and it is still there.

use std::cell::Cell;
use std::io;
use std::time::Duration;

use tokio::time::timeout;

use crate::bets::audit::ExpectedCheckpoint;

use super::super::sink::Newest;
use super::bucket::Bucket;
use super::document::{Listing, Next};

/// So many of its pages at once where nothing is jumped over.
const LONG_PAGES: u16 = 5;

/// Names have twelve digits.
const MOST_LINES: u64 = 999_999_999_999;

/// A checkpoint is a line.
const MOST_BYTES: usize = 64 << 10;

/// How long the newest checkpoint is looked for: a node that starts waits for it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// For the names of the chains.
    pub(super) names: Duration,
    /// For each chain.
    pub(super) chain: Duration,
    /// For all chains.
    pub(super) chains: Duration,
}

impl Patience {
    pub(super) const DEFAULT: Self =
        Self { names: Duration::from_secs(5), chain: Duration::from_secs(10), chains: Duration::from_secs(55) };

    /// For all of it.
    pub(super) fn most(self) -> Duration {
        // What is in here is to end first: it knows how far it came.
        self.names + self.chains + Duration::from_secs(1)
    }
}

/// `place` is what the keys of the node begin with, its slash included.
pub(super) async fn newest(
    bucket: &Bucket,
    place: &str,
    page: u16,
    patience: Patience,
) -> io::Result<Option<(String, ExpectedCheckpoint)>> {
    let search = Search { bucket, page, answers: Cell::new(0) };
    let late = |limit: Duration, progress: String| {
        let (place, answers) = (bucket.place(Some(place)), search.answers.get());
        let what = format!("{place}: no newest checkpoint within {limit:?}: {progress}, after {answers} answers");
        io::Error::new(io::ErrorKind::TimedOut, what)
    };
    let names = timeout(patience.names, search.chains(place)).await;
    let chains = names.unwrap_or_else(|_| Err(late(patience.names, "its chains are not known".to_owned())))?;
    let limit = patience.chains.min(patience.chain.saturating_mul(u32::try_from(chains.len()).unwrap_or(u32::MAX)));
    let seen = Cell::new(0);
    let newest = timeout(limit, async {
        let mut newest = Newest::default();
        for chain in &chains {
            if let Some((seq, key, version)) = search.last_checkpoint(chain).await? {
                let line = bucket.read(&key, Some(&version), MOST_BYTES).await?;
                newest.see(bucket.place(Some(&key)), seq, &line)?;
            }
            seen.set(seen.get() + 1);
        }
        Ok(newest.0)
    });
    if chains.is_empty() {
        return timeout(patience.chain, bucket.exists())
            .await
            .unwrap_or_else(|_| Err(late(patience.chain, "it has no chain".to_owned())))
            .map(|()| None);
    }
    let progress = || format!("{} of {} chains were looked at", seen.get(), chains.len());
    newest.await.unwrap_or_else(|_| Err(late(limit, progress())))
}

struct Search<'a> {
    bucket: &'a Bucket,
    /// Entries in a page.
    page: u16,
    /// Pages that came.
    answers: Cell<u32>,
}

/// What a page has of checkpoints.
struct Found {
    /// The lines that the last one signs for.
    seq: u64,
    /// Its key and its oldest version, if nothing comes after this page.
    end: Option<(String, String)>,
}

impl Search<'_> {
    /// What the keys of each chain begin with.
    async fn chains(&self, place: &str) -> io::Result<Vec<String>> {
        let mut chains = Vec::new();
        let mut after = None;
        loop {
            let Listing { prefixes, next, .. } =
                self.list(&[("prefix", place), ("delimiter", "/")], LONG_PAGES, after.as_ref()).await?;
            for prefix in prefixes {
                let is_chain = |name: &str| {
                    !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
                };
                let name = prefix.strip_prefix(place).and_then(|name| name.strip_suffix('/'));
                if !name.is_some_and(is_chain) {
                    return Err(unfit(&prefix));
                }
                chains.push(prefix);
            }
            let Some(next) = next else { return Ok(chains) };
            after = Some(next);
        }
    }

    /// The last checkpoint of a chain, and of several versions the oldest, which is the node's: its lines, key and version.
    async fn last_checkpoint(&self, chain: &str) -> io::Result<Option<(u64, String, String)>> {
        let stem = format!("{chain}checkpoint-");
        let Some(mut found) = self.after(&stem, None, None).await? else { return Ok(None) };
        // There is a checkpoint at `low` and none after `high`, which is looked for in steps twice as long each.
        let (mut high, mut step) = (None::<u64>, found.seq.max(1));
        loop {
            let low = found.seq;
            if let Some((key, version)) = found.end {
                return Ok(Some((low, key, version)));
            }
            if high.unwrap_or(MOST_LINES) <= low {
                let (key, version) = self.oldest(&stem, low).await?;
                return Ok(Some((low, key, version)));
            }
            let at = high.map_or(MOST_LINES.min(low.saturating_add(step)), |high| low.midpoint(high));
            match self.after(&stem, Some(at), high).await? {
                Some(later) => (found, step) = (later, step.saturating_mul(2)),
                None => high = Some(at),
            }
        }
    }

    /// The first page after `at` that has a version of a checkpoint; what comes after `high` has none.
    async fn after(&self, stem: &str, at: Option<u64>, high: Option<u64>) -> io::Result<Option<Found>> {
        let mut after = at.map(|at| Next { key: name(stem, at), version: None });
        let mut pages = 1;
        loop {
            let page = self.list(&[("prefix", stem)], pages, after.as_ref()).await?;
            if let Some(key) = page.versions.iter().map(|(key, _)| key).max() {
                let seq = seq(key, stem)?;
                if at.is_none_or(|at| seq > at) {
                    let end = page.next.is_none().then(|| page.versions.iter().rfind(|(of, _)| of == key).cloned());
                    return Ok(Some(Found { seq, end: end.flatten() }));
                }
            }
            // Nothing but delete markers so far.
            let last = page.last.map(|last| seq(&last, stem)).transpose()?;
            if page.next.is_none() || last.zip(high).is_some_and(|(last, high)| last > high) {
                return Ok(None);
            }
            (after, pages) = (page.next, LONG_PAGES);
        }
    }

    /// Key and oldest version of a checkpoint that was seen.
    async fn oldest(&self, stem: &str, seq: u64) -> io::Result<(String, String)> {
        let key = name(stem, seq);
        let mut after = seq.checked_sub(1).map(|before| Next { key: name(stem, before), version: None });
        let mut oldest = None;
        loop {
            let page = self.list(&[("prefix", stem)], LONG_PAGES, after.as_ref()).await?;
            oldest = page.versions.into_iter().rfind(|(of, _)| *of == key).or(oldest);
            if page.next.is_none() || page.last.is_some_and(|last| last > key) {
                return oldest.ok_or_else(|| unfit(&key));
            }
            after = page.next;
        }
    }

    /// A page of versions of so many times the usual length, which has to go on after the one before.
    async fn list(&self, query: &[(&str, &str)], pages: u16, after: Option<&Next>) -> io::Result<Listing> {
        let most = self.page.saturating_mul(pages).to_string();
        let mut query = [query, &[("max-keys", most.as_str())]].concat();
        if let Some(Next { key, version }) = after {
            query.push(("key-marker", key));
            query.extend(version.as_deref().map(|version| ("version-id-marker", version)));
        }
        let page = self.bucket.list(&query).await?;
        self.answers.set(self.answers.get() + 1);
        let goes_on = |next: &Next| after.is_none_or(|after| *next != *after && next.key >= after.key);
        match &page.next {
            Some(next) if !goes_on(next) => Err(unfit(&next.key)),
            _ => Ok(page),
        }
    }
}

/// The key of a checkpoint.
fn name(stem: &str, seq: u64) -> String {
    format!("{stem}{seq:012}.jsonl")
}

/// The lines that a checkpoint signs for, by its name. In the order of names what is no checkpoint could hide the last one.
fn seq(key: &str, stem: &str) -> io::Result<u64> {
    let digits = key.strip_prefix(stem).and_then(|name| name.strip_suffix(".jsonl"));
    let digits = digits.filter(|digits| digits.len() == 12 && digits.bytes().all(|b| b.is_ascii_digit()));
    digits.and_then(|digits| digits.parse().ok()).ok_or_else(|| unfit(key))
}

fn unfit(key: &str) -> io::Error {
    let what = format!(
        "the bucket holds {key:?}, which is not of an audit trail, or lists it in another order than asked for"
    );
    io::Error::new(io::ErrorKind::InvalidData, what)
}
