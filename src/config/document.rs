//! A TOML text that still knows where everything stood.

use std::ops::Range;
use std::path::Path;

use serde_json::Value;
use toml::de::DeTable;

use super::{Config, ConfigError, Diagnostic, Table};

/// A parsed text with the positions of its keys.
pub(super) struct Document<'a> {
    file: &'a Path,
    text: &'a str,
    tree: DeTable<'a>,
}

impl<'a> Document<'a> {
    /// # Errors
    /// If the text is not TOML.
    pub(super) fn parse(file: &'a Path, text: &'a str) -> Result<Self, ConfigError> {
        match DeTable::parse(text) {
            Ok(tree) => Ok(Self { file, text, tree: tree.into_inner() }),
            Err(error) => {
                let start = error.span().map_or(0, |span| span.start);
                Err(diagnostic(file, text, start, None, format!("not valid TOML: {}", error.message())))
            }
        }
    }

    /// # Errors
    /// If a key is unknown or a value has the wrong type.
    pub(super) fn deserialise(&self) -> Result<Config, ConfigError> {
        toml::from_str(self.text).map_err(|error| self.explain(&error))
    }

    /// An error at `key` (`section.key`), or where its section stands if the file does not set it.
    pub(super) fn complaint(&self, key: &str, message: String) -> ConfigError {
        let path: Vec<&str> = key.split('.').collect();
        let start = position(&self.tree, &path).map_or(0, |span| span.start);
        diagnostic(self.file, self.text, start, Some(key.to_owned()), message)
    }

    fn explain(&self, error: &toml::de::Error) -> ConfigError {
        let start = error.span().map_or(0, |span| span.start);
        let Some(path) = path_at(&self.tree, start) else {
            return diagnostic(self.file, self.text, start, None, plain_words(error.message()));
        };
        let message = match unknown_key(&path) {
            Some(suggestion) => format!("unknown key; {suggestion}"),
            None => plain_words(error.message()),
        };
        diagnostic(self.file, self.text, start, Some(path.join(".")), message)
    }
}

fn diagnostic(file: &Path, text: &str, start: usize, key: Option<String>, message: String) -> ConfigError {
    let (line, column) = line_and_column(text, start);
    ConfigError::Invalid(Box::new(Diagnostic { file: file.to_owned(), line, column, key, message }))
}

fn line_and_column(text: &str, start: usize) -> (usize, usize) {
    let before = text.get(..start).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or("").chars().count() + 1;
    (line, column)
}

/// Where the key at `path` stands, or the nearest section around it.
fn position(tree: &DeTable<'_>, path: &[&str]) -> Option<Range<usize>> {
    let (first, rest) = path.split_first()?;
    let (key, value) = tree.iter().find(|(key, _)| key.get_ref() == first)?;
    value.get_ref().as_table().and_then(|inner| position(inner, rest)).or_else(|| Some(key.span()))
}

/// The path of the key or value that stands at byte `start`.
fn path_at(tree: &DeTable<'_>, start: usize) -> Option<Vec<String>> {
    tree.iter().find_map(|(key, value)| {
        let name = key.get_ref().to_string();
        if key.span().contains(&start) {
            return Some(vec![name]);
        }
        if let Some(mut path) = value.get_ref().as_table().and_then(|inner| path_at(inner, start)) {
            path.insert(0, name);
            return Some(path);
        }
        value.span().contains(&start).then(|| vec![name])
    })
}

/// What to write instead of a key that does not exist; `None` if it does exist.
fn unknown_key(path: &[String]) -> Option<String> {
    let (name, section) = path.split_last()?;
    let known = known_keys(section);
    if section.first().is_some_and(|s| s == "tables") && section.len() == 1 || known.contains(name) {
        return None;
    }
    if let Some(home) = section_of(name).filter(|home| Some(home) != section.first()) {
        return Some(format!("it belongs under [{home}]"));
    }
    let likeness = |candidate: &String| strsim::jaro_winkler(name, candidate);
    let best = known.iter().max_by(|a, b| likeness(a).total_cmp(&likeness(b))).filter(|best| likeness(best) >= 0.8);
    Some(match best {
        Some(best) => format!("did you mean `{best}`?"),
        None => format!("known here: {}", known.join(", ")),
    })
}

fn known_keys(section: &[String]) -> Vec<String> {
    let is_table = section.len() == 2 && section[0] == "tables";
    let schema =
        if is_table { serde_json::to_value(Table::default()) } else { serde_json::to_value(Config::default()) };
    let schema = schema.unwrap_or_default();
    let inner = if is_table { Some(&schema) } else { section.iter().try_fold(&schema, |value, key| value.get(key)) };
    inner.and_then(Value::as_object).map(|keys| keys.keys().cloned().collect()).unwrap_or_default()
}

fn section_of(name: &str) -> Option<String> {
    let schema = serde_json::to_value(Config::default()).ok()?;
    let homes: Vec<_> = schema.as_object()?.iter().filter(|(_, keys)| keys.get(name).is_some()).collect();
    // `listen` is in three sections: no telling which was meant.
    if homes.len() == 1 { Some(homes[0].0.clone()) } else { None }
}

/// serde names Rust types; people who write TOML know numbers and strings.
fn plain_words(message: &str) -> String {
    let Some((said, expected)) = message.rsplit_once("expected ") else {
        return message.to_owned();
    };
    let plain = match expected {
        "u8" => "a whole number from 0 to 255",
        "u16" => "a whole number from 0 to 65535",
        "u32" | "u64" | "usize" => "a whole number, 0 or more",
        "a boolean" => "true or false",
        "a sequence" => "a list in square brackets",
        "a map" => "a section",
        other if other.starts_with("struct ") => "a section",
        other => other,
    };
    format!("{said}expected {plain}")
}
