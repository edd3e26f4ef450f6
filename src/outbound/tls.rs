//! TLS towards services that know the node: whose certificates are believed, and by which the node is known.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustls::client::ResolvesClientCert;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::CertificateDer;
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, RootCertStore, SignatureScheme};

use crate::config::{Certificate, CertificateError, CertificateText, ClientTls, TlsFiles};

/// How often the files are looked at. Whoever replaces them has hours before the old ones expire.
const CHECK: Duration = Duration::from_secs(5);

/// What connections are made with: TLS 1.2 and 1.3.
#[derive(Clone, Debug)]
pub struct ServiceTls {
    /// For the connections.
    pub config: ClientConfig,
    identity: Option<Arc<Identity>>,
}

/// Something of a section for TLS cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {message}")]
pub struct TlsError {
    /// Which key of the configuration.
    pub key: String,
    /// What is wrong with it.
    pub message: String,
}

impl TlsError {
    fn new(section: &str, key: &str, message: String) -> Self {
        Self { key: format!("{section}.{key}"), message }
    }
}

impl ServiceTls {
    /// Of a section of the configuration, which has been checked; the files may have changed since.
    ///
    /// # Errors
    /// A file cannot be used, or there is no authority at all.
    pub fn new(tls: &ClientTls, section: &'static str) -> Result<Self, TlsError> {
        let roots = roots(tls, section)?;
        let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("the provider knows TLS 1.2 and 1.3")
            .with_root_certificates(roots);
        let Some(files) = tls.identity() else {
            return Ok(Self { config: config.with_no_client_auth(), identity: None });
        };
        let identity = Arc::new(Identity::load(files, section)?);
        let config = config.with_client_cert_resolver(identity.clone());
        Ok(Self { config, identity: Some(identity) })
    }

    /// Reads the node's certificate again whenever its files change, for ever. Connections from then on have the new one.
    pub async fn keep_fresh(self) {
        let Some(identity) = self.identity else { return std::future::pending().await };
        loop {
            tokio::time::sleep(CHECK).await;
            let identity = Arc::clone(&identity);
            // A file may lie on a network: not on a thread of the runtime.
            let _ = tokio::task::spawn_blocking(move || identity.reload()).await;
        }
    }
}

fn roots(tls: &ClientTls, section: &str) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    let wrong = |message| TlsError::new(section, "ca_file", message);
    match tls.authorities().map_err(wrong)? {
        Some(authorities) => {
            for authority in authorities {
                roots.add(authority).map_err(|error| wrong(format!("an authority in it cannot be used: {error}")))?;
            }
        }
        None => {
            let system: Vec<CertificateDer<'static>> = rustls_native_certs::load_native_certs().certs;
            roots.add_parsable_certificates(system);
            if roots.is_empty() {
                let message = "is not set, and this system has no authorities of its own (install ca-certificates)";
                return Err(wrong(message.to_owned()));
            }
        }
    }
    Ok(roots)
}

/// The node's own certificate: read from files, and again when these change.
struct Identity {
    /// What the keys of the files begin with.
    section: &'static str,
    files: TlsFiles,
    state: Mutex<State>,
}

struct State {
    certified: Arc<CertifiedKey>,
    /// What was read last, whether it could be used or not: so each mistake is told once.
    read: Result<CertificateText, CertificateError>,
}

impl Identity {
    fn load(files: TlsFiles, section: &'static str) -> Result<Self, TlsError> {
        let wrong = |error: CertificateError| {
            let key = if error.key.ends_with("key") { "key" } else { "certificate" };
            TlsError::new(section, key, error.message)
        };
        let text = CertificateText::read(&files).map_err(wrong)?;
        let certificate = Certificate::parse(&files, &text).map_err(wrong)?;
        let state = State { certified: certificate.certified, read: Ok(text) };
        Ok(Self { section, files, state: Mutex::new(state) })
    }

    /// What is new and cannot be used leaves the old certificate in place.
    fn reload(&self) {
        let read = CertificateText::read(&self.files);
        if self.state().read == read {
            return;
        }
        // Two files cannot be read at one moment: while they are being replaced they are let be.
        if CertificateText::read(&self.files) != read {
            return;
        }
        let certificate = read.as_ref().map_err(Clone::clone).and_then(|text| Certificate::parse(&self.files, text));
        let mut state = self.state();
        state.read = read;
        match certificate {
            Ok(certificate) => {
                state.certified = certificate.certified;
                let file = self.files.certificate.display();
                tracing::info!(of = self.section, %file, "new connections show a new certificate");
            }
            Err(CertificateError { message, .. }) => {
                tracing::error!(of = self.section, message, "the new certificate cannot be used; the old one stays");
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Whole after every assignment.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Identity {
    /// Without the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Identity").field(&self.files).finish()
    }
}

impl ResolvesClientCert for Identity {
    fn resolve(&self, _authorities: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.state().certified))
    }

    fn has_certs(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;

    use super::*;

    fn write(directory: &std::path::Path, name: &str, text: &str) -> PathBuf {
        let path = directory.join(name);
        fs::write(&path, text).unwrap();
        path
    }

    #[test]
    fn a_new_certificate_takes_the_place_of_the_old_and_a_broken_one_does_not() {
        let directory = std::env::temp_dir().join(format!("tableside-service-tls-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let make = || rcgen::generate_simple_self_signed(["node.example".to_owned()]).unwrap();
        let (first, second) = (make(), make());
        let files = TlsFiles {
            certificate: write(&directory, "tls.crt", &first.cert.pem()),
            key: write(&directory, "tls.key", &first.signing_key.serialize_pem()),
        };
        let identity = Identity::load(files, "bet_service.tls").unwrap();
        let shown = || identity.resolve(&[], &[]).unwrap().cert[0].clone();
        assert_eq!(shown(), *first.cert.der());
        write(&directory, "tls.crt", &second.cert.pem());
        identity.reload();
        assert_eq!(shown(), *first.cert.der(), "the key is not that of the new certificate");
        write(&directory, "tls.key", &second.signing_key.serialize_pem());
        identity.reload();
        assert_eq!(shown(), *second.cert.der());
        fs::remove_dir_all(directory).unwrap();
    }
}
