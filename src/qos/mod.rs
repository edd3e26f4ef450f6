//! What players report about the picture, beside what they were offered: how much of it they see.
//!
//! In: `stats` messages of players, which nobody vouches for, and counts of what the table offered meanwhile. Out: increments
//! that a table adds up, means over its players, histograms. Knows no session, socket or clock.
//!
//! A report moves its table by one player's weight and no further, whatever is in it: numbers are held to what can happen in
//! the time since the report before, and reports that come too soon are not taken.

mod histogram;
mod playback;
mod spread;
mod statistics;
mod table;

pub use histogram::{Bounds, Histogram, LiveBounds, TimeHistogram};
pub use playback::{Breach, Increment, Losses, Offered, Playback, Withheld};
pub use spread::Spread;
pub use statistics::PlayerStatistics;
pub use table::{QosReport, Shares, TableQos};
