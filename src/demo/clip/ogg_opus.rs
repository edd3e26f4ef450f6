//! Opus in Ogg (RFC 3533, RFC 7845), as far as a clip needs it: one logical stream, packets of 20 ms.

use bytes::{Bytes, BytesMut};

use super::ClipError;

/// Samples at 48 kHz in a packet of 20 ms.
const SAMPLES: u64 = 960;

const PAGE_HEADER: usize = 27;

/// The audio packets between pre-skip and end trimming, both rounded to whole packets: a loop has no use for halves.
pub(super) fn packets(file: &Bytes) -> Result<Vec<Bytes>, ClipError> {
    let stream = demultiplex(file)?;
    let mut packets = stream.packets.into_iter();
    let pre_skip = pre_skip(&packets.next().ok_or(ClipError::NotA("an Ogg Opus file"))?)?;
    let tags = packets.next().ok_or(ClipError::Truncated("the Opus headers"))?;
    if !tags.starts_with(b"OpusTags") {
        return Err(ClipError::NotA("an Ogg Opus file"));
    }
    let audible = stream.end_granule.checked_sub(pre_skip).ok_or(ClipError::Truncated("the pre-skip"))?;
    let whole = |samples: u64| usize::try_from((samples + SAMPLES / 2) / SAMPLES).unwrap_or(usize::MAX);
    let audio: Vec<Bytes> = packets.skip(whole(pre_skip)).take(whole(audible)).collect();
    if audio.iter().all(|packet| is_20_ms(packet)) {
        Ok(audio)
    } else {
        Err(ClipError::Unsupported("Opus packets that do not last 20 ms"))
    }
}

/// The pre-skip of an identification header (RFC 7845 §5.1), in samples at 48 kHz.
fn pre_skip(head: &[u8]) -> Result<u64, ClipError> {
    match head {
        [
            b'O',
            b'p',
            b'u',
            b's',
            b'H',
            b'e',
            b'a',
            b'd',
            version,
            channels,
            low,
            high,
            _,
            _,
            _,
            _,
            _,
            _,
            family,
            ..,
        ] => {
            // "Implementations SHOULD treat streams where the upper four bits of the version number are 0 as compatible."
            if version >> 4 != 0 || *family != 0 || !(1..=2).contains(channels) {
                return Err(ClipError::Unsupported("this layout of Opus channels"));
            }
            Ok(u16::from_le_bytes([*low, *high]).into())
        }
        _ => Err(ClipError::NotA("an Ogg Opus file")),
    }
}

/// Whether the TOC byte (RFC 6716 §3.1) promises 20 ms.
fn is_20_ms(packet: &[u8]) -> bool {
    let Some(toc) = packet.first() else { return false };
    let config = toc >> 3;
    // Tenths of a millisecond in each frame, table 2.
    let frame = match config {
        0..=11 => [100, 200, 400, 600][usize::from(config % 4)],
        12..=15 => [100, 200][usize::from(config % 2)],
        _ => [25, 50, 100, 200][usize::from(config % 4)],
    };
    let frames = match toc & 3 {
        0 => 1,
        1 | 2 => 2,
        _ => packet.get(1).map_or(0, |count| u32::from(count & 0x3f)),
    };
    frame * frames == 200
}

struct LogicalStream {
    packets: Vec<Bytes>,
    end_granule: u64,
}

fn demultiplex(file: &Bytes) -> Result<LogicalStream, ClipError> {
    let mut stream = LogicalStream { packets: Vec::new(), end_granule: 0 };
    let mut serial = None;
    let mut unfinished = BytesMut::new();
    let mut rest = file.clone();
    while !rest.is_empty() {
        let page = Page::take(&mut rest)?;
        if *serial.get_or_insert(page.serial) != page.serial {
            return Err(ClipError::Unsupported("several Ogg streams"));
        }
        // RFC 3533 §6: -1 where no packet ends on the page.
        if page.granule != u64::MAX {
            stream.end_granule = page.granule;
        }
        page.add_packets(&mut unfinished, &mut stream.packets);
    }
    if unfinished.is_empty() { Ok(stream) } else { Err(ClipError::Truncated("an Ogg packet")) }
}

/// RFC 3533 §6.
struct Page {
    granule: u64,
    serial: u32,
    lacing: Bytes,
    body: Bytes,
}

impl Page {
    fn take(rest: &mut Bytes) -> Result<Self, ClipError> {
        let header = rest.get(..PAGE_HEADER).ok_or(ClipError::Truncated("an Ogg page header"))?;
        if &header[..5] != b"OggS\0" {
            return Err(ClipError::NotA("an Ogg file"));
        }
        let mut granule = [0; 8];
        granule.copy_from_slice(&header[6..14]);
        let serial = u32::from_le_bytes([header[14], header[15], header[16], header[17]]);
        let checksum = u32::from_le_bytes([header[22], header[23], header[24], header[25]]);
        let body_at = PAGE_HEADER + usize::from(header[26]);
        let lacing = rest.get(PAGE_HEADER..body_at).ok_or(ClipError::Truncated("an Ogg page header"))?;
        let end = body_at + lacing.iter().map(|&size| usize::from(size)).sum::<usize>();
        if end > rest.len() {
            return Err(ClipError::Truncated("an Ogg page"));
        }
        let page = rest.split_to(end);
        if crc(&page) != checksum {
            return Err(ClipError::Checksum);
        }
        let lacing = page.slice(PAGE_HEADER..body_at);
        Ok(Self { granule: u64::from_le_bytes(granule), serial, lacing, body: page.slice(body_at..) })
    }

    /// Appends the packets that end here. Only one that began on an earlier page is copied.
    fn add_packets(mut self, unfinished: &mut BytesMut, packets: &mut Vec<Bytes>) {
        let mut len = 0;
        for &size in &self.lacing {
            len += usize::from(size);
            if size < 255 {
                let packet = self.body.split_to(len);
                len = 0;
                if unfinished.is_empty() {
                    packets.push(packet);
                } else {
                    unfinished.extend_from_slice(&packet);
                    packets.push(unfinished.split().freeze());
                }
            }
        }
        unfinished.extend_from_slice(&self.body);
    }
}

/// The page checksum: polynomial 0x04c11db7, not reflected, start and end 0, computed with its own field as zeros.
fn crc(page: &[u8]) -> u32 {
    page.iter().enumerate().fold(0, |crc, (i, &byte)| {
        let byte = if (22..26).contains(&i) { 0 } else { byte };
        crc << 8 ^ CRC_TABLE[usize::from((crc >> 24) as u8 ^ byte)]
    })
}

const CRC_TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut i = 0;
    while i < 256 {
        let mut crc = (i as u32) << 24;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 0x8000_0000 != 0 { crc << 1 ^ 0x04c1_1db7 } else { crc << 1 };
            bit += 1;
        }
        table[i] = crc;
        i += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn page(granule: u64, lacing: &[u8], body: &[u8]) -> Vec<u8> {
        let mut out = b"OggS\0\0".to_vec();
        out.extend(granule.to_le_bytes());
        out.extend([7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, lacing.len() as u8]);
        out.extend(lacing);
        out.extend(body);
        let checksum = crc(&out);
        out[22..26].copy_from_slice(&checksum.to_le_bytes());
        out
    }

    fn head(pre_skip: u16) -> Vec<u8> {
        let mut out = b"OpusHead\x01\x02".to_vec();
        out.extend(pre_skip.to_le_bytes());
        out.extend([0x80, 0xbb, 0, 0, 0, 0, 0]);
        out
    }

    /// All packets laced together and cut into pages of at most `segments` segments.
    fn file(pre_skip: u16, end: u64, audio: &[Vec<u8>], segments: usize) -> Bytes {
        let (mut lacing, mut body) = (Vec::new(), Vec::new());
        let headers = [head(pre_skip), b"OpusTags".to_vec()];
        for packet in headers.iter().chain(audio) {
            lacing.extend(std::iter::repeat_n(255, packet.len() / 255));
            lacing.push((packet.len() % 255) as u8);
            body.extend(packet);
        }
        let mut out = Vec::new();
        for chunk in lacing.chunks(segments) {
            let len = chunk.iter().map(|&size| usize::from(size)).sum();
            let rest = body.split_off(len);
            out.extend(page(end, chunk, &body));
            body = rest;
        }
        Bytes::from(out)
    }

    /// CELT, 20 ms, one frame: configuration 31.
    fn audio(count: usize) -> Vec<Vec<u8>> {
        (0..count).map(|i| vec![31 << 3 | 4, i as u8]).collect()
    }

    #[test]
    fn pre_skip_and_end_are_trimmed_in_whole_packets() {
        let parse = |pre_skip, end| packets(&file(pre_skip, end, &audio(8), 255)).map(|p| (p[0][1], p.len()));
        assert_eq!(parse(0, 8 * 960), Ok((0, 8)));
        assert_eq!(parse(312, 8 * 960), Ok((0, 8)), "312 samples are less than half a packet");
        assert_eq!(parse(3840, 8 * 960), Ok((4, 4)));
        assert_eq!(parse(960, 6 * 960), Ok((1, 5)));
        assert_eq!(packets(&file(960, 100, &audio(8), 255)), Err(ClipError::Truncated("the pre-skip")));
    }

    #[test]
    fn only_20_ms_packets_pass() {
        for (packet, ok) in [
            (vec![31 << 3], true),
            (vec![1 << 3], true),
            (vec![13 << 3], true),
            (vec![30 << 3 | 1], true),
            (vec![29 << 3 | 3, 4], true),
            (vec![30 << 3], false),
            (vec![31 << 3 | 1], false),
            (vec![2 << 3], false),
            (vec![31 << 3 | 3], false),
            (vec![], false),
        ] {
            assert_eq!(packets(&file(0, 960, std::slice::from_ref(&packet), 255)).is_ok(), ok, "{packet:?}");
        }
    }

    #[test]
    fn damage_is_noticed() {
        let whole = file(0, 960, &audio(1), 255);
        let mut flipped = whole.to_vec();
        *flipped.last_mut().unwrap() ^= 1;
        assert_eq!(packets(&Bytes::from(flipped)), Err(ClipError::Checksum));
        assert_eq!(packets(&whole.slice(..whole.len() - 1)), Err(ClipError::Truncated("an Ogg page")));
        assert_eq!(packets(&Bytes::from_static(b"DKIF")), Err(ClipError::Truncated("an Ogg page header")));
        assert_eq!(packets(&Bytes::from(page(0, &[4], b"what"))), Err(ClipError::NotA("an Ogg Opus file")));
        assert_eq!(packets(&Bytes::from(page(0, &[255], &[0; 255]))), Err(ClipError::Truncated("an Ogg packet")));
        assert_eq!(packets(&Bytes::new()), Err(ClipError::NotA("an Ogg Opus file")));
    }

    #[test]
    fn the_checksum_is_that_of_others() {
        // The published check value of CRC-32 with this polynomial, no reflection and zero start.
        let mut padded = vec![0; 26];
        padded.extend(b"123456789");
        assert_eq!(crc(&padded), 0x89a1_897f);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        #[test]
        fn packets_come_back_whatever_the_pages(
            sizes in proptest::collection::vec(0usize..700, 1..8),
            segments in 1usize..40,
        ) {
            let audio: Vec<Vec<u8>> = sizes.iter().enumerate().map(|(i, &size)| {
                let mut packet = vec![i as u8; size + 1];
                packet[0] = 31 << 3;
                packet
            }).collect();
            let parsed = packets(&file(0, 960 * audio.len() as u64, &audio, segments)).unwrap();
            prop_assert_eq!(parsed, audio);
        }

        #[test]
        fn no_file_panics(junk in proptest::collection::vec(any::<u8>(), 0..100), at in 0usize..200, byte in any::<u8>()) {
            let mut mutated = file(0, 960, &audio(4), 3).to_vec();
            let at = at % mutated.len();
            mutated[at] = byte;
            let _ = packets(&Bytes::from(mutated));
            let _ = packets(&Bytes::from(page(u64::MAX, &[junk.len() as u8], &junk)));
            let _ = packets(&Bytes::from(junk));
        }
    }
}
