//! Players that come while a table is paused.

use std::time::Duration;

use tokio::sync::watch;

use crate::shard::TableState;

use super::Node;

/// How long an offer to watch waits for a table that is paused. An encoder that stutters, or one that takes over from another, is back
/// by then; else the player is told to ask again, as for a table that nobody publishes.
const WAIT: Duration = Duration::from_secs(2);

/// The same where a request's body may take so long. Its connection ends twice as long after its head: what the body
/// leaves of that has room for the wait and the answer.
fn patience(request_timeout: Duration) -> Duration {
    WAIT.min(request_timeout / 2)
}

/// Tells those who wait that some table's state may be another.
#[derive(Debug, Default)]
pub(super) struct Changes(watch::Sender<()>);

impl Changes {
    /// Wakes whoever waits.
    pub(super) fn tell(&self) {
        self.0.send_replace(());
    }
}

impl Node {
    /// Waits until `table` is not paused, but for a while only, and not when the node admits nobody any more.
    pub(super) async fn while_paused(&self, table: &str) {
        // From here on no change is missed.
        let mut changes = self.inner.changes.0.subscribe();
        let is_paused = || self.directory().table(table).is_some_and(|entry| entry.state == TableState::Paused);
        let returned =
            async { while is_paused() && self.admitting(table).is_ok() && changes.changed().await.is_ok() {} };
        // What is the case then is looked at by the caller.
        let _ = tokio::time::timeout(patience(self.inner.config.http.request_timeout), returned).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_waits_for_longer_than_a_connection_is_kept_for_its_answer() {
        assert_eq!(patience(Duration::from_secs(60)), WAIT);
        assert_eq!(patience(Duration::from_millis(100)), Duration::from_millis(50));
    }
}
