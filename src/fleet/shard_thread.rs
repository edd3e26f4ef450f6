//! A shard's thread: the thin shell that moves bytes between sockets and a [`Shard`](crate::shard::Shard).

mod lane;
mod turn;

use std::net::SocketAddr;
use std::sync::Arc;
use std::{io, thread};

use tokio::sync::{mpsc, oneshot, watch};

use crate::bets::{Announcement, Answer, Arrival, PlayerId};
use crate::config::MaxLayer;
use crate::net::{IceTcp, ShardSocket, TcpOptions, TuningReport, UdpOptions, Waiter, keep_to, wake_promptly};
use crate::rtc::ice_lite::Ufrag;
use crate::rtc::sdp::{IceCredentials, Negotiated, TableMedia};
use crate::shard::{
    Added, EndCause, LocalMedia, PeerMessage, ShardConfig, ShardEvent, ShardId, ShardReport, SlotKey, TableId,
    TableSpec,
};

use self::turn::Turn;

/// Commands and peers' packets that wait for a shard. A GOP of a new subscription fits several times. When it is full,
/// the control plane waits and a peer drops the packet and counts it: a slow shard never delays another.
const QUEUE: usize = 16 * 1024;

/// Answers to bets that wait for a shard, apart from media of other shards. When it is full, the desk keeps them.
const ANSWERS: usize = 4096;

/// Ports that the system chose and that are asked for again over TCP, before it is said that none is free over both.
const PORT_CHOICES: usize = 16;

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
