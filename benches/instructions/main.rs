//! How many instructions the hot functions take, counted by callgrind: a count says nothing about time, but it is the same on
//! a busy machine, so that a change that makes them longer shows. See `docs/benchmarks.md`.

#![allow(clippy::disallowed_methods, reason = "virtual time begins at some instant")]

mod callgrind;
mod hot;
#[path = "../../tests/scenarios/world/mod.rs"]
mod world;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser;

use callgrind::Counts;
use hot::Hot;

/// Of the accepted count: what another order of hashing makes. More is a finding, and so is less, which is to be accepted.
const TOLERANCE: f64 = 0.03;

/// Counts the instructions of the hot functions, and fails where they are not those that were accepted.
#[derive(Parser)]
#[command(
    after_help = "Needs valgrind (apt-get install valgrind).\n\nExamples:\n  cargo bench --bench instructions\n  \
    cargo bench --bench instructions -- --accept"
)]
struct Options {
    /// Keep what was counted as accepted (`benches/instructions/accepted.json`).
    #[arg(long)]
    accept: bool,
    /// Run one of them, for callgrind.
    #[arg(long, hide = true, value_enum)]
    run: Option<Hot>,
    /// Cargo passes it.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    let options = Options::parse();
    if let Some(hot) = options.run {
        hot.run();
        return ExitCode::SUCCESS;
    }
    match count(options.accept) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("instructions: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether all is as accepted.
fn count(accept: bool) -> anyhow::Result<bool> {
    let mut counted = BTreeMap::new();
    for hot in Hot::ALL {
        eprintln!("counting {} …", hot.name());
        counted.insert(hot.name().to_owned(), callgrind::count(hot)?);
    }
    if accept {
        std::fs::write(path(), serde_json::to_string_pretty(&counted)? + "\n").context("accepted.json")?;
    }
    let accepted: BTreeMap<String, Counts> =
        serde_json::from_str(&std::fs::read_to_string(path()).context("accepted.json")?).context("accepted.json")?;
    println!("{:<34} {:>8} {:>9} {:>10}", "instructions for each packet", "own", "accepted", "libraries");
    let mut same = true;
    for (name, counts) in &counted {
        let before = accepted.get(name).with_context(|| format!("{name} has no accepted count: run with --accept"))?;
        let change = f64::from(counts.own) / f64::from(before.own) - 1.0;
        let verdict = match change {
            change if change > TOLERANCE => "LONGER: make it shorter, or --accept it with a reason",
            change if change < -TOLERANCE => "SHORTER: --accept it, so that it stays",
            _ => "",
        };
        same &= verdict.is_empty();
        println!("{name:<34} {:>8} {:>9} {:>10} {verdict}", counts.own, before.own, counts.libraries);
    }
    Ok(same)
}

fn path() -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "benches", "instructions", "accepted.json"].iter().collect()
}
