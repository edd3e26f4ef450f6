//! A bet service behind a NATS server: a request for each signal, a subscription for its rounds.
//!
//! Core NATS alone, without JetStream: a signal that nobody takes now is of no use later. The client reconnects without
//! end. It keeps what is published while there is no connection and sends it with the next one, so nothing is handed to
//! it then: `refused` would not be true.

mod inbox;
pub(super) mod subject;

use std::sync::Arc;
use std::time::Duration;

use async_nats::{Client, ConnectOptions, Event, HeaderMap, PublishErrorKind, StatusCode};
use tokio::sync::{mpsc, watch};

use crate::bets::{Outcome, TraceParent};
use crate::config::{BetService, NatsAccess};
use crate::nats;
use crate::outbound::tls::ServiceTls;

use super::backoff::{Backoff, chance};
use super::document::{self, Answer, MAX_ANSWER};
use super::relay::{Call, Failed, RelayLimits, Transport, now, relay};
use super::report::{Failure, Meter, ServiceKind};
use super::rounds::Rounds;
use super::{Connector, FromService, ServiceEnd, StartError, TableChange, clocks};
use inbox::{Inbox, next};
use subject::Subjects;

/// Between attempts to connect.
const BACKOFF: Backoff = Backoff { first: Duration::from_millis(50), longest: Duration::from_secs(2) };

/// How often the client asks a server whether it is there; it has lost it after two pings without an answer.
const PING: Duration = Duration::from_secs(5);

/// How often the service is told which tables are live, besides when that changes: it may have come anew, which nothing
/// says.
const TELL_AGAIN: Duration = Duration::from_secs(10);

/// How long after messages were dropped that is done: what they said is told again then, and all at once would be dropped
/// again.
const AFTER_A_FLOOD: Duration = Duration::from_secs(1);

/// Messages of one subscription that wait to be read: a burst of round events. The server's `max_payload` bounds each.
const UNREAD: usize = 4096;

/// The connector of `bet_service.kind = "nats"`.
#[derive(Debug)]
pub struct NatsService {
    limits: RelayLimits,
    tls: Option<ServiceTls>,
    access: NatsAccess,
    subject_prefix: String,
    rounds: Rounds,
}

impl NatsService {
    /// Of a checked configuration, for `tables`.
    ///
    /// # Errors
    /// A file of `[bet_service.tls]` cannot be used, or no server is named.
    pub fn new(config: &BetService, tables: impl IntoIterator<Item = Arc<str>>) -> Result<Self, StartError> {
        let access = config.nats_access();
        if access.servers.is_empty() {
            return Err(StartError::NoAddress("bet_service.nats.servers"));
        }
        Ok(Self {
            limits: RelayLimits::of(config),
            tls: nats::tls(&access)?,
            access,
            subject_prefix: config.nats.subject_prefix.clone(),
            rounds: Rounds::new(tables),
        })
    }
}

/// The connection to a server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Link {
    is_up: bool,
    /// How often it was lost: what was asked before has no answer after.
    losses: u64,
    /// How many messages were dropped because too many came at once.
    dropped: u64,
}

impl Connector for NatsService {
    async fn run(self, end: ServiceEnd) {
        let Self { limits, tls, access, subject_prefix, rounds } = self;
        let ServiceEnd { requests, tables: changes, said, meter, tracer } = end;
        meter.is_of(ServiceKind::Nats);
        meter.connected(false);
        let (state, link) = watch::channel(Link::default());
        let subjects = Subjects::new(&subject_prefix);
        let options = options(&access, tls.as_ref(), state, meter.clone());
        // As many answers can come at once as are awaited, late ones included.
        let options = options.subscription_capacity(UNREAD.max(2 * limits.in_flight));
        let subscribed = async {
            let client = options.connect(nats::addresses(&access)).await.map_err(|error| error.to_string())?;
            let inbox = Inbox::new(&client.new_inbox());
            let answers = client.subscribe(inbox.subject()).await.map_err(|error| error.to_string())?;
            let events = client.subscribe(subjects.all_rounds()).await.map_err(|error| error.to_string())?;
            Ok::<_, String>((client, inbox, answers, events))
        };
        let (client, inbox, answers, mut events) = match subscribed.await {
            Ok(subscribed) => subscribed,
            // Only for addresses and subjects that the configuration's check does not let through.
            Err(error) => return tracing::error!(error, "there is no connector to the bet service"),
        };

        let ask = Ask { client: client.clone(), subjects: subjects.clone(), inbox: inbox.clone(), link: link.clone() };
        let signals = relay(Arc::new(ask), limits, requests, said.clone(), meter.clone(), tracer, clocks());
        let (came, incoming) = mpsc::channel(64);
        let (tell, states) = mpsc::unbounded_channel();
        let told = came.clone();
        let follow = async move {
            while let Some(message) = next(&mut events).await {
                // Whoever may publish on a table's subject speaks for that table alone.
                let table = message.subject.rsplit('.').next().map(str::to_owned);
                if told.send(FromService::Event { text: message.payload, table }).await.is_err() {
                    return;
                }
            }
        };
        let keep_fresh = async {
            match tls {
                Some(tls) => tls.keep_fresh().await,
                None => std::future::pending().await,
            }
        };
        let around = async {
            tokio::join!(
                keep_fresh,
                inbox.deliver(answers),
                follow,
                remind(link, came),
                tell_tables(client, subjects, states),
                super::follow_rounds(rounds, incoming, changes, tell, said, meter),
            )
        };
        tokio::select! {
            () = signals => {}
            _ = around => {}
        }
    }
}

fn options(access: &NatsAccess, tls: Option<&ServiceTls>, state: watch::Sender<Link>, meter: Meter) -> ConnectOptions {
    let state = Arc::new(state);
    nats::options(access, tls)
        .retry_on_initial_connect()
        .max_reconnects(None)
        .ping_interval(PING)
        .reconnect_delay_callback(|attempts| match attempts {
            // The first at once: a server that restarts tells its clients to go elsewhere.
            0 | 1 => Duration::ZERO,
            more => BACKOFF.delay(u32::try_from(more - 1).unwrap_or(u32::MAX), chance()),
        })
        .event_callback(move |event| {
            handle(&event, &state, &meter);
            std::future::ready(())
        })
}

fn handle(event: &Event, state: &watch::Sender<Link>, meter: &Meter) {
    match event {
        Event::Connected => {
            meter.connected(true);
            if state.borrow().losses > 0 {
                meter.reconnected();
            }
            state.send_modify(|link| link.is_up = true);
        }
        Event::Disconnected => {
            meter.connected(false);
            tracing::warn!("the connection to the NATS server is lost; reconnecting");
            state.send_modify(|link| (link.is_up, link.losses) = (false, link.losses + 1));
        }
        Event::SlowConsumer(_) => state.send_modify(|link| link.dropped += 1),
        Event::ServerError(error) => tracing::warn!(%error, "the NATS server refuses something"),
        Event::ClientError(error) => tracing::debug!(%error, "no connection to the NATS server"),
        Event::LameDuckMode | Event::Draining | Event::Closed => {}
    }
}

/// Has the service told of the tables with every connection, after messages were dropped, and again every while.
async fn remind(mut link: watch::Receiver<Link>, came: mpsc::Sender<FromService>) {
    let mut known = 0;
    loop {
        let Link { is_up, dropped, .. } = *link.borrow_and_update();
        if dropped != known {
            tokio::time::sleep(AFTER_A_FLOOD).await;
            known = link.borrow_and_update().dropped;
            tracing::warn!(messages = known, "messages of the NATS server were dropped so far: too many at once");
        }
        if is_up && came.send(FromService::Unaware).await.is_err() {
            return;
        }
        tokio::select! {
            changed = link.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(TELL_AGAIN) => {}
        }
    }
}

async fn tell_tables(client: Client, subjects: Subjects, mut states: mpsc::UnboundedReceiver<TableChange>) {
    while let Some(TableChange { table, live }) = states.recv().await {
        let Ok(document) = document::table(&table, live) else { continue };
        // What is not sent is told again with the next connection.
        let _ = client.publish(subjects.tables(&table), document.into()).await;
    }
}

/// Asks with a request.
struct Ask {
    client: Client,
    subjects: Subjects,
    inbox: Inbox,
    link: watch::Receiver<Link>,
}

impl Transport for Ask {
    async fn ask(&self, call: Call<'_>) -> Result<Outcome, Failed> {
        let Call { passed, id, trace, attempt, clocks } = call;
        let mut link = self.link.clone();
        let Link { is_up, losses, .. } = *link.borrow_and_update();
        if !is_up {
            return Err(Failed::not_sent(Failure::NotConnected));
        }
        let unwritable = Failed::not_sent(Failure::Malformed).of_request();
        let document = document::bet(passed, clocks, now(), attempt).map_err(|_| unwritable)?;
        let mut headers = HeaderMap::new();
        headers.insert("Nats-Msg-Id", id.to_string());
        headers.insert(TraceParent::HEADER, trace.to_string());
        headers.insert("Content-Type", "application/json");
        let mut awaited = self.inbox.expect();
        let (to, back) = (self.subjects.bets(&passed.table), awaited.subject());
        let sent = self.client.publish_with_reply_and_headers(to, back, headers, document.into()).await;
        sent.map_err(|error| match error.kind() {
            PublishErrorKind::Send => Failed::not_sent(Failure::NotConnected),
            // The server takes no message of this length.
            _ => Failed::not_sent(Failure::TooLarge).of_request(),
        })?;
        let message = tokio::select! {
            message = awaited.answer() => message,
            _ = link.wait_for(|link| link.losses != losses) => None,
        };
        let message = message.ok_or(Failed::in_doubt(Failure::Broken))?;
        if message.status == Some(StatusCode::NO_RESPONDERS) {
            return Err(Failed::not_sent(Failure::NoResponders).for_good());
        }
        if message.payload.len() > MAX_ANSWER {
            return Err(Failed::in_doubt(Failure::TooLarge).for_good());
        }
        match document::parse_answer(&message.payload, id) {
            Ok(Answer::Outcome(outcome)) => Ok(outcome),
            Ok(Answer::Unavailable) => Err(Failed::not_sent(Failure::Unavailable)),
            Err(_) => Err(Failed::in_doubt(Failure::Malformed).for_good()),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_was_dropped_is_asked_for_again_a_second_later() {
        let (state, link) = watch::channel(Link { is_up: true, ..Link::default() });
        let (came, mut incoming) = mpsc::channel(64);
        tokio::spawn(remind(link, came));
        let begun = Instant::now();
        let mut told = async || {
            assert!(matches!(incoming.recv().await, Some(FromService::Unaware)));
            begun.elapsed()
        };
        assert_eq!(told().await.as_secs(), 0, "with the connection");
        let meter = Meter::default();
        for _ in 0..1000 {
            handle(&Event::SlowConsumer(1), &state, &meter);
        }
        assert_eq!(told().await.as_secs(), 1, "once for all of them");
        assert_eq!(told().await.as_secs(), 11);
    }
}
