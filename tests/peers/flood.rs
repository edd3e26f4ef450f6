//! Floods a gateway on this machine with datagrams that it has to throw away: the other side of the udp-floods scenario.
//!
//! `cargo run --example flood -- --target 127.0.0.1:7000 --kind bindings --rate 50000 --seconds 10`

#![allow(clippy::disallowed_methods, reason = "a flood lives in real time")]

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use clap::{Parser, ValueEnum};
use serde_json::json;
use tableside::rtc::dtls::{DtlsIdentity, DtlsOutput, DtlsScratch, DtlsTransport};
use tableside::rtc::sdp::DtlsRole;
use tableside::rtc::stun::{IceRole, IntegrityKey, RequestParameters, write_request};

/// Nobody needs more to make the point, and two cores cannot do much more.
const MOST_A_SECOND: u64 = 200_000;
const MOST_SECONDS: u64 = 60;

/// Different datagrams, sent one after the other and over again.
const VARIETY: usize = 256;

/// How long the flood sleeps between two bursts.
const TICK: Duration = Duration::from_millis(1);

/// What a burst may make up for: who was kept waiting longer lets the rest go, and the rate shows it. Thousands at once
/// would be another flood than one of a steady rate.
const MOST_BEHIND: Duration = Duration::from_millis(10);

/// Sends what a gateway has to drop, at a steady rate, and says how it went as a line of JSON.
#[derive(Parser)]
struct Options {
    /// The UDP port of a shard, on loopback.
    #[arg(long)]
    target: SocketAddr,
    /// What is sent.
    #[arg(long)]
    kind: Kind,
    /// Datagrams a second.
    #[arg(long, default_value_t = 50_000)]
    rate: u64,
    /// For how long.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// The gateway's ufrag of a session that lives: checks are for it. Else they are for sessions that never were.
    #[arg(long)]
    ufrag: Option<String>,
    /// From how many addresses, 127.0.0.1 and on.
    #[arg(long, default_value_t = 1)]
    sources: u8,
}

#[derive(Clone, Copy, ValueEnum)]
enum Kind {
    /// Connectivity checks with the right FINGERPRINT and a wrong MESSAGE-INTEGRITY.
    Bindings,
    /// ClientHellos from addresses that no check has come from.
    Hellos,
    /// Random bytes of random length.
    Junk,
}

fn main() -> anyhow::Result<ExitCode> {
    let options = Options::parse();
    ensure!(options.target.ip().is_loopback(), "{} is not on loopback", options.target);
    ensure!(options.rate <= MOST_A_SECOND && options.seconds <= MOST_SECONDS, "that is too much");
    let mut dice = Dice(0x5eed);
    let datagrams: Vec<Vec<u8>> = (0..VARIETY).map(|_| datagram(&options, &mut dice)).collect::<Result<_, _>>()?;
    let sockets = sockets(&options)?;
    let outcome = flood(&options, &sockets, &datagrams);
    println!("{outcome}");
    Ok(ExitCode::SUCCESS)
}

/// Sends so many in each tick that the rate comes out, however long a tick really was, within reason.
fn flood(options: &Options, sockets: &[UdpSocket], datagrams: &[Vec<u8>]) -> serde_json::Value {
    let (begin, end) = (Instant::now(), Duration::from_secs(options.seconds));
    let (mut tried, mut refused, mut owed) = (0_u64, 0_u64, 0.0);
    let mut elapsed = Duration::ZERO;
    while elapsed < end {
        while owed >= 1.0 {
            let socket = &sockets[tried as usize % sockets.len()];
            refused += u64::from(socket.send(&datagrams[tried as usize % datagrams.len()]).is_err());
            tried += 1;
            owed -= 1.0;
        }
        std::thread::sleep(TICK);
        let now = begin.elapsed();
        owed += (now - elapsed).min(MOST_BEHIND).as_secs_f64() * options.rate as f64;
        elapsed = now;
    }
    let sent = tried - refused;
    json!({"sent": sent, "refused": refused, "seconds": elapsed.as_secs_f64(), "rate": sent as f64 / elapsed.as_secs_f64()})
}

/// A few ports at each address.
fn sockets(options: &Options) -> anyhow::Result<Vec<UdpSocket>> {
    let mut sockets = Vec::new();
    for n in 0..4 * options.sources.max(1) {
        let source = Ipv4Addr::new(127, 0, 0, 1 + n / 4);
        let socket = UdpSocket::bind((source, 0)).with_context(|| format!("cannot bind {source}"))?;
        socket.connect(options.target)?;
        sockets.push(socket);
    }
    Ok(sockets)
}

fn datagram(options: &Options, dice: &mut Dice) -> anyhow::Result<Vec<u8>> {
    match options.kind {
        Kind::Bindings => Ok(binding(options.ufrag.as_deref(), dice)),
        Kind::Hellos => hello(),
        Kind::Junk => Ok((0..1 + dice.below(1200)).map(|_| dice.below(256) as u8).collect()),
    }
}

fn binding(ufrag: Option<&str>, dice: &mut Dice) -> Vec<u8> {
    let made_up: String = (0..12).map(|_| char::from(b'A' + dice.below(26) as u8)).collect();
    let parameters = RequestParameters {
        transaction_id: std::array::from_fn(|_| dice.below(256) as u8),
        local_ufrag: ufrag.unwrap_or(&made_up),
        remote_ufrag: "flood",
        priority: Some(1),
        role: Some((IceRole::Controlling, 1)),
        use_candidate: true,
    };
    let mut message = [0; 256];
    let len = write_request(&mut message, &parameters, &IntegrityKey::new("a password of nobody at all"));
    message[..len].to_vec()
}

/// The first flight of a client of both versions, of the size that browsers send.
fn hello() -> anyhow::Result<Vec<u8>> {
    let identity = Arc::new(DtlsIdentity::generate()?);
    let mut client = DtlsTransport::new(Instant::now(), &identity, DtlsRole::Client, Vec::new())?;
    let mut hello = Vec::new();
    client.drive(&mut DtlsScratch::default(), |output| {
        if let DtlsOutput::Datagram(datagram) = output {
            hello = datagram.to_vec();
        }
    })?;
    ensure!(!hello.is_empty(), "the client says nothing");
    Ok(hello)
}

/// xorshift64*: the same seed throws the same.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % n
    }
}
