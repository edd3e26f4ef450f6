//! The audit trail on disk: writes it, ships it, reads it back.
//!
//! Enters: records of signals from the bet desk, over a bounded queue. Leaves: segments and checkpoints in a directory, copies
//! of them in a sink, and the word of what is durable. Refuses to know: players' connections, how a signal is decided. What
//! a record is and what a chain proves is `bets::audit`'s; `docs/audit.md` is the operator's page.

mod clock;
mod inspect;
pub mod jetstream;
mod keys;
mod options;
mod recorder;
mod recover;
mod report;
pub mod s3;
mod ship;
mod sink;
mod trail;
mod writer;

#[cfg(test)]
pub(crate) mod tests;

pub use inspect::{
    ExportOptions, InspectError, Inspected, VerifyOptions, export, segments_of, show_json, show_text, verify,
};
pub use keys::{KeyError, generate as generate_key, read_verifying_key};
pub use options::{Options, node_name};
pub use recorder::{Audit, Recorder, StartError, Status, start};
pub use report::AuditReport;
pub use sink::{DirectorySink, Put, Sink, SinkOptions};
pub use trail::{OpenError, Opened, Trail, TrailOptions};
