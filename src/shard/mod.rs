//! Owns the sessions and streams of one core.

mod report;

pub use report::*;
