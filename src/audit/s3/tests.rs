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
        assert_eq!(store.sink().newest("edge-1").unwrap_err().kind(), kind, "{head}");
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
                "HEAD" => answer(&format!("200 OK\r\n{headers}Content-Length: 5"), ""),
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
                answer(&format!("200 OK\r\nx-amz-checksum-sha256: {sum}\r\nContent-Length: 5"), "")
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
        // Nor at the second look, when it is there; what was locked otherwise was perhaps so configured.
        let again = sink.put("edge-1/c/checkpoint-1.jsonl", b"line\n");
        assert_eq!(again.is_err(), says != "was to be locked", "{says}");
    }
    let store = careless(Some(LOCKED), false);
    let mut sink = S3Sink::new(store.options());
    assert_eq!(sink.put("edge-1/c/checkpoint-1.jsonl", b"line\n").unwrap(), Put::Written);
    assert_eq!(store.methods(), ["HEAD", "PUT", "HEAD", "PUT"]);
    assert_eq!(sink.put("edge-1/c/checkpoint-1.jsonl", b"line\n").unwrap(), Put::Already);
    assert_eq!(store.methods().len(), 5, "it is seen once");
}

/// The line of a checkpoint that signs for nothing and has this time.
fn checkpoint(time: u64) -> Vec<u8> {
    let (mut bytes, mut chain) = (Vec::new(), Chain::EMPTY);
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

/// A store of these, where each object is this line; asked for the newest of node `edge.1`, which version that is.
fn search(all: Vec<Entry>, line: &[u8]) -> (Option<String>, usize) {
    let line = line.to_vec();
    let read = Arc::new(Mutex::new(None));
    let kept = read.clone();
    let store = Store::new(move |asked| match asked.path() {
        path if path.contains("versions=") => list(asked, &all),
        path if path.contains("versionId=") => {
            *kept.lock().unwrap() = Some(path.strip_prefix("/audit/p/edge.1/").unwrap().to_owned());
            ("200 OK".to_owned(), line.clone())
        }
        _ => answer("200 OK", ""),
    });
    let newest = store.sink().newest("edge.1").unwrap();
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
fn the_newest_of_any_number_of_checkpoints_is_found_in_some_dozens_of_requests() {
    for (count, every) in [(0_u64, 1_u64), (1, 1), (200, 1), (201, 3), (5000, 7), (60_000, 90_000)] {
        let all = (1..=count).map(|n| (name(n * every), Some(1))).collect();
        let (found, asked) = search(all, &checkpoint(7));
        let last = (count > 0).then(|| format!("c/checkpoint-{:012}.jsonl?versionId=1", count * every));
        assert_eq!(found, last);
        assert!(asked <= 45, "{asked} requests for {count} checkpoints");
    }
}

#[test]
fn the_last_checkpoint_is_found_behind_delete_markers_and_newer_versions() {
    let line = checkpoint(7);
    let some = |range: std::ops::RangeInclusive<u64>, version| range.map(move |n| (name(n), version));
    let oldest = Some("c/checkpoint-000000000300.jsonl?versionId=1".to_owned());
    // Keys that have nothing but a marker, a page of them and more.
    for markers in [1, 250, 2500] {
        let all = some(1..=300, Some(1)).chain(some(301..=300 + markers, None)).collect();
        assert_eq!(search(all, &line).0, oldest, "{markers} markers");
    }
    // Hidden, and written over again and again.
    for versions in [2, 250, 2500] {
        let newer = (1..=versions).rev().map(|version| (name(300), Some(version)));
        let all = some(1..=299, Some(1)).chain([(name(300), None)]).chain(newer).collect();
        assert_eq!(search(all, &line).0, oldest, "{versions} versions");
    }
    // All of it was removed once its retention had ended.
    assert_eq!(search(some(1..=500, None).collect(), &line).0, None);
}

#[test]
fn a_sink_that_does_not_tell_all_of_it_is_not_empty() {
    let line = checkpoint(7);
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
        ("a checkpoint that is none", listed(&["c/checkpoint-000000000004.jsonl"], b"{}\n")),
        ("what hides the last checkpoint", listed(&["c/checkpoint-000000000004.jsonl", "c/checkpoint-9"], &line)),
        ("a chain with another name", listed(&["c d/checkpoint-000000000004.jsonl"], &line)),
    ];
    for (name, says) in cases {
        assert!(Store::new(says).sink().newest("edge-1").is_err(), "{name}");
    }
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
    assert_eq!(S3Options::from_config(&config).unwrap().endpoint.as_deref(), Some("https://h:1"));
    assert_eq!(S3Options::from_config(&config::AuditS3::default()), None);
}
