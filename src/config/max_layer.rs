//! The highest layer of a simulcast that a player is given.

use std::fmt;
use std::str::FromStr;

/// A place in the order of a publisher's layers, from the least, which is 0. It counts all that the publisher offers,
/// whether they come or not, so that it means the same picture whichever of them come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MaxLayer(u8);

/// Not the place of a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the highest layer is a whole number from 0, the least layer, to {}", MaxLayer::HIGHEST)]
pub struct InvalidMaxLayer;

impl MaxLayer {
    /// Of the most layers that a publisher may offer, which are six.
    pub const HIGHEST: u8 = 5;

    /// `None` above [`MaxLayer::HIGHEST`].
    pub const fn new(place: u8) -> Option<Self> {
        if place <= Self::HIGHEST { Some(Self(place)) } else { None }
    }

    /// The place, from 0.
    pub const fn place(self) -> usize {
        self.0 as usize
    }

    /// The lower of two, where either may be missing: then the other one holds.
    pub fn lower(one: Option<Self>, other: Option<Self>) -> Option<Self> {
        one.into_iter().chain(other).min()
    }
}

impl fmt::Display for MaxLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for MaxLayer {
    type Err = InvalidMaxLayer;

    /// One digit, as it is written into a URL.
    fn from_str(s: &str) -> Result<Self, InvalidMaxLayer> {
        match s.as_bytes() {
            [digit @ b'0'..=b'9'] => Self::new(digit - b'0').ok_or(InvalidMaxLayer),
            _ => Err(InvalidMaxLayer),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_lower_of_both_holds() {
        let [one, two] = [1, 2].map(MaxLayer::new);
        for (a, b, lower) in [(None, None, None), (one, None, one), (None, two, two), (one, two, one), (two, one, one)]
        {
            assert_eq!(MaxLayer::lower(a, b), lower, "{a:?} and {b:?}");
        }
        assert_eq!(MaxLayer::new(MaxLayer::HIGHEST + 1), None);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_and_nothing_else(text in "(\\PC{0,3}|[0-9+-]{0,2})") {
            match text.parse::<MaxLayer>() {
                Ok(layer) => prop_assert_eq!(layer.to_string(), text),
                Err(InvalidMaxLayer) => prop_assert!(!(0..=MaxLayer::HIGHEST).any(|place| place.to_string() == text)),
            }
        }
    }
}
