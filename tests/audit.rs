//! The audit trail as processes write it: killed in the middle, without room on the disk, and read by others.

#![allow(clippy::disallowed_methods, reason = "tests of real processes, files and clocks")]

mod audit_sinks;
mod foreign;
mod ports;

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use tableside::audit::{Audit, Options, Recorder, SinkOptions, start};
use tableside::bets::audit::{Digest, PlayerNames, SignalRecord, SigningKey, Timestamp};
use tableside::config::{Fsync, WhenFailing};

/// A directory that is gone at the end of the test.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let unique = format!("tableside-audit-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(unique);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }

    /// The only directory below this one, two levels down: node and chain.
    fn of_chain(&self, name: &str) -> PathBuf {
        let only = |path: &Path| fs::read_dir(path).unwrap().next().unwrap().unwrap().path();
        only(&only(&self.0.join(name)))
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn tableside(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tableside")).args(arguments).env_remove("RUST_LOG").output().unwrap()
}

fn python(arguments: &[&str]) -> Output {
    Command::new("python3").args(arguments).output().expect("python3 is here: tools/setup")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Makes a key in the directory, by the command.
fn keygen(directory: &Directory) -> String {
    let file = directory.path("audit.key");
    let output = tableside(&["audit", "keygen", &file]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    format!("{file}.pub")
}

fn options(directory: &Path, change: impl FnOnce(&mut Options)) -> Options {
    use rustls::pki_types::pem::PemObject;
    let pem = fs::read(directory.join("audit.key")).unwrap();
    let der = rustls::pki_types::PrivatePkcs8KeyDer::from_pem_slice(&pem).unwrap();
    let mut options = Options {
        directory: directory.join("trail"),
        node: "edge-1".to_owned(),
        key: Arc::new(SigningKey::from_pkcs8(der.secret_pkcs8_der()).unwrap()),
        names: PlayerNames::Plain,
        when_failing: WhenFailing::Refuse,
        fsync: Fsync::Always,
        fsync_interval: Duration::from_millis(200),
        checkpoint_interval: Duration::from_secs(1),
        rotate_bytes: 200_000,
        rotate_after: Duration::from_secs(3600),
        sink: None,
        keep_shipped: None,
        closing_timeout: Duration::from_secs(20),
    };
    change(&mut options);
    options
}

fn record(run: &str, n: u64) -> Box<SignalRecord> {
    Box::new(SignalRecord {
        received: Timestamp(1_790_000_000_000_000 + n),
        client: Timestamp(1_790_000_000_000_000),
        player: format!("={run}"),
        table: "roulette-1".to_owned(),
        round: "1790000000;=3".to_owned(),
        bet: n.to_string(),
        key: "5f0e9a3c".to_owned(),
        message: Digest::of(&n.to_be_bytes()),
        outcome: if n.is_multiple_of(2) { "accepted" } else { "rejected" }.to_owned(),
        reason: (!n.is_multiple_of(2)).then(|| "zu spät, \"5\"".to_owned()),
        late: false,
        passed_on: Some(21),
        answered: Some(12_825),
        decided: 12_935,
        last_mile: Some(34_200),
    })
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// Writes `count` records to a trail, a few at a time, and ends it.
fn write(directory: &Directory, count: u64, change: impl FnOnce(&mut Options)) {
    let (audit, mut recorder) = start(options(&directory.0, change)).unwrap();
    runtime().block_on(async {
        for n in 0..count {
            recorder.record(record("ann", n));
            while recorder.given() - recorder.status().durable > 100 {
                recorder.changed().await;
            }
        }
        drop(recorder);
        assert!(audit.close(None).await);
    });
}

#[test]
fn a_trail_is_verified_and_exported_by_commands_and_by_others() {
    let directory = Directory::new();
    let key = keygen(&directory);
    fs::create_dir(directory.path("sink")).unwrap();
    write(&directory, 2000, |options| options.sink = Some(SinkOptions::Directory(directory.0.join("sink"))));
    let trail = directory.path("trail");
    let sink = directory.of_chain("sink");
    let mut shipped: Vec<PathBuf> = fs::read_dir(&sink).unwrap().map(|entry| entry.unwrap().path()).collect();
    shipped.sort();
    let segments: Vec<&PathBuf> = shipped.iter().filter(|path| path.to_str().unwrap().contains("/audit-")).collect();
    assert!(segments.len() >= 5, "{shipped:?}");
    for segment in segments {
        let own = directory.0.join("trail").join(segment.file_name().unwrap());
        assert_eq!(fs::read(segment).unwrap(), fs::read(own).unwrap());
    }
    let checkpoints: Vec<&PathBuf> =
        shipped.iter().filter(|path| path.to_str().unwrap().contains("/checkpoint-")).collect();
    let checkpoint = checkpoints.last().unwrap().to_str().unwrap();

    let all = sink.to_str().unwrap();
    let verify = ["audit", "verify", "--sealed", "--node", "edge-1", "--key", &key, "--checkpoint", all, &trail];
    let output = tableside(&verify);
    let said = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(said.contains("1000 accepted, 1000 rejected") && said.ends_with("intact\n"), "{said}");
    let chain = sink.file_name().unwrap().to_str().unwrap();
    assert!(said.contains(&format!("trail         of node edge-1, chain {chain}\n")), "{said}");
    let other = tableside(&["audit", "verify", "--node", "edge-2", &trail]);
    assert_eq!(other.status.code(), Some(1));
    assert!(text(&other.stdout).contains("this is the trail of node edge-1"));
    let output = tableside(&[&verify[..], &["--json"]].concat());
    let verdict: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (&verdict["intact"], &verdict["outcomes"][0], &verdict["confirmed"]),
        (&true.into(), &1000.into(), &checkpoints.len().into())
    );
    let foreign = ["tests/audit/verify.py", &trail, "--key", &key, "--checkpoint", checkpoint];
    let output = python(&foreign);
    assert_eq!(output.status.code(), Some(0), "{}{}", text(&output.stdout), text(&output.stderr));

    let output = tableside(&["audit", "export", "--format", "csv", "--from", "2026-09-21", "--player", "=ann", &trail]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let csv = directory.path("export.csv");
    fs::write(&csv, &output.stdout).unwrap();
    let output = python(&["tests/audit/read_csv.py", &csv]);
    assert_eq!(text(&output.stdout), "2000 accepted=1000 rejected=1000\n", "{}", text(&output.stderr));

    // The same is not intact for either, once a digit is another.
    let path = directory.0.join("trail/audit-0000000002.jsonl");
    let changed = fs::read_to_string(&path).unwrap().replacen("12825", "12925", 1);
    fs::write(&path, changed).unwrap();
    let output = tableside(&verify);
    let said = text(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("audit-0000000002.jsonl:2: record ") && said.contains(" was changed"), "{said}");
    assert_eq!(python(&foreign).status.code(), Some(1));
    assert_eq!(tableside(&["audit", "export", "--format", "jsonl", &trail]).status.code(), Some(1));

    // Nor is what has no beginning, unless it may be so.
    for number in [1, 2] {
        fs::remove_file(directory.0.join(format!("trail/audit-000000000{number}.jsonl"))).unwrap();
    }
    let export = ["audit", "export", "--format", "jsonl", &trail];
    assert_eq!(tableside(&export).status.code(), Some(1));
    assert_eq!(tableside(&[&export[..], &["--partial"]].concat()).status.code(), Some(0));
}

#[test]
fn a_node_starts_with_no_other_trail_than_the_sink_knows() {
    let directory = Directory::new();
    keygen(&directory);
    fs::create_dir(directory.path("sink")).unwrap();
    let with_sink = |policy: WhenFailing| {
        options(&directory.0, |options| {
            let sink = SinkOptions::Directory(directory.0.join("sink"));
            (options.sink, options.when_failing) = (Some(sink), policy);
        })
    };
    let end = |(audit, recorder): (Audit, Recorder)| {
        drop(recorder);
        assert!(runtime().block_on(audit.close(None)));
        audit.report().replaced
    };
    end(start(with_sink(WhenFailing::Refuse)).unwrap());
    let first = directory.of_chain("sink");
    fs::remove_dir_all(directory.path("trail")).unwrap();
    let error = start(with_sink(WhenFailing::Refuse)).unwrap_err().to_string();
    let newest = fs::read_dir(&first).unwrap().map(|entry| entry.unwrap().path());
    let newest = newest.filter(|path| path.to_str().unwrap().contains("/checkpoint-")).max().unwrap();
    assert!(error.starts_with(newest.to_str().unwrap()) && error.contains("does not contain it"), "{error}");
    assert!(error.contains("when_failing = \"count\""), "{error}");
    assert_eq!(end(start(with_sink(WhenFailing::Count)).unwrap()), 1);
    // The new chain is what the sink knows from then on.
    assert_eq!(end(start(with_sink(WhenFailing::Refuse)).unwrap()), 0);
    let said = text(&tableside(&["audit", "verify", &directory.path("trail")]).stdout);
    assert!(
        said.contains("replaces      a chain of this node that was gone") && said.ends_with("\nintact\n"),
        "{said}"
    );
}

#[test]
fn what_cannot_be_verified_is_said_with_another_status() {
    let directory = Directory::new();
    let key = keygen(&directory);
    assert_eq!(
        tableside(&["audit", "keygen", &directory.path("audit.key")]).status.code(),
        Some(2),
        "never overwritten"
    );
    let empty = directory.0.to_str().unwrap().to_owned();
    for (arguments, says) in [
        (vec!["/nonexistent"], "cannot read /nonexistent"),
        (vec![empty.as_str()], "holds no segments"),
        (vec!["--key", "/nonexistent", &empty], "/nonexistent"),
        (vec!["--key", &key[..key.len() - 4], &empty], "holds no Ed25519 public key"),
        (vec!["--checkpoint", &key, &empty], "is no exported checkpoint"),
        (vec!["--checkpoint", &empty, &empty], "holds no checkpoints"),
    ] {
        let output = tableside(&[&["audit", "verify"][..], &arguments].concat());
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.starts_with("error: ") && said.contains(says), "{said}");
    }
    use std::os::unix::fs::PermissionsExt;
    let mode = fs::metadata(directory.path("audit.key")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let openssl =
        Command::new("openssl").args(["pkey", "-noout", "-in", &directory.path("audit.key")]).status().unwrap();
    assert!(openssl.success(), "OpenSSL reads the key as well");
}

#[test]
fn players_are_found_by_who_has_the_secret_alone() {
    let directory = Directory::new();
    keygen(&directory);
    let secret = directory.path("players.key");
    fs::write(&secret, "0123456789abcdef0123456789abcdef\n").unwrap();
    let names = PlayerNames::hashed(b"0123456789abcdef0123456789abcdef");
    let (audit, mut recorder) = start(options(&directory.0, |options| options.names = names)).unwrap();
    for player in ["ann", "bob", "ann"] {
        let mut record = record("", 1);
        record.player = recorder.names().name(&tableside::bets::PlayerId::new(player).unwrap());
        recorder.record(record);
    }
    drop(recorder);
    assert!(runtime().block_on(audit.close(None)));
    let rows = |more: &[&str]| {
        let trail = directory.path("trail");
        let all = ["audit", "export", "--format", "jsonl", "--player", "ann", &trail];
        text(&tableside(&[&all, more].concat()).stdout).lines().count()
    };
    assert_eq!((rows(&["--player-key", &secret]), rows(&[])), (2, 0));
}

/// This test's own binary, as a process that writes until it is killed: its other half is below.
fn writer(directory: &Directory, run: &str, shell: Option<&str>) -> Child {
    let this = std::env::current_exe().unwrap();
    let arguments = ["--exact", "the_other_process", "--ignored", "--nocapture"];
    let mut command = match shell {
        Some(before) => {
            let mut command = Command::new("sh");
            command.args(["-c", &format!("{before}; exec \"$0\" \"$@\""), this.to_str().unwrap()]);
            command
        }
        None => Command::new(this),
    };
    let command = command.args(arguments).env("TABLESIDE_AUDIT_TEST", &directory.0).env("TABLESIDE_AUDIT_RUN", run);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap()
}

/// Says of each group of records that it is durable; or does what it is told, line by line.
#[test]
#[ignore = "a part of the tests below, which run it"]
fn the_other_process() {
    let Some(directory) = std::env::var_os("TABLESIDE_AUDIT_TEST").map(PathBuf::from) else { return };
    let run = std::env::var("TABLESIDE_AUDIT_RUN").unwrap();
    if run.starts_with("full") {
        let policy = if run == "full-count" { WhenFailing::Count } else { WhenFailing::Refuse };
        return full(&run, start(options(&directory, |options| options.when_failing = policy)).unwrap());
    }
    let (audit, mut recorder) = start(options(&directory, |_| {})).unwrap();
    runtime().block_on(async {
        for n in 0.. {
            recorder.record(record(&run, n));
            // Up to 512 records are on their way: several groups, of which the process may be killed between any two.
            while recorder.given() - recorder.status().durable > 512 {
                recorder.changed().await;
            }
            println!("durable {}", recorder.status().durable);
        }
    });
    drop(audit);
}

#[test]
fn a_process_that_is_killed_in_mid_write_loses_nothing_that_was_durable() {
    let directory = Directory::new();
    let key = keygen(&directory);
    let mut durable: BTreeMap<String, u64> = BTreeMap::new();
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    for run in 0..15 {
        let run = format!("run-{run}");
        let mut child = writer(&directory, &run, None);
        let mut lines = BufReader::new(child.stdout.take().unwrap());
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        let (mut line, mut reported) = (String::new(), 0);
        let mut heard = 0;
        while heard < 520 + seed % 3000 {
            line.clear();
            assert!(lines.read_line(&mut line).unwrap() > 0, "it ends before it is killed");
            if let Some(n) = line.strip_prefix("durable ") {
                (heard, reported) = (heard + 1, n.trim().parse().unwrap());
            }
        }
        child.kill().unwrap();
        child.wait().unwrap();
        // What it has said besides, before it died.
        let mut rest = String::new();
        lines.read_to_string(&mut rest).unwrap();
        let said = rest.split_inclusive('\n').filter(|line| line.ends_with('\n'));
        let last = said.filter_map(|line| line.trim().strip_prefix("durable ")?.parse::<u64>().ok()).next_back();
        durable.insert(run, last.unwrap_or(reported));
    }
    write(&directory, 1, |_| {});

    let output = tableside(&["audit", "verify", "--sealed", "--key", &key, &directory.path("trail")]);
    let said = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(said.contains("processes     16, of which 15 followed one that did not end as it should"), "{said}");
    assert!(python(&["tests/audit/verify.py", &directory.path("trail"), "--key", &key]).status.success());
    let output = tableside(&["audit", "export", "--format", "jsonl", &directory.path("trail")]);
    let mut next: BTreeMap<String, u64> = BTreeMap::new();
    for line in text(&output.stdout).lines() {
        let record: serde_json::Value = serde_json::from_str(line).unwrap();
        if record["type"] == "signal" {
            let next = next.entry(record["player"].as_str().unwrap()[1..].to_owned()).or_default();
            assert_eq!(record["bet"], next.to_string(), "each record once, in order");
            *next += 1;
        }
    }
    for (run, durable) in durable {
        assert!(durable > 0 && next[&run] >= durable, "{run}: {durable} were durable, {} are there", next[&run]);
    }
}

/// The other process where files may not grow: says how it goes, and goes on when it is told.
fn full(run: &str, (audit, mut recorder): (Audit, Recorder)) {
    let runtime = runtime();
    let records = if run == "full-count" { 150_000 } else { 1000 };
    for n in 0..records {
        recorder.record(record(run, n));
    }
    runtime.block_on(async {
        while !recorder.status().failing {
            recorder.changed().await;
        }
        println!("failing admits={}", recorder.admits());
        let mut line = String::new();
        std::io::stdin().read_line(&mut line).unwrap();
        while recorder.status().failing {
            recorder.changed().await;
        }
        println!("working admits={}", recorder.admits());
        drop(recorder);
        let complete = audit.close(None).await;
        let report = audit.report();
        println!("closed complete={complete} records={} lost={}", report.records, report.lost);
    });
}

fn on_a_full_disk(directory: &Directory, run: &str) -> [String; 3] {
    // The kernel's limit on files stands for a disk of 64 KiB; lifting it makes room.
    let mut child = writer(directory, run, Some("trap '' XFSZ; ulimit -S -f 128"));
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let mut next = |begins: &str| lines.find(|line| line.starts_with(begins)).expect("it says how it goes");
    let failing = next("failing");
    let pid = child.id().to_string();
    assert!(Command::new("prlimit").args(["--pid", &pid, "--fsize=unlimited"]).status().unwrap().success());
    child.stdin.take().unwrap().write_all(b"go on\n").unwrap();
    let said = [failing, next("working"), next("closed")];
    assert!(child.wait().unwrap().success());
    said
}

#[test]
fn without_room_on_the_disk_bets_are_refused_until_there_is_some_and_no_record_is_lost() {
    let directory = Directory::new();
    let key = keygen(&directory);
    let said = on_a_full_disk(&directory, "full-refuse");
    assert_eq!(said[..2], ["failing admits=false", "working admits=true"]);
    assert_eq!(said[2], "closed complete=true records=1000 lost=0");
    let output = tableside(&["audit", "verify", "--sealed", "--key", &key, &directory.path("trail")]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stdout));
}

#[test]
fn where_bets_go_on_the_trail_says_how_many_records_it_lacks() {
    let directory = Directory::new();
    let key = keygen(&directory);
    let said = on_a_full_disk(&directory, "full-count");
    assert_eq!(said[..2], ["failing admits=true", "working admits=true"]);
    let numbers: Vec<u64> = said[2].split('=').filter_map(|part| part.split(' ').next()?.parse().ok()).collect();
    let [records, lost] = numbers[..] else { panic!("{said:?}") };
    assert_eq!(records + lost, 150_000);
    assert!(lost > 0, "150,000 records do not fit the queue and what is kept");
    let output = tableside(&["audit", "verify", "--json", "--key", &key, &directory.path("trail")]);
    let verdict: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&verdict["intact"], &verdict["lost"]), (&true.into(), &lost.into()));
}

#[test]
#[ignore = "a measurement: cargo test --release --test audit -- --ignored --nocapture how_many"]
fn how_many_records_a_second() {
    for fsync in [Fsync::Always, Fsync::Interval, Fsync::Never] {
        let directory = Directory::new();
        keygen(&directory);
        // Often enough that what waits for it does not bound the rate.
        let interval = Duration::from_millis(20);
        let change = |options: &mut Options| {
            (options.fsync, options.fsync_interval, options.rotate_bytes) = (fsync, interval, 64 << 20);
        };
        let (audit, mut recorder) = start(options(&directory.0, change)).unwrap();
        let (begin, records) = (Instant::now(), 300_000);
        runtime().block_on(async {
            for n in 0..records {
                recorder.record(record("ann", n));
                while recorder.given() - recorder.status().durable > 20_000 {
                    recorder.changed().await;
                }
            }
            drop(recorder);
            assert!(audit.close(None).await);
        });
        let (seconds, report) = (begin.elapsed().as_secs_f64(), audit.report());
        println!("{fsync:?}: {:.0} records/s, {} syncs", records as f64 / seconds, report.syncs);
        assert_eq!((report.records, report.lost), (records, 0));
    }
}
