//! RTCP (RFC 3550 §6, RFC 4585, RFC 5104, RFC 5506, transport-wide feedback): reading, writing, and the accounting
//! that reports are made from.
//!
//! Enters: clear RTCP from a peer, and the extended sequence numbers and arrival times of a publisher's packets. Leaves:
//! typed views of what the peer said, and our own reports, requests and feedback in a buffer of the caller.
//! Refuses to know: SRTCP, when a report is due, and what is done about a loss.
//!
//! Reading and writing allocate nothing; a view borrows the datagram.

mod loss;
mod ntp;
mod read;
mod reception;
mod records;
mod twcc;
mod twcc_recorder;
mod write;

use thiserror::Error;

pub use loss::{LossDetector, LossPolicy};
pub use ntp::NtpTime;
pub use read::{Packet, Packets, packets};
pub use reception::{ReceptionStats, round_trip};
pub use records::{
    FirEntry, NackEntries, Record, Records, ReportBlock, SdesChunk, SdesChunks, SenderInfo, XrBlock, XrBlocks,
};
pub use twcc::{TwccFeedback, TwccStatuses};
pub use twcc_recorder::TwccRecorder;
pub use write::RtcpWriter;

/// Why RTCP could not be read or written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum RtcpError {
    /// The datagram ends before the packet does, or there is less than a header.
    #[error("RTCP packet is cut short")]
    Truncated,
    /// The version is not 2.
    #[error("not RTCP version 2")]
    Version,
    /// The padding is longer than the packet, or empty.
    #[error("RTCP padding is wrong")]
    Padding,
    /// What the body claims to hold does not fit its length.
    #[error("RTCP packet of type {packet_type} is malformed")]
    Malformed {
        /// The packet type.
        packet_type: u8,
    },
    /// The buffer has no room; nothing of the packet was written.
    #[error("no room for the RTCP packet")]
    NoRoom,
    /// More entries than the count field can say.
    #[error("too many entries for an RTCP packet")]
    TooMany,
}

/// Bytes of the header that all packets share (RFC 3550 §6.1).
const HEADER_LEN: usize = 4;

/// Packet types, and message types of feedback packets.
pub(crate) mod types {
    pub(super) const SENDER_REPORT: u8 = 200;
    pub(crate) const RECEIVER_REPORT: u8 = 201;
    pub(super) const SOURCE_DESCRIPTION: u8 = 202;
    pub(super) const BYE: u8 = 203;
    pub(crate) const TRANSPORT_FEEDBACK: u8 = 205;
    pub(crate) const PAYLOAD_FEEDBACK: u8 = 206;
    pub(crate) const EXTENDED_REPORT: u8 = 207;

    pub(super) const FMT_NACK: u8 = 1;
    pub(super) const FMT_TRANSPORT_CC: u8 = 15;
    pub(super) const FMT_PLI: u8 = 1;
    pub(super) const FMT_FIR: u8 = 4;
    pub(super) const FMT_APPLICATION: u8 = 15;

    pub(super) const SDES_CNAME: u8 = 1;
    pub(super) const XR_RECEIVER_REFERENCE_TIME: u8 = 4;
}

/// The name that opens a REMB message (draft-alvestrand-rmcat-remb §2.2).
const REMB: [u8; 4] = *b"REMB";
