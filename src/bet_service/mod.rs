//! Connectors to bet services: what a service does with a signal, and what it says of its tables' rounds.
//!
//! Enters: signals that the desk passes on, which tables are live. Leaves: answers and round events. A connector is a
//! task that has one end of a [`Link`]; `fleet` has the other. Refuses to know: players' connections, channels,
//! packets.
//!
//! What every connector owes: for each request one answer, or the word that there will be none ([`Said::NotSent`],
//! [`Said::Lost`]); the service behind it must be idempotent by player and key, since another node has no record of
//! what this one passed on. [`NotSent`](Said::NotSent) is said only of what the service cannot have taken: its player is
//! told `refused`. `tests/bet_service.rs` holds all connectors to this, and `docs/bet-service.md` tells it to those who
//! write a service.
//!
//! | | |
//! |---|---|
//! | [`Embedded`] | the demo's own service |
//! | [`HttpService`] | a POST for each signal, a stream of events |
//! | [`NatsService`] | a request for each signal, a subscription |
//! | `relay` | what the latter two have in common: how many at once, until when, how often |
//! | `breaker`, `backoff`, `rounds`, [`document`] | what they decide and write, without socket or clock |

mod backoff;
mod breaker;
pub mod document;
mod embedded;
mod http;
mod nats;
mod relay;
mod report;
mod rounds;

use std::sync::Arc;
use std::time::{Instant, SystemTime};
use std::{io, thread};

use bytes::Bytes;
use tokio::sync::mpsc;

use crate::bets::{Outcome, Passed, RoundEvent, Ticket};
use crate::config::{BetServiceKind, Config};
use crate::net::wake_promptly;
use crate::outbound::tls::TlsError;
use crate::traces::Tracer;

pub use breaker::BreakerState;
pub use embedded::Embedded;
pub use http::{HttpService, sse};
pub use nats::NatsService;
pub use report::{EventResult, Failure, Meter, RequestResult, ServiceKind, ServiceReport};

use document::Clocks;
use rounds::Rounds;

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
    /// What the connector has counted.
    pub meter: Meter,
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
    /// Takes what is to be counted.
    pub meter: Meter,
    /// Takes what was done for signals that are traced.
    pub tracer: Tracer,
}

/// Both ends.
pub fn link(tracer: Tracer) -> (Link, ServiceEnd) {
    let (requests, passed) = mpsc::channel(REQUESTS);
    let (tables, changes) = mpsc::unbounded_channel();
    let (sayings, said) = mpsc::channel(SAYINGS);
    let meter = Meter::default();
    let end = ServiceEnd { requests: passed, tables: changes, said: sayings, meter: meter.clone(), tracer };
    (Link { requests, tables, said, meter }, end)
}

/// A way to a bet service.
pub trait Connector: Send + 'static {
    /// Serves until the node ends, which shows in the channels.
    fn run(self, end: ServiceEnd) -> impl Future<Output = ()> + Send;
}

/// Why there is no connector.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Something of `[bet_service.tls]` cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// It is not said where the service is.
    #[error("{0} is not set")]
    NoAddress(&'static str),
    /// The connector's thread.
    #[error("cannot start the thread for the bet service: {0}")]
    Thread(#[from] io::Error),
}

/// Starts a connector on this runtime.
pub fn connect(connector: impl Connector, tracer: Tracer) -> Link {
    let (link, end) = link(tracer);
    tokio::spawn(connector.run(end));
    link
}

/// Starts the connector that is configured; `None` where there is no bet service. Must be called inside a tokio runtime.
///
/// # Errors
/// See [`StartError`].
pub fn connect_configured(config: &Config, tracer: Tracer) -> Result<Option<Link>, StartError> {
    let service = &config.bet_service;
    let tables = || config.tables.keys().map(|name| name.as_str().into());
    Ok(Some(match service.kind {
        BetServiceKind::None => return Ok(None),
        BetServiceKind::Embedded => connect(Embedded, tracer),
        BetServiceKind::Http => connect_apart(HttpService::new(service, tables())?, tracer)?,
        BetServiceKind::Nats => connect_apart(NatsService::new(service, tables())?, tracer)?,
    }))
}

/// Starts a connector on a thread of its own: those of the control plane yield to the shards, and a flood of requests
/// there would delay bets.
fn connect_apart(connector: impl Connector, tracer: Tracer) -> io::Result<Link> {
    let (link, end) = link(tracer);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    thread::Builder::new().name("bet-service".to_owned()).spawn(move || {
        // Where that cannot be, everything works, and later under load.
        let _ = wake_promptly();
        runtime.block_on(connector.run(end));
        // A file that is being read must not hold up the process.
        runtime.shutdown_background();
    })?;
    Ok(link)
}

/// What comes from a service besides answers.
enum FromService {
    /// A round event, not yet read.
    Event {
        /// The document.
        text: Bytes,
        /// The table that it must be of, as the token of a subject, where the way it came says so.
        table: Option<String>,
    },
    /// One that was too long to be kept.
    TooLarge,
    /// The service may not know which tables are live.
    Unaware,
}

/// Hands on round events that are news, and has the service told of tables, until nobody listens any more.
async fn follow_rounds(
    mut rounds: Rounds,
    mut incoming: mpsc::Receiver<FromService>,
    mut changes: mpsc::UnboundedReceiver<TableChange>,
    tell: mpsc::UnboundedSender<TableChange>,
    said: mpsc::Sender<Said>,
    meter: Meter,
) {
    let mut node_talks = true;
    loop {
        let mut news = Vec::new();
        tokio::select! {
            biased;
            change = changes.recv(), if node_talks => match change {
                Some(change) => {
                    let kept = rounds.handle_table(&change);
                    news.extend(kept.into_iter().map(|event| (change.table.clone(), event)));
                    // Without a way to tell it there is nobody to be told.
                    let _ = tell.send(change);
                }
                None => node_talks = false,
            },
            came = incoming.recv() => match came {
                Some(FromService::Event { text, table }) => {
                    let (result, event) = read_event(&mut rounds, &text, table.as_deref());
                    meter.event(result);
                    news.extend(event);
                }
                Some(FromService::TooLarge) => meter.event(EventResult::TooLarge),
                Some(FromService::Unaware) => {
                    let changes = rounds.live().map(|table| TableChange { table, live: true });
                    changes.for_each(|change| drop(tell.send(change)));
                }
                None => return,
            },
        }
        for (table, event) in news {
            if said.send(Said::Round { table, event }).await.is_err() {
                return;
            }
        }
    }
}

fn read_event(rounds: &mut Rounds, text: &[u8], named: Option<&str>) -> (EventResult, Option<(Arc<str>, RoundEvent)>) {
    if text.len() > document::MAX_EVENT {
        return (EventResult::TooLarge, None);
    }
    match document::parse_event(text) {
        Ok((table, _)) if named.is_some_and(|named| named != nats::subject::token(&table)) => {
            (EventResult::Malformed, None)
        }
        Ok((table, event)) => rounds.handle_event(&table, event),
        Err(_) => (EventResult::Malformed, None),
    }
}

/// Both clocks, read once.
#[expect(clippy::disallowed_methods, reason = "the service is told at what time of day a signal came")]
fn clocks() -> Clocks {
    let unix = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Clocks { monotonic: Instant::now(), unix }
}
