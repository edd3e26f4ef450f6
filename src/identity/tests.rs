//! Every way to pass off a token that is none.

use std::sync::LazyLock;
use std::time::Duration;

use aws_lc_rs::hmac;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::object::{decode, encode};
use super::*;

const NOW: u64 = 1_790_000_000;
const LEEWAY: u64 = 30;

static ED: LazyLock<SigningKey> = LazyLock::new(|| SigningKey::generate(Algorithm::EdDsa).unwrap());
static EC: LazyLock<SigningKey> = LazyLock::new(|| SigningKey::generate(Algorithm::Es256).unwrap());
static RSA: LazyLock<SigningKey> = LazyLock::new(|| SigningKey::generate(Algorithm::Rs256).unwrap());

fn all() -> [&'static SigningKey; 3] {
    [&ED, &EC, &RSA]
}

fn set_of(jwks: &[Value]) -> Result<KeySet, KeySetError> {
    KeySet::parse(json!({ "keys": jwks }).to_string().as_bytes())
}

fn keys() -> KeySet {
    set_of(&all().map(SigningKey::jwk)).unwrap()
}

/// A key with members changed; `null` takes one away.
fn changed(key: &SigningKey, changes: Value) -> Value {
    let mut jwk = key.jwk();
    for (name, value) in changes.as_object().unwrap() {
        match value {
            Value::Null => drop(jwk.as_object_mut().unwrap().remove(name)),
            value => jwk[name] = value.clone(),
        }
    }
    jwk
}

fn policy() -> Policy {
    Policy { leeway: Duration::from_secs(LEEWAY), ..Policy::default() }
}

fn good() -> Value {
    json!({ "sub": "ann", "role": "player", "tables": ["roulette"], "jurisdiction": "MT", "iat": NOW, "exp": NOW + 60 })
}

fn with(changes: Value) -> String {
    let mut claims = good();
    for (name, value) in changes.as_object().unwrap() {
        match value {
            Value::Null => drop(claims.as_object_mut().unwrap().remove(name)),
            value => claims[name] = value.clone(),
        }
    }
    claims.to_string()
}

fn header(key: &SigningKey) -> Value {
    json!({ "alg": key.algorithm().as_str(), "kid": key.kid() })
}

fn judged(token: &str) -> Result<Claims, TokenError> {
    verify(token, &keys(), &policy(), Duration::from_secs(NOW))
}

fn claimed(changes: Value) -> Result<Claims, TokenError> {
    judged(&ED.sign_parts(&header(&ED).to_string(), &with(changes)).unwrap())
}

fn headed(key: &SigningKey, header: &str) -> Result<Claims, TokenError> {
    judged(&key.sign_parts(header, &good().to_string()).unwrap())
}

#[test]
fn a_token_of_each_algorithm_is_read() {
    let subject = Subject::new("ann").unwrap();
    let tables = ["roulette".to_owned(), "blackjack-7".to_owned()];
    for key in all() {
        let new = NewToken {
            subject: &subject,
            role: Role::Publisher,
            tables: &tables,
            jurisdiction: Some("MT"),
            issuer: None,
            audience: None,
            issued: Duration::from_secs(NOW),
            lifetime: Duration::from_secs(60),
        };
        let claims = judged(&key.sign(&new).unwrap()).unwrap();
        let expected = Claims {
            subject: subject.clone(),
            role: Role::Publisher,
            tables: Tables::of(&tables),
            jurisdiction: Some("MT".into()),
            expires: Duration::from_secs(NOW + 60),
        };
        assert_eq!(claims, expected);
    }
}

/// RFC 8725 §2.1: the classics.
#[test]
fn the_token_does_not_choose_the_algorithm() {
    let payload = encode(good().to_string());
    for none in ["none", "None", "NONE", "nOnE", "", "null"] {
        let header = encode(json!({ "alg": none, "kid": ED.kid() }).to_string());
        for signature in ["", "AA", &encode([0; 64])] {
            let token = format!("{header}.{payload}.{signature}");
            assert_eq!(judged(&token), Err(TokenError::Algorithm), "{none:?} {signature:?}");
        }
    }
    for header in [json!({}), json!({ "alg": null }), json!({ "alg": ["EdDSA"] }), json!({ "alg": 1 })] {
        assert_eq!(headed(&ED, &header.to_string()), Err(TokenError::Algorithm), "{header}");
    }
    for alg in ["HS256", "HS384", "HS512", "RS384", "RS512", "PS256", "ES384", "ES256K", "eddsa", "Ed448", "RSA-OAEP"] {
        assert_eq!(
            headed(&RSA, &json!({ "alg": alg, "kid": RSA.kid() }).to_string()),
            Err(TokenError::Algorithm),
            "{alg}"
        );
    }
}

#[test]
fn a_public_key_is_no_secret_of_an_hmac() {
    for key in all() {
        let jwk = key.jwk();
        let public = ["x", "n"].iter().find_map(|name| jwk[name].as_str()).unwrap();
        for secret in [jwk.to_string().into_bytes(), public.as_bytes().to_vec(), decode(public).unwrap()] {
            for alg in ["HS256", key.algorithm().as_str()] {
                let signed = format!(
                    "{}.{}",
                    encode(json!({ "alg": alg, "kid": key.kid() }).to_string()),
                    encode(good().to_string())
                );
                let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &secret), signed.as_bytes());
                let refused = judged(&format!("{signed}.{}", encode(tag)));
                let expected = if alg == "HS256" { TokenError::Algorithm } else { TokenError::Signature };
                assert_eq!(refused, Err(expected));
            }
        }
    }
}

#[test]
fn a_key_is_used_with_its_own_algorithm_alone() {
    for named in all() {
        for signer in all() {
            for alg in ["EdDSA", "ES256", "RS256"] {
                let outcome = headed(signer, &json!({ "alg": alg, "kid": named.kid() }).to_string());
                let expected = match (alg == named.algorithm().as_str(), signer.kid() == named.kid()) {
                    (true, true) => None,
                    (true, false) => Some(TokenError::Signature),
                    (false, _) => Some(TokenError::OtherAlgorithm),
                };
                assert_eq!(outcome.err(), expected, "{alg} of {} with {}", named.kid(), signer.kid());
            }
        }
    }
    // RFC 9864's name for the same.
    assert!(headed(&ED, &json!({ "alg": "Ed25519", "kid": ED.kid() }).to_string()).is_ok());
}

#[test]
fn a_key_that_the_token_brings_along_is_not_looked_at() {
    let stranger = SigningKey::generate(Algorithm::EdDsa).unwrap();
    let brought = json!({ "alg": "EdDSA", "jwk": stranger.jwk(), "jku": "https://attacker.example/jwks.json",
        "x5u": "https://attacker.example/", "x5c": ["MIIB"] });
    assert_eq!(headed(&stranger, &brought.to_string()), Err(TokenError::Signature), "the only key of its kind is ours");
    let mut named = brought.clone();
    named["kid"] = json!(stranger.kid());
    assert_eq!(headed(&stranger, &named.to_string()), Err(TokenError::UnknownKey));
    named["kid"] = json!(ED.kid());
    assert_eq!(headed(&stranger, &named.to_string()), Err(TokenError::Signature));
}

#[test]
fn a_token_without_kid_is_for_the_one_key_that_fits() {
    assert!(headed(&ED, r#"{"alg":"EdDSA"}"#).is_ok());
    let second = SigningKey::generate(Algorithm::EdDsa).unwrap();
    let two = set_of(&[ED.jwk(), second.jwk(), EC.jwk()]).unwrap();
    let now = Duration::from_secs(NOW);
    let token = |key: &SigningKey, header: &str| key.sign_parts(header, &good().to_string()).unwrap();
    let ed = token(&ED, r#"{"alg":"EdDSA"}"#);
    assert_eq!(verify(&ed, &two, &policy(), now), Err(TokenError::AmbiguousKey));
    assert!(verify(&token(&EC, r#"{"alg":"ES256"}"#), &two, &policy(), now).is_ok());
    assert_eq!(verify(&token(&RSA, r#"{"alg":"RS256"}"#), &two, &policy(), now), Err(TokenError::UnknownKey));
    // A key without a name is never meant by a token with one.
    let nameless = set_of(&[changed(&ED, json!({ "kid": null }))]).unwrap();
    assert!(verify(&ed, &nameless, &policy(), now).is_ok());
    let named = token(&ED, &header(&ED).to_string());
    assert_eq!(verify(&named, &nameless, &policy(), now), Err(TokenError::UnknownKey));
    assert_eq!(verify(&named, &KeySet::default(), &policy(), now), Err(TokenError::UnknownKey));
}

#[test]
fn headers_that_must_be_understood_are_not() {
    for crit in [json!(["exp"]), json!(["b64"]), json!([]), json!(null), json!("exp")] {
        let header = json!({ "alg": "EdDSA", "kid": ED.kid(), "crit": crit, "b64": false, "exp": 1 });
        assert_eq!(headed(&ED, &header.to_string()), Err(TokenError::Critical), "{crit}");
    }
}

#[test]
fn a_token_of_another_kind_is_refused() {
    let typed = |typ: Value| headed(&ED, &json!({ "alg": "EdDSA", "kid": ED.kid(), "typ": typ }).to_string());
    for typ in ["JWT", "jwt", "at+jwt", "AT+JWT", "application/at+jwt", "application/jwt"] {
        assert!(typed(json!(typ)).is_ok(), "{typ}");
    }
    for typ in
        [json!("dpop+jwt"), json!("logout+jwt"), json!("secevent+jwt"), json!("JWE"), json!(""), json!(null), json!(3)]
    {
        assert_eq!(typed(typ.clone()), Err(TokenError::Type), "{typ}");
    }
}

#[test]
fn what_is_no_jwt_is_refused_by_its_form() {
    let good = ED.sign_parts(&header(&ED).to_string(), &good().to_string()).unwrap();
    let (signed, signature) = good.rsplit_once('.').unwrap();
    let padded = format!("{signed}.{signature}==");
    let standard = format!("{}.{signature}", signed.replace('.', "+."));
    for text in [
        "",
        ".",
        "..",
        "...",
        "a",
        "undefined",
        "Bearer",
        "a.b",
        "a.b.c.d.e",
        &good[1..],
        &padded,
        &standard,
        &format!("{good}."),
        &format!("{good}\n"),
        &format!(" {good}"),
        signed,
        "e30.e30.",
        "W10.W10.AA",
        "bnVsbA.e30.AA",
    ] {
        let refused = judged(text).unwrap_err();
        assert!(matches!(refused, TokenError::Malformed(_) | TokenError::Algorithm), "{text}: {refused:?}");
    }
    assert_eq!(judged(&"a".repeat(MAX_TOKEN + 1)), Err(TokenError::TooLong));
    let long = json!({ "more": "x".repeat(MAX_TOKEN) });
    assert_eq!(claimed(long), Err(TokenError::TooLong), "signed or not");
}

/// Two readers must not read one token as two: RFC 8725 §2.3 has the reason, RFC 7519 §4 the rule.
#[test]
fn names_that_come_twice_are_refused() {
    let kid = ED.kid();
    let double_alg = format!(r#"{{"alg":"none","alg":"EdDSA","kid":"{kid}"}}"#);
    assert!(matches!(headed(&ED, &double_alg), Err(TokenError::Malformed(_))));
    for twice in [r#""sub":"bob","#, r#""role":"publisher","#, r#""unknown":1,"unknown":2,"#, r#""\u0073ub":"bob","#] {
        let payload = good().to_string().replacen('{', &format!("{{{twice}"), 1);
        let token = ED.sign_parts(&header(&ED).to_string(), &payload).unwrap();
        assert!(matches!(judged(&token), Err(TokenError::Malformed(_))), "{payload}");
    }
}

#[test]
fn signatures_are_what_they_have_to_be() {
    for key in all() {
        let token = key.sign_parts(&header(key).to_string(), &good().to_string()).unwrap();
        let (signed, signature) = token.rsplit_once('.').unwrap();
        let signature = decode(signature).unwrap();
        let mut flipped = signature.clone();
        flipped[10] ^= 1;
        let extended = [&signature[..], &[0]].concat();
        for wrong in [
            &[][..],
            &signature[1..],
            &signature[..signature.len() - 1],
            &flipped,
            &extended,
            &vec![0; signature.len()],
        ] {
            let token = format!("{signed}.{}", encode(wrong));
            assert_eq!(judged(&token), Err(TokenError::Signature), "{:?}", key.algorithm());
        }
        let other = key.sign_parts(&header(key).to_string(), &with(json!({ "sub": "bob" }))).unwrap();
        let grafted = format!("{}.{}", other.rsplit_once('.').unwrap().0, token.rsplit_once('.').unwrap().1);
        assert_eq!(judged(&grafted), Err(TokenError::Signature), "another's claims");
    }
}

/// RFC 7518 §3.4: R and S, not the DER of other protocols.
#[test]
fn ecdsa_in_der_is_refused() {
    use aws_lc_rs::rand::SystemRandom;
    use aws_lc_rs::signature::{
        ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair, UnparsedPublicKey,
    };
    use rustls::pki_types::{PrivatePkcs8KeyDer, pem::PemObject};

    let pem = EC.to_pem().unwrap();
    let der = PrivatePkcs8KeyDer::from_pem_slice(pem.as_bytes()).unwrap();
    let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, der.secret_pkcs8_der()).unwrap();
    let signed = format!("{}.{}", encode(header(&EC).to_string()), encode(good().to_string()));
    let signature = pair.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
    let public = UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, pair.public_key());
    assert!(public.verify(signed.as_bytes(), signature.as_ref()).is_ok(), "it is a good one, in DER");
    assert_eq!(judged(&format!("{signed}.{}", encode(signature))), Err(TokenError::Signature));
}

#[test]
fn expiry_counts_to_the_second_with_the_leeway() {
    for (exp, expected) in [
        (json!(NOW - LEEWAY), Some(TokenError::Expired)),
        (json!(NOW - LEEWAY + 1), None),
        (json!(NOW as f64 - LEEWAY as f64 + 0.5), None),
        (json!(NOW as f64 - LEEWAY as f64 - 0.5), Some(TokenError::Expired)),
        (json!(0), Some(TokenError::Expired)),
        (json!(0.0), Some(TokenError::Expired)),
        (json!(253_402_300_799_u64), None),
    ] {
        assert_eq!(claimed(json!({ "exp": exp })).err(), expected, "{exp}");
    }
    let strict = Policy::default();
    let ends_now = ED.sign_parts(&header(&ED).to_string(), &with(json!({ "exp": NOW, "iat": null }))).unwrap();
    assert_eq!(verify(&ends_now, &keys(), &strict, Duration::from_secs(NOW)), Err(TokenError::Expired));
    assert!(verify(&ends_now, &keys(), &strict, Duration::from_millis(NOW * 1000 - 1)).is_ok());
}

#[test]
fn an_expiry_that_is_missing_or_absurd_is_no_expiry() {
    for exp in [
        json!(null),
        json!("1790000060"),
        json!(true),
        json!([NOW + 60]),
        json!(-1),
        json!(-1.5),
        json!(1e300),
        json!(u64::MAX),
        // Milliseconds, which would be good for 50,000 years.
        json!((NOW + 60) * 1000),
        json!(253_402_300_800_u64),
    ] {
        assert!(matches!(claimed(json!({ "exp": exp })), Err(TokenError::Claim(_))), "{exp}");
    }
    // Beyond what a number can be: no JSON for our parser.
    let infinite = good().to_string().replace(&(NOW + 60).to_string(), "1e999");
    let token = ED.sign_parts(&header(&ED).to_string(), &infinite).unwrap();
    assert!(matches!(judged(&token), Err(TokenError::Malformed(_))));
}

#[test]
fn what_begins_later_is_not_valid_yet() {
    for name in ["nbf", "iat"] {
        for (from, expected) in [
            (json!(NOW), None),
            (json!(NOW + LEEWAY), None),
            (json!(NOW + LEEWAY + 1), Some(TokenError::NotYetValid)),
            (json!(NOW as f64 + LEEWAY as f64 + 0.25), Some(TokenError::NotYetValid)),
            (json!(0), None),
        ] {
            assert_eq!(claimed(json!({ name: from })).err(), expected, "{name} {from}");
        }
        for absurd in [json!("now"), json!(-5), json!(1e300), json!([])] {
            assert!(matches!(claimed(json!({ name: absurd })), Err(TokenError::Claim(_))), "{name} {absurd}");
        }
        assert!(claimed(json!({ name: null })).is_ok(), "optional");
    }
}

#[test]
fn claims_have_to_be_there_and_of_their_form() {
    for wrong in [
        json!({ "sub": null }),
        json!({ "sub": "" }),
        json!({ "sub": "a b" }),
        json!({ "sub": "é" }),
        json!({ "sub": "x".repeat(129) }),
        json!({ "sub": 7 }),
        json!({ "role": null }),
        json!({ "role": "admin" }),
        json!({ "role": "Player" }),
        json!({ "role": ["player", "publisher"] }),
        json!({ "tables": null }),
        json!({ "tables": "roulette" }),
        json!({ "tables": ["roulette", 7] }),
        json!({ "tables": { "roulette": true } }),
        json!({ "jurisdiction": "" }),
        json!({ "jurisdiction": ["MT"] }),
        json!({ "jurisdiction": "M T" }),
        json!({ "jurisdiction": "x".repeat(65) }),
    ] {
        assert!(matches!(claimed(wrong.clone()), Err(TokenError::Claim(_))), "{wrong}");
    }
    assert!(claimed(json!({ "sub": "auth0|5f0e", "more": { "of": ["them"] } })).is_ok());
}

#[test]
fn issuer_and_audience_are_checked() {
    let strict = Policy { issuer: Some("https://id.example".into()), audience: Some("tableside".into()), ..policy() };
    let judge = |claims: Value, policy: &Policy| {
        let token = ED.sign_parts(&header(&ED).to_string(), &with(claims)).unwrap();
        verify(&token, &keys(), policy, Duration::from_secs(NOW)).err()
    };
    let iss = "https://id.example";
    for aud in [json!("tableside"), json!(["other", "tableside"])] {
        assert_eq!(judge(json!({ "iss": iss, "aud": aud }), &strict), None, "{aud}");
    }
    for aud in [
        json!(null),
        json!("other"),
        json!(["other"]),
        json!([]),
        json!(["tableside2"]),
        json!({ "tableside": 1 }),
        json!(1),
    ] {
        assert_eq!(judge(json!({ "iss": iss, "aud": aud }), &strict), Some(TokenError::Audience), "{aud}");
    }
    for iss in [json!(null), json!("https://id.example/"), json!("HTTPS://ID.EXAMPLE"), json!([iss])] {
        assert_eq!(judge(json!({ "iss": iss, "aud": "tableside" }), &strict), Some(TokenError::Issuer), "{iss}");
    }
    // A token for somebody in particular is for us only if we are somebody.
    assert_eq!(judge(json!({ "iss": "anybody", "aud": "tableside" }), &policy()), Some(TokenError::Audience));
    assert_eq!(judge(json!({ "iss": "anybody" }), &policy()), None);
}

#[test]
fn role_table_and_jurisdiction_are_each_needed() {
    let claims = claimed(json!({})).unwrap();
    let served = |names: &[&str]| Jurisdictions::of(&names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>());
    let malta = served(&["GB", "MT"]);
    assert_eq!(claims.allow(Role::Player, "roulette", &malta), Ok(()));
    assert_eq!(claims.allow(Role::Publisher, "roulette", &malta), Err(Denied::Role));
    for other in ["blackjack", "Roulette", "roulette-2", "", "*"] {
        assert_eq!(claims.allow(Role::Player, other, &malta), Err(Denied::Table), "{other}");
    }
    for other in [served(&["GB"]), served(&["mt"]), served(&[])] {
        assert_eq!(claims.allow(Role::Player, "roulette", &other), Err(Denied::Jurisdiction));
    }
    let everywhere = served(&["*"]);
    assert_eq!(claims.allow(Role::Player, "roulette", &everywhere), Ok(()));
    let nowhere = claimed(json!({ "jurisdiction": null })).unwrap();
    assert_eq!(nowhere.allow(Role::Player, "roulette", &malta), Err(Denied::Jurisdiction));
    assert_eq!(nowhere.allow(Role::Player, "roulette", &everywhere), Ok(()));
    // What a token says cannot stand for all of them.
    let star = claimed(json!({ "jurisdiction": "*" })).unwrap();
    assert_eq!(star.allow(Role::Player, "roulette", &malta), Err(Denied::Jurisdiction));
    let all = claimed(json!({ "tables": ["x", "*"] })).unwrap();
    assert_eq!(all.allow(Role::Player, "whatever", &malta), Ok(()));
    let none = claimed(json!({ "tables": [] })).unwrap();
    assert_eq!(none.allow(Role::Player, "roulette", &malta), Err(Denied::Table));
}

#[test]
fn a_set_with_a_key_that_must_be_secret_is_refused() {
    for secret in [
        changed(&ED, json!({ "d": "AAAA" })),
        changed(&EC, json!({ "d": "AAAA" })),
        changed(&RSA, json!({ "d": "AQAB" })),
        changed(&RSA, json!({ "p": "AQAB" })),
        json!({ "kty": "oct", "k": "c2VjcmV0", "alg": "HS256" }),
        json!({ "kty": "oct" }),
        json!({ "kty": "RSA", "k": "c2VjcmV0" }),
    ] {
        let error = set_of(&[ED.jwk(), secret.clone()]).unwrap_err();
        assert_eq!(error, KeySetError::Secret(2), "{secret}");
        assert!(!error.to_string().contains("c2VjcmV0"));
    }
}

#[test]
fn a_set_that_is_ambiguous_is_refused() {
    let same_name = [ED.jwk(), changed(&EC, json!({ "kid": ED.kid() }))];
    assert_eq!(set_of(&same_name), Err(KeySetError::Ambiguous(ED.kid().to_owned())));
    assert_eq!(set_of(&[ED.jwk(), ED.jwk()]), Err(KeySetError::Ambiguous(ED.kid().to_owned())));
    let jwk = ED.jwk().to_string();
    for text in [
        format!(r#"{{"keys":[{}]}}"#, jwk.replacen('{', r#"{"kty":"EC","#, 1)),
        format!(r#"{{"keys":[{jwk}],"keys":[]}}"#),
    ] {
        assert!(matches!(KeySet::parse(text.as_bytes()), Err(KeySetError::Malformed(_))), "{text}");
    }
    // A key that is not used has no say.
    let ignored = changed(&EC, json!({ "kid": ED.kid(), "use": "enc" }));
    assert_eq!(set_of(&[ED.jwk(), ignored]).unwrap().len(), 1);
}

#[test]
fn keys_for_something_else_are_ignored_with_the_reason() {
    let point = EC.jwk();
    for (key, says) in [
        (changed(&ED, json!({ "crv": "Ed448" })), "crv"),
        (changed(&ED, json!({ "crv": "X25519" })), "crv"),
        (changed(&ED, json!({ "crv": "P-256" })), "crv"),
        (changed(&ED, json!({ "x": encode([7; 31]) })), "`x`"),
        (changed(&ED, json!({ "x": null })), "missing"),
        (changed(&ED, json!({ "x": "****" })), "base64url"),
        (changed(&ED, json!({ "alg": "ES256" })), "`alg`"),
        (changed(&ED, json!({ "alg": 3 })), "`alg`"),
        (changed(&ED, json!({ "kid": 3 })), "`kid`"),
        (changed(&ED, json!({ "kty": "EC" })), "crv"),
        (changed(&ED, json!({ "kty": "okp" })), "`kty`"),
        (changed(&ED, json!({ "kty": null })), "`kty`"),
        (changed(&ED, json!({ "use": "enc" })), "`use`"),
        (changed(&ED, json!({ "key_ops": ["sign"] })), "key_ops"),
        (changed(&ED, json!({ "key_ops": "verify" })), "key_ops"),
        (changed(&EC, json!({ "crv": "P-384" })), "crv"),
        (changed(&EC, json!({ "crv": "secp256k1" })), "crv"),
        (changed(&EC, json!({ "y": point["x"] })), "point"),
        (changed(&EC, json!({ "x": encode([7; 31]) })), "32 octets"),
        (changed(&EC, json!({ "x": encode([0; 32]), "y": encode([0; 32]) })), "point"),
        (changed(&RSA, json!({ "alg": "PS256" })), "`alg`"),
        (changed(&RSA, json!({ "alg": "HS256" })), "`alg`"),
        (changed(&RSA, json!({ "n": encode([0xff; 128]) })), "2048"),
        (changed(&RSA, json!({ "n": encode([&[0x7f][..], &[0xff; 255]].concat()) })), "2048"),
        (changed(&RSA, json!({ "n": encode([0xff; 1025]) })), "8192"),
        (changed(&RSA, json!({ "n": encode([&[0][..], &[0xff; 256]].concat()) })), "zero"),
        (changed(&RSA, json!({ "n": "" })), "2048"),
        (changed(&RSA, json!({ "e": "AQ" })), "65537"),
        (changed(&RSA, json!({ "e": "Aw" })), "65537"),
        (changed(&RSA, json!({ "e": "AQAC" })), "65537"),
        (changed(&RSA, json!({ "e": "" })), "65537"),
    ] {
        let KeySetError::NoKey(why) = set_of(std::slice::from_ref(&key)).unwrap_err() else { panic!("{key}") };
        assert!(why.contains("key 1 is ignored") && why.contains(says), "{key}: {why}");
        let other = SigningKey::generate(Algorithm::EdDsa).unwrap();
        let beside = set_of(&[key, other.jwk()]).unwrap();
        assert_eq!((beside.len(), beside.ignored()), (1, why));
    }
    assert!(set_of(&[changed(&ED, json!({ "alg": null, "use": null, "key_ops": ["verify"] }))]).is_ok());
    assert!(set_of(&[changed(&ED, json!({ "alg": "Ed25519" }))]).is_ok());
}

#[test]
fn what_is_no_key_set_is_refused() {
    for text in [
        "",
        "{}",
        "[]",
        "null",
        "{\"keys\":{}}",
        "{\"keys\":[1]}",
        "{\"keys\":[]}",
        "{\"keys\":[",
        "\u{feff}{}",
        "-----BEGIN",
    ] {
        let error = KeySet::parse(text.as_bytes()).unwrap_err();
        assert!(matches!(error, KeySetError::Malformed(_) | KeySetError::NoKey(_)), "{text}: {error:?}");
    }
    assert_eq!(KeySet::parse(&vec![b' '; MAX_KEY_SET + 1]), Err(KeySetError::TooLong));
    assert_eq!(set_of(&vec![json!({}); 65]), Err(KeySetError::TooMany(65)));
    assert_eq!(keys().ignored(), "");
}

#[test]
fn a_private_key_survives_its_file() {
    for key in all() {
        let read = SigningKey::from_pem(key.to_pem().unwrap().as_bytes()).unwrap();
        assert_eq!((read.kid(), read.algorithm(), read.jwk()), (key.kid(), key.algorithm(), key.jwk()));
        assert!(!format!("{key:?}").contains("PRIVATE") && format!("{key:?}").contains(key.kid()));
    }
    for text in ["", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "-----BEGIN CERTIFICATE-----"] {
        assert_eq!(SigningKey::from_pem(text.as_bytes()).unwrap_err(), SigningError::NoKey);
    }
}

/// RFC 8037 appendix A: key, thumbprint (A.3), and the signature over a payload that is no JWT (A.4).
#[test]
fn the_example_of_rfc_8037() {
    let pkcs8 =
        [&hex("302e020100300506032b657004220420")[..], &decode("nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A").unwrap()]
            .concat();
    let body = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, pkcs8);
    let pem = format!("-----BEGIN PRIVATE KEY-----\n{body}\n-----END PRIVATE KEY-----\n");
    let key = SigningKey::from_pem(pem.as_bytes()).unwrap();
    assert_eq!(key.jwk()["x"], "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo");
    assert_eq!(key.kid(), "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
    let signed = key.sign_parts(r#"{"alg":"EdDSA"}"#, "Example of Ed25519 signing").unwrap();
    assert_eq!(
        signed,
        "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc.hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg"
    );
}

fn hex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

/// `serde_json::Value` would parse such a text anew, with a depth of its own: by that a token of 8 KiB nests a thousand levels.
#[test]
fn a_text_that_pretends_to_be_raw_json_is_not_parsed() {
    let pretender = json!({ "$serde_json::private::RawValue": "not JSON [" });
    let claims = json!({ "sub": "ann", "role": "player", "tables": [], "exp": NOW + 60, "more": pretender });
    let token = ED.sign_parts(&json!({ "alg": "EdDSA", "kid": ED.kid() }).to_string(), &claims.to_string()).unwrap();
    assert!(verify(&token, &keys(), &Policy::default(), Duration::from_secs(NOW)).is_ok());
}

/// A JSON value of some depth, with the names and values that matter in it.
fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[ -~]{0,12}".prop_map(Value::from),
        prop_oneof![Just("*"), Just("player"), Just("EdDSA"), Just("none"), Just("sig")].prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("[a-z]{1,3}", inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn no_text_is_a_token(text in "\\PC{0,60}|([A-Za-z0-9_-]{0,40}\\.){2}[A-Za-z0-9_-]{0,40}") {
        prop_assert!(judged(&text).is_err());
    }

    #[test]
    fn any_claims_are_read_or_refused(name in "sub|role|tables|jurisdiction|exp|nbf|iat|aud|iss|more", value in value()) {
        match claimed(json!({ name.as_str(): value })) {
            Ok(claims) => prop_assert!(claims.expires >= Duration::from_secs(NOW - LEEWAY)),
            Err(error) => prop_assert!(!matches!(error, TokenError::Signature | TokenError::Malformed(_)), "{error:?}"),
        }
    }

    #[test]
    fn any_header_is_read_or_refused(name in "alg|kid|crit|typ|jwk|cty", value in value()) {
        let mut header = header(&ED);
        header[name.as_str()] = value;
        let _ = headed(&ED, &header.to_string());
    }

    #[test]
    fn a_changed_octet_is_noticed(at: prop::sample::Index, bit in 0..8u8, key in 0..3usize) {
        let key = all()[key];
        let token = key.sign_parts(&header(key).to_string(), &good().to_string()).unwrap();
        let mut octets = token.into_bytes();
        let at = at.index(octets.len());
        octets[at] ^= 1 << bit;
        let changed = String::from_utf8_lossy(&octets).into_owned();
        prop_assert!(judged(&changed).is_err(), "{changed}");
    }

    #[test]
    fn any_key_is_read_or_refused(name in "kty|crv|x|y|n|e|d|k|kid|alg|use|key_ops", value in value(), key in 0..3usize) {
        let jwk = changed(all()[key], json!({ name.as_str(): value }));
        if let Ok(keys) = set_of(&[jwk]) {
            prop_assert_eq!(keys.len(), 1);
        }
    }

    #[test]
    fn any_octets_are_a_set_or_an_error(octets: Vec<u8>, text in "\\{\"keys\":\\[[ -~]{0,60}\\]\\}") {
        prop_assert!(KeySet::parse(&octets).is_err() && KeySet::parse(text.as_bytes()).is_err());
    }

    #[test]
    fn what_is_signed_is_read(sub in "[!-~]{1,128}", names in prop::collection::vec("[a-z*-]{1,9}", 0..5), jurisdiction in "[A-Z-]{2,6}", age in 0..29u64) {
        let subject = Subject::new(&sub).unwrap();
        let new = NewToken {
            subject: &subject, role: Role::Player, tables: &names, jurisdiction: Some(&jurisdiction), issuer: Some("i"),
            audience: None, issued: Duration::from_secs(NOW - age), lifetime: Duration::from_secs(1),
        };
        let claims = judged(&ED.sign(&new).unwrap()).unwrap();
        prop_assert_eq!(claims.subject.as_str(), sub);
        prop_assert_eq!(claims.tables, Tables::of(&names));
        prop_assert_eq!(claims.jurisdiction.as_deref(), Some(jurisdiction.as_str()));
    }
}
