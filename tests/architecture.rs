//! The rules of `src/lib.rs`, checked on the text of the sources: which room may use which, which rooms know no socket,
//! clock or thread, and where `unsafe` may stand. Every check is also shown a planted violation.
//!
//! The text is lexed, not searched: what stands in a comment or a string is not code. Test code is held to the import
//! direction, not to the sans-IO rule: a test needs a first instant to count from.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

/// Path below `src/` → source text.
type Sources = BTreeMap<String, String>;

/// Each room and the rooms that it may use besides itself, from the bottom up. `src/lib.rs` draws the same as a map.
const ROOMS: &[(&str, &[&str])] = &[
    ("identity", &[]),
    ("config", &["identity"]),
    ("media", &["config"]),
    ("qos", &[]),
    // For its histograms alone.
    ("bets", &["qos"]),
    ("rtc", &["config", "media"]),
    ("fanout", &["config", "media", "rtc"]),
    ("shard", &["config", "media", "qos", "bets", "rtc", "fanout"]),
    ("net", &["config", "media", "rtc", "fanout"]),
    ("outbound", &["config"]),
    ("nats", &["config", "outbound"]),
    ("traces", &["config", "bets", "outbound"]),
    ("bet_service", &["config", "bets", "net", "outbound", "nats", "traces"]),
    ("audit", &["config", "bets", "outbound", "nats"]),
    (
        "fleet",
        &["identity", "config", "media", "bets", "rtc", "fanout", "shard", "net", "traces", "bet_service", "audit"],
    ),
    (
        "telemetry",
        &["config", "media", "qos", "bets", "rtc", "fanout", "shard", "net", "traces", "bet_service", "audit", "fleet"],
    ),
    ("gatekeeper", &["identity", "config", "outbound", "telemetry"]),
    (
        "http",
        &[
            "identity",
            "config",
            "media",
            "bets",
            "rtc",
            "fanout",
            "shard",
            "traces",
            "bet_service",
            "audit",
            "fleet",
            "telemetry",
            "gatekeeper",
        ],
    ),
    ("demo", &["config", "media", "rtc", "fanout", "shard", "fleet", "telemetry"]),
];

/// Where the rooms are put together: these may use all of them.
const TOP: &[&str] = &["lib.rs", "main.rs", "run.rs", "run/"];

/// Rooms that are handed bytes and `now`, and decide.
const SANS_IO: &[&str] = &["identity/", "media/", "qos/", "bets/", "rtc/", "fanout/", "shard/"];

/// What a sans-IO room must not name, as runs of path segments.
const IO: &[&[&str]] = &[
    &["tokio"],
    &["socket2"],
    &["libc"],
    &["UdpSocket"],
    &["TcpStream"],
    &["TcpListener"],
    &["std", "thread"],
    &["thread", "spawn"],
    &["thread", "sleep"],
    &["std", "fs"],
    &["std", "env"],
    &["Instant", "now"],
    &["SystemTime"],
];

#[test]
fn imports_point_one_way() {
    assert_none(import_direction(&sources()));
}

#[test]
fn sans_io_rooms_know_no_socket_clock_or_thread() {
    assert_none(sans_io(&sources()));
}

#[test]
fn unsafe_stays_in_net() {
    assert_none(unsafe_outside_net(&sources()));
}

#[test]
fn the_map_in_lib_rs_is_this_table() {
    let lib = &sources()["lib.rs"];
    let map = lib.lines().find(|l| l.starts_with("//!") && l.contains('←')).expect("lib.rs draws the map");
    let drawn: Vec<&str> = map
        .split(|c: char| !c.is_alphanumeric() && c != '_')
        .filter(|w| !w.is_empty() && !["run", "main"].contains(w))
        .collect();
    let table: Vec<&str> = ROOMS.iter().map(|(room, _)| *room).collect();
    assert_eq!(drawn, table, "src/lib.rs and tests/architecture.rs draw different houses");
    for (i, (room, uses)) in ROOMS.iter().enumerate() {
        for used in *uses {
            assert!(table[..i].contains(used), "{room} uses {used}, which is not below it");
        }
    }
}

#[test]
fn an_import_against_the_direction_is_found() {
    let planted = [
        ("media/ring.rs", "use crate::shard::Role;"),
        ("media/ring.rs", "use crate::{config::Limits, rtc::sdp};"),
        ("media/ring.rs", "use crate::{\n    config,\n    fanout::{self, SendBatch},\n};"),
        ("media/ring.rs", "fn f() -> crate::fanout::SendBatch { todo() }"),
        ("media/ring.rs", "macro_rules! m { () => { $crate::http::serve() }; }"),
        ("media/mod.rs", "use super::shard;"),
        ("rtc/sdp/types.rs", "use super::super::super::fleet::Node;"),
        ("rtc/mod.rs", "mod inner { use super::super::shard::Role; }"),
        ("rtc/mod.rs", "#[cfg(test)] mod tests { use crate::shard::Role; }"),
        ("config/mod.rs", "use self::super::media::Codec;"),
        ("shard/mod.rs", "use crate::net::Socket;"),
        ("telemetry/mod.rs", "use crate::http::Server;"),
        ("media/mod.rs", "use crate::*;"),
        ("media/mod.rs", "use crate as everything;"),
        ("media/mod.rs", "use crate::Codec;"),
        ("lobby/mod.rs", "pub struct Lobby;"),
    ];
    assert_each_found(import_direction, &planted);
}

#[test]
fn an_import_along_the_direction_is_left_alone() {
    let clean = [
        ("rtc/sdp/types.rs", "use crate::media::{Codec, MediaKind}; use super::super::srtp::Profile;"),
        (
            "rtc/mod.rs",
            "mod inner { use super::srtp; } use self::sdp::Offer; pub(crate) fn f() {} pub(in crate::rtc) fn g() {}",
        ),
        (
            "media/mod.rs",
            "// use crate::shard;\n/* crate::shard /* nested */ crate::net */ const S: &str = \"crate::shard\";",
        ),
        (
            "media/mod.rs",
            "const R: &str = r#\"\"crate::shard\"#; const C: char = '\"'; fn f<'a>(x: &'a str) -> &'a str { x }",
        ),
        ("net/mod.rs", "use crate::fanout::SendBatch;"),
        ("rtc/mod.rs", "use crate::{media as m, config::{self as c, Limits}};"),
        ("main.rs", "use tableside::{http, demo};"),
        ("run.rs", "use crate::{http, demo};"),
    ];
    for (path, text) in clean {
        assert_none(import_direction(&planted(path, text)));
    }
}

#[test]
fn io_in_a_sans_io_room_is_found() {
    let planted = [
        ("media/ring.rs", "use tokio::sync::mpsc;"),
        ("rtc/dtls.rs", "use std::net::{SocketAddr, UdpSocket};"),
        ("rtc/dtls.rs", "use std::net; fn f() { net::TcpStream::connect(\"\"); }"),
        ("fanout/mod.rs", "use std::{thread, time::Duration};"),
        ("fanout/mod.rs", "fn f() { std::thread::yield_now() }"),
        ("shard/mod.rs", "fn f() { let now = Instant::now(); }"),
        ("shard/mod.rs", "fn f() { let now = std::time::Instant::now(); }"),
        ("shard/session.rs", "use std::time::SystemTime;"),
        ("shard/mod.rs", "#[cfg(not(test))] fn f() { let now = Instant::now(); }"),
        ("rtc/mod.rs", "#[cfg(test)] mod tests { fn f() {} } fn g() { Instant::now(); }"),
        ("rtc/mod.rs", "#[cfg(test)] mod tests; fn g() { Instant::now(); }"),
    ];
    assert_each_found(sans_io, &planted);
}

#[test]
fn the_clock_in_a_shell_a_test_or_a_comment_is_left_alone() {
    let clean = [
        ("fleet/shard_thread.rs", "use tokio::sync::mpsc; fn f() { Instant::now(); }"),
        ("net/mod.rs", "use std::net::UdpSocket;"),
        (
            "rtc/mod.rs",
            "/// Never `Instant::now()`.\nuse std::net::SocketAddr; use std::time::Instant; fn f(now: Instant) {}",
        ),
        ("rtc/mod.rs", "fn f() {} #[cfg(test)] #[allow(dead_code)] mod tests { fn f() { Instant::now(); } }"),
        ("rtc/mod.rs", "#[cfg(all(test, unix))] use std::time::SystemTime; #[test] fn f() { Instant::now(); }"),
    ];
    for (path, text) in clean {
        assert_none(sans_io(&planted(path, text)));
    }
    let file_of_tests = Sources::from([
        ("rtc/mod.rs".to_owned(), "#[cfg(test)] mod pair;".to_owned()),
        ("rtc/pair.rs".to_owned(), "fn f() { Instant::now(); }".to_owned()),
    ]);
    assert_none(sans_io(&file_of_tests));
}

#[test]
fn unsafe_outside_net_is_found() {
    let planted = [
        ("rtc/mod.rs", "fn f(p: *const u8) -> u8 { unsafe { *p } }"),
        ("main.rs", "unsafe extern \"C\" {}"),
        ("network.rs", "unsafe fn f() {}"),
    ];
    assert_each_found(unsafe_outside_net, &planted);
    let clean = [("net/gso.rs", "fn f() { unsafe {} }"), ("rtc/mod.rs", "#![deny(unsafe_code)] // unsafe\n")];
    for (path, text) in clean {
        assert_none(unsafe_outside_net(&self::planted(path, text)));
    }
}

/// Every path into another room goes down the table.
fn import_direction(sources: &Sources) -> Vec<Violation> {
    let mut found = Vec::new();
    for (path, text) in sources {
        if is_in(path, TOP) {
            continue;
        }
        let room = room_of(path);
        let Some((_, uses)) = ROOMS.iter().find(|(name, _)| *name == room) else {
            found.push(violation(path, 1, format!("{room} is not a room of the table")));
            continue;
        };
        for used in rooms_used(path, &lex(text)) {
            let may = used.room == room || uses.contains(&used.room);
            if !may {
                found.push(violation(path, used.line, format!("{room} must not use `crate::{}`", used.room)));
            }
        }
    }
    found
}

/// No sans-IO room names what does I/O, outside its tests.
fn sans_io(sources: &Sources) -> Vec<Violation> {
    let mut found = Vec::new();
    let mut only_tests: Vec<String> = Vec::new();
    for (path, text) in sources {
        let (_, modules) = shipped(lex(text));
        let folder = path.strip_suffix("mod.rs").map_or_else(|| path.replace(".rs", "/"), str::to_owned);
        only_tests.extend(modules.iter().flat_map(|m| [format!("{folder}{m}.rs"), format!("{folder}{m}/")]));
    }
    let only_tests: Vec<&str> = only_tests.iter().map(String::as_str).collect();
    for (path, text) in sources {
        if !is_in(path, SANS_IO) || is_in(path, &only_tests) {
            continue;
        }
        for named in paths(&shipped(lex(text)).0) {
            if let Some(io) = IO.iter().find(|io| named.segments.windows(io.len()).any(|w| w == **io)) {
                found.push(violation(path, named.line, format!("sans-IO code names `{}`", io.join("::"))));
            }
        }
    }
    found
}

/// The one room that talks to the kernel directly is the one that may write `unsafe`.
fn unsafe_outside_net(sources: &Sources) -> Vec<Violation> {
    let elsewhere = sources.iter().filter(|(path, _)| !is_in(path, &["net/", "net.rs"]));
    elsewhere
        .flat_map(|(path, text)| {
            let tokens = lex(text);
            let lines: Vec<usize> = tokens.iter().filter(|t| t.text == "unsafe").map(|t| t.line).collect();
            lines.into_iter().map(move |line| violation(path, line, "`unsafe` outside net".to_owned()))
        })
        .collect()
}

#[derive(Debug)]
struct Violation {
    path: String,
    line: usize,
    what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "src/{}:{}: {}", self.path, self.line, self.what)
    }
}

fn violation(path: &str, line: usize, what: String) -> Violation {
    Violation { path: path.to_owned(), line, what }
}

fn assert_none(violations: Vec<Violation>) {
    let list: String = violations.iter().map(|v| format!("\n  {v}")).collect();
    assert!(violations.is_empty(), "the rules of src/lib.rs are broken:{list}");
}

fn assert_each_found(check: fn(&Sources) -> Vec<Violation>, cases: &[(&str, &str)]) {
    for (path, text) in cases {
        assert!(!check(&planted(path, text)).is_empty(), "not found in {path}: {text}");
    }
}

fn planted(path: &str, text: &str) -> Sources {
    Sources::from([(path.to_owned(), text.to_owned())])
}

/// All of `src/`.
fn sources() -> Sources {
    fn walk(root: &Path, folder: &Path, into: &mut Sources) {
        for entry in std::fs::read_dir(folder).expect("a folder of src/") {
            let path = entry.expect("an entry of src/").path();
            if path.is_dir() {
                walk(root, &path, into);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let name = path.strip_prefix(root).expect("below src/").to_string_lossy().into_owned();
                into.insert(name, std::fs::read_to_string(&path).expect("UTF-8"));
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut sources = Sources::new();
    walk(&root, &root, &mut sources);
    for (room, _) in ROOMS {
        assert!(sources.keys().any(|path| room_of(path) == *room), "no source of {room} was read");
    }
    sources
}

/// The room of a path below `src/`: its first folder, or the name of a file that stands there.
fn room_of(path: &str) -> &str {
    path.split('/').next().unwrap_or(path).trim_end_matches(".rs")
}

/// Whether `path` is one of the files, or below one of the folders (which end in a slash).
fn is_in(path: &str, places: &[&str]) -> bool {
    places.iter().any(|place| path == *place || (place.ends_with('/') && path.starts_with(place)))
}

/// A path expression or a leaf of a `use` tree, written out.
struct Named<'a> {
    segments: Vec<&'a str>,
    line: usize,
    /// Inline modules around it, within the file.
    depth: usize,
}

struct Used<'a> {
    room: &'a str,
    line: usize,
}

/// The rooms that a file names through `crate::`, or through `super::` up to the crate's root.
fn rooms_used<'a>(path: &str, tokens: &[Token<'a>]) -> Vec<Used<'a>> {
    let file_depth = path.split('/').filter(|part| *part != "mod.rs").count();
    let mut used = Vec::new();
    for named in paths(tokens) {
        let mut rest = &named.segments[..];
        while rest.first() == Some(&"self") {
            rest = &rest[1..];
        }
        let supers = rest.iter().take_while(|s| **s == "super").count();
        let at_root = match rest.first() {
            Some(&"crate" | &"tableside") => Some(&rest[1..]),
            Some(&"super") if supers == file_depth + named.depth => Some(&rest[supers..]),
            _ => None,
        };
        if let Some(room) = at_root.and_then(|below| below.first()) {
            used.push(Used { room, line: named.line });
        }
    }
    used
}

/// Every path with `::` in it, `use` groups written out, and single words that begin one (`tokio`, `crate as x`).
fn paths<'a>(tokens: &[Token<'a>]) -> Vec<Named<'a>> {
    let mut found = Vec::new();
    let mut inline_modules: Vec<usize> = Vec::new();
    let mut braces = 0;
    let mut at = 0;
    while at < tokens.len() {
        let token = &tokens[at];
        match token.text {
            "{" => braces += 1,
            "}" => {
                braces -= 1;
                if inline_modules.last() == Some(&braces) {
                    inline_modules.pop();
                }
            }
            "mod" if tokens.get(at + 2).is_some_and(|t| t.text == "{") => {
                inline_modules.push(braces);
            }
            "crate" if tokens.get(at + 1).is_some_and(|t| t.text == "as") => {
                found.push(Named { segments: vec!["crate", "as"], line: token.line, depth: inline_modules.len() });
            }
            _ if token.is_word() => {
                let depth = inline_modules.len();
                let mut leaves = Vec::new();
                at = leaves_from(tokens, at, &[], &mut leaves);
                found.extend(leaves.into_iter().map(|(segments, line)| Named { segments, line, depth }));
                continue;
            }
            _ => {}
        }
        at += 1;
    }
    found
}

/// Reads one path or `use` tree from `at` on, and returns where it ends.
fn leaves_from<'a>(
    tokens: &[Token<'a>],
    mut at: usize,
    prefix: &[&'a str],
    leaves: &mut Vec<(Vec<&'a str>, usize)>,
) -> usize {
    let mut segments = prefix.to_vec();
    let mut line = tokens[at].line;
    loop {
        match tokens.get(at) {
            Some(t) if t.text == "{" => {
                at += 1;
                while tokens.get(at).is_some_and(|t| t.text != "}") {
                    at = match tokens[at].text {
                        "as" => at + 2,
                        "*" | "{" => leaves_from(tokens, at, &segments, leaves),
                        _ if tokens[at].is_word() => leaves_from(tokens, at, &segments, leaves),
                        _ => at + 1,
                    };
                }
                return at + 1;
            }
            Some(t) if t.is_word() || t.text == "*" => {
                segments.push(t.text);
                line = t.line;
                at += 1;
            }
            _ => break,
        }
        if tokens.get(at).is_none_or(|t| t.text != "::") {
            break;
        }
        at += 1;
    }
    leaves.push((segments, line));
    at
}

/// The tokens without what is compiled for tests only, and the names of modules whose files are.
fn shipped(tokens: Vec<Token<'_>>) -> (Vec<Token<'_>>, Vec<&str>) {
    let mut kept = Vec::new();
    let mut test_modules = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        let Some(end) = test_attribute(&tokens[at..]) else {
            kept.push(tokens[at]);
            at += 1;
            continue;
        };
        at += end;
        while let Some(end) = attribute(&tokens[at..]) {
            at += end;
        }
        let item = &tokens[at..at + item_length(&tokens[at..])];
        if let Some(i) = item.iter().position(|t| t.text == "mod")
            && item.get(i + 2).is_some_and(|t| t.text == ";")
        {
            test_modules.push(item[i + 1].text);
        }
        at += item.len();
    }
    (kept, test_modules)
}

/// The length of an attribute that makes the next item a test's.
fn test_attribute(tokens: &[Token<'_>]) -> Option<usize> {
    let length = attribute(tokens)?;
    let words: Vec<&str> = tokens[..length].iter().filter(|t| t.is_word()).map(|t| t.text).collect();
    let for_tests = match words[..] {
        ["test"] => true,
        ["cfg", ref conditions @ ..] => conditions.contains(&"test") && !conditions.contains(&"not"),
        _ => false,
    };
    for_tests.then_some(length)
}

/// The length of an outer attribute, if one begins here.
fn attribute(tokens: &[Token<'_>]) -> Option<usize> {
    let begins = tokens.first()?.text == "#" && tokens.get(1)?.text == "[";
    let end = tokens.iter().scan(0, |depth, t| {
        *depth += i32::from(t.text == "[") - i32::from(t.text == "]");
        Some(t.text == "]" && *depth == 0)
    });
    begins.then(|| end.take_while(|done| !done).count() + 1)
}

/// The length of the item that begins here: to its `;`, or to the end of its braces.
fn item_length(tokens: &[Token<'_>]) -> usize {
    let mut depth = 0;
    for (i, token) in tokens.iter().enumerate() {
        match token.text {
            "{" | "(" | "[" => depth += 1,
            "}" | ")" | "]" => depth -= 1,
            _ => {}
        }
        if depth <= 0 && matches!(token.text, ";" | "}") {
            return i + 1;
        }
    }
    tokens.len()
}

/// A word, `::`, or one other character. Comments, strings, characters and lifetimes are left out.
#[derive(Clone, Copy, Debug)]
struct Token<'a> {
    text: &'a str,
    line: usize,
}

impl Token<'_> {
    fn is_word(&self) -> bool {
        self.text.starts_with(is_word_char)
    }
}

fn is_word_char(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn lex(text: &str) -> Vec<Token<'_>> {
    let mut tokens = Vec::new();
    let mut line = 1;
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let (length, is_code) = match first {
            '/' if rest.starts_with("//") => (rest.find('\n').unwrap_or(rest.len()), false),
            '/' if rest.starts_with("/*") => (block_comment(rest), false),
            '"' => (string(rest), false),
            '\'' => (character_or_lifetime(rest), false),
            'r' | 'b' | 'c' if prefixed_string(rest).is_some() => (prefixed_string(rest).unwrap_or(1), false),
            ':' if rest.starts_with("::") => (2, true),
            _ if is_word_char(first) => (rest.find(|c| !is_word_char(c)).unwrap_or(rest.len()), true),
            _ => (first.len_utf8(), !first.is_whitespace()),
        };
        let (token, after) = rest.split_at(length);
        if is_code {
            tokens.push(Token { text: token, line });
        }
        line += token.matches('\n').count();
        rest = after;
    }
    tokens
}

/// The length of a block comment, which may hold others.
fn block_comment(text: &str) -> usize {
    let mut depth = 0;
    let mut at = 0;
    while at < text.len() {
        match &text.as_bytes()[at..] {
            [b'/', b'*', ..] => (depth, at) = (depth + 1, at + 2),
            [b'*', b'/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            return at;
        }
    }
    text.len()
}

/// The length of a string that begins with its quote.
fn string(text: &str) -> usize {
    let mut escaped = false;
    for (i, byte) in text.bytes().enumerate().skip(1) {
        match byte {
            b'"' if !escaped => return i + 1,
            b'\\' if !escaped => escaped = true,
            _ => escaped = false,
        }
    }
    text.len()
}

/// The length of a string that begins with `b`, `c`, `r`, `br` or `cr`, and with any number of `#`.
fn prefixed_string(text: &str) -> Option<usize> {
    let letters = text.bytes().take_while(|b| matches!(b, b'b' | b'c' | b'r')).count();
    let after = &text[letters..];
    if !text[..letters].ends_with('r') {
        return after.starts_with('"').then(|| letters + string(after));
    }
    let hashes = after.bytes().take_while(|b| *b == b'#').count();
    let body = after[hashes..].strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(hashes));
    Some(letters + hashes + 1 + body.find(&end).map_or(body.len(), |at| at + end.len()))
}

/// The length of `'x'`, `'\n'` or `'\u{1F600}'`, or of the quote of a lifetime with its name.
fn character_or_lifetime(text: &str) -> usize {
    let mut chars = text.char_indices().skip(1);
    match chars.next() {
        Some((_, '\\')) => text[3..].find('\'').map_or(text.len(), |end| end + 4),
        Some((_, c)) if text[1 + c.len_utf8()..].starts_with('\'') => c.len_utf8() + 2,
        _ => 1 + text[1..].find(|c| !is_word_char(c)).unwrap_or(text.len() - 1),
    }
}
