//! H.264 profiles in SDP (RFC 6184 §8.1): which payload type of a player decodes what a table sends.

use super::attributes::fmtp_parameter;

/// The first two bytes of `profile-level-id`. The level is not looked at: encoders and players write 3.1 whatever they do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Profile {
    idc: u8,
    constraints: u8,
}

/// constraint_set0_flag to constraint_set3_flag, as they stand in profile-iop.
const SET0: u8 = 0x80;
const SET3: u8 = 0x10;

impl Profile {
    /// RFC 6184 §8.1: "If no profile-level-id is present, the Baseline profile, without additional constraints at
    /// Level 1, MUST be inferred." One that cannot be read is taken for absent.
    pub(super) fn of(fmtp: &str) -> Self {
        let id = fmtp_parameter(fmtp, "profile-level-id")
            .filter(|id| id.len() == 6 && id.bytes().all(|b| b.is_ascii_hexdigit()));
        let id = id.and_then(|id| u32::from_str_radix(id, 16).ok()).unwrap_or(0x0042_000A);
        let [_, idc, constraints, _level] = id.to_be_bytes();
        Self { idc, constraints }
    }

    /// How well a decoder of this profile suits a stream: 0 is the same profile, `None` cannot decode it.
    pub(super) fn distance_to(self, stream: Profile) -> Option<u8> {
        if self == stream {
            return Some(0);
        }
        if self.idc == stream.idc {
            return Some(1);
        }
        let intra_only = self.constraints & SET3 != 0 && self.rank()? > 2;
        let above = self.rank()?.checked_sub(stream.rank()?)?;
        (!intra_only).then_some(2 + above)
    }

    /// The place in the chain in which each profile decodes the ones before it (H.264 §A.2). What calls itself Baseline
    /// counts as Constrained Baseline: no encoder for live video uses what Main lacks of Baseline, and FFmpeg announces
    /// `4200xx` for streams that are constrained.
    fn rank(self) -> Option<u8> {
        Some(match self.idc {
            0x42 => 0,
            0x4D if self.constraints & SET0 != 0 => 0,
            0x4D => 1,
            0x64 => 2,
            0x6E => 3,
            0x7A => 4,
            0xF4 => 5,
            _ => return None,
        })
    }
}

/// RFC 6184 §8.1: absent is 0, single NAL units only, which cannot carry a real frame in packets of 1200 bytes.
pub(super) fn is_packetization_mode_1(fmtp: &str) -> bool {
    fmtp_parameter(fmtp, "packetization-mode") == Some("1")
}

/// The answer's parameters: RFC 6184 §8.2.2 wants profile and packetization-mode as offered.
pub(super) fn answer_fmtp(offered: &str) -> String {
    ["level-asymmetry-allowed", "packetization-mode", "profile-level-id"]
        .into_iter()
        .filter_map(|name| Some(format!("{name}={}", fmtp_parameter(offered, name)?)))
        .collect::<Vec<_>>()
        .join(";")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn distance(decoder: &str, stream: &str) -> Option<u8> {
        let profile = |id: &str| Profile::of(&format!("packetization-mode=1;profile-level-id={id}"));
        profile(decoder).distance_to(profile(stream))
    }

    #[test]
    fn constrained_baseline_has_many_names() {
        assert_eq!(distance("42001f", "42001e"), Some(0));
        assert_eq!(distance("42e01f", "42001e"), Some(1));
        assert_eq!(distance("42E01F", "42c02a"), Some(1));
        assert_eq!(distance("42e01f", "4de01f"), Some(2), "Main with constraint_set0 is Constrained Baseline");
    }

    #[test]
    fn higher_profiles_decode_lower_ones_only() {
        assert!(distance("4d001f", "42e01f") < distance("64001f", "42e01f"));
        assert!(distance("f4001f", "640028").is_some());
        assert_eq!(distance("42e01f", "4d001f"), None);
        assert_eq!(distance("42e01f", "640028"), None);
        assert_eq!(distance("640c1f", "640028"), Some(1));
        assert_eq!(distance("f4101f", "640028"), None, "intra only");
        assert_eq!(distance("58001f", "42e01f"), None);
    }

    #[test]
    fn an_unreadable_profile_is_baseline() {
        for fmtp in
            ["", "profile-level-id=", "profile-level-id=xyzxyz", "profile-level-id=+42001", "profile-level-id=42001"]
        {
            let profile = Profile::of(fmtp);
            assert_eq!(profile.rank(), Some(0), "{fmtp}");
        }
    }

    #[test]
    fn the_answer_mirrors() {
        let offered = "profile-level-id=42e01f;packetization-mode=1;x=y;sprop-parameter-sets=Z0I,aM4";
        assert_eq!(answer_fmtp(offered), "packetization-mode=1;profile-level-id=42e01f");
    }
}
