//! Finding out whether the path carries more than we send: for a moment as much is sent.

use std::time::{Duration, Instant};

use super::delay::since;
use super::history::is_at_or_after;

/// Long enough for several feedbacks at 10 a second and for jitter of 30 ms to matter little, short enough to do little
/// harm.
pub(super) const DURATION: Duration = Duration::from_millis(400);

/// From one piece of padding to the next: each takes a run of the history.
const STEP: Duration = Duration::from_millis(10);

/// Whoever comes late sends what is due in so long and no more, which is not a burst.
const MOST_AT_ONCE: Duration = Duration::from_millis(20);

/// Less padding is not worth a packet.
const LEAST_BYTES: f32 = 200.0;

/// For so long after its end feedback is waited for: the slowest comes each 250 ms, on a path of at most a second.
const PATIENCE: Duration = Duration::from_millis(1300);

/// So much of the rate must be received.
const SHARE: f32 = 0.9;

/// Once it has arrived for 120 ms, it is given up if the rate is below that share: the rest would only fill the queue.
const HOPELESS: f32 = 0.6;
const HOPELESS_AFTER_US: u32 = 120_000;

/// Fewer packets say nothing (as in libwebrtc).
const LEAST_PACKETS: u32 = 5;

/// What came of a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProbeOutcome {
    /// The path carried so many bit/s, at least nine tenths of what was to be found out and never more than was sent.
    Sustained(u64),
    /// The path did not carry it, or nobody told.
    Failed,
}

/// What is known of a probe: at what rate it arrived, how long it took to send that, and to send it or to arrive.
struct Known {
    bits_per_second: u64,
    sent_us: u32,
    took_us: u32,
}

/// One probe.
#[derive(Debug)]
pub(super) struct Probe {
    bits_per_second: u64,
    begun: Instant,
    asked: Instant,
    /// Bytes that are due; below zero when media has sent more.
    due: f32,
    /// The first and last transport-wide number of it.
    numbers: Option<(u16, u16)>,
    /// The share lost before it.
    lost_before: f32,
    /// The path cannot carry it: no more padding.
    is_broken_off: bool,
    packets: u32,
    bytes: u32,
    /// When the first and the last that arrived were sent, and when they arrived; and the bytes of the first.
    sent: Option<(u32, u32)>,
    arrived: (u32, u32),
    first_bytes: u32,
}

impl Probe {
    pub(super) fn new(now: Instant, bits_per_second: u64, lost_before: f32) -> Self {
        Self {
            bits_per_second,
            begun: now,
            asked: now,
            due: 0.0,
            numbers: None,
            lost_before,
            is_broken_off: false,
            packets: 0,
            bytes: 0,
            sent: None,
            arrived: (0, 0),
            first_bytes: 0,
        }
    }

    /// Padding is sent for it.
    fn is_running(&self, now: Instant) -> bool {
        !self.is_broken_off && now.saturating_duration_since(self.begun) < DURATION
    }

    /// A run was sent: it is part of the probe while that runs.
    pub(super) fn handle_sent(&mut self, now: Instant, first: u16, packets: u16, bytes: u32) {
        if !self.is_running(now) || packets == 0 {
            return;
        }
        let last = first.wrapping_add(packets - 1);
        self.numbers = Some((self.numbers.map_or(first, |(first, _)| first), last));
        self.due -= bytes as f32;
    }

    /// Bytes of padding that are due.
    pub(super) fn padding_due(&mut self, now: Instant) -> u32 {
        if !self.is_running(now) {
            return 0;
        }
        let bytes_in = |time: Duration| self.bits_per_second as f32 / 8.0 * time.as_secs_f32();
        let elapsed = now.saturating_duration_since(self.asked);
        self.due = (self.due + bytes_in(elapsed)).min(bytes_in(MOST_AT_ONCE));
        self.asked = now;
        if self.due < LEAST_BYTES { 0 } else { self.due as u32 }
    }

    /// `number` was sent as part of it.
    pub(super) fn has(&self, number: u16) -> bool {
        self.numbers.is_some_and(|(first, last)| is_at_or_after(number, first) && is_at_or_after(last, number))
    }

    /// The peer told of a packet of it.
    pub(super) fn handle_status(&mut self, bytes: u32, sent: u32, arrival: Option<u32>) {
        self.packets += 1;
        let Some(arrival) = arrival else { return };
        self.bytes = self.bytes.saturating_add(bytes);
        match &mut self.sent {
            Some((_, last)) => {
                *last = sent;
                if since(arrival, self.arrived.1) > 0 {
                    self.arrived.1 = arrival;
                }
            }
            None => (self.sent, self.arrived, self.first_bytes) = (Some((sent, sent)), (arrival, arrival), bytes),
        }
    }

    /// No more padding, and the probe has failed.
    pub(super) fn break_off(&mut self) {
        self.is_broken_off = true;
    }

    /// All of it was sent.
    pub(super) fn is_over(&self, now: Instant) -> bool {
        !self.is_running(now)
    }

    /// The number that feedback must have told of before there is an outcome.
    pub(super) fn last(&self) -> Option<u16> {
        self.numbers.map(|(_, last)| last)
    }

    /// What was to be found out.
    pub(super) fn target(&self) -> u64 {
        self.bits_per_second
    }

    /// No feedback is waited for any longer.
    pub(super) fn is_too_old(&self, now: Instant) -> bool {
        now >= self.begun + DURATION + PATIENCE
    }

    /// When something is to be done for it.
    pub(super) fn timeout(&self) -> Instant {
        let end = self.begun + DURATION;
        if self.is_broken_off || self.asked >= end { end + PATIENCE } else { (self.asked + STEP).min(end) }
    }

    /// The path cannot carry it, by what is known so far.
    pub(super) fn is_hopeless(&self) -> bool {
        let wanted = self.bits_per_second as f32 * HOPELESS * (1.0 - self.lost_before);
        self.rate().is_some_and(|known| known.took_us >= HOPELESS_AFTER_US && (known.bits_per_second as f32) < wanted)
    }

    /// What the peer's reports say of it.
    pub(super) fn outcome(&self) -> ProbeOutcome {
        // Half of its time must be known: who tells of one frame alone would be believed its burst.
        let is_known = |known: &Known| u128::from(known.sent_us) >= DURATION.as_micros() / 2;
        let Some(Known { bits_per_second: rate, .. }) = self.rate().filter(|_| !self.is_broken_off).filter(is_known)
        else {
            return ProbeOutcome::Failed;
        };
        // What is lost at any rate does not count against it.
        let wanted = self.bits_per_second as f32 * SHARE * (1.0 - self.lost_before);
        if rate as f32 >= wanted { ProbeOutcome::Sustained(rate) } else { ProbeOutcome::Failed }
    }

    fn rate(&self) -> Option<Known> {
        let (first, last) = self.sent.filter(|_| self.packets >= LEAST_PACKETS)?;
        let sent_us = since(last, first).max(0).unsigned_abs();
        let arrived_us = since(self.arrived.1, self.arrived.0).max(0).unsigned_abs();
        // A peer that reports haste gets what we sent.
        let took_us = sent_us.max(arrived_us);
        // The first packet begins the time, and was not sent within it.
        let bits = u64::from(self.bytes - self.first_bytes.min(self.bytes)) * 8;
        Some(Known { bits_per_second: bits * 1_000_000 / u64::from(took_us.max(1)), sent_us, took_us })
    }
}
