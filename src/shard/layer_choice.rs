//! Which layer of a simulcast is forwarded: the best one that is really arriving.
//!
//! Pure: packets and time in, the layer to switch to out. The switch itself belongs to [`super::simulcast`].
//!
//! # What is better
//!
//! Not what the offer lists first: RFC 8853 §5.1 has its order say what the sender would rather keep, browsers list from
//! small to large and OBS from large to small. Of two layers the one with the larger picture is better, as their keyframes
//! say, or else `max-width` and `max-height`. Where that decides nothing, it is the one with clearly more bits.
//!
//! # When
//!
//! A layer is silent once others have gone on without it for a while; senders stop the upper ones when they are short of
//! CPU or bandwidth. From a silent layer to the next best one at once; to a better one only when it has come steadily, and
//! the longer so the more often that went wrong. Until the new layer's keyframe is there, the old one is forwarded.

use std::time::{Duration, Instant};

use crate::media::{PictureSize, RateWindow};

use super::inbound::LayerIndex;

/// How long a layer must be quiet …
const SILENCE: Duration = Duration::from_millis(300);

/// … while one other sends so many frames, to count as silent. A slow screen share is quiet in all its layers.
const FRAMES_MISSED: u8 = 3;

/// How long a better layer must have come without a break.
const STEADY: Duration = Duration::from_secs(1);

/// The most that the steady time grows to for a sender whose upper layers come and go.
const MOST_STEADY: Duration = Duration::from_secs(30);

/// A layer that falls silent so soon after the switch to it was a mistake.
const RELAPSE: Duration = Duration::from_secs(10);

/// Keyframes are asked for again after this time. Encoders that take no requests have one every few seconds.
const KEYFRAME_INTERVAL: Duration = Duration::from_secs(1);

/// How much more bits are clearly more, in percent.
const CLEARLY_MORE: f64 = 1.3;

/// A packet as the choice sees it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    pub(super) layer: LayerIndex,
    /// Payload bytes.
    pub(super) len: usize,
    /// The first packet of a frame to arrive.
    pub(super) begins_frame: bool,
    /// Part of a keyframe.
    pub(super) keyframe: bool,
    pub(super) picture: Option<PictureSize>,
}

/// Decides which layer is to be forwarded.
#[derive(Debug)]
pub(super) struct LayerChoice {
    layers: Vec<Facts>,
    in_use: Option<LayerIndex>,
    wanted: Option<Wanted>,
    /// When the last switch to a better layer was.
    rose: Option<Instant>,
    steady: Duration,
}

/// What is known of a layer.
#[derive(Debug, Default)]
struct Facts {
    /// The offer's word on it, until a keyframe tells.
    declared: Option<PictureSize>,
    picture: Option<PictureSize>,
    rate: RateWindow,
    /// Since when it comes without a break, and when it last did. `None` while it is silent.
    steady_since: Option<Instant>,
    last: Option<Instant>,
    /// For each layer, the frames that it sent since this one's last packet.
    missed: Vec<u8>,
}

#[derive(Clone, Copy, Debug)]
struct Wanted {
    layer: LayerIndex,
    /// When a keyframe of it is asked for next.
    request_at: Instant,
}

impl LayerChoice {
    /// Nothing has come yet; the offer says this much about the layers' pictures.
    pub(super) fn new(declared: impl Iterator<Item = Option<PictureSize>>) -> Self {
        let mut layers: Vec<Facts> = declared.map(|declared| Facts { declared, ..Facts::default() }).collect();
        let count = layers.len();
        layers.iter_mut().for_each(|facts| facts.missed = vec![0; count]);
        Self { layers, in_use: None, wanted: None, rose: None, steady: STEADY }
    }

    /// The layer that is forwarded.
    pub(super) fn in_use(&self) -> Option<LayerIndex> {
        self.in_use
    }

    /// The layer that is to take over at its next keyframe.
    pub(super) fn wanted(&self) -> Option<LayerIndex> {
        self.wanted.map(|wanted| wanted.layer)
    }

    /// A packet came.
    pub(super) fn handle_packet(&mut self, now: Instant, seen: &Seen) {
        let LayerIndex(at) = seen.layer;
        if seen.begins_frame {
            self.layers.iter_mut().for_each(|other| other.missed[at] = other.missed[at].saturating_add(1));
        }
        let facts = &mut self.layers[at];
        facts.rate.add(now, seen.len as u64);
        facts.picture = seen.picture.or(facts.picture);
        facts.missed.fill(0);
        facts.last = Some(now);
        facts.steady_since.get_or_insert(now);
        self.decide(now);
        if let Some(wanted) = self.wanted.as_mut().filter(|wanted| seen.keyframe && wanted.layer == seen.layer) {
            // It is coming: asking for another would only delay this one.
            wanted.request_at = now + KEYFRAME_INTERVAL;
        }
    }

    /// The wanted layer has taken over.
    pub(super) fn handle_switch(&mut self, now: Instant) {
        let Some(Wanted { layer, .. }) = self.wanted.take() else { return };
        let rises = self.in_use.is_some_and(|before| self.is_better(now, layer, before));
        self.rose = rises.then_some(now);
        self.in_use = Some(layer);
    }

    /// The layer begins anew, with other numbers: what was forwarded of it cannot go on.
    pub(super) fn handle_restart(&mut self, layer: LayerIndex) {
        self.in_use = self.in_use.filter(|in_use| *in_use != layer);
        self.wanted = self.wanted.filter(|wanted| wanted.layer != layer);
    }

    /// The layer to ask for a keyframe now. It counts as asked.
    pub(super) fn take_keyframe_request(&mut self, now: Instant) -> Option<LayerIndex> {
        let wanted = self.wanted.as_mut().filter(|wanted| now >= wanted.request_at)?;
        wanted.request_at = now + KEYFRAME_INTERVAL;
        Some(wanted.layer)
    }

    fn decide(&mut self, now: Instant) {
        for facts in &mut self.layers {
            if facts.steady_since.is_some() && facts.is_silent(now) {
                facts.steady_since = None;
            }
        }
        let target = self.target(now).filter(|target| Some(*target) != self.in_use);
        if self.wanted() != target {
            self.wanted = target.map(|layer| Wanted { layer, request_at: now });
        }
        if self.rose.is_some_and(|rose| now >= rose + RELAPSE) {
            self.rose = None;
            self.steady = STEADY;
        }
    }

    /// The layer that ought to be in use.
    fn target(&mut self, now: Instant) -> Option<LayerIndex> {
        let in_use = self.in_use.filter(|LayerIndex(at)| self.layers[*at].steady_since.is_some());
        if self.in_use.is_some() && in_use.is_none() && self.rose.take().is_some() {
            self.steady = (self.steady * 2).min(MOST_STEADY);
        }
        let ready = |facts: &Facts| match in_use {
            Some(_) => facts.steady_since.is_some_and(|since| now >= since + self.steady),
            None => facts.steady_since.is_some(),
        };
        let candidates = (0..self.layers.len()).filter(|at| ready(&self.layers[*at])).map(LayerIndex);
        // Who leads keeps the lead until it is clearly beaten: bit rates waver.
        let leader = self.wanted().filter(|LayerIndex(at)| ready(&self.layers[*at])).or(in_use);
        let best = candidates.fold(leader, |best, layer| match best {
            Some(best) if !self.is_better(now, layer, best) => Some(best),
            _ => Some(layer),
        });
        match (in_use, best) {
            (Some(in_use), Some(best)) if !self.is_better(now, best, in_use) => Some(in_use),
            _ => best.or(in_use),
        }
    }

    fn is_better(&self, now: Instant, LayerIndex(a): LayerIndex, LayerIndex(b): LayerIndex) -> bool {
        let (a, b) = (&self.layers[a], &self.layers[b]);
        match (a.area(), b.area()) {
            (Some(a), Some(b)) if a != b => a > b,
            _ => a.rate.per_second(now) > b.rate.per_second(now) * CLEARLY_MORE,
        }
    }
}

impl Facts {
    fn area(&self) -> Option<u64> {
        self.picture.or(self.declared).map(PictureSize::area)
    }

    fn is_silent(&self, now: Instant) -> bool {
        let quiet = self.last.is_none_or(|last| now >= last + SILENCE);
        quiet && self.missed.iter().any(|frames| *frames >= FRAMES_MISSED)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SMALL: LayerIndex = LayerIndex(0);
    const MIDDLE: LayerIndex = LayerIndex(1);
    const LARGE: LayerIndex = LayerIndex(2);

    fn picture(LayerIndex(at): LayerIndex) -> PictureSize {
        PictureSize { width: 320 << at, height: 180 << at }
    }

    /// A sender of three layers at 30 frames a second, whose keyframes come when they are asked for.
    struct Sender {
        now: Instant,
        choice: LayerChoice,
        sizes: bool,
        requests: Vec<LayerIndex>,
    }

    impl Sender {
        fn new(sizes: bool) -> Self {
            let choice = LayerChoice::new([None; 3].into_iter());
            Self { now: Instant::now(), choice, sizes, requests: Vec::new() }
        }

        /// Sends one frame of each of `layers`; a layer that was asked for a keyframe has it in the next.
        fn frame(&mut self, layers: &[LayerIndex]) {
            self.now += Duration::from_millis(33);
            for &layer in layers {
                let seen = Seen {
                    layer,
                    len: 500 << layer.0,
                    begins_frame: true,
                    keyframe: false,
                    picture: self.sizes.then(|| picture(layer)),
                };
                self.choice.handle_packet(self.now, &seen);
                self.requests.extend(self.choice.take_keyframe_request(self.now));
            }
        }

        fn frames(&mut self, count: usize, layers: &[LayerIndex]) {
            for _ in 0..count {
                self.frame(layers);
                if self.requests.pop().is_some() {
                    self.choice.handle_switch(self.now);
                }
            }
        }
    }

    #[test]
    fn the_first_layer_is_taken_at_once_and_a_better_one_when_it_is_steady() {
        for sizes in [true, false] {
            let mut sender = Sender::new(sizes);
            sender.frames(1, &[SMALL]);
            assert_eq!(sender.choice.in_use(), Some(SMALL));
            sender.frames(28, &[SMALL, MIDDLE, LARGE]);
            assert_eq!(sender.choice.in_use(), Some(SMALL), "not steady for a second");
            sender.frames(10, &[SMALL, MIDDLE, LARGE]);
            assert_eq!(sender.choice.in_use(), Some(LARGE), "sizes known: {sizes}");
        }
    }

    #[test]
    fn what_the_offer_lists_first_is_not_what_is_best() {
        let largest_first =
            [Some(picture(LARGE)), Some(picture(SMALL)), None].into_iter().chain(std::iter::repeat_n(None, 0));
        let mut sender = Sender::new(false);
        sender.choice = LayerChoice::new(largest_first);
        // By bits the second would win: the size that was declared goes before.
        sender.frames(60, &[SMALL, MIDDLE]);
        assert_eq!(sender.choice.in_use(), Some(SMALL), "which was declared the larger one");
    }

    #[test]
    fn a_silent_layer_gives_way_to_the_next_lower_within_half_a_second() {
        let mut sender = Sender::new(true);
        sender.frames(60, &[SMALL, MIDDLE, LARGE]);
        assert_eq!(sender.choice.in_use(), Some(LARGE));
        sender.frames(8, &[SMALL, MIDDLE]);
        assert_eq!(sender.choice.in_use(), Some(LARGE), "a hiccup");
        sender.frames(4, &[SMALL, MIDDLE]);
        assert_eq!(sender.choice.in_use(), Some(MIDDLE));
        sender.frames(15, &[SMALL]);
        assert_eq!(sender.choice.in_use(), Some(SMALL));
    }

    #[test]
    fn a_picture_that_stands_still_in_all_layers_changes_nothing() {
        let mut sender = Sender::new(true);
        sender.frames(60, &[SMALL, MIDDLE, LARGE]);
        for _ in 0..5 {
            sender.now += Duration::from_secs(2);
            sender.frame(&[SMALL, MIDDLE, LARGE]);
            assert_eq!((sender.choice.in_use(), sender.choice.wanted()), (Some(LARGE), None));
        }
    }

    #[test]
    fn the_old_layer_stays_until_the_keyframe_and_is_kept_if_it_returns() {
        let mut sender = Sender::new(true);
        sender.frames(60, &[SMALL, LARGE]);
        for _ in 0..45 {
            sender.frame(&[SMALL]);
        }
        assert_eq!((sender.choice.in_use(), sender.choice.wanted()), (Some(LARGE), Some(SMALL)));
        assert_eq!(sender.requests, [SMALL; 2], "asked at once, and again after a second");
        sender.frame(&[SMALL, LARGE]);
        assert_eq!((sender.choice.in_use(), sender.choice.wanted()), (Some(LARGE), None), "nothing to switch for");
    }

    #[test]
    fn a_keyframe_that_is_coming_is_not_asked_for() {
        let mut choice = LayerChoice::new([None; 2].into_iter());
        let now = Instant::now();
        let seen = Seen { layer: SMALL, len: 1000, begins_frame: true, keyframe: true, picture: None };
        choice.handle_packet(now, &seen);
        assert_eq!((choice.wanted(), choice.take_keyframe_request(now)), (Some(SMALL), None));
        assert_eq!(choice.take_keyframe_request(now + KEYFRAME_INTERVAL), Some(SMALL), "it was lost");
    }

    #[test]
    fn an_upper_layer_that_comes_and_goes_is_believed_less_each_time() {
        let mut sender = Sender::new(true);
        sender.frames(60, &[SMALL, LARGE]);
        let mut waits = Vec::new();
        for _ in 0..4 {
            sender.frames(15, &[SMALL]);
            assert_eq!(sender.choice.in_use(), Some(SMALL));
            let mut wait = 0;
            while sender.choice.in_use() == Some(SMALL) {
                sender.frames(1, &[SMALL, LARGE]);
                wait += 1;
            }
            waits.push(wait / 30);
        }
        assert_eq!(waits, [1, 2, 4, 8], "seconds");
        sender.frames(330, &[SMALL, LARGE]);
        sender.frames(15, &[SMALL]);
        sender.frames(40, &[SMALL, LARGE]);
        assert_eq!(sender.choice.in_use(), Some(LARGE), "forgiven after ten seconds without a relapse");
    }

    #[test]
    fn a_layer_that_begins_anew_needs_its_keyframe_first() {
        let mut sender = Sender::new(true);
        sender.frames(60, &[SMALL, LARGE]);
        sender.choice.handle_restart(LARGE);
        assert_eq!(sender.choice.in_use(), None);
        sender.frame(&[LARGE]);
        assert_eq!(sender.choice.wanted(), Some(LARGE));
        assert_eq!(sender.requests, [LARGE]);
    }

    proptest! {
        /// Whatever comes and goes, what is in use in the end is what would be chosen afresh.
        #[test]
        fn in_the_end_the_best_that_comes_is_in_use(
            phases in prop::collection::vec((1usize..100, 1usize..8), 1..8),
            sizes: bool,
        ) {
            let mut sender = Sender::new(sizes);
            let of = |set: usize| (0..3).filter(|n| set & 1 << n != 0).map(LayerIndex).collect::<Vec<_>>();
            for (frames, set) in &phases {
                sender.frames(*frames, &of(*set));
                let (in_use, wanted) = (sender.choice.in_use(), sender.choice.wanted());
                prop_assert!(wanted.is_none() || wanted != in_use);
            }
            let last = of(phases.last().expect("one at least").1);
            sender.frames(31 * 30, &last);
            prop_assert_eq!(sender.choice.in_use(), last.last().copied());
        }
    }
}
