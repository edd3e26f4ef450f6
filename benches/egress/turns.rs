//! Contenders that take turns in one run.
//!
//! Absolute times mean nothing on a shared machine, so a bench runs its contenders by turns, A B A B, and compares
//! each turn of one with the turn of the other beside it.

use std::thread;
use std::time::{Duration, Instant};

use tableside::net::thread_cpu_time;

use crate::allocations;

/// Something that forwards a frame to all of its players.
pub trait Contender {
    /// For the table of results.
    fn name(&self) -> &str;

    /// Forwards one frame and says how many packets the kernel took.
    fn frame(&mut self, now: Instant) -> usize;
}

/// How long and how often the contenders run.
#[derive(Clone, Copy, Debug)]
pub struct Schedule {
    /// Turns of each contender.
    pub rounds: usize,
    /// Length of a turn.
    pub turn: Duration,
    /// Time between the beginnings of frames; zero for no pause.
    pub frame_interval: Duration,
}

/// The measurements of one contender, one for each round.
#[derive(Debug)]
pub struct Series {
    /// The contender.
    pub name: String,
    /// Nanoseconds of this thread's CPU for each packet.
    pub nanos_per_packet: Vec<f64>,
    /// Packets in all rounds but the warm-up.
    pub packets: usize,
    /// Packets in the warm-up.
    pub warm_up: usize,
    /// Heap allocations in all rounds but the warm-up.
    pub allocations: u64,
}

/// Lets the contenders take turns. The first turn of each warms up and is not measured.
pub fn take_turns(contenders: &mut [&mut dyn Contender], schedule: Schedule) -> Vec<Series> {
    let empty =
        |name: &str| Series { name: name.to_owned(), nanos_per_packet: vec![], packets: 0, warm_up: 0, allocations: 0 };
    let mut series: Vec<_> = contenders.iter().map(|contender| empty(contender.name())).collect();
    for round in 0..=schedule.rounds {
        for (contender, series) in contenders.iter_mut().zip(&mut series) {
            let (cpu, allocations) = (thread_cpu_time(), allocations::of_this_thread());
            let packets = turn(*contender, schedule);
            let (cpu, allocations) = (thread_cpu_time() - cpu, allocations::of_this_thread() - allocations);
            if round == 0 {
                series.warm_up = packets;
            } else {
                series.packets += packets;
                series.nanos_per_packet.push(cpu.as_nanos() as f64 / packets.max(1) as f64);
                series.allocations += allocations;
            }
        }
    }
    series
}

fn turn(contender: &mut dyn Contender, schedule: Schedule) -> usize {
    let start = Instant::now();
    let mut due = start;
    let mut packets = 0;
    while due.duration_since(start) < schedule.turn {
        packets += contender.frame(due);
        if schedule.frame_interval.is_zero() {
            due = Instant::now();
        } else {
            due += schedule.frame_interval;
            thread::sleep(due.saturating_duration_since(Instant::now()));
        }
    }
    packets
}

/// Prints a line for each contender, and for each but the first its ratio to the first, round by round.
pub fn print(series: &[Series]) {
    println!("{:<34} {:>8} {:>8} {:>8}   allocations per packet", "CPU ns per packet", "min", "median", "max");
    for one in series {
        let allocations = one.allocations as f64 / one.packets.max(1) as f64;
        println!("{:<34} {}   {allocations}", one.name, summary(one.nanos_per_packet.clone(), 0));
    }
    for one in &series[1..] {
        let ratios = one.nanos_per_packet.iter().zip(&series[0].nanos_per_packet).map(|(b, a)| b / a).collect();
        println!("{:<34} {}", format!("ratio to {}", series[0].name), summary(ratios, 3));
    }
}

/// Minimum, median and maximum.
fn summary(mut values: Vec<f64>, decimals: usize) -> String {
    values.sort_by(f64::total_cmp);
    let at = |n: usize| format!("{:>8.decimals$}", values[n]);
    format!("{} {} {}", at(0), at(values.len() / 2), at(values.len() - 1))
}
