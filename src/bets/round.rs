//! Round events: what a bet service says of its tables, written once for all players.

use serde_json::{Map, Value};

use super::id::Id;

/// Bytes of the longest event as it is sent.
const MAX_TEXT: usize = 16 * 1024;

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RoundKind {
    /// Bets are taken from now on.
    Open,
    /// No more bets.
    Close,
    /// The outcome is there.
    Result,
    /// The round does not count.
    Void,
}

impl RoundKind {
    /// Every kind.
    pub const ALL: [RoundKind; 4] = [RoundKind::Open, RoundKind::Close, RoundKind::Result, RoundKind::Void];

    /// The one of this `type`.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name)
    }

    /// Its `type` on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Open => "round.open",
            Self::Close => "round.close",
            Self::Result => "result",
            Self::Void => "void",
        }
    }

    /// Whether the round is over with it.
    pub const fn ends_round(self) -> bool {
        matches!(self, Self::Result | Self::Void)
    }
}

/// An event of a table's round.
#[derive(Clone, Debug, PartialEq)]
pub struct RoundEvent {
    /// What happened.
    pub kind: RoundKind,
    /// To which round.
    pub round_id: Id,
    /// When, by the clock of the table's cameras: Unix milliseconds.
    pub capture_ts: f64,
    /// Whatever else the service says; handed on to players as it is. The names of the fields above and `rtpTs` are not
    /// the service's to choose.
    pub fields: Map<String, Value>,
}

/// Why an event is not handed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidEvent {
    /// Its time is no time.
    #[error("captureTs is no number of milliseconds since 1970")]
    CaptureTs,
    /// Too much for thousands of players at once.
    #[error("an event has at most {MAX_TEXT} bytes")]
    TooLarge,
}

/// An event as players get it, but for the frame, which is another number for each.
#[derive(Clone, Debug, PartialEq)]
pub struct Announcement {
    /// What happened.
    pub kind: RoundKind,
    /// To which round.
    pub round_id: Id,
    /// When, by the clock of the table's cameras: Unix milliseconds.
    pub capture_ts: f64,
    /// The JSON object without its end.
    open_text: Box<str>,
}

impl Announcement {
    /// Writes an event.
    ///
    /// # Errors
    /// See [`InvalidEvent`].
    pub fn new(event: &RoundEvent) -> Result<Self, InvalidEvent> {
        let RoundEvent { kind, round_id, capture_ts, fields } = event;
        if !(0.0..1e15).contains(capture_ts) {
            return Err(InvalidEvent::CaptureTs);
        }
        let head = [
            ("type", kind.as_str().into()),
            ("roundId", round_id.as_str().into()),
            ("captureTs", (*capture_ts).into()),
        ];
        let theirs =
            fields.iter().filter(|(name, _)| !["type", "roundId", "captureTs", "rtpTs"].contains(&name.as_str()));
        let mut text = String::from("{");
        let pairs = head.iter().map(|(name, value): &(_, Value)| (*name, value));
        for (name, value) in pairs.chain(theirs.map(|(name, value)| (name.as_str(), value))) {
            let comma = if text.len() > 1 { "," } else { "" };
            text.push_str(&format!("{comma}{}:{value}", Value::from(name)));
        }
        if text.len() > MAX_TEXT {
            return Err(InvalidEvent::TooLarge);
        }
        Ok(Self { kind: *kind, round_id: round_id.clone(), capture_ts: *capture_ts, open_text: text.into() })
    }

    /// The message for a player whose video track has `rtp_timestamp` at the time of the event; `None` where it has no
    /// video yet.
    pub fn for_player(&self, rtp_timestamp: Option<u32>) -> String {
        match rtp_timestamp {
            Some(timestamp) => format!("{},\"rtpTs\":{timestamp}}}", self.open_text),
            None => format!("{}}}", self.open_text),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn event(fields: Value) -> RoundEvent {
        let Value::Object(fields) = fields else { panic!("an object") };
        RoundEvent { kind: RoundKind::Open, round_id: Id::new("r-1").unwrap(), capture_ts: 1_790_000_000_000.5, fields }
    }

    #[test]
    fn an_event_is_written_with_and_without_a_frame() {
        let event = event(json!({ "closesTs": 7, "type": "bet", "rtpTs": 1 }));
        let announcement = Announcement::new(&event).unwrap();
        let text = r#"{"type":"round.open","roundId":"r-1","captureTs":1790000000000.5,"closesTs":7"#;
        assert_eq!(announcement.for_player(None), format!("{text}}}"));
        assert_eq!(announcement.for_player(Some(90_000)), format!("{text},\"rtpTs\":90000}}"));
    }

    #[test]
    fn an_event_without_a_time_or_end_is_not_handed_on() {
        let mut wrong = event(json!({}));
        wrong.capture_ts = f64::NAN;
        assert_eq!(Announcement::new(&wrong), Err(InvalidEvent::CaptureTs));
        assert_eq!(Announcement::new(&event(json!({ "x": "y".repeat(MAX_TEXT) }))), Err(InvalidEvent::TooLarge));
    }

    proptest! {
        #[test]
        fn what_is_written_is_json(round in "[!-~]{1,64}", name: String, text: String, timestamp: Option<u32>) {
            let mut event = event(json!({ name.as_str(): text.as_str() }));
            event.round_id = Id::new(&round).unwrap();
            let message: Value = serde_json::from_str(&Announcement::new(&event).unwrap().for_player(timestamp)).unwrap();
            prop_assert_eq!(&message["roundId"], &Value::from(round));
            prop_assert_eq!(message.get("rtpTs").and_then(Value::as_u64), timestamp.map(u64::from));
        }
    }
}
