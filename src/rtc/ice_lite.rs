//! ICE-lite (RFC 8445) for one session: who may talk to us, where media goes, and whether it still may.
//!
//! We answer with host candidates only, send no checks of our own, and are always controlled (§6.1.1). So all that is
//! left of ICE is the receipt of checks, [`IceLite::handle_binding`], and one timer, [`IceLite::poll_timeout`].

use std::fmt;
use std::time::{Duration, Instant};

use super::sdp::IceCredentials;
use super::stun::{BindingRequest, ErrorCode, IceRole, IntegrityKey};
use super::transport_address::{Transport, TransportAddress};

/// RFC 7675 §5.1: consent expires 30 seconds after the last valid proof of it.
pub const DEFAULT_CONSENT_TIMEOUT: Duration = Duration::from_secs(30);

/// How long after a restart the old credentials may still be used, at most: for packets in flight (RFC 8839 §4.4.3.2).
const OLD_CREDENTIALS: Duration = Duration::from_secs(30);

/// Addresses remembered per session. A phone with two networks and both address families has four.
pub const MAX_VALIDATED: usize = 8;

/// How long nothing may be heard from where media goes, before a check from elsewhere says where it should go.
///
/// Browsers send RTCP there at least every 1.5 s while they receive, and a check every 2 to 6 s: a shorter time would
/// let two living paths take the media from each other, a longer one costs a player of Firefox that much picture.
pub const SILENCE: Duration = Duration::from_secs(2);

/// For how long what a peer once sent from an address proves that it is still there.
const PROOF_HOLD: Duration = Duration::from_secs(10);

/// Packets that may go to an address from which nothing but checks has come, at once, and how soon one more. Enough for
/// a player to send its feedback about them, which is the proof; for somebody who aims a stream at another host by
/// checks with a forged source, 5 kB/s.
const UNPROVEN_PACKETS: u32 = 8;
const UNPROVEN_INTERVAL: Duration = Duration::from_millis(250);

/// Our user fragment: it names the shard and slot of its session, so that a check finds it without a table.
///
/// It is not secret and proves nothing; `random` keeps a check that is late for one session from reaching the next
/// session in the same slot, and is the "at least 24 bits of randomness" of RFC 8839 §5.4.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ufrag {
    /// The shard that owns the session.
    pub shard: u16,
    /// Its slot there.
    pub slot: u32,
    /// 24 random bits.
    pub random: [u8; 3],
}

impl Ufrag {
    /// Characters of an encoded ufrag.
    pub const LEN: usize = 12;

    /// The 72 bits as ice-chars, six in each.
    pub fn encode(&self) -> [u8; Self::LEN] {
        let mut bytes = [0; 9];
        bytes[..2].copy_from_slice(&self.shard.to_be_bytes());
        bytes[2..6].copy_from_slice(&self.slot.to_be_bytes());
        bytes[6..].copy_from_slice(&self.random);
        ice_chars(bytes)
    }

    /// Reads what [`Ufrag::encode`] wrote; `None` for anything else.
    pub fn decode(ufrag: &[u8]) -> Option<Self> {
        let ufrag: &[u8; Self::LEN] = ufrag.try_into().ok()?;
        let mut bits = 0u128;
        for &char in ufrag {
            bits = bits << 6 | u128::from(ice_char_value(char)?);
        }
        let [.., s0, s1, l0, l1, l2, l3, r0, r1, r2] = bits.to_be_bytes();
        Some(Self {
            shard: u16::from_be_bytes([s0, s1]),
            slot: u32::from_be_bytes([l0, l1, l2, l3]),
            random: [r0, r1, r2],
        })
    }
}

impl fmt::Display for Ufrag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.encode().iter().try_for_each(|&c| fmt::Write::write_char(f, char::from(c)))
    }
}

/// Credentials for a new session from 21 random bytes: 24 bits go into the ufrag, 144 into the password, which RFC 8839
/// §5.4 wants to have at least 128.
pub fn new_credentials(random: [u8; 21], shard: u16, slot: u32) -> (Ufrag, IceCredentials) {
    let [r0, r1, r2, secret @ ..] = random;
    let ufrag = Ufrag { shard, slot, random: [r0, r1, r2] };
    let pwd = ice_chars::<18, 24>(secret).iter().map(|&c| char::from(c)).collect();
    (ufrag, IceCredentials { ufrag: ufrag.to_string(), pwd })
}

/// What is to be done about a connectivity check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Answer it with [`super::stun::write_success`], keyed by [`IceLite::key_for`] the check's ufrag.
    Respond {
        /// The source may send DTLS from now on.
        newly_validated: bool,
        /// Media goes to the source from now on, and went elsewhere or nowhere before.
        newly_nominated: bool,
    },
    /// Answer it with [`super::stun::write_error`].
    Refuse(ErrorCode),
    /// Count it and say nothing.
    Dropped(DropCause),
}

/// Why a check was dropped. RFC 8489 §9.1.3 would answer both with an error; silence gives a scanner nothing to learn
/// and a reflector nothing to reflect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DropCause {
    /// USERNAME names another session than this one, or another ICE session of its peer.
    UnknownUfrag,
    /// MESSAGE-INTEGRITY is not by our password.
    Integrity,
}

#[derive(Clone, Copy, Debug)]
struct Validated {
    address: TransportAddress,
    last_check: Instant,
    /// The last check, or packet that authenticated.
    last_heard: Instant,
    /// The last packet that authenticated and was no check: who sends it has keys, which a handshake gave it there.
    proven: Option<Instant>,
    /// A check from there had USE-CANDIDATE.
    nominated: bool,
}

/// Where media goes.
#[derive(Clone, Copy, Debug)]
struct Path {
    address: TransportAddress,
    /// A check proves that its sender knows the password, not that it is where it says. Something that is encrypted is
    /// the best proof that a lite agent gets: to challenge an address is what a check of its own would be for, and it
    /// sends none (RFC 8445 §6.2). Who holds the session's keys and forges sources can still forge this one.
    proven: bool,
    /// When it was chosen.
    since: Instant,
}

/// What the checks of one ICE session name and are signed with.
#[derive(Debug)]
struct Credentials {
    ufrag: [u8; Ufrag::LEN],
    remote_ufrag: Box<[u8]>,
    key: IntegrityKey,
}

impl Credentials {
    fn new(ufrag: Ufrag, pwd: &str, remote_ufrag: &str) -> Self {
        Self { ufrag: ufrag.encode(), remote_ufrag: remote_ufrag.as_bytes().into(), key: IntegrityKey::new(pwd) }
    }
}

/// What a restart has replaced.
#[derive(Debug)]
struct Replaced {
    credentials: Credentials,
    until: Instant,
    /// The new credentials have nominated a pair: the old ones no longer do.
    superseded: bool,
}

/// The ICE state of one session. Drive it with `handle_binding`, and with `consent_expired` at `poll_timeout`.
#[derive(Debug)]
pub struct IceLite {
    current: Credentials,
    /// Boxed, since few sessions ever restart.
    replaced: Option<Box<Replaced>>,
    validated: Vec<Validated>,
    nominated: Option<Path>,
    /// Its connection was closed, so that any path is better than none.
    path_lost: bool,
    unproven_left: u32,
    unproven_since: Instant,
    consent_timeout: Duration,
    consent_until: Instant,
    revoked: bool,
}

impl IceLite {
    /// State for the credentials that the answer carries, and the offer's ufrag. Consent runs from `now`, before any check.
    pub fn new(now: Instant, ufrag: Ufrag, pwd: &str, remote_ufrag: &str, consent_timeout: Duration) -> Self {
        Self {
            current: Credentials::new(ufrag, pwd, remote_ufrag),
            replaced: None,
            validated: Vec::with_capacity(MAX_VALIDATED),
            nominated: None,
            path_lost: false,
            unproven_left: UNPROVEN_PACKETS,
            unproven_since: now,
            consent_timeout,
            consent_until: now + consent_timeout,
            revoked: false,
        }
    }

    /// Takes a connectivity check that arrived from `source`.
    pub fn handle_binding(&mut self, now: Instant, source: TransportAddress, request: &BindingRequest<'_>) -> Outcome {
        let Some((credentials, may_nominate)) = self.credentials(now, request.local_ufrag()) else {
            return Outcome::Dropped(DropCause::UnknownUfrag);
        };
        if !request.verify(&credentials.key) {
            return Outcome::Dropped(DropCause::Integrity);
        }
        // RFC 8445 §7.3: the agent "MUST consider the username to be valid" if its first value is ours. Here the second
        // counts as well (§7.2.2 says what it is), which is a deviation: Chromium that restarts ICE checks its new sockets with the new ufrag and our old one until our answer has
        // come. A pair that such a check made would be nominated and kept, and die 30 s later with our old credentials.
        if request.remote_ufrag() != &credentials.remote_ufrag[..] {
            return Outcome::Dropped(DropCause::UnknownUfrag);
        }
        if let Some(error) = self.refusal(now, request) {
            return Outcome::Refuse(error);
        }
        self.consent_until = now + self.consent_timeout;
        let newly_validated = self.validate(now, source);
        let nominates = may_nominate
            && (request.use_candidate() && self.is_nomination_followed(source) || self.is_path_silent(now));
        if let Some(replaced) =
            self.replaced.as_mut().filter(|_| nominates && request.local_ufrag() == self.current.ufrag)
        {
            replaced.superseded = true;
        }
        Outcome::Respond { newly_validated, newly_nominated: nominates && self.nominate(now, source) }
    }

    /// Something from `source` has authenticated that was no check: SRTP, SRTCP, or data under DTLS. It came at `arrived`, which
    /// may be a little ago.
    pub fn handle_authenticated(&mut self, arrived: Instant, source: TransportAddress) {
        let Some(known) = self.validated.iter_mut().find(|v| v.address == source) else { return };
        known.last_heard = known.last_heard.max(arrived);
        known.proven = known.proven.max(Some(arrived));
        let nominated = known.nominated;
        if let Some(path) = self.nominated.as_mut()
            && (path.address == source || nominated && !path.proven && arrived >= path.since)
        {
            // Who nominates several pairs at once (RFC 5245 §8.1.1.2), as Firefox does, sends on the one that it means. What
            // was sent before the peer moved is no sign that it has moved back.
            *path = Path { address: source, proven: true, ..*path };
        }
    }

    /// `address` cannot be reached any more: its connection is closed.
    pub fn forget(&mut self, address: TransportAddress) {
        self.validated.retain(|v| v.address != address);
        if self.nominated.is_some_and(|path| path.address == address) {
            self.nominated = None;
            self.path_lost = true;
        }
    }

    /// Restarts ICE with new credentials of ours and the peer's new ufrag (RFC 8445 §9). Media goes on to the pair it went to: by RFC 8839
    /// §4.4.3.2 the previous valid pair is used until the new credentials have one. Checks with the old ones, on their way
    /// or sent by a peer that still waits for the answer to its request, are answered for 30 s.
    ///
    /// Our role stays as it is, and so does what addresses have proved: whoever sent those checks knew the password.
    pub fn restart(&mut self, now: Instant, ufrag: Ufrag, pwd: &str, remote_ufrag: &str) {
        let new = Credentials::new(ufrag, pwd, remote_ufrag);
        let credentials = std::mem::replace(&mut self.current, new);
        self.replaced = Some(Box::new(Replaced { credentials, until: now + OLD_CREDENTIALS, superseded: false }));
    }

    /// The key of the password that goes with `ufrag`, for the response to a check that named it.
    pub fn key_for(&self, ufrag: &[u8]) -> &IntegrityKey {
        let replaced = self.replaced.as_ref().map(|replaced| &replaced.credentials);
        &replaced.filter(|old| old.ufrag == ufrag && self.current.ufrag != ufrag).unwrap_or(&self.current).key
    }

    /// Whether an authenticated check came from `address`: DTLS and SRTP from any other is dropped.
    ///
    /// The handshake needs no more than this. Chromium's ClientHello precedes its nomination.
    pub fn is_validated(&self, address: TransportAddress) -> bool {
        self.validated.iter().any(|v| v.address == address)
    }

    /// When the last authenticated check came from `address`, if it is remembered.
    pub fn heard_from(&self, address: TransportAddress) -> Option<Instant> {
        self.validated.iter().find(|v| v.address == address).map(|v| v.last_check)
    }

    /// The addresses that an authenticated check came from.
    pub fn validated_addresses(&self) -> impl Iterator<Item = TransportAddress> {
        self.validated.iter().map(|v| v.address)
    }

    /// Where media goes. RFC 8445 §12.1.1: "A lite implementation MUST NOT send data until it has a valid list that
    /// contains a candidate pair", and only a nominated pair enters a lite agent's valid list (§7.3.2).
    pub fn nominated(&self) -> Option<TransportAddress> {
        self.nominated.map(|path| path.address)
    }

    /// [`IceLite::nominated`], once more than checks has come from there.
    pub fn proven(&self) -> Option<TransportAddress> {
        self.nominated.filter(|path| path.proven).map(|path| path.address)
    }

    /// How many packets of media may go to the nominated address now: no limit once it is proven.
    pub fn allowance(&self, now: Instant) -> usize {
        match self.nominated {
            None => 0,
            Some(Path { proven: true, .. }) => usize::MAX,
            Some(_) => self.unproven_budget(now) as usize,
        }
    }

    /// So many packets of media went to the nominated address.
    pub fn spend(&mut self, now: Instant, packets: usize) {
        if self.nominated.is_some_and(|path| !path.proven) {
            let left = self.unproven_budget(now).saturating_sub(u32::try_from(packets).unwrap_or(u32::MAX));
            (self.unproven_left, self.unproven_since) = (left, now);
        }
    }

    /// Over all addresses: who changes between two of them must not get the allowance twice.
    fn unproven_budget(&self, now: Instant) -> u32 {
        let intervals = now.saturating_duration_since(self.unproven_since).as_millis() / UNPROVEN_INTERVAL.as_millis();
        self.unproven_left.saturating_add(u32::try_from(intervals).unwrap_or(u32::MAX)).min(UNPROVEN_PACKETS)
    }

    /// Ends the session from our side: RFC 7675 §5.2 has further checks answered with 403.
    pub fn revoke_consent(&mut self) {
        self.revoked = true;
    }

    /// Whether the time without a valid check has run out. RFC 7675 binds full agents; a lite one that hears no more
    /// checks knows as well that nobody wants its media.
    pub fn consent_expired(&self, now: Instant) -> bool {
        now >= self.consent_until
    }

    /// When to ask [`IceLite::consent_expired`] again; `None` once consent was revoked.
    pub fn poll_timeout(&self) -> Option<Instant> {
        (!self.revoked).then_some(self.consent_until)
    }

    /// The credentials that `ufrag` names, and whether they may nominate.
    fn credentials(&self, now: Instant, ufrag: &[u8]) -> Option<(&Credentials, bool)> {
        if self.current.ufrag == ufrag {
            return Some((&self.current, true));
        }
        let replaced = self.replaced.as_ref().filter(|old| old.credentials.ufrag == ufrag && now < old.until)?;
        Some((&replaced.credentials, !replaced.superseded))
    }

    fn refusal(&self, now: Instant, request: &BindingRequest<'_>) -> Option<ErrorCode> {
        // RFC 7675 §5.1: once consent is lost, "the same ICE credentials MUST NOT be used on the affected 5-tuple again".
        if self.revoked || self.consent_expired(now) {
            return Some(ErrorCode::Forbidden);
        }
        // RFC 8489 §6.3.1: unknown comprehension-required attributes are answered with 420.
        if request.has_unknown_attributes() {
            return Some(ErrorCode::UnknownAttribute);
        }
        // RFC 8445 §6.1.1 makes the full agent controlling whenever the other is lite: both tie-breakers lose to that.
        (request.role() == Some(IceRole::Controlled)).then_some(ErrorCode::RoleConflict)
    }

    /// Remembers `source`; `true` if it was unknown. The place of the longest unheard-of one is taken if need be.
    fn validate(&mut self, now: Instant, source: TransportAddress) -> bool {
        if let Some(known) = self.validated.iter_mut().find(|v| v.address == source) {
            (known.last_check, known.last_heard) = (now, now);
            return false;
        }
        let entry = Validated { address: source, last_check: now, last_heard: now, proven: None, nominated: false };
        if self.validated.len() < MAX_VALIDATED {
            self.validated.push(entry);
            return true;
        }
        let nominated = self.nominated();
        let replaceable = self.validated.iter_mut().filter(|v| Some(v.address) != nominated);
        if let Some(oldest) = replaceable.min_by_key(|v| v.last_check) {
            *oldest = entry;
        }
        true
    }

    /// Whether media goes to where nobody is heard of any more.
    ///
    /// RFC 8445 §7.3.2, §8.2: a check with USE-CANDIDATE nominates its pair at once, and the newest nomination wins: so
    /// arrives a NAT rebinding or a change of network of Chromium, which repeats the flag on every check. Firefox sets it
    /// on its first one alone (§8.1.1 has it so): its next check comes from the new address without it. What tells it
    /// from a check on a spare path is that the old one has fallen silent.
    fn is_path_silent(&self, now: Instant) -> bool {
        let Some(path) = self.nominated else { return self.path_lost };
        let heard = self.validated.iter().find(|v| v.address == path.address).map(|v| v.last_heard);
        heard.is_none_or(|at| now >= at + SILENCE)
    }

    /// Notes that a check from `source` had USE-CANDIDATE; whether it is to be followed.
    ///
    /// Over TCP not at first where there is UDP: Firefox nominates every pair whose check it begins, the slowest last, and
    /// then uses the best of them. Who means TCP says so again.
    fn is_nomination_followed(&mut self, source: TransportAddress) -> bool {
        let over_udp = self.nominated.is_some_and(|path| path.address.transport == Transport::Udp);
        let Some(known) = self.validated.iter_mut().find(|v| v.address == source) else { return false };
        let again = std::mem::replace(&mut known.nominated, true);
        again || source.transport == Transport::Udp || !over_udp
    }

    fn nominate(&mut self, now: Instant, source: TransportAddress) -> bool {
        if self.nominated.is_some_and(|path| path.address == source) {
            return false;
        }
        let known = self.validated.iter().find(|v| v.address == source).and_then(|v| v.proven);
        // The far end of a TCP connection has answered there: nobody can forge it.
        let proven = source.transport == Transport::Tcp || known.is_some_and(|at| now < at + PROOF_HOLD);
        self.nominated = Some(Path { address: source, proven, since: now });
        self.path_lost = false;
        true
    }
}

const ICE_CHARS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// `N` bytes as `M = N * 4 / 3` ice-chars (RFC 8839 §5.4).
fn ice_chars<const N: usize, const M: usize>(bytes: [u8; N]) -> [u8; M] {
    const { assert!(N.is_multiple_of(3) && M == N / 3 * 4) };
    std::array::from_fn(|i| {
        let group = &bytes[i / 4 * 3..][..3];
        let bits = u32::from_be_bytes([0, group[0], group[1], group[2]]);
        ICE_CHARS[(bits >> (18 - 6 * (i % 4)) & 63) as usize]
    })
}

fn ice_char_value(char: u8) -> Option<u8> {
    Some(match char {
        b'A'..=b'Z' => char - b'A',
        b'a'..=b'z' => char - b'a' + 26,
        b'0'..=b'9' => char - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::rtc::stun::{self, BindingResponse, RequestParameters};

    const SECOND: Duration = Duration::from_secs(1);

    fn source(last: u8) -> TransportAddress {
        TransportAddress::udp(([198, 51, 100, last], 5000).into())
    }

    struct Peer {
        /// Ours.
        ufrag: String,
        own_ufrag: &'static str,
        key: IntegrityKey,
        role: Option<(IceRole, u64)>,
    }

    impl Peer {
        fn check(&self, ice: &mut IceLite, now: Instant, from: TransportAddress, use_candidate: bool) -> Outcome {
            let parameters = RequestParameters {
                transaction_id: [7; 12],
                local_ufrag: &self.ufrag,
                remote_ufrag: self.own_ufrag,
                priority: None,
                role: self.role,
                use_candidate,
            };
            let mut out = [0; stun::MAX_REQUEST_LEN];
            let len = stun::write_request(&mut out, &parameters, &self.key);
            ice.handle_binding(now, from, &BindingRequest::parse(&out[..len]).unwrap())
        }
    }

    fn session(now: Instant) -> (IceLite, Peer) {
        let (ufrag, credentials) = new_credentials(std::array::from_fn(|i| i as u8 * 11), 3, 70_000);
        let ice = IceLite::new(now, ufrag, &credentials.pwd, "them", DEFAULT_CONSENT_TIMEOUT);
        let key = IntegrityKey::new(&credentials.pwd);
        (ice, Peer { ufrag: credentials.ufrag, own_ufrag: "them", key, role: Some((IceRole::Controlling, 1)) })
    }

    fn respond(newly_validated: bool, newly_nominated: bool) -> Outcome {
        Outcome::Respond { newly_validated, newly_nominated }
    }

    #[test]
    fn a_check_validates_and_use_candidate_nominates() {
        let now = Instant::now();
        let (mut ice, peer) = session(now);
        assert!(!ice.is_validated(source(1)));
        assert_eq!(peer.check(&mut ice, now, source(1), false), respond(true, false));
        assert!(ice.is_validated(source(1)));
        assert_eq!(ice.nominated(), None);
        assert_eq!(peer.check(&mut ice, now, source(1), true), respond(false, true));
        assert_eq!(ice.nominated(), Some(source(1)));
        assert_eq!(peer.check(&mut ice, now, source(1), true), respond(false, false));
    }

    #[test]
    fn the_newest_nomination_wins() {
        let now = Instant::now();
        let (mut ice, peer) = session(now);
        assert_eq!(peer.check(&mut ice, now, source(1), true), respond(true, true));
        assert_eq!(peer.check(&mut ice, now, source(2), false), respond(true, false));
        assert_eq!(ice.nominated(), Some(source(1)));
        assert_eq!(peer.check(&mut ice, now, source(2), true), respond(false, true));
        assert_eq!(ice.nominated(), Some(source(2)));
        assert!(ice.is_validated(source(1)));
    }

    #[test]
    fn the_response_is_keyed_by_our_password() {
        let now = Instant::now();
        let (mut ice, peer) = session(now);
        peer.check(&mut ice, now, source(1), true);
        let mut request = [0; stun::MAX_REQUEST_LEN];
        let parameters = RequestParameters {
            transaction_id: [9; 12],
            local_ufrag: &peer.ufrag,
            remote_ufrag: "them",
            priority: None,
            role: None,
            use_candidate: false,
        };
        let len = stun::write_request(&mut request, &parameters, &peer.key);
        let mut out = [0; stun::MAX_RESPONSE_LEN];
        let request = BindingRequest::parse(&request[..len]).unwrap();
        let len = stun::write_success(&mut out, &request, source(1).socket, ice.key_for(request.local_ufrag()));
        assert!(BindingResponse::parse(&out[..len]).unwrap().verify(&peer.key));
    }

    #[test]
    fn strangers_are_dropped_and_change_nothing() {
        let now = Instant::now();
        let (mut ice, mut peer) = session(now);
        let deadline = ice.poll_timeout();
        let key = std::mem::replace(&mut peer.key, IntegrityKey::new("another password of 24 b"));
        let later = now + SECOND;
        assert_eq!(peer.check(&mut ice, later, source(1), true), Outcome::Dropped(DropCause::Integrity));
        peer.key = key;
        peer.ufrag.replace_range(11.., "_");
        assert_eq!(peer.check(&mut ice, later, source(1), true), Outcome::Dropped(DropCause::UnknownUfrag));
        assert!(!ice.is_validated(source(1)));
        assert_eq!((ice.nominated(), ice.poll_timeout()), (None, deadline));
    }

    #[test]
    fn a_controlled_peer_is_a_role_conflict() {
        let now = Instant::now();
        let (mut ice, mut peer) = session(now);
        peer.role = Some((IceRole::Controlled, u64::MAX));
        assert_eq!(peer.check(&mut ice, now, source(1), true), Outcome::Refuse(ErrorCode::RoleConflict));
        assert!(!ice.is_validated(source(1)));
        peer.role = None;
        assert_eq!(peer.check(&mut ice, now, source(1), true), respond(true, true));
    }

    #[test]
    fn consent_follows_valid_checks() {
        let now = Instant::now();
        let (mut ice, peer) = session(now);
        assert_eq!(ice.poll_timeout(), Some(now + DEFAULT_CONSENT_TIMEOUT));
        let last = now + 29 * SECOND;
        peer.check(&mut ice, last, source(1), true);
        let deadline = last + DEFAULT_CONSENT_TIMEOUT;
        assert_eq!(ice.poll_timeout(), Some(deadline));
        assert!(!ice.consent_expired(deadline - Duration::from_nanos(1)));
        assert!(ice.consent_expired(deadline));
        assert_eq!(peer.check(&mut ice, deadline, source(1), true), Outcome::Refuse(ErrorCode::Forbidden));
        assert!(ice.consent_expired(deadline));
    }

    #[test]
    fn revoked_consent_is_answered_with_403() {
        let now = Instant::now();
        let (mut ice, peer) = session(now);
        peer.check(&mut ice, now, source(1), true);
        ice.revoke_consent();
        assert_eq!(ice.poll_timeout(), None);
        assert_eq!(peer.check(&mut ice, now, source(1), true), Outcome::Refuse(ErrorCode::Forbidden));
    }

    /// A peer with the credentials of a restart.
    fn restarted(ice: &mut IceLite, now: Instant, random: u8) -> Peer {
        let (ufrag, credentials) = new_credentials([random; 21], 3, 70_000);
        let own_ufrag = "they-again";
        ice.restart(now, ufrag, &credentials.pwd, own_ufrag);
        let key = IntegrityKey::new(&credentials.pwd);
        Peer { ufrag: credentials.ufrag, own_ufrag, key, role: Some((IceRole::Controlling, 1)) }
    }

    #[test]
    fn a_restart_keeps_the_pair_until_the_new_credentials_nominate_one() {
        let now = Instant::now();
        let (mut ice, old) = session(now);
        old.check(&mut ice, now, source(1), true);
        let new = restarted(&mut ice, now, 9);
        assert_eq!(ice.nominated(), Some(source(1)));
        // The peer's address changes while it waits for the answer to its PATCH: the old credentials still count.
        assert_eq!(old.check(&mut ice, now, source(2), true), respond(true, true));
        assert_eq!(new.check(&mut ice, now, source(3), false), respond(true, false));
        assert_eq!(ice.nominated(), Some(source(2)));
        assert_eq!(new.check(&mut ice, now, source(3), true), respond(false, true));
        assert_eq!(ice.nominated(), Some(source(3)));
        // What was on its way is answered and changes nothing any more.
        assert_eq!(old.check(&mut ice, now + SECOND, source(1), true), respond(false, false));
        assert_eq!(ice.nominated(), Some(source(3)));
    }

    #[test]
    fn each_ufrag_of_ours_goes_with_one_of_the_peers() {
        let now = Instant::now();
        let (mut ice, mut old) = session(now);
        let unknown = Outcome::Dropped(DropCause::UnknownUfrag);
        for own_ufrag in ["the", "them!", "they"] {
            old.own_ufrag = own_ufrag;
            assert_eq!(old.check(&mut ice, now, source(1), true), unknown);
        }
        let mut new = restarted(&mut ice, now, 9);
        (old.own_ufrag, new.own_ufrag) = (new.own_ufrag, "them");
        for mixed in [&old, &new] {
            assert_eq!(mixed.check(&mut ice, now, source(1), true), unknown);
        }
        assert!(!ice.is_validated(source(1)));
        (old.own_ufrag, new.own_ufrag) = (new.own_ufrag, old.own_ufrag);
        assert_eq!(old.check(&mut ice, now, source(1), true), respond(true, true));
        assert_eq!(new.check(&mut ice, now, source(1), true), respond(false, false));
    }

    #[test]
    fn old_credentials_end_after_30_seconds_and_with_the_next_restart() {
        let now = Instant::now();
        let (mut ice, first) = session(now);
        let second = restarted(&mut ice, now, 9);
        let last = now + OLD_CREDENTIALS - Duration::from_nanos(1);
        second.check(&mut ice, last, source(1), true);
        assert_eq!(first.check(&mut ice, last, source(1), false), respond(false, false));
        let unknown = Outcome::Dropped(DropCause::UnknownUfrag);
        assert_eq!(first.check(&mut ice, now + OLD_CREDENTIALS, source(1), false), unknown);
        let third = restarted(&mut ice, last, 17);
        assert_eq!(first.check(&mut ice, last, source(1), false), unknown, "only the newest old ones are kept");
        assert_eq!(second.check(&mut ice, last, source(1), false), respond(false, false));
        assert_eq!(third.check(&mut ice, last, source(1), false), respond(false, false));
    }

    #[test]
    fn each_response_is_keyed_by_the_credentials_of_its_check() {
        let now = Instant::now();
        let (mut ice, old) = session(now);
        let new = restarted(&mut ice, now, 9);
        for peer in [&old, &new] {
            let key = ice.key_for(peer.ufrag.as_bytes());
            let mut out = [0; stun::MAX_REQUEST_LEN];
            let parameters = RequestParameters {
                transaction_id: [9; 12],
                local_ufrag: &peer.ufrag,
                remote_ufrag: "them",
                priority: None,
                role: None,
                use_candidate: false,
            };
            let len = stun::write_request(&mut out, &parameters, key);
            assert!(BindingRequest::parse(&out[..len]).unwrap().verify(&peer.key));
        }
    }

    #[test]
    fn a_restart_that_nobody_follows_ends_with_consent() {
        let now = Instant::now();
        let (mut ice, old) = session(now);
        old.check(&mut ice, now, source(1), true);
        let deadline = ice.poll_timeout();
        restarted(&mut ice, now, 9);
        assert_eq!(ice.poll_timeout(), deadline, "a restart proves nothing");
        assert_eq!(ice.nominated(), Some(source(1)), "and ends nothing");
        assert!(ice.consent_expired(deadline.unwrap()));
    }

    #[test]
    fn the_oldest_address_makes_room_but_never_the_nominated_one() {
        let now = Instant::now();
        let (mut ice, peer) = session(now);
        peer.check(&mut ice, now, source(0), true);
        for i in 1..MAX_VALIDATED as u8 {
            peer.check(&mut ice, now + u32::from(i) * Duration::from_millis(10), source(i), false);
        }
        peer.check(&mut ice, now + SECOND, source(1), false);
        assert_eq!(peer.check(&mut ice, now + SECOND, source(100), false), respond(true, false));
        assert!(ice.is_validated(source(0)), "nominated");
        assert!(ice.is_validated(source(1)), "heard of lately");
        assert!(!ice.is_validated(source(2)), "the oldest");
        assert_eq!(ice.validated.len(), MAX_VALIDATED);
    }

    #[test]
    fn time_at_a_proven_address_saves_up_no_packets_for_an_unproven_one() {
        let now = Instant::now();
        let (mut ice, peer) = session(now);
        peer.check(&mut ice, now, source(1), true);
        assert_eq!(ice.allowance(now), UNPROVEN_PACKETS as usize);
        ice.handle_authenticated(now, source(1));
        assert_eq!(ice.allowance(now), usize::MAX);
        let later = now + 20 * SECOND;
        assert_eq!(peer.check(&mut ice, later, source(2), true), respond(true, true));
        assert_eq!(ice.allowance(later), UNPROVEN_PACKETS as usize);
        ice.spend(later, 6);
        assert_eq!(ice.allowance(later + UNPROVEN_INTERVAL), 3, "two are left, and one is earned");
    }

    #[test]
    fn what_an_address_has_proved_is_forgotten_after_a_while() {
        let now = Instant::now();
        let (mut ice, peer) = session(now);
        for address in [source(1), source(2)] {
            peer.check(&mut ice, now, address, true);
            ice.handle_authenticated(now, address);
        }
        let soon = now + PROOF_HOLD - Duration::from_nanos(1);
        peer.check(&mut ice, soon, source(1), true);
        assert_eq!((ice.nominated(), ice.proven()), (Some(source(1)), Some(source(1))));
        let late = now + PROOF_HOLD;
        peer.check(&mut ice, late, source(2), true);
        assert_eq!((ice.nominated(), ice.proven()), (Some(source(2)), None), "somebody else may be there by now");
    }

    /// From the old network of a phone: what was on its way there, or is still sent there.
    #[test]
    fn a_late_packet_does_not_call_a_proven_path_back() {
        let now = Instant::now();
        let (mut ice, peer) = session(now);
        for address in [source(1), source(2)] {
            peer.check(&mut ice, now, address, true);
            ice.handle_authenticated(now, address);
        }
        ice.handle_authenticated(now, source(1));
        assert_eq!(ice.nominated(), Some(source(2)));
    }

    /// From where the peer was, sent before it moved and read after.
    #[test]
    fn what_came_before_a_nomination_does_not_undo_it() {
        let now = Instant::now();
        let (mut ice, peer) = session(now);
        peer.check(&mut ice, now, source(1), true);
        ice.handle_authenticated(now, source(1));
        let moved = now + SECOND;
        peer.check(&mut ice, moved, source(2), true);
        ice.handle_authenticated(moved - Duration::from_millis(40), source(1));
        assert_eq!((ice.nominated(), ice.proven()), (Some(source(2)), None));
        ice.handle_authenticated(moved, source(1));
        assert_eq!(ice.proven(), Some(source(1)), "who nominates several sends on the one that it means");
    }

    #[test]
    fn credentials_are_long_enough_and_of_ice_chars() {
        let (ufrag, credentials) = new_credentials([0xFF; 21], u16::MAX, u32::MAX);
        assert_eq!(credentials.ufrag, "////////////");
        assert_eq!(credentials.pwd, "/".repeat(24));
        assert_eq!(Ufrag::decode(credentials.ufrag.as_bytes()), Some(ufrag));
        let (_, credentials) = new_credentials([0; 21], 0, 1);
        assert_eq!(credentials.ufrag, "AAAAAAABAAAA");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        #[test]
        fn ufrags_round_trip(shard in any::<u16>(), slot in any::<u32>(), random in any::<[u8; 3]>()) {
            let ufrag = Ufrag { shard, slot, random };
            prop_assert_eq!(Ufrag::decode(&ufrag.encode()), Some(ufrag));
        }

        #[test]
        fn decoding_anything_never_panics_and_is_exact(bytes in prop::collection::vec(any::<u8>(), 0..20)) {
            if let Some(ufrag) = Ufrag::decode(&bytes) {
                prop_assert_eq!(&ufrag.encode()[..], &bytes[..]);
            }
        }
    }
}
