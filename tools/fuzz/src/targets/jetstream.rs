//! What a NATS server answers when it is asked for the messages of a file, an answer on each line: what passes for the whole file is
//! one of the length and the hash that its last message says.

use tableside::audit::jetstream::{Assembly, Message};
use tableside::bets::audit::Digest;

pub(crate) fn run(data: &[u8]) {
    let (mut file, mut bytes, mut parts) = (Assembly::new(), Vec::new(), 0_u64);
    for message in data.split(|byte| *byte == b'\n').filter_map(Message::read) {
        let was_whole = file.is_whole();
        if !file.add(&message) {
            return;
        }
        assert!(!was_whole, "a part after the last");
        assert_eq!(message.header("Tableside-Chunk"), Some(parts.to_string().as_str()));
        parts += 1;
        bytes.extend_from_slice(message.body());
        if file.is_whole() {
            assert_eq!(message.header("Tableside-Bytes"), Some(bytes.len().to_string().as_str()));
            assert_eq!(message.header("Tableside-Sha-256").and_then(Digest::parse), Some(Digest::of(&bytes)));
        }
    }
}

/// An answer to `MSG.GET`; headers and body are in Base64.
fn answer(headers: &str, body: &str) -> String {
    let headers = match headers {
        "" => String::new(),
        headers => format!(r#""hdrs":"{headers}","#),
    };
    format!(
        r#"{{"type":"io.nats.jetstream.api.v1.stream_msg_get_response","message":{{"subject":"audit.edge-1.c.segments.1","seq":7,{headers}"data":"{body}","time":"2026-09-21T14:13:27.048999123Z"}}}}"#
    )
}

/// The headers of the second part.
const LAST: &str = "TkFUUy8xLjANClRhYmxlc2lkZS1DaHVuazogMQ0KVGFibGVzaWRlLUJ5dGVzOiA4DQpUYWJsZXNpZGUtU2hhLTI1NjogYzNmOWM4\
    YzI4M2EyYjFmMmYxODk2ZjI3YTAxY2JlM2NkZGMwYzlkOTNmNzUyZTQ2MzkwMzVhMGY1YjM2ZjZlOA0KDQo=";

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    // "Tableside-Chunk: 0", and "one\n".
    let first = answer("TkFUUy8xLjANClRhYmxlc2lkZS1DaHVuazogMA0KDQo=", "b25lCg==");
    // "Tableside-Chunk: 1", "Tableside-Bytes: 8", the hash of "one\ntwo\n", and "two\n".
    let last = answer(LAST, "dHdvCg==");
    [
        format!("{first}\n{last}"),
        first.clone(),
        format!("{first}\n{first}"),
        format!("{first}\n{last}\n{last}"),
        last,
        answer("", ""),
        r#"{"type":"io.nats","error":{"code":404,"err_code":10037,"description":"no message found"}}"#.to_owned(),
    ]
    .map(String::into_bytes)
    .to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_seed_is_a_whole_file() {
        let mut file = Assembly::new();
        let seed = seeds().swap_remove(0);
        assert!(seed.split(|byte| *byte == b'\n').all(|line| file.add(&Message::read(line).expect("an answer"))));
        assert!(file.is_whole());
    }
}
