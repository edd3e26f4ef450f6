//! Tells the service which tables are live on this node.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use hyper::{Method, Uri};
use tokio::sync::mpsc;

use super::super::backoff::{Backoff, chance};
use super::super::relay::now;
use super::super::{TableChange, document};
use super::client::{self, HttpClient};
use super::request;

const BACKOFF: Backoff = Backoff { first: Duration::from_millis(100), longest: Duration::from_secs(5) };

/// How long one request may take.
const LIMIT: Duration = Duration::from_secs(5);

/// Bytes of an answer, in which there is nothing to read.
const MAX_ANSWER: usize = 16 * 1024;

/// Posts what became of tables, each until the service has heard it. One that it does not hear holds up no other.
pub(super) struct Tables {
    pub(super) client: HttpClient,
    pub(super) url: Option<Uri>,
    /// Unbounded: one message for a beginning or an end, and for each live table with a new stream of events.
    pub(super) states: mpsc::UnboundedReceiver<TableChange>,
}

/// What is to be told. Of a table only the last counts, so both are bounded by the tables.
#[derive(Default)]
struct ToTell {
    now: BTreeMap<Arc<str>, bool>,
    /// What was not heard, for the next time.
    again: BTreeMap<Arc<str>, bool>,
}

impl ToTell {
    fn take(&mut self, change: TableChange) {
        self.again.remove(&change.table);
        self.now.insert(change.table, change.live);
    }
}

impl Tables {
    /// Until nobody tells it anything any more.
    pub(super) async fn tell(mut self) {
        let mut to_tell = ToTell::default();
        let (mut failures, mut again_at) = (0_u32, now());
        loop {
            tokio::select! {
                change = self.states.recv() => match change {
                    Some(change) => to_tell.take(change),
                    None => return,
                },
                () = tokio::time::sleep_until(again_at.into()), if !to_tell.again.is_empty() => {
                    to_tell.now.append(&mut to_tell.again);
                }
            }
            loop {
                while let Ok(change) = self.states.try_recv() {
                    to_tell.take(change);
                }
                let Some((table, live)) = to_tell.now.pop_first() else { break };
                let Some(url) = &self.url else { continue };
                if !self.post(url, &table, live).await {
                    to_tell.again.insert(table, live);
                }
            }
            let Some((table, live)) = to_tell.again.first_key_value() else {
                failures = 0;
                continue;
            };
            if now() >= again_at {
                failures += 1;
                again_at = now() + BACKOFF.delay(failures, chance());
                // More and more rarely: this may go on for days.
                if failures.is_power_of_two() {
                    let tables = to_tell.again.len();
                    tracing::warn!(tables, failures, %table, live, "the bet service does not hear of tables");
                }
            }
        }
    }

    /// `true` if the service has heard it.
    async fn post(&self, url: &Uri, table: &str, live: bool) -> bool {
        let Ok(document) = document::table(table, live) else { return true };
        let told = async {
            let response = self.client.send(request(Method::POST, url, document)).await.ok()?;
            let heard = response.status().is_success();
            // Read to its end, so that the connection can be used again.
            client::read(response.into_body(), MAX_ANSWER).await.ok()?;
            heard.then_some(())
        };
        tokio::time::timeout(LIMIT, told).await.is_ok_and(|heard| heard.is_some())
    }
}
