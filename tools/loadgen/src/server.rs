//! What the server's process costs, by the kernel's accounts.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use serde::Serialize;

/// A process on this machine.
#[derive(Clone, Debug)]
pub struct Process {
    folder: PathBuf,
}

/// What it used until now.
#[derive(Clone, Copy, Debug)]
pub struct Accounts {
    cpu: Duration,
    resident_bytes: u64,
}

/// What it used while it was measured.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Cost {
    /// CPU time of all its threads, system calls included.
    pub cpu_seconds: f64,
    /// The same, for each packet that reached a player.
    pub cpu_nanoseconds_per_packet: Option<f64>,
    /// Of one CPU; 1.0 is all of it.
    pub cores: f64,
    /// Memory at the end of the measurement, in bytes.
    pub resident_bytes: u64,
}

impl Process {
    /// The process `pid`, which has to be there.
    ///
    /// # Errors
    /// There is none, or it is somebody else's.
    pub fn new(pid: u32) -> anyhow::Result<Self> {
        let process = Self { folder: format!("/proc/{pid}").into() };
        process.accounts().with_context(|| format!("--server-pid {pid}: cannot read its accounts in /proc/{pid}"))?;
        Ok(process)
    }

    /// What it used so far. A thread that has ended takes its time with it: servers of media keep theirs.
    ///
    /// # Errors
    /// The process is gone.
    pub fn accounts(&self) -> io::Result<Accounts> {
        let mut cpu = Duration::ZERO;
        for thread in fs::read_dir(self.folder.join("task"))? {
            // One that ends just now is none of the process's any more.
            let Ok(text) = fs::read_to_string(thread?.path().join("schedstat")) else { continue };
            cpu += Duration::from_nanos(number(text.split_whitespace().next())?);
        }
        let status = fs::read_to_string(self.folder.join("status"))?;
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kilobytes = number(resident.and_then(|text| text.split_whitespace().next()))?;
        Ok(Accounts { cpu, resident_bytes: kilobytes * 1024 })
    }
}

impl Accounts {
    /// What was used since `before`, over `seconds`, for `packets` that reached players.
    pub fn since(self, before: Self, seconds: f64, packets: u64) -> Cost {
        let cpu_seconds = self.cpu.saturating_sub(before.cpu).as_secs_f64();
        Cost {
            cpu_seconds,
            cpu_nanoseconds_per_packet: (packets > 0).then(|| cpu_seconds * 1e9 / packets as f64),
            cores: cpu_seconds / seconds.max(0.001),
            resident_bytes: self.resident_bytes,
        }
    }
}

fn number(text: Option<&str>) -> io::Result<u64> {
    text.and_then(|text| text.parse().ok()).ok_or_else(|| io::Error::other("no number where the kernel has one"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    #[test]
    fn the_time_of_all_threads_is_counted() {
        let process = Process::new(std::process::id()).unwrap();
        let before = process.accounts().unwrap();
        let (done, wait) = std::sync::mpsc::channel::<()>();
        let (tell, told) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let begin = clock::now();
            while begin.elapsed() < Duration::from_millis(100) {
                std::hint::spin_loop();
            }
            tell.send(()).unwrap();
            wait.recv().unwrap_err();
        });
        told.recv().unwrap();
        let cost = process.accounts().unwrap().since(before, 1.0, 1000);
        drop(done);
        thread.join().unwrap();
        // The machine may have had other work, but it has not given the thread nothing in that time.
        assert!(cost.cpu_seconds > 0.001, "{cost:?}");
        // By the same steps: 1e6 at once is another rounding.
        assert_eq!(cost.cpu_nanoseconds_per_packet, Some(cost.cpu_seconds * 1e9 / 1000.0));
        assert!(cost.resident_bytes > 1 << 20, "{cost:?}");
    }

    #[test]
    fn a_process_that_is_not_there_is_named() {
        let error = Process::new(u32::MAX).unwrap_err();
        assert!(format!("{error:#}").contains("--server-pid 4294967295"), "{error:#}");
    }
}
