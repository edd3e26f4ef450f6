//! A shard's socket.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use libc::c_int;
use socket2::{Domain, Protocol, Socket, Type};
use tracing::warn;

use super::dscp::Markings;
use super::lanes::{DATA_LANE, LANES, RtcpLane, share_port};
use super::receive::RecvBatch;
use super::send::{self, Piece, SendOutcome};
use super::sys::{self, Outgoing, SendSlots};
use super::tuning::{Setting, TuningReport};
use crate::fanout::SendBatch;

/// What a shard's socket is asked to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UdpOptions {
    /// Receive buffer in bytes. Without CAP_NET_ADMIN the kernel gives no more than `net.core.rmem_max`.
    pub receive_buffer: usize,
    /// Send buffer in bytes. Without CAP_NET_ADMIN the kernel gives no more than `net.core.wmem_max`.
    pub send_buffer: usize,
    /// How long a receive that finds nothing polls the network card, in microseconds (`SO_BUSY_POLL`).
    pub busy_poll_micros: Option<u32>,
    /// DSCP by class of traffic.
    pub markings: Markings,
}

impl Default for UdpOptions {
    /// 4 MiB to receive, 8 MiB to send (a keyframe of 100 KiB for 80 players at once), no busy polling.
    fn default() -> Self {
        Self { receive_buffer: 4 << 20, send_buffer: 8 << 20, busy_poll_micros: None, markings: Markings::default() }
    }
}

/// A UDP port that receives and sends in batches and never waits; for that there is a [`Waiter`](super::Waiter). Belongs to
/// one thread.
///
/// What hurries and what does not come apart: RTCP is received by a method of its own, in two [lanes](RtcpLane), and encrypted
/// records of DTLS by another, where the kernel can tell them.
///
/// Bound to `[::]` it also serves IPv4. Addresses go in and come out canonical: an IPv4 peer is an IPv4 address.
///
/// Nothing here allocates after [`ShardSocket::bind`].
pub struct ShardSocket {
    socket: Socket,
    /// Get the RTCP and what players say, where the kernel can tell it apart.
    lanes: Option<[Socket; LANES]>,
    local: SocketAddr,
    markings: Markings,
    gso: bool,
    slots: SendSlots,
    pieces: Vec<Piece>,
    unsent: Vec<SocketAddr>,
}

impl ShardSocket {
    /// Binds a socket and tunes it as far as the kernel lets it; what it did not let is in the report and is no
    /// error. Where the host knows no IPv6, `[::]` means `0.0.0.0`.
    ///
    /// # Errors
    /// The address cannot be bound.
    pub fn bind(address: SocketAddr, options: &UdpOptions) -> io::Result<(Self, TuningReport)> {
        let (socket, address) = open(address)?;
        let mut report = tune(socket.as_fd(), address.is_ipv6(), options);
        socket.bind(&address.into())?;
        let local = socket.local_addr()?.as_socket().ok_or(io::ErrorKind::Unsupported)?;
        let (lanes, shared) = match open_lanes(&socket, local, options) {
            Ok(lanes) => (Some(lanes), Ok(())),
            Err(error) => (None, Err(error)),
        };
        report.push(Setting::applied("lanes", "apart", shared, "Linux 4.5 or later"));
        let socket = Self {
            socket,
            lanes,
            local,
            markings: options.markings,
            gso: report.iter().any(|setting| setting.name == "gso" && setting.ok),
            slots: SendSlots::new(send::MESSAGES),
            pieces: Vec::with_capacity(send::MESSAGES),
            unsent: Vec::new(),
        };
        Ok((socket, report))
    }

    /// The address that the socket is bound to, with the port that the kernel chose for port 0.
    pub fn local_address(&self) -> SocketAddr {
        self.local
    }

    /// Whether runs of datagrams leave in one piece. Starts as what the kernel offers and becomes false for good when
    /// a device turns out not to segment.
    pub fn offloads_segmentation(&self) -> bool {
        self.gso
    }

    /// Datagrams that the kernel threw away since the socket was bound, because nobody received them in time.
    ///
    /// # Errors
    /// The kernel does not say (before Linux 4.12).
    pub fn receive_drops(&self) -> io::Result<u32> {
        let sockets = std::iter::once(&self.socket).chain(self.lanes.iter().flatten());
        sockets.map(|socket| sys::receive_drops(socket.as_fd())).try_fold(0, |sum: u32, of| Ok(sum.wrapping_add(of?)))
    }

    /// Replaces what is in `batch` by what has arrived, without waiting. True if the batch is full: more may be there.
    ///
    /// # Errors
    /// What the kernel says. The socket stays usable.
    pub fn recv_batch(&mut self, batch: &mut RecvBatch) -> io::Result<bool> {
        batch.fill(self.socket.as_fd())
    }

    /// The same for RTCP, where the kernel can tell it apart; else it comes with all else.
    ///
    /// # Errors
    /// What the kernel says. The socket stays usable.
    pub fn recv_rtcp(&mut self, lane: RtcpLane, batch: &mut RecvBatch) -> io::Result<bool> {
        batch.clear();
        self.lane(lane).map_or(Ok(false), |socket| batch.fill(socket))
    }

    /// The same for encrypted records of DTLS.
    ///
    /// # Errors
    /// What the kernel says. The socket stays usable.
    pub fn recv_data(&mut self, batch: &mut RecvBatch) -> io::Result<bool> {
        batch.clear();
        self.data_lane().map_or(Ok(false), |socket| batch.fill(socket))
    }

    /// The socket of encrypted records.
    pub(super) fn data_lane(&self) -> Option<BorrowedFd<'_>> {
        self.lanes.as_ref().map(|lanes| lanes[DATA_LANE].as_fd())
    }

    /// The socket of that RTCP.
    pub(super) fn lane(&self, lane: RtcpLane) -> Option<BorrowedFd<'_>> {
        self.lanes.as_ref().map(|lanes| lanes[lane as usize].as_fd())
    }

    /// Sends `batch` without waiting. What the kernel does not take now is dropped and counted, and keeps nothing
    /// else from being sent: a full send buffer costs the message that found it full, a destination that cannot be
    /// reached costs the messages to it.
    pub fn send_batch(&mut self, batch: &SendBatch) -> SendOutcome {
        self.unsent.clear();
        let (socket, slots) = (self.socket.as_fd(), &mut self.slots);
        let (markings, mapped) = (self.markings, self.local.is_ipv6());
        let had_gso = self.gso;
        let outcome = send::transmit(batch, &mut self.gso, &mut self.pieces, &mut self.unsent, |pieces| {
            slots.send(socket, pieces.iter().map(|piece| outgoing(piece, batch.bytes(), &markings, mapped)))
        });
        if had_gso && !self.gso {
            warn!("the network device refuses UDP segmentation offload: datagrams are sent one by one from now on");
        }
        outcome
    }

    /// The destinations of the messages of the last batch for which there was no room.
    pub fn unsent(&self) -> &[SocketAddr] {
        &self.unsent
    }
}

impl AsFd for ShardSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl AsRawFd for ShardSocket {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

fn outgoing<'a>(piece: &Piece, bytes: &'a [u8], markings: &Markings, mapped: bool) -> Outgoing<'a> {
    let message = &piece.message;
    let marking = markings.of(message.class);
    Outgoing {
        payload: &bytes[message.start..message.start + message.len],
        destination: if mapped { map_to_ipv6(message.destination) } else { message.destination },
        // Fits: a run of two or more is shorter than 64 KiB.
        segment_size: (message.len > message.segment_size).then_some(message.segment_size as u16),
        traffic_class: (marking != markings.video).then_some(marking.traffic_class_octet()),
    }
}

/// RFC 4291 §2.5.5.2.
fn map_to_ipv6(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V4(v4) => SocketAddr::new(IpAddr::V6(v4.ip().to_ipv6_mapped()), v4.port()),
        SocketAddr::V6(_) => address,
    }
}

/// An unbound socket, and the address to bind it to.
fn open(address: SocketAddr) -> io::Result<(Socket, SocketAddr)> {
    match open_family(address) {
        Err(error) if error.raw_os_error() == Some(libc::EAFNOSUPPORT) && address.ip().is_unspecified() => {
            let address = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), address.port());
            Ok((open_family(address)?, address))
        }
        result => Ok((result?, address)),
    }
}

/// The sockets beside `main`.
fn open_lanes(main: &Socket, local: SocketAddr, options: &UdpOptions) -> io::Result<[Socket; LANES]> {
    let open = || {
        let socket = open_family(local)?;
        size_buffer(socket.as_fd(), libc::SO_RCVBUFFORCE, libc::SO_RCVBUF, options.receive_buffer)?;
        io::Result::Ok(socket)
    };
    let lanes = [open()?, open()?, open()?];
    // Reports are read late, and a round trip ends when they came.
    sys::set_option(lanes[RtcpLane::Reports as usize].as_fd(), libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, 1)?;
    share_port(main, &lanes, local)?;
    Ok(lanes)
}

fn open_family(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM.nonblocking().cloexec(), Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    Ok(socket)
}

fn tune(fd: BorrowedFd<'_>, ipv6: bool, options: &UdpOptions) -> TuningReport {
    vec![
        Setting::at_least(
            "receive_buffer",
            options.receive_buffer as u64,
            size_buffer(fd, libc::SO_RCVBUFFORCE, libc::SO_RCVBUF, options.receive_buffer),
            "raise net.core.rmem_max on the node, or give the process CAP_NET_ADMIN",
        ),
        Setting::at_least(
            "send_buffer",
            options.send_buffer as u64,
            size_buffer(fd, libc::SO_SNDBUFFORCE, libc::SO_SNDBUF, options.send_buffer),
            "raise net.core.wmem_max on the node, or give the process CAP_NET_ADMIN",
        ),
        // Size 0 is "none unless a message says otherwise". A kernel before 4.18 does not know the option, and would
        // send a run as one huge datagram.
        Setting::applied("gso", "on", sys::set_option(fd, libc::SOL_UDP, libc::UDP_SEGMENT, 0), "Linux 4.18 or later"),
        Setting::applied("gro", "on", sys::set_option(fd, libc::SOL_UDP, libc::UDP_GRO, 1), "Linux 5.0 or later"),
        busy_poll(fd, options.busy_poll_micros),
        Setting::applied(
            "dscp",
            "set",
            mark(fd, ipv6, options.markings.video.traffic_class_octet()),
            "allow the process to set IP_TOS and IPV6_TCLASS",
        ),
    ]
}

fn busy_poll(socket: BorrowedFd<'_>, micros: Option<u32>) -> Setting {
    const ADVICE: &str = "give the process CAP_NET_ADMIN, or set net.core.busy_poll on the node";
    let Some(micros) = micros else {
        return Setting::applied("busy_poll", "off", Ok(()), ADVICE);
    };
    let value = c_int::try_from(micros).unwrap_or(c_int::MAX);
    let result = sys::set_option(socket, libc::SOL_SOCKET, libc::SO_BUSY_POLL, value);
    Setting::applied("busy_poll", &format!("{micros} us"), result, ADVICE)
}

/// An IPv6 socket marks what it sends to mapped addresses by its IPv4 option.
pub(super) fn mark(socket: BorrowedFd<'_>, ipv6: bool, octet: u8) -> io::Result<()> {
    if ipv6 {
        sys::set_option(socket, libc::IPPROTO_IPV6, libc::IPV6_TCLASS, octet.into())?;
    }
    sys::set_option(socket, libc::IPPROTO_IP, libc::IP_TOS, octet.into())
}

/// Asks for a buffer by the privileged option, else by the ordinary one, and says what the kernel gave.
fn size_buffer(socket: BorrowedFd<'_>, privileged: c_int, ordinary: c_int, wanted: usize) -> io::Result<u64> {
    let wanted = c_int::try_from(wanted).unwrap_or(c_int::MAX);
    if sys::set_option(socket, libc::SOL_SOCKET, privileged, wanted).is_err() {
        sys::set_option(socket, libc::SOL_SOCKET, ordinary, wanted)?;
    }
    // The kernel doubles the number to have room for its own bookkeeping (socket(7)).
    Ok(sys::option(socket, libc::SOL_SOCKET, ordinary)? as u64 / 2)
}

impl fmt::Debug for ShardSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ShardSocket").field("local", &self.local).field("gso", &self.gso).finish_non_exhaustive()
    }
}
