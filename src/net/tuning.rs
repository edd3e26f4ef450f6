//! What a node should be tuned to, and whether it is.
//!
//! A pod cannot tune its node, and in a network namespace of its own it does not even see all of the node's settings.
//! So nothing is set here: the settings are read, compared, reported.

use std::fmt::Display;
use std::fs;
use std::io;
use std::path::Path;

use serde::Serialize;

use super::process::raise_open_file_limit;
use super::udp::UdpOptions;

/// Every name that a [`Setting`] can have. Each is reported by [`verify_sysctls`], [`raise_open_files`] or
/// [`ShardSocket::bind`](super::ShardSocket::bind), whether or not it is as wanted.
pub const SETTINGS: [&str; 13] = [
    "rmem_max",
    "wmem_max",
    "netdev_max_backlog",
    "udp_rmem_min",
    "default_qdisc",
    "open_files",
    "receive_buffer",
    "send_buffer",
    "gso",
    "gro",
    "busy_poll",
    "dscp",
    "lanes",
];

/// One thing that was looked at. Exported as `tableside_node_tuning_ok{setting}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Setting {
    /// One of [`SETTINGS`].
    #[serde(rename = "setting")]
    pub name: &'static str,
    /// As wanted. What cannot be seen is not.
    pub ok: bool,
    /// What was wanted, for a person to read.
    pub wanted: String,
    /// What was found, for a person to read.
    pub found: String,
    /// What to do about it where it is not as wanted.
    pub advice: &'static str,
}

/// The settings that were looked at, each once.
pub type TuningReport = Vec<Setting>;

/// Packets that wait between network card and protocol, for each CPU. The default of 1000 is a burst of 10 ms at one
/// hundred thousand packets a second.
const NETDEV_MAX_BACKLOG: u64 = 5_000;

/// Bytes that a socket may hold even when all UDP memory is used up. The default is one page.
const UDP_RMEM_MIN: u64 = 16_384;

/// Compares the kernel's network settings below `proc_sys` (`/proc/sys`, elsewhere in tests) with what sockets of
/// these options need.
pub fn verify_sysctls(proc_sys: &Path, options: &UdpOptions) -> TuningReport {
    let number = |path: &str| read(proc_sys, path).and_then(|text| text.parse().map_err(io::Error::other));
    vec![
        Setting::at_least(
            "rmem_max",
            options.receive_buffer as u64,
            number("net/core/rmem_max"),
            "sysctl net.core.rmem_max on the node; matters only without CAP_NET_ADMIN",
        ),
        Setting::at_least(
            "wmem_max",
            options.send_buffer as u64,
            number("net/core/wmem_max"),
            "sysctl net.core.wmem_max on the node; matters only without CAP_NET_ADMIN",
        ),
        Setting::at_least(
            "netdev_max_backlog",
            NETDEV_MAX_BACKLOG,
            number("net/core/netdev_max_backlog"),
            "sysctl net.core.netdev_max_backlog on the node; seen only with host networking",
        ),
        Setting::at_least(
            "udp_rmem_min",
            UDP_RMEM_MIN,
            number("net/ipv4/udp_rmem_min"),
            "sysctl net.ipv4.udp_rmem_min on the node or in the pod",
        ),
        default_qdisc(read(proc_sys, "net/core/default_qdisc")),
    ]
}

/// Raises how many descriptors the process may have to what the host allows it at most, and says whether that is
/// `wanted`: each TCP connection needs one, and each request.
pub fn raise_open_files(wanted: u64) -> Setting {
    let advice =
        "raise the hard limit of open files (ulimit -Hn, LimitNOFILE=), or lower media.tcp.max_connections_per_shard";
    Setting::at_least("open_files", wanted, raise_open_file_limit(), advice)
}

fn default_qdisc(found: io::Result<String>) -> Setting {
    const WANTED: &str = "fq";
    let ok = found.as_ref().is_ok_and(|found| found == WANTED);
    Setting {
        name: "default_qdisc",
        ok,
        wanted: WANTED.to_owned(),
        found: describe(found),
        advice: "sysctl net.core.default_qdisc on the node before its devices come up; seen only with host networking",
    }
}

fn read(proc_sys: &Path, path: &str) -> io::Result<String> {
    fs::read_to_string(proc_sys.join(path)).map(|text| text.trim().to_owned())
}

fn describe(found: io::Result<impl Display>) -> String {
    match found {
        Ok(found) => found.to_string(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => "not visible in this network namespace".to_owned(),
        Err(error) => error.to_string(),
    }
}

impl Setting {
    /// As wanted where `found` is `wanted` or more.
    pub(super) fn at_least(name: &'static str, wanted: u64, found: io::Result<u64>, advice: &'static str) -> Self {
        let ok = found.as_ref().is_ok_and(|&found| found >= wanted);
        Self { name, ok, wanted: format!("at least {wanted}"), found: describe(found), advice }
    }

    /// As wanted where the kernel accepted it.
    pub(super) fn applied(name: &'static str, wanted: &str, result: io::Result<()>, advice: &'static str) -> Self {
        let ok = result.is_ok();
        Self { name, ok, wanted: wanted.to_owned(), found: describe(result.map(|()| wanted)), advice }
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    /// A directory that looks like /proc/sys, gone when dropped.
    struct ProcSys(PathBuf);

    impl ProcSys {
        fn new(files: &[(&str, &str)]) -> Self {
            static NEXT: AtomicU32 = AtomicU32::new(0);
            let name = format!("tableside-sysctls-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
            let root = std::env::temp_dir().join(name);
            for (path, text) in files {
                let path = root.join(path);
                fs::create_dir_all(path.parent().expect("has a parent")).expect("temporary directory");
                fs::write(path, text).expect("temporary file");
            }
            Self(root)
        }

        fn verify(&self) -> TuningReport {
            let options = UdpOptions { receive_buffer: 4 << 20, send_buffer: 8 << 20, ..UdpOptions::default() };
            verify_sysctls(&self.0, &options)
        }
    }

    impl Drop for ProcSys {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn not_ok(report: &TuningReport) -> Vec<&'static str> {
        report.iter().filter(|setting| !setting.ok).map(|setting| setting.name).collect()
    }

    const TUNED: [(&str, &str); 5] = [
        ("net/core/rmem_max", "4194304\n"),
        ("net/core/wmem_max", "16777216\n"),
        ("net/core/netdev_max_backlog", "5000\n"),
        ("net/ipv4/udp_rmem_min", "16384\n"),
        ("net/core/default_qdisc", "fq\n"),
    ];

    #[test]
    fn a_tuned_node_is_as_wanted() {
        assert_eq!(not_ok(&ProcSys::new(&TUNED).verify()), [""; 0]);
    }

    #[test]
    fn each_setting_below_what_is_wanted_is_named() {
        for (n, value) in ["4194303", "8388607", "4999", "16383", "fq_codel"].into_iter().enumerate() {
            let mut files = TUNED;
            files[n].1 = value;
            let report = ProcSys::new(&files).verify();
            let name = files[n].0.rsplit('/').next().expect("not empty");
            assert_eq!(not_ok(&report), [name]);
            assert_eq!(report[n].found, value);
        }
    }

    #[test]
    fn what_a_pod_cannot_see_or_nobody_can_read_is_not_as_wanted() {
        let report = ProcSys::new(&[TUNED[0], ("net/core/wmem_max", "plenty\n")]).verify();
        assert_eq!(not_ok(&report), ["wmem_max", "netdev_max_backlog", "udp_rmem_min", "default_qdisc"]);
        assert_eq!(report[2].found, "not visible in this network namespace");
        assert_eq!(report[1].found, "invalid digit found in string");
    }

    #[test]
    fn the_limit_of_open_files_becomes_the_hard_one() {
        let found = raise_open_files(1);
        assert!(found.ok && found.found.parse::<u64>().expect("a number") >= 1024, "{found:?}");
        assert_eq!(raise_open_files(u64::MAX).found, found.found, "it is there already");
    }

    #[tokio::test]
    async fn sysctls_and_socket_together_report_every_setting_once() {
        let options = UdpOptions::default();
        let (_socket, report) =
            super::super::ShardSocket::bind(([127, 0, 0, 1], 0).into(), &options).expect("loopback");
        let sysctls = verify_sysctls(Path::new("/nonexistent"), &options);
        let all = sysctls.into_iter().chain([raise_open_files(1)]).chain(report);
        let names: Vec<_> = all.map(|s| s.name).collect();
        assert_eq!(names, SETTINGS);
    }
}
