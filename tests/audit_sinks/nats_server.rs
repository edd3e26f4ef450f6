//! A real NATS server with JetStream, one for each test that wants one.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use async_nats::{ConnectOptions, HeaderMap};
use serde_json::{Value, json};
use tableside::audit::SinkOptions;
use tableside::audit::jetstream::JetstreamOptions;
use tableside::config::AuditJetstream;

use crate::foreign::program;
use crate::ports::free_ports;
use crate::{Directory, runtime};

/// The name of the stream.
pub const STREAM: &str = "AUDIT";

/// Until it is up, on a machine that does other things.
const LIMIT: Duration = Duration::from_secs(60);

pub struct NatsServer {
    child: Option<Child>,
    pub port: u16,
    pub directory: Directory,
    /// Who may do everything.
    admin: Option<(String, String)>,
    /// How often it was started: each time it has another log.
    starts: u32,
}

impl NatsServer {
    /// One that is not started yet. `config` is what its file says besides where it is.
    pub fn new(directory: Directory, config: &str) -> Self {
        let port = free_ports(1);
        let store = directory.path("store");
        fs::write(
            directory.path("nats.conf"),
            format!(
                "listen: \"127.0.0.1:{port}\"\njetstream {{ store_dir: {store:?}, max_mem: 16M, max_file: 1G }}\n{config}\n"
            ),
        )
        .unwrap();
        Self { child: None, port, directory, admin: None, starts: 0 }
    }

    /// One that runs, with a stream as it has to be.
    pub fn start(config: &str) -> Self {
        // Tests of another process may be given the port between its choice and its use.
        let mut tried = (0..5).map(|_| Self::new(Directory::new(), config));
        let server = tried.find_map(|mut server| server.try_again().then_some(server)).expect("a port");
        server.make(json!({}));
        server
    }

    /// As [`NatsServer::start`], where the tests log in as `admin`.
    pub fn with_admin(mut self, user: &str, password: &str) -> Self {
        self.admin = Some((user.to_owned(), password.to_owned()));
        self.again();
        self.make(json!({}));
        self
    }

    pub fn kill(&mut self) {
        let mut child = self.child.take().expect("it runs");
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// All of its threads stand still when this returns.
    pub fn stop(&self) {
        self.signal("-STOP");
        let id = self.child.as_ref().expect("it runs").id();
        let stands = |task: &Path| {
            let about = fs::read_to_string(task.join("stat")).unwrap_or_default();
            about.rsplit(") ").next().is_some_and(|state| state.starts_with('T'))
        };
        let begun = Instant::now();
        runtime().block_on(async {
            let mut looks = tokio::time::interval(Duration::from_millis(1));
            let tasks = || fs::read_dir(format!("/proc/{id}/task")).unwrap().map(|task| task.unwrap().path());
            while !tasks().all(|task| stands(&task)) {
                assert!(begun.elapsed() < LIMIT, "it does not stop");
                looks.tick().await;
            }
        });
    }

    /// After [`NatsServer::stop`].
    pub fn go_on(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, signal: &str) {
        let id = self.child.as_ref().expect("it runs").id().to_string();
        assert!(Command::new("kill").args([signal, &id]).status().unwrap().success());
    }

    pub fn again(&mut self) {
        assert!(self.try_again(), "somebody else has its port");
    }

    /// `false` if somebody else has its port.
    fn try_again(&mut self) -> bool {
        self.starts += 1;
        let (config, log) = (self.directory.path("nats.conf"), self.log());
        let mut command = Command::new(program("nats-server"));
        command.args(["--config", &config, "--log", &log]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = self.child.insert(command.spawn().expect("the NATS server starts"));
        let begun = Instant::now();
        runtime().block_on(async {
            let mut looks = tokio::time::interval(Duration::from_millis(10));
            loop {
                let said = fs::read_to_string(&log).unwrap_or_default();
                if said.contains("Server is ready") {
                    return true;
                }
                if child.try_wait().unwrap().is_some() {
                    assert!(said.contains("address already in use"), "the NATS server has ended:\n{said}");
                    return false;
                }
                assert!(begun.elapsed() < LIMIT, "the NATS server does not listen:\n{said}");
                looks.tick().await;
            }
        })
    }

    fn log(&self) -> String {
        self.directory.path(&format!("nats-{}.log", self.starts))
    }

    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// The section of a configuration, all but its header.
    pub fn section(&self) -> String {
        format!("stream = \"{STREAM}\"\nservers = [\"{}\"]\nrequest_timeout_ms = 20000\n", self.url())
    }

    /// A section of a configuration as options.
    pub fn options_of(section: &str) -> JetstreamOptions {
        JetstreamOptions::from_config(&toml::from_str::<AuditJetstream>(section).unwrap()).unwrap()
    }

    /// Its stream, segments included.
    pub fn options(&self) -> JetstreamOptions {
        Self::options_of(&format!("{}segments = true\n", self.section()))
    }

    /// As [`NatsServer::options`].
    pub fn sink(&self) -> SinkOptions {
        SinkOptions::Jetstream(Box::new(self.options()))
    }

    /// What a request is answered with, by its owner.
    pub fn ask(&self, subject: &str, headers: &[(&str, &str)], body: &[u8]) -> Value {
        let options = match &self.admin {
            Some((user, password)) => ConnectOptions::with_user_and_password(user.clone(), password.clone()),
            None => ConnectOptions::new(),
        };
        let mut fields = HeaderMap::new();
        headers.iter().for_each(|(name, value)| fields.insert(*name, *value));
        runtime().block_on(async {
            let client = options.connect(self.url()).await.unwrap();
            let asked = client.request_with_headers(subject.to_owned(), fields, body.to_vec().into());
            serde_json::from_slice(&asked.await.unwrap().payload).unwrap()
        })
    }

    /// Makes the stream, with fields that are otherwise than they have to be.
    pub fn make(&self, otherwise: Value) {
        self.make_as(STREAM, otherwise);
    }

    /// As [`NatsServer::make`], of another name.
    pub fn make_as(&self, name: &str, otherwise: Value) {
        let mut config = json!({
            "name": name, "subjects": ["tableside.audit.>"], "storage": "file", "retention": "limits", "discard": "new",
            "deny_delete": true, "deny_purge": true, "num_replicas": 1,
        });
        for (field, value) in otherwise.as_object().unwrap() {
            config[field] = value.clone();
        }
        let made = self.ask(&format!("$JS.API.STREAM.CREATE.{name}"), &[], config.to_string().as_bytes());
        assert!(made["error"].is_null(), "{made}");
    }

    /// Puts a message into the stream, whatever it is.
    pub fn publish(&self, subject: &str, headers: &[(&str, &str)], body: &[u8]) {
        let taken = self.ask(subject, headers, body);
        assert_eq!(taken["stream"], STREAM, "{taken}");
    }

    /// How many messages it has.
    pub fn messages(&self) -> u64 {
        self.ask(&format!("$JS.API.STREAM.INFO.{STREAM}"), &[], b"")["state"]["messages"].as_u64().unwrap()
    }
}

impl Drop for NatsServer {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            println!("the last NATS server said:\n{}", fs::read_to_string(self.log()).unwrap_or_default());
        }
    }
}
