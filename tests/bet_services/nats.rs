//! A real NATS server, and a bet service behind it.

use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::Stdio;
use std::time::{Duration, Instant};

use async_nats::{Client, ConnectOptions, Message, Subscriber};
use futures_util::Stream;
use serde_json::{Value, json};
use tableside::bet_service::{Link, NatsService};
use tableside::config::Config;
use tokio::process::{Child, Command};
use tokio::task::{JoinHandle, JoinSet};

use crate::foreign::program;
use crate::ports::free_ports;

use super::bench::{Bench, ForeignBench, run};
use super::files::Files;
use super::ledger::{Fault, Ledger};
use super::node::{LIMIT, Node};

/// A server on a port of its own. Ends with the test.
pub struct Server {
    child: Child,
    pub port: u16,
    config: PathBuf,
    files: Files,
}

impl Server {
    /// `config` is what its file says besides the port.
    pub async fn start(files: Files, config: &str) -> Self {
        // The server's own choice would be another after a restart.
        let port = free_ports(1);
        let config = files.write("nats.conf", &format!("listen: \"127.0.0.1:{port}\"\n{config}\n"));
        let child = spawn(&config, &files);
        let server = Self { child, port, config, files };
        server.ready().await;
        server
    }

    pub async fn kill(&mut self) {
        self.child.kill().await.expect("it is killed");
    }

    pub async fn again(&mut self) {
        self.child = spawn(&self.config, &self.files);
        self.ready().await;
    }

    /// It greets whoever connects.
    async fn ready(&self) {
        let begun = Instant::now();
        let mut looks = tokio::time::interval(Duration::from_millis(10));
        while tokio::net::TcpStream::connect(("127.0.0.1", self.port)).await.is_err() {
            let log = || std::fs::read_to_string(self.files.path().join("nats.log")).unwrap_or_default();
            assert!(begun.elapsed() < LIMIT, "the NATS server does not listen:\n{}", log());
            looks.tick().await;
        }
    }
}

fn spawn(config: &Path, files: &Files) -> Child {
    let mut command = Command::new(program("nats-server"));
    command.arg("--config").arg(config).arg("--log").arg(files.path().join("nats.log"));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    command.spawn().expect("the NATS server starts")
}

pub struct NatsBench {
    pub server: Server,
    ledger: Ledger,
    service: Option<(Client, JoinHandle<()>)>,
    /// How the service connects.
    url: String,
    options: fn() -> ConnectOptions,
    /// What a node's section says besides.
    section: String,
}

impl NatsBench {
    pub async fn with(server: Server, scheme: &str, section: &str, options: fn() -> ConnectOptions) -> Self {
        let host = if scheme == "tls" { "localhost" } else { "127.0.0.1" };
        let url = format!("{scheme}://{host}:{}", server.port);
        let mut bench =
            Self { server, ledger: Ledger::default(), service: None, url, options, section: section.to_owned() };
        bench.back().await;
        bench
    }

    pub fn config(&self) -> Config {
        let text = format!(
            "[bet_service]\nkind = \"nats\"\nbreaker.consecutive_failures = 8\n[bet_service.nats]\nservers = [{:?}]\n\
             subject_prefix = \"casino.test\"\n{}\n[tables.one]\n[tables.two]\n",
            self.url, self.section
        );
        Config::parse("test.toml".as_ref(), &text).expect("a configuration")
    }

    /// What the service publishes with.
    pub fn client(&self) -> &Client {
        &self.service.as_ref().expect("it runs").0
    }
}

impl Bench for NatsBench {
    async fn start() -> Self {
        let server = Server::start(Files::new(), "").await;
        Self::with(server, "nats", "", ConnectOptions::new).await
    }

    async fn connect(&self) -> (Node, JoinHandle<()>) {
        let (link, task) = self.join();
        let mut node = Node::new(link);
        node.until("the connection", |node| node.report().connected == Some(true)).await;
        (node, task)
    }
}

impl ForeignBench for NatsBench {
    fn join(&self) -> (Link, JoinHandle<()>) {
        let config = self.config();
        let tables = config.tables.keys().map(|name| name.as_str().into());
        run(NatsService::new(&config.bet_service, tables).expect("a connector"))
    }

    fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    async fn kill(&mut self) {
        let (client, service) = self.service.take().expect("it runs");
        service.abort();
        let _ = service.await;
        // With its connection: the server then knows that nobody listens.
        client.drain().await.expect("it goes");
        let begun = Instant::now();
        let mut looks = tokio::time::interval(Duration::from_millis(10));
        while client.publish("casino.test.gone", "".into()).await.is_ok() {
            assert!(begun.elapsed() < LIMIT, "the service's connection stays");
            looks.tick().await;
        }
    }

    async fn back(&mut self) {
        let begun = Instant::now();
        let client = loop {
            match (self.options)().connect(&self.url).await {
                Ok(client) => break client,
                Err(error) => assert!(begun.elapsed() < LIMIT, "the service finds no server: {error}"),
            }
        };
        let bets = client.subscribe("casino.test.bets.*").await.expect("subscribed");
        let tables = client.subscribe("casino.test.tables.*").await.expect("subscribed");
        client.flush().await.expect("the server has heard of it");
        let service = tokio::spawn(serve(client.clone(), bets, tables, self.ledger.clone()));
        self.service = Some((client, service));
    }

    async fn say(&self, table: &str, kind: &str) {
        let event = self.ledger.say(table, kind);
        publish(self.client(), &event).await;
    }

    async fn say_again(&self, table: &str) {
        for event in self.ledger.current(table) {
            publish(self.client(), &event).await;
        }
    }
}

async fn publish(client: &Client, event: &Value) {
    let table = event["table"].as_str().expect("a table");
    client.publish(format!("casino.test.rounds.{table}"), event.to_string().into()).await.expect("published");
}

async fn serve(client: Client, mut bets: Subscriber, mut tables: Subscriber, ledger: Ledger) {
    // Aborted with this task.
    let mut under_way = JoinSet::new();
    loop {
        tokio::select! {
            Some(message) = next(&mut bets) => {
                under_way.spawn(bet(client.clone(), message, ledger.clone()));
            }
            Some(message) = next(&mut tables) => {
                let document = serde_json::from_slice(&message.payload).expect("a document");
                for event in ledger.handle_table(&document) {
                    publish(&client, &event).await;
                }
            }
            Some(_) = under_way.join_next() => {}
            else => return,
        }
    }
}

async fn bet(client: Client, message: Message, ledger: Ledger) {
    let document: Value = serde_json::from_slice(&message.payload).expect("a document");
    let headers = message.headers.as_ref().expect("headers");
    let id = headers.get("Nats-Msg-Id").expect("an id").as_str();
    assert!(headers.get("traceparent").is_some_and(|parent| parent.as_str().len() == 55));
    let answer = match ledger.fault() {
        Fault::None => ledger.take(id, &document).to_string(),
        Fault::Slow(time) => {
            tokio::time::sleep(time).await;
            ledger.take(id, &document).to_string()
        }
        Fault::Hang => {
            ledger.take(id, &document);
            return std::future::pending().await;
        }
        Fault::Decline => json!({ "status": "unavailable" }).to_string(),
        Fault::Garbage => {
            ledger.take(id, &document);
            "accepted".to_owned()
        }
        Fault::Flood => {
            let mut answer = ledger.take(id, &document);
            answer["more"] = "x".repeat(100_000).into();
            answer.to_string()
        }
        Fault::Error => {
            ledger.take(id, &document);
            String::new()
        }
    };
    let _ = client.publish(message.reply.expect("a reply subject"), answer.into()).await;
}

async fn next(subscriber: &mut Subscriber) -> Option<Message> {
    std::future::poll_fn(|cx| Pin::new(&mut *subscriber).poll_next(cx)).await
}
