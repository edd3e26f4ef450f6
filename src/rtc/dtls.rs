//! DTLS-SRTP (RFC 5764) over the `dimpl` state machine: handshake, peer certificate, keys, SCTP records.

use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_lc_rs::digest;
use dimpl::{Dtls, Output};

use super::sdp::{DtlsRole, Fingerprint, FingerprintHash};
use super::srtp::{MasterKey, MasterKeys, Profile, SrtpError};

/// The largest DTLS datagram we send; RFC 8831 §5 asks for 1200 bytes of IP packet at most where nothing is known.
const MTU: usize = 1150;

/// Large enough for any single output of the state machine: a record of 16 KiB and its overhead (RFC 6347 §4.1).
const OUTPUT_BUFFER: usize = 18 * 1024;

/// Why a DTLS association is over.
#[derive(Debug, thiserror::Error)]
pub enum DtlsError {
    /// The state machine gave up: handshake timed out or the peer broke the protocol.
    #[error("DTLS failed: {0}")]
    Protocol(#[from] dimpl::Error),
    /// RFC 8842 §5.1: the certificate matches no `a=fingerprint` of the offer.
    #[error("the peer's certificate matches no fingerprint of its offer")]
    FingerprintMismatch,
    /// The peer finished the handshake without a certificate or without an SRTP profile.
    #[error("the peer negotiated no certificate or no SRTP profile")]
    Incomplete,
    /// The exporter gave key material of a length that does not fit the profile.
    #[error(transparent)]
    KeyMaterial(#[from] SrtpError),
}

/// The certificate and parameters that all sessions of a node share.
#[derive(Debug)]
pub struct DtlsIdentity {
    config: Arc<dimpl::Config>,
    certificate: dimpl::DtlsCertificate,
    fingerprint: [u8; 32],
}

impl DtlsIdentity {
    /// A fresh self-signed ECDSA P-256 certificate (RFC 8827 §6.5).
    ///
    /// # Errors
    /// If the certificate cannot be made or the parameters are refused by the DTLS library.
    pub fn generate() -> Result<Self, IdentityError> {
        let certificate =
            dimpl::certificate::generate_self_signed_certificate().map_err(|e| IdentityError(e.to_string()))?;
        let config = dimpl::Config::builder()
            .mtu(MTU)
            // The connectivity check has proved the address already, and a fragmented ClientHello makes a stateless
            // cookie impossible: one round trip saved.
            .use_server_cookie(false)
            .require_client_certificate(true)
            // RFC 6347 §4.2.4.1 suggests 1 s; WebRTC peers start at 50 ms, since the path has just been measured.
            .flight_start_rto(Duration::from_millis(150))
            .flight_retries(7)
            .handshake_timeout(Duration::from_secs(20))
            .build()
            .map_err(|e| IdentityError(e.to_string()))?;
        let mut fingerprint = [0; 32];
        fingerprint.copy_from_slice(digest::digest(&digest::SHA256, &certificate.certificate).as_ref());
        Ok(Self { config: Arc::new(config), certificate, fingerprint })
    }

    /// SHA-256 over the certificate, for `a=fingerprint`.
    pub fn fingerprint(&self) -> [u8; 32] {
        self.fingerprint
    }
}

/// The node's DTLS identity could not be made.
#[derive(Debug, thiserror::Error)]
#[error("cannot make the DTLS certificate: {0}")]
pub struct IdentityError(String);

/// What [`DtlsTransport::drive`] hands to its owner.
#[derive(Debug)]
pub enum DtlsOutput<'a> {
    /// Send this datagram to the peer.
    Datagram(&'a [u8]),
    /// The handshake is complete and the certificate matched: seal with `local`, open with `remote`.
    Connected {
        /// Our half of the keys.
        local: MasterKey,
        /// The peer's half.
        remote: MasterKey,
    },
    /// Decrypted application data: one SCTP packet.
    Data(&'a [u8]),
    /// The peer sent `close_notify`.
    Closed,
}

/// One session's DTLS association.
///
/// After every `handle_*` and `send`, call [`DtlsTransport::drive`] to drain it.
pub struct DtlsTransport {
    dtls: Dtls,
    role: DtlsRole,
    expected: Vec<Fingerprint>,
    certificate_matched: bool,
    keys: Option<(MasterKey, MasterKey)>,
    timeout: Option<Instant>,
}

impl std::fmt::Debug for DtlsTransport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DtlsTransport").field("role", &self.role).finish_non_exhaustive()
    }
}

impl DtlsTransport {
    /// A new association. As client it sends its first flight on the next [`DtlsTransport::drive`].
    ///
    /// # Errors
    /// If the state machine refuses to start.
    pub fn new(
        now: Instant,
        identity: &DtlsIdentity,
        role: DtlsRole,
        expected: Vec<Fingerprint>,
    ) -> Result<Self, DtlsError> {
        let (config, certificate) = (identity.config.clone(), identity.certificate.clone());
        let mut dtls = match role {
            // As a DTLS 1.3 server the library takes the first SRTP profile of the client's list, which in Chromium is
            // AES-CM with HMAC-SHA1: four times the CPU for every packet we send. As a 1.2 server it prefers GCM. Every
            // WebRTC client speaks 1.2 (RFC 8827 §6.5 demands it).
            DtlsRole::Server => Dtls::new_12(config, certificate, now),
            DtlsRole::Client => Dtls::new_auto(config, certificate, now),
        };
        dtls.set_active(role == DtlsRole::Client);
        // Starts the handshake clock, and for a client the first flight.
        dtls.handle_timeout(now)?;
        Ok(Self { dtls, role, expected, certificate_matched: false, keys: None, timeout: None })
    }

    /// Takes a datagram from the peer. Malformed and replayed records are dropped inside.
    ///
    /// # Errors
    /// Any error is the end of the association.
    pub fn handle_datagram(&mut self, now: Instant, datagram: &[u8]) -> Result<(), DtlsError> {
        self.dtls.handle_timeout(now)?;
        Ok(self.dtls.handle_packet(datagram)?)
    }

    /// Advances time: retransmits a flight that was not answered.
    ///
    /// # Errors
    /// The handshake took too long.
    pub fn handle_timeout(&mut self, now: Instant) -> Result<(), DtlsError> {
        Ok(self.dtls.handle_timeout(now)?)
    }

    /// When to call [`DtlsTransport::handle_timeout`].
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.timeout
    }

    /// Sends one SCTP packet.
    ///
    /// # Errors
    /// The association is closed.
    pub fn send(&mut self, data: &[u8]) -> Result<(), DtlsError> {
        self.dtls.send_application_data(data)?;
        Ok(())
    }

    /// Queues a `close_notify` (RFC 9725 §4.2 asks for an authenticated end).
    pub fn close(&mut self) {
        // Closing what has already failed changes nothing.
        let _ = self.dtls.close();
    }

    /// Drains what the state machine has to say, in order.
    ///
    /// # Errors
    /// The certificate matches no fingerprint, or the handshake ended without keys: the session must end.
    pub fn drive(&mut self, scratch: &mut DtlsScratch, mut sink: impl FnMut(DtlsOutput<'_>)) -> Result<(), DtlsError> {
        loop {
            match self.dtls.poll_output(&mut scratch.0) {
                Output::Packet(datagram) => sink(DtlsOutput::Datagram(datagram)),
                Output::PeerCert(der) => {
                    if !self.expected.iter().any(|f| matches_certificate(f, der)) {
                        return Err(DtlsError::FingerprintMismatch);
                    }
                    self.certificate_matched = true;
                }
                Output::KeyingMaterial(material, profile) => {
                    let profile = match profile {
                        dimpl::SrtpProfile::AEAD_AES_256_GCM => Profile::AeadAes256Gcm,
                        dimpl::SrtpProfile::AEAD_AES_128_GCM => Profile::AeadAes128Gcm,
                        dimpl::SrtpProfile::AES128_CM_SHA1_80 => Profile::Aes128CmSha1_80,
                        _ => return Err(DtlsError::Incomplete),
                    };
                    let keys = MasterKeys::split(profile, &material)?;
                    self.keys = Some(keys.local_and_remote(self.role));
                    self.announce(&mut sink);
                }
                Output::Connected => {
                    if !self.certificate_matched {
                        return Err(DtlsError::Incomplete);
                    }
                    self.announce(&mut sink);
                }
                Output::ApplicationData(data) => sink(DtlsOutput::Data(data)),
                Output::CloseNotify => sink(DtlsOutput::Closed),
                Output::BufferTooSmall { needed } => scratch.0.resize(needed, 0),
                Output::Timeout(at) => {
                    self.timeout = Some(at);
                    return Ok(());
                }
                _ => {}
            }
        }
    }

    /// Hands the keys over once, and only when the certificate has been compared.
    fn announce(&mut self, sink: &mut impl FnMut(DtlsOutput<'_>)) {
        if self.certificate_matched
            && let Some((local, remote)) = self.keys.take()
        {
            sink(DtlsOutput::Connected { local, remote });
        }
    }
}

/// Working memory for [`DtlsTransport::drive`], one for all sessions of a shard.
#[derive(Debug)]
pub struct DtlsScratch(Vec<u8>);

impl Default for DtlsScratch {
    fn default() -> Self {
        Self(vec![0; OUTPUT_BUFFER])
    }
}

fn matches_certificate(fingerprint: &Fingerprint, der: &[u8]) -> bool {
    let algorithm = match fingerprint.hash {
        FingerprintHash::Sha256 => &digest::SHA256,
        FingerprintHash::Sha384 => &digest::SHA384,
        FingerprintHash::Sha512 => &digest::SHA512,
    };
    digest::digest(algorithm, der).as_ref() == fingerprint.digest
}
