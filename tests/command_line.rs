//! The binary: exit status, and what it says.

#![allow(clippy::disallowed_methods)]

mod ports;

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant, SystemTime};

use ports::free_ports;
use rcgen::generate_simple_self_signed;
use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use tableside::identity::{Claims, KeySet, Policy, Role, Tables, TokenError, verify};

/// The key of RFC 8037 appendix A.2.
const JWKS: &str =
    r#"{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"a","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;
const AUTH: &str = "[auth]\njwks_file = \"jwks.json\"\njurisdictions = [\"*\"]\n";

fn tableside(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tableside"));
    command.args(arguments).env_remove("RUST_LOG");
    command
}

fn run(arguments: &[&str]) -> Output {
    tableside(arguments).output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// A directory with a configuration and a key set, gone at the end of the test.
struct Files(PathBuf);

impl Files {
    fn new(config: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let unique = format!("tableside-command-line-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let directory = std::env::temp_dir().join(unique);
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join("gateway.toml"), config).unwrap();
        fs::write(directory.join("jwks.json"), JWKS).unwrap();
        Self(directory)
    }

    fn config(&self) -> String {
        self.0.join("gateway.toml").to_str().unwrap().to_owned()
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn every_command_has_help_with_an_example() {
    for command in [
        "",
        "gateway",
        "demo",
        "check-config",
        "token",
        "token keygen",
        "audit",
        "audit verify",
        "audit export",
        "audit fetch",
        "audit keygen",
    ] {
        let output = run(&command.split_whitespace().chain(["--help"]).collect::<Vec<_>>());
        assert!(output.status.success());
        let text = String::from_utf8(output.stdout).unwrap();
        let example = ["Example:\n  tableside ", "Examples:\n  tableside "].iter().any(|begin| text.contains(begin));
        assert!(example, "{text}");
    }
}

#[test]
fn check_config_accepts_a_good_file_and_sums_it_up() {
    let files = Files::new(&format!("{AUTH}[tables.roulette]\n"));
    let output = run(&["check-config", &files.config()]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("gateway.toml: OK") && text.contains("roulette"), "{text}");
}

#[test]
fn check_config_refuses_a_bad_file_in_one_line() {
    let files = Files::new("[http]\nlisen = \"0.0.0.0:80\"\n");
    let output = run(&["check-config", &files.config()]);
    assert_eq!(output.status.code(), Some(1));
    let expected = format!("error: {}:2:1: http.lisen: unknown key; did you mean `listen`?\n", files.config());
    assert_eq!(stderr(&output), expected);
    assert!(output.stdout.is_empty());
}

#[test]
fn a_file_that_is_missing_is_named_with_the_cause() {
    let output = run(&["check-config", "/nonexistent/gateway.toml"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).starts_with("error: cannot read /nonexistent/gateway.toml: No such file"));
}

#[test]
fn the_gateway_refuses_to_start_without_keys_for_tokens() {
    let files = Files::new("[http]\nlisten = \"127.0.0.1:0\"\n[tables.roulette]\n");
    let output = run(&["gateway", "--config", &files.config()]);
    assert_eq!(output.status.code(), Some(1));
    let said = stderr(&output);
    assert!(said.contains("auth.jwks_file: is not set") && said.contains("tableside demo"), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
}

#[test]
fn a_port_in_use_is_named_with_the_key_to_change() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let files = Files::new(&format!("[http]\nlisten = \"{address}\"\n[admin]\nlisten = \"127.0.0.1:0\"\n{AUTH}"));
    let output = run(&["gateway", "--config", &files.config()]);
    assert_eq!(output.status.code(), Some(1));
    let said = stderr(&output);
    assert!(said.contains(&address.to_string()) && said.contains("[http] listen"), "{said}");
    assert!(said.contains("in use"), "{said}");
}

/// A node on ports of its own; killed if the test fails.
struct Node(Child);

impl Node {
    fn signal(&self, signal: &str) {
        assert!(Command::new("kill").args([signal, &self.0.id().to_string()]).status().unwrap().success());
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn the_demo_says_where_it_is_and_ends_when_told() {
    let first_port = free_ports(1).to_string();
    let mut command =
        tableside(&["demo", "--http", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--first-port", &first_port]);
    let mut demo = Node(command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap());
    let mut first_line = String::new();
    BufReader::new(demo.0.stdout.as_mut().unwrap()).read_line(&mut first_line).unwrap();
    assert!(first_line.contains("http://127.0.0.1:") && first_line.ends_with("/play/demo\n"), "{first_line}");

    // Without a certificate there is nothing to read again, and it is no end either.
    demo.signal("-HUP");
    demo.signal("-TERM");
    assert_eq!(demo.0.wait().unwrap().code(), Some(0));
}

/// The threads of a process by name, and the cores that each may run on.
fn threads_and_cores(process: u32) -> Vec<(String, String)> {
    let of = |thread: std::io::Result<fs::DirEntry>| {
        // A thread may have ended since the directory was read.
        let status = fs::read_to_string(thread.unwrap().path().join("status")).ok()?;
        let value = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().to_owned();
        Some((value("Name:"), value("Cpus_allowed_list:")))
    };
    fs::read_dir(format!("/proc/{process}/task")).unwrap().filter_map(of).collect()
}

#[test]
fn pinned_shards_have_cores_of_their_own_and_all_else_keeps_off_them() {
    // As many as the mask says, of which a control group may let a process use less at a time.
    let cores = tableside::net::allowed_cores().unwrap().len();
    let config = |shards: usize| {
        let first_port = free_ports(shards as u16);
        Files::new(&format!(
            "[http]\nlisten = \"127.0.0.1:0\"\n[admin]\nlisten = \"127.0.0.1:0\"\n[media]\nshards = {shards}\n\
             first_port = {first_port}\npin_shards = true\n{AUTH}[bet_service]\nkind = \"embedded\"\n"
        ))
    };
    let files = config(cores);
    let output = run(&["gateway", "--config", &files.config()]);
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains(&format!("need {} cores, and this process may use {cores}", cores + 1)), "{said}");
    if cores == 1 {
        return;
    }

    let shards = cores - 1;
    let files = config(shards);
    let mut command = tableside(&["gateway", "--config", &files.config()]);
    let mut gateway = Node(command.stderr(Stdio::piped()).spawn().unwrap());
    let mut lines = BufReader::new(gateway.0.stderr.take().unwrap()).lines().map(Result::unwrap);
    assert!(lines.any(|line| line.contains("listening")));
    // A thread gets its name when it begins to run.
    let deadline = Instant::now() + Duration::from_secs(20);
    let (pinned, others) = loop {
        let (pinned, others): (BTreeSet<_>, BTreeSet<_>) =
            threads_and_cores(gateway.0.id()).into_iter().partition(|(name, _)| name.starts_with("shard-"));
        if others.iter().any(|(name, _)| name == "bets") {
            break (pinned, others);
        }
        assert!(Instant::now() < deadline, "no desk in {others:?}");
        std::thread::yield_now();
    };
    assert_eq!(pinned.len(), shards, "{pinned:?}");
    let places: BTreeSet<&str> = pinned.iter().map(|(_, place)| &**place).collect();
    assert!(places.len() == shards && places.iter().all(|place| place.parse::<u32>().is_ok()), "{pinned:?}");
    let rest: BTreeSet<&str> = others.iter().map(|(_, place)| &**place).collect();
    assert!(rest.len() == 1 && rest.is_disjoint(&places), "{others:?} beside {pinned:?}");
    for thread in ["tableside", "tokio-rt-worker"] {
        assert!(others.iter().any(|(name, _)| name == thread), "{thread} in {others:?}");
    }
    gateway.signal("-TERM");
    lines.for_each(drop);
    assert_eq!(gateway.0.wait().unwrap().code(), Some(0));
}

#[test]
fn a_gateway_ends_its_audit_trail_and_goes_on_with_it() {
    let files = Files::new("");
    let path = |name: &str| files.0.join(name).to_str().unwrap().to_owned();
    assert!(run(&["audit", "keygen", &path("audit.key")]).status.success());
    fs::create_dir(path("sink")).unwrap();
    let first_port = free_ports(1);
    let config = format!(
        "[http]\nlisten = \"127.0.0.1:0\"\n[admin]\nlisten = \"127.0.0.1:0\"\n[media]\nshards = 1\nfirst_port = {first_port}\n\
         {AUTH}[audit]\ndirectory = \"trail\"\nnode = \"edge-1\"\n\
         signing_key_file = \"audit.key\"\nsink_directory = \"sink\"\n"
    );
    fs::write(path("gateway.toml"), &config).unwrap();
    for processes in 1..=2 {
        let mut command = tableside(&["gateway", "--config", &files.config()]);
        let mut gateway = Node(command.stderr(Stdio::piped()).spawn().unwrap());
        let mut lines = BufReader::new(gateway.0.stderr.take().unwrap()).lines().map(Result::unwrap);
        assert!(lines.any(|line| line.contains("listening")));
        gateway.signal("-TERM");
        assert!(lines.any(|line| line.contains("the audit trail is complete")));
        lines.for_each(drop);
        assert_eq!(gateway.0.wait().unwrap().code(), Some(0));
        let verified = run(&["audit", "verify", "--sealed", "--key", &path("audit.key.pub"), &path("trail")]);
        let text = String::from_utf8(verified.stdout).unwrap();
        assert_eq!(verified.status.code(), Some(0), "{text}");
        assert!(text.contains(&format!("processes     {processes}, of which 0 followed")), "{text}");
    }
    let chain = fs::read_dir(path("sink/edge-1")).unwrap().next().unwrap().unwrap().path();
    for segment in ["audit-0000000001.jsonl", "audit-0000000002.jsonl"] {
        assert_eq!(fs::read(chain.join(segment)).unwrap(), fs::read(files.0.join("trail").join(segment)).unwrap());
    }
    fs::write(path("gateway.toml"), config.replace("\"trail\"", "\"no/such/place\"")).unwrap();
    let output = run(&["gateway", "--config", &files.config()]);
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("cannot make the directory") && said.contains("audit.directory"), "{said}");
}

/// Makes a certificate and writes it where [`a_hangup_has_the_certificate_read_again`] has configured it.
fn write_certificate(files: &Files) -> CertificateDer<'static> {
    let made = generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    fs::write(files.0.join("tls.crt"), made.cert.pem()).unwrap();
    fs::write(files.0.join("tls.key"), made.signing_key.serialize_pem()).unwrap();
    made.cert.der().clone()
}

/// Whether whoever listens at `address` has the key of `certificate`.
fn is_served(address: &str, certificate: &CertificateDer<'static>) -> bool {
    let mut roots = RootCertStore::empty();
    roots.add(certificate.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = builder.with_root_certificates(roots).with_no_client_auth();
    let mut client = ClientConnection::new(Arc::new(config), "localhost".try_into().unwrap()).unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    while client.is_handshaking() {
        if client.complete_io(&mut stream).is_err() {
            return false;
        }
    }
    true
}

#[test]
fn a_hangup_has_the_certificate_read_again() {
    let first_port = free_ports(1);
    let files = Files::new(&format!(
        "[http]\nlisten = \"127.0.0.1:0\"\n[http.tls]\ncertificate = \"tls.crt\"\nkey = \"tls.key\"\n\
         [admin]\nlisten = \"127.0.0.1:0\"\n[media]\ntcp.enabled = false\nlisten = \"127.0.0.1\"\nshards = 1\nfirst_port = {first_port}\n\
         {AUTH}[log]\nformat = \"json\"\n"
    ));
    let old = write_certificate(&files);
    let mut command = tableside(&["gateway", "--config", &files.config()]);
    let mut gateway = Node(command.stderr(Stdio::piped()).spawn().unwrap());
    let mut said = BufReader::new(gateway.0.stderr.take().unwrap()).lines().map(Result::unwrap);
    let listening = said.find(|line| line.contains("\"listening\"")).expect("it starts");
    let listening: serde_json::Value = serde_json::from_str(&listening).unwrap();
    let address = listening["public"].as_str().unwrap();
    assert!(is_served(address, &old));

    let new = write_certificate(&files);
    gateway.signal("-HUP");
    let mut heard = Vec::new();
    while !heard.last().is_some_and(|line: &String| line.contains("a new certificate is served")) {
        heard.push(said.next().expect("the signal is not the end of it"));
    }
    assert!(is_served(address, &new) && !is_served(address, &old));
    gateway.signal("-TERM");
    // It would have looked by itself after a while, without this.
    heard.extend(said);
    assert!(heard.iter().any(|line| line.contains("SIGHUP: reading the certificate again")), "{heard:#?}");
    assert_eq!(gateway.0.wait().unwrap().code(), Some(0));
}

/// In a directory of its own, as a developer would.
fn tableside_in(files: &Files, line: &str) -> Output {
    tableside(&line.split_whitespace().collect::<Vec<_>>()).current_dir(&files.0).output().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn verified(files: &Files, jwks: &str, token: &str) -> Result<Claims, TokenError> {
    let keys = KeySet::parse(&fs::read(files.0.join(jwks)).unwrap()).unwrap();
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    verify(token, &keys, &Policy { audience: Some("casino".to_owned()), ..Policy::default() }, now)
}

#[test]
fn a_development_token_is_made_with_its_key() {
    let files = Files::new("");
    let minted = tableside_in(
        &files,
        "token --sub ann --table roulette --table baccarat --jurisdiction MT --aud casino --for 15m",
    );
    assert_eq!(minted.status.code(), Some(0), "{}", stderr(&minted));
    let claims = verified(&files, "dev-jwks.json", stdout(&minted).trim_end()).unwrap();
    assert_eq!(
        (claims.subject.as_str(), claims.role, claims.jurisdiction.as_deref()),
        ("ann", Role::Player, Some("MT"))
    );
    assert_eq!(claims.tables, Tables::of(&["roulette", "baccarat"]));
    let said = stderr(&minted);
    for part in [
        "dev-key.pem: a new private key",
        "dev-jwks.json: its public half",
        "player ann at roulette, baccarat",
        "900 s",
    ] {
        assert!(said.contains(part), "{said}");
    }
    let mode = fs::metadata(files.0.join("dev-key.pem")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "for its owner alone");

    // The same key from then on.
    let again = tableside_in(&files, "token --sub studio-1 --role publisher --aud casino");
    let claims = verified(&files, "dev-jwks.json", stdout(&again).trim_end()).unwrap();
    assert_eq!((claims.role, claims.tables), (Role::Publisher, Tables::All));
    assert!(!stderr(&again).contains("new private key"), "{}", stderr(&again));
}

#[test]
fn keygen_makes_keys_and_adds_them_to_the_set() {
    let files = Files::new("[auth]\njwks_file = \"dev-jwks.json\"\njurisdictions = [\"*\"]\n[tables.roulette]\n");
    for (count, alg) in (1..).zip(["EdDSA", "ES256", "rs256"]) {
        let made = tableside_in(&files, &format!("token keygen --alg {alg} --key {alg}.pem"));
        assert_eq!(made.status.code(), Some(0), "{}", stderr(&made));
        let said = stdout(&made);
        assert!(
            said.contains("jwks_file = \"dev-jwks.json\"") && said.contains(&format!("--key {alg}.pem --sub")),
            "{said}"
        );
        let minted = tableside_in(&files, &format!("token --key {alg}.pem --sub ann --aud casino"));
        assert!(verified(&files, "dev-jwks.json", stdout(&minted).trim_end()).is_ok(), "{}", stderr(&minted));
        let checked = run(&["check-config", &files.config()]);
        assert!(stdout(&checked).contains(&format!("{count} keys in")), "{}{}", stdout(&checked), stderr(&checked));
    }
    let before = fs::read(files.0.join("EdDSA.pem")).unwrap();
    let refused = tableside_in(&files, "token keygen --key EdDSA.pem");
    assert_eq!(refused.status.code(), Some(1));
    assert!(stderr(&refused).contains("EdDSA.pem is there already"), "{}", stderr(&refused));
    assert_eq!(fs::read(files.0.join("EdDSA.pem")).unwrap(), before);
    fs::write(files.0.join("broken.json"), "{").unwrap();
    let refused = tableside_in(&files, "token keygen --key new.pem --jwks broken.json");
    assert!(stderr(&refused).contains("cannot add a key to broken.json"), "{}", stderr(&refused));
    assert!(!files.0.join("new.pem").exists(), "no key without its public half");
}

#[test]
fn a_token_that_cannot_be_made_says_why() {
    let files = Files::new("");
    fs::write(files.0.join("certificate.pem"), "-----BEGIN CERTIFICATE-----\n").unwrap();
    for (line, code, says) in [
        ("token", 2, "--sub"),
        ("token --sub ann --role dealer", 2, "possible values: player, publisher"),
        ("token --sub ann --table a.b", 2, "letters, digits"),
        ("token --sub ann --for 1w", 2, "90s, 15m, 1h, 30d"),
        ("token --sub ann --key certificate.pem", 1, "PKCS#8"),
        ("token keygen --alg HS256", 2, "possible values: EdDSA, ES256, RS256"),
    ] {
        let output = tableside_in(&files, line);
        assert_eq!(output.status.code(), Some(code), "{line}: {}", stderr(&output));
        assert!(stderr(&output).contains(says), "{line}: {}", stderr(&output));
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn a_hangup_has_the_keys_read_again() {
    let first_port = free_ports(1);
    let files = Files::new(&format!(
        "[http]\nlisten = \"127.0.0.1:0\"\n[admin]\nlisten = \"127.0.0.1:0\"\n[media]\ntcp.enabled = false\n\
         listen = \"127.0.0.1\"\nshards = 1\nfirst_port = {first_port}\n{AUTH}[log]\nformat = \"json\"\n"
    ));
    let mut command = tableside(&["gateway", "--config", &files.config()]);
    let mut gateway = Node(command.stderr(Stdio::piped()).spawn().unwrap());
    let mut said = BufReader::new(gateway.0.stderr.take().unwrap()).lines().map(Result::unwrap);
    said.find(|line| line.contains("\"listening\"")).expect("it starts");

    let made = tableside_in(&files, "token keygen --jwks jwks.json");
    assert!(made.status.success(), "{}", stderr(&made));
    gateway.signal("-HUP");
    // It would look by itself after a while, without this.
    let has = |heard: &[String], all: &[&str]| heard.iter().any(|line| all.iter().all(|part| line.contains(part)));
    let mut heard = Vec::new();
    while !(has(&heard, &["SIGHUP: reading the keys of tokens again"]) && has(&heard, &["\"count\":2", "\"new\":true"]))
    {
        heard.push(said.next().expect("the signal is not the end of it"));
    }
    // Half written, as by an editor.
    fs::write(files.0.join("jwks.json"), &JWKS[..40]).unwrap();
    gateway.signal("-HUP");
    let kept = said.find(|line| line.contains("the old ones stay")).expect("a warning");
    assert!(kept.contains("not a JWK Set") && kept.contains("\"count\":2"), "{kept}");
    gateway.signal("-TERM");
    assert_eq!(gateway.0.wait().unwrap().code(), Some(0));
}

#[test]
fn a_gateway_that_asks_nobody_for_a_token_says_so() {
    let first_port = free_ports(1);
    let files = Files::new(&format!(
        "[http]\nlisten = \"127.0.0.1:0\"\n[admin]\nlisten = \"127.0.0.1:0\"\n[media]\ntcp.enabled = false\n\
         listen = \"127.0.0.1\"\nshards = 1\nfirst_port = {first_port}\n[auth]\nmode = \"none\"\n"
    ));
    let mut command = tableside(&["gateway", "--config", &files.config()]);
    let mut gateway = Node(command.stderr(Stdio::piped()).spawn().unwrap());
    let mut said = BufReader::new(gateway.0.stderr.take().unwrap()).lines().map(Result::unwrap);
    let warning = said.find(|line| line.contains("nobody is asked for a token")).expect("a warning");
    assert!(warning.contains("WARN") && warning.contains("auth.mode"), "{warning}");
    gateway.signal("-TERM");
    assert_eq!(gateway.0.wait().unwrap().code(), Some(0));
}
