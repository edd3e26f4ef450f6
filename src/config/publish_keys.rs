//! Who may publish what, until tokens arrive.

use std::fmt;
use std::path::Path;

use aws_lc_rs::digest::{SHA256, digest};
use subtle::{Choice, ConstantTimeEq};

use super::document::Document;
use super::table_name::TableName;
use super::{ConfigError, Diagnostic};

/// The publish keys of a node, each for one table or for all. Holds digests only: a dump of memory shows no key.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct PublishKeys(Vec<Entry>);

#[derive(Clone, PartialEq, Eq)]
struct Entry {
    /// `None` for every table.
    table: Option<TableName>,
    digest: [u8; 32],
}

/// Tells whether two publishers have presented the same key, without knowing it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PublishKeyId([u8; 32]);

impl PublishKeyId {
    /// The id of `key`.
    pub fn of(key: &str) -> Self {
        Self(digest_of(key))
    }
}

impl fmt::Debug for PublishKeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PublishKeyId")
    }
}

/// What a presented key is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Permission {
    /// The key is right.
    Granted,
    /// There was no key.
    Missing,
    /// No table has this key.
    Unknown,
    /// The key is right for another table.
    OtherTable,
}

/// The shortest key, in characters: 96 bits if written in base64.
const MIN_KEY_CHARS: usize = 16;

impl PublishKeys {
    /// Reads the text of a keys file: TOML with lines `table = "key"` or `"*" = "key"`; `file` is for messages.
    ///
    /// # Errors
    /// If it is not TOML, a name is no table name, or a key could not be sent as a bearer token. No message repeats
    /// anything of a key.
    pub fn parse(file: &Path, text: &str) -> Result<Self, ConfigError> {
        let document = Document::parse(file, text).map_err(without_excerpt)?;
        let entries = document.entries().map(|(name, value)| {
            let complaint = |message: &str| document.complaint_at(&[name], name, message.to_owned());
            let table = match name {
                "*" => None,
                name => Some(name.parse().map_err(|_| complaint("is neither a table's name nor \"*\""))?),
            };
            let key = value.as_str().filter(|key| is_bearer_token(key)).ok_or_else(|| complaint(KEY_RULE))?;
            Ok(Entry { table, digest: digest_of(key) })
        });
        entries.collect::<Result<_, _>>().map(Self)
    }

    /// No table can be published.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether some key opens `table`.
    pub fn cover(&self, table: &TableName) -> bool {
        self.0.iter().any(|entry| entry.opens(table))
    }

    /// What `key` is worth for `table`. Every stored key is compared, each in constant time, whatever the outcome.
    pub fn permission(&self, table: &TableName, key: Option<&str>) -> Permission {
        let Some(key) = key else {
            return Permission::Missing;
        };
        let presented = digest_of(key);
        let (mut here, mut anywhere) = (Choice::from(0), Choice::from(0));
        for entry in &self.0 {
            let equal = entry.digest.ct_eq(&presented);
            here |= equal & Choice::from(u8::from(entry.opens(table)));
            anywhere |= equal;
        }
        match (bool::from(here), bool::from(anywhere)) {
            (true, _) => Permission::Granted,
            (false, true) => Permission::OtherTable,
            (false, false) => Permission::Unknown,
        }
    }
}

impl Entry {
    fn opens(&self, table: &TableName) -> bool {
        self.table.as_ref().is_none_or(|own| own == table)
    }
}

impl fmt::Debug for PublishKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tables = self.0.iter().map(|entry| entry.table.as_ref().map_or("*", TableName::as_str));
        f.debug_set().entries(tables).finish()
    }
}

const KEY_RULE: &str = "the key must be a string of at least 16 of the characters that a bearer token may have: letters, \
     digits and -._~+/ with = at the end; `openssl rand -hex 24` makes one";

/// `b64token` of RFC 6750 §2.1, and long enough not to be guessed.
fn is_bearer_token(key: &str) -> bool {
    let body = key.trim_end_matches('=');
    key.len() >= MIN_KEY_CHARS && body.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~+/".contains(&b))
}

fn digest_of(key: &str) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes.copy_from_slice(digest(&SHA256, key.as_bytes()).as_ref());
    bytes
}

/// The parser's message may quote the text, which here is a secret.
fn without_excerpt(error: ConfigError) -> ConfigError {
    match error {
        ConfigError::Invalid(at) => ConfigError::Invalid(Box::new(Diagnostic {
            message: "not valid TOML; expected lines like table = \"key\"".to_owned(),
            ..*at
        })),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ROULETTE: &str = "roulette-key-0123456789";
    const MASTER: &str = "master-key-0123456789==";

    fn name(s: &str) -> TableName {
        s.parse().unwrap()
    }

    fn parse(text: &str) -> Result<PublishKeys, ConfigError> {
        PublishKeys::parse(Path::new("keys.toml"), text)
    }

    #[test]
    fn a_key_opens_its_table_and_no_other() {
        let keys = parse(&format!("roulette = \"{ROULETTE}\"\n")).unwrap();
        assert_eq!(keys.permission(&name("roulette"), Some(ROULETTE)), Permission::Granted);
        assert_eq!(keys.permission(&name("blackjack"), Some(ROULETTE)), Permission::OtherTable);
        assert_eq!(keys.permission(&name("roulette"), Some(MASTER)), Permission::Unknown);
        assert_eq!(keys.permission(&name("roulette"), Some("")), Permission::Unknown);
        assert_eq!(keys.permission(&name("roulette"), None), Permission::Missing);
        assert!(keys.cover(&name("roulette")) && !keys.cover(&name("blackjack")));
    }

    #[test]
    fn a_star_opens_every_table() {
        let keys = parse(&format!("roulette = \"{ROULETTE}\"\n\"*\" = \"{MASTER}\"\n")).unwrap();
        assert_eq!(keys.permission(&name("blackjack"), Some(MASTER)), Permission::Granted);
        assert_eq!(keys.permission(&name("roulette"), Some(MASTER)), Permission::Granted);
        assert_eq!(keys.permission(&name("blackjack"), Some(ROULETTE)), Permission::OtherTable);
    }

    #[test]
    fn bad_lines_are_refused_by_position_without_showing_a_key() {
        for (text, line, key) in [
            ("a = \"roulette-key-0123456789\"\nb = \"short\"\n", 2, Some("b")),
            ("a = \"with spaces 0123456789\"\n", 1, Some("a")),
            ("a = 123456789012345678\n", 1, Some("a")),
            ("\"a b\" = \"roulette-key-0123456789\"\n", 1, Some("a b")),
            ("# keys\n\na = roulette-key-0123456789\n", 3, None),
        ] {
            let error = parse(text).unwrap_err();
            let at = error.diagnostic().unwrap();
            assert_eq!((at.line, at.key.as_deref()), (line, key), "{error}");
            for secret in ["roulette-key", "short\"", "with spaces", "123456789"] {
                assert!(!error.to_string().contains(secret), "{error}");
            }
        }
    }

    #[test]
    fn debug_output_names_tables_only() {
        let keys = parse(&format!("roulette = \"{ROULETTE}\"\n")).unwrap();
        assert_eq!(format!("{keys:?}"), "{\"roulette\"}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(100))]

        #[test]
        fn any_text_is_keys_or_an_error(text in "[ -~\n]{0,80}") {
            let _ = parse(&text);
        }
    }
}
