//! Which of many sockets can be read or written: `epoll`, level-triggered.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;
use std::time::Duration;

use libc::c_int;

/// How many sockets one look finds at most.
const EVENTS: usize = 64;

/// A set of sockets. Can be a member of another one, where it is ready when one of its own members is.
#[derive(Debug)]
pub(in crate::net) struct Epoll {
    fd: OwnedFd,
    /// The kernel (before Linux 5.11) or a sandbox lets us wait for whole milliseconds only.
    coarse: bool,
}

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
    /// Reading, until a look has found it: then nothing.
    ReadingOnce,
    ReadingAndWriting,
}

impl Wanted {
    const fn events(self) -> u32 {
        match self {
            Self::Nothing => 0,
            Self::Reading => libc::EPOLLIN as u32,
            Self::ReadingOnce => (libc::EPOLLIN | libc::EPOLLONESHOT) as u32,
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
        Ok(Self { fd: unsafe { OwnedFd::from_raw_fd(fd) }, coarse: false })
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
        let result = unsafe { libc::epoll_ctl(self.fd.as_raw_fd(), operation, socket.as_raw_fd(), &raw mut event) };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// Replaces what is in `ready` by some of the sockets that are ready now, without waiting.
    ///
    /// # Errors
    /// What `epoll_wait` says.
    pub fn look(&mut self, ready: &mut Vec<Ready>) -> io::Result<()> {
        self.wait(ready, Duration::ZERO)
    }

    /// Waits until a socket is ready, but not longer than `most`, and replaces what is in `ready` by some that are: by none
    /// where time ran out or a signal came.
    ///
    /// # Errors
    /// What `epoll_wait` says.
    pub fn wait(&mut self, ready: &mut Vec<Ready>, most: Duration) -> io::Result<()> {
        ready.clear();
        let mut events = [libc::epoll_event { events: 0, u64: 0 }; EVENTS];
        let mut count = if self.coarse || most.is_zero() {
            self.wait_coarse(&mut events, most)
        } else {
            self.wait_fine(&mut events, most)
        };
        // A sandbox whose list of system calls is older than this one forbids it instead of not knowing it.
        if count < 0
            && !self.coarse
            && matches!(io::Error::last_os_error().raw_os_error(), Some(libc::ENOSYS | libc::EPERM))
        {
            self.coarse = true;
            count = self.wait_coarse(&mut events, most);
        }
        if count < 0 {
            let error = io::Error::last_os_error();
            return if error.kind() == io::ErrorKind::Interrupted { Ok(()) } else { Err(error) };
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

    fn wait_fine(&self, events: &mut [libc::epoll_event; EVENTS], most: Duration) -> c_int {
        // An enormous number of seconds is refused; a day is as good as for ever.
        let most = most.min(Duration::from_secs(86_400));
        let timeout = libc::timespec { tv_sec: most.as_secs() as _, tv_nsec: most.subsec_nanos() as _ };
        // SAFETY: the kernel writes at most `EVENTS` entries into an array of so many and reads `timeout`, both within the
        // call; no signal mask is given.
        let count = unsafe {
            libc::syscall(
                libc::SYS_epoll_pwait2,
                self.fd.as_raw_fd(),
                events.as_mut_ptr(),
                EVENTS as c_int,
                &raw const timeout,
                ptr::null::<libc::sigset_t>(),
                0_usize,
            )
        };
        count as c_int
    }

    fn wait_coarse(&self, events: &mut [libc::epoll_event; EVENTS], most: Duration) -> c_int {
        let milliseconds = most.as_nanos().div_ceil(1_000_000).min(86_400_000) as c_int;
        // SAFETY: the kernel writes at most `EVENTS` entries into an array of so many.
        unsafe { libc::epoll_wait(self.fd.as_raw_fd(), events.as_mut_ptr(), EVENTS as c_int, milliseconds) }
    }
}

impl AsFd for Epoll {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::time::Instant;

    use super::super::event;
    use super::*;

    #[test]
    fn a_wait_is_not_cut_short_and_ends_when_something_is_ready() {
        let most = Duration::from_micros(1200);
        for coarse in [false, true] {
            let mut set = Epoll { coarse, ..Epoll::new().expect("descriptors") };
            let (mut counter, mut ready) = (event().expect("descriptors"), Vec::new());
            set.add(counter.as_fd(), 7, Wanted::Reading).expect("can be watched");
            let begin = Instant::now();
            set.wait(&mut ready, most).expect("waits");
            assert!(ready.is_empty() && begin.elapsed() >= most, "coarse {coarse}");
            assert_eq!(set.coarse, coarse, "this kernel waits finely");
            counter.write_all(&1_u64.to_ne_bytes()).expect("room");
            set.wait(&mut ready, Duration::from_secs(60)).expect("waits");
            assert_eq!(ready, [Ready { token: 7, readable: true, writable: false }]);
        }
    }
}
