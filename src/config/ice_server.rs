//! STUN and TURN servers that clients are told of.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// `[[http.ice_servers]]`: a STUN or TURN server that WHIP and WHEP clients get with their answer (RFC 9725 §4.6).
///
/// The gateway itself needs none. A TURN server is for clients whose network lets no UDP through.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct IceServer {
    /// `stun:`, `stuns:`, `turn:` or `turns:` (RFC 7064, RFC 7065).
    url: String,
    /// For TURN.
    username: Option<String>,
    /// A file with the password that goes with `username`.
    credential_file: Option<PathBuf>,
    #[serde(skip)]
    credential: Credential,
}

/// A password. Never printed.
#[derive(Clone, Default, PartialEq, Eq)]
struct Credential(String);

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

const SCHEMES: [&str; 4] = ["stun:", "stuns:", "turn:", "turns:"];

impl IceServer {
    /// The URL.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// User name and password, for servers that ask for them.
    pub fn login(&self) -> Option<(&str, &str)> {
        self.username.as_deref().map(|username| (username, self.credential.0.as_str()))
    }

    /// # Errors
    /// What is wrong with the URL, the user name, or how they go together.
    pub(super) fn check(&self) -> Result<(), String> {
        let scheme = SCHEMES.iter().find(|scheme| self.url.starts_with(**scheme));
        let rest = scheme.map_or("", |scheme| &self.url[scheme.len()..]);
        if rest.is_empty() || rest.starts_with('/') || !rest.bytes().all(|b| is_safe(b) && b != b'<' && b != b'>') {
            return Err(format!(
                "{:?} is no server URL; expected one like \"stun:stun.example.com\" or \
                 \"turn:turn.example.com:3478?transport=udp\", without commas",
                self.url
            ));
        }
        if self.username.as_ref().is_some_and(|name| name.is_empty() || !name.bytes().all(is_safe)) {
            return Err(format!("the username of {} {SAFE_RULE}", self.url));
        }
        let is_turn = self.url.starts_with("turn");
        match (is_turn, self.username.is_some(), self.credential_file.is_some()) {
            (true, true, true) | (false, false, false) => Ok(()),
            (true, ..) => Err(format!("{} needs username and credential_file", self.url)),
            (false, ..) => Err(format!("{} asks for no username and credential_file: STUN has none", self.url)),
        }
    }

    /// Reads the password; a relative path starts at `directory`.
    ///
    /// # Errors
    /// The file cannot be read or what is in it cannot be sent. No message repeats anything of a password.
    pub(super) fn load(&mut self, directory: &Path) -> Result<(), String> {
        let Some(file) = &mut self.credential_file else { return Ok(()) };
        *file = directory.join(&*file);
        let text = std::fs::read_to_string(&*file)
            .map_err(|error| format!("cannot read the credential_file {}: {error}", file.display()))?;
        let credential = text.trim();
        if credential.is_empty() || !credential.bytes().all(is_safe) {
            return Err(format!("the password in {} {SAFE_RULE}", file.display()));
        }
        self.credential = Credential(credential.to_owned());
        Ok(())
    }
}

const SAFE_RULE: &str = "must be of visible ASCII without quotes, backslashes and commas: it is sent in a Link header, \
     and encoders in the field split that at each comma";

/// Visible ASCII that stands for itself in a quoted string, and is no comma: OBS splits Link headers at each.
fn is_safe(byte: u8) -> bool {
    byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\' | b',')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turn(url: &str) -> IceServer {
        let (username, credential_file) = (Some("player".to_owned()), Some("secret".into()));
        IceServer { url: url.to_owned(), username, credential_file, ..IceServer::default() }
    }

    fn stun(url: &str) -> IceServer {
        IceServer { url: url.to_owned(), ..IceServer::default() }
    }

    #[test]
    fn servers_are_checked() {
        for good in [
            stun("stun:stun.example.com"),
            stun("stuns:[2001:db8::1]:5349"),
            turn("turn:turn.example.com:3478?transport=udp"),
            turn("turns:turn.example.com?transport=tcp"),
        ] {
            assert_eq!(good.check(), Ok(()), "{good:?}");
        }
        for (bad, says) in [
            (stun(""), "no server URL"),
            (stun("stun:"), "no server URL"),
            (stun("http://stun.example.com"), "no server URL"),
            (stun("stun://stun.example.com"), "no server URL"),
            (stun("stun:a,b"), "without commas"),
            (stun("stun:a>b"), "no server URL"),
            (stun("turn:turn.example.com"), "needs username"),
            (IceServer { credential_file: None, ..turn("turn:a") }, "needs username and credential_file"),
            (IceServer { username: Some("a,b".into()), ..turn("turn:a") }, "commas"),
            (turn("stun:a"), "STUN has none"),
        ] {
            let error = bad.check().unwrap_err();
            assert!(error.contains(says), "{error}");
        }
    }

    #[test]
    fn a_password_is_not_printed() {
        let server = IceServer { credential: Credential("hidden".into()), ..turn("turn:a") };
        assert!(!format!("{server:?}").contains("hidden"));
        assert!(!serde_json::to_string(&server).unwrap().contains("hidden"));
        assert_eq!(server.login(), Some(("player", "hidden")));
    }
}
