//! The figures: a table, and what has changed since the accepted ones.

use std::fmt;
use std::path::PathBuf;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use crate::load::Load;
use crate::loop_process::Turn;
use crate::measure::ServerTurn;
use crate::server::Kind;

/// Smaller changes of a ratio are noise on a machine with neighbours.
const NOISE: f64 = 0.08;

/// One load with one number of players. Medians over the turns.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Row {
    load: Load,
    players: u32,
    /// CPU for each packet in nanoseconds: the sealing alone, the reference loop, the node or what was measured instead.
    seal: f64,
    reference: f64,
    node: f64,
    /// Node to loop, each turn to the mean of the loop's before and after it.
    ratio: f64,
    /// The smallest and the largest.
    ratios: [f64; 2],
    /// Of one CPU.
    cores: f64,
    gigabits_per_second: f64,
    /// From the publisher's send call to the player's kernel: p50 and p99, milliseconds.
    delay_ms: [f64; 2],
    /// What the loop needs for one frame to all.
    reference_frame_ms: f64,
    allocations_per_packet: Option<f64>,
    resident_mib: f64,
    /// Players.
    refused: u64,
    #[serde(default)]
    silent: u64,
    /// Packets.
    lost: u64,
    #[serde(default)]
    broken: u64,
    overflowed: u64,
    /// Frames of the publishers.
    #[serde(default)]
    left_out: u64,
}

impl Row {
    /// Of the server's turns and the loop's: one before the first of the server, and one after each.
    ///
    /// # Panics
    /// Without turns.
    pub fn new(load: Load, players: u32, loops: &[Turn], servers: &[ServerTurn]) -> Self {
        let mut ratios: Vec<f64> = loops
            .windows(2)
            .zip(servers)
            .map(|(loops, server)| 2.0 * server.nanoseconds / (loops[0].nanoseconds + loops[1].nanoseconds))
            .collect();
        ratios.sort_by(f64::total_cmp);
        let of_loops = |value: fn(&Turn) -> f64| median(loops.iter().map(value));
        let of_servers = |value: fn(&ServerTurn) -> f64| median(servers.iter().map(value));
        let sum = |value: fn(&ServerTurn) -> u64| servers.iter().map(value).sum();
        let allocations: Option<Vec<f64>> = servers.iter().map(|turn| turn.allocations).collect();
        Self {
            load,
            players,
            seal: of_loops(|turn| turn.seal_nanoseconds),
            reference: of_loops(|turn| turn.nanoseconds),
            node: of_servers(|turn| turn.nanoseconds),
            ratio: median(ratios.iter().copied()),
            ratios: [ratios[0], ratios[ratios.len() - 1]],
            cores: of_servers(|turn| turn.cores),
            gigabits_per_second: of_servers(|turn| turn.bits_per_second) / 1e9,
            delay_ms: [of_servers(|turn| turn.delay_ms[0]), of_servers(|turn| turn.delay_ms[1])],
            reference_frame_ms: of_loops(|turn| turn.frame_ms),
            allocations_per_packet: allocations.map(|of_turns| median(of_turns.into_iter())),
            resident_mib: of_servers(|turn| turn.resident_bytes as f64) / f64::from(1 << 20),
            refused: sum(|turn| turn.refused),
            silent: sum(|turn| turn.silent),
            lost: sum(|turn| turn.lost),
            broken: sum(|turn| turn.broken),
            overflowed: sum(|turn| turn.overflowed),
            left_out: sum(|turn| turn.left_out),
        }
    }

    /// How many watched.
    pub fn players(&self) -> u32 {
        self.players
    }

    /// What the node used of one CPU.
    pub fn cores(&self) -> f64 {
        self.cores
    }

    /// From the publisher's send call to the player's kernel: p50 and p99.
    pub fn delay_ms(&self) -> [f64; 2] {
        self.delay_ms
    }

    /// Whether a packet did not arrive, on account of whomsoever.
    pub fn has_losses(&self) -> bool {
        self.lost > 0
    }
}

/// With room for what is measured, and for what it needs beside the loop.
fn heading(server: &str, rest: &str) -> String {
    format!(
        "load   players    seal  kernel    loop {server:>7} {rest:>7}   ratio (min..max)     CPU  packets/core  Gbit/s   \
         delay p50    p99  loop's frame  allocations  memory"
    )
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let load = format!("{:?}", self.load).to_lowercase();
        let allocations = self.allocations_per_packet.map_or_else(|| "-".into(), |each| format!("{each:.4}"));
        write!(
            f,
            "{load:<6} {:>7} {:>7.0} {:>7.0} {:>7.0} {:>7.0} {:>7.0} {:>7.2} ({:.2}..{:.2}) {:>6.1} % {:>12.0} {:>7.2} {:>8.2} ms {:>6.2} {:>10.2} ms {allocations:>12} {:>6.0} M",
            self.players,
            self.seal,
            self.reference - self.seal,
            self.reference,
            self.node,
            self.node - self.reference,
            self.ratio,
            self.ratios[0],
            self.ratios[1],
            100.0 * self.cores,
            1e9 / self.node,
            self.gigabits_per_second,
            self.delay_ms[0],
            self.delay_ms[1],
            self.reference_frame_ms,
            self.resident_mib,
        )?;
        if self.refused > 0 {
            write!(f, "   refused {}", self.refused)?;
        }
        if self.left_out > 0 {
            write!(f, "   the generator left out {} frames", self.left_out)?;
        }
        if self.silent > 0 {
            write!(f, "   RECEIVED NOTHING {}", self.silent)?;
        }
        if self.lost > 0 {
            write!(f, "   LOST {}", self.lost)?;
        }
        if self.broken > 0 {
            write!(f, "   BROKEN {}", self.broken)?;
        }
        if self.overflowed > 0 {
            write!(f, "   the generator lost some itself: {}", self.overflowed)?;
        }
        Ok(())
    }
}

/// Prints them all.
pub fn print(rows: &[Row], server: Kind) {
    let (server, rest) = match server {
        Kind::Node => ("node", "ours"),
        Kind::Janus => ("janus", "rest"),
    };
    println!(
        "CPU in nanoseconds for each packet to a player; kernel: loop without the sealing; {rest}: {server} without the loop"
    );
    println!("{}", heading(server, rest));
    rows.iter().for_each(|row| println!("{row}"));
    for load in [Load::Paced, Load::Trace, Load::Thin] {
        let with = |players| rows.iter().find(|row| row.load == load && row.players == players);
        if let (Some(few), Some(many)) = (with(500), with(2000)) {
            let kibibytes = (many.resident_mib - few.resident_mib) * 1024.0 / 1500.0;
            println!("{load:?}: memory for each player from 500 to 2000: {kibibytes:.1} KiB");
        }
    }
}

fn accepted() -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "benches", "node", "accepted.json"].iter().collect()
}

/// Keeps these results, and those accepted ones that were not measured this time.
///
/// # Errors
/// The file cannot be read or written.
pub fn accept(rows: &[Row]) -> anyhow::Result<()> {
    let is_new = |row: &&Row| rows.iter().all(|new| (new.load, new.players) != (row.load, row.players));
    let mut all: Vec<Row> = read_accepted()?.iter().filter(is_new).chain(rows).cloned().collect();
    all.sort_by_key(|row| (row.load as u8, row.players));
    std::fs::write(accepted(), serde_json::to_string_pretty(&all)? + "\n").context("accepted.json")
}

fn read_accepted() -> anyhow::Result<Vec<Row>> {
    let text = std::fs::read_to_string(accepted()).context("accepted.json")?;
    serde_json::from_str(&text).context("accepted.json")
}

/// Says where the ratio has left the accepted one by more than noise.
///
/// # Errors
/// The accepted results cannot be read.
pub fn compare(rows: &[Row]) -> anyhow::Result<()> {
    let accepted = read_accepted()?;
    for row in rows {
        let Some(before) = accepted.iter().find(|b| (b.load, b.players) == (row.load, row.players)) else { continue };
        let change = row.ratio / before.ratio - 1.0;
        let verdict = match change {
            change if change > NOISE => "WORSE",
            change if change < -NOISE => "better",
            _ => "as before",
        };
        println!(
            "{:?}, {} players: ratio {:.2}, accepted {:.2}: {verdict} ({:+.0} %)",
            row.load,
            row.players,
            row.ratio,
            before.ratio,
            100.0 * change
        );
    }
    Ok(())
}

/// Of an even number the upper one of the two in the middle: nothing looks better than it was.
fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
