//! What a ClientHello offers, as far as the choice of a version needs it (RFC 6347 §4.2.1, RFC 9147 §5.3, RFC 5764 §4.1).
//!
//! # Which version
//!
//! The newest that both sides speak, with one exception. RFC 5764 §4.1 lets the server choose the SRTP profile freely, but
//! `dimpl` 0.9 takes the *first* profile of the client's list that it knows when it serves DTLS 1.3, and the best one when
//! it serves 1.2. Chromium lists AES-CM with HMAC-SHA1 first, which costs four times the CPU of AES-GCM in every packet
//! for the whole session. So a client that speaks both versions, could have AES-GCM and would not get it with 1.3, is
//! served 1.2: today Chromium. Firefox lists AES-GCM first and gets 1.3.
//!
//! RFC 8446 §4.1.3 has a server of 1.3 that negotiates 1.2 mark its random, and a client that offered 1.3 end the
//! handshake when it sees the mark. Towards such a client we are a server of 1.2 alone, and set none. A third party cannot
//! bring this about: the Finished messages of 1.2 cover the ClientHello, list of profiles included.

use super::super::srtp::Profile;
use super::DtlsVersion;

/// The longest ClientHello that is read, bytes: with the handshake header it fits one record (RFC 6347 §4.1). Chromium's
/// and Firefox's have 1.4 KB, a post-quantum key share included.
pub(super) const MAX_HELLO: usize = (1 << 14) - 12;

const SUPPORTED_VERSIONS: u16 = 43;
const USE_SRTP: u16 = 14;

const DTLS_1_2: u16 = 0xfefd;
const DTLS_1_3: u16 = 0xfefc;

/// Why a handshake does not begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClientHelloError {
    /// A vector reaches past its end, has a forbidden length, or something follows the last one.
    #[error("malformed ClientHello")]
    Malformed,
    /// RFC 8446 §4.2: "There MUST NOT be more than one extension of the same type".
    #[error("an extension of the ClientHello appears twice")]
    Duplicate,
    /// Neither DTLS 1.2 nor 1.3 is offered.
    #[error("the client speaks neither DTLS 1.2 nor 1.3")]
    Version,
}

/// The offer in a ClientHello, borrowed from its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientHello<'a> {
    legacy_version: u16,
    supported_versions: Option<&'a [u8]>,
    srtp_profiles: &'a [u8],
}

impl<'a> ClientHello<'a> {
    /// Reads the body of a ClientHello, without its handshake header.
    ///
    /// # Errors
    /// [`ClientHelloError`], except for [`ClientHelloError::Version`].
    pub fn parse(body: &'a [u8]) -> Result<Self, ClientHelloError> {
        let mut body = Reader(body);
        let legacy_version = body.u16()?;
        let _random = body.take(32)?;
        let _session_id = body.vector8(0..=32)?;
        let _cookie = body.vector8(0..=255)?;
        let _cipher_suites = body.pairs16()?;
        let _compression_methods = body.vector8(1..=255)?;
        let mut hello = Self { legacy_version, supported_versions: None, srtp_profiles: &[] };
        if !body.0.is_empty() {
            hello.read_extensions(Reader(body.vector16()?))?;
        }
        body.end().map(|()| hello)
    }

    /// The version to serve: see the head of this file.
    ///
    /// # Errors
    /// [`ClientHelloError::Version`].
    pub fn version(&self) -> Result<DtlsVersion, ClientHelloError> {
        match (self.offers(DTLS_1_2), self.offers(DTLS_1_3)) {
            (_, true) if self.gets_the_best_profile_with_1_3() => Ok(DtlsVersion::Dtls13),
            (true, _) => Ok(DtlsVersion::Dtls12),
            (false, true) => Ok(DtlsVersion::Dtls13),
            (false, false) => Err(ClientHelloError::Version),
        }
    }

    /// Whether the client is none of those that are known to bring ECDSA certificates: encoders, which list AES-CM with
    /// HMAC-SHA1 and nothing better. A ClientHello does not say which certificate will come.
    pub fn may_bring_rsa(&self) -> bool {
        let mut profiles = self.srtp_profiles();
        profiles.next() == Some(Profile::Aes128CmSha1_80) && profiles.next().is_none()
    }

    /// The SRTP profiles that the client lists and we know, in its order.
    pub fn srtp_profiles(&self) -> impl Iterator<Item = Profile> {
        pairs(self.srtp_profiles).filter_map(Profile::from_id)
    }

    /// RFC 8446 §4.2.1: where supported_versions is present, a server "MUST use only the supported_versions extension";
    /// numbers in it that mean nothing here are skipped. Versions of DTLS count downwards.
    fn offers(&self, version: u16) -> bool {
        match self.supported_versions {
            Some(versions) => pairs(versions).any(|v| v == version),
            None => version == DTLS_1_2 && self.legacy_version <= DTLS_1_2,
        }
    }

    fn gets_the_best_profile_with_1_3(&self) -> bool {
        let is_gcm = |profile| matches!(profile, Profile::AeadAes128Gcm | Profile::AeadAes256Gcm);
        self.srtp_profiles().next().is_some_and(is_gcm) || !self.srtp_profiles().any(is_gcm)
    }

    fn read_extensions(&mut self, mut extensions: Reader<'a>) -> Result<(), ClientHelloError> {
        let mut srtp_profiles = None;
        while !extensions.0.is_empty() {
            let kind = extensions.u16()?;
            let mut data = Reader(extensions.vector16()?);
            let place = match kind {
                SUPPORTED_VERSIONS => &mut self.supported_versions,
                USE_SRTP => &mut srtp_profiles,
                _ => continue,
            };
            let list = match kind {
                SUPPORTED_VERSIONS => even(data.vector8(2..=254)?)?,
                _ => {
                    let profiles = data.pairs16()?;
                    let _mki = data.vector8(0..=255)?;
                    profiles
                }
            };
            data.end()?;
            if place.replace(list).is_some() {
                return Err(ClientHelloError::Duplicate);
            }
        }
        self.srtp_profiles = srtp_profiles.unwrap_or_default();
        Ok(())
    }
}

/// What is left to read.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], ClientHelloError> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or(ClientHelloError::Malformed)?;
        self.0 = rest;
        Ok(taken)
    }

    fn u16(&mut self) -> Result<u16, ClientHelloError> {
        self.take(2).map(|b| u16::from_be_bytes([b[0], b[1]]))
    }

    /// A vector with a length field of one byte.
    fn vector8(&mut self, allowed: std::ops::RangeInclusive<usize>) -> Result<&'a [u8], ClientHelloError> {
        let len = usize::from(self.take(1)?[0]);
        if allowed.contains(&len) { self.take(len) } else { Err(ClientHelloError::Malformed) }
    }

    /// A vector with a length field of two bytes.
    fn vector16(&mut self) -> Result<&'a [u8], ClientHelloError> {
        let len = self.u16()?;
        self.take(usize::from(len))
    }

    /// A vector of one or more 16-bit numbers.
    fn pairs16(&mut self) -> Result<&'a [u8], ClientHelloError> {
        let list = self.vector16()?;
        if list.is_empty() { Err(ClientHelloError::Malformed) } else { even(list) }
    }

    fn end(&self) -> Result<(), ClientHelloError> {
        if self.0.is_empty() { Ok(()) } else { Err(ClientHelloError::Malformed) }
    }
}

fn even(list: &[u8]) -> Result<&[u8], ClientHelloError> {
    if list.len().is_multiple_of(2) { Ok(list) } else { Err(ClientHelloError::Malformed) }
}

fn pairs(list: &[u8]) -> impl Iterator<Item = u16> {
    list.chunks_exact(2).map(|b| u16::from_be_bytes([b[0], b[1]]))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SHA1_80: u16 = 1;
    const GCM_128: u16 = 7;
    const GCM_256: u16 = 8;
    const TLS_1_2: u16 = 0x0303;

    fn vector8(bytes: &[u8]) -> Vec<u8> {
        [&[bytes.len() as u8], bytes].concat()
    }

    fn vector16(bytes: &[u8]) -> Vec<u8> {
        [&(bytes.len() as u16).to_be_bytes(), bytes].concat()
    }

    fn numbers(list: &[u16]) -> Vec<u8> {
        list.iter().flat_map(|n| n.to_be_bytes()).collect()
    }

    fn extension(kind: u16, data: &[u8]) -> Vec<u8> {
        [&kind.to_be_bytes()[..], &vector16(data)].concat()
    }

    fn versions(list: &[u16]) -> Vec<u8> {
        extension(SUPPORTED_VERSIONS, &vector8(&numbers(list)))
    }

    fn use_srtp(list: &[u16]) -> Vec<u8> {
        extension(USE_SRTP, &[vector16(&numbers(list)), vec![0]].concat())
    }

    fn hello(legacy_version: u16, extensions: Option<&[Vec<u8>]>) -> Vec<u8> {
        let mut body = legacy_version.to_be_bytes().to_vec();
        body.extend([7; 32]);
        body.extend(vector8(&[]));
        body.extend(vector8(&[]));
        body.extend(vector16(&[0xc0, 0x2b]));
        body.extend(vector8(&[0]));
        if let Some(extensions) = extensions {
            body.extend(vector16(&extensions.concat()));
        }
        body
    }

    fn chosen(extensions: &[Vec<u8>]) -> Result<DtlsVersion, ClientHelloError> {
        ClientHello::parse(&hello(DTLS_1_2, Some(extensions)))?.version()
    }

    #[test]
    fn chromium_is_served_1_2_since_its_first_profile_is_dear() {
        let offer = [versions(&[DTLS_1_3, DTLS_1_2]), use_srtp(&[SHA1_80, GCM_256, GCM_128])];
        assert_eq!(chosen(&offer), Ok(DtlsVersion::Dtls12));
    }

    #[test]
    fn firefox_is_served_1_3() {
        let offer = [use_srtp(&[GCM_128, GCM_256, SHA1_80, 2]), versions(&[DTLS_1_3, DTLS_1_2, TLS_1_2])];
        assert_eq!(chosen(&offer), Ok(DtlsVersion::Dtls13));
    }

    #[test]
    fn the_first_profile_that_we_know_decides() {
        let both = versions(&[DTLS_1_3, DTLS_1_2]);
        assert_eq!(chosen(&[both.clone(), use_srtp(&[2, 0x9999, GCM_256])]), Ok(DtlsVersion::Dtls13));
        assert_eq!(chosen(&[both.clone(), use_srtp(&[2, SHA1_80, GCM_256])]), Ok(DtlsVersion::Dtls12));
        // Without AES-GCM nothing speaks against the newer version.
        assert_eq!(chosen(&[both, use_srtp(&[SHA1_80])]), Ok(DtlsVersion::Dtls13));
    }

    #[test]
    fn a_client_of_one_version_gets_it() {
        let dear = use_srtp(&[SHA1_80, GCM_128]);
        assert_eq!(chosen(&[versions(&[DTLS_1_3]), dear.clone()]), Ok(DtlsVersion::Dtls13));
        assert_eq!(chosen(&[versions(&[DTLS_1_2]), use_srtp(&[GCM_128])]), Ok(DtlsVersion::Dtls12));
        assert_eq!(chosen(std::slice::from_ref(&dear)), Ok(DtlsVersion::Dtls12), "no supported_versions");
        assert_eq!(ClientHello::parse(&hello(DTLS_1_2, None)).unwrap().version(), Ok(DtlsVersion::Dtls12));
        let of_1_0 = hello(0xfeff, Some(&[dear]));
        assert_eq!(ClientHello::parse(&of_1_0).unwrap().version(), Err(ClientHelloError::Version));
        assert_eq!(chosen(&[versions(&[TLS_1_2, 0x0304])]), Err(ClientHelloError::Version));
    }

    #[test]
    fn vectors_hold_what_they_may() {
        let bad = |extension: Vec<u8>| assert_eq!(chosen(&[extension]), Err(ClientHelloError::Malformed));
        bad(extension(SUPPORTED_VERSIONS, &[]));
        bad(extension(SUPPORTED_VERSIONS, &vector8(&[])));
        bad(extension(SUPPORTED_VERSIONS, &vector8(&[0xfe, 0xfd, 0xfe])));
        bad(extension(SUPPORTED_VERSIONS, &[vector8(&[0xfe, 0xfd]), vec![0]].concat()));
        bad(extension(USE_SRTP, &[0, 0, 0]));
        bad(extension(USE_SRTP, &[0, 1, 7, 0]));
        bad(extension(USE_SRTP, &[0, 2, 0, 7]));
        bad(extension(USE_SRTP, &[0, 2, 0, 7, 1]));
        let twice = [use_srtp(&[GCM_128]), use_srtp(&[GCM_128])];
        assert_eq!(chosen(&twice), Err(ClientHelloError::Duplicate));
        let followed = [hello(DTLS_1_2, Some(&[])), vec![0]].concat();
        assert_eq!(ClientHello::parse(&followed), Err(ClientHelloError::Malformed));
    }

    #[test]
    fn no_prefix_of_a_hello_with_extensions_is_one_but_that_without_them() {
        let whole = hello(DTLS_1_2, Some(&[versions(&[DTLS_1_3]), use_srtp(&[GCM_128])]));
        let without = hello(DTLS_1_2, None).len();
        for len in (0..whole.len()).filter(|len| *len != without) {
            assert_eq!(ClientHello::parse(&whole[..len]), Err(ClientHelloError::Malformed), "{len} bytes");
        }
    }

    proptest! {
        #[test]
        fn no_input_panics(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            if let Ok(hello) = ClientHello::parse(&bytes) {
                let _ = hello.version();
                prop_assert!(hello.srtp_profiles().count() <= bytes.len());
            }
        }

        #[test]
        fn no_change_of_a_hello_panics(at in 0..90_usize, byte: u8) {
            let mut body = hello(DTLS_1_2, Some(&[versions(&[DTLS_1_3, DTLS_1_2]), use_srtp(&[SHA1_80, GCM_128])]));
            let len = body.len();
            body[at % len] = byte;
            let _ = ClientHello::parse(&body).map(|hello| hello.version());
        }

        #[test]
        fn what_is_written_is_read_back(
            offered in prop::collection::vec(any::<u16>(), 1..20),
            profiles in prop::collection::vec(0..10_u16, 1..20),
            other in prop::collection::vec(any::<u8>(), 0..50),
        ) {
            let body = hello(0xfefd, Some(&[extension(0xff01, &other), versions(&offered), use_srtp(&profiles)]));
            let read = ClientHello::parse(&body).unwrap();
            prop_assert_eq!(read.offers(DTLS_1_3), offered.contains(&DTLS_1_3));
            prop_assert_eq!(read.offers(DTLS_1_2), offered.contains(&DTLS_1_2));
            let known: Vec<Profile> = profiles.into_iter().filter_map(Profile::from_id).collect();
            prop_assert_eq!(read.srtp_profiles().collect::<Vec<_>>(), known);
        }
    }
}
