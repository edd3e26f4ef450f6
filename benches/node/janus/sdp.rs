//! One call between two parties that have both offered: the player to the bridge, Janus to its subscriber. Each is answered
//! with what the other is and with what both can.
//!
//! What flows comes from Janus, so its formats and header extensions go into both answers, as far as the player offered
//! the same under the same numbers.

use sdp_types::{Attribute, Media, ParserError, Session};

/// What is of the peer and not of the stream: where it is and how to be sure of it (RFC 8839 §5, RFC 8842 §5).
const OF_THE_PEER: [&str; 6] = ["ice-ufrag", "ice-pwd", "ice-options", "fingerprint", "candidate", "end-of-candidates"];

/// What Janus says of its streams, and the player needs to know (RFC 5576, RFC 8830).
const OF_THE_STREAM: [&str; 3] = ["ssrc", "ssrc-group", "msid"];

/// What both are answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answers {
    /// From the player, who will begin the DTLS handshake.
    pub to_janus: String,
    /// From Janus.
    pub to_player: String,
}

/// Why two offers make no call.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// One is no SDP.
    #[error("{0} offer is not SDP: {1}")]
    Syntax(&'static str, ParserError),
    /// Janus would send what the player cannot read.
    #[error("Janus sends {kind} in formats {sent}, the player offers {wanted}")]
    NothingInCommon {
        /// Audio or video.
        kind: String,
        /// Payload types.
        sent: String,
        /// Likewise.
        wanted: String,
    },
}

/// Answers both offers.
///
/// # Errors
/// [`CallError`].
pub fn connect(janus: &str, player: &str) -> Result<Answers, CallError> {
    let janus = Session::parse(janus.as_bytes()).map_err(|error| CallError::Syntax("Janus'", error))?;
    let player = Session::parse(player.as_bytes()).map_err(|error| CallError::Syntax("the player's", error))?;
    let mut pairs: Vec<(&Media, &Media, Vec<&str>)> = Vec::new();
    for sent in &janus.medias {
        let taken = |media: &Media| pairs.iter().any(|(_, wanted, _)| std::ptr::eq(*wanted, media));
        let Some(wanted) = player.medias.iter().find(|media| media.media == sent.media && !taken(media)) else {
            continue;
        };
        let formats = common_formats(sent, wanted);
        if formats.is_empty() {
            let (kind, sent, wanted) = (sent.media.clone(), sent.fmt.clone(), wanted.fmt.clone());
            return Err(CallError::NothingInCommon { kind, sent, wanted });
        }
        pairs.push((sent, wanted, formats));
    }
    let of_janus = |asked: &Media| pairs.iter().find(|(sent, ..)| std::ptr::eq(*sent, asked));
    let of_player = |asked: &Media| pairs.iter().find(|(_, wanted, _)| std::ptr::eq(*wanted, asked));
    let to_janus = answer(&janus, |asked| {
        let (sent, wanted, formats) = of_janus(asked)?;
        Some(section(asked, &player, (sent, wanted), formats, ["active", "recvonly"]))
    });
    let to_player = answer(&player, |asked| {
        let (sent, wanted, formats) = of_player(asked)?;
        let mut section = section(asked, &janus, (sent, wanted), formats, ["passive", "sendonly"]);
        section.bandwidths.clone_from(&sent.bandwidths);
        section.attributes.extend(sent.attributes.iter().filter(|a| OF_THE_STREAM.contains(&&*a.attribute)).cloned());
        Some(section)
    });
    Ok(Answers { to_janus, to_player })
}

/// Sections in the order of the offer, those without an answer refused (RFC 3264 §6), the rest bundled.
fn answer(offer: &Session, section: impl Fn(&Media) -> Option<Media>) -> String {
    let sections: Vec<Option<Media>> = offer.medias.iter().map(section).collect();
    let mids: Vec<&str> = sections.iter().flatten().filter_map(|media| value(&media.attributes, "mid")).collect();
    let mut answer = offer.clone();
    answer.bandwidths.clear();
    answer.attributes = vec![Attribute::with_value("group", format!("BUNDLE {}", mids.join(" ")))];
    let refused = |offered: &Media| Media {
        port: 0,
        bandwidths: Vec::new(),
        attributes: offered.attributes.iter().filter(|a| a.attribute == "mid").cloned().collect(),
        ..offered.clone()
    };
    answer.medias =
        offer.medias.iter().zip(&sections).map(|(o, section)| section.clone().unwrap_or_else(|| refused(o))).collect();
    let mut text = Vec::new();
    answer.write(&mut text).expect("a vector takes all");
    String::from_utf8(text).expect("the offers were text")
}

/// One section: the mid of the offer that is answered, the peer of the other offer, what the pair has in common.
fn section(
    asked: &Media,
    other: &Session,
    (sent, wanted): (&Media, &Media),
    formats: &[&str],
    [setup, direction]: [&str; 2],
) -> Media {
    let theirs = if std::ptr::eq(asked, sent) { wanted } else { sent };
    let mut attributes: Vec<Attribute> = asked.attributes.iter().filter(|a| a.attribute == "mid").cloned().collect();
    for name in OF_THE_PEER {
        // The section's own, else the session's (RFC 8839 §5.4), else those of the section that it is bundled with.
        let places =
            [&theirs.attributes, &other.attributes].into_iter().chain(other.medias.iter().map(|m| &m.attributes));
        let found = places.map(|place| place.iter().filter(|a| a.attribute == name).cloned().collect::<Vec<_>>());
        attributes.extend(found.into_iter().find(|found| !found.is_empty()).unwrap_or_default());
    }
    attributes.push(Attribute::with_value("setup", setup));
    attributes.push(Attribute::new(direction));
    attributes.push(Attribute::new("rtcp-mux"));
    if [sent, wanted].into_iter().all(|media| media.has_attribute("rtcp-rsize")) {
        attributes.push(Attribute::new("rtcp-rsize"));
    }
    let of_format = |a: &&Attribute| {
        let format = a.value.as_deref().and_then(|value| value.split(' ').next()).unwrap_or_default();
        match a.attribute.as_str() {
            "rtpmap" | "fmtp" => formats.contains(&format),
            // RFC 8285 §6, RFC 4585 §4.2: an answer has what the offer has, under the same number.
            "rtcp-fb" => formats.contains(&format) && wanted.attributes.contains(a),
            "extmap" => wanted.attributes.contains(a),
            _ => false,
        }
    };
    attributes.extend(sent.attributes.iter().filter(of_format).cloned());
    Media { port: 9, fmt: formats.join(" "), bandwidths: Vec::new(), attributes, ..asked.clone() }
}

/// Payload types of Janus that mean the same to the player; a retransmission's only with what it repairs (RFC 4588 §8.6).
fn common_formats<'a>(sent: &'a Media, wanted: &Media) -> Vec<&'a str> {
    let common: Vec<&str> = sent.fmt.split(' ').filter(|format| are_same("rtpmap", format, sent, wanted)).collect();
    let is_whole = |format: &str| match mapped(sent, "fmtp", format).and_then(|value| value.strip_prefix("apt=")) {
        Some(repaired) => common.contains(&repaired) && are_same("fmtp", format, sent, wanted),
        None => true,
    };
    common.iter().copied().filter(|format| is_whole(format)).collect()
}

fn are_same(name: &str, format: &str, sent: &Media, wanted: &Media) -> bool {
    let what = mapped(sent, name, format);
    what.is_some_and(|what| mapped(wanted, name, format).is_some_and(|other| other.eq_ignore_ascii_case(what)))
}

/// What `a=NAME:FORMAT …` says.
fn mapped<'a>(media: &'a Media, name: &str, format: &str) -> Option<&'a str> {
    let values = media.attributes.iter().filter(|a| a.attribute == name).filter_map(|a| a.value.as_deref());
    values.filter_map(|value| value.split_once(' ')).find(|(of, _)| *of == format).map(|(_, what)| what)
}

fn value<'a>(attributes: &'a [Attribute], name: &str) -> Option<&'a str> {
    attributes.iter().find(|attribute| attribute.attribute == name)?.value.as_deref()
}
