//! SSD1306 panels on I²C.

use std::path::Path;

use embedded_graphics::draw_target::DrawTarget;
use embedded_graphics::geometry::{OriginDimensions, Point, Size};
use embedded_graphics::pixelcolor::BinaryColor;
use embedded_graphics::primitives::Rectangle;
use embedded_hal::i2c::I2c;
use linux_embedded_hal::I2cdev;
use ssd1306::I2CDisplayInterface;
use ssd1306::Ssd1306;
use ssd1306::mode::{BufferedGraphicsMode, DisplayConfig};
use ssd1306::prelude::{DisplayRotation, DisplaySize128x32, DisplaySize128x64, I2CInterface};
use ssd1306::size::DisplaySize;

use super::{DisplayError, Panel};
use crate::canvas::Canvas;
use crate::snapshot::Snapshot;

/// Opens the bus, and draws for as long as `draw` does.
pub(super) fn with_oled(
    device: &Path,
    address: u8,
    height: u32,
    upside_down: bool,
    draw: &mut dyn FnMut(&mut dyn Panel) -> Result<(), DisplayError>,
) -> Result<(), DisplayError> {
    let name = device.display();
    let bus = I2cdev::new(device)
        .map_err(|e| DisplayError::bus(format!("cannot open {name} (is I2C on, this user in the group i2c?)"), e))?;
    run(bus, address, height, upside_down, draw).map_err(|e| match e {
        DisplayError::Bus { what, error } => {
            DisplayError::Bus { what: format!("{what} at {address:#04x} on {name}"), error }
        }
        other => other,
    })
}

/// Wakes the panel up and draws on it, whatever the bus is.
fn run<BUS: I2c>(
    bus: BUS,
    address: u8,
    height: u32,
    upside_down: bool,
    draw: &mut dyn FnMut(&mut dyn Panel) -> Result<(), DisplayError>,
) -> Result<(), DisplayError> {
    let rotation = if upside_down { DisplayRotation::Rotate180 } else { DisplayRotation::Rotate0 };
    let bus = I2CDisplayInterface::new_custom_address(bus, address);
    match height {
        32 => start(Ssd1306::new(bus, DisplaySize128x32, rotation).into_buffered_graphics_mode(), draw),
        _ => start(Ssd1306::new(bus, DisplaySize128x64, rotation).into_buffered_graphics_mode(), draw),
    }
}

type Oled<BUS, SIZE> = Ssd1306<I2CInterface<BUS>, SIZE, BufferedGraphicsMode<SIZE>>;

fn start<BUS: I2c, SIZE: DisplaySize>(
    mut panel: Oled<BUS, SIZE>,
    draw: &mut dyn FnMut(&mut dyn Panel) -> Result<(), DisplayError>,
) -> Result<(), DisplayError> {
    panel.init().map_err(|e| DisplayError::driver("no panel answers", e))?;
    let size = panel.size();
    draw(&mut Drawn { panel, canvas: Canvas::new(size.width, size.height, BinaryColor::Off) })
}

struct Drawn<BUS, SIZE: DisplaySize> {
    panel: Oled<BUS, SIZE>,
    canvas: Canvas<BinaryColor>,
}

impl<BUS: I2c, SIZE: DisplaySize> Panel for Drawn<BUS, SIZE> {
    /// Only the rows that changed go over the bus: all of it takes 25 ms at 400 kHz.
    fn show(&mut self, snapshot: &Snapshot) -> Result<(), DisplayError> {
        let before = self.canvas.clone();
        let Ok(()) = crate::draw(snapshot, &mut self.canvas);
        let rows = self.canvas.changed_rows(&before);
        if rows.is_empty() {
            return Ok(());
        }
        let width = self.canvas.size().width;
        let area = Rectangle::new(Point::new(0, rows.start as i32), Size::new(width, rows.len() as u32));
        let drawn = self.panel.fill_contiguous(&area, self.canvas.rows(rows).iter().copied());
        drawn.and_then(|()| self.panel.flush()).map_err(|e| DisplayError::driver("cannot draw on the panel", e))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use embedded_hal::i2c::{ErrorType, Operation};
    use std::cell::RefCell;
    use std::convert::Infallible;
    use std::rc::Rc;

    /// A controller that obeys as the data sheet says, as far as pages and columns go.
    #[derive(Default)]
    struct Controller {
        columns: (u8, u8),
        pages: (u8, u8),
        at: (u8, u8),
        on: bool,
        pending: Vec<u8>,
        sent: usize,
        memory: Vec<u8>,
    }

    impl Controller {
        fn command(&mut self, byte: u8) {
            self.pending.push(byte);
            let arguments = match self.pending[0] {
                0x20 | 0x81 | 0xa8 | 0xd3 | 0xd5 | 0xd9 | 0xda | 0xdb | 0x8d => 1,
                0x21 | 0x22 => 2,
                _ => 0,
            };
            if self.pending.len() <= arguments {
                return;
            }
            match self.pending[..] {
                [0x21, from, to] => (self.columns, self.at.0) = ((from, to), from),
                [0x22, from, to] => (self.pages, self.at.1) = ((from, to), from),
                [0xaf] => self.on = true,
                [0xae] => self.on = false,
                _ => {}
            }
            self.pending.clear();
        }

        fn data(&mut self, byte: u8) {
            self.sent += 1;
            self.memory[usize::from(self.at.1) * 128 + usize::from(self.at.0)] = byte;
            self.at.0 += 1;
            if self.at.0 > self.columns.1 {
                self.at = (self.columns.0, if self.at.1 == self.pages.1 { self.pages.0 } else { self.at.1 + 1 });
            }
        }
    }

    struct Bus(Rc<RefCell<Controller>>);

    impl ErrorType for Bus {
        type Error = Infallible;
    }
    impl I2c for Bus {
        fn transaction(&mut self, address: u8, operations: &mut [Operation<'_>]) -> Result<(), Infallible> {
            assert_eq!(address, 0x3d);
            for operation in operations {
                let Operation::Write(bytes) = operation else { panic!("the panel is only written to") };
                let mut controller = self.0.borrow_mut();
                match bytes[0] {
                    0x00 => bytes[1..].iter().for_each(|b| controller.command(*b)),
                    0x40 => bytes[1..].iter().for_each(|b| controller.data(*b)),
                    other => panic!("{other:#x} is no control byte"),
                }
            }
            Ok(())
        }
    }

    #[test]
    fn the_picture_arrives() {
        for height in [64, 32] {
            let controller = Rc::new(RefCell::new(Controller { memory: vec![0xaa; 1024], ..Controller::default() }));
            let snapshot = |label: &str| Snapshot {
                label: label.into(),
                known: true,
                score: 0.8,
                fps: Some(7.5),
                ..Snapshot::default()
            };
            run(Bus(controller.clone()), 0x3d, height, false, &mut |panel| {
                panel.show(&snapshot("cat"))?;
                panel.show(&snapshot("dog"))?;
                let before = controller.borrow().sent;
                panel.show(&snapshot("dog"))?;
                assert_eq!(controller.borrow().sent, before, "nothing changed");
                Ok(())
            })
            .unwrap();
            let controller = controller.take();
            assert!(controller.on);
            let mut expected = Canvas::new(128, height, BinaryColor::Off);
            crate::draw(&snapshot("dog"), &mut expected).unwrap();
            for (i, pixel) in expected.pixels().iter().enumerate() {
                let (x, y) = (i % 128, i / 128);
                let lit = controller.memory[y / 8 * 128 + x] >> (y % 8) & 1 == 1;
                assert_eq!(lit, pixel.is_on(), "128x{height} at {x},{y}");
            }
        }
    }

    #[test]
    fn a_missing_bus_is_named() {
        let error =
            with_oled(Path::new("/dev/i2c-of-nobody"), 0x3c, 64, false, &mut |_| Ok(())).unwrap_err().to_string();
        assert!(error.starts_with("cannot open /dev/i2c-of-nobody"), "{error}");
        assert!(error.contains("No such file or directory"), "{error}");
    }
}
