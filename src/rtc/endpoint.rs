//! One peer: ICE-lite, DTLS, SRTP and data channels joined into a state machine without I/O.
//!
//! Drive it with `handle_*`, then read [`Endpoint::poll_event`] until it is empty and call
//! [`Endpoint::handle_timeout`] at [`Endpoint::poll_timeout`]. What is to be sent goes to a [`Transmit`].

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::data_channel::{ChannelEvent, ChannelId, DataChannels, SctpConfig, SendError};
use super::dtls::{DtlsIdentity, DtlsOutput, DtlsScratch, DtlsTransport, DtlsVersion};
use super::ice_lite::{DropCause, IceLite, Outcome, Ufrag};
use super::sdp::{DtlsRole, Fingerprint, IceCredentials, Negotiated};
use super::srtp::{MasterKey, Opened, Profile, RtcpOpener, RtcpSealer, RtpOpener, RtpSealer, SrtpError};
use super::stun::{BindingRequest, write_error, write_success};
use super::transport_address::TransportAddress;

/// Takes datagrams on their way out.
pub trait Transmit {
    /// Sends `datagram` to `destination`. What does not fit may be dropped: every protocol here repeats itself.
    fn transmit(&mut self, destination: TransportAddress, datagram: &[u8]);
}

/// What all endpoints of a node share.
#[derive(Clone, Debug)]
pub struct EndpointConfig {
    /// Certificate and DTLS parameters.
    pub identity: Arc<DtlsIdentity>,
    /// SCTP parameters.
    pub sctp: SctpConfig,
    /// How long after the offer the DTLS handshake must be complete.
    pub setup_timeout: Duration,
    /// RFC 7675 §5.1: how long without a valid check until the session ends.
    pub consent_timeout: Duration,
}

/// Why an endpoint is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseCause {
    /// The peer closed DTLS.
    PeerClosed,
    /// The handshake failed or the certificate did not match.
    DtlsFailed,
    /// No valid check for the consent time.
    ConsentExpired,
    /// Never connected.
    SetupTimeout,
}

/// What happened.
#[derive(Debug, PartialEq)]
pub enum EndpointEvent {
    /// Keys are there and the pair is nominated: media may be sent.
    Connected,
    /// A data channel event.
    Channel(ChannelEvent),
    /// The session is over; nothing more comes.
    Closed(CloseCause),
}

/// Why a datagram was dropped.
#[derive(Debug, PartialEq, thiserror::Error)]
pub enum EndpointError {
    /// DTLS, SRTP or SRTCP from an address that passed no check.
    #[error("no connectivity check has validated the source address")]
    UnknownSource,
    /// SRTP before the handshake was complete and a pair nominated.
    #[error("no keys yet")]
    NoKeys,
    /// Did not authenticate, or was seen before.
    #[error(transparent)]
    Srtp(#[from] SrtpError),
    /// The DTLS association failed; the session ends.
    #[error("the DTLS association failed")]
    Dtls,
    /// DTLS that is no ClientHello where one is due, or a malformed one.
    #[error("no ClientHello")]
    NoClientHello,
}

/// The four halves of an SRTP association.
struct Srtp {
    rtp_sealer: RtpSealer,
    rtcp_sealer: RtcpSealer,
    rtp_opener: RtpOpener,
    rtcp_opener: RtcpOpener,
    profile: Profile,
}

impl Srtp {
    fn new(local: &MasterKey, remote: &MasterKey) -> Self {
        Self {
            rtp_sealer: RtpSealer::new(local),
            rtcp_sealer: RtcpSealer::new(local),
            rtp_opener: RtpOpener::new(remote),
            rtcp_opener: RtcpOpener::new(remote),
            profile: local.profile(),
        }
    }
}

/// One peer of the gateway.
pub struct Endpoint {
    config: EndpointConfig,
    ice: IceLite,
    dtls: Option<DtlsTransport>,
    /// Where the handshake goes before the pair is nominated: Chromium starts DTLS 30–60 ms earlier.
    dtls_path: Option<TransportAddress>,
    role: DtlsRole,
    fingerprints: Vec<Fingerprint>,
    srtp: Option<Srtp>,
    /// The offer has a section for data channels.
    has_data: bool,
    /// From the first ClientHello on: a session that nobody ever connects to stays small.
    channels: Option<DataChannels>,
    connected: bool,
    closed: bool,
    setup_deadline: Option<Instant>,
    events: VecDeque<EndpointEvent>,
}

impl std::fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Endpoint").field("connected", &self.connected).finish_non_exhaustive()
    }
}

impl Endpoint {
    /// An endpoint that waits for checks on `local`, whose ufrag is `ufrag`.
    pub fn new(
        now: Instant,
        config: EndpointConfig,
        ufrag: Ufrag,
        local: &IceCredentials,
        negotiated: &Negotiated,
    ) -> Self {
        Self {
            ice: IceLite::new(now, ufrag, &local.pwd, &negotiated.remote_ice.ufrag, config.consent_timeout),
            dtls: None,
            dtls_path: None,
            role: negotiated.dtls_role,
            fingerprints: negotiated.remote_fingerprints.clone(),
            srtp: None,
            has_data: negotiated.data().is_some(),
            channels: None,
            connected: false,
            closed: false,
            setup_deadline: Some(now + config.setup_timeout),
            events: VecDeque::new(),
            config,
        }
    }

    /// The nominated pair's remote address: where media goes.
    pub fn destination(&self) -> Option<TransportAddress> {
        self.ice.nominated()
    }

    /// The handshake has made its keys.
    pub fn is_keyed(&self) -> bool {
        self.srtp.is_some()
    }

    /// Keys are there and the pair is nominated.
    pub fn is_connected(&self) -> bool {
        self.connected && !self.closed
    }

    /// How many packets of media may go to [`Endpoint::destination`] now: no limit once the peer has proved to be there.
    pub fn allowance(&self, now: Instant) -> usize {
        self.ice.allowance(now)
    }

    /// So many packets of media went there.
    pub fn spend(&mut self, now: Instant, packets: usize) {
        self.ice.spend(now, packets);
    }

    /// The TCP connection from `address` is closed.
    pub fn forget(&mut self, address: TransportAddress) {
        self.ice.forget(address);
        self.dtls_path = self.dtls_path.filter(|path| *path != address);
    }

    /// The addresses that may send to this endpoint.
    pub fn validated_addresses(&self) -> impl Iterator<Item = TransportAddress> {
        self.ice.validated_addresses()
    }

    /// When `address` last passed a check, if it may send to this endpoint.
    pub fn heard_from(&self, address: TransportAddress) -> Option<Instant> {
        self.ice.heard_from(address)
    }

    /// Restarts ICE with new credentials of ours, for a peer that has a new ufrag as well. DTLS, SRTP and SCTP go on: a change of the ufrag alone begins no new DTLS
    /// association (RFC 8842 §4).
    pub fn restart_ice(&mut self, now: Instant, ufrag: Ufrag, local: &IceCredentials, remote_ufrag: &str) {
        self.ice.restart(now, ufrag, &local.pwd, remote_ufrag);
    }

    /// Takes a Binding request whose USERNAME named this endpoint, and answers it. `Ok(true)` if the set of validated
    /// addresses has changed.
    ///
    /// # Errors
    /// The check was dropped without an answer.
    pub fn handle_binding(
        &mut self,
        now: Instant,
        source: TransportAddress,
        request: &BindingRequest<'_>,
        scratch: &mut DtlsScratch,
        out: &mut impl Transmit,
    ) -> Result<bool, DropCause> {
        let mut answer = [0; 128];
        let outcome = self.ice.handle_binding(now, source, request);
        let len = match outcome {
            Outcome::Respond { .. } => {
                write_success(&mut answer, request, source.socket, self.ice.key_for(request.local_ufrag()))
            }
            Outcome::Refuse(error) => write_error(&mut answer, request, error, self.ice.key_for(request.local_ufrag())),
            Outcome::Dropped(cause) => return Err(cause),
        };
        out.transmit(source, &answer[..len]);
        if self.ice.nominated().is_some() {
            // RFC 8842 §5.3: as DTLS client we start once there is a pair to start on.
            if self.role == DtlsRole::Client && self.dtls.is_none() && !self.closed {
                self.start_dtls(now);
                self.drive(now, scratch, out);
            }
            self.try_connect();
        }
        Ok(matches!(outcome, Outcome::Respond { newly_validated: true, .. }))
    }

    /// Takes a datagram that [`super::demux::classify`] says is DTLS.
    ///
    /// # Errors
    /// The source is unknown, or the association failed.
    pub fn handle_dtls(
        &mut self,
        now: Instant,
        source: TransportAddress,
        datagram: &[u8],
        scratch: &mut DtlsScratch,
        out: &mut impl Transmit,
    ) -> Result<(), EndpointError> {
        if !self.ice.is_validated(source) {
            return Err(EndpointError::UnknownSource);
        }
        self.dtls_path = Some(source);
        if self.dtls.is_none() && !self.closed {
            self.start_dtls(now);
        }
        let result = self.dtls.as_mut().map_or(Ok(()), |dtls| dtls.handle_datagram(now, datagram));
        match result {
            Ok(()) => {}
            Err(error) if error.is_fatal() => self.fail(CloseCause::DtlsFailed),
            Err(_) => return Err(EndpointError::NoClientHello),
        }
        if self.drive(now, scratch, out) {
            self.ice.handle_authenticated(now, source);
        }
        if self.closed { Err(EndpointError::Dtls) } else { Ok(()) }
    }

    /// Opens an SRTP packet in place.
    ///
    /// # Errors
    /// See [`EndpointError`]; the packet is to be dropped.
    pub fn open_rtp(
        &mut self,
        now: Instant,
        source: TransportAddress,
        packet: &mut [u8],
        header_len: usize,
    ) -> Result<Opened, EndpointError> {
        if !self.ice.is_validated(source) {
            return Err(EndpointError::UnknownSource);
        }
        let srtp = self.srtp.as_mut().filter(|_| self.connected).ok_or(EndpointError::NoKeys)?;
        let opened = srtp.rtp_opener.open(packet, header_len)?;
        self.ice.handle_authenticated(now, source);
        Ok(opened)
    }

    /// Opens an SRTCP packet in place; returns the length of the clear compound packet.
    ///
    /// # Errors
    /// See [`EndpointError`]; the packet is to be dropped.
    pub fn open_rtcp(
        &mut self,
        now: Instant,
        source: TransportAddress,
        packet: &mut [u8],
    ) -> Result<usize, EndpointError> {
        if !self.ice.is_validated(source) {
            return Err(EndpointError::UnknownSource);
        }
        let srtp = self.srtp.as_mut().filter(|_| self.connected).ok_or(EndpointError::NoKeys)?;
        let len = srtp.rtcp_opener.open(packet)?;
        self.ice.handle_authenticated(now, source);
        Ok(len)
    }

    /// The sealer for outgoing RTP and where it goes, once connected.
    pub fn egress(&self) -> Option<(&RtpSealer, TransportAddress)> {
        match (&self.srtp, self.ice.nominated()) {
            (Some(srtp), Some(destination)) if self.is_connected() => Some((&srtp.rtp_sealer, destination)),
            _ => None,
        }
    }

    /// The SRTP profile in use.
    pub fn profile(&self) -> Option<Profile> {
        self.srtp.as_ref().map(|s| s.profile)
    }

    /// The DTLS version in use, once agreed.
    pub fn dtls_version(&self) -> Option<DtlsVersion> {
        self.dtls.as_ref().and_then(DtlsTransport::version)
    }

    /// Seals and sends a clear RTCP compound packet.
    pub fn send_rtcp(&mut self, clear: &[u8], out: &mut impl Transmit) {
        if !self.is_connected() {
            return;
        }
        if let (Some(srtp), Some(destination)) = (&mut self.srtp, self.ice.nominated()) {
            let mut sealed = [0; 1500];
            if clear.len() + srtp.profile.rtcp_overhead() <= sealed.len() {
                let len = srtp.rtcp_sealer.seal(clear, &mut sealed);
                out.transmit(destination, &sealed[..len]);
            }
        }
    }

    /// Sends a text message on a data channel.
    ///
    /// # Errors
    /// The channel is closed or its queue is full; nothing was queued.
    pub fn send_message(
        &mut self,
        now: Instant,
        channel: ChannelId,
        text: &str,
        scratch: &mut DtlsScratch,
        out: &mut impl Transmit,
    ) -> Result<(), SendError> {
        let result = match &mut self.channels {
            Some(channels) => channels.send(now, channel, text),
            None => Err(SendError::Closed),
        };
        self.drive(now, scratch, out);
        result
    }

    /// Ends all data channels of a peer that misuses them; media go on.
    pub fn abort_channels(&mut self, now: Instant, scratch: &mut DtlsScratch, out: &mut impl Transmit) {
        if let (Some(channels), Some(dtls)) = (&mut self.channels, &mut self.dtls) {
            // If it cannot be said, the session is over, which the next drive finds out.
            channels.abort(now, |packet| _ = dtls.send(packet));
        }
        self.drive(now, scratch, out);
    }

    /// Ends the session with an authenticated alert (RFC 9725 §4.2, RFC 7675 §5.2).
    pub fn close(&mut self, now: Instant, scratch: &mut DtlsScratch, out: &mut impl Transmit) {
        if let Some(dtls) = &mut self.dtls {
            dtls.close();
        }
        self.drive(now, scratch, out);
        self.closed = true;
    }

    /// What happened since the last call.
    pub fn poll_event(&mut self) -> Option<EndpointEvent> {
        self.events.pop_front()
    }

    /// When to call [`Endpoint::handle_timeout`].
    pub fn poll_timeout(&self) -> Option<Instant> {
        if self.closed {
            return None;
        }
        [
            self.setup_deadline,
            self.ice.poll_timeout().filter(|_| self.connected),
            self.dtls.as_ref().and_then(DtlsTransport::poll_timeout),
            self.channels.as_ref().and_then(DataChannels::poll_timeout),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Retransmissions, and the ends that time brings.
    pub fn handle_timeout(&mut self, now: Instant, scratch: &mut DtlsScratch, out: &mut impl Transmit) {
        if self.closed {
            return;
        }
        if self.setup_deadline.is_some_and(|at| now >= at) {
            return self.fail(CloseCause::SetupTimeout);
        }
        if self.connected && self.ice.consent_expired(now) {
            return self.fail(CloseCause::ConsentExpired);
        }
        // A session wakes for its RTCP most of the time: what the libraries keep has left the caches, and stays where it is.
        let is_due = |at: Option<Instant>| at.is_some_and(|at| now >= at);
        let dtls = self.dtls.as_mut().filter(|dtls| is_due(dtls.poll_timeout()));
        let channels = self.channels.as_mut().filter(|channels| is_due(channels.poll_timeout()));
        if dtls.is_none() && channels.is_none() {
            return;
        }
        if dtls.is_some_and(|dtls| dtls.handle_timeout(now).is_err()) {
            return self.fail(CloseCause::DtlsFailed);
        }
        if let Some(channels) = channels {
            channels.handle_timeout(now);
        }
        self.drive(now, scratch, out);
    }

    fn start_dtls(&mut self, now: Instant) {
        match DtlsTransport::new(now, &self.config.identity, self.role, self.fingerprints.clone()) {
            Ok(dtls) => {
                self.dtls = Some(dtls);
                self.channels = self.has_data.then(|| DataChannels::new(&self.config.sctp));
            }
            Err(_) => self.fail(CloseCause::DtlsFailed),
        }
    }

    /// Moves bytes between SCTP, DTLS and the wire until nothing is left to move. Whether something came in that has
    /// authenticated: the end of the handshake, or data.
    fn drive(&mut self, now: Instant, scratch: &mut DtlsScratch, out: &mut impl Transmit) -> bool {
        let Some(dtls) = &mut self.dtls else { return false };
        // Until the peer has proved to be where it nominated, what it asks is answered where it asked.
        let destination = self.ice.proven().or(self.dtls_path).or(self.ice.nominated());
        let mut authentic = false;
        let (channels, srtp, events) = (&mut self.channels, &mut self.srtp, &mut self.events);
        let mut end = None;
        // Data that arrives makes SCTP answer, which DTLS seals on the next turn: a packet in brings at most a few out.
        loop {
            let drained = dtls.drive(scratch, |output| match output {
                DtlsOutput::Datagram(datagram) => {
                    if let Some(destination) = destination {
                        out.transmit(destination, datagram);
                    }
                }
                DtlsOutput::Connected { local, remote } => {
                    authentic = true;
                    *srtp = Some(Srtp::new(&local, &remote));
                }
                DtlsOutput::Data(packet) => {
                    authentic = true;
                    if let Some(channels) = channels {
                        channels.handle_packet(now, packet);
                    }
                }
                DtlsOutput::Closed => end = Some(CloseCause::PeerClosed),
            });
            if drained.is_err() {
                end = Some(CloseCause::DtlsFailed);
            }
            let Some(channels) = channels.as_mut().filter(|_| end.is_none() && srtp.is_some()) else { break };
            channels.poll_events(now, |event| events.push_back(EndpointEvent::Channel(event)));
            let mut sent = false;
            channels.poll_transmit(now, |packet| {
                sent = true;
                if dtls.send(packet).is_err() {
                    end = Some(CloseCause::DtlsFailed);
                }
            });
            if !sent {
                break;
            }
        }
        match end {
            Some(cause) => self.fail(cause),
            None => self.try_connect(),
        }
        authentic
    }

    fn try_connect(&mut self) {
        if !self.connected && !self.closed && self.srtp.is_some() && self.ice.nominated().is_some() {
            self.connected = true;
            self.setup_deadline = None;
            self.events.push_back(EndpointEvent::Connected);
        }
    }

    fn fail(&mut self, cause: CloseCause) {
        if !self.closed {
            self.closed = true;
            self.events.push_back(EndpointEvent::Closed(cause));
        }
    }
}
