//! Which of a publisher's packets are missing, and when to ask for them (RFC 4585 §6.2.1).

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// How patient a [`LossDetector`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LossPolicy {
    /// A packet is missing, and not late, once so many after it have arrived …
    pub reordering_packets: u64,
    /// … or this long after the gap was seen.
    pub reordering_delay: Duration,
    /// The least time between two requests for a packet; a round trip, where that is longer.
    pub min_interval: Duration,
    /// A packet is given up after so many requests, when the answer to the last is overdue …
    pub max_requests: u8,
    /// … or this long after the gap was seen.
    pub max_age: Duration,
}

impl Default for LossPolicy {
    /// For live video: repairs that come after a second help nobody.
    fn default() -> Self {
        Self {
            reordering_packets: 3,
            reordering_delay: Duration::from_millis(10),
            min_interval: Duration::from_millis(20),
            max_requests: 8,
            max_age: Duration::from_secs(1),
        }
    }
}

/// The most packets that are looked for at a time. They fit one NACK of 1.1 KB whatever the gaps between them.
const MAX_MISSING: usize = 256;

/// Keeps the list of a stream's missing packets.
///
/// Driven by [`LossDetector::handle_packet`]; when [`LossDetector::poll_timeout`] has come,
/// [`LossDetector::take_requests`] says what to ask for. A gap wider than 256 packets is not repaired at all: that takes a
/// keyframe, which [`LossDetector::given_up`] tells by going up.
#[derive(Clone, Debug)]
pub struct LossDetector {
    policy: LossPolicy,
    highest: Option<u64>,
    /// In rising order of the index.
    missing: VecDeque<Missing>,
    given_up: u64,
}

#[derive(Clone, Copy, Debug)]
struct Missing {
    index: u64,
    since: Instant,
    requests: u8,
    last_request: Instant,
}

impl LossDetector {
    /// A detector that has seen nothing.
    pub fn new(policy: LossPolicy) -> Self {
        Self { policy, highest: None, missing: VecDeque::new(), given_up: 0 }
    }

    /// A packet arrived, by itself or repaired. `index` is the extended sequence number. Returns whether it was missing.
    pub fn handle_packet(&mut self, now: Instant, index: u64) -> bool {
        match self.highest {
            Some(highest) if index <= highest => {
                let found = self.missing.binary_search_by_key(&index, |missing| missing.index);
                found.is_ok_and(|at| self.missing.remove(at).is_some())
            }
            Some(highest) => {
                self.note_gap(now, highest + 1, index);
                self.highest = Some(index);
                false
            }
            None => {
                self.highest = Some(index);
                false
            }
        }
    }

    /// How many packets are being looked for.
    pub fn missing(&self) -> usize {
        self.missing.len()
    }

    /// How many packets were given up so far: too old, asked for too often, or too many.
    pub fn given_up(&self) -> u64 {
        self.given_up
    }

    /// When [`LossDetector::take_requests`] has something to do next; may lie in the past.
    pub fn poll_timeout(&self, rtt: Duration) -> Option<Instant> {
        self.missing.iter().map(|missing| self.due(missing, rtt).min(missing.since + self.policy.max_age)).min()
    }

    /// Gives up what is hopeless and returns the packets to ask for now, in rising order, at most 256. They count as
    /// asked for.
    pub fn take_requests(&mut self, now: Instant, rtt: Duration) -> impl Iterator<Item = u64> + '_ {
        self.give_up_hopeless(now, rtt);
        let (policy, highest) = (self.policy, self.highest.unwrap_or(0));
        self.missing.iter_mut().filter_map(move |missing| {
            if due(&policy, highest, missing, rtt) > now {
                return None;
            }
            missing.requests += 1;
            missing.last_request = now;
            Some(missing.index)
        })
    }

    fn note_gap(&mut self, now: Instant, first: u64, end: u64) {
        let gap = end - first;
        if gap > MAX_MISSING as u64 {
            self.given_up += gap + self.missing.len() as u64;
            self.missing.clear();
            return;
        }
        let excess = (self.missing.len() + gap as usize).saturating_sub(MAX_MISSING);
        self.missing.drain(..excess);
        self.given_up += excess as u64;
        self.missing.extend((first..end).map(|index| Missing { index, since: now, requests: 0, last_request: now }));
    }

    fn give_up_hopeless(&mut self, now: Instant, rtt: Duration) {
        let (policy, before) = (self.policy, self.missing.len());
        let interval = policy.min_interval.max(rtt);
        self.missing.retain(|missing| {
            let asked_enough = missing.requests >= policy.max_requests && missing.last_request + interval <= now;
            !asked_enough && missing.since + policy.max_age > now
        });
        self.given_up += (before - self.missing.len()) as u64;
    }

    fn due(&self, missing: &Missing, rtt: Duration) -> Instant {
        due(&self.policy, self.highest.unwrap_or(0), missing, rtt)
    }
}

/// When a packet is to be asked for: at once when enough came after it, else when the delay is over; again after a round
/// trip.
fn due(policy: &LossPolicy, highest: u64, missing: &Missing, rtt: Duration) -> Instant {
    if missing.requests > 0 {
        missing.last_request + policy.min_interval.max(rtt)
    } else if highest - missing.index >= policy.reordering_packets {
        missing.since
    } else {
        missing.since + policy.reordering_delay
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RTT: Duration = Duration::from_millis(50);

    fn after(start: Instant, millis: u64) -> Instant {
        start + Duration::from_millis(millis)
    }

    /// A detector that has received `packets` at one moment.
    fn detector(start: Instant, packets: &[u64]) -> LossDetector {
        let mut detector = LossDetector::new(LossPolicy::default());
        packets.iter().for_each(|index| assert!(!detector.handle_packet(start, *index)));
        detector
    }

    fn requests(detector: &mut LossDetector, now: Instant) -> Vec<u64> {
        detector.take_requests(now, RTT).collect()
    }

    #[test]
    fn a_packet_out_of_order_is_not_asked_for() {
        let start = Instant::now();
        let mut detector = detector(start, &[10, 12, 13]);
        assert!(requests(&mut detector, after(start, 5)).is_empty());
        assert!(detector.handle_packet(after(start, 6), 11));
        assert_eq!(detector.poll_timeout(RTT), None);
        assert!(requests(&mut detector, after(start, 60)).is_empty());
        assert!(!detector.handle_packet(start, 11), "a second time it is not missing");
    }

    #[test]
    fn a_missing_packet_is_asked_for_when_others_overtook_it_or_time_passed() {
        let start = Instant::now();
        let mut overtaken = detector(start, &[10, 12, 13, 14]);
        assert_eq!(requests(&mut overtaken, start), [11]);

        let mut waiting = detector(start, &[10, 12]);
        assert_eq!(waiting.poll_timeout(RTT), Some(after(start, 10)));
        assert_eq!(requests(&mut waiting, after(start, 10)), [11]);
    }

    #[test]
    fn requests_are_repeated_after_a_round_trip_until_they_are_hopeless() {
        let start = Instant::now();
        let mut detector = detector(start, &[10, 20]);
        assert_eq!(requests(&mut detector, start), (11..18).collect::<Vec<_>>());
        assert_eq!(requests(&mut detector, after(start, 10)), [18, 19]);
        assert!(requests(&mut detector, after(start, 49)).is_empty());
        assert_eq!(requests(&mut detector, after(start, 60)), (11..20).collect::<Vec<_>>());

        let mut asked = 2;
        let mut now = after(start, 60);
        while detector.missing() > 0 {
            now = detector.poll_timeout(RTT).unwrap();
            asked += usize::from(requests(&mut detector, now).len() == 9);
        }
        assert_eq!((asked, detector.given_up()), (8, 9));
        assert_eq!(now, after(start, 60 + 7 * 50));
    }

    #[test]
    fn old_packets_are_given_up() {
        let start = Instant::now();
        let mut detector = detector(start, &[10, 12]);
        assert!(requests(&mut detector, after(start, 1000)).is_empty());
        assert_eq!((detector.missing(), detector.given_up()), (0, 1));
    }

    #[test]
    fn the_list_is_bounded() {
        let start = Instant::now();
        let mut wide = detector(start, &[10, 10_000]);
        assert_eq!((wide.missing(), wide.given_up()), (0, 9989));
        assert!(!wide.handle_packet(start, 10_001));

        let mut many = detector(start, &[0, 201, 402]);
        assert_eq!((many.missing(), many.given_up()), (256, 144));
        assert_eq!(requests(&mut many, after(start, 20)), (145..=200).chain(202..402).collect::<Vec<_>>());
    }

    proptest! {
        #[test]
        fn every_gap_is_asked_for_repaired_or_given_up(
            steps in prop::collection::vec((1_u64..6, 0_u64..30, any::<bool>()), 1..200),
        ) {
            let mut now = Instant::now();
            let mut detector = detector(now, &[0]);
            let (mut index, mut gaps, mut repaired) = (0, 0, 0);
            for (step, millis, repair) in steps {
                now = after(now, millis);
                index += step;
                gaps += step - 1;
                detector.handle_packet(now, index);
                let asked = requests(&mut detector, now);
                prop_assert!(asked.is_sorted() && asked.len() <= MAX_MISSING);
                prop_assert!(requests(&mut detector, now).is_empty());
                if repair {
                    asked.iter().for_each(|index| repaired += u64::from(detector.handle_packet(now, *index)));
                }
                prop_assert_eq!(gaps, repaired + detector.given_up() + detector.missing() as u64);
            }
        }
    }
}
