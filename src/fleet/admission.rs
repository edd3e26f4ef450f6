//! The queue before SDP: how many offers are judged at once, and how many wait.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread::available_parallelism;
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};

use crate::config::Sessions;

use super::refusal::Refusal;

/// Why an offer was refused unseen. Exported as `tableside_offers_refused_total{reason}`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(usize)]
pub enum RefusedOffer {
    /// Too many offers wait.
    QueueFull,
    /// It waited too long.
    QueueTime,
    /// Too many sessions of the shard have not connected.
    HalfOpenShard,
    /// Too many sessions of the client's address have not connected.
    HalfOpenAddress,
    /// Every shard has as many players as it may have.
    PlayersShard,
    /// Every shard uses as much of its core as it may.
    ShardUtilisation,
}

impl RefusedOffer {
    /// Every reason with its label value, in the order of the discriminants.
    pub const ALL: [(RefusedOffer, &'static str); 6] = [
        (RefusedOffer::QueueFull, "queue_full"),
        (RefusedOffer::QueueTime, "queue_time"),
        (RefusedOffer::HalfOpenShard, "half_open_shard"),
        (RefusedOffer::HalfOpenAddress, "half_open_address"),
        (RefusedOffer::PlayersShard, "players_shard"),
        (RefusedOffer::ShardUtilisation, "shard_utilisation"),
    ];
}

/// What admission has done, and what is under way.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AdmissionReport {
    /// By [`RefusedOffer`] discriminant.
    pub refused: [u64; RefusedOffer::ALL.len()],
    /// Gauge: offers in the queue.
    pub waiting: u64,
    /// Gauge: sessions that were answered and have not completed DTLS.
    pub half_open: u64,
}

/// When whoever found no room should ask again.
const RETRY_AFTER: Duration = Duration::from_secs(2);

/// Room comes when players leave.
pub(super) const RETRY_WHEN_FULL: Duration = Duration::from_secs(5);

/// The queue. First come, first served.
#[derive(Debug)]
pub(super) struct Admission {
    places: Semaphore,
    waiting: AtomicUsize,
    most_waiting: usize,
    longest_wait: Duration,
    refused: [AtomicU64; RefusedOffer::ALL.len()],
}

impl Admission {
    pub(super) fn new(limits: &Sessions) -> Self {
        let at_once = match limits.offers_at_once {
            0 => 2 * available_parallelism().map_or(1, usize::from),
            n => n,
        };
        Self {
            places: Semaphore::new(at_once),
            waiting: AtomicUsize::new(0),
            most_waiting: limits.offers_waiting,
            longest_wait: limits.offer_wait,
            refused: Default::default(),
        }
    }

    /// Waits for a turn, which lasts until the permit is dropped.
    ///
    /// # Errors
    /// [`Refusal::Busy`] if too many wait, or if it took too long.
    pub(super) async fn enter(&self) -> Result<SemaphorePermit<'_>, Refusal> {
        if let Ok(permit) = self.places.try_acquire() {
            return Ok(permit);
        }
        let Some(_waits) = Waiting::begin(self) else { return Err(self.refuse(RefusedOffer::QueueFull)) };
        match tokio::time::timeout(self.longest_wait, self.places.acquire()).await {
            Ok(Ok(permit)) => Ok(permit),
            _ => Err(self.refuse(RefusedOffer::QueueTime)),
        }
    }

    /// Counts a refusal and gives it back.
    pub(super) fn refuse(&self, reason: RefusedOffer) -> Refusal {
        self.refused[reason as usize].fetch_add(1, Ordering::Relaxed);
        match reason {
            RefusedOffer::QueueFull | RefusedOffer::QueueTime => Refusal::Busy { retry_after: RETRY_AFTER },
            RefusedOffer::HalfOpenShard | RefusedOffer::HalfOpenAddress => {
                Refusal::HalfOpen { retry_after: RETRY_AFTER }
            }
            RefusedOffer::PlayersShard | RefusedOffer::ShardUtilisation => {
                Refusal::Full { retry_after: RETRY_WHEN_FULL }
            }
        }
    }

    pub(super) fn report(&self, half_open: usize) -> AdmissionReport {
        AdmissionReport {
            refused: std::array::from_fn(|reason| self.refused[reason].load(Ordering::Relaxed)),
            waiting: self.waiting.load(Ordering::Relaxed) as u64,
            half_open: half_open as u64,
        }
    }
}

/// A place in the queue; given back when dropped, also where the client went away meanwhile.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn begin(admission: &'a Admission) -> Option<Self> {
        let more = |waiting| (waiting < admission.most_waiting).then_some(waiting + 1);
        admission.waiting.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        Some(Self(&admission.waiting))
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    fn admission(waiting: usize, offer_wait: Duration) -> Admission {
        Admission::new(&Sessions { offers_at_once: 1, offers_waiting: waiting, offer_wait, ..Sessions::default() })
    }

    fn is_waiting<T>(future: std::pin::Pin<&mut impl Future<Output = T>>) -> bool {
        future.poll(&mut Context::from_waker(Waker::noop())).is_pending()
    }

    #[tokio::test]
    async fn the_queue_is_bounded_and_served_in_turn() {
        let admission = admission(2, Duration::from_secs(60));
        let first = admission.enter().await.unwrap();
        let (mut second, mut third) = (pin!(admission.enter()), pin!(admission.enter()));
        assert!(is_waiting(second.as_mut()) && is_waiting(third.as_mut()));
        assert_eq!(admission.report(0).waiting, 2);
        assert!(matches!(admission.enter().await, Err(Refusal::Busy { .. })));
        assert_eq!(admission.report(0).refused[RefusedOffer::QueueFull as usize], 1);
        drop(first);
        let Poll::Ready(Ok(second)) = second.as_mut().poll(&mut Context::from_waker(Waker::noop())) else {
            panic!("the second has its turn")
        };
        assert!(is_waiting(third.as_mut()), "the third does not");
        drop(second);
        assert!(!is_waiting(third.as_mut()));
        assert_eq!(admission.report(0).waiting, 0);
    }

    #[tokio::test]
    async fn who_leaves_gives_the_place_in_the_queue_back() {
        let admission = admission(1, Duration::from_secs(60));
        let _first = admission.enter().await.unwrap();
        {
            let mut gone = pin!(admission.enter());
            assert!(is_waiting(gone.as_mut()));
        }
        assert_eq!(admission.report(0).waiting, 0);
        let mut second = pin!(admission.enter());
        assert!(is_waiting(second.as_mut()), "there is room to wait again");
    }

    #[tokio::test]
    async fn nobody_waits_for_ever() {
        let admission = admission(1, Duration::ZERO);
        let _first = admission.enter().await.unwrap();
        assert!(matches!(admission.enter().await, Err(Refusal::Busy { .. })));
        assert_eq!(admission.report(3).refused[RefusedOffer::QueueTime as usize], 1);
        assert_eq!(admission.report(3).half_open, 3);
    }

    #[test]
    fn reasons_are_in_the_order_of_their_labels() {
        for (index, (reason, _)) in RefusedOffer::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, index);
        }
    }
}
