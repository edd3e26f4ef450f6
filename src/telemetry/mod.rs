//! The metrics registry and logs; sums what shards report.
