//! How much the path to one player carries.
//!
//! Sender-side congestion control in the manner of draft-ietf-rmcat-gcc-02, for a sender that cannot choose its bit
//! rate but only one of a few layers: see `docs/congestion.md`. It is told of every run of packets sent and of all
//! feedback (draft-holmer-rmcat-transport-wide-cc-extensions-01), and tells what it takes the path to carry. All state
//! is of fixed size, nothing is allocated, a run sent costs the same whatever was sent before, and a feedback no more
//! than the packets under way.
//!
//! A peer can lie about what arrived and when. It can thereby make its own picture worse, or have 1.5 times of what it
//! is sent anyway: see [`Bandwidth::handle_feedback`].

mod delay;
mod history;
mod loss;
mod probe;
mod rate;
#[cfg(test)]
mod scenarios;

use std::time::{Duration, Instant};

use delay::{Delay, since};
use history::History;
use loss::Loss;
use probe::Probe;
pub use probe::ProbeOutcome;
use rate::Meter;

/// Nothing less is told, in bit/s: an Opus stream.
pub const LEAST: u64 = 50_000;

/// On overuse the estimate becomes so much of what is received (draft-ietf-rmcat-gcc-02 §5.5, `beta`).
const BACK_OFF: f64 = 0.85;

/// How fast it grows in a second (§5.5, `eta`).
const GROWTH: f64 = 1.08;

/// It grows to so many times of what is received, and so much more (§5.5; the sum as in libwebrtc). A probe may show
/// more.
const MOST_OF_RECEIVED: f64 = 1.5;
const MOST_ABOVE: f64 = 10_000.0;

/// What was sent up to so much later than overuse was seen is still of the same overuse. It brings the estimate further
/// down as long as more is sent than that: the first look still had better times in it. But it is no overuse of its
/// own. What is sent while a queue of three quarters of a second drains still waits in it: with less than this, overuse was seen
/// again there, and the path taken to carry no more than the little that was sent by then.
const SETTLING: Duration = Duration::from_millis(750);

/// Without feedback for so long although something was sent, half of it is believed, and again half as often as that
/// passes.
const SILENCE: Duration = Duration::from_secs(1);

/// So many numbers a feedback may tell of again: a receiver goes back to what was overtaken.
const TOLD_AGAIN: usize = 512;

/// A peer's own estimate is believed for so long: it comes each second or more often.
const REMB_LASTS: Duration = Duration::from_secs(5);

/// What the path does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Usage {
    /// The queue is as it was.
    #[default]
    Normal,
    /// More was sent than the path carries: the queue grows or stays long, more than a tenth is lost, or no feedback
    /// comes.
    Overuse,
    /// The queue drains: the path carries more than is sent now, but how much is not known.
    Underuse,
}

/// What is known of the path to a player.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    /// What the path is taken to carry, in bit/s.
    pub bits_per_second: u64,
    /// What the path does. Overuse by a probe is not told here: it fails the probe.
    pub usage: Usage,
    /// What arrived in the last half second that feedback told of, in bit/s; 0 if the peer says nothing of it.
    pub received_bits_per_second: u64,
    /// The share lost of about the last 200 packets, 0 to 1.
    pub loss: f32,
    /// How much longer packets take than the fastest of the last 10 to 20 s.
    pub queue: Duration,
}

/// Congestion control for one player.
#[derive(Debug)]
pub struct Bandwidth {
    begun: Instant,
    history: History,
    delay: Delay,
    loss: Loss,
    meter: Meter,
    sent: SentRate,
    /// In bit/s; `None` before feedback told enough.
    estimate: Option<f64>,
    usage: Usage,
    grown: Instant,
    /// When the newest packet was sent that the peer told of, in microseconds that wrap.
    told: u32,
    /// Up to when what was sent is of the overuse seen last, likewise.
    settling_until: Option<u32>,
    /// When the first run was sent that no feedback has answered, or when the estimate was last halved for it.
    unanswered: Option<Instant>,
    remb: Option<(Instant, u64)>,
    probe: Option<Probe>,
    outcome: Option<ProbeOutcome>,
}

impl Bandwidth {
    /// Of a player that was sent nothing.
    pub fn new(now: Instant) -> Self {
        Self {
            begun: now,
            history: History::new(),
            delay: Delay::new(),
            loss: Loss::default(),
            meter: Meter::new(),
            sent: SentRate::new(now),
            estimate: None,
            usage: Usage::Normal,
            grown: now,
            told: 0,
            settling_until: None,
            unanswered: None,
            remb: None,
            probe: None,
            outcome: None,
        }
    }

    /// A run of `packets` was sent at once, numbered `first` and up, wrapping; `bytes` of all of them, as on the wire.
    /// What is sent while a probe runs is part of it.
    pub fn handle_sent(&mut self, now: Instant, first: u16, packets: u16, bytes: u32) {
        self.pass_time(now);
        self.history.push(first, packets, bytes, self.micros(now));
        self.sent.add(now, bytes);
        if let Some(probe) = &mut self.probe {
            probe.handle_sent(now, first, packets, bytes);
        }
        self.unanswered.get_or_insert(now);
    }

    /// Transport-wide feedback (draft-holmer-rmcat-transport-wide-cc-extensions-01 §3.1): the reference time in 250 µs,
    /// of which the lowest 32 bits count, and for each number whether it arrived and then how long after the one
    /// before, in 250 µs.
    ///
    /// Each number counts once, in rising order, and only if it was sent: duplicates, replays and inventions are
    /// nothing, and no more statuses are looked at than there are numbers under way, and 512 that were told of before.
    /// Rates are over the longer of the time that sending took and the time that arriving is said to have taken, so
    /// that lies about time do not make them higher than what was sent.
    pub fn handle_feedback(
        &mut self,
        now: Instant,
        reference_ticks: i64,
        statuses: impl Iterator<Item = (u16, Option<i16>)>,
    ) {
        self.pass_time(now);
        let mut ticks = reference_ticks as u32;
        let (mut overused, mut is_news) = (false, false);
        for (number, delta) in statuses.take(usize::from(self.history.numbers()) + TOLD_AGAIN) {
            ticks = ticks.wrapping_add_signed(delta.unwrap_or(0).into());
            // Wraps with the ticks: four times 32 bits are 32 bits again.
            let arrival = delta.map(|_| ticks.wrapping_mul(250));
            let Some(sent) = self.history.settle(number) else { continue };
            is_news = true;
            overused |= self.handle_status(number, sent, arrival);
        }
        if !is_news {
            return;
        }
        self.unanswered = None;
        self.adjust(now, overused);
        self.judge_probe(now);
    }

    /// The peer's own estimate (draft-alvestrand-rmcat-remb-03), in bit/s: all there is for a peer without
    /// transport-wide feedback, and a limit for one with it.
    pub fn handle_remb(&mut self, now: Instant, bits_per_second: u64) {
        self.pass_time(now);
        self.remb = Some((now, bits_per_second.max(LEAST)));
    }

    /// What is known; `None` until the peer has told of 200 ms of what was sent, or of its own estimate.
    pub fn estimate(&self, now: Instant) -> Option<Estimate> {
        let remb = self.remb.filter(|(at, _)| now.saturating_duration_since(*at) < REMB_LASTS).map(|(_, rate)| rate);
        let own = self.estimate.map(|estimate| estimate as u64);
        let bits_per_second = match (own, remb) {
            (Some(own), Some(remb)) => own.min(remb),
            (own, remb) => own.or(remb)?,
        };
        Some(Estimate {
            bits_per_second,
            usage: self.usage,
            received_bits_per_second: self.meter.rates().map_or(0, |rates| rates.received),
            loss: self.loss.share(),
            queue: Duration::from_secs_f32(self.delay.queue_ms() / 1000.0),
        })
    }

    /// Begins to find out whether the path carries `bits_per_second`, media included: for 400 ms [`Self::padding_due`]
    /// asks for what media leaves of it. One that runs is given up without an outcome.
    pub fn begin_probe(&mut self, now: Instant, bits_per_second: u64) {
        self.pass_time(now);
        self.probe = Some(Probe::new(now, bits_per_second, self.loss.share()));
        self.outcome = None;
    }

    /// Gives up the probe that runs, without an outcome.
    pub fn cancel_probe(&mut self) {
        (self.probe, self.outcome) = (None, None);
    }

    /// Bytes of padding that are to be sent now for the running probe; what is sent of them is told to
    /// [`Self::handle_sent`]. 0 without a probe, or when media is enough.
    pub fn padding_due(&mut self, now: Instant) -> u32 {
        self.pass_time(now);
        self.probe.as_mut().map_or(0, |probe| probe.padding_due(now))
    }

    /// When to call [`Self::padding_due`] next, with or without a probe. `None`: not before something else happens.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let silence = self.unanswered.filter(|_| self.estimate.is_some()).map(|since| since + SILENCE);
        let probe = self.probe.as_ref().map(Probe::timeout);
        [silence, probe].into_iter().flatten().min()
    }

    /// What came of a probe, once.
    pub fn take_probe_outcome(&mut self, now: Instant) -> Option<ProbeOutcome> {
        self.pass_time(now);
        self.outcome.take()
    }

    fn micros(&self, now: Instant) -> u32 {
        // Of which the lowest bits are enough.
        now.saturating_duration_since(self.begun).as_micros() as u32
    }

    /// A packet has arrived or is lost. `true` if that shows overuse.
    fn handle_status(&mut self, number: u16, sent: history::Sent, arrival: Option<u32>) -> bool {
        self.told = sent.sent;
        self.meter.add(sent.bytes, sent.sent, arrival, sent.is_after_gap);
        let grows = arrival.is_some_and(|arrival| self.delay.handle_arrival(sent.sent, arrival));
        match &mut self.probe {
            // What a probe loses is its own.
            Some(probe) if probe.has(number) => {
                probe.handle_status(sent.bytes, sent.sent, arrival);
                grows
            }
            _ => self.loss.add(arrival.is_none()) || grows,
        }
    }

    /// Moves the estimate after feedback.
    fn adjust(&mut self, now: Instant, overused: bool) {
        if let Some(probe) = &mut self.probe {
            self.usage = Usage::Normal;
            if probe.is_hopeless() {
                probe.break_off();
            }
            return;
        }
        self.usage = if overused { Usage::Overuse } else { self.delay.usage() };
        self.settling_until = self.settling_until.filter(|until| since(*until, self.told) > 0);
        let is_settling = self.settling_until.is_some();
        // Once the caller sends less than is estimated, what arrives says nothing of what would.
        let above = self.estimate.filter(|_| is_settling).map_or(0, |estimate| estimate as u64);
        match (self.usage, self.meter.carried(above)) {
            (_, Some(carried)) if is_settling => self.fall(now, carried),
            // The caller sends less already.
            (Usage::Overuse, _) if is_settling => self.grown = now,
            (Usage::Overuse, carried) => {
                self.settling_until = Some(self.micros(now + SETTLING));
                let received = self.meter.latest().map(|rates| rates.received);
                if let Some(carried) = carried.or(received) {
                    self.fall(now, carried);
                }
            }
            _ => self.rise(now),
        }
    }

    /// To a part of what the path carried, in bit/s.
    fn fall(&mut self, now: Instant, carried: u64) {
        self.grown = now;
        let carried = (BACK_OFF * carried.min(self.sent.most(now)) as f64).max(LEAST as f64);
        self.estimate = Some(self.estimate.unwrap_or(carried).min(carried));
    }

    /// To what arrives without trouble at once, beyond that slowly, and not far beyond.
    fn rise(&mut self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.grown).min(Duration::from_secs(1));
        self.grown = now;
        let Some(rates) = self.meter.rates() else { return };
        let received = (rates.received.min(self.sent.most(now))) as f64;
        let estimate = self.estimate.unwrap_or(MOST_OF_RECEIVED * received).max(LEAST as f64);
        let may_rise = self.usage == Usage::Normal && self.loss.is_low();
        if !may_rise {
            self.estimate = Some(estimate);
            return;
        }
        let proven = if rates.are_limited() { estimate } else { estimate.max(received) };
        let most = MOST_OF_RECEIVED * received + MOST_ABOVE;
        self.estimate = Some((proven * GROWTH.powf(elapsed.as_secs_f64())).min(most).max(proven));
    }

    /// Ends a probe that is over and told of.
    fn judge_probe(&mut self, now: Instant) {
        let Some(probe) = self.probe.as_ref().filter(|probe| probe.is_over(now)) else { return };
        let is_told = probe.last().is_none_or(|last| self.history.is_settled(last));
        if !is_told && !probe.is_too_old(now) {
            return;
        }
        let remb = self.remb.filter(|_| self.estimate.is_none()).map(|(_, rate)| rate);
        let outcome = match remb {
            Some(rate) if rate >= probe.target() => ProbeOutcome::Sustained(probe.target()),
            _ => probe.outcome(),
        };
        if let (ProbeOutcome::Sustained(rate), Some(estimate)) = (outcome, self.estimate) {
            self.estimate = Some(estimate.max(rate as f64));
        }
        (self.probe, self.outcome) = (None, Some(outcome));
        // The queue that it made goes away by itself.
        self.delay.forgive();
    }

    /// What happens by time alone.
    fn pass_time(&mut self, now: Instant) {
        if self.probe.as_ref().is_some_and(|probe| probe.is_too_old(now)) {
            self.judge_probe(now);
        }
        let (Some(estimate), Some(first)) = (self.estimate, self.unanswered) else { return };
        let silences = now.saturating_duration_since(first).as_millis() / SILENCE.as_millis();
        if silences > 0 {
            self.unanswered = Some(now);
            self.usage = Usage::Overuse;
            let halved = estimate / 2.0_f64.powi(i32::try_from(silences).unwrap_or(i32::MAX));
            self.estimate = Some(halved.max(LEAST as f64));
        }
    }
}

/// What was really sent, whatever the peer says of it: the most of the last two seconds or so.
#[derive(Debug)]
struct SentRate {
    since: Instant,
    bytes: u64,
    before: u64,
}

impl SentRate {
    const WINDOW: Duration = Duration::from_secs(1);

    fn new(now: Instant) -> Self {
        Self { since: now, bytes: 0, before: 0 }
    }

    fn rate(&self, now: Instant) -> u64 {
        let elapsed = now.saturating_duration_since(self.since).max(Self::WINDOW / 5);
        self.bytes.saturating_mul(8000) / (elapsed.as_millis() as u64).max(1)
    }

    fn add(&mut self, now: Instant, bytes: u32) {
        if now.saturating_duration_since(self.since) >= Self::WINDOW {
            (self.before, self.bytes, self.since) = (self.rate(now), 0, now);
        }
        self.bytes = self.bytes.saturating_add(bytes.into());
    }

    /// In bit/s.
    fn most(&self, now: Instant) -> u64 {
        self.rate(now).max(self.before)
    }
}
