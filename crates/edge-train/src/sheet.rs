//! A contact sheet: what augmentation does to a few photos, a row each.

use image::{ImageFormat, Rgb, RgbImage};
use std::io::Cursor;

/// Pixels between pictures.
const GAP: u32 = 4;

/// A picture as float32 of 0…255, (H,W,3).
pub struct View {
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// Its pixels.
    pub pixels: Vec<f32>,
}

/// A PNG of rows of pictures, all of one size. The error says what the encoder said.
pub fn png(rows: &[Vec<View>]) -> Result<Vec<u8>, image::ImageError> {
    let (width, height) = rows.iter().flatten().map(|v| (v.width, v.height)).next().unwrap_or((1, 1));
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0).max(1) as u32;
    let across = columns * (width + GAP) + GAP;
    let down = rows.len().max(1) as u32 * (height + GAP) + GAP;
    let mut sheet = RgbImage::from_pixel(across, down, Rgb([255; 3]));
    for (y, row) in rows.iter().enumerate() {
        for (x, view) in row.iter().enumerate() {
            let (left, top) = (GAP + x as u32 * (width + GAP), GAP + y as u32 * (height + GAP));
            for (at, pixel) in view.pixels.as_chunks::<3>().0.iter().enumerate() {
                let (px, py) = (at as u32 % view.width, at as u32 / view.width);
                if px < width && py < height {
                    sheet.put_pixel(left + px, top + py, Rgb(pixel.map(|v| v.round().clamp(0.0, 255.0) as u8)));
                }
            }
        }
    }
    let mut bytes = vec![];
    sheet.write_to(&mut Cursor::new(&mut bytes), ImageFormat::Png)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_stand_where_they_should() {
        let view = |value: f32| View { width: 2, height: 1, pixels: vec![value; 6] };
        let bytes = png(&[vec![view(0.0), view(300.0)], vec![view(127.6)]]).unwrap();
        let sheet = image::load_from_memory(&bytes).unwrap().to_rgb8();
        assert_eq!(sheet.dimensions(), (2 * 6 + 4, 2 * 5 + 4));
        assert_eq!(sheet.get_pixel(4, 4).0, [0; 3]);
        assert_eq!(sheet.get_pixel(10, 4).0, [255; 3]);
        assert_eq!(sheet.get_pixel(5, 9).0, [128; 3]);
        assert!(png(&[]).is_ok());
    }
}
