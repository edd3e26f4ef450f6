//! Which of many sockets can be read or written: `epoll`, level-triggered.
//!
//! tokio watches the one descriptor of the set instead of each socket in it: a shard asks its connections in turn, on its
//! own thread, and needs no task for each.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use libc::c_int;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// How many sockets one look finds at most.
const EVENTS: usize = 64;

/// A set of sockets.
#[derive(Debug)]
pub(in crate::net) struct Epoll(OwnedFd);

/// A socket that can be read or written, or has failed, which reading it tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::net) struct Ready {
    /// What [`Epoll::add`] was told.
    pub token: u64,
    /// There may be something to read, or an end, or an error.
    pub readable: bool,
    /// There is room to write.
    pub writable: bool,
}

/// What to wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::net) enum Wanted {
    Nothing,
    Reading,
    ReadingAndWriting,
}

impl Wanted {
    const fn events(self) -> u32 {
        match self {
            Self::Nothing => 0,
            Self::Reading => libc::EPOLLIN as u32,
            Self::ReadingAndWriting => (libc::EPOLLIN | libc::EPOLLOUT) as u32,
        }
    }
}

impl Epoll {
    /// # Errors
    /// What `epoll_create1` says.
    pub fn new() -> io::Result<Self> {
        // SAFETY: takes no pointer.
        let fd = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: a descriptor that was made a moment ago, and that nobody else knows.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Puts a socket into the set. It leaves it when it is closed.
    ///
    /// # Errors
    /// What `epoll_ctl` says.
    pub fn add(&self, socket: BorrowedFd<'_>, token: u64, wanted: Wanted) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_ADD, socket, token, wanted)
    }

    /// Changes what to wait for at a socket of the set.
    ///
    /// # Errors
    /// What `epoll_ctl` says.
    pub fn change(&self, socket: BorrowedFd<'_>, token: u64, wanted: Wanted) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_MOD, socket, token, wanted)
    }

    fn control(&self, operation: c_int, socket: BorrowedFd<'_>, token: u64, wanted: Wanted) -> io::Result<()> {
        let mut event = libc::epoll_event { events: wanted.events(), u64: token };
        // SAFETY: both descriptors are open as long as their borrows; the kernel reads `event` within the call.
        let result = unsafe { libc::epoll_ctl(self.0.as_raw_fd(), operation, socket.as_raw_fd(), &raw mut event) };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// Replaces what is in `ready` by some of the sockets that are ready now, without waiting.
    ///
    /// # Errors
    /// What `epoll_wait` says.
    pub fn look(&self, ready: &mut Vec<Ready>) -> io::Result<()> {
        ready.clear();
        let mut events = [libc::epoll_event { events: 0, u64: 0 }; EVENTS];
        // SAFETY: the kernel writes at most `EVENTS` entries into an array of so many.
        let count = unsafe { libc::epoll_wait(self.0.as_raw_fd(), events.as_mut_ptr(), EVENTS as c_int, 0) };
        if count < 0 {
            return Err(io::Error::last_os_error());
        }
        ready.extend(events[..count as usize].iter().map(|event| {
            let events = event.events as c_int;
            Ready {
                token: event.u64,
                readable: events & (libc::EPOLLIN | libc::EPOLLHUP | libc::EPOLLERR) != 0,
                writable: events & libc::EPOLLOUT != 0,
            }
        }));
        Ok(())
    }

    /// Has the current tokio runtime say when [`Epoll::look`] would find something.
    ///
    /// # Errors
    /// What `epoll_ctl` says.
    ///
    /// # Panics
    /// Outside a tokio runtime with I/O enabled.
    pub fn watch(self) -> io::Result<AsyncFd<Self>> {
        // SAFETY: an `Epoll` owns its descriptor: it stays open, and the same, until the `AsyncFd` drops it.
        Ok(unsafe { AsyncFd::register_with_interest(self, Interest::READABLE) }?)
    }
}

impl AsRawFd for Epoll {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}
