//! NTP timestamps as RTCP has them (RFC 3550 §4).

use std::time::Duration;

/// Seconds from 1900 to 1970.
const UNIX_EPOCH: u64 = 2_208_988_800;

/// A wall clock time: seconds since 1900 as 32.32 bit fixed point, modulo 2³² seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct NtpTime(pub u64);

impl NtpTime {
    /// The time so long after 1970.
    pub fn from_unix(since_1970: Duration) -> Self {
        let seconds = since_1970.as_secs().wrapping_add(UNIX_EPOCH);
        NtpTime((seconds << 32) | fraction(since_1970.subsec_nanos()))
    }

    /// How long after 1970 this is. RTCP's seconds wrap in 2036: a value in their lower half is taken for the time after
    /// that, as RFC 4330 §3 proposes.
    pub fn to_unix(self) -> Duration {
        let seconds = self.0 >> 32;
        let era = if seconds < 1 << 31 { 1 << 32 } else { 0 };
        let nanos = ((self.0 & 0xffff_ffff) * 1_000_000_000 + (1 << 31)) >> 32;
        // Before 1970 there is nothing to say: the upper half begins in 1968.
        Duration::from_secs((seconds + era).saturating_sub(UNIX_EPOCH)) + Duration::from_nanos(nanos)
    }

    /// The middle 32 bits, 1/65536 s: what LSR carries (RFC 3550 §6.4.1).
    pub fn middle(self) -> u32 {
        (self.0 >> 16) as u32
    }

    /// How far `self` is after `earlier`, in 2⁻³² s; negative where it is before. Right for distances below 68 years.
    pub fn offset_from(self, earlier: Self) -> i64 {
        self.0.wrapping_sub(earlier.0) as i64
    }

    /// How long after `earlier` this is, zero where it is not.
    pub fn saturating_since(self, earlier: Self) -> Duration {
        let offset = self.offset_from(earlier).max(0) as u64;
        Duration::from_secs(offset >> 32) + Duration::from_nanos(((offset & 0xffff_ffff) * 1_000_000_000) >> 32)
    }

    /// The time `span` later.
    #[must_use]
    pub fn plus(self, span: Duration) -> Self {
        NtpTime(self.0.wrapping_add((span.as_secs() << 32) | fraction(span.subsec_nanos())))
    }
}

/// Nanoseconds below a second as a 32 bit fraction, rounded up by less than one part, so that it converts back exactly.
fn fraction(nanos: u32) -> u64 {
    (u64::from(nanos) << 32).div_ceil(1_000_000_000)
}

/// A span in 1/65536 s, as DLSR has it; about 18 hours at most.
pub(super) fn to_short(span: Duration) -> u32 {
    let units = (u128::from(span.as_secs()) << 16) + (u128::from(span.subsec_nanos()) << 16) / 1_000_000_000;
    units.min(u128::from(u32::MAX)) as u32
}

/// The span of so many 1/65536 s.
pub(super) fn from_short(units: u32) -> Duration {
    Duration::from_nanos((u64::from(units) * 1_000_000_000) >> 16)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn known_times() {
        assert_eq!(NtpTime::from_unix(Duration::ZERO).0, 0x83aa_7e80_0000_0000);
        assert_eq!(NtpTime::from_unix(Duration::from_millis(1500)).0, 0x83aa_7e81_8000_0000);
        assert_eq!(NtpTime(0x1234_5678_9abc_def0).middle(), 0x5678_9abc);
        assert_eq!(NtpTime(0).to_unix(), Duration::from_secs((1 << 32) - UNIX_EPOCH), "2036");
        assert_eq!(to_short(Duration::from_millis(500)), 0x8000);
        assert_eq!(to_short(Duration::MAX), u32::MAX);
        assert_eq!(from_short(0x1_8000), Duration::from_millis(1500));
    }

    proptest! {
        #[test]
        fn unix_time_survives_until_2104(seconds in 0_u64..4_200_000_000, nanos in 0_u32..1_000_000_000) {
            let unix = Duration::new(seconds, nanos);
            prop_assert_eq!(NtpTime::from_unix(unix).to_unix(), unix);
        }

        #[test]
        fn differences_are_right_over_the_wrap(start: u64, millis in 0_u64..1 << 40) {
            let (earlier, span) = (NtpTime(start), Duration::from_millis(millis));
            let later = earlier.plus(span);
            prop_assert_eq!(later.saturating_since(earlier), span);
            prop_assert_eq!(later.offset_from(earlier), -earlier.offset_from(later));
            if millis > 0 {
                prop_assert_eq!(earlier.saturating_since(later), Duration::ZERO);
            }
        }
    }
}
