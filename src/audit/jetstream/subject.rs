//! Names of a trail as subjects, and subjects as names.

use std::io;

/// What a name of a sink, `NODE/CHAIN/FILE`, is in a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Named {
    /// One of the messages on the subject of a chain's checkpoints.
    Checkpoint {
        /// Of all of them.
        subject: String,
        /// The lines that it signs for.
        seq: u64,
    },
    /// Any other file: the messages on its own subject, one after the other.
    File {
        /// Of this file.
        subject: String,
    },
}

/// The subjects of a node.
#[derive(Clone, Debug)]
pub(super) struct Subjects(String);

impl Subjects {
    /// A node's name may have dots, which divide subjects, and has no `~`.
    pub(super) fn new(prefix: &str, node: &str) -> Self {
        Self(format!("{prefix}.{}", node.replace('.', "~")))
    }

    /// Where answers to the node come: no subject of the stream, and no other node's.
    pub(super) fn inbox(&self) -> String {
        format!("_INBOX.{}", self.0)
    }

    /// All of this node.
    pub(super) fn all(&self) -> String {
        format!("{}.>", self.0)
    }

    /// Those of the checkpoints of each chain.
    pub(super) fn checkpoints(&self) -> String {
        format!("{}.*.checkpoints", self.0)
    }

    /// Those of all segments.
    pub(super) fn segments(&self) -> String {
        format!("{}.*.segments.*", self.0)
    }

    /// The chain of a subject that [`Subjects::checkpoints`] stands for.
    pub(super) fn chain<'a>(&self, subject: &'a str) -> Option<&'a str> {
        let chain = self.within(subject)?.strip_suffix(".checkpoints")?;
        is_token(chain).then_some(chain)
    }

    /// Chain and file of a subject that [`Subjects::segments`] stands for.
    pub(super) fn file<'a>(&self, subject: &'a str) -> Option<(&'a str, String)> {
        let (chain, file) = self.within(subject)?.split_once(".segments.")?;
        (is_token(chain) && is_token(file)).then(|| (chain, format!("{file}{FILE}")))
    }

    fn within<'a>(&self, subject: &'a str) -> Option<&'a str> {
        subject.strip_prefix(&self.0)?.strip_prefix('.')
    }
}

/// How files end.
const FILE: &str = ".jsonl";

/// What the name of a sink is below `prefix`, and its node.
///
/// # Errors
/// It is not of a trail.
pub(super) fn named(prefix: &str, name: &str) -> io::Result<(String, Named)> {
    parse(prefix, name).ok_or_else(|| {
        io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("{name:?} is no name of a trail's file, NODE/CHAIN/FILE.jsonl"),
        )
    })
}

fn parse(prefix: &str, name: &str) -> Option<(String, Named)> {
    let (node, rest) = name.split_once('/')?;
    let (chain, file) = rest.split_once('/')?;
    let file = file.strip_suffix(FILE)?;
    let is_node = !node.is_empty() && node.split('.').all(|part| part.is_empty() || is_token(part));
    if !(is_node && is_token(chain) && is_token(file)) {
        return None;
    }
    let Subjects(of_node) = Subjects::new(prefix, node);
    let named = match file.strip_prefix("checkpoint-") {
        Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            Named::Checkpoint { subject: format!("{of_node}.{chain}.checkpoints"), seq: digits.parse().ok()? }
        }
        _ => Named::File { subject: format!("{of_node}.{chain}.segments.{file}") },
    };
    Some((node.to_owned(), named))
}

/// Whether it can be a part of a subject, and of a path.
fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
}

/// Whether what a stream takes, `filter`, has in it all that `subject` stands for. Both may have `*` for a part and `>` for all
/// that follow.
pub(super) fn covers(filter: &str, subject: &str) -> bool {
    let (mut filter, mut subject) = (filter.split('.'), subject.split('.'));
    loop {
        match (filter.next(), subject.next()) {
            (None, None) => return true,
            (Some(">"), Some(_)) => return true,
            (Some("*"), Some(part)) if part != ">" => {}
            (Some(one), Some(other)) if one == other && one != ">" => {}
            _ => return false,
        }
    }
}
