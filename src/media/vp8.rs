//! VP8 payloads (RFC 7741), as far as a forwarder reads them.

use super::PayloadFacts;

/// Facts of a payload: the descriptor of RFC 7741 §4.2 and the first bit of the frame header (§4.3).
pub(super) fn facts(payload: &[u8]) -> PayloadFacts {
    read(payload).unwrap_or_default()
}

fn read(payload: &[u8]) -> Option<PayloadFacts> {
    let (&first, mut rest) = payload.split_first()?;
    let (extended, starts_partition, partition) = (first & 0x80 != 0, first & 0x10 != 0, first & 0x07);
    let temporal_layer = if extended { extension(&mut rest)? } else { None };
    let &frame_header = rest.first()?;
    let starts_frame = starts_partition && partition == 0;
    // RFC 7741 §4.3: the inverse key frame flag "P" is 0 for a key frame.
    let keyframe = starts_frame && frame_header & 0x01 == 0;
    Some(PayloadFacts { starts_frame, parameter_sets: keyframe, keyframe, temporal_layer, ..PayloadFacts::default() })
}

/// Steps over the descriptor's extension, `I L T K` and what they announce; the temporal layer where T says so.
fn extension(rest: &mut &[u8]) -> Option<Option<u8>> {
    let present = take(rest)?;
    if present & 0x80 != 0 && take(rest)? & 0x80 != 0 {
        // M: the picture id has 15 bits.
        take(rest)?;
    }
    if present & 0x40 != 0 {
        take(rest)?;
    }
    if present & 0x30 == 0 {
        return Some(None);
    }
    let layer = take(rest)? >> 6;
    Some((present & 0x20 != 0).then_some(layer))
}

fn take(rest: &mut &[u8]) -> Option<u8> {
    let (&byte, after) = rest.split_first()?;
    *rest = after;
    Some(byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_descriptor() {
        let key = facts(&[0x10, 0x50, 0x01]);
        assert!(key.starts_frame && key.keyframe && key.parameter_sets);
        let inter = facts(&[0x10, 0x51, 0x01]);
        assert!(inter.starts_frame && !inter.keyframe);
        let continuation = facts(&[0x00, 0x50, 0x01]);
        assert!(!continuation.starts_frame && !continuation.keyframe, "bit 0 means nothing behind the first packet");
        let second_partition = facts(&[0x11, 0x50]);
        assert!(!second_partition.starts_frame && !second_partition.keyframe);
    }

    #[test]
    fn extended_descriptor_with_every_field() {
        let long_id = [0x90, 0xf0, 0x81, 0x23, 0x07, 0x40, 0x50];
        let read = facts(&long_id);
        assert!(read.keyframe);
        assert_eq!(read.temporal_layer, Some(1));
        let short_id = facts(&[0x90, 0xe0, 0x23, 0x07, 0x80, 0x51]);
        assert!(short_id.starts_frame && !short_id.keyframe);
        assert_eq!(short_id.temporal_layer, Some(2));
    }

    #[test]
    fn key_index_without_layer_occupies_the_octet_but_names_no_layer() {
        let read = facts(&[0x90, 0x10, 0xc1, 0x50]);
        assert!(read.keyframe);
        assert_eq!(read.temporal_layer, None);
    }

    #[test]
    fn a_descriptor_that_is_cut_off_says_nothing() {
        let whole = [0x90, 0xf0, 0x81, 0x23, 0x07, 0x40, 0x50];
        for len in 0..whole.len() {
            assert_eq!(facts(&whole[..len]), PayloadFacts::default(), "{len} bytes");
        }
    }
}
