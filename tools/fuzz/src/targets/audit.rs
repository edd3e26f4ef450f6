//! Segments of an audit trail, as somebody may have left them, and a sealed chain that is damaged: whatever differs from what
//! was written is found, and nothing else is.

use std::sync::OnceLock;

use tableside::bets::BetCounts;
use tableside::bets::audit::{
    Chain, Digest, Entry, ExpectedCheckpoint, Exporter, Filter, Format, GapRecord, Hex, SegmentHeader, SignalRecord,
    SigningKey, Timestamp, TotalsRecord, VERSION, Verdict, Verifier,
};

use crate::input::{Input, damage};

/// One key for the whole run: its signatures are not what is fuzzed.
fn key() -> &'static SigningKey {
    static KEY: OnceLock<SigningKey> = OnceLock::new();
    KEY.get_or_init(|| {
        // RFC 8410 §7: what stands before the 32 bytes of a private key.
        let prefix = [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];
        SigningKey::from_pkcs8(&[&prefix[..], &[7; 32]].concat()).expect("a key")
    })
}

/// Two segments, each ended by a checkpoint.
fn trail() -> &'static [Vec<u8>; 2] {
    static TRAIL: OnceLock<[Vec<u8>; 2]> = OnceLock::new();
    TRAIL.get_or_init(|| {
        let mut chain = Chain::EMPTY;
        [1, 2].map(|segment| {
            let mut bytes = Vec::new();
            let (id, boot, node) = (Hex([1; 8]), Hex([2; 8]), "edge-1".to_owned());
            let header =
                SegmentHeader { version: VERSION, chain: id, segment, node, boot, key: key().id(), replaces: None };
            let entries = [
                Entry::Segment(header),
                Entry::Signal(Box::new(signal(segment))),
                Entry::Totals(TotalsRecord::from(&BetCounts::default())),
                Entry::Signal(Box::new(signal(segment + 7))),
                Entry::Gap(GapRecord { lost: 1, from: Timestamp(1), to: Timestamp(2) }),
                Entry::Stop {},
            ];
            entries.iter().for_each(|entry| chain.append(&mut bytes, Timestamp(segment), entry));
            chain.seal(&mut bytes, Timestamp(segment), key());
            bytes
        })
    })
}

fn signal(n: u64) -> SignalRecord {
    SignalRecord {
        received: Timestamp(n),
        client: Timestamp(n),
        player: "=ann".to_owned(),
        table: "roulette".to_owned(),
        round: "r".to_owned(),
        bet: n.to_string(),
        key: "k".to_owned(),
        message: Digest::of(b"bet"),
        outcome: "rejected".to_owned(),
        reason: Some("\"no\", said she".to_owned()),
        late: n > 7,
        passed_on: Some(1),
        answered: None,
        decided: n,
        last_mile: None,
    }
}

fn verdict(mut verifier: Verifier, segments: &[Vec<u8>], piece: usize) -> Verdict {
    let mut exporters = [Format::Csv, Format::JsonLines].map(|format| Exporter::new(format, Filter::default()));
    let mut out = Vec::new();
    for (n, segment) in segments.iter().enumerate() {
        verifier.begin(&n.to_string());
        for piece in segment.chunks(piece) {
            verifier.feed(piece, &mut |line, header| {
                exporters.iter_mut().for_each(|exporter| exporter.write(line, header, &mut out));
                out.clear();
            });
        }
    }
    let verdict = verifier.finish();
    assert!(verdict.findings.iter().all(|finding| !finding.to_string().is_empty()));
    verdict
}

pub(crate) fn run(data: &[u8]) {
    // As it comes.
    let raw = [data.to_vec()];
    verdict(Verifier::new(vec![key().verifying_key()]), &raw, 7);
    verdict(Verifier::new(Vec::new()).partial().sealed(), &raw, data.len().max(1));
    let _ = ExpectedCheckpoint::parse(data);

    // As damage to a chain that was whole.
    let mut input = Input::new(data);
    let mut segments = trail().clone();
    while !input.is_empty() {
        let which = input.below(segments.len());
        damage(&mut input, &mut segments[which]);
    }
    let last = trail()[1].split_inclusive(|byte| *byte == b'\n').next_back().expect("a checkpoint");
    let expected = ExpectedCheckpoint::parse(last).expect("a checkpoint");
    let verifier = Verifier::new(vec![key().verifying_key()]).expect(vec![expected]);
    let verdict = verdict(verifier, &segments, 4096);
    assert_eq!(verdict.is_intact(), segments == *trail(), "{verdict:?}");
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let [first, second] = trail();
    vec![Vec::new(), first.clone(), [&first[..], second].concat(), vec![0, 0, 9, 1, 3], vec![1, 0, 200, 2]]
}
