//! Training-time augmentation as Keras' `ImageDataGenerator` computes it (Keras 3.15,
//! `keras/src/legacy/preprocessing/image.py`, on SciPy 1.17 and Pillow 13).
//!
//! [`Augment`] says what may happen, [`Augment::draw`] decides what happens to one picture, and
//! [`Transform::apply`] does it:
//!
//! ```
//! use edge_vision::{Augment, synthetic};
//!
//! let augment = Augment::parse("hflip,rotate=10,shift=0.1,fill=reflect")?;
//! let picture = synthetic(1, 40, 30);
//! let pixels: Vec<f32> = augment.draw(42, picture.width(), picture.height()).apply(&picture);
//! assert_eq!(pixels.len(), 40 * 30 * 3);
//! # Ok::<(), edge_vision::AugmentError>(())
//! ```
//!
//! Only operations that IEEE 754 fixes to the last bit are used, so a seed gives the same pixels on every machine.
//! The random numbers are other ones than NumPy's; what is done with them is the same.

mod random;
mod text;
mod warp;

#[cfg(test)]
mod tests;

use crate::frame::Picture;
use random::{Kind, Stream};
pub use text::AugmentError;

/// What lies beyond the border of a picture; the names are Keras'.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Fill {
    /// The pixel at the border, `a a a a | a b c d | d d d d`; Keras' default.
    #[default]
    Nearest,
    /// The picture mirrored at its edge, `d c b a | a b c d | d c b a`.
    Reflect,
    /// Black; SciPy doesn't blend it with the border, a point outside is black as a whole.
    Constant,
    /// The picture again, as SciPy's `wrap` has it: the first pixel lies on the last one, `b c | a b c d | b c`.
    Wrap,
}

impl Fill {
    /// Every fill, in the order of the declaration.
    pub const ALL: [Self; 4] = [Self::Nearest, Self::Reflect, Self::Constant, Self::Wrap];

    /// The lower-case name, as Keras spells it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Nearest => "nearest",
            Self::Reflect => "reflect",
            Self::Constant => "constant",
            Self::Wrap => "wrap",
        }
    }
}

/// What may happen to a picture before a training step sees it; the default is that nothing does.
///
/// It is written as text such as `hflip,rotate=10,zoom=0.8..1.2`: [`Augment::parse`] reads it, `Display` and serde
/// write it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Augment {
    hflip: bool,
    vflip: bool,
    /// Degrees, up to which it is turned either way.
    rotate: f64,
    /// Fractions of width and height.
    shift: [f64; 2],
    /// Degrees, up to which it is sheared either way.
    shear: f64,
    /// Smallest and largest factor; both are 1 where nothing is zoomed.
    zoom: [f64; 2],
    /// Smallest and largest factor. Even a factor of 1 does something: it makes bytes of the pixels.
    brightness: Option<[f64; 2]>,
    /// Levels of 255, up to which all channels are raised or lowered.
    channel_shift: f64,
    fill: Fill,
}

impl Default for Augment {
    fn default() -> Self {
        Self {
            hflip: false,
            vflip: false,
            rotate: 0.0,
            shift: [0.0; 2],
            shear: 0.0,
            zoom: [1.0; 2],
            brightness: None,
            channel_shift: 0.0,
            fill: Fill::default(),
        }
    }
}

impl Augment {
    /// Reads `hflip,rotate=10,shift=0.1,shear=10,zoom=0.1,fill=reflect` and the like; empty text and `none`
    /// stand for no augmentation.
    ///
    /// | text | what is drawn for each picture |
    /// | --- | --- |
    /// | `hflip`, `vflip` | mirrored left to right, top to bottom, or not |
    /// | `rotate=R` | an angle in -R..R degrees |
    /// | `shift=S`, `shift=SxT` | a shift up to a fraction S of the width and S or T of the height |
    /// | `shear=S` | an angle in -S..S degrees |
    /// | `zoom=Z`, `zoom=A..B` | factors in 1-Z..1+Z or A..B, one for each axis; below 1 things grow |
    /// | `brightness=A..B` | a factor in A..B |
    /// | `channel_shift=C` | levels in -C..C of 255 |
    /// | `fill=F` | nothing; F is what lies beyond the border: `nearest`, `reflect`, `constant` or `wrap` |
    ///
    /// # Errors
    ///
    /// [`AugmentError`] says which word is wrong and what is possible there.
    pub fn parse(text: &str) -> Result<Self, AugmentError> {
        text.parse()
    }

    /// Whether every picture stays as it is.
    #[must_use]
    pub fn is_none(&self) -> bool {
        *self == Self { fill: self.fill, ..Self::default() }
    }

    /// What happens to one picture of this size.
    ///
    /// Each kind of augmentation draws from a stream of its own, so that switching one on or off leaves the
    /// others as they were. Seeds next to each other are as good as any.
    #[must_use]
    pub fn draw(&self, seed: u64, width: u32, height: u32) -> Transform {
        let stream = |kind| Stream::new(seed, kind);
        let mut transform = Transform { fill: self.fill, ..Transform::default() };
        if self.rotate != 0.0 {
            transform.theta = stream(Kind::Rotate).uniform(-self.rotate, self.rotate);
        }
        if self.shift != [0.0; 2] {
            let mut shift = stream(Kind::Shift);
            let [x, y] = self.shift.map(|s| shift.uniform(-s, s));
            (transform.tx, transform.ty) = (x * f64::from(width), y * f64::from(height));
        }
        if self.shear != 0.0 {
            transform.shear = stream(Kind::Shear).uniform(-self.shear, self.shear);
        }
        if self.zoom != [1.0; 2] {
            let mut zoom = stream(Kind::Zoom);
            let [low, high] = self.zoom;
            (transform.zx, transform.zy) = (zoom.uniform(low, high), zoom.uniform(low, high));
        }
        transform.flip_horizontal = self.hflip && stream(Kind::FlipHorizontal).unit() < 0.5;
        transform.flip_vertical = self.vflip && stream(Kind::FlipVertical).unit() < 0.5;
        if self.channel_shift != 0.0 {
            let intensity = stream(Kind::ChannelShift).uniform(-self.channel_shift, self.channel_shift);
            transform.channel_shift_intensity = Some(intensity);
        }
        transform.brightness = self.brightness.map(|[low, high]| stream(Kind::Brightness).uniform(low, high));
        transform
    }
}

/// What happens to one picture; the names are those of Keras' transform parameters.
///
/// All lengths and angles say where a pixel comes from, so what is seen moves the other way.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Transform {
    /// Turns, in degrees.
    pub theta: f64,
    /// Shifts along a row, in pixels.
    pub tx: f64,
    /// Shifts along a column, in pixels.
    pub ty: f64,
    /// Shears, in degrees.
    pub shear: f64,
    /// Scales along a row: below 1 things grow.
    pub zx: f64,
    /// Scales along a column: below 1 things grow.
    pub zy: f64,
    /// Mirrors left to right.
    pub flip_horizontal: bool,
    /// Mirrors top to bottom.
    pub flip_vertical: bool,
    /// Added to every number, within what the picture's smallest and largest are.
    pub channel_shift_intensity: Option<f64>,
    /// Multiplies every number, after its fraction is cut off.
    pub brightness: Option<f64>,
    /// What lies beyond the border.
    pub fill: Fill,
}

impl Default for Transform {
    /// Changes nothing.
    fn default() -> Self {
        Self {
            theta: 0.0,
            tx: 0.0,
            ty: 0.0,
            shear: 0.0,
            zx: 1.0,
            zy: 1.0,
            flip_horizontal: false,
            flip_vertical: false,
            channel_shift_intensity: None,
            brightness: None,
            fill: Fill::default(),
        }
    }
}

impl Transform {
    /// The numbers of the changed picture, shape (H, W, 3), 0..=255; bytes as floats where nothing is set.
    ///
    /// This is Keras' `ImageDataGenerator.apply_transform`, with what is odd about it: a picture that isn't
    /// square turns, shears and zooms around the point (H/2, W/2) from its left and top, not around its middle.
    /// Training resizes to the model's size first, and that is nearly always a square.
    #[must_use]
    pub fn apply(&self, picture: &Picture) -> Vec<f32> {
        let stride = picture.width() as usize * 3;
        let still = (self.theta, self.tx, self.ty, self.shear, self.zx, self.zy) == (0.0, 0.0, 0.0, 0.0, 1.0, 1.0);
        let mut pixels = if still {
            picture.pixels().iter().map(|&byte| f32::from(byte)).collect()
        } else {
            warp::affine(picture, &self.matrix(picture.width(), picture.height()), self.fill)
        };
        if let Some(intensity) = self.channel_shift_intensity {
            shift_channels(&mut pixels, intensity as f32);
        }
        if self.flip_horizontal {
            for row in pixels.chunks_exact_mut(stride) {
                row.as_chunks_mut::<3>().0.reverse();
            }
        }
        if self.flip_vertical {
            flip_rows(&mut pixels, stride);
        }
        if let Some(factor) = self.brightness {
            brighten(&mut pixels, factor as f32);
        }
        pixels
    }

    /// Where a pixel comes from: row and column are each a sum over the row, the column and 1.
    ///
    /// `transform_matrix_offset_center` is given height and width for x and y, but x is the column by the time
    /// its matrix is used: hence the point (H/2, W/2).
    fn matrix(&self, width: u32, height: u32) -> [[f64; 3]; 2] {
        let (sin, cos) = warp::sin_cos(self.theta);
        let mut matrix = [[cos, -sin, 0.0], [sin, cos, 0.0]];
        matrix = warp::product(&matrix, &[[1.0, 0.0, self.tx], [0.0, 1.0, self.ty]]);
        let (sin, cos) = warp::sin_cos(self.shear);
        matrix = warp::product(&matrix, &[[1.0, -sin, 0.0], [0.0, cos, 0.0]]);
        matrix = warp::product(&matrix, &[[self.zx, 0.0, 0.0], [0.0, self.zy, 0.0]]);
        let (x, y) = (f64::from(height) / 2.0 - 0.5, f64::from(width) / 2.0 - 0.5);
        let centered = warp::product(&[[1.0, 0.0, x], [0.0, 1.0, y]], &matrix);
        let [[xx, xy, x], [yx, yy, y]] = warp::product(&centered, &[[1.0, 0.0, -x], [0.0, 1.0, -y]]);
        [[yy, yx, y], [xy, xx, x]]
    }
}

/// Keras' `apply_channel_shift`: no number leaves the range that the picture's numbers have before.
fn shift_channels(pixels: &mut [f32], intensity: f32) {
    let (low, high) = pixels.iter().fold((f32::MAX, f32::MIN), |(low, high), &v| (low.min(v), high.max(v)));
    for v in pixels {
        *v = (*v + intensity).max(low).min(high);
    }
}

fn flip_rows(pixels: &mut [f32], stride: usize) {
    let mut rows = pixels.chunks_exact_mut(stride);
    while let (Some(top), Some(bottom)) = (rows.next(), rows.next_back()) {
        top.swap_with_slice(bottom);
    }
}

/// Keras' `apply_brightness_shift(x, factor, scale=False)`: the numbers become bytes, whose fractions are cut
/// off, and Pillow blends them with black.
///
/// Pillow blends with a factor in float32, cuts the fraction off, too, and keeps what it gets in 0..=255, which is
/// what `as u8` does. Keras rescales numbers outside 0..=255, but there are none after a warp and a channel shift.
fn brighten(pixels: &mut [f32], factor: f32) {
    let table: [f32; 256] = std::array::from_fn(|byte| f32::from((factor * byte as f32) as u8));
    for v in pixels {
        *v = table[usize::from(*v as u8)];
    }
}
