//! The loop of a shard's thread.

use std::net::SocketAddr;
use std::task::{Context, Poll};
use std::time::{Duration, Instant, SystemTime};
use std::{io, thread};

use tokio::sync::{mpsc, watch};

use crate::bets::{Arrival, Refused};
use crate::fanout::SendBatch;
use crate::net::{IceTcp, RecvBatch, RtcpLane, ShardSocket, Waiter, thread_cpu_time};
use crate::rtc::TransportAddress;
use crate::shard::{DropReason, Role, Shard, ShardEvent, ShardId, ShardReport, SlotKey};

use super::super::peers::Peers;
use super::super::utilisation::Utilisation;
use super::lane::{Lane, RTCP_PACE};
use super::{BetAnswer, Command, NodeBet, Seat};

/// Answers taken before a frame, or the socket, is looked at again: half a millisecond or so.
const ANSWERS_PER_TURN: usize = 64;

/// Commands taken before the socket is looked at again.
const COMMANDS_PER_TURN: usize = 256;

/// Receive batches taken before all else is looked at again: as many as a shard without time to spare finds waiting, so that
/// what publishers send goes before RTCP and handshakes, and a full core turns more slowly instead of losing it.
const BATCHES_PER_TURN: usize = 16;

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

/// How long handshakes are taken in a turn that has no time to spare. With it a shard that media keeps busy to 80 % turns
/// every 1.5 ms or so while a crowd joins, and the crowd gets what media leaves.
const HANDSHAKE_SHARE: Duration = Duration::from_micros(250);

/// How often a shard reports.
const REPORT_INTERVAL: Duration = Duration::from_millis(500);

/// The loop of a shard.
pub(super) struct Turn {
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
    pub(super) fn new(seat: Seat, socket: ShardSocket, tcp: Option<IceTcp>, waiter: Waiter) -> Self {
        Self {
            id: seat.config.id,
            shard: Shard::new(seat.config),
            socket,
            tcp,
            waiter,
            arrivals: RecvBatch::new(),
            rtcp: RecvBatch::with_capacity(RTCP_MESSAGES, RTCP_BYTES),
            data: RecvBatch::with_capacity(DATA_MESSAGES, DATA_BYTES),
            lanes: RtcpLane::ALL.map(|lane| Lane::new(lane, now())),
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
    pub(super) fn run(mut self) -> io::Result<()> {
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
pub(super) fn now() -> Instant {
    Instant::now()
}

/// For the stamps of the kernel, which are of that clock.
#[expect(clippy::disallowed_methods, reason = "read together with the shard's clock, to tell how old a stamp is")]
fn wall_clock() -> SystemTime {
    SystemTime::now()
}

#[cfg(test)]
mod tests;
