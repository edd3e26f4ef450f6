//! A WebRTC client without sockets: a full ICE agent, DTLS, SRTP keys, consent.
//!
//! Enters: what the answer said, datagrams, time. Leaves: datagrams, keys, the end. One candidate pair: our socket and the
//! server's first UDP candidate. The server may be a lite agent or a full one, which checks the pair as well.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tableside::rtc::dtls::{DtlsIdentity, DtlsOutput, DtlsScratch, DtlsTransport};
use tableside::rtc::sdp::{DtlsRole, IceCredentials};
use tableside::rtc::srtp::{RtcpOpener, RtcpSealer, RtpOpener, RtpSealer};
use tableside::rtc::stun::{
    BindingRequest, BindingResponse, ErrorCode, IceRole, IntegrityKey, MAX_REQUEST_LEN, MAX_RESPONSE_LEN,
    RequestParameters, write_error, write_request, write_success,
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
    /// Who offers begins as the controlling one (RFC 8445 §6.1.1); the server may have offered to whoever answered us.
    ice_role: IceRole,
    tie_breaker: u64,
    dtls_role: DtlsRole,
    dtls: Option<DtlsTransport>,
    answer: Arc<Answer>,
    keys: Option<Box<Keys>>,
    began: Instant,
    next_check: Instant,
    last_response: Option<Instant>,
    asked_at: Instant,
    asked_as: IceRole,
    rtt: Duration,
    transaction: u64,
    failed: Option<ClientError>,
    /// Decrypted SCTP packets that nobody has taken.
    data: Vec<Vec<u8>>,
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
            ice_role: IceRole::Controlling,
            tie_breaker: random(),
            dtls_role: answer.our_role,
            dtls: None,
            answer,
            keys: None,
            began: now,
            next_check: now,
            last_response: None,
            asked_at: now,
            asked_as: IceRole::Controlling,
            rtt: Duration::ZERO,
            transaction: 0,
            failed: None,
            data: Vec::new(),
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
        (self.transaction, self.asked_at, self.asked_as) = (random(), now, self.ice_role);
        let mut transaction_id = [0; 12];
        transaction_id[4..].copy_from_slice(&self.transaction.to_be_bytes());
        let parameters = RequestParameters {
            transaction_id,
            local_ufrag: &self.remote.ufrag,
            remote_ufrag: &self.local.ufrag,
            priority: Some(0x7e00_00ff),
            role: Some((self.ice_role, self.tie_breaker)),
            use_candidate: self.ice_role == IceRole::Controlling,
        };
        let mut message = [0; MAX_REQUEST_LEN];
        let len = write_request(&mut message, &parameters, &self.remote_key);
        send(&message[..len]);
    }

    /// A STUN message from the server: an answer to a check, or a check of its own.
    pub fn handle_stun(&mut self, now: Instant, message: &[u8], shared: &mut Shared, send: &mut Wire<'_>) {
        if let Ok(request) = BindingRequest::parse(message) {
            if request.verify(&self.local_key) {
                let mut response = [0; MAX_RESPONSE_LEN];
                let len = match self.settle_roles(&request) {
                    Ok(()) => write_success(&mut response, &request, self.answer.server, &self.local_key),
                    Err(error) => write_error(&mut response, &request, error, &self.local_key),
                };
                send(&response[..len]);
            }
            return;
        }
        let Ok(response) = BindingResponse::parse(message) else { return };
        if response.transaction_id()[4..] != self.transaction.to_be_bytes() || !response.verify(&self.remote_key) {
            return;
        }
        match response.result() {
            Ok(_) => {}
            // RFC 8445 §7.2.5.1: switch, and ask again. A conflict that the server's own check has settled meanwhile is none.
            Err(code) => {
                if code == ErrorCode::RoleConflict.code() && self.asked_as == self.ice_role {
                    self.ice_role = other(self.ice_role);
                    self.check(now, send);
                }
                return;
            }
        }
        self.rtt = now.saturating_duration_since(self.asked_at);
        let first = self.last_response.replace(now).is_none();
        if first {
            self.check(now, send);
            if self.dtls_role == DtlsRole::Client {
                self.begin_dtls(now, shared);
                self.drive(shared, send);
            }
        }
    }

    /// RFC 8445 §7.3.1.1: of two agents with the same role the larger tie-breaker controls.
    fn settle_roles(&mut self, request: &BindingRequest<'_>) -> Result<(), ErrorCode> {
        if request.role() != Some(self.ice_role) {
            return Ok(());
        }
        let larger = request.tie_breaker().is_none_or(|theirs| self.tie_breaker >= theirs);
        if larger == (self.ice_role == IceRole::Controlling) {
            return Err(ErrorCode::RoleConflict);
        }
        self.ice_role = other(self.ice_role);
        Ok(())
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
        match DtlsTransport::new(now, &shared.identity, self.dtls_role, self.answer.fingerprints.clone()) {
            Ok(dtls) => self.dtls = Some(dtls),
            Err(_) => self.failed = Some(ClientError::Handshake),
        }
    }

    fn drive(&mut self, shared: &mut Shared, send: &mut Wire<'_>) {
        let Some(dtls) = &mut self.dtls else { return };
        let (keys, data, mut closed) = (&mut self.keys, &mut self.data, false);
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
            DtlsOutput::Data(packet) => data.push(packet.to_vec()),
            DtlsOutput::Closed => closed = true,
        });
        if closed {
            self.failed.get_or_insert(ClientError::Closed);
        } else if result.is_err() {
            self.failed.get_or_insert(ClientError::Handshake);
        }
    }

    /// SCTP packets that came.
    pub fn take_data(&mut self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.data)
    }

    /// Sends SCTP packets.
    pub fn send_data<'a>(&mut self, packets: impl Iterator<Item = &'a [u8]>, shared: &mut Shared, send: &mut Wire<'_>) {
        let Some(dtls) = &mut self.dtls else { return };
        let mut any = false;
        for packet in packets {
            any |= dtls.send(packet).is_ok();
        }
        if any {
            self.drive(shared, send);
        }
    }

    /// Which side of the handshake is ours.
    pub fn role(&self) -> DtlsRole {
        self.dtls_role
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

fn other(role: IceRole) -> IceRole {
    match role {
        IceRole::Controlling => IceRole::Controlled,
        IceRole::Controlled => IceRole::Controlling,
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

#[cfg(test)]
mod tests {
    use super::*;

    const SERVER: &str = "10.0.0.1:7000";

    fn credentials(name: &str) -> IceCredentials {
        IceCredentials { ufrag: name.into(), pwd: format!("the password of {name}") }
    }

    fn client(now: Instant) -> (Client, Shared) {
        let identity = Arc::new(DtlsIdentity::generate().unwrap());
        let answer = Answer {
            ice: credentials("server"),
            fingerprints: Vec::new(),
            our_role: DtlsRole::Server,
            server: SERVER.parse().unwrap(),
            audio: None,
            video: None,
            data: false,
        };
        (Client::new(now, credentials("client"), answer.into()), Shared::new(identity))
    }

    /// A check of a server that is a full agent.
    fn check(role: IceRole, tie_breaker: u64) -> Vec<u8> {
        let parameters = RequestParameters {
            transaction_id: [7; 12],
            local_ufrag: "client",
            remote_ufrag: "server",
            priority: Some(1),
            role: Some((role, tie_breaker)),
            use_candidate: role == IceRole::Controlling,
        };
        let mut message = vec![0; MAX_REQUEST_LEN];
        let len = write_request(&mut message, &parameters, &IntegrityKey::new(&credentials("client").pwd));
        message.truncate(len);
        message
    }

    /// What the client answers to a server's check.
    fn answered(client: &mut Client, shared: &mut Shared, now: Instant, check: &[u8]) -> Result<String, u16> {
        let mut answer = None;
        client.handle_stun(now, check, shared, &mut |bytes| {
            let response = BindingResponse::parse(bytes).unwrap();
            assert!(response.verify(&IntegrityKey::new(&credentials("client").pwd)));
            answer = Some(response.result().map(|mapped| mapped.to_string()));
            true
        });
        answer.expect("a check that is genuine is answered")
    }

    /// The role of the next check, and whether it nominates.
    fn asks(client: &mut Client, shared: &mut Shared, now: Instant) -> (IceRole, bool) {
        let mut asked = None;
        client.handle_timeout(now, shared, &mut |bytes| {
            let request = BindingRequest::parse(bytes).unwrap();
            asked = Some((request.role().unwrap(), request.use_candidate()));
            true
        });
        asked.expect("a check is due")
    }

    #[test]
    fn a_servers_check_is_told_where_it_came_from() {
        let now = Instant::now();
        let (mut client, mut shared) = client(now);
        let check = check(IceRole::Controlled, 1);
        assert_eq!(answered(&mut client, &mut shared, now, &check), Ok(SERVER.to_owned()));
        assert_eq!(asks(&mut client, &mut shared, now), (IceRole::Controlling, true));
    }

    #[test]
    fn of_two_who_control_the_larger_tie_breaker_does() {
        let now = Instant::now();
        let (mut client, mut shared) = client(now);
        assert_eq!(answered(&mut client, &mut shared, now, &check(IceRole::Controlling, 0)), Err(487));
        assert_eq!(asks(&mut client, &mut shared, now), (IceRole::Controlling, true));
        let larger = check(IceRole::Controlling, u64::MAX);
        assert_eq!(answered(&mut client, &mut shared, now, &larger), Ok(SERVER.to_owned()));
        assert_eq!(asks(&mut client, &mut shared, now + CHECK_INTERVAL), (IceRole::Controlled, false));
        // And of two who do not.
        assert_eq!(answered(&mut client, &mut shared, now, &check(IceRole::Controlled, u64::MAX)), Err(487));
        assert_eq!(answered(&mut client, &mut shared, now, &check(IceRole::Controlled, 0)), Ok(SERVER.to_owned()));
        assert_eq!(asks(&mut client, &mut shared, now + 2 * CHECK_INTERVAL), (IceRole::Controlling, true));
    }

    #[test]
    fn a_conflict_that_the_server_sees_is_settled_at_once() {
        let now = Instant::now();
        let (mut client, mut shared) = client(now);
        let mut refusal = vec![0; MAX_RESPONSE_LEN];
        client.handle_timeout(now, &mut shared, &mut |bytes| {
            let request = BindingRequest::parse(bytes).unwrap();
            let key = IntegrityKey::new(&credentials("server").pwd);
            let len = write_error(&mut refusal, &request, ErrorCode::RoleConflict, &key);
            refusal.truncate(len);
            true
        });
        let mut roles = Vec::new();
        for _ in 0..2 {
            // The same again says nothing of the new check.
            client.handle_stun(now, &refusal, &mut shared, &mut |bytes| {
                roles.push(BindingRequest::parse(bytes).unwrap().role());
                true
            });
        }
        assert_eq!(roles, [Some(IceRole::Controlled)]);
        assert_eq!(client.failure(), None);
    }
}
