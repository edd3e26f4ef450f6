//! Whatever the codec: a joiner starts with the cached keyframe, gets every payload as it was published, and the frames
//! are counted.

use std::time::Duration;

use tableside::media::{Codec, MediaKind};

use crate::world::{Side, VIDEO_SSRC, World, stream_mut};

const FRAME: Duration = Duration::from_millis(33);

/// Payload heads of a codec's frames: the first packets of a keyframe and of a frame that refers to another.
struct Sample {
    codec: Codec,
    name: &'static str,
    keyframe: &'static [&'static [u8]],
    interframe: &'static [&'static [u8]],
}

const SAMPLES: &[Sample] = &[
    Sample {
        codec: Codec::H264,
        name: "parameter sets in packets of their own, the IDR in two fragments",
        keyframe: &[&[0x67, 0x42], &[0x68, 0xce], &[0x7c, 0x85, 0x88], &[0x7c, 0x45, 0x88]],
        interframe: &[&[0x5c, 0x81, 0x9a], &[0x5c, 0x41, 0x9a]],
    },
    Sample {
        codec: Codec::H265,
        name: "parameter sets in one aggregation packet, the IDR in two fragments",
        keyframe: &[
            &[96, 1, 0, 3, 64, 1, 9, 0, 3, 66, 1, 9, 0, 3, 68, 1, 9],
            &[98, 1, 0x80 | 19, 0xaf],
            &[98, 1, 0x40 | 19, 0xaf],
        ],
        interframe: &[&[98, 1, 0x81, 0xd0], &[98, 1, 0x41, 0xd0]],
    },
    Sample {
        codec: Codec::Vp8,
        name: "two partitions",
        keyframe: &[&[0x10, 0x50], &[0x11, 0x50]],
        interframe: &[&[0x10, 0x51], &[0x11, 0x51]],
    },
    Sample {
        codec: Codec::Vp9,
        name: "one layer",
        keyframe: &[&[0x8a, 0x05, 0x00, 0x82], &[0x84, 0x05, 0x82]],
        interframe: &[&[0xc8, 0x05, 0x86], &[0xc4, 0x05, 0x86]],
    },
    Sample {
        codec: Codec::Vp9,
        name: "two spatial layers in flexible mode, every layer frame in a packet",
        keyframe: &[&[0xbc, 0x05, 0x10, 0x82], &[0xbc, 0x05, 0x13, 0x86]],
        interframe: &[&[0xfc, 0x05, 0x10, 0x02, 0x86], &[0xfc, 0x05, 0x13, 0x02, 0x86]],
    },
    Sample {
        codec: Codec::Av1,
        name: "a frame in two fragments",
        keyframe: &[&[0x68, 3, 0x08, 0, 0, 0x30, 0x10], &[0x90, 0xaa]],
        interframe: &[&[0x50, 0x30, 0x30], &[0x90, 0xaa]],
    },
    Sample {
        codec: Codec::Av1,
        name: "two spatial layers, the sequence header in a packet of its own",
        keyframe: &[&[0x18, 0x08, 0, 0], &[0x10, 0x34, 0x00, 0x10], &[0x10, 0x34, 0x08, 0x30]],
        interframe: &[&[0x10, 0x34, 0x20, 0x30], &[0x10, 0x34, 0x28, 0x30]],
    },
];

impl Sample {
    /// The payloads of frame `number`, each different from all others.
    fn payloads(&self, number: u32, keyframe: bool) -> Vec<Vec<u8>> {
        let heads = if keyframe { self.keyframe } else { self.interframe };
        let name = |n: usize| [number.to_be_bytes(), (n as u32).to_be_bytes()].concat();
        heads.iter().enumerate().map(|(n, head)| [*head, &name(n), &[0xaa; 600]].concat()).collect()
    }
}

/// A world whose publisher and players negotiated `codec`, with the publisher connected.
fn world_of(codec: Codec) -> (World, usize) {
    let mut world = World::new(2);
    let publisher = world.add_publisher_with(Side::Client, |n| stream_mut(n, MediaKind::Video).codec = codec);
    world.connect(publisher);
    (world, publisher)
}

fn publish(world: &mut World, publisher: usize, payloads: &[Vec<u8>]) {
    let datagrams = world.peers[publisher].picture(payloads);
    datagrams.into_iter().for_each(|datagram| world.send(datagram));
    world.deliver();
    world.run(FRAME);
}

/// Frames that came whole from the publisher, and those that did not.
fn frames(world: &mut World) -> (u64, u64) {
    let report = world.report(0);
    let table = &report.tables["roulette"];
    (table.frames_ingested, table.frames_lost_before_ingest)
}

#[test]
fn a_joiner_of_any_codec_starts_with_the_cached_keyframe() {
    for sample in SAMPLES {
        let (mut world, publisher) = world_of(sample.codec);
        let mut published = Vec::new();
        // The second group of pictures is the one that a joiner gets.
        for number in 0..20 {
            let payloads = sample.payloads(number, number % 8 == 0);
            publish(&mut world, publisher, &payloads);
            if number >= 16 {
                published.extend(payloads);
            }
        }
        let before = world.peers[publisher].plis();
        let joiners =
            [0, 1].map(|shard| world.add_player_with(shard, |n| stream_mut(n, MediaKind::Video).codec = sample.codec));
        joiners.iter().for_each(|joiner| world.connect(*joiner));
        for number in 20..25 {
            let payloads = sample.payloads(number, false);
            publish(&mut world, publisher, &payloads);
            published.extend(payloads);
        }
        world.run(FRAME);
        let what = format!("{}, {}", sample.codec, sample.name);
        for joiner in joiners {
            let video = world.peers[joiner].received_on(VIDEO_SSRC);
            let received: Vec<_> = video.iter().map(|packet| packet.payload.clone()).collect();
            assert!(received == published, "{what}: {} packets, not {}", received.len(), published.len());
            assert!(video.windows(2).all(|w| w[1].index == w[0].index + 1), "{what}: in order and without a gap");
        }
        assert_eq!(world.peers[publisher].plis(), before, "{what}: no keyframe was asked for");
        assert_eq!(frames(&mut world), (25, 0), "{what}");
    }
}

#[test]
fn a_joiner_of_any_codec_waits_for_a_keyframe_that_is_not_there() {
    for sample in SAMPLES {
        let (mut world, publisher) = world_of(sample.codec);
        (0..5).for_each(|number| publish(&mut world, publisher, &sample.payloads(number, false)));
        let joiner = world.add_player_with(0, |n| stream_mut(n, MediaKind::Video).codec = sample.codec);
        world.connect(joiner);
        (5..20).for_each(|number| publish(&mut world, publisher, &sample.payloads(number, false)));
        let what = format!("{}, {}", sample.codec, sample.name);
        assert!(world.peers[joiner].received_on(VIDEO_SSRC).is_empty(), "{what}: nothing it could decode");
        assert!(world.peers[publisher].plis() > 0, "{what}: a keyframe was asked for");
        let keyframe = sample.payloads(20, true);
        publish(&mut world, publisher, &keyframe);
        let video = world.peers[joiner].received_on(VIDEO_SSRC);
        let received: Vec<_> = video.iter().map(|packet| packet.payload.clone()).collect();
        assert!(received == keyframe, "{what}");
    }
}

#[test]
fn a_lost_layer_frame_is_a_lost_picture() {
    let sample = SAMPLES.iter().rfind(|sample| sample.codec == Codec::Vp9).expect("with two layers");
    let (mut world, publisher) = world_of(sample.codec);
    for number in 0..60 {
        let mut datagrams = world.peers[publisher].picture(&sample.payloads(number, number == 0));
        if number == 10 {
            // The upper layer, which nobody repairs here.
            datagrams.pop();
        }
        datagrams.into_iter().for_each(|datagram| world.send(datagram));
        world.deliver();
        world.run(FRAME);
    }
    assert_eq!(frames(&mut world), (59, 1));
}
