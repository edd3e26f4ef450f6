//! From a handshake's keying material to session keys (RFC 5764 §4.2, RFC 3711 §4.3, RFC 6188, RFC 7714 §11).

use std::fmt;

use super::cipher::keystream;
use super::{Profile, SrtpError};
use crate::rtc::sdp::DtlsRole;

/// The master keys of both directions of one DTLS-SRTP association.
#[derive(Debug)]
pub struct MasterKeys {
    /// What the DTLS client seals with.
    pub client: MasterKey,
    /// What the DTLS server seals with.
    pub server: MasterKey,
}

impl MasterKeys {
    /// Splits what the handshake exported under `EXTRACTOR-dtls_srtp` (RFC 5764 §4.2): client key, server key, client
    /// salt, server salt.
    ///
    /// # Errors
    /// [`SrtpError::KeyingMaterial`] where `exported` is not [`Profile::exporter_len`] bytes long.
    pub fn split(profile: Profile, exported: &[u8]) -> Result<Self, SrtpError> {
        let (expected, actual) = (profile.exporter_len(), exported.len());
        if actual != expected {
            return Err(SrtpError::KeyingMaterial { expected, actual });
        }
        let (keys, salts) = exported.split_at(2 * profile.key_len());
        let (client_key, server_key) = keys.split_at(profile.key_len());
        let (client_salt, server_salt) = salts.split_at(profile.salt_len());
        Ok(Self {
            client: MasterKey::new(profile, client_key, client_salt)?,
            server: MasterKey::new(profile, server_key, server_salt)?,
        })
    }

    /// The key that we seal with and the key that we open with, given our side of the handshake.
    pub fn local_and_remote(self, role: DtlsRole) -> (MasterKey, MasterKey) {
        match role {
            DtlsRole::Client => (self.client, self.server),
            DtlsRole::Server => (self.server, self.client),
        }
    }
}

/// The master key and salt of one direction. Overwritten when dropped.
#[cfg_attr(test, derive(PartialEq))]
pub struct MasterKey {
    profile: Profile,
    key: [u8; 32],
    salt: [u8; 14],
}

impl MasterKey {
    /// A master key of [`Profile::key_len`] bytes with a salt of [`Profile::salt_len`] bytes.
    ///
    /// # Errors
    /// [`SrtpError::KeyingMaterial`] where a length is another.
    pub fn new(profile: Profile, key: &[u8], salt: &[u8]) -> Result<Self, SrtpError> {
        let expected = profile.key_len() + profile.salt_len();
        if key.len() != profile.key_len() || salt.len() != profile.salt_len() {
            return Err(SrtpError::KeyingMaterial { expected, actual: key.len() + salt.len() });
        }
        // The PRF takes 14 bytes of salt; the 12 of GCM are followed by two zero bytes, as all implementations have it.
        let mut master = Self { profile, key: [0; 32], salt: [0; 14] };
        master.key[..key.len()].copy_from_slice(key);
        master.salt[..salt.len()].copy_from_slice(salt);
        Ok(master)
    }

    /// The profile that the key is for.
    pub fn profile(&self) -> Profile {
        self.profile
    }

    /// Derives the session keys of RTP or RTCP (RFC 3711 §4.3.1, §4.3.2) with a key derivation rate of zero, so once.
    pub(super) fn session_keys(&self, protocol: Protocol) -> SessionKeys {
        let mut keys = SessionKeys { profile: self.profile, key: [0; 32], authentication: [0; 20], salt: [0; 14] };
        let first_label = protocol as u8;
        self.derive(first_label, &mut keys.key[..self.profile.key_len()]);
        self.derive(first_label + 1, &mut keys.authentication);
        self.derive(first_label + 2, &mut keys.salt[..self.profile.salt_len()]);
        keys
    }

    /// The AES-CM PRF (RFC 3711 §4.3.3; with a 256-bit key RFC 6188 §3): the key stream at `label` over the salt.
    fn derive(&self, label: u8, out: &mut [u8]) {
        // key_id is label ‖ index DIV rate, 8 + 48 bits, aligned to the right of the salt.
        const LABEL_AT: usize = 7;
        let mut counter = [0; 16];
        counter[..14].copy_from_slice(&self.salt);
        counter[LABEL_AT] ^= label;
        out.fill(0);
        keystream(&self.key[..self.profile.key_len()]).apply(counter, out);
    }
}

/// Keys stay out of logs.
impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MasterKey").field("profile", &self.profile).finish_non_exhaustive()
    }
}

impl Drop for MasterKey {
    fn drop(&mut self) {
        forget(&mut self.key);
        forget(&mut self.salt);
    }
}

/// What is protected; the value is the first of its three key derivation labels (RFC 3711 §4.3.1, §4.3.2).
#[derive(Clone, Copy, Debug)]
pub(super) enum Protocol {
    Rtp = 0,
    Rtcp = 3,
}

/// The session keys of one direction of RTP or RTCP, in the profile's lengths. Overwritten when dropped.
pub(super) struct SessionKeys {
    pub(super) profile: Profile,
    pub(super) key: [u8; 32],
    /// For HMAC-SHA1 only; GCM has no authentication key (RFC 7714 §11).
    pub(super) authentication: [u8; 20],
    pub(super) salt: [u8; 14],
}

impl Drop for SessionKeys {
    fn drop(&mut self) {
        forget(&mut self.key);
        forget(&mut self.authentication);
        forget(&mut self.salt);
    }
}

/// Overwrites a secret; the black box keeps the compiler from leaving out a write that nobody reads.
fn forget(secret: &mut [u8]) {
    secret.fill(0);
    std::hint::black_box(secret);
}

#[cfg(test)]
mod tests {
    use super::super::unhex;
    use super::*;

    #[test]
    fn derives_the_keys_of_rfc_3711_b3() {
        let master = MasterKey::new(
            Profile::Aes128CmSha1_80,
            &unhex("E1F97A0D3E018BE0D64FA32C06DE4139"),
            &unhex("0EC675AD498AFEEBB6960B3AABE6"),
        )
        .unwrap();
        let keys = master.session_keys(Protocol::Rtp);
        assert_eq!(keys.key[..16], unhex("C61E7A93744F39EE10734AFE3FF7A087"));
        assert_eq!(keys.salt[..], unhex("30CBBC08863D8C85D49DB34A9AE1"));
        assert_eq!(keys.authentication[..], unhex("CEBE321F6FF7716B6FD4AB49AF256A156D38BAA4"));

        let mut long = [0; 94];
        master.derive(1, &mut long);
        assert_eq!(
            long[..],
            unhex(
                "CEBE321F6FF7716B6FD4AB49AF256A156D38BAA48F0A0ACF3C34E2359E6CDBCEE049646C43D9327AD175578EF7227098
                 6371C10C9A369AC2F94A8C5FBCDDDC256D6E919A48B610EF17C2041E474035766B68642C59BBFC2F34DB60DBDFB2"
            )
        );
    }

    #[test]
    fn derives_the_keys_of_rfc_6188_with_a_256_bit_key() {
        // The vector has a salt of 14 bytes, which no profile of ours combines with such a key.
        let master = MasterKey {
            profile: Profile::AeadAes256Gcm,
            key: unhex("f0f04914b513f2763a1b1fa130f10e2998f6f6e43e4309d1e622a0e332b9f1b6").try_into().unwrap(),
            salt: unhex("3b04803de51ee7c96423ab5b78d2").try_into().unwrap(),
        };
        let mut key = [0; 32];
        master.derive(0, &mut key);
        assert_eq!(key[..], unhex("5ba1064e30ec51613cad926c5a28ef731ec7fb397f70a960653caf06554cd8c4"));
        let mut salt = [0; 14];
        master.derive(2, &mut salt);
        assert_eq!(salt[..], unhex("fa31791685ca444a9e07c6c64e93"));
    }

    #[test]
    fn splits_keys_before_salts_and_client_before_server() {
        for profile in [Profile::Aes128CmSha1_80, Profile::AeadAes128Gcm, Profile::AeadAes256Gcm] {
            let (key, salt) = (profile.key_len(), profile.salt_len());
            let exported: Vec<u8> = (0..profile.exporter_len() as u8).collect();
            let keys = MasterKeys::split(profile, &exported).unwrap();
            assert_eq!(keys.client.key[..key], exported[..key]);
            assert_eq!(keys.server.key[..key], exported[key..2 * key]);
            assert_eq!(keys.client.salt[..salt], exported[2 * key..2 * key + salt]);
            assert_eq!(keys.server.salt[..salt], exported[2 * key + salt..]);
            let (local, remote) = keys.local_and_remote(DtlsRole::Server);
            assert_eq!((local.key[0], remote.key[0]), (key as u8, 0));
            assert!(matches!(
                MasterKeys::split(profile, &exported[1..]),
                Err(SrtpError::KeyingMaterial { expected, actual }) if expected == actual + 1
            ));
        }
    }

    #[test]
    fn keys_are_not_printed() {
        let master = MasterKey::new(Profile::AeadAes128Gcm, &[0xab; 16], &[0xcd; 12]).unwrap();
        assert_eq!(format!("{master:?}"), "MasterKey { profile: AeadAes128Gcm, .. }");
    }
}
