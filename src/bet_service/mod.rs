//! Connectors to bet services: what a service does with a signal, and what it says of its tables' rounds.
//!
//! Enters: signals that the desk passes on, which tables are live. Leaves: answers and round events. A connector is a
//! task that has one end of a [`Link`]; `fleet` has the other. Refuses to know: players' connections, channels,
//! packets.
//!
//! What every connector owes: for each request one answer, or the word that there will be none ([`Said::NotSent`],
//! [`Said::Lost`]); the service behind it must be idempotent by player and key, since another node has no record of
//! what this one passed on.

mod embedded;

use std::sync::Arc;

use tokio::sync::mpsc;

use crate::bets::{Outcome, Passed, RoundEvent, Ticket};

pub use embedded::Embedded;

/// Signals that wait for a connector. When it is full, further ones are refused.
const REQUESTS: usize = 4096;

/// What a connector has said and nobody has taken. When it is full, the connector waits.
const SAYINGS: usize = 4096;

/// What a connector says.
#[derive(Clone, Debug)]
pub enum Said {
    /// The service's word on a signal.
    Answer {
        /// Which.
        ticket: Ticket,
        /// `accepted` or `rejected`.
        outcome: Outcome,
    },
    /// The signal has not reached the service, and will not.
    NotSent(Ticket),
    /// The signal may have reached the service; its answer will not come.
    Lost(Ticket),
    /// Something happened at a table.
    Round {
        /// The name of the table.
        table: Arc<str>,
        /// What.
        event: RoundEvent,
    },
}

/// A table began or ceased to be live.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableChange {
    /// The name of the table.
    pub table: Arc<str>,
    /// Whether somebody publishes it.
    pub live: bool,
}

/// The node's end of a connection to a bet service.
#[derive(Debug)]
pub struct Link {
    /// Takes signals for the service.
    pub requests: mpsc::Sender<Passed>,
    /// Takes what became of tables. Unbounded: one message for a beginning or an end, and losing one would leave a
    /// table without rounds.
    pub tables: mpsc::UnboundedSender<TableChange>,
    /// Gives what the connector says.
    pub said: mpsc::Receiver<Said>,
}

/// A connector's end.
#[derive(Debug)]
pub struct ServiceEnd {
    /// Gives signals for the service. Closed when the node ends.
    pub requests: mpsc::Receiver<Passed>,
    /// Gives what became of tables.
    pub tables: mpsc::UnboundedReceiver<TableChange>,
    /// Takes what there is to say.
    pub said: mpsc::Sender<Said>,
}

/// Both ends.
pub fn link() -> (Link, ServiceEnd) {
    let (requests, passed) = mpsc::channel(REQUESTS);
    let (tables, changes) = mpsc::unbounded_channel();
    let (sayings, said) = mpsc::channel(SAYINGS);
    (Link { requests, tables, said }, ServiceEnd { requests: passed, tables: changes, said: sayings })
}

/// A way to a bet service.
pub trait Connector: Send + 'static {
    /// Serves until the node ends, which shows in the channels.
    fn run(self, end: ServiceEnd) -> impl Future<Output = ()> + Send;
}

/// Starts a connector on this runtime.
pub fn connect(connector: impl Connector) -> Link {
    let (link, end) = link();
    tokio::spawn(connector.run(end));
    link
}
