//! The node as a process of the bench's own: what `tableside gateway` runs, with its allocations counted.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::LazyLock;
use std::time::{Duration, Instant, SystemTime};

use anyhow::Context as _;
use tableside::config::Config;
use tableside::identity::{Algorithm, NewToken, Role, SigningKey, Subject};

use crate::allocations;
use crate::lab::{self, Lab};
use crate::measure::Plan;

/// How long the bench's tokens are good.
const TOKENS_LAST: Duration = Duration::from_secs(86_400);

/// What publisher and players show, and the issuer's key set: the node judges tokens as in production. The key is never written.
pub struct Tokens {
    pub publisher: String,
    pub player: String,
    key_set: String,
}

pub static TOKENS: LazyLock<Tokens> = LazyLock::new(|| {
    let key = SigningKey::generate(Algorithm::EdDsa).expect("random numbers");
    let subject = Subject::new("bench").expect("a subject");
    let tables = ["*".to_owned()];
    let issued = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let sign = |role| {
        let (jurisdiction, issuer, audience, lifetime) = (None, None, None, TOKENS_LAST);
        let token =
            NewToken { subject: &subject, role, tables: &tables, jurisdiction, issuer, audience, issued, lifetime };
        key.sign(&token).expect("a signature")
    };
    let key_set = format!("{{\"keys\":[{}]}}", key.jwk());
    Tokens { publisher: sign(Role::Publisher), player: sign(Role::Player), key_set }
});

const HTTP_PORT: u16 = 8080;
const ADMIN: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 9090);

const START_WITHIN: Duration = Duration::from_secs(10);

/// Runs a node until it is told to end.
///
/// # Errors
/// It cannot start.
pub fn run(config: &Path, allocations: &Path) -> anyhow::Result<()> {
    let listener = UnixListener::bind(allocations)?;
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            let told = connection.and_then(|mut to| write!(to, "{}", allocations::of_all_threads()));
            told.expect("the bench listens");
        }
    });
    tableside::run::gateway(Config::load(config)?)
}

/// The running node.
pub struct Node {
    process: Child,
    allocations: Allocations,
}

/// Where the node tells how often it has allocated.
#[derive(Clone)]
pub struct Allocations(PathBuf);

impl Allocations {
    /// Since it began.
    ///
    /// # Errors
    /// The node has ended.
    pub fn ask(&self) -> anyhow::Result<u64> {
        let mut text = String::new();
        UnixStream::connect(&self.0)?.read_to_string(&mut text)?;
        Ok(text.parse()?)
    }
}

impl Node {
    /// Starts it at its end of the cable, as the plan has it, and waits until it is ready.
    ///
    /// # Errors
    /// It does not get ready.
    pub fn start(plan: &Plan, lab: &Lab, folder: &Path) -> anyhow::Result<Self> {
        let config = folder.join("gateway.toml");
        let &Plan { tables, shards, max_utilisation, pacing, .. } = plan;
        let names =
            (0..tables).map(|n| if tables == 1 { "[tables.load]\n".into() } else { format!("[tables.load-{n}]\n") });
        let text = format!(
            "[http]\nlisten = \"{near}:{HTTP_PORT}\"\nrequests_per_second_per_address = 0\nmax_connections_per_address = 10000\n\
             [admin]\nlisten = \"{}:{}\"\n[media]\nlisten = \"0.0.0.0\"\nannounce = [\"{near}\"]\nshards = {shards}\npacing = {pacing}\n\
             [sessions]\nmax_players_per_shard = 100000\nmax_shard_utilisation_percent = {max_utilisation}\nmax_half_open_per_shard = 10000\nmax_half_open_per_address = 10000\n\
             [auth]\njwks_file = \"jwks.json\"\njurisdictions = [\"*\"]\n[log]\nlevel = \"warn\"\n{}",
            ADMIN.0,
            ADMIN.1,
            names.collect::<String>(),
            near = lab::NEAR,
        );
        fs::write(&config, text)?;
        fs::write(folder.join("jwks.json"), &TOKENS.key_set)?;
        let allocations = folder.join("allocations");
        let _ = fs::remove_file(&allocations);
        let program = std::env::current_exe()?;
        let process = lab.near(program).arg("node").arg(config).arg(&allocations).spawn()?;
        let mut node = Self { process, allocations: Allocations(allocations) };
        let begin = Instant::now();
        while !ready() {
            let ended = node.process.try_wait()?;
            anyhow::ensure!(
                ended.is_none() && begin.elapsed() < START_WITHIN,
                "the node does not get ready: {ended:?}"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        if plan.own_core {
            lab::put_first(node.pid(), "shard-")?;
        }
        Ok(node)
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Tells how often it has allocated.
    pub fn allocations(&self) -> Allocations {
        self.allocations.clone()
    }

    /// Where WHIP and WHEP are, up to the table's name.
    pub fn url(&self, kind: &str) -> String {
        format!("http://{}:{HTTP_PORT}/{kind}/{{table}}", lab::NEAR)
    }

    /// Tells it to end and waits.
    ///
    /// # Errors
    /// It did not end well.
    pub fn stop(mut self) -> anyhow::Result<()> {
        std::process::Command::new("kill").arg(self.pid().to_string()).status()?;
        let status = self.process.wait().context("the node")?;
        anyhow::ensure!(status.success(), "the node ended with {status}");
        Ok(())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // Ended already, unless the bench has failed.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn ready() -> bool {
    let ask = || {
        let mut connection = TcpStream::connect(SocketAddr::from(ADMIN))?;
        connection.write_all(b"GET /readyz HTTP/1.0\r\n\r\n")?;
        let mut answer = String::new();
        connection.read_to_string(&mut answer)?;
        std::io::Result::Ok(answer)
    };
    ask().is_ok_and(|answer| answer.lines().next().is_some_and(|line| line.contains(" 200 ")))
}
