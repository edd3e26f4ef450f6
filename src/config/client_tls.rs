//! How the node and a service that it connects to know each other.

use std::fs;
use std::path::PathBuf;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde::{Deserialize, Serialize};

use super::Certificate;
use super::http::TlsFiles;

/// `[bet_service.tls]` and `[audit.jetstream.tls]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ClientTls {
    /// PEM: the authorities that may have signed the service's certificate; those of the system without it.
    pub ca_file: Option<PathBuf>,
    /// PEM: the node's certificate and its chain.
    pub certificate: Option<PathBuf>,
    /// PEM: its private key.
    pub key: Option<PathBuf>,
}

impl ClientTls {
    /// The files of the node's certificate, where it has one.
    pub fn identity(&self) -> Option<TlsFiles> {
        Some(TlsFiles { certificate: self.certificate.clone()?, key: self.key.clone()? })
    }

    /// Whether anything is set.
    pub fn is_set(&self) -> bool {
        *self != Self::default()
    }

    /// The authorities of [`ClientTls::ca_file`]; `None` without one.
    ///
    /// # Errors
    /// The file cannot be read, or holds no certificate.
    pub fn authorities(&self) -> Result<Option<Vec<CertificateDer<'static>>>, String> {
        let Some(file) = &self.ca_file else { return Ok(None) };
        let text = fs::read(file).map_err(|error| format!("cannot read {}: {error}", file.display()))?;
        let read = CertificateDer::pem_slice_iter(&text).collect::<Result<Vec<_>, _>>();
        match read {
            Ok(certificates) if !certificates.is_empty() => Ok(Some(certificates)),
            _ => Err(format!("{} holds no certificate in PEM", file.display())),
        }
    }

    /// All paths.
    pub(super) fn paths(&mut self) -> [&mut Option<PathBuf>; 3] {
        [&mut self.ca_file, &mut self.certificate, &mut self.key]
    }

    /// Whether both files of a certificate are named, or none. `section` is what keys begin with.
    ///
    /// # Errors
    /// The key that is wrong.
    pub(super) fn check(&self, section: &str) -> Result<(), (String, String)> {
        let alone =
            |key: &str, other: &str| Err((format!("{section}.{key}"), format!("is set and {section}.{other} is not")));
        match (&self.certificate, &self.key) {
            (Some(_), None) => alone("certificate", "key"),
            (None, Some(_)) => alone("key", "certificate"),
            _ => Ok(()),
        }
    }

    /// Whether the files can be used.
    ///
    /// # Errors
    /// The first key whose file cannot be.
    pub(super) fn load(&self, section: &str) -> Result<(), (String, String)> {
        self.authorities().map_err(|message| (format!("{section}.ca_file"), message))?;
        let Some(files) = self.identity() else { return Ok(()) };
        Certificate::load(&files).map(drop).map_err(|error| {
            let key = if error.key.ends_with("key") { "key" } else { "certificate" };
            (format!("{section}.{key}"), error.message)
        })
    }
}
