//! Differentiated services code points (RFC 2474) and which traffic gets which.

use crate::fanout::TrafficClass;

/// A code point, 0 to 63.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Dscp(u8);

impl Dscp {
    /// Best effort.
    pub const DEFAULT: Self = Self(0);
    /// Assured forwarding, class 4, low drop precedence (RFC 2597 §6).
    pub const AF41: Self = Self(34);
    /// Expedited forwarding (RFC 3246).
    pub const EF: Self = Self(46);

    /// The code point of this number, `None` above 63.
    pub const fn new(code_point: u8) -> Option<Self> {
        if code_point < 64 { Some(Self(code_point)) } else { None }
    }

    /// The octet in the IP header, its two ECN bits zero (RFC 3168 §5: not ECN-capable).
    pub const fn traffic_class_octet(self) -> u8 {
        self.0 << 2
    }
}

/// The marking of each class of traffic. By default what RFC 8837 §5 gives to interactive media of medium priority,
/// audio and data raised to EF.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Markings {
    /// DTLS: data channels, and the handshake before them.
    pub data: Dscp,
    /// Audio.
    pub audio: Dscp,
    /// Video, and STUN and RTCP with it: RFC 8445 §7.2.3 and RFC 7657 §5.4 want them marked as the media that they are
    /// about. Also what the socket marks with where nothing else is said, so that most datagrams cost nothing extra.
    pub video: Dscp,
}

impl Markings {
    /// The marking of `class`.
    pub const fn of(&self, class: TrafficClass) -> Dscp {
        match class {
            TrafficClass::Data => self.data,
            TrafficClass::Audio => self.audio,
            TrafficClass::Control | TrafficClass::Video => self.video,
        }
    }
}

impl Default for Markings {
    fn default() -> Self {
        Self { data: Dscp::EF, audio: Dscp::EF, video: Dscp::AF41 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_points_end_at_63() {
        assert_eq!(Dscp::new(63).map(Dscp::traffic_class_octet), Some(0xfc));
        assert_eq!(Dscp::new(64), None);
    }

    #[test]
    fn the_default_markings_are_those_of_the_documentation() {
        let octet = |class| Markings::default().of(class).traffic_class_octet();
        assert_eq!(octet(TrafficClass::Control), 0x88);
        assert_eq!(octet(TrafficClass::Data), 0xb8);
        assert_eq!(octet(TrafficClass::Audio), 0xb8);
        assert_eq!(octet(TrafficClass::Video), 0x88);
    }
}
