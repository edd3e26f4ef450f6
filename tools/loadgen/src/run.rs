//! A load test from the first publisher to the last goodbye.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Sender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use tableside::rtc::dtls::DtlsIdentity;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep_until, timeout};
use url::Url;

use crate::answer::Answer;
use crate::client::{ClientError, new_credentials};
use crate::clock;
use crate::offer;
use crate::options::Options;
use crate::publisher::sends;
use crate::report::Report;
use crate::server::{Accounts, Process};
use crate::signalling::{PostError, Signalling};
use crate::socket::{PeerSocket, address_towards, unspecified};
use crate::worker::{Command, GroupTally, Join, Progress, Role, Tally, Worker};

/// The players that watch from the beginning.
const WATCHING: usize = 0;
/// The players of `--burst`.
const JOINING: usize = 1;
const GROUPS: [&str; 2] = ["watching", "joining"];

/// How long a table whose publisher has only just connected may answer "not live".
const NOT_LIVE_FOR: Duration = Duration::from_secs(10);

/// A player of a table that is not live asks again after this.
const ASK_AGAIN: Duration = Duration::from_millis(200);

/// From the last answer until every peer is connected or has given up.
const CONNECT_WITHIN: Duration = Duration::from_secs(20);

/// From the last bet signal until each has an outcome: gateways owe one within two seconds, and repetitions take time.
const OUTCOMES_WITHIN: Duration = Duration::from_secs(5);

/// How often progress is looked at and shown.
const LOOK: Duration = Duration::from_millis(250);

/// Offers that failed, by cause.
type Refused = BTreeMap<String, u64>;

/// Runs it.
///
/// # Errors
/// It could not begin, or the generator itself failed.
pub async fn run(options: Options) -> anyhow::Result<Report> {
    let mut test = Test::begin(options)?;
    tokio::select! {
        measured = test.measure() => measured?,
        interrupted = tokio::signal::ctrl_c() => {
            interrupted.context("cannot hear Ctrl-C")?;
            eprintln!("tableside-load: interrupted: saying goodbye; what was measured so far follows");
        }
    }
    test.finish().await
}

struct Test {
    options: Options,
    signalling: Signalling,
    fingerprint: [u8; 32],
    workers: Vec<(Sender<Command>, JoinHandle<std::io::Result<Tally>>)>,
    progress: Arc<Progress>,
    sessions: Vec<(Url, Option<String>)>,
    /// Peers whose answer went to a thread.
    joined: u64,
    refused: [Refused; 2],
    publishers_refused: Refused,
    measuring_since: Option<Instant>,
    /// The same by the wall clock, in nanoseconds since 1970.
    measuring_since_unix: u64,
    server: Option<Process>,
    /// The server's, when the measurement began.
    accounts: Option<Accounts>,
}

impl Test {
    fn begin(options: Options) -> anyhow::Result<Self> {
        // Thousands of sockets; whoever may not raise it hears of it when one cannot be opened.
        let _ = tableside::net::raise_open_file_limit();
        let cores = options.cores.clone();
        if !cores.is_empty() {
            // Also for this thread and what it starts: the server's CPU is not to be touched.
            pin(&cores)?;
        }
        let identity = Arc::new(DtlsIdentity::generate()?);
        let cores: Vec<Option<usize>> =
            if cores.is_empty() { vec![None] } else { cores.into_iter().map(Some).collect() };
        let bets_waiting = cores.iter().map(|_| AtomicU64::new(0)).collect();
        let progress = Arc::new(Progress { bets_waiting, ..Progress::default() });
        let mut workers = Vec::new();
        for (n, core) in cores.into_iter().enumerate() {
            let (commands, inbox) = mpsc::channel();
            let worker = Worker::new(n, inbox, progress.clone(), identity.clone(), GROUPS.len())?;
            let thread = std::thread::Builder::new().name(format!("peers-{n}")).spawn(move || {
                if let Some(core) = core {
                    pin(&[core]).map_err(std::io::Error::other)?;
                }
                worker.run()
            })?;
            workers.push((commands, thread));
        }
        Ok(Self {
            server: options.server_pid.map(Process::new).transpose()?,
            accounts: None,
            signalling: Signalling::new(options.insecure)?,
            fingerprint: identity.fingerprint(),
            options,
            workers,
            progress,
            sessions: Vec::new(),
            joined: 0,
            refused: Default::default(),
            publishers_refused: Refused::new(),
            measuring_since: None,
            measuring_since_unix: 0,
        })
    }

    /// Everything but the end.
    async fn measure(&mut self) -> anyhow::Result<()> {
        self.publish().await?;
        let rate = f64::from(self.options.join_rate);
        self.watch(WATCHING, self.options.players, Some(rate)).await?;
        self.connected().await?;
        self.pass(Duration::from_secs(self.options.settle), "settling").await?;
        self.tell_all(|| Command::Begin)?;
        self.accounts = self.server.as_ref().map(Process::accounts).transpose().context("the server is gone")?;
        let began = clock::now();
        self.measuring_since = Some(began);
        self.measuring_since_unix = clock::unix_nanoseconds();
        let end = began + Duration::from_secs(self.options.seconds);
        if self.options.burst > 0 {
            let rate = self.options.burst_rate.map(f64::from);
            self.watch(JOINING, self.options.burst, rate).await?;
            self.connected().await?;
        }
        self.pass(end.saturating_duration_since(clock::now()), "measuring").await
    }

    /// Until each bet signal has an outcome, or none has come for as long as a player would wait.
    async fn outcomes(&self) {
        let all = async {
            let mut ticks = interval(LOOK);
            loop {
                // What was sent last is in the numbers of a look or two later.
                ticks.tick().await;
                ticks.tick().await;
                if self.progress.bets_waiting.iter().all(|waiting| waiting.load(Ordering::Relaxed) == 0) {
                    return;
                }
            }
        };
        // Those without are in the report.
        let _ = timeout(OUTCOMES_WITHIN, all).await;
    }

    async fn publish(&mut self) -> anyhow::Result<()> {
        let Some(url) = self.options.whip.clone() else { return Ok(()) };
        let programme = self.options.programme();
        let address = self.address(&url);
        for n in 0..self.options.tables {
            let url = self.options.url(&url, n)?;
            let sends = sends(&programme);
            let (socket, peer) = open(self.options.bind, address, self.fingerprint).context("no socket")?;
            let offer = offer::publisher(&peer, &sends);
            let token = self.options.publish_token.as_deref();
            let posted_at = clock::now();
            let phase = if self.options.in_phase { 0.0 } else { f64::from(n) / f64::from(self.options.tables) };
            let session = match self.signalling.post(&url, token, offer).await {
                Ok(session) => session,
                Err(error) if n == 0 => return Err(error).with_context(|| format!("cannot publish at {url}")),
                Err(error) => {
                    *self.publishers_refused.entry(error.reason()).or_default() += 1;
                    continue;
                }
            };
            let answer = Answer::parse(&session.answer).with_context(|| format!("{url} answered what is of no use"))?;
            self.sessions.extend(session.url.map(|url| (url, self.options.publish_token.clone())));
            let role = Role::Publisher { sends, programme: programme.clone(), phase };
            let (ice, answered_at) = (peer.ice, clock::now());
            self.hand_over(n, Join { socket, ice, answer: answer.into(), posted_at, answered_at, role })?;
        }
        self.connected().await
    }

    /// Posts the offers of `count` players of `group`, so many a second, or all at once.
    async fn watch(&mut self, group: usize, count: u32, rate: Option<f64>) -> anyhow::Result<()> {
        let Some(url) = self.options.whep.clone() else { return Ok(()) };
        let address = self.address(&url);
        let began = clock::now();
        let mut offers = JoinSet::new();
        for n in 0..count {
            let at = rate.map_or(began, |rate| began + Duration::from_secs_f64(f64::from(n) / rate));
            let url = self.options.player_url(&url, n)?;
            let has_data = self.options.says().anything();
            let (signalling, token) = (self.signalling.clone(), self.options.token.clone());
            let (bind, fingerprint) = (self.options.bind, self.fingerprint);
            let patient = self.options.whip.is_some();
            offers.spawn(async move {
                sleep_until(at.into()).await;
                let first = clock::now();
                let (socket, peer) = match open(bind, address, fingerprint) {
                    Ok(opened) => opened,
                    Err(error) => return Err(format!("{}: {error}", ClientError::Socket)),
                };
                let offer = offer::player(&peer, has_data);
                loop {
                    let posted_at = clock::now();
                    let result = signalling.post(&url, token.as_deref(), offer.clone()).await;
                    let waited = posted_at.saturating_duration_since(first);
                    if patient && waited < NOT_LIVE_FOR && result.as_ref().is_err_and(PostError::is_not_live) {
                        tokio::time::sleep(ASK_AGAIN).await;
                        continue;
                    }
                    let session = result.map_err(|error| error.reason())?;
                    return Ok((n, socket, peer.ice, [posted_at, clock::now()], session));
                }
            });
        }
        let mut shown = Shown::new("joining");
        while let Some(answered) = offers.join_next().await {
            shown.show(|| format!("{} of {count} answered", self.joined));
            let (n, socket, ice, [posted_at, answered_at], session) = match answered? {
                Ok(answered) => answered,
                Err(reason) => {
                    *self.refused[group].entry(reason).or_default() += 1;
                    continue;
                }
            };
            self.sessions.extend(session.url.map(|url| (url, self.options.token.clone())));
            let answer = match Answer::parse(&session.answer) {
                Ok(answer) => answer,
                Err(error) => {
                    *self.refused[group].entry(error.to_string()).or_default() += 1;
                    continue;
                }
            };
            let role = Role::Player {
                group,
                verifies: verifies(n, self.options.verify),
                feedback: self.options.feedback_ms.map(Duration::from_millis),
                says: self.options.says(),
            };
            self.hand_over(n, Join { socket, ice, answer: answer.into(), posted_at, answered_at, role })?;
        }
        Ok(())
    }

    /// Where peers are, seen from the server of this URL, as far as the host knows.
    fn address(&self, url: &str) -> Option<IpAddr> {
        let url = self.options.url(url, 0).ok()?;
        self.options.bind.or_else(|| address_towards(&url).ok())
    }

    fn hand_over(&mut self, n: u32, join: Join) -> anyhow::Result<()> {
        self.joined += 1;
        let (commands, _) = &self.workers[n as usize % self.workers.len()];
        commands.send(Command::Join(Box::new(join))).map_err(|_| anyhow::anyhow!("a thread with peers has ended"))
    }

    fn tell_all(&self, command: fn() -> Command) -> anyhow::Result<()> {
        for (commands, _) in &self.workers {
            commands.send(command()).map_err(|_| anyhow::anyhow!("a thread with peers has ended"))?;
        }
        Ok(())
    }

    /// Until every peer is connected or has given up.
    async fn connected(&self) -> anyhow::Result<()> {
        let mut shown = Shown::new("connecting");
        let all = async {
            let mut ticks = interval(LOOK / 10);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                let connected = self.progress.connected.load(Ordering::Relaxed);
                let failed = self.progress.failed.load(Ordering::Relaxed);
                shown.show(|| format!("{connected} of {} connected, {failed} failed", self.joined));
                if connected + failed >= self.joined {
                    return;
                }
            }
        };
        timeout(CONNECT_WITHIN, all).await.context("peers neither connected nor gave up: the generator is too slow")
    }

    /// Lets time pass, and shows how it goes.
    async fn pass(&self, time: Duration, what: &'static str) -> anyhow::Result<()> {
        let end = clock::now() + time;
        let mut shown = Shown::new(what);
        let mut ticks = interval(LOOK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while clock::now() < end {
            tokio::select! {
                () = sleep_until(end.into()) => {}
                _ = ticks.tick() => {}
            }
            if self.workers.iter().any(|(_, thread)| thread.is_finished()) {
                anyhow::bail!("a thread with peers has ended");
            }
            shown.show(|| {
                let left = end.saturating_duration_since(clock::now()).as_secs();
                let packets = self.progress.packets.load(Ordering::Relaxed);
                let lost = self.progress.lost.load(Ordering::Relaxed);
                format!("{left:>4} s left, {packets} packets, {lost} lost")
            });
        }
        Ok(())
    }

    /// Says goodbye, and puts the results together.
    async fn finish(mut self) -> anyhow::Result<Report> {
        self.tell_all(|| Command::End)?;
        let measured = self.measuring_since.map(|began| clock::now().saturating_duration_since(began));
        let seconds = measured.unwrap_or_default().as_secs_f64();
        // Before the goodbyes, which cost the server something too.
        let accounts = self.server.as_ref().map(Process::accounts).transpose().context("the server is gone")?;
        if self.options.bets > 0.0 {
            self.tell_all(|| Command::StopBets)?;
            self.outcomes().await;
        }
        let mut deletions = JoinSet::new();
        for (url, token) in std::mem::take(&mut self.sessions) {
            let signalling = self.signalling.clone();
            if deletions.len() >= 64 {
                deletions.join_next().await;
            }
            deletions.spawn(async move { signalling.delete(&url, token.as_deref()).await });
        }
        while deletions.join_next().await.is_some() {}

        let mut tally = Tally { groups: vec![GroupTally::default(); GROUPS.len()], ..Tally::default() };
        self.tell_all(|| Command::Stop)?;
        for (_, thread) in self.workers {
            let one = thread.join().map_err(|_| anyhow::anyhow!("a thread with peers panicked"))??;
            tally.groups.iter_mut().zip(&one.groups).for_each(|(all, one)| all.add(one));
            tally.sent += one.sent;
            for (why, count) in one.publisher_failures {
                *tally.publisher_failures.entry(why).or_default() += count;
            }
        }
        let publishers = self.options.whip.as_ref().map(|_| (self.options.tables.into(), self.publishers_refused));
        let requested = [self.options.players, self.options.burst].map(u64::from);
        let players = GROUPS.into_iter().zip(requested).zip(self.refused);
        let players = players.map(|((name, requested), refused)| (name, requested, refused)).collect();
        let packets = tally.groups.iter().map(|group| group.received.packets).sum();
        let server = self.accounts.zip(accounts).map(|(before, after)| after.since(before, seconds, packets));
        let began = self.measuring_since_unix as f64 / 1e9;
        Ok(Report::new(began, seconds, tally, publishers, players, server))
    }
}

/// A peer that has yet to offer, at `bind` if that is given; `address` is for its candidate.
fn open(
    bind: Option<IpAddr>,
    address: Option<IpAddr>,
    fingerprint: [u8; 32],
) -> std::io::Result<(PeerSocket, offer::Peer)> {
    let socket = PeerSocket::bind(bind.unwrap_or_else(|| unspecified(address.is_none_or(|ip| ip.is_ipv4()))))?;
    let port = socket.local_address()?.port();
    let candidate = address.map(|address| SocketAddr::new(address, port));
    Ok((socket, offer::Peer { ice: new_credentials(), fingerprint, candidate }))
}

/// Whether player `n` opens its packets: the first of all, and then the share, evenly spread.
fn verifies(n: u32, share: f64) -> bool {
    let before = |n: u32| (f64::from(n) * share).ceil();
    share > 0.0 && (n == 0 || before(n + 1) > before(n))
}

fn pin(cores: &[usize]) -> anyhow::Result<()> {
    let mut set = CpuSet::new();
    for core in cores {
        set.set(*core).with_context(|| format!("--cores {core}: there is no such CPU"))?;
    }
    sched_setaffinity(Pid::from_raw(0), &set).with_context(|| format!("--cores {cores:?}: the kernel refuses"))
}

/// One line on a terminal, a few times a second; nothing elsewhere.
struct Shown {
    what: &'static str,
    last: Option<Instant>,
    terminal: bool,
}

impl Shown {
    fn new(what: &'static str) -> Self {
        Self { what, last: None, terminal: std::io::stderr().is_terminal() }
    }

    fn show(&mut self, text: impl FnOnce() -> String) {
        let now = clock::now();
        if !self.terminal || self.last.is_some_and(|last| now.saturating_duration_since(last) < LOOK) {
            return;
        }
        self.last = Some(now);
        // A terminal that is gone is no reason to end the test.
        let _ = write!(std::io::stderr(), "\r\x1b[K{}: {}", self.what, text());
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        if self.terminal && self.last.is_some() {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_that_verifies_is_spread() {
        let which = |share| (0..20).filter(|n| verifies(*n, share)).collect::<Vec<_>>();
        assert_eq!(which(0.1), [0, 10]);
        assert_eq!(which(0.0), [] as [u32; 0]);
        assert_eq!(which(1.0).len(), 20);
        assert_eq!(which(0.01), [0]);
    }
}
