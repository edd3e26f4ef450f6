//! What a player says over data channels: its bets, and how it plays.

use std::time::{Duration, Instant};

use tableside::rtc::sdp::DtlsRole;

use crate::bettor::{BETS, BetTally, Bettor, EVENTS};
use crate::channels::{Channels, Label};
use crate::client::random;

/// The channel of reports.
const QOS: &str = "qos";

/// Who says one thing alone has no other channels, as with a browser.
const LABELS: [Label; 3] = [
    Label { name: QOS, reliable: false },
    Label { name: BETS, reliable: true },
    Label { name: EVENTS, reliable: true },
];

/// How often a player says what.
#[derive(Clone, Copy, Debug, Default)]
pub struct Says {
    /// Between two bet signals.
    pub bets: Option<Duration>,
    /// Between two reports of how it plays.
    pub reports: Option<Duration>,
}

impl Says {
    /// Whether it needs data channels.
    pub fn anything(self) -> bool {
        self.bets.is_some() || self.reports.is_some()
    }

    fn labels(self) -> &'static [Label] {
        let from = usize::from(self.reports.is_none());
        let to = if self.bets.is_some() { LABELS.len() } else { 1 };
        &LABELS[from..to]
    }
}

/// What a report tells, in totals of the session.
#[derive(Clone, Copy, Debug, Default)]
pub struct Played {
    /// Frames of video that came, as far as an unopened packet shows.
    pub frames: u64,
    /// Bytes of video.
    pub bytes: u64,
    /// Packets that never came.
    pub lost: u64,
}

/// See the module's text.
pub struct DataSide {
    channels: Channels,
    bettor: Option<Bettor>,
    report_interval: Option<Duration>,
    next_report: Option<Instant>,
    reports: u64,
}

impl DataSide {
    /// Of a player that is connected. It does not bet yet, and reports for the first time within an interval. `None` if the library
    /// refuses.
    pub fn new(now: Instant, role: DtlsRole, says: Says) -> Option<Self> {
        let channels = Channels::new(now, role, says.labels())?;
        let spread = |interval: Duration| Duration::from_micros(random() % (interval.as_micros() as u64).max(1));
        Some(Self {
            channels,
            bettor: says.bets.map(Bettor::new),
            report_interval: says.reports,
            next_report: says.reports.map(|interval| now + spread(interval)),
            reports: 0,
        })
    }

    /// Who bets, if it does.
    pub fn bettor(&mut self) -> Option<&mut Bettor> {
        self.bettor.as_mut()
    }

    /// Reports that were sent.
    pub fn reports(&self) -> u64 {
        self.reports
    }

    /// A decrypted SCTP packet, which the kernel took at `at`.
    pub fn handle_packet(&mut self, at: Instant, packet: &[u8], tally: &mut BetTally) {
        self.channels.handle_packet(at, packet);
        let bettor = &mut self.bettor;
        self.channels.poll_messages(at, |label, data| {
            // What answers a report is for people.
            if let Some(bettor) = bettor.as_mut().filter(|_| label != QOS) {
                bettor.handle_message(at, label, data, tally);
            }
        });
    }

    /// When to call [`DataSide::handle_timeout`].
    pub fn poll_timeout(&self) -> Option<Instant> {
        let bets = self.bettor.as_ref().and_then(Bettor::poll_timeout);
        let says = [bets, self.next_report].into_iter().flatten().min().filter(|_| self.channels.is_open());
        [self.channels.poll_timeout(), says].into_iter().flatten().min()
    }

    /// Bets and reports, if it is time.
    pub fn handle_timeout(&mut self, now: Instant, played: &Played, tally: &mut BetTally) {
        if self.channels.poll_timeout().is_some_and(|at| at <= now) {
            self.channels.handle_timeout(now);
        }
        if let Some(bettor) = &mut self.bettor {
            bettor.handle_timeout(now, &mut self.channels, tally);
        }
        if let (Some(interval), Some(due)) = (self.report_interval, self.next_report)
            && due <= now
            && self.channels.is_open()
        {
            self.next_report = Some(due.max(now.checked_sub(interval).unwrap_or(due)) + interval);
            let Played { frames, bytes, lost } = played;
            // As long as the player SDK's, and with a browser's fields.
            let text = format!(
                r#"{{"type":"stats","clientTs":1795708800000,"fps":30,"framesReceived":{frames},"framesDecoded":{frames},"framesDropped":0,"bytesReceived":{bytes},"packetsLost":{lost},"freezeCount":0,"freezesMs":0,"jitterBufferDelay":20,"rttMs":1.5}}"#
            );
            self.reports += u64::from(self.channels.send(now, QOS, &text));
        }
    }

    /// Hands each packet that is due to `send`.
    pub fn poll_transmit(&mut self, now: Instant, send: impl FnMut(&[u8])) {
        self.channels.poll_transmit(now, send);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use tableside::rtc::data_channel::{ChannelEvent, ChannelId, DataChannels, SctpConfig};

    use super::*;

    /// A player's side at a gateway's own channels.
    struct Table {
        now: Instant,
        side: DataSide,
        server: DataChannels,
        tally: BetTally,
        events: Vec<ChannelEvent>,
    }

    impl Table {
        fn new(role: DtlsRole, says: Says) -> Self {
            let now = Instant::now();
            let side = DataSide::new(now, role, says).expect("an association");
            let server = DataChannels::new(&SctpConfig::new(65_536));
            let mut table = Self { now, side, server, tally: BetTally::default(), events: Vec::new() };
            table.exchange();
            table
        }

        fn exchange(&mut self) {
            loop {
                let (mut up, mut down) = (Vec::new(), Vec::new());
                self.side.poll_transmit(self.now, |packet| up.push(packet.to_vec()));
                up.iter().for_each(|packet| self.server.handle_packet(self.now, packet));
                self.server.poll_events(self.now, |event| self.events.push(event));
                self.server.poll_transmit(self.now, |packet| down.push(packet.to_vec()));
                down.iter().for_each(|packet| self.side.handle_packet(self.now, packet, &mut self.tally));
                if up.is_empty() && down.is_empty() {
                    return;
                }
            }
        }

        fn pass(&mut self, time: Duration) {
            self.now += time;
            self.side.handle_timeout(self.now, &PLAYED, &mut self.tally);
            self.exchange();
        }

        fn bettor(&mut self) -> &mut Bettor {
            self.side.bettor().expect("it bets")
        }

        /// The channel of this label, and what came on it since the last time.
        fn came_on(&mut self, wanted: &str) -> (ChannelId, Vec<serde_json::Value>) {
            let opened = self.events.iter().find_map(|event| match event {
                ChannelEvent::Opened { id, label } if label == wanted => Some(*id),
                _ => None,
            });
            let channel = opened.expect("it opens the channel");
            let mut came = Vec::new();
            self.events.retain(|event| match event {
                ChannelEvent::Message { id, data } if *id == channel => {
                    came.push(serde_json::from_slice(data).expect("JSON"));
                    false
                }
                _ => true,
            });
            (channel, came)
        }

        fn say(&mut self, channel: ChannelId, text: &str) {
            self.server.send(self.now, channel, text).expect("room");
            self.exchange();
        }
    }

    const BETS_ALONE: Says = Says { bets: Some(Duration::from_millis(100)), reports: None };

    const PLAYED: Played = Played { frames: 60, bytes: 90_000, lost: 2 };

    fn ack(bet_id: &str, status: &str) -> String {
        format!(r#"{{"type":"ack","betId":"{bet_id}","status":"{status}","timing":{{"receivedTs":1,"edgeMs":0.25}}}}"#)
    }

    #[test]
    fn each_signal_is_counted_until_it_has_its_outcome() {
        for role in [DtlsRole::Client, DtlsRole::Server] {
            let mut table = Table::new(role, BETS_ALONE);
            let now = table.now;
            table.bettor().begin(now);
            for n in 0..10 {
                assert_eq!(table.tally.sent, n);
                let due = table.bettor().poll_timeout().expect("it bets");
                let wait = due - table.now;
                assert!(!wait.is_zero() && wait <= Duration::from_millis(200), "{wait:?}");
                table.pass(wait);
            }
            table.bettor().stop();
            table.pass(Duration::from_secs(1));
            let (channel, came) = table.came_on(BETS);
            assert_eq!((came.len(), table.tally.sent, table.bettor().waiting()), (10, 10, 10));
            let keys: std::collections::HashSet<_> = came.iter().map(|bet| bet["idempotencyKey"].to_string()).collect();
            assert_eq!(keys.len(), 10);
            for bet in &came[..9] {
                table.say(channel, &ack(bet["betId"].as_str().expect("a name"), "accepted"));
            }
            table.say(channel, &ack("0", "accepted"));
            table.say(channel, &ack("77", "accepted"));
            table.say(channel, "nonsense");
            assert_eq!(table.tally.outcomes, BTreeMap::from([("accepted".to_owned(), 9)]));
            assert_eq!((table.bettor().waiting(), table.tally.late, table.tally.strange), (1, 1, 2));
            assert_eq!((table.tally.round_trip.len(), table.tally.upstream.len()), (9, 0));
        }
    }

    #[test]
    fn it_bets_in_the_round_that_is_open() {
        let mut table = Table::new(DtlsRole::Client, BETS_ALONE);
        let events = table.events.iter().find_map(|event| match event {
            ChannelEvent::Opened { id, label } if label == "events" => Some(*id),
            _ => None,
        });
        table.say(events.expect("it opens the channel"), r#"{"type":"round.open","roundId":"r-7","captureTs":1}"#);
        let now = table.now;
        table.bettor().begin(now);
        table.pass(Duration::from_millis(200));
        assert_eq!(table.came_on(BETS).1[0]["roundId"], "r-7");
    }

    #[test]
    fn it_reports_how_it_plays_every_interval_beside_its_bets() {
        for bets in [None, BETS_ALONE.bets] {
            let reports = Some(Duration::from_secs(2));
            let mut table = Table::new(DtlsRole::Client, Says { bets, reports });
            assert!(table.came_on(QOS).1.is_empty(), "the first is spread over the interval");
            (0..20).for_each(|_| table.pass(Duration::from_millis(500)));
            let (_, came) = table.came_on(QOS);
            assert_eq!((came.len(), table.side.reports()), (5, 5));
            assert_eq!(
                (&came[4]["type"], &came[4]["framesDecoded"], &came[4]["packetsLost"]),
                (&"stats".into(), &60.into(), &2.into())
            );
        }
    }
}
