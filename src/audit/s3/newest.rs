//! The newest checkpoint of a node in a bucket, in some dozens of requests however many there are.
//!
//! Versions are looked at, not objects: whoever deletes a locked object hides it behind a delete marker, and it is still there.

use std::io;

use crate::bets::audit::ExpectedCheckpoint;

use super::super::sink::Newest;
use super::bucket::Bucket;
use super::document::{Listing, Next};

/// Versions in a page of the search: enough that a day of checkpoints takes a few, and small enough to come at once.
const PAGE: &str = "200";

/// Names have twelve digits.
const MOST_LINES: u64 = 999_999_999_999;

/// A checkpoint is a line.
const MOST_BYTES: usize = 64 << 10;

/// `place` is what the keys of the node begin with, its slash included.
pub(super) async fn newest(bucket: &Bucket, place: &str) -> io::Result<Option<(String, ExpectedCheckpoint)>> {
    let mut newest = Newest::default();
    let chains = chains(bucket, place).await?;
    if chains.is_empty() {
        bucket.exists().await?;
    }
    for chain in chains {
        let Some((key, version)) = last_checkpoint(bucket, &chain).await? else { continue };
        let line = bucket.read(&key, Some(&version), MOST_BYTES).await?;
        newest.see(bucket.place(Some(&key)), &line)?;
    }
    Ok(newest.0)
}

/// What the keys of each chain begin with.
async fn chains(bucket: &Bucket, place: &str) -> io::Result<Vec<String>> {
    let mut chains = Vec::new();
    let mut after = None;
    loop {
        let Listing { prefixes, next, .. } =
            page(bucket, &[("prefix", place), ("delimiter", "/")], after.as_ref()).await?;
        for prefix in prefixes {
            let is_chain =
                |name: &str| !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
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

/// The last checkpoint of a chain, and of several versions the oldest, which is the node's: its key and version.
async fn last_checkpoint(bucket: &Bucket, chain: &str) -> io::Result<Option<(String, String)>> {
    let stem = format!("{chain}checkpoint-");
    let query = [("prefix", stem.as_str()), ("max-keys", PAGE)];
    let first = page(bucket, &query, None).await?;
    let mut low = match (&first.next, &first.last) {
        (None, _) => return last_of(&first, &stem),
        (Some(_), Some(last)) => seq(last, &stem)?,
        (Some(_), None) => 0,
    };
    // There is something after `low` and nothing after `high`, which is looked for in steps twice as long each.
    let (mut high, mut step) = (None::<u64>, low.max(1));
    while high.unwrap_or(MOST_LINES) > low {
        let at = high.map_or(MOST_LINES.min(low.saturating_add(step)), |high| low.midpoint(high));
        let after = Next { key: format!("{stem}{at:012}.jsonl"), version: None };
        let found = page(bucket, &query, Some(&after)).await?;
        match &found.last {
            None if found.next.is_none() => high = Some(at),
            Some(last) if found.next.is_some() => {
                let last = seq(last, &stem)?;
                if last <= at {
                    break;
                }
                (low, step) = (last, step.saturating_mul(2));
            }
            // The last page, unless all in it was removed.
            _ => match last_of(&found, &stem)? {
                Some(last) => return Ok(Some(last)),
                None => break,
            },
        }
    }
    walk(bucket, &stem).await
}

/// As [`last_checkpoint`], from page to page.
async fn walk(bucket: &Bucket, stem: &str) -> io::Result<Option<(String, String)>> {
    let (mut last, mut after) = (None::<(String, String)>, None::<Next>);
    loop {
        let found = page(bucket, &[("prefix", stem)], after.as_ref()).await?;
        last = last_of(&found, stem)?.or(last);
        let Some(next) = found.next else { return Ok(last) };
        after = Some(next);
    }
}

/// The oldest version of the last key of a page that has any.
fn last_of(page: &Listing, stem: &str) -> io::Result<Option<(String, String)>> {
    let Some(key) = page.versions.iter().map(|(key, _)| key).max() else { return Ok(None) };
    seq(key, stem)?;
    Ok(page.versions.iter().rfind(|(of, _)| of == key).cloned())
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

/// A page of versions, which has to go on after the one before.
async fn page(bucket: &Bucket, query: &[(&str, &str)], after: Option<&Next>) -> io::Result<Listing> {
    let mut query = query.to_vec();
    if let Some(Next { key, version }) = after {
        query.push(("key-marker", key));
        query.extend(version.as_deref().map(|version| ("version-id-marker", version)));
    }
    let page = bucket.list(&query).await?;
    let goes_on = |next: &Next| after.is_none_or(|after| *next != *after && next.key >= after.key);
    match &page.next {
        Some(next) if !goes_on(next) => Err(unfit(&next.key)),
        _ => Ok(page),
    }
}
