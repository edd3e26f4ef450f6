//! How busy shards are, and where the next player goes.

use std::time::{Duration, Instant};

use crate::shard::ShardReport;

/// What is older counts for less than a third: long enough that a keyframe is no load, short enough that a crowd is one.
const MEMORY: Duration = Duration::from_secs(2);

/// What a player is taken to cost before any was measured: the share of a core that one needs at about 3 Mbit/s on a slow one.
const COST_BEFORE_MEASUREMENT: f64 = 0.0005;

/// With fewer players, what a shard does for its publishers is most of its work.
const FEWEST_FOR_COST: f64 = 50.0;

/// The share of its core that a shard's thread uses, and its players, as averages that forget at the same pace.
#[derive(Clone, Copy, Debug)]
pub(super) struct Utilisation {
    at: Instant,
    cpu_seconds: f64,
    average: f64,
    players: f64,
}

impl Utilisation {
    pub(super) fn new(now: Instant) -> Self {
        Self { at: now, cpu_seconds: 0.0, average: 0.0, players: 0.0 }
    }

    /// Takes the thread's CPU time until `now` and its players; returns the averages of what it uses and of its players.
    pub(super) fn sample(&mut self, now: Instant, cpu_seconds: f64, players: u64) -> (f64, f64) {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        if passed > 0.0 {
            let used = (cpu_seconds - self.cpu_seconds) / passed;
            let weight = 1.0 - (-passed / MEMORY.as_secs_f64()).exp();
            self.average += weight * (used.clamp(0.0, 1.0) - self.average);
            self.players += weight * (players as f64 - self.players);
            (self.at, self.cpu_seconds) = (now, cpu_seconds);
        }
        (self.average, self.players)
    }
}

/// What placement knows of a shard.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Load {
    /// Of its core, measured.
    utilisation: f64,
    /// Players it had meanwhile.
    players: f64,
}

impl Load {
    pub(super) fn of(report: &ShardReport) -> Self {
        Self { utilisation: report.utilisation, players: report.utilisation_players }
    }

    #[cfg(test)]
    pub(super) fn new(utilisation: f64, players: f64) -> Self {
        Self { utilisation, players }
    }

    /// What will be used of the core once it serves `places` players. Those who have come since the measurement count by
    /// what a player costs now: a crowd comes faster than it shows.
    pub(super) fn with(&self, places: usize) -> f64 {
        let cost = match self.players >= FEWEST_FOR_COST {
            true => self.utilisation / self.players,
            false => COST_BEFORE_MEASUREMENT,
        };
        self.utilisation + cost * (places as f64 - self.players).max(0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_average_follows_within_seconds_and_forgets_a_peak() {
        let begin = Instant::now();
        let mut utilisation = Utilisation::new(begin);
        let mut cpu = 0.0;
        let mut run = |from: u32, to: u32, share: f64| {
            (from..to).fold(0.0, |_, n| {
                cpu += 0.5 * share;
                utilisation.sample(begin + Duration::from_millis(500) * (n + 1), cpu, 7).0
            })
        };
        let busy = run(0, 20, 0.8);
        assert!((0.78..0.81).contains(&busy), "{busy}");
        let after_a_peak = run(20, 21, 1.0);
        assert!((0.8..0.86).contains(&after_a_peak), "{after_a_peak}");
        let idle = run(21, 41, 0.0);
        assert!(idle < 0.01, "{idle}");
    }

    #[test]
    fn a_sample_twice_at_one_instant_changes_nothing() {
        let begin = Instant::now();
        let mut utilisation = Utilisation::new(begin);
        let once = utilisation.sample(begin + MEMORY, 1.0, 10);
        assert!((0.3..0.32).contains(&once.0) && (6.3..6.4).contains(&once.1), "{once:?}");
        assert_eq!(utilisation.sample(begin + MEMORY, 1.0, 10), once);
    }

    /// The average lags behind a crowd: what one of it costs is told by the average of the players, which lags as much.
    #[test]
    fn a_crowd_that_still_comes_is_not_taken_for_cheap() {
        let begin = Instant::now();
        let mut utilisation = Utilisation::new(begin);
        let (mut cpu, cost, each) = (0.0, 0.0005, 0.5);
        for n in 1..=8 {
            let players = 150 * n;
            cpu += each * cost * f64::from(players);
            let now = begin + Duration::from_secs_f64(each) * n;
            let (used, average) = utilisation.sample(now, cpu, players.into());
            let load = Load::new(used, average);
            let truth = cost * f64::from(players);
            let projected = load.with(players as usize);
            assert!((projected / truth - 1.0).abs() < 0.05, "{players} players: {projected}, in truth {truth}");
        }
    }

    #[test]
    fn who_has_come_since_the_measurement_counts() {
        let measured = Load::new(0.4, 1000.0);
        assert!((measured.with(1000) - 0.4).abs() < 1e-9);
        assert!((measured.with(1500) - 0.6).abs() < 1e-9, "each costs what the others do");
        assert!((measured.with(10) - 0.4).abs() < 1e-9, "who left is in the next measurement");
        let unknown = Load::new(0.0, 0.0);
        assert!((unknown.with(1000) - 0.5).abs() < 1e-9);
        assert!((Load::new(0.3, 3.0).with(3) - 0.3).abs() < 1e-9, "a publisher's work is no player's");
    }
}
