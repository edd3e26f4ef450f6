//! Events per second over the last two seconds.

use std::time::{Duration, Instant};

/// How finely the window slides.
const BUCKET: Duration = Duration::from_millis(100);

/// Whole buckets that make the window.
const WINDOW: u64 = 20;

/// One more than the window: the bucket that is still being filled.
const BUCKETS: usize = WINDOW as usize + 1;

/// Sums amounts over a window of two seconds that slides by 100 ms: frames, bytes.
#[derive(Clone, Debug, Default)]
pub struct RateWindow {
    /// The first event, from which buckets are numbered.
    origin: Option<Instant>,
    /// Number of the newest bucket with an event; the buckets before it are at their number modulo [`BUCKETS`].
    newest: u64,
    buckets: [u64; BUCKETS],
}

impl RateWindow {
    /// Adds an event of this size. One from before the window is forgotten.
    pub fn add(&mut self, at: Instant, amount: u64) {
        self.origin.get_or_insert(at);
        let bucket = self.bucket(at);
        for passed in (self.newest + 1..=bucket).rev().take(BUCKETS) {
            self.buckets[slot(passed)] = 0;
        }
        self.newest = self.newest.max(bucket);
        if self.newest - bucket <= WINDOW {
            let sum = &mut self.buckets[slot(bucket)];
            *sum = sum.saturating_add(amount);
        }
    }

    /// The amount per second over the window that ended with the last full bucket, or since the first event if that is
    /// less ago. 0 before a bucket is full.
    pub fn per_second(&self, now: Instant) -> f64 {
        let end = self.bucket(now);
        let start = end.saturating_sub(WINDOW);
        if start == end {
            return 0.0;
        }
        let held = start.max(self.newest.saturating_sub(WINDOW))..end.min(self.newest + 1);
        let sum: u64 = held.map(|bucket| self.buckets[slot(bucket)]).fold(0, u64::saturating_add);
        sum as f64 / ((end - start) as f64 * BUCKET.as_secs_f64())
    }

    fn bucket(&self, at: Instant) -> u64 {
        self.origin.map_or(0, |origin| (at.saturating_duration_since(origin).as_millis() / BUCKET.as_millis()) as u64)
    }
}

fn slot(bucket: u64) -> usize {
    (bucket % BUCKETS as u64) as usize
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn a_steady_rate_is_its_rate_from_the_first_second_on() {
        for fps in [24u64, 25, 30, 60] {
            let (mut window, start) = (RateWindow::default(), Instant::now());
            for frame in 0..10 * fps {
                let now = start + Duration::from_micros(frame * 1_000_000 / fps);
                window.add(now, 1);
                if frame > fps {
                    let rate = window.per_second(now);
                    assert!((rate - fps as f64).abs() <= 1.0, "{rate} at {fps} fps, frame {frame}");
                }
            }
        }
    }

    #[test]
    fn silence_counts() {
        let (mut window, start) = (RateWindow::default(), Instant::now());
        assert_eq!(window.per_second(start), 0.0);
        window.add(start, 40);
        assert_eq!(window.per_second(start + ms(99)), 0.0, "no full bucket");
        assert_eq!(window.per_second(start + ms(1000)), 40.0);
        assert_eq!(window.per_second(start + ms(2000)), 20.0);
        assert_eq!(window.per_second(start + ms(2100)), 0.0);
        window.add(start + ms(60_000), 2);
        assert_eq!(window.per_second(start + ms(60_100)), 1.0);
    }

    #[test]
    fn an_event_may_be_late_but_not_by_more_than_the_window() {
        let (mut window, start) = (RateWindow::default(), Instant::now());
        window.add(start, 0);
        window.add(start + ms(3000), 0);
        window.add(start + ms(1500), 10);
        assert_eq!(window.per_second(start + ms(3000)), 5.0);
        window.add(start + ms(900), 10);
        assert_eq!(window.per_second(start + ms(3000)), 5.0);
    }

    proptest! {
        #[test]
        fn the_window_is_the_plain_sum(
            events in prop::collection::vec((0u64..800, 0u64..100), 1..60),
            wait in 0u64..3000,
        ) {
            let (mut window, start) = (RateWindow::default(), Instant::now());
            let mut at = 0;
            let mut added = Vec::new();
            for (i, (step, amount)) in events.into_iter().enumerate() {
                at += if i == 0 { 0 } else { step };
                window.add(start + ms(at), amount);
                added.push((at / 100, amount));
            }
            let now = (at + wait) / 100;
            let window_range = now.saturating_sub(20)..now;
            let sum: u64 = added.iter().filter(|(b, _)| window_range.contains(b)).map(|(_, n)| n).sum();
            let expected = if now == 0 { 0.0 } else { sum as f64 / (now.min(20) as f64 * 0.1) };
            prop_assert!((window.per_second(start + ms(at + wait)) - expected).abs() < 1e-9);
        }
    }
}
