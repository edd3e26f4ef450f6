//! The writer's thread: takes records in groups, writes them, has them durable, signed and shipped in time.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::time::{Duration, Instant};

use tokio::sync::{oneshot, watch};
use tracing::{error, info, warn};

use crate::bets::Status;
use crate::bets::audit::{Entry, SignalRecord, Timestamp};
use crate::config::Fsync;

use super::clock::{now, timestamp};
use super::options::Options;
use super::recorder::{QUEUE, Status as TrailStatus};
use super::report::{Counters, count};
use super::ship::Shipper;
use super::sink::SinkOptions;
use super::trail::{OpenError, Opened, Trail, TrailOptions, segments};

/// Records that are written at once: what has come while the disk was busy goes with one write and one sync.
const GROUP: usize = 4096;

/// Records that are kept while they cannot be written, and so that they can be written again after a sync that failed.
/// Further ones are lost, and counted.
const MOST_KEPT: usize = QUEUE;

/// So many records are forced to the disk whenever that is due: of what is kept while all is well, none is ever lost.
const FORCED: usize = MOST_KEPT / 4;

/// How often writing is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// How often it is said that it still does not work.
const REMIND: Duration = Duration::from_secs(60);

/// What the writer is told.
#[derive(Debug)]
pub(super) enum Message {
    /// A signal has an outcome.
    Record(Box<SignalRecord>),
    /// Something else to be recorded, of which nobody waits to hear that it is durable.
    Entry(Entry),
    /// The node ends, and no record comes any more; or some may, and then it does not end as it should.
    Close { reply: oneshot::Sender<bool>, complete: bool },
}

/// The thread's state.
pub(super) struct Writer {
    options: Options,
    messages: Receiver<Message>,
    status: watch::Sender<TrailStatus>,
    counters: Arc<Counters>,
    shipper: Shipper,
    /// Not there while the directory cannot be used.
    trail: Option<Trail>,
    /// What is not durable yet. The first `written` of it are in the file.
    kept: VecDeque<(Timestamp, Entry)>,
    written: usize,
    /// Records that were taken, lost ones among them: what [`Status::durable`] counts.
    taken: u64,
    /// The number of the segment, and since when it is written.
    begun: (u64, Instant),
    sync_due: Option<Instant>,
    checkpoint_due: Option<Instant>,
    retry_at: Option<Instant>,
    remind_at: Instant,
}

impl Writer {
    /// Opens the trail. Where the disk is full, it is tried again later.
    pub(super) fn open(
        options: Options,
        messages: Receiver<Message>,
        status: watch::Sender<TrailStatus>,
        counters: Arc<Counters>,
    ) -> Result<Self, super::StartError> {
        let sink = options.sink.as_ref().map(SinkOptions::open);
        let shipper = Shipper::start(sink, options.keep_shipped, counters.clone())?;
        let mut writer = Self {
            options,
            messages,
            status,
            counters,
            shipper,
            trail: None,
            kept: VecDeque::new(),
            written: 0,
            taken: 0,
            begun: (0, now()),
            sync_due: None,
            checkpoint_due: None,
            retry_at: None,
            remind_at: now(),
        };
        match writer.open_trail() {
            Ok(opened) => writer.opened(opened)?,
            Err(error) if error.may_pass() => writer.fail(&error),
            Err(error) => return Err(error.into()),
        }
        Ok(writer)
    }

    fn open_trail(&self) -> Result<Opened, OpenError> {
        let Options { directory, node, key, sink, when_failing, .. } = &self.options;
        let options = TrailOptions {
            directory: directory.clone(),
            node: node.clone(),
            key: key.clone(),
            sink: sink.clone(),
            when_failing: *when_failing,
        };
        Trail::open(options, timestamp())
    }

    /// Ships what earlier processes have left.
    fn opened(&mut self, Opened { trail, checkpoint: (seq, line), replaced }: Opened) -> Result<(), OpenError> {
        if let Some(error) = replaced {
            count(&self.counters.replaced);
            error!(%error, "a new audit trail begins in its place, as audit.when_failing says");
        }
        count(&self.counters.checkpoints);
        self.shipper.checkpoint(&trail.prefix(), seq, line);
        let directory = trail.directory().to_owned();
        let earlier =
            segments(&directory).map_err(|source| OpenError::Io { what: "read", path: directory.clone(), source })?;
        for (number, path) in earlier {
            if number < trail.segment() {
                self.shipper.segment(&trail.prefix(), path);
            }
        }
        info!(directory = %directory.display(), segment = trail.segment(), lines = trail.count(), "audit trail");
        self.trail = Some(trail);
        self.checkpoint_due = Some(now() + self.options.checkpoint_interval);
        Ok(())
    }

    /// Until it is told to close, or nobody is left to tell it.
    pub(super) fn run(mut self) {
        loop {
            let wait = self.next_wake().saturating_duration_since(now());
            let mut closing = None;
            match self.messages.recv_timeout(wait) {
                Ok(message) => closing = self.take(message),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    self.close(true);
                    return;
                }
            }
            for _ in 0..GROUP {
                if closing.is_some() {
                    break;
                }
                match self.messages.try_recv() {
                    Ok(message) => closing = self.take(message),
                    Err(TryRecvError::Empty | TryRecvError::Disconnected) => break,
                }
            }
            self.turn(now());
            if let Some((reply, complete)) = closing {
                let closed = self.close(complete);
                // Whoever hears of the end finds nobody who takes records.
                drop(self);
                // Who waits may have given up.
                let _ = reply.send(closed);
                return;
            }
        }
    }

    fn next_wake(&self) -> Instant {
        // While it fails, nothing else is done when it is due.
        if let Some(at) = self.retry_at {
            return at;
        }
        let due = [self.sync_due, self.checkpoint_due].into_iter().flatten();
        due.fold(now() + REMIND, Instant::min)
    }

    fn take(&mut self, message: Message) -> Option<(oneshot::Sender<bool>, bool)> {
        let at = timestamp();
        match message {
            Message::Record(record) => {
                self.taken += 1;
                count(&self.counters.taken);
                // While nothing can be written there is a refusal for whatever comes: it takes no place of what the service says.
                let is_refusal = record.outcome == Status::ALL[Status::Refused as usize].1;
                if self.kept.len() < if is_refusal { MOST_KEPT / 2 } else { MOST_KEPT } {
                    self.kept.push_back((at, Entry::Signal(record)));
                } else {
                    self.counters.lose(at);
                }
                if self.counters.oldest.load(Ordering::Relaxed) == 0 {
                    self.counters.oldest.store(at.0, Ordering::Relaxed);
                }
            }
            // Worth no place of a record.
            Message::Entry(entry) if self.kept.len() < MOST_KEPT / 2 => self.kept.push_back((at, entry)),
            Message::Entry(_) => {}
            Message::Close { reply, complete } => return Some((reply, complete)),
        }
        None
    }

    /// Does what is due.
    fn turn(&mut self, now: Instant) {
        if self.retry_at.is_some_and(|at| at > now) {
            return;
        }
        let failing = self.retry_at.take().is_some();
        if let Err(error) = self.write(now, failing) {
            self.fail(&error);
        } else if failing {
            info!("the audit trail is written again");
            self.counters.failing.store(false, Ordering::Relaxed);
            self.status.send_modify(|status| status.failing = false);
        }
    }

    fn write(&mut self, now: Instant, after_failure: bool) -> Result<(), Failure> {
        if self.trail.is_none() {
            let opened = self.open_trail()?;
            self.opened(opened)?;
        } else if after_failure && let Some(trail) = &mut self.trail {
            trail.repair()?;
            self.written = 0;
        }
        self.append()?;
        let is_due = match self.options.fsync {
            Fsync::Always => true,
            Fsync::Interval => self.sync_due.is_some_and(|at| at <= now) || after_failure,
            Fsync::Never => false,
        };
        if self.is_pending() && (is_due || self.kept.len() >= FORCED) {
            self.commit()?;
        } else if self.options.fsync == Fsync::Never {
            self.satisfied();
        } else if self.is_pending() {
            self.sync_due.get_or_insert(now + self.options.fsync_interval);
        }
        self.rotate()?;
        if self.checkpoint_due.is_some_and(|at| at <= now) {
            self.checkpoint()?;
            self.checkpoint_due = Some(now + self.options.checkpoint_interval);
        }
        Ok(())
    }

    /// What is kept and not in the file yet, after the word of what is lost.
    fn append(&mut self) -> io::Result<()> {
        let Some(trail) = &mut self.trail else { return Ok(()) };
        if let Some(gap) = self.counters.take_gap() {
            // One gap, however often it was tried.
            match self.kept.get_mut(self.written) {
                Some((_, Entry::Gap(before))) => {
                    before.lost += gap.lost;
                    before.to = gap.to;
                }
                _ => self.kept.insert(self.written, (timestamp(), Entry::Gap(gap))),
            }
        }
        if self.written < self.kept.len() {
            trail.append_stamped(self.kept.range(self.written..))?;
            self.written = self.kept.len();
        }
        Ok(())
    }

    fn is_pending(&self) -> bool {
        self.trail.as_ref().is_some_and(Trail::is_pending)
    }

    fn commit(&mut self) -> io::Result<()> {
        let Some(trail) = &mut self.trail else { return Ok(()) };
        trail.commit()?;
        self.committed();
        Ok(())
    }

    /// The disk has all that was written.
    fn committed(&mut self) {
        self.counters.records.fetch_add(self.signals(), Ordering::Relaxed);
        count(&self.counters.syncs);
        self.kept.clear();
        self.written = 0;
        self.sync_due = None;
        self.satisfied();
    }

    /// Records that are kept.
    fn signals(&self) -> u64 {
        self.kept.iter().filter(|(_, entry)| matches!(entry, Entry::Signal(_))).count() as u64
    }

    /// All that was taken is as durable as the configuration wants it.
    fn satisfied(&mut self) {
        self.counters.oldest.store(0, Ordering::Relaxed);
        let durable = self.taken;
        self.status.send_if_modified(|status| std::mem::replace(&mut status.durable, durable) != durable);
    }

    fn rotate(&mut self) -> io::Result<()> {
        let Some(trail) = &mut self.trail else { return Ok(()) };
        // By the clock that nobody sets.
        let now = now();
        if self.begun.0 != trail.segment() && trail.length() > 0 {
            self.begun = (trail.segment(), now);
        }
        let is_old = now.duration_since(self.begun.1) >= self.options.rotate_after;
        if trail.length() >= self.options.rotate_bytes || (trail.length() > 0 && is_old) {
            self.finish_segment()?;
        }
        Ok(())
    }

    fn finish_segment(&mut self) -> io::Result<()> {
        let Some(trail) = &mut self.trail else { return Ok(()) };
        let path = trail.directory().join(super::trail::segment_name(trail.segment()));
        let sealed = trail.finish_segment(timestamp())?;
        let prefix = trail.prefix();
        self.sealed(&prefix, sealed);
        self.shipper.segment(&prefix, path);
        Ok(())
    }

    fn checkpoint(&mut self) -> io::Result<()> {
        let Some(trail) = self.trail.as_mut().filter(|trail| trail.unsealed() > 0) else { return Ok(()) };
        let sealed = trail.seal(timestamp())?;
        let prefix = trail.prefix();
        self.sealed(&prefix, sealed);
        Ok(())
    }

    fn sealed(&mut self, prefix: &str, (seq, line): (u64, Vec<u8>)) {
        count(&self.counters.checkpoints);
        self.committed();
        self.shipper.checkpoint(prefix, seq, line);
    }

    fn fail(&mut self, error: &dyn std::fmt::Display) {
        count(&self.counters.write_errors);
        let now = now();
        self.retry_at = Some(now + RETRY);
        self.sync_due = None;
        if !self.counters.failing.swap(true, Ordering::Relaxed) || now >= self.remind_at {
            self.remind_at = now + REMIND;
            let policy = self.options.when_failing;
            error!(%error, ?policy, waiting = self.kept.len(), "the audit trail cannot be written; it is tried again");
        }
        self.status.send_modify(|status| status.failing = true);
    }

    /// `false` if something is not written, or not copied.
    fn close(&mut self, complete: bool) -> bool {
        let deadline = now() + self.options.closing_timeout;
        self.retry_at = self.retry_at.map(|_| now());
        self.turn(now());
        if complete {
            self.kept.push_back((timestamp(), Entry::Stop {}));
        }
        let written = match self.append().and_then(|()| self.finish_segment()) {
            Ok(()) => self.trail.is_some() && complete,
            Err(error) => {
                error!(%error, "the audit trail could not be ended as it should");
                false
            }
        };
        self.give_up();
        // Whoever hears of the end may begin another.
        self.trail = None;
        let left = self.shipper.close(deadline);
        if left > 0 {
            warn!(left, "segments of the audit trail were not copied in time: the next start copies them");
        } else if written {
            info!("the audit trail is complete");
        }
        written && left == 0
    }

    /// At the end: what is kept, or still in the queue, is not recorded any more.
    fn give_up(&mut self) {
        let waiting = self.messages.try_iter().filter(|message| matches!(message, Message::Record(_))).count() as u64;
        let lost = self.signals() + waiting;
        if lost > 0 {
            self.counters.lost.fetch_add(lost, Ordering::Relaxed);
            error!(lost, "records of the audit trail are lost with the end of this process");
        }
        self.kept.clear();
    }
}

/// Why records are not written.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Open(#[from] OpenError),
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{SyncSender, sync_channel};

    use super::*;
    use crate::audit::recorder::tests::{options, record};
    use crate::audit::tests::Directory;
    use crate::bets::audit::GapRecord;
    use crate::config::WhenFailing;

    fn writer(directory: &Directory, fsync: Fsync) -> (Writer, SyncSender<Message>) {
        let (queue, messages) = sync_channel(16);
        let options = Options { fsync, ..options(&directory.0, WhenFailing::Refuse) };
        let (status, _) = watch::channel(TrailStatus::default());
        (Writer::open(options, messages, status, Arc::default()).unwrap(), queue)
    }

    fn text(directory: &Directory) -> String {
        let all = segments(&directory.0.join("trail")).unwrap();
        all.into_iter().map(|(_, path)| std::fs::read_to_string(path).unwrap()).collect()
    }

    #[test]
    fn while_it_fails_nothing_wakes_it_before_the_next_try() {
        let directory = Directory::new();
        let (mut writer, _queue) = writer(&directory, Fsync::Interval);
        writer.checkpoint_due = Some(now());
        writer.fail(&"no room");
        assert_eq!(Some(writer.next_wake()), writer.retry_at);
    }

    #[test]
    fn records_that_nothing_forces_to_the_disk_are_written_again_until_it_has_them() {
        let directory = Directory::new();
        let (mut writer, _queue) = writer(&directory, Fsync::Never);
        writer.take(Message::Record(record("accepted")));
        writer.turn(now());
        assert_eq!((writer.status.borrow().durable, writer.counters.report(timestamp()).lag), (1, 0.0));
        // As after the sync of a checkpoint that failed.
        writer.fail(&"no sync");
        writer.retry_at = Some(now());
        writer.turn(now());
        assert!(writer.close(true));
        assert_eq!(text(&directory).matches(r#""type":"signal""#).count(), 1);
        assert!(text(&directory).contains(r#""type":"stop""#));
    }

    #[test]
    fn what_is_lost_before_one_try_and_the_next_is_one_gap() {
        let directory = Directory::new();
        let (mut writer, _queue) = writer(&directory, Fsync::Interval);
        let trail = directory.0.join("trail");
        for _ in 0..3 {
            writer.counters.lose(Timestamp(7));
            std::fs::rename(&trail, directory.0.join("gone")).unwrap();
            writer.checkpoint_due = Some(now());
            writer.retry_at = writer.retry_at.map(|_| now());
            writer.turn(now());
            assert!(writer.retry_at.is_some());
            std::fs::rename(directory.0.join("gone"), &trail).unwrap();
            writer.written = 0;
            writer.append().unwrap_err();
        }
        let gaps: Vec<_> = writer.kept.iter().map(|(_, entry)| entry).collect();
        let [Entry::Gap(GapRecord { lost: 3, .. })] = gaps[..] else { panic!("{gaps:?}") };
    }

    #[test]
    fn what_cannot_be_written_at_the_end_is_counted_as_lost() {
        let directory = Directory::new();
        let (mut writer, queue) = writer(&directory, Fsync::Always);
        std::fs::remove_dir_all(directory.0.join("trail")).unwrap();
        writer.take(Message::Record(record("accepted")));
        queue.send(Message::Record(record("rejected"))).unwrap();
        let lost = |writer: &Writer| writer.counters.report(timestamp()).lost;
        assert_eq!(lost(&writer), 0);
        writer.fail(&"no room");
        assert!(!writer.close(true));
        assert_eq!(lost(&writer), 2);
    }
}
