//! Transport-wide feedback, made from what arrived (draft-holmer-rmcat-transport-wide-cc-extensions-01 §3.1).

use std::time::{Duration, Instant};

use super::types::{FMT_TRANSPORT_CC, TRANSPORT_FEEDBACK};
use super::{HEADER_LEN, RtcpError, RtcpWriter};

/// The most packets that one feedback packet reports on, and how far back arrivals are known.
const HISTORY: u64 = 1024;

/// The unit of the deltas.
const TICK_MICROS: u128 = 250;

/// The unit of the reference time in ticks: 64 ms.
const REFERENCE_TICKS: i64 = 256;

/// Header and fixed part of a feedback packet.
const FIXED_LEN: usize = HEADER_LEN + 16;

/// The fewest statuses that a chunk holds, unless it is the last.
const CHUNK_MIN: usize = 7;

/// Notes when a publisher's packets arrive and reports it to the publisher at an interval.
///
/// Driven by [`TwccRecorder::handle_packet`]; when [`TwccRecorder::is_due`], [`TwccRecorder::write_feedback`] is called
/// until it says that there is nothing more. Arrivals of the last 1024 transport-wide numbers are kept (16 KiB). A packet
/// that comes after it was reported lost goes into the next report, with those after it once more. What a leap of the
/// numbers, or a writer without room, leaves further behind is never reported: the publisher counts it as lost.
#[derive(Debug)]
pub struct TwccRecorder {
    interval: Duration,
    arrivals: Box<[Arrival; HISTORY as usize]>,
    span: Option<Span>,
    due: Option<Instant>,
    feedback_count: u8,
}

/// A packet that arrived. An empty place has a number that none has.
#[derive(Clone, Copy, Debug)]
struct Arrival {
    sequence: u64,
    tick: i64,
}

const NEVER: Arrival = Arrival { sequence: u64::MAX, tick: 0 };

/// What there is to report.
#[derive(Clone, Copy, Debug)]
struct Span {
    /// Tick 0.
    epoch: Instant,
    /// The highest number that arrived, extended beyond 16 bits.
    highest: u64,
    /// The first number of the next report.
    next: u64,
}

impl TwccRecorder {
    /// A recorder that reports `interval` after the first packet that is not reported.
    pub fn new(interval: Duration) -> Self {
        Self { interval, arrivals: Box::new([NEVER; HISTORY as usize]), span: None, due: None, feedback_count: 0 }
    }

    /// A packet with this transport-wide number arrived.
    pub fn handle_packet(&mut self, now: Instant, sequence: u16) {
        let span = self.span.get_or_insert_with(|| {
            // One cycle of the numbers lies below the first, for packets that were sent before it and come after it.
            let first = 0x1_0000 + u64::from(sequence);
            Span { epoch: now, highest: first, next: first }
        });
        let sequence = extend(span.highest, sequence);
        let oldest = sequence.max(span.highest).saturating_sub(HISTORY - 1);
        let place = &mut self.arrivals[(sequence % HISTORY) as usize];
        if sequence < oldest || place.sequence == sequence {
            return;
        }
        let tick = now.saturating_duration_since(span.epoch).as_micros() / TICK_MICROS;
        *place = Arrival { sequence, tick: tick as i64 };
        span.highest = span.highest.max(sequence);
        span.next = span.next.min(sequence).max(oldest);
        self.due.get_or_insert(now + self.interval);
    }

    /// When feedback is due next, `None` while there is nothing to report.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.due
    }

    /// Whether feedback is due.
    pub fn is_due(&self, now: Instant) -> bool {
        self.due.is_some_and(|due| due <= now)
    }

    /// Writes one feedback packet and returns true, or returns false where there is nothing to report or no room.
    pub fn write_feedback(&mut self, sender: u32, media: u32, writer: &mut RtcpWriter<'_>) -> bool {
        let Some(Span { highest, next, .. }) = self.span else {
            return false;
        };
        let mut symbols = [0; HISTORY as usize];
        let Some(report) = self.plan(next, highest, writer.room(), &mut symbols) else {
            return false;
        };
        let symbols = &symbols[..report.count];
        if self.write(&report, symbols, sender, media, writer).is_err() {
            return false;
        }
        self.feedback_count = self.feedback_count.wrapping_add(1);
        let next = report.base + report.count as u64;
        if let Some(span) = &mut self.span {
            span.next = next;
        }
        if next > highest {
            self.due = None;
        }
        true
    }

    /// How much of `next..=highest` goes into one packet: until the room ends, or a delta that 16 bits do not hold.
    fn plan(&self, next: u64, highest: u64, room: usize, symbols: &mut [u8]) -> Option<Report> {
        let base_tick = (next..=highest).find_map(|sequence| self.arrival(sequence))?;
        let reference = base_tick.div_euclid(REFERENCE_TICKS);
        let (mut previous, mut deltas_len, mut count) = (reference * REFERENCE_TICKS, 0, 0);
        for (symbol, sequence) in symbols.iter_mut().zip(next..=highest) {
            *symbol = match self.arrival(sequence) {
                None => 0,
                Some(tick) => match delta_len(tick - previous) {
                    Some(len) => {
                        previous = tick;
                        len
                    }
                    None => break,
                },
            };
            deltas_len += usize::from(*symbol);
            let chunks_len = 2 * (count + 1_usize).div_ceil(CHUNK_MIN);
            if (FIXED_LEN + chunks_len + deltas_len).next_multiple_of(4) > room {
                break;
            }
            count += 1;
        }
        (count > 0).then_some(Report { base: next, count, reference })
    }

    fn write(
        &self,
        report: &Report,
        symbols: &[u8],
        sender: u32,
        media: u32,
        writer: &mut RtcpWriter<'_>,
    ) -> Result<(), RtcpError> {
        writer.feedback(TRANSPORT_FEEDBACK, FMT_TRANSPORT_CC, sender, media, |w| {
            w.put(&(report.base as u16).to_be_bytes())?;
            w.put(&(report.count as u16).to_be_bytes())?;
            let reference = (report.reference as u32) << 8 | u32::from(self.feedback_count);
            w.put(&reference.to_be_bytes())?;
            let mut rest = symbols;
            while !rest.is_empty() {
                let (chunk, used) = encode_chunk(rest);
                w.put(&chunk.to_be_bytes())?;
                rest = &rest[used..];
            }
            let mut previous = report.reference * REFERENCE_TICKS;
            for sequence in report.base..report.base + report.count as u64 {
                if let Some(tick) = self.arrival(sequence) {
                    let delta = tick - previous;
                    previous = tick;
                    match u8::try_from(delta) {
                        Ok(small) => w.put(&[small])?,
                        Err(_) => w.put(&(delta as i16).to_be_bytes())?,
                    }
                }
            }
            Ok(())
        })
    }

    /// When a packet arrived, in ticks.
    fn arrival(&self, sequence: u64) -> Option<i64> {
        let arrival = self.arrivals[(sequence % HISTORY) as usize];
        (arrival.sequence == sequence).then_some(arrival.tick)
    }
}

/// One feedback packet to be.
struct Report {
    base: u64,
    count: usize,
    /// In 64 ms since tick 0.
    reference: i64,
}

/// The number nearest to `highest` with these 16 bits.
fn extend(highest: u64, sequence: u16) -> u64 {
    highest.saturating_add_signed(i64::from(sequence.wrapping_sub(highest as u16) as i16))
}

/// Bytes of a delta, which is its symbol too; `None` where it does not fit.
fn delta_len(delta: i64) -> Option<u8> {
    if u8::try_from(delta).is_ok() { Some(1) } else { i16::try_from(delta).ok().map(|_| 2) }
}

/// The chunk that takes the most of `symbols`, which is not empty, and how many it takes.
fn encode_chunk(symbols: &[u8]) -> (u16, usize) {
    let run = symbols.iter().take(0x1fff).take_while(|symbol| **symbol == symbols[0]).count();
    let few = &symbols[..symbols.len().min(14)];
    if run == symbols.len() || run > 14 {
        (u16::from(symbols[0]) << 13 | run as u16, run)
    } else if !few.contains(&2) {
        (few.iter().enumerate().fold(0x8000, |bits, (at, symbol)| bits | u16::from(*symbol) << (13 - at)), few.len())
    } else if run > CHUNK_MIN {
        (u16::from(symbols[0]) << 13 | run as u16, run)
    } else {
        let few = &symbols[..symbols.len().min(CHUNK_MIN)];
        let vector = |bits, (at, symbol): (usize, &u8)| bits | u16::from(*symbol) << (12 - 2 * at);
        (few.iter().enumerate().fold(0xc000, vector), few.len())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::super::{Packet, packets};
    use super::*;

    const INTERVAL: Duration = Duration::from_millis(100);

    /// All feedback of a recorder, in packets of up to `room` bytes: per packet its base, and per status the arrival in
    /// ticks since tick 0.
    fn drain(recorder: &mut TwccRecorder, room: usize) -> Vec<Vec<(u16, Option<i64>)>> {
        let mut reports = Vec::new();
        let mut buffer = vec![0; room];
        loop {
            let mut writer = RtcpWriter::new(&mut buffer);
            if !recorder.write_feedback(1, 2, &mut writer) {
                return reports;
            }
            let Some(Ok(Packet::TransportFeedback(feedback))) = packets(writer.as_bytes()).next() else {
                panic!("not transport feedback: {:?}", writer.as_bytes());
            };
            assert_eq!((feedback.sender, feedback.media), (1, 2));
            assert_eq!(feedback.feedback_count, reports.len() as u8);
            let mut tick = feedback.reference_ticks();
            let statuses = feedback.statuses().map(|(sequence, delta)| {
                (
                    sequence,
                    delta.map(|delta| {
                        tick += i64::from(delta);
                        tick
                    }),
                )
            });
            reports.push(statuses.collect());
            assert_eq!(reports.last().unwrap().len(), usize::from(feedback.status_count));
        }
    }

    #[test]
    fn reports_over_the_wrap_with_losses_and_late_packets() {
        let start = Instant::now();
        let mut recorder = TwccRecorder::new(INTERVAL);
        assert_eq!(recorder.poll_timeout(), None);
        for (millis, sequence) in [(0, 65533), (1, 65535), (3, 1), (4, 0)] {
            recorder.handle_packet(start + Duration::from_millis(millis), sequence);
        }
        assert_eq!(recorder.poll_timeout(), Some(start + INTERVAL));
        assert!(!recorder.is_due(start + INTERVAL / 2) && recorder.is_due(start + INTERVAL));
        let expected = vec![(65533, Some(0)), (65534, None), (65535, Some(4)), (0, Some(16)), (1, Some(12))];
        assert_eq!(drain(&mut recorder, 200), [expected]);
        assert_eq!(recorder.poll_timeout(), None);
    }

    #[test]
    fn a_packet_that_was_reported_lost_is_reported_when_it_comes() {
        let start = Instant::now();
        let mut recorder = TwccRecorder::new(INTERVAL);
        recorder.handle_packet(start, 10);
        recorder.handle_packet(start, 12);
        assert_eq!(drain(&mut recorder, 200), [[(10, Some(0)), (11, None), (12, Some(0))]]);
        recorder.feedback_count = 0;
        recorder.handle_packet(start + Duration::from_millis(1), 11);
        assert_eq!(drain(&mut recorder, 200), [[(11, Some(4)), (12, Some(0))]]);
    }

    #[test]
    fn a_pause_too_long_for_a_delta_begins_a_new_packet() {
        let start = Instant::now();
        let mut recorder = TwccRecorder::new(INTERVAL);
        recorder.handle_packet(start, 1);
        recorder.handle_packet(start + Duration::from_secs(60), 2);
        assert_eq!(drain(&mut recorder, 200), [[(1, Some(0))], [(2, Some(240_000))]]);
    }

    #[test]
    fn a_leap_of_the_numbers_costs_no_more_than_the_history() {
        let start = Instant::now();
        let mut recorder = TwccRecorder::new(INTERVAL);
        recorder.handle_packet(start, 1);
        recorder.handle_packet(start, 30_000);
        let reports = drain(&mut recorder, 1200);
        assert_eq!(reports.iter().map(Vec::len).sum::<usize>(), HISTORY as usize);
        assert_eq!(reports.last().unwrap().last(), Some(&(30_000, Some(0))));
        recorder.handle_packet(start, 2);
        assert_eq!(recorder.poll_timeout(), None, "too old to report");
    }

    #[test]
    fn without_room_nothing_is_lost() {
        let mut recorder = TwccRecorder::new(INTERVAL);
        recorder.handle_packet(Instant::now(), 1);
        assert!(drain(&mut recorder, 23).is_empty());
        assert!(recorder.poll_timeout().is_some());
        assert_eq!(drain(&mut recorder, 24), [[(1, Some(0))]]);
    }

    #[test]
    fn chunks_are_compact() {
        assert_eq!(encode_chunk(&[1; 1000]), (0x2000 | 1000, 1000));
        assert_eq!(encode_chunk(&[0, 0]), (0x0002, 2));
        assert_eq!(encode_chunk(&[&[1; 15][..], &[0]].concat()), (0x2000 | 15, 15));
        assert_eq!(encode_chunk(&[&[1; 13][..], &[0, 0]].concat()), (0xbffe, 14));
        assert_eq!(encode_chunk(&[1, 0, 1]), (0xa800, 3));
        assert_eq!(encode_chunk(&[1, 2, 0]), (0xd800, 3));
        assert_eq!(encode_chunk(&[2, 2, 2, 2, 2, 2, 2, 2, 0]), (0x4008, 8));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        /// Packets are sent in order, some are lost, each arrives with a delay of its own; whatever arrived is reported
        /// with its time, in packets of any size, and nothing else is.
        #[test]
        fn what_arrived_is_reported(
            first: u16,
            sent in prop::collection::vec((0_u64..20_000, prop::option::weighted(0.8, 0_u64..40_000)), 1..300),
            pause in prop_oneof![9 => Just(0_u64), 1 => Just(20_000_000)],
            room in 60_usize..600,
        ) {
            let start = Instant::now();
            let mut at = 0;
            let mut arrivals: Vec<(u64, u16)> = Vec::new();
            for (n, (gap, delay)) in sent.iter().enumerate() {
                at += gap + if n == sent.len() / 2 { pause } else { 0 };
                arrivals.extend(delay.map(|delay| (at + delay, first.wrapping_add(n as u16))));
            }
            arrivals.sort_unstable();
            let mut recorder = TwccRecorder::new(INTERVAL);
            arrivals.iter().for_each(|(at, sequence)| recorder.handle_packet(start + Duration::from_micros(*at), *sequence));
            let Some((epoch, _)) = arrivals.first().copied() else {
                prop_assert!(drain(&mut recorder, room).is_empty());
                return Ok(());
            };
            let expected: BTreeMap<u16, i64> =
                arrivals.iter().map(|(at, sequence)| (*sequence, ((at - epoch) / 250) as i64)).collect();
            let reports = drain(&mut recorder, room).concat();
            let got: BTreeMap<u16, i64> = reports.iter().filter_map(|(n, tick)| tick.map(|tick| (*n, tick))).collect();
            // The epoch is truncated with the first arrival, so both are exact.
            prop_assert_eq!(got, expected);
            prop_assert!(reports.windows(2).all(|pair| pair[1].0 == pair[0].0.wrapping_add(1)));
        }

        #[test]
        fn arbitrary_numbers_do_no_harm(sequences in prop::collection::vec((any::<u16>(), 0_u64..10_000_000), 0..200)) {
            let mut now = Instant::now();
            let mut recorder = TwccRecorder::new(INTERVAL);
            for (n, (sequence, micros)) in sequences.into_iter().enumerate() {
                now += Duration::from_micros(micros);
                recorder.handle_packet(now, sequence);
                if n % 10 == 0 {
                    recorder.feedback_count = 0;
                    let statuses: usize = drain(&mut recorder, 300).iter().map(Vec::len).sum();
                    prop_assert!(statuses <= HISTORY as usize);
                }
            }
        }
    }
}
