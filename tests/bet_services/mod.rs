//! The benches on which connectors are tried, and the tests that all of them have in common.

pub mod bench;
pub mod contract;
pub mod faults;
pub mod files;
pub mod http;
pub mod http_only;
pub mod ledger;
pub mod nats;
pub mod nats_only;
pub mod node;
pub mod proxy;
