//! Which formats of an offer are forwarded, and which of a player's suit what a table sends: the format parameters of
//! each codec.
//!
//! *Levels* are not compared, for any codec: encoders write the default whatever they do, and so do players. A table in
//! 1080p would be refused to every browser otherwise.

use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use super::attributes::fmtp_parameter;
use super::error::quoted;
use super::h264::{self, Profile};
use super::offer::{Format, is_usable};
use crate::media::{Codec, MediaKind};

/// Parameters and what their absence means.
type Parameters = &'static [(&'static str, &'static str)];

/// RFC 9628 §6: "If no profile-id is present, Profile 0 MUST be inferred."
const VP9: Parameters = &[("profile-id", "0")];
/// RTP Payload Format For AV1 §7.2.1: absent are profile 0, level-idx 5 (3.1) and tier 0.
const AV1: Parameters = &[("profile", "0"), ("level-idx", "5"), ("tier", "0")];
/// RFC 7798 §7.1: absent are profile space 0, profile 1 (Main), the Main tier, level 3.1 and one stream.
const H265: Parameters =
    &[("profile-space", "0"), ("profile-id", "1"), ("tier-flag", "0"), ("level-id", "93"), ("tx-mode", "SRST")];

/// More than any encoder has.
const MAX_PARAMETER_SETS: usize = 16;

/// With or without padding: some encoders leave it out.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// H.265 profiles (ITU-T H.265 §A.3).
const H265_MAIN: &str = "1";
const H265_MAIN_10: &str = "2";

/// What is forwarded, in words for an error text.
pub(super) fn wanted(kind: MediaKind) -> &'static str {
    match kind {
        MediaKind::Audio => "opus/48000/2",
        MediaKind::Video => "H264 with packetization-mode=1, H265 with tx-mode=SRST, VP8, VP9 and AV1",
    }
}

/// The codec of a format, if it is one that is forwarded and can share a port with RTCP.
pub(super) fn forwarded_codec(format: &Format, kind: MediaKind) -> Option<Codec> {
    let codec = Codec::ALL
        .into_iter()
        .find(|codec| codec.kind() == kind && format.encoding.is(codec.encoding_name(), codec.clock_rate()))?;
    let suits = match codec {
        Codec::H264 => h264::is_packetization_mode_1(&format.fmtp),
        Codec::H265 => is_plain_h265(&format.fmtp),
        Codec::Vp8 | Codec::Vp9 | Codec::Av1 => true,
        Codec::Opus => format.encoding.channels == 2,
    };
    (suits && is_usable(format.payload_type)).then_some(codec)
}

/// RFC 7798 §7.1: one stream, and units in decoding order, so that no payload has decoding order numbers in it.
fn is_plain_h265(fmtp: &str) -> bool {
    parameter(H265, fmtp, "tx-mode").eq_ignore_ascii_case("SRST")
        && fmtp_parameter(fmtp, "sprop-max-don-diff").is_none_or(|most| most == "0")
}

/// How well a decoder of what `offered` says suits a stream of what `sent` says: 0 is the same, `None` cannot decode it.
pub(super) fn distance(codec: Codec, offered: &str, sent: &str) -> Option<u8> {
    match codec {
        Codec::H264 => Profile::of(offered).distance_to(Profile::of(sent)),
        Codec::H265 => h265_distance(offered, sent),
        Codec::Vp9 => (parameter(VP9, offered, "profile-id") == parameter(VP9, sent, "profile-id")).then_some(0),
        Codec::Av1 => av1_distance(offered, sent),
        Codec::Vp8 | Codec::Opus => Some(0),
    }
}

/// AV1 §A.2: a decoder of High decodes Main, one of Professional both. What was offered as the same profile comes first.
fn av1_distance(offered: &str, sent: &str) -> Option<u8> {
    let number = |fmtp, name| parameter(AV1, fmtp, name).parse::<u8>().ok();
    let (decoder, stream) = (number(offered, "profile")?, number(sent, "profile")?);
    let is_high_tier_only = number(sent, "tier")? > number(offered, "tier")?;
    if decoder > 2 || is_high_tier_only { None } else { decoder.checked_sub(stream) }
}

/// ITU-T H.265 §A.3.3: a decoder of Main 10 decodes Main.
fn h265_distance(offered: &str, sent: &str) -> Option<u8> {
    let of = |fmtp, name| parameter(H265, fmtp, name);
    if of(offered, "profile-space") != of(sent, "profile-space") || of(sent, "tier-flag") > of(offered, "tier-flag") {
        return None;
    }
    match (of(offered, "profile-id"), of(sent, "profile-id")) {
        (decoder, stream) if decoder == stream => Some(0),
        (H265_MAIN_10, H265_MAIN) => Some(1),
        _ => None,
    }
}

fn parameter<'a>(parameters: Parameters, fmtp: &'a str, name: &str) -> &'a str {
    let absent = parameters.iter().find(|(known, _)| *known == name).map_or("", |(_, absent)| absent);
    fmtp_parameter(fmtp, name).unwrap_or(absent)
}

/// The parameters that the answer repeats: those that say what is sent, as offered.
///
/// RFC 7587 §7.1 has `stereo` and `useinbandfec` say what the *receiver* likes: `stereo=1` is mirrored or stereo becomes
/// mono; FEC is asked for where we are the receiver, since browsers negotiate no retransmission of audio, and players
/// profit from it.
pub(super) fn answer_fmtp(codec: Codec, offered: &str, publishes: bool) -> String {
    let mirrored = |parameters: Parameters| {
        let offered = parameters.iter().filter_map(|(name, _)| Some((*name, fmtp_parameter(offered, name)?)));
        // The value goes into our answer: what is not a plain word is left out, as if it had not been offered.
        let plain = offered.filter(|(_, value)| value.bytes().all(|b| b.is_ascii_alphanumeric()));
        plain.map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(";")
    };
    match codec {
        Codec::H264 => h264::answer_fmtp(offered),
        Codec::H265 => mirrored(H265),
        Codec::Vp9 => mirrored(VP9),
        Codec::Av1 => mirrored(AV1),
        Codec::Vp8 => String::new(),
        Codec::Opus => {
            let wishes = if publishes { &["stereo", "useinbandfec"][..] } else { &["stereo"] };
            let set = wishes.iter().filter(|name| fmtp_parameter(offered, name) == Some("1"));
            set.map(|name| format!("{name}=1")).collect::<Vec<_>>().join(";")
        }
    }
}

/// The parameter sets in an offer, as NAL units: `sprop-parameter-sets` (RFC 6184 §8.1), `sprop-vps`, `sprop-sps` and
/// `sprop-pps` (RFC 7798 §7.1), each a list of Base64 words. A word that is none is left out.
pub(super) fn parameter_sets(codec: Codec, fmtp: &str) -> Vec<Vec<u8>> {
    let names: &[&str] = match codec {
        Codec::H264 => &["sprop-parameter-sets"],
        Codec::H265 => &["sprop-vps", "sprop-sps", "sprop-pps"],
        Codec::Vp8 | Codec::Vp9 | Codec::Av1 | Codec::Opus => &[],
    };
    let lists = names.iter().filter_map(|name| fmtp_parameter(fmtp, name));
    let words = lists.flat_map(|list| list.split(',')).take(MAX_PARAMETER_SETS);
    words.filter_map(|word| BASE64.decode(word.trim()).ok()).collect()
}

/// A format in words: the name, and of the parameters those that decide.
pub(super) fn described(name: &str, fmtp: &str) -> String {
    let deciding: Parameters = match Codec::ALL.into_iter().find(|c| c.encoding_name().eq_ignore_ascii_case(name)) {
        Some(Codec::H264) => &[("profile-level-id", "42000a"), ("packetization-mode", "0")],
        Some(Codec::H265) => &H265[1..3],
        Some(Codec::Vp9) => VP9,
        Some(Codec::Av1) => &AV1[..1],
        Some(Codec::Vp8 | Codec::Opus) | None => &[],
    };
    let mut parameters: Vec<_> =
        deciding.iter().map(|(name, _)| format!("{name}={}", quoted(parameter(deciding, fmtp, name)))).collect();
    // Only where it is the reason for a refusal.
    for (name, usual) in [("tx-mode", "SRST"), ("sprop-max-don-diff", "0")] {
        let unusual = fmtp_parameter(fmtp, name).filter(|value| !value.eq_ignore_ascii_case(usual));
        parameters.extend(unusual.map(|value| format!("{name}={}", quoted(value))));
    }
    if parameters.is_empty() { quoted(name) } else { format!("{} ({})", quoted(name), parameters.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vp9_profiles_are_equal_or_nothing() {
        let distance = |offered, sent| distance(Codec::Vp9, offered, sent);
        assert_eq!(distance("profile-id=0", ""), Some(0));
        assert_eq!(distance("max-fs=12288;max-fr=60", "profile-id=0"), Some(0));
        assert_eq!(distance("profile-id=2", "profile-id=2"), Some(0));
        assert_eq!(distance("profile-id=2", "profile-id=0"), None);
        assert_eq!(distance("", "profile-id=2"), None);
    }

    #[test]
    fn av1_profiles_decode_those_below() {
        let distance = |offered, sent| distance(Codec::Av1, offered, sent);
        assert_eq!(distance("level-idx=5;profile=0;tier=0", ""), Some(0));
        assert_eq!(distance("profile=1", "profile=0"), Some(1), "High decodes Main");
        assert_eq!(distance("profile=0", "profile=1"), None);
        assert_eq!(distance("", "level-idx=8"), Some(0), "levels are not compared");
        assert_eq!(distance("", "tier=1"), None);
        assert_eq!(distance("tier=1", "tier=0"), Some(0));
        assert_eq!(distance("profile=x", ""), None);
        assert_eq!(distance("profile=3", ""), None, "reserved");
    }

    #[test]
    fn h265_profiles_and_tiers() {
        let distance = |offered, sent| distance(Codec::H265, offered, sent);
        let main = "level-id=180;profile-id=1;tier-flag=0;tx-mode=SRST";
        assert_eq!(distance(main, "profile-id=1;level-id=93"), Some(0));
        assert_eq!(distance(main, ""), Some(0));
        assert_eq!(distance("profile-id=2", main), Some(1), "Main 10 decodes Main");
        assert_eq!(distance(main, "profile-id=2"), None);
        assert_eq!(distance(main, "tier-flag=1"), None);
        assert_eq!(distance("tier-flag=1", main), Some(0));
        assert_eq!(distance("profile-space=1", main), None);
    }

    #[test]
    fn h265_in_several_streams_or_out_of_order_is_not_forwarded() {
        assert!(is_plain_h265("") && is_plain_h265("tx-mode=srst;sprop-max-don-diff=0"));
        assert!(!is_plain_h265("tx-mode=MRST"));
        assert!(!is_plain_h265("sprop-max-don-diff=2"));
    }

    #[test]
    fn answers_mirror_what_was_offered() {
        let answer = |codec, offered| answer_fmtp(codec, offered, true);
        assert_eq!(answer(Codec::Vp9, "profile-id=2;max-fr=60"), "profile-id=2");
        assert_eq!(answer(Codec::Vp9, "max-fs=12288;max-fr=60"), "", "nothing that was not offered");
        assert_eq!(answer(Codec::Av1, "level-idx=5;profile=0;tier=0"), "profile=0;level-idx=5;tier=0");
        let hardware = "level-id=180;profile-id=1;tier-flag=0;tx-mode=SRST";
        assert_eq!(answer(Codec::H265, hardware), "profile-id=1;tier-flag=0;level-id=180;tx-mode=SRST");
        assert_eq!(answer(Codec::H265, "sprop-vps=QAEMAf;profile-id=1"), "profile-id=1");
        assert_eq!(answer(Codec::Av1, "profile=\u{e9}1"), "", "no word");
    }

    #[test]
    fn parameter_sets_are_decoded() {
        let h264 = |fmtp| parameter_sets(Codec::H264, fmtp);
        let sets = vec![vec![0x67, 0x42, 0xc0, 0x1e], vec![0x68, 0xce, 0x3c, 0x80]];
        assert_eq!(h264("packetization-mode=1; sprop-parameter-sets=Z0LAHg==,aM48gA=="), sets);
        assert_eq!(h264("sprop-parameter-sets=Z0LAHg,aM48gA"), sets, "without padding");
        assert_eq!(h264("sprop-parameter-sets=Z0LAHg==,???"), sets[..1]);
        assert_eq!(h264("packetization-mode=1"), Vec::<Vec<u8>>::new());
        let h265 = parameter_sets(Codec::H265, "sprop-pps=RAHA;sprop-vps=QAEM;sprop-sps=QgEB");
        assert_eq!(h265, [vec![0x40, 1, 0x0c], vec![0x42, 1, 1], vec![0x44, 1, 0xc0]]);
    }

    #[test]
    fn descriptions_name_what_decides() {
        assert_eq!(described("vp9", "max-fr=60"), "vp9 (profile-id=0)");
        assert_eq!(described("AV1", "level-idx=5"), "AV1 (profile=0)");
        assert_eq!(described("H265", ""), "H265 (profile-id=1, tier-flag=0)");
        assert_eq!(described("H265", "tx-mode=MRST"), "H265 (profile-id=1, tier-flag=0, tx-mode=MRST)");
        assert_eq!(described("H264", ""), "H264 (profile-level-id=42000a, packetization-mode=0)");
        assert_eq!(described("VP8", "x=y"), "VP8");
    }
}
