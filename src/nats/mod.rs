//! Connections to NATS servers: TLS, and how the node logs in.
//!
//! Enters: what a section of the configuration says of its servers. Leaves: a client's options, so that whoever connects by them
//! does so as the section says, and no other way.
//! Refuses to know: what is said over a connection, and what becomes of it.

use async_nats::{Auth, AuthError, ConnectOptions};

use crate::config::{NatsAccess, NatsLogin, NatsServer};
use crate::outbound::tls::{ServiceTls, TlsError};

/// What connections over TLS are made with; `None` where they are not.
///
/// # Errors
/// A file cannot be used.
pub fn tls(access: &NatsAccess) -> Result<Option<ServiceTls>, TlsError> {
    access.is_tls().then(|| ServiceTls::new(&access.tls, access.tls_section)).transpose()
}

/// The servers, as the client takes them.
pub fn addresses(access: &NatsAccess) -> Vec<&str> {
    access.servers.iter().map(NatsServer::as_str).collect()
}

/// A client's options, with `tls` of [`tls`].
pub fn options(access: &NatsAccess, tls: Option<&ServiceTls>) -> ConnectOptions {
    let login = access.clone();
    let options = if access.login().is_ok_and(|login| login == NatsLogin::None) {
        ConnectOptions::new()
    } else {
        ConnectOptions::with_auth_callback(move |nonce| {
            let login = login.clone();
            async move { log_in(login, nonce).await.map_err(AuthError::new) }
        })
    };
    let options = options.name("tableside").connection_timeout(access.connect_timeout);
    match tls {
        // Before TLS begins the server names others of its cluster, and whoever is between may do so in its place: the
        // client would believe addresses without TLS, `ws://` even where TLS is required.
        Some(tls) => options.tls_client_config(tls.config.clone()).require_tls(true).ignore_discovered_servers(),
        None => options,
    }
}

/// What a server is told, read anew for each connection.
async fn log_in(access: NatsAccess, nonce: Vec<u8>) -> Result<Auth, String> {
    let read = move || access.login().map_err(|(key, message)| format!("{key}: {message}"));
    // A file may lie on a network: not on a thread of the runtime.
    let login = tokio::task::spawn_blocking(read).await.map_err(|error| error.to_string())??;
    let mut auth = Auth::new();
    match login {
        NatsLogin::None => {}
        NatsLogin::Password { username, password } => (auth.username, auth.password) = (Some(username), Some(password)),
        NatsLogin::Token(token) => auth.token = Some(token),
        NatsLogin::Credentials { jwt, seed } => {
            let key = nkeys::KeyPair::from_seed(&seed).map_err(|error| error.to_string())?;
            let signature = key.sign(&nonce).map_err(|error| error.to_string())?;
            (auth.jwt, auth.signature) = (Some(jwt), Some(signature));
        }
    }
    Ok(auth)
}
