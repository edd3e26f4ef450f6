//! ICE-TCP (RFC 6544): the connections that peers open to a shard where UDP does not get through.
//!
//! A connection is one peer. It carries what a UDP port would carry, framed (RFC 4571), without TLS: SRTP and DTLS are
//! their own protection. A host that opens connections costs us memory before it has proved anything, so: the first
//! packet must be one that the shard knows the sender by, a valid connectivity check, and come within seconds; connections
//! are limited in all and for each address; whoever has proved nothing makes room for the next.

mod connection;
pub mod frame;
mod report;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};

use self::connection::{Connection, Incoming};
use self::frame::{MAX_PACKET, PREFIX};
pub use self::report::{TcpEnd, TcpReport};
use super::dscp::Dscp;
use super::send::SendOutcome;
use super::sys::{Epoll, Ready, Wanted};
use super::udp::mark;
use crate::fanout::{Message, SendBatch};

/// How long a connection may take for its first packet. RFC 6544 §5.2 has the active side send its check as soon as the
/// connection stands.
const PROOF_WITHIN: Duration = Duration::from_secs(5);

/// How long nothing is accepted after the host had no descriptor or memory left for a connection.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

/// Connections accepted before those that stand are looked at again.
const ACCEPTS_PER_TURN: usize = 64;

/// What the kernel may keep of a connection, in octets, before the queue here begins. Without a limit it would grow to
/// megabytes: seconds of a picture that nobody wants any more.
const KERNEL_BUFFER: usize = 256 * 1024;

/// What one read takes.
const READ_BYTES: usize = 64 * 1024;

/// Connections that wait to be accepted.
const BACKLOG: i32 = 1024;

/// The listener's token; connections have the number of their place.
const LISTENER: u64 = u64::MAX;

/// What a shard's TCP half is asked to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpOptions {
    /// Connections at a time.
    pub max_connections: usize,
    /// Of them, from one IPv4 address or one IPv6 network of 64 bits.
    pub max_per_address: usize,
    /// Marks all of a connection: two markings on one byte stream would only get it out of order (RFC 7657 §6).
    pub marking: Dscp,
}

impl Default for TcpOptions {
    fn default() -> Self {
        Self { max_connections: 4096, max_per_address: 64, marking: Dscp::AF41 }
    }
}

/// A shard's listener and the connections that came of it. Belongs to one task.
///
/// Addresses go in and come out canonical: an IPv4 peer is an IPv4 address.
pub struct IceTcp {
    listener: TcpListener,
    local: SocketAddr,
    options: TcpOptions,
    ready_set: Epoll,
    ready: Vec<Ready>,
    places: Vec<Option<Connection>>,
    free: Vec<usize>,
    by_peer: HashMap<SocketAddr, usize>,
    by_network: HashMap<IpAddr, usize>,
    /// Those that have proved nothing, the oldest first: deadline, place, serial. Entries may be of the past.
    unproven: VecDeque<(Instant, usize, u64)>,
    next_serial: u64,
    accept_again: Option<Instant>,
    /// Peers that were known and are gone.
    gone: VecDeque<SocketAddr>,
    buffer: Box<[u8]>,
    report: TcpReport,
}

impl IceTcp {
    /// Listens at `address`.
    ///
    /// # Errors
    /// The address cannot be listened at.
    pub fn bind(address: SocketAddr, options: TcpOptions) -> io::Result<Self> {
        let listener = listen(address, &options)?;
        let epoll = Epoll::new()?;
        epoll.add(listener.as_fd(), LISTENER, Wanted::Reading)?;
        Ok(Self {
            local: listener.local_addr()?,
            listener,
            options,
            ready_set: epoll,
            ready: Vec::new(),
            places: Vec::new(),
            free: Vec::new(),
            by_peer: HashMap::new(),
            by_network: HashMap::new(),
            unproven: VecDeque::new(),
            next_serial: 0,
            accept_again: None,
            gone: VecDeque::new(),
            buffer: vec![0; PREFIX + MAX_PACKET + READ_BYTES].into_boxed_slice(),
            report: TcpReport::default(),
        })
    }

    /// The address that is listened at.
    pub fn local_address(&self) -> SocketAddr {
        self.local
    }

    /// Accepts, reads and writes what can be: gives each packet to `take`, which says whether the peer is known to it.
    /// One that is not is closed. Then see [`IceTcp::poll_gone`].
    pub fn receive(&mut self, now: Instant, mut take: impl FnMut(SocketAddr, &mut [u8]) -> bool) {
        let mut ready = std::mem::take(&mut self.ready);
        if self.ready_set.look(&mut ready).is_ok() {
            for event in &ready {
                match event.token {
                    LISTENER => self.accept(now),
                    place => self.serve(place as usize, event, &mut take),
                }
            }
        }
        self.ready = ready;
    }

    /// A peer that was known and has gone by itself: its connection is closed.
    pub fn poll_gone(&mut self) -> Option<SocketAddr> {
        self.gone.pop_front()
    }

    /// Sends what of `batch` goes over TCP, without waiting. What finds a connection's queue full, or no connection, is
    /// dropped and counted.
    pub fn send_batch(&mut self, batch: &SendBatch) -> SendOutcome {
        let mut outcome = SendOutcome::default();
        for message in batch.tcp_messages() {
            self.send(message, batch.bytes(), &mut outcome);
        }
        outcome
    }

    /// Closes the connection of `peer`, if there is one. What the kernel has already taken is still sent.
    pub fn close(&mut self, peer: SocketAddr) {
        if let Some(&place) = self.by_peer.get(&peer) {
            if let Some(connection) = &mut self.places[place] {
                // A goodbye may be waiting. If it cannot be written now, the peer will notice the end all the same.
                let _ = connection.flush();
            }
            self.end(place, TcpEnd::SessionEnded);
        }
    }

    /// When to call [`IceTcp::handle_timeout`].
    pub fn poll_timeout(&self) -> Option<Instant> {
        [self.unproven.front().map(|(at, ..)| *at), self.accept_again].into_iter().flatten().min()
    }

    /// Closes what has proved nothing in time.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some(&(at, place, serial)) = self.unproven.front()
            && at <= now
        {
            self.unproven.pop_front();
            if self.is_unproven(place, serial) {
                self.end(place, TcpEnd::NoCheck);
            }
        }
        if self.accept_again.is_some_and(|at| at <= now) {
            self.accept_again = None;
            let _ = self.ready_set.change(self.listener.as_fd(), LISTENER, Wanted::Reading);
        }
    }

    /// Counters and gauges as they are now.
    pub fn report(&self) -> TcpReport {
        TcpReport { connections: self.by_peer.len() as u64, ..self.report }
    }

    fn accept(&mut self, now: Instant) {
        for _ in 0..ACCEPTS_PER_TURN {
            match self.listener.accept() {
                Ok((stream, peer)) => self.admit(now, stream, canonical(peer)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(_) => return self.pause_accepting(now),
            }
        }
    }

    /// No descriptor or no memory: the listener would be ready without end.
    fn pause_accepting(&mut self, now: Instant) {
        self.report.ended[TcpEnd::NoResources as usize] += 1;
        self.accept_again = Some(now + ACCEPT_PAUSE);
        let _ = self.ready_set.change(self.listener.as_fd(), LISTENER, Wanted::Nothing);
    }

    fn admit(&mut self, now: Instant, stream: TcpStream, peer: SocketAddr) {
        self.report.accepted += 1;
        if self.by_network.get(&network(peer.ip())).is_some_and(|n| *n >= self.options.max_per_address) {
            self.report.ended[TcpEnd::AddressLimit as usize] += 1;
            return;
        }
        if self.by_peer.len() >= self.options.max_connections && !self.displace() {
            self.report.ended[TcpEnd::Full as usize] += 1;
            return;
        }
        let place = self.free.pop().unwrap_or_else(|| {
            self.places.push(None);
            self.places.len() - 1
        });
        let ready = stream.set_nonblocking(true).and_then(|()| stream.set_nodelay(true)).and_then(|()| {
            // Not every kernel hands the listener's marking on.
            let _ = mark(stream.as_fd(), self.local.is_ipv6(), self.options.marking.traffic_class_octet());
            self.ready_set.add(stream.as_fd(), place as u64, Wanted::Reading)
        });
        if ready.is_err() {
            self.free.push(place);
            self.report.ended[TcpEnd::NoResources as usize] += 1;
            return;
        }
        let (serial, prove_by) = (self.next_serial, now + PROOF_WITHIN);
        self.next_serial += 1;
        self.places[place] = Some(Connection::new(stream, peer, serial, prove_by));
        self.by_peer.insert(peer, place);
        *self.by_network.entry(network(peer.ip())).or_default() += 1;
        self.unproven.push_back((prove_by, place, serial));
    }

    /// Closes the oldest connection that has proved nothing; `false` if there is none.
    fn displace(&mut self) -> bool {
        while let Some((_, place, serial)) = self.unproven.pop_front() {
            if self.is_unproven(place, serial) {
                self.end(place, TcpEnd::Displaced);
                return true;
            }
        }
        false
    }

    fn is_unproven(&self, place: usize, serial: u64) -> bool {
        self.places[place].as_ref().is_some_and(|c| c.serial == serial && c.prove_by.is_some())
    }

    fn serve(&mut self, place: usize, ready: &Ready, take: &mut impl FnMut(SocketAddr, &mut [u8]) -> bool) {
        let Some(connection) = self.places.get_mut(place).and_then(Option::as_mut) else { return };
        if ready.readable {
            let end = match connection.receive(&mut self.buffer, take) {
                Incoming::Taken => None,
                Incoming::Gone => Some(TcpEnd::Peer),
                Incoming::Unwanted if connection.prove_by.is_some() => Some(TcpEnd::NoCheck),
                Incoming::Unwanted => Some(TcpEnd::SessionEnded),
                Incoming::TooLong => Some(TcpEnd::FrameTooLong),
            };
            if let Some(end) = end {
                return self.end(place, end);
            }
        }
        if ready.writable && connection.flush().is_err() {
            return self.end(place, TcpEnd::Peer);
        }
        if ready.writable && !connection.is_queueing() {
            let _ = self.ready_set.change(connection.socket(), place as u64, Wanted::Reading);
        }
    }

    fn send(&mut self, message: &Message, bytes: &[u8], outcome: &mut SendOutcome) {
        let datagrams = message.segments() as u64;
        let found = self.by_peer.get(&message.destination).copied();
        let Some((place, connection)) = found.and_then(|n| Some((n, self.places[n].as_mut()?))) else {
            outcome.dropped_error += datagrams;
            return;
        };
        let was_queueing = connection.is_queueing();
        let run = &bytes[message.start..message.start + message.len];
        match connection.send(run, message.segment_size) {
            Ok(taken) => {
                outcome.datagrams += taken;
                outcome.runs += 1;
                outcome.dropped_buffer_full += datagrams - taken;
                // The packets of a run have one length, but for the last one.
                outcome.bytes +=
                    if taken == datagrams { message.len } else { taken as usize * message.segment_size } as u64;
                if connection.is_queueing() && !was_queueing {
                    let wanted = Wanted::ReadingAndWriting;
                    let _ = self.ready_set.change(connection.socket(), place as u64, wanted);
                }
            }
            Err(_) => {
                outcome.dropped_error += datagrams;
                self.end(place, TcpEnd::Peer);
            }
        }
    }

    fn end(&mut self, place: usize, cause: TcpEnd) {
        let Some(connection) = self.places[place].take() else { return };
        self.free.push(place);
        self.by_peer.remove(&connection.peer);
        if let Some(count) = self.by_network.get_mut(&network(connection.peer.ip())) {
            *count -= 1;
            if *count == 0 {
                self.by_network.remove(&network(connection.peer.ip()));
            }
        }
        self.report.ended[cause as usize] += 1;
        if connection.prove_by.is_none() && cause != TcpEnd::SessionEnded {
            self.gone.push_back(connection.peer);
        }
    }
}

/// Readable when there may be something for [`IceTcp::receive`].
impl AsFd for IceTcp {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ready_set.as_fd()
    }
}

impl fmt::Debug for IceTcp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IceTcp")
            .field("local", &self.local)
            .field("connections", &self.by_peer.len())
            .finish_non_exhaustive()
    }
}

fn listen(address: SocketAddr, options: &TcpOptions) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking().cloexec(), Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    // A node that starts again must not wait for the last one's connections to be forgotten.
    socket.set_reuse_address(true)?;
    // Connections take it over from the listener. The kernel may give less.
    let _ = socket.set_send_buffer_size(KERNEL_BUFFER);
    let _ = mark(socket.as_fd(), address.is_ipv6(), options.marking.traffic_class_octet());
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// What one host has all of: its IPv4 address, or the 64 bits of an IPv6 network within which it chooses as it likes.
fn network(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(_) => ip,
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX)).into(),
    }
}
