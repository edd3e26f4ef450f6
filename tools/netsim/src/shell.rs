//! The sockets, the clock and standard input around a [`Relay`].

use std::collections::VecDeque;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use serde_json::{Value, json};
use socket2::{Domain, Socket, Type};
use tableside_netsim::Relay;
use tableside_netsim::relay::{Command, Delivery, Towards, WrongCommand};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;

/// What the kernel may keep while another packet is dealt with: a keyframe for a hundred players.
const SOCKET_BUFFER: usize = 8 << 20;

/// Packets that were read and not dealt with. When it is full nothing is read, and what comes waits in the kernel.
const QUEUE: usize = 1024;

/// Larger than any UDP payload.
const LONGEST: usize = 65_536;

enum Event {
    Front { front: usize, from: SocketAddr, bytes: Vec<u8> },
    Back { client: usize, bytes: Vec<u8> },
    Failed(std::io::Error),
}

/// A client's port at the target's side.
struct Back {
    socket: UdpSocket,
    reader: JoinHandle<()>,
}

impl Drop for Back {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

struct Shell {
    relay: Relay,
    fronts: Vec<UdpSocket>,
    /// Where each front passes on to.
    targets: Vec<SocketAddr>,
    backs: Vec<Back>,
    events: mpsc::Sender<Event>,
}

/// Relays until a signal ends it. What it has to say goes to `say`: where it listens, answers to commands, the counts at the
/// end.
pub async fn run(
    relay: Relay,
    forward: &[(SocketAddr, SocketAddr)],
    plan: Vec<(Duration, Command)>,
    say: impl Fn(&Value),
) -> anyhow::Result<()> {
    let (events, mut queue) = mpsc::channel(QUEUE);
    let mut shell = Shell::new(relay, forward, events)?;
    let [mut interrupt, mut terminate] = [signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?];
    let mut lines = Some(BufReader::new(tokio::io::stdin()).lines());
    let start = now();
    let mut plan = VecDeque::from(plan);
    let mut alarm = Alarm::new();
    let listening = shell.fronts.iter().map(|front| front.local_addr()).collect::<Result<Vec<_>, _>>()?;
    say(&json!({ "listening": listening }));
    loop {
        shell.deliver(now());
        let planned = plan.front().map(|(at, _)| start + *at);
        let next = [shell.relay.poll_timeout(), planned].into_iter().flatten().min();
        tokio::select! {
            biased;
            _ = interrupt.recv() => break,
            _ = terminate.recv() => break,
            Some(event) = queue.recv() => shell.handle(now(), event)?,
            () = alarm.ring(next) => {}
            line = next_line(&mut lines) => match line {
                Some(line) => say(&shell.answer(&line)?),
                None => lines = None,
            },
        }
        while plan.front().is_some_and(|(at, _)| now() >= start + *at) {
            let Some((_, command)) = plan.pop_front() else { break };
            say(&shell.follow(command)?.unwrap_or_else(|error| json!({ "error": error.to_string() })));
        }
    }
    say(&shell.counts());
    Ok(())
}

/// The next line of standard input; `None` at its end, and never again after that.
async fn next_line(lines: &mut Option<tokio::io::Lines<BufReader<tokio::io::Stdin>>>) -> Option<String> {
    match lines {
        Some(lines) => lines.next_line().await.ok().flatten(),
        None => std::future::pending().await,
    }
}

/// Rings at an instant, to some ten microseconds: tokio's timers are late by up to two milliseconds, in which a link is as much longer
/// than it was said to be.
struct Alarm {
    next: std::sync::mpsc::Sender<Option<Instant>>,
    rang: Arc<Notify>,
    set: Option<Instant>,
}

impl Alarm {
    fn new() -> Self {
        let (next, changes) = std::sync::mpsc::channel::<Option<Instant>>();
        let rang = Arc::new(Notify::new());
        let bell = Arc::clone(&rang);
        std::thread::spawn(move || {
            let mut next = None;
            loop {
                let change = match next {
                    Some(at) => changes.recv_timeout(Instant::saturating_duration_since(&at, now())),
                    None => changes.recv().map_err(|_| RecvTimeoutError::Disconnected),
                };
                match change {
                    Ok(at) => next = at,
                    Err(RecvTimeoutError::Disconnected) => return,
                    Err(RecvTimeoutError::Timeout) => {
                        next = None;
                        bell.notify_one();
                    }
                }
            }
        });
        Self { next, rang, set: None }
    }

    /// Waits until then; for ever, if there is no such instant. It may ring too early.
    async fn ring(&mut self, at: Option<Instant>) {
        if self.set != at {
            self.set = at;
            let _ = self.next.send(at);
        }
        self.rang.notified().await;
        self.set = None;
    }
}

impl Shell {
    fn new(relay: Relay, forward: &[(SocketAddr, SocketAddr)], events: mpsc::Sender<Event>) -> anyhow::Result<Self> {
        let mut fronts = Vec::new();
        for (n, (listen, _)) in forward.iter().enumerate() {
            let (front, socket) = bind(*listen).with_context(|| format!("cannot listen at {listen}"))?;
            let events = events.clone();
            tokio::spawn(async move {
                let mut buffer = vec![0; LONGEST];
                loop {
                    let event = match socket.recv_from(&mut buffer).await {
                        Ok((len, from)) => Event::Front { front: n, from, bytes: buffer[..len].to_vec() },
                        Err(error) => Event::Failed(error),
                    };
                    let is_last = matches!(event, Event::Failed(_));
                    if events.send(event).await.is_err() || is_last {
                        return;
                    }
                }
            });
            fronts.push(front);
        }
        let targets = forward.iter().map(|(_, to)| *to).collect();
        Ok(Self { relay, fronts, targets, backs: Vec::new(), events })
    }

    fn handle(&mut self, now: Instant, event: Event) -> anyhow::Result<()> {
        match event {
            Event::Front { front, from, bytes } => {
                if let Some(client) = self.relay.handle_front(now, front, from, bytes) {
                    let back = self.open(client)?;
                    self.backs.push(back);
                }
            }
            Event::Back { client, bytes } => self.relay.handle_back(now, client, bytes),
            Event::Failed(error) => return Err(error).context("cannot receive any more"),
        }
        Ok(())
    }

    /// A port at the target's side for a client.
    fn open(&self, client: usize) -> anyhow::Result<Back> {
        let (front, _) = self.relay.client(client);
        // Of the address that clients know, so that the target sees no other.
        let own = self.fronts[front].local_addr()?.ip();
        let (socket, reading) = bind(SocketAddr::new(own, 0)).context("no port for another client")?;
        let (target, events) = (self.targets[front], self.events.clone());
        let reader = tokio::spawn(async move {
            let mut buffer = vec![0; LONGEST];
            loop {
                let event = match reading.recv_from(&mut buffer).await {
                    // As a NAT that lets in only whom it has sent to.
                    Ok((_, from)) if from != target => continue,
                    Ok((len, _)) => Event::Back { client, bytes: buffer[..len].to_vec() },
                    Err(error) => Event::Failed(error),
                };
                let is_last = matches!(event, Event::Failed(_));
                if events.send(event).await.is_err() || is_last {
                    return;
                }
            }
        });
        Ok(Back { socket, reader })
    }

    /// Sends what has arrived by now. What the kernel does not take at once is lost, as on any network.
    fn deliver(&mut self, now: Instant) {
        while let Some(Delivery { client, towards, bytes }) = self.relay.poll_delivery(now) {
            let (front, address) = self.relay.client(client);
            let _ = match towards {
                Towards::Target => self.backs[client].socket.send_to(&bytes, self.targets[front]),
                Towards::Client => self.fronts[front].send_to(&bytes, address),
            };
        }
    }

    fn answer(&mut self, line: &str) -> anyhow::Result<Value> {
        let answer = match Command::parse(line) {
            Ok(command) => self.follow(command)?,
            Err(error) => Err(error),
        };
        Ok(answer.unwrap_or_else(|error| json!({ "error": error.to_string() })))
    }

    /// The answer to a command.
    ///
    /// # Errors
    /// There are no more ports. The inner error is the sender's, and changes nothing.
    fn follow(&mut self, command: Command) -> anyhow::Result<Result<Value, WrongCommand>> {
        match command {
            Command::Counts => return Ok(Ok(self.counts())),
            Command::Change { whose, up, down, settings } => {
                if let Err(error) = self.relay.change(whose, up, down, &settings) {
                    return Ok(Err(error));
                }
            }
            Command::Rebind { client } => match self.relay.chosen(client) {
                Ok(chosen) => {
                    for client in chosen {
                        self.backs[client] = self.open(client)?;
                    }
                }
                Err(error) => return Ok(Err(error)),
            },
        }
        Ok(Ok(json!({ "done": true })))
    }

    fn counts(&self) -> Value {
        json!({ "clients": self.relay.counts(), "refused": self.relay.refused })
    }
}

/// A socket twice, to send at once and to wait for what comes: tokio's own does not send before it has once been told that it
/// may.
fn bind(address: SocketAddr) -> anyhow::Result<(UdpSocket, tokio::net::UdpSocket)> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, None)?;
    socket.set_nonblocking(true)?;
    // The kernel gives what it may.
    let _ = socket.set_recv_buffer_size(SOCKET_BUFFER);
    let _ = socket.set_send_buffer_size(SOCKET_BUFFER);
    socket.bind(&address.into())?;
    let sends = UdpSocket::from(socket);
    let receives = tokio::net::UdpSocket::from_std(sends.try_clone()?)?;
    Ok((sends, receives))
}

#[expect(clippy::disallowed_methods, reason = "the shell's clock: the relay is handed this instant")]
fn now() -> Instant {
    Instant::now()
}
