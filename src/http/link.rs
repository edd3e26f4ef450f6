//! ICE servers for clients, in Link headers (RFC 9725 §4.6).

use axum::http::HeaderValue;
use axum::http::header::{HeaderMap, LINK};

use crate::config::IceServer;

/// Adds one header field for each server to a 201. Not to answers to OPTIONS: RFC 9725 §4.6 has them not sent on
/// preflights, and credentials are for who was admitted.
pub(super) fn add(headers: &mut HeaderMap, servers: &[IceServer]) {
    for server in servers {
        // The configuration has checked that every part is of visible ASCII.
        if let Ok(mut value) = HeaderValue::try_from(value(server)) {
            value.set_sensitive(true);
            headers.append(LINK, value);
        }
    }
}

/// RFC 8288 §3. The configuration keeps quotes, backslashes and commas out of all parts.
fn value(server: &IceServer) -> String {
    let url = server.url();
    match server.login() {
        Some((username, credential)) => {
            format!("<{url}>; rel=\"ice-server\"; username=\"{username}\"; credential=\"{credential}\"")
        }
        None => format!("<{url}>; rel=\"ice-server\""),
    }
}
