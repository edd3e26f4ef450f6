//! The certificate of the public listener: two PEM files that belong together.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use x509_cert::der::Decode;

use super::http::TlsFiles;

/// PEM is read whole; a chain is some 10 KB.
const MOST_BYTES: u64 = 1 << 20;

/// A certificate chain with its private key: they have been seen to belong together.
#[derive(Clone, Debug)]
pub struct Certificate {
    /// What `rustls` serves.
    pub certified: Arc<CertifiedKey>,
    /// When it expires (RFC 5280 §4.1.2.5, notAfter).
    pub not_after: SystemTime,
}

/// Why there is no certificate.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {message}")]
pub struct CertificateError {
    /// The configuration key that names the file: `http.tls.certificate` or `http.tls.key`.
    pub key: &'static str,
    /// Which file, what is wrong with it and what to do.
    pub message: String,
}

/// The bytes of both files, not yet understood.
#[derive(Clone, PartialEq, Eq)]
pub struct CertificateText {
    chain: Vec<u8>,
    key: Vec<u8>,
}

const CHAIN: &str = "http.tls.certificate";
const KEY: &str = "http.tls.key";

impl CertificateText {
    /// Reads the files.
    ///
    /// # Errors
    /// If one cannot be read, or is far longer than any certificate.
    pub fn read(files: &TlsFiles) -> Result<Self, CertificateError> {
        Ok(Self { chain: read(CHAIN, &files.certificate)?, key: read(KEY, &files.key)? })
    }
}

impl Certificate {
    /// Reads and understands the files.
    ///
    /// # Errors
    /// See [`CertificateText::read`] and [`Certificate::parse`].
    pub fn load(files: &TlsFiles) -> Result<Self, CertificateError> {
        Self::parse(files, &CertificateText::read(files)?)
    }

    /// Understands what was read from `files`, which are named in messages.
    ///
    /// # Errors
    /// If there is no certificate or no key, or if the key is that of another certificate.
    pub fn parse(files: &TlsFiles, text: &CertificateText) -> Result<Self, CertificateError> {
        let wrong = |key, file: &Path, what: String| Err(CertificateError { key, message: named(file, &what) });
        let chain = match CertificateDer::pem_slice_iter(&text.chain).collect::<Result<Vec<_>, _>>() {
            Ok(chain) => chain,
            Err(error) => return wrong(CHAIN, &files.certificate, format!("not PEM: {error}")),
        };
        let Some(leaf) = chain.first() else {
            let what = "holds no `-----BEGIN CERTIFICATE-----`: expected the certificate in PEM, then its chain";
            return wrong(CHAIN, &files.certificate, what.to_owned());
        };
        let not_after = match not_after(leaf) {
            Ok(time) => time,
            Err(error) => return wrong(CHAIN, &files.certificate, format!("the first certificate is broken: {error}")),
        };
        let key = match PrivateKeyDer::from_pem_slice(&text.key) {
            Ok(key) => key,
            Err(error) => return wrong(KEY, &files.key, format!("holds no private key in PEM: {error}")),
        };
        match CertifiedKey::from_der(chain, key, &rustls::crypto::aws_lc_rs::default_provider()) {
            Ok(certified) => Ok(Self { certified: Arc::new(certified), not_after }),
            Err(rustls::Error::InconsistentKeys(_)) => {
                let what = format!("is not the key of the first certificate in {}", files.certificate.display());
                wrong(KEY, &files.key, what)
            }
            Err(error) => wrong(KEY, &files.key, format!("cannot be used: {error}")),
        }
    }
}

/// The authorities in a PEM file: one certificate or more.
///
/// # Errors
/// Which file, what is wrong with it and what to do.
pub fn authorities(file: &Path) -> Result<RootCertStore, String> {
    let text = read("", file).map_err(|error| error.message)?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&text) {
        let certificate = certificate.map_err(|error| named(file, &format!("not PEM: {error}")))?;
        roots.add(certificate).map_err(|error| named(file, &format!("holds a certificate that is none: {error}")))?;
    }
    if roots.is_empty() {
        return Err(named(
            file,
            "holds no `-----BEGIN CERTIFICATE-----`: expected the authorities' certificates in PEM",
        ));
    }
    Ok(roots)
}

fn not_after(leaf: &CertificateDer<'_>) -> Result<SystemTime, x509_cert::der::Error> {
    let parsed = x509_cert::Certificate::from_der(leaf)?;
    let seconds: Duration = parsed.tbs_certificate().validity().not_after.to_unix_duration();
    Ok(SystemTime::UNIX_EPOCH + seconds)
}

fn read(key: &'static str, file: &Path) -> Result<Vec<u8>, CertificateError> {
    let length = fs::metadata(file).map(|data| data.len());
    let content = match length {
        Ok(length) if length > MOST_BYTES => Err(format!("{length} bytes are no certificate or key")),
        Ok(_) => fs::read(file).map_err(|error| format!("cannot be read: {error}")),
        Err(error) => Err(format!("cannot be read: {error}")),
    };
    content.map_err(|what| CertificateError { key, message: named(file, &what) })
}

fn named(file: &Path, what: &str) -> String {
    format!("{} {what}", file.display())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn files() -> TlsFiles {
        TlsFiles { certificate: "tls.crt".into(), key: "tls.key".into() }
    }

    fn made() -> (String, String) {
        let made = rcgen::generate_simple_self_signed(["edge.example.com".to_owned()]).unwrap();
        (made.cert.pem(), made.signing_key.serialize_pem())
    }

    fn parse(chain: &str, key: &str) -> Result<Certificate, CertificateError> {
        let text = CertificateText { chain: chain.as_bytes().to_vec(), key: key.as_bytes().to_vec() };
        Certificate::parse(&files(), &text)
    }

    #[test]
    fn a_pair_that_belongs_together_is_taken() {
        let (chain, key) = made();
        let (other, _) = made();
        let certificate = parse(&format!("{chain}{other}"), &key).unwrap();
        assert_eq!(certificate.certified.cert.len(), 2);
        // What rcgen writes if not told otherwise: the beginning of 4096.
        assert_eq!(certificate.not_after, SystemTime::UNIX_EPOCH + Duration::from_secs(67_090_118_400));
    }

    #[test]
    fn what_is_wrong_is_named_with_its_key_and_file() {
        let ((chain, key), (_, other_key)) = (made(), made());
        let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        for (chain, key, wrong, says) in [
            ("", key.as_str(), CHAIN, "tls.crt holds no `-----BEGIN CERTIFICATE-----`"),
            (broken, &key, CHAIN, "tls.crt the first certificate is broken"),
            (&chain, "", KEY, "tls.key holds no private key in PEM"),
            (&chain, &chain, KEY, "tls.key holds no private key in PEM"),
            (&chain, &other_key, KEY, "tls.key is not the key of the first certificate in tls.crt"),
        ] {
            let error = parse(chain, key).unwrap_err();
            assert_eq!(error.key, wrong, "{error}");
            assert!(error.message.contains(says), "{error}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(50))]

        #[test]
        fn no_bytes_panic(chain: Vec<u8>, key in "(-----BEGIN (PRIVATE KEY|CERTIFICATE)-----\n[A-Za-z0-9+/=\n]{0,80})?.{0,20}") {
            let text = CertificateText { chain, key: key.into_bytes() };
            prop_assert!(Certificate::parse(&files(), &text).is_err());
        }
    }
}
