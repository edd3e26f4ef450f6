//! What the players of a table have seen, added up.

use std::time::{Duration, Instant};

use super::histogram::Histogram;
use super::playback::{Increment, Losses};
use super::spread::Spread;

/// Means and the skew are over the reports of this half of a window and the one before: of 4 to 8 seconds, in which each player reports at
/// least twice.
const HALF_WINDOW: Duration = Duration::from_secs(4);

/// How often a player reports in a window, in the mean: what one that is silent weighs.
const REPORTS_IN_WINDOW: u64 = 3;

/// A sum of shares, each of one report, and how many there are: what shards can add up before they divide.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Shares {
    /// Each between 0 and 1.
    pub sum: f64,
    /// How many.
    pub count: u64,
}

impl Shares {
    /// Adds what a report says, if it says anything and there was something.
    fn push(&mut self, missed: Option<u64>, offered: u64) {
        if let Some(missed) = missed.filter(|_| offered > 0) {
            self.sum += 1.0 - missed as f64 / offered as f64;
            self.count += 1;
        }
    }

    /// Those of another as well.
    pub fn plus(self, other: Self) -> Self {
        Self { sum: self.sum + other.sum, count: self.count + other.count }
    }

    /// 1 where nobody says otherwise.
    pub fn mean(self) -> f64 {
        if self.count == 0 { 1.0 } else { self.sum / self.count as f64 }
    }
}

/// What a table reports of its players: totals since its beginning, and gauges.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct QosReport {
    /// Reports of players that were taken.
    pub reports: u64,
    /// Frames that were offered to players who report, and that they never decoded.
    pub frames_missed: u64,
    /// Of frames that were sent to players who report, where those were lost that they did not decode.
    pub losses: Losses,
    /// Frames that players dropped: late for the picture, or for the decoder.
    pub frames_dropped: u64,
    /// How often a picture stood.
    pub freezes: u64,
    /// For how long, all players' together.
    pub frozen: Duration,
    /// Packets that were lost on the way to players, those repaired among them.
    pub packets_lost: u64,
    /// Waits in jitter buffers, one of each report.
    pub jitter_buffer: Histogram,
    /// Round trips to players, one of each report.
    pub round_trip: Histogram,
    /// How old frames are when they are shown, one of each report that says so.
    pub capture_to_shown: Histogram,
    /// Gauge: the same of the last reports, for how far players are apart.
    pub skew: Spread,
    /// Gauge: shares of the offered frames that were decoded.
    pub frames_seen: Shares,
    /// Gauge: shares of the offered bytes that were received.
    pub bytes_seen: Shares,
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct TableQos {
    totals: QosReport,
    /// When the current half began.
    since: Option<Instant>,
    current: [Shares; 2],
    previous: [Shares; 2],
    /// Of the current half and the one before.
    skew: [Spread; 2],
}

impl TableQos {
    /// Adds what a player has reported, and the round trip to it where that is known.
    pub fn handle_increment(&mut self, now: Instant, increment: &Increment, round_trip: Option<Duration>) {
        self.turn(now);
        let totals = &mut self.totals;
        totals.reports += 1;
        totals.frames_missed += increment.frames_missed.unwrap_or(0);
        let losses = &mut totals.losses;
        losses.ingest_loss += increment.losses.ingest_loss;
        losses.node_overload += increment.losses.node_overload;
        losses.node_queue += increment.losses.node_queue;
        losses.network += increment.losses.network;
        losses.decoder += increment.losses.decoder;
        losses.unknown += increment.losses.unknown;
        totals.frames_dropped += increment.frames_dropped;
        totals.freezes += increment.freezes;
        totals.frozen = totals.frozen.saturating_add(increment.frozen);
        totals.packets_lost += increment.packets_lost;
        increment.jitter_buffer.into_iter().for_each(|wait| totals.jitter_buffer.observe(wait));
        round_trip.into_iter().for_each(|time| totals.round_trip.observe(time));
        if let Some(age) = increment.capture_to_shown {
            totals.capture_to_shown.observe(age);
            self.skew[0].observe(age);
        }
        let [frames, bytes] = &mut self.current;
        frames.push(increment.frames_missed, increment.offered.frames);
        bytes.push(increment.bytes_missed, increment.offered.bytes);
    }

    /// Totals and gauges as they are now. So many players are silent ([`Playback::is_silent`](super::Playback::is_silent)):
    /// they are taken to see nothing.
    pub fn report(&mut self, now: Instant, silent: u64) -> QosReport {
        self.turn(now);
        let nothing = Shares { sum: 0.0, count: REPORTS_IN_WINDOW * silent };
        let [frames_seen, bytes_seen] = [0, 1].map(|n| self.current[n].plus(self.previous[n]).plus(nothing));
        let [mut skew, previous] = self.skew.clone();
        skew.add(&previous);
        QosReport { frames_seen, bytes_seen, skew, ..self.totals.clone() }
    }

    fn turn(&mut self, now: Instant) {
        let since = *self.since.get_or_insert(now);
        let elapsed = now.saturating_duration_since(since);
        if elapsed >= HALF_WINDOW {
            let is_next = elapsed < 2 * HALF_WINDOW;
            let ended = std::mem::take(&mut self.current);
            self.previous = if is_next { ended } else { Default::default() };
            let ended = std::mem::take(&mut self.skew[0]);
            self.skew[1] = if is_next { ended } else { Spread::default() };
            self.since = Some(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Offered;
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn increment(frames_missed: u64, bytes_missed: u64) -> Increment {
        let (frames_missed, bytes_missed) = (Some(frames_missed), Some(bytes_missed));
        Increment { offered: Offered { frames: 60, bytes: 1000 }, frames_missed, bytes_missed, ..Increment::default() }
    }

    #[test]
    fn the_mean_is_over_players() {
        let (mut table, now) = (TableQos::default(), Instant::now());
        assert_eq!(table.report(now, 0).frames_seen.mean(), 1.0, "nobody says otherwise");
        for (frames, bytes) in [(0, 0), (0, 500), (30, 0), (60, 1000)] {
            table.handle_increment(now, &increment(frames, bytes), None);
        }
        let report = table.report(now, 0);
        assert_eq!((report.frames_seen.mean(), report.bytes_seen.mean()), (0.625, 0.625));
        assert_eq!((report.reports, report.frames_missed), (4, 90));
    }

    #[test]
    fn who_was_offered_nothing_or_does_not_say_has_no_share() {
        let (mut table, now) = (TableQos::default(), Instant::now());
        table.handle_increment(now, &Increment { offered: Offered::default(), ..increment(0, 0) }, None);
        table.handle_increment(now, &Increment { frames_missed: None, ..increment(0, 0) }, None);
        assert_eq!(table.report(now, 0).frames_seen, Shares::default());
    }

    #[test]
    fn who_is_silent_weighs_as_much_as_who_reports() {
        let (mut table, now) = (TableQos::default(), Instant::now());
        for n in 0..4 {
            table.handle_increment(now + 2 * n * SECOND, &increment(0, 0), None);
        }
        let mean = table.report(now + 6 * SECOND, 1).frames_seen.mean();
        assert!((0.4..0.6).contains(&mean), "{mean}");
        assert_eq!(TableQos::default().report(now, 2).bytes_seen.mean(), 0.0);
    }

    #[test]
    fn what_was_is_forgotten_after_a_window() {
        let (mut table, now) = (TableQos::default(), Instant::now());
        table.handle_increment(now, &increment(60, 1000), None);
        assert_eq!(table.report(now + 7 * SECOND, 0).frames_seen.mean(), 0.0);
        table.handle_increment(now + 8 * SECOND, &increment(0, 0), None);
        assert_eq!(table.report(now + 8 * SECOND, 0).frames_seen.mean(), 0.5);
        assert_eq!(table.report(now + 12 * SECOND, 0).frames_seen.mean(), 1.0);
        assert_eq!(table.report(now + 60 * SECOND, 0).frames_seen.count, 0);
        assert_eq!(table.report(now + 60 * SECOND, 0).reports, 2, "totals stay");
    }

    #[test]
    fn the_skew_is_that_of_the_last_reports() {
        let (mut table, now) = (TableQos::default(), Instant::now());
        let mut report = |after: Duration, ages: &[u32]| {
            for age in ages {
                let capture_to_shown = Some(*age * SECOND / 1000);
                table.handle_increment(now + after, &Increment { capture_to_shown, ..increment(0, 0) }, None);
            }
            let report = table.report(now + after, 0);
            (report.skew.width(), report.capture_to_shown.count())
        };
        assert_eq!(report(Duration::ZERO, &[]), (0.0, 0));
        assert_eq!(report(Duration::ZERO, &[20, 60]), (0.04, 2));
        assert_eq!(report(4 * SECOND, &[30]), (0.04, 3));
        assert_eq!(report(8 * SECOND, &[31]), (0.001, 4), "what was is forgotten after a window");
        assert_eq!(report(60 * SECOND, &[]), (0.0, 4), "totals stay");
    }

    #[test]
    fn round_trips_and_waits_are_counted_by_size() {
        let (mut table, now) = (TableQos::default(), Instant::now());
        let said =
            Increment { jitter_buffer: Some(150 * SECOND / 1000), frozen: SECOND, freezes: 2, ..increment(0, 0) };
        table.handle_increment(now, &said, Some(SECOND / 50));
        table.handle_increment(now, &said, None);
        let report = table.report(now, 0);
        assert_eq!((report.jitter_buffer.count(), report.round_trip.count()), (2, 1));
        assert_eq!((report.frozen, report.freezes), (2 * SECOND, 4));
    }
}
