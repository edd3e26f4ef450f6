//! Handshakes that wait for their turn.
//!
//! A step of a DTLS handshake costs a signature or a check of one. When a crowd joins, its steps would come before the next
//! frame of those who watch, and a shard that is busy would fall so far behind that the kernel drops what publishers send. So whoever drives the shard takes steps when there is time
//! ([`Shard::advance_handshake`](super::Shard::advance_handshake)), and a crowd waits for itself only.
//!
//! What waits is bounded, for each session and for all, and what is too much is dropped: DTLS sends it again (RFC 9147
//! §5.8.1).

use std::collections::VecDeque;

use crate::rtc::TransportAddress;

use super::message::SlotKey;
use super::report::{DropReason, Role};
use super::session::Session;

/// Datagrams of one session: a client's flight with a certificate chain of RSA, sent twice.
const MOST_OF_SESSION: u8 = 16;

/// Datagrams of all: two from each of 2000 joiners, 6 MB if each is as long as can be.
const MOST: usize = 4096;

/// A datagram of DTLS from a validated address of a session that has no keys yet.
pub(super) struct Step {
    pub(super) key: SlotKey,
    pub(super) source: TransportAddress,
    pub(super) datagram: Box<[u8]>,
}

/// What waits, in the order in which it came.
#[derive(Default)]
pub(super) struct Handshakes {
    /// By role: a table that waits for its publisher goes before a player.
    waiting: [VecDeque<Step>; 2],
}

impl Handshakes {
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.iter().all(VecDeque::is_empty)
    }

    /// # Errors
    /// The session or all together have as much waiting as they may.
    pub(super) fn defer(
        &mut self,
        session: &mut Session,
        source: TransportAddress,
        datagram: &[u8],
    ) -> Result<(), DropReason> {
        let queue = &mut self.waiting[session.role() as usize];
        if session.steps_waiting == MOST_OF_SESSION || queue.len() == MOST {
            return Err(DropReason::HandshakeQueueFull);
        }
        session.steps_waiting += 1;
        queue.push_back(Step { key: session.key, source, datagram: datagram.into() });
        Ok(())
    }

    pub(super) fn next(&mut self) -> Option<Step> {
        [Role::Publisher, Role::Player].into_iter().find_map(|role| self.waiting[role as usize].pop_front())
    }
}
