//! `tableside-load`: thousands of WHEP players and WHIP publishers against one server.
//!
//! `main` → `run` (the plan) → `signalling` (HTTP) and `worker` (threads with sockets) → `player` (with `bettor`),
//! `publisher` → `client` (ICE, DTLS, SRTP). Below `worker` nothing reads a clock or a socket.

#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "tests begin at some instant"))]

mod answer;
mod bettor;
mod channels;
mod client;
mod clock;
mod data_side;
mod offer;
mod options;
mod player;
mod publisher;
mod report;
mod run;
mod server;
mod signalling;
mod socket;
mod source;
mod stamp;
mod tally;
mod worker;

use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser;

use crate::options::Options;
use crate::report::Report;

fn main() -> ExitCode {
    let mut options = Options::parse();
    if let Err(error) = options.check() {
        eprintln!("tableside-load: {error}\nSee tableside-load --help.");
        return ExitCode::from(2);
    }
    let secret = |given: Option<String>, variable| given.or_else(|| std::env::var(variable).ok());
    options.publish_token = secret(options.publish_token.take(), "TABLESIDE_LOAD_PUBLISH_TOKEN");
    options.token = secret(options.token.take(), "TABLESIDE_LOAD_TOKEN");
    match load(&options) {
        Ok(report) => match report.complaint(options.no_loss) {
            None => ExitCode::SUCCESS,
            Some(complaint) => {
                eprintln!("tableside-load: {complaint}");
                ExitCode::FAILURE
            }
        },
        Err(error) => {
            eprintln!("tableside-load: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn load(options: &Options) -> anyhow::Result<Report> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let report = runtime.block_on(run::run(options.clone()))?;
    match options.json.as_deref() {
        Some(path) if path == Path::new("-") => println!("{}", serde_json::to_string_pretty(&report)?),
        Some(path) => {
            let json = serde_json::to_string_pretty(&report)? + "\n";
            std::fs::write(path, json).with_context(|| format!("cannot write {}", path.display()))?;
            print!("{}", report.table());
        }
        None => print!("{}", report.table()),
    }
    Ok(report)
}
