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

pub mod viewer;

use viewer::{Viewer, sealed_len};

/// Runs for each system call: between 8 and 32 it makes no difference.
pub const RUNS: usize = 16;

/// The kernel takes no longer run, in packets (`UDP_MAX_SEGMENTS` before Linux 6.9) and in bytes.
const LONGEST_RUN: (usize, usize) = (64, 65_000);

/// A control message of two octets: `UDP_SEGMENT`.
#[repr(C)]
struct Control {
    header: libc::cmsghdr,
    segment_size: u16,
    padding: [u8; 6],
}

/// What every viewer gets at once: runs of packets of equal length.
#[derive(Clone, Debug)]
pub struct Frame {
    runs: Vec<Vec<Vec<u8>>>,
}

impl Frame {
    /// Video packets of these payloads, all as long as the longest, and audio packets of those.
    pub fn new(video: &[usize], audio: &[usize]) -> Self {
        let longest = video.iter().copied().max().unwrap_or_default();
        let packets = LONGEST_RUN.0.min(LONGEST_RUN.1 / sealed_len(longest));
        let video = video.chunks(packets).map(|run| vec![vec![0x5a; longest]; run.len()]);
        Self { runs: video.chain(audio.iter().map(|len| vec![vec![0x5a; *len]])).collect() }
    }

    fn packets(&self) -> usize {
        self.runs.iter().map(Vec::len).sum()
    }
}

/// See the module.
pub struct ReferenceLoop {
    socket: UdpSocket,
    viewers: Vec<Viewer>,
    frames: Vec<Frame>,
    next: usize,
    /// Whether what was sealed is also sent.
    pub sends: bool,
    out: Vec<u8>,
    headers: Vec<libc::mmsghdr>,
    iovecs: Vec<libc::iovec>,
    addresses: Vec<libc::sockaddr_in>,
    controls: Vec<Control>,
}

impl ReferenceLoop {
    /// A loop that sends the same frames again and again to viewers with IPv4 addresses.
    ///
    /// # Errors
    /// No socket can be bound.
    pub fn new(viewers: Vec<Viewer>, frames: Vec<Frame>) -> io::Result<Self> {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket2::SockRef::from(&socket).set_send_buffer_size(8 << 20)?;
        // SAFETY: integers, arrays of them and null pointers: all-zero bytes are valid values of the three types.
        let (header, address) = unsafe { (mem::zeroed::<libc::mmsghdr>(), mem::zeroed::<libc::sockaddr_in>()) };
        let run_len = |run: &Vec<Vec<u8>>| run.iter().map(|payload| sealed_len(payload.len())).sum::<usize>();
        let longest = frames.iter().flat_map(|frame| &frame.runs).map(run_len).max().unwrap_or_default();
        Ok(Self {
            socket,
            viewers,
            frames,
            next: 0,
            sends: true,
            out: vec![0; RUNS * longest],
            headers: vec![header; RUNS],
            iovecs: vec![libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 }; RUNS],
            addresses: vec![address; RUNS],
            controls: (0..RUNS).map(|_| Control::new()).collect(),
        })
    }

    /// Prepares message `slot`: what is in `out[begin..end]`, in packets of `segment_size`.
    fn prepare(&mut self, slot: usize, begin: usize, end: usize, segment_size: usize, to: SocketAddr) {
        self.addresses[slot] = ipv4(to);
        self.iovecs[slot] = libc::iovec { iov_base: self.out[begin..].as_mut_ptr().cast(), iov_len: end - begin };
        self.controls[slot].segment_size = segment_size as u16;
        let header = &mut self.headers[slot].msg_hdr;
        header.msg_name = (&raw mut self.addresses[slot]).cast();
        header.msg_namelen = size_of::<libc::sockaddr_in>() as _;
        header.msg_iov = &raw mut self.iovecs[slot];
        header.msg_iovlen = 1;
        header.msg_control = (&raw mut self.controls[slot]).cast();
        header.msg_controllen = if end - begin > segment_size { size_of::<Control>() as _ } else { 0 };
    }

    /// Hands the first `count` prepared messages to the kernel.
    ///
    /// # Panics
    /// If the kernel does not take them all: the figures would be worth nothing.
    fn send(&mut self, count: usize) {
        if !self.sends {
            return;
        }
        // SAFETY: `count` headers were prepared; all that they point to is owned by `self` and untouched meanwhile.
        let sent = unsafe { libc::sendmmsg(self.socket.as_raw_fd(), self.headers.as_mut_ptr(), count as _, 0) };
        assert_eq!(sent, count as libc::c_int, "reference loop: {}", io::Error::last_os_error());
    }
}

impl ReferenceLoop {
    /// Sends the next frame to all and says how many packets that were.
    pub fn send_frame(&mut self) -> usize {
        let frames = mem::take(&mut self.frames);
        let mut viewers = mem::take(&mut self.viewers);
        let frame = &frames[self.next];
        self.next = (self.next + 1) % frames.len();
        let (mut slot, mut end) = (0, 0);
        for viewer in &mut viewers {
            for run in &frame.runs {
                let begin = end;
                for payload in run {
                    end += viewer.seal(payload, &mut self.out[end..]);
                }
                self.prepare(slot, begin, end, sealed_len(run[0].len()), viewer.address);
                slot += 1;
                if slot == RUNS {
                    self.send(slot);
                    (slot, end) = (0, 0);
                }
            }
        }
        if slot > 0 {
            self.send(slot);
        }
        let packets = viewers.len() * frame.packets();
        self.viewers = viewers;
        self.frames = frames;
        packets
    }
}

impl Control {
    fn new() -> Self {
        // SAFETY: integers: all-zero bytes are a valid value.
        let mut header = unsafe { mem::zeroed::<libc::cmsghdr>() };
        // SAFETY: only computes. The segment size follows the header without a gap, which is what `CMSG_LEN` says.
        let len = unsafe {
            assert_eq!(libc::CMSG_SPACE(2) as usize, size_of::<Self>());
            libc::CMSG_LEN(2)
        };
        assert_eq!(len as usize, mem::offset_of!(Self, segment_size) + 2);
        header.cmsg_len = len as _;
        header.cmsg_level = libc::SOL_UDP;
        header.cmsg_type = libc::UDP_SEGMENT;
        Self { header, segment_size: 0, padding: [0; 6] }
    }
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
