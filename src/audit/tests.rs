//! Directories as crashes, full disks and strangers leave them.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::clock::now;
use super::report::Counters;
use super::ship::Shipper;
use super::trail::segments;
use super::*;
use crate::bets::audit::{
    Chain, Entry, ExpectedCheckpoint, GapRecord, Line, Recovery, SigningKey, Timestamp, Verdict, Verifier,
};
use crate::config::WhenFailing;

/// A directory that is gone at the end of the test.
pub(crate) struct Directory(pub(crate) PathBuf);

impl Directory {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let unique = format!("tableside-trail-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(unique);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn key() -> Arc<SigningKey> {
    Arc::new(SigningKey::generate().unwrap())
}

fn open(directory: &Path, key: &Arc<SigningKey>) -> Result<Trail, OpenError> {
    open_with(directory, key, None, WhenFailing::Refuse).map(|opened| opened.trail)
}

fn open_with(
    directory: &Path,
    key: &Arc<SigningKey>,
    sink: Option<&Path>,
    when_failing: WhenFailing,
) -> Result<Opened, OpenError> {
    static TIME: AtomicU32 = AtomicU32::new(5);
    let (directory, node, key) = (directory.to_owned(), "edge-1".to_owned(), key.clone());
    let sink = sink.map(|root| SinkOptions::Directory(root.to_owned()));
    let options = TrailOptions { directory, node, key, sink, when_failing };
    Trail::open(options, Timestamp(TIME.fetch_add(1, Ordering::Relaxed).into()))
}

fn gap(lost: u64) -> Entry {
    Entry::Gap(GapRecord { lost, from: Timestamp(1), to: Timestamp(2) })
}

fn verdict(directory: &Path, key: &SigningKey) -> Verdict {
    let mut verifier = Verifier::new(vec![key.verifying_key()]);
    for (_, path) in segments(directory).unwrap() {
        verifier.begin(path.to_str().unwrap());
        verifier.feed(&fs::read(path).unwrap(), &mut |_, _| {});
    }
    verifier.finish()
}

#[test]
fn wherever_a_writer_is_killed_its_whole_lines_are_kept_and_the_rest_is_put_aside() {
    let (written, key) = (Directory::new(), key());
    let mut trail = open(&written.0, &key).unwrap();
    trail.append(Timestamp(6), &[gap(1), gap(2)]).unwrap();
    trail.finish_segment(Timestamp(7)).unwrap();
    trail.append(Timestamp(8), &[gap(4)]).unwrap();
    trail.seal(Timestamp(9)).unwrap();
    trail.append(Timestamp(10), &[gap(8), gap(16)]).unwrap();
    drop(trail);
    let [(_, first), (_, second)] = &segments(&written.0).unwrap()[..] else { panic!("two segments") };
    let (first, second) = (fs::read(first).unwrap(), fs::read(second).unwrap());
    for length in 0..=second.len() {
        let left = Directory::new();
        fs::write(left.0.join("audit-0000000001.jsonl"), &first).unwrap();
        fs::write(left.0.join("audit-0000000002.jsonl"), &second[..length]).unwrap();
        drop(open(&left.0, &key).unwrap_or_else(|error| panic!("{length} bytes: {error}")));
        let whole = second[..length].iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let verdict = verdict(&left.0, &key);
        assert!(verdict.is_intact(), "{length} bytes: {:?}", verdict.findings);
        let lost: u64 = [4, 8, 16]
            [..second[..whole].split(|b| *b == b'\n').filter(|l| l.windows(6).any(|word| word == b"\"lost\"")).count()]
            .iter()
            .sum();
        assert_eq!((verdict.lost, verdict.starts, verdict.crashes), (3 + lost, 2, 1), "{length} bytes");
        let entries = fs::read_dir(&left.0).unwrap().map(|entry| entry.unwrap().path());
        let aside: Vec<Vec<u8>> = entries
            .filter(|path| path.to_str().unwrap().contains(".torn-"))
            .map(|path| fs::read(path).unwrap())
            .collect();
        // A header alone says nothing: it goes as well.
        let header = second.iter().position(|byte| *byte == b'\n').unwrap() + 1;
        let kept = if whole > header { whole } else { 0 };
        let torn = (length > kept).then(|| second[kept..length].to_vec());
        assert_eq!(aside, torn.into_iter().collect::<Vec<_>>(), "{length} bytes");
    }
}

#[test]
fn a_damaged_trail_is_not_gone_on_with_and_not_touched() {
    let (directory, key) = (Directory::new(), key());
    let mut trail = open(&directory.0, &key).unwrap();
    trail.append(Timestamp(6), &[gap(1), gap(2)]).unwrap();
    drop(trail);
    let path = directory.0.join("audit-0000000001.jsonl");
    let damaged = fs::read_to_string(&path).unwrap().replace("\"lost\":1", "\"lost\":9");
    fs::write(&path, &damaged).unwrap();
    let error = open(&directory.0, &key).unwrap_err();
    assert!(matches!(error, OpenError::Damaged(_)) && !error.may_pass());
    assert!(error.to_string().contains("audit-0000000001.jsonl:5: record 3 or record 4 was changed"), "{error}");
    assert_eq!(fs::read_to_string(&path).unwrap(), damaged);
    fs::write(&path, "a letter\n").unwrap();
    assert!(matches!(open(&directory.0, &key), Err(OpenError::Damaged(_))));
    assert_eq!(fs::read_to_string(&path).unwrap(), "a letter\n");
}

#[test]
fn a_trail_has_one_writer_and_outlives_a_change_of_its_key() {
    let (directory, old) = (Directory::new(), key());
    let trail = open(&directory.0, &old).unwrap();
    assert!(matches!(open(&directory.0, &old), Err(OpenError::Locked(_))));
    drop(trail);
    let new = key();
    drop(open(&directory.0, &new).unwrap());
    let mut verifier = Verifier::new(vec![old.verifying_key(), new.verifying_key()]);
    for (_, path) in segments(&directory.0).unwrap() {
        verifier.begin(path.to_str().unwrap());
        verifier.feed(&fs::read(path).unwrap(), &mut |_, _| {});
    }
    assert!(verifier.finish().is_intact());
}

#[test]
fn what_was_not_committed_is_written_again_after_a_failure() {
    let (directory, key) = (Directory::new(), key());
    let mut trail = open(&directory.0, &key).unwrap();
    trail.append(Timestamp(6), &[gap(1)]).unwrap();
    trail.commit().unwrap();
    trail.append(Timestamp(7), &[gap(2)]).unwrap();
    // As after a sync that failed.
    trail.repair().unwrap();
    assert!(!trail.is_pending());
    trail.append_stamped([(Timestamp(7), gap(2)), (Timestamp(8), gap(4))].iter()).unwrap();
    trail.finish_segment(Timestamp(9)).unwrap();
    // The next segment cannot be begun.
    let elsewhere = directory.0.with_extension("elsewhere");
    fs::rename(&directory.0, &elsewhere).unwrap();
    assert!(trail.append(Timestamp(10), &[gap(8)]).is_err());
    assert!(trail.append(Timestamp(10), &[gap(8)]).is_err(), "not before it is repaired");
    fs::rename(&elsewhere, &directory.0).unwrap();
    trail.repair().unwrap();
    trail.append(Timestamp(10), &[gap(8)]).unwrap();
    trail.seal(Timestamp(11)).unwrap();
    let verdict = verdict(&directory.0, &key);
    assert_eq!((verdict.findings.len(), verdict.lost, verdict.unsealed), (0, 15, 0), "{:?}", verdict.findings);
}

#[test]
fn a_sink_never_overwrites_and_makes_nothing_where_a_mount_is_missing() {
    let directory = Directory::new();
    let mut sink = DirectorySink::new(directory.0.clone());
    assert_eq!(sink.put("edge-1/c/audit-1", b"one").unwrap(), Put::Written);
    assert_eq!(sink.put("edge-1/c/audit-1", b"one").unwrap(), Put::Already);
    for other in [&b"two"[..], b"another", b""] {
        let error = sink.put("edge-1/c/audit-1", other).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
    }
    assert_eq!(fs::read(directory.0.join("edge-1/c/audit-1")).unwrap(), b"one");
    let missing = directory.0.join("mount");
    assert!(DirectorySink::new(missing.clone()).put("edge-1/c/audit-1", b"one").is_err());
    assert!(!missing.exists());
}

/// Refuses so often.
struct Moody {
    refusals: u32,
    sink: DirectorySink,
}

impl Sink for Moody {
    fn put(&mut self, name: &str, bytes: &[u8]) -> io::Result<Put> {
        if self.refusals > 0 {
            self.refusals -= 1;
            return Err(io::Error::other("not today"));
        }
        self.sink.put(name, bytes)
    }

    fn put_file(&mut self, name: &str, file: &Path) -> io::Result<Put> {
        self.put(name, &fs::read(file)?)
    }

    fn newest(&mut self, node: &str) -> io::Result<Option<(String, ExpectedCheckpoint)>> {
        self.sink.newest(node)
    }
}

#[test]
fn what_a_sink_refuses_is_tried_again_and_old_segments_go_once_they_are_there() {
    let (directory, counters) = (Directory::new(), Arc::new(Counters::default()));
    let there = directory.0.join("sink");
    fs::create_dir(&there).unwrap();
    let segment = directory.0.join("audit-0000000001.jsonl");
    fs::write(&segment, "lines").unwrap();
    let sink = Moody { refusals: 1, sink: DirectorySink::new(there.clone()) };
    let shipper = Shipper::start(Some(Box::new(sink)), Some(Duration::ZERO), counters.clone()).unwrap();
    shipper.segment("edge-1/c", segment.clone());
    assert_eq!(shipper.close(now() + Duration::from_secs(20)), 0);
    assert_eq!(fs::read(there.join("edge-1/c/audit-0000000001.jsonl")).unwrap(), b"lines");
    let report = counters.report(Timestamp(0));
    assert_eq!((report.shipped, report.ship_errors, report.unshipped), (1, 1, 0));
    assert!(!segment.exists(), "it is in the sink, and older than nothing");
}

#[test]
fn the_end_does_not_wait_longer_for_a_sink_than_it_may() {
    let (directory, counters) = (Directory::new(), Arc::new(Counters::default()));
    let sink = Moody { refusals: u32::MAX, sink: DirectorySink::new(directory.0.clone()) };
    let shipper = Shipper::start(Some(Box::new(sink)), None, counters.clone()).unwrap();
    shipper.checkpoint("edge-1/c", 7, b"line".to_vec());
    assert_eq!(shipper.close(now() + Duration::from_millis(50)), 1);
    assert!(counters.report(Timestamp(0)).ship_errors >= 1);
}

#[test]
fn one_segment_that_is_gone_keeps_no_other_from_the_sink() {
    let (directory, counters) = (Directory::new(), Arc::new(Counters::default()));
    let there = directory.0.join("sink");
    fs::create_dir(&there).unwrap();
    let second = directory.0.join("audit-0000000002.jsonl");
    fs::write(&second, "lines").unwrap();
    let shipper = Shipper::start(Some(Box::new(DirectorySink::new(there.clone()))), None, counters.clone()).unwrap();
    shipper.segment("edge-1/c", directory.0.join("audit-0000000001.jsonl"));
    shipper.segment("edge-1/c", second);
    assert_eq!(shipper.close(now() + Duration::from_secs(3)), 1);
    assert_eq!(fs::read(there.join("edge-1/c/audit-0000000002.jsonl")).unwrap(), b"lines");
}

#[test]
fn a_checkpoint_that_contradicts_the_sink_is_an_error_and_the_shipper_goes_on() {
    let (directory, counters) = (Directory::new(), Arc::new(Counters::default()));
    let shipper =
        Shipper::start(Some(Box::new(DirectorySink::new(directory.0.clone()))), None, counters.clone()).unwrap();
    for line in [b"true", b"fork", b"true"] {
        shipper.checkpoint("edge-1/c", 7, line.to_vec());
    }
    assert_eq!(shipper.close(now() + Duration::from_secs(20)), 0);
    assert_eq!(counters.report(Timestamp(0)).ship_errors, 1);
    assert_eq!(fs::read(directory.0.join("edge-1/c/checkpoint-000000000007.jsonl")).unwrap(), b"true");
}

/// A trail of two segments and more, of which the sink has all checkpoints: that directory, the sink, the key.
fn held_against() -> (Directory, Directory, Arc<SigningKey>) {
    let (directory, sink, key) = (Directory::new(), Directory::new(), key());
    let Opened { mut trail, checkpoint, .. } =
        open_with(&directory.0, &key, Some(&sink.0), WhenFailing::Refuse).unwrap();
    let mut checkpoints = vec![checkpoint];
    for n in 0..3 {
        trail.append(Timestamp(100 + n), &[gap(1), gap(2)]).unwrap();
        checkpoints.push(trail.seal(Timestamp(110 + n)).unwrap());
        checkpoints.push(trail.finish_segment(Timestamp(120 + n)).unwrap());
    }
    checkpoints.iter().for_each(|checkpoint| export(&sink.0, &trail, checkpoint));
    (directory, sink, key)
}

fn export(sink: &Path, trail: &Trail, (seq, line): &(u64, Vec<u8>)) {
    let name = format!("{}/checkpoint-{seq:012}.jsonl", trail.prefix());
    DirectorySink::new(sink.to_owned()).put(&name, line).unwrap();
}

fn segment(directory: &Path, number: u64) -> PathBuf {
    directory.join(format!("audit-{number:010}.jsonl"))
}

fn cut_lines(path: &Path, keep: usize) {
    let text = fs::read_to_string(path).unwrap();
    fs::write(path, text.split_inclusive('\n').take(keep).collect::<String>()).unwrap();
}

#[test]
fn a_trail_that_was_cut_exchanged_or_removed_is_not_gone_on_with_where_a_sink_knows_better() {
    type Attack = (&'static str, fn(&Path));
    let attacks: [Attack; 4] = [
        ("emptied", |directory| {
            for (_, path) in segments(directory).unwrap() {
                fs::remove_file(path).unwrap();
            }
        }),
        ("last segment removed", |directory| fs::remove_file(segment(directory, 3)).unwrap()),
        ("cut to an older checkpoint", |directory| cut_lines(&segment(directory, 3), 4)),
        ("another chain", |directory| {
            let (other, _, _) = held_against();
            for (number, path) in segments(&other.0).unwrap() {
                fs::copy(path, segment(directory, number)).unwrap();
            }
        }),
    ];
    for (name, attack) in attacks {
        let (directory, sink, key) = held_against();
        attack(&directory.0);
        let left = segments(&directory.0).unwrap().len();
        let error = open_with(&directory.0, &key, Some(&sink.0), WhenFailing::Refuse).unwrap_err();
        assert!(matches!(error, OpenError::NotInTrail { .. }) && !error.may_pass(), "{name}: {error}");
        assert_eq!(segments(&directory.0).unwrap().len(), left, "{name}");

        let Opened { trail, checkpoint, replaced } =
            open_with(&directory.0, &key, Some(&sink.0), WhenFailing::Count).unwrap();
        let Some(OpenError::NotInTrail { hash, .. }) = replaced else { panic!("{name}") };
        let verdict = verdict(&directory.0, &key);
        assert!(verdict.is_intact() && verdict.first.unwrap().0 == 0, "{name}: {:?}", verdict.findings);
        assert_eq!(verdict.replaces, Some(hash), "{name}");
        let aside = fs::read_dir(&directory.0).unwrap().map(|entry| entry.unwrap().path());
        let aside = aside.filter(|path| path.is_dir()).map(|path| segments(&path).unwrap().len());
        assert_eq!(aside.sum::<usize>(), left, "{name}: the old segments are kept");
        export(&sink.0, &trail, &(checkpoint.0, checkpoint.1));
    }
}

#[test]
fn a_trail_that_the_sink_knows_is_gone_on_with_and_says_so() {
    let (directory, sink, key) = held_against();
    let newest = SinkOptions::Directory(sink.0.clone()).open().newest("edge-1").unwrap().unwrap().1.seq();
    drop(open_with(&directory.0, &key, Some(&sink.0), WhenFailing::Refuse).unwrap());
    let last = fs::read_to_string(segment(&directory.0, 4)).unwrap();
    assert!(last.contains(&format!(r#""confirmed":{newest}"#)), "{last}");
    // Several segments behind, as a sink that was away.
    for (seq, path) in sink::checkpoints(&only(&sink.0.join("edge-1"))).unwrap() {
        if seq > 3 {
            fs::remove_file(path).unwrap();
        }
    }
    drop(open_with(&directory.0, &key, Some(&sink.0), WhenFailing::Refuse).unwrap());
    assert!(verdict(&directory.0, &key).is_intact());
}

fn only(directory: &Path) -> PathBuf {
    fs::read_dir(directory).unwrap().next().unwrap().unwrap().path()
}

#[test]
fn a_sink_that_cannot_be_read_is_waited_for_unless_bets_go_on() {
    let (directory, sink, key) = held_against();
    let away = sink.0.join("away");
    let error = open_with(&directory.0, &key, Some(&away), WhenFailing::Refuse).unwrap_err();
    assert!(matches!(error, OpenError::Sink(_)) && error.may_pass(), "{error}");
    assert!(open_with(&directory.0, &key, Some(&away), WhenFailing::Count).unwrap().replaced.is_none());
    let newest = sink::checkpoints(&only(&sink.0.join("edge-1"))).unwrap().pop().unwrap().1;
    fs::write(newest, "{}\n").unwrap();
    assert!(matches!(open_with(&directory.0, &key, Some(&sink.0), WhenFailing::Refuse), Err(OpenError::Sink(_))));
}

/// Lines of a chain as somebody without the key writes them.
fn forge(path: &Path, change: impl Fn(usize, &str) -> Option<String>) {
    let text = fs::read_to_string(path).unwrap();
    let first = Line::parse(text.split_inclusive('\n').next().unwrap().as_bytes()).unwrap();
    let mut chain = Chain::after(first.seq, first.prev);
    let mut bytes = Vec::new();
    for (n, line) in text.split_inclusive('\n').enumerate() {
        if let Some(line) = change(n, line) {
            let line = Line::parse(line.as_bytes()).unwrap();
            chain.append(&mut bytes, line.ts, &line.entry);
        }
    }
    fs::write(path, bytes).unwrap();
}

#[test]
fn what_nobody_has_signed_is_not_gone_on_with() {
    let no_checkpoints = |_: usize, line: &str| (!line.contains("checkpoint")).then(|| line.replace(":2,", ":7,"));
    let (directory, _sink, key) = held_against();
    for number in [2, 3] {
        fs::remove_file(segment(&directory.0, number)).unwrap();
    }
    forge(&segment(&directory.0, 1), no_checkpoints);
    assert!(matches!(open(&directory.0, &key), Err(OpenError::Unsigned(_))));

    // With the checkpoints of before.
    let (directory, _sink, key) = held_against();
    forge(&segment(&directory.0, 3), |_, line| Some(line.replace("\"lost\":2", "\"lost\":7")));
    assert!(matches!(open(&directory.0, &key), Err(OpenError::Damaged(_))));

    // The last segment has no seam to the one before.
    let (directory, _sink, key) = held_against();
    forge(&segment(&directory.0, 2), no_checkpoints);
    let error = open(&directory.0, &key).unwrap_err();
    assert!(matches!(error, OpenError::Damaged(_)), "{error}");
}

#[test]
fn what_a_power_failure_leaves_after_the_last_checkpoint_is_put_aside_and_reported() {
    let zeros = vec![0; 20_000];
    let garbage = b"\xff\xfe\n\n{}\nhalf a line".to_vec();
    for damage in [zeros, garbage] {
        let (directory, _sink, key) = held_against();
        let mut trail = open(&directory.0, &key).unwrap();
        trail.append(Timestamp(200), &[gap(32)]).unwrap();
        drop(trail);
        let path = segment(&directory.0, 4);
        let whole = fs::read(&path).unwrap();
        fs::write(&path, [&whole[..], &damage].concat()).unwrap();
        drop(open(&directory.0, &key).unwrap());
        let verdict = verdict(&directory.0, &key);
        assert!(verdict.is_intact(), "{:?}", verdict.findings);
        assert_eq!((verdict.lost, verdict.crashes), (9 + 32, 2));
        let [Recovery { unsealed: 1, torn, .. }] = verdict.recoveries[..] else { panic!("{:?}", verdict.recoveries) };
        assert_eq!(torn, damage.len() as u64);
        let mut aside = fs::read_dir(&directory.0).unwrap().map(|entry| entry.unwrap().path());
        let aside = aside.find(|path| path.to_str().unwrap().contains(".torn-")).unwrap();
        assert_eq!(fs::read(aside).unwrap(), damage);

        // Before a checkpoint it is no power failure.
        let at = whole.len() / 2;
        fs::write(segment(&directory.0, 5), [&fs::read(segment(&directory.0, 5)).unwrap()[..at], &damage].concat())
            .unwrap();
        let middle = [&whole[..10], b"\n", &whole[10..]].concat();
        fs::write(&path, middle).unwrap();
        assert!(matches!(open(&directory.0, &key), Err(OpenError::Damaged(_))));
    }
}

#[test]
fn wherever_a_start_is_killed_the_next_one_says_what_it_has_found() {
    let (directory, _sink, key) = held_against();
    let mut trail = open(&directory.0, &key).unwrap();
    trail.append(Timestamp(200), &[gap(1)]).unwrap();
    drop(trail);
    let path = segment(&directory.0, 4);
    let torn = [&fs::read(&path).unwrap()[..], b"{\"seq\":"].concat();
    fs::write(&path, &torn).unwrap();
    drop(open(&directory.0, &key).unwrap());
    let started = fs::read(segment(&directory.0, 5)).unwrap();
    for length in 0..=started.len() {
        fs::write(&path, &torn).unwrap();
        fs::write(segment(&directory.0, 5), &started[..length]).unwrap();
        let _ = fs::remove_file(segment(&directory.0, 6));
        drop(open(&directory.0, &key).unwrap_or_else(|error| panic!("{length}: {error}")));
        let verdict = verdict(&directory.0, &key);
        assert!(verdict.is_intact(), "{length}: {:?}", verdict.findings);
        let first = &verdict.recoveries[0];
        assert!(first.unsealed == 1 && first.torn >= 7, "{length}: {first:?}");
    }
}

#[test]
fn a_segment_that_is_removed_or_exchanged_while_it_is_written_is_noticed() {
    let remove: fn(&Path) = |path| fs::remove_file(path).unwrap();
    let exchange: fn(&Path) = |path| {
        let other = path.with_extension("other");
        fs::copy(path, &other).unwrap();
        fs::rename(other, path).unwrap();
    };
    let lengthen: fn(&Path) = |path| fs::write(path, [&fs::read(path).unwrap()[..], &[b'x'; 5000]].concat()).unwrap();
    for (attack, is_mended) in [(remove, false), (exchange, false), (lengthen, true)] {
        let (directory, key) = (Directory::new(), key());
        let mut trail = open(&directory.0, &key).unwrap();
        trail.append(Timestamp(6), &[gap(1)]).unwrap();
        trail.commit().unwrap();
        attack(&segment(&directory.0, 1));
        trail.append(Timestamp(7), &[gap(2)]).unwrap();
        assert!(trail.seal(Timestamp(8)).is_err());
        assert_eq!(trail.repair().is_ok(), is_mended);
    }
}
