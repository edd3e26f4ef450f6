//! Simulcast: one picture in several RTP streams (RFC 8853), each named by a rid (RFC 8851).

use crate::config::MaxLayer;

use super::SimulcastLayer;

/// The most layers that are taken. Browsers send three and OBS up to four; every one costs receiver reports and repairs.
pub(super) const MAX_LAYERS: usize = MaxLayer::HIGHEST as usize + 1;

/// `a=rid` lines and alternatives that are read of one section: what comes beyond them is no simulcast that is sent.
pub(super) const MAX_RIDS: usize = 32;

/// The longest rid: what a one-byte header extension holds (RFC 8285 §4.2).
const MAX_RID: usize = 16;

/// `a=rid:<id> send [pt=…;max-width=…]` (RFC 8851 §4), as far as it is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RidLine {
    pub(super) rid: String,
    /// `pt=`: the payload types that the stream is limited to, all where it is absent.
    payload_types: Option<Vec<u8>>,
    /// `max-width` and `max-height`, where both are there.
    max_picture: Option<(u32, u32)>,
}

impl RidLine {
    /// `None` for what is not sent, and for what is not a rid. Restrictions that nobody here knows bind the sender alone:
    /// whoever forwards needs none of them.
    pub(super) fn parse(value: &str) -> Option<Self> {
        let mut words = value.split_ascii_whitespace();
        let rid = words.next().filter(|rid| is_rid(rid))?.to_owned();
        if words.next()? != "send" {
            return None;
        }
        let restrictions = words.next().unwrap_or_default();
        let parameter = |name: &str| {
            restrictions
                .split(';')
                .find_map(|part| part.split_once('=').filter(|(key, _)| *key == name))
                .map(|(_, v)| v)
        };
        let payload_types = parameter("pt").map(|list| list.split(',').filter_map(|pt| pt.parse().ok()).collect());
        let pixels = |name| parameter(name).and_then(|value| value.parse().ok());
        Some(Self { rid, payload_types, max_picture: pixels("max-width").zip(pixels("max-height")) })
    }

    fn allows(&self, payload_type: u8) -> bool {
        self.payload_types.as_ref().is_none_or(|list| list.contains(&payload_type))
    }
}

/// The `send` half of `a=simulcast` (RFC 8853 §5.1): streams in the order of the line, each a list of alternatives.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct SimulcastLine(Vec<Vec<String>>);

impl SimulcastLine {
    /// `None` where nothing is sent as simulcast.
    pub(super) fn parse(value: &str) -> Option<Self> {
        let mut words = value.split_ascii_whitespace();
        while let (Some(direction), Some(list)) = (words.next(), words.next()) {
            if direction == "send" {
                let streams = list.split(';').take(MAX_RIDS).map(alternatives).collect();
                return Some(Self(streams));
            }
        }
        None
    }

    /// The layers to accept of streams whose payload type is `payload_type`, in the order of the line.
    ///
    /// Of alternatives, the first that fits is chosen (RFC 8853 §5.3.2 lets an answerer reduce them). A stream without a
    /// usable rid is left out, which rejects it. A paused one is taken as if it were not: pausing is the sender's to end
    /// (RFC 7728 is not offered by anybody), and a `~` in the answer would ask for it to stay away.
    pub(super) fn layers(&self, rids: &[RidLine], payload_type: u8) -> Vec<SimulcastLayer> {
        let mut layers: Vec<SimulcastLayer> = Vec::new();
        for alternatives in &self.0 {
            let usable = |rid: &String| rids.iter().find(|line| line.rid == *rid && line.allows(payload_type));
            let chosen = alternatives.iter().find_map(usable);
            if let Some(line) = chosen.filter(|line| layers.iter().all(|layer| layer.rid != line.rid)) {
                layers.push(SimulcastLayer {
                    rid: line.rid.clone(),
                    restricted_to: line.payload_types.as_ref().map(|_| payload_type),
                    max_picture: line.max_picture,
                });
            }
        }
        layers
    }
}

/// The rids of a stream, without the `~` of those that the sender begins without.
fn alternatives(stream: &str) -> Vec<String> {
    let rids = stream.split(',').take(MAX_RIDS).map(|rid| rid.strip_prefix('~').unwrap_or(rid));
    rids.filter(|rid| is_rid(rid)).map(str::to_owned).collect()
}

/// RFC 8851 §10: alphanumeric, `-` and `_`.
fn is_rid(text: &str) -> bool {
    (1..=MAX_RID).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
}

/// The lines of an answer that accepts `layers`, without `a=` and line ends: each rid, then all in the order of the offer.
/// Nothing for a stream that is no simulcast.
pub(super) fn answer_lines(layers: &[SimulcastLayer]) -> Vec<String> {
    let rid = |layer: &SimulcastLayer| match layer.restricted_to {
        Some(payload_type) => format!("rid:{} recv pt={payload_type}", layer.rid),
        None => format!("rid:{} recv", layer.rid),
    };
    let mut lines: Vec<String> = layers.iter().map(rid).collect();
    if !layers.is_empty() {
        let list: Vec<&str> = layers.iter().map(|layer| layer.rid.as_str()).collect();
        lines.push(format!("simulcast:recv {}", list.join(";")));
    }
    lines
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rids(lines: &[&str]) -> Vec<RidLine> {
        lines.iter().filter_map(|line| RidLine::parse(line)).collect()
    }

    fn layers(simulcast: &str, lines: &[&str]) -> Vec<String> {
        let line = SimulcastLine::parse(simulcast).expect("something is sent");
        line.layers(&rids(lines), 96).into_iter().map(|layer| layer.rid).collect()
    }

    #[test]
    fn rid_lines_and_their_restrictions() {
        let plain = RidLine::parse("q send").unwrap();
        assert!(plain.allows(96) && plain.allows(102));
        let restricted = RidLine::parse("hi-1 send pt=97,98;max-width=1280;max-height=720;max-br=5000").unwrap();
        assert!(restricted.allows(98) && !restricted.allows(96));
        assert_eq!(restricted.max_picture, Some((1280, 720)));
        assert_eq!(RidLine::parse("x send max-width=640").unwrap().max_picture, None, "half a size is none");
        for bad in ["", "q", "q recv", "q both", "a.b send", "0123456789abcdefg send"] {
            assert_eq!(RidLine::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn the_order_of_the_line_is_kept() {
        assert_eq!(layers("send q;h;f", &["f send", "h send", "q send"]), ["q", "h", "f"]);
        assert_eq!(layers("recv z send 0;1;2", &["0 send", "1 send", "2 send"]), ["0", "1", "2"]);
        assert_eq!(SimulcastLine::parse("recv a;b"), None);
        assert_eq!(SimulcastLine::parse("send"), None);
    }

    #[test]
    fn alternatives_are_reduced_and_pauses_ignored() {
        let lines = ["a send pt=97", "b send pt=96", "c send", "d recv"];
        assert_eq!(layers("send a,b;~c", &lines), ["b", "c"]);
        assert_eq!(layers("send a;c", &lines), ["c"], "of another payload type");
        assert_eq!(layers("send c;d;e;c", &lines), ["c"], "not sent, not there, named twice");
    }

    #[test]
    fn the_answer_lists_what_was_accepted() {
        let line = SimulcastLine::parse("send q;h;f").unwrap();
        let layers = line.layers(&rids(&["q send", "h send pt=96", "f send max-width=1280;max-height=720"]), 96);
        assert_eq!(answer_lines(&layers), ["rid:q recv", "rid:h recv pt=96", "rid:f recv", "simulcast:recv q;h;f"]);
        assert_eq!(answer_lines(&[]), [""; 0]);
    }

    proptest! {
        #[test]
        fn no_line_panics_and_what_is_read_can_be_answered(
            simulcast in "[ -~]{0,60}",
            lines in prop::collection::vec("[ -~]{0,40}", 0..8),
            payload_type: u8,
        ) {
            let lines: Vec<RidLine> = lines.iter().filter_map(|line| RidLine::parse(line)).collect();
            if let Some(line) = SimulcastLine::parse(&simulcast) {
                let layers = line.layers(&lines, payload_type);
                prop_assert_eq!(answer_lines(&layers).is_empty(), layers.is_empty());
            }
        }

        #[test]
        fn what_is_written_is_read_back(
            rids in prop::collection::hash_set("[a-zA-Z0-9_-]{1,16}", 1..6),
            payload_type in 96u8..127,
        ) {
            let rids: Vec<String> = rids.into_iter().collect();
            let lines: Vec<RidLine> = rids.iter().filter_map(|rid| RidLine::parse(&format!("{rid} send"))).collect();
            let line = SimulcastLine::parse(&format!("send {}", rids.join(";"))).expect("something is sent");
            let layers = line.layers(&lines, payload_type);
            let read: Vec<&String> = layers.iter().map(|layer| &layer.rid).collect();
            prop_assert!(read.into_iter().eq(&rids));
            let written = answer_lines(&layers).pop().expect("the simulcast line");
            let back = SimulcastLine::parse(&written.replace("simulcast:recv", "send")).expect("as it was written");
            prop_assert_eq!(back, line);
        }
    }
}
