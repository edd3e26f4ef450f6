//! The server for clients that may bring an RSA certificate, over `rtc-dtls`.
//!
//! RFC 8827 §6.5 makes ECDSA certificates the default of WebRTC and lets a client bring another kind. GStreamer's has RSA
//! keys. `dimpl` 0.9 asks for ECDSA certificates alone (RFC 5246 §7.4.4), to which such a client answers with none, and its
//! handshake is over. `rtc-dtls` takes both kinds. It speaks DTLS 1.2 only, always verifies a cookie, which is one more round
//! trip, and takes the client's first SRTP profile. So it serves those to whom none of this makes a difference, see
//! [`ClientHello::may_bring_rsa`](super::ClientHello::may_bring_rsa).

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use rtc_dtls::config::{ClientAuthType, ConfigBuilder, ExtendedMasterSecretType, HandshakeConfig};
use rtc_dtls::crypto::Certificate;
use rtc_dtls::crypto_provider::{SignatureScheme, default_provider};
use rtc_dtls::endpoint::{Endpoint, EndpointEvent};
use rtc_dtls::extension::extension_use_srtp::SrtpProtectionProfile;
use rtc_shared::TransportProtocol;

use super::super::srtp::Profile;
use super::hello_reader::{HelloReader, NoHello};
use super::{IdentityError, MTU};

/// RFC 5764 §4.2.
const EXPORTER_LABEL: &str = "EXTRACTOR-dtls_srtp";

/// As for the other state machine: the path has just been measured.
const FLIGHT_INTERVAL: Duration = Duration::from_millis(150);

/// As often as the other state machine: 19 s in all.
const MOST_REPETITIONS: u32 = 6;

/// What a client may send until it is known, bytes. A handshake with a chain of certificates takes a tenth; the library
/// keeps what it cannot use yet.
const MOST_BEFORE_KEYS: usize = 64 * 1024;

/// The library tells associations apart by address. There is one here.
const PEER: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 1));

/// What all of them share: made once for a node.
pub(super) fn config(certificate: &dimpl::DtlsCertificate) -> Result<Arc<HandshakeConfig>, IdentityError> {
    let refused = |error: &dyn std::fmt::Display| IdentityError(error.to_string());
    let provider = default_provider().map_err(|e| refused(&e))?;
    let key = provider
        .crypto()
        .import_signing_key(SignatureScheme::EcdsaP256Sha256, &certificate.private_key)
        .map_err(|e| refused(&e))?;
    let certificate = Certificate::from_signing_key(vec![certificate.certificate.clone().into()], key);
    let config = ConfigBuilder::default()
        .with_crypto_provider(provider)
        .with_certificates(vec![certificate])
        .with_srtp_protection_profiles(vec![SrtpProtectionProfile::Srtp_Aes128_Cm_Hmac_Sha1_80])
        // Any certificate that its holder can sign with: the fingerprint of the offer says whether it is the right one.
        .with_client_auth(ClientAuthType::RequireAnyClientCert)
        // RFC 7627 §4: without it the exporter is open to triple handshakes.
        .with_extended_master_secret(ExtendedMasterSecretType::Require)
        .with_flight_interval(FLIGHT_INTERVAL)
        .with_mtu(MTU)
        .build(false, None)
        .map_err(|e| refused(&e))?;
    Ok(Arc::new(config))
}

/// What the association has to say.
#[derive(Debug)]
pub(super) enum RsaEvent {
    /// The handshake is complete, and the client has signed with its certificate.
    Connected {
        /// X.509, DER.
        certificate: Vec<u8>,
        /// For [`RsaServer::PROFILE`].
        keying_material: Vec<u8>,
    },
    /// A record of application data.
    Data(BytesMut),
    /// `close_notify`.
    Closed,
}

/// Why the association is over.
#[derive(Debug, thiserror::Error)]
pub enum RsaError {
    /// The last flight was repeated as often as it may be.
    #[error("no answer")]
    Unanswered,
    /// More came than a handshake has.
    #[error("the handshake is too long")]
    TooLong,
    /// The library panicked. What it left is not looked at again.
    #[error("the library failed")]
    Failed,
    /// Complete, but without certificate or keys.
    #[error("no certificate or no keys")]
    Incomplete,
}

/// One association.
pub(super) struct RsaServer {
    config: Arc<HandshakeConfig>,
    endpoint: Endpoint,
    /// Until the client has answered our HelloVerifyRequest: its first ClientHello, should it come again.
    hello: Option<HelloReader>,
    events: Vec<RsaEvent>,
    received: usize,
    is_connected: bool,
    now: Instant,
    flight: Flight,
}

/// Our last flight of the handshake, to be sent again where the library has lost its timer: what a client repeats, because
/// our answer was lost, stops it. A record that comes twice is dropped by whoever got it before (RFC 6347 §4.1.2.6).
#[derive(Default)]
struct Flight {
    datagrams: Vec<Bytes>,
    /// The next datagram begins another flight.
    is_answered: bool,
    due: Option<Instant>,
    repetitions: u32,
    /// Of `datagrams`, those still to be sent again.
    pending: usize,
}

impl Flight {
    fn sent(&mut self, datagram: &Bytes) {
        if std::mem::take(&mut self.is_answered) {
            *self = Self::default();
        }
        self.datagrams.push(datagram.clone());
    }

    /// Something came from the client; `runs` says whether the library's own timer does.
    fn heard(&mut self, now: Instant, runs: bool) {
        self.is_answered = true;
        self.due = if runs { None } else { self.due.or(Some(now + FLIGHT_INTERVAL)) };
    }

    fn handle_timeout(&mut self, now: Instant) -> Result<(), RsaError> {
        if self.due.is_none_or(|at| now < at) {
            return Ok(());
        }
        if self.repetitions == MOST_REPETITIONS {
            return Err(RsaError::Unanswered);
        }
        self.repetitions += 1;
        self.pending = self.datagrams.len();
        self.due = Some(now + FLIGHT_INTERVAL * (1 << self.repetitions));
        Ok(())
    }

    fn poll_transmit(&mut self) -> Option<Bytes> {
        self.pending = self.pending.checked_sub(1)?;
        self.datagrams.get(self.datagrams.len() - 1 - self.pending).cloned()
    }
}

impl RsaServer {
    /// The profile of every association here.
    pub(super) const PROFILE: Profile = Profile::Aes128CmSha1_80;

    /// Waits for the datagram with the whole ClientHello.
    pub(super) fn new(now: Instant, config: Arc<HandshakeConfig>) -> Self {
        let endpoint = endpoint(&config);
        let hello = Some(HelloReader::default());
        Self {
            config,
            endpoint,
            hello,
            events: Vec::new(),
            received: 0,
            is_connected: false,
            now,
            flight: Flight::default(),
        }
    }

    /// Takes a datagram. What the library refuses is dropped: it does not say whether that was the end, and until there are
    /// keys anybody may have sent it. A handshake that fails meets the session's setup timeout.
    pub(super) fn handle_datagram(&mut self, now: Instant, datagram: &[u8]) -> Result<(), RsaError> {
        self.now = now;
        if !self.is_connected {
            self.received += datagram.len();
            if self.received > MOST_BEFORE_KEYS {
                return Err(RsaError::TooLong);
            }
        }
        if let Some(hello) = &mut self.hello {
            match hello.handle_datagram(datagram) {
                Ok(false) => return Ok(()),
                // RFC 6347 §4.2.1: the server keeps no state until the cookie has come, so a HelloVerifyRequest that was lost
                // is the answer to the hello that the client repeats. The library would take that for an old message.
                Ok(true) => {
                    self.endpoint = endpoint(&self.config);
                    let (whole, _) = std::mem::take(hello).into_datagram();
                    return self.read(now, &whole);
                }
                Err(NoHello) => self.hello = None,
            }
        }
        self.read(now, datagram)
    }

    fn read(&mut self, now: Instant, datagram: &[u8]) -> Result<(), RsaError> {
        let read = contain(|| self.endpoint.read(now, PEER, None, datagram.into()))?;
        for event in read.unwrap_or_default() {
            let event = match event {
                EndpointEvent::HandshakeComplete => self.connected()?,
                EndpointEvent::ApplicationData(data) => RsaEvent::Data(data),
                EndpointEvent::PeerClosed => RsaEvent::Closed,
                _ => continue,
            };
            self.events.push(event);
        }
        if self.is_connected {
            self.flight = Flight::default();
        } else {
            self.flight.heard(now, self.endpoint.poll_timeout(&PEER).is_some());
        }
        Ok(())
    }

    fn connected(&mut self) -> Result<RsaEvent, RsaError> {
        self.is_connected = true;
        let state = self.endpoint.get_connection_state(PEER).ok_or(RsaError::Incomplete)?;
        let certificate = state.peer_certificates.first().cloned().ok_or(RsaError::Incomplete)?;
        if state.srtp_protection_profile() != SrtpProtectionProfile::Srtp_Aes128_Cm_Hmac_Sha1_80 {
            return Err(RsaError::Incomplete);
        }
        let length = Self::PROFILE.exporter_len();
        let exported = state.export_keying_material(EXPORTER_LABEL, &[], length).map_err(|_| RsaError::Incomplete)?;
        Ok(RsaEvent::Connected { certificate, keying_material: exported.as_ref().to_vec() })
    }

    /// Repeats a flight that was not answered.
    pub(super) fn handle_timeout(&mut self, now: Instant) -> Result<(), RsaError> {
        self.now = now;
        // Not there before the first datagram and after the last.
        if self.endpoint.get_connection_state(PEER).is_none() {
            return Ok(());
        }
        contain(|| self.endpoint.handle_timeout(PEER, now))?.map_err(|_| RsaError::Unanswered)?;
        self.flight.handle_timeout(now)
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        [self.endpoint.poll_timeout(&PEER), self.flight.due].into_iter().flatten().min()
    }

    /// Sends a record of application data; nothing once the association is over.
    pub(super) fn send(&mut self, data: &[u8]) -> Result<(), RsaError> {
        let now = self.now;
        contain(|| self.endpoint.write(now, PEER, data)).map(drop)
    }

    /// Queues a `close_notify`.
    pub(super) fn close(&mut self) {
        let now = self.now;
        // Closing what has already failed changes nothing.
        let _ = contain(|| self.endpoint.stop(now, PEER).is_some());
    }

    pub(super) fn poll_transmit(&mut self) -> Option<Bytes> {
        if let Some(transmit) = self.endpoint.poll_transmit() {
            let datagram = transmit.message.freeze();
            if !self.is_connected {
                self.flight.sent(&datagram);
            }
            return Some(datagram);
        }
        self.flight.poll_transmit()
    }

    pub(super) fn take_events(&mut self) -> Vec<RsaEvent> {
        std::mem::take(&mut self.events)
    }
}

fn endpoint(config: &Arc<HandshakeConfig>) -> Endpoint {
    Endpoint::new(PEER, TransportProtocol::UDP, Some(config.clone()))
}

/// Runs code of the library on what a stranger sent. Should it panic, one session ends instead of the shard.
fn contain<T>(work: impl FnOnce() -> T) -> Result<T, RsaError> {
    // What may be left half changed is dropped with the session.
    catch_unwind(AssertUnwindSafe(work)).map_err(|_| RsaError::Failed)
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::digest;
    use rtc_dtls::config::ConfigBuilder;

    use super::super::super::sdp::{DtlsRole, Fingerprint, FingerprintHash};
    use super::super::super::srtp::{MasterKey, MasterKeys};
    use super::super::{DtlsError, DtlsIdentity, DtlsOutput, DtlsScratch, DtlsTransport, DtlsVersion};
    use super::*;

    const SERVER: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 2));
    const ROUND: Duration = Duration::from_millis(20);

    /// As GStreamer's: an RSA certificate, one SRTP profile.
    struct Encoder {
        endpoint: Endpoint,
        certificate: Vec<u8>,
        is_connected: bool,
    }

    impl Encoder {
        fn new(now: Instant, algorithm: &'static rcgen::SignatureAlgorithm, shows_certificate: bool) -> Self {
            let provider = default_provider().unwrap();
            let certificate = Certificate::generate_self_signed_with_alg(vec![], algorithm, provider.crypto()).unwrap();
            let der = certificate.certificate[0].to_vec();
            let config = ConfigBuilder::default()
                .with_crypto_provider(provider)
                .with_certificates(if shows_certificate { vec![certificate] } else { vec![] })
                .with_srtp_protection_profiles(vec![SrtpProtectionProfile::Srtp_Aes128_Cm_Hmac_Sha1_80])
                .with_extended_master_secret(ExtendedMasterSecretType::Require)
                .with_insecure_skip_verify(true)
                .with_flight_interval(FLIGHT_INTERVAL)
                // Several fragments for each hello and certificate, as GStreamer sends them.
                .with_mtu(256)
                .build(true, None)
                .unwrap();
            let mut endpoint = Endpoint::new(PEER, TransportProtocol::UDP, None);
            endpoint.connect(now, SERVER, Arc::new(config), None).unwrap();
            Self { endpoint, certificate: der, is_connected: false }
        }

        fn fingerprint(&self) -> Fingerprint {
            let digest = digest::digest(&digest::SHA256, &self.certificate).as_ref().to_vec();
            Fingerprint { hash: FingerprintHash::Sha256, digest }
        }
    }

    /// An encoder, a node, and the path between.
    struct World {
        now: Instant,
        encoder: Encoder,
        node: DtlsTransport,
        scratch: DtlsScratch,
        keys: Option<(MasterKey, MasterKey)>,
        data: Vec<Vec<u8>>,
        is_closed: bool,
        sent: usize,
        lost: Option<usize>,
    }

    impl World {
        fn new(encoder: impl FnOnce(Instant) -> Encoder, expected: impl FnOnce(&Encoder) -> Fingerprint) -> Self {
            let now = Instant::now();
            let encoder = encoder(now);
            let identity = Arc::new(DtlsIdentity::generate().unwrap());
            let node = DtlsTransport::new(now, &identity, DtlsRole::Server, vec![expected(&encoder)]).unwrap();
            let scratch = DtlsScratch::default();
            let data = Vec::new();
            Self { now, encoder, node, scratch, keys: None, data, is_closed: false, sent: 0, lost: None }
        }

        fn of_rsa() -> Self {
            Self::new(|now| Encoder::new(now, &rcgen::PKCS_RSA_SHA256, true), Encoder::fingerprint)
        }

        fn arrives(&mut self) -> bool {
            self.sent += 1;
            self.lost != Some(self.sent - 1)
        }

        /// One way there and back.
        fn round(&mut self) -> Result<(), DtlsError> {
            self.now += ROUND;
            let _ = self.encoder.endpoint.handle_timeout(SERVER, self.now);
            while let Some(datagram) = self.encoder.endpoint.poll_transmit() {
                if self.arrives() {
                    self.node.handle_datagram(self.now, &datagram.message)?;
                }
            }
            if self.node.poll_timeout().is_some_and(|at| self.now >= at) {
                self.node.handle_timeout(self.now)?;
            }
            let mut back: Vec<Vec<u8>> = Vec::new();
            let (keys, data, is_closed) = (&mut self.keys, &mut self.data, &mut self.is_closed);
            self.node.drive(&mut self.scratch, |output| match output {
                DtlsOutput::Datagram(datagram) => back.push(datagram.to_vec()),
                DtlsOutput::Connected { local, remote } => *keys = Some((local, remote)),
                DtlsOutput::Data(bytes) => data.push(bytes.to_vec()),
                DtlsOutput::Closed => *is_closed = true,
            })?;
            for datagram in back {
                if !self.arrives() {
                    continue;
                }
                let read = self.encoder.endpoint.read(self.now, SERVER, None, datagram[..].into());
                let complete = |event: &EndpointEvent| matches!(event, EndpointEvent::HandshakeComplete);
                self.encoder.is_connected |= read.is_ok_and(|events| events.iter().any(complete));
            }
            Ok(())
        }

        /// The rounds until both sides have keys.
        fn handshake(&mut self) -> usize {
            for round in 1..=250 {
                self.round().expect("nothing ends the association");
                if self.encoder.is_connected && self.keys.is_some() {
                    return round;
                }
            }
            panic!("not connected after {:?}", ROUND * 250);
        }
    }

    #[test]
    fn a_client_with_an_rsa_certificate_gets_the_same_keys() {
        let mut world = World::of_rsa();
        world.handshake();
        assert_eq!(world.node.version(), Some(DtlsVersion::Dtls12));
        let state = world.encoder.endpoint.get_connection_state(SERVER).unwrap();
        let exported = state.export_keying_material(EXPORTER_LABEL, &[], RsaServer::PROFILE.exporter_len()).unwrap();
        let theirs = MasterKeys::split(RsaServer::PROFILE, exported.as_ref()).unwrap();
        assert!(world.keys == Some(theirs.local_and_remote(DtlsRole::Server)), "other keys");
    }

    #[test]
    fn an_encoder_with_an_ecdsa_certificate_is_served_as_well() {
        World::new(|now| Encoder::new(now, &rcgen::PKCS_ECDSA_P256_SHA256, true), Encoder::fingerprint).handshake();
    }

    #[test]
    fn data_goes_both_ways_and_the_end_is_said() {
        let mut world = World::of_rsa();
        world.handshake();
        world.encoder.endpoint.write(world.now, SERVER, b"there").unwrap();
        world.node.send(b"back").unwrap();
        world.round().unwrap();
        assert_eq!(world.data, [b"there"]);
        world.encoder.endpoint.stop(world.now, SERVER);
        world.round().unwrap();
        assert!(world.is_closed);
    }

    #[test]
    fn the_loss_of_any_datagram_costs_time() {
        let mut undisturbed = World::of_rsa();
        undisturbed.handshake();
        for lost in 0..undisturbed.sent {
            let mut world = World::of_rsa();
            world.lost = Some(lost);
            let rounds = world.handshake();
            println!("{lost} of {} lost: {rounds} rounds", undisturbed.sent);
        }
    }

    #[test]
    fn another_certificate_than_the_offers_ends_it() {
        let other = |_: &Encoder| Fingerprint { hash: FingerprintHash::Sha256, digest: vec![0; 32] };
        let mut world = World::new(|now| Encoder::new(now, &rcgen::PKCS_RSA_SHA256, true), other);
        let end = (0..50).find_map(|_| world.round().err());
        assert!(matches!(end, Some(DtlsError::FingerprintMismatch)), "{end:?}");
        assert!(world.keys.is_none());
    }

    #[test]
    fn a_client_without_certificate_gets_no_keys() {
        let mut world = World::new(|now| Encoder::new(now, &rcgen::PKCS_RSA_SHA256, false), Encoder::fingerprint);
        for _ in 0..50 {
            if world.round().is_err() {
                break;
            }
        }
        assert!(world.keys.is_none() && !world.encoder.is_connected);
    }

    #[test]
    fn a_flood_before_the_keys_ends_it() {
        let mut world = World::of_rsa();
        world.round().unwrap();
        // A handshake fragment that fits nowhere yet, again and again.
        let mut fragment = vec![22, 0xfe, 0xfd, 0, 0, 0, 0, 0, 1, 0, 0, 4, 12, 11, 0, 16, 0, 0, 5, 0, 0, 0, 0, 4, 0];
        fragment.resize(13 + 12 + 1024, 0xaa);
        let end = (0..100).find_map(|_| world.node.handle_datagram(world.now, &fragment).err());
        assert!(end.as_ref().is_some_and(DtlsError::is_fatal), "{end:?}");
    }
}
