//! The other three sockets of a shard's port: what players ask for, what they report, and what they say.
//!
//! RTCP is most of what players send, and it can wait, which media and checks cannot: a request for lost packets for some
//! milliseconds, a report for as long as a frame takes. On one socket each would wake the shard. What they say over data channels
//! cannot wait, a bet above all, not even for the rest of a frame, in the midst of which media must not be read. So four
//! sockets share the port (`SO_REUSEPORT`), and a classic BPF program in the kernel chooses, by the first two octets of the
//! datagram. SRTCP leaves them in clear (RFC 3711 §3.4). That it is RTCP is told as by [`classify`](crate::rtc::demux::classify):
//! the same rule, in the kernel's language.

use std::io;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::os::fd::{AsFd, BorrowedFd};

use socket2::Socket;

use super::sys::{self, Filter};
use crate::rtc::rtcp::types;

/// RTCP that is received apart from all else, and from each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RtcpLane {
    /// What is to be done soon: NACK, PLI, FIR, sender reports, and whatever is not a report.
    Requests,
    /// What tells how it went: receiver and extended reports, transport-wide feedback, REMB. Each packet comes with the
    /// time of its arrival.
    ///
    /// A compound packet counts as what it begins with. With `a=rtcp-rsize` (RFC 5506) a request goes without a report before
    /// it; of peers without that it comes as late as a report.
    Reports,
}

impl RtcpLane {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Requests, Self::Reports];

    /// Which of the port's sockets it is, in the order in which they are bound.
    const fn socket(self) -> u32 {
        match self {
            Self::Requests => 1,
            Self::Reports => 2,
        }
    }
}

/// The socket of all else.
const MAIN: u32 = 0;

/// The socket of encrypted records of DTLS, and its place among the lanes.
const DATA: u32 = 3;
pub(super) const DATA_LANE: usize = 2;

/// Sockets beside the main one: of [`RtcpLane::ALL`], and of encrypted records.
pub(super) const LANES: usize = 3;

/// Content type of application data (RFC 5246 §6.2.1), which in DTLS 1.2 is in clear.
const APPLICATION_DATA: u32 = 23;

/// "The first byte of the unified header has the three high bits set to 001" (RFC 9147 §4). Of DTLS 1.3 a handshake's last
/// flight begins so, too.
const UNIFIED_HEADER_MASK: u32 = 0xe0;
const UNIFIED_HEADER: u32 = 0x20;

/// Version 2 in the two highest bits of the first octet (RFC 3550 §6.4.1).
const VERSION_MASK: u32 = 0xc0;
const VERSION: u32 = 0x80;

/// The rest of the first octet: in feedback its format (RFC 4585 §6.1).
const FORMAT_MASK: u32 = 0x1f;

/// Transport-wide feedback is format 15 of the transport layer's, REMB (draft-alvestrand-rmcat-remb) 15 of the payload's.
const REPORTING_FORMAT: u32 = 15;

/// Packet types of RTCP, which no payload type of RTP with its marker may be (RFC 5761 §4).
const PACKET_TYPES: RangeInclusive<u32> = 192..=223;

/// Binds `lanes` to the port that `main` has, `address`, and has them get what is theirs.
///
/// # Errors
/// The kernel refuses one of the steps. `main` then works as if nothing had been tried.
pub(super) fn share_port(main: &Socket, lanes: &[Socket; LANES], address: SocketAddr) -> io::Result<()> {
    let reuse = |socket: BorrowedFd<'_>, on| sys::set_option(socket, libc::SOL_SOCKET, libc::SO_REUSEPORT, on);
    // After the first socket was bound: one that has the option beforehand may be given, for port 0, the port of another
    // socket that has it.
    reuse(main.as_fd(), 1)?;
    let join = |lane: &Socket| reuse(lane.as_fd(), 1).and_then(|()| lane.bind(&address.into()));
    let shared =
        lanes.iter().try_for_each(join).and_then(|()| sys::select_socket(main.as_fd(), &program().map(Filter::encode)));
    if shared.is_err() {
        // On a port of its own the option would only let another process in.
        reuse(main.as_fd(), 0)?;
    }
    shared
}

/// What the kernel runs for each datagram; its data begins with the payload of UDP. To load what is beyond the end of a
/// datagram ends a program with 0, which is `MAIN`.
fn program() -> [Filter; 21] {
    use Filter::{And, IfAbove, IfEqual, IfNotBelow, Load, Return, SkipIfEqual};
    [
        Load { at: 0 },
        SkipIfEqual { value: APPLICATION_DATA, skip: 18 },
        And(UNIFIED_HEADER_MASK),
        SkipIfEqual { value: UNIFIED_HEADER, skip: 16 },
        Load { at: 0 },
        And(VERSION_MASK),
        IfEqual { value: VERSION, or_skip: 12 },
        Load { at: 1 },
        IfNotBelow { value: *PACKET_TYPES.start(), or_skip: 10 },
        IfAbove { value: *PACKET_TYPES.end(), skip: 9 },
        SkipIfEqual { value: types::RECEIVER_REPORT.into(), skip: 6 },
        SkipIfEqual { value: types::EXTENDED_REPORT.into(), skip: 5 },
        IfNotBelow { value: types::TRANSPORT_FEEDBACK.into(), or_skip: 5 },
        IfAbove { value: types::PAYLOAD_FEEDBACK.into(), skip: 4 },
        Load { at: 0 },
        And(FORMAT_MASK),
        IfEqual { value: REPORTING_FORMAT, or_skip: 1 },
        Return(RtcpLane::Reports.socket()),
        Return(RtcpLane::Requests.socket()),
        Return(MAIN),
        Return(DATA),
    ]
}
