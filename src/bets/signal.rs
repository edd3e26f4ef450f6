//! A player's message on `bets`, read and held against the limits.

use std::borrow::Cow;
use std::hash::{DefaultHasher, Hash, Hasher};

use serde::Deserialize;
use serde_json::value::RawValue;

use super::id::Id;
use super::outcome::Refused;
use super::trace::TraceParent;

/// Bytes of the longest message.
pub const MAX_MESSAGE: usize = 16 * 1024;

/// How deeply objects and arrays may be nested: a service must not fall over what the edge let through.
pub const MAX_DEPTH: usize = 16;

/// The largest number of milliseconds that all JSON parsers read exactly: 2⁵³.
const MAX_TIMESTAMP: f64 = 9_007_199_254_740_992.0;

/// A bet signal whose form is right. What the bet is, only the service knows.
#[derive(Clone, Debug, PartialEq)]
pub struct Signal {
    /// Under which the player is answered.
    pub bet_id: Id,
    /// The round that it is for, by the player's word.
    pub round_id: Id,
    /// Names the attempt: the same key is the same bet, however often it comes.
    pub key: Id,
    /// The player's clock, Unix milliseconds.
    pub client_ts: f64,
    /// Where in a trace it stands: the page's own, where the message names it.
    pub trace: Option<TraceParent>,
    /// Of bet id and payload, to tell whether a key that comes again comes with the same bet.
    pub(super) fingerprint: u64,
    text: Box<str>,
}

/// A message that is no signal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotTaken {
    /// Why.
    pub reason: Refused,
    /// The bet that it names, where that can be read: the answer goes under it.
    pub bet_id: Option<Id>,
}

/// Fields that nobody knows are skipped here and stay in the text.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Fields<'a> {
    #[serde(borrow, rename = "type")]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    bet_id: Cow<'a, str>,
    #[serde(borrow)]
    round_id: Cow<'a, str>,
    #[serde(borrow)]
    idempotency_key: Cow<'a, str>,
    client_ts: f64,
    #[serde(borrow)]
    payload: &'a RawValue,
    #[serde(borrow)]
    traceparent: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct OnlyBetId<'a> {
    #[serde(borrow)]
    bet_id: Cow<'a, str>,
}

impl Signal {
    /// Reads a message.
    ///
    /// # Errors
    /// It is too long, no JSON object, nested too deeply, or lacks a field or has one that is out of its range.
    pub fn parse(message: &[u8]) -> Result<Self, NotTaken> {
        if message.len() > MAX_MESSAGE {
            return Err(NotTaken { reason: Refused::TooLarge, bet_id: None });
        }
        Self::read(message).ok_or_else(|| NotTaken { reason: Refused::Malformed, bet_id: Self::bet_id_of(message) })
    }

    /// Which bet a message is about, if it says so, whatever else is wrong with it.
    pub fn bet_id_of(message: &[u8]) -> Option<Id> {
        if message.len() > MAX_MESSAGE {
            return None;
        }
        // Skips what it does not know without recursion, so depth is no danger here.
        serde_json::from_slice::<OnlyBetId<'_>>(message).ok().and_then(|only| Id::new(&only.bet_id).ok())
    }

    fn read(message: &[u8]) -> Option<Self> {
        // All of it: the parser looks at no bytes of strings that it skips.
        let text = std::str::from_utf8(message).ok()?;
        if depth(text) > MAX_DEPTH {
            return None;
        }
        let fields: Fields<'_> = serde_json::from_str(text).ok()?;
        let valid = fields.kind == "bet" && (0.0..=MAX_TIMESTAMP).contains(&fields.client_ts);
        let mut hasher = DefaultHasher::new();
        (&fields.bet_id, fields.payload.get()).hash(&mut hasher);
        valid.then_some(Self {
            bet_id: Id::new(&fields.bet_id).ok()?,
            round_id: Id::new(&fields.round_id).ok()?,
            key: Id::new(&fields.idempotency_key).ok()?,
            client_ts: fields.client_ts,
            trace: fields.traceparent.and_then(trace_parent),
            fingerprint: hasher.finish(),
            text: text.into(),
        })
    }

    /// The message as it came, a JSON object: unknown fields and the exact numbers are in it.
    pub fn text(&self) -> &str {
        &self.text
    }
}

/// One that is wrong is as good as none (W3C Trace Context §3.2.2): a bet is not refused for want of a trace.
fn trace_parent(value: &RawValue) -> Option<TraceParent> {
    let text = value.get().strip_prefix('"')?.strip_suffix('"')?;
    TraceParent::parse(text)
}

/// The deepest nesting of a JSON text. Of any other text, some number.
fn depth(text: &str) -> usize {
    let (mut depth, mut deepest, mut quoted, mut escaped) = (0_usize, 0, false, false);
    for byte in text.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'{' | b'[' if !quoted => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b'}' | b']' if !quoted => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn message() -> Value {
        json!({
            "type": "bet", "betId": "b-1", "roundId": "r-7", "idempotencyKey": "k-1", "clientTs": 1_790_000_000_000_u64,
            "payload": { "spot": "red", "amount": 5 },
        })
    }

    /// A signal of these names.
    pub(in super::super) fn signal(bet: &str, round: &str, key: &str, amount: u32) -> Signal {
        let mut message = message();
        for (field, value) in [("betId", bet), ("roundId", round), ("idempotencyKey", key)] {
            message[field] = value.into();
        }
        message["payload"]["amount"] = amount.into();
        Signal::parse(message.to_string().as_bytes()).expect("a signal")
    }

    fn reason(message: &[u8]) -> Option<Refused> {
        Signal::parse(message).err().map(|not| not.reason)
    }

    #[test]
    fn a_signal_is_read_and_its_text_kept() {
        let text = r#" {"type":"bet","betId":"b-1","roundId":"r-7","idempotencyKey":"k-1","clientTs":1.5,
            "payload":{"amount":12345678901234567890123},"x":{"y":[1.000]}} "#;
        let signal = Signal::parse(text.as_bytes()).unwrap();
        assert_eq!((signal.bet_id.as_str(), signal.round_id.as_str(), signal.key.as_str()), ("b-1", "r-7", "k-1"));
        assert_eq!((signal.client_ts, signal.text()), (1.5, text));
    }

    #[test]
    fn a_signal_may_stand_in_a_trace_and_a_wrong_one_is_ignored() {
        let header = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let with = |value: Value| {
            let mut message = message();
            message["traceparent"] = value;
            Signal::parse(message.to_string().as_bytes()).unwrap().trace
        };
        assert_eq!(with(json!(header)).map(|trace| trace.to_string()), Some(header.to_owned()));
        for wrong in [json!(""), json!("\""), json!(header.to_uppercase()), json!(7), json!(null), json!([header])] {
            assert_eq!(with(wrong.clone()), None, "{wrong}");
        }
        assert_eq!(Signal::parse(message().to_string().as_bytes()).unwrap().trace, None);
    }

    #[test]
    fn the_example_of_the_documentation_is_a_signal() {
        let page = include_str!("../../docs/bets.md");
        let examples: Vec<&str> = page.lines().filter(|line| line.starts_with(r#"{"type": "bet""#)).collect();
        assert!(!examples.is_empty() && examples.iter().all(|example| reason(example.as_bytes()).is_none()));
    }

    #[test]
    fn what_lacks_a_field_or_has_a_wrong_one_is_malformed() {
        for field in ["type", "betId", "roundId", "idempotencyKey", "clientTs", "payload"] {
            let mut without = message();
            without.as_object_mut().unwrap().remove(field);
            assert_eq!(reason(without.to_string().as_bytes()), Some(Refused::Malformed), "{field}");
        }
        for (field, wrong) in [
            ("type", json!("ack")),
            ("betId", json!(7)),
            ("betId", json!("")),
            ("roundId", json!("a b")),
            ("idempotencyKey", json!("k".repeat(65))),
            ("idempotencyKey", json!("\u{0}")),
            ("clientTs", json!("now")),
            ("clientTs", json!(-1)),
            ("clientTs", json!(1e300)),
        ] {
            let mut message = message();
            message[field] = wrong;
            assert_eq!(reason(message.to_string().as_bytes()), Some(Refused::Malformed), "{message}");
        }
        for text in ["", "[]", "7", "{}", "null", "{\"type\":\"bet\"", "\u{7f}"] {
            assert_eq!(reason(text.as_bytes()), Some(Refused::Malformed), "{text}");
        }
        let twice = message().to_string().replacen('{', "{\"betId\":\"b-2\",", 1);
        assert_eq!(reason(twice.as_bytes()), Some(Refused::Malformed), "two parsers might read two bets");
    }

    #[test]
    fn what_is_too_long_or_too_deep_is_not_taken() {
        let long = |len: usize| {
            let mut long = message();
            long["payload"] = "".into();
            long["payload"] = "x".repeat(len - long.to_string().len()).into();
            long.to_string()
        };
        assert_eq!(reason(long(MAX_MESSAGE).as_bytes()), None);
        assert_eq!(reason(long(MAX_MESSAGE + 1).as_bytes()), Some(Refused::TooLarge));
        let deep = |depth: usize| {
            let mut deep = message();
            deep["payload"] = "D".into();
            deep.to_string().replace("\"D\"", &format!("{}{}", "[".repeat(depth), "]".repeat(depth)))
        };
        assert_eq!(reason(deep(MAX_DEPTH - 1).as_bytes()), None);
        assert_eq!(reason(deep(MAX_DEPTH).as_bytes()), Some(Refused::Malformed));
        assert_eq!(reason(deep(8000).as_bytes()), Some(Refused::Malformed));
        let mut brackets = message();
        brackets["payload"] = "\\\"[[[[[[[[[[[[[[[[[[[[[[".into();
        assert_eq!(reason(brackets.to_string().as_bytes()), None, "no nesting in a string");
    }

    #[test]
    fn a_bad_message_is_answered_under_its_bet_where_that_can_be_read() {
        let bet_id = |text: &str| Signal::parse(text.as_bytes()).unwrap_err().bet_id.map(|id| id.to_string());
        assert_eq!(bet_id(r#"{"type":"bet","betId":"b-9"}"#), Some("b-9".to_owned()));
        assert_eq!(bet_id(r#"{"type":"bet","betId":9}"#), None);
        let deep = format!(r#"{{"a":{}{},"betId":"b-9"}}"#, "[".repeat(7000), "]".repeat(7000));
        assert_eq!(bet_id(&deep), Some("b-9".to_owned()));
    }

    #[test]
    fn invalid_text_within_what_is_skipped_is_found() {
        let mut bytes = message().to_string().replace("red", "r?d").into_bytes();
        let at = bytes.iter().position(|byte| *byte == b'?').unwrap();
        bytes[at] = 0xff;
        assert_eq!(reason(&bytes), Some(Refused::Malformed));
    }

    #[test]
    fn the_fingerprint_is_that_of_the_bet_and_not_of_the_attempt() {
        let first = signal("b", "r", "k", 5);
        assert_ne!(first.fingerprint, signal("b", "r", "k", 6).fingerprint);
        assert_ne!(first.fingerprint, signal("c", "r", "k", 5).fingerprint);
        let mut again = message();
        (again["betId"], again["clientTs"], again["attempt"]) = ("b".into(), 9.into(), 2.into());
        let again = Signal::parse(again.to_string().as_bytes()).unwrap();
        assert_eq!(first.fingerprint, again.fingerprint);
    }

    proptest! {
        #[test]
        fn no_message_panics(bytes in prop::collection::vec(any::<u8>(), 0..300), text in "\\PC{0,80}") {
            let _ = Signal::parse(&bytes);
            let _ = Signal::parse(format!("{{\"type\":\"bet\",{text}").as_bytes());
        }

        #[test]
        fn what_is_taken_is_json_with_the_names_it_was_given(
            bet in "[!-~]{1,64}", round in "[!-~]{1,64}", key in "[!-~]{1,64}", client_ts in 0.0..1e15, more: String,
        ) {
            let text = json!({
                "type": "bet", "betId": bet, "roundId": round, "idempotencyKey": key, "clientTs": client_ts,
                "payload": more, "more": more,
            }).to_string();
            let signal = Signal::parse(text.as_bytes()).unwrap();
            prop_assert_eq!((signal.bet_id.as_str(), signal.round_id.as_str(), signal.key.as_str()), (&*bet, &*round, &*key));
            prop_assert_eq!(signal.text(), text);
        }

        #[test]
        fn depth_is_what_a_parser_finds(text in "[\\[\\]{}\"\\\\,:a0]{0,40}") {
            fn of(value: &Value) -> usize {
                match value {
                    Value::Array(items) => 1 + items.iter().map(of).max().unwrap_or(0),
                    Value::Object(fields) => 1 + fields.values().map(of).max().unwrap_or(0),
                    _ => 0,
                }
            }
            if let Ok(value) = serde_json::from_str::<Value>(&text) {
                // Of two equal keys a value has the last alone.
                prop_assert!(depth(&text) >= of(&value));
            }
        }
    }
}
