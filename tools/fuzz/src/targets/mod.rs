//! One module a target: `run`, which reads an input, and `seeds`, which real peers might have sent.

pub(crate) mod audit;
pub(crate) mod bet_service;
pub(crate) mod bets;
pub(crate) mod bystander;
pub(crate) mod channels;
pub(crate) mod config;
pub(crate) mod demux;
pub(crate) mod descriptor;
pub(crate) mod dtls;
pub(crate) mod frames;
pub(crate) mod jetstream;
pub(crate) mod media;
pub(crate) mod payload;
pub(crate) mod rtcp;
pub(crate) mod rtp;
pub(crate) mod s3;
pub(crate) mod sdp;
pub(crate) mod shard;
pub(crate) mod srtp;
pub(crate) mod stun;
pub(crate) mod tokens;
