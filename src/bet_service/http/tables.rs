//! Tells the service which tables are live on this node.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use hyper::{Method, Uri};
use tokio::sync::mpsc;

use super::super::backoff::{Backoff, chance};
use super::super::{TableChange, document};
use super::client::{self, HttpClient};
use super::request;

const BACKOFF: Backoff = Backoff { first: Duration::from_millis(100), longest: Duration::from_secs(5) };

/// How long one request may take.
const LIMIT: Duration = Duration::from_secs(5);

/// Bytes of an answer, in which there is nothing to read.
const MAX_ANSWER: usize = 16 * 1024;

/// Posts what became of tables, each until the service has heard it.
pub(super) struct Tables {
    pub(super) client: HttpClient,
    pub(super) url: Option<Uri>,
    /// Unbounded: one message for a beginning or an end, and for each live table with a new stream of events.
    pub(super) states: mpsc::UnboundedReceiver<TableChange>,
}

impl Tables {
    /// Until nobody tells it anything any more.
    pub(super) async fn tell(mut self) {
        // Of a table only the last counts, so what waits is bounded by the tables.
        let mut waiting: BTreeMap<Arc<str>, bool> = BTreeMap::new();
        let mut failures = 0;
        loop {
            if waiting.is_empty() {
                let Some(change) = self.states.recv().await else { return };
                waiting.insert(change.table, change.live);
            }
            while let Ok(change) = self.states.try_recv() {
                waiting.insert(change.table, change.live);
            }
            let Some(url) = &self.url else {
                waiting.clear();
                continue;
            };
            let Some((table, live)) = waiting.pop_first() else { continue };
            if self.post(url, &table, live).await {
                failures = 0;
                continue;
            }
            failures += 1;
            if failures == 1 {
                tracing::warn!(%table, live, "the bet service does not hear of the table; telling it again");
            }
            // What has come meanwhile is newer.
            waiting.entry(table).or_insert(live);
            tokio::time::sleep(BACKOFF.delay(failures, chance())).await;
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
