//! What is counted of tokens and of the keys that they are verified with.

use std::time::Duration;

use prometheus::core::Collector;
use prometheus::{IntCounterVec, IntGauge, Opts};

/// What became of a request to publish or watch where tokens are asked for. Exported as `tableside_tokens_total{outcome}`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TokenOutcome {
    /// It may.
    Accepted,
    /// There was none.
    Missing,
    /// It is none, or not to be believed.
    Invalid,
    /// Its key is not one of the issuer's.
    UnknownKey,
    /// It has expired.
    Expired,
    /// It is for later.
    NotYetValid,
    /// It is for another role.
    OtherRole,
    /// It is for other tables.
    OtherTable,
    /// It is from a jurisdiction that is not served.
    OtherJurisdiction,
    /// There were no keys to verify it with.
    NoKeys,
}

impl TokenOutcome {
    /// Every outcome with its label value.
    pub const ALL: [(TokenOutcome, &'static str); 10] = [
        (TokenOutcome::Accepted, "accepted"),
        (TokenOutcome::Missing, "missing"),
        (TokenOutcome::Invalid, "invalid"),
        (TokenOutcome::UnknownKey, "unknown_key"),
        (TokenOutcome::Expired, "expired"),
        (TokenOutcome::NotYetValid, "not_yet_valid"),
        (TokenOutcome::OtherRole, "other_role"),
        (TokenOutcome::OtherTable, "other_table"),
        (TokenOutcome::OtherJurisdiction, "other_jurisdiction"),
        (TokenOutcome::NoKeys, "no_keys"),
    ];
}

/// Outcomes of reading the keys: new ones are taken, nothing is new, the old ones stay for want of good ones.
const LOADS: [&str; 3] = ["loaded", "unchanged", "failed"];

/// The counters of tokens and keys.
#[derive(Debug)]
pub struct TokenMetrics {
    required: IntGauge,
    tokens: IntCounterVec,
    loads: IntCounterVec,
    keys: IntGauge,
    read: IntGauge,
}

impl TokenMetrics {
    /// With every label at 0; each collector is handed to `register`.
    pub(super) fn new(required: bool, register: impl Fn(Box<dyn Collector>)) -> Self {
        let counters =
            |name: &str, help: &str| IntCounterVec::new(Opts::new(name, help), &["outcome"]).expect("a valid name");
        let gauge = |name: &str, help: &str| IntGauge::new(name, help).expect("a valid name");
        let metrics = Self {
            required: gauge(
                "tableside_tokens_required",
                "1 if who publishes or watches needs a token, 0 if nobody is asked for one.",
            ),
            tokens: counters(
                "tableside_tokens_total",
                "Requests to publish or watch, by what was found of their token.",
            ),
            loads: counters(
                "tableside_token_key_loads_total",
                "Readings of the keys that tokens are verified with: new ones taken (loaded), none new (unchanged), or impossible, with the old ones kept (failed).",
            ),
            keys: gauge("tableside_token_keys", "Keys that tokens are verified with."),
            read: gauge(
                "tableside_token_keys_read_timestamp_seconds",
                "When the keys were last read with success, Unix time; 0 before.",
            ),
        };
        metrics.required.set(required.into());
        TokenOutcome::ALL.iter().for_each(|(_, outcome)| drop(metrics.tokens.with_label_values(&[outcome])));
        LOADS.iter().for_each(|outcome| drop(metrics.loads.with_label_values(&[outcome])));
        register(Box::new(metrics.required.clone()));
        register(Box::new(metrics.tokens.clone()));
        register(Box::new(metrics.loads.clone()));
        register(Box::new(metrics.keys.clone()));
        register(Box::new(metrics.read.clone()));
        metrics
    }

    /// A request was judged.
    pub fn judged(&self, outcome: TokenOutcome) {
        self.tokens.with_label_values(&[TokenOutcome::ALL[outcome as usize].1]).inc();
    }

    /// The keys were read at `now`, since the Unix epoch: there are `count`, which may be those from before.
    pub fn keys_read(&self, now: Duration, count: usize, new: bool) {
        self.loads.with_label_values(&[LOADS[usize::from(!new)]]).inc();
        self.keys.set(count.try_into().unwrap_or(i64::MAX));
        self.read.set(now.as_secs().try_into().unwrap_or(i64::MAX));
    }

    /// The keys could not be read.
    pub fn keys_failed(&self) {
        self.loads.with_label_values(&[LOADS[2]]).inc();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_in_the_order_of_the_values() {
        TokenOutcome::ALL.iter().enumerate().for_each(|(i, (value, _))| assert_eq!(*value as usize, i));
    }
}
