//! One session of a shard: a publisher or a player behind an endpoint.

use std::time::{Duration, Instant};

use crate::fanout::DownTrack;
use crate::media::{MediaKind, RtpHeader};
use crate::qos::{Playback, Withheld};
use crate::rtc::data_channel::ChannelId;
use crate::rtc::rtcp::TwccRecorder;
use crate::rtc::sdp::{Negotiated, StreamParameters, TableMedia};
use crate::rtc::{Endpoint, TransportAddress};

use super::adaptation::Adaptation;
use super::bets::BetLine;
use super::bounds::BoundId;
use super::channels::Told;
use super::inbound::Inbound;
use super::layers::Change;
use super::message::{LayerIndex, SlotKey, TableId, TrackId};
use super::owed::Owed;
use super::path::Path;
use super::repairs::Repairs;
use super::report::Role;

/// A tenant of a slot.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) key: SlotKey,
    pub(super) table: TableId,
    pub(super) endpoint: Endpoint,
    /// The addresses under which the shard finds this session.
    pub(super) addresses: Vec<TransportAddress>,
    /// The earliest wake-up in the timer queue.
    pub(super) scheduled: Option<Instant>,
    /// When the next RTCP report is due.
    pub(super) rtcp_due: Option<Instant>,
    /// Datagrams of its handshake that wait for their turn.
    pub(super) steps_waiting: u8,
    /// How high it may go, if it is a player's. Here it takes no room.
    pub(super) bound: BoundId,
    pub(super) part: Part,
}

/// What the session is at the table.
#[allow(
    clippy::large_enum_variant,
    reason = "nearly all are players, whose state each frame needs: no pointer between"
)]
#[derive(Debug)]
pub(super) enum Part {
    Publisher(Box<Publisher>),
    Player(Player),
}

impl Session {
    pub(super) fn role(&self) -> Role {
        match self.part {
            Part::Publisher(_) => Role::Publisher,
            Part::Player(_) => Role::Player,
        }
    }

    pub(super) fn player(&self) -> Option<&Player> {
        match &self.part {
            Part::Player(player) => Some(player),
            Part::Publisher(_) => None,
        }
    }

    pub(super) fn player_mut(&mut self) -> Option<&mut Player> {
        match &mut self.part {
            Part::Player(player) => Some(player),
            Part::Publisher(_) => None,
        }
    }

    pub(super) fn publisher_mut(&mut self) -> Option<&mut Publisher> {
        match &mut self.part {
            Part::Publisher(publisher) => Some(publisher),
            Part::Player(_) => None,
        }
    }
}

/// How often a publisher with transport-wide feedback gets it: its bandwidth estimate lives on it.
pub(super) const TRANSPORT_FEEDBACK: Duration = Duration::from_millis(50);

/// A WHIP session.
#[derive(Debug)]
pub(super) struct Publisher {
    pub(super) media: TableMedia,
    pub(super) inbound: Vec<Inbound>,
    /// Arrival times for transport-wide feedback, where negotiated.
    pub(super) twcc: Option<TwccRecorder>,
}

impl Publisher {
    pub(super) fn new(negotiated: &Negotiated) -> Self {
        let inbound: Vec<Inbound> = [MediaKind::Audio, MediaKind::Video]
            .into_iter()
            .filter_map(|kind| negotiated.stream(kind).map(|(mid, stream)| Inbound::new(kind, mid, stream)))
            .collect();
        let twcc = inbound.iter().any(|i| i.feedback.transport_cc && i.extensions.transport_cc.is_some());
        Self { media: TableMedia::from(negotiated), inbound, twcc: twcc.then(|| TwccRecorder::new(TRANSPORT_FEEDBACK)) }
    }

    /// The layers of the video of which packets were given up since the last call: the picture is broken until a keyframe.
    pub(super) fn take_broken_layers(&mut self) -> Vec<LayerIndex> {
        self.video_mut().map(Inbound::take_broken_layers).unwrap_or_default()
    }

    /// Notes a packet for transport-wide feedback, whatever stream it is of: for the sender's bandwidth estimate, what is
    /// not reported was lost.
    pub(super) fn note_transport_number(&mut self, now: Instant, header: &RtpHeader, packet: &[u8]) {
        let Some(twcc) = &mut self.twcc else { return };
        let number = self.inbound.iter().find_map(|i| header.extension(packet, i.extensions.transport_cc?));
        if let Some(&[high, low, ..]) = number {
            twcc.handle_packet(now, u16::from_be_bytes([high, low]));
        }
    }

    /// How many layers its video has.
    pub(super) fn layers(&self) -> usize {
        self.inbound.iter().find(|inbound| inbound.kind == MediaKind::Video).map_or(1, |video| video.layers.len())
    }

    pub(super) fn video_mut(&mut self) -> Option<&mut Inbound> {
        self.inbound.iter_mut().find(|inbound| inbound.kind == MediaKind::Video)
    }
}

/// The streams that a player negotiated, each with the seed of its sequence numbers.
pub(super) type Wanted = [(Option<StreamParameters>, u32); 2];

/// A WHEP session.
#[derive(Debug)]
pub(super) struct Player {
    /// Until it connects.
    pub(super) wanted: Option<Box<Wanted>>,
    pub(super) video: Option<DownTrack>,
    pub(super) audio: Option<DownTrack>,
    /// The layer of the video that it gets.
    pub(super) layer: LayerIndex,
    /// The layer that it is to get from that one's next keyframe on.
    pub(super) change: Option<Box<Change>>,
    /// Of a player of several layers that says what arrives.
    pub(super) adaptation: Option<Box<Adaptation>>,
    /// One transport-wide counter over all SSRCs.
    pub(super) transport_number: u16,
    /// In the shard's list of players that replay the cached GOP.
    pub(super) catching_up: bool,
    /// Its `events` channel has opened, and it was not told the current round yet.
    pub(super) untold: bool,
    pub(super) channels: Channels,
    /// How much it may say on its channels, once it has said anything.
    pub(super) allowance: Option<Box<Allowance>>,
    /// Who it is, and what it may say on `bets`.
    pub(super) bets: BetLine,
    pub(super) path: Path,
    pub(super) repairs: Repairs,
    pub(super) owed: Owed,
    pub(super) keyframes: Budget,
    /// What the node knows that it did not get.
    pub(super) withheld: Withheld,
    /// Up to this index of its track, what was held up by late repairs is counted.
    pub(super) held_up_to: u64,
    /// Of a player that reports how it plays.
    pub(super) playback: Option<Box<Playback>>,
}

impl Player {
    /// How long a packet takes to come and, if it does not, to be missed: by the last reports, and by what waits on the path now.
    pub(super) fn time_to_miss(&self, now: Instant) -> Duration {
        let queue = self.adaptation.as_ref().and_then(|adaptation| adaptation.bandwidth.estimate(now));
        let queue = queue.map_or(Duration::ZERO, |estimate| estimate.queue);
        self.path.least_round_trip().unwrap_or_default().max(queue)
    }

    /// It gets nothing more of its layer, and nothing of another yet.
    pub(super) fn is_between_layers(&self) -> bool {
        self.change.as_ref().is_some_and(|change| change.has_left())
    }

    /// It gets no picture for a while, and none is to be asked for on its account.
    pub(super) fn rests(&self, now: Instant) -> bool {
        self.change.as_ref().is_some_and(|change| change.rests(now))
    }

    /// Packets were sent at once, with the transport-wide numbers from `first` on; `bytes` of UDP payload in all.
    pub(super) fn note_sent(&mut self, now: Instant, first: u16, bytes: usize) {
        if let Some(adaptation) = &mut self.adaptation {
            adaptation.note_sent(now, first, self.transport_number, bytes);
        }
    }

    /// It has asked for something of its picture that has not come.
    pub(super) fn note_complaint(&mut self) {
        if let Some(playback) = &mut self.playback {
            playback.note_complaint();
        }
    }

    /// The tracks that it gets.
    pub(super) fn tracks(&self) -> [Option<TrackId>; 2] {
        let video = self.video.as_ref().map(|_| TrackId::Video(self.layer));
        [video, self.audio.as_ref().map(|_| TrackId::Audio)]
    }

    pub(super) fn down(&self, kind: MediaKind) -> Option<&DownTrack> {
        match kind {
            MediaKind::Audio => self.audio.as_ref(),
            MediaKind::Video => self.video.as_ref(),
        }
    }
}

/// The channels of a player, by what their label means.
#[derive(Debug, Default)]
pub(super) struct Channels {
    pub(super) bets: Option<ChannelId>,
    pub(super) events: Option<ChannelId>,
    pub(super) qos: Option<ChannelId>,
}

impl Channels {
    /// The player has closed one; another of its kind may be opened.
    pub(super) fn close(&mut self, id: ChannelId) {
        for place in [&mut self.bets, &mut self.events, &mut self.qos] {
            place.take_if(|open| *open == id);
        }
    }
}

/// What a player may say on its channels, bets apart, and what it was answered.
#[derive(Debug)]
pub(super) struct Allowance {
    /// What it knows of its round trip.
    pub(super) told: Told,
    /// Messages on `qos`.
    pub(super) reports: Budget,
    /// What is not understood, not allowed, or over another budget.
    pub(super) mistakes: Budget,
}

impl Default for Allowance {
    fn default() -> Self {
        Self { told: Told::default(), reports: Budget::of_reports(), mistakes: Budget::of_mistakes() }
    }
}

/// What a peer may still ask for: so much at once, and again as time passes.
#[derive(Clone, Debug)]
pub struct Budget {
    most: u32,
    /// In which time one is earned again.
    each: Duration,
    left: u32,
    refilled: Option<Instant>,
}

impl Budget {
    /// For retransmissions: a NACK of 20 bytes asks for up to 17 packets. At 2.5 Mbit/s there are 260 packets a second,
    /// so this repairs every loss up to one packet in two.
    pub(super) const fn of_repairs() -> Self {
        Self::new(256, Duration::from_micros(3906))
    }

    /// For keyframe requests: every keyframe that a player brings about takes quality from all others.
    pub(super) const fn of_keyframes() -> Self {
        Self::new(4, Duration::from_secs(2))
    }

    /// For messages on `qos`: statistics come once a second, and `timing` as often as bets.
    pub(super) const fn of_reports() -> Self {
        Self::new(40, Duration::from_millis(50))
    }

    /// For what is not understood, not allowed or over another budget: far more than a page with a mistake in it brings about.
    pub(super) const fn of_mistakes() -> Self {
        Self::new(500, Duration::from_millis(20))
    }

    /// For messages on `bets`: a hand of chips at once, and ten a second for good, which is faster than anybody clicks.
    pub(super) const fn of_signals() -> Self {
        Self::new(20, Duration::from_millis(100))
    }

    /// `most` at once, and one more after each `each`.
    pub const fn new(most: u32, each: Duration) -> Self {
        Self { most, each, left: most, refilled: None }
    }

    /// Takes one; `false` if the budget is spent.
    pub fn take(&mut self, now: Instant) -> bool {
        let refilled = *self.refilled.get_or_insert(now);
        let earned = now.saturating_duration_since(refilled).as_nanos() / self.each.as_nanos();
        if earned >= u128::from(self.most - self.left) {
            self.left = self.most;
            self.refilled = Some(now);
        } else {
            self.left += earned as u32;
            self.refilled = Some(refilled + self.each * earned as u32);
        }
        let allowed = self.left > 0;
        self.left = self.left.saturating_sub(1);
        allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_bounded_and_comes_back() {
        let (mut budget, now) = (Budget::of_repairs(), Instant::now());
        let taken = |budget: &mut Budget, now| (0..1000).filter(|_| budget.take(now)).count();
        assert_eq!(taken(&mut budget, now), 256);
        assert_eq!(taken(&mut budget, now + Duration::from_millis(100)), 25);
        // However often it is asked in between, nothing that was earned is forgotten.
        let steps = (1..=900).map(|ms| taken(&mut budget, now + Duration::from_millis(100 + ms)));
        assert!((230..=231).contains(&steps.sum::<usize>()));
        assert_eq!(taken(&mut budget, now + Duration::from_secs(60)), 256, "and not more than that");
    }
}
