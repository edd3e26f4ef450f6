//! What goes over the wire to a bet service, whichever the way, and what comes back. `docs/bet-service.md` describes
//! it for those who write one, `docs/bet-service.schema.json` has it as a JSON Schema.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_lc_rs::digest;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::bets::{Announcement, Id, Outcome, Passed, RoundEvent, RoundKind};

/// Bytes of the longest answer that is read.
pub const MAX_ANSWER: usize = 16 * 1024;

/// Bytes of the longest round event that is read: what players are sent may have as many, and names its table besides.
pub const MAX_EVENT: usize = 17 * 1024;

/// What stands for a reason that the service did not give.
const NO_REASON: &str = "unspecified";

/// Names a bet among all of all players, in 32 hexadecimal digits: the same for every repetition, another for every
/// other bet. Players choose their keys, and two of them may choose the same.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct RequestId([u8; 16]);

impl RequestId {
    /// Of a signal: the first half of the SHA-256 of player, table, round and key, each behind its length in 4 bytes.
    pub fn of(passed: &Passed) -> Self {
        let mut context = digest::Context::new(&digest::SHA256);
        for part in [passed.player.as_str(), &passed.table, passed.signal.round_id.as_str(), passed.signal.key.as_str()]
        {
            // Each is far shorter than 4 GiB.
            context.update(&(part.len() as u32).to_be_bytes());
            context.update(part.as_bytes());
        }
        let mut id = [0; 16];
        id.copy_from_slice(&context.finish().as_ref()[..16]);
        Self(id)
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// One reading of both clocks, so that a step of the wall clock changes no time that was measured before it.
#[derive(Clone, Copy, Debug)]
pub struct Clocks {
    /// By the monotonic clock.
    pub monotonic: Instant,
    /// The same moment, counted from 1970.
    pub unix: Duration,
}

impl Clocks {
    /// Unix milliseconds with three decimals.
    fn unix_ms(&self, at: Instant) -> f64 {
        let since = match at.checked_duration_since(self.monotonic) {
            Some(later) => self.unix + later,
            None => self.unix.saturating_sub(self.monotonic.saturating_duration_since(at)),
        };
        since.as_micros() as f64 / 1000.0
    }
}

/// The document of one attempt.
#[derive(Serialize)]
#[serde(tag = "type", rename = "bet", rename_all = "camelCase")]
struct BetDocument<'a> {
    request_id: String,
    player_id: &'a str,
    table: &'a str,
    received_ts: f64,
    sent_ts: f64,
    deadline_ms: f64,
    attempt: u32,
    /// As the player wrote it. An object of its own, so that nothing in it passes for what the edge says.
    signal: &'a RawValue,
}

/// Writes what the service is asked in the `attempt`th attempt, counted from 1.
///
/// # Errors
/// None for what [`Signal::parse`](crate::bets::Signal::parse) has taken.
pub fn bet(passed: &Passed, clocks: &Clocks, now: Instant, attempt: u32) -> serde_json::Result<Vec<u8>> {
    let left = passed.deadline.saturating_duration_since(now);
    let document = BetDocument {
        request_id: RequestId::of(passed).to_string(),
        player_id: passed.player.as_str(),
        table: &passed.table,
        received_ts: clocks.unix_ms(passed.edge_in),
        sent_ts: clocks.unix_ms(now),
        deadline_ms: left.as_micros() as f64 / 1000.0,
        attempt,
        signal: serde_json::from_str(passed.signal.text())?,
    };
    serde_json::to_vec(&document)
}

/// The document that says whether a table has a publisher on this node.
#[derive(Serialize)]
#[serde(tag = "type", rename = "table", rename_all = "camelCase")]
struct TableDocument<'a> {
    table: &'a str,
    live: bool,
}

/// Writes whether a table is live.
///
/// # Errors
/// None: a text and a truth value are JSON.
pub fn table(name: &str, live: bool) -> serde_json::Result<Vec<u8>> {
    serde_json::to_vec(&TableDocument { table: name, live })
}

/// What a service says of a signal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// `accepted` or `rejected`.
    Outcome(Outcome),
    /// `unavailable`: it has not taken the signal and will not, and keeps no record of it.
    Unavailable,
}

/// An answer or event that is not as documented.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a document of docs/bet-service.md")]
pub struct InvalidDocument;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct AnswerDocument<'a> {
    #[serde(borrow)]
    status: Cow<'a, str>,
    reason: Option<String>,
    #[serde(borrow, default)]
    request_id: Option<Cow<'a, str>>,
}

/// Reads an answer to the request of `id`.
///
/// # Errors
/// It is no JSON object, its `status` is none of the three, or it names another request.
pub fn parse_answer(bytes: &[u8], id: RequestId) -> Result<Answer, InvalidDocument> {
    // All of it: the parser looks at no bytes of strings that it skips.
    let text = std::str::from_utf8(bytes).map_err(|_| InvalidDocument)?;
    let document: AnswerDocument<'_> = serde_json::from_str(text).map_err(|_| InvalidDocument)?;
    // A service that echoes it is held to it: an answer must not go to another player.
    if document.request_id.is_some_and(|named| named != id.to_string()) {
        return Err(InvalidDocument);
    }
    match &*document.status {
        "accepted" => Ok(Answer::Outcome(Outcome::Accepted)),
        "rejected" => {
            let reason = document.reason.filter(|reason| !reason.is_empty());
            let reason = reason.map_or(Cow::Borrowed(NO_REASON), Cow::Owned);
            Ok(Answer::Outcome(Outcome::rejected(reason)))
        }
        "unavailable" => Ok(Answer::Unavailable),
        _ => Err(InvalidDocument),
    }
}

/// Reads a round event and the name of its table.
///
/// # Errors
/// It is no JSON object, lacks a field, has one that is out of its range, or players could not be sent it.
pub fn parse_event(bytes: &[u8]) -> Result<(Arc<str>, RoundEvent), InvalidDocument> {
    let mut fields: Map<String, Value> = serde_json::from_slice(bytes).map_err(|_| InvalidDocument)?;
    let mut take = |name: &str| fields.remove(name).ok_or(InvalidDocument);
    let (table, kind, round, capture_ts) = (take("table")?, take("type")?, take("roundId")?, take("captureTs")?);
    let event = RoundEvent {
        kind: kind.as_str().and_then(RoundKind::named).ok_or(InvalidDocument)?,
        round_id: round.as_str().and_then(|id| Id::new(id).ok()).ok_or(InvalidDocument)?,
        capture_ts: capture_ts.as_f64().ok_or(InvalidDocument)?,
        fields,
    };
    Announcement::new(&event).map_err(|_| InvalidDocument)?;
    Ok((table.as_str().ok_or(InvalidDocument)?.into(), event))
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::bets::{Arrival, Decision, Desk, DeskLimits, PlayerId, Signal};

    /// A signal that a desk has passed on.
    pub(in super::super) fn passed(now: Instant, player: &str, round: &str, key: &str) -> Passed {
        let signal = json!({
            "type": "bet", "betId": key, "roundId": round, "idempotencyKey": key, "clientTs": 0, "payload": { "amount": 5 },
        });
        said(now, player, &signal.to_string())
    }

    fn said(now: Instant, player: &str, text: &str) -> Passed {
        let arrival = Arrival {
            from: (),
            player: PlayerId::new(player).unwrap(),
            table: "roulette".into(),
            edge_in: now,
            last_mile: None,
            signal: Signal::parse(text.as_bytes()).unwrap(),
        };
        match Desk::new(DeskLimits::default()).handle_signal(now, arrival) {
            Decision::PassOn(passed) => passed,
            other => panic!("{other:?}"),
        }
    }

    fn clocks() -> Clocks {
        Clocks { monotonic: Instant::now(), unix: Duration::from_micros(1_790_000_007_048_204) }
    }

    fn id() -> RequestId {
        RequestId([7; 16])
    }

    #[test]
    fn a_bet_is_written_with_the_players_text_untouched() {
        let clocks = clocks();
        let text = r#"{"type":"bet","betId":"b","roundId":"r","idempotencyKey":"k","clientTs":1.50,"playerId":"eve","payload":{"amount":12345678901234567890123.10}}"#;
        let passed = said(clocks.monotonic, "ann", text);
        let sent = clocks.monotonic + Duration::from_micros(131);
        let document = String::from_utf8(bet(&passed, &clocks, sent, 2).unwrap()).unwrap();
        let head = r#"{"type":"bet","requestId":"#;
        let rest = format!(
            r#""playerId":"ann","table":"roulette","receivedTs":1790000007048.204,"sentTs":1790000007048.335,"deadlineMs":1999.869,"attempt":2,"signal":{text}}}"#
        );
        assert!(document.starts_with(head) && document.ends_with(&rest), "{document}");
        let late = String::from_utf8(bet(&passed, &clocks, passed.until, 1).unwrap()).unwrap();
        assert!(late.contains(r#""deadlineMs":0.0"#), "{late}");
    }

    #[test]
    fn a_signal_from_before_the_clocks_were_read_has_its_time() {
        let clocks = clocks();
        assert_eq!(clocks.unix_ms(clocks.monotonic - Duration::from_millis(8)), 1_790_000_007_040.204);
    }

    #[test]
    fn the_request_id_is_of_player_table_round_and_key() {
        let now = Instant::now();
        let first = RequestId::of(&passed(now, "ann", "r", "k"));
        assert_eq!(first, RequestId::of(&passed(now + Duration::from_secs(1), "ann", "r", "k")));
        for other in [passed(now, "bob", "r", "k"), passed(now, "ann", "s", "k"), passed(now, "ann", "r", "l")] {
            assert_ne!(first, RequestId::of(&other));
        }
        let mut elsewhere = passed(now, "ann", "r", "k");
        elsewhere.table = "wheel".into();
        assert_ne!(first, RequestId::of(&elsewhere));
        assert_ne!(RequestId::of(&passed(now, "ann", "r1", "k")), RequestId::of(&passed(now, "ann", "r", "1k")));
        // As docs/bet-service.md says that anybody can compute it.
        assert_eq!(first.to_string(), "6600f03241088847313099333d139cf3");
    }

    #[test]
    fn the_three_answers_are_read() {
        let read = |text: &str| parse_answer(text.as_bytes(), id());
        assert_eq!(read(r#"{"status":"accepted","balance":7}"#), Ok(Answer::Outcome(Outcome::Accepted)));
        let rejected = |reason| Ok(Answer::Outcome(Outcome::rejected(reason)));
        assert_eq!(read(r#"{"status":"rejected","reason":"round_closed"}"#), rejected("round_closed"));
        assert_eq!(read(r#"{"status":"rejected","reason":""}"#), rejected("unspecified"));
        assert_eq!(read(r#" {"reason":null,"status":"rejected"} "#), rejected("unspecified"));
        assert_eq!(read(r#"{"status":"unavailable"}"#), Ok(Answer::Unavailable));
        let echo = format!(r#"{{"status":"accepted","requestId":"{}"}}"#, id());
        assert_eq!(read(&echo), Ok(Answer::Outcome(Outcome::Accepted)));
        for wrong in [
            "",
            "accepted",
            "[]",
            "{}",
            r#"{"status":"ok"}"#,
            r#"{"status":"Accepted"}"#,
            r#"{"status":true}"#,
            r#"{"status":"rejected","status":"accepted"}"#,
            r#"{"status":"rejected","reason":7}"#,
            r#"{"status":"accepted","requestId":"another"}"#,
            r#"{"status":"accepted"} {}"#,
        ] {
            assert_eq!(read(wrong), Err(InvalidDocument), "{wrong}");
        }
        assert_eq!(parse_answer(b"{\"status\":\"accepted\",\"x\":\"\xff\"}", id()), Err(InvalidDocument));
    }

    #[test]
    fn an_event_is_read_with_what_else_it_says() {
        let text =
            r#"{"table":"roulette","type":"round.open","roundId":"r-1","captureTs":1790000000000,"limits":{"most":5}}"#;
        let (table, event) = parse_event(text.as_bytes()).unwrap();
        assert_eq!((&*table, event.kind, event.round_id.as_str()), ("roulette", RoundKind::Open, "r-1"));
        assert_eq!((event.capture_ts, Value::from(event.fields)), (1.79e12, json!({ "limits": { "most": 5 } })));
        for (field, wrong) in [
            ("table", json!(null)),
            ("type", json!("round.begin")),
            ("roundId", json!("")),
            ("captureTs", json!("now")),
            ("captureTs", json!(-1)),
            ("more", json!("x".repeat(MAX_EVENT))),
        ] {
            let mut event: Value = serde_json::from_str(text).unwrap();
            event[field] = wrong;
            assert_eq!(parse_event(event.to_string().as_bytes()), Err(InvalidDocument), "{field}");
        }
        for field in ["table", "type", "roundId", "captureTs"] {
            let mut event: Value = serde_json::from_str(text).unwrap();
            event.as_object_mut().unwrap().remove(field);
            assert_eq!(parse_event(event.to_string().as_bytes()), Err(InvalidDocument), "{field}");
        }
    }

    #[test]
    fn the_examples_of_the_documentation_are_read() {
        let page = include_str!("../../docs/bet-service.md");
        let beginning = |what: &'static str| page.lines().filter(move |line| line.trim_start().starts_with(what));
        let answers: Vec<&str> = beginning(r#"{"status""#).collect();
        assert!(answers.len() >= 3, "{answers:?}");
        answers.iter().for_each(|line| assert!(parse_answer(line.as_bytes(), id()).is_ok(), "{line}"));
        let events: Vec<&str> = beginning(r#"{"table""#).collect();
        assert!(events.len() >= 2, "{events:?}");
        events.iter().for_each(|line| assert!(parse_event(line.as_bytes()).is_ok(), "{line}"));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), text in "\\PC{0,60}") {
            for text in [bytes, format!("{{\"status\":\"rejected\",\"reason\":\"{text}").into_bytes()] {
                let _ = parse_answer(&text, id());
                let _ = parse_event(&text);
            }
        }

        #[test]
        fn what_a_service_writes_is_read_back(reason in "\\PC{1,40}", table in "[a-z0-9-]{1,20}", round in "[!-~]{1,64}",
            kind in 0..4_usize, capture_ts in 0..2_000_000_000_000_u64, more: String,
        ) {
            let answer = json!({ "status": "rejected", "reason": reason, "more": more }).to_string();
            prop_assert_eq!(parse_answer(answer.as_bytes(), id()), Ok(Answer::Outcome(Outcome::rejected(reason))));
            let kind = RoundKind::ALL[kind];
            let event = json!({
                "table": table, "type": kind.as_str(), "roundId": round, "captureTs": capture_ts, "more": more,
            });
            let (named, read) = parse_event(event.to_string().as_bytes()).unwrap();
            prop_assert_eq!((&*named, read.kind, read.round_id.as_str()), (&*table, kind, &*round));
            prop_assert_eq!((read.capture_ts, &read.fields["more"]), (capture_ts as f64, &Value::from(more)));
        }
    }
}
