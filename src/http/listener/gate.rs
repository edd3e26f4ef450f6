//! How many connections there are, in all and of each client.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::fleet::ClientNetwork;
use crate::telemetry::Limit;

/// Counts connections. Only clients that have some are listed, so the connections bound the list.
#[derive(Debug)]
pub(super) struct Gate {
    counts: Mutex<Counts>,
    most: usize,
    most_per_client: usize,
}

#[derive(Debug, Default)]
struct Counts {
    all: usize,
    by_client: HashMap<ClientNetwork, usize>,
}

impl Gate {
    pub(super) fn new(most: usize, most_per_client: usize) -> Self {
        Self { counts: Mutex::default(), most, most_per_client }
    }

    /// Takes a connection's place, given back when dropped; `client` is `None` where only the sum counts.
    ///
    /// # Errors
    /// The limit that it would exceed.
    pub(super) fn enter(self: &Arc<Self>, client: Option<ClientNetwork>) -> Result<Place, Limit> {
        let mut counts = self.counts();
        if counts.all >= self.most {
            return Err(Limit::Connections);
        }
        if let Some(client) = client {
            let of_client = counts.by_client.entry(client).or_default();
            if *of_client >= self.most_per_client {
                return Err(Limit::ConnectionsPerAddress);
            }
            *of_client += 1;
        }
        counts.all += 1;
        Ok(Place { gate: Arc::clone(self), client })
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        // Plain counts: a panic elsewhere leaves them whole.
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The place of a connection.
#[derive(Debug)]
pub(super) struct Place {
    gate: Arc<Gate>,
    client: Option<ClientNetwork>,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.gate.counts();
        counts.all -= 1;
        let Some(client) = self.client else { return };
        if let Some(of_client) = counts.by_client.get_mut(&client) {
            *of_client -= 1;
            if *of_client == 0 {
                counts.by_client.remove(&client);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_limited_in_all_and_for_each_client_and_come_back() {
        let client = |n: u8| Some(ClientNetwork::of([192, 0, 2, n].into()));
        let gate = Arc::new(Gate::new(4, 2));
        let first = gate.enter(client(1)).unwrap();
        let _second = gate.enter(client(1)).unwrap();
        assert_eq!(gate.enter(client(1)).unwrap_err(), Limit::ConnectionsPerAddress);
        let proxied: Vec<_> = (0..2).map(|_| gate.enter(None).unwrap()).collect();
        assert_eq!(gate.enter(client(2)).unwrap_err(), Limit::Connections);
        drop(first);
        let again = gate.enter(client(1)).unwrap();
        assert_eq!(gate.enter(None).unwrap_err(), Limit::Connections);
        drop((again, _second, proxied));
        assert!(gate.counts().by_client.is_empty() && gate.counts().all == 0);
    }
}
