//! One connection: packets in, packets out, and what could not be written yet.

use std::collections::VecDeque;
use std::io::{self, IoSlice, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Instant;

use super::frame::{self, Deframer, PREFIX, TooLong};
use crate::fanout::MAX_SEGMENTS;

/// What may wait for room in the kernel, in octets: with what the kernel keeps itself, about a second of a table of
/// 2.5 Mbit/s and its largest keyframe. What comes beyond it is late anyway: it is dropped, whole packets at a time, and
/// the player asks again for what still matters.
const MAX_QUEUE: usize = 256 * 1024;

/// A connection that a peer opened.
#[derive(Debug)]
pub(super) struct Connection {
    stream: TcpStream,
    pub peer: SocketAddr,
    deframer: Deframer,
    queue: VecDeque<u8>,
    /// Tells the tenants of a place apart.
    pub serial: u64,
    /// Until when the first packet must have come; `None` once one was vouched for.
    pub prove_by: Option<Instant>,
}

/// What a read brought.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Incoming {
    /// Everything that was there, or as much as one read takes.
    Taken,
    /// The peer has closed, or the connection is broken.
    Gone,
    /// The receiver of its packets does not want it.
    Unwanted,
    /// It claimed a packet that is too long.
    TooLong,
}

impl Connection {
    pub fn new(stream: TcpStream, peer: SocketAddr, serial: u64, prove_by: Instant) -> Self {
        let (deframer, queue) = (Deframer::default(), VecDeque::new());
        Self { stream, peer, deframer, queue, serial, prove_by: Some(prove_by) }
    }

    pub fn socket(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }

    /// Something waits for room.
    pub fn is_queueing(&self) -> bool {
        !self.queue.is_empty()
    }

    /// Reads once, and gives each whole packet to `take`, until that says `false`: the peer is unknown to it.
    pub fn receive(&mut self, buffer: &mut [u8], mut take: impl FnMut(SocketAddr, &mut [u8]) -> bool) -> Incoming {
        let start = self.deframer.resume(buffer);
        let end = match retry(|| (&self.stream).read(&mut buffer[start..])) {
            Ok(0) => return Incoming::Gone,
            Ok(len) => start + len,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => start,
            Err(_) => return Incoming::Gone,
        };
        let (peer, mut known) = (self.peer, true);
        let split = self.deframer.split(&mut buffer[..end], |packet| {
            known = take(peer, packet);
            if known {
                self.prove_by = None;
            }
            known
        });
        match split {
            Err(TooLong) => Incoming::TooLong,
            Ok(()) if known => Incoming::Taken,
            Ok(()) => Incoming::Unwanted,
        }
    }

    /// Sends a run of packets of `segment_size` octets each, the last one perhaps shorter, and says how many of them were
    /// taken: the others found the queue full.
    ///
    /// # Errors
    /// The connection is broken.
    pub fn send(&mut self, run: &[u8], segment_size: usize) -> io::Result<u64> {
        let mut written = if self.queue.is_empty() { self.write(run, segment_size)? } else { 0 };
        let mut taken = 0;
        for packet in run.chunks(segment_size) {
            let len = PREFIX + packet.len();
            let begun = written.min(len);
            written -= begun;
            // What has begun must be ended, or nothing behind it could be read.
            let has_room = begun > 0 || self.queue.len() + len <= MAX_QUEUE;
            if begun < len && has_room {
                let prefix = frame::prefix(packet);
                self.queue.extend(&prefix[begun.min(PREFIX)..]);
                self.queue.extend(&packet[begun.saturating_sub(PREFIX)..]);
            }
            taken += u64::from(has_room);
        }
        Ok(taken)
    }

    /// Writes as much of the run as there is room for, and says how many octets, lengths included.
    fn write(&self, run: &[u8], segment_size: usize) -> io::Result<usize> {
        let mut prefixes = [[0; PREFIX]; MAX_SEGMENTS];
        for (prefix, packet) in prefixes.iter_mut().zip(run.chunks(segment_size)) {
            *prefix = frame::prefix(packet);
        }
        let mut slices = [IoSlice::new(&[]); 2 * MAX_SEGMENTS];
        let mut used = 0;
        for (prefix, packet) in prefixes.iter().zip(run.chunks(segment_size)) {
            slices[used] = IoSlice::new(prefix);
            slices[used + 1] = IoSlice::new(packet);
            used += 2;
        }
        written(retry(|| (&self.stream).write_vectored(&slices[..used])))
    }

    /// Writes what has been waiting, as far as there is room.
    ///
    /// # Errors
    /// The connection is broken.
    pub fn flush(&mut self) -> io::Result<()> {
        while !self.queue.is_empty() {
            let (front, back) = self.queue.as_slices();
            let len = written(retry(|| (&self.stream).write_vectored(&[IoSlice::new(front), IoSlice::new(back)])))?;
            if len == 0 {
                break;
            }
            self.queue.drain(..len);
        }
        Ok(())
    }
}

/// No room is nothing written.
fn written(result: io::Result<usize>) -> io::Result<usize> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
        result => result,
    }
}

fn retry<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}
