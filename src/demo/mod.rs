//! The embedded dealer.
