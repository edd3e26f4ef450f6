//! Offers in, answers out (RFC 8866, RFC 8829, RFC 9143), for an answerer that is ICE-lite.

mod types;

pub use types::*;
