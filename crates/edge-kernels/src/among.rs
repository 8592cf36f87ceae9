//! Channels among others: what several layers make beside each other in one buffer.

/// Where the channels of a pixel lie in a buffer that may hold others beside them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Among {
    /// Values from a pixel to the next.
    pub pitch: usize,
    /// Where these channels begin in a pixel.
    pub first: usize,
    /// How many they are, padded to whole vectors.
    pub channels: usize,
}

impl Among {
    /// So many channels with nothing beside them.
    pub fn alone(channels: usize) -> Among {
        Among { pitch: channels, first: 0, channels }
    }

    /// Whether nothing is beside them.
    pub fn is_alone(&self) -> bool {
        self.pitch == self.channels
    }

    /// That so many pixels of these channels lie in `length` values.
    ///
    /// # Panics
    /// Where they do not.
    pub(crate) fn check(&self, pixels: usize, length: usize) {
        let end = self.first.checked_add(self.channels);
        assert!(self.channels > 0 && end.is_some_and(|end| end <= self.pitch), "{self:?}");
        assert_eq!(Some(length), pixels.checked_mul(self.pitch), "{pixels} pixels of {self:?}");
    }
}
