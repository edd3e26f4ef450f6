//! Packets that no datagram brought as such, and that go before one that came: the parameter sets of a keyframe that comes
//! without them, and sound that was lost and is repeated in RED.
//!
//! Both have an index of their own in the track, so that joiners, repairs and other shards need to know nothing of them,
//! and no number is ever used for two packets: a room in front of a keyframe is made by the timeline, and lost sound takes
//! the number that was left for it.

use std::sync::Arc;
use std::time::Instant;

use crate::media::{ClearPacket, MediaKind, Packet, PayloadFacts, Position, RedPayload, facts};

use super::ingest::Arrival;
use super::source::Source;
use super::table::Track;

/// Lost packets that one RED packet makes good, at most: browsers repeat one or two.
const MAX_RECOVERED: usize = 4;

/// Packets to insert before an arrival, in their order.
pub(super) type LeadIn = [Option<Arc<Packet>>; MAX_RECOVERED];

impl Source {
    /// What goes before `arrival`, whose `position` it may move on.
    pub(super) fn lead_in(
        &mut self,
        now: Instant,
        track: &Track,
        arrival: &Arrival<'_>,
        facts: &PayloadFacts,
        position: &mut Position,
    ) -> LeadIn {
        match arrival.track.kind() {
            MediaKind::Audio if arrival.red => self.recover(now, track, *position, arrival.payload).unwrap_or_default(),
            MediaKind::Audio => LeadIn::default(),
            MediaKind::Video => {
                self.parameter_sets.observe(arrival.payload);
                let mut lead_in = LeadIn::default();
                lead_in[0] = self.complete_keyframe(now, track, facts, position);
                lead_in
            }
        }
    }

    /// The parameter sets for a keyframe that comes without them, so that a joiner can begin there. Those who have them
    /// already see them once more, which every decoder takes.
    fn complete_keyframe(
        &mut self,
        now: Instant,
        track: &Track,
        facts: &PayloadFacts,
        position: &mut Position,
    ) -> Option<Arc<Packet>> {
        let begins_bare = facts.keyframe && facts.starts_frame && !facts.parameter_sets;
        if !begins_bare
            || track.ring.get(position.index).is_some()
            || track.ring.has_parameter_sets_before(position.index, position.timestamp)
        {
            return None;
        }
        let payload = self.parameter_sets.payload()?;
        let clear = ClearPacket {
            position: self.timeline.insert_before(position)?,
            marker: false,
            facts: self::facts(track.codec, payload),
            arrival: now,
            capture: None,
            dependency_descriptor: &[],
            payload,
        };
        self.pool.store(&clear).ok()
    }

    /// The packets just before `position` that are missing, if a RED payload repeats all of them.
    ///
    /// RFC 2198 blocks name times, not numbers. Every sender repeats the packets just before, newest last, which is
    /// checked as far as can be: the hole has as many packets or fewer, and the times lie in it in their order.
    fn recover(&mut self, now: Instant, track: &Track, position: Position, payload: &[u8]) -> Option<LeadIn> {
        let missing = (1..=MAX_RECOVERED as u64).take_while(|n| track.ring.get(position.index - n).is_none()).count();
        let before = track.ring.get(position.index - 1 - missing as u64).filter(|p| p.epoch == position.epoch)?;
        if missing == 0 {
            return None;
        }
        let red = RedPayload::parse(payload)?;
        let mut lead_in = LeadIn::default();
        let mut next = position.timestamp;
        let mut blocks = red.redundant().filter(|block| block.payload_type == red.primary.payload_type);
        for n in 1..=missing {
            let block = blocks.next()?;
            let timestamp = position.timestamp.wrapping_sub(u32::from(block.timestamp_offset));
            if block.payload.is_empty() || !is_newer(timestamp, before.timestamp) || !is_newer(next, timestamp) {
                return None;
            }
            next = timestamp;
            let clear = ClearPacket {
                position: Position { index: position.index - n as u64, timestamp, ..position },
                marker: false,
                facts: facts(track.codec, block.payload),
                arrival: now,
                capture: None,
                dependency_descriptor: &[],
                payload: block.payload,
            };
            lead_in[missing - n] = Some(self.pool.store(&clear).ok()?);
        }
        Some(lead_in)
    }
}

/// Whether timestamp `a` is after `b`, modulo 2³².
fn is_newer(a: u32, b: u32) -> bool {
    (a.wrapping_sub(b) as i32) > 0
}
