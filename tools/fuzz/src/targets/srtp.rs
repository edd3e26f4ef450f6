//! SRTP and SRTCP: what is sealed opens to the same, once; what is damaged, doubled or made up does not open.

use tableside::rtc::srtp::{MasterKey, Profile, RtcpOpener, RtcpSealer, RtpOpener, RtpSealer};

use crate::input::{Input, chunk, damage};

const PROFILES: [Profile; 3] = [Profile::Aes128CmSha1_80, Profile::AeadAes128Gcm, Profile::AeadAes256Gcm];
const HEADER_LEN: usize = 12;

struct Pair {
    rtp_sealer: RtpSealer,
    rtcp_sealer: RtcpSealer,
    rtp_opener: RtpOpener,
    rtcp_opener: RtcpOpener,
    /// Of a key that seals nothing: the fuzzer sees what is compared, and repeats a packet that was sealed.
    stranger: (RtpOpener, RtcpOpener),
}

/// The profile, then packets one after the other.
pub(crate) fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let profile = PROFILES[input.below(PROFILES.len())];
    let key = |byte| {
        MasterKey::new(profile, &vec![byte; profile.key_len()], &vec![9; profile.salt_len()]).expect("its lengths")
    };
    let (master, other) = (key(7), key(8));
    let mut pair = Pair {
        rtp_sealer: RtpSealer::new(&master),
        rtcp_sealer: RtcpSealer::new(&master),
        rtp_opener: RtpOpener::new(&master),
        rtcp_opener: RtcpOpener::new(&master),
        stranger: (RtpOpener::new(&other), RtcpOpener::new(&other)),
    };
    while !input.is_empty() {
        match input.byte() % 4 {
            0 => pair.hostile(&mut input),
            1 | 2 => pair.rtp(&mut input, profile),
            _ => pair.rtcp(&mut input, profile),
        }
    }
}

impl Pair {
    /// Nobody forges a tag of 80 bits or more.
    fn hostile(&mut self, input: &mut Input<'_>) {
        let (header_len, bytes) = (usize::from(input.byte()), input.chunk());
        assert!(self.stranger.0.open(&mut bytes.to_vec(), header_len).is_err());
        assert!(self.stranger.1.open(&mut bytes.to_vec()).is_err());
        let _ = self.rtp_opener.open(&mut bytes.to_vec(), header_len);
        let _ = self.rtcp_opener.open(&mut bytes.to_vec());
    }

    fn rtp(&mut self, input: &mut Input<'_>, profile: Profile) {
        let (sequence, ssrc, roc) = (input.word(), input.byte() % 20, u32::from(input.byte() % 3));
        let (in_place, is_damaged) = (input.flag(), input.flag());
        let payload = input.chunk();
        let mut clear = vec![0x80, 96];
        clear.extend(sequence.to_be_bytes());
        clear.extend([0, 0, 0, 1, 0, 0, 0, ssrc]);
        clear.extend(payload);
        let mut sealed = clear.clone();
        sealed.resize(clear.len() + profile.rtp_overhead(), 0xee);
        let len = if in_place {
            self.rtp_sealer.seal_in_place(roc, &mut sealed, HEADER_LEN, clear.len())
        } else {
            self.rtp_sealer.seal(roc, &mut sealed, HEADER_LEN, payload, &[])
        };
        assert_eq!(len, sealed.len());
        if is_damaged {
            let mut wrong = sealed.clone();
            damage(input, &mut wrong);
            if wrong != sealed {
                assert!(self.rtp_opener.open(&mut wrong, HEADER_LEN).is_err(), "a forged packet was opened");
            }
        }
        let mut packet = sealed.clone();
        if let Ok(opened) = self.rtp_opener.open(&mut packet, HEADER_LEN) {
            assert_eq!(packet[..opened.len], clear);
            assert_eq!(opened.index, u64::from(roc) << 16 | u64::from(sequence));
            assert!(self.rtp_opener.open(&mut sealed, HEADER_LEN).is_err(), "a packet was opened twice");
        }
    }

    fn rtcp(&mut self, input: &mut Input<'_>, profile: Profile) {
        let (is_damaged, clear) = (input.flag(), input.chunk());
        let mut sealed = vec![0; clear.len() + profile.rtcp_overhead()];
        let len = self.rtcp_sealer.seal(clear, &mut sealed);
        if len == 0 {
            return assert!(clear.len() < 8, "what is long enough is sealed");
        }
        assert_eq!(len, sealed.len());
        if is_damaged {
            let mut wrong = sealed.clone();
            damage(input, &mut wrong);
            if wrong != sealed {
                assert!(self.rtcp_opener.open(&mut wrong).is_err(), "a forged packet was opened");
            }
        }
        let mut packet = sealed.clone();
        if let Ok(opened) = self.rtcp_opener.open(&mut packet) {
            assert_eq!(packet[..opened], *clear);
        }
        assert!(self.rtcp_opener.open(&mut sealed).is_err(), "a packet was opened twice");
    }
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let rtp = |sequence: u16, ssrc, roc, damaged| {
        let mut op = vec![1];
        op.extend(sequence.to_be_bytes());
        op.extend([ssrc, roc, sequence as u8, damaged]);
        op.extend(chunk(super::payload::VP8_KEYFRAME));
        if damaged == 1 { [op, vec![0, 20, 1, 3]].concat() } else { op }
    };
    let reports = super::rtcp::compounds();
    let rtcp = |damaged, n: usize| {
        let op = [vec![3, damaged], chunk(&reports[n])].concat();
        if damaged == 1 { [op, vec![0, 20, 1, 3]].concat() } else { op }
    };
    let hostile = [vec![0, 12], chunk(&super::rtp::packets()[0])].concat();
    (0..3)
        .map(|profile| {
            let ops = [
                vec![profile],
                hostile.clone(),
                rtp(65_535, 1, 0, 0),
                rtp(0, 1, 1, 1),
                rtp(65_534, 1, 0, 0),
                rtp(3, 2, 0, 1),
                rtcp(0, 0),
                rtcp(1, 2),
            ];
            ops.concat()
        })
        .collect()
}
