//! What a media packet is: RTP views, codec facts, frame boundaries, and the ring that keeps a track's recent past.
//!
//! Enters: clear RTP packets of one publisher. Leaves: packets with a track-wide index and timestamp, the facts a
//! forwarder needs (frame start and end, keyframe, safe join point), and the cached group of pictures.
//! Refuses to know: sockets, clocks, encryption, players.

mod codec;
mod extension;
mod h264;
mod header_writer;
mod packet;
mod ring;
mod rtp;
mod timeline;
mod vp8;

pub use codec::{Codec, MediaKind, PayloadFacts, facts};
pub use extension::{AbsCaptureTime, Extensions, PlayoutDelay};
pub use header_writer::{HeaderFields, HeaderLayout, MAX_ELEMENTS, write_header};
pub use packet::{ClearPacket, MAX_PAYLOAD, Packet, PacketPool};
pub use ring::{Inserted, PacketRing};
pub use rtp::{ExtensionBlock, FIXED_HEADER_LEN, RtpError, RtpHeader, SEQUENCE_NUMBER, SSRC, TIMESTAMP};
pub use timeline::{Placement, Position, Timeline};
