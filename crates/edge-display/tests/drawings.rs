//! Drawings at the usual sizes, as someone has looked at and found good: `tests/goldens/display`.
//!
//! With `EDGE_DISPLAY_WRITE=1` they are written anew; look at them before they are committed.

use std::path::{Path, PathBuf};

use edge_display::{Canvas, Snapshot, Status, draw};
use embedded_graphics::Pixel;
use embedded_graphics::draw_target::DrawTarget;
use embedded_graphics::geometry::{OriginDimensions, Point, Size};
use embedded_graphics::pixelcolor::{BinaryColor, Rgb565, Rgb888, RgbColor};
use proptest::prelude::*;

/// 128x64 is a screen of two colours, the others have many.
const SIZES: [(u32, u32); 4] = [(240, 240), (320, 240), (128, 64), (800, 480)];

fn goldens() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/goldens/display")
}

fn classified(label: &str, score: f32, fps: f32, status: Status) -> Snapshot {
    Snapshot { label: label.into(), known: label != "unknown", score, fps: Some(fps), status }
}

fn states() -> Vec<(&'static str, Snapshot)> {
    let running = || Status::good("running");
    vec![
        ("normal", classified("Egyptian cat", 0.93, 9.8, running())),
        ("short", classified("cup", 1.0, 24.0, running())),
        (
            "long",
            classified(
                "German short-haired pointer, Deutscher Kurzhaariger Vorstehhund, in the morning and the evening sun",
                0.58,
                9.8,
                running(),
            ),
        ),
        ("word", classified("Rindfleischetikettierungsüberwachungsaufgabe", 0.41, 0.4, running())),
        ("latin", classified("Crème brûlée à l’Ångström, łódź, 猫", 0.77, 12.0, running())),
        ("unknown", classified("unknown", 0.21, 9.8, running())),
        ("low", classified("coffee mug", 0.08, 9.8, running())),
        ("full", classified("Egyptian cat", 0.93, 9.8, Status::bad("log full"))),
        ("waiting", Snapshot { status: Status::waiting("waiting for the camera"), ..Snapshot::default() }),
        ("broken", Snapshot { status: Status::bad("package refused: signature"), ..Snapshot::default() }),
        ("stalled", classified("Egyptian cat", 0.93, 0.0, Status::waiting("no frame for 12 s"))),
    ]
}

/// What a screen of that size shows, in its own colours.
fn drawn(snapshot: &Snapshot, (width, height): (u32, u32)) -> image::RgbImage {
    let rgb: Vec<Rgb888> = if height == 64 {
        let mut canvas = Canvas::new(width, height, BinaryColor::On);
        draw(snapshot, &mut canvas).unwrap();
        canvas.pixels().iter().map(|p| if p.is_on() { Rgb888::WHITE } else { Rgb888::BLACK }).collect()
    } else {
        let mut canvas = Canvas::new(width, height, Rgb565::WHITE);
        draw(snapshot, &mut canvas).unwrap();
        canvas.pixels().iter().map(|p| Rgb888::from(*p)).collect()
    };
    let bytes = rgb.iter().flat_map(|p| [p.r(), p.g(), p.b()]).collect();
    image::RgbImage::from_raw(width, height, bytes).unwrap()
}

#[test]
fn drawings_are_as_someone_found_good() {
    let write = std::env::var_os("EDGE_DISPLAY_WRITE").is_some();
    for (name, snapshot) in states() {
        for (width, height) in SIZES {
            let path = goldens().join(format!("{width}x{height}-{name}.png"));
            let picture = drawn(&snapshot, (width, height));
            if write {
                std::fs::create_dir_all(goldens()).unwrap();
                picture.save(&path).unwrap();
            } else {
                let golden = image::open(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display())).into_rgb8();
                assert!(picture == golden, "{} is drawn otherwise", path.display());
            }
        }
    }
}

/// A target that refuses to be drawn on outside.
struct Strict(Size);

impl OriginDimensions for Strict {
    fn size(&self) -> Size {
        self.0
    }
}

impl DrawTarget for Strict {
    type Color = Rgb888;
    type Error = Point;

    fn draw_iter<I: IntoIterator<Item = Pixel<Rgb888>>>(&mut self, pixels: I) -> Result<(), Point> {
        let inside = |at: Point| (0..self.0.width as i32).contains(&at.x) && (0..self.0.height as i32).contains(&at.y);
        pixels.into_iter().map(|p| p.0).find(|at| !inside(*at)).map_or(Ok(()), Err)
    }
}

#[test]
fn nothing_is_cut_at_the_usual_sizes() {
    let sizes = [(240, 240), (320, 240), (240, 320), (128, 64), (128, 32), (160, 128), (480, 320), (1920, 1080)];
    for (name, snapshot) in states() {
        for (width, height) in sizes {
            let drawn = draw(&snapshot, &mut Strict(Size::new(width, height)));
            assert_eq!(drawn, Ok(()), "{name} at {width}x{height}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_panics_and_nothing_is_cut(
        label in "\\PC{0,60}",
        status in any::<String>(),
        score in any::<f32>(),
        fps in prop::option::of(any::<f32>()),
        (width, height) in (1..400_u32, 1..300_u32),
        known in any::<bool>(),
        level in 0..3,
    ) {
        let status = match level { 0 => Status::good(status), 1 => Status::waiting(status), _ => Status::bad(status) };
        let snapshot = Snapshot { label, known, score, fps, status };
        let drawn = draw(&snapshot, &mut Strict(Size::new(width, height)));
        if width >= 128 && height >= 64 {
            prop_assert_eq!(drawn, Ok(()));
        }
    }
}
