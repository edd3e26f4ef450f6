//! Against a store that says what it is told to say.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use super::*;
use crate::audit::tests::Directory;
use crate::bets::audit::{Chain, SigningKey};

/// A request: its line, its headers in lower case, its body.
struct Asked {
    line: String,
    headers: String,
    body: Vec<u8>,
}

impl Asked {
    fn method(&self) -> &str {
        self.line.split(' ').next().unwrap()
    }

    fn path(&self) -> &str {
        self.line.split(' ').nth(1).unwrap()
    }

    fn query(&self, name: &str) -> Option<String> {
        let (_, query) = self.path().split_once('?')?;
        let value = query.split('&').find_map(|pair| pair.strip_prefix(&format!("{name}=")))?;
        Some(value.replace("%2F", "/"))
    }
}

/// What is answered: a status and headers, and a body.
type Answer = (String, Vec<u8>);

fn answer(head: &str, body: &str) -> Answer {
    (head.to_owned(), body.as_bytes().to_vec())
}

/// A store whose answers are a function of what it is asked; it keeps the lines of all requests.
struct Store {
    address: String,
    lines: Arc<Mutex<Vec<String>>>,
    directory: Directory,
}

impl Store {
    fn new(mut says: impl FnMut(&Asked) -> Answer + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let lines = Arc::new(Mutex::new(Vec::new()));
        let kept = lines.clone();
        // Ends with the process: it waits for connections that do not come.
        thread::spawn(move || {
            for stream in listener.incoming() {
                let stream = stream.unwrap();
                let Some(asked) = read(&stream) else { continue };
                kept.lock().unwrap().push(asked.line.clone());
                let (head, body) = says(&asked);
                let has_length = head.contains("Content-Length");
                let length = if has_length { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
                let body = if asked.method() == "HEAD" { Vec::new() } else { body };
                let text = format!("HTTP/1.1 {head}\r\nConnection: close\r\n{length}\r\n");
                // Who asks may have given up.
                let _ = (&stream).write_all(&[text.as_bytes(), &body].concat());
            }
        });
        let directory = Directory::new();
        let credentials = "[default]\naws_access_key_id = id\naws_secret_access_key = secret\n";
        std::fs::write(directory.0.join("credentials"), credentials).unwrap();
        Self { address, lines, directory }
    }

    fn options(&self) -> S3Options {
        S3Options {
            bucket: "audit".to_owned(),
            region: "eu-central-1".to_owned(),
            endpoint: Some(format!("http://{}", self.address)),
            prefix: "p/".to_owned(),
            lock_mode: LockMode::Compliance,
            retain_days: 30,
            ca_file: None,
            credentials_file: Some(self.directory.0.join("credentials")),
            request_timeout: Duration::from_secs(20),
            keep_shipped: None,
            page: PAGE,
        }
    }

    /// One that has not to prove itself.
    fn sink(&self) -> S3Sink {
        S3Sink { proven: true, ..S3Sink::new(self.options()) }
    }

    fn methods(&self) -> Vec<String> {
        let lines = self.lines.lock().unwrap();
        lines.iter().map(|line| line.split(' ').next().unwrap().to_owned()).collect()
    }
}

fn read(stream: &TcpStream) -> Option<Asked> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|length| *length > 0)?;
    let (mut headers, mut length) = (String::new(), 0);
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).ok()?;
        if header == "\r\n" {
            break;
        }
        let header = header.to_ascii_lowercase();
        length = header.strip_prefix("content-length:").map_or(length, |text| text.trim().parse().unwrap());
        headers.push_str(&header);
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(Asked { line: line.trim().to_owned(), headers, body })
}

const DAY: Duration = Duration::from_secs(86_400);

/// Headers of a lock that ends so long from now, or has ended so long ago.
fn locked(mode: &str, from_now: Duration, is_over: bool) -> String {
    let (now, far) = (timestamp().0, from_now.as_micros() as u64);
    let until = sigv4::extended_time(Timestamp(if is_over { now - far } else { now + far }));
    format!("x-amz-object-lock-mode: {mode}\r\nx-amz-object-lock-retain-until-date: {until}\r\n")
}

const NOT_FOUND: &str = "404 Not Found";
const EMPTY: &str = "<ListVersionsResult><IsTruncated>false</IsTruncated></ListVersionsResult>";

fn error(code: &str) -> String {
    format!("<Error><Code>{code}</Code><Message>Words.</Message><Key>not to be told</Key></Error>")
}

#[test]
fn what_is_written_is_hashed_locked_and_on_condition() {
    let seen = Arc::new(Mutex::new(String::new()));
    let kept = seen.clone();
    let store = Store::new(move |asked| match asked.method() {
        "PUT" => {
            assert_eq!(asked.body, b"line\n");
            *kept.lock().unwrap() = format!("{}\r\n{}", asked.line, asked.headers);
            answer("200 OK", "")
        }
        _ => answer(NOT_FOUND, ""),
    });
    assert_eq!(store.sink().put("edge-1/c/audit-1.jsonl", b"line\n").unwrap(), Put::Written);
    let seen = seen.lock().unwrap();
    assert!(seen.starts_with("PUT /audit/p/edge-1/c/audit-1.jsonl HTTP/1.1\r\n"), "{seen}");
    for header in [
        &format!("host: {}\r\n", store.address),
        "if-none-match: *\r\n",
        "x-amz-sdk-checksum-algorithm: sha256\r\n",
        "x-amz-object-lock-mode: compliance\r\n",
        "x-amz-object-lock-retain-until-date: ",
        // Of these bytes, in base64 and in hexadecimal.
        &format!("x-amz-checksum-sha256: {}\r\n", bucket::checksum(b"line\n").to_ascii_lowercase()),
        &format!("x-amz-content-sha256: {}\r\n", crate::bets::audit::Digest::of(b"line\n")),
    ] {
        assert!(seen.contains(header), "{header}: {seen}");
    }
}

#[test]
fn each_refusal_says_what_it_means() {
    use io::ErrorKind::{InvalidInput, NotFound, Other, PermissionDenied, TimedOut, Unsupported};
    for (head, body, kind, says) in [
        ("403 Forbidden", error("AccessDenied"), PermissionDenied, "403: AccessDenied: Words.: docs/audit.md"),
        ("403 Forbidden", error("RequestTimeTooSkewed"), PermissionDenied, "set the clock"),
        ("401 Unauthorized", String::new(), PermissionDenied, "401"),
        ("404 Not Found", error("NoSuchBucket"), NotFound, "404: NoSuchBucket"),
        ("400 Bad Request", error("InvalidRequest"), InvalidInput, "has to have object lock"),
        ("409 Conflict", error("ConditionalRequestConflict"), Other, "409: ConditionalRequestConflict"),
        ("503 Slow Down", error("SlowDown"), Other, "503: SlowDown"),
        ("504 Gateway Timeout", "<html>secret".to_owned(), TimedOut, "504"),
        ("501 Not Implemented", error("NotImplemented"), Unsupported, "501"),
        ("301 Moved\r\nx-amz-bucket-region: eu-west-1", error("PermanentRedirect"), Other, "region = \"eu-west-1\""),
        ("307 Moved\r\nx-amz-bucket-region: eu-west-1", String::new(), Other, "region = \"eu-west-1\""),
    ] {
        let said = body.clone();
        let store = Store::new(move |asked| match asked.method() {
            "PUT" => (head.to_owned(), said.clone().into_bytes()),
            _ => answer(NOT_FOUND, ""),
        });
        let refused = store.sink().put("edge-1/c/audit-1.jsonl", b"line\n").unwrap_err();
        let text = refused.to_string();
        assert!(refused.kind() == kind && text.contains(says), "{head}: {refused:?}");
        assert!(text.starts_with("s3://audit/p/edge-1/c/audit-1.jsonl: ") && !text.contains("not to be"), "{text}");
        assert!(!text.contains("secret"), "{text}");
        assert_eq!(store.methods(), ["HEAD", "PUT"], "nothing is tried again here");

        let store = Store::new(move |_| (head.to_owned(), body.clone().into_bytes()));
        let refused = store.sink().newest("edge-1").unwrap_err();
        assert!(refused.kind() == kind && !refused.to_string().contains("object lock"), "{head}: {refused}");
    }
}

#[test]
fn why_a_head_is_refused_is_asked_with_another_request() {
    let store = Store::new(|asked| match asked.method() {
        "HEAD" => answer("403 Forbidden", ""),
        _ => (String::from("403 Forbidden"), error("RequestTimeTooSkewed").into_bytes()),
    });
    let refused = store.sink().put("edge-1/c/audit-1.jsonl", b"line\n").unwrap_err().to_string();
    assert!(refused.contains("RequestTimeTooSkewed") && refused.contains("set the clock"), "{refused}");
    // Listing is allowed, and looking is not.
    let store = Store::new(|asked| match asked.method() {
        "HEAD" => answer("403 Forbidden", ""),
        _ => answer("200 OK", EMPTY),
    });
    let refused = store.sink().put("edge-1/c/audit-1.jsonl", b"line\n").unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::PermissionDenied);
    assert_eq!(store.methods(), ["HEAD", "GET"], "nothing was written");
}

#[test]
fn without_a_checksum_of_the_whole_the_bytes_are_compared() {
    let good = bucket::checksum(b"line\n");
    for (headers, is_read) in [
        (String::new(), true),
        (format!("x-amz-checksum-sha256: {good}-3\r\n"), true),
        (format!("x-amz-checksum-sha256: {good}\r\nx-amz-checksum-type: COMPOSITE\r\n"), true),
        ("etag: \"x\"\r\nx-amz-meta-sha256: x\r\n".to_owned(), true),
        (format!("x-amz-checksum-sha256: {good}\r\nx-amz-checksum-type: FULL_OBJECT\r\n"), false),
        (format!("x-amz-checksum-sha256: {good}\r\n"), false),
    ] {
        for there in ["line\n", "LINE\n"] {
            // Its checksum tells the truth, where it has one.
            let headers = headers.replace(&good, &bucket::checksum(there.as_bytes()));
            let store = Store::new(move |asked| match asked.method() {
                "HEAD" => {
                    let lock = locked("COMPLIANCE", DAY, false);
                    answer(&format!("200 OK\r\n{headers}{lock}Content-Length: 5"), "")
                }
                "GET" => answer("200 OK", there),
                _ => panic!("nothing is written"),
            });
            let outcome = store.sink().put("edge-1/c/audit-1.jsonl", b"line\n");
            match outcome {
                Ok(put) => assert!(put == Put::Already && there == "line\n"),
                Err(error) => assert!(error.kind() == io::ErrorKind::AlreadyExists && there == "LINE\n", "{error}"),
            }
            assert_eq!(store.methods().len(), if is_read { 2 } else { 1 });
        }
    }
    // What is longer is not even asked for.
    let store = Store::new(|_| answer("200 OK\r\nContent-Length: 6", ""));
    let refused = store.sink().put("edge-1/c/audit-1.jsonl", b"line\n").unwrap_err();
    assert_eq!((refused.kind(), store.methods().len()), (io::ErrorKind::AlreadyExists, 1));
}

#[test]
fn an_object_that_is_there_in_the_end_is_looked_at_again() {
    for (there, expected) in [("line\n", Ok(Put::Already)), ("fork\n", Err(io::ErrorKind::AlreadyExists))] {
        let mut is_there = false;
        let store = Store::new(move |asked| match asked.method() {
            "PUT" => {
                is_there = true;
                answer("412 Precondition Failed", "")
            }
            "HEAD" if is_there => {
                let sum = bucket::checksum(there.as_bytes());
                let lock = locked("COMPLIANCE", DAY, false);
                answer(&format!("200 OK\r\n{lock}x-amz-checksum-sha256: {sum}\r\nContent-Length: 5"), "")
            }
            _ => answer(NOT_FOUND, ""),
        });
        let outcome = store.sink().put("edge-1/c/checkpoint-1.jsonl", b"line\n");
        assert_eq!(outcome.map_err(|error| error.kind()), expected);
        assert_eq!(store.methods(), ["HEAD", "PUT", "HEAD"]);
    }
    // A store that says both is not believed.
    let store = Store::new(|asked| match asked.method() {
        "PUT" => answer("412 Precondition Failed", ""),
        _ => answer(NOT_FOUND, ""),
    });
    assert!(store.sink().put("edge-1/c/checkpoint-1.jsonl", b"line\n").is_err());
}

/// A store that keeps one object; whether it locks and whether it overwrites is another matter.
fn careless(lock: Option<&'static str>, overwrites: bool) -> Store {
    let mut kept: Option<(Vec<u8>, String)> = None;
    Store::new(move |asked| match (asked.method(), &kept) {
        ("PUT", Some(_)) if !overwrites => answer("412 Precondition Failed", ""),
        ("PUT", _) => {
            let date =
                asked.headers.lines().find_map(|line| line.strip_prefix("x-amz-object-lock-retain-until-date: "));
            kept = Some((asked.body.clone(), date.unwrap().to_ascii_uppercase()));
            answer("200 OK", "")
        }
        ("HEAD", Some((body, date))) => {
            let lock = lock.map(|lock| lock.replace("DATE", date)).unwrap_or_default();
            let sum = bucket::checksum(body);
            answer(&format!("200 OK\r\n{lock}x-amz-checksum-sha256: {sum}\r\nContent-Length: {}", body.len()), "")
        }
        _ => answer(NOT_FOUND, ""),
    })
}

const LOCKED: &str = "x-amz-object-lock-mode: COMPLIANCE\r\nx-amz-object-lock-retain-until-date: DATE\r\n";

#[test]
fn a_store_that_does_not_lock_or_overwrites_does_not_pass_for_one_that_does() {
    let short = "x-amz-object-lock-mode: COMPLIANCE\r\nx-amz-object-lock-retain-until-date: 2026-09-21T00:00:00Z\r\n";
    let soft = "x-amz-object-lock-mode: GOVERNANCE\r\nx-amz-object-lock-retain-until-date: DATE\r\n";
    for (lock, overwrites, says) in [
        (None, false, "does not say that it is locked"),
        (Some("x-amz-object-lock-mode: COMPLIANCE\r\n"), false, "does not say that it is locked"),
        (Some(short), false, "was to be locked"),
        (Some(soft), false, "was to be locked"),
        (Some(LOCKED), true, "overwrites"),
    ] {
        let store = careless(lock, overwrites);
        let mut sink = S3Sink::new(store.options());
        let refused = sink.put("edge-1/c/checkpoint-1.jsonl", b"line\n").unwrap_err();
        assert!(refused.kind() == io::ErrorKind::Unsupported && refused.to_string().contains(says), "{refused}");
        // Nor at the second look, when it is there. What is overwritten is not tried again.
        for _ in 0..2 {
            let asked = store.methods().len();
            let again = sink.put("edge-1/c/checkpoint-1.jsonl", b"line\n").unwrap_err();
            assert!(again.kind() == io::ErrorKind::Unsupported && again.to_string().contains(says), "{again}");
            assert!(store.methods()[asked..].iter().all(|method| method == "HEAD"), "{says}: {:?}", store.methods());
        }
        if overwrites {
            assert_eq!(store.methods(), ["HEAD", "PUT", "HEAD", "PUT"], "nor is another name");
            assert!(sink.put("edge-1/c/checkpoint-2.jsonl", b"line\n").is_err());
            assert_eq!(store.methods().len(), 4);
        }
    }
    let store = careless(Some(LOCKED), false);
    let mut sink = S3Sink::new(store.options());
    assert_eq!(sink.put("edge-1/c/checkpoint-1.jsonl", b"line\n").unwrap(), Put::Written);
    assert_eq!(store.methods(), ["HEAD", "PUT", "HEAD", "PUT"]);
    assert_eq!(sink.put("edge-1/c/checkpoint-1.jsonl", b"line\n").unwrap(), Put::Already);
    assert_eq!(store.methods().len(), 5, "it is seen once");
}

#[test]
fn a_proof_that_was_interrupted_is_made_up_for_and_by_no_other_object() {
    let mut kept: BTreeMap<String, (Vec<u8>, String)> = BTreeMap::new();
    let (mut looks, is_locked) = (0, Arc::new(Mutex::new(false)));
    let says_lock = is_locked.clone();
    let store = Store::new(move |asked| match (asked.method(), kept.get(asked.path())) {
        ("PUT", Some(_)) => answer("412 Precondition Failed", ""),
        ("PUT", None) => {
            let date =
                asked.headers.lines().find_map(|line| line.strip_prefix("x-amz-object-lock-retain-until-date: "));
            kept.insert(asked.path().to_owned(), (asked.body.clone(), date.unwrap().to_ascii_uppercase()));
            answer("200 OK", "")
        }
        ("HEAD", Some((body, date))) => {
            looks += 1;
            if looks == 1 {
                return answer("503 Slow Down", "");
            }
            let is_short = asked.path().ends_with("1.jsonl") && !*says_lock.lock().unwrap();
            let date = if is_short { "2999-01-01T00:00:00Z" } else { date.as_str() };
            let mode = if is_short { "GOVERNANCE" } else { "COMPLIANCE" };
            let lock = format!("x-amz-object-lock-mode: {mode}\r\nx-amz-object-lock-retain-until-date: {date}\r\n");
            let sum = bucket::checksum(body);
            answer(&format!("200 OK\r\n{lock}x-amz-checksum-sha256: {sum}\r\nContent-Length: {}", body.len()), "")
        }
        ("HEAD", None) => answer(NOT_FOUND, ""),
        _ => answer("200 OK", EMPTY),
    });
    let mut sink = S3Sink::new(store.options());
    let mut put =
        |n: u32| sink.put(&format!("edge-1/c/checkpoint-{n}.jsonl"), b"line\n").map_err(|error| error.to_string());
    assert!(put(1).unwrap_err().contains("503"));
    assert!(put(1).unwrap_err().contains("was to be locked, COMPLIANCE"), "as asked, not just somehow");
    assert_eq!(put(2), Ok(Put::Written), "another one proves the store");
    assert!(put(1).unwrap_err().contains("was to be locked, COMPLIANCE"), "and not the first object");
    *is_locked.lock().unwrap() = true;
    assert_eq!(put(1), Ok(Put::Already), "it was locked by hand");
    let asked = store.methods().len();
    assert_eq!(put(1), Ok(Put::Already));
    assert_eq!(store.methods().len(), asked + 1, "what was proven is seen once");
}

#[test]
fn what_is_there_counts_only_with_a_lock_that_lasts() {
    use LockMode::{Compliance, Governance};
    let directory = Directory::new();
    let file = directory.0.join("audit-0000000001.jsonl");
    std::fs::write(&file, b"line\n").unwrap();
    let lock = |mode: &str, days: u32| locked(mode, days * DAY, false);
    let over = locked("COMPLIANCE", DAY, true);
    // The lock, the mode that is configured, the days that segments are kept: whether segment and checkpoint count.
    let cases = [
        (String::new(), Compliance, None, [false, false]),
        ("x-amz-object-lock-mode: COMPLIANCE\r\n".to_owned(), Compliance, None, [false, false]),
        (lock("GOVERNANCE", 30), Compliance, None, [false, false]),
        (lock("GOVERNANCE", 30), Governance, None, [true, true]),
        (lock("COMPLIANCE", 30), Governance, None, [true, true]),
        (lock("COMPLIANCE", 1), Compliance, None, [true, true]),
        // A copy of a segment that is never removed here may outlast its lock.
        (over.clone(), Compliance, None, [true, false]),
        (over, Compliance, Some(2), [false, false]),
        // The segment was written just now, and is removed here in two days.
        (lock("COMPLIANCE", 1), Compliance, Some(2), [false, true]),
        (lock("COMPLIANCE", 3), Compliance, Some(2), [true, true]),
    ];
    for (n, (lock, lock_mode, keep, counts)) in cases.into_iter().enumerate() {
        let sum = bucket::checksum(b"line\n");
        let store = Store::new(move |_| {
            answer(&format!("200 OK\r\n{lock}x-amz-checksum-sha256: {sum}\r\nContent-Length: 5"), "")
        });
        let keep_shipped = keep.map(|days: u32| days * DAY);
        let mut sink = S3Sink::new(S3Options { lock_mode, keep_shipped, ..store.options() });
        let segment = sink.put_file("edge-1/c/audit-0000000001.jsonl", &file);
        let checkpoint = sink.put("edge-1/c/checkpoint-000000000004.jsonl", b"line\n");
        for (outcome, counts) in [segment, checkpoint].into_iter().zip(counts) {
            match outcome {
                Ok(put) => assert!(counts && put == Put::Already, "case {n}"),
                Err(error) => {
                    let is_said = error.to_string().contains("put-object-retention");
                    assert!(!counts && error.kind() == io::ErrorKind::Unsupported && is_said, "case {n}: {error}");
                }
            }
        }
        assert!(!sink.proven, "what was there proves nothing of what is written");
        assert_eq!(store.methods(), ["HEAD", "HEAD"], "case {n}");
    }
}

#[test]
fn the_copy_of_an_old_segment_needs_no_lock_beyond_its_removal_here() {
    let directory = Directory::new();
    let file = directory.0.join("audit-0000000001.jsonl");
    std::fs::write(&file, b"line\n").unwrap();
    let written = std::time::SystemTime::UNIX_EPOCH + Duration::from_micros(timestamp().0) - 6 * DAY;
    std::fs::File::options().append(true).open(&file).unwrap().set_modified(written).unwrap();
    // Kept for a week of which six days are over; so long ago it was locked for a week.
    for (rest, counts) in [(DAY + Duration::from_secs(60), true), (DAY - Duration::from_secs(60), false)] {
        let sum = bucket::checksum(b"line\n");
        let lock = locked("COMPLIANCE", rest, false);
        let store = Store::new(move |_| {
            answer(&format!("200 OK\r\n{lock}x-amz-checksum-sha256: {sum}\r\nContent-Length: 5"), "")
        });
        let mut sink = S3Sink::new(S3Options { keep_shipped: Some(7 * DAY), ..store.options() });
        assert_eq!(sink.put_file("edge-1/c/audit-0000000001.jsonl", &file).is_ok(), counts, "{rest:?}");
    }
}

#[test]
fn a_file_too_long_to_be_sent_in_one_piece_is_not_read() {
    let store = Store::new(|_| answer(NOT_FOUND, ""));
    let file = store.directory.0.join("audit-0000000001.jsonl");
    std::fs::File::create(&file).unwrap().set_len(LARGEST_FILE + 1).unwrap();
    let refused = store.sink().put_file("edge-1/c/audit-0000000001.jsonl", &file).unwrap_err();
    assert!(refused.kind() == io::ErrorKind::FileTooLarge && refused.to_string().contains("1073741825"), "{refused}");
    assert!(store.methods().is_empty());
}

/// The line of a checkpoint that signs for so many lines and has this time.
fn checkpoint(seq: u64, time: u64) -> Vec<u8> {
    let (mut bytes, mut chain) = (Vec::new(), Chain::after(seq, crate::bets::audit::Digest::ZERO));
    chain.seal(&mut bytes, Timestamp(time), &SigningKey::generate().unwrap());
    bytes
}

/// A key and a version of it, the newest first; a delete marker where there is no number of a version.
type Entry = (String, Option<u64>);

/// A page of a listing, by the rules of S3.
fn list(asked: &Asked, all: &[Entry]) -> Answer {
    let (prefix, after) = (asked.query("prefix").unwrap(), asked.query("key-marker").unwrap_or_default());
    let version_after = asked.query("version-id-marker");
    let most: usize = asked.query("max-keys").map_or(1000, |most| most.parse().unwrap());
    let id = |version: Option<u64>| version.map_or("gone".to_owned(), |version| version.to_string());
    let from = match &version_after {
        Some(last) => all.iter().position(|(key, version)| *key == after && id(*version) == *last).unwrap() + 1,
        None => all.partition_point(|(key, _)| *key <= after),
    };
    let has_delimiter = asked.query("delimiter").is_some();
    let mut entries: Vec<(String, String, String)> = Vec::new();
    for (key, version) in all[from..].iter().filter(|(key, _)| key.starts_with(&prefix)) {
        let common = key[prefix.len()..].find('/').filter(|_| has_delimiter).map(|at| &key[..=prefix.len() + at]);
        let id = id(*version);
        let kind = if version.is_some() { "Version" } else { "DeleteMarker" };
        match common {
            Some(common) if after.starts_with(common) || entries.last().is_some_and(|(last, ..)| last == common) => {}
            Some(common) => {
                let xml = format!("<CommonPrefixes><Prefix>{common}</Prefix></CommonPrefixes>");
                entries.push((common.to_owned(), String::new(), xml));
            }
            None => {
                let xml = format!("<{kind}><Key>{key}</Key><VersionId>{id}</VersionId></{kind}>");
                entries.push((key.clone(), id, xml));
            }
        }
        if entries.len() > most {
            break;
        }
    }
    let is_truncated = entries.len() > most;
    entries.truncate(most);
    let next = entries.last().filter(|_| is_truncated).map(|(key, id, _)| {
        let version =
            if id.is_empty() { String::new() } else { format!("<NextVersionIdMarker>{id}</NextVersionIdMarker>") };
        format!("<NextKeyMarker>{key}</NextKeyMarker>{version}")
    });
    let xml: String = entries.into_iter().map(|(.., xml)| xml).collect();
    let text = format!(
        "<ListVersionsResult><IsTruncated>{is_truncated}</IsTruncated>{}{xml}</ListVersionsResult>",
        next.unwrap_or_default()
    );
    answer("200 OK", &text)
}

/// A store of these, where each object is what its name says; asked for the newest of node `edge.1`, which version that is.
fn search(all: Vec<Entry>) -> (Option<String>, usize) {
    search_by(all, PAGE)
}

/// With pages of so many entries.
fn search_by(all: Vec<Entry>, page: u16) -> (Option<String>, usize) {
    let read = Arc::new(Mutex::new(None));
    let kept = read.clone();
    let store = Store::new(move |asked| match asked.path() {
        path if path.contains("versions=") => list(asked, &all),
        path if path.contains("versionId=") => {
            *kept.lock().unwrap() = Some(path.strip_prefix("/audit/p/edge.1/").unwrap().to_owned());
            let seq = path.split_once("checkpoint-").unwrap().1.split('.').next().unwrap();
            ("200 OK".to_owned(), checkpoint(seq.parse().unwrap(), 7))
        }
        _ => answer("200 OK", ""),
    });
    let newest = S3Sink::new(S3Options { page, ..store.options() }).newest("edge.1").unwrap();
    let read = read.lock().unwrap().take();
    let name = |place: String| place.strip_prefix("s3://audit/p/edge.1/").unwrap().to_owned();
    assert_eq!(
        newest.map(|(place, _)| name(place)).as_deref(),
        read.as_deref().and_then(|read| read.split('?').next())
    );
    (read, store.methods().len())
}

fn name(n: u64) -> String {
    format!("p/edge.1/c/checkpoint-{n:012}.jsonl")
}

#[test]
fn the_newest_of_any_number_of_checkpoints_is_found_in_a_few_requests() {
    // The last: a checkpoint a minute for a month, and few lines.
    for (count, every, most) in
        [(0_u64, 1_u64, 2), (1, 1, 3), (200, 1, 3), (201, 3, 14), (5000, 7, 20), (60_000, 90_000, 25), (43_200, 5, 25)]
    {
        let all = (1..=count).map(|n| (name(n * every), Some(1))).collect();
        let (found, asked) = search(all);
        let last = (count > 0).then(|| format!("c/checkpoint-{:012}.jsonl?versionId=1", count * every));
        assert_eq!(found, last);
        assert!(asked <= most, "{asked} requests for {count} checkpoints");
    }
}

#[test]
fn the_last_checkpoint_is_found_behind_delete_markers_and_newer_versions() {
    let some = |range: std::ops::RangeInclusive<u64>, version| range.map(move |n| (name(n), version));
    let oldest = Some("c/checkpoint-000000000300.jsonl?versionId=1".to_owned());
    // Keys that have nothing but a marker, a page of them and more.
    for markers in [1, 250, 2500] {
        let all = some(1..=300, Some(1)).chain(some(301..=300 + markers, None)).collect();
        assert_eq!(search(all).0, oldest, "{markers} markers");
    }
    // Hidden, and written over again and again.
    for versions in [2, 250, 2500] {
        let newer = (1..=versions).rev().map(|version| (name(300), Some(version)));
        let all = some(1..=299, Some(1)).chain([(name(300), None)]).chain(newer).collect();
        assert_eq!(search(all).0, oldest, "{versions} versions");
    }
    // All of it was removed once its retention had ended.
    assert_eq!(search(some(1..=500, None).collect()).0, None);
}

#[test]
fn behind_delete_markers_the_search_does_not_begin_anew() {
    let some = |range: std::ops::RangeInclusive<u64>, version| range.map(move |n| (name(n), version));
    let all: Vec<Entry> = some(1..=60_000, Some(1)).chain(some(60_001..=62_500, None)).collect();
    let (found, asked) = search(all);
    assert_eq!(found.as_deref(), Some("c/checkpoint-000000060000.jsonl?versionId=1"));
    // All pages of the chain are some sixty.
    assert!(asked <= 35, "{asked} requests");
}

#[test]
fn any_order_of_versions_and_delete_markers_gives_the_oldest_of_the_last() {
    use proptest::prelude::*;
    // Of each key how many versions, and after which of them there is a marker.
    let keys = prop::collection::vec((1_u64..4, 0_u64..4, 0_u64..5), 0..12);
    proptest!(ProptestConfig::with_cases(24), |(keys in keys)| {
        let (mut all, mut seq, mut last) = (Vec::new(), 0, None);
        for (step, versions, marker) in keys {
            seq += step;
            for version in (1..=versions).rev() {
                all.extend((version == marker).then(|| (name(seq), None)));
                all.push((name(seq), Some(version)));
            }
            all.extend((versions == 0).then(|| (name(seq), None)));
            last = if versions > 0 { Some(format!("c/checkpoint-{seq:012}.jsonl?versionId=1")) } else { last };
        }
        for page in [1, 2, 3] {
            prop_assert_eq!(&search_by(all.clone(), page).0, &last, "pages of {}: {:?}", page, all);
        }
    });
}

#[test]
fn who_looks_too_long_says_how_far_it_came() {
    let keys: Vec<Entry> =
        ["c1", "c2"].map(|chain| (format!("p/edge-1/{chain}/checkpoint-000000000004.jsonl"), Some(1))).to_vec();
    let listed = |chain: &'static str| {
        let keys = keys.clone();
        Store::new(move |asked| match asked.path() {
            path if !chain.is_empty() && path.contains(chain) => {
                thread::sleep(Duration::from_secs(2));
                answer(NOT_FOUND, "")
            }
            path if path.contains("versions=") => list(asked, &keys),
            _ => ("200 OK".to_owned(), checkpoint(4, 7)),
        })
    };
    let ask = |store: &Store| {
        let [names, chain] = [Duration::from_secs(20), Duration::from_millis(500)];
        let patience = Patience { names, chain, chains: names };
        let bucket = Bucket::new(store.options()).unwrap();
        run(names, newest::newest(&bucket, "p/edge-1/", PAGE, patience))
    };
    assert!(ask(&listed("")).unwrap().is_some());
    let error = ask(&listed("edge-1%2Fc2%2F")).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    let says = "s3://audit/p/edge-1/: no newest checkpoint within 1s: 1 of 2 chains were looked at, after 2 answers";
    assert_eq!(error.to_string(), says);
}

#[test]
fn a_sink_that_does_not_tell_all_of_it_is_not_empty() {
    let line = checkpoint(4, 7);
    type Says = Box<dyn FnMut(&Asked) -> Answer + Send>;
    let keys =
        |names: &[&str]| -> Vec<Entry> { names.iter().map(|name| (format!("p/edge-1/{name}"), Some(1))).collect() };
    let listed = |names: &[&str], line: &[u8]| -> Says {
        let (keys, line) = (keys(names), line.to_vec());
        Box::new(move |asked| match asked.path() {
            path if path.contains("versions=") => list(asked, &keys),
            _ => ("200 OK".to_owned(), line.clone()),
        })
    };
    let always = |head: &'static str, body: &'static str| -> Says { Box::new(move |_| answer(head, body)) };
    let cases: Vec<(&str, Says)> = vec![
        ("no list", always("200 OK", "<html>Welcome</html>")),
        ("a list of something else", always("200 OK", "<ListBucketResult><IsTruncated>false</IsTruncated>")),
        (
            "a list that goes on for ever",
            always(
                "200 OK",
                "<ListVersionsResult><IsTruncated>true</IsTruncated><NextKeyMarker>p/x</NextKeyMarker></ListVersionsResult>",
            ),
        ),
        ("no words", always("200 OK", "\u{0}")),
        (
            "no bucket, which is listed as empty",
            Box::new(|asked| answer(if asked.method() == "HEAD" { NOT_FOUND } else { "200 OK" }, EMPTY)),
        ),
        ("an old checkpoint under a later name", listed(&["c/checkpoint-000000000005.jsonl"], &line)),
        ("a checkpoint that is none", listed(&["c/checkpoint-000000000004.jsonl"], b"{}\n")),
        ("what hides the last checkpoint", listed(&["c/checkpoint-000000000004.jsonl", "c/checkpoint-9"], &line)),
        ("a chain with another name", listed(&["c d/checkpoint-000000000004.jsonl"], &line)),
    ];
    for (name, says) in cases {
        assert!(Store::new(says).sink().newest("edge-1").is_err(), "{name}");
    }
    let store = Store::new(listed(&["c/checkpoint-000000000004.jsonl"], &line));
    assert!(store.sink().newest("edge-1").unwrap().is_some(), "what the others differ from");
    let store = Store::new(listed(&["c/audit-0000000001.jsonl"], &line));
    assert!(store.sink().newest("edge-1").unwrap().is_none(), "a chain without checkpoints");
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let options = S3Options { endpoint: Some(format!("http://{gone}")), ..store.options() };
    assert!(S3Sink::new(options).newest("edge-1").is_err());
}

#[test]
fn a_store_that_does_not_answer_is_given_up() {
    // Accepted by the kernel, and by nobody else.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let store = Store::new(|_| answer(NOT_FOUND, ""));
    let endpoint = Some(format!("http://{}", silent.local_addr().unwrap()));
    let options = S3Options { endpoint, request_timeout: Duration::from_millis(50), ..store.options() };
    let mut sink = S3Sink::new(options);
    assert_eq!(sink.newest("edge-1").unwrap_err().kind(), io::ErrorKind::TimedOut);
    assert_eq!(sink.put("edge-1/c/audit-1.jsonl", b"line\n").unwrap_err().kind(), io::ErrorKind::TimedOut);
}

#[test]
fn aws_is_asked_at_the_host_of_the_bucket() {
    let store = Store::new(|_| answer(NOT_FOUND, ""));
    let url =
        |options: S3Options| Bucket::new(options).unwrap().url(Some("p/k"), &[("prefix", "a/b"), ("versions", "")]);
    assert_eq!(url(store.options()), format!("http://{}/audit/p/k?prefix=a%2Fb&versions=", store.address));
    assert_eq!(
        url(S3Options { endpoint: None, ..store.options() }),
        "https://audit.s3.eu-central-1.amazonaws.com/p/k?prefix=a%2Fb&versions="
    );
    let config = config::AuditS3 {
        bucket: Some("b".into()),
        endpoint: Some("https://h:1/".to_owned().try_into().unwrap()),
        ..Default::default()
    };
    assert_eq!(S3Options::from_config(&config, None).unwrap().endpoint.as_deref(), Some("https://h:1"));
    assert_eq!(S3Options::from_config(&config::AuditS3::default(), None), None);
}
