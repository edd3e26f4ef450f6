//! The directory of tables on this node, and the placement of sessions on shards.
