//! The system calls that neither the standard library nor `socket2` offers, behind safe functions.
//!
//! `sendmmsg` and `recvmmsg` take arrays of headers that point to each other. The arrays are allocated once; every
//! pointer in them is set in the very call that hands them to the kernel, so none outlives what it points to.
#![allow(unsafe_code)]

mod epoll;
mod filter;

use std::ffi::CStr;
use std::fs::File;
use std::io::{self, Read};
use std::mem;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;
use std::time::Duration;

use libc::{c_int, c_uint, socklen_t};

pub(super) use epoll::{Epoll, Ready, Wanted};
pub(super) use filter::{Filter, select_socket};

/// One message for the kernel.
pub(super) struct Outgoing<'a> {
    /// A datagram, or a run of them.
    pub payload: &'a [u8],
    /// Of the socket's own address family.
    pub destination: SocketAddr,
    /// Where the kernel is to cut the payload (`UDP_SEGMENT`); `None` sends it as one datagram.
    pub segment_size: Option<u16>,
    /// The traffic class octet, where it is not the socket's own.
    pub traffic_class: Option<u8>,
}

/// The arrays of `sendmmsg`.
pub(super) struct SendSlots {
    headers: Box<[libc::mmsghdr]>,
    iovecs: Box<[libc::iovec]>,
    addresses: Box<[Address]>,
    controls: Box<[Control]>,
}

// SAFETY: the raw pointers inside are only ever read by the kernel within `send`, which sets them first. Between
// calls they are meaningless numbers, which may move to another thread.
unsafe impl Send for SendSlots {}

impl SendSlots {
    pub fn new(slots: usize) -> Self {
        Self {
            headers: zeroed_headers(slots),
            iovecs: empty_iovecs(slots),
            addresses: vec![Address::ZERO; slots].into_boxed_slice(),
            controls: vec![Control::ZERO; slots].into_boxed_slice(),
        }
    }

    /// Hands as many messages to the kernel as there are slots, and says how many it took. The rest of `messages` is
    /// not sent.
    ///
    /// # Errors
    /// That of the first message; an error of a later one shows as a smaller number. 0 only if there are no messages.
    pub fn send<'a>(
        &mut self,
        socket: BorrowedFd<'_>,
        messages: impl IntoIterator<Item = Outgoing<'a>>,
    ) -> io::Result<usize> {
        let mut count = 0;
        for (slot, message) in (0..self.headers.len()).zip(messages) {
            self.prepare(slot, &message);
            count += 1;
        }
        if count == 0 {
            return Ok(0);
        }
        // SAFETY: the first `count` headers were prepared above. They point into the boxes of `self`, which nothing
        // touches before the call returns, and to payloads that live for `'a`, which outlives this call. The kernel
        // writes only `msg_len` of each header.
        let sent = unsafe {
            libc::sendmmsg(
                socket.as_raw_fd(),
                self.headers.as_mut_ptr(),
                count as c_uint,
                (libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) as _,
            )
        };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(sent as usize) }
    }

    fn prepare(&mut self, slot: usize, message: &Outgoing<'_>) {
        let address_len = self.addresses[slot].store(message.destination);
        let control_len = self.controls[slot].store(message);
        // The kernel takes a `*mut` here and only reads.
        self.iovecs[slot] =
            libc::iovec { iov_base: message.payload.as_ptr().cast_mut().cast(), iov_len: message.payload.len() };
        let header = &mut self.headers[slot].msg_hdr;
        header.msg_name = (&raw mut self.addresses[slot]).cast();
        header.msg_namelen = address_len;
        header.msg_iov = &raw mut self.iovecs[slot];
        header.msg_iovlen = 1;
        header.msg_control = if control_len == 0 { ptr::null_mut() } else { (&raw mut self.controls[slot]).cast() };
        header.msg_controllen = control_len as _;
    }
}

/// What one slot of [`RecvSlots`] received.
#[derive(Clone, Copy, Debug)]
pub(super) struct Received {
    /// As the kernel says it: mapped, where an IPv4 datagram came through an IPv6 socket.
    pub source: SocketAddr,
    /// Bytes in the slot's buffer.
    pub len: usize,
    /// Length of each datagram but the last, never 0; `len` or more where there is only one.
    pub segment_size: usize,
    /// The datagrams were longer than the slot's buffer.
    pub truncated: bool,
    /// When they came, since 1970, if the socket was asked to say so (`SO_TIMESTAMPNS`).
    pub at: Option<Duration>,
}

/// The arrays of `recvmmsg`.
pub(super) struct RecvSlots {
    headers: Box<[libc::mmsghdr]>,
    iovecs: Box<[libc::iovec]>,
    addresses: Box<[Address]>,
    controls: Box<[Control]>,
}

// SAFETY: as for `SendSlots`: the pointers are set by `receive` before the kernel sees them.
unsafe impl Send for RecvSlots {}

impl RecvSlots {
    pub fn new(slots: usize) -> Self {
        Self {
            headers: zeroed_headers(slots),
            iovecs: empty_iovecs(slots),
            addresses: vec![Address::ZERO; slots].into_boxed_slice(),
            controls: vec![Control::ZERO; slots].into_boxed_slice(),
        }
    }

    /// Takes what waits at the socket into `buffer`, which is cut into as many equal parts as there are slots, and
    /// appends a [`Received`] for each part filled, in order. Does not wait.
    ///
    /// # Errors
    /// `WouldBlock` where nothing waits, or what the kernel says.
    pub fn receive(
        &mut self,
        socket: BorrowedFd<'_>,
        buffer: &mut [u8],
        received: &mut Vec<Received>,
    ) -> io::Result<()> {
        let slots = self.headers.len();
        let slot_len = buffer.len() / slots;
        for (slot, part) in buffer.chunks_exact_mut(slot_len).take(slots).enumerate() {
            self.iovecs[slot] = libc::iovec { iov_base: part.as_mut_ptr().cast(), iov_len: part.len() };
            let header = &mut self.headers[slot].msg_hdr;
            header.msg_name = (&raw mut self.addresses[slot]).cast();
            header.msg_namelen = size_of::<Address>() as socklen_t;
            header.msg_iov = &raw mut self.iovecs[slot];
            header.msg_iovlen = 1;
            header.msg_control = (&raw mut self.controls[slot]).cast();
            header.msg_controllen = size_of::<Control>() as _;
            header.msg_flags = 0;
        }
        // SAFETY: the loop above prepared every header: `slots` parts of `slot_len` bytes fit into `buffer`. All
        // that they point to is borrowed mutably by this function and not touched before the call returns.
        let count = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                self.headers.as_mut_ptr(),
                slots as c_uint,
                libc::MSG_DONTWAIT as _,
                ptr::null_mut(),
            )
        };
        if count < 0 {
            return Err(io::Error::last_os_error());
        }
        received.extend((0..count as usize).map(|slot| self.describe(slot)));
        Ok(())
    }

    fn describe(&self, slot: usize) -> Received {
        let header = &self.headers[slot];
        let len = header.msg_len as usize;
        // SAFETY: `recvmmsg` filled this header in the call of `receive` that is still running, and its control pointer is
        // that slot's buffer.
        let said = unsafe { control_messages(&header.msg_hdr) };
        Received {
            source: self.addresses[slot].load(header.msg_hdr.msg_namelen),
            len,
            segment_size: said.segment_size.unwrap_or(len).max(1),
            truncated: header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0,
            at: said.at,
        }
    }
}

/// What the kernel said beside the datagrams.
#[derive(Clone, Copy, Debug, Default)]
struct Said {
    /// `UDP_GRO`.
    segment_size: Option<usize>,
    /// `SO_TIMESTAMPNS`.
    at: Option<Duration>,
}

/// Reads the control messages.
///
/// # Safety
/// `header` must have been filled by `recvmsg` or `recvmmsg`, and its control buffer must still be there.
unsafe fn control_messages(header: &libc::msghdr) -> Said {
    let mut said = Said::default();
    // SAFETY: the caller vouches for pointer and length; the macros stay within them.
    let mut message = unsafe { libc::CMSG_FIRSTHDR(header) };
    while !message.is_null() {
        // SAFETY: not null, so a whole `cmsghdr` lies in the control buffer, aligned as the buffer is.
        let found = unsafe { &*message };
        // SAFETY: as for CMSG_FIRSTHDR; `message` came from it or from CMSG_NXTHDR.
        let data = unsafe { libc::CMSG_DATA(message) };
        match (found.cmsg_level, found.cmsg_type) {
            (libc::SOL_UDP, libc::UDP_GRO) => {
                // SAFETY: the kernel writes a `c_int` for this type. Read unaligned: only the header's alignment is
                // guaranteed.
                let size: c_int = unsafe { ptr::read_unaligned(data.cast()) };
                said.segment_size = usize::try_from(size).ok();
            }
            (libc::SOL_SOCKET, libc::SO_TIMESTAMPNS) => {
                // SAFETY: the kernel writes a `timespec` for this type; unaligned as above.
                let time: libc::timespec = unsafe { ptr::read_unaligned(data.cast()) };
                said.at = Some(Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec as u32));
            }
            _ => {}
        }
        // SAFETY: as for CMSG_FIRSTHDR.
        message = unsafe { libc::CMSG_NXTHDR(header, message) };
    }
    said
}

/// Room for an IPv4 or IPv6 socket address.
#[derive(Clone, Copy)]
#[repr(C)]
union Address {
    family: libc::sa_family_t,
    v4: libc::sockaddr_in,
    v6: libc::sockaddr_in6,
}

impl Address {
    const ZERO: Self = Self {
        // SAFETY: all-zero bytes are a valid `sockaddr_in6`: integers and arrays of them.
        v6: unsafe { mem::zeroed() },
    };

    /// Returns the length that the kernel is to be told.
    fn store(&mut self, address: SocketAddr) -> socklen_t {
        match address {
            SocketAddr::V4(address) => {
                self.v4 = libc::sockaddr_in {
                    sin_family: libc::AF_INET as _,
                    sin_port: address.port().to_be(),
                    sin_addr: libc::in_addr { s_addr: u32::from(*address.ip()).to_be() },
                    sin_zero: [0; 8],
                };
                size_of::<libc::sockaddr_in>() as _
            }
            SocketAddr::V6(address) => {
                self.v6 = libc::sockaddr_in6 {
                    sin6_family: libc::AF_INET6 as _,
                    sin6_port: address.port().to_be(),
                    sin6_flowinfo: address.flowinfo(),
                    sin6_addr: libc::in6_addr { s6_addr: address.ip().octets() },
                    sin6_scope_id: address.scope_id(),
                };
                size_of::<libc::sockaddr_in6>() as _
            }
        }
    }

    /// The address that the kernel stored in `len` bytes; unspecified where it stored none.
    fn load(&self, len: socklen_t) -> SocketAddr {
        // SAFETY: every bit pattern is valid for every member of the union, and all were initialised by `ZERO`.
        match c_int::from(unsafe { self.family }) {
            libc::AF_INET if len as usize >= size_of::<libc::sockaddr_in>() => {
                // SAFETY: as above.
                let v4 = unsafe { self.v4 };
                let ip = Ipv4Addr::from(u32::from_be(v4.sin_addr.s_addr));
                SocketAddrV4::new(ip, u16::from_be(v4.sin_port)).into()
            }
            libc::AF_INET6 if len as usize >= size_of::<libc::sockaddr_in6>() => {
                // SAFETY: as above.
                let v6 = unsafe { self.v6 };
                let ip = Ipv6Addr::from(v6.sin6_addr.s6_addr);
                SocketAddrV6::new(ip, u16::from_be(v6.sin6_port), v6.sin6_flowinfo, v6.sin6_scope_id).into()
            }
            _ => SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0),
        }
    }
}

/// The octets that a control message with a value of type `T` takes.
const fn control_space<T>() -> usize {
    // SAFETY: plain arithmetic.
    unsafe { libc::CMSG_SPACE(size_of::<T>() as c_uint) as usize }
}

/// A buffer for control messages, aligned as `cmsghdr` asks.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
struct Control([u8; 64]);

const _: () = assert!(align_of::<libc::cmsghdr>() <= align_of::<Control>());
const _: () = assert!(control_space::<u16>() + control_space::<c_int>() <= size_of::<Control>());
const _: () = assert!(control_space::<c_int>() + control_space::<libc::timespec>() <= size_of::<Control>());

impl Control {
    const ZERO: Self = Self([0; 64]);

    /// Writes what the message asks for and returns how many octets that took.
    fn store(&mut self, message: &Outgoing<'_>) -> usize {
        let mut used = 0;
        if let Some(size) = message.segment_size {
            used += self.append(used, libc::SOL_UDP, libc::UDP_SEGMENT, size);
        }
        if let Some(octet) = message.traffic_class {
            // An IPv6 socket hands a mapped destination to the IPv4 code, which looks for IPv4 options only.
            let (level, kind) = match message.destination.ip().to_canonical() {
                IpAddr::V4(_) => (libc::IPPROTO_IP, libc::IP_TOS),
                IpAddr::V6(_) => (libc::IPPROTO_IPV6, libc::IPV6_TCLASS),
            };
            used += self.append(used, level, kind, c_int::from(octet));
        }
        used
    }

    /// # Panics
    /// If there is no room at `offset`.
    fn append<T: Copy>(&mut self, offset: usize, level: c_int, kind: c_int, value: T) -> usize {
        let space = control_space::<T>();
        let room = &mut self.0[offset..offset + space];
        let header = room.as_mut_ptr().cast::<libc::cmsghdr>();
        // SAFETY: `room` is `CMSG_SPACE(size_of::<T>())` octets long and begins at a multiple of the alignment of
        // `cmsghdr`, since the buffer does and each `CMSG_SPACE` is one. Header and value therefore lie inside it.
        // The value is written unaligned.
        unsafe {
            (*header).cmsg_len = libc::CMSG_LEN(size_of::<T>() as c_uint) as _;
            (*header).cmsg_level = level;
            (*header).cmsg_type = kind;
            ptr::write_unaligned(libc::CMSG_DATA(header).cast(), value);
        }
        space
    }
}

fn zeroed_headers(count: usize) -> Box<[libc::mmsghdr]> {
    // SAFETY: integers and null pointers: all-zero bytes are a valid `mmsghdr`. Not a literal, since some C libraries
    // have private padding in it.
    (0..count).map(|_| unsafe { mem::zeroed() }).collect()
}

fn empty_iovecs(count: usize) -> Box<[libc::iovec]> {
    (0..count).map(|_| libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 }).collect()
}

/// A counter that never blocks and can be waited for (`eventfd`), at 0.
///
/// # Errors
/// What `eventfd` says.
pub(super) fn event() -> io::Result<File> {
    // SAFETY: takes no pointer.
    let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a descriptor that was made a moment ago, and that nobody else knows.
    Ok(File::from(unsafe { OwnedFd::from_raw_fd(fd) }))
}

/// Sets an [`event`] back to 0.
///
/// # Errors
/// What `read` says.
pub(super) fn clear_event(mut event: &File) -> io::Result<()> {
    match event.read(&mut [0; 8]) {
        Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
        _ => Ok(()),
    }
}

/// `setsockopt` with an integer.
///
/// # Errors
/// What the kernel says.
pub(super) fn set_option(socket: BorrowedFd<'_>, level: c_int, name: c_int, value: c_int) -> io::Result<()> {
    // SAFETY: the kernel reads `size_of::<c_int>()` bytes of `value`, which lives until the call returns.
    let result = unsafe {
        libc::setsockopt(socket.as_raw_fd(), level, name, (&raw const value).cast(), size_of::<c_int>() as socklen_t)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// `getsockopt` of an integer.
///
/// # Errors
/// What the kernel says.
pub(super) fn option(socket: BorrowedFd<'_>, level: c_int, name: c_int) -> io::Result<c_int> {
    let mut value = [0];
    read_option(socket, level, name, &mut value)?;
    Ok(value[0])
}

/// How many datagrams the kernel threw away at this socket, mostly because the receive buffer was full. Wraps.
///
/// # Errors
/// What the kernel says (`SO_MEMINFO` came with Linux 4.12).
pub(super) fn receive_drops(socket: BorrowedFd<'_>) -> io::Result<u32> {
    let mut info = [0; libc::SK_MEMINFO_DROPS as usize + 1];
    read_option(socket, libc::SOL_SOCKET, libc::SO_MEMINFO, &mut info)?;
    Ok(info[libc::SK_MEMINFO_DROPS as usize] as u32)
}

fn read_option(socket: BorrowedFd<'_>, level: c_int, name: c_int, values: &mut [c_int]) -> io::Result<()> {
    let mut len = size_of_val(values) as socklen_t;
    // SAFETY: the kernel writes at most `len` bytes to `values`, and the number of them to `len`.
    let result = unsafe { libc::getsockopt(socket.as_raw_fd(), level, name, values.as_mut_ptr().cast(), &raw mut len) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// One address of one interface of the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct InterfaceAddress {
    /// The interface's name.
    pub interface: String,
    /// The interface is up and has a carrier.
    pub running: bool,
    /// The address.
    pub address: IpAddr,
}

/// The addresses of all interfaces in this network namespace, in the kernel's order.
///
/// # Errors
/// What `getifaddrs` says.
pub(super) fn interface_addresses() -> io::Result<Vec<InterfaceAddress>> {
    let mut list: *mut libc::ifaddrs = ptr::null_mut();
    // SAFETY: writes a pointer to `list`, which is freed below.
    if unsafe { libc::getifaddrs(&raw mut list) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let mut found = Vec::new();
    let mut next = list;
    while !next.is_null() {
        // SAFETY: not null, so it points to an entry of the list, which lives until `freeifaddrs`.
        let entry = unsafe { &*next };
        // SAFETY: the entry's own pointers are null or valid for as long as the list.
        found.extend(unsafe { interface_address(entry) });
        next = entry.ifa_next;
    }
    // SAFETY: `list` came from `getifaddrs`, and nothing points into it any more.
    unsafe { libc::freeifaddrs(list) };
    Ok(found)
}

/// `None` for an address of another family.
///
/// # Safety
/// `entry` must be one of a list that `getifaddrs` made and that was not freed yet.
unsafe fn interface_address(entry: &libc::ifaddrs) -> Option<InterfaceAddress> {
    if entry.ifa_addr.is_null() {
        return None;
    }
    // SAFETY: the caller vouches for the entry; each family has the layout of its own structure.
    let address = unsafe {
        match c_int::from((*entry.ifa_addr).sa_family) {
            libc::AF_INET => {
                let v4 = ptr::read_unaligned(entry.ifa_addr.cast::<libc::sockaddr_in>());
                IpAddr::V4(u32::from_be(v4.sin_addr.s_addr).into())
            }
            libc::AF_INET6 => {
                let v6 = ptr::read_unaligned(entry.ifa_addr.cast::<libc::sockaddr_in6>());
                IpAddr::V6(v6.sin6_addr.s6_addr.into())
            }
            _ => return None,
        }
    };
    // SAFETY: the name is a C string for as long as the list.
    let interface = unsafe { CStr::from_ptr(entry.ifa_name) }.to_string_lossy().into_owned();
    let wanted = (libc::IFF_UP | libc::IFF_RUNNING) as c_uint;
    Some(InterfaceAddress { interface, running: entry.ifa_flags & wanted == wanted, address })
}

/// The CPU time that the calling thread has used so far, in the kernel as well as in user space.
pub fn thread_cpu_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: writes to `time` only. It cannot fail: the clock exists since Linux 2.6.12 and the pointer is valid.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Waits for one datagram on a socket with `IP_RECVTOS` or `IPV6_RECVTCLASS` and says its traffic class octet.
#[cfg(test)]
pub(super) fn receive_traffic_class(socket: BorrowedFd<'_>) -> io::Result<u8> {
    let mut control = Control::ZERO;
    // SAFETY: as in `zeroed_headers`.
    let mut header: libc::msghdr = unsafe { mem::zeroed() };
    header.msg_control = (&raw mut control).cast();
    header.msg_controllen = size_of::<Control>() as _;
    // SAFETY: the header asks for no payload and no source, and its control buffer lives until the end.
    if unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut header, 0) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just filled the header.
    let message = unsafe { libc::CMSG_FIRSTHDR(&header) };
    if message.is_null() {
        return Err(io::ErrorKind::NotFound.into());
    }
    // SAFETY: a control message that the kernel wrote; IP_TOS has a value of one octet, IPV6_TCLASS an int.
    unsafe {
        let data = libc::CMSG_DATA(message);
        match ((*message).cmsg_level, (*message).cmsg_type) {
            (libc::IPPROTO_IP, libc::IP_TOS) => Ok(*data),
            (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) => Ok(ptr::read_unaligned(data.cast::<c_int>()) as u8),
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }
}
