//! The program between a client and a server that echoes, over real sockets.

#![allow(clippy::disallowed_methods, reason = "real sockets take real time")]

use std::io::{BufRead as _, BufReader, Lines, Write as _};
use std::net::{SocketAddr, UdpSocket};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// What must come comes within this.
const LIMIT: Duration = Duration::from_secs(10);

struct Netsim {
    process: Child,
    lines: Lines<BufReader<ChildStdout>>,
    front: SocketAddr,
}

impl Netsim {
    fn start(target: SocketAddr, arguments: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tableside-netsim"));
        command.args(["--forward", &format!("127.0.0.1:0={target}")]).args(arguments);
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let first: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
        let front = first["listening"][0].as_str().unwrap().parse().unwrap();
        Self { process, lines, front }
    }

    fn line(&mut self) -> Value {
        serde_json::from_str(&self.lines.next().unwrap().unwrap()).unwrap()
    }

    fn command(&mut self, command: &str) -> Value {
        writeln!(self.process.stdin.as_mut().unwrap(), "{command}").unwrap();
        self.line()
    }
}

impl Drop for Netsim {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn socket() -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(LIMIT)).unwrap();
    socket
}

/// Sends `text` through, has the server send it back, and says by which port the server knows the client.
fn echo(client: &UdpSocket, server: &UdpSocket, front: SocketAddr, text: &[u8]) -> SocketAddr {
    let mut buffer = [0; 2048];
    client.send_to(text, front).unwrap();
    let (len, known_by) = server.recv_from(&mut buffer).unwrap();
    assert_eq!(&buffer[..len], text);
    server.send_to(text, known_by).unwrap();
    let (len, from) = client.recv_from(&mut buffer).unwrap();
    assert_eq!((&buffer[..len], from), (text, front), "the answer comes from where the client has sent to");
    known_by
}

#[test]
fn packets_go_both_ways_and_take_their_time() {
    let (client, server) = (socket(), socket());
    let netsim = Netsim::start(server.local_addr().unwrap(), &["--both", "delay=30ms", "--down", "delay=50ms"]);
    let begin = Instant::now();
    echo(&client, &server, netsim.front, b"a bet");
    assert!(begin.elapsed() >= Duration::from_millis(80));
}

#[test]
fn conditions_change_while_it_runs() {
    let (client, server) = (socket(), socket());
    let mut netsim = Netsim::start(server.local_addr().unwrap(), &[]);
    echo(&client, &server, netsim.front, b"before");
    assert_eq!(netsim.command("client 0 up blackout=on"), json!({ "done": true }));
    client.send_to(b"into the dark", netsim.front).unwrap();
    let other = socket();
    echo(&other, &server, netsim.front, b"another client");
    assert_eq!(netsim.command("both blackout=off delay=1ms"), json!({ "done": true }));
    echo(&client, &server, netsim.front, b"after");
    let counts = netsim.command("counts");
    let up = &counts["clients"][0]["up"];
    assert_eq!((&up["taken"], &up["delivered"], &up["blacked_out"]), (&json!(3), &json!(2), &json!(1)));
    assert_eq!(counts["clients"][1]["down"]["bytes_delivered"], json!(14));
    assert_eq!(counts["clients"][1]["address"], json!(other.local_addr().unwrap()));
}

#[test]
fn after_a_rebinding_the_server_sees_another_port_and_the_old_one_leads_nowhere() {
    let (client, server) = (socket(), socket());
    let mut netsim = Netsim::start(server.local_addr().unwrap(), &[]);
    let before = echo(&client, &server, netsim.front, b"one");
    assert_eq!(netsim.command("rebind"), json!({ "done": true }));
    server.send_to(b"to where it was", before).unwrap();
    let after = echo(&client, &server, netsim.front, b"two");
    assert_ne!(before, after);
}

#[test]
fn wrong_commands_are_answered_and_change_nothing() {
    let (client, server) = (socket(), socket());
    let mut netsim = Netsim::start(server.local_addr().unwrap(), &[]);
    for (command, error) in [
        ("both loss=200%", "\"loss=200%\": a percentage"),
        ("client 0 rebind", "there is no client 0"),
        ("hello", "commands are"),
    ] {
        let answer = netsim.command(command);
        assert!(answer["error"].as_str().unwrap().contains(error), "{answer}");
    }
    echo(&client, &server, netsim.front, b"all is well");
}

#[test]
fn the_plan_is_followed_and_a_signal_ends_it_with_the_counts() {
    let (client, server) = (socket(), socket());
    let plan = ["--at", "0.01 both delay=1ms", "--at", "0 client 9 rebind"];
    let mut netsim = Netsim::start(server.local_addr().unwrap(), &plan);
    assert!(netsim.line()["error"].as_str().unwrap().contains("no client 9"), "the earlier one first");
    assert_eq!(netsim.line(), json!({ "done": true }));
    echo(&client, &server, netsim.front, b"one");
    let id = netsim.process.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
    assert_eq!(netsim.line()["clients"][0]["up"]["delivered"], json!(1));
    assert!(netsim.process.wait().unwrap().success());
}

#[test]
fn a_wrong_command_line_says_what_is_wrong() {
    for (arguments, error) in [
        (&["--forward", "127.0.0.1:0"][..], "LISTEN=TO"),
        (&["--forward", "127.0.0.1:0=[::1]:7000"], "both IPv6"),
        (&["--forward", "127.0.0.1:0=127.0.0.1:7000", "--both", "dely=1ms"], "\"dely=1ms\": there are delay"),
        (&["--forward", "127.0.0.1:0=127.0.0.1:7000", "--at", "both delay=1ms"], "seconds first"),
        (&[], "--forward"),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_tableside-netsim")).args(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(text.contains(error), "{text}");
    }
}
