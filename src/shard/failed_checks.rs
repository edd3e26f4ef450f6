//! How many failed connectivity checks of one source are worth an HMAC.
//!
//! A check whose MESSAGE-INTEGRITY is wrong costs about a microsecond to find out, and a host can send tens of thousands a
//! second. So each source may fail so often, and beyond that its checks from new addresses are dropped unread. Only
//! failures count. Checks that pass, however many players stand behind one address translator, use up nothing, and the
//! addresses of sessions are not asked for at all: who forges a player's address can neither cut it off nor slow it down.
//!
//! What is left to an attacker is to share its allowance with those who *join* from the same source meanwhile. A joiner
//! sends a check every 50 ms or so and needs one to pass. Beside a flood of 50,000 a second, [`PER_SECOND`] lets one in
//! five through: nine of ten joiners are heard within half a second. The HMACs of a source at its limit are one percent
//! of a core.
//!
//! Sources are IPv4 addresses and IPv6 networks of 64 bits, which is what one subscriber has (RFC 6177 §2). They share a
//! table of fixed size by a hash that no outsider can predict; two that meet in one place share an allowance.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Failed checks a second, of one source.
const PER_SECOND: u32 = 10_000;

/// Failed checks at once: a tenth of a second's.
const BURST: u32 = PER_SECOND / 10;

/// Places for sources. 4096 flooded sources would have to send 40 million checks a second to use all of them up.
const PLACES: usize = 4096;

/// A rate limit on failures, in memory of fixed size (64 KiB).
pub(super) struct FailedChecks {
    /// For each place, when its allowance is whole again: the virtual scheduling algorithm of a leaky bucket.
    whole_at: Box<[Option<Instant>]>,
    hash: RandomState,
}

impl FailedChecks {
    pub(super) fn new() -> Self {
        Self { whole_at: vec![None; PLACES].into(), hash: RandomState::new() }
    }

    /// Whether `source` has nothing left of its allowance.
    pub(super) fn is_spent(&self, now: Instant, source: IpAddr) -> bool {
        const WINDOW: Duration = each(BURST - 1);
        self.whole_at[self.place(source)].is_some_and(|at| at > now + WINDOW)
    }

    /// A check from `source` has failed.
    pub(super) fn note(&mut self, now: Instant, source: IpAddr) {
        let place = self.place(source);
        let from = self.whole_at[place].map_or(now, |at| at.max(now));
        self.whole_at[place] = Some(from + each(1));
    }

    fn place(&self, source: IpAddr) -> usize {
        let network = match source.to_canonical() {
            IpAddr::V4(address) => u64::from(address.to_bits()),
            // Never below 2³²: the first bits of an address that is in use are not all zero.
            IpAddr::V6(address) => (address.to_bits() >> 64) as u64,
        };
        self.hash.hash_one(network) as usize % PLACES
    }
}

/// In which time `failures` are forgiven.
const fn each(failures: u32) -> Duration {
    Duration::from_nanos(failures as u64 * 1_000_000_000 / PER_SECOND as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failures(limit: &mut FailedChecks, now: Instant, source: IpAddr) -> u32 {
        let mut count = 0;
        while !limit.is_spent(now, source) {
            limit.note(now, source);
            count += 1;
        }
        count
    }

    fn v6(network: u16, host: u16) -> IpAddr {
        IpAddr::from([0x2001, 0xdb8, 0, network, 0, 0, 0, host])
    }

    #[test]
    fn a_source_fails_so_often_and_no_more() {
        let (mut limit, now) = (FailedChecks::new(), Instant::now());
        let source = IpAddr::from([192, 0, 2, 1]);
        assert_eq!(failures(&mut limit, now, source), BURST);
        let mut later = 0;
        for ms in 1..=1000 {
            later += failures(&mut limit, now + Duration::from_millis(ms), source);
        }
        assert_eq!(later, PER_SECOND);
        assert_eq!(failures(&mut limit, now + Duration::from_secs(60), source), BURST, "nothing is saved up");
    }

    #[test]
    fn sources_do_not_answer_for_each_other() {
        let (mut limit, now) = (FailedChecks::new(), Instant::now());
        failures(&mut limit, now, IpAddr::from([192, 0, 2, 1]));
        let others = (0..250).map(|n| IpAddr::from([198, 51, 100, n])).filter(|a| limit.is_spent(now, *a)).count();
        assert!(others < 10, "{others} of 250 share a place with it");
    }

    #[test]
    fn an_ipv6_network_is_one_source_and_a_mapped_address_is_ipv4() {
        let (mut limit, now) = (FailedChecks::new(), Instant::now());
        failures(&mut limit, now, v6(1, 1));
        assert!(limit.is_spent(now, v6(1, 0xffff)));
        failures(&mut limit, now, IpAddr::from([192, 0, 2, 1]));
        assert!(limit.is_spent(now, "::ffff:192.0.2.1".parse().unwrap()));
    }
}
