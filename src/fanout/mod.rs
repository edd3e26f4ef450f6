//! Who gets what: subscriptions, header classes, numbering, sealing into send buffers.

mod send_batch;

pub use send_batch::{Message, SendBatch, TrafficClass};
