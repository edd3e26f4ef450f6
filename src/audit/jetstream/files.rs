//! A file in a stream: messages on one subject, each with the next of its bytes, the last with the length and hash of all.

use std::fs::File;
use std::io::{self, Read};

use async_nats::HeaderMap;
use aws_lc_rs::digest::{Context, SHA256};
use bytes::Bytes;

use crate::bets::audit::{Digest, Hex};

use super::super::sink::Put;
use super::stream::{Headers, Message, Published, Stream};

/// The headers of each part, and of the last.
const CHUNK: &str = "Tableside-Chunk";
const BYTES: &str = "Tableside-Bytes";
const HASH: &str = "Tableside-Sha-256";

/// What the headers of a part say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Part {
    /// Its number, from 0.
    number: u64,
    /// Bytes of the file, and their hash, if it is the last.
    end: Option<(u64, Digest)>,
}

impl Part {
    /// `None` where they are not those of a part.
    fn read(headers: &Headers) -> Option<Self> {
        let number = number(headers.find(CHUNK)?)?;
        let end = match (headers.find(BYTES), headers.find(HASH)) {
            (None, None) => None,
            (bytes, hash) => Some((self::number(bytes?)?, Digest::parse(hash?)?)),
        };
        Some(Self { number, end })
    }

    fn headers(self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(CHUNK, self.number.to_string());
        if let Some((bytes, hash)) = self.end {
            headers.insert(BYTES, bytes.to_string());
            headers.insert(HASH, hash.to_string());
        }
        headers
    }
}

/// In the one form in which it is written.
fn number(text: &str) -> Option<u64> {
    text.parse().ok().filter(|number: &u64| number.to_string() == text)
}

/// How far a file was followed, part by part.
struct Progress {
    number: u64,
    bytes: u64,
    hash: Context,
}

impl Progress {
    fn new() -> Self {
        Self { number: 0, bytes: 0, hash: Context::new(&SHA256) }
    }

    /// One more part.
    fn add(&mut self, bytes: &[u8]) {
        self.number += 1;
        self.bytes += bytes.len() as u64;
        self.hash.update(bytes);
    }

    fn hash(&self) -> Digest {
        let mut hash = [0; 32];
        hash.copy_from_slice(self.hash.clone().finish().as_ref());
        Hex(hash)
    }

    /// Whether `part` with these bytes is the next one; whether it is the last.
    fn follow(&mut self, part: Option<Part>, bytes: &[u8]) -> Option<bool> {
        let Part { end, .. } = part.filter(|part| part.number == self.number)?;
        self.add(bytes);
        match end {
            None => Some(false),
            Some((length, hash)) => (length == self.bytes && hash == self.hash()).then_some(true),
        }
    }
}

/// A file as its messages come, in the order of the stream.
pub struct Assembly {
    progress: Progress,
    is_whole: bool,
}

impl Assembly {
    /// Before the first message.
    pub fn new() -> Self {
        Self { progress: Progress::new(), is_whole: false }
    }

    /// Whether `message` is what follows. Where it is not, the file is damaged, and this is of no use any more.
    pub fn add(&mut self, message: &Message) -> bool {
        let followed = self.progress.follow(Part::read(&message.headers), &message.body).filter(|_| !self.is_whole);
        self.is_whole = followed == Some(true);
        followed.is_some()
    }

    /// All of it has come, with the length and the hash that its last message says.
    pub fn is_whole(&self) -> bool {
        self.is_whole
    }
}

impl Default for Assembly {
    fn default() -> Self {
        Self::new()
    }
}

/// What is to be kept.
pub(super) enum Source<'a> {
    Bytes(&'a [u8]),
    File(&'a std::path::Path),
}

impl Source<'_> {
    /// Its bytes.
    pub(super) fn length(&self) -> io::Result<u64> {
        match self {
            Self::Bytes(bytes) => Ok(bytes.len() as u64),
            Self::File(path) => Ok(std::fs::metadata(path)?.len()),
        }
    }

    /// From its beginning, and how long it is now.
    fn open(&self) -> io::Result<(Box<dyn Read + '_>, u64)> {
        match self {
            Self::Bytes(bytes) => Ok((Box::new(*bytes), bytes.len() as u64)),
            Self::File(path) => {
                let file = File::open(path)?;
                let length = file.metadata()?.len();
                Ok((Box::new(file), length))
            }
        }
    }
}

/// Keeps a file, in parts of at most `most` bytes; goes on where an earlier attempt has ended.
///
/// # Errors
/// It cannot be read or written now, or something else is there in its place.
pub(super) async fn keep(stream: &Stream, subject: &str, source: &Source<'_>, most: usize) -> io::Result<Put> {
    for _ in 0..2 {
        let (mut file, length) = source.open()?;
        if let Some(put) = go_on(stream, subject, &mut file, length, most.min(stream.longest())).await? {
            return Ok(put);
        }
    }
    Err(io::Error::other(format!("somebody else writes on {subject} at the same time")))
}

/// `None` where somebody else has written meanwhile.
async fn go_on(
    stream: &Stream,
    subject: &str,
    file: &mut impl Read,
    length: u64,
    most: usize,
) -> io::Result<Option<Put>> {
    let mut there = Assembly::new();
    let mut after = 0;
    while let Some(message) = stream.next(subject, after + 1).await? {
        let same = read_up_to(file, message.body.len())? == message.body;
        if !(same && there.add(&message) && (!there.is_whole || there.progress.bytes == length)) {
            let what = format!("{} is there with other content, and is not written after", stream.place(&message));
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, what));
        }
        after = message.sequence;
    }
    let Assembly { mut progress, is_whole } = there;
    if is_whole {
        return Ok(Some(Put::Already));
    }
    loop {
        let rest = length.saturating_sub(progress.bytes);
        let wanted = usize::try_from(rest).unwrap_or(usize::MAX).min(most);
        let piece = read_up_to(file, wanted)?;
        if piece.len() < wanted || wanted == 0 && rest > 0 {
            let what =
                format!("it ends after {} of {length} bytes, or nothing of it fits into a message", progress.bytes);
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, what));
        }
        let number = progress.number;
        progress.add(&piece);
        let is_last = progress.bytes == length;
        let part = Part { number, end: is_last.then(|| (length, progress.hash())) };
        match stream.publish(subject, after, part.headers(), Bytes::from(piece)).await? {
            Published::As(_) if is_last => return Ok(Some(Put::Written)),
            Published::As(sequence) => after = sequence,
            Published::Behind => return Ok(None),
        }
    }
}

fn read_up_to(file: &mut impl Read, most: usize) -> io::Result<Vec<u8>> {
    let mut piece = Vec::new();
    file.take(most as u64).read_to_end(&mut piece)?;
    Ok(piece)
}

/// What came of reading a file back.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Back {
    /// All of it, as it was written.
    Whole,
    /// What there is is in order, and its end is missing.
    Unfinished,
    /// What a message has is not what follows.
    Damaged(String),
}

/// Writes the file on a subject to `into`, as far as it is in order.
///
/// # Errors
/// The stream does not tell, or it cannot be written.
pub(super) async fn fetch(stream: &Stream, subject: &str, into: &mut impl io::Write) -> io::Result<Back> {
    let mut file = Assembly::new();
    let mut from = 1;
    while let Some(message) = stream.next(subject, from).await? {
        if !file.add(&message) {
            return Ok(Back::Damaged(unlike(stream, &message)));
        }
        into.write_all(&message.body)?;
        from = message.sequence + 1;
    }
    Ok(if file.is_whole { Back::Whole } else { Back::Unfinished })
}

fn unlike(stream: &Stream, message: &Message) -> String {
    format!("{} is not the part of a segment that follows those before it", stream.place(message))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::bets::audit::Timestamp;

    fn raw(headers: &HeaderMap) -> Headers {
        let fields = headers.iter().flat_map(|(name, values)| values.iter().map(move |value| (name, value)));
        let fields: String = fields.map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        Headers(format!("NATS/1.0\r\n{fields}\r\n").into_bytes())
    }

    #[test]
    fn a_part_that_is_missing_moved_doubled_or_changed_is_not_followed() {
        let parts: [&[u8]; 3] = [b"one", b"", b"three"];
        let all = parts.concat();
        let written: Vec<Part> =
            (0..3).map(|n| Part { number: n, end: (n == 2).then(|| (all.len() as u64, Digest::of(&all))) }).collect();
        let followed = |order: &[usize]| -> Option<bool> {
            let mut progress = Progress::new();
            order.iter().try_fold(false, |_, n| progress.follow(Some(written[*n]), parts[*n]))
        };
        assert_eq!(followed(&[0, 1, 2]), Some(true));
        assert_eq!(followed(&[0, 1]), Some(false));
        for wrong in [&[1][..], &[0, 2], &[0, 0], &[0, 1, 1], &[2]] {
            assert_eq!(followed(wrong), None, "{wrong:?}");
        }
        let mut progress = Progress::new();
        assert_eq!(progress.follow(Some(written[0]), b"One"), Some(false));
        assert_eq!(progress.follow(Some(written[1]), b""), Some(false));
        assert_eq!(progress.follow(Some(written[2]), b"three"), None, "its hash is another");
        assert_eq!(Progress::new().follow(None, b""), None);
    }

    #[test]
    fn a_file_is_whole_with_its_last_part_and_none_follows_that() {
        let all = b"one";
        let part = |number: u64, end| {
            let headers = raw(&Part { number, end }.headers());
            Message {
                subject: "a".into(),
                sequence: number + 1,
                time: Timestamp(0),
                headers,
                body: all[..3 - 3 * number as usize].to_vec(),
            }
        };
        let (first, last) = (part(0, None), part(1, Some((3, Digest::of(all)))));
        let mut file = Assembly::new();
        assert!(file.add(&first) && !file.is_whole());
        assert!(file.add(&last) && file.is_whole());
        for more in [None, Some((3, Digest::of(all)))] {
            let mut file = Assembly::new();
            assert!(file.add(&first) && file.add(&last));
            let after =
                Message { body: Vec::new(), headers: raw(&Part { number: 2, end: more }.headers()), ..last.clone() };
            assert!(!file.add(&after), "{more:?}");
        }
    }

    proptest! {
        #[test]
        fn what_the_headers_of_a_part_say_is_read_back(number: u64, bytes: u64, hash: [u8; 32], is_last: bool) {
            let part = Part { number, end: is_last.then_some((bytes, Hex(hash))) };
            prop_assert_eq!(Part::read(&raw(&part.headers())), Some(part));
        }

        #[test]
        fn no_headers_panic(text in "NATS/1.0\r\n((Tableside-(Chunk|Bytes|Sha-256)|x): ?[0-9a-f+]{0,6}\r\n){0,4}", bytes: Vec<u8>) {
            let _ = (Part::read(&Headers(text.into_bytes())), Part::read(&Headers(bytes)));
        }
    }
}
