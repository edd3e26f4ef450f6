//! Sinks of every kind: what all of them hold to, and what is a bucket's own; a stream's is in `jetstream`.

mod jetstream;
mod nats_server;
mod weed;

use std::fs;
use std::io::{self, BufRead, BufReader};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use tableside::audit::s3::{Listing, S3Options};
use tableside::audit::{Put, SinkOptions, start};
use tableside::bets::audit::{Chain, Digest, SigningKey, Timestamp};

use super::ports::free_ports;
use super::{Directory, keygen, options, runtime, tableside, text};
use weed::{LOCKED, PLAIN, weed};

/// The line of a checkpoint that signs for so many lines and has this time.
fn checkpoint(seq: u64, time: u64) -> Vec<u8> {
    let (mut bytes, mut chain) = (Vec::new(), Chain::after(seq, Digest::ZERO));
    chain.seal(&mut bytes, Timestamp(time), &SigningKey::generate().unwrap());
    bytes
}

/// What the newest checkpoint of a node is, by its time, and where.
fn newest(options: &SinkOptions, node: &str) -> Option<(u64, String)> {
    let newest = options.open().newest(node).unwrap();
    newest.map(|(place, checkpoint)| (checkpoint.ts().0, place))
}

/// What every sink holds to, of one that is empty. `place` is what the place of a checkpoint of the chain `c1` ends with.
fn contract(options: &SinkOptions, place: &str) {
    let files = Directory::new();
    let mut sink = options.open();
    assert_eq!(newest(options, "edge-1"), None);
    let name = "edge-1/c1/checkpoint-000000000004.jsonl";
    let lines = [(4, 7), (12, 9), (99, 8)].map(|(seq, time)| checkpoint(seq, time));
    assert_eq!(sink.put(name, &lines[0]).unwrap(), Put::Written);
    assert_eq!(sink.put(name, &lines[0]).unwrap(), Put::Already);
    assert_eq!(options.open().put(name, &lines[0]).unwrap(), Put::Already, "for another process as well");
    let same_length: Vec<u8> = lines[0].iter().map(|byte| byte ^ 1).collect();
    for other in [&same_length[..], &lines[0][1..], b""] {
        for sink in [&mut sink, &mut options.open()] {
            assert_eq!(sink.put(name, other).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        }
    }
    assert_eq!(sink.put(name, &lines[0]).unwrap(), Put::Already, "it is as it was");
    assert_eq!(newest(options, "edge-1").unwrap().0, 7);
    let told = newest(options, "edge-1").unwrap().1;
    assert!(told.ends_with(place), "its place is told: {told}");

    let segment = files.0.join("audit-0000000001.jsonl");
    for (n, bytes) in
        [Vec::new(), (0..3 << 20).map(|n: u32| (n.wrapping_mul(n) >> 7) as u8).collect()].into_iter().enumerate()
    {
        fs::write(&segment, &bytes).unwrap();
        let name = format!("edge-1/c1/audit-{n:010}.jsonl");
        assert_eq!(sink.put_file(&name, &segment).unwrap(), Put::Written);
        assert_eq!(sink.put_file(&name, &segment).unwrap(), Put::Already);
        assert_eq!(sink.put(&name, &bytes).unwrap(), Put::Already);
        fs::write(&segment, [&bytes[..], b"more"].concat()).unwrap();
        assert_eq!(sink.put_file(&name, &segment).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
    }
    assert!(sink.put_file("edge-1/c1/audit-9.jsonl", &files.0.join("none")).is_err());

    // By time, not by name; and of no other node.
    assert_eq!(sink.put("edge-1/c1/checkpoint-000000000012.jsonl", &lines[1]).unwrap(), Put::Written);
    assert_eq!(sink.put("edge-1/c2/checkpoint-000000000099.jsonl", &lines[2]).unwrap(), Put::Written);
    assert_eq!(newest(options, "edge-1").unwrap().0, 9);
    for other in ["edge-10", "edge", "edge.1"] {
        assert_eq!(newest(options, other), None, "{other}");
    }
    sink.put("edge.1/c/checkpoint-000000000004.jsonl", &checkpoint(4, 3)).unwrap();
    assert_eq!(newest(options, "edge.1").unwrap().0, 3);
    assert_eq!(newest(options, "edge-1").unwrap().0, 9);
}

/// A sink of files says which file is not what its name says.
fn names_what_lies(options: &SinkOptions) {
    let (mut sink, line) = (options.open(), checkpoint(4, 7));
    sink.put("edge-3/c/checkpoint-000000000004.jsonl", &line).unwrap();
    sink.put("edge-3/c/checkpoint-000000000005.jsonl", b"{}\n").unwrap();
    let error = options.open().newest("edge-3").unwrap_err();
    assert!(error.to_string().contains("checkpoint-000000000005.jsonl is no checkpoint"), "{error}");
    // An old one under a later name would hide all between.
    sink.put("edge-4/c/checkpoint-000000000004.jsonl", &line).unwrap();
    sink.put("edge-4/c/checkpoint-000000000900.jsonl", &line).unwrap();
    let error = options.open().newest("edge-4").unwrap_err();
    assert!(error.to_string().contains("checkpoint of 4 lines, not of 900"), "{error}");
}

#[test]
fn a_directory_holds_to_what_every_sink_does() {
    let directory = Directory::new();
    let sink = SinkOptions::Directory(directory.0.clone());
    contract(&sink, "edge-1/c1/checkpoint-000000000004.jsonl");
    names_what_lies(&sink);
}

#[test]
fn a_bucket_holds_to_what_every_sink_does() {
    let sink = weed().sink("contract/");
    contract(&sink, "edge-1/c1/checkpoint-000000000004.jsonl");
    names_what_lies(&sink);
}

#[test]
fn a_sink_that_is_away_or_refuses_is_not_empty() {
    use io::ErrorKind::{NotFound, PermissionDenied};
    let directory = Directory::new();
    let bad = directory.0.join("credentials");
    let good = fs::read_to_string(weed().credentials()).unwrap();
    fs::write(&bad, good.replace("of-the-tests", "of-nobody")).unwrap();
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let options = || weed().options("away/");
    let s3 = |options: S3Options| SinkOptions::S3(Box::new(options));
    for (sink, kind) in [
        (SinkOptions::Directory(directory.0.join("mount")), Some(NotFound)),
        (s3(S3Options { bucket: "nobody".to_owned(), ..options() }), Some(NotFound)),
        (s3(S3Options { credentials_file: Some(bad), ..options() }), Some(PermissionDenied)),
        (s3(S3Options { credentials_file: Some(directory.0.join("none")), ..options() }), Some(NotFound)),
        (s3(S3Options { endpoint: Some(format!("http://{gone}")), ..options() }), None),
    ] {
        let error = sink.open().newest("edge-1").unwrap_err();
        assert!(kind.is_none_or(|kind| error.kind() == kind), "{sink:?}: {error:?}");
        let error = sink.open().put("edge-1/c/audit-0000000001.jsonl", b"line\n").unwrap_err();
        assert_ne!(error.kind(), io::ErrorKind::AlreadyExists, "{sink:?}: {error}");
    }
}

#[test]
fn what_is_in_a_bucket_cannot_be_removed_and_who_hides_it_hides_nothing() {
    let sink = weed().sink("hidden/");
    let key = format!("{LOCKED}/hidden/edge-1/c/checkpoint-000000000004.jsonl");
    sink.open().put("edge-1/c/checkpoint-000000000004.jsonl", &checkpoint(4, 7)).unwrap();
    let versions = || {
        let answer = weed().ask("GET", &format!("{LOCKED}?versions=&prefix=hidden%2F"), &[], b"");
        Listing::parse(std::str::from_utf8(answer.body()).unwrap()).unwrap().versions
    };
    let [(_, version)] = &versions()[..] else { panic!("{:?}", versions()) };
    let locked = weed().ask("HEAD", &key, &[], b"");
    assert_eq!(locked.headers()["x-amz-object-lock-mode"], "COMPLIANCE");
    assert_eq!(weed().ask("DELETE", &format!("{key}?versionId={version}"), &[], b"").status(), 403);
    // A delete marker, and a forged checkpoint in front of it.
    assert_eq!(weed().ask("DELETE", &key, &[], b"").status(), 204);
    assert_eq!(weed().ask("HEAD", &key, &[], b"").status(), 404);
    assert_eq!(newest(&sink, "edge-1").unwrap().0, 7);
    assert_eq!(weed().ask("PUT", &key, &[], &checkpoint(4, 5)).status(), 200);
    assert_eq!(versions().len(), 2);
    assert_eq!(newest(&sink, "edge-1").unwrap().0, 7, "the oldest version is the node's");
}

#[test]
fn the_search_goes_over_many_pages_of_versions_and_delete_markers() {
    let options = S3Options { page: 3, ..weed().options("pages/") };
    let sink = SinkOptions::S3(Box::new(options));
    let name = |seq: u64| format!("edge-1/c/checkpoint-{seq:012}.jsonl");
    let key = |seq: u64| format!("{LOCKED}/pages/{}", name(seq));
    let mut writer = sink.open();
    for seq in (1..=20).map(|n| n * 7) {
        writer.put(&name(seq), &checkpoint(seq, 1000 + seq)).unwrap();
        if [1, 2, 3, 4, 10, 20].contains(&(seq / 7)) {
            assert_eq!(newest(&sink, "edge-1").unwrap().0, 1000 + seq, "of {} checkpoints", seq / 7);
        }
    }
    // Newer versions and delete markers, more than a page of each, at the end and before it.
    for seq in [49, 133, 140] {
        for n in 0..5 {
            assert_eq!(weed().ask("PUT", &key(seq), &[], &checkpoint(seq, n)).status(), 200);
            assert_eq!(weed().ask("DELETE", &key(seq), &[], b"").status(), 204);
        }
        assert_eq!(newest(&sink, "edge-1").unwrap().0, 1140, "after {seq}");
    }
}

#[test]
fn a_copy_that_somebody_has_made_without_a_lock_does_not_count() {
    let name = "edge-1/c/audit-0000000001.jsonl";
    assert_eq!(weed().ask("PUT", &format!("{LOCKED}/unlocked/{name}"), &[], b"line\n").status(), 200);
    let error = weed().sink("unlocked/").open().put(name, b"line\n").unwrap_err();
    assert!(error.kind() == io::ErrorKind::Unsupported && error.to_string().contains("is locked"), "{error}");
}

#[test]
fn a_bucket_without_object_lock_is_none() {
    let options = S3Options { bucket: PLAIN.to_owned(), ..weed().options("plain/") };
    let error = SinkOptions::S3(Box::new(options)).open().put("edge-1/c/audit-1.jsonl", b"line\n").unwrap_err();
    assert!(error.kind() == io::ErrorKind::InvalidInput && error.to_string().contains("object lock"), "{error}");
    assert_eq!(weed().ask("HEAD", &format!("{PLAIN}/plain/edge-1/c/audit-1.jsonl"), &[], b"").status(), 404);
}

/// Until a gateway has said or done something, on a machine that does other things.
const LIMIT: Duration = Duration::from_secs(120);

/// A gateway as it runs in production, killed at the end of the test if it has not ended.
struct Gateway(Child);

impl Gateway {
    /// Runs it, with what it says; it is killed after [`LIMIT`], whatever it does.
    fn run(config: &str) -> (Self, impl Iterator<Item = String>) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tableside"));
        command.args(["gateway", "--config", config]).env_remove("RUST_LOG").stderr(Stdio::piped());
        let mut gateway = Self(command.spawn().unwrap());
        let (lines, said) = channel();
        let stderr = BufReader::new(gateway.0.stderr.take().unwrap());
        thread::spawn(move || stderr.lines().map_while(Result::ok).try_for_each(|line| lines.send(line)));
        let begun = Instant::now();
        let said = std::iter::from_fn(move || match said.recv_timeout(LIMIT.saturating_sub(begun.elapsed())) {
            Ok(line) => Some(line),
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => panic!("the gateway is not done within {LIMIT:?}"),
        });
        (gateway, said)
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_drained_node_ends_with_all_of_its_trail_in_the_bucket_and_starts_with_no_other() {
    let directory = Directory::new();
    let key = keygen(&directory);
    let first_port = free_ports(1);
    let config = directory.path("gateway.toml");
    let text_of_config = format!(
        "[http]\nlisten = \"127.0.0.1:0\"\n[admin]\nlisten = \"127.0.0.1:0\"\n[media]\nshards = 1\n\
         first_port = {first_port}\n[auth]\nmode = \"none\"\n[audit]\ndirectory = \"trail\"\nnode = \"edge-1\"\n\
         signing_key_file = \"audit.key\"\nclosing_timeout_ms = 60000\n[audit.s3]\nbucket = \"{LOCKED}\"\n\
         endpoint = \"{}\"\nprefix = \"drained/\"\nretain_days = 1\ncredentials_file = {:?}\n",
        weed().endpoint,
        weed().credentials(),
    );
    fs::write(&config, text_of_config).unwrap();
    for _ in 0..2 {
        let (mut gateway, mut said) = Gateway::run(&config);
        assert!(said.any(|line| line.contains("listening")));
        assert!(Command::new("kill").args(["-TERM", &gateway.0.id().to_string()]).status().unwrap().success());
        assert!(said.any(|line| line.contains("the audit trail is complete")));
        said.for_each(drop);
        assert_eq!(gateway.0.wait().unwrap().code(), Some(0));
    }
    let sink = weed().sink("drained/");
    let (_, place) = newest(&sink, "edge-1").unwrap();
    let chain = place.rsplit('/').nth(1).unwrap();
    for segment in ["audit-0000000001.jsonl", "audit-0000000002.jsonl"] {
        let here = directory.0.join("trail").join(segment);
        assert_eq!(sink.open().put_file(&format!("edge-1/{chain}/{segment}"), &here).unwrap(), Put::Already);
    }
    // The last line that was signed is the newest checkpoint there.
    let last = fs::read_to_string(directory.0.join("trail/audit-0000000002.jsonl")).unwrap();
    let last = last.lines().next_back().unwrap().to_owned() + "\n";
    let name = place.rsplit('/').next().unwrap();
    assert_eq!(sink.open().put(&format!("edge-1/{chain}/{name}"), last.as_bytes()).unwrap(), Put::Already);
    let verified = tableside(&["audit", "verify", "--sealed", "--key", &key, &directory.path("trail")]);
    assert_eq!(verified.status.code(), Some(0), "{}", text(&verified.stdout));

    fs::rename(directory.path("trail"), directory.path("elsewhere")).unwrap();
    let (mut gateway, said) = Gateway::run(&config);
    let said: Vec<String> = said.collect();
    let said = said.join("\n");
    assert_eq!(gateway.0.wait().unwrap().code(), Some(1), "{said}");
    assert!(said.contains(&place) && said.contains("does not contain it"), "{said}");
    assert!(!said.contains("(audit.directory)"), "{said}");
}

/// Hands every connection on to another address, once that is there.
fn forward(listener: TcpListener, to: String, is_there: Arc<AtomicBool>) {
    thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let Some(server) = is_there.load(Ordering::Relaxed).then(|| TcpStream::connect(&to)) else { continue };
            let Ok(server) = server else { continue };
            for (mut from, mut to) in [(client.try_clone().unwrap(), server.try_clone().unwrap()), (server, client)] {
                thread::spawn(move || {
                    // Either side may end it.
                    let _ = io::copy(&mut from, &mut to);
                    let _ = to.shutdown(std::net::Shutdown::Write);
                });
            }
        }
    });
}

#[test]
fn while_a_bucket_is_away_at_the_start_bets_are_refused() {
    let directory = Directory::new();
    keygen(&directory);
    // Held from the beginning, so that nobody else is given its port; each connection ends at once until the bucket is there.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let away = listener.local_addr().unwrap();
    let is_there = Arc::new(AtomicBool::new(false));
    forward(listener, weed().endpoint.replace("http://", ""), is_there.clone());
    let sink = S3Options { endpoint: Some(format!("http://{away}")), ..weed().options("late/") };
    let with_sink = options(&directory.0, |options| options.sink = Some(SinkOptions::S3(Box::new(sink))));
    let (audit, mut recorder) = start(with_sink).unwrap();
    assert!(recorder.status().failing && !recorder.admits());
    is_there.store(true, Ordering::Relaxed);
    runtime().block_on(async {
        let admits = async {
            while recorder.status().failing {
                recorder.changed().await;
            }
        };
        tokio::time::timeout(LIMIT, admits).await.expect("the bucket is found");
        assert!(recorder.admits());
        drop(recorder);
        assert!(audit.close(None).await);
    });
    assert!(newest(&weed().sink("late/"), "edge-1").is_some());
}
