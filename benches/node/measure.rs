//! The plan: for each load and number of players, turns of the loop and of the server.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use serde_json::Value;

use crate::lab::{Arrivals, Lab, Link};
use crate::load::Load;
use crate::loop_process::Reference;
use crate::node::{Allocations, TOKENS};
use crate::results::Row;
use crate::server::{Kind, Server};

/// Of a turn of the loop, once with the sealing alone and once with all.
const REFERENCE_TURN: Duration = Duration::from_secs(3);

/// Players that open and check what they get: the delay is theirs.
const CHECKING_PLAYERS: f64 = 20.0;

const JOINS_PER_SECOND: u32 = 300;

/// What is to be measured.
pub struct Plan {
    /// Of what.
    pub server: Kind,
    /// Numbers of players.
    pub players: Vec<u32>,
    /// What they watch.
    pub loads: Vec<Load>,
    /// How many tables.
    pub tables: u32,
    /// How many shards the node has.
    pub shards: u16,
    /// Turns.
    pub rounds: u32,
    /// Length of a turn of the node.
    pub seconds: u64,
    /// The node's, the players'.
    pub cpus: [usize; 2],
    /// Where the kernel handles what players send.
    pub arrivals: Arrivals,
    /// Players beyond it are refused; percent.
    pub max_utilisation: u8,
    /// Whether the node spreads keyframes.
    pub pacing: bool,
    /// Whether players report how they play over data channels.
    pub reports: bool,
    /// Whether nothing else runs on the node's CPU while a shard could.
    pub own_core: bool,
    /// Whether tables leave out what they would send late.
    pub punctual: bool,
    /// What is between the node and the players.
    pub link: Option<Link>,
}

impl Plan {
    /// Runs it.
    ///
    /// # Errors
    /// Something does not start or fails; packets that are lost are a result and no error.
    pub fn run(&self, generator: &Path) -> anyhow::Result<Vec<Row>> {
        self.server.is_installed()?;
        let lab = Lab::new(self.cpus[0], self.cpus[1], self.arrivals)?;
        self.link.map_or(Ok(()), |link| lab.throttle(link))?;
        let folder = std::env::temp_dir().join(format!("tableside-bench-{}", std::process::id()));
        std::fs::create_dir_all(&folder)?;
        let rows = self.rows(&lab, generator, &folder);
        std::fs::remove_dir_all(&folder)?;
        rows
    }

    fn rows(&self, lab: &Lab, generator: &Path, folder: &Path) -> anyhow::Result<Vec<Row>> {
        let mut rows = Vec::new();
        for &load in &self.loads {
            for &players in &self.players {
                eprintln!("{load:?}, {players} players …");
                match self.row(lab, generator, folder, load, players) {
                    Ok(row) => {
                        eprintln!("  {row}");
                        rows.push(row);
                    }
                    // A server that is not ours may fail in any way, and that is a result.
                    Err(error) if self.server != Kind::Node => eprintln!("  NO FIGURES: {error:#}"),
                    Err(error) => return Err(error),
                }
            }
        }
        anyhow::ensure!(!rows.is_empty(), "no row has figures");
        Ok(rows)
    }

    fn row(&self, lab: &Lab, generator: &Path, folder: &Path, load: Load, players: u32) -> anyhow::Result<Row> {
        let mut reference = Reference::start(lab, players, load, self.own_core)?;
        let server = Server::start(self, lab, folder)?;
        let (mut loops, mut turns) = (vec![reference.turn(REFERENCE_TURN)?], Vec::new());
        for _ in 0..self.rounds {
            turns.push(self.server_turn(lab, generator, &server, load, players)?);
            loops.push(reference.turn(REFERENCE_TURN)?);
        }
        server.stop()?;
        Ok(Row::new(load, players, &loops, &turns))
    }

    fn server_turn(
        &self,
        lab: &Lab,
        generator: &Path,
        server: &Server,
        load: Load,
        players: u32,
    ) -> anyhow::Result<ServerTurn> {
        let mut command = lab.far(generator);
        command
            .args(["--whip", &server.url("whip"), "--whep", &server.url("whep"), "--publish-token", &TOKENS.publisher])
            .args(["--token", &TOKENS.player])
            .args(["--tables", &self.tables.to_string(), "--players", &players.to_string()])
            .args(["--join-rate", &JOINS_PER_SECOND.to_string(), "--seconds", &self.seconds.to_string()])
            .args(["--verify", &(CHECKING_PLAYERS / f64::from(players)).min(1.0).to_string()])
            .args(["--server-pid", &server.pid().to_string(), "--json", "-"])
            .args(load.arguments())
            .args(self.reports.then_some("--reports"))
            .args(self.punctual.then_some("--leave-out-late=1"));
        let sampler = server.allocations().map(Sampler::start);
        let output = command.stdout(Stdio::piped()).stderr(Stdio::inherit()).output()?;
        let samples = sampler.map(Sampler::stop).transpose()?;
        let report: Value = serde_json::from_slice(&output.stdout)
            .with_context(|| format!("the generator ended with {}", output.status))?;
        let publisher = &report["publishers"]["failures"];
        anyhow::ensure!(sum(publisher) == 0, "the publisher was lost: {publisher}");
        ServerTurn::read(&report, samples.as_deref())
            .with_context(|| format!("the generator's report has not all that is needed: {report}"))
    }
}

/// How many failed, of an object of causes.
fn sum(failures: &Value) -> u64 {
    failures.as_object().into_iter().flatten().filter_map(|(_, count)| count.as_u64()).sum()
}

/// What the generator reports of the server in one turn.
#[derive(Clone, Debug)]
pub struct ServerTurn {
    /// CPU for each packet that reached a player, in nanoseconds.
    pub nanoseconds: f64,
    /// Of one CPU.
    pub cores: f64,
    /// To players, UDP payload.
    pub bits_per_second: f64,
    /// From the publisher's send call to the player's kernel, in milliseconds: p50, p99.
    pub delay_ms: [f64; 2],
    /// Players that were refused, did not connect, or were lost.
    pub refused: u64,
    /// Players that connected and received nothing.
    pub silent: u64,
    /// Packets that did not reach a player, or only when sent again.
    pub lost: u64,
    /// Packets that were no RTP or RTCP with the right key, and payloads that were not the publisher's.
    pub broken: u64,
    /// Times that the generator itself lost some.
    pub overflowed: u64,
    /// Frames of the publishers that were left out because the generator was late.
    pub left_out: u64,
    /// Memory of the server.
    pub resident_bytes: u64,
    /// Allocations for each packet, where the server counts them.
    pub allocations: Option<f64>,
}

impl ServerTurn {
    fn read(report: &Value, samples: Option<&[Sample]>) -> Option<Self> {
        let (server, players) = (&report["server"], &report["players"][0]);
        Some(Self {
            nanoseconds: server["cpu_nanoseconds_per_packet"].as_f64()?,
            cores: server["cores"].as_f64()?,
            bits_per_second: report["bits_per_second"].as_f64()?,
            delay_ms: [players["delay_ms"]["p50"].as_f64()?, players["delay_ms"]["p99"].as_f64()?],
            refused: sum(&players["failures"]),
            silent: players["silent"].as_u64()?,
            lost: players["lost"].as_u64()? + players["recovered"].as_u64()?,
            broken: players["undecryptable"].as_u64()? + players["changed"].as_u64()?,
            overflowed: players["overflowed"].as_u64()?,
            left_out: report["publishers"]["left_out"].as_u64()?,
            resident_bytes: server["resident_bytes"].as_u64()?,
            allocations: match samples {
                Some(samples) => Some(allocations(report, samples)?),
                None => None,
            },
        })
    }
}

/// For each packet, between the first and the last sample within: what joining and leaving allocate is none of it.
fn allocations(report: &Value, samples: &[Sample]) -> Option<f64> {
    let (began, seconds) = (report["began"].as_f64()?, report["seconds"].as_f64()?);
    let within = |sample: &&Sample| (began..began + seconds).contains(&sample.unix_seconds);
    let (first, last) = (samples.iter().find(within)?, samples.iter().rev().find(within)?);
    let share = (last.unix_seconds - first.unix_seconds) / seconds;
    let packets = report["players"][0]["packets"].as_f64()? * share;
    Some((last.allocations - first.allocations) as f64 / packets)
}

/// How often the node had allocated at some time.
struct Sample {
    unix_seconds: f64,
    allocations: u64,
}

/// Asks the node four times a second.
struct Sampler {
    stop: mpsc::Sender<()>,
    thread: JoinHandle<anyhow::Result<Vec<Sample>>>,
}

impl Sampler {
    fn start(allocations: Allocations) -> Self {
        let (stop, stopped) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            let mut samples = Vec::new();
            while stopped.recv_timeout(Duration::from_millis(250)) == Err(mpsc::RecvTimeoutError::Timeout) {
                let unix_seconds = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs_f64();
                samples.push(Sample { unix_seconds, allocations: allocations.ask()? });
            }
            Ok(samples)
        });
        Self { stop, thread }
    }

    fn stop(self) -> anyhow::Result<Vec<Sample>> {
        drop(self.stop);
        self.thread.join().expect("it does not panic")
    }
}

/// The load generator in its newest state.
///
/// # Errors
/// It does not build.
pub fn build_generator() -> anyhow::Result<PathBuf> {
    let root = env!("CARGO_MANIFEST_DIR");
    let arguments = ["build", "--release", "--locked", "-p", "tableside-load", "--message-format=json"];
    let output = Command::new(env!("CARGO")).current_dir(root).args(arguments).stderr(Stdio::inherit()).output()?;
    anyhow::ensure!(output.status.success(), "the load generator does not build");
    let messages = String::from_utf8_lossy(&output.stdout);
    let messages = messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let mut programs = messages.filter(|message| message["target"]["name"] == "tableside-load");
    let program = programs.find_map(|message| message["executable"].as_str().map(PathBuf::from));
    program.context("cargo does not say where the load generator is")
}
