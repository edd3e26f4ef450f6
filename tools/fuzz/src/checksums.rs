//! Checksums and signatures that no fuzzer guesses: put right, so that what lies behind them is reached.

use aws_lc_rs::hmac;

const STUN_HEADER_LEN: usize = 20;
const COOKIE: [u8; 4] = [0x21, 0x12, 0xA4, 0x42];

/// A STUN message of this type and with these attributes as they are, followed by MESSAGE-INTEGRITY, where there is a
/// password, and FINGERPRINT (RFC 8489 §14.5, §14.7).
pub(crate) fn stun(kind: u16, attributes: &[u8], password: Option<&str>) -> Vec<u8> {
    let mut message = kind.to_be_bytes().to_vec();
    message.extend([0, 0]);
    message.extend(COOKIE);
    message.extend([7; 12]);
    message.extend(attributes);
    message.resize(message.len().next_multiple_of(4), 0);
    if let Some(password) = password {
        set_length(&mut message, 24);
        let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, password.as_bytes());
        let tag = hmac::sign(&key, &message);
        message.extend([0x00, 0x08, 0, 20]);
        message.extend(tag.as_ref());
    }
    set_length(&mut message, 8);
    let crc = crc(&message, 0xEDB8_8320) ^ 0x5354_554E;
    message.extend([0x80, 0x28, 0, 4]);
    message.extend(crc.to_be_bytes());
    message
}

fn set_length(message: &mut [u8], more: usize) {
    let length = (message.len() - STUN_HEADER_LEN + more) as u16;
    message[2..4].copy_from_slice(&length.to_be_bytes());
}

/// Puts the CRC32c of an SCTP packet right (RFC 9260 §6.8).
pub(crate) fn sctp(packet: &mut [u8]) {
    if packet.len() >= 12 {
        packet[8..12].fill(0);
        let crc = crc(packet, 0x82F6_3B78);
        packet[8..12].copy_from_slice(&crc.to_le_bytes());
    }
}

/// A reflected CRC with this polynomial.
fn crc(bytes: &[u8], polynomial: u32) -> u32 {
    !bytes.iter().fold(!0_u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| crc >> 1 ^ (polynomial & (crc & 1).wrapping_neg()))
    })
}
