//! The binary: exit status, and what it says.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use rcgen::generate_simple_self_signed;
use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, ClientConnection, RootCertStore};

const KEYS: &str = "\"*\" = \"0123456789abcdef0123456789abcdef\"\n";

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

/// A directory with a configuration and a keys file, gone at the end of the test.
struct Files(PathBuf);

impl Files {
    fn new(config: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let unique = format!("tableside-command-line-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let directory = std::env::temp_dir().join(unique);
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join("gateway.toml"), config).unwrap();
        fs::write(directory.join("keys.toml"), KEYS).unwrap();
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
    for command in [vec!["--help"], vec!["gateway", "--help"], vec!["demo", "--help"], vec!["check-config", "--help"]] {
        let output = run(&command);
        assert!(output.status.success());
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.contains("Example:\n  tableside "), "{text}");
    }
}

#[test]
fn check_config_accepts_a_good_file_and_sums_it_up() {
    let files = Files::new("[publish]\nkeys_file = \"keys.toml\"\n[tables.roulette]\n");
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
fn the_gateway_refuses_to_start_without_publish_keys() {
    let files = Files::new("[http]\nlisten = \"127.0.0.1:0\"\n[tables.roulette]\n");
    let output = run(&["gateway", "--config", &files.config()]);
    assert_eq!(output.status.code(), Some(1));
    let said = stderr(&output);
    assert!(said.contains("publish.keys_file: is not set") && said.contains("tableside demo"), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
}

#[test]
fn a_port_in_use_is_named_with_the_key_to_change() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let files = Files::new(&format!(
        "[http]\nlisten = \"{address}\"\n[admin]\nlisten = \"127.0.0.1:0\"\n[publish]\nkeys_file = \"keys.toml\"\n"
    ));
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
    let first_port = UdpSocket::bind("[::]:0").unwrap().local_addr().unwrap().port().min(65_000).to_string();
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
    let first_port = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let files = Files::new(&format!(
        "[http]\nlisten = \"127.0.0.1:0\"\n[http.tls]\ncertificate = \"tls.crt\"\nkey = \"tls.key\"\n\
         [admin]\nlisten = \"127.0.0.1:0\"\n[media]\ntcp.enabled = false\nlisten = \"127.0.0.1\"\nshards = 1\nfirst_port = {first_port}\n\
         [publish]\nkeys_file = \"keys.toml\"\n[log]\nformat = \"json\"\n"
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
