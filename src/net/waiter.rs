//! What a shard's thread sleeps on.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::task::{Wake, Waker};
use std::time::Duration;

use super::lanes::RtcpLane;
use super::sys::{self, Epoll, Ready, Wanted};
use super::tcp::IceTcp;
use super::udp::ShardSocket;

const DATAGRAMS: u64 = 0;
const TCP: u64 = 1;
const BELL: u64 = 2;
const DATA: u64 = 3;
/// And one more for each lane.
const RTCP: u64 = 4;

/// Why a [`Waiter`] woke. Nothing of it where time ran out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Arrivals {
    /// For [`ShardSocket::recv_batch`].
    pub datagrams: bool,
    /// For [`ShardSocket::recv_data`].
    pub data: bool,
    /// For [`ShardSocket::recv_rtcp`], by lane. Said once for each [`Waiter::watch_rtcp`].
    pub rtcp: [bool; 2],
    /// For [`IceTcp::receive`].
    pub tcp: bool,
    /// A [`Waiter::waker`] was woken since the last time.
    pub rung: bool,
}

/// Puts a thread to sleep until one of its sockets has something, time has come, or another thread wakes it.
///
/// A shard has a thread of its own and needs no runtime on it: this is one system call for each sleep, and as fine as the
/// kernel's timers, where tokio's tick once in a millisecond.
#[derive(Debug)]
pub struct Waiter {
    set: Epoll,
    bell: Arc<Bell>,
    ready: Vec<Ready>,
}

impl Waiter {
    /// For sockets that live as long as the waiter is used. RTCP is watched for.
    ///
    /// # Errors
    /// The process has no descriptors left.
    pub fn new(socket: &ShardSocket, tcp: Option<&IceTcp>) -> io::Result<Self> {
        let set = Epoll::new()?;
        set.add(socket.as_fd(), DATAGRAMS, Wanted::Reading)?;
        if let Some(socket) = socket.data_lane() {
            set.add(socket, DATA, Wanted::Reading)?;
        }
        for lane in RtcpLane::ALL {
            if let Some(socket) = socket.lane(lane) {
                set.add(socket, token(lane), Wanted::ReadingOnce)?;
            }
        }
        if let Some(tcp) = tcp {
            set.add(tcp.as_fd(), TCP, Wanted::Reading)?;
        }
        let bell = Bell(sys::event()?);
        set.add(bell.0.as_fd(), BELL, Wanted::Reading)?;
        Ok(Self { set, bell: Arc::new(bell), ready: Vec::with_capacity(6) })
    }

    /// Wakes the thread from anywhere, also when it is just about to sleep.
    pub fn waker(&self) -> Waker {
        Waker::from(Arc::clone(&self.bell))
    }

    /// Sleeps until something of [`Arrivals`] is there, but not longer than `most`.
    ///
    /// # Errors
    /// The kernel cannot wait: the process is out of memory.
    pub fn wait(&mut self, most: Duration) -> io::Result<Arrivals> {
        self.set.wait(&mut self.ready, most)?;
        let mut arrivals = Arrivals::default();
        for ready in &self.ready {
            match ready.token {
                DATAGRAMS => arrivals.datagrams = true,
                DATA => arrivals.data = true,
                TCP => arrivals.tcp = true,
                BELL => {
                    arrivals.rung = true;
                    sys::clear_event(&self.bell.0)?;
                }
                lane => arrivals.rtcp[(lane - RTCP) as usize] = true,
            }
        }
        Ok(arrivals)
    }

    /// Has the next [`Waiter::wait`] that finds RTCP of `lane` at `socket`, the one that the waiter was made for, say so.
    ///
    /// # Errors
    /// What `epoll_ctl` says.
    pub fn watch_rtcp(&self, socket: &ShardSocket, lane: RtcpLane) -> io::Result<()> {
        let Some(socket) = socket.lane(lane) else { return Ok(()) };
        self.set.change(socket, token(lane), Wanted::ReadingOnce)
    }
}

fn token(lane: RtcpLane) -> u64 {
    RTCP + lane as u64
}

/// A counter in the kernel that is readable while it is not 0.
#[derive(Debug)]
struct Bell(File);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // It refuses only where it is full, and then it rings already.
        let _ = (&self.0).write(&1_u64.to_ne_bytes());
    }
}
