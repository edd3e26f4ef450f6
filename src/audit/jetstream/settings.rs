//! What a stream has to be like, so that what is in it stays as it is.

use std::io;

use serde::Deserialize;
use serde_json::Value;

use super::subject::{Subjects, covers};

/// A checkpoint with its headers is shorter.
const SMALLEST_MESSAGE: i64 = 8 << 10;

/// What a stream is configured with, as the server tells it: those fields that matter here.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Settings {
    subjects: Option<Vec<String>>,
    storage: String,
    retention: String,
    discard: String,
    persist_mode: Option<String>,
    deny_delete: bool,
    deny_purge: bool,
    allow_rollup_hdrs: bool,
    allow_msg_ttl: bool,
    allow_msg_counter: bool,
    allow_msg_schedules: bool,
    no_ack: bool,
    sealed: bool,
    max_age: i64,
    max_msgs: i64,
    max_msgs_per_subject: i64,
    max_msg_size: i64,
    mirror: Option<Value>,
    sources: Option<Value>,
    subject_transform: Option<Value>,
}

impl Settings {
    /// The longest message that the stream takes, if it has a limit of its own.
    pub(super) fn longest_message(&self) -> Option<usize> {
        usize::try_from(self.max_msg_size).ok().filter(|size| *size > 0)
    }

    /// Whether it removes nothing, changes nothing, keeps what it acknowledges, and takes the subjects of the node.
    ///
    /// # Errors
    /// The field that is otherwise, and what to do.
    pub(super) fn check(&self, name: &str, prefix: &str, subjects: &Subjects, segments: bool) -> io::Result<()> {
        let found = |field: &str, has: &dyn std::fmt::Debug, wanted: &str, why: &str| {
            let what = format!(
                "the stream {name} does not do for an audit trail: its {field} is {has:?} and has to be {wanted}, {why}. Change \
                 that (`nats stream edit {name}`), or make another where it cannot be changed: `{}`",
                how_to_make(name, prefix)
            );
            Err(io::Error::new(io::ErrorKind::Unsupported, what))
        };
        let persist_mode = self.persist_mode.as_deref().filter(|mode| !mode.is_empty()).unwrap_or("default");
        let texts = [
            ("storage", self.storage.as_str(), "file", "to outlast the server's process"),
            ("retention", self.retention.as_str(), "limits", "so that nobody's reading removes anything"),
            ("discard", self.discard.as_str(), "new", "so that nothing goes where it is full"),
            ("persist_mode", persist_mode, "default", "so that what is acknowledged is kept"),
        ];
        if let Some((field, has, wanted, why)) = texts.into_iter().find(|(_, has, wanted, _)| has != wanted) {
            return found(field, &has, &format!("{wanted:?}"), why);
        }
        let flags = [
            ("deny_delete", self.deny_delete, true, "so that no message is removed"),
            ("deny_purge", self.deny_purge, true, "so that not all are removed"),
            ("allow_rollup_hdrs", self.allow_rollup_hdrs, false, "so that no message takes the place of others"),
            ("allow_msg_ttl", self.allow_msg_ttl, false, "so that no message goes by itself"),
            ("allow_msg_counter", self.allow_msg_counter, false, "so that messages are kept as they are"),
            ("allow_msg_schedules", self.allow_msg_schedules, false, "so that messages are kept as they come"),
            ("no_ack", self.no_ack, false, "so that it says what it has taken"),
            ("sealed", self.sealed, false, "to take anything"),
        ];
        if let Some((field, has, wanted, why)) = flags.into_iter().find(|(_, has, wanted, _)| has != wanted) {
            return found(field, &has, &wanted.to_string(), why);
        }
        let limits = [
            ("max_age", self.max_age, "so that nothing goes with time"),
            ("max_msgs", self.max_msgs, "for each checkpoint is a message"),
            (
                "max_msgs_per_subject",
                self.max_msgs_per_subject,
                "for a chain has one subject for all of its checkpoints",
            ),
        ];
        if let Some((field, has, why)) = limits.into_iter().find(|(_, has, _)| *has > 0) {
            return found(field, &has, "unlimited", why);
        }
        if self.max_msg_size > 0 && self.max_msg_size < SMALLEST_MESSAGE {
            return found("max_msg_size", &self.max_msg_size, &format!("{SMALLEST_MESSAGE} at least"), "or unlimited");
        }
        let origins = [
            ("mirror", &self.mirror, "so that it takes what the node writes"),
            ("sources", &self.sources, "so that all of it comes from nodes"),
            (
                "subject_transform",
                &self.subject_transform,
                "so that messages are found on the subjects on which they came",
            ),
        ];
        let is_empty = |value: &Value| value.is_null() || value.as_array().is_some_and(Vec::is_empty);
        for (field, has, why) in origins {
            if let Some(has) = has.as_ref().filter(|value| !is_empty(value)) {
                return found(field, &has.to_string(), "unset", why);
            }
        }
        let takes = self.subjects.as_deref().unwrap_or_default();
        let wanted = [Some(subjects.checkpoints()), segments.then(|| subjects.segments())];
        match wanted.into_iter().flatten().find(|wanted| !takes.iter().any(|filter| covers(filter, wanted))) {
            Some(wanted) => {
                let all = format!("{:?}, or something wider", subjects.all());
                found("subjects", &takes, &all, &format!("for the node writes on {wanted:?}"))
            }
            None => Ok(()),
        }
    }
}

/// The command that makes a stream as it has to be.
pub(super) fn how_to_make(name: &str, prefix: &str) -> String {
    format!(
        "nats stream add {name} --subjects='{prefix}.>' --storage=file --retention=limits --discard=new --deny-delete \
         --deny-purge --defaults"
    )
}
