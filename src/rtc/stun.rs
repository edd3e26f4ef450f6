//! STUN Binding messages (RFC 8489), as far as ICE uses them: read in place, written into the caller's buffer.
//!
//! Nothing here allocates, except the making of an [`IntegrityKey`]. The order of work is the cheap refusals first:
//! header, FINGERPRINT, attributes; the HMAC is computed only once the caller has found whose password it should be.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use aws_lc_rs::{constant_time, hmac};

#[cfg(test)]
mod tests;

/// The longest response that is written here, bytes: a success response to an IPv6 address.
pub const MAX_RESPONSE_LEN: usize = 76;

/// The longest request that [`write_request`] writes, bytes.
pub const MAX_REQUEST_LEN: usize = HEADER_LEN + 4 + MAX_USERNAME_LEN + 3 + 8 + 12 + 4 + INTEGRITY_LEN + FINGERPRINT_LEN;

/// Two ice-ufrags of 256 characters and a colon (RFC 8839 §5.4).
const MAX_USERNAME_LEN: usize = 513;

const HEADER_LEN: usize = 20;
const INTEGRITY_LEN: usize = 24;
const FINGERPRINT_LEN: usize = 8;
const COOKIE: [u8; 4] = [0x21, 0x12, 0xA4, 0x42];
const FINGERPRINT_XOR: u32 = 0x5354_554E;

/// Message types: method Binding with the four classes (RFC 8489 §5).
mod message_type {
    pub const REQUEST: u16 = 0x0001;
    pub const INDICATION: u16 = 0x0011;
    pub const SUCCESS: u16 = 0x0101;
    pub const ERROR: u16 = 0x0111;
}

/// Attribute types (RFC 8489 §18.3, RFC 8445 §20.1).
mod attribute {
    pub const MAPPED_ADDRESS: u16 = 0x0001;
    pub const USERNAME: u16 = 0x0006;
    pub const MESSAGE_INTEGRITY: u16 = 0x0008;
    pub const ERROR_CODE: u16 = 0x0009;
    pub const UNKNOWN_ATTRIBUTES: u16 = 0x000A;
    pub const REALM: u16 = 0x0014;
    pub const NONCE: u16 = 0x0015;
    pub const MESSAGE_INTEGRITY_SHA256: u16 = 0x001C;
    pub const XOR_MAPPED_ADDRESS: u16 = 0x0020;
    pub const PRIORITY: u16 = 0x0024;
    pub const USE_CANDIDATE: u16 = 0x0025;
    pub const FINGERPRINT: u16 = 0x8028;
    pub const ICE_CONTROLLED: u16 = 0x8029;
    pub const ICE_CONTROLLING: u16 = 0x802A;
    /// Types from here on are comprehension-optional (RFC 8489 §14).
    pub const FIRST_OPTIONAL: u16 = 0x8000;
}

/// Why a datagram is not a Binding message to act on. None of them is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StunError {
    /// Too short, no magic cookie, or a length field that is not the datagram's.
    #[error("not a STUN message")]
    Header,
    /// A Binding indication, the keepalive of RFC 8445 §11: no fault, no reply, and no consent either.
    #[error("a Binding indication")]
    Indication,
    /// Another class or method than was asked for.
    #[error("another class or method of STUN message")]
    MessageType,
    /// An attribute reaches past the end of the message or has a length that its type does not allow.
    #[error("malformed STUN attribute")]
    Attribute,
    /// FINGERPRINT is absent or not last (RFC 8445 §7.1: ICE messages carry it).
    #[error("STUN message without FINGERPRINT")]
    MissingFingerprint,
    /// FINGERPRINT does not match.
    #[error("STUN FINGERPRINT is wrong")]
    WrongFingerprint,
    /// MESSAGE-INTEGRITY is absent.
    #[error("STUN message without MESSAGE-INTEGRITY")]
    MissingIntegrity,
    /// USERNAME is absent, too long, or not two values separated by a colon.
    #[error("STUN message without a usable USERNAME")]
    MissingUsername,
}

/// An ICE password, made ready for HMAC-SHA1 (RFC 8489 §9.1.1: the short-term credential's key is the password).
#[derive(Clone, Debug)]
pub struct IntegrityKey(hmac::Key);

impl IntegrityKey {
    /// Computes the inner and outer state of the HMAC once.
    pub fn new(password: &str) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, password.as_bytes()))
    }

    /// MESSAGE-INTEGRITY over `message`, which ends where the attribute begins.
    ///
    /// RFC 8489 §14.5: for the computation the header's length points to the end of MESSAGE-INTEGRITY, whatever follows.
    fn sign(&self, message: &[u8]) -> hmac::Tag {
        let length = (message.len() - HEADER_LEN + INTEGRITY_LEN) as u16;
        let mut context = hmac::Context::with_key(&self.0);
        context.update(&message[..2]);
        context.update(&length.to_be_bytes());
        context.update(&message[4..]);
        context.sign()
    }

    fn verify(&self, message: &[u8], integrity_offset: usize) -> bool {
        let expected = self.sign(&message[..integrity_offset]);
        let received = &message[integrity_offset + 4..integrity_offset + INTEGRITY_LEN];
        constant_time::verify_slices_are_equal(expected.as_ref(), received).is_ok()
    }
}

/// The role that the sender of a check believes to have (RFC 8445 §7.1.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IceRole {
    /// ICE-CONTROLLING was present.
    Controlling,
    /// ICE-CONTROLLED was present.
    Controlled,
}

/// A connectivity check, borrowed from its datagram. Not to be believed before [`BindingRequest::verify`].
#[derive(Clone, Copy, Debug)]
pub struct BindingRequest<'a> {
    message: &'a [u8],
    integrity_offset: usize,
    local_ufrag: &'a [u8],
    remote_ufrag: &'a [u8],
    use_candidate: bool,
    role: Option<IceRole>,
    tie_breaker: Option<u64>,
    unknown: UnknownAttributes,
}

impl<'a> BindingRequest<'a> {
    /// Reads a connectivity check. PRIORITY and the role attributes are not demanded: a lite agent has no use for them
    /// and early WHIP muxers of FFmpeg leave them out.
    ///
    /// # Errors
    /// [`StunError`], the FINGERPRINT's among them; [`StunError::Indication`] is the one that is no fault.
    pub fn parse(message: &'a [u8]) -> Result<Self, StunError> {
        match message_type(message)? {
            message_type::REQUEST => {}
            message_type::INDICATION => return Err(StunError::Indication),
            _ => return Err(StunError::MessageType),
        }
        check_fingerprint(message)?;
        let mut username = None;
        let mut use_candidate = false;
        let (mut role, mut tie_breaker) = (None, None);
        let mut unknown = UnknownAttributes::default();
        let integrity_offset = protected_attributes(message, |kind, value| {
            match kind {
                // RFC 8489 §14: of an attribute that appears twice, the first counts.
                attribute::USERNAME if username.is_none() => username = Some(value),
                attribute::USE_CANDIDATE => use_candidate = true,
                attribute::ICE_CONTROLLING | attribute::ICE_CONTROLLED => {
                    let controls = kind == attribute::ICE_CONTROLLING;
                    role = Some(if controls { IceRole::Controlling } else { IceRole::Controlled });
                    tie_breaker = value.try_into().ok().map(u64::from_be_bytes);
                }
                _ => unknown.note(kind),
            }
            Ok(())
        })?;
        let (local_ufrag, remote_ufrag) = username.and_then(split_username).ok_or(StunError::MissingUsername)?;
        Ok(Self { message, integrity_offset, local_ufrag, remote_ufrag, use_candidate, role, tie_breaker, unknown })
    }

    /// Whether MESSAGE-INTEGRITY was made with this key. Constant time.
    pub fn verify(&self, key: &IntegrityKey) -> bool {
        key.verify(self.message, self.integrity_offset)
    }

    /// The receiver's half of USERNAME, which is ours.
    pub fn local_ufrag(&self) -> &'a [u8] {
        self.local_ufrag
    }

    /// The sender's half of USERNAME.
    pub fn remote_ufrag(&self) -> &'a [u8] {
        self.remote_ufrag
    }

    /// USE-CANDIDATE was present.
    pub fn use_candidate(&self) -> bool {
        self.use_candidate
    }

    /// ICE-CONTROLLING or ICE-CONTROLLED, where there was one.
    pub fn role(&self) -> Option<IceRole> {
        self.role
    }

    /// What comes with the role and decides between two agents that have the same, where it is whole.
    pub fn tie_breaker(&self) -> Option<u64> {
        self.tie_breaker
    }

    /// Attributes were present that had to be understood and are not (RFC 8489 §6.3.1).
    pub fn has_unknown_attributes(&self) -> bool {
        self.unknown.count > 0
    }

    /// The 96-bit transaction id.
    pub fn transaction_id(&self) -> [u8; 12] {
        transaction_id(self.message)
    }
}

/// The error responses that an ICE-lite agent gives, to authenticated requests only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorCode {
    /// 403 Forbidden: consent is revoked (RFC 7675 §5.2).
    Forbidden,
    /// 420 Unknown Attribute, which lists them (RFC 8489 §6.3.1).
    UnknownAttribute,
    /// 487 Role Conflict (RFC 8445 §7.3.1.1).
    RoleConflict,
}

impl ErrorCode {
    /// The three-digit code.
    pub const fn code(self) -> u16 {
        match self {
            ErrorCode::Forbidden => 403,
            ErrorCode::UnknownAttribute => 420,
            ErrorCode::RoleConflict => 487,
        }
    }
}

/// Writes the success response to `request` and returns its length: 64 bytes for IPv4, 76 for IPv6.
///
/// Neither SOFTWARE nor anything else is added, so that the response stays shorter than the request it answers.
///
/// # Panics
/// If `out` is shorter than [`MAX_RESPONSE_LEN`].
pub fn write_success(out: &mut [u8], request: &BindingRequest<'_>, mapped: SocketAddr, key: &IntegrityKey) -> usize {
    let transaction_id = request.transaction_id();
    let mut writer = MessageWriter::new(out, message_type::SUCCESS, transaction_id);
    writer.xor_mapped_address(mapped, transaction_id);
    writer.finish(key)
}

/// Writes an error response to `request` and returns its length. The reason phrase is left empty.
///
/// # Panics
/// If `out` is shorter than [`MAX_RESPONSE_LEN`].
pub fn write_error(out: &mut [u8], request: &BindingRequest<'_>, error: ErrorCode, key: &IntegrityKey) -> usize {
    let mut writer = MessageWriter::new(out, message_type::ERROR, request.transaction_id());
    let code = error.code();
    writer.attribute(attribute::ERROR_CODE, &[0, 0, (code / 100) as u8, (code % 100) as u8]);
    if error == ErrorCode::UnknownAttribute {
        let mut types = [0; 2 * UnknownAttributes::MAX];
        let types = request.unknown.write(&mut types);
        writer.attribute(attribute::UNKNOWN_ATTRIBUTES, types);
    }
    writer.finish(key)
}

/// What a connectivity check says, for the side that sends them: in-process peers and tests.
#[derive(Clone, Copy, Debug)]
pub struct RequestParameters<'a> {
    /// 96 bits, unpredictable.
    pub transaction_id: [u8; 12],
    /// The ufrag of the agent that is asked.
    pub local_ufrag: &'a str,
    /// The ufrag of the agent that asks.
    pub remote_ufrag: &'a str,
    /// PRIORITY, left out where `None`.
    pub priority: Option<u32>,
    /// The asking agent's role and tie-breaker, left out where `None`.
    pub role: Option<(IceRole, u64)>,
    /// USE-CANDIDATE.
    pub use_candidate: bool,
}

/// Writes a connectivity check and returns its length; `key` is made from the asked agent's password.
///
/// # Panics
/// If `out` is shorter than the message; [`MAX_REQUEST_LEN`] is enough for ufrags of legal length.
pub fn write_request(out: &mut [u8], parameters: &RequestParameters<'_>, key: &IntegrityKey) -> usize {
    let mut writer = MessageWriter::new(out, message_type::REQUEST, parameters.transaction_id);
    writer.username(parameters.local_ufrag.as_bytes(), parameters.remote_ufrag.as_bytes());
    if let Some(priority) = parameters.priority {
        writer.attribute(attribute::PRIORITY, &priority.to_be_bytes());
    }
    if let Some((role, tie_breaker)) = parameters.role {
        let kind = match role {
            IceRole::Controlling => attribute::ICE_CONTROLLING,
            IceRole::Controlled => attribute::ICE_CONTROLLED,
        };
        writer.attribute(kind, &tie_breaker.to_be_bytes());
    }
    if parameters.use_candidate {
        writer.attribute(attribute::USE_CANDIDATE, &[]);
    }
    writer.finish(key)
}

/// A response to a connectivity check, for the side that sends them.
#[derive(Clone, Copy, Debug)]
pub struct BindingResponse<'a> {
    message: &'a [u8],
    integrity_offset: usize,
    result: Result<SocketAddr, u16>,
}

impl<'a> BindingResponse<'a> {
    /// Reads a success or error response.
    ///
    /// # Errors
    /// [`StunError`]; a success response without a readable XOR-MAPPED-ADDRESS, or an error response without
    /// ERROR-CODE, is [`StunError::Attribute`].
    pub fn parse(message: &'a [u8]) -> Result<Self, StunError> {
        let success = match message_type(message)? {
            message_type::SUCCESS => true,
            message_type::ERROR => false,
            _ => return Err(StunError::MessageType),
        };
        check_fingerprint(message)?;
        let mut mapped = None;
        let mut code = None;
        let integrity_offset = protected_attributes(message, |kind, value| {
            match (kind, value) {
                (attribute::XOR_MAPPED_ADDRESS, _) if mapped.is_none() => {
                    mapped = Some(read_xor_address(value, transaction_id(message))?);
                }
                (attribute::ERROR_CODE, &[_, _, class, number, ..]) => {
                    code = Some(u16::from(class & 7) * 100 + u16::from(number));
                }
                _ => {}
            }
            Ok(())
        })?;
        let result = match success {
            true => Ok(mapped.ok_or(StunError::Attribute)?),
            false => Err(code.ok_or(StunError::Attribute)?),
        };
        Ok(Self { message, integrity_offset, result })
    }

    /// Whether MESSAGE-INTEGRITY was made with this key. Constant time.
    pub fn verify(&self, key: &IntegrityKey) -> bool {
        key.verify(self.message, self.integrity_offset)
    }

    /// The mapped address, or the error code.
    pub fn result(&self) -> Result<SocketAddr, u16> {
        self.result
    }

    /// The 96-bit transaction id.
    pub fn transaction_id(&self) -> [u8; 12] {
        transaction_id(self.message)
    }
}

/// Attribute types below 0x8000 that are not understood: as many as a 420 response of bounded size can list.
#[derive(Clone, Copy, Debug, Default)]
struct UnknownAttributes {
    types: [u16; Self::MAX],
    count: usize,
}

impl UnknownAttributes {
    const MAX: usize = 4;

    /// Notes `kind` if it had to be understood. The attributes that are understood and of no use here pass.
    fn note(&mut self, kind: u16) {
        let understood = matches!(
            kind,
            attribute::FIRST_OPTIONAL
                ..|attribute::MAPPED_ADDRESS| attribute::USERNAME
                    | attribute::ERROR_CODE
                    | attribute::UNKNOWN_ATTRIBUTES
                    | attribute::REALM
                    | attribute::NONCE
                    | attribute::MESSAGE_INTEGRITY_SHA256
                    | attribute::XOR_MAPPED_ADDRESS
                    | attribute::PRIORITY
        );
        if !understood && self.count < Self::MAX {
            self.types[self.count] = kind;
            self.count += 1;
        }
    }

    fn write<'o>(&self, out: &'o mut [u8; 2 * Self::MAX]) -> &'o [u8] {
        for (slot, kind) in out.chunks_exact_mut(2).zip(&self.types[..self.count]) {
            slot.copy_from_slice(&kind.to_be_bytes());
        }
        &out[..2 * self.count]
    }
}

/// The message type, once the header is what RFC 8489 §5 says and the length is the datagram's.
fn message_type(message: &[u8]) -> Result<u16, StunError> {
    let [kind_high @ 0..=0x3F, kind_low, length_high, length_low, c0, c1, c2, c3, ..] = *message else {
        return Err(StunError::Header);
    };
    let length = usize::from(u16::from_be_bytes([length_high, length_low]));
    let whole = message.len() >= HEADER_LEN && message.len() == HEADER_LEN + length;
    if !whole || !length.is_multiple_of(4) || [c0, c1, c2, c3] != COOKIE {
        return Err(StunError::Header);
    }
    Ok(u16::from_be_bytes([kind_high, kind_low]))
}

/// Bytes 8 to 20 of a message whose header was read.
fn transaction_id(message: &[u8]) -> [u8; 12] {
    std::array::from_fn(|i| message[8 + i])
}

/// RFC 8489 §14.7: "the FINGERPRINT attribute MUST be the last attribute in the message".
fn check_fingerprint(message: &[u8]) -> Result<(), StunError> {
    let (covered, tail) = message.split_at(message.len() - FINGERPRINT_LEN);
    let [kind_high, kind_low, 0, 4, ref value @ ..] = *tail else {
        return Err(StunError::MissingFingerprint);
    };
    if covered.len() < HEADER_LEN || u16::from_be_bytes([kind_high, kind_low]) != attribute::FINGERPRINT {
        return Err(StunError::MissingFingerprint);
    }
    match fingerprint(covered).to_be_bytes() == *value {
        true => Ok(()),
        false => Err(StunError::WrongFingerprint),
    }
}

/// Calls `visit` for every attribute before MESSAGE-INTEGRITY and returns where that one begins.
///
/// RFC 8489 §14.5: "agents MUST ignore all other attributes that follow MESSAGE-INTEGRITY", except for
/// MESSAGE-INTEGRITY-SHA256 and FINGERPRINT, which need nothing more here.
fn protected_attributes<'a>(
    message: &'a [u8],
    mut visit: impl FnMut(u16, &'a [u8]) -> Result<(), StunError>,
) -> Result<usize, StunError> {
    let mut offset = HEADER_LEN;
    loop {
        let [kind_high, kind_low, length_high, length_low, rest @ ..] = &message[offset..] else {
            return Err(StunError::MissingIntegrity);
        };
        let kind = u16::from_be_bytes([*kind_high, *kind_low]);
        let length = usize::from(u16::from_be_bytes([*length_high, *length_low]));
        let value = rest.get(..length).ok_or(StunError::Attribute)?;
        if kind == attribute::MESSAGE_INTEGRITY {
            return if length == INTEGRITY_LEN - 4 { Ok(offset) } else { Err(StunError::Attribute) };
        }
        visit(kind, value)?;
        // The message's length is a multiple of 4, so padding never reaches past its end.
        offset += 4 + length.next_multiple_of(4);
    }
}

/// Splits USERNAME at the colon into the receiver's and the sender's ufrag, neither of them empty.
fn split_username(username: &[u8]) -> Option<(&[u8], &[u8])> {
    let colon = username.iter().position(|&b| b == b':')?;
    let (local, remote) = (&username[..colon], &username[colon + 1..]);
    (!local.is_empty() && !remote.is_empty() && username.len() <= MAX_USERNAME_LEN).then_some((local, remote))
}

/// XOR-MAPPED-ADDRESS (RFC 8489 §14.2).
fn read_xor_address(value: &[u8], transaction_id: [u8; 12]) -> Result<SocketAddr, StunError> {
    let [_, family, port_high, port_low, ref address @ ..] = *value else {
        return Err(StunError::Attribute);
    };
    let mask = address_mask(transaction_id);
    let ip = match family {
        1 => IpAddr::from(Ipv4Addr::from(masked::<4>(address, &mask).ok_or(StunError::Attribute)?)),
        2 => IpAddr::from(Ipv6Addr::from(masked::<16>(address, &mask).ok_or(StunError::Attribute)?)),
        _ => return Err(StunError::Attribute),
    };
    Ok(SocketAddr::new(ip, u16::from_be_bytes([port_high ^ COOKIE[0], port_low ^ COOKIE[1]])))
}

fn address_mask(transaction_id: [u8; 12]) -> [u8; 16] {
    std::array::from_fn(|i| if i < 4 { COOKIE[i] } else { transaction_id[i - 4] })
}

fn masked<const N: usize>(address: &[u8], mask: &[u8; 16]) -> Option<[u8; N]> {
    let address: [u8; N] = address.try_into().ok()?;
    Some(std::array::from_fn(|i| address[i] ^ mask[i]))
}

/// Appends attributes to a message; the length field is right after [`MessageWriter::finish`].
struct MessageWriter<'a> {
    out: &'a mut [u8],
    len: usize,
}

impl<'a> MessageWriter<'a> {
    fn new(out: &'a mut [u8], kind: u16, transaction_id: [u8; 12]) -> Self {
        out[..2].copy_from_slice(&kind.to_be_bytes());
        out[4..8].copy_from_slice(&COOKIE);
        out[8..HEADER_LEN].copy_from_slice(&transaction_id);
        Self { out, len: HEADER_LEN }
    }

    fn attribute(&mut self, kind: u16, value: &[u8]) {
        self.attribute_header(kind, value.len());
        self.bytes(value);
        self.pad();
    }

    fn username(&mut self, local_ufrag: &[u8], remote_ufrag: &[u8]) {
        self.attribute_header(attribute::USERNAME, local_ufrag.len() + 1 + remote_ufrag.len());
        self.bytes(local_ufrag);
        self.bytes(b":");
        self.bytes(remote_ufrag);
        self.pad();
    }

    fn xor_mapped_address(&mut self, mapped: SocketAddr, transaction_id: [u8; 12]) {
        let mask = address_mask(transaction_id);
        let [port_high, port_low] = mapped.port().to_be_bytes();
        let mut value = [0; 20];
        value[2..4].copy_from_slice(&[port_high ^ COOKIE[0], port_low ^ COOKIE[1]]);
        // A dual-stack socket reports IPv4 peers as ::ffff:a.b.c.d; the peer knows itself by the IPv4 address.
        let address: &[u8] = match mapped.ip().to_canonical() {
            IpAddr::V4(ip) => &ip.octets(),
            IpAddr::V6(ip) => &ip.octets(),
        };
        value[1] = if address.len() == 4 { 1 } else { 2 };
        for ((slot, byte), mask) in value[4..].iter_mut().zip(address).zip(mask) {
            *slot = byte ^ mask;
        }
        self.attribute(attribute::XOR_MAPPED_ADDRESS, &value[..4 + address.len()]);
    }

    /// Adds MESSAGE-INTEGRITY and FINGERPRINT, each computed with the length it demands, and returns the length.
    fn finish(mut self, key: &IntegrityKey) -> usize {
        let tag = key.sign(&self.out[..self.len]);
        self.attribute(attribute::MESSAGE_INTEGRITY, tag.as_ref());
        let length = (self.len + FINGERPRINT_LEN - HEADER_LEN) as u16;
        self.out[2..4].copy_from_slice(&length.to_be_bytes());
        let crc = fingerprint(&self.out[..self.len]);
        self.attribute(attribute::FINGERPRINT, &crc.to_be_bytes());
        self.len
    }

    fn attribute_header(&mut self, kind: u16, length: usize) {
        self.bytes(&kind.to_be_bytes());
        self.bytes(&(length as u16).to_be_bytes());
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.out[self.len..self.len + bytes.len()].copy_from_slice(bytes);
        self.len += bytes.len();
    }

    fn pad(&mut self) {
        let end = self.len.next_multiple_of(4);
        self.out[self.len..end].fill(0);
        self.len = end;
    }
}

/// FINGERPRINT over what precedes it (RFC 8489 §14.7).
fn fingerprint(message: &[u8]) -> u32 {
    crc32(message) ^ FINGERPRINT_XOR
}

/// CRC-32 of ITU V.42, as Ethernet and zip use it.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, &byte| (crc >> 8) ^ CRC_TABLE[usize::from(crc as u8 ^ byte)])
}

static CRC_TABLE: [u32; 256] = crc_table();

const fn crc_table() -> [u32; 256] {
    let mut table = [0; 256];
    let mut index = 0;
    while index < table.len() {
        let mut crc = index as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ 0xEDB8_8320 } else { crc >> 1 };
            bit += 1;
        }
        table[index] = crc;
        index += 1;
    }
    table
}
