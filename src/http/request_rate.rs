//! How many requests each client may make: a token bucket for each.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::fleet::ClientNetwork;

/// Clients that are told apart; all beyond them share one bucket. At 64 bytes each this is 4 MB.
const MOST_CLIENTS: usize = 1 << 16;

/// How often the buckets that are full again are looked for when there are too many.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// The buckets of all clients.
#[derive(Debug)]
pub(super) struct RequestRate {
    /// In which time a client earns a request.
    each: Duration,
    /// How long an empty bucket takes to be full.
    burst: Duration,
    most_clients: usize,
    buckets: Mutex<Buckets>,
}

/// A bucket is one instant: when it will be full. One that is full need not be kept.
#[derive(Debug, Default)]
struct Buckets {
    full_at: HashMap<ClientNetwork, Instant>,
    others_full_at: Option<Instant>,
    swept: Option<Instant>,
}

impl RequestRate {
    /// Buckets that hold `burst` requests and fill with `per_second`; `None` if there is no limit.
    pub(super) fn new(per_second: u32, burst: u32) -> Option<Self> {
        let each = Duration::from_secs(1).checked_div(per_second)?;
        Some(Self { each, burst: each * burst, most_clients: MOST_CLIENTS, buckets: Mutex::default() })
    }

    /// Takes a request out of the client's bucket.
    ///
    /// # Errors
    /// It is empty: after which time there will be one again.
    pub(super) fn take(&self, now: Instant, client: ClientNetwork) -> Result<(), Duration> {
        let mut buckets = self.buckets();
        let is_known = buckets.full_at.contains_key(&client);
        if !is_known && buckets.full_at.len() >= self.most_clients {
            buckets.sweep(now);
        }
        let full_at = if is_known || buckets.full_at.len() < self.most_clients {
            buckets.full_at.entry(client).or_insert(now)
        } else {
            buckets.others_full_at.get_or_insert(now)
        };
        let then = (*full_at).max(now) + self.each;
        let missing = then.saturating_duration_since(now + self.burst);
        if missing > Duration::ZERO {
            return Err(missing);
        }
        *full_at = then;
        Ok(())
    }

    fn buckets(&self) -> MutexGuard<'_, Buckets> {
        // Plain instants: a panic elsewhere leaves them whole.
        self.buckets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Buckets {
    fn sweep(&mut self, now: Instant) {
        if self.swept.is_some_and(|swept| now < swept + SWEEP_INTERVAL) {
            return;
        }
        self.swept = Some(now);
        self.full_at.retain(|_, full_at| *full_at > now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(n: u8) -> ClientNetwork {
        ClientNetwork::of([192, 0, 2, n].into())
    }

    fn taken(rate: &RequestRate, now: Instant, client: ClientNetwork) -> usize {
        (0..1000).take_while(|_| rate.take(now, client).is_ok()).count()
    }

    #[test]
    fn a_burst_then_as_many_as_are_earned() {
        let (rate, start) = (RequestRate::new(10, 25).unwrap(), Instant::now());
        assert_eq!(taken(&rate, start, client(1)), 25);
        assert_eq!(rate.take(start, client(1)), Err(Duration::from_millis(100)), "says when to come again");
        assert_eq!(taken(&rate, start + Duration::from_millis(350), client(1)), 3);
        assert_eq!(taken(&rate, start, client(2)), 25, "each has a bucket of its own");
        assert_eq!(taken(&rate, start + Duration::from_secs(60), client(1)), 25, "and not more than a burst");
    }

    #[test]
    fn no_rate_is_no_limit() {
        assert!(RequestRate::new(0, 5).is_none());
    }

    #[test]
    fn the_table_is_bounded_and_who_finds_no_place_shares_one() {
        let mut rate = RequestRate::new(10, 2).unwrap();
        rate.most_clients = 2;
        let start = Instant::now();
        assert_eq!(taken(&rate, start, client(1)), 2);
        assert_eq!(taken(&rate, start, client(2)), 2);
        assert_eq!(taken(&rate, start, client(3)) + taken(&rate, start, client(4)), 2, "together");
        assert_eq!(rate.buckets().full_at.len(), 2);
        let later = start + Duration::from_secs(5);
        assert_eq!(taken(&rate, later, client(5)), 2, "who has been away makes room");
        assert!(rate.buckets().full_at.len() <= 2 && rate.buckets().full_at.contains_key(&client(5)));
    }
}
