//! CPU per forwarded packet, against the reference loop in the same run. See `docs/benchmarks.md`.

#![allow(clippy::disallowed_methods, reason = "a bench reads the clock")]

#[path = "../allocations.rs"]
mod allocations;
mod gateway;
mod path;
#[path = "../reference/mod.rs"]
mod reference;
mod scaling;
mod turns;
#[path = "../../tests/scenarios/world/mod.rs"]
mod world;

use std::io;
use std::net::{Ipv6Addr, SocketAddr};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use gateway::Gateway;
use path::Path;
use reference::viewer::{Aead, HEADER_LEN, Viewer, sealed_len};
use reference::{Frame, ReferenceLoop};
use tableside::fanout::{SendBatch, TrafficClass};
use tableside::net::{SendOutcome, ShardSocket, UdpOptions};
use tableside::rtc::TransportAddress;
use turns::{Contender, Schedule};

/// Measures what it costs to send a frame to many players.
#[derive(Parser)]
struct Options {
    /// Players, each with a key and an address of its own.
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u16).range(1..=60_000))]
    players: u16,
    /// Packets in a frame.
    #[arg(long, default_value_t = 9, value_parser = clap::value_parser!(u16).range(1..=50))]
    packets: u16,
    /// Bytes of a packet before it is encrypted, its RTP header included.
    #[arg(long, default_value_t = 1150, value_parser = clap::value_parser!(u16).range(64..=1400))]
    bytes: u16,
    /// How long each contender runs, in seconds.
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// Into how many turns that is divided.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=1000))]
    rounds: u16,
    /// Frames per second; 0 for as many as the core can do.
    #[arg(long, default_value_t = 0)]
    fps: u32,
    /// What the reference loop and the container seal with. The shard's players negotiate for themselves, and since they
    /// offer AES-256-GCM they get it.
    #[arg(long, value_enum, default_value_t = Aead::Aes256Gcm)]
    aead: Aead,
    /// Compares one shard with two on a core each, with as many players each, instead.
    #[arg(long)]
    scaling: bool,
    /// Runs the shard alone, for a profiler.
    #[arg(long)]
    profile: bool,
    /// Cargo passes it.
    #[arg(long, hide = true)]
    bench: bool,
}

impl Options {
    fn schedule(&self) -> Schedule {
        Schedule {
            rounds: self.rounds.into(),
            turn: Duration::from_secs_f64(self.seconds / f64::from(self.rounds)),
            frame_interval: Duration::from_secs(1).checked_div(self.fps).unwrap_or_default(),
        }
    }

    /// Payloads of one frame: what its packets have behind their headers.
    fn frame(&self) -> Vec<Vec<u8>> {
        vec![vec![0x5a; usize::from(self.bytes) - HEADER_LEN]; self.packets.into()]
    }

    fn reference_frame(&self) -> Frame {
        Frame::new(&vec![usize::from(self.bytes) - HEADER_LEN; self.packets.into()], &[])
    }
}

fn main() -> ExitCode {
    let options = Options::parse();
    if let Some(code) = path::enter_namespace() {
        return code;
    }
    match run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("egress: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let _entered = runtime.enter();
    let path = Path::open()?;
    let addresses = || (0..options.players).map(|number| path.player(number));
    if options.scaling {
        println!("{} players on each shard; {}", options.players, path.describe());
        let twice = options.players.checked_mul(2).filter(|twice| *twice < 60_000);
        let twice =
            twice.ok_or_else(|| io::Error::other("--scaling has addresses for 29,999 players on each shard"))?;
        let players: Vec<SocketAddr> = (0..twice).map(|number| path.player(number)).collect();
        return scaling::run(&players, options.packets, options.bytes, options.schedule());
    }
    let viewers = || addresses().map(|address| Viewer::new(address, options.aead)).collect::<Vec<_>>();
    let mut reference = ReferenceLoop::new(viewers(), vec![options.reference_frame()])?;
    let mut batched = BatchLoop::new(viewers(), options.frame())?;
    let mut gateway = Gateway::new(addresses(), options.packets, options.bytes)?;

    println!(
        "{} players, {} packets of {} bytes a frame, {:?}; {}; {}",
        options.players,
        options.packets,
        sealed_len(options.frame()[0].len()),
        options.aead,
        if options.fps == 0 { "as fast as it goes".to_owned() } else { format!("{} frames/s", options.fps) },
        path.describe(),
    );
    if options.profile {
        turns::print(&turns::take_turns(&mut [&mut gateway], options.schedule()));
        return Ok(());
    }
    let (before, first, forwarded) = (path.swallowed(), gateway.outcome(), gateway.packets_forwarded());
    let series = turns::take_turns(&mut [&mut reference, &mut batched, &mut gateway], options.schedule());
    turns::print(&series);
    if let (Some(before), Some(after)) = (before, path.swallowed()) {
        let packets = series[..2].iter().map(|one| one.warm_up + one.packets).sum::<usize>();
        let runs = (packets / usize::from(options.packets)) as u64 + gateway.outcome().runs - first.runs;
        println!("runs sent: {runs}; seen by the device: {}", after - before);
    }
    for outcome in [batched.outcome, gateway.outcome()] {
        if outcome.dropped_buffer_full + outcome.dropped_error > 0 {
            return Err(io::Error::other("packets were dropped: the figures are worth nothing"));
        }
    }
    if gateway.packets_forwarded() - forwarded != (series[2].warm_up + series[2].packets) as u64 {
        return Err(io::Error::other("not every player got every packet: the figures are worth nothing"));
    }
    Ok(())
}

impl Contender for ReferenceLoop {
    fn name(&self) -> &str {
        "reference loop"
    }

    fn frame(&mut self, _now: Instant) -> usize {
        self.send_frame()
    }
}

/// The work of the reference loop through [`SendBatch`] and [`ShardSocket`]: what our own container costs.
struct BatchLoop {
    socket: ShardSocket,
    batch: SendBatch,
    viewers: Vec<Viewer>,
    frame: Vec<Vec<u8>>,
    outcome: SendOutcome,
}

impl BatchLoop {
    fn new(viewers: Vec<Viewer>, frame: Vec<Vec<u8>>) -> io::Result<Self> {
        let any = SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0));
        let (socket, report) = ShardSocket::bind(any, &UdpOptions::default())?;
        for setting in report.iter().filter(|setting| !setting.ok) {
            println!("note: {} is {}, wanted {}: {}", setting.name, setting.found, setting.wanted, setting.advice);
        }
        // As many runs before a flush as the reference loop has.
        let datagrams = reference::RUNS * frame.len();
        let batch = SendBatch::with_capacity(datagrams * sealed_len(frame[0].len()), datagrams);
        Ok(Self { socket, batch, viewers, frame, outcome: SendOutcome::default() })
    }

    fn flush(&mut self) {
        self.outcome += self.socket.send_batch(&self.batch);
        self.batch.clear();
    }
}

impl Contender for BatchLoop {
    fn name(&self) -> &str {
        "SendBatch and ShardSocket"
    }

    fn frame(&mut self, _now: Instant) -> usize {
        let before = self.outcome.datagrams;
        let packet_len = sealed_len(self.frame[0].len());
        for n in 0..self.viewers.len() {
            if !self.batch.has_room_for_run(self.frame.len(), packet_len) {
                self.flush();
            }
            let viewer = &mut self.viewers[n];
            let address = TransportAddress::udp(viewer.address);
            for payload in &self.frame {
                self.batch.push(address, TrafficClass::Video, packet_len, |out| viewer.seal(payload, out));
            }
        }
        self.flush();
        (self.outcome.datagrams - before) as usize
    }
}
