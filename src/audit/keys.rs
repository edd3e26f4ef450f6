//! Key files: PEM, as OpenSSL reads and writes it.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::SubjectPublicKeyInfoDer;
use rustls::pki_types::pem::PemObject;

use crate::bets::audit::{InvalidKey, KeyId, SigningKey, VerifyingKey};

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file.
    #[error("cannot {what} {path}: {source}")]
    Io {
        /// To do what.
        what: &'static str,
        /// Which.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// Its content.
    #[error("{0} holds no Ed25519 public key in PEM (`tableside audit keygen` writes one beside the private key)")]
    NotPublic(PathBuf),
    /// The library.
    #[error(transparent)]
    Invalid(#[from] InvalidKey),
}

/// Makes a key: writes the private half to `file`, for its owner alone, and the public one beside it as `FILE.pub`.
/// Returns the path of that and the key's name.
///
/// # Errors
/// A file is there already, or cannot be written.
pub fn generate(file: &Path) -> Result<(PathBuf, KeyId), KeyError> {
    let key = SigningKey::generate()?;
    let mut public = file.as_os_str().to_owned();
    public.push(".pub");
    let public = PathBuf::from(public);
    write(file, 0o600, &pem("PRIVATE KEY", &key.to_pkcs8()?))?;
    write(&public, 0o644, &pem("PUBLIC KEY", &key.verifying_key().to_spki()))?;
    Ok((public, key.id()))
}

/// Reads a public key.
///
/// # Errors
/// The file cannot be read, or holds something else.
pub fn read_verifying_key(file: &Path) -> Result<VerifyingKey, KeyError> {
    let read = |source| KeyError::Io { what: "read", path: file.to_owned(), source };
    let text = std::fs::read(file).map_err(read)?;
    let der = SubjectPublicKeyInfoDer::from_pem_slice(&text).map_err(|_| KeyError::NotPublic(file.to_owned()))?;
    VerifyingKey::from_spki(&der).map_err(|_| KeyError::NotPublic(file.to_owned()))
}

fn write(path: &Path, mode: u32, text: &str) -> Result<(), KeyError> {
    let new = OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
    let written = new.and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()));
    written.map_err(|source| KeyError::Io { what: "write", path: path.to_owned(), source })
}

/// RFC 7468; an Ed25519 key fits one line.
fn pem(label: &str, der: &[u8]) -> String {
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", STANDARD.encode(der))
}
