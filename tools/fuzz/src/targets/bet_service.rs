//! What a bet service says: answers, round events, and the stream that they come on, in any pieces.

use std::time::Instant;

use tableside::bet_service::document::{self, Answer, MAX_ANSWER, MAX_EVENT, RequestId};
use tableside::bet_service::sse::{EventStream, ServerSent};
use tableside::bets::{Announcement, Arrival, Decision, Desk, DeskLimits, Outcome, PlayerId, Signal, Status};

use crate::input::Input;

pub(crate) fn run(data: &[u8]) {
    let mut input = Input::new(data);
    match input.byte() % 3 {
        0 => answer(input.rest()),
        1 => event(input.rest()),
        _ => stream(input),
    }
}

fn answer(bytes: &[u8]) {
    let bytes = &bytes[..bytes.len().min(MAX_ANSWER)];
    match document::parse_answer(bytes, request_id()) {
        Ok(Answer::Outcome(outcome)) => {
            assert!(
                [Status::Accepted, Status::Rejected].contains(&outcome.status()),
                "the edge's own word: {outcome:?}"
            );
            if let Outcome::Rejected { reason } = outcome {
                assert!((1..=200).contains(&reason.len()));
            }
        }
        Ok(Answer::Unavailable) | Err(_) => {}
    }
}

fn event(bytes: &[u8]) {
    let Ok((table, event)) = document::parse_event(&bytes[..bytes.len().min(MAX_EVENT)]) else { return };
    assert!(table.len() <= MAX_EVENT);
    // Whatever is read can be told to players, as JSON.
    let text = Announcement::new(&event).expect("it was read").for_player(Some(1));
    let told: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!((&told["type"], &told["roundId"]), (&event.kind.as_str().into(), &event.round_id.as_str().into()));
}

/// The same events, whether it comes whole or in pieces.
fn stream(mut input: Input<'_>) {
    let cuts: Vec<usize> = (0..input.byte() % 8).map(|_| usize::from(input.byte())).collect();
    let text = input.rest();
    let (mut whole, mut pieces) = (EventStream::new(), EventStream::new());
    whole.push(text);
    let mut rest = text;
    for cut in cuts {
        let (piece, more) = rest.split_at(cut.min(rest.len()));
        pieces.push(piece);
        rest = more;
    }
    pieces.push(rest);
    loop {
        let (one, other) = (whole.next_event(), pieces.next_event());
        assert_eq!(one, other);
        match one {
            Some(ServerSent::Event { data }) => event(&data),
            Some(ServerSent::TooLarge) => {}
            None => break,
        }
    }
    assert_eq!((whole.last_id(), whole.retry()), (pieces.last_id(), pieces.retry()));
    let fits_a_header = |id: &str| id.bytes().all(|byte| (b' '..0x7f).contains(&byte));
    assert!(whole.last_id().is_none_or(fits_a_header));
}

fn request_id() -> RequestId {
    let text = br#"{"type":"bet","betId":"b","roundId":"r","idempotencyKey":"k","clientTs":0,"payload":1}"#;
    let arrival = Arrival {
        from: (),
        player: PlayerId::anonymous([1; 16]),
        table: "roulette".into(),
        edge_in: Instant::now(),
        last_mile: None,
        signal: Signal::parse(text).expect("a signal"),
    };
    match Desk::new(DeskLimits::default()).handle_signal(Instant::now(), arrival) {
        Decision::PassOn(passed) => RequestId::of(&passed),
        other => unreachable!("a first signal is passed on: {other:?}"),
    }
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let with = |kind: u8, text: &str| [&[kind][..], text.as_bytes()].concat();
    let event =
        r#"{"table":"roulette-1","type":"round.open","roundId":"r-1","captureTs":1790000000000,"limits":{"most":5}}"#;
    vec![
        with(0, r#"{"status":"accepted","requestId":"6600f03241088847313099333d139cf3"}"#),
        with(0, r#"{"status":"rejected","reason":"round_closed"}"#),
        with(0, r#"{"status":"unavailable"}"#),
        with(1, event),
        with(1, r#"{"table":"a","type":"void","roundId":"r","captureTs":0.5}"#),
        [&[2, 2, 9, 30][..], format!(": hello\n\nid: 7\nevent: round\ndata: {event}\n\nretry: 100\n").as_bytes()]
            .concat(),
        [&[2, 1, 3][..], b"\xef\xbb\xbfdata: a\r\n\r\ndata: b\rdata\r\r"].concat(),
    ]
}
