//! `tableside token`: development tokens, and the keys that sign them. In production tokens come from the casino's issuer.

use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, bail, ensure};
use clap::builder::PossibleValue;
use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use crate::config::TableName;
use crate::identity::{Algorithm, Jurisdictions, KeySet, NewToken, Role, SigningKey, Subject};

/// Where a key and the key set with its public half are.
#[derive(Args, Clone, Debug)]
pub struct KeyFiles {
    /// The private key, PKCS#8 in PEM
    #[arg(long, value_name = "FILE", default_value = "dev-key.pem")]
    pub key: PathBuf,
    /// The JWK Set with its public half, for auth.jwks_file
    #[arg(long, value_name = "FILE", default_value = "dev-jwks.json")]
    pub jwks: PathBuf,
}

/// What a new token is to say.
#[derive(Args, Clone, Debug)]
pub struct Mint {
    /// Where the key is; both files are made if there is none
    #[command(flatten)]
    pub files: KeyFiles,
    /// Who it is about: a player's id, or an encoder's name
    // Required, and yet not there where `keygen` is asked for.
    #[arg(long, value_name = "NAME", required = true, value_parser = subject)]
    pub sub: Option<Subject>,
    /// What they may do
    #[arg(long, value_enum, default_value = "player")]
    pub role: Role,
    /// A table where they may do it; more than once for more, and all of them without
    #[arg(long = "table", value_name = "TABLE", default_value = "*", value_parser = table)]
    pub tables: Vec<String>,
    /// Where they are, for the law
    #[arg(long, value_name = "NAME", value_parser = jurisdiction)]
    pub jurisdiction: Option<String>,
    /// How long it is good: 90s, 15m, 1h, 30d
    #[arg(long = "for", value_name = "TIME", default_value = "1h", value_parser = lifetime)]
    pub lifetime: Duration,
    /// The claim `iss`
    #[arg(long, value_name = "ISSUER")]
    pub iss: Option<String>,
    /// The claim `aud`
    #[arg(long, value_name = "AUDIENCE")]
    pub aud: Option<String>,
}

/// What a new key is to be.
#[derive(Args, Clone, Debug)]
pub struct Keygen {
    /// Where they go. The key must not be there yet; to a key set that is there the key is added
    #[command(flatten)]
    pub files: KeyFiles,
    /// What it signs with
    #[arg(long, value_enum, ignore_case = true, default_value = "EdDSA")]
    pub alg: Algorithm,
}

impl ValueEnum for Role {
    fn value_variants<'a>() -> &'a [Self] {
        &[Role::Player, Role::Publisher]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(self.as_str()))
    }
}

impl ValueEnum for Algorithm {
    fn value_variants<'a>() -> &'a [Self] {
        &[Algorithm::EdDsa, Algorithm::Es256, Algorithm::Rs256]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(self.as_str()))
    }
}

/// Writes a new token to standard output, and what it is good for to standard error.
///
/// # Errors
/// The key cannot be read, or made if there is none.
pub fn mint(options: &Mint) -> anyhow::Result<()> {
    let Mint { files, sub, role, tables, jurisdiction, lifetime, iss, aud } = options;
    let sub = sub.as_ref().context("--sub is missing: whom is the token about?")?;
    let (key, made) = match fs::read(&files.key) {
        Ok(pem) => (SigningKey::from_pem(&pem).with_context(|| files.key.display().to_string())?, false),
        Err(error) if error.kind() == ErrorKind::NotFound => (make(files, Algorithm::EdDsa)?, true),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", files.key.display())),
    };
    let token = key.sign(&NewToken {
        subject: sub,
        role: *role,
        tables,
        jurisdiction: jurisdiction.as_deref(),
        issuer: iss.as_deref(),
        audience: aud.as_deref(),
        issued: unix_time(),
        lifetime: *lifetime,
    })?;
    let mut said = io::stderr().lock();
    if made {
        tell_of_files(&mut said, files, &key)?;
    }
    let page = if *role == Role::Player { "play" } else { "publish" };
    writeln!(said, "A token for {role} {} at {}, good for {} s:", sub.as_str(), tables.join(", "), lifetime.as_secs())?;
    writeln!(said, "send it as `Authorization: Bearer TOKEN`, or open /{page}/TABLE#token=TOKEN.")?;
    let mut out = io::stdout().lock();
    writeln!(out, "{token}")?;
    out.flush().context("cannot write the token")
}

/// Makes a key, and adds its public half to a key set.
///
/// # Errors
/// The key's file is there already, the key set is none, or a file cannot be written.
pub fn keygen(options: &Keygen) -> anyhow::Result<()> {
    let key = make(&options.files, options.alg)?;
    let mut out = io::stdout().lock();
    tell_of_files(&mut out, &options.files, &key)?;
    let KeyFiles { key, jwks } = &options.files;
    let named = if *key == Path::new("dev-key.pem") { String::new() } else { format!(" --key {}", key.display()) };
    writeln!(
        out,
        "\nIn the gateway's configuration:\n  [auth]\n  jwks_file = \"{}\"\n  jurisdictions = [\"*\"]",
        jwks.display()
    )?;
    writeln!(out, "\nA token:\n  tableside token{named} --sub ann --role player --table roulette --for 1h")?;
    out.flush().context("cannot write")
}

fn tell_of_files(out: &mut impl Write, files: &KeyFiles, key: &SigningKey) -> io::Result<()> {
    let KeyFiles { key: key_file, jwks } = files;
    writeln!(
        out,
        "{}: a new private key, {}. Whoever has it signs tokens.",
        key_file.display(),
        key.algorithm().as_str()
    )?;
    writeln!(out, "{}: its public half, for the gateway; `kid` {}.", jwks.display(), key.kid())
}

fn make(files: &KeyFiles, algorithm: Algorithm) -> anyhow::Result<SigningKey> {
    let key = SigningKey::generate(algorithm)?;
    let set = with_key(&files.jwks, &key)?;
    // Readable by its owner alone, and never in the place of another.
    let mut options = OpenOptions::new();
    let mut file = match options.write(true).create_new(true).mode(0o600).open(&files.key) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            bail!("{} is there already; name another file with --key", files.key.display())
        }
        Err(error) => return Err(error).with_context(|| format!("cannot write {}", files.key.display())),
    };
    file.write_all(key.to_pem()?.as_bytes()).with_context(|| format!("cannot write {}", files.key.display()))?;
    // In one step: a gateway may be reading it.
    let mut beside = files.jwks.clone().into_os_string();
    beside.push(".new");
    let written = fs::write(&beside, set).and_then(|()| fs::rename(&beside, &files.jwks));
    written.with_context(|| format!("cannot write {}", files.jwks.display()))?;
    Ok(key)
}

/// The text of a key set with one more key in it.
fn with_key(file: &Path, key: &SigningKey) -> anyhow::Result<String> {
    let mut set = match fs::read(file) {
        Ok(text) => {
            KeySet::parse(&text).with_context(|| format!("cannot add a key to {}", file.display()))?;
            serde_json::from_slice::<Value>(&text)?
        }
        Err(error) if error.kind() == ErrorKind::NotFound => json!({ "keys": [] }),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", file.display())),
    };
    let keys = set["keys"].as_array_mut().context("a key set has keys")?;
    keys.push(key.jwk());
    let text = format!("{}\n", serde_json::to_string_pretty(&set)?);
    let read = KeySet::parse(text.as_bytes()).with_context(|| format!("cannot add a key to {}", file.display()))?;
    ensure!(!read.is_empty(), "the new key is not in the set");
    Ok(text)
}

fn subject(text: &str) -> Result<Subject, String> {
    Subject::new(text).map_err(|error| error.to_string())
}

fn table(text: &str) -> Result<String, String> {
    match text.parse::<TableName>() {
        _ if text == "*" => Ok(text.to_owned()),
        Ok(name) => Ok(name.to_string()),
        Err(error) => Err(format!("{error}; or `*`, which is every table")),
    }
}

fn jurisdiction(text: &str) -> Result<String, String> {
    if Jurisdictions::is_name(text) {
        Ok(text.to_owned())
    } else {
        Err("it has 1 to 64 visible ASCII characters".into())
    }
}

fn lifetime(text: &str) -> Result<Duration, String> {
    let wrong = || "expected a whole number and its unit: 90s, 15m, 1h, 30d".to_owned();
    let (number, unit) = text.split_at_checked(text.len().saturating_sub(1)).ok_or_else(wrong)?;
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return Err(wrong()),
    };
    let number: u32 = number.parse().map_err(|_| wrong())?;
    // Not beyond a human life: what is longer cannot be written as a date that we read.
    let lifetime = Duration::from_secs(u64::from(number) * seconds);
    if lifetime <= Duration::from_secs(36_500 * 86_400) { Ok(lifetime) } else { Err("at most 36500d".to_owned()) }
}

#[expect(clippy::disallowed_methods, reason = "a token is issued at the time of day")]
fn unix_time() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_a_unit() {
        for (text, seconds) in
            [("0s", 0), ("90s", 90), ("15m", 900), ("1h", 3600), ("30d", 2_592_000), ("36500d", 3_153_600_000)]
        {
            assert_eq!(lifetime(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for text in ["", "h", "1", "1w", "-1h", "1.5h", "1 h", "h1", "36501d", "99999999999d", "1é"] {
            assert!(lifetime(text).is_err(), "{text}");
        }
    }

    #[test]
    fn tables_are_names_or_all() {
        assert_eq!(table("*"), Ok("*".to_owned()));
        assert_eq!(table("roulette-1"), Ok("roulette-1".to_owned()));
        assert!(table("a b").is_err() && table("").is_err() && table("**").is_err());
    }
}
