//! Verification: JWS compact serialisation (RFC 7515 §7.1) with claims in it.

use std::time::Duration;

use super::claims::{Claims, numeric_date};
use super::key::Algorithm;
use super::key_set::KeySet;
use super::object::{Member, Object, decode};

/// Bytes of the longest token that is read. Ours have some 300.
pub const MAX_TOKEN: usize = 8 * 1024;

/// What a token is held to, beside its signature.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// How far the issuer's clock and ours may be apart, both ways.
    pub leeway: Duration,
    /// `iss` has to be this; `None` for any.
    pub issuer: Option<String>,
    /// `aud` has to name this; `None` for tokens without `aud`.
    pub audience: Option<String>,
}

/// Why a text is no token to go by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// It is longer than [`MAX_TOKEN`].
    #[error("it is longer than {MAX_TOKEN} bytes")]
    TooLong,
    /// It is no JWT; says at which part.
    #[error("it is not a JWT: {0}")]
    Malformed(&'static str),
    /// `alg` is none that we take.
    #[error("its `alg` is none of EdDSA, ES256 and RS256")]
    Algorithm,
    /// An extension that has to be understood, and is not.
    #[error("its header has `crit`, and no extension is understood here")]
    Critical,
    /// `typ` says that it is for something else than access.
    #[error("its `typ` is that of another kind of token")]
    Type,
    /// A claim is missing or of the wrong form; says which.
    #[error("{0}")]
    Claim(&'static str),
    /// `iss` is another.
    #[error("its `iss` is not the issuer that is trusted here")]
    Issuer,
    /// `aud` is another, or missing, or there although none is expected.
    #[error("its `aud` is not the audience that is configured here (auth.audience)")]
    Audience,
    /// `exp` has passed.
    #[error("its `exp` has passed")]
    Expired,
    /// `nbf` or `iat` is in the future.
    #[error("its `nbf` or `iat` is in the future")]
    NotYetValid,
    /// No key has its `kid`, or without one its `alg`.
    #[error("no key of the issuer fits its `kid` and `alg`")]
    UnknownKey,
    /// It has no `kid` and more than one key could be meant.
    #[error("it has no `kid`, and there are several keys for its `alg`")]
    AmbiguousKey,
    /// The key with its `kid` is for another algorithm.
    #[error("the key with its `kid` is for another `alg`")]
    OtherAlgorithm,
    /// It was not signed with the key, or was changed since.
    #[error("its signature does not match")]
    Signature,
}

/// The claims of `token`, if one of `keys` has signed it and it is good at `now`, the time since the Unix epoch.
///
/// What costs nothing is looked at first, so that only a token with claims that could be used and the name of a key that there is
/// makes us verify a signature; nothing of it is believed before that.
///
/// # Errors
/// See [`TokenError`].
pub fn verify(token: &str, keys: &KeySet, policy: &Policy, now: Duration) -> Result<Claims, TokenError> {
    if token.len() > MAX_TOKEN {
        return Err(TokenError::TooLong);
    }
    let parts = Parts::split(token)?;
    let header = Header::read(parts.header)?;
    let claims = object(parts.payload, "its second part is not the base64url of a JSON object without double names")?;
    let read = Claims::read(&claims)?;
    check_times(&claims, &read, policy, now)?;
    check_names(&claims, policy)?;
    let key = keys.find(header.kid.as_deref(), header.algorithm)?;
    let signature = decode(parts.signature).ok_or(TokenError::Malformed("its third part is not base64url"))?;
    if key.verifies(parts.signed.as_bytes(), &signature) { Ok(read) } else { Err(TokenError::Signature) }
}

/// The parts of the compact serialisation, all as they came.
struct Parts<'a> {
    header: &'a str,
    payload: &'a str,
    signature: &'a str,
    /// Header, point, payload.
    signed: &'a str,
}

impl<'a> Parts<'a> {
    fn split(token: &'a str) -> Result<Self, TokenError> {
        let not_three = TokenError::Malformed("it does not have three parts with points between them");
        let (signed, signature) = token.rsplit_once('.').ok_or(not_three)?;
        let (header, payload) = signed.split_once('.').ok_or(not_three)?;
        // Five parts are an encrypted token (RFC 7516 §7.1).
        if payload.contains('.') { Err(not_three) } else { Ok(Self { header, payload, signature, signed }) }
    }
}

/// What of the JOSE header counts. `jwk`, `jku`, `x5c` and `x5u`, which bring a key along, do not.
struct Header {
    algorithm: Algorithm,
    kid: Option<String>,
}

impl Header {
    fn read(text: &str) -> Result<Self, TokenError> {
        let header = object(text, "its first part is not the base64url of a JSON object without double names")?;
        let algorithm = header.text("alg").and_then(Algorithm::named).ok_or(TokenError::Algorithm)?;
        // RFC 7515 §4.1.11: "If any of the listed extension Header Parameters are not understood and supported by the recipient,
        // then the JWS is invalid"; the list must not be empty, and none is understood here.
        if header.get("crit").is_some() {
            return Err(TokenError::Critical);
        }
        // RFC 8725 §3.11: a token of the same issuer that is for something else says so here, if it says anything.
        if header.get("typ").is_some_and(|typ| !typ.text().is_some_and(is_access_token)) {
            return Err(TokenError::Type);
        }
        let kid = match header.get("kid") {
            None => None,
            Some(Member::Text(kid)) => Some(kid.clone()),
            Some(_) => return Err(TokenError::Malformed("its `kid` is not a string")),
        };
        Ok(Self { algorithm, kid })
    }
}

/// RFC 7519 §5.1, RFC 9068 §2.1; media types are not case-sensitive, and "application/" may be left out (RFC 7515 §4.1.9).
fn is_access_token(typ: &str) -> bool {
    let typ = typ.to_ascii_lowercase();
    matches!(typ.strip_prefix("application/").unwrap_or(&typ), "jwt" | "at+jwt")
}

fn object(text: &str, complaint: &'static str) -> Result<Object, TokenError> {
    let bytes = decode(text).ok_or(TokenError::Malformed(complaint))?;
    serde_json::from_slice(&bytes).map_err(|_| TokenError::Malformed(complaint))
}

fn check_times(claims: &Object, read: &Claims, policy: &Policy, now: Duration) -> Result<(), TokenError> {
    // RFC 7519 §4.1.4: "the current date/time MUST be before the expiration date/time listed in the "exp" claim. Implementers
    // MAY provide for some small leeway".
    if now >= read.expires + policy.leeway {
        return Err(TokenError::Expired);
    }
    // §4.1.5: "the current date/time MUST be after or equal to the not-before date/time".
    for name in ["nbf", "iat"] {
        if numeric_date(claims, name)?.is_some_and(|from| now + policy.leeway < from) {
            return Err(TokenError::NotYetValid);
        }
    }
    Ok(())
}

fn check_names(claims: &Object, policy: &Policy) -> Result<(), TokenError> {
    if policy.issuer.as_deref().is_some_and(|issuer| claims.text("iss") != Some(issuer)) {
        return Err(TokenError::Issuer);
    }
    // RFC 7519 §4.1.3: "If the principal processing the claim does not identify itself with a value in the "aud" claim when this
    // claim is present, then the JWT MUST be rejected."
    let named = match (claims.get("aud"), policy.audience.as_deref()) {
        (None, None) => true,
        (Some(Member::Text(aud)), Some(audience)) => aud == audience,
        (Some(all), Some(audience)) => all.lists(audience),
        _ => false,
    };
    if named { Ok(()) } else { Err(TokenError::Audience) }
}
