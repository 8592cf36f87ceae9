//! Pooling under a window, forward and back.

use edge_kernels::Window;

/// The mean under a window.
#[derive(Debug, Clone)]
pub struct Average {
    pub window: Window,
    /// Whether pixels outside the picture count, as zeros.
    pub outside: bool,
}

/// Calls `each` with the place of a pixel of the output, and the places under it within the picture.
fn places(w: &Window, mut each: impl FnMut(usize, &[usize])) {
    let mut under = vec![];
    for at in 0..w.positions() {
        under.clear();
        for tap in 0..w.kernel[0] * w.kernel[1] {
            let (row, column) = (tap / w.kernel[1], tap % w.kernel[1]);
            let place = (w.source(0, at / w.output[1], row), w.source(1, at % w.output[1], column));
            if let (Some(row), Some(column)) = place {
                under.push(row * w.input[1] + column);
            }
        }
        each(at, &under);
    }
}

/// Pictures of (H,W,C), and as many of the output.
fn pictures<'a>(w: &Window, channels: usize, x: &'a [f32]) -> impl Iterator<Item = &'a [f32]> {
    x.chunks_exact(w.input[0] * w.input[1] * channels)
}

/// The largest under a window.
pub fn max(w: &Window, channels: usize, x: &[f32], out: &mut [f32]) {
    for (x, out) in pictures(w, channels, x).zip(out.chunks_exact_mut(w.positions() * channels)) {
        places(w, |at, under| {
            let out = &mut out[at * channels..(at + 1) * channels];
            out.fill(f32::NEG_INFINITY);
            for place in under {
                let pixel = &x[place * channels..(place + 1) * channels];
                out.iter_mut().zip(pixel).for_each(|(o, x)| *o = o.max(*x));
            }
        });
    }
}

/// The slopes at the input: of equal values, the first has it.
pub fn max_back(w: &Window, channels: usize, x: &[f32], out: &[f32], slopes: &[f32]) -> Vec<f32> {
    let mut before = vec![0.0; x.len()];
    let size = w.positions() * channels;
    let outputs = out.chunks_exact(size).zip(slopes.chunks_exact(size));
    let inputs = pictures(w, channels, x).zip(before.chunks_exact_mut(w.input[0] * w.input[1] * channels));
    for ((x, before), (out, slopes)) in inputs.zip(outputs) {
        places(w, |at, under| {
            for c in 0..channels {
                let from = at * channels + c;
                if let Some(place) = under.iter().find(|p| x[*p * channels + c] == out[from]) {
                    before[place * channels + c] += slopes[from];
                }
            }
        });
    }
    before
}

impl Average {
    fn share(&self, under: usize) -> f32 {
        let all = self.window.kernel[0] * self.window.kernel[1];
        1.0 / (if self.outside { all } else { under }).max(1) as f32
    }

    pub fn forward(&self, channels: usize, x: &[f32], out: &mut [f32]) {
        let w = &self.window;
        for (x, out) in pictures(w, channels, x).zip(out.chunks_exact_mut(w.positions() * channels)) {
            places(w, |at, under| {
                let share = self.share(under.len());
                let out = &mut out[at * channels..(at + 1) * channels];
                for place in under {
                    let pixel = &x[place * channels..(place + 1) * channels];
                    out.iter_mut().zip(pixel).for_each(|(o, x)| *o += x * share);
                }
            });
        }
    }

    pub fn back(&self, channels: usize, input: usize, slopes: &[f32]) -> Vec<f32> {
        let w = &self.window;
        let mut before = vec![0.0; input];
        let pictures = before.chunks_exact_mut(w.input[0] * w.input[1] * channels);
        for (before, slopes) in pictures.zip(slopes.chunks_exact(w.positions() * channels)) {
            places(w, |at, under| {
                let share = self.share(under.len());
                let slopes = &slopes[at * channels..(at + 1) * channels];
                for place in under {
                    let pixel = &mut before[place * channels..(place + 1) * channels];
                    pixel.iter_mut().zip(slopes).for_each(|(b, s)| *b += s * share);
                }
            });
        }
        before
    }
}
