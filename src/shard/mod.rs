//! Owns the sessions and streams of one core.
