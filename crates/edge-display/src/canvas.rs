//! A picture in memory that embedded-graphics draws to.

use std::convert::Infallible;

use embedded_graphics::Pixel;
use embedded_graphics::draw_target::DrawTarget;
use embedded_graphics::geometry::{Dimensions, OriginDimensions, Point, Size};
use embedded_graphics::pixelcolor::PixelColor;
use embedded_graphics::primitives::{PointsIter, Rectangle};

/// Pixels in rows; what is drawn outside is lost.
#[derive(Clone)]
pub struct Canvas<C> {
    size: Size,
    pixels: Vec<C>,
}

impl<C: PixelColor> Canvas<C> {
    /// A canvas of one colour.
    pub fn new(width: u32, height: u32, color: C) -> Self {
        Self { size: Size::new(width, height), pixels: vec![color; width as usize * height as usize] }
    }

    /// All pixels, row by row.
    pub fn pixels(&self) -> &[C] {
        &self.pixels
    }

    /// The rows from the first to the last that differs from another canvas of the same size.
    pub fn changed_rows(&self, other: &Self) -> std::ops::Range<usize> {
        let width = (self.size.width as usize).max(1);
        let rows = || self.pixels.chunks(width).zip(other.pixels.chunks(width));
        match rows().position(|(a, b)| a != b) {
            Some(first) => first..rows().rposition(|(a, b)| a != b).map_or(first, |last| last + 1),
            None => 0..0,
        }
    }

    /// Some rows.
    pub fn rows(&self, rows: std::ops::Range<usize>) -> &[C] {
        let width = self.size.width as usize;
        self.pixels.get(rows.start * width..rows.end * width).unwrap_or_default()
    }
}

impl<C> OriginDimensions for Canvas<C> {
    fn size(&self) -> Size {
        self.size
    }
}

impl<C: PixelColor> DrawTarget for Canvas<C> {
    type Color = C;
    type Error = Infallible;

    fn draw_iter<I: IntoIterator<Item = Pixel<C>>>(&mut self, pixels: I) -> Result<(), Infallible> {
        for Pixel(at, color) in pixels {
            if let (Ok(x), Ok(y)) = (u32::try_from(at.x), u32::try_from(at.y))
                && x < self.size.width
                && let Some(pixel) = self.pixels.get_mut(y as usize * self.size.width as usize + x as usize)
            {
                *pixel = color;
            }
        }
        Ok(())
    }

    fn fill_solid(&mut self, area: &Rectangle, color: C) -> Result<(), Infallible> {
        let area = area.intersection(&self.bounding_box());
        let (left, width) = (area.top_left.x as usize, area.size.width as usize);
        for row in area.rows() {
            let from = row as usize * self.size.width as usize + left;
            self.pixels[from..from + width].fill(color);
        }
        Ok(())
    }
}

/// Draws every pixel as a square of pixels, so that small fonts serve large screens.
pub(crate) struct Enlarged<'a, D> {
    target: &'a mut D,
    factor: i32,
}

impl<'a, D: DrawTarget> Enlarged<'a, D> {
    /// Draws `factor` times larger on `target`.
    pub(crate) fn new(target: &'a mut D, factor: i32) -> Self {
        Self { target, factor: factor.max(1) }
    }

    fn square(&self, area: &Rectangle) -> Rectangle {
        Rectangle::new(
            self.target.bounding_box().top_left + area.top_left * self.factor,
            area.size * self.factor as u32,
        )
    }
}

impl<D: DrawTarget> OriginDimensions for Enlarged<'_, D> {
    fn size(&self) -> Size {
        self.target.bounding_box().size / self.factor as u32
    }
}

impl<D: DrawTarget> DrawTarget for Enlarged<'_, D> {
    type Color = D::Color;
    type Error = D::Error;

    fn draw_iter<I: IntoIterator<Item = Pixel<D::Color>>>(&mut self, pixels: I) -> Result<(), D::Error> {
        if self.factor == 1 && self.target.bounding_box().top_left == Point::zero() {
            return self.target.draw_iter(pixels);
        }
        for Pixel(at, color) in pixels {
            self.target.fill_solid(&self.square(&Rectangle::new(at, Size::new(1, 1))), color)?;
        }
        Ok(())
    }

    fn fill_solid(&mut self, area: &Rectangle, color: D::Color) -> Result<(), D::Error> {
        self.target.fill_solid(&self.square(area), color)
    }

    fn fill_contiguous<I: IntoIterator<Item = D::Color>>(
        &mut self,
        area: &Rectangle,
        colors: I,
    ) -> Result<(), D::Error> {
        self.draw_iter(area.points().zip(colors).map(|(at, color)| Pixel(at, color)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use embedded_graphics::pixelcolor::Gray8;

    #[test]
    fn nothing_is_drawn_outside() {
        let mut canvas = Canvas::new(3, 2, Gray8::new(0));
        let one = Gray8::new(1);
        let outside = [(-1, 0), (3, 0), (0, 2), (i32::MAX, i32::MAX), (i32::MIN, 0)];
        canvas.draw_iter(outside.map(|(x, y)| Pixel(Point::new(x, y), one))).unwrap();
        assert!(canvas.pixels().iter().all(|p| *p == Gray8::new(0)));
        let before = canvas.clone();
        assert!(canvas.changed_rows(&before).is_empty());
        canvas.fill_solid(&Rectangle::new(Point::new(2, 1), Size::new(9, 9)), one).unwrap();
        assert_eq!(canvas.changed_rows(&before), 1..2);
        assert_eq!(canvas.rows(1..2), [Gray8::new(0), Gray8::new(0), one]);
    }

    #[test]
    fn pixels_grow_to_squares() {
        let mut canvas = Canvas::new(5, 4, Gray8::new(0));
        let mut large = Enlarged::new(&mut canvas, 2);
        assert_eq!(large.size(), Size::new(2, 2));
        large.draw_iter([Pixel(Point::new(1, 0), Gray8::new(7))]).unwrap();
        let lit: Vec<usize> = (0..20).filter(|&i| canvas.pixels()[i] == Gray8::new(7)).collect();
        assert_eq!(lit, [2, 3, 7, 8]);
    }
}
