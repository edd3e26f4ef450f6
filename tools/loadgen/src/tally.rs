//! What is counted, in a form that adds up: packets of a track, of a player, of a group.

use std::ops::{AddAssign, Sub};

use hdrhistogram::Histogram;
use serde::Serialize;

/// What players received.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Received {
    /// RTP packets, each once: retransmissions and duplicates apart.
    pub packets: u64,
    /// Bytes of UDP payload, everything included.
    pub bytes: u64,
    /// Packets that never came, by their numbers.
    pub lost: u64,
    /// Reads' worth (a frame, where GRO joined it) that the generator's own sockets threw away: it is too slow, and what
    /// is lost is not the server's.
    pub overflowed: u64,
    /// Packets that came as a retransmission.
    pub recovered: u64,
    /// Packets that came after one with a higher number.
    pub reordered: u64,
    /// Packets that came again.
    pub duplicates: u64,
    /// Datagrams that were nothing, or failed authentication where that was checked.
    pub undecryptable: u64,
    /// Opened packets whose payload was not what a publisher of ours had sent.
    pub changed: u64,
    /// Frames of which every packet came, at players that open their packets.
    pub frames: u64,
    /// Frames of which a packet is missing, at players that open their packets.
    pub torn_frames: u64,
    /// RTCP packets sent.
    pub reports: u64,
    /// Packets asked for again.
    pub nacked: u64,
    /// Reports of how a player plays, over data channels.
    pub said: u64,
}

macro_rules! each_field {
    ($with:ident) => {
        $with!(
            packets,
            bytes,
            lost,
            overflowed,
            recovered,
            reordered,
            duplicates,
            undecryptable,
            changed,
            frames,
            torn_frames,
            reports,
            nacked,
            said
        )
    };
}

impl AddAssign for Received {
    fn add_assign(&mut self, other: Self) {
        macro_rules! add { ($($field:ident),+) => { $(self.$field += other.$field;)+ } }
        each_field!(add);
    }
}

impl Sub for Received {
    type Output = Self;

    /// What was counted since `earlier`. A packet that was missing then may have come since.
    fn sub(self, earlier: Self) -> Self {
        macro_rules! sub { ($($field:ident),+) => { Self { $($field: self.$field.saturating_sub(earlier.$field)),+ } } }
        each_field!(sub)
    }
}

/// What publishers sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Sent {
    /// Frames of video, over all layers.
    pub frames: u64,
    /// Among them keyframes.
    pub keyframes: u64,
    /// RTP packets, retransmissions included.
    pub packets: u64,
    /// Bytes of UDP payload.
    pub bytes: u64,
    /// Packets that the kernel refused.
    pub refused: u64,
    /// Retransmissions.
    pub retransmitted: u64,
    /// PLI and FIR that came.
    pub keyframe_requests: u64,
    /// Frames sent more than a frame interval late: the generator is too slow.
    pub late_frames: u64,
    /// Frames that were not sent because they would have been late, over all layers.
    pub left_out: u64,
}

impl AddAssign for Sent {
    fn add_assign(&mut self, other: Self) {
        self.frames += other.frames;
        self.keyframes += other.keyframes;
        self.packets += other.packets;
        self.bytes += other.bytes;
        self.refused += other.refused;
        self.retransmitted += other.retransmitted;
        self.keyframe_requests += other.keyframe_requests;
        self.late_frames += other.late_frames;
        self.left_out += other.left_out;
    }
}

/// Times in microseconds, from one to a minute, three digits exact.
#[derive(Clone, Debug)]
pub struct Times(Histogram<u64>);

impl Default for Times {
    fn default() -> Self {
        Self(Histogram::new_with_bounds(1, 60_000_000, 3).expect("the bounds are legal"))
    }
}

impl Times {
    /// Adds a time in microseconds.
    pub fn record(&mut self, micros: u64) {
        self.0.saturating_record(micros);
    }

    /// Adds all of `other`.
    pub fn add(&mut self, other: &Self) {
        self.0.add(&other.0).expect("the bounds are the same");
    }

    /// How many there are.
    pub fn len(&self) -> u64 {
        self.0.len()
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// Its figures in milliseconds, `None` where nothing was measured.
    pub fn figures(&self) -> Option<Figures> {
        if self.0.is_empty() {
            return None;
        }
        let at = |percentile| self.0.value_at_quantile(percentile) as f64 / 1000.0;
        Some(Figures { count: self.len(), p50: at(0.5), p95: at(0.95), p99: at(0.99), max: at(1.0) })
    }
}

/// Percentiles in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Figures {
    /// Of how many.
    pub count: u64,
    /// The median.
    pub p50: f64,
    /// Of twenty, nineteen are not longer.
    pub p95: f64,
    /// Of a hundred, ninety-nine are not longer.
    pub p99: f64,
    /// The longest.
    pub max: f64,
}
