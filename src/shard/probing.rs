//! What players say of their paths, and the padding that finds out whether a path carries more.
//!
//! Padding is what was sent already, on RTX: a receiver takes a packet that it has for a repetition, and one that it lacks for
//! a repair. Chromium probes in the same way.

use std::time::{Duration, Instant};

use crate::fanout::{MAX_DATAGRAM, SendBatch};
use crate::rtc::rtcp::TwccFeedback;

use super::adaptation::Adaptation;
use super::core::Shard;
use super::session::Part;

/// How often a probe sends: often enough that no burst is longer than some packets.
const TICK: Duration = Duration::from_millis(5);

/// The most players that are probed at once: at 3 Mbit/s each, a hundredth of what a shard sends. The others wait for their turn.
const MOST_AT_ONCE: usize = 32;

/// The most packets of padding at a time: after a stall the rest of the probe is not made up for in one burst.
const BURST: usize = 12;

/// The packets that are looked at for padding at a time: of four frames at least, of which a thinned player has one.
const LOOKED_AT: usize = 128;

impl Shard {
    /// A player says what arrived. Players of a table with several layers get another if their path asks for it.
    pub(super) fn handle_transport_feedback(&mut self, now: Instant, slot: u32, feedback: &TwccFeedback<'_>) {
        let Some(adaptation) = self.adaptation(now, slot) else { return };
        adaptation.handle_feedback(now, feedback);
        self.hear_of_repairs(slot, feedback);
        self.adapt(now, slot);
    }

    /// A player says what it believes that its path carries.
    pub(super) fn handle_remb(&mut self, now: Instant, slot: u32, bits_per_second: u64) {
        let Some(adaptation) = self.adaptation(now, slot) else { return };
        adaptation.handle_remb(now, bits_per_second);
        self.adapt(now, slot);
    }

    /// The adaptation of a player that has something to choose from, from its first feedback on.
    fn adaptation(&mut self, now: Instant, slot: u32) -> Option<&mut Adaptation> {
        let session = self.sessions[slot as usize].session.as_deref_mut()?;
        let table = self.tables.get(&session.table)?;
        let bound = session.bound;
        let player = session.player_mut()?;
        let class = player.video.as_ref()?.class;
        let has_choice = table.bounds.has_several(bound) || table.points_for(class, bound).len() > 1;
        if player.adaptation.is_none() && !has_choice {
            return None;
        }
        Some(player.adaptation.get_or_insert_with(|| Box::new(Adaptation::new(now))))
    }

    /// Sees to it that a player that has said something gets the layer for it, and padding if that is wanted.
    fn adapt(&mut self, now: Instant, slot: u32) {
        self.choose_layer(now, slot);
        let is_probing = self.adaptation(now, slot).is_some_and(|adaptation| adaptation.is_probing(now));
        if is_probing && !self.probing.contains(&slot) {
            self.probing.push(slot);
            self.probe_due.get_or_insert(now);
        }
    }

    /// Whether there is room for another probe.
    pub(super) fn may_probe(&self) -> bool {
        self.probing.len() < MOST_AT_ONCE
    }

    /// Now and then: a player whose feedback has stopped to come is on a path that carries less.
    pub(super) fn watch_feedback(&mut self, now: Instant, slot: u32) {
        let session = self.sessions[slot as usize].session.as_deref_mut();
        let adaptation = session.and_then(|session| session.player_mut()?.adaptation.as_mut());
        if adaptation.is_some_and(|adaptation| adaptation.handle_timeout(now)) {
            self.choose_layer(now, slot);
        }
    }

    /// Sends what the running probes ask for now.
    pub(super) fn send_padding(&mut self, now: Instant, batch: &mut SendBatch) {
        let mut probing = std::mem::take(&mut self.probing);
        probing.retain(|slot| self.pad_player(now, *slot, batch));
        self.probing = probing;
        self.probe_due = (!self.probing.is_empty()).then_some(now + TICK);
    }

    /// `false` once the player is not probed any more.
    fn pad_player(&mut self, now: Instant, slot: u32, batch: &mut SendBatch) -> bool {
        let send_time = self.send_time(now);
        let Some(session) = self.sessions[slot as usize].session.as_deref_mut() else { return false };
        let Some(table) = self.tables.get_mut(&session.table) else { return false };
        let allowance = session.endpoint.allowance(now).min(BURST);
        let Part::Player(player) = &mut session.part else { return false };
        let Some(adaptation) = player.adaptation.as_deref_mut().filter(|adaptation| adaptation.is_probing(now)) else {
            return false;
        };
        let mut due = adaptation.bandwidth.padding_due(now) as usize;
        let (Some(track), Some(down)) = (table.video.get(player.layer.0), player.video.as_mut()) else { return false };
        let (Some(egress), Some(cursor)) = (session.endpoint.egress(), down.cursor()) else { return true };
        let stamps = track.stamps(&table.spec, send_time);
        let before = (player.transport_number, batch.bytes().len());
        let mut sent = 0;
        let newest_first = (track.ring.oldest()..cursor).rev().filter_map(|index| track.ring.get(index));
        for packet in newest_first.filter(|packet| !packet.payload().is_empty()).take(LOOKED_AT) {
            if due == 0 || sent == allowance || !batch.has_room(MAX_DATAGRAM + 2) {
                break;
            }
            // A thinned player has not been given most of them.
            if !down.has_given(packet) {
                continue;
            }
            let class = &table.video_classes.classes[down.class];
            self.catch_up_layout.rebuild(class, &stamps, std::iter::once(&**packet));
            if down.retransmit(packet, self.catch_up_layout.get(0), &mut player.transport_number, egress, batch) {
                due = due.saturating_sub(packet.payload().len());
                sent += 1;
            }
        }
        table.report.probe_packets += sent as u64;
        let bytes = batch.bytes().len() - before.1;
        player.note_sent(now, before.0, bytes);
        session.endpoint.spend(now, sent);
        true
    }
}
