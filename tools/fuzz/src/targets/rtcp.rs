//! RTCP of a peer, read to the end of everything it may contain; and what our writers make of the same numbers.

use std::time::{Duration, Instant};

use tableside::rtc::rtcp::{FirEntry, Packet, RtcpWriter, TwccRecorder, packets};

use crate::input::Input;

/// The first byte chooses between reading and writing.
pub(crate) fn run(data: &[u8]) {
    let Some((first, rest)) = data.split_first() else { return };
    match first % 4 {
        0 | 1 => walk(rest),
        2 => write(&mut Input::new(rest)),
        _ => record(&mut Input::new(rest)),
    }
}

/// Asks for everything that is in there; none of it may be more than its bytes can hold.
pub(super) fn walk(datagram: &[u8]) {
    let bytes = datagram.len();
    let mut count = 0;
    for packet in packets(datagram) {
        count += 1;
        let Ok(packet) = packet else { continue };
        let (items, most) = match packet {
            Packet::Pli { .. } | Packet::Unknown(_) => (0, 0),
            Packet::SenderReport { blocks, .. } | Packet::ReceiverReport { blocks, .. } => (blocks.count(), 31),
            Packet::SourceDescription(chunks) => (chunks.count(), 31),
            Packet::Bye { ssrcs } => (ssrcs.count(), 31),
            Packet::Remb { ssrcs, .. } => (ssrcs.count(), 255),
            Packet::Nack { entries, .. } => (entries.count(), bytes / 4 * 17),
            Packet::TransportFeedback(feedback) => {
                feedback.reference_ticks();
                (feedback.statuses().count(), usize::from(u16::MAX))
            }
            Packet::Fir { entries, .. } => (entries.count(), bytes / 8),
            Packet::ExtendedReport { blocks, .. } => (blocks.count(), bytes / 4),
        };
        assert!(items <= most, "{items} items in {bytes} bytes");
    }
    assert!(count <= bytes / 4 + 1);
}

fn write(input: &mut Input<'_>) {
    let mut buffer = vec![0; usize::from(input.word() % 1500)];
    let mut writer = RtcpWriter::new(&mut buffer);
    while !input.is_empty() {
        let before = writer.len();
        let written = match input.byte() % 5 {
            0 => {
                let first = input.word();
                let gaps = input.short().to_vec();
                let lost: Vec<u16> = gaps
                    .iter()
                    .scan(first, |n, gap| {
                        *n = n.wrapping_add(u16::from(*gap).max(1));
                        Some(*n)
                    })
                    .collect();
                let written = writer.nack(1, 2, lost.iter().copied());
                if let (Ok(()), false) = (&written, lost.is_empty()) {
                    let Some(Ok(Packet::Nack { entries, .. })) = packets(&writer.as_bytes()[before..]).next() else {
                        panic!("a NACK is read as something else");
                    };
                    assert_eq!(entries.collect::<Vec<u16>>(), lost);
                }
                written
            }
            1 => writer.pli(input.long(), input.long()),
            2 => {
                let entry = FirEntry { ssrc: input.long(), command_number: input.byte() };
                writer.fir(1, &vec![entry; usize::from(input.byte())])
            }
            3 => writer.remb(1, u64::from(input.long()) << (input.byte() % 32), &[2; 3]),
            _ => writer.source_description(input.long(), &String::from_utf8_lossy(input.short())),
        };
        assert!(written.is_ok() || writer.len() == before, "half a packet was written");
        assert!(packets(writer.as_bytes()).all(|packet| packet.is_ok()), "what we write can be read");
    }
}

/// Transport-wide numbers as they arrive, and the feedback about them.
fn record(input: &mut Input<'_>) {
    let mut now = Instant::now();
    let mut recorder = TwccRecorder::new(Duration::from_millis(50));
    let mut sequence = 0_u16;
    while !input.is_empty() {
        let what = input.byte();
        now += Duration::from_micros(match what % 4 {
            0 => 0,
            1 => input.byte().into(),
            2 => u64::from(input.word()) * 8,
            _ => u64::from(input.word()) * 1000,
        });
        sequence = sequence.wrapping_add(if what & 0x80 == 0 { 1 } else { input.word() });
        recorder.handle_packet(now, sequence);
        if what & 0x40 == 0 {
            continue;
        }
        let mut buffer = vec![0; usize::from(input.word() % 1500)];
        let mut writer = RtcpWriter::new(&mut buffer);
        // Each call reports on at least one number more, of the last 1024.
        for _ in 0..1025 {
            if !recorder.write_feedback(1, 2, &mut writer) {
                break;
            }
        }
        walk(writer.as_bytes());
        assert!(packets(writer.as_bytes()).all(|packet| packet.is_ok()), "what we write can be read");
    }
}

/// Compound packets as browsers send them.
pub(crate) fn compounds() -> Vec<Vec<u8>> {
    let words = |words: &[u32]| words.iter().flat_map(|word| word.to_be_bytes()).collect::<Vec<u8>>();
    let report = words(&[0x81c9_0007, 1, 0x1111_1110, 0x0500_0001, 0x0001_0002, 9, 0x1234_5678, 0x0000_8000]);
    let remb = words(&[0x8fce_0005, 1, 0, 0x5245_4d42, 0x0103_fd00, 0x1111_1110]);
    let nack = words(&[0x81cd_0003, 1, 0x1111_1110, 0x0007_0003]);
    let pli = words(&[0x81ce_0002, 1, 0x1111_1110]);
    let fir = words(&[0x84ce_0004, 1, 0, 0x1111_1110, 0x0100_0000]);
    let sender = words(&[0x80c8_0006, 0x2222_2220, 0xe5e5_0000, 0x8000_0000, 0x0001_e240, 10, 1000]);
    let sdes = words(&[0x81ca_0003, 0x2222_2220, 0x0104_6e61, 0x6d65_0000]);
    let bye = words(&[0x81cb_0001, 0x2222_2220]);
    let xr = words(&[0x80cf_0004, 1, 0x0400_0002, 0xe5e5_0000, 0x8000_0000]);
    // Base 7, two packets, reference time 1, feedback 0: a run of two small deltas.
    let twcc = words(&[0xafcd_0005, 1, 0x1111_1110, 0x0007_0002, 0x0000_0100, 0x2002_0404]);
    let compound = [&report[..], &remb, &nack, &pli].concat();
    vec![compound, report, nack, fir, [sender, sdes, bye].concat(), xr, twcc]
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let read = compounds().into_iter().map(|compound| [&[0], &compound[..]].concat());
    let write =
        vec![2, 1, 0, 0, 0, 9, 3, 1, 16, 40, 1, 0, 0, 0, 1, 0, 0, 0, 2, 3, 0, 1, 0, 0, 4, 4, 0, 0, 0, 1, 2, b'a', b'b'];
    let record = vec![3, 0, 1, 200, 0x82, 0, 4, 1, 1, 0x41, 9, 2, 0, 0x43, 0, 9, 5, 0];
    read.chain([write, record]).collect()
}
