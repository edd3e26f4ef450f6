//! Tokens and key sets: what a stranger sends, and what an issuer publishes. Whatever they are, nobody gets in who has no key.

use std::sync::LazyLock;
use std::time::Duration;

use tableside::identity::{
    KeySet, KeySetError, MAX_KEY_SET, MAX_TOKEN, NewToken, Policy, Role, SigningKey, Subject, TokenError, verify,
};

use crate::input::{Input, chunk, damage};

const NOW: Duration = Duration::from_secs(1_790_000_000);

/// The key of RFC 8037 appendix A.1, and one of P-256: the same in each run: a corpus is good for them.
static KEYS: LazyLock<[SigningKey; 2]> = LazyLock::new(|| {
    [
        "MC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g",
        "MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg9jJJdx4Dbjq5ikN3qPLF/XoZmerdsWclgKbJ68vd+vGhRANCAARQCIQ03g\
         sofVFBBSFi0czIX+hXXJbmuVebAOhamL74sCoIoKd3+Gan39ouAHU4DB4lfRVYda1GrLom6pGzj7hX",
    ]
    .map(|der| {
        let pem = format!("-----BEGIN PRIVATE KEY-----\n{der}\n-----END PRIVATE KEY-----\n");
        SigningKey::from_pem(pem.as_bytes()).expect("a private key")
    })
});

static SET: LazyLock<KeySet> = LazyLock::new(|| {
    let jwks: Vec<String> = KEYS.iter().map(|key| key.jwk().to_string()).collect();
    KeySet::parse(format!("{{\"keys\":[{}]}}", jwks.join(",")).as_bytes()).expect("a key set")
});

pub(crate) fn run(data: &[u8]) {
    let mut input = Input::new(data);
    match input.byte() % 4 {
        0 => key_set(input.rest()),
        1 => made_up(input.rest()),
        2 => signed(&mut input),
        _ => damaged(&mut input),
    }
}

/// Any text as a key set.
fn key_set(text: &[u8]) {
    match KeySet::parse(text) {
        Ok(keys) => assert!(!keys.is_empty() && keys.len() <= 64 && text.len() <= MAX_KEY_SET),
        Err(KeySetError::TooLong) => assert!(text.len() > MAX_KEY_SET),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// Any text as a token: without a key nobody makes one.
fn made_up(text: &[u8]) {
    let text = String::from_utf8_lossy(text);
    assert!(verify(&text, &SET, &policy(), NOW).is_err(), "{text}");
    assert!(verify(&text, &KeySet::default(), &policy(), NOW).is_err(), "{text}");
}

/// Any header and payload, signed: what is read was good at the time.
fn signed(input: &mut Input<'_>) {
    let key = &KEYS[input.below(2)];
    let (header, payload) = (String::from_utf8_lossy(input.chunk()), String::from_utf8_lossy(input.chunk()));
    let Ok(token) = key.sign_parts(&header, &payload) else { return };
    match verify(&token, &SET, &policy(), NOW) {
        Ok(claims) => {
            assert!(token.len() <= MAX_TOKEN && claims.expires + policy().leeway > NOW);
            assert!(!claims.subject.as_str().is_empty());
            assert!(header.contains(key.algorithm().as_str()) || header.contains('\\') || header.contains("Ed25519"));
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// A good token with something changed: it says the same as before, or nothing.
fn damaged(input: &mut Input<'_>) {
    let key = &KEYS[input.below(2)];
    let token = good(key);
    let mut octets = token.clone().into_bytes();
    damage(input, &mut octets);
    let changed = String::from_utf8_lossy(&octets);
    let read = verify(&changed, &SET, &policy(), NOW);
    assert!(read.is_err() || changed == token, "{changed}");
    if let Err(error) = read {
        assert!(!matches!(error, TokenError::Issuer | TokenError::Audience), "{error:?}");
    }
}

fn good(key: &SigningKey) -> String {
    let subject = Subject::new("ann").expect("a subject");
    let tables = ["roulette".to_owned()];
    let new = NewToken {
        subject: &subject,
        role: Role::Player,
        tables: &tables,
        jurisdiction: Some("MT"),
        issuer: None,
        audience: None,
        issued: NOW,
        lifetime: Duration::from_secs(60),
    };
    key.sign(&new).expect("a token")
}

fn policy() -> Policy {
    Policy { leeway: Duration::from_secs(30), ..Policy::default() }
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let set = format!("{{\"keys\":[{},{}]}}", KEYS[0].jwk(), KEYS[1].jwk());
    let parts = |key: u8, header: &str, payload: &str| {
        [&[2, key][..], &chunk(header.as_bytes()), &chunk(payload.as_bytes())].concat()
    };
    let claims = r#"{"sub":"ann","role":"player","tables":["*"],"exp":1790000060,"nbf":1789999999.5,"aud":["a"]}"#;
    vec![
        [&[0][..], set.as_bytes()].concat(),
        [&[0][..], br#"{"keys":[{"kty":"RSA","n":"AQAB","e":"AQAB","alg":"RS256","use":"sig","key_ops":["verify"]}]}"#]
            .concat(),
        [&[0][..], br#"{"keys":[{"kty":"oct","k":"AAAA"},{"kty":"OKP","crv":"Ed25519","d":"","x":""}]}"#].concat(),
        [&[1][..], good(&KEYS[0]).trim_end_matches(char::is_alphanumeric).as_bytes()].concat(),
        [&[1][..], b"eyJhbGciOiJub25lIn0.e30."].concat(),
        parts(0, r#"{"alg":"EdDSA"}"#, claims),
        parts(1, r#"{"alg":"ES256","typ":"at+jwt","crit":["b64"]}"#, claims),
        parts(1, &format!(r#"{{"alg":"ES256","kid":"{}"}}"#, KEYS[1].kid()), &claims.replace(r#","aud":["a"]"#, "")),
        vec![3, 0, 0, 40, 1, 3],
        vec![3, 1, 0, 90, 2],
    ]
}
