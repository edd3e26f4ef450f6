//! What a token says, once it is known that its issuer said so.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::object::{Member, Object};
use super::token::TokenError;

/// Whom a token is about (`sub`): 1 to 128 characters of visible ASCII, as a player's id has. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Subject(Arc<str>);

/// Why a text names nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a subject has 1 to {} characters of visible ASCII", Subject::MAX)]
pub struct InvalidSubject;

impl Subject {
    /// Characters of the longest.
    pub const MAX: usize = 128;

    /// Checks a text.
    ///
    /// # Errors
    /// It is empty, too long, or has another character than visible ASCII.
    pub fn new(text: &str) -> Result<Self, InvalidSubject> {
        if is_visible(text, Self::MAX) { Ok(Self(text.into())) } else { Err(InvalidSubject) }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn is_visible(text: &str, most: usize) -> bool {
    (1..=most).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// What the subject may do (`role`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Send a table's stream.
    Publisher,
    /// Watch a table and bet at it.
    Player,
}

impl Role {
    /// As it is written in a token.
    pub const fn as_str(self) -> &'static str {
        match self {
            Role::Publisher => "publisher",
            Role::Player => "player",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Where the subject may do it (`tables`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tables {
    /// At every table: `["*"]`.
    All,
    /// At these.
    Named(Box<[Box<str>]>),
}

impl Tables {
    /// What a list of names means; `*` among them is every table.
    pub fn of<T: AsRef<str>>(names: &[T]) -> Self {
        if names.iter().any(|name| name.as_ref() == "*") {
            return Tables::All;
        }
        Tables::Named(names.iter().map(|name| name.as_ref().into()).collect())
    }

    /// Whether `table` is one of them.
    pub fn include(&self, table: &str) -> bool {
        match self {
            Tables::All => true,
            Tables::Named(names) => names.iter().any(|name| **name == *table),
        }
    }
}

/// The jurisdictions that a node may serve.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Jurisdictions(Vec<String>);

impl Jurisdictions {
    /// Characters of the longest name of one.
    pub const MAX: usize = 64;

    /// From names as in a configuration; `*` among them is every jurisdiction, and tokens need name none.
    pub fn of(names: &[String]) -> Self {
        Self(names.to_vec())
    }

    /// Whether `name` can be the name of one: 1 to 64 characters of visible ASCII.
    pub fn is_name(name: &str) -> bool {
        is_visible(name, Self::MAX)
    }

    fn include(&self, jurisdiction: Option<&str>) -> bool {
        self.0.iter().any(|name| name == "*" || Some(name.as_str()) == jurisdiction)
    }
}

/// The claims of a token that was verified (RFC 7519 §4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claims {
    /// `sub`
    pub subject: Subject,
    /// `role`
    pub role: Role,
    /// `tables`
    pub tables: Tables,
    /// `jurisdiction`: where the subject is, for the law.
    pub jurisdiction: Option<Box<str>>,
    /// `exp`, since the Unix epoch.
    pub expires: Duration,
}

/// Why a good token does not allow what was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// It is for players and was used to publish, or the other way round.
    #[error("the token's `role` is another one")]
    Role,
    /// It is for other tables.
    #[error("the token's `tables` do not include this one")]
    Table,
    /// It is from a jurisdiction that this node does not serve, or names none.
    #[error("the token's `jurisdiction` is not served here")]
    Jurisdiction,
}

impl Claims {
    /// Whether the subject may act as `role` at `table` of a node that serves `jurisdictions`.
    ///
    /// # Errors
    /// The first thing that the token does not allow.
    pub fn allow(&self, role: Role, table: &str, jurisdictions: &Jurisdictions) -> Result<(), Denied> {
        if self.role != role {
            return Err(Denied::Role);
        }
        if !self.tables.include(table) {
            return Err(Denied::Table);
        }
        if !jurisdictions.include(self.jurisdiction.as_deref()) {
            return Err(Denied::Jurisdiction);
        }
        Ok(())
    }

    /// Reads the claims that concern us; there may be others.
    pub(super) fn read(claims: &Object) -> Result<Self, TokenError> {
        let sub = claims.text("sub").and_then(|sub| Subject::new(sub).ok());
        let role = match claims.text("role") {
            Some("publisher") => Role::Publisher,
            Some("player") => Role::Player,
            _ => return Err(TokenError::Claim("`role` is not \"player\" or \"publisher\"")),
        };
        let names = claims.get("tables").and_then(Member::texts);
        let jurisdiction = match claims.get("jurisdiction") {
            None => None,
            Some(Member::Text(name)) if Jurisdictions::is_name(name) => Some(name.as_str().into()),
            Some(_) => return Err(TokenError::Claim("`jurisdiction` is not a string of 1 to 64 visible characters")),
        };
        Ok(Self {
            subject: sub.ok_or(TokenError::Claim("`sub` is not a string of 1 to 128 visible ASCII characters"))?,
            role,
            tables: Tables::of(&names.ok_or(TokenError::Claim("`tables` is not a list of strings"))?),
            jurisdiction,
            expires: numeric_date(claims, "exp")?.ok_or(TokenError::Claim("`exp` is missing"))?,
        })
    }
}

/// The last second of the year 9999. What is later was meant to be milliseconds.
const LATEST: Duration = Duration::from_secs(253_402_300_799);

/// RFC 7519 §2, NumericDate: "the number of seconds from 1970-01-01T00:00:00Z UTC […] non-integer values can be represented".
pub(super) fn numeric_date(claims: &Object, name: &'static str) -> Result<Option<Duration>, TokenError> {
    let Some(value) = claims.get(name) else { return Ok(None) };
    let date = match *value {
        Member::Whole(seconds) => Some(Duration::from_secs(seconds)),
        Member::Number(seconds) => Duration::try_from_secs_f64(seconds).ok(),
        _ => None,
    };
    date.filter(|date| *date <= LATEST).map(Some).ok_or(TokenError::Claim(match name {
        "exp" => "`exp` is not a time in seconds since 1970",
        "nbf" => "`nbf` is not a time in seconds since 1970",
        _ => "`iat` is not a time in seconds since 1970",
    }))
}
