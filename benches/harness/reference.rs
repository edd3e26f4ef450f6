//! The reference loop: seal each packet for each player straight into a GSO run, `sendmmsg`. Nothing else.
//!
//! Every budget for CPU is a ratio to this loop in the same run. It shares no code with the gateway, so that a
//! mistake there does not move the yardstick.
// The yardstick must not be built of what it measures, so it makes the system calls itself.
#![allow(unsafe_code)]

use std::io;
use std::mem;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::ptr;
use std::time::Instant;

use super::Contender;
use super::viewer::{Viewer, sealed_len};

/// Runs for each system call: between 8 and 32 it makes no difference.
pub const RUNS: usize = 16;

/// A control message of two octets, padded.
const CONTROL_LEN: usize = 24;

/// `UDP_SEGMENT` as a control message.
#[repr(C, align(8))]
struct Control([u8; CONTROL_LEN]);

/// See the module.
pub struct ReferenceLoop {
    socket: UdpSocket,
    viewers: Vec<Viewer>,
    frame: Vec<Vec<u8>>,
    out: Vec<u8>,
    headers: Vec<libc::mmsghdr>,
    iovecs: Vec<libc::iovec>,
    addresses: Vec<libc::sockaddr_in>,
    controls: Vec<Control>,
}

impl ReferenceLoop {
    /// A loop that sends the same payloads of equal length again and again to viewers with IPv4 addresses.
    ///
    /// # Errors
    /// No socket can be bound.
    pub fn new(viewers: Vec<Viewer>, frame: Vec<Vec<u8>>) -> io::Result<Self> {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket2::SockRef::from(&socket).set_send_buffer_size(8 << 20)?;
        let run_len = sealed_len(frame[0].len()) * frame.len();
        // SAFETY: integers, arrays of them and null pointers: all-zero bytes are valid values of the three types.
        let (header, address) = unsafe { (mem::zeroed::<libc::mmsghdr>(), mem::zeroed::<libc::sockaddr_in>()) };
        Ok(Self {
            socket,
            viewers,
            out: vec![0; RUNS * run_len],
            headers: vec![header; RUNS],
            iovecs: vec![libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 }; RUNS],
            addresses: vec![address; RUNS],
            controls: (0..RUNS).map(|_| control(sealed_len(frame[0].len()) as u16)).collect(),
            frame,
        })
    }

    /// Hands `count` prepared runs of `run_len` bytes to the kernel.
    ///
    /// # Panics
    /// If the kernel does not take them all: the figures would be worth nothing.
    fn send(&mut self, count: usize, run_len: usize) {
        for slot in 0..count {
            self.iovecs[slot].iov_base = self.out[slot * run_len..].as_mut_ptr().cast();
            self.iovecs[slot].iov_len = run_len;
            let header = &mut self.headers[slot].msg_hdr;
            header.msg_name = (&raw mut self.addresses[slot]).cast();
            header.msg_namelen = size_of::<libc::sockaddr_in>() as _;
            header.msg_iov = &raw mut self.iovecs[slot];
            header.msg_iovlen = 1;
            header.msg_control = (&raw mut self.controls[slot]).cast();
            header.msg_controllen = if self.frame.len() > 1 { CONTROL_LEN as _ } else { 0 };
        }
        // SAFETY: `count` headers were prepared; all that they point to is owned by `self` and untouched meanwhile.
        let sent = unsafe { libc::sendmmsg(self.socket.as_raw_fd(), self.headers.as_mut_ptr(), count as _, 0) };
        assert_eq!(sent, count as libc::c_int, "reference loop: {}", io::Error::last_os_error());
    }
}

impl Contender for ReferenceLoop {
    fn name(&self) -> &str {
        "reference loop"
    }

    fn frame(&mut self, _now: Instant) -> usize {
        let run_len = sealed_len(self.frame[0].len()) * self.frame.len();
        let mut viewers = mem::take(&mut self.viewers);
        for group in viewers.chunks_mut(RUNS) {
            for (slot, viewer) in group.iter_mut().enumerate() {
                let mut end = slot * run_len;
                for payload in &self.frame {
                    end += viewer.seal(payload, &mut self.out[end..]);
                }
                self.addresses[slot] = ipv4(viewer.address);
            }
            self.send(group.len(), run_len);
        }
        self.viewers = viewers;
        self.viewers.len() * self.frame.len()
    }
}

fn control(segment_size: u16) -> Control {
    let mut control = Control([0; CONTROL_LEN]);
    // SAFETY: `CMSG_SPACE(2)` is 24 on 64-bit systems, which is the length of the buffer; it is aligned for a header.
    unsafe {
        assert_eq!(libc::CMSG_SPACE(2) as usize, CONTROL_LEN);
        let header = control.0.as_mut_ptr().cast::<libc::cmsghdr>();
        (*header).cmsg_len = libc::CMSG_LEN(2) as _;
        (*header).cmsg_level = libc::SOL_UDP;
        (*header).cmsg_type = libc::UDP_SEGMENT;
        ptr::write_unaligned(libc::CMSG_DATA(header).cast(), segment_size);
    }
    control
}

/// # Panics
/// If it is no IPv4 address.
fn ipv4(address: SocketAddr) -> libc::sockaddr_in {
    let SocketAddr::V4(address) = address else { panic!("{address} is not IPv4") };
    libc::sockaddr_in {
        sin_family: libc::AF_INET as _,
        sin_port: address.port().to_be(),
        sin_addr: libc::in_addr { s_addr: u32::from(*address.ip()).to_be() },
        sin_zero: [0; 8],
    }
}
