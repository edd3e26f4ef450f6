//! A crowd of players in one process that join and leave at random: the other side of the churn scenario.
//!
//! `cargo run --example crowd -- --url http://127.0.0.1:8080/whep/demo --players 100 --seconds 60`

#![allow(clippy::disallowed_methods, reason = "a crowd lives in real time")]

#[path = "mod.rs"]
mod peers;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use peers::{Player, PlayerOptions, client};
use serde_json::json;

/// How long a join may take before it counts as failed.
const JOIN_LIMIT: Duration = Duration::from_secs(20);

/// Keeps players coming and going for a while, and says how it went as a line of JSON.
#[derive(Clone, Parser)]
struct Options {
    /// The WHEP endpoint.
    #[arg(long)]
    url: String,
    /// How many there are at a time, at most.
    #[arg(long, default_value_t = 100)]
    players: u64,
    /// For how long.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// The shortest and the longest stay, in milliseconds.
    #[arg(long, default_value_t = 2_000)]
    shortest: u64,
    #[arg(long, default_value_t = 20_000)]
    longest: u64,
    /// What the dice start from.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// What one place of the crowd saw.
#[derive(Default)]
struct Outcome {
    joins: u64,
    packets: u64,
    failures: Vec<String>,
}

#[tokio::main]
async fn main() -> ExitCode {
    let options = Options::parse();
    let places: Vec<_> = (0..options.players).map(|n| tokio::spawn(occupy(options.clone(), n))).collect();
    let mut all = Outcome::default();
    for place in places {
        match place.await {
            Ok(one) => {
                all.joins += one.joins;
                all.packets += one.packets;
                all.failures.extend(one.failures);
            }
            Err(error) => all.failures.push(error.to_string()),
        }
    }
    println!(
        "{}",
        json!({"joins": all.joins, "packets": all.packets, "failures": all.failures.len(),
            "examples": all.failures.iter().take(5).collect::<Vec<_>>()})
    );
    if all.failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// One place: a player after the other.
async fn occupy(options: Options, n: u64) -> Outcome {
    let mut dice = Dice(options.seed.wrapping_mul(1_000_003).wrapping_add(n) | 1);
    let end = Instant::now() + Duration::from_secs(options.seconds);
    let (http, mut outcome) = (client(), Outcome::default());
    // Not all at the same instant: a storm of joins is another test's subject.
    tokio::time::sleep(Duration::from_millis(dice.between(0, options.longest / 2))).await;
    while Instant::now() < end {
        let stay = Duration::from_millis(dice.between(options.shortest, options.longest));
        match visit(&http, &options.url, stay.min(end.saturating_duration_since(Instant::now()))).await {
            Ok(packets) => outcome.packets += packets,
            Err(error) => outcome.failures.push(format!("{error:#}")),
        }
        outcome.joins += 1;
    }
    outcome
}

async fn visit(http: &reqwest::Client, url: &str, stay: Duration) -> anyhow::Result<u64> {
    let player = Player::join(http, url, &PlayerOptions::default()).await?;
    let outcome = player.playing(JOIN_LIMIT).await;
    if outcome.is_ok() {
        tokio::time::sleep(stay).await;
    }
    let seen = player.leave().await?;
    outcome?;
    Ok(seen.video.packets)
}

/// xorshift64*: the same seed throws the same.
struct Dice(u64);

impl Dice {
    fn between(&mut self, low: u64, high: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        low + (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % (high - low + 1)
    }
}
