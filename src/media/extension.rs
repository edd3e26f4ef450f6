//! Header extension elements (RFC 8285) and the values that the gateway reads and writes.

use std::time::Duration;

/// Profile value of the one-byte form (RFC 8285 §4.2).
pub(super) const ONE_BYTE_PROFILE: u16 = 0xbede;

/// Profile value of the two-byte form, its lowest four bits being "appbits" (RFC 8285 §4.3).
pub(super) const TWO_BYTE_PROFILE: u16 = 0x1000;

/// The elements of a header extension block, as `(id, value)`. Ends at the first one that does not fit the block.
#[derive(Clone, Debug, Default)]
pub struct Extensions<'a> {
    two_byte: bool,
    rest: &'a [u8],
}

impl<'a> Extensions<'a> {
    /// Elements of `block`, which follows `profile` and the length; none where the profile is of neither form.
    pub(super) fn new(profile: u16, block: &'a [u8]) -> Self {
        match profile {
            ONE_BYTE_PROFILE => Self { two_byte: false, rest: block },
            _ if profile & 0xfff0 == TWO_BYTE_PROFILE => Self { two_byte: true, rest: block },
            _ => Self::default(),
        }
    }

    /// Splits the lead of the next element off: its id, its length, and what follows.
    fn lead(&self) -> Option<(u8, usize, &'a [u8])> {
        if self.two_byte {
            let [id, len, rest @ ..] = self.rest else { return None };
            return Some((*id, usize::from(*len), rest));
        }
        let (&byte, rest) = self.rest.split_first()?;
        match byte >> 4 {
            // RFC 8285 §4.2: "If the ID value 15 is used, its length field MUST be ignored, processing of the entire
            // extension MUST terminate at that point". The same holds for id 0 with a length above 0.
            0 | 15 => None,
            id => Some((id, usize::from(byte & 0x0f) + 1, rest)),
        }
    }
}

impl<'a> Iterator for Extensions<'a> {
    type Item = (u8, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        // RFC 8285 §4.1.2: padding bytes have the value 0 and may stand between elements in both forms.
        while let [0, rest @ ..] = self.rest {
            self.rest = rest;
        }
        let element = self.lead().and_then(|(id, len, rest)| Some((id, rest.split_at_checked(len)?)));
        let (item, rest) = element.map_or((None, &[][..]), |(id, (value, rest))| (Some((id, value)), rest));
        self.rest = rest;
        item
    }
}

/// Value of `http://www.webrtc.org/experiments/rtp-hdrext/playout-delay`: how long a receiver may hold a frame back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlayoutDelay {
    /// The least delay in milliseconds, a multiple of 10 on the wire, at most 40,950.
    pub min_ms: u16,
    /// The greatest delay, likewise.
    pub max_ms: u16,
}

impl PlayoutDelay {
    /// Length of the value in bytes.
    pub const LEN: usize = 3;

    /// The value: 12 bits each, in units of 10 ms, rounded down and limited to what 12 bits hold.
    pub fn encode(self) -> [u8; Self::LEN] {
        let units = |ms: u16| u32::from(ms / 10).min(0xfff);
        let [_, value @ ..] = (units(self.min_ms) << 12 | units(self.max_ms)).to_be_bytes();
        value
    }

    /// Reads a value; `None` where it is not three bytes long.
    pub fn decode(value: &[u8]) -> Option<Self> {
        let &[a, b, c] = value else { return None };
        let bits = u32::from_be_bytes([0, a, b, c]);
        let ms = |units: u32| (units & 0xfff) as u16 * 10;
        Some(Self { min_ms: ms(bits >> 12), max_ms: ms(bits) })
    }
}

/// Value of `http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time`: seconds in 6.18 fixed point, which start anew
/// every 64 s.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AbsSendTime(
    /// 24 bits; higher ones are dropped.
    pub u32,
);

impl AbsSendTime {
    /// From NTP time, 32.32 fixed-point seconds.
    pub const fn from_ntp(ntp: u64) -> Self {
        Self((ntp >> 14) as u32 & 0x00ff_ffff)
    }

    /// The value.
    pub const fn encode(self) -> [u8; 3] {
        let [_, value @ ..] = self.0.to_be_bytes();
        value
    }
}

/// Value of `http://www.webrtc.org/experiments/rtp-hdrext/abs-capture-time`: when a frame was captured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AbsCaptureTime {
    /// NTP time of the capture, 32.32 fixed-point seconds, on the clock of the capturing system.
    pub ntp: u64,
    /// The capture clock minus the clock of the sender of sender reports, 32.32 fixed-point seconds.
    pub offset: Option<i64>,
}

impl AbsCaptureTime {
    /// Length of the longest value in bytes.
    pub const MAX_LEN: usize = 16;

    /// Writes the value to the beginning of `buffer`: 8 bytes, or 16 with an offset.
    pub fn encode(self, buffer: &mut [u8; Self::MAX_LEN]) -> &[u8] {
        buffer[..8].copy_from_slice(&self.ntp.to_be_bytes());
        match self.offset {
            Some(offset) => {
                buffer[8..].copy_from_slice(&offset.to_be_bytes());
                buffer
            }
            None => &buffer[..8],
        }
    }

    /// Reads a value; `None` where it is neither 8 nor 16 bytes long.
    pub fn decode(value: &[u8]) -> Option<Self> {
        let (ntp, rest) = value.split_first_chunk()?;
        let offset = match rest {
            [] => None,
            _ => Some(i64::from_be_bytes(rest.try_into().ok()?)),
        };
        Some(Self { ntp: u64::from_be_bytes(*ntp), offset })
    }

    /// The same capture `later`, as receivers extrapolate it between values.
    pub fn plus(self, later: Duration) -> Self {
        let fraction = (u64::from(later.subsec_nanos()) << 32) / 1_000_000_000;
        Self { ntp: self.ntp.wrapping_add(later.as_secs() << 32).wrapping_add(fraction), ..self }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn elements(profile: u16, block: &[u8]) -> Vec<(u8, Vec<u8>)> {
        Extensions::new(profile, block).map(|(id, value)| (id, value.to_vec())).collect()
    }

    #[test]
    fn one_byte_form_with_padding_between() {
        let block = [0x10, 7, 0, 0x31, 8, 9, 0, 0];
        assert_eq!(elements(0xbede, &block), [(1, vec![7]), (3, vec![8, 9])]);
    }

    #[test]
    fn one_byte_form_stops_at_reserved_ids() {
        assert_eq!(elements(0xbede, &[0x10, 7, 0xf0, 1, 0x20, 8]), [(1, vec![7])], "id 15");
        assert_eq!(elements(0xbede, &[0x10, 7, 0x01, 1, 0x20, 8]), [(1, vec![7])], "id 0 with a length");
    }

    #[test]
    fn two_byte_form_with_any_appbits() {
        let block = [1, 0, 0, 15, 1, 7, 255, 2, 8, 9];
        for profile in [0x1000, 0x100f] {
            assert_eq!(elements(profile, &block), [(1, vec![]), (15, vec![7]), (255, vec![8, 9])]);
        }
    }

    #[test]
    fn an_element_that_leaves_the_block_ends_it() {
        assert_eq!(elements(0xbede, &[0x10, 7, 0x2f, 8]), [(1, vec![7])]);
        assert_eq!(elements(0x1000, &[1, 1, 7, 2, 200, 8]), [(1, vec![7])]);
        assert_eq!(elements(0x1000, &[1, 1, 7, 2]), [(1, vec![7])]);
    }

    #[test]
    fn unknown_profiles_have_no_elements() {
        assert_eq!(elements(0xabac, &[0x10, 7]), []);
        assert_eq!(elements(0x1010, &[1, 1, 7]), []);
    }

    #[test]
    fn playout_delay_on_the_wire() {
        assert_eq!(PlayoutDelay { min_ms: 0, max_ms: 0 }.encode(), [0, 0, 0]);
        assert_eq!(PlayoutDelay { min_ms: 100, max_ms: 1005 }.encode(), [0x00, 0xa0, 0x64]);
        assert_eq!(PlayoutDelay { min_ms: u16::MAX, max_ms: 40_950 }.encode(), [0xff, 0xff, 0xff]);
        assert_eq!(PlayoutDelay::decode(&[0xff, 0xf0, 0x01]), Some(PlayoutDelay { min_ms: 40_950, max_ms: 10 }));
        assert_eq!(PlayoutDelay::decode(&[0, 0]), None);
    }

    #[test]
    fn send_times_wrap_after_64_seconds() {
        assert_eq!(AbsSendTime::from_ntp(5 << 32 | 1 << 31).encode(), [0x16, 0x00, 0x00], "5.5 s");
        assert_eq!(AbsSendTime::from_ntp(69 << 32 | 1 << 31), AbsSendTime::from_ntp(5 << 32 | 1 << 31));
    }

    #[test]
    fn capture_times_extrapolate() {
        let capture = AbsCaptureTime { ntp: 5 << 32, offset: Some(-1) };
        let later = capture.plus(Duration::from_millis(1500));
        assert_eq!(later, AbsCaptureTime { ntp: 6 << 32 | 1 << 31, offset: Some(-1) });
    }

    proptest! {
        #[test]
        fn capture_times_survive(ntp in any::<u64>(), offset in any::<Option<i64>>()) {
            let capture = AbsCaptureTime { ntp, offset };
            let mut buffer = [0; AbsCaptureTime::MAX_LEN];
            prop_assert_eq!(AbsCaptureTime::decode(capture.encode(&mut buffer)), Some(capture));
        }

        #[test]
        fn only_8_and_16_bytes_are_capture_times(value in prop::collection::vec(any::<u8>(), 0..20)) {
            prop_assert_eq!(AbsCaptureTime::decode(&value).is_some(), matches!(value.len(), 8 | 16));
        }

        #[test]
        fn playout_delays_survive(min in 0u16..4096, max in 0u16..4096) {
            let delay = PlayoutDelay { min_ms: min * 10, max_ms: max * 10 };
            prop_assert_eq!(PlayoutDelay::decode(&delay.encode()), Some(delay));
        }

        #[test]
        fn no_block_panics(profile in prop_oneof![Just(0xbedeu16), Just(0x1000), any::<u16>()],
                           block in prop::collection::vec(any::<u8>(), 0..64)) {
            let total: usize = Extensions::new(profile, &block).map(|(_, value)| value.len() + 1).sum();
            prop_assert!(total <= block.len());
        }
    }
}
