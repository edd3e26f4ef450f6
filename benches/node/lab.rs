//! Two hosts on one machine: network namespaces with a cable between them, one CPU for each.
//!
//! What the node sends, a thread of the kernel takes on the players' CPU, as their network card would, so that the node is
//! not billed for their half of the stack. Both namespaces end with the processes in them and take the cable along: there is
//! nothing to clean up, even after SIGKILL.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::str::FromStr;
use std::time::Duration;

use anyhow::Context as _;
use clap::ValueEnum;

/// What the process in the near namespace finds in its environment: where the load generator is.
const INSIDE: &str = "TABLESIDE_BENCH_LAB";

/// How often the players' end looks for packets while some come.
const LOOK: Duration = Duration::from_micros(50);

/// How often it finds none before it waits to be woken.
const EMPTY_LOOKS: u32 = 200;

/// The address of the node's end.
pub const NEAR: Ipv4Addr = Ipv4Addr::new(10, 88, 0, 1);
/// The address of the players' end.
pub const FAR: Ipv4Addr = Ipv4Addr::new(10, 88, 0, 2);

/// The load generator, if this process is in the near namespace.
pub fn inside() -> Option<PathBuf> {
    env::var_os(INSIDE).map(PathBuf::from)
}

/// Runs this program again in a network namespace of its own, from which nothing can be reached but the far one.
///
/// # Errors
/// It cannot be run.
pub fn enter(generator: &Path) -> anyhow::Result<ExitCode> {
    let mut command = Command::new("unshare");
    // Of its own too: `/sys` shows the devices of the namespace that it was mounted in.
    command.args(["--net", "--mount"]).arg(env::current_exe()?).args(env::args_os().skip(1)).env(INSIDE, generator);
    let status = command.status().context("cannot run unshare (of Debian's util-linux)")?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Where the kernel handles what players send.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Arrivals {
    /// On their CPU, billed to them.
    Players,
    /// On the node's, after an interrupt from theirs.
    Node,
}

/// A bottleneck behind the node: what it sends leaves at most so fast, and little of it may wait.
#[derive(Clone, Copy, Debug)]
pub struct Link {
    megabits: u32,
    kilobytes: u32,
}

impl FromStr for Link {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let both = text.split_once(',').and_then(|(rate, room)| Some((rate.parse().ok()?, room.parse().ok()?)));
        let (megabits, kilobytes) = both.filter(|both| both.0 > 0 && both.1 > 1).ok_or("say it as in 12,24")?;
        Ok(Self { megabits, kilobytes })
    }
}

/// The namespaces and which CPU belongs to which.
pub struct Lab {
    /// Holds the far namespace open; ends when its standard input closes, that is with us.
    holder: Child,
    near_cpu: usize,
    far_cpu: usize,
}

impl Lab {
    /// Lays the cable. Needs root.
    ///
    /// # Errors
    /// Says which step failed.
    pub fn new(near_cpu: usize, far_cpu: usize, arrivals: Arrivals) -> io::Result<Self> {
        let holder = Command::new("unshare").args(["--net", "cat"]).stdin(Stdio::piped()).spawn()?;
        let lab = Self { holder, near_cpu, far_cpu };
        lab.await_namespace()?;
        let there = lab.holder.id().to_string();
        let steps: [&[&str]; 6] = [
            &["mount", "-t", "sysfs", "none", "/sys"],
            &["ip", "link", "set", "lo", "up"],
            &["ip", "link", "add", "near", "type", "veth", "peer", "name", "far", "netns", &there],
            &["ip", "address", "add", "10.88.0.1/24", "dev", "near"],
            &["ip", "link", "set", "near", "up"],
            &["sysctl", "-q", "-w", "net.ipv4.ip_local_port_range=1024 65000"],
        ];
        for step in steps {
            run(Command::new(step[0]).args(&step[1..]))?;
        }
        let steps: [&[&str]; 4] = [
            &["ip", "link", "set", "lo", "up"],
            &["ip", "address", "add", "10.88.0.2/24", "dev", "far"],
            &["ip", "link", "set", "far", "up"],
            &["sysctl", "-q", "-w", "net.ipv4.ip_local_port_range=1024 65000"],
        ];
        for step in steps {
            run(lab.far(step[0]).args(&step[1..]))?;
        }
        if arrivals == Arrivals::Node {
            let steer = format!("echo {:x} > /sys/class/net/near/queues/rx-0/rps_cpus", 1_u64 << near_cpu);
            run(Command::new("sh").args(["-c", &steer]))?;
        }
        lab.moderate()?;
        Ok(lab)
    }

    /// Has the players' end take what comes as a network card does that moderates its interrupts: a thread on the players' CPU looks
    /// every [`LOOK`], and whoever sends wakes nobody. Else the node is billed for an interrupt to the other CPU with most of its
    /// messages: a quarter of its time on a virtual machine, and the more the less the other CPU has to do.
    fn moderate(&self) -> io::Result<()> {
        // Packets are queued for the thread only if they may be gathered there, and need not have been here.
        run(Command::new("ethtool").args(["-K", "near", "tso", "off"]))?;
        run(self.far("ethtool").args(["-K", "far", "gro", "on"]))?;
        // The queue has room for 256 messages: the thread comes before the players.
        let script = format!(
            "set -e; mount -t sysfs none /sys; cd /sys/class/net/far; echo 1 > threaded; \
             echo {} > gro_flush_timeout; echo {EMPTY_LOOKS} > napi_defer_hard_irqs; \
             threads=$(pgrep '^napi/far-'); \
             for thread in $threads; do taskset -p -c {} $thread; chrt -f -p 1 $thread; done",
            LOOK.as_nanos(),
            self.far_cpu,
        );
        run(self.far("unshare").args(["--mount", "sh", "-c", &script]))
    }

    /// Puts a bottleneck between the node and the players.
    ///
    /// # Errors
    /// The kernel has no `tbf`.
    pub fn throttle(&self, link: Link) -> io::Result<()> {
        let (rate, limit) = (format!("{}mbit", link.megabits), (1000 * link.kilobytes).to_string());
        let arguments = ["qdisc", "add", "dev", "near", "root", "tbf", "rate", &rate, "burst", "2000", "limit", &limit];
        run(Command::new("tc").args(arguments))
    }

    /// A command at the node's end, on its CPU.
    pub fn near(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("taskset");
        command.args(["-c", &self.near_cpu.to_string()]).arg(program);
        command
    }

    /// A command at the players' end, on theirs.
    pub fn far(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/proc/{}/ns/net", self.holder.id()));
        command.args(["taskset", "-c", &self.far_cpu.to_string()]).arg(program);
        command
    }

    /// Until the holder is in a namespace of its own.
    fn await_namespace(&self) -> io::Result<()> {
        let of = |process: &str| fs::read_link(format!("/proc/{process}/ns/net"));
        let (ours, holder) = (of("self")?, self.holder.id().to_string());
        while of(&holder)? == ours {
            std::thread::yield_now();
        }
        Ok(())
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        drop(self.holder.stdin.take());
        let _ = self.holder.wait();
    }
}

/// Has the threads of `process` whose names begin so run before all that is not of real-time priority.
///
/// # Errors
/// There is none, or the kernel refuses.
pub fn put_first(process: u32, name: &str) -> io::Result<()> {
    let mut any = false;
    for thread in fs::read_dir(format!("/proc/{process}/task"))? {
        let thread = thread?.path();
        if fs::read_to_string(thread.join("comm"))?.starts_with(name) {
            run(Command::new("chrt").args(["-r", "-p", "1"]).args(thread.file_name()))?;
            any = true;
        }
    }
    if any { Ok(()) } else { Err(io::Error::other(format!("process {process} has no thread {name}*"))) }
}

/// # Errors
/// It cannot be run, or failed; with what it printed.
fn run(command: &mut Command) -> io::Result<()> {
    let shown = format!("{command:?}");
    let output = command.output().map_err(|error| {
        io::Error::other(format!(
            "{shown}: {error} (the bench needs ethtool, iproute2, procps and util-linux of Debian)"
        ))
    })?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(io::Error::other(format!("{shown}: {} {} (the bench needs root and Linux's veth)", output.status, said.trim())))
}
