//! The whole node against the reference loop: same machine, same path, same load, by turns. See `docs/benchmarks.md`.

#![allow(clippy::disallowed_methods, reason = "a bench reads the clock")]

#[path = "../allocations.rs"]
mod allocations;
mod curve;
mod janus;
mod lab;
mod load;
mod loop_process;
mod measure;
mod node;
#[path = "../reference/mod.rs"]
mod reference;
mod results;
mod server;
#[path = "../../tools/loadgen/src/source.rs"]
#[allow(dead_code, unused_imports, reason = "the generator's own: not all of it is needed here")]
mod source;
#[path = "../../tools/loadgen/src/stamp.rs"]
#[allow(dead_code, unused_imports, reason = "as above")]
mod stamp;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use lab::{Arrivals, Link};
use load::Load;
use measure::Plan;
use server::Kind;

/// Measures what a forwarded packet costs the whole node, and what it costs the reference loop.
#[derive(Parser)]
#[command(after_help = "Needs root. The node, the players and the cable between them are gone when it ends.\n\n\
    Examples:\n  cargo bench --bench node\n  cargo bench --bench node -- --players 500 --load paced --rounds 1\n  \
    cargo bench --bench node -- --accept\n  \
    cargo bench --bench node -- --server janus --players 40,100,200 --load paced")]
struct Options {
    #[command(subcommand)]
    role: Option<Part>,
    /// What is measured. Janus has to be installed; WHIP and WHEP for it are the bench's.
    #[arg(long, value_enum, default_value_t = Kind::Node)]
    server: Kind,
    /// Numbers of players.
    #[arg(long, value_delimiter = ',', default_value = "1,40,100,500,1000,2000", value_name = "LIST")]
    players: Vec<u32>,
    /// What the tables send.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "paced,trace", value_name = "LIST")]
    load: Vec<Load>,
    /// Tables, in spread phases; players are spread over them.
    #[arg(long, default_value_t = 1, value_name = "N")]
    tables: u32,
    /// The node's shards, all on its one CPU: what a packet costs more with two than with one is what sharing costs.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64), value_name = "N")]
    shards: u16,
    /// Turns of the node and of the loop for each row.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100), value_name = "N")]
    rounds: u32,
    /// How long a turn of the node is measured.
    #[arg(long, default_value_t = 8, value_name = "N")]
    seconds: u64,
    /// The CPU of the node and of the reference loop.
    #[arg(long, default_value_t = 0, value_name = "CPU")]
    node_cpu: usize,
    /// The CPU of the players and of all else.
    #[arg(long, default_value_t = 1, value_name = "CPU")]
    players_cpu: usize,
    /// Where the kernel handles what players send: on their CPU, as a network card does whose interrupts are steered away
    /// from the shards' cores, or on the node's.
    #[arg(long, value_enum, default_value_t = Arrivals::Players)]
    arrivals: Arrivals,
    /// Refuse players beyond this utilisation of the node's core, in percent (`sessions.max_shard_utilisation_percent`).
    #[arg(long, default_value_t = 100, value_name = "PERCENT")]
    max_utilisation: u8,
    /// Send keyframes at once instead of spread over the time until the next frame (`media.pacing`).
    #[arg(long)]
    no_pacing: bool,
    /// Players report how they play over data channels as well, every two seconds, as pages with tableside's player SDK do.
    #[arg(long)]
    reports: bool,
    /// Keep the node's CPU for its shards and for the loop, as where a Kubernetes node gives the pod whole cores of its own
    /// (`static` CPU manager): nothing else runs there while they have anything to do.
    #[arg(long)]
    own_core: bool,
    /// Have tables leave out frames that would be sent more than a millisecond late, because the generator was held up: else
    /// the late frames of all tables come at once, and the delay is that of a burst.
    #[arg(long)]
    punctual: bool,
    /// A bottleneck behind the node, in Mbit/s and kB that may wait: what does not fit is lost. The reference loop's as well,
    /// whose figures then say nothing.
    #[arg(long, value_name = "MBIT,KB")]
    link: Option<Link>,
    /// Draw the delay against the use of the core into this SVG file; wants several numbers of players.
    #[arg(long, value_name = "FILE")]
    curve: Option<PathBuf>,
    /// Keep the results as the accepted ones, which later runs are compared with.
    #[arg(long)]
    accept: bool,
    /// Cargo passes it.
    #[arg(long, hide = true)]
    bench: bool,
}

/// What the bench's own processes are.
#[derive(Subcommand)]
enum Part {
    /// The node, with its allocations counted.
    #[command(hide = true)]
    Node {
        /// Its configuration.
        config: PathBuf,
        /// Where it tells how often it has allocated.
        allocations: PathBuf,
    },
    /// WHIP and WHEP for Janus.
    #[command(hide = true)]
    Bridge {
        /// Where Janus' socket is.
        folder: PathBuf,
    },
    /// The reference loop; takes orders on standard input.
    #[command(hide = true)]
    Reference {
        /// How many it sends to.
        players: u16,
        /// What.
        #[arg(value_enum)]
        load: Load,
    },
    /// Who receives what the reference loop sends.
    #[command(hide = true)]
    Sink {
        /// How many sockets.
        players: u16,
    },
}

fn main() -> ExitCode {
    run(Options::parse()).unwrap_or_else(|error| {
        eprintln!("node bench: {error:#}");
        ExitCode::FAILURE
    })
}

fn run(options: Options) -> anyhow::Result<ExitCode> {
    match options.role {
        Some(Part::Node { config, allocations }) => node::run(&config, &allocations)?,
        Some(Part::Bridge { folder }) => janus::bridge(&folder)?,
        Some(Part::Reference { players, load }) => loop_process::run(players, load)?,
        Some(Part::Sink { players }) => loop_process::sink(players)?,
        None => match lab::inside() {
            Some(generator) => measure(options, &generator)?,
            // Cargo may have to fetch what the generator is made of, which it cannot from in there.
            None => return lab::enter(&measure::build_generator()?),
        },
    }
    Ok(ExitCode::SUCCESS)
}

fn measure(options: Options, generator: &Path) -> anyhow::Result<()> {
    let is_node = options.server == Kind::Node;
    anyhow::ensure!(is_node || !options.reports, "--reports is for the node: Janus reads none");
    anyhow::ensure!(is_node || !options.own_core, "--own-core is for the node: it is by the names of its threads");
    anyhow::ensure!(is_node || options.shards == 1, "--shards is for the node: Janus has one event loop here");
    let plan = Plan {
        server: options.server,
        players: options.players,
        loads: options.load,
        tables: options.tables,
        shards: options.shards,
        rounds: options.rounds,
        seconds: options.seconds,
        cpus: [options.node_cpu, options.players_cpu],
        arrivals: options.arrivals,
        max_utilisation: options.max_utilisation,
        pacing: !options.no_pacing,
        reports: options.reports,
        own_core: options.own_core,
        punctual: options.punctual,
        link: options.link,
    };
    let rows = plan.run(generator)?;
    results::print(&rows, options.server);
    if let Some(file) = &options.curve {
        curve::draw(&rows, options.tables, file)?;
    }
    // The accepted rows are the node's, of one table and one shard, as it is by itself.
    let as_usual =
        options.link.is_none() && !(options.no_pacing || options.reports || options.own_core || options.punctual);
    let usual = is_node && (options.tables, options.shards) == (1, 1) && as_usual;
    match options.accept {
        _ if !usual => {
            anyhow::ensure!(
                !options.accept,
                "--accept is for the node with one table, one shard, pacing, and none of --link, --reports, --own-core and --punctual"
            );
            Ok(())
        }
        true => results::accept(&rows),
        false => results::compare(&rows),
    }
}
