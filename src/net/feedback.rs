//! The second half of a shard's port: what players report about what they got.
//!
//! RTCP is most of what players send, and it can wait for a few milliseconds, which media and checks cannot. On one socket
//! each report would wake the shard. So two sockets share the port (`SO_REUSEPORT`), and a classic BPF program in the kernel
//! gives RTCP to the second one, by the first two octets of the datagram as [`classify`](crate::rtc::demux::classify) tells
//! them apart: this is the same rule, in the kernel's language.

use std::io;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::os::fd::{AsFd, BorrowedFd};

use socket2::Socket;

use super::sys::{self, Filter};

/// Version 2 in the two highest bits of the first octet (RFC 3550 §6.4.1).
const VERSION_MASK: u32 = 0xc0;
const VERSION: u32 = 0x80;

/// Packet types of RTCP, which no payload type of RTP with its marker may be (RFC 5761 §4).
const PACKET_TYPES: RangeInclusive<u32> = 192..=223;

/// Which of the port's sockets gets a datagram, in the order in which they were bound.
const MAIN: u32 = 0;
const FEEDBACK: u32 = 1;

/// Binds `feedback` to the port that `main` has, `address`, and has it get the RTCP.
///
/// # Errors
/// The kernel refuses one of the steps. `main` then works as if nothing had been tried.
pub(super) fn share_port(main: &Socket, feedback: &Socket, address: SocketAddr) -> io::Result<()> {
    let reuse = |socket: BorrowedFd<'_>, on| sys::set_option(socket, libc::SOL_SOCKET, libc::SO_REUSEPORT, on);
    // After the first socket was bound: one that has the option beforehand may be given, for port 0, the port of another
    // socket that has it.
    reuse(main.as_fd(), 1)?;
    let shared = reuse(feedback.as_fd(), 1)
        .and_then(|()| feedback.bind(&address.into()))
        .and_then(|()| sys::select_socket(main.as_fd(), &program()));
    if shared.is_err() {
        // On a port of its own the option would only let another process in.
        reuse(main.as_fd(), 0)?;
    }
    shared
}

/// What the kernel runs for each datagram; its data begins with the payload of UDP. To load what is beyond the end of a
/// datagram ends a program with 0.
fn program() -> [libc::sock_filter; 8] {
    use Filter::{And, IfAbove, IfEqual, IfNotBelow, Load, Return};
    [
        Load { at: 0 },
        And(VERSION_MASK),
        IfEqual { value: VERSION, or_skip: 4 },
        Load { at: 1 },
        IfNotBelow { value: *PACKET_TYPES.start(), or_skip: 2 },
        IfAbove { value: *PACKET_TYPES.end(), skip: 1 },
        Return(FEEDBACK),
        Return(MAIN),
    ]
    .map(Filter::encode)
}
