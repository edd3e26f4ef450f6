//! What a stream has of its own, against a real NATS server.

use std::fs;
use std::io::ErrorKind;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use serde_json::json;
use tableside::audit::jetstream::{JetstreamOptions, fetch};
use tableside::audit::{Options, Put, Recorder, SinkOptions, start};

use super::nats_server::{NatsServer, STREAM};
use super::{Gateway, LIMIT, checkpoint, contract, newest};
use crate::ports::free_ports;
use crate::{Directory, keygen, options, record, runtime, tableside, text};

const SUBJECT: &str = "tableside.audit.edge-1.c1.checkpoints";

fn name(seq: u64) -> String {
    format!("edge-1/c1/checkpoint-{seq:012}.jsonl")
}

/// Microseconds since 1970.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros() as u64
}

fn stream(options: JetstreamOptions) -> SinkOptions {
    SinkOptions::Jetstream(Box::new(options))
}

#[test]
fn a_stream_holds_to_what_every_sink_does() {
    let server = NatsServer::start("");
    contract(&server.sink(), &format!("message 1 of the stream {STREAM}, on {SUBJECT}"));
}

#[test]
fn an_older_checkpoint_is_found_among_all_and_never_written_after_a_newer_one() {
    let server = NatsServer::start("");
    let mut sink = server.sink().open();
    let lines: Vec<Vec<u8>> = (0..=12).map(|n| checkpoint(n * 7, 1000 + n)).collect();
    for n in 1..=12 {
        assert_eq!(sink.put(&name(n * 7), &lines[n as usize]).unwrap(), Put::Written);
        // Others write meanwhile, on other subjects of the stream.
        server.publish("tableside.audit.edge-2.c1.checkpoints", &[], b"anything");
    }
    for n in 1..=12 {
        assert_eq!(sink.put(&name(n * 7), &lines[n as usize]).unwrap(), Put::Already, "{n}");
        for (seq, line) in [(n * 7, checkpoint(n * 7, 5)), (n * 7 - 1, checkpoint(n * 7 - 1, 5))] {
            let error = sink.put(&name(seq), &line).unwrap_err();
            assert!(error.kind() == ErrorKind::AlreadyExists && error.to_string().contains(SUBJECT), "{error}");
        }
    }
    assert_eq!(server.messages(), 24);
    // What is no checkpoint of its name would hide others.
    for (seq, line) in [(100, &lines[3][..]), (100, b"{}\n"), (100, b"")] {
        assert_eq!(sink.put(&name(seq), line).unwrap_err().kind(), ErrorKind::InvalidInput);
    }
    assert_eq!(server.messages(), 24);
}

#[test]
fn of_two_that_write_at_once_one_has_written_and_the_other_knows() {
    let server = NatsServer::start("");
    let (both, sink) = (Barrier::new(2), server.sink());
    for seq in 1..=20 {
        // Every other time both have the same.
        let lines = [checkpoint(seq, 1), checkpoint(seq, 1 + seq % 2)];
        let lines = if seq % 2 == 0 { [lines[0].clone(), lines[0].clone()] } else { lines };
        let put = |line: &[u8]| {
            let mut sink = sink.open();
            both.wait();
            sink.put(&name(seq), line).map_err(|error| error.kind())
        };
        let outcomes = thread::scope(|scope| {
            let other = scope.spawn(|| put(&lines[1]));
            [put(&lines[0]), other.join().unwrap()]
        });
        let second = if seq % 2 == 0 { Ok(Put::Already) } else { Err(ErrorKind::AlreadyExists) };
        assert!(
            outcomes == [Ok(Put::Written), second] || outcomes == [second, Ok(Put::Written)],
            "{seq}: {outcomes:?}"
        );
    }
    assert_eq!(server.messages(), 20);
}

#[test]
fn an_old_checkpoint_that_is_written_again_hides_none() {
    let server = NatsServer::start("");
    let (mut sink, begun) = (server.sink().open(), now() - 5_000_000);
    let lines: Vec<Vec<u8>> = (0..40).map(|n| checkpoint(10 + n, begun + n * 100_000)).collect();
    for (n, line) in (0..).zip(&lines) {
        sink.put(&name(10 + n), line).unwrap();
    }
    sink.put("edge-1/c2/checkpoint-000000000099.jsonl", &checkpoint(99, begun + 1)).unwrap();
    for again in [0, 1, 2, 38] {
        server.publish(SUBJECT, &[], &lines[again]);
        let (ts, place) = newest(&server.sink(), "edge-1").unwrap();
        assert_eq!(ts, begun + 39 * 100_000, "{again}");
        assert!(place.starts_with("message 40 of") && place.ends_with(SUBJECT), "{place}");
    }
    // The node goes on, and is believed.
    let later = checkpoint(60, begun + 50 * 100_000);
    assert_eq!(sink.put(&name(60), &later).unwrap(), Put::Written);
    assert_eq!(newest(&server.sink(), "edge-1").unwrap().0, begun + 50 * 100_000);

    server.publish(SUBJECT, &[], b"{}\n");
    let error = server.sink().open().newest("edge-1").unwrap_err();
    assert!(error.kind() == ErrorKind::InvalidData && error.to_string().contains("is no checkpoint"), "{error}");
    let error = sink.put(&name(61), &checkpoint(61, begun)).unwrap_err();
    assert!(error.kind() == ErrorKind::InvalidData && error.to_string().contains(SUBJECT), "{error}");
    // It is this node's word alone that is in doubt. Chains that nobody has written to of late are not looked through.
    assert_eq!(newest(&server.sink(), "edge-2"), None);
    for (chain, ts) in [("c1", begun), ("c2", begun + 3_600_000_000), ("c3", begun + 1)] {
        sink.put(&format!("edge-2/{chain}/checkpoint-000000000004.jsonl"), &checkpoint(4, ts)).unwrap();
    }
    assert_eq!(newest(&server.sink(), "edge-2").unwrap().0, begun + 3_600_000_000);
    // How the server counts subjects, by which long lists are asked for page by page.
    let page = json!({ "subjects_filter": "tableside.audit.edge-2.*.checkpoints", "offset": 2 }).to_string();
    let page = server.ask(&format!("$JS.API.STREAM.INFO.{STREAM}"), &[], page.as_bytes());
    assert_eq!((&page["total"], &page["offset"]), (&3.into(), &2.into()), "{page}");
    assert_eq!(page["state"]["subjects"], json!({ "tableside.audit.edge-2.c3.checkpoints": 1 }));
}

#[test]
fn a_stream_in_which_something_could_go_is_refused() {
    let mut server = NatsServer::new(Directory::new(), "");
    server.again();
    let missing = server.sink().open().newest("edge-1").unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::NotFound);
    assert!(
        missing.to_string().contains("make it: `nats stream add AUDIT --subjects='tableside.audit.>'"),
        "{missing}"
    );
    server.make_as("OTHER", json!({ "subjects": ["other.>"] }));
    for (n, (field, otherwise)) in [
        ("storage", json!({ "storage": "memory" })),
        ("retention", json!({ "retention": "interest" })),
        ("retention", json!({ "retention": "workqueue" })),
        ("discard", json!({ "discard": "old" })),
        ("persist_mode", json!({ "persist_mode": "async" })),
        ("deny_delete", json!({ "deny_delete": false })),
        ("deny_purge", json!({ "deny_purge": false })),
        ("allow_msg_ttl", json!({ "allow_msg_ttl": true })),
        ("no_ack", json!({ "no_ack": true })),
        ("max_age", json!({ "max_age": 3_600_000_000_000_u64 })),
        ("max_msgs", json!({ "max_msgs": 1000 })),
        ("max_msgs_per_subject", json!({ "max_msgs_per_subject": 10 })),
        ("max_msg_size", json!({ "max_msg_size": 1000 })),
        ("mirror", json!({ "mirror": { "name": "OTHER" }, "subjects": [] })),
        ("sources", json!({ "sources": [{ "name": "OTHER" }] })),
        ("subject_transform", json!({ "subject_transform": { "src": "w3.>", "dest": "elsewhere.>" } })),
        ("subjects", json!({ "subjects": ["p16.edge-2.>"] })),
    ]
    .into_iter()
    .enumerate()
    {
        // Streams may not overlap.
        let (stream, prefix) = (format!("S{n}"), format!("p{n}"));
        let mut otherwise = otherwise;
        if otherwise["subjects"].is_null() {
            otherwise["subjects"] = json!([format!("{prefix}.>")]);
        }
        server.make_as(&stream, otherwise);
        let sink =
            self::stream(JetstreamOptions { stream: stream.clone(), subject_prefix: prefix, ..server.options() });
        let errors =
            [sink.open().newest("edge-1").unwrap_err(), sink.open().put(&name(4), &checkpoint(4, 1)).unwrap_err()];
        for error in errors {
            assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
            let said = error.to_string();
            assert!(said.contains(&format!("its {field} is ")) && said.contains(&format!("add {stream}")), "{said}");
        }
        let state = server.ask(&format!("$JS.API.STREAM.INFO.{stream}"), &[], b"");
        assert_eq!(state["state"]["messages"], 0, "{field}");
    }
    // A stream may end with time, and is then refused, whatever it was.
    server.make(json!({}));
    server.sink().open().put(&name(4), &checkpoint(4, 1)).unwrap();
    let mut sealed = server.ask(&format!("$JS.API.STREAM.INFO.{STREAM}"), &[], b"")["config"].clone();
    sealed["sealed"] = true.into();
    let done = server.ask(&format!("$JS.API.STREAM.UPDATE.{STREAM}"), &[], sealed.to_string().as_bytes());
    assert!(done["error"].is_null(), "{done}");
    let error = server.sink().open().put(&name(5), &checkpoint(5, 1)).unwrap_err();
    assert!(error.to_string().contains("its sealed is true"), "{error}");
}

#[test]
fn a_stream_that_is_full_refuses_and_keeps_what_it_has() {
    let mut server = NatsServer::new(Directory::new(), "");
    server.again();
    server.make(json!({ "max_bytes": 2000 }));
    let mut sink = server.sink().open();
    let error = (1..).find_map(|seq| sink.put(&name(seq), &checkpoint(seq, seq)).err()).unwrap();
    assert_eq!(error.kind(), ErrorKind::StorageFull, "{error}");
    let kept = server.messages();
    assert!(kept > 0);
    assert_eq!(newest(&server.sink(), "edge-1").unwrap().0, kept);
    for seq in 1..=kept {
        assert!(sink.put(&name(seq), b"other").unwrap_err().kind() == ErrorKind::AlreadyExists);
    }
}

/// 10,000 bytes, and those of a part.
fn segment() -> Vec<u8> {
    (0..10_000_u32).map(|n| (n.wrapping_mul(n) >> 5) as u8).collect()
}

#[test]
fn a_segment_that_was_half_written_is_gone_on_with_unless_it_is_another() {
    let server = NatsServer::start("");
    let files = Directory::new();
    let (file, bytes) = (files.0.join("audit.jsonl"), segment());
    fs::write(&file, &bytes).unwrap();
    let mut sink = stream(JetstreamOptions { chunk: 1000, ..server.options() }).open();
    // Parts of another length, as an earlier configuration of the server may have asked for.
    let part = |number: usize, subject: &str, bytes: &[u8]| {
        server.publish(subject, &[("Tableside-Chunk", &number.to_string())], bytes);
    };
    let subject = |n: u32| format!("tableside.audit.edge-1.c.segments.audit-{n}");
    for (n, there) in [(0, 0), (1, 1), (2, 3), (3, 14)] {
        for (number, piece) in bytes.chunks(700).take(there).enumerate() {
            part(number, &subject(n), piece);
        }
        assert_eq!(sink.put_file(&format!("edge-1/c/audit-{n}.jsonl"), &file).unwrap(), Put::Written, "{there} parts");
        assert_eq!(sink.put_file(&format!("edge-1/c/audit-{n}.jsonl"), &file).unwrap(), Put::Already, "{there} parts");
    }
    // All of its bytes, and nothing says that they are all.
    bytes.chunks(1000).enumerate().for_each(|(number, piece)| part(number, &subject(4), piece));
    assert_eq!(sink.put_file("edge-1/c/audit-4.jsonl", &file).unwrap(), Put::Written);
    let into = Directory::new();
    let fetched = fetch(&server.options(), "edge-1", &into.0).unwrap();
    assert_eq!((fetched.segments, fetched.findings.len(), fetched.chains.len()), (5, 0, 1), "{fetched:?}");
    for n in 0..5 {
        assert_eq!(fs::read(into.0.join(format!("c/audit-{n}.jsonl"))).unwrap(), bytes, "{n}");
    }

    // What is there is another: a byte of a part, its number, something behind the end.
    let mut other = bytes[..1000].to_vec();
    other[500] ^= 1;
    part(0, &subject(5), &other);
    part(1, &subject(6), &bytes[..1000]);
    server.publish(&subject(7), &[], &bytes[..1000]);
    part(11, &subject(0), b"more");
    for n in [5, 6, 7, 0] {
        let error = sink.put_file(&format!("edge-1/c/audit-{n}.jsonl"), &file).unwrap_err();
        assert!(error.kind() == ErrorKind::AlreadyExists && error.to_string().contains(&subject(n)), "{error}");
    }
    part(0, &subject(8), &bytes[..1000]);
    let fetched = fetch(&server.options(), "edge-1", &into.0).unwrap();
    assert_eq!((fetched.segments, fetched.findings.len()), (4, 5), "{fetched:?}");
    assert!(fetched.findings[4].contains("has no end yet"), "{fetched:?}");
}

#[test]
fn a_server_that_is_killed_in_the_middle_of_a_segment_has_all_of_it_in_the_end() {
    let mut server = NatsServer::start("");
    let files = Directory::new();
    let (file, bytes) = (files.0.join("audit.jsonl"), segment().repeat(100));
    fs::write(&file, &bytes).unwrap();
    let options = JetstreamOptions { chunk: 200, ..server.options() };
    let put = || stream(options.clone()).open().put_file("edge-1/c/audit-1.jsonl", &file);
    let parts = bytes.len() as u64 / 200;
    thread::scope(|scope| {
        let broken_off = scope.spawn(put);
        let begun = Instant::now();
        while server.messages() < 100 {
            assert!(begun.elapsed() < LIMIT, "it does not begin within {LIMIT:?}");
        }
        server.kill();
        broken_off.join().unwrap().unwrap_err();
    });
    server.again();
    let there = server.messages();
    assert!((100..parts).contains(&there), "{there} of {parts}: the test would prove nothing");
    assert_eq!(put().unwrap(), Put::Written);
    assert_eq!((put().unwrap(), server.messages()), (Put::Already, parts));
    let fetched = fetch(&options, "edge-1", &files.0).unwrap();
    assert_eq!((fetched.segments, fetched.findings.len()), (1, 0), "{fetched:?}");
    assert_eq!(fs::read(files.0.join("c/audit-1.jsonl")).unwrap(), bytes);
}

#[test]
fn two_that_write_a_segment_at_once_write_it_once() {
    let server = NatsServer::start("");
    let files = Directory::new();
    let (file, both) = (files.0.join("audit.jsonl"), Barrier::new(2));
    fs::write(&file, segment()).unwrap();
    let options = JetstreamOptions { chunk: 300, ..server.options() };
    for n in 0..5 {
        let put = || {
            let mut sink = stream(options.clone()).open();
            both.wait();
            sink.put_file(&format!("edge-1/c/audit-{n}.jsonl"), &file)
        };
        let outcomes = thread::scope(|scope| {
            let other = scope.spawn(put);
            [put(), other.join().unwrap()]
        });
        // Whoever is overtaken twice tries again later.
        assert!(outcomes.iter().any(Result::is_ok), "{outcomes:?}");
        assert!(outcomes.iter().flatten().filter(|put| **put == Put::Written).count() == 1, "{outcomes:?}");
        assert_eq!(
            stream(options.clone()).open().put_file(&format!("edge-1/c/audit-{n}.jsonl"), &file).unwrap(),
            Put::Already
        );
    }
    let into = Directory::new();
    let fetched = fetch(&options, "edge-1", &into.0).unwrap();
    assert_eq!((fetched.segments, fetched.findings.len()), (5, 0), "{fetched:?}");
}

/// Writes records, a few at a time.
async fn write_records(recorder: &mut Recorder, count: u64) {
    for n in 0..count {
        recorder.record(record("ann", n));
        while recorder.given() - recorder.status().durable > 100 {
            recorder.changed().await;
        }
    }
}

#[test]
fn a_witness_gets_checkpoints_alone_and_counts_no_segment_as_copied() {
    let server = NatsServer::start("");
    let directory = Directory::new();
    let key = keygen(&directory);
    let witness = JetstreamOptions { segments: false, ..server.options() };
    let file = directory.0.join("audit.key");
    let error = stream(witness.clone()).open().put_file("edge-1/c/audit-1.jsonl", &file).unwrap_err();
    assert!(
        error.kind() == ErrorKind::Unsupported && error.to_string().contains("audit.jetstream.segments"),
        "{error}"
    );
    let with_sink = |options: &mut Options| {
        options.sink = Some(stream(witness.clone()));
        options.keep_shipped = Some(Duration::ZERO);
    };
    let (audit, mut recorder) = start(options(&directory.0, with_sink)).unwrap();
    runtime().block_on(async {
        write_records(&mut recorder, 2000).await;
        drop(recorder);
        assert!(audit.close(None).await);
    });
    let report = audit.report();
    assert_eq!((report.shipped, report.unshipped), (0, 0));
    assert!(fs::read_dir(directory.path("trail")).unwrap().count() >= 5, "none is removed");

    let config = directory.path("auditor.toml");
    fs::write(
        &config,
        format!("[auth]\nmode = \"none\"\n[audit]\nnode = \"edge-1\"\n[audit.jetstream]\n{}", server.section()),
    )
    .unwrap();
    let into = directory.path("fetched");
    let fetched = tableside(&["audit", "fetch", "--config", &config, &into]);
    assert_eq!(fetched.status.code(), Some(0), "{}", text(&fetched.stderr));
    assert!(text(&fetched.stdout).contains("checkpoints and 0 segments of node edge-1"), "{}", text(&fetched.stdout));
    let chain = fs::read_dir(&into).unwrap().next().unwrap().unwrap().path();
    let checkpoints = fs::read_dir(&chain).unwrap().count() as u64;
    assert_eq!(checkpoints, server.messages());
    let verify = [
        "audit",
        "verify",
        "--sealed",
        "--key",
        &key,
        "--checkpoint",
        chain.to_str().unwrap(),
        &directory.path("trail"),
    ];
    let verified = tableside(&verify);
    let said = text(&verified.stdout);
    assert!(
        verified.status.code() == Some(0) && said.contains(&format!("exported      {checkpoints} checkpoints")),
        "{said}"
    );
    // Of nobody there is nothing; without a stream there is nowhere to look.
    let nobody = tableside(&["audit", "fetch", "--config", &config, "--node", "edge-2", &into]);
    assert!(nobody.status.code() == Some(0) && text(&nobody.stdout).starts_with("0 checkpoints and 0 segments"));
    fs::write(&config, "[auth]\nmode = \"none\"\n").unwrap();
    let nowhere = tableside(&["audit", "fetch", "--config", &config, &into]);
    assert!(nowhere.status.code() == Some(2) && text(&nowhere.stderr).contains("audit.jetstream.stream is not set"));
}

#[test]
fn a_server_that_is_killed_and_comes_back_has_all_of_the_trail_in_the_end() {
    let mut server = NatsServer::start("");
    let directory = Directory::new();
    let key = keygen(&directory);
    let with_sink = |options: &mut Options| {
        options.sink = Some(server.sink());
        options.closing_timeout = LIMIT;
        options.rotate_bytes = 65_536;
    };
    let (audit, mut recorder) = start(options(&directory.0, with_sink)).unwrap();
    let runtime = runtime();
    let until = |what: &str, is_so: &dyn Fn() -> bool| {
        runtime.block_on(async {
            let mut looks = tokio::time::interval(Duration::from_millis(20));
            let waited = async {
                while !is_so() {
                    looks.tick().await;
                }
            };
            tokio::time::timeout(LIMIT, waited).await.unwrap_or_else(|_| panic!("{what}: not within {LIMIT:?}"));
        });
    };
    runtime.block_on(write_records(&mut recorder, 1000));
    until("a segment is there", &|| audit.report().shipped >= 1);
    server.kill();
    let errors = audit.report().ship_errors;
    runtime.block_on(write_records(&mut recorder, 1000));
    until("the server is missed", &|| audit.report().ship_errors > errors);
    assert!(!recorder.status().failing, "what is written here does not depend on it");
    server.again();
    drop(recorder);
    assert!(runtime.block_on(audit.close(None)), "{:?}", audit.report());
    assert_eq!(audit.report().unshipped, 0);
    let into = Directory::new();
    let fetched = fetch(&server.options(), "edge-1", &into.0).unwrap();
    assert!(fetched.findings.is_empty() && fetched.segments >= 4, "{fetched:?}");
    let chain = into.0.join(&fetched.chains[0]);
    let chain = chain.to_str().unwrap();
    let verified =
        tableside(&["audit", "verify", "--sealed", "--key", &key, "--node", "edge-1", "--checkpoint", chain, chain]);
    assert_eq!(verified.status.code(), Some(0), "{}", text(&verified.stdout));
    assert!(text(&verified.stdout).contains("1000 accepted, 1000 rejected"), "{}", text(&verified.stdout));
}

#[test]
fn a_server_that_hangs_is_not_waited_for_without_end() {
    let server = NatsServer::start("");
    let mut options = server.options();
    (options.access.connect_timeout, options.request_timeout) =
        (Duration::from_millis(100), Duration::from_millis(100));
    let (mut hasty, line) = (stream(options).open(), checkpoint(4, 7));
    server.stop();
    assert_eq!(hasty.newest("edge-1").unwrap_err().kind(), ErrorKind::TimedOut);
    assert_eq!(hasty.put(&name(4), &line).unwrap_err().kind(), ErrorKind::TimedOut);
    server.go_on();
    assert_eq!(server.sink().open().put(&name(4), &line).unwrap(), Put::Written);
}

#[test]
fn while_a_stream_is_away_at_the_start_bets_are_refused() {
    let mut server = NatsServer::new(Directory::new(), "");
    let directory = Directory::new();
    keygen(&directory);
    let (audit, mut recorder) = start(options(&directory.0, |options| options.sink = Some(server.sink()))).unwrap();
    assert!(recorder.status().failing && !recorder.admits());
    server.again();
    server.make(json!({}));
    runtime().block_on(async {
        let admits = async {
            while recorder.status().failing {
                recorder.changed().await;
            }
        };
        tokio::time::timeout(LIMIT, admits).await.expect("the stream is found");
        assert!(recorder.admits());
        drop(recorder);
        assert!(audit.close(None).await);
    });
    assert!(newest(&server.sink(), "edge-1").is_some());
}

#[test]
fn a_node_whose_trail_was_cut_does_not_start_for_the_stream_knows_better() {
    let server = NatsServer::start("");
    let directory = Directory::new();
    let key = keygen(&directory);
    let config = directory.path("gateway.toml");
    let first_port = free_ports(1);
    fs::write(
        &config,
        format!(
            "[http]\nlisten = \"127.0.0.1:0\"\n[admin]\nlisten = \"127.0.0.1:0\"\n[media]\nshards = 1\n\
             first_port = {first_port}\n[auth]\nmode = \"none\"\n[audit]\ndirectory = \"trail\"\nnode = \"edge.1\"\n\
             signing_key_file = \"audit.key\"\nclosing_timeout_ms = 60000\n[audit.jetstream]\n{}",
            server.section()
        ),
    )
    .unwrap();
    for _ in 0..2 {
        let (mut gateway, mut said) = Gateway::run(&config);
        assert!(said.any(|line| line.contains("listening")));
        assert!(
            std::process::Command::new("kill").args(["-TERM", &gateway.0.id().to_string()]).status().unwrap().success()
        );
        let said: Vec<String> = said.collect();
        assert!(said.iter().any(|line| line.contains("the audit trail is complete")), "{said:?}");
        assert!(!said.iter().any(|line| line.contains("async_nats")), "{said:?}");
        assert_eq!(gateway.0.wait().unwrap().code(), Some(0));
    }
    let (_, place) = newest(&server.sink(), "edge.1").unwrap();
    let verified = tableside(&["audit", "verify", "--sealed", "--key", &key, &directory.path("trail")]);
    assert_eq!(verified.status.code(), Some(0), "{}", text(&verified.stdout));

    // What is left is in order, and ends with a checkpoint.
    fs::rename(directory.path("trail/audit-0000000002.jsonl"), directory.path("cut.jsonl")).unwrap();
    let verified = tableside(&["audit", "verify", "--sealed", "--key", &key, &directory.path("trail")]);
    assert_eq!(verified.status.code(), Some(0), "{}", text(&verified.stdout));
    let (mut gateway, said) = Gateway::run(&config);
    let said = said.collect::<Vec<_>>().join("\n");
    assert_eq!(gateway.0.wait().unwrap().code(), Some(1), "{said}");
    assert!(said.contains(&place) && said.contains("does not contain it"), "{said}");

    fs::rename(directory.path("cut.jsonl"), directory.path("trail/audit-0000000002.jsonl")).unwrap();
    let (_gateway, mut said) = Gateway::run(&config);
    assert!(said.any(|line| line.contains("listening")), "it is as it was");
}

/// As in docs/audit.md.
const USERS: &str = r#"authorization { users: [
  { user: admin, password: of-the-tests }
  { user: edge-1, password: of-the-node, permissions: {
      publish: [ "tableside.audit.edge-1.>", "$JS.API.STREAM.INFO.AUDIT", "$JS.API.STREAM.MSG.GET.AUDIT" ]
      subscribe: [ "_INBOX.tableside.audit.edge-1.>" ] } }
  { user: deaf, password: of-the-node, permissions: {
      publish: [ "tableside.audit.edge-1.>", "$JS.API.STREAM.INFO.AUDIT" ]
      subscribe: [ "_INBOX.tableside.audit.edge-1.>" ] } }
] }"#;

#[test]
fn the_documented_rights_are_enough_and_fewer_are_named() {
    let documented = include_str!("../../docs/audit.md");
    for line in
        USERS.lines().filter(|line| line.contains("publish: [ \"tableside") || line.contains("subscribe:")).take(2)
    {
        let line = line.trim().trim_end_matches(" } }");
        assert!(documented.contains(line), "docs/audit.md lacks {line}");
    }
    let directory = Directory::new();
    let password = directory.path("password");
    fs::write(&password, "of-the-node\n").unwrap();
    let server = NatsServer::new(directory, USERS).with_admin("admin", "of-the-tests");
    let as_user = |user: &str, password: &str| {
        let login = format!("username = {user:?}\npassword_file = {password:?}\nsegments = true\n");
        stream(NatsServer::options_of(&(server.section() + &login)))
    };
    let sink = as_user("edge-1", &password);
    assert_eq!(newest(&sink, "edge-1"), None);
    let file = server.directory.0.join("segment");
    fs::write(&file, segment()).unwrap();
    let line = checkpoint(4, 7);
    for outcome in [Put::Written, Put::Already] {
        assert_eq!(sink.open().put(&name(4), &line).unwrap(), outcome);
        assert_eq!(sink.open().put_file("edge-1/c1/audit-1.jsonl", &file).unwrap(), outcome);
    }
    assert_eq!(newest(&sink, "edge-1").unwrap().0, 7);
    let error = sink.open().put("edge-2/c1/checkpoint-000000000004.jsonl", &checkpoint(4, 7)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error}");
    assert_eq!(server.messages(), 2);

    let error = as_user("deaf", &password).open().newest("edge-1").unwrap_err();
    assert!(error.kind() == ErrorKind::PermissionDenied, "{error}");
    assert!(error.to_string().contains("$JS.API.STREAM.MSG.GET.AUDIT"), "{error}");

    let wrong = server.directory.path("wrong");
    fs::write(&wrong, "of-nobody\n").unwrap();
    let error = as_user("edge-1", &wrong).open().newest("edge-1").unwrap_err();
    assert!(error.kind() == ErrorKind::PermissionDenied && !error.to_string().contains("of-nobody"), "{error}");
    // The file is read for each connection.
    let sink = as_user("edge-1", &wrong);
    fs::write(&wrong, "of-the-node\n").unwrap();
    assert_eq!(newest(&sink, "edge-1").unwrap().0, 7);
    fs::remove_file(&wrong).unwrap();
    let error = sink.open().newest("edge-1").unwrap_err();
    assert!(error.to_string().contains("audit.jetstream.password_file: cannot read"), "{error}");
}

#[test]
fn over_tls_each_side_is_who_it_should_be() {
    let authority = || {
        let mut parameters = CertificateParams::new(Vec::new()).unwrap();
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        CertifiedIssuer::self_signed(parameters, KeyPair::generate().unwrap()).unwrap()
    };
    let (ours, strange) = (authority(), authority());
    let mut server = NatsServer::start("");
    let directory = Directory::new();
    let write = |name: &str, text: &str| {
        fs::write(directory.path(name), text).unwrap();
        directory.path(name)
    };
    let (ca, other) = (write("ca.crt", &ours.pem()), write("other.crt", &strange.pem()));
    let pair = |name: &str| {
        let key = KeyPair::generate().unwrap();
        let signed = CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, &ours).unwrap();
        (write(&format!("{name}.crt"), &signed.pem()), write(&format!("{name}.key"), &key.serialize_pem()))
    };
    let ((certificate, key), (own, own_key)) = (pair("localhost"), pair("node"));
    server.kill();
    let file = server.directory.path("nats.conf");
    let config = fs::read_to_string(&file).unwrap();
    let tls = format!("tls {{ cert_file: {certificate:?}, key_file: {key:?}, ca_file: {ca:?}, verify: true }}\n");
    fs::write(&file, config + &tls).unwrap();
    server.again();
    let section = server.section().replace("nats://127.0.0.1", "tls://localhost");
    let with = |tls: &str| stream(NatsServer::options_of(&format!("{section}[tls]\n{tls}")));
    let known = with(&format!("ca_file = {ca:?}\ncertificate = {own:?}\nkey = {own_key:?}\n"));
    assert_eq!(known.open().put(&name(4), &checkpoint(4, 7)).unwrap(), Put::Written);
    assert_eq!(newest(&known, "edge-1").unwrap().0, 7);
    for (what, tls) in [
        (
            "a server that nobody has vouched for",
            format!("ca_file = {other:?}\ncertificate = {own:?}\nkey = {own_key:?}\n"),
        ),
        ("a node without a certificate", format!("ca_file = {ca:?}\n")),
    ] {
        let error = with(&tls).open().newest("edge-1").unwrap_err();
        assert!(error.to_string().contains("cannot connect to tls://localhost"), "{what}: {error}");
    }
    let error = with(&format!("ca_file = {:?}\n", directory.path("none"))).open().newest("edge-1").unwrap_err();
    assert!(error.to_string().starts_with("audit.jetstream.tls.ca_file: cannot read"), "{error}");
}
