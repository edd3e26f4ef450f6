//! The sans-IO WebRTC endpoint, answerer only: SDP, ICE-lite, DTLS, SRTP, RTCP, SCTP.
//!
//! Enters: an SDP offer, then datagrams with their source address and `now`. Leaves: an SDP answer, datagrams to send,
//! decrypted RTP and RTCP, data channel messages, and the end of the session with its cause.
//! Refuses to know: sockets, clocks, which table is watched, and who else is.

pub mod data_channel;
pub mod demux;
pub mod dtls;
mod endpoint;
pub mod ice_lite;
pub mod rtcp;
mod sctp_guard;
mod sctp_prompt;
pub mod sdp;
pub mod srtp;
pub mod stun;
mod transport_address;

pub use endpoint::{CloseCause, Endpoint, EndpointConfig, EndpointError, EndpointEvent, Transmit};
pub use transport_address::{Transport, TransportAddress};
