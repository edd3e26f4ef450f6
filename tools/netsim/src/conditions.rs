//! What a link is like, and the text that says so.

use std::str::FromStr;
use std::time::Duration;

/// A share of all cases, 0 to 1. Written as a percentage: `5%`, `0.1%`.
#[derive(Clone, Copy, Debug, Default, PartialEq, PartialOrd)]
pub struct Probability(f64);

impl Probability {
    /// Never.
    pub const NEVER: Self = Self(0.0);
    /// Always.
    pub const ALWAYS: Self = Self(1.0);

    /// `None` unless 0 ≤ `share` ≤ 1.
    pub fn new(share: f64) -> Option<Self> {
        (0.0..=1.0).contains(&share).then_some(Self(share))
    }

    /// Between 0 and 1.
    pub fn share(self) -> f64 {
        self.0
    }
}

/// Which packets are lost.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Loss {
    /// None.
    #[default]
    None,
    /// Each by itself.
    Random(Probability),
    /// Bursts (Gilbert and Elliott): a chain of two states that takes a step with each packet.
    GilbertElliott {
        /// From good to bad.
        to_bad: Probability,
        /// From bad to good.
        to_good: Probability,
        /// Loss while good.
        good: Probability,
        /// Loss while bad.
        bad: Probability,
    },
}

impl Loss {
    /// Bursts of `length` packets in the mean, `share` of all packets lost; nothing is lost between them (Gilbert's model).
    ///
    /// `None` if `length` is below 1, or so much cannot be lost: then the good state would have to be shorter than a packet.
    pub fn bursts(share: Probability, length: f64) -> Option<Self> {
        let to_good = (length >= 1.0).then(|| Probability::new(1.0 / length))??;
        let to_bad = (share.0 < 1.0).then(|| Probability::new(share.0 * to_good.0 / (1.0 - share.0)))??;
        Some(Self::GilbertElliott { to_bad, to_good, good: Probability::NEVER, bad: Probability::ALWAYS })
    }

    /// The share of all packets that is lost in the long run.
    pub fn mean(self) -> f64 {
        match self {
            Self::None => 0.0,
            Self::Random(share) => share.0,
            Self::GilbertElliott { to_bad, to_good, good, bad } => {
                let both = to_bad.0 + to_good.0;
                // A chain that never leaves a state stays in the one it begins in, which is the good one.
                let in_bad = if both > 0.0 { to_bad.0 / both } else { 0.0 };
                in_bad * bad.0 + (1.0 - in_bad) * good.0
            }
        }
    }
}

/// Packets that are held up by themselves, so that those behind overtake them.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Reordering {
    /// Which packets.
    pub share: Probability,
    /// How much later they arrive than they would.
    pub by: Duration,
}

/// How fast a link sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bandwidth {
    /// Bits a second, of UDP payload; never 0.
    pub bits_per_second: u64,
    /// Bytes that may wait for their turn; a packet that does not fit is dropped.
    pub queue: usize,
}

/// What a link is like, in one direction.
///
/// As text, settings with spaces between them, each at most once; what is not named stays as it is (at first: a perfect link):
///
/// | setting | meaning |
/// |---|---|
/// | `delay=40ms` | every packet takes so long |
/// | `jitter=30ms` | and up to so much more, evenly spread; order is kept |
/// | `loss=5%` | each packet by itself; `loss=0` ends any loss |
/// | `burst=5%/4` | as many, in bursts of four in the mean; at 100 % of loss within them |
/// | `gilbert=1%/25%/0%/80%` | Gilbert and Elliott in full: to bad, to good, loss while good, loss while bad |
/// | `reorder=1%/20ms` | so many arrive so much later, and what is behind does not wait |
/// | `duplicate=1%` | so many arrive twice |
/// | `rate=3mbit/48kB` | so fast, and so much may wait; without the queue's size, 100 ms of it; `rate=none` |
/// | `blackout=on` | nothing arrives; `off` |
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Conditions {
    /// Of every packet.
    pub delay: Duration,
    /// The most that comes on top; evenly spread, order kept.
    pub jitter: Duration,
    /// What is lost on the way, after any queue.
    pub loss: Loss,
    /// What is overtaken.
    pub reordering: Reordering,
    /// What arrives twice.
    pub duplicates: Probability,
    /// A bottleneck with a queue before it.
    pub bandwidth: Option<Bandwidth>,
    /// Nothing arrives.
    pub blackout: bool,
}

/// Text that says no conditions.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{setting:?}: {problem}")]
pub struct WrongConditions {
    setting: String,
    problem: &'static str,
}

impl Conditions {
    /// These with the settings that `text` names changed.
    ///
    /// # Errors
    /// A setting is unknown, named twice, or has a wrong value; the error names it.
    pub fn with(mut self, text: &str) -> Result<Self, WrongConditions> {
        let mut seen = Vec::new();
        for setting in text.split_whitespace() {
            let wrong = |problem| WrongConditions { setting: setting.to_owned(), problem };
            let (name, value) = setting.split_once('=').ok_or_else(|| wrong("a setting is name=value"))?;
            // All three say which packets are lost.
            let slot = if matches!(name, "burst" | "gilbert") { "loss" } else { name };
            if seen.contains(&slot) {
                return Err(wrong("said twice"));
            }
            seen.push(slot);
            self.set(name, value).map_err(wrong)?;
        }
        Ok(self)
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), &'static str> {
        match name {
            "delay" => self.delay = duration(value)?,
            "jitter" => self.jitter = duration(value)?,
            "loss" => self.loss = Loss::Random(probability(value)?),
            "burst" => self.loss = burst(value)?,
            "gilbert" => self.loss = gilbert(value)?,
            "reorder" => self.reordering = reordering(value)?,
            "duplicate" => self.duplicates = probability(value)?,
            "rate" => self.bandwidth = bandwidth(value)?,
            "blackout" => {
                self.blackout = match value {
                    "on" => true,
                    "off" => false,
                    _ => return Err("on or off"),
                }
            }
            _ => return Err("there are delay, jitter, loss, burst, gilbert, reorder, duplicate, rate and blackout"),
        }
        Ok(())
    }
}

impl FromStr for Conditions {
    type Err = WrongConditions;

    fn from_str(text: &str) -> Result<Self, WrongConditions> {
        Self::default().with(text)
    }
}

fn number(text: &str) -> Option<f64> {
    // No signs, no exponents, no infinity.
    let digits = text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    text.parse().ok().filter(|_| digits)
}

fn duration(text: &str) -> Result<Duration, &'static str> {
    const PROBLEM: &str = "a time like 40ms or 1.5s, up to an hour";
    let (digits, unit) = match text.strip_suffix("ms") {
        Some(digits) => (digits, 1e6),
        None => (text.strip_suffix('s').unwrap_or(text), 1e9),
    };
    // Zero needs no unit.
    let ns = number(digits).ok_or(PROBLEM)? * unit;
    let has_unit = text.ends_with('s') || ns == 0.0;
    (has_unit && ns <= 3600e9).then(|| Duration::from_nanos(ns.round() as u64)).ok_or(PROBLEM)
}

fn probability(text: &str) -> Result<Probability, &'static str> {
    const PROBLEM: &str = "a percentage from 0% to 100%";
    let share = match text.strip_suffix('%') {
        Some(digits) => number(digits).ok_or(PROBLEM)? / 100.0,
        None => number(text).filter(|zero| *zero == 0.0).ok_or(PROBLEM)?,
    };
    Probability::new(share).ok_or(PROBLEM)
}

fn burst(text: &str) -> Result<Loss, &'static str> {
    const PROBLEM: &str = "the share that is lost and the length of a burst in packets, like 5%/4";
    let (share, length) = text.split_once('/').ok_or(PROBLEM)?;
    Loss::bursts(probability(share)?, number(length).ok_or(PROBLEM)?).ok_or("no bursts of this length lose so much")
}

fn gilbert(text: &str) -> Result<Loss, &'static str> {
    let parts: Vec<_> = text.split('/').map(probability).collect::<Result<_, _>>()?;
    let [to_bad, to_good, good, bad] = parts[..] else {
        return Err("four percentages: to bad, to good, loss while good, loss while bad");
    };
    Ok(Loss::GilbertElliott { to_bad, to_good, good, bad })
}

fn reordering(text: &str) -> Result<Reordering, &'static str> {
    let (share, by) = text.split_once('/').ok_or("how many, and how late they are: 1%/20ms")?;
    Ok(Reordering { share: probability(share)?, by: duration(by)? })
}

fn bandwidth(text: &str) -> Result<Option<Bandwidth>, &'static str> {
    const PROBLEM: &str = "like 3mbit, 600kbit/48kB or none, from 1kbit to 100gbit";
    if text == "none" {
        return Ok(None);
    }
    let (rate, queue) = text.split_once('/').map_or((text, None), |(rate, queue)| (rate, Some(queue)));
    let bits_per_second = scaled(rate, &[("gbit", 1e9), ("mbit", 1e6), ("kbit", 1e3), ("bit", 1.0)]).ok_or(PROBLEM)?;
    if !(1e3..=1e11).contains(&bits_per_second) {
        return Err(PROBLEM);
    }
    let queue = match queue {
        Some(queue) => scaled(queue, &[("MB", 1e6), ("kB", 1e3), ("B", 1.0)]).ok_or("a queue is like 48kB")?,
        None => bits_per_second / 8.0 / 10.0,
    };
    Ok(Some(Bandwidth { bits_per_second: bits_per_second.round() as u64, queue: queue.round() as usize }))
}

fn scaled(text: &str, units: &[(&str, f64)]) -> Option<f64> {
    let (digits, scale) = units.iter().find_map(|(unit, scale)| Some((text.strip_suffix(unit)?, scale)))?;
    number(digits).map(|n| n * scale)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Conditions {
        text.parse().unwrap_or_else(|error| panic!("{error}"))
    }

    fn share(percent: f64) -> Probability {
        Probability::new(percent / 100.0).unwrap()
    }

    #[test]
    fn settings_are_read() {
        let all = read("delay=40ms jitter=0.5s loss=5% reorder=1%/20ms duplicate=0.1% rate=3mbit/48kB blackout=on");
        assert_eq!(
            all,
            Conditions {
                delay: Duration::from_millis(40),
                jitter: Duration::from_millis(500),
                loss: Loss::Random(share(5.0)),
                reordering: Reordering { share: share(1.0), by: Duration::from_millis(20) },
                duplicates: share(0.1),
                bandwidth: Some(Bandwidth { bits_per_second: 3_000_000, queue: 48_000 }),
                blackout: true,
            }
        );
        assert_eq!(read(""), Conditions::default());
        assert_eq!(read("rate=600kbit").bandwidth, Some(Bandwidth { bits_per_second: 600_000, queue: 7_500 }));
    }

    #[test]
    fn what_is_not_named_stays() {
        let before = read("delay=40ms rate=3mbit burst=5%/4");
        let after = before.with("rate=600kbit/10kB").unwrap();
        assert_eq!((after.delay, after.loss), (before.delay, before.loss));
        assert_eq!(after.bandwidth, Some(Bandwidth { bits_per_second: 600_000, queue: 10_000 }));
        assert_eq!(after.with("rate=none loss=0").unwrap().loss.mean(), 0.0);
    }

    #[test]
    fn bursts_lose_as_much_as_they_say() {
        for (text, mean) in
            [("burst=5%/4", 0.05), ("burst=30%/2.5", 0.3), ("gilbert=1%/25%/1%/81%", (0.81 + 0.25) / 26.0)]
        {
            assert!((read(text).loss.mean() - mean).abs() < 1e-12, "{text}");
        }
        assert_eq!(
            Loss::GilbertElliott {
                to_bad: Probability::NEVER,
                to_good: Probability::NEVER,
                good: share(3.0),
                bad: Probability::ALWAYS
            }
            .mean(),
            0.03
        );
    }

    #[test]
    fn mistakes_are_named() {
        for (text, named) in [
            ("delay=40", "\"delay=40\": a time like"),
            ("delay=-1ms", "a time like"),
            ("delay=1e9s", "a time like"),
            ("delay=4000s", "up to an hour"),
            ("loss=5", "a percentage"),
            ("loss=101%", "a percentage"),
            ("loss=inf%", "a percentage"),
            ("burst=5%", "like 5%/4"),
            ("burst=5%/0.5", "no bursts"),
            ("burst=100%/4", "no bursts"),
            ("burst=90%/1", "no bursts"),
            ("gilbert=1%/2%/3%", "four percentages"),
            ("reorder=1%", "1%/20ms"),
            ("rate=3", "like 3mbit"),
            ("rate=0mbit", "from 1kbit"),
            ("rate=3mbit/48", "a queue is like"),
            ("blackout=yes", "on or off"),
            ("dely=40ms", "there are delay, jitter"),
            ("delay", "name=value"),
            ("delay=1ms delay=2ms", "\"delay=2ms\": said twice"),
            ("loss=1% burst=5%/4", "\"burst=5%/4\": said twice"),
        ] {
            let error = text.parse::<Conditions>().expect_err(text).to_string();
            assert!(error.contains(named), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "[a-z]{1,9}=[0-9.%/a-zA-Z-]{0,12}( [a-z]{4,9}=[0-9.%/a-z]{0,9})?|\\PC{0,40}") {
            let _ = text.parse::<Conditions>();
        }
    }
}
