//! The reference loop as a process of its own at the node's end, and who receives from it at the players' end.

use std::cell::RefCell;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::process::{Child, ChildStdout, Stdio};
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use tableside::net::{RecvBatch, ShardSocket, UdpOptions, thread_cpu_time};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::lab::{self, Lab};
use crate::load::{FPS, Load};
use crate::reference::ReferenceLoop;
use crate::reference::viewer::{Aead, Viewer};

/// Of the first receiver.
const FIRST_PORT: u16 = 20_000;

/// What the loop found in one turn.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Turn {
    /// CPU for each packet, in nanoseconds.
    pub nanoseconds: f64,
    /// The same when nothing is sent: the sealing alone.
    pub seal_nanoseconds: f64,
    /// From the beginning of a frame until the last player's packets were taken, in milliseconds; the median.
    pub frame_ms: f64,
}

/// Runs a turn of so many seconds for each line on standard input that says so.
///
/// # Errors
/// A line says something else.
pub fn run(players: u16, load: Load) -> anyhow::Result<()> {
    let address = |n| SocketAddr::from((lab::FAR, FIRST_PORT + n));
    let viewers = (0..players).map(|n| Viewer::new(address(n), Aead::Aes256Gcm)).collect();
    let mut contender = ReferenceLoop::new(viewers, load.frames())?;
    turn(&mut contender, Duration::from_millis(500));
    for line in io::stdin().lines() {
        let time = Duration::from_secs_f64(line?.parse()?);
        contender.sends = false;
        let (seal_nanoseconds, _) = turn(&mut contender, time / 2);
        contender.sends = true;
        let (nanoseconds, frame_ms) = turn(&mut contender, time);
        println!("{}", serde_json::to_string(&Turn { nanoseconds, seal_nanoseconds, frame_ms })?);
    }
    Ok(())
}

/// Nanoseconds of CPU for each packet, and the median time for a frame in milliseconds.
fn turn(contender: &mut ReferenceLoop, time: Duration) -> (f64, f64) {
    let interval = Duration::from_secs(1) / FPS;
    let (start, cpu) = (Instant::now(), thread_cpu_time());
    let (mut due, mut packets, mut frames) = (start, 0, Vec::new());
    while due.duration_since(start) < time {
        let begin = Instant::now();
        packets += contender.send_frame();
        frames.push(begin.elapsed());
        due += interval;
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
    }
    frames.sort();
    let nanoseconds = (thread_cpu_time() - cpu).as_nanos() as f64 / packets as f64;
    (nanoseconds, frames[frames.len() / 2].as_secs_f64() * 1e3)
}

/// Receives, and looks at nothing, until it is killed.
///
/// # Errors
/// A socket cannot be bound.
pub fn sink(players: u16) -> anyhow::Result<()> {
    tableside::net::raise_open_file_limit()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let tasks = tokio::task::LocalSet::new();
    let batch = Rc::new(RefCell::new(RecvBatch::new()));
    let receivers = (0..players).map(|n| {
        let batch = Rc::clone(&batch);
        tasks.spawn_local(async move {
            let options = UdpOptions { receive_buffer: 1 << 20, ..UdpOptions::default() };
            let (socket, _) = ShardSocket::bind((lab::FAR, FIRST_PORT + n).into(), &options)?;
            #[expect(unsafe_code, reason = "tokio cannot know whether a foreign type closes its descriptor early")]
            // SAFETY: a `ShardSocket` owns its descriptor: it stays open, and the same, until the `AsyncFd` drops it.
            let mut socket = unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) }?;
            loop {
                let mut ready = socket.readable_mut().await?;
                while ready.get_inner_mut().recv_batch(&mut batch.borrow_mut())? {}
                ready.clear_ready();
            }
        })
    });
    let receivers: Vec<tokio::task::JoinHandle<io::Result<()>>> = receivers.collect();
    runtime.block_on(tasks.run_until(async {
        for receiver in receivers {
            receiver.await??;
        }
        Ok(())
    }))
}

/// The loop's process and its receivers'.
pub struct Reference {
    process: Child,
    answers: BufReader<ChildStdout>,
    sink: Child,
}

impl Reference {
    /// Starts both.
    ///
    /// # Errors
    /// One does not start.
    pub fn start(lab: &Lab, players: u32, load: Load, own_core: bool) -> anyhow::Result<Self> {
        let program = std::env::current_exe()?;
        let sink = lab.far(&program).args(["sink", &players.to_string()]).spawn()?;
        let arguments = ["reference", &players.to_string(), &format!("{load:?}").to_lowercase()];
        let mut command = lab.near(&program);
        let mut process = command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        if own_core {
            // Threads that it starts, and the program that it becomes, are as it is.
            lab::put_first(process.id(), "")?;
        }
        let answers = BufReader::new(process.stdout.take().expect("piped"));
        Ok(Self { process, answers, sink })
    }

    /// One turn.
    ///
    /// # Errors
    /// The process has ended.
    pub fn turn(&mut self, time: Duration) -> anyhow::Result<Turn> {
        let input = self.process.stdin.as_mut().expect("piped");
        writeln!(input, "{}", time.as_secs_f64()).context("the reference loop has ended")?;
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        serde_json::from_str(&line).context("the reference loop has ended")
    }
}

impl Drop for Reference {
    fn drop(&mut self) {
        for process in [&mut self.process, &mut self.sink] {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}
