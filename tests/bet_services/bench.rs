//! A service with the way to it.

use tableside::bet_service::{Connector, Embedded, Link, link};
use tableside::config::Log;
use tableside::traces::Tracer;
use tokio::task::JoinHandle;

use super::ledger::{Fault, Ledger};
use super::node::Node;

/// A connector that runs, and its end.
pub fn run(connector: impl Connector) -> (Link, JoinHandle<()>) {
    let (link, end) = link(Tracer::off(&Log::default()));
    (link, tokio::spawn(connector.run(end)))
}

/// What a contract test needs: a service that is there, and nodes that are connected to it.
pub trait Bench: Sized + Send {
    /// A service that works.
    fn start() -> impl Future<Output = Self> + Send;

    /// A node for the tables `one` and `two`.
    fn connect(&self) -> impl Future<Output = (Node, JoinHandle<()>)> + Send;
}

/// A service of which more is known, and which can be made to fail.
pub trait ForeignBench: Bench {
    /// Another connection, made but not yet waited for.
    fn join(&self) -> (Link, JoinHandle<()>);

    fn ledger(&self) -> &Ledger;

    /// Its process is gone with all that it was doing.
    fn kill(&mut self) -> impl Future<Output = ()> + Send;

    /// It is started again.
    fn back(&mut self) -> impl Future<Output = ()> + Send;

    /// It tells of an event.
    fn say(&self, table: &str, kind: &str) -> impl Future<Output = ()> + Send;

    /// It tells the current round again.
    fn say_again(&self, table: &str) -> impl Future<Output = ()> + Send;

    fn fault(&self, fault: Fault) {
        self.ledger().set(fault);
    }
}

/// The demo's own.
pub struct EmbeddedBench;

impl Bench for EmbeddedBench {
    async fn start() -> Self {
        Self
    }

    async fn connect(&self) -> (Node, JoinHandle<()>) {
        let (link, task) = run(Embedded);
        (Node::new(link), task)
    }
}
