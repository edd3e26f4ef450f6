//! What we received of a publisher's stream, for our receiver reports (RFC 3550 §6.4.1, appendix A.3 and A.8).

use std::time::{Duration, Instant};

use super::ntp::{from_short, to_short};
use super::{NtpTime, ReportBlock};

/// A jump of the media clock beyond this is no jitter: the source was changed, or paused.
const MAX_JITTER_STEP_SECONDS: u64 = 5;

/// Loss, jitter and round-trip data of one SSRC.
///
/// Packets are counted by the extended index that SRTP gives them, so there is no guessing at wraps, and none comes twice.
#[derive(Clone, Debug)]
pub struct ReceptionStats {
    ssrc: u32,
    clock_rate: u32,
    sequences: Option<Sequences>,
    received: u64,
    transit: Option<Transit>,
    /// In 1/16 of the RTP clock's unit, as appendix A.8 keeps it.
    jitter: u64,
    last_sr: Option<(u32, Instant)>,
    /// Packets expected and received when the last report was made.
    reported: (u64, u64),
}

/// The numbers seen.
#[derive(Clone, Copy, Debug)]
struct Sequences {
    lowest: u64,
    highest: u64,
}

/// The relative transit time of the last packet: arrival in units of the RTP clock since the first one, less the RTP
/// timestamp.
#[derive(Clone, Copy, Debug)]
struct Transit {
    epoch: Instant,
    last: u32,
}

impl ReceptionStats {
    /// Nothing received yet. `clock_rate` is the RTP clock's in Hz.
    pub fn new(ssrc: u32, clock_rate: u32) -> Self {
        Self {
            ssrc,
            clock_rate,
            sequences: None,
            received: 0,
            transit: None,
            jitter: 0,
            last_sr: None,
            reported: (0, 0),
        }
    }

    /// The stream.
    pub fn ssrc(&self) -> u32 {
        self.ssrc
    }

    /// A packet arrived on its own SSRC (not as RTX). `index` is the extended sequence number.
    pub fn handle_rtp(&mut self, now: Instant, index: u64, rtp_timestamp: u32) {
        self.received += 1;
        let sequences = self.sequences.get_or_insert(Sequences { lowest: index, highest: index });
        sequences.lowest = sequences.lowest.min(index);
        sequences.highest = sequences.highest.max(index);
        self.update_jitter(now, rtp_timestamp);
    }

    /// A sender report of this stream arrived.
    pub fn handle_sender_report(&mut self, now: Instant, ntp: NtpTime) {
        self.last_sr = Some((ntp.middle(), now));
    }

    /// Packets that should have come, by their numbers.
    pub fn expected(&self) -> u64 {
        self.sequences.map_or(0, |s| s.highest - s.lowest + 1)
    }

    /// Packets that came.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// The interarrival jitter.
    pub fn jitter(&self) -> Duration {
        Duration::from_secs_f64(self.jitter as f64 / 16.0 / f64::from(self.clock_rate.max(1)))
    }

    /// The report block for now, `None` while nothing was received. Begins the next interval of the fraction lost.
    pub fn report(&mut self, now: Instant) -> Option<ReportBlock> {
        let sequences = self.sequences?;
        let (expected, received) = (self.expected(), self.received);
        let expected_interval = expected - self.reported.0;
        let lost_interval = expected_interval.saturating_sub(received - self.reported.1);
        self.reported = (expected, received);
        let (last_sr, delay_since_last_sr) =
            self.last_sr.map_or((0, 0), |(sr, at)| (sr, to_short(now.saturating_duration_since(at))));
        Some(ReportBlock {
            ssrc: self.ssrc,
            fraction_lost: ((lost_interval << 8).checked_div(expected_interval).unwrap_or(0)).min(255) as u8,
            cumulative_lost: (expected as i64 - received as i64).clamp(-0x80_0000, 0x7f_ffff) as i32,
            highest_sequence: sequences.highest as u32,
            jitter: (self.jitter >> 4).min(u32::MAX.into()) as u32,
            last_sr,
            delay_since_last_sr,
        })
    }

    /// RFC 3550 appendix A.8: `J += (|D| - J) / 16`, in integers.
    fn update_jitter(&mut self, now: Instant, rtp_timestamp: u32) {
        let transit = self.transit.get_or_insert(Transit { epoch: now, last: rtp_timestamp.wrapping_neg() });
        let elapsed = now.saturating_duration_since(transit.epoch);
        let arrival = (elapsed.as_nanos() * u128::from(self.clock_rate) / 1_000_000_000) as u32;
        let current = arrival.wrapping_sub(rtp_timestamp);
        let step = u64::from((current.wrapping_sub(transit.last) as i32).unsigned_abs());
        transit.last = current;
        if step <= MAX_JITTER_STEP_SECONDS * u64::from(self.clock_rate) {
            self.jitter = (self.jitter + step).saturating_sub((self.jitter + 8) >> 4);
        }
    }
}

/// How much below zero a round trip may come out for want of precision, in 1/65536 s: one millisecond.
const ROUNDING: i32 = 66;

/// The round trip that a player's report shows: from our sender report to the player and back (RFC 3550 §6.4.1).
/// `None` where the player has had none of our reports, or the numbers cannot be right.
pub fn round_trip(block: &ReportBlock, now: NtpTime) -> Option<Duration> {
    if block.last_sr == 0 {
        return None;
    }
    let units = now.middle().wrapping_sub(block.last_sr).wrapping_sub(block.delay_since_last_sr) as i32;
    (units >= -ROUNDING).then(|| from_short(units.max(0) as u32))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn loss_is_counted_by_interval_and_over_all() {
        let now = Instant::now();
        let mut stats = ReceptionStats::new(7, 90_000);
        assert_eq!(stats.report(now), None);
        (0xfffe_u64..0x1_000e).filter(|n| n % 4 != 0).for_each(|n| stats.handle_rtp(now, n, 0));
        let block = stats.report(now).unwrap();
        // 0xfffe ..= 0x1000d are 16; 0x10000, 4, 8 and c of them are lost.
        assert_eq!((block.fraction_lost, block.cumulative_lost, block.highest_sequence), (64, 4, 0x1_000d));
        assert_eq!((block.ssrc, block.last_sr, block.delay_since_last_sr), (7, 0, 0));

        let block = stats.report(now).unwrap();
        assert_eq!((block.fraction_lost, block.cumulative_lost), (0, 4), "an interval without packets");

        // The four come late: fewer lost than none in this interval.
        [0x1_0000, 0x1_0004, 0x1_0008, 0x1_000c].into_iter().for_each(|n| stats.handle_rtp(now, n, 0));
        stats.handle_rtp(now, 0x1_000e, 0);
        let block = stats.report(now).unwrap();
        assert_eq!((block.fraction_lost, block.cumulative_lost), (0, 0));
    }

    #[test]
    fn jitter_is_that_of_the_arrivals_against_the_timestamps() {
        let start = Instant::now();
        let mut steady = ReceptionStats::new(1, 90_000);
        let mut uneven = ReceptionStats::new(1, 90_000);
        for n in 0..500_u32 {
            let due = start + Duration::from_millis(u64::from(n) * 40);
            let timestamp = (n * 3600).wrapping_sub(10_000);
            steady.handle_rtp(due, n.into(), timestamp);
            uneven.handle_rtp(due + Duration::from_millis(u64::from(n % 2) * 10), n.into(), timestamp);
        }
        assert_eq!(steady.report(start).unwrap().jitter, 0);
        // Each transit differs from the last by 10 ms, 900 units.
        let jitter = uneven.report(start).unwrap().jitter;
        assert!((890..=900).contains(&jitter), "{jitter}");
        assert!((uneven.jitter().as_secs_f64() - 0.010).abs() < 0.001);
    }

    #[test]
    fn a_new_media_clock_is_no_jitter() {
        let now = Instant::now();
        let mut stats = ReceptionStats::new(1, 48_000);
        stats.handle_rtp(now, 1, 1000);
        stats.handle_rtp(now, 2, 3_000_000_000);
        assert_eq!(stats.report(now).unwrap().jitter, 0);
    }

    #[test]
    fn a_player_reflects_our_report_and_we_learn_the_round_trip() {
        let (sent, start) = (NtpTime::from_unix(Duration::from_secs(1_700_000_000)), Instant::now());
        let mut player = ReceptionStats::new(1, 90_000);
        player.handle_rtp(start, 1, 0);
        player.handle_sender_report(start, sent);
        let block = player.report(start + Duration::from_millis(700)).unwrap();
        assert_eq!(block.last_sr, sent.middle());

        let rtt = round_trip(&block, sent.plus(Duration::from_millis(750))).unwrap();
        assert!(rtt.abs_diff(Duration::from_millis(50)) < Duration::from_micros(50), "{rtt:?}");
        assert_eq!(round_trip(&block, sent.plus(Duration::from_micros(699_900))), Some(Duration::ZERO), "rounding");
        assert_eq!(round_trip(&block, sent.plus(Duration::from_millis(600))), None, "an answer before the question");
        assert_eq!(round_trip(&ReportBlock::default(), sent), None);
    }

    proptest! {
        #[test]
        fn any_input_gives_a_report(
            clock_rate: u32,
            packets in prop::collection::vec((0_u64..1 << 48, any::<u32>(), 0_u64..1 << 40), 1..50),
        ) {
            let mut now = Instant::now();
            let mut stats = ReceptionStats::new(1, clock_rate);
            for (index, timestamp, micros) in packets {
                now += Duration::from_micros(micros);
                stats.handle_rtp(now, index, timestamp);
                stats.handle_sender_report(now, NtpTime(index));
                prop_assert!(stats.report(now).is_some());
                stats.jitter();
            }
        }
    }
}
