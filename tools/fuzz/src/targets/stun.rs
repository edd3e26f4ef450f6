//! Connectivity checks: as they come, with FINGERPRINT put right, and with MESSAGE-INTEGRITY too. What parses goes
//! through ICE-lite, and the answer is read by the other side's parser.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tableside::rtc::TransportAddress;
use tableside::rtc::ice_lite::{IceLite, MAX_VALIDATED, Outcome, Ufrag, new_credentials};
use tableside::rtc::stun::{
    BindingRequest, BindingResponse, ErrorCode, IceRole, IntegrityKey, MAX_REQUEST_LEN, MAX_RESPONSE_LEN,
    RequestParameters, write_error, write_request, write_success,
};

use crate::checksums;
use crate::input::Input;

const SECRET: [u8; 21] = [9; 21];
const CONSENT: Duration = Duration::from_secs(30);

/// The ufrag of the peer.
const PEER: &str = "peer";

/// Messages one after the other: how they are to be made whole, where they come from, their bytes.
pub(crate) fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let (ufrag, credentials) = new_credentials(SECRET, 1, 2);
    let mut now = Instant::now();
    let mut ice = IceLite::new(now, ufrag, &credentials.pwd, PEER, CONSENT);
    let key = IntegrityKey::new(&credentials.pwd);
    while !input.is_empty() {
        let how = input.byte();
        let source = source(&mut input);
        now += Duration::from_millis(input.byte().into());
        let (kind, bytes) = (input.word() & 0x3fff, input.chunk());
        let message = match how % 5 {
            0 => bytes.to_vec(),
            1 => checksums::stun(kind, bytes, None),
            2 => checksums::stun(kind, bytes, Some(&credentials.pwd)),
            3 => checksums::stun(0x0001, &[&username(ufrag), bytes].concat(), Some(&credentials.pwd)),
            _ => written(&mut Input::new(bytes), &credentials.ufrag, &credentials.pwd),
        };
        check(&mut ice, &key, now, source, &message);
        let _ = BindingResponse::parse(&message).map(|response| response.verify(&key));
    }
}

fn check(ice: &mut IceLite, key: &IntegrityKey, now: Instant, source: TransportAddress, message: &[u8]) {
    let Ok(request) = BindingRequest::parse(message) else { return };
    let _ = Ufrag::decode(request.local_ufrag());
    let verified = request.verify(key);
    let outcome = ice.handle_binding(now, source, &request);
    let mut answer = [0; MAX_RESPONSE_LEN];
    match outcome {
        Outcome::Dropped(_) => return,
        Outcome::Respond { .. } => {
            let len = write_success(&mut answer, &request, source.socket, key);
            let response = BindingResponse::parse(&answer[..len]).expect("what we write can be read");
            assert!(response.verify(key));
            assert_eq!(response.result(), Ok(source.socket));
            assert!(ice.is_validated(source));
        }
        Outcome::Refuse(error) => {
            let len = write_error(&mut answer, &request, error, key);
            let response = BindingResponse::parse(&answer[..len]).expect("what we write can be read");
            assert_eq!(response.result(), Err(error.code()));
            assert!(error != ErrorCode::UnknownAttribute || request.has_unknown_attributes());
        }
    }
    assert!(verified, "only who knows the password is answered");
    assert_eq!(request.remote_ufrag(), PEER.as_bytes(), "and is the peer of this ICE session");
    assert!(ice.validated_addresses().count() <= MAX_VALIDATED);
    assert!(ice.nominated().is_none_or(|address| ice.is_validated(address)));
}

/// A check that our own writer makes is read back as it was meant.
fn written(input: &mut Input<'_>, ufrag: &str, pwd: &str) -> Vec<u8> {
    let (role, tie_breaker) = (input.byte(), u64::from(input.long()));
    let parameters = RequestParameters {
        transaction_id: [input.byte(); 12],
        local_ufrag: ufrag,
        remote_ufrag: &match input.byte() {
            0..=127 => PEER.to_owned(),
            n => "r".repeat(n.into()),
        },
        priority: input.flag().then(|| input.long()),
        role: [None, Some(IceRole::Controlling), Some(IceRole::Controlled)][usize::from(role % 3)]
            .map(|role| (role, tie_breaker)),
        use_candidate: input.flag(),
    };
    let mut message = [0; MAX_REQUEST_LEN];
    let key = IntegrityKey::new(pwd);
    let len = write_request(&mut message, &parameters, &key);
    let request = BindingRequest::parse(&message[..len]).expect("what we write can be read");
    assert!(request.verify(&key));
    assert_eq!(request.local_ufrag(), parameters.local_ufrag.as_bytes());
    assert_eq!(request.remote_ufrag(), parameters.remote_ufrag.as_bytes());
    assert_eq!(request.role(), parameters.role.map(|(role, _)| role));
    assert_eq!(request.use_candidate(), parameters.use_candidate);
    message[..len].to_vec()
}

fn source(input: &mut Input<'_>) -> TransportAddress {
    let (which, port) = (input.byte(), 1 + u16::from(input.byte() % 16));
    match which % 3 {
        0 => TransportAddress::udp(SocketAddr::from(([192, 0, 2, which], port))),
        1 => TransportAddress::udp(SocketAddr::from(([0x2001, 0xdb8, 0, 0, 0, 0, 0, which.into()], port))),
        _ => TransportAddress::tcp(SocketAddr::from(([192, 0, 2, which], port))),
    }
}

/// USERNAME as a peer of this session writes it.
fn username(ufrag: Ufrag) -> Vec<u8> {
    let value = format!("{ufrag}:{PEER}");
    let mut attribute = vec![0x00, 0x06, 0, value.len() as u8];
    attribute.extend(value.as_bytes());
    attribute.resize(attribute.len().next_multiple_of(4), 0);
    attribute
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let seed = |how: u8, kind: u16, bytes: &[u8]| {
        let mut seed = vec![how, 0, 0, 5];
        seed.extend(kind.to_be_bytes());
        seed.extend(crate::input::chunk(bytes));
        seed
    };
    // PRIORITY, ICE-CONTROLLING and USE-CANDIDATE, as a browser sends them.
    let browser = b"\x00\x24\x00\x04\x6e\x7f\x1e\xff\x80\x2a\x00\x08\x01\x02\x03\x04\x05\x06\x07\x08\x00\x25\x00\x00";
    let network_cost = b"\xc0\x57\x00\x04\x00\x00\x00\x32\x80\x29\x00\x08\x01\x02\x03\x04\x05\x06\x07\x08";
    let unknown = b"\x00\x77\x00\x02ab\0\0\x00\x78\x00\x00";
    let (ufrag, _) = new_credentials(SECRET, 1, 2);
    let mapped = b"\x00\x20\x00\x08\x00\x01\xa1\x47\xe1\x12\xa6\x43";
    let mut all = vec![
        seed(0, 0, &checksums::stun(0x0001, &username(ufrag), Some("wrong"))),
        seed(1, 0x0001, browser),
        seed(2, 0x0101, mapped),
        seed(2, 0x0111, b"\x00\x09\x00\x04\x00\x00\x04\x57"),
        seed(2, 0x0011, b""),
        seed(3, 0, browser),
        seed(3, 0, network_cost),
        seed(3, 0, unknown),
        seed(4, 0, &[1, 0, 0, 0, 1, 7, 3, 1, 0, 0, 0, 9, 1]),
    ];
    let whole_life = all.concat();
    all.push(whole_life);
    all
}
