//! Batched UDP with GSO and GRO, socket buffers, verification of node tuning.
