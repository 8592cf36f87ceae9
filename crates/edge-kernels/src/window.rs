//! Windows that slide over a picture: the geometry that convolutions and pooling share.

use std::ops::Range;

/// A window over a picture of (H,W).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Height and width of the picture.
    pub input: [usize; 2],
    /// Height and width of the result.
    pub output: [usize; 2],
    /// Rows and columns of the window.
    pub kernel: [usize; 2],
    /// Pixels from one position to the next.
    pub stride: [usize; 2],
    /// Pixels from one tap to the next.
    pub dilation: [usize; 2],
    /// Pixels outside the picture above and left of it.
    pub before: [usize; 2],
}

impl Window {
    /// A window with padding before and after; `None` where nothing comes out, a number is zero or does not fit.
    pub fn new(
        input: [usize; 2],
        kernel: [usize; 2],
        stride: [usize; 2],
        dilation: [usize; 2],
        before: [usize; 2],
        after: [usize; 2],
    ) -> Option<Window> {
        let mut output = [0; 2];
        for i in 0..2 {
            if input[i] == 0 || kernel[i] == 0 || stride[i] == 0 || dilation[i] == 0 {
                return None;
            }
            let reach = (kernel[i] - 1).checked_mul(dilation[i])?.checked_add(1)?;
            let padded = input[i].checked_add(before[i])?.checked_add(after[i])?;
            output[i] = padded.checked_sub(reach)? / stride[i] + 1;
        }
        Some(Window { input, output, kernel, stride, dilation, before })
    }

    /// Positions of the window.
    pub fn positions(&self) -> usize {
        self.output[0] * self.output[1]
    }

    /// The pixel, counted row by row, under the first tap at a position; none outside the picture.
    pub fn pixel(&self, y: usize, x: usize) -> Option<usize> {
        Some(self.source(0, y, 0)? * self.input[1] + self.source(1, x, 0)?)
    }

    /// The row (axis 0) or column (axis 1) under `tap` at position `at`, or none outside the picture.
    #[inline(always)]
    pub fn source(&self, axis: usize, at: usize, tap: usize) -> Option<usize> {
        let place = (at * self.stride[axis] + tap * self.dilation[axis]).wrapping_sub(self.before[axis]);
        (place < self.input[axis]).then_some(place)
    }

    /// The taps of `axis` that lie inside the picture at position `at`.
    #[inline(always)]
    pub(crate) fn inside(&self, axis: usize, at: usize) -> Range<usize> {
        let first = at * self.stride[axis];
        let (before, step) = (self.before[axis], self.dilation[axis]);
        let low = before.saturating_sub(first).div_ceil(step);
        let high = (self.input[axis] + before).saturating_sub(first).div_ceil(step);
        low.min(self.kernel[axis])..high.min(self.kernel[axis])
    }

    /// Positions of `axis` whose taps all lie inside the picture.
    pub(crate) fn whole(&self, axis: usize) -> Range<usize> {
        let reach = (self.kernel[axis] - 1) * self.dilation[axis] + 1;
        let low = self.before[axis].div_ceil(self.stride[axis]).min(self.output[axis]);
        let room = (self.input[axis] + self.before[axis]).checked_sub(reach);
        let high = room.map_or(0, |r| r / self.stride[axis] + 1).clamp(low, self.output[axis].max(low));
        low..high
    }
}

#[cfg(test)]
pub(crate) fn any() -> impl proptest::strategy::Strategy<Value = Window> {
    use proptest::prelude::*;
    let pair = |range: std::ops::Range<usize>| [range.clone(), range];
    (pair(1..12), pair(1..6), pair(1..4), pair(1..4), pair(0..4), pair(0..4))
        .prop_filter_map("nothing comes out", |(i, k, s, d, b, a)| Window::new(i, k, s, d, b, a))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 4 } else { 256 }))]
        #[test]
        fn taps_inside_are_those_that_have_a_source(w in super::any()) {
            for axis in 0..2 {
                for at in 0..w.output[axis] {
                    let inside = w.inside(axis, at);
                    for tap in 0..w.kernel[axis] {
                        prop_assert_eq!(inside.contains(&tap), w.source(axis, at, tap).is_some());
                    }
                    prop_assert_eq!(w.whole(axis).contains(&at), inside == (0..w.kernel[axis]));
                }
            }
        }
    }
}
