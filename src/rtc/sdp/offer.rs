//! An offer as it was read: typed, inherited, not yet judged.
//!
//! `sdp-types` splits the body into lines, sections and attributes; it takes every offer that was captured for the
//! fixtures, refuses only broken lines, and puts no order on attributes. Its *typed* attributes are not used: one bad
//! candidate or unknown extmap direction would cost the whole offer there, and here it costs that line.

use super::attributes::{Direction, Encoding, ExtMap, FingerprintLine, add_feedback, is_token};
use super::error::quoted;
use super::simulcast::{MAX_RIDS, RidLine, SimulcastLine};
use super::{Feedback, Fingerprint, OfferError};
use crate::media::MediaKind;

/// More than three sections have no use here; clients that renegotiate by adding some stay far below.
const MAX_SECTIONS: usize = 32;

/// Attributes read per section; those of other names do not count. Chromium with hardware codecs offers about 200 for
/// video, and half an offer must not be judged as if it were the whole.
const MAX_ATTRIBUTES: usize = 512;

/// The longest `a=mid`. UUIDs have 36.
const MAX_MID: usize = 64;

/// An SDP offer, read leniently: [`super::negotiate_publisher`] and [`super::negotiate_player`] judge it.
#[derive(Clone, Debug, PartialEq)]
pub struct Offer {
    /// The mids of the first `a=group:BUNDLE`.
    pub(super) bundle: Vec<String>,
    /// `a=ice-lite`
    pub(super) ice_lite: bool,
    pub(super) sections: Vec<OfferSection>,
}

/// One `m=` section, with what it inherits from the session level.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct OfferSection {
    /// From 1, in the order of the offer.
    pub(super) number: usize,
    pub(super) media: String,
    pub(super) port: u16,
    pub(super) protocol: String,
    /// The `m=` line's formats as they stand there.
    pub(super) format_list: String,
    pub(super) mid: Option<String>,
    pub(super) direction: Direction,
    pub(super) transport: Transport,
    pub(super) bundle_only: bool,
    pub(super) rtcp_mux: bool,
    pub(super) rtcp_rsize: bool,
    pub(super) extmap_allow_mixed: bool,
    pub(super) formats: Vec<Format>,
    pub(super) extensions: Vec<ExtMap>,
    /// The first `a=ssrc`.
    pub(super) ssrc: Option<u32>,
    /// Media and RTX SSRC of the first `a=ssrc-group:FID`.
    pub(super) fid_group: Option<(u32, u32)>,
    /// `a=rid` of what is sent.
    pub(super) rids: Vec<RidLine>,
    /// `a=simulcast`, where something is sent as such.
    pub(super) simulcast: Option<SimulcastLine>,
    pub(super) sctp_port: Option<u16>,
    pub(super) max_message_size: Option<u64>,
}

/// ICE and DTLS attributes, which stand at session level or in a section.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Transport {
    pub(super) ufrag: Option<String>,
    pub(super) pwd: Option<String>,
    pub(super) fingerprints: Vec<Fingerprint>,
    /// There were fingerprints of hash functions that are not accepted.
    pub(super) other_hashes: bool,
    pub(super) setup: Option<String>,
    pub(super) tls_id: bool,
}

/// A payload type of an audio or video section.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Format {
    pub(super) payload_type: u8,
    pub(super) encoding: Encoding,
    pub(super) fmtp: String,
    pub(super) feedback: Feedback,
}

impl Offer {
    /// Reads an offer. The caller bounds the size of `body`.
    ///
    /// # Errors
    /// [`OfferError::Malformed`] for what is not SDP or contradicts itself; [`OfferError::Unsupported`] beyond 32
    /// sections or 512 attributes in one.
    pub fn parse(body: &[u8]) -> Result<Self, OfferError> {
        let session = sdp_types::Session::parse(body)
            .map_err(|e| OfferError::Malformed(format!("the body is not SDP: {}", quoted(&e.to_string()))))?;
        if session.medias.is_empty() {
            return Err(OfferError::Malformed("the offer has no m= section".into()));
        }
        if session.medias.len() > MAX_SECTIONS {
            let count = session.medias.len();
            return Err(OfferError::Unsupported(format!(
                "the offer has {count} m= sections, at most {MAX_SECTIONS} are read"
            )));
        }
        let level = SessionLevel::read(&session.attributes)?;
        let mut sections = Vec::with_capacity(session.medias.len());
        for (index, media) in session.medias.into_iter().enumerate() {
            sections.push(OfferSection::read(index + 1, media, &level)?);
        }
        let offer = Self { bundle: level.bundle.unwrap_or_default(), ice_lite: level.ice_lite, sections };
        offer.check_mids()?;
        Ok(offer)
    }

    /// `a=extmap-allow-mixed` (RFC 8285 §6) for every section of media.
    pub(super) fn allows_mixed_extensions(&self) -> bool {
        self.sections.iter().filter(|s| s.kind().is_some()).all(|s| s.extmap_allow_mixed)
    }

    /// RFC 9143 §7.1.1: every mid names one section.
    fn check_mids(&self) -> Result<(), OfferError> {
        for (index, section) in self.sections.iter().enumerate() {
            let Some(mid) = &section.mid else { continue };
            if self.sections[..index].iter().any(|earlier| earlier.mid.as_ref() == Some(mid)) {
                return Err(OfferError::Malformed(format!("two m= sections have a=mid:{}", quoted(mid))));
            }
        }
        Ok(())
    }
}

/// What stands before the first `m=` and holds for all sections that do not say otherwise.
#[derive(Default)]
struct SessionLevel {
    bundle: Option<Vec<String>>,
    ice_lite: bool,
    direction: Option<Direction>,
    transport: Transport,
    extmap_allow_mixed: bool,
    extensions: Vec<ExtMap>,
}

impl SessionLevel {
    fn read(attributes: &[sdp_types::Attribute]) -> Result<Self, OfferError> {
        let mut level = Self::default();
        for attribute in attributes.iter().take(MAX_ATTRIBUTES) {
            let value = attribute.value.as_deref().unwrap_or_default();
            match attribute.attribute.as_str() {
                "group" => level.read_group(value),
                "ice-lite" => level.ice_lite = true,
                "extmap-allow-mixed" => level.extmap_allow_mixed = true,
                "extmap" => level.extensions.extend(ExtMap::parse(value)),
                name if Direction::parse(name).is_some() => level.direction = Direction::parse(name),
                name => {
                    level.transport.read(name, value, "the session level")?;
                }
            }
        }
        Ok(level)
    }

    /// The first BUNDLE counts; Chromium's `LS` and the like are nothing to us.
    fn read_group(&mut self, value: &str) {
        let mut words = value.split_ascii_whitespace();
        if words.next() == Some("BUNDLE") && self.bundle.is_none() {
            self.bundle = Some(words.map(str::to_owned).collect());
        }
    }
}

impl Transport {
    /// Takes the attribute if it is one of this struct's; `false` if it is not.
    fn read(&mut self, name: &str, value: &str, place: &str) -> Result<bool, OfferError> {
        match name {
            "ice-ufrag" => self.ufrag = Some(value.trim().to_owned()),
            "ice-pwd" => self.pwd = Some(value.trim().to_owned()),
            "setup" => self.setup = Some(value.trim().to_ascii_lowercase()),
            "tls-id" => self.tls_id = true,
            "fingerprint" => match FingerprintLine::parse(value) {
                FingerprintLine::Usable(fingerprint) => self.fingerprints.push(fingerprint),
                FingerprintLine::OtherHash => self.other_hashes = true,
                FingerprintLine::Malformed => {
                    let value = quoted(value);
                    return Err(OfferError::Malformed(format!("{place} has an unreadable fingerprint: {value}")));
                }
            },
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// RFC 8839 §5.4, RFC 8122 §5: a section's own attribute hides the session's.
    fn inherit(&mut self, session: &Transport) {
        if self.ufrag.is_none() && self.pwd.is_none() {
            self.ufrag.clone_from(&session.ufrag);
            self.pwd.clone_from(&session.pwd);
        }
        if self.fingerprints.is_empty() && !self.other_hashes {
            self.fingerprints.clone_from(&session.fingerprints);
            self.other_hashes = session.other_hashes;
        }
        if self.setup.is_none() {
            self.setup.clone_from(&session.setup);
        }
        self.tls_id |= session.tls_id;
    }
}

impl OfferSection {
    fn read(number: usize, media: sdp_types::Media, session: &SessionLevel) -> Result<Self, OfferError> {
        let mut section = Self {
            number,
            formats: formats(&media.fmt),
            media: media.media,
            port: media.port,
            protocol: media.proto,
            format_list: media.fmt,
            mid: None,
            direction: session.direction.unwrap_or(Direction::SendRecv),
            transport: Transport::default(),
            bundle_only: false,
            rtcp_mux: false,
            rtcp_rsize: false,
            extmap_allow_mixed: session.extmap_allow_mixed,
            extensions: Vec::new(),
            ssrc: None,
            fid_group: None,
            rids: Vec::new(),
            simulcast: None,
            sctp_port: None,
            max_message_size: None,
        };
        let mut used = 0;
        for attribute in &media.attributes {
            let value = attribute.value.as_deref().unwrap_or_default();
            used += usize::from(section.read_attribute(&attribute.attribute, value)?);
            if used > MAX_ATTRIBUTES {
                let reason = format!("{} has more than {MAX_ATTRIBUTES} attributes", section.name());
                return Err(OfferError::Unsupported(reason));
            }
        }
        section.transport.inherit(&session.transport);
        section.extensions.extend_from_slice(&session.extensions);
        section.formats.iter_mut().filter(|format| format.encoding.name.is_empty()).for_each(|format| {
            format.encoding = Encoding::of_static_payload_type(format.payload_type).unwrap_or_default();
        });
        Ok(section)
    }

    /// Takes one attribute; `false` if it is of no interest. Candidates are of none: a lite agent sends no checks, and
    /// RFC 8839 §5.1 has `.local` names and other FQDNs ignored anyway.
    fn read_attribute(&mut self, name: &str, value: &str) -> Result<bool, OfferError> {
        match name {
            "mid" => self.read_mid(value.trim())?,
            "bundle-only" => self.bundle_only = true,
            "rtcp-mux" => self.rtcp_mux = true,
            "rtcp-rsize" => self.rtcp_rsize = true,
            "extmap-allow-mixed" => self.extmap_allow_mixed = true,
            "extmap" => self.extensions.extend(ExtMap::parse(value)),
            "rtpmap" => self.read_rtpmap(value)?,
            "fmtp" => self.each_format(value, |format, fmtp| fmtp.clone_into(&mut format.fmtp)),
            "rtcp-fb" => self.each_format(value, |format, value| add_feedback(&mut format.feedback, value)),
            "ssrc" => self.ssrc = self.ssrc.or_else(|| value.split_ascii_whitespace().next()?.parse().ok()),
            "ssrc-group" => self.read_ssrc_group(value),
            "rid" if self.rids.len() < MAX_RIDS => self.rids.extend(RidLine::parse(value)),
            "simulcast" => self.simulcast = SimulcastLine::parse(value),
            "sctp-port" => self.sctp_port = Some(self.number_in(name, value)?),
            "max-message-size" => self.max_message_size = Some(self.number_in(name, value)?),
            _ => match Direction::parse(name) {
                Some(direction) => self.direction = direction,
                None => {
                    let place = self.name();
                    return self.transport.read(name, value, &place);
                }
            },
        }
        Ok(true)
    }

    /// The mid is written back into the answer, so it has to be the token that RFC 5888 §4 wants.
    fn read_mid(&mut self, mid: &str) -> Result<(), OfferError> {
        if !is_token(mid) || mid.len() > MAX_MID {
            return Err(OfferError::Malformed(format!("{} has an unusable a=mid:{}", self.name(), quoted(mid))));
        }
        self.mid = Some(mid.to_owned());
        Ok(())
    }

    fn read_rtpmap(&mut self, value: &str) -> Result<(), OfferError> {
        let encoding = value.split_once(' ').and_then(|(_, encoding)| Encoding::parse(encoding)).ok_or_else(|| {
            OfferError::Malformed(format!("{} has an unreadable a=rtpmap:{}", self.name(), quoted(value)))
        })?;
        self.each_format(value, |format, _| format.encoding = encoding.clone());
        Ok(())
    }

    /// Applies the rest of `<pt> <rest>` to the format of that payload type, or to all for `*`.
    fn each_format(&mut self, value: &str, apply: impl Fn(&mut Format, &str)) {
        let Some((payload_type, rest)) = value.trim().split_once(' ') else { return };
        let rest = rest.trim();
        if payload_type == "*" {
            return self.formats.iter_mut().for_each(|format| apply(format, rest));
        }
        let payload_type: Option<u8> = payload_type.parse().ok();
        if let Some(format) = self.formats.iter_mut().find(|format| Some(format.payload_type) == payload_type) {
            apply(format, rest);
        }
    }

    fn read_ssrc_group(&mut self, value: &str) {
        let mut words = value.split_ascii_whitespace();
        if words.next() == Some("FID") {
            let mut next = || words.next()?.parse().ok();
            let group = next().zip(next());
            self.fid_group = self.fid_group.or(group);
        }
    }

    fn number_in<N: std::str::FromStr>(&self, name: &str, value: &str) -> Result<N, OfferError> {
        let value = value.trim();
        value
            .parse()
            .map_err(|_| OfferError::Malformed(format!("{} has an unreadable a={name}:{}", self.name(), quoted(value))))
    }

    /// How errors call this section.
    pub(super) fn name(&self) -> String {
        let media = quoted(&self.media);
        match &self.mid {
            Some(mid) => format!("section {} ({media}, mid {mid})", self.number),
            None => format!("section {} ({media})", self.number),
        }
    }

    /// `None` for data and for what nobody here knows.
    pub(super) fn kind(&self) -> Option<MediaKind> {
        match self.media.as_str() {
            "audio" => Some(MediaKind::Audio),
            "video" => Some(MediaKind::Video),
            _ => None,
        }
    }

    /// The payload type of the RTX that repairs `payload_type` (RFC 4588 §8.6).
    pub(super) fn rtx_for(&self, payload_type: u8) -> Option<u8> {
        let repairs = |format: &&Format| {
            let apt = super::attributes::fmtp_parameter(&format.fmtp, "apt").and_then(|apt| apt.parse().ok());
            format.encoding.name.eq_ignore_ascii_case("rtx") && apt == Some(payload_type)
        };
        self.formats.iter().find(repairs).map(|format| format.payload_type).filter(|&pt| is_usable(pt))
    }
}

/// RFC 5761 §4: with RTCP on the same port, payload types 64–95 are not to be used.
pub(super) fn is_usable(payload_type: u8) -> bool {
    !matches!(payload_type, 64..=95)
}

/// The payload types of an `m=` line, each once; what is no payload type is skipped.
fn formats(list: &str) -> Vec<Format> {
    let mut seen = [false; 128];
    let mut formats = Vec::new();
    for payload_type in list.split_ascii_whitespace().filter_map(|word| word.parse::<u8>().ok()) {
        if seen.get(usize::from(payload_type)) == Some(&false) {
            seen[usize::from(payload_type)] = true;
            formats.push(Format {
                payload_type,
                encoding: Encoding::default(),
                fmtp: String::new(),
                feedback: Feedback::default(),
            });
        }
    }
    formats
}
