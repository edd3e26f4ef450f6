//! What a player's receiver reports say of the path to it (RFC 3550 §6.4.1).

use std::time::Duration;

use crate::rtc::rtcp::{self, NtpTime, ReportBlock};

/// Round trips that the least one is taken of. Browsers report once a second or twice, so these are five seconds.
const REMEMBERED: usize = 8;

/// No round trip.
const NONE: u16 = u16::MAX;

/// From this loss on a packet is repaired twice: 2 %, in 1/65536. Below it what is won is not worth the bytes.
const LOSING: u16 = 1311;

/// From this loss on something is wrong with a path: 5 %, in 1/65536.
const TROUBLED: u16 = 3277;

/// A round trip of more than twice the least and this much has a queue in it, not only jitter.
const JITTER: Duration = Duration::from_millis(40);

/// The path to one player.
#[derive(Debug)]
pub(super) struct Path {
    round_trip: Option<Duration>,
    /// In milliseconds, the oldest overwritten first; [`NONE`] where there was none yet.
    recent: [u16; REMEMBERED],
    next: u8,
    /// The part of video packets that get lost, in 1/65536: a moving mean of four reports or so.
    loss: u16,
}

impl Path {
    /// Of which nothing is known yet.
    pub(super) const fn new() -> Self {
        Self { round_trip: None, recent: [NONE; REMEMBERED], next: 0, loss: 0 }
    }

    /// Takes a report on the video that came at `arrived`, or on any other stream (`is_video`: only those count as loss).
    pub(super) fn handle_report(&mut self, block: &ReportBlock, arrived: NtpTime, is_video: bool) {
        if let Some(round_trip) = rtcp::round_trip(block, arrived) {
            self.round_trip = Some(round_trip);
            self.recent[usize::from(self.next)] = u16::try_from(round_trip.as_millis()).unwrap_or(NONE);
            self.next = (self.next + 1) % REMEMBERED as u8;
        }
        if is_video {
            let loss = u32::from(block.fraction_lost) << 8;
            self.loss = ((3 * u32::from(self.loss) + loss) / 4) as u16;
        }
    }

    /// The round trip of the last report.
    pub(super) const fn round_trip(&self) -> Option<Duration> {
        self.round_trip
    }

    /// The least round trip of late: jitter adds to single reports, and what was sent so long ago has come or is lost.
    pub(super) fn least_round_trip(&self) -> Option<Duration> {
        let least = self.recent.iter().copied().min().filter(|least| *least != NONE)?;
        Some(Duration::from_millis(u64::from(least)))
    }

    /// Whether reports of the last seconds say that packets of the video were lost.
    pub(super) const fn has_lost(&self) -> bool {
        self.loss > 0
    }

    /// Whether it may carry less than is sent: packets get lost, or wait in a queue. To be found out.
    pub(super) fn is_troubled(&self) -> bool {
        // Most reports are of short round trips, and have to look at none before.
        self.loss >= TROUBLED || self.round_trip > Some(JITTER) && self.has_queue()
    }

    fn has_queue(&self) -> bool {
        let (Some(last), Some(least)) = (self.round_trip, self.least_round_trip()) else { return false };
        last > 2 * least + JITTER
    }

    /// Whether it loses so many packets, by chance and not because its queue is full, that a repair is as well lost often. A queue that
    /// stands for longer than the reports that are remembered looks like a longer path.
    pub(super) fn is_losing(&self) -> bool {
        self.loss >= LOSING && self.round_trip.is_some() && !self.has_queue()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What comes back `round_trip` after the sender report that it is about, with so much lost, in 1/256.
    fn report(path: &mut Path, round_trip: Duration, fraction_lost: u8) {
        let sent = NtpTime(1000 << 32);
        let arrived = NtpTime(sent.0 + ((round_trip.as_secs_f64() * 4_294_967_296.0) as u64));
        let block = ReportBlock { fraction_lost, last_sr: (sent.0 >> 16) as u32, ..ReportBlock::default() };
        path.handle_report(&block, arrived, true);
    }

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn the_least_round_trip_is_of_the_last_reports() {
        let mut path = Path::new();
        assert_eq!((path.round_trip(), path.least_round_trip()), (None, None));
        for round_trip in [120, 83, 140] {
            report(&mut path, round_trip * MS, 0);
        }
        let near = |found: Option<Duration>, ms: u32| found.is_some_and(|found| found.abs_diff(ms * MS) <= MS);
        assert!(near(path.round_trip(), 140) && near(path.least_round_trip(), 83), "{path:?}");
        for _ in 0..REMEMBERED {
            report(&mut path, 200 * MS, 0);
        }
        assert!(near(path.least_round_trip(), 200), "the path has become longer");
        report(&mut path, Duration::from_secs(15_000), 0);
        assert!(near(path.least_round_trip(), 200), "whatever one says");
    }

    #[test]
    fn a_path_loses_by_chance_or_for_want_of_room() {
        let mut path = Path::new();
        for _ in 0..8 {
            report(&mut path, 80 * MS, 2);
        }
        assert!(!path.is_losing(), "0.8 %");
        for _ in 0..8 {
            report(&mut path, 80 * MS, 13);
        }
        assert!(path.is_losing(), "5 %");
        report(&mut path, 190 * MS, 13);
        assert!(path.is_losing(), "jitter");
        report(&mut path, 260 * MS, 13);
        assert!(!path.is_losing(), "a queue");
        for _ in 0..12 {
            report(&mut path, 80 * MS, 0);
        }
        assert!(!path.is_losing(), "it has become better");
    }

    #[test]
    fn trouble_is_a_queue_or_much_loss() {
        let mut path = Path::new();
        report(&mut path, 80 * MS, 13);
        assert!(!path.is_troubled(), "one report");
        report(&mut path, 210 * MS, 0);
        assert!(path.is_troubled(), "a queue");
        for _ in 0..8 {
            report(&mut path, 80 * MS, 20);
        }
        assert!(path.is_troubled(), "8 %");
    }

    #[test]
    fn one_bad_report_and_one_of_sound_say_little() {
        let mut path = Path::new();
        report(&mut path, 80 * MS, 13);
        assert!(!path.is_losing());
        let sound = ReportBlock { fraction_lost: 255, ..ReportBlock::default() };
        path.handle_report(&sound, NtpTime(0), false);
        assert!(!path.is_losing());
        for _ in 0..100 {
            report(&mut path, 80 * MS, 255);
        }
        assert!(path.is_losing(), "no overflow");
    }
}
