//! W3C Trace Context, level 1: what ties the traces of a player's page, the edge and a bet service to one signal.

use std::fmt;

/// Names everything that is done for one signal: 16 bytes, not all of them zero.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceId([u8; 16]);

impl TraceId {
    /// One of random bytes.
    pub fn new(random: [u8; 16]) -> Self {
        Self(not_zero(random))
    }

    /// The bytes.
    pub fn to_bytes(self) -> [u8; 16] {
        self.0
    }
}

/// Names one thing that is done: 8 bytes, not all of them zero. The standard calls it `parent-id`, seen from what is
/// done next.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SpanId([u8; 8]);

impl SpanId {
    /// One of random bytes.
    pub fn new(random: [u8; 8]) -> Self {
        Self(not_zero(random))
    }

    /// The bytes.
    pub fn to_bytes(self) -> [u8; 8] {
        self.0
    }
}

/// Where in a trace something stands: what is done next for the signal is a child of it. Written as in the header
/// `traceparent`:
///
/// ```text
/// 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01
/// ```
///
/// Version 00, trace id, parent id, flags (W3C Trace Context §3.2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceParent {
    /// The trace.
    pub trace: TraceId,
    /// The parent of what is done next.
    pub parent: SpanId,
    /// Whether who did the last thing may have recorded it (§3.2.2.5).
    pub sampled: bool,
}

impl TraceParent {
    /// The header's name.
    pub const HEADER: &'static str = "traceparent";

    /// Reads one. Of a version that is not known the part that all versions have (§3.2.4).
    pub fn parse(text: &str) -> Option<Self> {
        // §3.2.2.1: ff is no version.
        let (version, rest) = (hex_bytes::<1>(text.get(..2)?)?, text.get(2..)?);
        let fields = rest.get(..53)?;
        // §3.2.4: 55 characters at least; what a later version has after them begins with a dash.
        let is_whole = rest.len() == 53 || (version != [0] && rest.as_bytes()[53] == b'-');
        if version == [0xff] || !is_whole {
            return None;
        }
        let mut fields = fields.split('-').skip(1);
        let (trace, parent, flags) = (fields.next()?, fields.next()?, fields.next()?);
        let (trace, parent, flags) = (hex_bytes::<16>(trace)?, hex_bytes::<8>(parent)?, hex_bytes::<1>(flags)?);
        // §3.2.2.4: "Vendors MUST ignore the traceparent when the parent-id is invalid (for example, if it contains
        // non-lowercase hex characters)", and §3.2.2.3 says the same of the trace-id.
        (trace != [0; 16] && parent != [0; 8]).then_some(Self {
            trace: TraceId(trace),
            parent: SpanId(parent),
            sampled: flags[0] & 1 == 1,
        })
    }
}

impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{}-{}-{:02x}", self.trace, self.parent, u8::from(self.sampled))
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex(&self.0, f)
    }
}

impl fmt::Debug for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex(&self.0, f)
    }
}

impl fmt::Display for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex(&self.0, f)
    }
}

impl fmt::Debug for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex(&self.0, f)
    }
}

/// §3.2.2.3, §3.2.2.4: all bytes zero is no value, of either id.
fn not_zero<const N: usize>(mut bytes: [u8; N]) -> [u8; N] {
    if bytes == [0; N] {
        bytes[N - 1] = 1;
    }
    bytes
}

fn hex(bytes: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

/// Lower-case digits alone: the standard has no others.
fn hex_bytes<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let text = text.as_bytes();
    let mut bytes = [0; N];
    if text.len() != 2 * N {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const EXAMPLE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    /// The grammar of §3.2.2, read by somebody who has not seen the code above.
    fn read(header: &str) -> Option<(u128, u64, u8)> {
        let lower = |text: &str| text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        let [version, trace, parent, flags] = header.split('-').collect::<Vec<_>>()[..] else { return None };
        let sizes = (version.len(), trace.len(), parent.len(), flags.len());
        if sizes != (2, 32, 16, 2) || version != "00" || ![trace, parent, flags].into_iter().all(lower) {
            return None;
        }
        let (trace, parent) = (u128::from_str_radix(trace, 16).ok()?, u64::from_str_radix(parent, 16).ok()?);
        (trace != 0 && parent != 0).then_some((trace, parent, u8::from_str_radix(flags, 16).ok()?))
    }

    fn parent(trace: [u8; 16], parent: [u8; 8], sampled: bool) -> TraceParent {
        TraceParent { trace: TraceId::new(trace), parent: SpanId::new(parent), sampled }
    }

    #[test]
    fn zero_is_no_id() {
        let header = parent([0; 16], [0; 8], false).to_string();
        assert_eq!(header, "00-00000000000000000000000000000001-0000000000000001-00");
    }

    #[test]
    fn the_example_of_the_standard_is_read() {
        let read = TraceParent::parse(EXAMPLE).unwrap();
        assert_eq!((read.trace.to_string(), read.parent.to_string()), (EXAMPLE[3..35].into(), EXAMPLE[36..52].into()));
        assert!(read.sampled && read.to_string() == EXAMPLE);
        // Other flags are for later levels.
        assert_eq!(TraceParent::parse(&EXAMPLE.replace("-01", "-ff")), Some(read));
        assert!(!TraceParent::parse(&EXAMPLE.replace("-01", "-fe")).unwrap().sampled);
    }

    #[test]
    fn of_a_later_version_the_known_part_is_read() {
        let read = TraceParent::parse(EXAMPLE);
        for later in [EXAMPLE.replacen("00", "01", 1), format!("cc{}-what-comes", &EXAMPLE[2..])] {
            assert_eq!(TraceParent::parse(&later), read, "{later}");
        }
        for wrong in [format!("cc{}.what", &EXAMPLE[2..]), format!("ff{}", &EXAMPLE[2..]), format!("{EXAMPLE}-more")] {
            assert_eq!(TraceParent::parse(&wrong), None, "{wrong}");
        }
    }

    #[test]
    fn what_is_not_of_the_form_is_not_read() {
        let upper = EXAMPLE.to_uppercase();
        let (no_trace, no_parent) = (EXAMPLE.replace(&EXAMPLE[3..35], &"0".repeat(32)), "0".repeat(16));
        let no_parent = EXAMPLE.replace(&EXAMPLE[36..52], &no_parent);
        for wrong in ["", "00", "é", &EXAMPLE[..54], &EXAMPLE.replace("-00f", "_00f"), &upper, &no_trace, &no_parent] {
            assert_eq!(TraceParent::parse(wrong), None, "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn the_header_has_the_form_of_the_standard_and_the_ids_it_was_given(
            trace: [u8; 16], span: [u8; 8], sampled: bool,
        ) {
            let written = parent(trace, span, sampled);
            let header = written.to_string();
            let wanted = (u128::from_be_bytes(trace).max(1), u64::from_be_bytes(span).max(1), u8::from(sampled));
            prop_assert_eq!(read(&header), Some(wanted), "{}", header);
            prop_assert_eq!(TraceParent::parse(&header), Some(written));
        }

        #[test]
        fn nothing_else_is_read(text in "([0-9a-g]{1,3}-[0-9a-g]{31,33}-[0-9a-g]{15,17}-[0-9a-g]{2})|\\PC{0,60}") {
            if let Some(parsed) = TraceParent::parse(&text) {
                prop_assert_eq!(read(&format!("00{}", &text[2..])).map(|(trace, parent, _)| (trace, parent)),
                    Some((u128::from_be_bytes(parsed.trace.to_bytes()), u64::from_be_bytes(parsed.parent.to_bytes()))));
            }
        }
    }
}
