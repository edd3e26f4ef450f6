//! One public key of a key set, which knows what it is for.

use std::fmt;

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ED25519, ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents,
};

use super::object::{Member, Object, decode};

/// The signatures that are taken (RFC 7518 §3.1, RFC 8037 §3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// EdDSA with Ed25519. RFC 9864 calls it `Ed25519`; both names are taken.
    EdDsa,
    /// ECDSA with P-256 and SHA-256; 64 octets, R and S (RFC 7518 §3.4), not DER.
    Es256,
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    Rs256,
}

impl Algorithm {
    /// As it is written in `alg`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Algorithm::EdDsa => "EdDSA",
            Algorithm::Es256 => "ES256",
            Algorithm::Rs256 => "RS256",
        }
    }

    /// `None` for all others, `none` and HMAC among them. Names are case-sensitive (RFC 7515 §4.1.1).
    pub(super) fn named(name: &str) -> Option<Self> {
        match name {
            "EdDSA" | "Ed25519" => Some(Algorithm::EdDsa),
            "ES256" => Some(Algorithm::Es256),
            "RS256" => Some(Algorithm::Rs256),
            _ => None,
        }
    }
}

/// RFC 7518 §3.3: "A key of size 2048 bits or larger MUST be used".
const LEAST_RSA_BITS: usize = 2048;

/// Larger ones cost more than they are worth.
const MOST_RSA_BITS: usize = 8192;

/// A public key and what may be verified with it.
///
/// RFC 8725 §3.1: "each key MUST be used with exactly one algorithm, and this MUST be checked when the cryptographic operation is
/// performed".
#[derive(Clone)]
pub(super) struct Key {
    pub(super) kid: Option<Box<str>>,
    pub(super) algorithm: Algorithm,
    public: ParsedPublicKey,
}

/// What a member of a key set is.
pub(super) enum Read {
    Usable(Key),
    /// It is for something else, or malformed. RFC 7517 §5: "Implementations SHOULD ignore JWKs within a JWK Set that use "kty"
    /// (key type) values that are not understood by them, that are missing required members, or for which values are out of the supported
    /// ranges".
    Ignored(&'static str),
    /// It must not be there at all: whoever has read it can sign tokens.
    Secret,
}

impl Key {
    pub(super) fn read(jwk: &Object) -> Read {
        // RFC 7518 §6.4 and the private members of §6.2.2, §6.3.2 and RFC 8037 §2.
        if jwk.text("kty") == Some("oct")
            || ["d", "k", "p", "q", "dp", "dq", "qi", "oth"].iter().any(|m| jwk.get(m).is_some())
        {
            return Read::Secret;
        }
        match Self::public(jwk) {
            Ok(key) => Read::Usable(key),
            Err(reason) => Read::Ignored(reason),
        }
    }

    fn public(jwk: &Object) -> Result<Self, &'static str> {
        let kid = match jwk.get("kid") {
            None => None,
            Some(Member::Text(kid)) => Some(kid.as_str().into()),
            Some(_) => return Err("`kid` is not a string"),
        };
        let (algorithm, public) = match jwk.text("kty").ok_or("`kty` is missing")? {
            "OKP" => (Algorithm::EdDsa, ed25519(jwk)?),
            "EC" => (Algorithm::Es256, p256(jwk)?),
            "RSA" => (Algorithm::Rs256, rsa(jwk)?),
            _ => return Err("`kty` is none of OKP, EC and RSA"),
        };
        is_for_signatures(jwk)?;
        match jwk.get("alg") {
            None => {}
            Some(alg) if alg.text().and_then(Algorithm::named) == Some(algorithm) => {}
            Some(_) => return Err("`alg` is not one that we take for such a key (EdDSA, ES256, RS256)"),
        }
        Ok(Self { kid, algorithm, public })
    }

    pub(super) fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        self.public.verify_sig(message, signature).is_ok()
    }
}

/// RFC 7517 §4.2 and §4.3.
fn is_for_signatures(jwk: &Object) -> Result<(), &'static str> {
    if jwk.get("use").is_some_and(|use_| use_.text() != Some("sig")) {
        return Err("`use` is not \"sig\"");
    }
    match jwk.get("key_ops") {
        Some(operations) if !operations.lists("verify") => Err("`key_ops` lack \"verify\""),
        _ => Ok(()),
    }
}

/// RFC 8037 §2.
fn ed25519(jwk: &Object) -> Result<ParsedPublicKey, &'static str> {
    if jwk.text("crv") != Some("Ed25519") {
        return Err("`crv` is not Ed25519");
    }
    let x = member(jwk, "x")?;
    ParsedPublicKey::new(&ED25519, x).map_err(|_| "`x` is not a public key of Ed25519")
}

/// RFC 7518 §6.2.1.
fn p256(jwk: &Object) -> Result<ParsedPublicKey, &'static str> {
    if jwk.text("crv") != Some("P-256") {
        return Err("`crv` is not P-256");
    }
    let (x, y) = (member(jwk, "x")?, member(jwk, "y")?);
    // §6.2.1.2: "The length of this octet string MUST be the full size of a coordinate for the curve".
    if (x.len(), y.len()) != (32, 32) {
        return Err("`x` or `y` is not 32 octets long");
    }
    let point = [&[4][..], &x, &y].concat();
    ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).map_err(|_| "`x` and `y` are not a point of P-256")
}

/// RFC 7518 §6.3.1.
fn rsa(jwk: &Object) -> Result<ParsedPublicKey, &'static str> {
    let (n, e) = (member(jwk, "n")?, member(jwk, "e")?);
    // §2, Base64urlUInt: "The octet sequence MUST utilize the minimum number of octets needed to represent the value."
    if n.first() == Some(&0) || e.first() == Some(&0) {
        return Err("`n` or `e` begins with a zero");
    }
    let bits = 8 * n.len() - n.first().map_or(0, |first| first.leading_zeros() as usize);
    if !(LEAST_RSA_BITS..=MOST_RSA_BITS).contains(&bits) {
        return Err("an RSA key needs 2048 to 8192 bits");
    }
    // FIPS 186-5 §5.4: odd and above 2¹⁶. With 1 anybody could sign.
    if e.len() < 3 || e.last().is_none_or(|last| last & 1 == 0) {
        return Err("`e` is not 65537, or a larger odd number");
    }
    let components = RsaPublicKeyComponents { n, e };
    components.to_parsed_public_key(&RSA_PKCS1_2048_8192_SHA256).map_err(|_| "`n` and `e` are not a public key of RSA")
}

fn member(jwk: &Object, name: &'static str) -> Result<Vec<u8>, &'static str> {
    jwk.text(name).and_then(decode).ok_or("a member of the key is missing, or not base64url without padding")
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        (&self.kid, self.algorithm, self.public.as_ref()) == (&other.kid, other.algorithm, other.public.as_ref())
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key").field("kid", &self.kid).field("algorithm", &self.algorithm).finish_non_exhaustive()
    }
}
