//! What the command says of itself and of mistakes.

use std::process::{Command, Output};

fn load(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tableside-load")).args(arguments).output().expect("it starts")
}

#[test]
fn help_has_examples() {
    let output = load(&["--help"]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("Examples:") && text.contains("--no-loss"), "{text}");
}

#[test]
fn mistakes_end_with_status_2_and_say_what_to_do() {
    for (arguments, said) in [
        (&["--whep", "http://127.0.0.1/{table}"][..], "--whep needs --players N"),
        (&["--nonsense"], "unexpected argument"),
        (&["--whip", "http://127.0.0.1/", "--cores", "9999"], "there is no such CPU"),
    ] {
        let output = load(arguments);
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{text}");
        assert!(text.contains(said), "{text}");
    }
}

#[test]
fn a_server_that_is_not_there_is_named() {
    // Nothing listens on a port that was just given back.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let output = load(&["--whip", &format!("http://127.0.0.1:{port}/whip/load")]);
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(text.contains(&port.to_string()) && text.contains("refused"), "{text}");
}
