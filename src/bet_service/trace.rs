//! W3C Trace Context, level 1: what a bet service needs to tie its traces to a signal.

use std::fmt;

/// Names everything that is done for one signal: 16 bytes, not all of them zero.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceId([u8; 16]);

impl TraceId {
    /// One of random bytes.
    pub fn new(random: [u8; 16]) -> Self {
        Self(not_zero(random))
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex(&self.0, f)
    }
}

impl fmt::Debug for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The header `traceparent` of one attempt to ask the service. Displays as the header's value:
///
/// ```text
/// 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00
/// ```
///
/// Version 00, trace id, parent id, flags (W3C Trace Context §3.2.2). No flag is set: nothing of the trace is recorded
/// on the edge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceParent {
    trace: TraceId,
    parent: [u8; 8],
}

impl TraceParent {
    /// The header's name.
    pub const HEADER: &'static str = "traceparent";

    /// Of an attempt that is named by random bytes.
    pub fn new(trace: TraceId, random: [u8; 8]) -> Self {
        Self { trace, parent: not_zero(random) }
    }
}

impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{}-", self.trace)?;
        hex(&self.parent, f)?;
        f.write_str("-00")
    }
}

/// §3.2.2.3, §3.2.2.4: "All bytes as zero is considered an invalid value."
fn not_zero<const N: usize>(mut bytes: [u8; N]) -> [u8; N] {
    if bytes == [0; N] {
        bytes[N - 1] = 1;
    }
    bytes
}

fn hex(bytes: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The grammar of §3.2.2, read by somebody who has not seen the code above.
    fn read(header: &str) -> Option<(u128, u64)> {
        let lower = |text: &str| text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        let [version, trace, parent, flags] = header.split('-').collect::<Vec<_>>()[..] else { return None };
        let sizes = (version.len(), trace.len(), parent.len(), flags.len());
        if sizes != (2, 32, 16, 2) || version != "00" || ![trace, parent, flags].into_iter().all(lower) {
            return None;
        }
        let (trace, parent) = (u128::from_str_radix(trace, 16).ok()?, u64::from_str_radix(parent, 16).ok()?);
        (trace != 0 && parent != 0).then_some((trace, parent))
    }

    #[test]
    fn zero_is_no_id() {
        let header = TraceParent::new(TraceId::new([0; 16]), [0; 8]).to_string();
        assert_eq!(header, "00-00000000000000000000000000000001-0000000000000001-00");
    }

    proptest! {
        #[test]
        fn the_header_has_the_form_of_the_standard_and_the_ids_it_was_given(trace: [u8; 16], parent: [u8; 8]) {
            let header = TraceParent::new(TraceId::new(trace), parent).to_string();
            let wanted = (u128::from_be_bytes(trace).max(1), u64::from_be_bytes(parent).max(1));
            prop_assert_eq!(read(&header), Some(wanted), "{}", header);
        }
    }
}
