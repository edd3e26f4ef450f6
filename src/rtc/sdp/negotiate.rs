//! What is agreed: our policy, applied to an offer.

use super::attributes::{ExtMap, extension};
use super::codecs::{self, answer_fmtp, described, forwarded_codec};
use super::error::quoted;
use super::offer::{Format, Offer, OfferSection, Transport, is_usable};
use super::simulcast::MAX_LAYERS;
use super::{
    DataSection, DtlsRole, ExtensionIds, Feedback, IceCredentials, MediaDirection, MediaSection, Negotiated,
    OfferError, Red, Section, SimulcastLayer, StreamParameters, TableMedia,
};
use crate::media::{Codec, MediaKind};

/// A one-byte header extension carries 16 bytes (RFC 8285 §4.2). A longer mid would force the two-byte form on every
/// packet, so it is not sent at all; payload types tell our two streams apart as well.
const LONGEST_MID_IN_PACKETS: usize = 16;

/// More copies of a packet than any sender makes.
const MOST_RED_BLOCKS: usize = 10;

/// RFC 8841 §6: what an absent `a=max-message-size` means, 64K.
const DEFAULT_MAX_MESSAGE_SIZE: u32 = 65_536;

/// Settles a WHIP offer (RFC 9725): at most one audio and one video stream, which the offer sends.
///
/// Of the codecs that are forwarded, the offer's first is taken. Of a simulcast all layers are accepted (RFC 8853 §5.3.2),
/// if their packets can be told apart: without the rid extension it is answered without `a=simulcast`, which leaves one
/// encoding. So it is with the simulcast of before RFC 8853, `a=ssrc-group:SIM`, which no client sends any more: the SSRC
/// that was announced first is the stream.
///
/// # Errors
/// [`OfferError`], naming the section; the whole offer is refused, never a part of it (RFC 9725 §4.4.3).
pub fn negotiate_publisher(offer: &Offer) -> Result<Negotiated, OfferError> {
    negotiate(offer, Policy::Publisher)
}

/// Settles a WHEP offer against what the table sends.
///
/// A section of a kind that the table lacks is answered inactive, and so is a second one of the same kind.
///
/// # Errors
/// [`OfferError`], naming the section; [`OfferError::NoCommonCodec`] if a section cannot take what the table has for it,
/// or nothing at all would flow.
pub fn negotiate_player(offer: &Offer, table: &TableMedia) -> Result<Negotiated, OfferError> {
    negotiate(offer, Policy::Player(table))
}

impl From<&Negotiated> for TableMedia {
    /// What a publisher sends, for its players.
    fn from(publisher: &Negotiated) -> Self {
        let media = |kind| publisher.stream(kind).map(|(_, stream)| (stream.codec, stream.fmtp.clone()));
        let stream = |kind| publisher.stream(kind).map(|(_, stream)| stream);
        Self {
            video: media(MediaKind::Video),
            audio: media(MediaKind::Audio),
            red: stream(MediaKind::Audio).is_some_and(|stream| stream.red.is_some()),
            layers: stream(MediaKind::Video).is_some_and(|stream| stream.layers.len() > 1),
            parameter_sets: stream(MediaKind::Video).map_or(Vec::new(), |stream| stream.parameter_sets.clone()),
        }
    }
}

impl TableMedia {
    fn of(&self, kind: MediaKind) -> Option<&(Codec, String)> {
        match kind {
            MediaKind::Audio => self.audio.as_ref(),
            MediaKind::Video => self.video.as_ref(),
        }
    }
}

#[derive(Clone, Copy)]
enum Policy<'a> {
    Publisher,
    Player(&'a TableMedia),
}

fn negotiate(offer: &Offer, policy: Policy<'_>) -> Result<Negotiated, OfferError> {
    if offer.ice_lite {
        let reason = "the offer says a=ice-lite, and so does this node: neither side would start";
        return Err(OfferError::Unsupported(reason.into()));
    }
    let mut sections = Vec::with_capacity(offer.sections.len());
    for section in &offer.sections {
        let answered = answer_section(offer, section, &sections, policy)?;
        sections.push(answered);
    }
    check_that_media_flows(offer, &sections, policy)?;
    let (tagged, transport) = tagged_section(offer, &sections)?;
    Ok(Negotiated {
        direction: match policy {
            Policy::Publisher => MediaDirection::Receive,
            Policy::Player(_) => MediaDirection::Send,
        },
        dtls_role: dtls_role(tagged, transport)?,
        remote_ice: credentials(tagged, transport)?,
        remote_fingerprints: fingerprints(tagged, transport)?,
        offered_tls_id: transport.tls_id,
        bundled: !offer.bundle.is_empty(),
        layers: matches!(policy, Policy::Player(table) if table.layers),
        extmap_allow_mixed: offer.allows_mixed_extensions(),
        sections,
    })
}

fn answer_section(
    offer: &Offer,
    section: &OfferSection,
    earlier: &[Section],
    policy: Policy<'_>,
) -> Result<Section, OfferError> {
    // RFC 9143 §6: a port of 0 with a=bundle-only asks for the bundle's port; only without it is the section refused.
    if section.port == 0 && !section.bundle_only {
        return Ok(rejected(section));
    }
    match section.kind() {
        Some(kind) => Ok(Section::Media(media_section(offer, section, kind, earlier, policy)?)),
        None if section.media == "application" => data_section(offer, section, earlier),
        None => match policy {
            Policy::Publisher => Err(unsupported(section, "is neither audio, video nor a data channel")),
            Policy::Player(_) => Ok(rejected(section)),
        },
    }
}

fn rejected(section: &OfferSection) -> Section {
    let media_line = (section.media.clone(), section.protocol.clone(), section.format_list.clone());
    Section::Rejected { media_line, mid: section.mid.clone() }
}

fn unsupported(section: &OfferSection, what: &str) -> OfferError {
    OfferError::Unsupported(format!("{} {what}", section.name()))
}

/// The mid, once the section is known to be in the bundle: there is one transport for all (RFC 9725 §4.4.1). GStreamer's
/// webrtcbin groups nothing where there is only one section.
fn bundled_mid(offer: &Offer, section: &OfferSection) -> Result<String, OfferError> {
    let mid = section.mid.clone().ok_or_else(|| unsupported(section, "has no a=mid, so it cannot be bundled"))?;
    let alone = offer.bundle.is_empty() && offer.sections.len() == 1;
    match alone || offer.bundle.contains(&mid) {
        true => Ok(mid),
        false => Err(unsupported(section, "is not in a=group:BUNDLE; all media has to share one port")),
    }
}

fn media_section(
    offer: &Offer,
    section: &OfferSection,
    kind: MediaKind,
    earlier: &[Section],
    policy: Policy<'_>,
) -> Result<MediaSection, OfferError> {
    let mid = bundled_mid(offer, section)?;
    // The profile of every client. The answer has to repeat it, so the older spellings of RFC 8829 §5.1.2 are not taken.
    if !section.protocol.eq_ignore_ascii_case("UDP/TLS/RTP/SAVPF") {
        let what = format!("uses {}; WebRTC media is UDP/TLS/RTP/SAVPF", quoted(&section.protocol));
        return Err(unsupported(section, &what));
    }
    // RFC 9143 §7.1.3 leaves attributes of the transport out of bundle-only sections.
    if !section.rtcp_mux && !section.bundle_only {
        return Err(unsupported(section, "has no a=rtcp-mux; RTCP has to share the port of RTP"));
    }
    let repeated = earlier.iter().any(|s| matches!(s, Section::Media(m) if m.kind == kind));
    let codec_and_format = match policy {
        Policy::Publisher => Some(published_format(section, kind, repeated)?),
        Policy::Player(table) => played_format(section, table.of(kind).filter(|_| !repeated))?,
    };
    let stream = codec_and_format.map(|(codec, format)| stream(offer, section, codec, format, &mid, policy));
    if stream.as_ref().is_some_and(|stream| stream.layers.len() > MAX_LAYERS) {
        return Err(unsupported(section, &format!("has more than {MAX_LAYERS} simulcast layers")));
    }
    Ok(MediaSection {
        fallback_format: fallback_format(section)?,
        kind,
        stream,
        mid,
        reduced_size_rtcp: section.rtcp_rsize,
    })
}

/// The first format of the offer that is forwarded here.
fn published_format(section: &OfferSection, kind: MediaKind, repeated: bool) -> Result<(Codec, &Format), OfferError> {
    // RFC 9725 §4.2: "a=recvonly" and "a=inactive" are not for publishers.
    if !section.direction.sends() {
        return Err(unsupported(section, "does not send (a=recvonly or a=inactive); a publisher offers a=sendonly"));
    }
    // RFC 9725 §4.4.2: more tracks than are supported are refused with 422.
    if repeated {
        return Err(unsupported(section, "is a second track of its kind; one audio and one video track are taken"));
    }
    section.formats.iter().find_map(|format| Some((forwarded_codec(format, kind)?, format))).ok_or_else(|| {
        let (wanted, offered) = (codecs::wanted(kind), offered_codecs(section));
        OfferError::NoCommonCodec(format!("{}: this node forwards {wanted}, the offer has {offered}", section.name()))
    })
}

/// The format that decodes what the table sends; `None` where there is nothing to send.
fn played_format<'a>(
    section: &'a OfferSection,
    table: Option<&(Codec, String)>,
) -> Result<Option<(Codec, &'a Format)>, OfferError> {
    if section.direction.sends() && !section.direction.receives() {
        return Err(unsupported(section, "is a=sendonly; a player offers a=recvonly"));
    }
    let Some((codec, table_fmtp)) = table.filter(|_| section.direction.receives()) else {
        return Ok(None);
    };
    let same_codec = section.formats.iter().filter(|format| forwarded_codec(format, codec.kind()) == Some(*codec));
    // Of equals the first: min_by_key keeps the order of the offer.
    let best = same_codec
        .filter_map(|format| Some((codecs::distance(*codec, &format.fmtp, table_fmtp)?, format)))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, format)| format);
    best.map(|format| Some((*codec, format))).ok_or_else(|| {
        let sent = described(codec.encoding_name(), table_fmtp);
        let offered = offered_codecs(section);
        OfferError::NoCommonCodec(format!("{}: the table sends {sent}, the offer has {offered}", section.name()))
    })
}

/// The codecs of a section for an error text, without those that only repair or signal.
fn offered_codecs(section: &OfferSection) -> String {
    const NO_MEDIA: [&str; 7] = ["rtx", "red", "ulpfec", "flexfec-03", "flexfec", "telephone-event", "CN"];
    const MOST: usize = 16;
    let mut codecs: Vec<String> = Vec::new();
    for format in &section.formats {
        let name = &format.encoding.name;
        let described = described(name, &format.fmtp);
        let repairs = name.is_empty() || NO_MEDIA.iter().any(|other| name.eq_ignore_ascii_case(other));
        if !repairs && !codecs.contains(&described) && codecs.len() < MOST {
            codecs.push(described);
        }
    }
    if codecs.is_empty() { "none".to_owned() } else { codecs.join(", ") }
}

fn stream(
    offer: &Offer,
    section: &OfferSection,
    codec: Codec,
    format: &Format,
    mid: &str,
    policy: Policy<'_>,
) -> StreamParameters {
    let publishes = matches!(policy, Policy::Publisher);
    let usable = |extension: &ExtMap| {
        extension.direction.is_none_or(|direction| if publishes { direction.sends() } else { direction.receives() })
    };
    let find = |uri: &str| section.extensions.iter().find(|e| e.uri == uri && usable(e));
    // We repair video only: there is no RTX SSRC for audio to players.
    let repairable = publishes || codec.kind() == MediaKind::Video;
    let rtx_payload_type = section.rtx_for(format.payload_type).filter(|_| repairable);
    let transport_cc = find(extension::TRANSPORT_CC).filter(|_| format.feedback.transport_cc);
    let rid = find(extension::RID).filter(|_| publishes && section.simulcast.is_some());
    let layers = if rid.is_some() { simulcast_layers(section, format.payload_type) } else { Vec::new() };
    let rid = rid.filter(|_| !layers.is_empty());
    let agreed = [
        find(extension::MID).filter(|_| mid.len() <= LONGEST_MID_IN_PACKETS),
        rid,
        find(extension::REPAIRED_RID).filter(|_| rid.is_some()),
        transport_cc,
        find(extension::PLAYOUT_DELAY),
        find(extension::ABS_CAPTURE_TIME),
        // What REMB is estimated from; with transport-wide feedback the estimate is ours and it would be four idle bytes.
        find(extension::ABS_SEND_TIME).filter(|_| transport_cc.is_none()),
        // RFC 8285 §4.1.2: usually longer than 16 bytes, so that some packets of the stream need the two-byte form.
        find(extension::DEPENDENCY_DESCRIPTOR).filter(|_| offer.allows_mixed_extensions()),
    ];
    // The SSRCs of a simulcast are learned from its packets; Firefox announces them as well, without saying which is whose.
    let announced = publishes && layers.is_empty();
    let (remote_ssrc, remote_rtx_ssrc) = if announced { announced_ssrcs(section) } else { (None, None) };
    StreamParameters {
        codec,
        payload_type: format.payload_type,
        fmtp: answer_fmtp(codec, &format.fmtp, publishes),
        rtx_payload_type,
        red: red(section, codec, format, policy),
        parameter_sets: if publishes { codecs::parameter_sets(codec, &format.fmtp) } else { Vec::new() },
        feedback: Feedback {
            // Without RTX a player gets no retransmission: sealing a packet anew on its own SSRC would repeat a nonce
            // (RFC 7714 §8.4). So it is not told to ask for one.
            nack: format.feedback.nack && (publishes || rtx_payload_type.is_some()),
            pli: format.feedback.pli,
            fir: format.feedback.fir,
            transport_cc: transport_cc.is_some(),
            // Only the fallback for players without transport-wide feedback; we send none to publishers.
            remb: format.feedback.remb && !publishes && transport_cc.is_none(),
        },
        extensions: extension_ids(agreed),
        directed_extensions: extension_ids(agreed.map(|e| e.filter(|e| e.direction.is_some()))),
        remote_ssrc,
        remote_rtx_ssrc,
        layers,
    }
}

fn simulcast_layers(section: &OfferSection, payload_type: u8) -> Vec<SimulcastLayer> {
    section.simulcast.as_ref().map_or(Vec::new(), |simulcast| simulcast.layers(&section.rids, payload_type))
}

fn extension_ids(agreed: [Option<&ExtMap>; 8]) -> ExtensionIds {
    let [mid, rid, repaired_rid, transport_cc, playout_delay, abs_capture_time, abs_send_time, dependency_descriptor] =
        agreed;
    let id = |extension: Option<&ExtMap>| extension.map(|e| e.id);
    ExtensionIds {
        mid: id(mid),
        rid: id(rid),
        repaired_rid: id(repaired_rid),
        transport_cc: id(transport_cc),
        playout_delay: id(playout_delay),
        abs_capture_time: id(abs_capture_time),
        abs_send_time: id(abs_send_time),
        dependency_descriptor: id(dependency_descriptor),
    }
}

/// RED of the chosen audio format: `a=fmtp:63 111/111` lists the payload types of its blocks (RFC 2198 §5). A player gets
/// it only where the table has it.
fn red(section: &OfferSection, codec: Codec, format: &Format, policy: Policy<'_>) -> Option<Red> {
    let is_sent = match policy {
        Policy::Publisher => true,
        Policy::Player(table) => table.red,
    };
    if codec.kind() != MediaKind::Audio || !is_sent {
        return None;
    }
    let at = |payload_type| section.formats.iter().position(|f| f.payload_type == payload_type);
    section.formats.iter().find_map(|red| {
        let encoding = &red.encoding;
        let is_red = encoding.is("red", codec.clock_rate()) && encoding.channels == format.encoding.channels;
        let blocks: Option<Vec<u8>> = red.fmtp.split('/').map(|block| block.trim().parse().ok()).collect();
        let blocks = blocks.filter(|blocks| blocks.iter().all(|block| *block == format.payload_type))?;
        (is_red && is_usable(red.payload_type) && blocks.len() <= MOST_RED_BLOCKS).then(|| Red {
            payload_type: red.payload_type,
            blocks: blocks.len(),
            preferred: at(red.payload_type) < at(format.payload_type),
        })
    })
}

/// Media and RTX SSRC. FFmpeg writes the RTX SSRC in the group only; OBS and simulcast senders write no group.
fn announced_ssrcs(section: &OfferSection) -> (Option<u32>, Option<u32>) {
    match section.fid_group {
        Some((media, rtx)) => (Some(media), Some(rtx)),
        None => (section.ssrc, None),
    }
}

/// RFC 3264 §6: an answered section lists at least one format, also where nothing flows.
fn fallback_format(section: &OfferSection) -> Result<(u8, String), OfferError> {
    let known = section.formats.iter().find(|format| !format.encoding.name.is_empty());
    known
        .map(|format| (format.payload_type, format.encoding.rtpmap()))
        .ok_or_else(|| OfferError::Malformed(format!("{} lists no payload type with an a=rtpmap", section.name())))
}

fn data_section(offer: &Offer, section: &OfferSection, earlier: &[Section]) -> Result<Section, OfferError> {
    // The drafts' "DTLS/SCTP 5000" is refused alone, and so is a second association (RFC 8841 §9.1.1 allows one a port).
    let modern = section.protocol.eq_ignore_ascii_case("UDP/DTLS/SCTP") && section.format_list == "webrtc-datachannel";
    let repeated = earlier.iter().any(|s| matches!(s, Section::Data(_)));
    let Some(remote_sctp_port) = section.sctp_port.filter(|&port| modern && !repeated && port != 0) else {
        return Ok(rejected(section));
    };
    let remote_max_message_size = match section.max_message_size {
        None => DEFAULT_MAX_MESSAGE_SIZE,
        // RFC 8841 §6: 0 is "any size".
        Some(0) => u32::MAX,
        Some(size) => u32::try_from(size).unwrap_or(u32::MAX),
    };
    Ok(Section::Data(DataSection { mid: bundled_mid(offer, section)?, remote_sctp_port, remote_max_message_size }))
}

fn check_that_media_flows(offer: &Offer, sections: &[Section], policy: Policy<'_>) -> Result<(), OfferError> {
    if sections.iter().any(|s| matches!(s, Section::Media(m) if m.stream.is_some())) {
        return Ok(());
    }
    let Policy::Player(table) = policy else {
        return Err(OfferError::Unsupported("the offer sends neither audio nor video".into()));
    };
    let wanted = |kind| offer.sections.iter().any(|s| s.kind() == Some(kind) && s.direction.receives());
    if !wanted(MediaKind::Audio) && !wanted(MediaKind::Video) {
        return Err(OfferError::Unsupported("the offer asks to receive neither audio nor video".into()));
    }
    let sent: Vec<_> =
        [&table.video, &table.audio].into_iter().flatten().map(|(codec, _)| codec.encoding_name()).collect();
    let sent = if sent.is_empty() { "nothing".to_owned() } else { sent.join(" and ") };
    Err(OfferError::NoCommonCodec(format!("the table sends {sent}, of which the offer receives nothing")))
}

/// The section whose transport counts for the whole bundle: the first accepted one (RFC 9143 §7.3.1). Clients that list
/// the bundle in another order repeat the same values in every section.
fn tagged_section<'a>(offer: &'a Offer, answered: &[Section]) -> Result<(&'a OfferSection, &'a Transport), OfferError> {
    let accepted = offer.sections.iter().zip(answered).filter(|(_, a)| !matches!(a, Section::Rejected { .. }));
    let mut accepted = accepted.map(|(section, _)| section);
    let tagged = accepted.clone().find(|s| s.transport.ufrag.is_some()).or_else(|| accepted.next());
    tagged
        .map(|section| (section, &section.transport))
        .ok_or_else(|| OfferError::Unsupported("every section of the offer has port 0".into()))
}

/// RFC 8842 §5.3 and RFC 4145 §4.1: we are passive towards `actpass` and `active`, active towards `passive`. "The default
/// value of the setup attribute in an offer/answer exchange is 'active' in the offer", so nothing said is `active`.
fn dtls_role(section: &OfferSection, transport: &Transport) -> Result<DtlsRole, OfferError> {
    match transport.setup.as_deref() {
        None | Some("actpass" | "active") => Ok(DtlsRole::Server),
        Some("passive") => Ok(DtlsRole::Client),
        Some(other) => Err(unsupported(section, &format!("has a=setup:{}; actpass is expected", quoted(other)))),
    }
}

/// RFC 8839 §5.4: 4 to 256 and 22 to 256 ice-chars. The characters are not checked beyond what USERNAME needs: some
/// clients use others, and a lite agent never sends what the peer chose.
fn credentials(section: &OfferSection, transport: &Transport) -> Result<IceCredentials, OfferError> {
    let (Some(ufrag), Some(pwd)) = (transport.ufrag.clone(), transport.pwd.clone()) else {
        return Err(unsupported(section, "has no a=ice-ufrag and a=ice-pwd; ICE is required"));
    };
    let usable = |text: &str| text.bytes().all(|b| b.is_ascii_graphic() && b != b':');
    if !(4..=256).contains(&ufrag.len()) || !(22..=256).contains(&pwd.len()) || !usable(&ufrag) {
        let reason = "has an a=ice-ufrag outside 4 to 256 characters or an a=ice-pwd outside 22 to 256";
        return Err(OfferError::Malformed(format!("{} {reason}", section.name())));
    }
    Ok(IceCredentials { ufrag, pwd })
}

fn fingerprints(section: &OfferSection, transport: &Transport) -> Result<Vec<super::Fingerprint>, OfferError> {
    match (transport.fingerprints.is_empty(), transport.other_hashes) {
        (false, _) => Ok(transport.fingerprints.clone()),
        (true, true) => Err(unsupported(section, "has no fingerprint by SHA-256, SHA-384 or SHA-512")),
        (true, false) => Err(unsupported(section, "has no a=fingerprint; media is encrypted with DTLS-SRTP only")),
    }
}
