//! `tableside-netsim`: a bad network in front of a UDP port.

mod shell;

use std::io::Write as _;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use tableside_netsim::relay::Command;
use tableside_netsim::{Conditions, Relay};

/// Puts a bad network between UDP clients and a server: delay, jitter, loss, reordering, a bottleneck, blackouts, and a NAT
/// that forgets.
///
/// Each client is known to the server by a port of its own and has a link of its own in each direction. The same seed and
/// the same packets give the same fates. Settings are: delay=40ms jitter=30ms loss=5% burst=5%/4 gilbert=1%/25%/0%/80%
/// reorder=1%/20ms duplicate=1% rate=3mbit/48kB rate=none blackout=on.
///
/// Commands come on standard input, one a line; each is answered by a line of JSON. `both`, `up` (to the server) and `down`
/// with settings change the links, `rebind` gives clients new ports, `counts` says what became of the packets. `client 3 …`
/// means one of them, by the order in which they came, `new …` those to come, from their first packet on.
#[derive(Debug, Parser)]
#[command(version, after_help = EXAMPLES)]
struct Options {
    /// Where clients send to, and where that is passed on to. May be given several times.
    #[arg(long, value_name = "LISTEN=TO", required = true, value_parser = forward)]
    forward: Vec<(SocketAddr, SocketAddr)>,

    /// What the links of both directions are like.
    #[arg(long, value_name = "SETTINGS", default_value = "", hide_default_value = true)]
    both: String,

    /// What the links to the server are like, beyond --both.
    #[arg(long, value_name = "SETTINGS", default_value = "", hide_default_value = true)]
    up: String,

    /// What the links to the clients are like, beyond --both.
    #[arg(long, value_name = "SETTINGS", default_value = "", hide_default_value = true)]
    down: String,

    /// What chance is made from.
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    seed: u64,

    /// A command, and how long after the start it is followed. May be given several times.
    #[arg(long, value_name = "SECONDS COMMAND", value_parser = scheduled)]
    at: Vec<(Duration, Command)>,
}

const EXAMPLES: &str = "\
Examples:
  A phone at the edge of its cell, between a browser and a gateway that announces 127.0.0.2:
    tableside-netsim --forward 127.0.0.2:7000=127.0.0.1:7000 --both 'delay=40ms jitter=30ms burst=5%/4'
  3 Mbit/s, after ten seconds 600 kbit/s, after thirty 3 Mbit/s again:
    tableside-netsim --forward 127.0.0.2:7000=127.0.0.1:7000 --down rate=3mbit \\
                     --at '10 down rate=600kbit' --at '30 down rate=3mbit'
  A NAT that forgets everybody after a minute:
    tableside-netsim --forward 127.0.0.2:7000=127.0.0.1:7000 --at '60 rebind'";

fn main() -> ExitCode {
    let options = Options::parse();
    match run(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tableside-netsim: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn run(options: Options) -> anyhow::Result<()> {
    let both: Conditions = options.both.parse()?;
    let relay = Relay::new(both.with(&options.up)?, both.with(&options.down)?, options.seed);
    let mut plan = options.at;
    plan.sort_by_key(|(at, _)| *at);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let result = runtime.block_on(shell::run(relay, &options.forward, plan, say));
    // A thread may still wait for a line on standard input, which no process can call back.
    runtime.shutdown_background();
    result
}

/// One line on standard output. Whoever read it may be gone: then there is nobody to tell.
fn say(line: &serde_json::Value) {
    let _ = writeln!(std::io::stdout().lock(), "{line}");
}

fn forward(text: &str) -> Result<(SocketAddr, SocketAddr), String> {
    let problem = || "two addresses with ports, LISTEN=TO".to_owned();
    let (listen, to) = text.split_once('=').ok_or_else(problem)?;
    let (listen, to): (SocketAddr, SocketAddr) =
        (listen.parse().map_err(|_| problem())?, to.parse().map_err(|_| problem())?);
    if listen.is_ipv4() != to.is_ipv4() {
        return Err("both addresses have to be IPv4, or both IPv6".to_owned());
    }
    Ok((listen, to))
}

fn scheduled(text: &str) -> Result<(Duration, Command), String> {
    let (seconds, command) = text.split_once(' ').ok_or("seconds and a command: '10 down rate=600kbit'")?;
    let at =
        seconds.parse().ok().and_then(|s| Duration::try_from_secs_f64(s).ok()).ok_or("seconds first, as a number")?;
    Ok((at, Command::parse(command).map_err(|error| error.to_string())?))
}
