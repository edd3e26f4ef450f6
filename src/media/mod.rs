//! What a media packet is: RTP views, codec facts, frame boundaries, and the ring that keeps a track's recent past.
//!
//! Enters: clear RTP packets of one publisher. Leaves: packets with a track-wide index and timestamp, the facts a
//! forwarder needs (frame start and end, keyframe, safe join point), and the cached group of pictures.
//! Refuses to know: sockets, clocks, encryption, players.
//!
//! # The way of a packet through the room
//!
//! 1. [`RtpHeader::parse_header`] reads the header, which SRTP leaves in clear; [`RtpHeader::resolve_padding`] follows
//!    once the payload is unsealed.
//! 2. [`Timeline::place`] gives it an index that never wraps, and a timestamp that survives the publisher's return.
//! 3. [`facts`] reads what the payload says about frames.
//!    What a keyframe lacks for joiners, its [`ParameterSets`], goes before it as a packet of its own; a frame of an upper spatial
//!    layer is made to rest on the one below ([`SpatialTies`]).
//! 4. [`PacketPool::store`] copies it into recycled memory; the [`Packet`] is shared from here on, never copied.
//! 5. [`PacketRing::insert`] keeps it for joiners and for retransmission; [`FrameTracker::observe`] counts frames.
//!
//! On the way out, [`write_header`] lays out a header whose values can be patched in place.

mod av1;
mod codec;
mod dependency_descriptor;
mod dependency_structure;
mod extension;
mod frames;
mod h264;
mod h265;
mod header_writer;
mod packet;
mod parameter_sets;
mod picture;
mod rate;
mod red;
mod ring;
mod rtp;
mod ties;
mod timeline;
mod vp8;
mod vp9;

pub use codec::{Climb, Codec, MediaKind, PayloadFacts, SPATIAL_LAYERS, facts};
pub use dependency_descriptor::{DescriptorNumbers, MAX_DESCRIPTOR};
pub use dependency_structure::{Described, DescriptorReader};
pub use extension::{AbsCaptureTime, AbsSendTime, Extensions, PlayoutDelay};
pub use frames::{FrameCounts, FrameTracker};
pub use header_writer::{HeaderFields, HeaderLayout, MAX_ELEMENTS, write_header};
pub use packet::{ClearPacket, MAX_PAYLOAD, Packet, PacketPool};
pub use parameter_sets::ParameterSets;
pub use picture::{PictureSize, picture_size};
pub use rate::RateWindow;
pub use red::{PrimaryBlock, RedPayload, RedundantBlock, red_facts};
pub use ring::{Inserted, PacketRing};
pub use rtp::{ExtensionBlock, FIXED_HEADER_LEN, RtpError, RtpHeader, SEQUENCE_NUMBER, SSRC, TIMESTAMP};
pub use ties::{Lower, SpatialTies};
pub(crate) use timeline::is_newer;
pub use timeline::{Placement, Position, Timeline};
pub use vp8::Vp8Numbers;
