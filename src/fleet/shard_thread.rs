//! A shard's thread: the thin shell that moves bytes between sockets and a [`Shard`].

use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant, SystemTime};
use std::{io, thread};

use tokio::sync::{mpsc, oneshot, watch};

use crate::bets::{Announcement, Answer, Arrival, PlayerId, Refused};
use crate::config::MaxLayer;
use crate::fanout::SendBatch;
use crate::net::{
    IceTcp, RecvBatch, RtcpLane, ShardSocket, TcpOptions, TuningReport, UdpOptions, Waiter, keep_to, thread_cpu_time,
    wake_promptly,
};
use crate::rtc::TransportAddress;
use crate::rtc::ice_lite::Ufrag;
use crate::rtc::sdp::{IceCredentials, Negotiated, TableMedia};
use crate::shard::{
    Added, DropReason, EndCause, LocalMedia, PeerMessage, Role, SLACK, Shard, ShardConfig, ShardEvent, ShardId,
    ShardReport, SlotKey, TableId, TableSpec,
};

use super::peers::Peers;
use super::utilisation::Utilisation;

/// Commands and peers' packets that wait for a shard. A GOP of a new subscription fits several times. When it is full,
/// the control plane waits and a peer drops the packet and counts it: a slow shard never delays another.
const QUEUE: usize = 16 * 1024;

/// Answers to bets that wait for a shard, apart from media of other shards. When it is full, the desk keeps them.
const ANSWERS: usize = 4096;

/// Answers taken before a frame, or the socket, is looked at again: half a millisecond or so.
const ANSWERS_PER_TURN: usize = 64;

/// Commands taken before the socket is looked at again.
const COMMANDS_PER_TURN: usize = 256;

/// Receive batches taken before all else is looked at again: as many as a shard without time to spare finds waiting, so that
/// what publishers send goes before RTCP and handshakes, and a full core turns more slowly instead of losing it.
const BATCHES_PER_TURN: usize = 16;

/// Ports that the system chose and that are asked for again over TCP, before it is said that none is free over both.
const PORT_CHOICES: usize = 16;

/// Datagrams after which timers and commands have their turn even if more are waiting: one to two milliseconds of the
/// cheapest kind, which is what a flood is made of. With `UDP_GRO` a batch alone can be that many.
const DATAGRAMS_PER_TURN: usize = 1024;

/// Turns that follow each other within this time are dense: more than a thousand a second.
const DENSE: Duration = Duration::from_millis(1);

/// The least time from one dense turn of a busy shard to the next. It delays a packet by half of that on average, and with
/// many tables saves a tenth of the CPU (`docs/benchmarks.md`).
const GATHER: Duration = Duration::from_micros(500);

/// The utilisation from which on a shard is busy: who has CPU to spare has no reason to delay anything.
const BUSY: f64 = 0.75;

/// Receive batches of RTCP taken before all else is looked at again, and how large they are: a report is a packet. What a
/// batch asks for again has to fit the shard's answers, and 16 packets can ask for 272 with one NACK each.
const RTCP_BATCHES_PER_TURN: usize = 16;
const RTCP_MESSAGES: usize = 16;
const RTCP_BYTES: usize = 2048;

/// What players say, likewise: as many records as cost less than half a millisecond, of the size of a datagram.
const DATA_MESSAGES: usize = 16;
const DATA_BYTES: usize = 2048;

/// Batches of it taken in a turn before all else is looked at again.
const DATA_BATCHES_PER_TURN: usize = 4;

/// Messages sent at once after which it is looked what players say meanwhile: with fewer, the turn is over soon.
const LARGE_SLICE: usize = 16;

/// How long RTCP is taken before all else is looked at again. Where a loss has all players of a table ask for packets, a
/// batch can cost as much as a frame.
const RTCP_SHARE: Duration = Duration::from_millis(1);

/// The least time from one reading of RTCP to the next where it comes densely. Much longer, and what has come by then would
/// hold up a frame.
const RTCP_PACE: Duration = Duration::from_millis(4);

/// How long handshakes are taken in a turn that has no time to spare. With it a shard that media keeps busy to 80 % turns
/// every 1.5 ms or so while a crowd joins, and the crowd gets what media leaves.
const HANDSHAKE_SHARE: Duration = Duration::from_micros(250);

/// How often a shard reports.
const REPORT_INTERVAL: Duration = Duration::from_millis(500);

/// What the control plane and other shards ask of a shard.
#[derive(Debug)]
pub(super) enum Command {
    AddPublisher {
        spec: TableSpec,
        negotiated: Box<Negotiated>,
        random: [u8; 32],
        reply: oneshot::Sender<Added>,
    },
    AddPlayer {
        spec: TableSpec,
        player: PlayerId,
        max_layer: Option<MaxLayer>,
        negotiated: Box<Negotiated>,
        random: [u8; 32],
        reply: oneshot::Sender<Added>,
    },
    AddLocalPublisher {
        spec: TableSpec,
        media: TableMedia,
    },
    Local {
        table: TableId,
        media: Vec<LocalMedia>,
    },
    RestartIce {
        key: SlotKey,
        ufrag: Ufrag,
        local: IceCredentials,
        remote_ufrag: Box<str>,
        reply: oneshot::Sender<bool>,
    },
    Close {
        key: SlotKey,
        cause: EndCause,
        reply: oneshot::Sender<bool>,
    },
    Peer(PeerMessage),
    Round {
        table: TableId,
        event: Arc<Announcement>,
    },
    Shutdown {
        reply: oneshot::Sender<()>,
    },
}

/// A running shard.
#[derive(Clone, Debug)]
pub(super) struct ShardHandle {
    pub(super) commands: mpsc::Sender<Command>,
    pub(super) report: watch::Receiver<ShardReport>,
    pub(super) port: u16,
}

/// What a shard's thread needs to run.
pub(super) struct Seat {
    pub(super) config: ShardConfig,
    /// That it keeps to.
    pub(super) core: Option<usize>,
    pub(super) address: SocketAddr,
    pub(super) options: UdpOptions,
    /// Without it there is no ICE-TCP.
    pub(super) tcp: Option<TcpOptions>,
    pub(super) commands: mpsc::Receiver<Command>,
    pub(super) answers: mpsc::Receiver<BetAnswer>,
    pub(super) peers: Vec<mpsc::Sender<Command>>,
    /// Unbounded: one message per beginning or end of a session or table, so the sessions bound it; losing one would
    /// leak a session.
    pub(super) events: mpsc::UnboundedSender<(ShardId, ShardEvent)>,
    /// To the desk, without which bets are refused. When it is full, so are they, at once: a player can repeat a bet, and no wait
    /// would have an end that anybody knows.
    pub(super) bets: Option<mpsc::Sender<NodeBet>>,
    pub(super) report: watch::Sender<ShardReport>,
}

/// The answer to a bet signal of a session of the shard.
pub(super) type BetAnswer = Box<Answer<SlotKey>>;

/// A bet signal of a session of this node.
pub(super) type NodeBet = Arrival<(ShardId, SlotKey)>;

pub(super) fn queue() -> (mpsc::Sender<Command>, mpsc::Receiver<Command>) {
    mpsc::channel(QUEUE)
}

pub(super) fn answers() -> (mpsc::Sender<BetAnswer>, mpsc::Receiver<BetAnswer>) {
    mpsc::channel(ANSWERS)
}

/// Starts the thread; returns when its sockets are bound, with the bound address and what the kernel granted.
///
/// # Errors
/// A socket cannot be bound, or the thread cannot be started.
pub(super) async fn start(seat: Seat) -> io::Result<(SocketAddr, TuningReport)> {
    let (bound, outcome) = oneshot::channel();
    thread::Builder::new().name(format!("shard-{}", seat.config.id.0)).spawn(move || {
        // Where that cannot be, everything works, and later under load.
        let _ = wake_promptly();
        if let Some((core, error)) = seat.core.and_then(|core| Some((core, keep_to(&[core]).err()?))) {
            return drop(bound.send(Err(io::Error::new(error.kind(), format!("core {core}: {error}")))));
        }
        match bind(&seat) {
            Ok((socket, tcp, waiter, tuning)) => {
                let _ = bound.send(Ok((socket.local_address(), tuning)));
                // Without its descriptors the shard is of no use: its end shows in readiness.
                let _ = Turn::new(seat, socket, tcp, waiter).run();
            }
            Err(error) => drop(bound.send(Err(error))),
        }
    })?;
    outcome.await.unwrap_or_else(|_| Err(io::Error::other("the shard's thread ended")))
}

/// The sockets, on one number, and what waits for them.
fn bind(seat: &Seat) -> io::Result<(ShardSocket, Option<IceTcp>, Waiter, TuningReport)> {
    let mut choices = if seat.address.port() == 0 { PORT_CHOICES } else { 1 };
    loop {
        let (socket, tuning) = ShardSocket::bind(seat.address, &seat.options)?;
        choices -= 1;
        let tcp = seat.tcp.map(|options| IceTcp::bind(socket.local_address(), options)).transpose();
        match tcp {
            Ok(tcp) => {
                let waiter = Waiter::new(&socket, tcp.as_ref())?;
                return Ok((socket, tcp, waiter, tuning));
            }
            Err(error) if choices == 0 => return Err(io::Error::new(error.kind(), format!("TCP: {error}"))),
            Err(_) => {}
        }
    }
}

/// When RTCP of one kind is read.
#[derive(Debug)]
struct Lane {
    /// How long a reading that is due may wait for a turn that is made anyway.
    slack: Duration,
    /// When it is read next, and when the thread is woken for it. Where it comes seldom, there is no such time: it is watched
    /// for.
    due: Option<Instant>,
    latest: Option<Instant>,
    /// When some came last.
    came: Instant,
}

impl Lane {
    fn new(lane: RtcpLane) -> Self {
        let slack = if lane == RtcpLane::Reports { SLACK - RTCP_PACE } else { Duration::ZERO };
        Self { slack, due: None, latest: None, came: now() }
    }

    /// It was read at `now`: did that bring anything, and may more be waiting?
    fn note(&mut self, now: Instant, any: bool, more_waits: bool) {
        let dense = now.saturating_duration_since(self.came) < 2 * RTCP_PACE + self.slack;
        if any {
            self.came = now;
        }
        (self.due, self.latest) = match (more_waits, dense) {
            (true, _) => (Some(now), Some(now)),
            (false, true) => (Some(now + RTCP_PACE), Some(now + RTCP_PACE + self.slack)),
            (false, false) => (None, None),
        };
    }
}

/// The loop of a shard.
struct Turn {
    shard: Shard,
    id: ShardId,
    socket: ShardSocket,
    tcp: Option<IceTcp>,
    waiter: Waiter,
    arrivals: RecvBatch,
    rtcp: RecvBatch,
    data: RecvBatch,
    lanes: [Lane; 2],
    departures: SendBatch,
    commands: mpsc::Receiver<Command>,
    answers: mpsc::Receiver<BetAnswer>,
    peers: Peers,
    /// Over TCP: to be closed once what there is for them was sent.
    leaving: Vec<SocketAddr>,
    events: mpsc::UnboundedSender<(ShardId, ShardEvent)>,
    bets: Option<mpsc::Sender<NodeBet>>,
    report: watch::Sender<ShardReport>,
    report_due: Instant,
    utilisation: Utilisation,
    /// When the last turn began, and whether soon after the one before.
    begun: Instant,
    dense: bool,
    /// Much of the core is used.
    busy: bool,
    /// The turn's share of datagrams was less than what waits.
    more_waits: bool,
    /// What the kernel has dropped for want of room, as far as it was counted.
    receive_drops: u32,
}

impl Turn {
    fn new(seat: Seat, socket: ShardSocket, tcp: Option<IceTcp>, waiter: Waiter) -> Self {
        Self {
            id: seat.config.id,
            shard: Shard::new(seat.config),
            socket,
            tcp,
            waiter,
            arrivals: RecvBatch::new(),
            rtcp: RecvBatch::with_capacity(RTCP_MESSAGES, RTCP_BYTES),
            data: RecvBatch::with_capacity(DATA_MESSAGES, DATA_BYTES),
            lanes: RtcpLane::ALL.map(Lane::new),
            departures: Shard::send_batch(),
            commands: seat.commands,
            answers: seat.answers,
            peers: Peers::new(seat.peers),
            leaving: Vec::new(),
            events: seat.events,
            bets: seat.bets,
            report: seat.report,
            report_due: now(),
            utilisation: Utilisation::new(now()),
            begun: now(),
            dense: false,
            busy: false,
            more_waits: false,
            receive_drops: 0,
        }
    }

    /// Until the control plane is gone or says so.
    fn run(mut self) -> io::Result<()> {
        let waker = self.waiter.waker();
        let mut context = Context::from_waker(&waker);
        loop {
            self.gather();
            let first = match self.commands.poll_recv(&mut context) {
                Poll::Ready(Some(command)) => Some(command),
                Poll::Ready(None) => return Ok(()),
                Poll::Pending => None,
            };
            let answer = match self.answers.poll_recv(&mut context) {
                Poll::Ready(answer) => answer,
                Poll::Pending => None,
            };
            let busy = first.is_some() || answer.is_some() || self.shard.has_handshakes();
            let wait = if busy { Duration::ZERO } else { self.next_wake().saturating_duration_since(now()) };
            let arrivals = self.waiter.wait(wait)?;
            self.begin();
            self.take_answers(answer);
            if self.take_commands(first).is_break() {
                return Ok(());
            }
            // Before all else: the end of a session comes after what was said in it.
            if arrivals.data {
                self.take_data(DATA_BATCHES_PER_TURN);
            }
            if arrivals.datagrams {
                self.take_datagrams();
            }
            let now = now();
            for (n, lane) in RtcpLane::ALL.into_iter().enumerate() {
                if arrivals.rtcp[n] || self.lanes[n].due.is_some_and(|at| now >= at) {
                    self.take_rtcp(lane, now);
                }
            }
            if arrivals.tcp {
                self.take_frames(now);
            }
            if let Some(tcp) = &mut self.tcp {
                tcp.handle_timeout(now);
            }
            self.shard.handle_timeout(now);
            self.drain(now);
            self.advance_handshakes();
            if now >= self.report_due {
                self.send_report(now);
            }
        }
    }

    /// When there is something to do, if nothing arrives.
    fn next_wake(&self) -> Instant {
        let tcp = self.tcp.as_ref().and_then(IceTcp::poll_timeout);
        let [requests, reports] = &self.lanes;
        let wakes = [self.shard.poll_timeout(), tcp, requests.latest, reports.latest];
        wakes.into_iter().flatten().fold(self.report_due, Instant::min)
    }

    /// A turn begins.
    fn begin(&mut self) {
        let now = now();
        self.dense = now.saturating_duration_since(self.begun) < DENSE;
        self.begun = now;
    }

    /// Where the core is busy with turns that follow each other closely, lets datagrams gather, as a network card holds back
    /// its interrupts.
    fn gather(&self) {
        if !self.busy || !self.dense || self.more_waits || self.shard.has_handshakes() {
            return;
        }
        let rest = (self.begun + GATHER).saturating_duration_since(now());
        if !rest.is_zero() {
            #[expect(clippy::disallowed_methods, reason = "the shard's own thread, which serves nobody else")]
            thread::sleep(rest);
        }
    }

    fn take_commands(&mut self, first: Option<Command>) -> std::ops::ControlFlow<()> {
        let now = now();
        let mut next = first.or_else(|| self.commands.try_recv().ok());
        for _ in 0..COMMANDS_PER_TURN {
            let Some(command) = next else { break };
            if let Command::Shutdown { reply } = command {
                // What was told before goes out before, and leaves the goodbyes their room.
                while self.take_answers(None) > 0 {
                    self.drain(now);
                }
                self.shard.close_all(now);
                self.drain(now);
                self.send_report(now);
                // The control plane may have given up waiting.
                let _ = reply.send(());
                return std::ops::ControlFlow::Break(());
            }
            self.obey(now, command);
            next = self.commands.try_recv().ok();
        }
        if let Some(command) = next {
            self.obey(now, command);
        }
        std::ops::ControlFlow::Continue(())
    }

    fn obey(&mut self, now: Instant, command: Command) {
        // Who asked may have gone away: then the session is left to its setup timeout.
        match command {
            Command::AddPublisher { spec, negotiated, random, reply } => {
                let _ = reply.send(self.shard.add_publisher(now, &spec, &negotiated, &random));
            }
            Command::AddPlayer { spec, player, max_layer, negotiated, random, reply } => {
                let _ = reply.send(self.shard.add_player(now, &spec, player, max_layer, &negotiated, &random));
            }
            Command::AddLocalPublisher { spec, media } => self.shard.add_local_publisher(now, &spec, media),
            Command::Local { table, media } => {
                media.iter().for_each(|packet| self.shard.handle_local(now, table, packet));
            }
            Command::RestartIce { key, ufrag, local, remote_ufrag, reply } => {
                let _ = reply.send(self.shard.restart_ice(now, key, ufrag, &local, &remote_ufrag));
            }
            Command::Close { key, cause, reply } => {
                let _ = reply.send(self.shard.close_session(now, key, cause));
            }
            Command::Peer(message) => self.shard.handle_peer(now, message),
            Command::Round { table, event } => self.shard.handle_round_event(now, table, event),
            Command::Shutdown { .. } => unreachable!("taken by the caller"),
        }
    }

    /// Answers to bets, at most a turn's share. Says how many.
    fn take_answers(&mut self, mut first: Option<BetAnswer>) -> usize {
        let mut taken = 0;
        while taken < ANSWERS_PER_TURN {
            let Some(answer) = first.take().or_else(|| self.answers.try_recv().ok()) else { break };
            self.shard.handle_bet_answer(now(), &answer);
            taken += 1;
        }
        taken
    }

    /// What players say over data channels. Bets go on to the desk at once.
    fn take_data(&mut self, batches: usize) {
        for _ in 0..batches {
            let more_waits = self.socket.recv_data(&mut self.data).unwrap_or(false);
            let now = now();
            for (source, datagram) in self.data.datagrams_mut() {
                self.shard.handle_datagram(now, source, datagram);
            }
            self.shard.dropped(DropReason::Unrecognised, self.data.take_unusable());
            self.say(now);
            if !more_waits {
                break;
            }
        }
    }

    fn take_datagrams(&mut self) {
        let mut taken = 0;
        for _ in 0..BATCHES_PER_TURN {
            self.more_waits = self.socket.recv_batch(&mut self.arrivals).unwrap_or(false);
            let now = now();
            for (source, datagram) in self.arrivals.datagrams_mut() {
                self.shard.handle_datagram(now, source, datagram);
            }
            taken += self.arrivals.len();
            self.shard.dropped(DropReason::Unrecognised, self.arrivals.take_unusable());
            self.drain(now);
            if !self.more_waits || taken >= DATAGRAMS_PER_TURN {
                break;
            }
        }
    }

    /// RTCP over UDP. Where it comes seldom, each packet wakes the thread. Where it comes densely, nothing but time does, for
    /// many packets at once: thousands of players report five times a second each or more, and even a NACK can wait for
    /// some milliseconds. A report waits for a frame, which wakes the thread anyway.
    fn take_rtcp(&mut self, lane: RtcpLane, now: Instant) {
        let (read, clock) = (self::now(), wall_clock());
        let (mut any, mut more_waits) = (false, false);
        for _ in 0..RTCP_BATCHES_PER_TURN {
            more_waits = self.socket.recv_rtcp(lane, &mut self.rtcp).unwrap_or(false);
            any |= !self.rtcp.is_empty();
            for (arrived, source, datagram) in self.rtcp.stamped_mut(read, clock) {
                self.shard.handle_late(now, arrived, source, datagram);
            }
            self.shard.dropped(DropReason::Unrecognised, self.rtcp.take_unusable());
            self.drain(now);
            if !more_waits || self::now() >= now + RTCP_SHARE {
                break;
            }
        }
        let state = &mut self.lanes[lane as usize];
        state.note(now, any, more_waits);
        if state.due.is_none() && self.waiter.watch_rtcp(&self.socket, lane).is_err() {
            // As if it came densely.
            (state.due, state.latest) = (Some(now + RTCP_PACE), Some(now + RTCP_PACE));
        }
    }

    /// Steps of handshakes, instead of letting datagrams gather, and for a little at least.
    fn advance_handshakes(&mut self) {
        let end = (self.begun + GATHER).max(now() + HANDSHAKE_SHARE);
        let mut any = false;
        loop {
            let now = now();
            if now >= end || !self.shard.advance_handshake(now) {
                break;
            }
            any = true;
        }
        if any {
            self.drain(now());
        }
    }

    /// What came over TCP.
    fn take_frames(&mut self, now: Instant) {
        let (Some(tcp), shard) = (&mut self.tcp, &mut self.shard) else { return };
        tcp.receive(now, |peer, packet| {
            let source = TransportAddress::tcp(peer);
            shard.handle_datagram(now, source, packet);
            shard.knows(source)
        });
        while let Some(peer) = tcp.poll_gone() {
            shard.handle_disconnect(peer);
        }
    }

    /// Says and sends everything the shard has. Bets go first: a frame for a thousand players takes milliseconds.
    fn drain(&mut self, now: Instant) {
        self.say(now);
        self.transmit(now);
        if self.say(now) {
            // A bet was refused, say.
            self.transmit(now);
        }
        // Their goodbyes have been sent.
        for peer in self.leaving.drain(..) {
            if let Some(tcp) = &mut self.tcp {
                tcp.close(peer);
            }
        }
    }

    /// `false` if there was nothing to say.
    fn say(&mut self, now: Instant) -> bool {
        self.peers.retry();
        let mut any = false;
        while let Some(event) = self.shard.poll_event() {
            any = true;
            match event {
                ShardEvent::Peer { to, message } => {
                    if !self.peers.tell(to, message) {
                        self.shard.dropped(DropReason::ShardQueueFull, 1);
                    }
                }
                ShardEvent::Disconnect { peer } => self.leaving.push(peer),
                ShardEvent::Bet(bet) => self.pass_on(now, *bet),
                event => {
                    // Only at the node's end is nobody listening.
                    let _ = self.events.send((self.id, event));
                }
            }
        }
        any
    }

    /// Gives a bet to the desk, or refuses it.
    fn pass_on(&mut self, now: Instant, bet: Arrival<SlotKey>) {
        let id = self.id;
        let refused = match &self.bets {
            Some(desk) => desk.try_send(bet.at(|key| (id, key))).map_err(|error| error.into_inner().at(|(_, key)| key)),
            None => Err(bet),
        };
        if let Err(bet) = refused {
            self.shard.refuse_bet(now, &bet, Refused::Unavailable);
        }
    }

    fn transmit(&mut self, now: Instant) {
        let mut answered = false;
        loop {
            // In the midst of a frame, too: they go out before the rest of it. Between two shares of them a slice of it goes,
            // however many wait.
            answered = !answered && self.take_answers(None) > 0;
            if !self.shard.poll_transmit(now, &mut self.departures) {
                return;
            }
            let mut sent = self.socket.send_batch(&self.departures);
            if let Some(tcp) = self.tcp.as_mut().filter(|_| !self.departures.tcp_messages().is_empty()) {
                sent += tcp.send_batch(&self.departures);
            }
            for destination in self.socket.unsent() {
                self.shard.handle_unsent(TransportAddress::udp(*destination));
            }
            self.shard.count_sent(sent.datagrams, sent.bytes, sent.runs, sent.dropped_buffer_full, sent.dropped_error);
            if self.departures.messages().len() >= LARGE_SLICE {
                self.take_data(1);
            }
        }
    }

    fn send_report(&mut self, now: Instant) {
        // Before Linux 4.12 nobody knows; the kernel's counter is of 32 bits and wraps.
        let drops = self.socket.receive_drops().unwrap_or(self.receive_drops);
        self.shard.dropped(DropReason::ReceiveBufferFull, drops.wrapping_sub(self.receive_drops).into());
        self.receive_drops = drops;
        let mut report = self.shard.report(now);
        report.cpu_seconds = thread_cpu_time().as_secs_f64();
        let players = report.sessions[Role::Player as usize];
        (report.utilisation, report.utilisation_players) = self.utilisation.sample(now, report.cpu_seconds, players);
        self.busy = report.utilisation >= BUSY;
        if let Some(tcp) = self.tcp.as_ref().map(IceTcp::report) {
            (report.tcp_connections, report.tcp_accepted, report.tcp_ended) =
                (tcp.connections, tcp.accepted, tcp.ended);
        }
        self.report.send_replace(report);
        self.report_due = now + REPORT_INTERVAL;
    }
}

/// The clock of the media plane. The core takes it as an argument.
#[expect(clippy::disallowed_methods, reason = "the one place where a shard's time comes from")]
fn now() -> Instant {
    Instant::now()
}

/// For the stamps of the kernel, which are of that clock.
#[expect(clippy::disallowed_methods, reason = "read together with the shard's clock, to tell how old a stamp is")]
fn wall_clock() -> SystemTime {
    SystemTime::now()
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{Ipv4Addr, TcpStream, UdpSocket};

    use super::*;
    use crate::bets::{Id, Outcome, Stamps, Status};
    use crate::net::TcpEnd;
    use crate::rtc::sdp::{Offer, negotiate_publisher};
    use crate::rtc::stun::{BindingResponse, IceRole, IntegrityKey, RequestParameters, write_request};
    use crate::shard::testing::{roulette, shard_config};

    const OFFER: &[u8] = include_bytes!("../../tests/fixtures/offers/obs-publisher.sdp");
    const OFFERED_UFRAG: &str = "vBqN";
    const LIMIT: Duration = Duration::from_secs(20);

    /// The loop of a shard on loopback, which turns when a test says so.
    fn turn() -> Turn {
        let seat = Seat {
            config: shard_config(now(), LIMIT),
            core: None,
            address: (Ipv4Addr::LOCALHOST, 0).into(),
            options: UdpOptions::default(),
            tcp: Some(TcpOptions::default()),
            commands: queue().1,
            answers: answers().1,
            peers: Vec::new(),
            events: mpsc::unbounded_channel().0,
            bets: None,
            report: watch::channel(ShardReport::default()).0,
        };
        let (socket, tcp, waiter, _) = bind(&seat).expect("loopback");
        Turn::new(seat, socket, tcp, waiter)
    }

    fn publisher(turn: &mut Turn) -> IceCredentials {
        let offer = Offer::parse(OFFER).expect("an offer");
        let negotiated = negotiate_publisher(&offer).expect("a publisher's");
        turn.shard.add_publisher(now(), &roulette(), &negotiated, &[7; 32]).ice
    }

    /// A framed check for a session, keyed by `pwd`.
    fn check(ufrag: &str, pwd: &str) -> Vec<u8> {
        let parameters = RequestParameters {
            transaction_id: [3; 12],
            local_ufrag: ufrag,
            remote_ufrag: OFFERED_UFRAG,
            priority: Some(1),
            role: Some((IceRole::Controlling, 1)),
            use_candidate: true,
        };
        let mut message = [0; 256];
        let len = write_request(&mut message, &parameters, &IntegrityKey::new(pwd));
        [&(len as u16).to_be_bytes()[..], &message[..len]].concat()
    }

    fn until(turn: &mut Turn, condition: impl Fn(&Turn) -> bool) {
        let deadline = now() + LIMIT;
        while !condition(turn) {
            assert!(now() < deadline, "happens in time");
            turn.waiter.wait(LIMIT).expect("waits");
            turn.take_frames(now());
            turn.drain(now());
        }
    }

    fn connect(turn: &Turn) -> TcpStream {
        let listener = turn.tcp.as_ref().expect("enabled").local_address();
        let stream = TcpStream::connect(listener).expect("loopback");
        stream.set_read_timeout(Some(LIMIT)).expect("a timeout");
        stream
    }

    /// A publisher over TCP whose check was true.
    fn proven(turn: &mut Turn) -> (TcpStream, TransportAddress, IceCredentials) {
        let ice = publisher(turn);
        let mut peer = connect(turn);
        let address = TransportAddress::tcp(peer.local_addr().expect("bound"));
        peer.write_all(&check(&ice.ufrag, &ice.pwd)).expect("room");
        until(turn, |turn| turn.shard.knows(address));
        (peer, address, ice)
    }

    fn ended(turn: &Turn, cause: TcpEnd) -> u64 {
        turn.tcp.as_ref().expect("enabled").report().ended[cause as usize]
    }

    #[test]
    fn what_players_say_is_read_while_much_is_sent() {
        let mut turn = turn();
        let to = turn.socket.local_address();
        let ice = publisher(&mut turn);
        let bind = |_| UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback");
        let paths: Vec<UdpSocket> = (0..LARGE_SLICE).map(bind).collect();
        for path in &paths {
            path.send_to(&check(&ice.ufrag, &ice.pwd)[2..], to).expect("loopback");
        }
        paths[0].send_to(&[23, 254, 253], to).expect("loopback");
        // Each check has an answer, and after so many the other socket is looked at.
        turn.take_datagrams();
        let report = turn.shard.report(now());
        assert_eq!(report.datagrams_received, LARGE_SLICE as u64 + 1);
        assert_eq!(report.datagrams_sent, LARGE_SLICE as u64);
    }

    #[test]
    fn rtcp_wakes_the_thread_where_it_is_rare_and_waits_for_its_time_where_it_is_dense() {
        let player = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback");
        for (lane, packet_type, latest) in [(RtcpLane::Requests, 205, RTCP_PACE), (RtcpLane::Reports, 201, SLACK)] {
            let mut turn = turn();
            let to = turn.socket.local_address();
            let send = || player.send_to(&[0x81, packet_type, 0, 1, 0, 0, 0, 1], to).expect("loopback");
            let mut at = now() + 2 * SLACK;
            let times = |turn: &Turn| (turn.lanes[lane as usize].due, turn.lanes[lane as usize].latest);
            let received = |turn: &mut Turn| turn.shard.report(now()).datagrams_received;
            let woken = |turn: &mut Turn, most| turn.waiter.wait(most).expect("waits").rtcp[lane as usize];

            send();
            assert!(woken(&mut turn, LIMIT));
            turn.take_rtcp(lane, at);
            assert_eq!((received(&mut turn), times(&turn)), (1, (None, None)), "the first for a long time");

            send();
            assert!(woken(&mut turn, LIMIT), "it is watched again");
            at += RTCP_PACE / 2;
            turn.take_rtcp(lane, at);
            assert_eq!(times(&turn), (Some(at + RTCP_PACE), Some(at + latest)), "soon after the first");
            assert_eq!(turn.next_wake(), turn.report_due.min(at + latest));

            send();
            assert!(!woken(&mut turn, RTCP_PACE), "nothing but time wakes for it now");
            at += RTCP_PACE;
            turn.take_rtcp(lane, at);
            assert_eq!(received(&mut turn), 3);

            at += latest;
            turn.take_rtcp(lane, at);
            assert_eq!(times(&turn), (Some(at + RTCP_PACE), Some(at + latest)), "nothing came once");
            at += latest + RTCP_PACE;
            turn.take_rtcp(lane, at);
            assert_eq!(times(&turn), (None, None), "nothing came for long");
            send();
            assert!(woken(&mut turn, LIMIT));
        }
    }

    #[test]
    fn rtcp_that_is_left_over_is_read_in_the_next_turn() {
        let mut lane = Lane::new(RtcpLane::Reports);
        let now = now();
        lane.note(now, true, true);
        assert_eq!((lane.due, lane.latest), (Some(now), Some(now)));
    }

    #[test]
    fn over_tcp_only_a_valid_check_keeps_a_connection() {
        let mut turn = turn();
        let ice = publisher(&mut turn);
        let wrong =
            [check(&ice.ufrag, "not the password of anybody"), check("AAAAAAAAAAAA", &ice.pwd), vec![0, 1, 128]];
        for (n, first) in wrong.iter().enumerate() {
            let mut stranger = connect(&turn);
            stranger.write_all(first).expect("room");
            until(&mut turn, |turn| ended(turn, TcpEnd::NoCheck) == n as u64 + 1);
            assert!(matches!(stranger.read(&mut [0; 8]), Ok(0) | Err(_)), "closed without a word");
        }
        let mut peer = connect(&turn);
        let address = TransportAddress::tcp(peer.local_addr().expect("bound"));
        peer.write_all(&check(&ice.ufrag, &ice.pwd)).expect("room");
        until(&mut turn, |turn| turn.shard.knows(address));
        let mut prefix = [0; 2];
        peer.read_exact(&mut prefix).expect("an answer");
        let mut answer = vec![0; usize::from(u16::from_be_bytes(prefix))];
        peer.read_exact(&mut answer).expect("all of it");
        assert!(BindingResponse::parse(&answer).expect("a response").verify(&IntegrityKey::new(&ice.pwd)));
        assert_eq!(turn.tcp.as_ref().expect("enabled").report().connections, 1);
    }

    #[test]
    fn answers_are_taken_a_share_at_a_time_and_wake_the_thread() {
        let mut turn = turn();
        let (sender, receiver) = answers();
        turn.answers = receiver;
        let waker = turn.waiter.waker();
        assert!(turn.answers.poll_recv(&mut Context::from_waker(&waker)).is_pending());
        let answer = || {
            Box::new(Answer {
                to: SlotKey { slot: 3, generation: 1 },
                bet_id: Id::new("b").expect("an id"),
                outcome: Outcome::Accepted,
                stamps: Stamps::at(now()),
                late: false,
            })
        };
        (0..150).for_each(|_| sender.try_send(answer()).expect("room"));
        let begun = now();
        turn.waiter.wait(LIMIT).expect("waits");
        assert!(now() - begun < LIMIT, "nothing but the answers has woken it");
        let counted = |turn: &mut Turn| turn.shard.report(now()).bets.outcomes[Status::Accepted as usize];
        assert_eq!((turn.take_answers(None), counted(&mut turn)), (64, 64));
        assert_eq!((turn.take_answers(Some(answer())), turn.take_answers(None), turn.take_answers(None)), (64, 23, 0));
        assert_eq!(counted(&mut turn), 151, "of a player who has left, too");
    }

    #[test]
    fn over_tcp_what_there_is_to_say_comes_before_the_end() {
        let mut turn = turn();
        let (mut peer, _, ice) = proven(&mut turn);
        // The answer to another check, and the end of the connection, in one turn.
        let received = turn.shard.report(now()).datagrams_received;
        peer.write_all(&check(&ice.ufrag, &ice.pwd)).expect("room");
        let deadline = now() + LIMIT;
        while turn.shard.report(now()).datagrams_received == received {
            assert!(now() < deadline, "it comes in time");
            turn.waiter.wait(LIMIT).expect("waits");
            turn.take_frames(now());
        }
        turn.shard.close_all(now());
        turn.drain(now());
        let mut said = Vec::new();
        peer.read_to_end(&mut said).expect("its end");
        let first = 2 + usize::from(u16::from_be_bytes([said[0], said[1]]));
        assert_eq!(said.len(), 2 * first, "both answers came before the end");
    }

    #[test]
    fn a_tcp_connection_that_is_gone_is_no_path_any_more() {
        let mut turn = turn();
        let (peer, address, _) = proven(&mut turn);
        drop(peer);
        until(&mut turn, |turn| ended(turn, TcpEnd::Peer) == 1);
        assert!(!turn.shard.knows(address));
    }
}
