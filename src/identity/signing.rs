//! Keys and tokens of our own, for development and tests.

use std::fmt;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::error::{KeyRejected, Unspecified};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256, RsaPublicKeyComponents,
};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::pki_types::pem::PemObject;
use serde_json::{Map, Value, json};

use super::claims::{Role, Subject};
use super::key::Algorithm;
use super::object::encode;

/// Why there is no key or no signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SigningError {
    /// The text is no private key that we can use.
    #[error(
        "it holds no private key in PKCS#8 PEM (`-----BEGIN PRIVATE KEY-----`) of Ed25519, P-256 or RSA with 2048 bits or more; \
         `openssl pkcs8 -topk8 -nocrypt` converts others"
    )]
    NoKey,
    /// The cryptographic library failed, for want of random numbers or memory.
    #[error("the cryptographic library failed")]
    Failed,
}

impl From<Unspecified> for SigningError {
    fn from(_: Unspecified) -> Self {
        SigningError::Failed
    }
}

/// A private key. Its `kid` is the thumbprint of the public half (RFC 7638).
pub struct SigningKey {
    pair: Pair,
    /// Members of the public JWK in lexicographic order, as the thumbprint takes them.
    members: String,
    kid: String,
}

enum Pair {
    Ed25519(Ed25519KeyPair),
    P256(EcdsaKeyPair),
    Rsa(RsaKeyPair),
}

/// The claims of a new token.
#[derive(Clone, Debug)]
pub struct NewToken<'a> {
    /// `sub`
    pub subject: &'a Subject,
    /// `role`
    pub role: Role,
    /// `tables`; `*` for all.
    pub tables: &'a [String],
    /// `jurisdiction`
    pub jurisdiction: Option<&'a str>,
    /// `iss`
    pub issuer: Option<&'a str>,
    /// `aud`
    pub audience: Option<&'a str>,
    /// `iat`, since the Unix epoch.
    pub issued: Duration,
    /// From there to `exp`.
    pub lifetime: Duration,
}

impl SigningKey {
    /// Makes a new key.
    ///
    /// # Errors
    /// There are no random numbers.
    pub fn generate(algorithm: Algorithm) -> Result<Self, SigningError> {
        let pair = match algorithm {
            Algorithm::EdDsa => Pair::Ed25519(Ed25519KeyPair::generate()?),
            Algorithm::Es256 => Pair::P256(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING)?),
            Algorithm::Rs256 => Pair::Rsa(RsaKeyPair::generate(KeySize::Rsa2048)?),
        };
        Ok(Self::of(pair))
    }

    /// Reads a PKCS#8 key in PEM (RFC 5958, RFC 7468 §10).
    ///
    /// # Errors
    /// [`SigningError::NoKey`]
    pub fn from_pem(text: &[u8]) -> Result<Self, SigningError> {
        let der = PrivatePkcs8KeyDer::from_pem_slice(text).map_err(|_| SigningError::NoKey)?;
        let der = der.secret_pkcs8_der();
        let ed25519 = || Ed25519KeyPair::from_pkcs8(der).map(Pair::Ed25519);
        let p256 = || EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der).map(Pair::P256);
        let rsa = || RsaKeyPair::from_pkcs8(der).map(Pair::Rsa);
        let pair = ed25519().or_else(|_: KeyRejected| p256()).or_else(|_| rsa()).map_err(|_| SigningError::NoKey)?;
        Ok(Self::of(pair))
    }

    fn of(pair: Pair) -> Self {
        let members = match &pair {
            Pair::Ed25519(pair) => {
                format!(r#""crv":"Ed25519","kty":"OKP","x":"{}""#, encode(pair.public_key()))
            }
            Pair::P256(pair) => {
                // SEC 1 §2.3.3: 4, X, Y.
                let (x, y) = pair.public_key().as_ref()[1..].split_at(32);
                format!(r#""crv":"P-256","kty":"EC","x":"{}","y":"{}""#, encode(x), encode(y))
            }
            Pair::Rsa(pair) => {
                let RsaPublicKeyComponents::<Vec<u8>> { n, e } = pair.public_key().into();
                format!(r#""e":"{}","kty":"RSA","n":"{}""#, encode(e), encode(n))
            }
        };
        let kid = encode(digest(&SHA256, format!("{{{members}}}").as_bytes()));
        Self { pair, members, kid }
    }

    /// What it signs with.
    pub const fn algorithm(&self) -> Algorithm {
        match self.pair {
            Pair::Ed25519(_) => Algorithm::EdDsa,
            Pair::P256(_) => Algorithm::Es256,
            Pair::Rsa(_) => Algorithm::Rs256,
        }
    }

    /// The name of the key in tokens and key sets.
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// The private key in PKCS#8 PEM.
    ///
    /// # Errors
    /// [`SigningError::Failed`]
    pub fn to_pem(&self) -> Result<String, SigningError> {
        let der = match &self.pair {
            Pair::Ed25519(pair) => pair.to_pkcs8v1()?.as_ref().to_vec(),
            Pair::P256(pair) => pair.to_pkcs8v1()?.as_ref().to_vec(),
            Pair::Rsa(pair) => AsDer::<Pkcs8V1Der<'_>>::as_der(pair)?.as_ref().to_vec(),
        };
        let body = STANDARD.encode(der);
        let lines: Vec<&str> = (0..body.len()).step_by(64).map(|at| &body[at..body.len().min(at + 64)]).collect();
        Ok(format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", lines.join("\n")))
    }

    /// The public half as a JSON Web Key (RFC 7517).
    pub fn jwk(&self) -> Value {
        let text =
            format!(r#"{{{},"alg":"{}","kid":"{}","use":"sig"}}"#, self.members, self.algorithm().as_str(), self.kid);
        serde_json::from_str(&text).unwrap_or_default()
    }

    /// Signs a token.
    ///
    /// # Errors
    /// [`SigningError::Failed`]
    pub fn sign(&self, token: &NewToken<'_>) -> Result<String, SigningError> {
        let mut claims = Map::new();
        let named = [("iss", token.issuer), ("aud", token.audience), ("jurisdiction", token.jurisdiction)];
        claims.extend(named.into_iter().filter_map(|(name, value)| Some((name.to_owned(), json!(value?)))));
        claims.insert("sub".to_owned(), json!(token.subject.as_str()));
        claims.insert("role".to_owned(), json!(token.role.as_str()));
        claims.insert("tables".to_owned(), json!(token.tables));
        claims.insert("iat".to_owned(), json!(token.issued.as_secs()));
        claims.insert("exp".to_owned(), json!((token.issued + token.lifetime).as_secs()));
        let header = json!({ "alg": self.algorithm().as_str(), "kid": self.kid, "typ": "JWT" });
        self.sign_parts(&header.to_string(), &Value::Object(claims).to_string())
    }

    /// Signs whatever it is given as header and payload: what tests need.
    ///
    /// # Errors
    /// [`SigningError::Failed`]
    pub fn sign_parts(&self, header: &str, payload: &str) -> Result<String, SigningError> {
        let signed = format!("{}.{}", encode(header), encode(payload));
        let signature = match &self.pair {
            Pair::Ed25519(pair) => pair.try_sign(signed.as_bytes())?.as_ref().to_vec(),
            Pair::P256(pair) => pair.sign(&SystemRandom::new(), signed.as_bytes())?.as_ref().to_vec(),
            Pair::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), signed.as_bytes(), &mut signature)?;
                signature
            }
        };
        Ok(format!("{signed}.{}", encode(signature)))
    }
}

impl fmt::Debug for SigningKey {
    /// Without the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey").field("kid", &self.kid).finish_non_exhaustive()
    }
}
