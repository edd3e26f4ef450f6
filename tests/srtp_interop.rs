//! Our SRTP against an implementation that is not ours, both ways, with every profile.

use std::collections::BTreeMap;

use rtc_srtp::context::Context;
use rtc_srtp::protection_profile::ProtectionProfile;
use tableside::rtc::srtp::{MasterKey, Profile, RtcpOpener, RtcpSealer, RtpOpener, RtpSealer};

const PROFILES: [(Profile, ProtectionProfile); 3] = [
    (Profile::Aes128CmSha1_80, ProtectionProfile::Aes128CmHmacSha1_80),
    (Profile::AeadAes128Gcm, ProtectionProfile::AeadAes128Gcm),
    (Profile::AeadAes256Gcm, ProtectionProfile::AeadAes256Gcm),
];

fn keying(profile: Profile) -> (Vec<u8>, Vec<u8>) {
    let key = (0..profile.key_len()).map(|n| n as u8 * 7 + 1).collect();
    let salt = (0..profile.salt_len()).map(|n| n as u8 * 3 + 0x80).collect();
    (key, salt)
}

fn ours(profile: Profile) -> MasterKey {
    let (key, salt) = keying(profile);
    MasterKey::new(profile, &key, &salt).unwrap()
}

fn theirs(profile: Profile, name: ProtectionProfile) -> Context {
    let (key, salt) = keying(profile);
    let provider = rtc_srtp::crypto::default_provider().unwrap();
    Context::new(&key, &salt, name, None, None, provider.crypto()).unwrap()
}

/// A packet whose header, extension, payload and padding vary with its index.
struct Rtp {
    header: Vec<u8>,
    payload: Vec<u8>,
    padding: Vec<u8>,
}

impl Rtp {
    fn new(ssrc: u32, index: u64) -> Self {
        let padding = match index % 5 {
            0 => vec![],
            n => [vec![0; n as usize - 1], vec![n as u8]].concat(),
        };
        let extension = !index.is_multiple_of(3);
        let mut header = vec![0x80 | u8::from(extension) << 4 | u8::from(!padding.is_empty()) << 5, 96];
        header.extend((index as u16).to_be_bytes());
        header.extend((index as u32).wrapping_mul(3000).to_be_bytes());
        header.extend(ssrc.to_be_bytes());
        if extension {
            header.extend([0xbe, 0xde, 0, 1, 0x31, index as u8, (index >> 8) as u8, 0]);
        }
        let payload = (0..(index * 37) % 1200 + 1).map(|n| (n ^ index) as u8).collect();
        Self { header, payload, padding }
    }

    fn clear(&self) -> Vec<u8> {
        [&self.header[..], &self.payload, &self.padding].concat()
    }
}

/// Indices over two rollovers, every fifth lost.
fn indices() -> Vec<u64> {
    let near_the_end = 0x0_ffc0..0x1_0040;
    let near_the_second = 0x1_ffc0..0x2_0040;
    // Steps below half the sequence space, without which no receiver can follow.
    let between = (0x1_0040..0x1_ffc0).step_by(5000);
    near_the_end.chain(between).chain(near_the_second).filter(|n| n % 5 != 3).collect()
}

/// The same in the order of arrival: threes in the wrong order, over the rollovers too, wherever they lie close together.
/// The very first stays first: it begins the receiver's count of rollovers.
fn arrivals() -> Vec<u64> {
    let mut indices = indices();
    indices[1..].chunks_mut(3).filter(|chunk| chunk[chunk.len() - 1] - chunk[0] < 64).for_each(|chunk| chunk.reverse());
    indices
}

#[test]
fn they_open_the_rtp_we_seal() {
    for (profile, name) in PROFILES {
        let (sealer, mut opener) = (RtpSealer::new(&ours(profile)), theirs(profile, name));
        for index in arrivals() {
            let rtp = Rtp::new(0xcafe_0001, index);
            let mut out = vec![0xaa; 1500];
            out[..rtp.header.len()].copy_from_slice(&rtp.header);
            let roc = (index >> 16) as u32;
            let len = sealer.seal(roc, &mut out, rtp.header.len(), &rtp.payload, &rtp.padding);
            let opened = opener.decrypt_rtp(&out[..len]).unwrap_or_else(|e| panic!("{profile:?} {index:#x}: {e}"));
            assert_eq!(opened, rtp.clear(), "{profile:?} {index:#x}");
        }
    }
}

#[test]
fn we_open_the_rtp_they_seal() {
    for (profile, name) in PROFILES {
        let (mut sealer, mut opener) = (theirs(profile, name), RtpOpener::new(&ours(profile)));
        // Their sealer counts rollovers itself, so it is fed in order; what is lost and reordered comes after it.
        let mut protected: BTreeMap<u64, Vec<u8>> = indices()
            .into_iter()
            .map(|index| (index, sealer.encrypt_rtp(&Rtp::new(0xcafe_0002, index).clear()).unwrap().to_vec()))
            .collect();
        for index in arrivals().into_iter().filter(|index| index % 7 != 1) {
            let (rtp, bytes) = (Rtp::new(0xcafe_0002, index), protected.get_mut(&index).unwrap());
            let opened = opener.open(bytes, rtp.header.len()).unwrap_or_else(|e| panic!("{profile:?} {index:#x}: {e}"));
            assert_eq!(opened.index, index);
            assert_eq!(bytes[..opened.len], rtp.clear());
        }
    }
}

fn receiver_report(ssrc: u32, n: u32) -> Vec<u8> {
    let mut packet = vec![0x81, 201, 0, 7];
    packet.extend(ssrc.to_be_bytes());
    (0..6).for_each(|word| packet.extend((n * 1000 + word).to_be_bytes()));
    packet
}

#[test]
fn they_open_the_rtcp_we_seal() {
    for (profile, name) in PROFILES {
        let (mut sealer, mut opener) = (RtcpSealer::new(&ours(profile)), theirs(profile, name));
        for n in 0..20 {
            let clear = receiver_report(n % 3, n);
            let mut out = [0; 100];
            let len = sealer.seal(&clear, &mut out);
            assert_eq!(opener.decrypt_rtcp(&out[..len]).unwrap(), clear, "{profile:?} {n}");
        }
    }
}

#[test]
fn we_open_the_rtcp_they_seal() {
    for (profile, name) in PROFILES {
        let (mut sealer, mut opener) = (theirs(profile, name), RtcpOpener::new(&ours(profile)));
        for n in 0..20 {
            let clear = receiver_report(n % 3, n);
            let mut bytes = sealer.encrypt_rtcp(&clear).unwrap().to_vec();
            let len = opener.open(&mut bytes).unwrap_or_else(|e| panic!("{profile:?} {n}: {e}"));
            assert_eq!(bytes[..len], clear);
        }
    }
}
