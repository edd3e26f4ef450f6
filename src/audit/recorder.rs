//! The way to the writer.

use std::sync::atomic::Ordering;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use std::{io, thread};

use tokio::sync::{oneshot, watch};
use tracing::warn;

use crate::bets::audit::{Entry, InvalidKey, PlayerNames, SignalRecord, TotalsRecord};
use crate::config::{Fsync, WhenFailing};

use super::clock::timestamp;
use super::options::Options;
use super::report::{AuditReport, Counters, count};
use super::trail::OpenError;
use super::writer::{Message, Writer};

/// Records that wait for the writer. Half of it is for new bets: beyond, they are refused (or lost, if they are to go on), and
/// the outcomes of those that the bet service has by then still find room.
pub(super) const QUEUE: usize = 65_536;

/// How long the end of the desk is waited for.
const DESK_LIMIT: Duration = Duration::from_millis(500);

/// Why there is no trail.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The directory, or what the sink says of it.
    #[error("{0}{key}", key = .0.key())]
    Open(#[from] OpenError),
    /// The key.
    #[error("the key of audit.signing_key_file: {0}")]
    Key(#[from] InvalidKey),
    /// A thread.
    #[error("cannot start a thread for the audit trail: {0}")]
    Thread(#[from] io::Error),
}

/// How the trail stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// Of the records that were given, in their order, how many are as durable as the configuration wants them.
    pub durable: u64,
    /// Records cannot be written now.
    pub failing: bool,
}

/// The trail, for whoever watches over it. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Audit {
    queue: SyncSender<Message>,
    counters: Arc<Counters>,
    /// Until the desk has given all its records.
    desk: Arc<Mutex<Option<oneshot::Receiver<()>>>>,
    closing_timeout: Duration,
}

/// Takes records of the bet desk, in order.
#[derive(Debug)]
pub struct Recorder {
    queue: SyncSender<Message>,
    counters: Arc<Counters>,
    status: watch::Receiver<Status>,
    given: u64,
    names: PlayerNames,
    refuses: bool,
    waits: bool,
    _alive: oneshot::Sender<()>,
}

/// Starts the threads of a trail.
///
/// # Errors
/// The directory cannot be used, for a reason that will not pass by itself; see [`StartError`].
pub fn start(options: Options) -> Result<(Audit, Recorder), StartError> {
    let (queue, messages) = sync_channel(QUEUE);
    let (status, watched) = watch::channel(Status::default());
    let counters = Arc::new(Counters::default());
    let (alive, desk) = oneshot::channel();
    let recorder = Recorder {
        queue: queue.clone(),
        counters: counters.clone(),
        status: watched,
        given: 0,
        names: options.names.clone(),
        refuses: options.when_failing == WhenFailing::Refuse,
        waits: options.fsync == Fsync::Always,
        _alive: alive,
    };
    let audit = Audit {
        queue,
        counters: counters.clone(),
        desk: Arc::new(Mutex::new(Some(desk))),
        closing_timeout: options.closing_timeout,
    };
    let writer = Writer::open(options, messages, status, counters)?;
    thread::Builder::new().name("audit".to_owned()).spawn(move || writer.run())?;
    Ok((audit, recorder))
}

impl Audit {
    /// What was done so far.
    pub fn report(&self) -> AuditReport {
        self.counters.report(timestamp())
    }

    /// Records the node's counters.
    pub fn totals(&self, totals: TotalsRecord) {
        // Where there is no room, the next ones say as much.
        let _ = self.queue.try_send(Message::Entry(Entry::Totals(totals)));
    }

    /// Ends the trail as it should: once the desk has given its records they are written and signed for, with the node's last
    /// counters, and copied to the sink, for which there is a limit of time. `false` if something is not there by then, or the
    /// desk has not ended, whose further records are lost.
    pub async fn close(&self, totals: Option<TotalsRecord>) -> bool {
        let desk = self.desk.lock().unwrap_or_else(PoisonError::into_inner).take();
        let mut complete = true;
        if let Some(desk) = desk {
            // The desk's end shows as an error of the channel.
            complete = tokio::time::timeout(DESK_LIMIT, desk).await.is_ok();
        }
        if !complete {
            warn!("the bet desk has not ended: the audit trail does not end as it should");
        }
        if let Some(totals) = totals {
            self.totals(totals);
        }
        let (reply, done) = oneshot::channel();
        let mut message = Message::Close { reply, complete };
        let closing = async {
            loop {
                match self.queue.try_send(message) {
                    Ok(()) => return done.await.unwrap_or(false),
                    Err(TrySendError::Full(back)) => message = back,
                    Err(TrySendError::Disconnected(_)) => return false,
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(self.closing_timeout, closing).await.unwrap_or(false)
    }
}

impl Recorder {
    /// How players are named.
    pub fn names(&self) -> &PlayerNames {
        &self.names
    }

    /// Whether a new bet may go on its way: not while the trail fails, or is far behind, unless it is to go on all the same.
    pub fn admits(&self) -> bool {
        !self.refuses || !(self.status.borrow().failing || self.is_gone() || self.is_behind())
    }

    /// The writer's thread has ended, which only a fault of it can bring about while there is a recorder.
    fn is_gone(&self) -> bool {
        self.status.has_changed().is_err()
    }

    fn is_behind(&self) -> bool {
        let taken = self.counters.taken.load(Ordering::Relaxed);
        self.given.saturating_sub(taken) > QUEUE as u64 / 2
    }

    /// Takes a record; never waits. One that finds no room is counted as lost, and the trail will say so.
    pub fn record(&mut self, record: Box<SignalRecord>) {
        match self.queue.try_send(Message::Record(record)) {
            Ok(()) => {
                self.given += 1;
                count(&self.counters.sent);
            }
            // The writer never hears of it: it is not waited for.
            Err(_) => self.counters.lose(timestamp()),
        }
    }

    /// How many records were given to the writer: what was given last is durable once [`Status::durable`] is as much.
    pub fn given(&self) -> u64 {
        self.given
    }

    /// Whether an outcome has to wait for that.
    pub fn waits(&self) -> bool {
        self.waits
    }

    /// How the trail stands.
    pub fn status(&self) -> Status {
        *self.status.borrow()
    }

    /// Waits for another status; for ever, where there will be none.
    pub async fn changed(&mut self) {
        if self.status.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Outcomes were told before their records were durable.
    pub fn told_early(&self, outcomes: u64) {
        self.counters.told_early.fetch_add(outcomes, Ordering::Relaxed);
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::path::Path;

    use super::*;
    use crate::audit::tests::Directory;
    use crate::bets::audit::{Digest, SigningKey, Timestamp};

    pub(in crate::audit) fn options(directory: &Path, when_failing: WhenFailing) -> Options {
        Options {
            directory: directory.join("trail"),
            node: "edge-1".to_owned(),
            key: Arc::new(SigningKey::generate().unwrap()),
            names: PlayerNames::Plain,
            when_failing,
            fsync: Fsync::Interval,
            fsync_interval: Duration::from_secs(60),
            checkpoint_interval: Duration::from_secs(3600),
            rotate_bytes: 64 << 20,
            rotate_after: Duration::from_secs(3600),
            sink: None,
            keep_shipped: None,
            closing_timeout: Duration::from_secs(20),
        }
    }

    pub(in crate::audit) fn record(outcome: &str) -> Box<SignalRecord> {
        Box::new(SignalRecord {
            received: Timestamp(1),
            client: Timestamp(1),
            player: "ann".to_owned(),
            table: "roulette".to_owned(),
            round: "r".to_owned(),
            bet: "b".to_owned(),
            key: "k".to_owned(),
            message: Digest::of(b"bet"),
            outcome: outcome.to_owned(),
            reason: None,
            late: false,
            passed_on: None,
            answered: None,
            decided: 1,
            last_mile: None,
        })
    }

    #[tokio::test]
    async fn while_the_disk_works_no_record_is_lost_however_seldom_it_is_asked_to() {
        for fsync in [Fsync::Interval, Fsync::Never] {
            let directory = Directory::new();
            let options = Options { fsync, ..options(&directory.0, WhenFailing::Refuse) };
            let (audit, mut recorder) = start(options).unwrap();
            for n in 1..=80_000 {
                recorder.record(record("refused"));
                while n - recorder.counters.taken.load(Ordering::Relaxed) > 10_000 {
                    thread::yield_now();
                }
            }
            assert!(recorder.admits());
            drop(recorder);
            assert!(audit.close(None).await);
            assert_eq!((audit.report().records, audit.report().lost), (80_000, 0), "{fsync:?}");
        }
    }

    #[test]
    fn a_record_that_found_no_room_is_not_waited_for() {
        let (queue, messages) = sync_channel(1);
        let (status, watched) = watch::channel(Status::default());
        let (_alive, _) = oneshot::channel();
        let counters = Arc::new(Counters::default());
        let names = PlayerNames::Plain;
        let (refuses, waits) = (true, true);
        let mut recorder =
            Recorder { queue, counters: counters.clone(), status: watched, given: 0, names, refuses, waits, _alive };
        for _ in 0..3 {
            recorder.record(record("accepted"));
        }
        assert_eq!(messages.try_iter().count() as u64, recorder.given());
        let report = counters.report(Timestamp(0));
        assert_eq!((report.lost, report.backlog), (2, 1));
        drop(status);
    }

    fn last_segment(directory: &Directory) -> String {
        std::fs::read_to_string(directory.0.join("trail/audit-0000000001.jsonl")).unwrap()
    }

    #[tokio::test]
    async fn a_trail_that_ends_before_its_desk_is_not_complete() {
        let directory = Directory::new();
        let (audit, mut recorder) = start(options(&directory.0, WhenFailing::Refuse)).unwrap();
        recorder.record(record("accepted"));
        assert!(!audit.close(None).await);
        assert!(!last_segment(&directory).contains(r#""type":"stop""#));
        recorder.record(record("accepted"));
        assert_eq!((audit.report().records, audit.report().lost), (1, 1));
        assert!(!recorder.admits());
    }

    #[tokio::test]
    async fn the_last_totals_follow_the_last_record() {
        let directory = Directory::new();
        let (audit, mut recorder) = start(options(&directory.0, WhenFailing::Refuse)).unwrap();
        let totals = TotalsRecord::from(&crate::bets::BetCounts::default());
        let desk = async {
            recorder.record(record("unconfirmed"));
            drop(recorder);
        };
        assert!(tokio::join!(audit.close(Some(totals)), desk).0);
        let types: Vec<serde_json::Value> =
            last_segment(&directory).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let types: Vec<_> = types.iter().map(|line| line["type"].as_str().unwrap()).collect();
        assert_eq!(types, ["segment", "start", "checkpoint", "signal", "totals", "stop", "checkpoint"]);
    }
}
