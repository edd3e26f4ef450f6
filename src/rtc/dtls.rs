//! DTLS-SRTP (RFC 5764) over the `dimpl` state machine: handshake, peer certificate, keys, SCTP records.
//!
//! As server it waits for a whole ClientHello, reads what is offered, and starts the state machine of the version that
//! suits; which one, and why, is said in `dtls/client_hello.rs`. Clients that may bring an RSA certificate get another
//! one, see `dtls/rsa.rs`. As client it offers both versions.

mod client_hello;
mod hello_reader;
mod rsa;

use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_lc_rs::digest;
use dimpl::{Dtls, Output, ProtocolVersion, UnexpectedMessageError};

use self::hello_reader::HelloReader;
use self::rsa::{RsaEvent, RsaServer};
use super::sdp::{DtlsRole, Fingerprint, FingerprintHash};
use super::srtp::{MasterKey, MasterKeys, Profile, SrtpError};

/// The largest DTLS datagram we send; RFC 8831 §5 asks for 1200 bytes of IP packet at most where nothing is known.
const MTU: usize = 1150;

/// Large enough for any single output of the state machine: a record of 16 KiB and its overhead (RFC 6347 §4.1).
const OUTPUT_BUFFER: usize = 18 * 1024;

/// Datagrams of the server's first flight that are kept until its ServerHello has come, which says what they are. A flight
/// with a certificate chain is not longer.
const MAX_EARLY: usize = 8;

pub use client_hello::{ClientHello, ClientHelloError};
pub use rsa::RsaError;

/// The versions of DTLS that are spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(usize)]
pub enum DtlsVersion {
    /// RFC 6347.
    Dtls12,
    /// RFC 9147.
    Dtls13,
}

impl DtlsVersion {
    /// Both, in the order of the declaration.
    pub const ALL: [DtlsVersion; 2] = [DtlsVersion::Dtls12, DtlsVersion::Dtls13];
}

/// Why a DTLS association is over.
#[derive(Debug, thiserror::Error)]
pub enum DtlsError {
    /// The state machine gave up: handshake timed out or the peer broke the protocol.
    #[error("DTLS failed: {0}")]
    Protocol(#[from] dimpl::Error),
    /// The handshake has not begun and the datagram has no part of a ClientHello. It was dropped; nothing is over.
    #[error("no ClientHello")]
    NoHello,
    /// The ClientHello cannot be read, and was dropped; or it offers no version that we speak, which is the end.
    #[error(transparent)]
    ClientHello(#[from] ClientHelloError),
    /// RFC 8842 §5.1: the certificate matches no `a=fingerprint` of the offer.
    #[error("the peer's certificate matches no fingerprint of its offer")]
    FingerprintMismatch,
    /// The peer finished the handshake without a certificate or without an SRTP profile.
    #[error("the peer negotiated no certificate or no SRTP profile")]
    Incomplete,
    /// The exporter gave key material of a length that does not fit the profile.
    #[error(transparent)]
    KeyMaterial(#[from] SrtpError),
    /// As `Protocol`, where the client may bring an RSA certificate.
    #[error("DTLS failed: {0}")]
    Rsa(#[from] RsaError),
}

impl DtlsError {
    /// Whether the association is over. Else a datagram was dropped, which proves nothing about the peer: until there are
    /// keys anybody may have sent it (RFC 6347 §4.1.2.7).
    pub fn is_fatal(&self) -> bool {
        use ClientHelloError::{Duplicate, Malformed};
        !matches!(self, DtlsError::NoHello | DtlsError::ClientHello(Malformed | Duplicate))
    }
}

/// The certificate and parameters that all sessions of a node share.
#[derive(Debug)]
pub struct DtlsIdentity {
    config: Arc<dimpl::Config>,
    certificate: dimpl::DtlsCertificate,
    /// For clients that may bring an RSA certificate.
    rsa: Arc<rtc_dtls::config::HandshakeConfig>,
    fingerprint: [u8; 32],
    only: Option<DtlsVersion>,
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
            // The time limits decide, not the count: within them our own timer fires seven times, and browsers, which
            // begin at 50 ms, repeat a hello that crosses our answer eight times. Each answer to one counts.
            .flight_retries(16)
            .handshake_timeout(Duration::from_secs(20))
            .build()
            .map_err(|e| IdentityError(e.to_string()))?;
        let mut fingerprint = [0; 32];
        fingerprint.copy_from_slice(digest::digest(&digest::SHA256, &certificate.certificate).as_ref());
        let rsa = rsa::config(&certificate)?;
        Ok(Self { config: Arc::new(config), certificate, rsa, fingerprint, only: None })
    }

    /// For a peer that speaks one version alone. A node speaks both.
    #[must_use]
    pub fn speaking_only(self, version: DtlsVersion) -> Self {
        Self { only: Some(version), ..self }
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
    state: State,
    role: DtlsRole,
    expected: Vec<Fingerprint>,
    certificate_matched: bool,
    keys: Option<(MasterKey, MasterKey)>,
    timeout: Option<Instant>,
    /// As client: what came before the server had named the version.
    early: Vec<Box<[u8]>>,
}

enum State {
    /// As server, until the ClientHello is whole. Nothing is sent before, and there is no timer.
    Waiting {
        identity: Arc<DtlsIdentity>,
        hello: HelloReader,
    },
    Running(Box<Dtls>),
    Rsa(Box<RsaServer>),
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
        identity: &Arc<DtlsIdentity>,
        role: DtlsRole,
        expected: Vec<Fingerprint>,
    ) -> Result<Self, DtlsError> {
        let state = match role {
            DtlsRole::Server => State::Waiting { identity: identity.clone(), hello: HelloReader::default() },
            DtlsRole::Client => State::Running(start(now, identity, role, identity.only)?),
        };
        Ok(Self { state, role, expected, certificate_matched: false, keys: None, timeout: None, early: Vec::new() })
    }

    /// The version, once it is agreed.
    pub fn version(&self) -> Option<DtlsVersion> {
        match &self.state {
            State::Waiting { .. } => None,
            State::Running(dtls) => match dtls.protocol_version()? {
                ProtocolVersion::DTLS1_3 => Some(DtlsVersion::Dtls13),
                _ => Some(DtlsVersion::Dtls12),
            },
            State::Rsa(_) => Some(DtlsVersion::Dtls12),
        }
    }

    /// Takes a datagram from the peer. Malformed and replayed records are dropped inside.
    ///
    /// # Errors
    /// The association is over if [`DtlsError::is_fatal`], else the datagram was dropped.
    pub fn handle_datagram(&mut self, now: Instant, datagram: &[u8]) -> Result<(), DtlsError> {
        match &mut self.state {
            State::Waiting { identity, hello } => {
                if !hello.handle_datagram(datagram).map_err(|_| DtlsError::NoHello)? {
                    return Ok(());
                }
                let (whole, body) = std::mem::take(hello).into_datagram();
                let offer = ClientHello::parse(&whole[body..])?;
                let version = identity.only.map_or_else(|| offer.version(), Ok)?;
                if version == DtlsVersion::Dtls12 && offer.may_bring_rsa() {
                    let mut server = RsaServer::new(now, identity.rsa.clone());
                    server.handle_datagram(now, &whole)?;
                    self.state = State::Rsa(Box::new(server));
                    return Ok(());
                }
                let mut dtls = start(now, identity, self.role, Some(version))?;
                dtls.handle_packet(&whole)?;
                self.state = State::Running(dtls);
                Ok(())
            }
            State::Running(dtls) => {
                let unversioned = dtls.protocol_version().is_none();
                match dtls.handle_packet(datagram) {
                    // The rest of the server's flight without its ServerHello: overtaken, or lost.
                    Err(dimpl::Error::UnexpectedMessage(UnexpectedMessageError::UnrecognizedAutoServerResponse)) => {
                        if self.early.len() < MAX_EARLY {
                            self.early.push(datagram.into());
                        }
                        return Ok(());
                    }
                    result => result?,
                }
                if unversioned && dtls.protocol_version().is_some() {
                    for early in std::mem::take(&mut self.early) {
                        dtls.handle_packet(&early)?;
                    }
                }
                // After the datagram: it may answer the flight whose timer is due, which is then not repeated.
                Ok(dtls.handle_timeout(now)?)
            }
            State::Rsa(server) => Ok(server.handle_datagram(now, datagram)?),
        }
    }

    /// Advances time: retransmits a flight that was not answered.
    ///
    /// # Errors
    /// The handshake took too long.
    pub fn handle_timeout(&mut self, now: Instant) -> Result<(), DtlsError> {
        match &mut self.state {
            State::Waiting { .. } => Ok(()),
            State::Running(dtls) => Ok(dtls.handle_timeout(now)?),
            State::Rsa(server) => Ok(server.handle_timeout(now)?),
        }
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
        match &mut self.state {
            State::Waiting { .. } => {}
            State::Running(dtls) => drop(dtls.send_application_data(data)?),
            State::Rsa(server) => server.send(data)?,
        }
        Ok(())
    }

    /// Queues a `close_notify` (RFC 9725 §4.2 asks for an authenticated end).
    pub fn close(&mut self) {
        match &mut self.state {
            State::Waiting { .. } => {}
            // Closing what has already failed changes nothing.
            State::Running(dtls) => drop(dtls.close()),
            State::Rsa(server) => server.close(),
        }
    }

    /// Drains what the state machine has to say, in order.
    ///
    /// # Errors
    /// The certificate matches no fingerprint, or the handshake ended without keys: the session must end.
    pub fn drive(&mut self, scratch: &mut DtlsScratch, mut sink: impl FnMut(DtlsOutput<'_>)) -> Result<(), DtlsError> {
        loop {
            let dtls = match &mut self.state {
                State::Waiting { .. } => return Ok(()),
                State::Running(dtls) => dtls,
                State::Rsa(_) => return self.drive_rsa(&mut sink),
            };
            match dtls.poll_output(&mut scratch.0) {
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

    /// As [`DtlsTransport::drive`].
    fn drive_rsa(&mut self, sink: &mut impl FnMut(DtlsOutput<'_>)) -> Result<(), DtlsError> {
        let State::Rsa(server) = &mut self.state else { return Ok(()) };
        while let Some(datagram) = server.poll_transmit() {
            sink(DtlsOutput::Datagram(&datagram));
        }
        self.timeout = server.poll_timeout();
        for event in server.take_events() {
            match event {
                RsaEvent::Connected { certificate, keying_material } => {
                    if !self.expected.iter().any(|f| matches_certificate(f, &certificate)) {
                        return Err(DtlsError::FingerprintMismatch);
                    }
                    self.certificate_matched = true;
                    let keys = MasterKeys::split(RsaServer::PROFILE, &keying_material)?;
                    self.keys = Some(keys.local_and_remote(self.role));
                    self.announce(sink);
                }
                RsaEvent::Data(data) => sink(DtlsOutput::Data(&data)),
                RsaEvent::Closed => sink(DtlsOutput::Closed),
            }
        }
        Ok(())
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

/// A state machine of `version`, or as client of whichever the server chooses. Its handshake clock runs.
fn start(
    now: Instant,
    identity: &DtlsIdentity,
    role: DtlsRole,
    version: Option<DtlsVersion>,
) -> Result<Box<Dtls>, DtlsError> {
    let (config, certificate) = (identity.config.clone(), identity.certificate.clone());
    let mut dtls = match version {
        Some(DtlsVersion::Dtls12) => Dtls::new_12(config, certificate, now),
        Some(DtlsVersion::Dtls13) => Dtls::new_13(config, certificate, now),
        None => Dtls::new_auto(config, certificate, now),
    };
    dtls.set_active(role == DtlsRole::Client);
    dtls.handle_timeout(now)?;
    Ok(Box::new(dtls))
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

#[cfg(test)]
mod tests {
    use super::super::sdp::FingerprintHash;
    use super::*;

    /// One of two transports face to face.
    struct Side {
        transport: DtlsTransport,
        scratch: DtlsScratch,
        is_connected: bool,
    }

    impl Side {
        fn new(now: Instant, role: DtlsRole, own: &Arc<DtlsIdentity>, other: &DtlsIdentity) -> Self {
            let expected = Fingerprint { hash: FingerprintHash::Sha256, digest: other.fingerprint().to_vec() };
            let transport = DtlsTransport::new(now, own, role, vec![expected]).unwrap();
            Self { transport, scratch: DtlsScratch::default(), is_connected: false }
        }

        fn drive(&mut self) -> Vec<Vec<u8>> {
            let mut sent = Vec::new();
            self.transport
                .drive(&mut self.scratch, |output| match output {
                    DtlsOutput::Datagram(datagram) => sent.push(datagram.to_vec()),
                    DtlsOutput::Connected { .. } => self.is_connected = true,
                    DtlsOutput::Data(_) | DtlsOutput::Closed => panic!("nobody said that"),
                })
                .unwrap();
            sent
        }
    }

    /// Whoever drives the transport wakes it late, and when something arrives. An answer that comes between the time of a
    /// retransmission and its wake-up, or that had to wait, is an answer.
    #[test]
    fn a_flight_that_is_answered_is_not_repeated() {
        let mut now = Instant::now();
        let [node, peer] =
            [(); 2].map(|()| Arc::new(DtlsIdentity::generate().unwrap().speaking_only(DtlsVersion::Dtls12)));
        let mut client = Side::new(now, DtlsRole::Client, &peer, &node);
        let mut server = Side::new(now, DtlsRole::Server, &node, &peer);
        client.transport.handle_timeout(now).unwrap();
        let mut flight = client.drive();
        // HelloVerifyRequest or not: until the server's certificate is on its way.
        let length = |flight: &[Vec<u8>]| flight.iter().map(Vec::len).sum::<usize>();
        let mut hello = 0;
        while hello < 500 {
            flight.iter().for_each(|datagram| server.transport.handle_datagram(now, datagram).unwrap());
            let answer = server.drive();
            hello = length(&answer);
            answer.iter().for_each(|datagram| client.transport.handle_datagram(now, datagram).unwrap());
            flight = client.drive();
        }
        now = server.transport.poll_timeout().expect("a timer of the flight") + std::time::Duration::from_millis(3);
        flight.iter().for_each(|datagram| server.transport.handle_datagram(now, datagram).unwrap());
        let last = server.drive();
        assert!(server.is_connected);
        assert!(length(&last) < 200, "ChangeCipherSpec and Finished alone: {} octets", length(&last));
    }
}
