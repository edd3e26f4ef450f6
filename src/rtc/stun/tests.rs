use proptest::prelude::*;

use super::*;

/// RFC 5769 §2: the password of all three vectors that use the short-term mechanism.
const VECTOR_PASSWORD: &str = "VOkJxbRl1RmTxUk/WvJxBt";

/// RFC 5769 §2.1, a request; its USERNAME is padded with spaces on purpose.
const VECTOR_REQUEST: &str = "000100582112a442b7e7a701bc34d686fa87dfae802200105354554e207465737420636c69656e74002400046e0001ff\
    80290008932ff9b151263b36000600096576746a3a68367659202020000800149aeaa70cbfd8cb56781ef2b5b2d3f249c1b571a280280004\
    e57a3bcf";

/// RFC 5769 §2.2, a success response to 192.0.2.1:32853.
const VECTOR_RESPONSE_IPV4: &str = "0101003c2112a442b7e7a701bc34d686fa87dfae8022000b7465737420766563746f7220002000080001\
    a147e112a643000800142b91f599fd9e90c38c7489f92af9ba53f06be7d780280004c07d4c96";

/// RFC 5769 §2.3, a success response to [2001:db8:1234:5678:11:2233:4455:6677]:32853.
const VECTOR_RESPONSE_IPV6: &str = "010100482112a442b7e7a701bc34d686fa87dfae8022000b7465737420766563746f7220002000140002\
    a1470113a9faa5d3f179bc25f4b5bed2b9d900080014a382954e4be67bf11784c97c8292c275bfe3ed4180280004c8fb0b4c";

const TRANSACTION_ID: [u8; 12] = *b"transaction!";
const LOCAL: &str = "edgeUfrag123";
const REMOTE: &str = "peer";
const PASSWORD: &str = "0123456789abcdefghijklmn";

fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter_map(|b| char::from(b).to_digit(16)).map(|d| d as u8).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

fn check(use_candidate: bool) -> RequestParameters<'static> {
    RequestParameters {
        transaction_id: TRANSACTION_ID,
        local_ufrag: LOCAL,
        remote_ufrag: REMOTE,
        priority: Some(0x6E00_01FF),
        role: Some((IceRole::Controlling, 7)),
        use_candidate,
    }
}

fn written(parameters: &RequestParameters<'_>) -> Vec<u8> {
    let mut out = [0xAA; MAX_REQUEST_LEN];
    let len = write_request(&mut out, parameters, &IntegrityKey::new(PASSWORD));
    out[..len].to_vec()
}

/// A request with one more attribute in front of MESSAGE-INTEGRITY.
fn written_with(kind: u16, value: &[u8]) -> Vec<u8> {
    let mut out = [0; 200];
    let mut writer = MessageWriter::new(&mut out, message_type::REQUEST, TRANSACTION_ID);
    writer.username(LOCAL.as_bytes(), REMOTE.as_bytes());
    writer.attribute(kind, value);
    let len = writer.finish(&IntegrityKey::new(PASSWORD));
    out[..len].to_vec()
}

/// Makes the FINGERPRINT of an altered message right again.
fn refingerprint(message: &mut [u8]) {
    let end = message.len() - 4;
    let crc = fingerprint(&message[..end - 4]);
    message[end..].copy_from_slice(&crc.to_be_bytes());
}

#[test]
fn rfc_5769_request() {
    let message = unhex(VECTOR_REQUEST);
    let request = BindingRequest::parse(&message).unwrap();
    assert_eq!((request.local_ufrag(), request.remote_ufrag()), (&b"evtj"[..], &b"h6vY"[..]));
    assert_eq!(request.role(), Some(IceRole::Controlled));
    assert!(!request.use_candidate() && !request.has_unknown_attributes());
    assert!(request.verify(&IntegrityKey::new(VECTOR_PASSWORD)));
    assert!(!request.verify(&IntegrityKey::new("VOkJxbRl1RmTxUk/WvJxBT")));
}

#[test]
fn rfc_5769_responses() {
    for (vector, mapped) in [
        (VECTOR_RESPONSE_IPV4, "192.0.2.1:32853"),
        (VECTOR_RESPONSE_IPV6, "[2001:db8:1234:5678:11:2233:4455:6677]:32853"),
    ] {
        let message = unhex(vector);
        let response = BindingResponse::parse(&message).unwrap();
        assert_eq!(response.result(), Ok(mapped.parse().unwrap()));
        assert!(response.verify(&IntegrityKey::new(VECTOR_PASSWORD)));
        assert!(!response.verify(&IntegrityKey::new(PASSWORD)));
    }
}

#[test]
fn crc_of_the_check_string() {
    assert_eq!(crc32(b"123456789"), 0xCBF4_3926);
}

#[test]
fn a_written_request_reads_back() {
    for use_candidate in [false, true] {
        let message = written(&check(use_candidate));
        let request = BindingRequest::parse(&message).unwrap();
        assert_eq!(request.local_ufrag(), LOCAL.as_bytes());
        assert_eq!(request.remote_ufrag(), REMOTE.as_bytes());
        assert_eq!(request.use_candidate(), use_candidate);
        assert_eq!(request.role(), Some(IceRole::Controlling));
        assert_eq!(request.transaction_id(), TRANSACTION_ID);
        assert!(request.verify(&IntegrityKey::new(PASSWORD)));
    }
}

#[test]
fn username_and_use_candidate_are_enough() {
    let message = written(&RequestParameters { priority: None, role: None, ..check(true) });
    let request = BindingRequest::parse(&message).unwrap();
    assert!(request.use_candidate() && request.role().is_none());
    assert!(request.verify(&IntegrityKey::new(PASSWORD)));
}

#[test]
fn success_is_64_bytes_for_ipv4_and_76_for_ipv6() {
    let message = written(&check(true));
    let request = BindingRequest::parse(&message).unwrap();
    let key = IntegrityKey::new(PASSWORD);
    for (mapped, reported, len) in [
        ("203.0.113.9:4711", "203.0.113.9:4711", 64),
        ("[::ffff:203.0.113.9]:4711", "203.0.113.9:4711", 64),
        ("[2001:db8::1]:9", "[2001:db8::1]:9", MAX_RESPONSE_LEN),
    ] {
        let mut out = [0; MAX_RESPONSE_LEN];
        assert_eq!(write_success(&mut out, &request, mapped.parse().unwrap(), &key), len);
        assert!(len <= message.len(), "a response must not be longer than its request");
        let response = BindingResponse::parse(&out[..len]).unwrap();
        assert_eq!(response.result(), Ok(reported.parse().unwrap()));
        assert_eq!(response.transaction_id(), TRANSACTION_ID);
        assert!(response.verify(&key));
    }
}

#[test]
fn errors_carry_their_code() {
    let message = written(&check(true));
    let request = BindingRequest::parse(&message).unwrap();
    let key = IntegrityKey::new(PASSWORD);
    for error in [ErrorCode::Forbidden, ErrorCode::RoleConflict, ErrorCode::UnknownAttribute] {
        let mut out = [0; MAX_RESPONSE_LEN];
        let len = write_error(&mut out, &request, error, &key);
        let response = BindingResponse::parse(&out[..len]).unwrap();
        assert_eq!(response.result(), Err(error.code()));
        assert!(response.verify(&key));
    }
}

#[test]
fn unknown_required_attributes_are_listed() {
    let message = written_with(0x0033, &[1, 2, 3]);
    let request = BindingRequest::parse(&message).unwrap();
    assert!(request.has_unknown_attributes());
    let mut out = [0; MAX_RESPONSE_LEN];
    let len = write_error(&mut out, &request, ErrorCode::UnknownAttribute, &IntegrityKey::new(PASSWORD));
    let list = [0x00, 0x0A, 0x00, 0x02, 0x00, 0x33, 0x00, 0x00];
    assert!(out[..len].windows(list.len()).any(|window| window == list));
}

#[test]
fn optional_attributes_of_browsers_pass() {
    // 0xC057 is libwebrtc's network information.
    let message = written_with(0xC057, &[0, 0, 3, 231]);
    assert!(!BindingRequest::parse(&message).unwrap().has_unknown_attributes());
}

#[test]
fn indications_are_told_apart() {
    let mut message = written(&check(false));
    message[..2].copy_from_slice(&message_type::INDICATION.to_be_bytes());
    assert_eq!(BindingRequest::parse(&message).unwrap_err(), StunError::Indication);
    // The keepalive of RFC 8445 §11 may be a bare header.
    let mut bare = message[..HEADER_LEN].to_vec();
    bare[2..4].fill(0);
    assert_eq!(BindingRequest::parse(&bare).unwrap_err(), StunError::Indication);
}

#[test]
fn refusals_say_why() {
    let good = written(&check(false));
    let parse = |message: &[u8]| BindingRequest::parse(message).unwrap_err();
    assert_eq!(parse(&[]), StunError::Header);
    assert_eq!(parse(&good[..good.len() - 4]), StunError::Header);
    let mut bare = good[..HEADER_LEN].to_vec();
    bare[2..4].fill(0);
    assert_eq!(parse(&bare), StunError::MissingFingerprint);

    let altered = |offset: usize, value: u8| {
        let mut message = good.clone();
        message[offset] = value;
        message
    };
    assert_eq!(parse(&altered(0, 0xC0)), StunError::Header);
    assert_eq!(parse(&altered(4, 0)), StunError::Header);
    assert_eq!(parse(&altered(1, 3)), StunError::MessageType);
    assert_eq!(parse(&altered(good.len() - 7, 0x27)), StunError::MissingFingerprint);
    assert_eq!(parse(&altered(good.len() - 1, !good[good.len() - 1])), StunError::WrongFingerprint);

    let no_colon = {
        let mut message = good.clone();
        let colon = message.iter().position(|&b| b == b':').unwrap();
        message[colon] = b'.';
        refingerprint(&mut message);
        message
    };
    assert_eq!(parse(&no_colon), StunError::MissingUsername);

    let no_integrity = {
        let mut message = good.clone();
        let offset = good.len() - FINGERPRINT_LEN - INTEGRITY_LEN;
        message[offset] = 0x80;
        refingerprint(&mut message);
        message
    };
    assert_eq!(parse(&no_integrity), StunError::MissingIntegrity);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = BindingRequest::parse(&bytes);
        let _ = BindingResponse::parse(&bytes);
    }

    /// The attributes are arbitrary, header and FINGERPRINT right: this reaches the attribute walk.
    #[test]
    fn arbitrary_attributes_never_panic_nor_verify(words in prop::collection::vec(any::<u32>(), 2..40), kind in 0..4u16) {
        let mut message = vec![0; HEADER_LEN];
        let kind = [message_type::REQUEST, message_type::SUCCESS, message_type::ERROR, 2][usize::from(kind)];
        message.extend(words.iter().flat_map(|word| word.to_be_bytes()));
        let length = (message.len() - HEADER_LEN) as u16;
        message[..2].copy_from_slice(&kind.to_be_bytes());
        message[2..4].copy_from_slice(&length.to_be_bytes());
        message[4..8].copy_from_slice(&COOKIE);
        let tail = message.len() - FINGERPRINT_LEN;
        message[tail..tail + 4].copy_from_slice(&[0x80, 0x28, 0, 4]);
        refingerprint(&mut message);
        let key = IntegrityKey::new(PASSWORD);
        prop_assert!(!BindingRequest::parse(&message).is_ok_and(|request| request.verify(&key)));
        prop_assert!(!BindingResponse::parse(&message).is_ok_and(|response| response.verify(&key)));
    }

    #[test]
    fn an_altered_request_never_verifies(offset in any::<prop::sample::Index>(), flip in 1..=255u8, repair in any::<bool>()) {
        let mut message = written(&check(true));
        let covered = message.len() - FINGERPRINT_LEN;
        message[offset.index(covered)] ^= flip;
        if repair {
            refingerprint(&mut message);
        }
        let key = IntegrityKey::new(PASSWORD);
        prop_assert!(!BindingRequest::parse(&message).is_ok_and(|request| request.verify(&key)));
    }

    #[test]
    fn requests_round_trip(local in "[A-Za-z0-9+/]{4,256}", remote in "[A-Za-z0-9+/]{4,256}", id in any::<[u8; 12]>()) {
        let parameters = RequestParameters { transaction_id: id, local_ufrag: &local, remote_ufrag: &remote, ..check(false) };
        let message = written(&parameters);
        let request = BindingRequest::parse(&message).unwrap();
        prop_assert_eq!(request.local_ufrag(), local.as_bytes());
        prop_assert_eq!(request.remote_ufrag(), remote.as_bytes());
        prop_assert_eq!(request.transaction_id(), id);
        prop_assert!(request.verify(&IntegrityKey::new(PASSWORD)));
    }

    #[test]
    fn addresses_round_trip(ip in any::<[u8; 16]>(), v4 in any::<bool>(), port in any::<u16>()) {
        let ip = match v4 {
            true => IpAddr::from([ip[0], ip[1], ip[2], ip[3]]),
            false => IpAddr::from(ip).to_canonical(),
        };
        let message = written(&check(false));
        let request = BindingRequest::parse(&message).unwrap();
        let mut out = [0; MAX_RESPONSE_LEN];
        let len = write_success(&mut out, &request, SocketAddr::new(ip, port), &IntegrityKey::new(PASSWORD));
        prop_assert_eq!(BindingResponse::parse(&out[..len]).unwrap().result(), Ok(SocketAddr::new(ip, port)));
    }
}
