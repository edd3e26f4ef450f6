//! How the node proves to a NATS server who it is.

use std::fmt;
use std::fs;
use std::path::Path;

use super::nats::NatsAccess;

/// What is told a server. Read anew for each connection, so that what is replaced in the files holds for the next one.
#[derive(Clone, PartialEq, Eq)]
pub enum NatsLogin {
    /// Nothing, or the node's certificate alone.
    None,
    /// A user with a password.
    Password {
        /// Who.
        username: String,
        /// The content of `password_file`.
        password: String,
    },
    /// A token.
    Token(String),
    /// A user of an account, of a `.creds` file.
    Credentials {
        /// The user's JWT, which the server believes.
        jwt: String,
        /// The user's NKey seed, which signs the server's nonce.
        seed: String,
    },
}

impl fmt::Debug for NatsLogin {
    /// Without what is secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self {
            Self::None => "None",
            Self::Password { .. } => "Password",
            Self::Token(_) => "Token",
            Self::Credentials { .. } => "Credentials",
        };
        f.write_str(kind)
    }
}

const CREDENTIALS: &str = "credentials_file";

impl NatsLogin {
    /// Reads the files that are named.
    ///
    /// # Errors
    /// The key whose file cannot be read or used, and why. Nothing of a secret is repeated.
    pub(super) fn read(access: &NatsAccess) -> Result<Self, (&'static str, String)> {
        let NatsAccess { credentials_file, username, password_file, token_file, .. } = access;
        if let Some(file) = credentials_file {
            let text = read(file).map_err(|message| (CREDENTIALS, message))?;
            let wrong = || {
                let message =
                    "holds no user JWT with its NKey seed: expected a .creds file, as `nsc generate creds` writes it";
                (CREDENTIALS, format!("{} {message}", file.display()))
            };
            return parse_credentials(&text).ok_or_else(wrong);
        }
        if let (Some(username), Some(file)) = (username, password_file) {
            let password = secret(file).map_err(|message| ("password_file", message))?;
            return Ok(Self::Password { username: username.clone(), password });
        }
        if let Some(file) = token_file {
            return secret(file).map(Self::Token).map_err(|message| ("token_file", message));
        }
        Ok(Self::None)
    }
}

fn read(file: &Path) -> Result<String, String> {
    fs::read_to_string(file).map_err(|error| format!("cannot read {}: {error}", file.display()))
}

fn secret(file: &Path) -> Result<String, String> {
    let text = read(file)?;
    match text.trim() {
        "" => Err(format!("{} is empty", file.display())),
        secret => Ok(secret.to_owned()),
    }
}

/// The two sections of a `.creds` file, in any order and with anything between.
fn parse_credentials(text: &str) -> Option<NatsLogin> {
    let jwt = section(text, "NATS USER JWT")?.to_owned();
    let seed = section(text, "USER NKEY SEED")?.to_owned();
    nkeys::KeyPair::from_seed(&seed).ok().map(|_| NatsLogin::Credentials { jwt, seed })
}

/// The line after `-----BEGIN NAME-----`.
fn section<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let begins = |line: &&str| line.trim_matches('-').strip_prefix("BEGIN ") == Some(name);
    let mut after = text.lines().map(str::trim).skip_while(|line| !begins(line)).skip(1);
    after.find(|line| !line.is_empty()).filter(|line| !line.starts_with('-'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::BetService;
    use super::*;

    fn credentials(seed: &str) -> String {
        format!(
            "-----BEGIN NATS USER JWT-----\neyJ0eXAi.abc.def\n------END NATS USER JWT------\n\n\
             ************************* IMPORTANT *************************\n\
             -----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
        )
    }

    #[test]
    fn a_credentials_file_is_read() {
        let seed = nkeys::KeyPair::new_user().seed().unwrap();
        let read = parse_credentials(&credentials(&seed)).unwrap();
        assert_eq!(read, NatsLogin::Credentials { jwt: "eyJ0eXAi.abc.def".to_owned(), seed: seed.clone() });
        assert!(!format!("{read:?}").contains(&seed));
        let windows = credentials(&seed).replace('\n', "\r\n");
        assert_eq!(parse_credentials(&windows), Some(read));
        for broken in ["", &credentials(""), &credentials("SUAA"), &seed, &credentials(&seed).replace("JWT", "J")] {
            assert_eq!(parse_credentials(broken), None);
        }
    }

    #[test]
    fn a_secret_that_is_not_there_is_named_with_its_key() {
        let nats = |change: fn(&mut NatsAccess)| {
            let mut nats = BetService::default().nats_access();
            change(&mut nats);
            nats.login()
        };
        assert_eq!(nats(|_| {}), Ok(NatsLogin::None));
        let (key, message) = nats(|nats| nats.token_file = Some("/nonexistent".into())).unwrap_err();
        assert!(key == "bet_service.nats.token_file" && message.starts_with("cannot read /nonexistent"), "{message}");
        let (key, _) = nats(|nats| nats.credentials_file = Some("/nonexistent".into())).unwrap_err();
        assert_eq!(key, "bet_service.nats.credentials_file");
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "(-{0,6}(BEGIN|END) (NATS USER JWT|USER NKEY SEED)-{0,6}\n|[A-Z2-7]{0,20}\n|.{0,9}){0,8}") {
            let _ = parse_credentials(&text);
        }
    }
}
