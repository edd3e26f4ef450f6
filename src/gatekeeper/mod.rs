//! Who may publish and watch: judges tokens with the issuer's keys, and keeps these fresh.
//!
//! Enters: a token or none, with what it is to be good for; the key set of a file or a URL, again and again. Leaves: who it is,
//! or why not; counts.
//! Refuses to know: what a token looks like and how a signature is verified, which is `identity`'s; sessions.

mod source;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::available_parallelism;
use std::time::{Duration, Instant, SystemTime};

use tokio::signal::unix::Signal;
use tokio::sync::{OwnedMutexGuard, Semaphore};
use tracing::{error, info, warn};

use crate::config::Config;
use crate::identity::{Claims, Denied, Jurisdictions, KeySet, Policy, Role, Subject, TokenError, verify};
use crate::outbound::OutboundError;
use crate::telemetry::{Metrics, TokenOutcome};

use source::Source;

/// Judges tokens. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Gatekeeper {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// `None` where nobody is asked for a token.
    asked: Option<Asked>,
    current: Mutex<Current>,
    /// Held while the keys are read: whoever wants them read again waits for the same reading.
    reading: Arc<tokio::sync::Mutex<Reading>>,
    /// Signatures that are verified at once: half of the threads, so that a flood of tokens leaves the others to answer.
    turns: Semaphore,
    metrics: Arc<Metrics>,
}

/// What a token is held to.
#[derive(Debug)]
struct Asked {
    policy: Policy,
    served: Jurisdictions,
    source: Source,
}

#[derive(Debug, Default)]
struct Current {
    keys: KeySet,
    /// How many readings have begun.
    begun: u64,
    /// Which of them was the last to end, from 1.
    ended: u64,
    /// It has failed: what the issuer has by now is not known.
    failed: bool,
}

#[derive(Debug, Default)]
struct Reading {
    /// When a token with an unknown key had the source asked out of turn.
    out_of_turn: Option<Instant>,
    /// Why the last reading failed, if it did: so each mistake is told once.
    failure: Option<String>,
}

/// Why somebody may not do what was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAdmitted {
    /// There is no token.
    #[error("there is no token")]
    NoToken,
    /// The key of the token may be one of the issuer's that this node could not fetch so far.
    #[error("the issuer's keys could not be fetched yet")]
    NoKeys {
        /// When it is worth asking again.
        retry_after: Duration,
    },
    /// The token is none to go by.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The token is good, and not for this.
    #[error(transparent)]
    Denied(#[from] Denied),
}

/// While the source fails: how soon it is asked again, with keys from before and without.
const RETRY: [Duration; 2] = [Duration::from_secs(10), Duration::from_secs(2)];

impl Gatekeeper {
    /// A gatekeeper as the configuration wants one, with the keys that the configuration has read. A URL is not asked yet:
    /// see [`Gatekeeper::read`].
    ///
    /// # Errors
    /// There are no authorities to trust for the URL.
    pub fn new(config: &Config, metrics: Arc<Metrics>) -> Result<Self, OutboundError> {
        let asked = if config.wants_tokens() {
            let (policy, served) = (config.auth.policy(), config.auth.served());
            Some(Asked { policy, served, source: Source::of(&config.auth)? })
        } else {
            None
        };
        let inner = Inner {
            asked,
            current: Mutex::new(Current { keys: config.keys.clone(), ..Current::default() }),
            reading: Arc::default(),
            turns: Semaphore::new(available_parallelism().map_or(1, usize::from).div_ceil(2)),
            metrics,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Who asks to act as `role` at `table`; `None` where nobody is asked for a token.
    ///
    /// # Errors
    /// See [`NotAdmitted`].
    pub async fn admit(&self, token: Option<&str>, role: Role, table: &str) -> Result<Option<Subject>, NotAdmitted> {
        let Some(asked) = &self.inner.asked else { return Ok(None) };
        let judged = self.judge(asked, token, role, table).await;
        self.inner.metrics.tokens.judged(outcome(judged.as_ref().err()));
        judged.map(Some)
    }

    async fn judge(&self, asked: &Asked, token: Option<&str>, role: Role, table: &str) -> Result<Subject, NotAdmitted> {
        let token = token.ok_or(NotAdmitted::NoToken)?;
        let (begun, ended) = self.readings();
        let mut verified = self.verify(asked, token).await;
        // A reading that is under way may bring the key.
        if verified == Err(TokenError::UnknownKey) && self.has_read_since(ended).await {
            verified = self.verify(asked, token).await;
        }
        // An issuer that has new keys need not wait for our next look, as long as nobody makes up names of keys. Who comes
        // meanwhile is not turned away for good.
        if verified == Err(TokenError::UnknownKey) {
            self.read_after(asked, begun).await.map_err(|retry_after| NotAdmitted::NoKeys { retry_after })?;
            verified = self.verify(asked, token).await;
            if verified == Err(TokenError::UnknownKey) && self.is_without_news() {
                return Err(NotAdmitted::NoKeys { retry_after: asked.source.least_interval() });
            }
        }
        let claims = verified?;
        claims.allow(role, table, &asked.served)?;
        Ok(claims.subject)
    }

    async fn verify(&self, asked: &Asked, token: &str) -> Result<Claims, TokenError> {
        let keys = self.current().keys.clone();
        // The semaphore is never closed.
        let _turn = self.inner.turns.acquire().await;
        verify(token, &keys, &asked.policy, now())
    }

    /// Whether there are keys to verify tokens with, if these are asked for (for `/readyz`).
    ///
    /// # Errors
    /// What is missing.
    pub fn readiness(&self) -> Result<(), String> {
        match &self.inner.asked {
            Some(asked) if self.current().keys.is_empty() => {
                Err(format!("there are no keys from {} yet", asked.source))
            }
            _ => Ok(()),
        }
    }

    /// Reads the keys now. What cannot be used is logged and counted, and the keys from before stay.
    pub async fn read(&self) {
        if let Some(asked) = &self.inner.asked {
            let reading = Arc::clone(&self.inner.reading).lock_owned().await;
            self.read_from(asked, reading).await;
        }
    }

    /// Reads the keys now and again and again, and at each of `hangups` (SIGHUP).
    pub async fn keep_fresh(self, mut hangups: Signal) {
        let Some(asked) = &self.inner.asked else { return };
        loop {
            self.read().await;
            let retry = RETRY[usize::from(self.current().keys.is_empty())];
            let pause = asked.source.interval();
            let pause = if self.current().failed { pause.min(retry) } else { pause };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                Some(()) = hangups.recv() => info!("SIGHUP: reading the keys of tokens again"),
            }
        }
    }

    /// Waits for the reading that is under way, if one is; whether any has ended since the one with this number.
    async fn has_read_since(&self, ended: u64) -> bool {
        drop(self.inner.reading.lock().await);
        self.readings().1 != ended
    }

    /// How many readings have begun, and the number of the last one that has ended.
    fn readings(&self) -> (u64, u64) {
        let current = self.current();
        (current.begun, current.ended)
    }

    /// Has the keys read out of turn, unless a reading that began after the first `begun` of them has ended meanwhile.
    ///
    /// # Errors
    /// That happened just now; how long to wait.
    async fn read_after(&self, asked: &Asked, begun: u64) -> Result<(), Duration> {
        if matches!(asked.source, Source::Fixed) {
            return Ok(());
        }
        let mut reading = Arc::clone(&self.inner.reading).lock_owned().await;
        if self.current().ended > begun {
            return Ok(());
        }
        let now = instant();
        let since = reading.out_of_turn.map(|last| now.saturating_duration_since(last));
        if let Some(wait) = since.and_then(|since| asked.source.least_interval().checked_sub(since)) {
            return Err(wait);
        }
        reading.out_of_turn = Some(now);
        // A task of its own: others wait for it when this client has gone away.
        let this = self.clone();
        let read = tokio::spawn(async move {
            if let Some(asked) = &this.inner.asked {
                this.read_from(asked, reading).await;
            }
        });
        read.await.map_err(|_| asked.source.least_interval())
    }

    async fn read_from(&self, asked: &Asked, mut reading: OwnedMutexGuard<Reading>) {
        let number = {
            let mut current = self.current();
            current.begun += 1;
            current.begun
        };
        let text = asked.source.load().await;
        let keys = text.and_then(|text| KeySet::parse(&text).map_err(|error| error.to_string()));
        let metrics = &self.inner.metrics.tokens;
        let mut current = self.current();
        (current.ended, current.failed) = (number, keys.is_err());
        match keys {
            Ok(keys) => {
                let new = keys != current.keys;
                if new || reading.failure.is_some() {
                    let (source, count, ignored) = (&asked.source, keys.len(), keys.ignored());
                    info!(%source, count, new, "keys of tokens{ignored}");
                }
                metrics.keys_read(now(), keys.len(), new);
                current.keys = keys;
                reading.failure = None;
            }
            Err(failure) => {
                metrics.keys_failed();
                if reading.failure.as_ref() != Some(&failure) {
                    let source = &asked.source;
                    match current.keys.len() {
                        0 => error!(%source, failure, "no keys to verify tokens with: nobody can publish or watch"),
                        count => warn!(%source, failure, count, "new keys of tokens cannot be read; the old ones stay"),
                    }
                }
                reading.failure = Some(failure);
            }
        }
    }

    /// Whether the issuer may have keys that are not known here.
    fn is_without_news(&self) -> bool {
        let current = self.current();
        current.failed || current.keys.is_empty()
    }

    fn current(&self) -> MutexGuard<'_, Current> {
        // Whole after every assignment.
        self.inner.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn outcome(refused: Option<&NotAdmitted>) -> TokenOutcome {
    match refused {
        None => TokenOutcome::Accepted,
        Some(NotAdmitted::NoToken) => TokenOutcome::Missing,
        Some(NotAdmitted::NoKeys { .. }) => TokenOutcome::NoKeys,
        Some(NotAdmitted::Token(TokenError::UnknownKey)) => TokenOutcome::UnknownKey,
        Some(NotAdmitted::Token(TokenError::Expired)) => TokenOutcome::Expired,
        Some(NotAdmitted::Token(TokenError::NotYetValid)) => TokenOutcome::NotYetValid,
        Some(NotAdmitted::Token(_)) => TokenOutcome::Invalid,
        Some(NotAdmitted::Denied(Denied::Role)) => TokenOutcome::OtherRole,
        Some(NotAdmitted::Denied(Denied::Table)) => TokenOutcome::OtherTable,
        Some(NotAdmitted::Denied(Denied::Jurisdiction)) => TokenOutcome::OtherJurisdiction,
    }
}

/// Since the Unix epoch. With a clock that is before it, which is wrong, nothing has expired and what has an `iat` is not valid yet.
#[expect(clippy::disallowed_methods, reason = "tokens expire by the time of day")]
fn now() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

#[expect(clippy::disallowed_methods, reason = "how often a source is asked is a matter of this shell")]
fn instant() -> Instant {
    Instant::now()
}
