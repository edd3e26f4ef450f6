//! Sessions that were answered and have not completed DTLS: each holds a place for whoever asked, who may never come.

use std::collections::HashMap;

use crate::shard::ShardId;

use super::admission::RefusedOffer;
use super::client::ClientNetwork;

/// How many half-open sessions there may be.
#[derive(Clone, Copy, Debug)]
pub(super) struct HalfOpenLimits {
    pub(super) per_shard: usize,
    pub(super) per_client: usize,
}

/// Half-open sessions by shard and by client. Only clients that have some are listed, so the sessions bound the list.
#[derive(Debug, Default)]
pub(super) struct HalfOpen {
    by_shard: HashMap<ShardId, usize>,
    by_client: HashMap<ClientNetwork, usize>,
}

impl HalfOpen {
    /// Counts one more, which [`HalfOpen::end`] takes back.
    ///
    /// # Errors
    /// If there is no room for it.
    pub(super) fn begin(
        &mut self,
        shard: ShardId,
        client: ClientNetwork,
        limits: HalfOpenLimits,
    ) -> Result<(), RefusedOffer> {
        if self.by_client.get(&client).copied().unwrap_or(0) >= limits.per_client {
            return Err(RefusedOffer::HalfOpenAddress);
        }
        let on_shard = self.by_shard.entry(shard).or_default();
        if *on_shard >= limits.per_shard {
            return Err(RefusedOffer::HalfOpenShard);
        }
        *on_shard += 1;
        *self.by_client.entry(client).or_default() += 1;
        Ok(())
    }

    /// One has connected, or has ended before that.
    pub(super) fn end(&mut self, shard: ShardId, client: ClientNetwork) {
        if let Some(count) = self.by_shard.get_mut(&shard) {
            *count = count.saturating_sub(1);
        }
        if let Some(count) = self.by_client.get_mut(&client) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.by_client.remove(&client);
            }
        }
    }

    /// On all shards.
    pub(super) fn count(&self) -> usize {
        self.by_shard.values().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(last: u8) -> ClientNetwork {
        ClientNetwork::of([192, 0, 2, last].into())
    }

    #[test]
    fn one_client_cannot_take_all_and_a_shard_has_its_bound() {
        let limits = HalfOpenLimits { per_shard: 3, per_client: 2 };
        let mut half_open = HalfOpen::default();
        let (one, two) = (ShardId(0), ShardId(1));
        assert_eq!(half_open.begin(one, client(1), limits), Ok(()));
        assert_eq!(half_open.begin(two, client(1), limits), Ok(()));
        assert_eq!(half_open.begin(one, client(1), limits), Err(RefusedOffer::HalfOpenAddress), "on whichever shard");
        assert_eq!(half_open.begin(one, client(2), limits), Ok(()));
        assert_eq!(half_open.begin(one, client(2), limits), Ok(()));
        assert_eq!(half_open.begin(one, client(3), limits), Err(RefusedOffer::HalfOpenShard));
        assert_eq!(half_open.count(), 4);
        half_open.end(one, client(1));
        assert_eq!(half_open.begin(one, client(3), limits), Ok(()));
        for (shard, client) in [(two, client(1)), (one, client(2)), (one, client(2)), (one, client(3))] {
            half_open.end(shard, client);
        }
        assert_eq!(half_open.count(), 0);
        assert!(half_open.by_client.is_empty(), "nothing is left of who is gone");
    }
}
