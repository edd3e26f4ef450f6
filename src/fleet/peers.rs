//! A shard's way to the others.

use std::collections::VecDeque;

use tokio::sync::mpsc;

use crate::shard::{PeerMessage, ShardId};

use super::shard_thread::Command;

/// The queues of the other shards, and what they had no room for.
///
/// Media that finds a queue full is dropped: late, it is worth nothing. Everything else is few and must arrive *in order*
/// (a track's end behind its beginning would leave a shard with the wrong one), so it waits, and what follows it to the
/// same shard waits behind it.
pub(super) struct Peers {
    queues: Vec<mpsc::Sender<Command>>,
    waiting: VecDeque<(ShardId, PeerMessage)>,
}

impl Peers {
    pub(super) fn new(queues: Vec<mpsc::Sender<Command>>) -> Self {
        Self { queues, waiting: VecDeque::new() }
    }

    /// Sends `message`, now or later; `false` if it was dropped.
    pub(super) fn tell(&mut self, to: ShardId, message: PeerMessage) -> bool {
        let is_media = matches!(message, PeerMessage::Media { .. });
        let unsent =
            if self.waiting.iter().any(|(waits, _)| *waits == to) { Some(message) } else { self.offer(to, message) };
        match unsent {
            Some(_) if is_media => false,
            Some(message) => {
                self.waiting.push_back((to, message));
                true
            }
            None => true,
        }
    }

    /// Offers again what waits.
    pub(super) fn retry(&mut self) {
        for (to, message) in std::mem::take(&mut self.waiting) {
            self.tell(to, message);
        }
    }

    /// Gives the message back if the queue is full. A shard that has ended hears nothing.
    fn offer(&self, to: ShardId, message: PeerMessage) -> Option<PeerMessage> {
        match self.queues.get(usize::from(to.0))?.try_send(Command::Peer(message)) {
            Err(mpsc::error::TrySendError::Full(Command::Peer(message))) => Some(message),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Instant;

    use super::*;
    use crate::media::{ClearPacket, Packet, PayloadFacts, Position};
    use crate::shard::{LayerIndex, TableId, TableState, TrackId};

    const TABLE: TableId = TableId(7);

    fn state(state: TableState) -> PeerMessage {
        PeerMessage::State { table: TABLE, state }
    }

    fn media() -> PeerMessage {
        let clear = ClearPacket {
            position: Position { epoch: 0, index: 0, timestamp: 0 },
            marker: false,
            facts: PayloadFacts::default(),
            arrival: Instant::now(),
            capture: None,
            dependency_descriptor: &[],
            payload: &[],
        };
        PeerMessage::Media {
            table: TABLE,
            track: TrackId::Video(LayerIndex(0)),
            packet: Arc::new(Packet::new(&clear).unwrap()),
        }
    }

    /// What a shard finds in its queue, by name.
    fn heard(queue: &mut mpsc::Receiver<Command>) -> Vec<&'static str> {
        let mut all = Vec::new();
        while let Ok(Command::Peer(message)) = queue.try_recv() {
            all.push(match message {
                PeerMessage::Media { .. } => "media",
                PeerMessage::State { state: TableState::Live, .. } => "live",
                PeerMessage::State { state: TableState::Absent, .. } => "absent",
                _ => "other",
            });
        }
        all
    }

    #[test]
    fn what_must_arrive_waits_in_order_and_media_does_not() {
        let (sender, mut queue) = mpsc::channel(2);
        let (other, mut other_queue) = mpsc::channel(2);
        let mut peers = Peers::new(vec![sender, other]);
        assert!(peers.tell(ShardId(0), media()) && peers.tell(ShardId(0), media()));
        assert!(!peers.tell(ShardId(0), media()), "full");
        assert!(peers.tell(ShardId(0), state(TableState::Absent)));
        assert!(peers.tell(ShardId(1), state(TableState::Live)), "another shard does not wait");
        assert_eq!(heard(&mut queue), ["media", "media"]);
        // There is room again, but what waits goes first.
        assert!(peers.tell(ShardId(0), state(TableState::Live)));
        assert!(!peers.tell(ShardId(0), media()), "media of a track that is not announced yet");
        assert_eq!(heard(&mut queue), [""; 0]);
        peers.retry();
        assert!(!peers.tell(ShardId(0), media()), "full");
        assert_eq!(heard(&mut queue), ["absent", "live"]);
        assert_eq!(heard(&mut other_queue), ["live"]);
    }

    #[test]
    fn a_shard_that_has_ended_holds_nothing_up() {
        let (sender, queue) = mpsc::channel(1);
        drop(queue);
        let mut peers = Peers::new(vec![sender]);
        peers.tell(ShardId(0), state(TableState::Live));
        peers.tell(ShardId(9), state(TableState::Live));
        assert!(peers.waiting.is_empty());
    }
}
