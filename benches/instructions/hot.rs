//! What is counted.

use std::time::Duration;

use clap::ValueEnum;
use tableside::fanout::SendBatch;
use tableside::rtc::TransportAddress;
use tableside::rtc::rtcp::{ReportBlock, RtcpWriter};
use tableside::shard::Shard;

use crate::world::{Side, VIDEO_SSRC, World};

/// Players of the table.
const PLAYERS: usize = 16;

/// Packets of a frame, and the frames that are counted.
const PACKETS: usize = 9;
const FRAMES: usize = 40;

/// Reports of each player that are counted.
const REPORTS: usize = 10;

/// A hot function and what leads to it.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Hot {
    /// A packet of a publisher comes in: opened, looked at, put into the ring.
    Ingest,
    /// A packet goes out to a player: numbered, laid out, sealed, put into the batch.
    Egress,
    /// A report of a player comes in: opened, read.
    Report,
}

impl Hot {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Ingest, Self::Egress, Self::Report];

    /// As it is called in the results.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ingest => "ingest",
            Self::Egress => "egress",
            Self::Report => "report",
        }
    }

    /// The function within which callgrind counts.
    pub fn symbol(self) -> &'static str {
        match self {
            Self::Ingest => "*counted_ingest*",
            Self::Egress => "*counted_egress*",
            Self::Report => "*counted_report*",
        }
    }

    /// How many packets are counted.
    pub fn packets(self) -> usize {
        match self {
            Self::Ingest => FRAMES * PACKETS,
            Self::Egress => FRAMES * PACKETS * PLAYERS,
            Self::Report => REPORTS * PLAYERS,
        }
    }

    /// Does it.
    pub fn run(self) {
        let mut world = World::new(1);
        let publisher = world.add_publisher(Side::Client);
        world.connect(publisher);
        let players: Vec<usize> = (0..PLAYERS).map(|_| world.add_player(0)).collect();
        world.connect_all();
        let mut batch = Shard::send_batch();
        // The rings fill, so that memory is used again, and everybody has caught up.
        for n in 0..300 {
            world.publish_frame(publisher, PACKETS, n == 0);
            world.run(Duration::from_millis(33));
        }
        let mut sent = 0;
        for _ in 0..FRAMES {
            world.now += Duration::from_millis(33);
            let mut frame = world.peers[publisher].frame(PACKETS, false);
            frame.truncate(PACKETS);
            let source = TransportAddress::udp(frame[0].from);
            let mut bytes: Vec<Vec<u8>> = frame.into_iter().map(|datagram| datagram.bytes).collect();
            counted_ingest(&mut world, source, &mut bytes);
            while counted_egress(&mut world, &mut batch) {
                sent += batch.messages().iter().map(|message| message.segments()).sum::<usize>();
            }
        }
        assert_eq!(sent, FRAMES * PACKETS * PLAYERS, "nothing else is sent meanwhile");
        for _ in 0..REPORTS {
            for player in &players {
                let mut buffer = [0; 200];
                let mut writer = RtcpWriter::new(&mut buffer);
                let block = ReportBlock { ssrc: VIDEO_SSRC, ..ReportBlock::default() };
                writer.receiver_report(1, &[block]).expect("room");
                let report = world.peers[*player].seal_rtcp(writer.as_bytes()).expect("connected");
                let mut bytes = report.bytes;
                counted_report(&mut world, TransportAddress::udp(report.from), &mut bytes);
            }
        }
        let report = world.report(0);
        assert_eq!(report.dropped.iter().sum::<u64>(), 0, "nothing was refused");
    }
}

#[inline(never)]
fn counted_ingest(world: &mut World, source: TransportAddress, datagrams: &mut [Vec<u8>]) {
    for datagram in datagrams {
        world.shards[0].handle_datagram(world.now, source, datagram);
    }
}

#[inline(never)]
fn counted_egress(world: &mut World, batch: &mut SendBatch) -> bool {
    world.shards[0].poll_transmit(world.now, batch)
}

#[inline(never)]
fn counted_report(world: &mut World, source: TransportAddress, report: &mut [u8]) {
    world.shards[0].handle_datagram(world.now, source, report);
}
