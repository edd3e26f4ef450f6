//! Janus as it comes with Debian, at the node's end, and the bridge that gives it WHIP and WHEP, at the players'.

mod api;
mod bridge;
mod sdp;

use std::fs;
use std::io::{BufRead as _, BufReader, ErrorKind, Read as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context as _;

pub use bridge::run as bridge;

use crate::lab::{self, Lab};

const START_WITHIN: Duration = Duration::from_secs(10);

/// Of Janus' API, in the folder of its configuration.
const SOCKET: &str = "janus.socket";

/// All of Debian's but the VideoRoom, and but the Unix socket.
const OTHER_PLUGINS: &str = "libjanus_audiobridge.so,libjanus_duktape.so,libjanus_echotest.so,libjanus_lua.so,\
    libjanus_nosip.so,libjanus_recordplay.so,libjanus_sip.so,libjanus_streaming.so,libjanus_textroom.so,\
    libjanus_videocall.so,libjanus_voicemail.so";
const OTHER_TRANSPORTS: &str =
    "libjanus_http.so,libjanus_mqtt.so,libjanus_nanomsg.so,libjanus_rabbitmq.so,libjanus_websockets.so";

/// The running Janus with its bridge.
pub struct Janus {
    process: Process,
    _bridge: Process,
}

/// Ends when it is no longer wanted.
struct Process(Child);

impl Janus {
    /// Whether there is a Janus.
    ///
    /// # Errors
    /// Says what to install.
    pub fn is_installed() -> anyhow::Result<()> {
        match Command::new("janus").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status() {
            Ok(_) => Ok(()),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                anyhow::bail!("Janus is not installed: apt-get install janus")
            }
            Err(error) => Err(error).context("janus"),
        }
    }

    /// Starts both, and waits until they are ready.
    ///
    /// # Errors
    /// One does not get ready; with what Janus wrote.
    pub fn start(lab: &Lab, folder: &Path) -> anyhow::Result<Self> {
        let folder = folder.join("janus");
        // A player has several descriptors in Janus.
        tableside::net::raise_open_file_limit()?;
        let begin = Instant::now();
        loop {
            match Self::try_to_start(lab, &folder) {
                // Janus 1.1.2 ends about every other time on a CPU of its own: the thread of its socket believes that it is to
                // stop, where it runs before the thread that made it goes on.
                Err(_) if begin.elapsed() < START_WITHIN => {}
                Err(error) => {
                    let said = fs::read_to_string(folder.join("log")).unwrap_or_default();
                    return Err(error.context(said).context("Janus does not get ready"));
                }
                Ok((janus, version)) => {
                    eprintln!("  Janus {version}");
                    return Ok(janus);
                }
            }
        }
    }

    /// With the version.
    fn try_to_start(lab: &Lab, folder: &Path) -> anyhow::Result<(Self, String)> {
        let _ = fs::remove_dir_all(folder);
        fs::create_dir(folder)?;
        configure(folder)?;
        let mut process = Process(
            ends_with_us(lab.near("setpriv"))
                .arg("janus")
                .arg("--configs-folder")
                .arg(folder)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()?,
        );
        let begin = Instant::now();
        while !folder.join(SOCKET).exists() {
            let ended = process.0.try_wait()?;
            anyhow::ensure!(ended.is_none() && begin.elapsed() < START_WITHIN, "it has no socket: {ended:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
        let mut bridge = Process(
            ends_with_us(lab.far("setpriv"))
                .arg(std::env::current_exe()?)
                .arg("bridge")
                .arg(folder)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()?,
        );
        let mut version = String::new();
        BufReader::new(bridge.0.stdout.take().expect("piped")).read_line(&mut version)?;
        if version.is_empty() {
            let mut said = String::new();
            bridge.0.stderr.take().expect("piped").read_to_string(&mut said)?;
            anyhow::bail!("{}", said.trim());
        }
        Ok((Self { process, _bridge: bridge }, version.trim().to_owned()))
    }

    /// Its process, without the bridge.
    pub fn pid(&self) -> u32 {
        self.process.0.id()
    }

    /// Where the bridge has WHIP and WHEP, up to the table's name.
    pub fn url(&self, kind: &str) -> String {
        format!("http://{}:{}/{kind}/{{table}}", lab::FAR, bridge::PORT)
    }

    /// Ends both.
    ///
    /// # Errors
    /// Janus had ended before.
    pub fn stop(mut self) -> anyhow::Result<()> {
        let ended = self.process.0.try_wait()?;
        anyhow::ensure!(ended.is_none(), "Janus has ended by itself: {ended:?}");
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// `setpriv` with what makes its program end even where the bench is killed.
fn ends_with_us(mut setpriv: Command) -> Command {
    setpriv.args(["--pdeathsig", "KILL"]);
    setpriv
}

/// One event loop, which is what suits one CPU; nothing that is not used; what this network does not have, such as STUN
/// servers and IPv6, is not looked for.
fn configure(folder: &Path) -> anyhow::Result<()> {
    let shown = folder.to_str().context("the temporary folder's name")?;
    let files = [
        (
            "janus.jcfg",
            format!(
                "general: {{\n configs_folder = \"{shown}\"\n event_loops = 1\n session_timeout = 0\n debug_level = 2\n \
                 log_to_stdout = false\n log_to_file = \"{shown}/log\"\n}}\n\
                 media: {{\n ipv6 = false\n rtp_port_range = \"10000-60000\"\n}}\n\
                 nat: {{\n nice_debug = false\n ignore_mdns = true\n ice_enforce_list = \"{}\"\n}}\n\
                 plugins: {{\n disable = \"{OTHER_PLUGINS}\"\n}}\n\
                 transports: {{\n disable = \"{OTHER_TRANSPORTS}\"\n}}\n\
                 loggers: {{\n disable = \"libjanus_jsonlog.so\"\n}}\n",
                lab::NEAR,
            ),
        ),
        (
            "janus.transport.pfunix.jcfg",
            format!(
                "general: {{\n enabled = true\n json = \"compact\"\n path = \"{shown}/{SOCKET}\"\n type = \"SOCK_DGRAM\"\n}}\n"
            ),
        ),
        ("janus.plugin.videoroom.jcfg", "general: {\n string_ids = true\n}\n".to_owned()),
    ];
    for (name, text) in files {
        fs::write(folder.join(name), text)?;
    }
    Ok(())
}
