//! Offers in, answers out (RFC 8866, RFC 8829, RFC 9143), for an answerer that is ICE-lite.
//!
//! An [`Offer`] is read leniently: what is not needed is skipped, and what clients are known to do differently from the
//! RFCs is put up with. [`negotiate_publisher`] and [`negotiate_player`] decide, and say in plain words what they could
//! not accept. [`write_answer`] writes what was decided and adds nothing that was not offered. [`IceFragment`] and
//! [`FragmentTemplate`] are what a session exchanges later.

mod answer;
mod attributes;
mod codecs;
mod error;
mod fragment;
mod h264;
mod negotiate;
mod offer;
mod simulcast;
#[cfg(test)]
mod tests;
mod types;

pub use answer::write_answer;
pub use error::OfferError;
pub use fragment::{FragmentError, FragmentTemplate, IceFragment};
pub use negotiate::{negotiate_player, negotiate_publisher};
pub use offer::Offer;
pub use types::*;
