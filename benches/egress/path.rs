//! A network whose receivers cost the sender nothing.
//!
//! Over loopback the sender's own system call runs the receiver's half of the stack. An `ifb` device does not: it
//! drops what was not redirected to it, after the whole send path. It is made in a network namespace of its own,
//! which ends with the process, so there is nothing to clean up.

use std::env;
use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Command, ExitCode};

use tableside::net::{ShardSocket, UdpOptions};

/// Set in the process that runs in the namespace.
const INSIDE: &str = "TABLESIDE_BENCH_NAMESPACE";

const DEVICE: &str = "sink";

/// Runs this program again in a new network namespace and returns how that ended. `None` if it should go on here:
/// because it is that other run, or because the host gives it no namespace.
pub fn enter_namespace() -> Option<ExitCode> {
    if env::var_os(INSIDE).is_some() || !succeeds("unshare", &["--net", "true"]) {
        return None;
    }
    let program = env::current_exe().ok()?;
    let status =
        Command::new("unshare").arg("--net").arg(program).args(env::args_os().skip(1)).env(INSIDE, "1").status();
    Some(if status.is_ok_and(|status| status.success()) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Where the packets go.
pub enum Path {
    /// To a device that drops them.
    Sink,
    /// To a socket that nobody reads, which costs the sender the receiving half of the stack as well.
    Loopback(Box<ShardSocket>),
}

impl Path {
    /// Sets up the device, or falls back to loopback and says so.
    ///
    /// # Errors
    /// No socket can be bound on loopback.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn open() -> io::Result<Self> {
        let inside = env::var_os(INSIDE).is_some();
        if inside && set_up_device() {
            return Ok(Self::Sink);
        }
        if inside {
            succeeds("ip", &["link", "set", "lo", "up"]);
        }
        println!("WARNING: no network namespace with an ifb device (needs root, unshare, ip and the ifb module).");
        println!("WARNING: sending over loopback instead: receivers are billed to the sender, figures are too high.");
        // With GRO, or the kernel would cut each run into datagrams on arrival.
        let (socket, _) = ShardSocket::bind((Ipv4Addr::UNSPECIFIED, 0).into(), &UdpOptions::default())?;
        Ok(Self::Loopback(Box::new(socket)))
    }

    /// For the headline.
    pub fn describe(&self) -> &'static str {
        match self {
            Self::Sink => "ifb device in its own network namespace",
            Self::Loopback(_) => "loopback, receivers billed to the sender",
        }
    }

    /// The address of the player with this number, below 60,000.
    pub fn player(&self, number: u16) -> SocketAddr {
        let [high, low] = (number + 256).to_be_bytes();
        match self {
            Self::Sink => ([10, 77, high, low], 40_000).into(),
            Self::Loopback(socket) => ([127, 77, high, low], socket.local_address().port()).into(),
        }
    }

    /// How many messages the device has swallowed, if there is one. More than were sent means that runs were cut up
    /// before they reached it.
    pub fn swallowed(&self) -> Option<u64> {
        if matches!(self, Self::Loopback(_)) {
            return None;
        }
        let devices = fs::read_to_string("/proc/self/net/dev").ok()?;
        let (_, numbers) = devices.lines().filter_map(|line| line.split_once(':')).find(|(n, _)| n.trim() == DEVICE)?;
        numbers.split_whitespace().nth(1)?.parse().ok()
    }
}

fn set_up_device() -> bool {
    let steps: [&[&str]; 4] = [
        &["link", "set", "lo", "up"],
        &["link", "add", DEVICE, "type", "ifb"],
        &["link", "set", DEVICE, "up"],
        &["address", "add", "10.77.0.1/16", "dev", DEVICE],
    ];
    steps.iter().all(|step| succeeds("ip", step))
}

fn succeeds(program: &str, arguments: &[&str]) -> bool {
    Command::new(program).args(arguments).output().is_ok_and(|output| output.status.success())
}
