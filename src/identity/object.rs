//! JSON objects in which no name comes twice, and base64url.

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde::de::{Deserializer, Error, IgnoredAny, MapAccess, Visitor};

/// The members of a JSON object.
///
/// RFC 7519 §4, of claims: "JWT parsers MUST either reject JWTs with duplicate Claim Names or use a JSON parser that returns
/// only the lexically last duplicate member name"; RFC 7515 §4 and RFC 7517 §4 say so of headers and keys. They are rejected.
#[derive(Debug, Default)]
pub(super) struct Object(BTreeMap<String, Member>);

/// What is of use of a member.
///
/// Not `serde_json::Value`: that parses the text in `{"$serde_json::private::RawValue": "…"}` anew, with all its depth, and this is
/// read before anybody is known.
#[derive(Debug, PartialEq, Deserialize)]
#[serde(untagged)]
pub(super) enum Member {
    Text(String),
    Whole(u64),
    Number(f64),
    List(Vec<Element>),
    Other(IgnoredAny),
}

/// What is of use of what stands in a list.
#[derive(Debug, PartialEq, Deserialize)]
#[serde(untagged)]
pub(super) enum Element {
    Text(String),
    Other(IgnoredAny),
}

impl Member {
    pub(super) fn text(&self) -> Option<&str> {
        if let Member::Text(text) = self { Some(text) } else { None }
    }

    /// The texts of a list, if it is one of texts alone.
    pub(super) fn texts(&self) -> Option<Vec<&str>> {
        let Member::List(all) = self else { return None };
        all.iter().map(|one| if let Element::Text(text) = one { Some(text.as_str()) } else { None }).collect()
    }

    /// Whether it is a list with `text` in it.
    pub(super) fn lists(&self, text: &str) -> bool {
        matches!(self, Member::List(all) if all.iter().any(|one| matches!(one, Element::Text(one) if one == text)))
    }
}

impl Object {
    pub(super) fn get(&self, name: &str) -> Option<&Member> {
        self.0.get(name)
    }

    /// The member, if it is a string.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.get(name).and_then(Member::text)
    }
}

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;

        impl<'de> Visitor<'de> for Members {
            type Value = Object;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object, A::Error> {
                let mut members = BTreeMap::new();
                while let Some((name, member)) = map.next_entry::<String, Member>()? {
                    if members.insert(name, member).is_some() {
                        return Err(A::Error::custom("a name comes twice"));
                    }
                }
                Ok(Object(members))
            }
        }

        deserializer.deserialize_map(Members)
    }
}

/// RFC 7515 §2: "with all trailing '=' characters omitted […] and without the inclusion of any line breaks, whitespace, or other
/// additional characters".
pub(super) fn decode(text: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text).ok()
}

pub(super) fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}
