//! A peer's UDP socket: connected to its server, with GRO and the kernel's receive time.

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg, setsockopt, sockopt};
use nix::sys::time::TimeSpec;
use socket2::{Domain, Protocol, Socket, Type};
use url::Url;

/// What one read may bring: GRO joins up to 64 KiB of a sender's datagrams.
pub const READ_BYTES: usize = 64 * 1024;

/// What the kernel may keep for a peer that is not read at once: a keyframe and some, for thousands of peers.
const RECEIVE_BUFFER: usize = 1024 * 1024;

/// One read: datagrams of one sender in one buffer.
pub struct Read<'a> {
    /// All of them, side by side.
    pub bytes: &'a mut [u8],
    /// The length of each but the last, which may be shorter.
    pub each: usize,
    /// When the kernel received them: nanoseconds since 1970.
    pub at: u64,
    /// How many reads' worth the kernel has thrown away since the socket was made, because nobody read.
    pub overflowed: u32,
}

/// See the module's text.
#[derive(Debug)]
pub struct PeerSocket(UdpSocket);

impl PeerSocket {
    /// A socket at any port of `local`, which may be unspecified.
    ///
    /// # Errors
    /// The kernel refuses one of the steps.
    pub fn bind(local: IpAddr) -> io::Result<Self> {
        let local = SocketAddr::new(local, 0);
        let socket = Socket::new(Domain::for_address(local), Type::DGRAM, Some(Protocol::UDP))?;
        socket.set_nonblocking(true)?;
        socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
        socket.bind(&local.into())?;
        setsockopt(&socket, sockopt::UdpGroSegment, &true)?;
        setsockopt(&socket, sockopt::ReceiveTimestampns, &true)?;
        setsockopt(&socket, sockopt::RxqOvfl, &1)?;
        Ok(Self(socket.into()))
    }

    /// Connected to `server`. Where that is of the other family, a new socket: its check tells the server the address.
    ///
    /// # Errors
    /// The kernel refuses one of the steps.
    pub fn connect(self, server: SocketAddr) -> io::Result<Self> {
        let same = self.local_address()?.is_ipv4() == server.is_ipv4();
        let socket = if same { self } else { Self::bind(unspecified(server.is_ipv4()))? };
        socket.0.connect(server)?;
        Ok(socket)
    }

    /// Where the server sees the peer, as far as the host knows.
    ///
    /// # Errors
    /// The kernel does not say.
    pub fn local_address(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }

    /// Sends a datagram. Whether the kernel took it.
    pub fn send(&self, datagram: &[u8]) -> bool {
        // ECONNREFUSED and full buffers are the network's way of losing a packet.
        self.0.send(datagram).is_ok()
    }

    /// What has come, or nothing. `control` keeps its capacity between calls.
    ///
    /// # Errors
    /// The kernel says why not.
    pub fn read<'a>(&self, buffer: &'a mut [u8], control: &mut Vec<u8>) -> io::Result<Option<Read<'a>>> {
        let (len, mut each, mut at, overflowed) = {
            let mut slices = [IoSliceMut::new(buffer)];
            let message =
                match recvmsg::<()>(self.0.as_raw_fd(), &mut slices, Some(control.as_mut_slice()), MsgFlags::empty()) {
                    Ok(message) => message,
                    Err(nix::Error::EAGAIN) => return Ok(None),
                    Err(error) => return Err(error.into()),
                };
            let (mut each, mut at, mut overflowed) = (0, 0, 0);
            for control in message.cmsgs()? {
                match control {
                    ControlMessageOwned::UdpGroSegments(bytes) => each = bytes.unsigned_abs() as usize,
                    ControlMessageOwned::ScmTimestampns(time) => at = nanoseconds(time),
                    ControlMessageOwned::RxqOvfl(count) => overflowed = count,
                    _ => {}
                }
            }
            (message.bytes, each, at, overflowed)
        };
        if each == 0 {
            each = len.max(1);
        }
        if at == 0 {
            at = crate::clock::unix_nanoseconds();
        }
        Ok(Some(Read { bytes: &mut buffer[..len], each, at, overflowed }))
    }
}

impl AsFd for PeerSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Any address of the host's.
pub fn unspecified(ipv4: bool) -> IpAddr {
    if ipv4 { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() }
}

/// Where the host would send from to reach the server of `url`.
///
/// # Errors
/// The server's name cannot be resolved, or there is no way to it.
pub fn address_towards(url: &Url) -> io::Result<IpAddr> {
    let server = url.socket_addrs(|| None)?.into_iter().next().ok_or(io::ErrorKind::AddrNotAvailable)?;
    let socket = UdpSocket::bind(SocketAddr::new(unspecified(server.is_ipv4()), 0))?;
    // Of a datagram socket this sends nothing.
    socket.connect(server)?;
    Ok(socket.local_addr()?.ip())
}

fn nanoseconds(time: TimeSpec) -> u64 {
    (time.tv_sec() as u64).wrapping_mul(1_000_000_000).wrapping_add(time.tv_nsec() as u64)
}

/// Room for what [`PeerSocket::read`] asks of the kernel besides the datagrams.
pub fn control_buffer() -> Vec<u8> {
    nix::cmsg_space!(TimeSpec, i32, u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_of_the_other_family_is_reached_all_the_same() {
        let server = UdpSocket::bind("[::1]:0").unwrap();
        let peer = PeerSocket::bind(unspecified(true)).unwrap().connect(server.local_addr().unwrap()).unwrap();
        assert!(peer.send(b"hello"));
        assert_eq!(server.recv_from(&mut [0; 9]).unwrap(), (5, peer.local_address().unwrap()));
    }

    #[test]
    fn the_way_to_a_server_says_where_from() {
        let from = |url| address_towards(&Url::parse(url).unwrap());
        assert_eq!(from("http://127.0.0.1:9/whip").unwrap(), Ipv4Addr::LOCALHOST);
        assert_eq!(from("https://[::1]/whip").unwrap(), Ipv6Addr::LOCALHOST);
        assert!(from("data:,nowhere").is_err());
    }

    #[test]
    fn a_read_says_when_and_where_datagrams_end() {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        let peer = PeerSocket::bind(unspecified(true)).unwrap().connect(server.local_addr().unwrap()).unwrap();
        let (mut buffer, mut control) = (vec![0; READ_BYTES], control_buffer());
        assert!(peer.read(&mut buffer, &mut control).unwrap().is_none());

        let before = crate::clock::unix_nanoseconds();
        setsockopt(&server, sockopt::UdpGsoSegment, &1000).unwrap();
        server.send_to(&[7; 2500], peer.local_address().unwrap()).unwrap();
        let read = peer.read(&mut buffer, &mut control).unwrap().expect("loopback delivers at once");
        assert_eq!((read.bytes.len(), read.each), (2500, 1000));
        assert!((before..=crate::clock::unix_nanoseconds()).contains(&read.at));

        // More than any buffer holds, and then one that tells of it.
        for _ in 0..1000 {
            server.send_to(&[7; 2500], peer.local_address().unwrap()).unwrap();
        }
        while let Some(read) = peer.read(&mut buffer, &mut control).unwrap() {
            assert_eq!(read.overflowed, 0, "it is told with what comes after");
        }
        server.send_to(&[7], peer.local_address().unwrap()).unwrap();
        let overflowed = peer.read(&mut buffer, &mut control).unwrap().expect("there is room again").overflowed;
        assert!((1..1000).contains(&overflowed), "{overflowed}");

        assert!(peer.send(b"hello"));
        assert_eq!(server.recv_from(&mut [0; 9]).unwrap(), (5, peer.local_address().unwrap()));
    }
}
