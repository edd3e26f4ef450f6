//! Fuzz targets: everything of tableside that reads what a stranger wrote.
//!
//! A target is a plain function of bytes that must return, whatever they are, and whose assertions say what has to hold
//! besides. `tools/fuzz/run` drives them with libFuzzer; `cargo test` replays the committed corpus
//! (`tools/fuzz/corpus/TARGET/`) through the same functions, with no engine.
//!
//! To add one: a module in `targets/`, a line in [`TARGETS`], then `tools/fuzz/run --minimise TARGET` for its corpus. The
//! replay fails for a target without corpus, and for a corpus without target.

#![allow(clippy::disallowed_methods, reason = "virtual time begins at some instant")]

mod checksums;
mod input;
mod targets;

/// A function to be fuzzed, and inputs to begin with.
pub struct Target {
    /// Names its corpus, and it on the command line.
    pub name: &'static str,
    /// What it reads.
    pub reads: &'static str,
    /// Reads one input.
    ///
    /// # Panics
    /// On a fault of the product: that is what it is for.
    pub run: fn(&[u8]),
    /// What real peers send, in the target's own format.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

macro_rules! targets {
    ($($name:ident: $reads:literal),+ $(,)?) => {
        /// Every target.
        pub const TARGETS: &[Target] = &[$(Target {
            name: stringify!($name),
            reads: $reads,
            run: targets::$name::run,
            seeds: targets::$name::seeds,
        }),+];
    };
}

targets! {
    audit: "segments of an audit trail, and damage to one that was whole",
    bet_service: "what a bet service answers, and its stream of round events",
    bets: "bet signals of several players, and what becomes of them at the desk",
    bystander: "a player with keys, and strangers, against a publisher and a player that must notice nothing",
    channels: "SCTP packets of a player, DCEP among them",
    config: "the configuration file",
    demux: "any datagram",
    descriptor: "dependency descriptors of one stream, with and without their structures",
    dtls: "a DTLS handshake whose flights are damaged, lost, doubled",
    frames: "the byte stream of an ICE-TCP connection",
    jetstream: "messages of a file, as a NATS server answers them",
    media: "a publisher's clear RTP, through timeline, ring and frame counting",
    payload: "RTP payloads of every codec",
    rtcp: "RTCP compound packets",
    rtp: "RTP headers and their extensions",
    s3: "lists of versions, as an S3-compatible store answers them",
    sdp: "offers, their negotiation and the answer",
    shard: "a node of one or two shards with everybody misbehaving",
    srtp: "SRTP and SRTCP, sealed, damaged, replayed",
    stun: "STUN binding requests and responses, and ICE-lite",
    tokens: "tokens and key sets, signed, damaged, made up",
}

/// The target of this name.
pub fn target(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}
