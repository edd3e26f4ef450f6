//! A stream of server-sent events, read piece by piece (WHATWG HTML, "Server-sent events", §9.2.5 and §9.2.6).

use std::collections::VecDeque;
use std::time::Duration;

/// Bytes of the longest line that is kept. A longer one is skipped, and with it its event.
const MAX_LINE: usize = super::super::document::MAX_EVENT + 16;

/// Bytes of the longest id: it is sent back in a header.
const MAX_ID: usize = 256;

/// An event with data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServerSent {
    /// One that is whole.
    Event {
        /// Its lines of data.
        data: Vec<u8>,
    },
    /// One that was longer than anything that is read.
    TooLarge,
}

/// Reads a stream. What it keeps is bounded, whatever comes.
#[derive(Debug, Default)]
pub struct EventStream {
    line: Vec<u8>,
    /// The line is longer than is kept.
    skips_line: bool,
    after_cr: bool,
    begun: bool,
    data: Option<Vec<u8>>,
    /// The event is longer than is read.
    skips_event: bool,
    id: Vec<u8>,
    last_id: Option<String>,
    retry: Option<Duration>,
    events: VecDeque<ServerSent>,
}

impl EventStream {
    /// At its beginning.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes what has come.
    pub fn push(&mut self, bytes: &[u8]) {
        for byte in bytes {
            match byte {
                // §9.2.5: lines end with CR LF, LF or CR.
                b'\n' if self.after_cr => {}
                b'\n' | b'\r' => self.end_line(),
                _ if self.line.len() >= MAX_LINE => self.skips_line = true,
                byte => self.line.push(*byte),
            }
            self.after_cr = *byte == b'\r';
        }
    }

    /// The next event.
    pub fn next_event(&mut self) -> Option<ServerSent> {
        self.events.pop_front()
    }

    /// The id of the last event that ended, for `Last-Event-ID`.
    pub fn last_id(&self) -> Option<&str> {
        self.last_id.as_deref()
    }

    /// How long the server wants to be left alone after the stream ends.
    pub fn retry(&self) -> Option<Duration> {
        self.retry
    }

    fn end_line(&mut self) {
        let mut line = std::mem::take(&mut self.line);
        // §9.2.5: one byte order mark may come first.
        if !self.begun && line.starts_with(b"\xef\xbb\xbf") {
            line.drain(..3);
        }
        self.begun = true;
        if std::mem::take(&mut self.skips_line) {
            // A comment may be of any length, all else is an event that nobody can use.
            self.skips_event |= !line.starts_with(b":");
            return;
        }
        if line.is_empty() {
            return self.end_event();
        }
        let (field, value) = match line.iter().position(|byte| *byte == b':') {
            Some(0) => return,
            Some(colon) => {
                let value = &line[colon + 1..];
                (&line[..colon], value.strip_prefix(b" ").unwrap_or(value))
            }
            None => (&line[..], &[][..]),
        };
        match field {
            b"data" => self.add_data(value),
            // §9.2.6: "If the field value does not contain U+0000 NULL". Other control characters fit into no header.
            b"id" if value.len() <= MAX_ID && value.iter().all(|byte| (b' '..0x7f).contains(byte)) => {
                self.id = value.to_vec();
                // It holds from the end of its event on.
            }
            b"retry" => {
                let digits = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
                let number = std::str::from_utf8(value).ok().filter(|_| digits).and_then(|text| text.parse().ok());
                self.retry = number.map(Duration::from_millis).or(self.retry);
            }
            // `event` as well: the data says what it is.
            _ => {}
        }
    }

    fn add_data(&mut self, value: &[u8]) {
        match &mut self.data {
            Some(data) if data.len() + value.len() + 1 > MAX_LINE => self.skips_event = true,
            Some(data) => {
                data.push(b'\n');
                data.extend_from_slice(value);
            }
            None => self.data = Some(value.to_vec()),
        }
    }

    fn end_event(&mut self) {
        // Visible ASCII and spaces: text.
        self.last_id = (!self.id.is_empty()).then(|| String::from_utf8_lossy(&self.id).into_owned());
        let data = self.data.take();
        if std::mem::take(&mut self.skips_event) {
            self.events.push_back(ServerSent::TooLarge);
        } else if let Some(data) = data {
            // §9.2.6: an event without data is none.
            self.events.push_back(ServerSent::Event { data });
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &[u8]) -> (Vec<String>, Option<String>) {
        let mut stream = EventStream::new();
        stream.push(text);
        let events = std::iter::from_fn(|| stream.next_event()).map(|event| match event {
            ServerSent::Event { data } => String::from_utf8(data).unwrap(),
            ServerSent::TooLarge => "too large".to_owned(),
        });
        let events = events.collect();
        (events, stream.last_id().map(str::to_owned))
    }

    #[test]
    fn the_examples_of_the_standard_are_read_as_it_says() {
        assert_eq!(read(b"data: YHOO\ndata: +2\ndata: 10\n\n").0, ["YHOO\n+2\n10"]);
        let text = b": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n\n";
        assert_eq!(
            read(text),
            (vec!["first event".to_owned(), "second event".to_owned(), " third event".to_owned()], None)
        );
        assert_eq!(read(b"data\n\ndata\ndata\n\ndata:").0, ["", "\n"]);
        assert_eq!(read(b"data:test\n\ndata: test\n\n").0, ["test", "test"]);
    }

    #[test]
    fn every_end_of_a_line_ends_it_and_a_mark_may_come_first() {
        assert_eq!(read(b"\xef\xbb\xbfdata: a\r\n\r\ndata: b\r\rdata: c\n\n").0, ["a", "b", "c"]);
    }

    #[test]
    fn an_id_holds_from_the_end_of_its_event_until_the_next_and_is_fit_for_a_header() {
        assert_eq!(read(b"id: 7\ndata: a\n\ndata: b\n\nid: 8\ndata: c\n").1.as_deref(), Some("7"));
        assert_eq!(read(b"id: 7\n\nid: a\x00b\n\nid: \xc3\xa9\n\n").1.as_deref(), Some("7"));
        assert_eq!(read(&[b"id: 7\n\nid: ", &[b'8'; 300][..], b"\n\n"].concat()).1.as_deref(), Some("7"));
    }

    #[test]
    fn a_time_to_wait_is_a_number_of_milliseconds() {
        let mut stream = EventStream::new();
        stream.push(b"retry: 1500\nretry: soon\nretry:\nretry: -1\nretry: 99999999999999999999999\n\n");
        assert_eq!(stream.retry(), Some(Duration::from_millis(1500)));
    }

    #[test]
    fn what_is_too_long_is_skipped_alone() {
        let long = "x".repeat(2 * MAX_LINE);
        let text = format!("data: a\n\ndata: {long}\n\n:{long}\ndata: b\n\n{long}\n\ndata: c\n\n");
        assert_eq!(read(text.as_bytes()).0, ["a", "too large", "b", "too large", "c"]);
        let many = "data: 0123456789\n".repeat(MAX_LINE / 8);
        assert_eq!(read(format!("{many}\ndata: b\n\n").as_bytes()).0, ["too large", "b"]);
    }

    proptest! {
        #[test]
        fn it_does_not_matter_in_which_pieces_it_comes(
            text in "((data|id|retry|event|:)(:| |: )?[ -~é]{0,12}|)?((\r\n|\n|\r){1,2})?((data: )[a-z]{1,5}\n{1,2}){0,4}",
            cuts in prop::collection::vec(0..64_usize, 0..8),
        ) {
            let (whole, mut pieces) = (read(text.as_bytes()), EventStream::new());
            let mut rest = text.as_bytes();
            for cut in cuts {
                let (piece, more) = rest.split_at(cut.min(rest.len()));
                pieces.push(piece);
                rest = more;
            }
            pieces.push(rest);
            let events: Vec<String> = std::iter::from_fn(|| pieces.next_event())
                .map(|event| match event {
                    ServerSent::Event { data } => String::from_utf8_lossy(&data).into_owned(),
                    ServerSent::TooLarge => "too large".to_owned(),
                })
                .collect();
            prop_assert_eq!((events, pieces.last_id().map(str::to_owned)), whole);
        }

        #[test]
        fn what_is_kept_is_bounded(bytes in prop::collection::vec(prop_oneof![Just(b'\n'), Just(b':'), any::<u8>()], 0..500), times in 1..400_usize) {
            let mut stream = EventStream::new();
            for _ in 0..times {
                stream.push(&bytes);
                while stream.next_event().is_some() {}
            }
            prop_assert!(stream.line.len() <= MAX_LINE && stream.id.len() <= MAX_ID);
            prop_assert!(stream.data.as_ref().is_none_or(|data| data.len() <= MAX_LINE));
        }

        #[test]
        fn events_are_read_back(texts in prop::collection::vec("[ -~é]{0,40}(\n[ -~]{1,20})?", 0..6)) {
            let write = |text: &String| format!("id: 1\nevent: round\ndata: {}\n\n", text.replace('\n', "\ndata: "));
            let stream: String = texts.iter().map(write).collect();
            prop_assert_eq!(read(stream.as_bytes()).0, texts);
        }
    }
}
