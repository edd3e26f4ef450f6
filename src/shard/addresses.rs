//! Under which addresses sessions are found: those from which a connectivity check was valid.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::rtc::ice_lite::{DropCause, Ufrag};
use crate::rtc::stun::{BindingRequest, StunError};
use crate::rtc::{Transport, TransportAddress};

use super::core::Shard;
use super::failed_checks::FailedChecks;
use super::message::ShardEvent;
use super::report::DropReason;

/// How long after its last check from an address a connected session keeps it, whoever else checks from there. Peers
/// check every 4 to 6 s at the slowest (RFC 7675 §5.1).
const ADDRESS_HOLD: Duration = Duration::from_secs(10);

/// The index of a shard's sessions by address, and who may still be wrong.
pub(super) struct Addresses {
    slots: HashMap<TransportAddress, u32>,
    failed_checks: FailedChecks,
}

impl Addresses {
    pub(super) fn new() -> Self {
        Self { slots: HashMap::new(), failed_checks: FailedChecks::new() }
    }
}

impl Shard {
    /// Whether `source` is the address of a session: a check from there was valid.
    pub fn knows(&self, source: TransportAddress) -> bool {
        self.addresses.slots.contains_key(&source)
    }

    /// The TCP connection of `peer` is gone: its session has no use for that address any more, at once.
    pub fn handle_disconnect(&mut self, peer: SocketAddr) {
        let address = TransportAddress::tcp(peer);
        let Some(slot) = self.addresses.slots.remove(&address) else { return };
        let Some(session) = self.sessions[slot as usize].session.as_deref_mut() else { return };
        session.endpoint.forget(address);
        session.addresses.retain(|a| *a != address);
    }

    /// The session that has validated `source`.
    pub(super) fn session_at(&self, source: TransportAddress) -> Result<u32, DropReason> {
        self.addresses.slots.get(&source).copied().ok_or(DropReason::UnknownSource)
    }

    /// A connectivity check, or another STUN message.
    pub(super) fn handle_stun(
        &mut self,
        now: Instant,
        source: TransportAddress,
        datagram: &[u8],
    ) -> Result<(), DropReason> {
        let request = match BindingRequest::parse(datagram) {
            Ok(request) => request,
            // It keeps a NAT open and wants no answer (RFC 8445 §11).
            Err(StunError::Indication) => return Ok(()),
            Err(StunError::WrongFingerprint) => return Err(DropReason::StunIntegrity),
            Err(_) => return Err(DropReason::StunMalformed),
        };
        let slot = Ufrag::decode(request.local_ufrag())
            .filter(|u| u.shard == self.config.id.0)
            .map(|u| u.slot)
            .ok_or(DropReason::StunUnknownUfrag)?;
        if self.is_held(now, source, slot) {
            return Err(DropReason::AddressInUse);
        }
        let session = self
            .sessions
            .get_mut(slot as usize)
            .and_then(|s| s.session.as_deref_mut())
            .ok_or(DropReason::StunUnknownUfrag)?;
        // The session's own address is always heard: else a forger of it could silence its checks.
        if session.endpoint.heard_from(source).is_none()
            && self.addresses.failed_checks.is_spent(now, source.socket.ip())
        {
            return Err(DropReason::StunRateLimited);
        }
        let before = session.endpoint.destination();
        let new_address = session
            .endpoint
            .handle_binding(now, source, &request, &mut self.dtls, &mut self.control)
            .map_err(|cause| match cause {
                DropCause::UnknownUfrag => DropReason::StunUnknownUfrag,
                DropCause::Integrity => {
                    self.addresses.failed_checks.note(now, source.socket.ip());
                    DropReason::StunIntegrity
                }
            })?;
        self.report.address_changes += u64::from(before.is_some() && before != session.endpoint.destination());
        if new_address || self.addresses.slots.get(&source) != Some(&slot) {
            self.learn_address(slot, source);
        }
        self.after_input(now, slot);
        Ok(())
    }

    /// Whether `address` is that of another session which is alive there: then no check from it can be true.
    ///
    /// A check proves that its sender knows the password, not that the source address is its own. Who can forge
    /// addresses and has a session would else cut off whose address it forges: a player, or the publisher.
    fn is_held(&self, now: Instant, address: TransportAddress, slot: u32) -> bool {
        let holder = self.addresses.slots.get(&address).filter(|holder| **holder != slot);
        let session = holder.and_then(|holder| self.sessions[*holder as usize].session.as_ref());
        session.is_some_and(|s| {
            s.endpoint.is_connected() && s.endpoint.heard_from(address).is_some_and(|at| now < at + ADDRESS_HOLD)
        })
    }

    /// Makes `source` the session's in the address index, and takes out of it what the endpoint has forgotten.
    fn learn_address(&mut self, slot: u32, source: TransportAddress) {
        let Some(session) = &mut self.sessions[slot as usize].session else { return };
        let valid: Vec<TransportAddress> = session.endpoint.validated_addresses().collect();
        let before = std::mem::replace(&mut session.addresses, valid);
        let gone = before.into_iter().filter(|a| !session.addresses.contains(a)).collect::<Vec<_>>();
        if session.addresses.contains(&source) {
            self.addresses.slots.insert(source, slot);
        }
        gone.into_iter().for_each(|address| self.unlearn_address(slot, address));
    }

    /// Takes an address out of the index, if it is still this session's. A connection from there has no purpose left.
    pub(super) fn unlearn_address(&mut self, slot: u32, address: TransportAddress) {
        if self.addresses.slots.get(&address) == Some(&slot) {
            self.addresses.slots.remove(&address);
            if address.transport == Transport::Tcp {
                self.events.push_back(ShardEvent::Disconnect { peer: address.socket });
            }
        }
    }
}
