//! A WebRTC client without sockets: the checks of a controlling full ICE agent, DTLS, SRTP keys, consent.
//!
//! Enters: what the answer said, datagrams, time. Leaves: datagrams, keys, the end. One candidate pair: our socket and the
//! server's first UDP candidate.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tableside::rtc::dtls::{DtlsIdentity, DtlsOutput, DtlsScratch, DtlsTransport};
use tableside::rtc::sdp::{DtlsRole, IceCredentials};
use tableside::rtc::srtp::{RtcpOpener, RtcpSealer, RtpOpener, RtpSealer};
use tableside::rtc::stun::{
    BindingRequest, BindingResponse, IceRole, IntegrityKey, MAX_REQUEST_LEN, RequestParameters, write_request,
    write_success,
};

use crate::answer::Answer;

/// Between checks until one is answered. RFC 8445 §14.2: Ta of 50 ms.
const CHECK_INTERVAL: Duration = Duration::from_millis(50);

/// Chromium's own, measured; RFC 7675 §5.1 would have 5 s.
const CONSENT_INTERVAL: Duration = Duration::from_millis(2600);

/// RFC 7675 §5.1: consent expires 30 seconds after the last valid response.
const CONSENT_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a connection may take; Chromium gives up after about as long.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);

/// Room for any datagram of ours.
pub const MAX_DATAGRAM: usize = 1500;

/// Why a client is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, thiserror::Error)]
pub enum ClientError {
    /// No check was answered.
    #[error("no connectivity check was answered")]
    Unreachable,
    /// Checks were answered, the handshake did not end.
    #[error("the DTLS handshake did not end")]
    HandshakeTimeout,
    /// The handshake failed.
    #[error("the DTLS handshake failed")]
    Handshake,
    /// The server stopped answering.
    #[error("consent expired: no check was answered for 30 s")]
    ConsentExpired,
    /// The server ended the session.
    #[error("the server closed the session")]
    Closed,
    /// The host has no socket or address for it.
    #[error("no socket")]
    Socket,
}

/// Where datagrams go, and whether the kernel took this one. Who loses one to a full buffer loses it as to any network.
pub type Wire<'a> = dyn FnMut(&[u8]) -> bool + 'a;

/// The session's keys.
pub struct Keys {
    /// For what we send.
    pub rtp_sealer: RtpSealer,
    /// Likewise.
    pub rtcp_sealer: RtcpSealer,
    /// For what comes.
    pub rtp_opener: RtpOpener,
    /// Likewise.
    pub rtcp_opener: RtcpOpener,
}

/// What all clients share.
pub struct Shared {
    /// One certificate: making thousands would measure the generator.
    pub identity: Arc<DtlsIdentity>,
    /// Room for DTLS.
    pub scratch: DtlsScratch,
}

impl Shared {
    /// With this certificate.
    pub fn new(identity: Arc<DtlsIdentity>) -> Self {
        Self { identity, scratch: DtlsScratch::default() }
    }
}

/// See the module's text.
pub struct Client {
    local: IceCredentials,
    local_key: IntegrityKey,
    remote: IceCredentials,
    remote_key: IntegrityKey,
    role: DtlsRole,
    dtls: Option<DtlsTransport>,
    answer: Arc<Answer>,
    keys: Option<Box<Keys>>,
    began: Instant,
    next_check: Instant,
    last_response: Option<Instant>,
    asked_at: Instant,
    rtt: Duration,
    transaction: u64,
    failed: Option<ClientError>,
}

impl Client {
    /// The answer has come; the first check goes out with the first [`Client::handle_timeout`].
    pub fn new(now: Instant, local: IceCredentials, answer: Arc<Answer>) -> Self {
        let remote = answer.ice.clone();
        Self {
            local_key: IntegrityKey::new(&local.pwd),
            local,
            remote_key: IntegrityKey::new(&remote.pwd),
            remote,
            role: answer.our_role,
            dtls: None,
            answer,
            keys: None,
            began: now,
            next_check: now,
            last_response: None,
            asked_at: now,
            rtt: Duration::ZERO,
            transaction: 0,
            failed: None,
        }
    }

    /// What the server answered.
    pub fn answer(&self) -> &Answer {
        &self.answer
    }

    /// The keys, once the handshake is over.
    pub fn keys(&mut self) -> Option<&mut Keys> {
        self.keys.as_deref_mut()
    }

    /// Whether media can flow.
    pub fn is_connected(&self) -> bool {
        self.keys.is_some() && self.failed.is_none()
    }

    /// The last check's round trip, queues at both ends included.
    pub fn rtt(&self) -> Duration {
        self.rtt
    }

    /// Why it is over, if it is.
    pub fn failure(&self) -> Option<ClientError> {
        self.failed
    }

    /// When to call [`Client::handle_timeout`].
    pub fn poll_timeout(&self) -> Option<Instant> {
        if self.failed.is_some() {
            return None;
        }
        let handshake = self.dtls.as_ref().and_then(DtlsTransport::poll_timeout).filter(|_| self.keys.is_none());
        Some(handshake.map_or(self.next_check, |at| at.min(self.next_check)))
    }

    /// Checks, consent, the handshake's retransmissions.
    pub fn handle_timeout(&mut self, now: Instant, shared: &mut Shared, send: &mut Wire<'_>) {
        if self.failed.is_some() {
            return;
        }
        if self.keys.is_none() && now.saturating_duration_since(self.began) > CONNECT_TIMEOUT {
            let answered = self.last_response.is_some();
            self.failed = Some(if answered { ClientError::HandshakeTimeout } else { ClientError::Unreachable });
            return;
        }
        if self.last_response.is_some_and(|at| now.saturating_duration_since(at) > CONSENT_TIMEOUT) {
            self.failed = Some(ClientError::ConsentExpired);
            return;
        }
        if now >= self.next_check {
            self.check(now, send);
        }
        // Without keys to come there is nothing that DTLS would repeat.
        if self.keys.is_none()
            && let Some(dtls) = &mut self.dtls
            && dtls.poll_timeout().is_some_and(|at| now >= at)
        {
            if dtls.handle_timeout(now).is_err() {
                self.failed = Some(ClientError::HandshakeTimeout);
                return;
            }
            self.drive(shared, send);
        }
    }

    fn check(&mut self, now: Instant, send: &mut Wire<'_>) {
        let interval = if self.last_response.is_some() { CONSENT_INTERVAL } else { CHECK_INTERVAL };
        // RFC 7675 §5.1: randomised by a fifth each way, so that thousands do not ask at once.
        let spread = interval.as_micros() as u64 / 5;
        let jitter = if self.last_response.is_some() { random() % (2 * spread) } else { spread };
        self.next_check = now + interval - Duration::from_micros(spread) + Duration::from_micros(jitter);
        (self.transaction, self.asked_at) = (random(), now);
        let mut transaction_id = [0; 12];
        transaction_id[4..].copy_from_slice(&self.transaction.to_be_bytes());
        let parameters = RequestParameters {
            transaction_id,
            local_ufrag: &self.remote.ufrag,
            remote_ufrag: &self.local.ufrag,
            priority: Some(0x7e00_00ff),
            role: Some((IceRole::Controlling, 1)),
            use_candidate: true,
        };
        let mut message = [0; MAX_REQUEST_LEN];
        let len = write_request(&mut message, &parameters, &self.remote_key);
        send(&message[..len]);
    }

    /// A STUN message from the server: an answer to a check, or a check of its own.
    pub fn handle_stun(
        &mut self,
        now: Instant,
        from: SocketAddr,
        message: &[u8],
        shared: &mut Shared,
        send: &mut Wire<'_>,
    ) {
        if let Ok(request) = BindingRequest::parse(message) {
            if request.verify(&self.local_key) {
                let mut response = [0; 256];
                let len = write_success(&mut response, &request, from, &self.local_key);
                send(&response[..len]);
            }
            return;
        }
        let Ok(response) = BindingResponse::parse(message) else { return };
        if response.transaction_id()[4..] != self.transaction.to_be_bytes() || !response.verify(&self.remote_key) {
            return;
        }
        if response.result().is_err() {
            return;
        }
        self.rtt = now.saturating_duration_since(self.asked_at);
        let first = self.last_response.replace(now).is_none();
        if first {
            self.check(now, send);
            if self.role == DtlsRole::Client {
                self.begin_dtls(now, shared);
                self.drive(shared, send);
            }
        }
    }

    /// A DTLS record from the server.
    pub fn handle_dtls(&mut self, now: Instant, datagram: &[u8], shared: &mut Shared, send: &mut Wire<'_>) {
        if self.dtls.is_none() {
            self.begin_dtls(now, shared);
        }
        let Some(dtls) = &mut self.dtls else { return };
        if dtls.handle_datagram(now, datagram).is_err_and(|error| error.is_fatal()) {
            self.failed.get_or_insert(ClientError::Handshake);
            return;
        }
        self.drive(shared, send);
    }

    fn begin_dtls(&mut self, now: Instant, shared: &Shared) {
        match DtlsTransport::new(now, &shared.identity, self.role, self.answer.fingerprints.clone()) {
            Ok(dtls) => self.dtls = Some(dtls),
            Err(_) => self.failed = Some(ClientError::Handshake),
        }
    }

    fn drive(&mut self, shared: &mut Shared, send: &mut Wire<'_>) {
        let Some(dtls) = &mut self.dtls else { return };
        let (keys, mut closed) = (&mut self.keys, false);
        let result = dtls.drive(&mut shared.scratch, |output| match output {
            DtlsOutput::Datagram(datagram) => {
                send(datagram);
            }
            DtlsOutput::Connected { local, remote } => {
                *keys = Some(Box::new(Keys {
                    rtp_sealer: RtpSealer::new(&local),
                    rtcp_sealer: RtcpSealer::new(&local),
                    rtp_opener: RtpOpener::new(&remote),
                    rtcp_opener: RtcpOpener::new(&remote),
                }));
            }
            DtlsOutput::Data(_) => {}
            DtlsOutput::Closed => closed = true,
        });
        if closed {
            self.failed.get_or_insert(ClientError::Closed);
        } else if result.is_err() {
            self.failed.get_or_insert(ClientError::Handshake);
        }
    }

    /// Says goodbye.
    pub fn close(&mut self, shared: &mut Shared, send: &mut Wire<'_>) {
        if let Some(dtls) = &mut self.dtls {
            dtls.close();
            self.drive(shared, send);
        }
        self.failed.get_or_insert(ClientError::Closed);
    }
}

/// Credentials for one session (RFC 8445 §5.3: at least 24 and 128 bits of randomness).
pub fn new_credentials() -> IceCredentials {
    IceCredentials { ufrag: token(8), pwd: token(24) }
}

fn token(len: usize) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut bytes = vec![0; len];
    getrandom::fill(&mut bytes).expect("the system has randomness");
    bytes.iter().map(|byte| char::from(ALPHABET[usize::from(byte % 64)])).collect()
}

/// A number that nobody can guess.
pub fn random() -> u64 {
    getrandom::u64().expect("the system has randomness")
}
