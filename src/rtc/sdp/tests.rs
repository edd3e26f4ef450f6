//! Offers of real clients (tests/fixtures/offers) and what we make of them.
//!
//! The offers of Chromium 156, Firefox ESR 153, FFmpeg 9.0.2, aiortc 1.16, simple-whip-client with GStreamer 1.22, npm
//! `whip-whep` 1.2.0, `@eyevinn/whip-web-client` 1.1.7, `@eyevinn/webrtc-player` 0.13.0 and `@roamhq/wrtc` 0.10.0 are captured
//! bodies (tools/interop/matrix keeps those it sees); those of OBS are written after what it is documented to send.

use std::net::SocketAddr;
use std::path::PathBuf;

use proptest::prelude::*;

use super::*;
use crate::media::{Codec, MediaKind};

macro_rules! fixtures {
    ($($constant:ident = $file:literal),+ $(,)?) => {
        $(const $constant: &str = include_str!(concat!("../../../tests/fixtures/offers/", $file));)+
        const ALL: &[(&str, &str)] = &[$(($file, $constant)),+];
    };
}

fixtures! {
    AIORTC_PLAYER = "aiortc-player.sdp",
    AIORTC_PUBLISHER = "aiortc-publisher.sdp",
    AIORTC_PUBLISHER_H264 = "aiortc-publisher-h264.sdp",
    CHROMIUM_PLAYER = "chromium-player.sdp",
    CHROMIUM_PLAYER_ALL_EXTENSIONS = "chromium-player-all-extensions.sdp",
    CHROMIUM_PUBLISHER = "chromium-publisher.sdp",
    CHROMIUM_PUBLISHER_AV1 = "chromium-publisher-av1.sdp",
    CHROMIUM_PUBLISHER_H264 = "chromium-publisher-h264.sdp",
    CHROMIUM_PUBLISHER_VP8 = "chromium-publisher-vp8.sdp",
    CHROMIUM_PUBLISHER_VP9 = "chromium-publisher-vp9.sdp",
    CHROMIUM_SIMULCAST = "chromium-simulcast.sdp",
    EYEVINN_PLAYER = "eyevinn-player.sdp",
    EYEVINN_PUBLISHER = "eyevinn-publisher.sdp",
    FFMPEG_PUBLISHER = "ffmpeg-publisher.sdp",
    FFMPEG_VIDEO_ONLY = "ffmpeg-video-only.sdp",
    FIREFOX_PLAYER = "firefox-player.sdp",
    FIREFOX_PUBLISHER = "firefox-publisher.sdp",
    GSTREAMER_PUBLISHER = "gstreamer-publisher.sdp",
    GSTREAMER_VIDEO_ONLY = "gstreamer-video-only.sdp",
    OBS_PUBLISHER = "obs-publisher.sdp",
    OBS_SIMULCAST = "obs-simulcast.sdp",
    RFC9725_EXAMPLE = "rfc9725-example.sdp",
    WHEP_DRAFT_EXAMPLE = "whep-draft-example.sdp",
    WHIP_WHEP_PLAYER = "whip-whep-player.sdp",
    WRTC_PLAYER = "wrtc-player.sdp",
}

fn offer(text: &str) -> Offer {
    Offer::parse(text.as_bytes()).unwrap()
}

fn publish(text: &str) -> Result<Negotiated, OfferError> {
    negotiate_publisher(&Offer::parse(text.as_bytes())?)
}

fn play(text: &str, table: &TableMedia) -> Result<Negotiated, OfferError> {
    negotiate_player(&Offer::parse(text.as_bytes())?, table)
}

fn h264_table() -> TableMedia {
    TableMedia::from(&publish(FFMPEG_PUBLISHER).unwrap())
}

fn vp8_table() -> TableMedia {
    TableMedia::from(&publish(FIREFOX_PUBLISHER).unwrap())
}

/// What a table sends whose publisher chose the first format of `codec` in Chromium's offer.
fn chromium_table(codec: Codec) -> TableMedia {
    TableMedia::from(&publish(&preferring(CHROMIUM_PUBLISHER, codec)).unwrap())
}

/// The offer after `setCodecPreferences` for `codec`: its formats stand first, in their order.
fn preferring(text: &str, codec: Codec) -> String {
    let parsed = offer(text);
    let video = parsed.sections.iter().find(|s| s.media == "video").unwrap();
    let is_preferred = |payload_type: &&str| {
        let format = video.formats.iter().find(|f| f.payload_type.to_string() == **payload_type).unwrap();
        format.encoding.is(codec.encoding_name(), codec.clock_rate())
    };
    let (mut first, rest): (Vec<_>, Vec<_>) = video.format_list.split(' ').partition(is_preferred);
    first.extend(rest);
    text.replace(&format!("SAVPF {}\r\n", video.format_list), &format!("SAVPF {}\r\n", first.join(" ")))
}

fn local() -> LocalDescription {
    LocalDescription {
        session_id: 0x9234_5678_9ABC_DEF0,
        ice: IceCredentials { ufrag: "AAMAAREBCxYh".into(), pwd: "ISw3Qk1YY255hI+apbC7xtHc".into() },
        fingerprint: std::array::from_fn(|i| i as u8 * 7),
        candidates: vec!["192.0.2.10:7000".parse().unwrap(), "[2001:db8::10]:7000".parse().unwrap()],
        tcp_candidates: true,
        video_ssrc: 1001,
        video_rtx_ssrc: 1002,
        audio_ssrc: 1003,
        stream_id: "roulette-1".into(),
        max_message_size: 65_536,
    }
}

fn video(negotiated: &Negotiated) -> &StreamParameters {
    negotiated.stream(MediaKind::Video).unwrap().1
}

fn audio(negotiated: &Negotiated) -> &StreamParameters {
    negotiated.stream(MediaKind::Audio).unwrap().1
}

/// Compares with tests/fixtures/answers; `TABLESIDE_BLESS=1` writes the files instead.
fn assert_snapshot(name: &str, answer: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/answers").join(name);
    if std::env::var_os("TABLESIDE_BLESS").is_some() {
        std::fs::write(&path, answer).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap();
    assert!(answer == expected, "{name} differs; the answer now is:\n{answer}");
}

/// What every answer owes its offer, whatever was agreed.
fn assert_answers(offer: &Offer, answer: &str) {
    assert!(answer.starts_with("v=0\r\n") && answer.ends_with("\r\n"));
    assert!(!answer.replace("\r\n", "").contains(['\r', '\n']));
    let answered = Offer::parse(answer.as_bytes()).unwrap();
    assert!(answered.ice_lite);
    assert_eq!(answered.sections.len(), offer.sections.len());
    for (ours, theirs) in answered.sections.iter().zip(&offer.sections) {
        assert_eq!((&ours.media, &ours.mid), (&theirs.media, &theirs.mid));
        let bundled = ours.mid.as_ref().is_some_and(|mid| answered.bundle.contains(mid));
        assert_eq!(bundled, ours.port != 0 && !offer.bundle.is_empty());
        for format in ours.formats.iter().filter(|_| ours.port != 0) {
            let offered = theirs.formats.iter().find(|f| f.payload_type == format.payload_type).unwrap();
            assert_eq!(offered.encoding.name.to_lowercase(), format.encoding.name.to_lowercase());
        }
        for extension in &ours.extensions {
            assert!(theirs.extensions.iter().any(|e| (e.id, &e.uri) == (extension.id, &extension.uri)));
        }
        assert!(ours.extmap_allow_mixed <= theirs.extmap_allow_mixed);
        assert!(ours.rtcp_rsize <= theirs.rtcp_rsize);
    }
}

#[test]
fn every_fixture_is_listed_and_parses() {
    let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/offers");
    let mut files: Vec<_> = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    files.sort();
    let mut listed: Vec<_> = ALL.iter().map(|(file, _)| *file).collect();
    listed.sort();
    assert_eq!(files, listed);
    for (file, text) in ALL {
        assert!(Offer::parse(text.as_bytes()).is_ok(), "{file}");
    }
}

#[test]
fn answers_to_publishers() {
    for (name, text) in [
        ("ffmpeg-publisher.sdp", FFMPEG_PUBLISHER),
        ("chromium-publisher.sdp", CHROMIUM_PUBLISHER),
        ("obs-publisher.sdp", OBS_PUBLISHER),
        ("gstreamer-publisher.sdp", GSTREAMER_PUBLISHER),
        ("chromium-simulcast.sdp", CHROMIUM_SIMULCAST),
        ("obs-simulcast.sdp", OBS_SIMULCAST),
        ("gstreamer-video-only.sdp", GSTREAMER_VIDEO_ONLY),
        ("aiortc-publisher.sdp", AIORTC_PUBLISHER),
        ("aiortc-publisher-h264.sdp", AIORTC_PUBLISHER_H264),
        ("chromium-publisher-h264.sdp", CHROMIUM_PUBLISHER_H264),
        ("chromium-publisher-vp8.sdp", CHROMIUM_PUBLISHER_VP8),
        ("chromium-publisher-vp9.sdp", CHROMIUM_PUBLISHER_VP9),
        ("chromium-publisher-av1.sdp", CHROMIUM_PUBLISHER_AV1),
        ("eyevinn-publisher.sdp", EYEVINN_PUBLISHER),
    ] {
        let answer = write_answer(&publish(text).unwrap(), &local());
        assert_answers(&offer(text), &answer);
        assert_snapshot(name, &answer);
    }
}

#[test]
fn answers_to_players() {
    for (name, text, table) in [
        ("chromium-player-h264.sdp", CHROMIUM_PLAYER, h264_table()),
        ("firefox-player-vp8.sdp", FIREFOX_PLAYER, vp8_table()),
        ("aiortc-player-vp8.sdp", AIORTC_PLAYER, vp8_table()),
        ("chromium-player-vp9.sdp", CHROMIUM_PLAYER, chromium_table(Codec::Vp9)),
        ("firefox-player-av1.sdp", FIREFOX_PLAYER, chromium_table(Codec::Av1)),
        ("eyevinn-player-h264.sdp", EYEVINN_PLAYER, h264_table()),
        ("whip-whep-player-h264.sdp", WHIP_WHEP_PLAYER, h264_table()),
        ("wrtc-player-vp8.sdp", WRTC_PLAYER, vp8_table()),
    ] {
        let answer = write_answer(&play(text, &table).unwrap(), &local());
        assert_answers(&offer(text), &answer);
        assert_snapshot(name, &answer);
    }
}

#[test]
fn chromium_player_takes_h264_of_the_same_profile() {
    let negotiated = play(CHROMIUM_PLAYER, &h264_table()).unwrap();
    let stream = video(&negotiated);
    assert_eq!((stream.codec, stream.payload_type, stream.rtx_payload_type), (Codec::H264, 102, Some(103)));
    assert_eq!(stream.fmtp, "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42001f");
    let expected = Feedback { nack: true, pli: true, fir: true, transport_cc: true, remb: false };
    assert_eq!(stream.feedback, expected);
    let ids = ExtensionIds { mid: Some(9), transport_cc: Some(4), playout_delay: Some(5), ..Default::default() };
    assert_eq!((stream.extensions, stream.directed_extensions), (ids, ExtensionIds::default()));
    assert_eq!(negotiated.dtls_role, DtlsRole::Server);
    assert_eq!(negotiated.remote_ice.ufrag, "Dm7Q");
    let data = negotiated.data().unwrap();
    assert_eq!((data.remote_sctp_port, data.remote_max_message_size), (5000, 262_144));
    assert!(negotiated.extmap_allow_mixed && !negotiated.offered_tls_id);
}

#[test]
fn the_closest_profile_is_taken() {
    let payload_type = |profile: &str| {
        let fmtp = format!("packetization-mode=1;profile-level-id={profile}");
        let table = TableMedia { video: Some((Codec::H264, fmtp)), ..Default::default() };
        play(CHROMIUM_PLAYER, &table).map(|negotiated| video(&negotiated).payload_type)
    };
    assert_eq!(payload_type("42e02a"), Ok(108));
    assert_eq!(payload_type("42c01f"), Ok(102));
    assert_eq!(payload_type("4d0028"), Ok(116));
    assert_eq!(payload_type("640028"), Ok(41), "High is decoded by High 4:4:4 Predictive, which is all there is");
}

/// Chromium on a machine with an encoder and decoder for H.265 in hardware; the lines as it writes them there.
fn with_hardware_h265(text: &str) -> String {
    let lines = "a=rtpmap:50 H265/90000\r\na=rtcp-fb:50 goog-remb\r\na=rtcp-fb:50 transport-cc\r\na=rtcp-fb:50 ccm fir\r\n\
        a=rtcp-fb:50 nack\r\na=rtcp-fb:50 nack pli\r\na=fmtp:50 level-id=180;profile-id=1;tier-flag=0;tx-mode=SRST\r\n\
        a=rtpmap:51 rtx/90000\r\na=fmtp:51 apt=50\r\n\
        a=rtpmap:52 H265/90000\r\na=rtcp-fb:52 nack\r\na=fmtp:52 level-id=180;profile-id=2;tier-flag=0;tx-mode=SRST\r\n";
    let (head, tail) = text.split_once("a=rtpmap:96 VP8/90000\r\n").unwrap();
    let head = head.replace("SAVPF 96 ", "SAVPF 96 50 51 52 ");
    format!("{head}{lines}a=rtpmap:96 VP8/90000\r\n{tail}")
}

#[test]
fn every_codec_of_a_chromium_publisher_is_played_by_chromium() {
    let publisher = with_hardware_h265(CHROMIUM_PUBLISHER);
    let player = with_hardware_h265(CHROMIUM_PLAYER);
    let cases = [
        (Codec::Vp8, 96, ""),
        (Codec::Vp9, 98, "profile-id=0"),
        (Codec::Av1, 45, "profile=0;level-idx=5;tier=0"),
        (Codec::H264, 102, "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42001f"),
        (Codec::H265, 50, "profile-id=1;tier-flag=0;level-id=180;tx-mode=SRST"),
    ];
    for (codec, payload_type, fmtp) in cases {
        let offered = preferring(&publisher, codec);
        let published = publish(&offered).unwrap();
        let stream = video(&published);
        assert_eq!((stream.codec, stream.payload_type, stream.fmtp.as_str()), (codec, payload_type, fmtp));
        assert!(stream.rtx_payload_type.is_some() && stream.feedback.nack && stream.feedback.pli, "{codec}");
        assert_answers(&offer(&offered), &write_answer(&published, &local()));

        let played = play(&player, &TableMedia::from(&published)).unwrap();
        let stream = video(&played);
        assert_eq!((stream.codec, stream.payload_type, stream.fmtp.as_str()), (codec, payload_type, fmtp));
        let answer = write_answer(&played, &local());
        assert_answers(&offer(&player), &answer);
        assert_eq!(answer.matches("/90000\r\n").count(), 2, "{codec} and its RTX, nothing else: {answer}");
    }
}

#[test]
fn firefox_plays_vp9_and_av1_whose_parameters_it_leaves_to_the_default() {
    for (codec, payload_type) in [(Codec::Vp9, 121), (Codec::Av1, 99)] {
        let played = play(FIREFOX_PLAYER, &chromium_table(codec)).unwrap();
        let stream = video(&played);
        assert_eq!((stream.codec, stream.payload_type, stream.fmtp.as_str()), (codec, payload_type, ""));
    }
}

#[test]
fn a_profile_that_nobody_offers_is_named_on_both_sides() {
    let refused = |codec, fmtp: &str| {
        let table = TableMedia { video: Some((codec, fmtp.into())), ..Default::default() };
        play(FIREFOX_PLAYER, &table).unwrap_err().to_string()
    };
    let offers = "the offer has VP8, VP9 (profile-id=0), AV1 (profile=0)";
    let section = "section 1 (video, mid 0): the table sends";
    assert_eq!(refused(Codec::Vp9, "profile-id=2"), format!("{section} VP9 (profile-id=2), {offers}"));
    assert_eq!(refused(Codec::Av1, "profile=1"), format!("{section} AV1 (profile=1), {offers}"));
    let h265 = refused(Codec::H265, "profile-id=1;tx-mode=SRST");
    assert_eq!(h265, format!("{section} H265 (profile-id=1, tier-flag=0), {offers}"));
}

#[test]
fn a_publisher_of_nothing_that_is_forwarded_is_told_what_is() {
    let only = "m=video 9 UDP/TLS/RTP/SAVPF 34 104\r\n";
    let (head, tail) = CHROMIUM_PUBLISHER.split_once("m=video").unwrap();
    let tail = tail.split_once("\r\n").unwrap().1;
    let text = format!("{head}{only}a=rtpmap:34 H263/90000\r\n{tail}");
    assert_eq!(
        publish(&text).unwrap_err().to_string(),
        "section 2 (video, mid 1): this node forwards H264 with packetization-mode=1, H265 with tx-mode=SRST, VP8, VP9 \
         and AV1, the offer has H263, H264 (profile-level-id=42001f, packetization-mode=0)"
    );
}

/// Chromium after `setCodecPreferences` with RED before Opus.
fn preferring_red(text: &str) -> String {
    let preferred = text.replace("SAVPF 111 63 ", "SAVPF 63 111 ");
    assert_ne!(preferred, text);
    preferred
}

#[test]
fn red_is_answered_in_the_order_of_the_offer() {
    let published = publish(CHROMIUM_PUBLISHER).unwrap();
    assert_eq!(audio(&published).red, Some(Red { payload_type: 63, blocks: 2, preferred: false }));
    assert!(write_answer(&published, &local()).contains("m=audio 9 UDP/TLS/RTP/SAVPF 111 63\r\n"));
    let preferred = preferring_red(CHROMIUM_PUBLISHER);
    let published = publish(&preferred).unwrap();
    assert_eq!((audio(&published).codec, audio(&published).payload_type), (Codec::Opus, 111));
    let answer = write_answer(&published, &local());
    assert_answers(&offer(&preferred), &answer);
    let lines = "a=rtpmap:63 red/48000/2\r\na=fmtp:63 111/111\r\n";
    assert!(answer.contains("m=audio 9 UDP/TLS/RTP/SAVPF 63 111\r\n") && answer.contains(lines), "{answer}");
    assert_snapshot("chromium-publisher-red.sdp", &answer);
}

#[test]
fn a_player_gets_red_where_the_table_has_it() {
    let table = TableMedia::from(&publish(CHROMIUM_PUBLISHER).unwrap());
    assert_eq!(audio(&play(CHROMIUM_PLAYER, &table).unwrap()).red.as_ref().map(|red| red.payload_type), Some(63));
    assert_eq!(audio(&play(FIREFOX_PLAYER, &table).unwrap()).red, None, "not offered");
    let without = TableMedia { red: false, ..table };
    assert_eq!(audio(&play(CHROMIUM_PLAYER, &without).unwrap()).red, None);
    assert!(!write_answer(&play(CHROMIUM_PLAYER, &without).unwrap(), &local()).contains("red/"));
}

#[test]
fn players_of_a_table_with_layers_report_more_often() {
    let one = TableMedia::from(&publish(CHROMIUM_PUBLISHER).unwrap());
    let answer = |table: &TableMedia| write_answer(&play(CHROMIUM_PLAYER, table).unwrap(), &local());
    assert!(!one.layers && answer(&one).contains("b=TIAS:43000\r\n"));
    let several = TableMedia { layers: true, ..one };
    assert!(answer(&several).contains("b=TIAS:120000\r\n") && !answer(&several).contains("43000"));
    let simulcast = publish(CHROMIUM_SIMULCAST).unwrap();
    assert!(TableMedia::from(&simulcast).layers);
}

#[test]
fn red_of_another_codec_is_left_out() {
    for (from, to) in
        [("fmtp:63 111/111", "fmtp:63 111/9"), ("fmtp:63 111/111", "fmtp:63 x"), ("red/48000/2", "red/8000")]
    {
        let text = CHROMIUM_PUBLISHER.replace(from, to);
        assert_eq!(audio(&publish(&text).unwrap()).red, None, "{to}");
    }
}

const DESCRIPTOR: &str = "https://aomediacodec.github.io/av1-rtp-spec/#dependency-descriptor-rtp-header-extension";

#[test]
fn the_dependency_descriptor_needs_the_two_byte_form() {
    let negotiated = play(CHROMIUM_PLAYER_ALL_EXTENSIONS, &vp8_table()).unwrap();
    assert_eq!(video(&negotiated).extensions.dependency_descriptor, Some(17));
    assert!(write_answer(&negotiated, &local()).contains(&format!("a=extmap:17 {DESCRIPTOR}\r\n")));
    let one_form = CHROMIUM_PLAYER_ALL_EXTENSIONS.replace("a=extmap-allow-mixed\r\n", "");
    assert_eq!(video(&play(&one_form, &vp8_table()).unwrap()).extensions.dependency_descriptor, None);
    let encrypted = CHROMIUM_PLAYER_ALL_EXTENSIONS
        .replace("a=extmap:17 https", "a=extmap:17 urn:ietf:params:rtp-hdrext:encrypt https");
    assert_eq!(video(&play(&encrypted, &vp8_table()).unwrap()).extensions.dependency_descriptor, None);
}

#[test]
fn abs_send_time_is_for_those_without_transport_wide_feedback() {
    assert_eq!(video(&play(CHROMIUM_PLAYER, &vp8_table()).unwrap()).extensions.abs_send_time, None);
    let aiortc = play(AIORTC_PLAYER, &vp8_table()).unwrap();
    assert!(video(&aiortc).feedback.remb && video(&aiortc).extensions.abs_send_time.is_some());
}

#[test]
fn parameter_sets_of_the_offer_are_the_tables() {
    let sprop = "packetization-mode=1;sprop-parameter-sets=Z0LAHg==,aM48gA==";
    let text = FFMPEG_PUBLISHER.replace("packetization-mode=1", sprop);
    assert_ne!(text, FFMPEG_PUBLISHER);
    let published = publish(&text).unwrap();
    assert_eq!(
        TableMedia::from(&published).parameter_sets,
        [vec![0x67, 0x42, 0xc0, 0x1e], vec![0x68, 0xce, 0x3c, 0x80]]
    );
    assert!(!write_answer(&published, &local()).contains("sprop"));
}

#[test]
fn encrypted_extensions_are_left_alone() {
    let negotiated = play(CHROMIUM_PLAYER_ALL_EXTENSIONS, &h264_table()).unwrap();
    let stream = video(&negotiated);
    assert_eq!((stream.extensions.abs_capture_time, stream.extensions.mid), (Some(9), Some(4)));
    let answer = write_answer(&negotiated, &local());
    assert!(!answer.contains("encrypt"));
    let encrypted =
        CHROMIUM_PLAYER_ALL_EXTENSIONS.replace("a=extmap:9 http", "a=extmap:9 urn:ietf:params:rtp-hdrext:encrypt http");
    assert_eq!(video(&play(&encrypted, &h264_table()).unwrap()).extensions.abs_capture_time, None);
}

#[test]
fn firefox_player_reads_session_level_and_reverses_directions() {
    let negotiated = play(FIREFOX_PLAYER, &vp8_table()).unwrap();
    let stream = video(&negotiated);
    assert_eq!((stream.codec, stream.payload_type, stream.rtx_payload_type), (Codec::Vp8, 120, Some(124)));
    assert_eq!(negotiated.remote_fingerprints.len(), 1);
    assert_eq!(stream.directed_extensions, ExtensionIds { playout_delay: Some(6), ..Default::default() });
    assert_eq!(audio(&negotiated).fmtp, "stereo=1");
    let answer = write_answer(&negotiated, &local());
    assert!(answer.contains("a=extmap:6/sendonly http://www.webrtc.org/experiments/rtp-hdrext/playout-delay\r\n"));
    assert_eq!(negotiated.data().unwrap().remote_max_message_size, 1_073_741_823);
}

#[test]
fn firefox_without_h264_is_told_so() {
    let Err(OfferError::NoCommonCodec(reason)) = play(FIREFOX_PLAYER, &h264_table()) else {
        panic!("no codec in common");
    };
    assert_eq!(
        reason,
        "section 1 (video, mid 0): the table sends H264 (profile-level-id=42001e, packetization-mode=1), \
         the offer has VP8, VP9 (profile-id=0), AV1 (profile=0)"
    );
}

#[test]
fn firefox_publisher_ignores_extensions_it_only_receives() {
    let negotiated = publish(FIREFOX_PUBLISHER).unwrap();
    let stream = video(&negotiated);
    assert_eq!((stream.extensions.playout_delay, stream.extensions.mid), (None, Some(3)));
    assert_eq!((stream.remote_ssrc, stream.remote_rtx_ssrc), (Some(3_548_245_081), Some(1_308_997_800)));
}

#[test]
fn ffmpeg_is_the_dtls_server() {
    let negotiated = publish(FFMPEG_PUBLISHER).unwrap();
    assert_eq!(negotiated.dtls_role, DtlsRole::Client);
    let stream = video(&negotiated);
    assert_eq!((stream.payload_type, stream.rtx_payload_type), (106, Some(105)));
    assert_eq!((stream.remote_ssrc, stream.remote_rtx_ssrc), (Some(3_839_840_078), Some(3_839_840_079)));
    assert_eq!(stream.feedback, Feedback { nack: true, ..Default::default() });
    assert_eq!(audio(&negotiated).remote_ssrc, Some(3_839_840_077));

    let video_only = publish(FFMPEG_VIDEO_ONLY).unwrap();
    assert_eq!(video_only.stream(MediaKind::Video).unwrap().0, "1");
    assert!(write_answer(&video_only, &local()).contains("a=group:BUNDLE 1\r\n"));
    // Early builds list both mids whatever there is.
    let early = FFMPEG_VIDEO_ONLY.replace("BUNDLE 1", "BUNDLE 0 1");
    assert_eq!(publish(&early), Ok(video_only));
}

#[test]
fn the_offers_order_decides_for_a_publisher() {
    assert_eq!(video(&publish(CHROMIUM_PUBLISHER).unwrap()).codec, Codec::Vp8);
    let preferring_h264 = CHROMIUM_PUBLISHER.replace("SAVPF 96 97 102 103", "SAVPF 102 103 96 97");
    let negotiated = publish(&preferring_h264).unwrap();
    assert_eq!((video(&negotiated).codec, video(&negotiated).payload_type), (Codec::H264, 102));
}

#[test]
fn gstreamers_bundle_only_section_is_not_rejected() {
    let negotiated = publish(GSTREAMER_PUBLISHER).unwrap();
    assert_eq!(negotiated.stream(MediaKind::Audio).unwrap().0, "audio1");
    assert_eq!(audio(&negotiated).codec, Codec::Opus);
    let answer = write_answer(&negotiated, &local());
    assert!(answer.contains("m=audio 9 UDP/TLS/RTP/SAVPF 100\r\n") && !answer.contains("bundle-only"));
    // RFC 9143 §7.1.3 lets such a section leave its transport out.
    let bare = |attribute: &str, text: &str| {
        let (head, tail) = text.split_once("a=bundle-only\r\n").unwrap();
        let tail: String = tail.split_inclusive("\r\n").filter(|line| !line.starts_with(attribute)).collect();
        format!("{head}a=bundle-only\r\n{tail}")
    };
    let stripped = ["a=ice", "a=fingerprint", "a=setup", "a=rtcp-mux"]
        .iter()
        .fold(GSTREAMER_PUBLISHER.to_owned(), |t, a| bare(a, &t));
    assert_eq!(publish(&stripped).unwrap(), negotiated);
}

#[test]
fn aiortc_has_three_fingerprints_and_remb() {
    let negotiated = play(AIORTC_PLAYER, &vp8_table()).unwrap();
    let hashes: Vec<_> = negotiated.remote_fingerprints.iter().map(|f| f.hash).collect();
    assert_eq!(hashes, [FingerprintHash::Sha256, FingerprintHash::Sha384, FingerprintHash::Sha512]);
    assert!(video(&negotiated).feedback.remb && !video(&negotiated).feedback.transport_cc);
    assert!(!video(&publish(AIORTC_PUBLISHER).unwrap()).feedback.remb);
}

#[test]
fn all_layers_of_a_simulcast_are_accepted() {
    let negotiated = publish(CHROMIUM_SIMULCAST).unwrap();
    let stream = video(&negotiated);
    let rids: Vec<&str> = stream.layers.iter().map(|layer| layer.rid.as_str()).collect();
    assert_eq!((rids, stream.remote_ssrc), (vec!["q", "h", "f"], None));
    let ids = (stream.extensions.mid, stream.extensions.rid, stream.extensions.repaired_rid);
    assert_eq!(ids, (Some(9), Some(10), Some(11)));
    let answer = write_answer(&negotiated, &local());
    assert!(answer.contains("a=rid:q recv\r\na=rid:h recv\r\na=rid:f recv\r\na=simulcast:recv q;h;f\r\n"));

    let obs = publish(OBS_SIMULCAST).unwrap();
    assert_eq!(video(&obs).layers.len(), 3);
    assert_eq!(video(&obs).extensions.repaired_rid, None, "OBS has no RTX");
    assert!(write_answer(&obs, &local()).contains("a=simulcast:recv 0;1;2\r\n"), "all, or OBS refuses the answer");
}

#[test]
fn a_simulcast_whose_layers_cannot_be_told_apart_is_one_encoding() {
    let without = CHROMIUM_SIMULCAST.replace("urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id", "urn:x");
    let negotiated = publish(&without).unwrap();
    assert_eq!((&video(&negotiated).layers, video(&negotiated).extensions.repaired_rid), (&vec![], None));
    let answer = write_answer(&negotiated, &local());
    assert!(!answer.contains("simulcast") && !answer.contains("a=rid"));
}

#[test]
fn too_many_layers_are_refused() {
    let rids: Vec<String> = (0..7).map(|n| format!("a=rid:{n} send\r\n")).collect();
    let text = OBS_SIMULCAST.replace("a=rid:0 send\r\na=rid:1 send\r\na=rid:2 send\r\n", &rids.concat());
    let error = publish(&text.replace("send 0;1;2", "send 0;1;2;3;4;5;6")).unwrap_err().to_string();
    assert!(error.contains("(video, mid 1) has more than 6 simulcast layers"), "{error}");
    assert_eq!(video(&publish(&text.replace("send 0;1;2", "send 0;1;2;3;4;5")).unwrap()).layers.len(), 6);
}

#[test]
fn a_player_is_sent_no_simulcast() {
    let text = CHROMIUM_SIMULCAST.replace("a=sendonly", "a=sendrecv");
    let negotiated = play(&text, &TableMedia { audio: None, ..vp8_table() }).unwrap();
    assert!(video(&negotiated).layers.is_empty() && video(&negotiated).extensions.rid.is_none());
    assert!(!write_answer(&negotiated, &local()).contains("a=rid"));
}

#[test]
fn a_kind_that_the_table_lacks_is_inactive() {
    let table = TableMedia { audio: None, ..vp8_table() };
    let negotiated = play(CHROMIUM_PLAYER, &table).unwrap();
    assert!(negotiated.stream(MediaKind::Audio).is_none());
    let answer = write_answer(&negotiated, &local());
    assert_answers(&offer(CHROMIUM_PLAYER), &answer);
    assert!(answer.contains("m=audio 9 UDP/TLS/RTP/SAVPF 111\r\n"));
    assert!(answer.contains("a=inactive\r\n") && answer.contains("a=rtpmap:111 opus/48000/2\r\n"));
    assert!(answer.contains("a=group:BUNDLE 0 1 2\r\n"));
    assert!(!answer.contains("cname:roulette-1\r\na=ssrc:1003"));
}

#[test]
fn nothing_that_flows_is_no_common_codec() {
    let audio_only = TableMedia { video: None, ..vp8_table() };
    let error = play(&FFMPEG_VIDEO_ONLY.replace("sendonly", "recvonly"), &audio_only).unwrap_err();
    assert_eq!(error, OfferError::NoCommonCodec("the table sends opus, of which the offer receives nothing".into()));
}

#[test]
fn a_player_without_rtx_is_not_told_to_ask_for_repair() {
    let without = FIREFOX_PLAYER.replace("a=fmtp:124 apt=120\r\n", "");
    let negotiated = play(&without, &vp8_table()).unwrap();
    assert_eq!(video(&negotiated).rtx_payload_type, None);
    assert!(!video(&negotiated).feedback.nack && video(&negotiated).feedback.pli);
    assert!(!write_answer(&negotiated, &local()).contains("ssrc-group"));
}

#[test]
fn directions_that_do_not_fit_are_refused() {
    let unsupported = |result: Result<Negotiated, OfferError>| match result {
        Err(OfferError::Unsupported(reason)) => reason,
        other => panic!("expected a refusal, got {other:?}"),
    };
    for direction in ["recvonly", "inactive"] {
        let text = FFMPEG_PUBLISHER.replacen("a=sendonly", &format!("a={direction}"), 1);
        let reason = unsupported(publish(&text));
        assert!(reason.starts_with("section 1 (audio, mid 0) does not send"), "{reason}");
    }
    assert!(publish(&FFMPEG_PUBLISHER.replace("a=sendonly", "a=sendrecv")).is_ok());
    assert!(publish(&FFMPEG_PUBLISHER.replace("a=sendonly\r\n", "")).is_ok(), "the default is sendrecv");
    let reason = unsupported(play(FFMPEG_PUBLISHER, &h264_table()));
    assert!(reason.contains("a player offers a=recvonly"), "{reason}");
    assert!(play(&FFMPEG_PUBLISHER.replace("a=sendonly", "a=sendrecv"), &h264_table()).is_ok());
}

#[test]
fn session_level_direction_is_inherited() {
    let text = FFMPEG_PUBLISHER.replace("a=sendonly\r\n", "").replacen("t=0 0\r\n", "t=0 0\r\na=recvonly\r\n", 1);
    assert!(matches!(publish(&text), Err(OfferError::Unsupported(_))));
}

/// RFC 9143 §7.3: an answer groups only what the offer groups. With two sections and no group there are two transports.
#[test]
fn a_single_section_needs_no_bundle() {
    let answer = write_answer(&publish(GSTREAMER_VIDEO_ONLY).unwrap(), &local());
    assert!(!answer.contains("a=group:BUNDLE"), "{answer}");
    let without_group = GSTREAMER_PUBLISHER.replace("a=group:BUNDLE video0 audio1\r\n", "");
    let refusal = publish(&without_group).unwrap_err().to_string();
    assert!(refusal.contains("not in a=group:BUNDLE"), "{refusal}");
}

#[test]
fn refusals_name_the_section() {
    let cases = [
        ("a=group:BUNDLE 0 1", "a=group:LS 0 1", "section 1 (audio, mid 0) is not in a=group:BUNDLE"),
        ("a=mid:1", "a=x", "section 2 (video) has no a=mid"),
        ("a=rtcp-mux\r\n", "", "section 1 (audio, mid 0) has no a=rtcp-mux"),
        ("UDP/TLS/RTP/SAVPF 111", "RTP/AVP 111", "section 1 (audio, mid 0) uses RTP/AVP"),
        ("a=setup:passive", "a=setup:holdconn", "has a=setup:holdconn"),
        ("a=fingerprint:sha-256", "a=fingerprint:sha-1", "no fingerprint by SHA-256"),
        ("m=video 9", "m=text 9", "section 2 (text, mid 1) is neither audio, video"),
        ("m=audio 9", "m=video 9", "section 1 (video, mid 0)"),
        ("a=msid-semantic: WMS", "a=ice-lite", "neither side would start"),
    ];
    for (from, to, expected) in cases {
        let text = FFMPEG_PUBLISHER.replace(from, to);
        assert_ne!(text, FFMPEG_PUBLISHER);
        let error = publish(&text).unwrap_err();
        assert!(!matches!(error, OfferError::Malformed(_)), "{from} → {to}: {error:?}");
        assert!(error.to_string().contains(expected), "{from} → {to}: {error}");
    }
    let twice = format!("{FFMPEG_VIDEO_ONLY}{}", &FFMPEG_VIDEO_ONLY[FFMPEG_VIDEO_ONLY.find("m=").unwrap()..]);
    let twice = twice.replacen("a=mid:1", "a=mid:0", 1).replacen("BUNDLE 1", "BUNDLE 0 1", 1);
    let error = publish(&twice).unwrap_err().to_string();
    assert!(error.contains("section 2 (video, mid 1) is a second track"), "{error}");
}

#[test]
fn malformed_offers() {
    let cases: [(&str, String); 8] = [
        ("the body is not SDP", String::new()),
        ("the body is not SDP", "{\"sdp\":\"v=0\"}".into()),
        ("no m= section", "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\n".into()),
        ("two m= sections have a=mid:0", FFMPEG_PUBLISHER.replace("a=mid:1", "a=mid:0")),
        ("unusable a=mid:a b", FFMPEG_PUBLISHER.replace("a=mid:1", "a=mid:a b")),
        ("unreadable fingerprint", FFMPEG_PUBLISHER.replace("sha-256 D2:50", "sha-256 D2:5")),
        ("unreadable a=rtpmap", FFMPEG_PUBLISHER.replace("H264/90000", "H264")),
        ("a=ice-ufrag", FFMPEG_PUBLISHER.replace("f4e691f8", "f4")),
    ];
    for (expected, text) in cases {
        match publish(&text) {
            Err(OfferError::Malformed(reason)) => assert!(reason.contains(expected), "{reason}"),
            other => panic!("{expected}: {other:?}"),
        }
    }
    let no_format = CHROMIUM_PLAYER.replace("SAVPF 111 63 9 0 8 13 110 126", "SAVPF abc");
    let video_only = TableMedia { audio: None, ..vp8_table() };
    let expected = "section 2 (audio, mid 1) lists no payload type with an a=rtpmap";
    assert_eq!(play(&no_format, &video_only), Err(OfferError::Malformed(expected.into())));
}

#[test]
fn setup_decides_the_role() {
    let role = |setup: &str| publish(&FFMPEG_PUBLISHER.replace("a=setup:passive\r\n", setup)).unwrap().dtls_role;
    assert_eq!(role("a=setup:actpass\r\n"), DtlsRole::Server);
    assert_eq!(role("a=setup:active\r\n"), DtlsRole::Server);
    assert_eq!(role(""), DtlsRole::Server);
    assert_eq!(role("a=setup:PASSIVE\r\n"), DtlsRole::Client);
}

#[test]
fn tls_id_is_answered_only_if_offered() {
    let text = FFMPEG_PUBLISHER.replace("a=setup:passive\r\n", "a=setup:passive\r\na=tls-id:abcdefghijklmnopqrst\r\n");
    assert!(!write_answer(&publish(FFMPEG_PUBLISHER).unwrap(), &local()).contains("tls-id"));
    let answer = write_answer(&publish(&text).unwrap(), &LocalDescription { session_id: 7, ..local() });
    assert!(answer.contains("a=tls-id:00000000000000000007\r\n"));
}

#[test]
fn sections_that_are_refused_keep_their_place() {
    let section = "m=application 9 DTLS/SCTP 5000\r\nc=IN IP4 0.0.0.0\r\na=mid:2\r\na=sctpmap:5000 webrtc-datachannel 16\r\n\
        m=video 0 UDP/TLS/RTP/SAVPF 96\r\na=mid:3\r\na=rtpmap:96 VP8/90000\r\n";
    let text = format!("{}{section}", FFMPEG_PUBLISHER.replace("BUNDLE 0 1", "BUNDLE 0 1 2 3"));
    let negotiated = publish(&text).unwrap();
    let answer = write_answer(&negotiated, &local());
    assert_answers(&offer(&text), &answer);
    assert!(
        answer.contains("m=application 0 DTLS/SCTP 5000\r\n") && answer.contains("m=video 0 UDP/TLS/RTP/SAVPF 96\r\n")
    );
    assert!(answer.contains("a=group:BUNDLE 0 1\r\n"));
}

#[test]
fn payload_types_that_look_like_rtcp_are_not_taken() {
    let text = FIREFOX_PLAYER.replace("120", "72");
    assert!(matches!(play(&text, &vp8_table()), Err(OfferError::NoCommonCodec(_))));
}

#[test]
fn a_long_mid_is_kept_out_of_packets() {
    let mid = "0b6d5d3e-6f0a-4b8a-9a53-0f8a3f2f6c11";
    let text =
        CHROMIUM_PLAYER.replace("BUNDLE 0", &format!("BUNDLE {mid}")).replace("a=mid:0", &format!("a=mid:{mid}"));
    let negotiated = play(&text, &vp8_table()).unwrap();
    assert_eq!(video(&negotiated).extensions.mid, None);
    assert_eq!(negotiated.stream(MediaKind::Video).unwrap().0, mid);
}

#[test]
fn limits() {
    let sections = |count: usize| {
        let mut text = FFMPEG_VIDEO_ONLY.to_owned();
        (1..count).for_each(|_| text.push_str("m=video 0 UDP/TLS/RTP/SAVPF 96\r\n"));
        text
    };
    assert!(publish(&sections(32)).is_ok());
    assert!(matches!(publish(&sections(33)), Err(OfferError::Unsupported(_))));
    let attributes = |name: &str| format!("{FFMPEG_VIDEO_ONLY}{}", format!("a={name}:1 urn:x\r\n").repeat(512));
    assert!(matches!(publish(&attributes("extmap")), Err(OfferError::Unsupported(_))));
    assert!(publish(&attributes("candidate")).is_ok(), "what is not read does not count");
}

#[test]
fn names_cannot_break_the_answer() {
    let evil = LocalDescription { stream_id: "a b\r\na=x:\u{e9}".into(), ..local() };
    let answer = write_answer(&play(CHROMIUM_PLAYER, &vp8_table()).unwrap(), &evil);
    assert_answers(&offer(CHROMIUM_PLAYER), &answer);
    assert!(answer.contains("a=msid:a-b--a-x--- video\r\n"), "{answer}");
    let empty =
        LocalDescription { stream_id: String::new(), candidates: vec![SocketAddr::from(([0; 16], 1))], ..local() };
    assert!(write_answer(&play(CHROMIUM_PLAYER, &vp8_table()).unwrap(), &empty).contains("a=msid:- video\r\n"));
}

#[test]
fn candidates_differ_in_priority_and_follow_the_order() {
    let addresses = ["[::ffff:192.0.2.10]:7000", "198.51.100.10:7000", "[2001:db8::10]:7000"];
    let candidates = |tcp_candidates| {
        let candidates = addresses.map(|address| address.parse().unwrap()).to_vec();
        let local = LocalDescription { candidates, tcp_candidates, ..local() };
        let answer = write_answer(&publish(FFMPEG_VIDEO_ONLY).unwrap(), &local);
        answer.lines().filter(|line| line.starts_with("a=candidate")).map(str::to_owned).collect::<Vec<_>>()
    };
    let all = [
        "a=candidate:1 1 udp 2130706431 192.0.2.10 7000 typ host",
        "a=candidate:2 1 udp 2130706175 198.51.100.10 7000 typ host",
        "a=candidate:3 1 udp 2130705919 2001:db8::10 7000 typ host",
        "a=candidate:4 1 tcp 2124414975 192.0.2.10 7000 typ host tcptype passive",
        "a=candidate:5 1 tcp 2124414719 198.51.100.10 7000 typ host tcptype passive",
        "a=candidate:6 1 tcp 2124414463 2001:db8::10 7000 typ host tcptype passive",
    ];
    assert_eq!(candidates(true), all);
    assert_eq!(candidates(false), all[..3]);
}

/// A fixture with lines dropped, doubled, swapped or altered.
fn mutated() -> impl Strategy<Value = String> {
    let edit = (any::<prop::sample::Index>(), any::<prop::sample::Index>(), 0..5u8, any::<u8>());
    (0..ALL.len(), prop::collection::vec(edit, 1..6)).prop_map(|(fixture, edits)| {
        let mut lines: Vec<Vec<u8>> = ALL[fixture].1.split_inclusive("\r\n").map(|l| l.as_bytes().to_vec()).collect();
        for (at, other, kind, byte) in edits {
            let (at, other) = (at.index(lines.len()), other.index(lines.len()));
            match kind {
                0 if lines.len() > 1 => drop(lines.remove(at)),
                1 => lines.insert(at, lines[other].clone()),
                2 => lines.swap(at, other),
                3 => {
                    let position = other % lines[at].len();
                    lines[at][position] = byte & 0x7F;
                }
                _ => {
                    let length = other % lines[at].len();
                    lines[at].truncate(length + 1);
                }
            }
        }
        String::from_utf8(lines.concat()).unwrap()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = Offer::parse(&bytes);
    }

    #[test]
    fn arbitrary_lines_never_panic(lines in prop::collection::vec("[a-z]=[ -~]{0,40}", 0..30)) {
        let text = format!("v=0\r\nm=video 9 UDP/TLS/RTP/SAVPF 96\r\n{}", lines.join("\r\n"));
        let _ = publish(&text);
        let _ = play(&text, &TableMedia::default());
    }

    #[test]
    fn mutated_offers_never_panic_and_answers_fit(text in mutated()) {
        for negotiated in [publish(&text), play(&text, &h264_table()), play(&text, &vp8_table())] {
            match negotiated {
                Ok(negotiated) => assert_answers(&offer(&text), &write_answer(&negotiated, &local())),
                Err(error) => prop_assert!(!error.to_string().is_empty()),
            }
        }
    }
}
