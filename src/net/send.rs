//! How a [`SendBatch`] reaches the kernel, and what becomes of the messages that the kernel does not take.
//!
//! `sendmmsg` stops at the first message it cannot send, says how many went before, and keeps the error for the next
//! call. So there is one loop: send from a cursor, move the cursor behind what went, and let the head of the queue be
//! the only message that an error can belong to.

use std::io;
use std::net::SocketAddr;
use std::ops::AddAssign;

use crate::fanout::{Message, SendBatch};

/// How many messages one `sendmmsg` takes. More no longer saves anything: the call itself is 1 % of their cost.
pub(super) const MESSAGES: usize = 32;

/// After so many refusals for want of buffer with nothing sent in between, the rest of the batch is dropped.
const FULL_BUFFER_REFUSALS: u32 = 4;

/// What became of a batch. Every datagram of it is in exactly one of `datagrams` and the two `dropped_*`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SendOutcome {
    /// Datagrams that the kernel took.
    pub datagrams: u64,
    /// Their UDP payload bytes.
    pub bytes: u64,
    /// Messages (runs of datagrams) that they were handed over in.
    pub runs: u64,
    /// Datagrams dropped because the socket's send buffer was full.
    pub dropped_buffer_full: u64,
    /// Datagrams dropped because the kernel refused their destination or size.
    pub dropped_error: u64,
}

impl AddAssign for SendOutcome {
    fn add_assign(&mut self, other: Self) {
        self.datagrams += other.datagrams;
        self.bytes += other.bytes;
        self.runs += other.runs;
        self.dropped_buffer_full += other.dropped_buffer_full;
        self.dropped_error += other.dropped_error;
    }
}

/// What is handed to the kernel as one message: a run, or one datagram of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    /// The whole message or a datagram of it; its bytes lie in the batch.
    pub message: Message,
    /// Where the piece begins, to return to.
    at: Cursor,
}

/// A place in a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Cursor {
    /// Index of the message.
    message: usize,
    /// Bytes of the message that are done with.
    done: usize,
    /// The message is sent datagram by datagram.
    split: bool,
}

/// Sends `batch` through `kernel`, which behaves like `sendmmsg`: takes pieces from the front and says how many, or
/// says why it did not take the first. `gso` is whether it may be given runs, and is cleared when it turns out that
/// it may not. `pieces` is memory to work in. To `unsent` goes the destination of each message for which there was no room.
pub(super) fn transmit(
    batch: &SendBatch,
    gso: &mut bool,
    pieces: &mut Vec<Piece>,
    unsent: &mut Vec<SocketAddr>,
    mut kernel: impl FnMut(&[Piece]) -> io::Result<usize>,
) -> SendOutcome {
    let messages = batch.messages();
    let mut outcome = SendOutcome::default();
    let mut cursor = Cursor::default();
    let mut refusals = 0;
    loop {
        pieces.clear();
        while pieces.len() < MESSAGES
            && let Some(piece) = cursor.next(messages, *gso)
        {
            pieces.push(piece);
        }
        let Some(head) = pieces.first().copied() else {
            return outcome;
        };
        match kernel(pieces) {
            Ok(sent) => {
                pieces[..sent].iter().for_each(|piece| outcome.count_sent(&piece.message));
                refusals = 0;
                if let Some(unsent) = pieces.get(sent) {
                    cursor = unsent.at;
                }
            }
            Err(error) => {
                cursor = head.at;
                match Verdict::of(&error, &head.message) {
                    Verdict::Again => continue,
                    Verdict::Split => cursor.split = true,
                    Verdict::NoOffload => *gso = false,
                    Verdict::BufferFull => {
                        refusals += 1;
                        unsent.push(head.message.destination);
                        outcome.dropped_buffer_full += cursor.skip(messages, *gso);
                        if refusals == FULL_BUFFER_REFUSALS {
                            unsent.extend(messages[cursor.message..].iter().map(|message| message.destination));
                            outcome.dropped_buffer_full += cursor.skip_all(messages, *gso);
                        }
                    }
                    Verdict::Undeliverable => outcome.dropped_error += cursor.skip(messages, *gso),
                }
            }
        }
    }
}

impl SendOutcome {
    fn count_sent(&mut self, message: &Message) {
        self.datagrams += message.segments() as u64;
        self.bytes += message.len as u64;
        self.runs += 1;
    }
}

impl Cursor {
    fn next(&mut self, messages: &[Message], gso: bool) -> Option<Piece> {
        let mut message = *messages.get(self.message)?;
        let at = *self;
        message.start += self.done;
        message.len -= self.done;
        if self.split || !gso {
            message.len = message.len.min(message.segment_size);
            message.segment_size = message.len;
        }
        self.done += message.len;
        if self.done == messages[self.message].len {
            *self = Self { message: self.message + 1, done: 0, split: false };
        }
        Some(Piece { message, at })
    }

    /// Passes over the next piece and says how many datagrams that was.
    fn skip(&mut self, messages: &[Message], gso: bool) -> u64 {
        self.next(messages, gso).map_or(0, |piece| piece.message.segments() as u64)
    }

    fn skip_all(&mut self, messages: &[Message], gso: bool) -> u64 {
        let mut skipped = 0;
        while self.message < messages.len() {
            skipped += self.skip(messages, gso);
        }
        skipped
    }
}

/// What an error means for the message at the head of the queue.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// Nothing: the call was interrupted.
    Again,
    /// This run cannot go out as a run: its datagrams are longer than what the path to this one destination takes
    /// (EINVAL, since Linux 6.14 EMSGSIZE). They may go out one by one, in fragments. The others keep their runs:
    /// a player with a narrow path must not cost all the others theirs.
    Split,
    /// The device cannot segment at all (EIO): no run will ever go out.
    NoOffload,
    /// No room. The message is dropped, not kept: a frame that waits delays the frames behind it, and the player's
    /// NACK asks for what still matters. There is no `poll` for room either: it says no until half of the buffer is
    /// free, where the attempt at the next message needs only as much as that message.
    BufferFull,
    /// Unreachable, forbidden by a firewall, too long, no such address: this message alone.
    Undeliverable,
}

impl Verdict {
    fn of(error: &io::Error, message: &Message) -> Self {
        let is_run = message.segments() > 1;
        match error.raw_os_error() {
            Some(libc::EINTR) => Self::Again,
            Some(libc::EAGAIN | libc::ENOBUFS | libc::ENOMEM) => Self::BufferFull,
            Some(libc::EIO) if is_run => Self::NoOffload,
            Some(libc::EINVAL | libc::EMSGSIZE) if is_run => Self::Split,
            _ => Self::Undeliverable,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use proptest::prelude::*;

    use super::*;
    use crate::fanout::TrafficClass;
    use crate::rtc::TransportAddress;

    fn player(n: u8) -> SocketAddr {
        ([192, 0, 2, n], 4000).into()
    }

    /// One run for each player, of datagrams of 100 bytes but the last of 40.
    fn batch(datagrams: &[usize]) -> SendBatch {
        let mut batch = SendBatch::with_capacity(1 << 20, 256);
        for (n, &count) in datagrams.iter().enumerate() {
            for i in 0..count {
                let len = if i > 0 && i + 1 == count { 40 } else { 100 };
                batch.push(TransportAddress::udp(player(n as u8)), TrafficClass::Video, len, |out| {
                    out.fill(i as u8);
                    len
                });
            }
        }
        assert_eq!(batch.messages().len(), datagrams.len());
        batch
    }

    fn errno(code: i32) -> io::Result<usize> {
        Err(io::Error::from_raw_os_error(code))
    }

    /// Runs `transmit` and returns the outcome, whether runs are still allowed, and each call's pieces.
    fn run(
        batch: &SendBatch,
        gso: bool,
        mut kernel: impl FnMut(usize, &[Message]) -> io::Result<usize>,
    ) -> (SendOutcome, bool, Vec<Message>) {
        let (mut gso, mut pieces, mut calls, mut taken) = (gso, Vec::new(), 0, Vec::new());
        let mut unsent = Vec::new();
        let outcome = transmit(batch, &mut gso, &mut pieces, &mut unsent, |pieces| {
            let messages: Vec<_> = pieces.iter().map(|p| p.message).collect();
            let result = kernel(calls, &messages);
            calls += 1;
            taken.extend_from_slice(&messages[..*result.as_ref().unwrap_or(&0)]);
            result
        });
        assert_eq!(unsent.is_empty(), outcome.dropped_buffer_full == 0, "who got nothing is named");
        (outcome, gso, taken)
    }

    #[test]
    fn whom_a_full_buffer_costs_something_is_named() {
        let batch = batch(&[2; 10]);
        let unsent = |full: fn(usize) -> bool| {
            let (mut calls, mut unsent) = (0, Vec::new());
            transmit(&batch, &mut true, &mut Vec::new(), &mut unsent, |pieces| {
                calls += 1;
                if full(calls) { errno(libc::ENOBUFS) } else { Ok(pieces.len().min(3)) }
            });
            unsent
        };
        assert_eq!(unsent(|call| call == 2), [player(3)]);
        assert_eq!(unsent(|call| call > 1), (3..10).map(player).collect::<Vec<_>>(), "each once");
    }

    #[test]
    fn a_batch_longer_than_one_call_goes_in_several() {
        let batch = batch(&[3; 70]);
        let mut lens = Vec::new();
        let (outcome, _, taken) = run(&batch, true, |_, pieces| {
            lens.push(pieces.len());
            Ok(pieces.len())
        });
        assert_eq!(lens, [32, 32, 6]);
        assert_eq!(taken, batch.messages());
        assert_eq!(outcome, SendOutcome { datagrams: 210, bytes: 70 * 240, runs: 70, ..Default::default() });
    }

    #[test]
    fn what_a_partial_send_left_is_sent_next() {
        let batch = batch(&[2; 5]);
        let (outcome, _, taken) = run(&batch, true, |call, pieces| Ok(if call == 0 { 2 } else { pieces.len() }));
        assert_eq!(taken, batch.messages());
        assert_eq!(outcome.datagrams, 10);
    }

    #[test]
    fn an_unreachable_destination_costs_its_own_run_alone() {
        let batch = batch(&[2; 5]);
        let (outcome, gso, taken) =
            run(&batch, true, |_, pieces| match pieces.iter().position(|p| p.destination == player(2)) {
                Some(0) => errno(libc::EHOSTUNREACH),
                Some(n) => Ok(n),
                None => Ok(pieces.len()),
            });
        assert!(gso);
        let destinations: Vec<_> = taken.iter().map(|m| m.destination).collect();
        assert_eq!(destinations, [0, 1, 3, 4].map(player));
        assert_eq!((outcome.datagrams, outcome.dropped_error), (8, 2));
    }

    #[test]
    fn a_run_too_wide_for_its_path_is_split_and_the_others_are_not() {
        for code in [libc::EINVAL, libc::EMSGSIZE] {
            let batch = batch(&[3; 3]);
            let (outcome, gso, taken) = run(&batch, true, |_, pieces| {
                match pieces.iter().position(|p| p.destination == player(1) && p.segments() > 1) {
                    Some(0) => errno(code),
                    Some(n) => Ok(n),
                    None => Ok(pieces.len()),
                }
            });
            assert!(gso);
            assert_eq!(taken.iter().map(|m| m.len).collect::<Vec<_>>(), [240, 100, 100, 40, 240]);
            assert_eq!((outcome.datagrams, outcome.runs, outcome.dropped_error), (9, 5, 0));
        }
    }

    #[test]
    fn a_device_without_segmentation_gets_single_datagrams_from_then_on() {
        let batch = batch(&[2; 3]);
        let (outcome, gso, taken) =
            run(&batch, true, |_, pieces| if pieces[0].segments() > 1 { errno(libc::EIO) } else { Ok(pieces.len()) });
        assert!(!gso);
        assert_eq!(taken.iter().map(|m| m.len).collect::<Vec<_>>(), [100, 40, 100, 40, 100, 40]);
        assert_eq!((outcome.datagrams, outcome.runs), (6, 6));
    }

    #[test]
    fn a_full_buffer_drops_one_message_and_a_buffer_that_stays_full_the_rest() {
        let batch = batch(&[2; 10]);
        let (outcome, _, taken) =
            run(&batch, true, |call, pieces| if call == 1 { errno(libc::EAGAIN) } else { Ok(pieces.len().min(3)) });
        assert_eq!((outcome.datagrams, outcome.dropped_buffer_full), (18, 2));
        assert!(!taken.iter().any(|m| m.destination == player(3)));

        let mut calls = 0;
        let (outcome, _, _) = run(&batch, true, |call, _| {
            calls += 1;
            if call == 0 { Ok(1) } else { errno(libc::EAGAIN) }
        });
        assert_eq!(calls, 1 + FULL_BUFFER_REFUSALS);
        assert_eq!((outcome.datagrams, outcome.dropped_buffer_full), (2, 18));
    }

    #[test]
    fn an_interrupted_call_is_made_again() {
        let batch = batch(&[2; 2]);
        let (outcome, _, _) =
            run(&batch, true, |call, pieces| if call == 0 { errno(libc::EINTR) } else { Ok(pieces.len()) });
        assert_eq!(outcome.datagrams, 4);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        /// Whatever the kernel does, every datagram is sent or counted as dropped, and none is sent twice or early.
        #[test]
        fn every_datagram_is_accounted_for(
            runs in prop::collection::vec(1_usize..20, 0..80),
            gso: bool,
            replies in prop::collection::vec(
                prop_oneof![
                    3 => (1_usize..40).prop_map(Ok),
                    1 => prop::sample::select(vec![
                        libc::EAGAIN, libc::EINTR, libc::EINVAL, libc::EIO, libc::EPERM, libc::EMSGSIZE, libc::ENETUNREACH,
                    ]).prop_map(Err),
                ],
                0..60,
            ),
        ) {
            let batch = batch(&runs);
            let (outcome, _, taken) = run(&batch, gso, |call, pieces| match replies.get(call) {
                Some(Ok(n)) => Ok(pieces.len().min(*n)),
                Some(Err(code)) => errno(*code),
                None => Ok(pieces.len()),
            });
            let total: usize = runs.iter().sum();
            let accounted = outcome.datagrams + outcome.dropped_error + outcome.dropped_buffer_full;
            prop_assert_eq!(accounted, total as u64);
            prop_assert_eq!(outcome.bytes, taken.iter().map(|m| m.len as u64).sum::<u64>());
            prop_assert_eq!(outcome.runs, taken.len() as u64);
            prop_assert_eq!(outcome.datagrams, taken.iter().map(|m| m.segments() as u64).sum::<u64>());
            prop_assert!(taken.windows(2).all(|w| w[0].start + w[0].len <= w[1].start));
        }
    }
}
