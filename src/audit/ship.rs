//! Copies finished segments and checkpoints to a sink, in a thread of its own, until each is there.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use tracing::{debug, error, warn};

use super::clock::now;
use super::report::{Counters, count};
use super::sink::Sink;

/// The first wait after the sink has refused, and the longest: each is twice the one before.
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// Checkpoints that wait for a sink that does not answer; older ones go, since each signs for all before it.
const MOST_CHECKPOINTS: usize = 64;

/// How often old segments are looked for.
const SWEEP: Duration = Duration::from_secs(600);

/// Something to be copied.
#[derive(Debug)]
enum Task {
    Segment { name: String, path: PathBuf },
    Checkpoint { name: String, line: Vec<u8> },
    Close { reply: Sender<usize>, deadline: Instant },
}

/// The way to the thread; without a sink there is none.
#[derive(Debug)]
pub(super) struct Shipper {
    tasks: Option<Sender<Task>>,
    /// Whether the sink is to have segments, besides checkpoints.
    takes_segments: bool,
}

impl Shipper {
    /// # Errors
    /// The thread cannot be started.
    pub(super) fn start(
        sink: Option<Box<dyn Sink>>,
        keep: Option<Duration>,
        counters: Arc<Counters>,
    ) -> io::Result<Self> {
        let Some(sink) = sink else { return Ok(Self { tasks: None, takes_segments: false }) };
        let takes_segments = sink.takes_segments();
        let (tasks, given) = channel();
        let ship = Ship {
            sink,
            keep,
            counters,
            segments: VecDeque::new(),
            checkpoints: VecDeque::new(),
            shipped: Vec::new(),
            wait: None,
        };
        thread::Builder::new().name("audit-ship".to_owned()).spawn(move || ship.run(&given))?;
        Ok(Self { tasks: Some(tasks), takes_segments })
    }

    /// A segment is finished. What was copied before is found to be there.
    pub(super) fn segment(&self, prefix: &str, path: PathBuf) {
        if !self.takes_segments {
            return;
        }
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        self.give(Task::Segment { name: format!("{prefix}/{name}"), path });
    }

    pub(super) fn checkpoint(&self, prefix: &str, seq: u64, line: Vec<u8>) {
        self.give(Task::Checkpoint { name: format!("{prefix}/checkpoint-{seq:012}.jsonl"), line });
    }

    fn give(&self, task: Task) {
        if let Some(tasks) = &self.tasks {
            // Unbounded: a segment is megabytes, and a checkpoint comes once a minute. The thread ends with the writer.
            let _ = tasks.send(task);
        }
    }

    /// Waits until all was copied, at most until `deadline`; how many segments were not.
    pub(super) fn close(&self, deadline: Instant) -> usize {
        let Some(tasks) = &self.tasks else { return 0 };
        let (reply, done) = channel();
        if tasks.send(Task::Close { reply, deadline }).is_err() {
            return 1;
        }
        // The sink may hang.
        done.recv_timeout(deadline.saturating_duration_since(now())).unwrap_or(1)
    }
}

struct Ship {
    sink: Box<dyn Sink>,
    keep: Option<Duration>,
    counters: Arc<Counters>,
    segments: VecDeque<(String, PathBuf)>,
    checkpoints: VecDeque<(String, Vec<u8>)>,
    /// Segments that are in the sink and here.
    shipped: Vec<PathBuf>,
    /// Since the sink has refused: how long it is left alone, and until when.
    wait: Option<(Duration, Instant)>,
}

impl Ship {
    fn run(mut self, tasks: &Receiver<Task>) {
        loop {
            let idle = self.segments.is_empty() && self.checkpoints.is_empty();
            let wait = match self.wait {
                _ if idle => SWEEP,
                Some((_, until)) => until.saturating_duration_since(now()),
                None => Duration::ZERO,
            };
            match tasks.recv_timeout(wait) {
                Ok(Task::Close { reply, deadline }) => return self.close(&reply, deadline),
                Ok(task) => {
                    self.take(task);
                    continue;
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            self.ship_one();
            self.sweep();
        }
    }

    fn take(&mut self, task: Task) {
        match task {
            Task::Segment { name, path } => self.segments.push_back((name, path)),
            Task::Checkpoint { name, line } => {
                if self.checkpoints.len() == MOST_CHECKPOINTS {
                    self.checkpoints.pop_front();
                }
                self.checkpoints.push_back((name, line));
            }
            Task::Close { .. } => {}
        }
        self.counters.unshipped.store(self.segments.len() as u64, Ordering::Relaxed);
    }

    /// Tries the next thing once: checkpoints first, they are small and prove most.
    fn ship_one(&mut self) {
        if self.wait.is_some_and(|(_, until)| until > now()) {
            return;
        }
        let (outcome, name) = if let Some((name, line)) = self.checkpoints.front() {
            (self.sink.put(name, line), name.clone())
        } else if let Some((name, path)) = self.segments.front() {
            (self.sink.put_file(name, path), name.clone())
        } else {
            return;
        };
        match outcome {
            Ok(put) => {
                debug!(name, ?put, "copied to the sink");
                self.wait = None;
                if self.checkpoints.pop_front().is_none()
                    && let Some((_, path)) = self.segments.pop_front()
                {
                    count(&self.counters.shipped);
                    self.counters.unshipped.store(self.segments.len() as u64, Ordering::Relaxed);
                    self.shipped.push(path);
                }
            }
            Err(error) => {
                count(&self.counters.ship_errors);
                let wait = self.wait.map_or(FIRST_WAIT, |(wait, _)| LONGEST_WAIT.min(2 * wait));
                self.wait = Some((wait, now() + wait));
                warn!(name, %error, again_in = ?wait, waiting = self.segments.len(), "the audit sink does not take this");
                self.turn_over(&name, &error);
            }
        }
    }

    /// The next segment goes first: this one may be gone here, or there in another form.
    fn turn_over(&mut self, name: &str, error: &io::Error) {
        if self.checkpoints.is_empty() {
            self.segments.rotate_left(1);
        } else if error.kind() == io::ErrorKind::AlreadyExists {
            error!(
                name,
                "the audit sink holds another checkpoint in this place: two processes write as one node, or forge it"
            );
            self.checkpoints.pop_front();
        }
    }

    fn close(&mut self, reply: &Sender<usize>, deadline: Instant) {
        self.wait = None;
        while !(self.segments.is_empty() && self.checkpoints.is_empty()) && now() < deadline {
            self.ship_one();
            let Some((_, until)) = self.wait.take() else { continue };
            let rest = until.min(deadline).saturating_duration_since(now());
            #[expect(clippy::disallowed_methods, reason = "the shipper's own thread, which serves nobody else")]
            thread::sleep(rest.min(FIRST_WAIT));
        }
        self.sweep();
        // Who asked may have given up.
        let _ = reply.send(self.segments.len() + self.checkpoints.len());
    }

    /// Removes segments here that are in the sink and older than they are to be kept.
    fn sweep(&mut self) {
        let Some(keep) = self.keep else { return };
        self.shipped.retain(|path| {
            let is_old = age(path).is_some_and(|age| age >= keep);
            if is_old {
                debug!(path = %path.display(), "a segment is old enough, and in the sink");
            }
            !(is_old && std::fs::remove_file(path).is_ok())
        });
    }
}

fn age(path: &Path) -> Option<Duration> {
    let modified = std::fs::metadata(path).ok()?.modified().ok()?;
    let since = modified.duration_since(std::time::UNIX_EPOCH).ok()?;
    Duration::from_micros(super::clock::timestamp().0).checked_sub(since)
}
