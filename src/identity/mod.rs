//! Who may do what: JSON Web Tokens (RFC 7519) and the keys that they are verified with (RFC 7517).
//!
//! Enters: the text of a token, the text of a key set, the time of day. Leaves: [`Claims`] that somebody with one of the keys has
//! signed, or the [`TokenError`] that says why there are none; and, for development, tokens and keys of our own.
//! Refuses to know: where keys come from, HTTP, which tables there are, the clock.
//!
//! What is taken, and what never is, follows RFC 8725, the best current practices:
//!
//! * a key says by itself what it is for, and a token does not choose: `none`, HMAC and everything else that is no signature of
//!   one of the keys is refused, and so is the right algorithm with the wrong key;
//! * a token names its key by `kid`, or there is but one that it can be meant for;
//! * headers that carry or point to a key (`jwk`, `jku`, `x5c`, `x5u`) are not looked at;
//! * what is ambiguous is refused: names that come twice, extensions that must be understood (`crit`), tokens of another kind (`typ`).

mod claims;
mod key;
mod key_set;
mod object;
mod signing;
mod token;

pub use claims::{Claims, Denied, InvalidSubject, Jurisdictions, Role, Subject, Tables};
pub use key::Algorithm;
pub use key_set::{KeySet, KeySetError, MAX_KEY_SET};
pub use signing::{NewToken, SigningError, SigningKey};
pub use token::{MAX_TOKEN, Policy, TokenError, verify};

#[cfg(test)]
mod tests;
