//! Chains, and what is done to them.

use proptest::prelude::*;
use serde_json::Value;

use super::digest::Hex;
use super::*;

/// Segments of a chain as they are written: `lengths` says how many signals each has.
struct Trail {
    key: SigningKey,
    segments: Vec<Vec<u8>>,
}

fn header(segment: u64, key: &SigningKey) -> Entry {
    let (chain, boot, node) = (Hex([7; 8]), Hex([9; 8]), "edge-1".to_owned());
    Entry::Segment(SegmentHeader { version: VERSION, chain, segment, node, boot, key: key.id(), replaces: None })
}

fn signal(n: u64) -> SignalRecord {
    SignalRecord {
        received: Timestamp(1_790_000_000_000_000 + n),
        client: Timestamp(1_790_000_000_000_000),
        player: format!("player-{}", n % 3),
        table: ["roulette", "blackjack"][n as usize % 2].to_owned(),
        round: "1790000000-3".to_owned(),
        bet: format!("b-{n}"),
        key: format!("k-{n}"),
        message: Digest::of(&n.to_be_bytes()),
        outcome: ["accepted", "rejected", "refused", "unconfirmed"][n as usize % 4].to_owned(),
        reason: [None, Some("round_closed"), Some("rate_limited"), None][n as usize % 4].map(str::to_owned),
        late: false,
        passed_on: (n % 4 < 2).then_some(20),
        answered: (n % 4 < 2).then_some(12_824),
        decided: 12_900,
        last_mile: (!n.is_multiple_of(5)).then_some(34_200),
    }
}

impl Trail {
    fn new(lengths: &[u64]) -> Self {
        let key = SigningKey::generate().unwrap();
        let (mut chain, mut segments, mut n) = (Chain::EMPTY, Vec::new(), 0);
        for (number, length) in lengths.iter().enumerate() {
            let mut bytes = Vec::new();
            let ts = Timestamp(1_790_000_000_000_000 + number as u64);
            chain.append(&mut bytes, ts, &header(number as u64 + 1, &key));
            for _ in 0..*length {
                chain.append(&mut bytes, ts, &Entry::Signal(Box::new(signal(n))));
                n += 1;
                if n % 3 == 0 {
                    chain.seal(&mut bytes, ts, &key);
                }
            }
            chain.seal(&mut bytes, ts, &key);
            segments.push(bytes);
        }
        Self { key, segments }
    }

    fn verifier(&self) -> Verifier {
        Verifier::new(vec![self.key.verifying_key()])
    }

    fn verdict(&self) -> Verdict {
        verify(self.verifier(), &self.segments)
    }

    /// The last checkpoint, as it is exported.
    fn exported(&self) -> ExpectedCheckpoint {
        ExpectedCheckpoint::parse(lines(self.segments.last().unwrap()).last().unwrap()).unwrap()
    }

    /// What is wrong when this is done to the lines of a segment.
    fn after(&self, segment: usize, change: impl FnOnce(&mut Vec<Vec<u8>>)) -> Vec<Problem> {
        let mut segments = self.segments.clone();
        let mut all: Vec<Vec<u8>> = lines(&segments[segment]).map(<[u8]>::to_vec).collect();
        change(&mut all);
        segments[segment] = all.concat();
        problems(&verify(self.verifier(), &segments))
    }
}

fn lines(segment: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    segment.split_inclusive(|byte| *byte == b'\n')
}

fn verify(verifier: Verifier, segments: &[Vec<u8>]) -> Verdict {
    in_pieces(verifier, segments, usize::MAX)
}

fn in_pieces(mut verifier: Verifier, segments: &[Vec<u8>], piece: usize) -> Verdict {
    for (n, segment) in segments.iter().enumerate() {
        verifier.begin(&format!("audit-{n}"));
        segment.chunks(piece.min(segment.len().max(1))).for_each(|piece| verifier.feed(piece, &mut |_, _| {}));
    }
    verifier.finish()
}

fn problems(verdict: &Verdict) -> Vec<Problem> {
    verdict.findings.iter().map(|finding| finding.problem.clone()).collect()
}

/// Changes a word in a line, which stays one.
fn edit(line: &mut Vec<u8>, from: &str, to: &str) {
    let text = String::from_utf8(line.clone()).unwrap();
    assert!(text.contains(from), "{text}");
    *line = text.replacen(from, to, 1).into_bytes();
}

#[test]
fn a_chain_as_it_was_written_is_intact_and_counted() {
    let trail = Trail::new(&[5, 4]);
    let verdict = verify(trail.verifier().sealed().expect(vec![trail.exported()]), &trail.segments);
    assert_eq!(problems(&verdict), []);
    assert_eq!((verdict.segments, verdict.lines, verdict.checkpoints), (2, 16, 5));
    assert_eq!((verdict.outcomes, verdict.unsealed, verdict.confirmed), ([3, 2, 2, 2], 0, 1));
    assert!(verdict.signatures_checked);
}

#[test]
fn the_form_of_a_line_is_the_documented_one() {
    let page = include_str!("../../../docs/audit.md");
    let examples: Vec<&str> = page.lines().filter(|line| line.starts_with(r#"{"seq":"#)).collect();
    assert!(examples.len() >= 6, "docs/audit.md shows each kind of line");
    for example in examples {
        assert!(Line::parse(format!("{example}\n").as_bytes()).is_ok(), "{example}");
    }
}

#[test]
fn what_has_another_form_is_no_line() {
    let trail = Trail::new(&[1]);
    let line = String::from_utf8(lines(&trail.segments[0]).nth(1).unwrap().to_vec()).unwrap();
    assert!(Line::parse(line.as_bytes()).is_ok());
    for (other, why) in [
        (line.replace(':', ": "), NotALine::NotCanonical),
        (line.replace("\"late\":false", "\"late\":false,\"more\":1"), NotALine::NotCanonical),
        (line.replace("\"seq\":1", "\"seq\":01"), NotALine::Malformed),
        (line.replace("player-0", "player-\\u0030"), NotALine::NotCanonical),
        (line.replace("\"late\"", "\"late\":true,\"late\""), NotALine::Malformed),
        (line.replace("\"signal\"", "\"song\""), NotALine::Malformed),
        (line.trim_end().to_owned(), NotALine::Torn),
        (format!("{}\n", "x".repeat(LONGEST)), NotALine::TooLong),
    ] {
        assert_eq!(Line::parse(other.as_bytes()), Err(why), "{other}");
    }
}

#[test]
fn a_changed_record_is_named() {
    let trail = Trail::new(&[5, 4]);
    let change = |seq: usize, from: &'static str, to: &'static str| trail.after(0, |all| edit(&mut all[seq], from, to));
    assert_eq!(change(2, "rejected", "accepted"), [Problem::Changed { seq: 2 }]);
    assert_eq!(change(0, "edge-1", "edge-2"), [Problem::Changed { seq: 0 }]);
    assert!(change(2, "\"seq\":2", "\"seq\":3").contains(&Problem::Removed { first: 2, last: 2 }));
    let of_checkpoint = trail.after(1, |all| {
        let last = all.last_mut().unwrap();
        edit(last, "\"ts\":1790000000000001", "\"ts\":1790000000000002");
    });
    assert_eq!(of_checkpoint, [Problem::BadSignature { seq: 15 }]);
    let unreadable = trail.after(0, |all| all[2] = b"{}\n".to_vec());
    assert_eq!(unreadable, [Problem::Unreadable { why: NotALine::Malformed }]);
    let own_link = trail.after(0, |all| {
        let other = Digest::of(b"another");
        let line = Line::parse(&all[2]).unwrap();
        edit(&mut all[2], &line.prev.to_string(), &other.to_string());
    });
    assert_eq!(own_link, [Problem::Changed { seq: 2 }]);
}

#[test]
fn removed_moved_and_doubled_records_are_told_apart() {
    let trail = Trail::new(&[5, 4]);
    assert_eq!(trail.after(0, |all| drop(all.drain(2..4))), [Problem::Removed { first: 2, last: 3 }]);
    assert_eq!(trail.after(0, |all| all.swap(1, 2)), [Problem::Moved { seq: 1 }]);
    assert_eq!(trail.after(0, |all| all.insert(3, all[1].clone())), [Problem::Repeated { seq: 1 }]);
    let end = trail.after(0, |all| drop(all.pop()));
    assert_eq!(end, [Problem::NotSealed, Problem::Removed { first: 7, last: 7 }]);
    let header = trail.after(1, |all| drop(all.remove(0)));
    assert_eq!(header, [Problem::Header, Problem::Removed { first: 8, last: 8 }]);
}

#[test]
fn missing_and_swapped_segments_are_found() {
    let trail = Trail::new(&[2, 2, 2]);
    let of = |order: &[usize]| {
        let segments: Vec<Vec<u8>> = order.iter().map(|n| trail.segments[*n].clone()).collect();
        problems(&verify(trail.verifier(), &segments))
    };
    assert_eq!(of(&[0, 2]), [Problem::Removed { first: 4, last: 8 }]);
    assert_eq!(of(&[1, 2]), [Problem::NoBeginning { seq: 4 }]);
    assert!(of(&[0, 2, 1]).contains(&Problem::Moved { seq: 5 }));
    assert_eq!(of(&[]), [Problem::Empty]);
    let partial = verify(trail.verifier().partial().expect(vec![trail.exported()]), &trail.segments[1..]);
    assert_eq!((problems(&partial), partial.confirmed), (vec![], 1));
    let older = ExpectedCheckpoint::parse(lines(&trail.segments[0]).last().unwrap()).unwrap();
    let partial = verify(trail.verifier().partial().expect(vec![older]), &trail.segments[1..]);
    assert_eq!((problems(&partial), partial.unconfirmed), (vec![], 1));
    let other = Trail::new(&[2, 2]);
    let mixed = verify(trail.verifier(), &[trail.segments[0].clone(), other.segments[1].clone()]);
    assert!(!mixed.is_intact());
}

#[test]
fn a_cut_end_shows_against_an_exported_checkpoint_and_not_without() {
    let trail = Trail::new(&[5, 4]);
    let mut cut = trail.segments.clone();
    let keep: Vec<&[u8]> = lines(&trail.segments[1]).take(3).collect();
    cut[1] = keep.concat();
    let verdict = verify(trail.verifier(), &cut);
    assert_eq!((problems(&verdict), verdict.unsealed), (vec![], 0), "it ends with a checkpoint, as a chain may");
    let verdict = verify(trail.verifier().expect(vec![trail.exported()]), &cut);
    let [Problem::Truncated { expected: 15, found: 11, .. }] = problems(&verdict)[..] else { panic!("{verdict:?}") };
    assert_eq!(cut[1].pop(), Some(b'\n'));
    assert_eq!(problems(&verify(trail.verifier(), &cut)), [Problem::Torn]);
}

#[test]
fn a_chain_that_was_written_anew_shows_by_its_signature_and_by_an_exported_checkpoint() {
    let (trail, forged) = (Trail::new(&[5, 4]), Trail::new(&[5, 4]));
    let by_signature = problems(&verify(trail.verifier(), &forged.segments));
    assert!(by_signature.contains(&Problem::UnknownKey { seq: 4, key: forged.key.id() }));
    assert!(by_signature.contains(&Problem::NothingSigned));
    // Who has stolen the signing key as well.
    let by_checkpoint = verify(forged.verifier().expect(vec![trail.exported()]), &forged.segments);
    assert_eq!(problems(&by_checkpoint), [Problem::Contradicted { seq: 15 }]);
    assert!(trail.exported().is_signed_by(&[trail.key.verifying_key()]));
    assert!(!trail.exported().is_signed_by(&[forged.key.verifying_key()]));
}

#[test]
fn what_follows_the_last_checkpoint_is_counted_and_may_be_forbidden() {
    let trail = Trail::new(&[4]);
    let mut segments = trail.segments.clone();
    let keep: Vec<&[u8]> = lines(&segments[0]).take(6).collect();
    segments[0] = keep.concat();
    let verdict = verify(trail.verifier(), &segments);
    assert_eq!((problems(&verdict), verdict.unsealed, verdict.sealed.map(|s| s.0)), (vec![], 1, Some(4)));
    let verdict = verify(trail.verifier().sealed(), &segments);
    assert_eq!(problems(&verdict), [Problem::Unsealed { lines: 1 }]);
    let unchecked = verify(Verifier::new(Vec::new()), &trail.segments);
    assert!(unchecked.is_intact() && !unchecked.signatures_checked);
}

#[test]
fn floods_of_findings_and_endless_lines_cost_no_memory() {
    let trail = Trail::new(&[2]);
    let garbage = vec![b"\n".repeat(5000), b"x".repeat(1 << 20), trail.segments[0].clone()];
    let verdict = in_pieces(trail.verifier(), &garbage, 1000);
    assert_eq!(verdict.findings.len(), 1000);
    assert!(verdict.further_findings > 4000);
}

/// What can be done to a chain.
#[derive(Clone, Debug)]
enum Attack {
    Byte { at: usize, to: u8 },
    Insert { at: usize, byte: u8 },
    Delete { at: usize, length: usize },
    RemoveLine { line: usize },
    DoubleLine { line: usize, to: usize },
    SwapLines { one: usize, other: usize },
    CutEnd { length: usize },
}

fn attack() -> impl Strategy<Value = Attack> {
    let n = any::<usize>;
    prop_oneof![
        4 => (n(), any::<u8>()).prop_map(|(at, to)| Attack::Byte { at, to }),
        1 => (n(), any::<u8>()).prop_map(|(at, byte)| Attack::Insert { at, byte }),
        1 => (n(), 1..400_usize).prop_map(|(at, length)| Attack::Delete { at, length }),
        1 => n().prop_map(|line| Attack::RemoveLine { line }),
        1 => (n(), n()).prop_map(|(line, to)| Attack::DoubleLine { line, to }),
        1 => (n(), n()).prop_map(|(one, other)| Attack::SwapLines { one, other }),
        1 => n().prop_map(|length| Attack::CutEnd { length }),
    ]
}

fn attacked(segment: &[u8], attack: &Attack) -> Vec<u8> {
    let mut bytes = segment.to_vec();
    let mut all: Vec<Vec<u8>> = lines(segment).map(<[u8]>::to_vec).collect();
    let count = all.len();
    match *attack {
        Attack::Byte { at, to } => bytes[at % segment.len()] = to,
        Attack::Insert { at, byte } => bytes.insert(at % segment.len(), byte),
        Attack::Delete { at, length } => {
            let at = at % segment.len();
            bytes.drain(at..segment.len().min(at + length));
        }
        Attack::CutEnd { length } => bytes.truncate(segment.len() - 1 - length % segment.len()),
        Attack::RemoveLine { line } => drop(all.remove(line % count)),
        Attack::DoubleLine { line, to } => all.insert(to % count, all[line % count].clone()),
        Attack::SwapLines { one, other } => all.swap(one % count, other % count),
    }
    match attack {
        Attack::RemoveLine { .. } | Attack::DoubleLine { .. } | Attack::SwapLines { .. } => all.concat(),
        _ => bytes,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn whatever_is_done_to_a_sealed_chain_shows(
        lengths in prop::collection::vec(0..7_u64, 1..4), which: usize, attacks in prop::collection::vec(attack(), 1..3),
    ) {
        let trail = Trail::new(&lengths);
        prop_assert!(trail.verdict().is_intact());
        let mut segments = trail.segments.clone();
        let which = which % segments.len();
        for attack in &attacks {
            if segments[which].len() > 1 {
                segments[which] = attacked(&segments[which], attack);
            }
        }
        let verdict = verify(trail.verifier().expect(vec![trail.exported()]), &segments);
        prop_assert_eq!(verdict.is_intact(), segments == trail.segments);
        prop_assert!(verdict.findings.iter().all(|finding| !finding.to_string().is_empty()));
    }

    #[test]
    fn the_pieces_in_which_bytes_come_change_nothing(length in 0..5_u64, piece in 1..700_usize, attack in attack()) {
        let trail = Trail::new(&[length, 1]);
        let segments = vec![attacked(&trail.segments[0], &attack), trail.segments[1].clone()];
        prop_assert_eq!(in_pieces(trail.verifier(), &segments, piece), verify(trail.verifier(), &segments));
    }

    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), text in "\\PC{0,80}") {
        let segments = vec![bytes, format!("{{\"seq\":18446744073709551615,\"prev\":\"{text}\n").into_bytes()];
        prop_assert!(!verify(Verifier::new(Vec::new()), &segments).is_intact());
    }

    #[test]
    fn a_record_is_read_back_as_it_was_written(
        names in prop::array::uniform5("[!-~]{1,64}"), reason in prop::option::of("\\PC{0,40}"),
        times in prop::array::uniform6(any::<u64>()), late: bool,
    ) {
        let [player, table, round, bet, key] = names;
        let record = SignalRecord {
            received: Timestamp(times[0]), client: Timestamp(times[1]), player, table, round, bet, key, reason, late,
            message: Digest::of(&[1]), outcome: "accepted".to_owned(), passed_on: Some(times[2]), answered: None,
            decided: times[3], last_mile: Some(times[4]),
        };
        let mut bytes = Vec::new();
        let mut chain = Chain::after(times[5], Digest::ZERO);
        if times[5] < u64::MAX {
            chain.append(&mut bytes, Timestamp(times[5]), &Entry::Signal(Box::new(record.clone())));
            let line = Line::parse(&bytes).unwrap();
            prop_assert_eq!((line.seq, line.entry), (times[5], Entry::Signal(Box::new(record))));
        }
    }

    #[test]
    fn a_row_has_as_many_cells_as_the_header_and_none_that_begins_a_formula(
        player in "[!-~]{1,20}", reason in prop::option::of("[\u{0}-\u{ff}]{0,20}"),
    ) {
        let mut record = signal(1);
        (record.player, record.reason) = (player.clone(), reason);
        let line = Line { seq: 1, prev: Digest::ZERO, ts: Timestamp(0), entry: Entry::Signal(Box::new(record)) };
        let (mut exporter, mut csv) = (Exporter::new(Format::Csv, Filter::default()), Vec::new());
        exporter.write(&line, None, &mut csv);
        let cells = parse_csv(std::str::from_utf8(&csv).unwrap());
        prop_assert_eq!(cells.len(), CSV_HEADER.len());
        prop_assert!(cells.iter().all(|cell| !cell.starts_with(['=', '+', '-', '@', '\t', '\r'])));
        prop_assert_eq!(cells[6].replace('\'', ""), player.replace('\'', ""));
    }
}

/// The cells of one row, by RFC 4180.
fn parse_csv(text: &str) -> Vec<String> {
    let (mut cells, mut cell, mut quoted) = (Vec::new(), String::new(), false);
    let mut chars = text.strip_suffix("\r\n").unwrap().chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => {
                chars.next();
                cell.push('"');
            }
            '"' => quoted = !quoted,
            ',' if !quoted => cells.push(std::mem::take(&mut cell)),
            _ => cell.push(c),
        }
    }
    cells.push(cell);
    cells
}

fn exported(filter: Filter, format: Format) -> String {
    let trail = Trail::new(&[5, 4]);
    let (mut exporter, mut out) = (Exporter::new(format, filter), Vec::new());
    exporter.begin(false, &mut out);
    let mut verifier = trail.verifier();
    for segment in &trail.segments {
        verifier.begin("audit");
        verifier.feed(segment, &mut |line, header| exporter.write(line, header, &mut out));
    }
    assert_eq!(exporter.rows(), out.split(|byte| *byte == b'\n').count() as u64 - 1 - u64::from(format == Format::Csv));
    String::from_utf8(out).unwrap()
}

#[test]
fn an_export_has_the_wanted_records_with_their_legs() {
    let all = exported(Filter::default(), Format::Csv);
    let rows: Vec<&str> = all.split_inclusive("\r\n").collect();
    assert_eq!((rows.len(), rows[0].trim_end()), (10, CSV_HEADER.join(",").as_str()));
    let cells = parse_csv(rows[2]);
    let of = |name| cells[CSV_HEADER.iter().position(|column| *column == name).unwrap()].as_str();
    assert_eq!((of("seq"), of("type"), of("outcome"), of("reason")), ("2", "signal", "rejected", "round_closed"));
    assert_eq!((of("edge_ms"), of("upstream_ms"), of("last_mile_ms")), ("0.096", "12.804", "34.200"));
    assert_eq!((of("received_utc"), of("node")), ("2026-09-21 14:13:20.000", "edge-1"));
    let of_table = Filter { tables: ["roulette".to_owned()].into(), ..Filter::default() };
    assert_eq!(exported(of_table, Format::JsonLines).lines().count(), 5);
    let of_player = Filter { players: ["player-1".to_owned()].into(), ..Filter::default() };
    assert_eq!(exported(of_player, Format::JsonLines).lines().count(), 3);
    let time = |n: u64| Some(Timestamp(1_790_000_000_000_000 + n));
    let of_time = exported(Filter { from: time(2), to: time(4), ..Filter::default() }, Format::JsonLines);
    let bets: Vec<Value> =
        of_time.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["bet"].clone()).collect();
    assert_eq!(bets, ["b-2", "b-3"]);
}

#[test]
fn what_is_lost_is_exported_to_everybody_it_may_concern() {
    let gap = Entry::Gap(GapRecord { lost: 3, from: Timestamp(10), to: Timestamp(20) });
    let line = Line { seq: 1, prev: Digest::ZERO, ts: Timestamp(30), entry: gap };
    let rows = |from, to| {
        let players = ["ann".to_owned()].into();
        let filter = Filter { from: Some(Timestamp(from)), to: Some(Timestamp(to)), players, ..Filter::default() };
        let mut exporter = Exporter::new(Format::Csv, filter);
        exporter.write(&line, None, &mut Vec::new());
        exporter.rows()
    };
    assert_eq!([rows(0, 10), rows(0, 11), rows(20, 30), rows(21, 30)], [0, 1, 1, 0]);
}

#[test]
fn where_semicolons_separate_cells_none_begins_a_formula_either() {
    let mut record = signal(1);
    record.player = "a;=HYPERLINK(1)".to_owned();
    record.reason = Some("no\t@b;\"=c\",=d\r\n+e;f".to_owned());
    let line = Line { seq: 1, prev: Digest::ZERO, ts: Timestamp(0), entry: Entry::Signal(Box::new(record)) };
    let (mut exporter, mut csv) = (Exporter::new(Format::Csv, Filter::default()), Vec::new());
    exporter.write(&line, None, &mut csv);
    let csv = String::from_utf8(csv).unwrap();
    assert!(csv.contains("a;'=HYPERLINK(1)"), "{csv}");
    for cell in csv.split([';', '\t', '\r', '\n']) {
        assert!(!cell.trim_start_matches('"').starts_with(['=', '+', '-', '@']), "{csv}");
    }
}

#[test]
fn a_trail_is_of_one_node_and_says_of_which() {
    let trail = Trail::new(&[2]);
    let verdict = verify(trail.verifier().of_node("edge-1".to_owned()), &trail.segments);
    assert_eq!(problems(&verdict), []);
    assert_eq!((verdict.node.as_deref(), verdict.chain), (Some("edge-1"), Some(Hex([7; 8]))));
    let verdict = verify(trail.verifier().of_node("edge-2".to_owned()), &trail.segments);
    assert_eq!(problems(&verdict), [Problem::OtherNode { node: "edge-1".to_owned() }]);
}

#[test]
fn a_checkpoint_is_signed_with_the_key_that_its_segment_names() {
    let trail = Trail::new(&[2]);
    let old = SigningKey::generate().unwrap();
    let mut all: Vec<&[u8]> = lines(&trail.segments[0]).collect();
    all.pop();
    let mut chain = Chain::after(3, Digest::of(all[2]));
    let mut segment = all.concat();
    chain.seal(&mut segment, Timestamp(1), &old);
    let verifier = Verifier::new(vec![trail.key.verifying_key(), old.verifying_key()]);
    let found = problems(&verify(verifier, &[segment]));
    assert_eq!(found, [Problem::OtherKey { seq: 3, key: old.id() }, Problem::NothingSigned]);
}

#[test]
fn every_checkpoint_that_was_exported_has_to_be_there() {
    let (trail, fork) = (Trail::new(&[5, 4]), Trail::new(&[5, 4]));
    let checkpoints = |trail: &Trail| -> Vec<ExpectedCheckpoint> {
        trail.segments.iter().flat_map(|segment| lines(segment)).flat_map(ExpectedCheckpoint::parse).collect()
    };
    let verdict = verify(trail.verifier().expect(checkpoints(&trail)), &trail.segments);
    assert_eq!((problems(&verdict), verdict.confirmed), (vec![], 5));
    // A fork that has outgrown what it contradicts, with one checkpoint in common.
    let mixed = checkpoints(&fork).into_iter().take(2).chain(checkpoints(&trail)).collect::<Vec<_>>();
    let verdict = verify(trail.verifier().expect(mixed), &trail.segments);
    assert_eq!(problems(&verdict), [Problem::Contradicted { seq: 4 }, Problem::Contradicted { seq: 7 }]);
}

#[test]
fn an_open_segment_is_followed_by_a_start_that_says_so_or_found() {
    let trail = Trail::new(&[2]);
    let mut all: Vec<&[u8]> = lines(&trail.segments[0]).collect();
    all.pop();
    let after = |unsealed: u64| {
        let (mut chain, mut second) = (Chain::after(3, Digest::of(all[2])), Vec::new());
        let start = StartRecord {
            node: "edge-1".to_owned(),
            boot: Hex([9; 8]),
            software: String::new(),
            clean: false,
            torn: 0,
            unsealed,
            confirmed: None,
        };
        chain.append(&mut second, Timestamp(7), &header(2, &trail.key));
        chain.append(&mut second, Timestamp(7), &Entry::Start(start));
        chain.seal(&mut second, Timestamp(7), &trail.key);
        verify(trail.verifier(), &[all.concat(), second])
    };
    let verdict = after(3);
    assert_eq!(problems(&verdict), []);
    assert_eq!(verdict.recoveries, [Recovery { seq: 4, at: Timestamp(7), unsealed: 3, torn: 0 }]);
    assert_eq!(problems(&after(2)), [Problem::NotSealed]);
}
