//! The certificate that is served, and its successors.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::sign::SingleCertAndKey;
use tokio::signal::unix::Signal;
use tracing::{error, info};

use crate::config::{Certificate, CertificateError, CertificateText, TlsFiles};
use crate::telemetry::Metrics;

/// ALPN identifiers (RFC 9113 §3.1, RFC 7301 §6).
pub(super) const HTTP2: &[u8] = b"h2";
const HTTP1: &[u8] = b"http/1.1";

/// The certificate of a listener: read from files, and again whenever these change. Cheap to clone.
#[derive(Clone)]
pub struct ServedCertificate {
    inner: Arc<Inner>,
}

struct Inner {
    files: TlsFiles,
    metrics: Arc<Metrics>,
    state: Mutex<State>,
}

struct State {
    config: Arc<ServerConfig>,
    /// What was read last, whether it could be used or not: so each mistake is told once.
    read: Result<CertificateText, CertificateError>,
}

impl ServedCertificate {
    /// Reads the files for the first time.
    ///
    /// # Errors
    /// If they cannot be used.
    pub fn load(files: TlsFiles, metrics: Arc<Metrics>) -> Result<Self, CertificateError> {
        let text = CertificateText::read(&files)?;
        let certificate = Certificate::parse(&files, &text)?;
        metrics.listeners.certificate_served(certificate.not_after);
        let state = Mutex::new(State { config: server_config(&certificate), read: Ok(text) });
        Ok(Self { inner: Arc::new(Inner { files, metrics, state }) })
    }

    /// Reads the files again. What is new in them holds for connections from now on, unless it cannot be used: then the
    /// old certificate stays, and the mistake is logged and counted, once.
    pub fn reload(&self) {
        let read = CertificateText::read(&self.inner.files);
        if self.state().read == read {
            return;
        }
        // Two files cannot be read at one moment: while they are being replaced they are let be.
        if CertificateText::read(&self.inner.files) != read {
            return;
        }
        let certificate =
            read.as_ref().map_err(Clone::clone).and_then(|text| Certificate::parse(&self.inner.files, text));
        let listeners = &self.inner.metrics.listeners;
        listeners.certificate_reloaded(certificate.is_ok());
        let mut state = self.state();
        state.read = read;
        match certificate {
            Ok(certificate) => {
                // A new configuration: sessions under the old certificate are not resumed.
                state.config = server_config(&certificate);
                listeners.certificate_served(certificate.not_after);
                info!(file = %self.inner.files.certificate.display(), "a new certificate is served");
            }
            Err(CertificateError { key, message }) => {
                error!(key, message, "the new certificate cannot be used; the old one stays");
            }
        }
    }

    /// Reloads `every` so often, and at each of `hangups` (SIGHUP). Kubernetes exchanges a Secret's files by changing a
    /// link far up their path, which no watch on the files would see: so their content is compared.
    pub async fn keep_fresh(self, every: Duration, mut hangups: Signal) {
        loop {
            tokio::select! {
                () = tokio::time::sleep(every) => {}
                Some(()) = hangups.recv() => info!("SIGHUP: reading the certificate again"),
            }
            let certificate = self.clone();
            // A file may lie on a network: not on a thread of the runtime.
            let _ = tokio::task::spawn_blocking(move || certificate.reload()).await;
        }
    }

    pub(super) fn server_config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.state().config)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Whole after every assignment.
        self.inner.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for ServedCertificate {
    /// Without the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ServedCertificate").field(&self.inner.files).finish()
    }
}

fn server_config(certificate: &Certificate) -> Arc<ServerConfig> {
    let resolver = SingleCertAndKey::from(Arc::clone(&certificate.certified));
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("the provider knows TLS 1.2 and 1.3")
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(resolver));
    config.alpn_protocols = vec![HTTP2.to_vec(), HTTP1.to_vec()];
    Arc::new(config)
}
