//! What a publisher sends of one medium, and to which of its RTP streams a packet belongs.

use std::time::{Duration, Instant};

use crate::media::{Codec, MediaKind, RtpHeader};
use crate::rtc::rtcp::{LossDetector, LossPolicy, ReceptionStats};
use crate::rtc::sdp::{ExtensionIds, Feedback, StreamParameters};

use super::ladder::Ladder;
use super::message::LayerIndex;
use super::session::Budget;

/// Where a packet belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Route {
    /// Index of the medium.
    pub(super) medium: usize,
    pub(super) layer: LayerIndex,
    /// A repetition or a probe (RFC 4588).
    pub(super) rtx: bool,
}

/// What a packet brings, by itself or as a repetition.
#[derive(Clone, Copy, Debug)]
pub(super) struct Carried<'a> {
    pub(super) sequence_number: u16,
    /// The first packet of its frame to come.
    pub(super) begins_frame: bool,
    pub(super) payload: &'a [u8],
}

/// One medium from a publisher: one RTP stream, or the layers of a simulcast.
#[derive(Debug)]
pub(super) struct Inbound {
    pub(super) kind: MediaKind,
    pub(super) codec: Codec,
    pub(super) feedback: Feedback,
    pub(super) extensions: ExtensionIds,
    pub(super) layers: Vec<Layer>,
    /// Of a simulcast.
    pub(super) ladder: Option<Box<Ladder>>,
    mid: Box<str>,
    payload_type: u8,
    rtx_payload_type: Option<u8>,
    /// Of RED, which comes on the SSRC of the codec.
    red_payload_type: Option<u8>,
    rebindings: Budget,
}

/// One RTP stream and its repairs.
#[derive(Debug)]
pub(super) struct Layer {
    rid: Option<Box<str>>,
    pub(super) ssrc: Option<u32>,
    pub(super) rtx_ssrc: Option<u32>,
    /// From the first packet on, which fixes the SSRC.
    pub(super) reception: Option<ReceptionStats>,
    pub(super) losses: LossDetector,
    /// FIR command number (RFC 5104 §4.3.1.1).
    pub(super) fir_number: u8,
    /// Lost packets that a keyframe was asked for.
    given_up: u64,
    newest: Option<Newest>,
    restarted: bool,
}

/// The packet with the highest number.
#[derive(Clone, Copy, Debug)]
struct Newest {
    /// Its extended sequence number, to extend those of RTX by.
    index: u64,
    timestamp: u32,
}

/// Finds the stream of a packet by the steps of RFC 9143 §9.2 and learns its SSRC; `None` where it belongs to none.
///
/// "If the packet has a MID", that decides, and one that nobody negotiated is dropped; then the SSRC, if it is known or was
/// announced by `a=ssrc`; then the payload type, which negotiation keeps unique here. Within a simulcast the rid or the
/// repaired rid decides (RFC 8852 §3), and then the SSRC: senders leave out both names once a receiver report has covered
/// the stream.
pub(super) fn route(media: &mut [Inbound], now: Instant, header: &RtpHeader, packet: &[u8]) -> Option<Route> {
    let mid = media.iter().find_map(|medium| header.extension(packet, medium.extensions.mid?));
    let medium = match mid {
        Some(mid) => media.iter().position(|medium| medium.mid.as_bytes() == mid)?,
        None => {
            let by_ssrc = media.iter().position(|medium| medium.knows(header.ssrc));
            by_ssrc.or_else(|| media.iter().position(|medium| medium.is_rtx(header.payload_type).is_some()))?
        }
    };
    // RFC 9143 §9.2: "check that the payload type used by the RTP stream matches a payload type included on the matching
    // "m=" section".
    let rtx = media[medium].is_rtx(header.payload_type)?;
    let layer = media[medium].layer_of(now, header, packet, rtx)?;
    Some(Route { medium, layer, rtx })
}

impl Inbound {
    pub(super) fn new(kind: MediaKind, mid: &str, stream: &StreamParameters) -> Self {
        let layers = match &stream.layers[..] {
            [] => vec![Layer::new(None, stream.remote_ssrc, stream.remote_rtx_ssrc)],
            layers => layers.iter().map(|layer| Layer::new(Some(&layer.rid), None, None)).collect(),
        };
        Self {
            kind,
            codec: stream.codec,
            feedback: stream.feedback,
            extensions: stream.extensions,
            layers,
            ladder: (!stream.layers.is_empty()).then(|| Box::new(Ladder::of(&stream.layers))),
            mid: mid.into(),
            payload_type: stream.payload_type,
            rtx_payload_type: stream.rtx_payload_type,
            red_payload_type: stream.red.as_ref().map(|red| red.payload_type),
            rebindings: Budget::new(8, Duration::from_secs(10)),
        }
    }

    /// Accounts for a packet, whose extended sequence number on its own SSRC is `index`. `None` where nothing is in it.
    pub(super) fn receive<'a>(
        &mut self,
        now: Instant,
        route: &Route,
        header: &RtpHeader,
        index: u64,
        payload: &'a [u8],
    ) -> Option<Carried<'a>> {
        let clock_rate = self.codec.clock_rate();
        let layer = self.layer_mut(route.layer);
        if !route.rtx {
            let begins_frame = layer.received(now, clock_rate, header, index);
            return Some(Carried { sequence_number: header.sequence_number, begins_frame, payload });
        }
        // RFC 4588 §4: two bytes of original sequence number, then the original payload. Without them it is a bandwidth
        // probe, which transport-wide feedback counts and nobody repairs with.
        let (original, payload) = payload.split_first_chunk()?;
        let sequence_number = u16::from_be_bytes(*original);
        layer.repaired(now, sequence_number);
        Some(Carried { sequence_number, begins_frame: false, payload })
    }

    pub(super) fn layer_mut(&mut self, layer: LayerIndex) -> &mut Layer {
        &mut self.layers[layer.0]
    }

    /// The layer that stands for the medium: the best one.
    pub(super) fn best_layer(&self) -> LayerIndex {
        self.ladder.as_ref().and_then(|ladder| ladder.best()).unwrap_or_default()
    }

    /// Which layer has this SSRC as its own, not for RTX.
    pub(super) fn layer_with_ssrc(&self, ssrc: u32) -> Option<LayerIndex> {
        self.layers.iter().position(|layer| layer.ssrc == Some(ssrc)).map(LayerIndex)
    }

    /// The layers of which packets were given up since the last call.
    pub(super) fn take_broken_layers(&mut self) -> Vec<LayerIndex> {
        let mut broken = Vec::new();
        for (at, layer) in self.layers.iter_mut().enumerate() {
            let given_up = layer.losses.given_up();
            if given_up > std::mem::replace(&mut layer.given_up, given_up) {
                broken.push(LayerIndex(at));
            }
        }
        broken
    }

    /// Whether the layer has begun anew, with other numbers, since the last call.
    pub(super) fn take_restart(&mut self, layer: LayerIndex) -> bool {
        std::mem::take(&mut self.layers[layer.0].restarted)
    }

    fn knows(&self, ssrc: u32) -> bool {
        self.layers.iter().any(|layer| layer.ssrc == Some(ssrc) || layer.rtx_ssrc == Some(ssrc))
    }

    /// Whether a payload type is that of RED (RFC 2198).
    pub(super) fn is_red(&self, payload_type: u8) -> bool {
        self.red_payload_type == Some(payload_type)
    }

    /// Whether a payload type is that of RTX; `None` where it is none of this medium's.
    fn is_rtx(&self, payload_type: u8) -> Option<bool> {
        match payload_type {
            _ if payload_type == self.payload_type || self.is_red(payload_type) => Some(false),
            _ if self.rtx_payload_type == Some(payload_type) => Some(true),
            _ => None,
        }
    }

    fn layer_of(&mut self, now: Instant, header: &RtpHeader, packet: &[u8], rtx: bool) -> Option<LayerIndex> {
        let at = match (&self.ladder, self.rid(header, packet, rtx)) {
            (None, _) => 0,
            (Some(_), Some(rid)) => {
                self.layers.iter().position(|layer| layer.rid.as_deref().map(str::as_bytes) == Some(rid))?
            }
            (Some(_), None) => self.layers.iter().position(|layer| layer.ssrc_of(rtx) == Some(header.ssrc))?,
        };
        self.bind(now, LayerIndex(at), header.ssrc, rtx).then_some(LayerIndex(at))
    }

    /// RFC 8852 §3: a repetition names the stream it repairs by the repaired rid; some senders put the rid itself there.
    fn rid<'a>(&self, header: &RtpHeader, packet: &'a [u8], rtx: bool) -> Option<&'a [u8]> {
        let value = |id: Option<u8>| header.extension(packet, id?);
        let repaired = if rtx { value(self.extensions.repaired_rid) } else { None };
        repaired.or_else(|| value(self.extensions.rid))
    }

    /// Ties an SSRC to a layer; `false` if it cannot be its.
    ///
    /// There is one SSRC a layer and one for its repairs, so that a publisher that invents them takes no memory. Where
    /// there is no simulcast, nothing but the first SSRC or the announced one is believed. A simulcast sender may change
    /// one as long as its packets name the layer, now and then: what it forwards begins anew each time.
    fn bind(&mut self, now: Instant, layer: LayerIndex, ssrc: u32, rtx: bool) -> bool {
        let known = self.layers[layer.0].ssrc_of(rtx);
        if known == Some(ssrc) {
            return true;
        }
        let allowed = match known {
            None => true,
            Some(_) => self.ladder.is_some() && self.rebindings.take(now),
        };
        if !allowed || self.knows(ssrc) {
            return false;
        }
        let bound = &mut self.layers[layer.0];
        match rtx {
            true => bound.rtx_ssrc = Some(ssrc),
            false if known.is_some() => self.restart(layer, ssrc),
            false => bound.ssrc = Some(ssrc),
        }
        true
    }

    fn restart(&mut self, layer: LayerIndex, ssrc: u32) {
        let bound = &mut self.layers[layer.0];
        let anew = Layer::new(None, Some(ssrc), bound.rtx_ssrc);
        *bound = Layer { rid: bound.rid.take(), fir_number: bound.fir_number, restarted: true, ..anew };
    }
}

impl Layer {
    fn new(rid: Option<&str>, ssrc: Option<u32>, rtx_ssrc: Option<u32>) -> Self {
        Self {
            rid: rid.map(Into::into),
            ssrc,
            rtx_ssrc,
            reception: None,
            losses: LossDetector::new(LossPolicy::default()),
            fir_number: 0,
            given_up: 0,
            newest: None,
            restarted: false,
        }
    }

    /// Accounts for an arrival: `index` is the extended sequence number of the stream that carried it. Returns whether it
    /// is the first of its frame to come.
    fn received(&mut self, now: Instant, clock_rate: u32, header: &RtpHeader, index: u64) -> bool {
        let reception = self.reception.get_or_insert_with(|| ReceptionStats::new(header.ssrc, clock_rate));
        reception.handle_rtp(now, index, header.timestamp);
        self.losses.handle_packet(now, index);
        let before = self.newest;
        if before.is_none_or(|newest| index > newest.index) {
            self.newest = Some(Newest { index, timestamp: header.timestamp });
        }
        before.is_none_or(|newest| (header.timestamp.wrapping_sub(newest.timestamp) as i32) > 0)
    }

    /// Accounts for a repair: the original sequence number came over RTX.
    fn repaired(&mut self, now: Instant, sequence_number: u16) {
        let Some(newest) = self.newest else { return };
        let behind = sequence_number.wrapping_sub(newest.index as u16) as i16;
        if let Some(index) = newest.index.checked_add_signed(i64::from(behind)) {
            self.losses.handle_packet(now, index);
        }
    }

    fn ssrc_of(&self, rtx: bool) -> Option<u32> {
        if rtx { self.rtx_ssrc } else { self.ssrc }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::media::{HeaderFields, write_header};
    use crate::rtc::sdp::SimulcastLayer;

    const MID: u8 = 9;
    const RID: u8 = 10;
    const REPAIRED_RID: u8 = 11;
    const VIDEO: usize = 1;

    fn media(rids: &[&str]) -> Vec<Inbound> {
        let layer = |rid: &&str| SimulcastLayer { rid: (*rid).to_owned(), restricted_to: None, max_picture: None };
        let ids = ExtensionIds { mid: Some(MID), ..ExtensionIds::default() };
        let audio = StreamParameters {
            codec: Codec::Opus,
            payload_type: 111,
            fmtp: String::new(),
            rtx_payload_type: None,
            red: None,
            feedback: Feedback::default(),
            extensions: ids,
            directed_extensions: ExtensionIds::default(),
            remote_ssrc: Some(500),
            remote_rtx_ssrc: None,
            parameter_sets: Vec::new(),
            layers: Vec::new(),
        };
        let video = StreamParameters {
            codec: Codec::Vp8,
            payload_type: 96,
            rtx_payload_type: Some(97),
            extensions: ExtensionIds { rid: Some(RID), repaired_rid: Some(REPAIRED_RID), ..ids },
            remote_ssrc: None,
            layers: rids.iter().map(layer).collect(),
            ..audio.clone()
        };
        vec![Inbound::new(MediaKind::Audio, "a", &audio), Inbound::new(MediaKind::Video, "v", &video)]
    }

    fn routed(
        media: &mut [Inbound],
        payload_type: u8,
        ssrc: u32,
        elements: &[(u8, &str)],
    ) -> Option<(usize, usize, bool)> {
        let mut packet = [0; 100];
        let fields =
            HeaderFields { padding: false, marker: false, payload_type, sequence_number: 1, timestamp: 2, ssrc };
        let elements: Vec<(u8, &[u8])> = elements.iter().map(|(id, value)| (*id, value.as_bytes())).collect();
        let layout = write_header(&mut packet, &fields, &elements).expect("room");
        let packet = &packet[..layout.header_len];
        let header = RtpHeader::parse_header(packet).expect("as written");
        let route = route(media, Instant::now(), &header, packet)?;
        Some((route.medium, route.layer.0, route.rtx))
    }

    #[test]
    fn mid_goes_before_ssrc_and_ssrc_before_payload_type() {
        let mut media = media(&[]);
        assert_eq!(routed(&mut media, 96, 1, &[(MID, "v")]), Some((VIDEO, 0, false)));
        assert_eq!(routed(&mut media, 96, 1, &[]), Some((VIDEO, 0, false)), "learned");
        assert_eq!(routed(&mut media, 97, 2, &[]), Some((VIDEO, 0, true)), "by its payload type alone");
        assert_eq!(routed(&mut media, 96, 2, &[(MID, "x")]), None, "a mid that nobody negotiated");
        assert_eq!(routed(&mut media, 96, 1, &[(MID, "a")]), None, "a payload type of another section");
        assert_eq!(routed(&mut media, 96, 500, &[]), None, "an SSRC of another section");
        assert_eq!(routed(&mut media, 111, 500, &[]), Some((0, 0, false)), "announced");
        assert_eq!(routed(&mut media, 100, 3, &[]), None);
    }

    #[test]
    fn without_simulcast_the_first_ssrc_is_the_stream() {
        let mut media = media(&[]);
        assert_eq!(routed(&mut media, 96, 1, &[]), Some((VIDEO, 0, false)));
        assert_eq!(routed(&mut media, 96, 2, &[(MID, "v"), (RID, "q")]), None);
        assert_eq!(routed(&mut media, 111, 501, &[]), None, "another was announced");
    }

    #[test]
    fn layers_are_learned_by_rid_and_repairs_by_repaired_rid() {
        let mut media = media(&["q", "h", "f"]);
        assert_eq!(routed(&mut media, 96, 3, &[]), None, "nobody knows whose it is");
        for (n, rid) in ["q", "h", "f"].into_iter().enumerate() {
            let ssrc = 10 + n as u32;
            assert_eq!(routed(&mut media, 96, ssrc, &[(MID, "v"), (RID, rid)]), Some((VIDEO, n, false)));
            assert_eq!(routed(&mut media, 97, ssrc + 10, &[(MID, "v"), (REPAIRED_RID, rid)]), Some((VIDEO, n, true)));
        }
        // After a receiver report, neither is sent any more.
        assert_eq!(routed(&mut media, 96, 11, &[]), Some((VIDEO, 1, false)));
        assert_eq!(routed(&mut media, 97, 22, &[]), Some((VIDEO, 2, true)));
        assert_eq!(routed(&mut media, 97, 11, &[]), None, "a media SSRC with the payload type of RTX");
        assert_eq!(routed(&mut media, 96, 12, &[(MID, "v"), (RID, "q")]), None, "an SSRC of another layer");
        assert_eq!(routed(&mut media, 96, 30, &[(MID, "v"), (RID, "z")]), None, "a rid that was not offered");
    }

    #[test]
    fn a_layer_may_change_its_ssrc_now_and_then_and_begins_anew() {
        let mut media = media(&["q", "f"]);
        let accepted = (100..200u32).filter(|ssrc| routed(&mut media, 96, *ssrc, &[(RID, "f")]).is_some()).count();
        assert_eq!(accepted, 9, "the first, and eight changes at once");
        assert_eq!(routed(&mut media, 96, 108, &[]), Some((VIDEO, 1, false)));
        assert_eq!(routed(&mut media, 96, 107, &[]), None, "forgotten");
    }

    proptest! {
        /// Whatever an authenticated publisher invents, a packet goes where its names and its payload type say.
        #[test]
        fn no_packet_is_put_into_another_layer_than_it_names(
            packets in prop::collection::vec((0u8..4, 0u32..12, prop::option::of(0usize..4)), 1..200),
        ) {
            let rids = ["q", "h", "f", "z"];
            let mut media = media(&rids[..3]);
            for (payload_type, ssrc, rid) in packets {
                let payload_type = [96, 97, 111, 50][usize::from(payload_type)];
                let element = rid.map(|rid| (if payload_type == 97 { REPAIRED_RID } else { RID }, rids[rid]));
                let elements: Vec<(u8, &str)> = element.into_iter().collect();
                let Some((medium, layer, rtx)) = routed(&mut media, payload_type, ssrc, &elements) else { continue };
                prop_assert_eq!((medium == VIDEO, rtx), (payload_type != 111, payload_type == 97));
                prop_assert!(medium != VIDEO || rid.is_none_or(|rid| rid == layer));
                let mut bound: Vec<u32> =
                    media[VIDEO].layers.iter().flat_map(|layer| [layer.ssrc, layer.rtx_ssrc]).flatten().collect();
                bound.sort_unstable();
                prop_assert!(bound.windows(2).all(|pair| pair[0] != pair[1]), "an SSRC has one meaning");
            }
        }
    }
}
