//! A thread with peers: their sockets in one epoll set, read by polling; their timers; what they measured.
//!
//! Polling, since a wake-up for each packet would cost more than the packet. What comes waits in the kernel meanwhile and
//! is stamped there, so that the measured delay is the server's and not ours.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::{Duration, Instant};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use tableside::rtc::dtls::DtlsIdentity;
use tableside::rtc::sdp::IceCredentials;

use crate::answer::Answer;
use crate::bettor::{BetTally, Bettor};
use crate::client::{ClientError, Shared};
use crate::clock;
use crate::data_side::Says;
use crate::offer::Sends;
use crate::player::{Player, PlayerContext};
use crate::publisher::{Programme, Publisher};
use crate::socket::{PeerSocket, READ_BYTES, control_buffer};
use crate::tally::{Received, Sent, Times};

/// The longest that anything waits for the next look at the sockets.
const POLL: Duration = Duration::from_micros(500);

/// Sockets that one look takes.
const READY: usize = 1024;

/// What the thread is told.
pub enum Command {
    /// A peer has its answer.
    Join(Box<Join>),
    /// From now on, what comes counts.
    Begin,
    /// Nobody bets any more.
    StopBets,
    /// What came so far counts.
    End,
    /// Say goodbye and return.
    Stop,
}

/// A peer that has its answer.
pub struct Join {
    /// Whose address its offer named.
    pub socket: PeerSocket,
    /// Its credentials.
    pub ice: IceCredentials,
    /// The server's.
    pub answer: Arc<Answer>,
    /// When its offer went out.
    pub posted_at: Instant,
    /// When the answer was there.
    pub answered_at: Instant,
    /// What it does.
    pub role: Role,
}

/// What a peer does.
pub enum Role {
    /// Watches.
    Player {
        /// Index of the group that it counts for.
        group: usize,
        /// Opens what it gets.
        verifies: bool,
        /// Between two transport-wide feedbacks.
        feedback: Option<Duration>,
        /// What it says over data channels.
        says: Says,
    },
    /// Sends.
    Publisher {
        /// What it offered.
        sends: Sends,
        /// What it sends.
        programme: Programme,
        /// Where its frames lie in the frame interval, 0 to 1.
        phase: f64,
    },
}

/// What anybody may look at while it runs.
#[derive(Debug, Default)]
pub struct Progress {
    /// Peers that are connected, or were.
    pub connected: AtomicU64,
    /// Peers that are over before their time.
    pub failed: AtomicU64,
    /// RTP packets that players got; brought up to date a few times a second.
    pub packets: AtomicU64,
    /// Of these, missing by their numbers.
    pub lost: AtomicU64,
    /// Bet signals without an outcome, by thread; brought up to date as often.
    pub bets_waiting: Vec<AtomicU64>,
}

/// What a group of players measured.
#[derive(Clone, Debug, Default)]
pub struct GroupTally {
    /// Players that connected.
    pub connected: u64,
    /// Players of whose packets none was lost while it was measured.
    pub without_loss: u64,
    /// Players that connected and received no RTP packet while it was measured: without packets there is no gap either.
    pub silent: u64,
    /// What all of them received while it was measured.
    pub received: Received,
    /// From the publisher's send call to the kernel's receipt, per packet, at players that open packets.
    pub delay: Times,
    /// From the offer to the answer.
    pub answered: Times,
    /// From the offer to the end of the DTLS handshake.
    pub ready: Times,
    /// From the offer to the first RTP packet.
    pub first_packet: Times,
    /// From the offer to the last packet of the first whole frame, at players that open packets.
    pub first_frame: Times,
    /// What became of bet signals.
    pub bets: BetTally,
    /// Why players were over before their time.
    pub failures: BTreeMap<String, u64>,
}

impl GroupTally {
    /// Adds another thread's.
    pub fn add(&mut self, other: &Self) {
        self.connected += other.connected;
        self.without_loss += other.without_loss;
        self.silent += other.silent;
        self.received += other.received;
        self.bets.add(&other.bets);
        for (mine, theirs) in [
            (&mut self.delay, &other.delay),
            (&mut self.answered, &other.answered),
            (&mut self.ready, &other.ready),
            (&mut self.first_packet, &other.first_packet),
            (&mut self.first_frame, &other.first_frame),
        ] {
            mine.add(theirs);
        }
        for (why, count) in &other.failures {
            *self.failures.entry(why.clone()).or_default() += count;
        }
    }
}

/// What a thread returns.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// By index.
    pub groups: Vec<GroupTally>,
    /// What publishers sent from their first packet to the last.
    pub sent: Sent,
    /// Why publishers were over before their time.
    pub publisher_failures: BTreeMap<String, u64>,
}

enum Peer {
    Player(Box<Watching>),
    Publisher(Box<Publisher>),
}

struct Watching {
    player: Player,
    group: usize,
    /// What had come when the measurement began.
    baseline: Received,
    /// What came while it lasted, once it is over.
    counted: Option<Received>,
}

struct Slot {
    socket: PeerSocket,
    peer: Peer,
    posted_at: Instant,
    answered_at: Instant,
    connected_at: Option<Instant>,
    /// By the kernel: now, and when the measurement began.
    overflowed: (u32, u32),
    over: bool,
    /// Why it was over before its time.
    failed: Option<ClientError>,
}

/// See the module's text.
pub struct Worker {
    /// Which of the threads it is.
    number: usize,
    inbox: Receiver<Command>,
    progress: Arc<Progress>,
    epoll: Epoll,
    slots: Vec<Slot>,
    /// When each slot's timers are due: beside each other, since all are looked at all the time.
    due: Vec<Option<Instant>>,
    shared: Shared,
    delays: Vec<Times>,
    bets: Vec<BetTally>,
    tally: Tally,
    measuring: bool,
    /// The measurement is over: sessions end now because we end them.
    leaving: bool,
    stopping: bool,
}

impl Worker {
    /// A thread's worth of peers, none yet, that count for `groups` groups.
    ///
    /// # Errors
    /// No epoll set can be had.
    pub fn new(
        number: usize,
        inbox: Receiver<Command>,
        progress: Arc<Progress>,
        identity: Arc<DtlsIdentity>,
        groups: usize,
    ) -> io::Result<Self> {
        Ok(Self {
            number,
            inbox,
            progress,
            epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?,
            slots: Vec::new(),
            due: Vec::new(),
            shared: Shared::new(identity),
            delays: vec![Times::default(); groups],
            bets: vec![BetTally::default(); groups],
            tally: Tally { groups: vec![GroupTally::default(); groups], ..Tally::default() },
            measuring: false,
            leaving: false,
            stopping: false,
        })
    }

    /// Runs until it is told to stop, and returns what was measured.
    ///
    /// # Errors
    /// The epoll set fails.
    pub fn run(mut self) -> io::Result<Tally> {
        let (mut buffer, mut control) = (vec![0; READ_BYTES], control_buffer());
        let mut ready = vec![EpollEvent::empty(); READY];
        let mut looks = 0_u64;
        while !self.stopping {
            let now = clock::now();
            self.take_commands(now);
            let count = match self.epoll.wait(&mut ready, EpollTimeout::ZERO) {
                Ok(count) => count,
                Err(nix::Error::EINTR) => 0,
                Err(error) => return Err(error.into()),
            };
            for event in &ready[..count] {
                self.read(event.data() as usize, &mut buffer, &mut control);
            }
            let next = self.run_timers();
            looks += 1;
            if looks.is_multiple_of(512) {
                self.publish_progress();
            }
            if count < READY {
                pause(next);
            }
        }
        self.publish_progress();
        Ok(self.finish())
    }

    fn take_commands(&mut self, now: Instant) {
        loop {
            match self.inbox.try_recv() {
                Ok(Command::Join(join)) => self.join(now, *join),
                Ok(Command::Begin) => self.begin(now),
                Ok(Command::StopBets) => self.bettors(|bettor| bettor.stop()),
                Ok(Command::End) => self.end(),
                Ok(Command::Stop) | Err(TryRecvError::Disconnected) => {
                    self.end();
                    self.goodbye();
                    self.stopping = true;
                    return;
                }
                Err(TryRecvError::Empty) => return,
            }
        }
    }

    fn join(&mut self, now: Instant, join: Join) {
        let group = if let Role::Player { group, .. } = join.role { Some(group) } else { None };
        let event = EpollEvent::new(EpollFlags::EPOLLIN, self.slots.len() as u64);
        let connected = join.socket.connect(join.answer.server);
        let added = connected.and_then(|socket| self.epoll.add(&socket, event).map(|()| socket).map_err(Into::into));
        let socket = match added {
            Ok(socket) => socket,
            Err(error) => return self.refuse(group, format!("{}: {error}", ClientError::Socket)),
        };
        let peer = match join.role {
            Role::Player { group, verifies, feedback, says } => {
                let player = Player::new(now, join.ice, join.answer, verifies, feedback, says);
                Peer::Player(Box::new(Watching { player, group, baseline: Received::default(), counted: None }))
            }
            Role::Publisher { sends, programme, phase } => {
                Peer::Publisher(Box::new(Publisher::new(now, join.ice, join.answer, &sends, &programme, phase)))
            }
        };
        self.slots.push(Slot {
            socket,
            peer,
            posted_at: join.posted_at,
            answered_at: join.answered_at,
            connected_at: None,
            overflowed: (0, 0),
            over: false,
            failed: None,
        });
        self.due.push(Some(now));
    }

    fn refuse(&mut self, group: Option<usize>, why: String) {
        let failures = match group {
            Some(group) => &mut self.tally.groups[group].failures,
            None => &mut self.tally.publisher_failures,
        };
        *failures.entry(why).or_default() += 1;
        self.progress.failed.fetch_add(1, Ordering::Relaxed);
    }

    fn begin(&mut self, now: Instant) {
        self.bettors(|bettor| bettor.begin(now));
        self.measuring = true;
        self.delays.iter_mut().for_each(Times::clear);
        for slot in &mut self.slots {
            slot.overflowed.1 = slot.overflowed.0;
            if let Peer::Player(watching) = &mut slot.peer {
                watching.baseline = watching.player.received();
            }
        }
    }

    fn bettors(&mut self, mut then: impl FnMut(&mut Bettor)) {
        for (n, slot) in self.slots.iter_mut().enumerate() {
            if let Peer::Player(watching) = &mut slot.peer {
                watching.player.bettor().into_iter().for_each(&mut then);
                self.due[n] = watching.player.poll_timeout();
            }
        }
    }

    fn end(&mut self) {
        self.leaving = true;
        if !self.measuring {
            return;
        }
        self.measuring = false;
        for slot in &mut self.slots {
            if let Peer::Player(watching) = &mut slot.peer {
                watching.counted = Some(watching.player.received() - watching.baseline);
            }
        }
    }

    /// Reads once from a socket that is ready.
    fn read(&mut self, n: usize, buffer: &mut [u8], control: &mut Vec<u8>) {
        let Self { slots, shared, delays, bets, measuring, .. } = self;
        let slot = &mut slots[n];
        // One read takes all that GRO joined: a frame. What is left keeps the socket ready for the next look.
        let Ok(Some(read)) = slot.socket.read(buffer, control) else { return };
        let (now, unix) = (clock::now(), clock::unix_nanoseconds());
        let at = now.checked_sub(Duration::from_nanos(unix.saturating_sub(read.at))).unwrap_or(now);
        slot.overflowed.0 = read.overflowed;
        for datagram in read.bytes.chunks_mut(read.each) {
            let socket = &slot.socket;
            match &mut slot.peer {
                Peer::Player(watching) => {
                    let mut context = PlayerContext {
                        shared,
                        delays: measuring.then_some(&mut delays[watching.group]),
                        bets: &mut bets[watching.group],
                        betting: *measuring,
                        send: &mut |bytes| socket.send(bytes),
                    };
                    watching.player.handle_datagram(at, read.at, datagram, &mut context);
                }
                Peer::Publisher(publisher) => {
                    publisher.handle_datagram(at, datagram, shared, &mut |bytes| socket.send(bytes));
                }
            }
        }
        self.look_after(n, now);
    }

    /// Runs what is due, and says when the next is.
    fn run_timers(&mut self) -> Option<Instant> {
        let now = clock::now();
        let mut next: Option<Instant> = None;
        for n in 0..self.due.len() {
            if self.due[n].is_some_and(|due| due <= now) {
                let slot = &mut self.slots[n];
                let socket = &slot.socket;
                match &mut slot.peer {
                    Peer::Player(watching) => {
                        let send = &mut |bytes: &[u8]| socket.send(bytes);
                        let bets = &mut self.bets[watching.group];
                        let betting = self.measuring;
                        let mut context = PlayerContext { shared: &mut self.shared, delays: None, bets, betting, send };
                        watching.player.handle_timeout(now, &mut context);
                    }
                    Peer::Publisher(publisher) => {
                        // Read here, so that the stamp is the send call's time even where others were served before.
                        let (now, unix) = (clock::now(), clock::unix_nanoseconds());
                        publisher.handle_timeout(now, unix, &mut self.shared, &mut |bytes| socket.send(bytes));
                    }
                }
                self.look_after(n, now);
            }
            next = [next, self.due[n]].into_iter().flatten().min();
        }
        next
    }

    /// After anything happened to a peer: its timer, and what is to be noted.
    fn look_after(&mut self, n: usize, now: Instant) {
        let slot = &mut self.slots[n];
        let (due, client) = match &mut slot.peer {
            Peer::Player(watching) => (watching.player.poll_timeout(), watching.player.client()),
            Peer::Publisher(publisher) => (publisher.poll_timeout(), publisher.client()),
        };
        self.due[n] = due;
        if slot.connected_at.is_none() && client.is_connected() {
            slot.connected_at = Some(now);
            self.progress.connected.fetch_add(1, Ordering::Relaxed);
        }
        if !slot.over
            && let Some(failure) = client.failure()
        {
            slot.over = true;
            if !self.leaving {
                slot.failed = Some(failure);
                self.progress.failed.fetch_add(1, Ordering::Relaxed);
            }
            // Nothing more comes that anybody wants: without this the socket would be ready for ever.
            let _ = self.epoll.delete(&slot.socket);
        }
    }

    fn publish_progress(&mut self) {
        let (mut all, mut waiting) = (Received::default(), 0);
        for slot in &mut self.slots {
            if let Peer::Player(watching) = &mut slot.peer {
                all += watching.player.received();
                waiting += watching.player.bettor().map_or(0, |bettor| bettor.waiting());
            }
        }
        self.progress.packets.store(all.packets, Ordering::Relaxed);
        self.progress.lost.store(all.lost, Ordering::Relaxed);
        if let Some(all) = self.progress.bets_waiting.get(self.number) {
            all.store(waiting, Ordering::Relaxed);
        }
    }

    fn goodbye(&mut self) {
        for slot in &mut self.slots {
            let socket = &slot.socket;
            let client = match &mut slot.peer {
                Peer::Player(watching) => watching.player.client(),
                Peer::Publisher(publisher) => publisher.client(),
            };
            if client.failure().is_none() {
                client.close(&mut self.shared, &mut |bytes| socket.send(bytes));
            }
        }
    }

    fn finish(self) -> Tally {
        let mut tally = self.tally;
        for (group, (delay, bets)) in tally.groups.iter_mut().zip(self.delays.into_iter().zip(self.bets)) {
            (group.delay, group.bets) = (delay, bets);
        }
        for slot in self.slots {
            let since = |at: Instant| at.saturating_duration_since(slot.posted_at).as_micros() as u64;
            match slot.peer {
                Peer::Player(watching) => {
                    let Watching { mut player, group, counted, .. } = *watching;
                    let group = &mut tally.groups[group];
                    group.bets.without_outcome += player.bettor().map_or(0, |bettor| bettor.waiting());
                    let counted = counted.unwrap_or_default();
                    group.received += counted;
                    group.received.overflowed += u64::from(slot.overflowed.0.wrapping_sub(slot.overflowed.1));
                    group.answered.record(since(slot.answered_at));
                    if let Some(at) = slot.connected_at {
                        group.connected += 1;
                        group.ready.record(since(at));
                        let silent = counted.packets == 0;
                        group.silent += u64::from(silent);
                        group.without_loss += u64::from(counted.lost == 0 && !silent && slot.failed.is_none());
                    }
                    if let Some(at) = player.first_packet {
                        group.first_packet.record(since(at));
                    }
                    if let Some(at) = player.first_frame {
                        group.first_frame.record(since(at));
                    }
                    if let Some(failure) = slot.failed {
                        *group.failures.entry(failure.to_string()).or_default() += 1;
                    }
                }
                Peer::Publisher(publisher) => {
                    tally.sent += publisher.sent();
                    if let Some(failure) = slot.failed {
                        *tally.publisher_failures.entry(failure.to_string()).or_default() += 1;
                    }
                }
            }
        }
        tally
    }
}

/// Lets packets gather in the kernel.
#[expect(clippy::disallowed_methods, reason = "the pace of polling; nobody waits for anything by it")]
fn pause(next: Option<Instant>) {
    let until_next = next.map_or(POLL, |next| next.saturating_duration_since(clock::now()));
    if !until_next.is_zero() {
        std::thread::sleep(until_next.min(POLL));
    }
}
