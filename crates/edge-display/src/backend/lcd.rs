//! ST7789 and ILI9341 panels on SPI, by way of `mipidsi`.

use std::fmt::Debug;

use embedded_graphics::draw_target::DrawTarget;
use embedded_graphics::geometry::{OriginDimensions, Point, Size};
use embedded_graphics::pixelcolor::{Rgb565, RgbColor};
use embedded_graphics::primitives::Rectangle;
use embedded_hal::delay::DelayNs;
use embedded_hal::digital::OutputPin;
use embedded_hal::spi::SpiDevice;
use linux_embedded_hal::gpio_cdev::{self, LineRequestFlags};
use linux_embedded_hal::spidev::{SpiModeFlags, SpidevOptions};
use linux_embedded_hal::{CdevPin, Delay, SpidevDevice};
use mipidsi::interface::SpiInterface;
use mipidsi::models::{ILI9341Rgb565, Model, ST7789};
use mipidsi::options::{ColorInversion, ColorOrder, Orientation, Rotation};
use mipidsi::{Builder, NoResetPin};

use super::{DisplayError, Panel};
use crate::canvas::Canvas;
use crate::snapshot::Snapshot;
use crate::spec::{Chip, Lcd, Pins};

/// Bytes sent at once: what the kernel's spidev takes unless it is told otherwise.
const TRANSFER: usize = 4096;

/// Opens bus and lines, and draws for as long as `draw` does.
pub(super) fn with_lcd(
    lcd: &Lcd,
    draw: &mut dyn FnMut(&mut dyn Panel) -> Result<(), DisplayError>,
) -> Result<(), DisplayError> {
    let name = lcd.device.display();
    let mut spi = SpidevDevice::open(&lcd.device).map_err(|e| {
        DisplayError::bus(format!("cannot open {name} (is SPI on, this user in the group spi?)"), e.inner())
    })?;
    let mode = if lcd.rests_high { SpiModeFlags::SPI_MODE_3 } else { SpiModeFlags::SPI_MODE_0 };
    let options = SpidevOptions::new().bits_per_word(8).max_speed_hz(lcd.speed).mode(mode).build();
    spi.configure(&options).map_err(|e| DisplayError::io(format!("cannot set {name} to {} Hz", lcd.speed), e))?;
    let dc = output(&lcd.pins, lcd.pins.dc, 0)?;
    let reset = lcd.pins.rst.map(|line| output(&lcd.pins, line, 1)).transpose()?;
    // Lit for as long as it is held.
    let _backlight = lcd.pins.backlight.map(|line| output(&lcd.pins, line, 1)).transpose()?;
    run(lcd, spi, dc, reset, &mut Delay, draw)
}

/// A GPIO line that is driven.
fn output(pins: &Pins, line: u32, level: u8) -> Result<CdevPin, DisplayError> {
    let request = || {
        let line = gpio_cdev::Chip::new(&pins.chip)?.get_line(line)?;
        CdevPin::new(line.request(LineRequestFlags::OUTPUT, level, "edge-camera")?)
    };
    request().map_err(|e| DisplayError::bus(format!("cannot drive line {line} of {}", pins.chip.display()), e))
}

/// Wakes the panel up and draws on it, whatever the bus is.
fn run<SPI, PIN>(
    lcd: &Lcd,
    spi: SPI,
    dc: PIN,
    reset: Option<PIN>,
    delay: &mut impl DelayNs,
    draw: &mut dyn FnMut(&mut dyn Panel) -> Result<(), DisplayError>,
) -> Result<(), DisplayError>
where
    SPI: SpiDevice,
    PIN: OutputPin,
{
    let mut buffer = [0; TRANSFER];
    let bus = SpiInterface::new(spi, dc, &mut buffer);
    match lcd.chip {
        Chip::St7789 => start(lcd, ST7789, bus, reset, delay, draw),
        Chip::Ili9341 => start(lcd, ILI9341Rgb565, bus, reset, delay, draw),
    }
}

fn start<SPI, PIN, M>(
    lcd: &Lcd,
    model: M,
    bus: SpiInterface<'_, SPI, PIN>,
    reset: Option<PIN>,
    delay: &mut impl DelayNs,
    draw: &mut dyn FnMut(&mut dyn Panel) -> Result<(), DisplayError>,
) -> Result<(), DisplayError>
where
    SPI: SpiDevice,
    PIN: OutputPin,
    M: Model<ColorFormat = Rgb565>,
{
    let rotation = match lcd.rotate {
        90 => Rotation::Deg90,
        180 => Rotation::Deg180,
        270 => Rotation::Deg270,
        _ => Rotation::Deg0,
    };
    let builder = Builder::new(model, bus)
        .display_size(lcd.size.0, lcd.size.1)
        .display_offset(lcd.offset.0, lcd.offset.1)
        .orientation(Orientation::new().rotate(rotation))
        .invert_colors(if lcd.invert { ColorInversion::Inverted } else { ColorInversion::Normal })
        .color_order(if lcd.bgr { ColorOrder::Bgr } else { ColorOrder::Rgb });
    let failed =
        |e: &dyn Debug| DisplayError::driver(format!("cannot wake up the panel at {}", lcd.device.display()), e);
    match reset {
        Some(reset) => {
            let panel = builder.reset_pin(reset).init(delay).map_err(|e| failed(&e))?;
            draw(&mut Drawn::new(panel))
        }
        None => {
            let panel: mipidsi::Display<_, M, NoResetPin> = builder.init(delay).map_err(|e| failed(&e))?;
            draw(&mut Drawn::new(panel))
        }
    }
}

/// A panel and what it shows.
struct Drawn<D> {
    panel: D,
    shown: Option<Canvas<Rgb565>>,
    canvas: Canvas<Rgb565>,
}

impl<D: DrawTarget<Color = Rgb565> + OriginDimensions> Drawn<D> {
    fn new(panel: D) -> Self {
        let size = panel.size();
        Self { panel, shown: None, canvas: Canvas::new(size.width, size.height, Rgb565::BLACK) }
    }
}

impl<D: DrawTarget<Color = Rgb565, Error: Debug> + OriginDimensions> Panel for Drawn<D> {
    /// Only the rows that changed go over the bus: all of 240x320 pixels take 40 ms at 32 MHz.
    fn show(&mut self, snapshot: &Snapshot) -> Result<(), DisplayError> {
        let Ok(()) = crate::draw(snapshot, &mut self.canvas);
        let size = self.canvas.size();
        let all = 0..size.height as usize;
        let rows = self.shown.as_ref().map_or(all, |shown| self.canvas.changed_rows(shown));
        let area = Rectangle::new(Point::new(0, rows.start as i32), Size::new(size.width, rows.len() as u32));
        self.panel
            .fill_contiguous(&area, self.canvas.rows(rows).iter().copied())
            .map_err(|e| DisplayError::driver("cannot draw on the panel", e))?;
        match &mut self.shown {
            Some(shown) => shown.clone_from(&self.canvas),
            None => self.shown = Some(self.canvas.clone()),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use embedded_hal::spi::{ErrorType, Operation};
    use std::cell::RefCell;
    use std::convert::Infallible;
    use std::rc::Rc;

    /// A controller that obeys as the data sheets say: columns, rows, memory write, and how the memory is walked.
    #[derive(Default)]
    struct Controller {
        data: bool,
        resets: usize,
        command: u8,
        arguments: Vec<u8>,
        columns: (u16, u16),
        rows: (u16, u16),
        at: (u16, u16),
        awake: bool,
        on: bool,
        inverted: bool,
        madctl: u8,
        pixel_format: u8,
        sent: usize,
        memory: Vec<u16>,
    }

    impl Controller {
        fn byte(&mut self, byte: u8) {
            if !self.data {
                (self.command, self.arguments) = (byte, vec![]);
                match byte {
                    0x11 => self.awake = true,
                    0x20 => self.inverted = false,
                    0x21 => self.inverted = true,
                    0x29 => self.on = true,
                    0x2c => self.at = (self.columns.0, self.rows.0),
                    _ => {}
                }
                return;
            }
            self.arguments.push(byte);
            let pair = |a: &[u8]| (u16::from_be_bytes([a[0], a[1]]), u16::from_be_bytes([a[2], a[3]]));
            match (self.command, self.arguments.len()) {
                (0x2a, 4) => self.columns = pair(&self.arguments),
                (0x2b, 4) => self.rows = pair(&self.arguments),
                (0x36, 1) => self.madctl = byte,
                (0x3a, 1) => self.pixel_format = byte,
                (0x2c, 2) => {
                    let pixel = u16::from_be_bytes([self.arguments[0], self.arguments[1]]);
                    self.arguments.clear();
                    self.pixel(pixel);
                }
                _ => {}
            }
        }

        fn pixel(&mut self, pixel: u16) {
            self.sent += 1;
            let (mut x, mut y) = self.at;
            if self.madctl & 0x20 != 0 {
                (x, y) = (y, x);
            }
            if self.madctl & 0x40 != 0 {
                x = 239 - x;
            }
            if self.madctl & 0x80 != 0 {
                y = 319 - y;
            }
            self.memory[usize::from(y) * 240 + usize::from(x)] = pixel;
            self.at.0 += 1;
            if self.at.0 > self.columns.1 {
                self.at = (self.columns.0, self.at.1 + 1);
            }
        }
    }

    #[derive(Clone)]
    struct Bus(Rc<RefCell<Controller>>);
    #[derive(Clone)]
    enum Pin {
        Dc(Rc<RefCell<Controller>>),
        Reset(Rc<RefCell<Controller>>),
    }
    struct NoDelay;

    impl ErrorType for Bus {
        type Error = Infallible;
    }
    impl SpiDevice for Bus {
        fn transaction(&mut self, operations: &mut [Operation<'_, u8>]) -> Result<(), Infallible> {
            for operation in operations {
                let Operation::Write(bytes) = operation else { panic!("the panel is only written to") };
                assert!(bytes.len() <= TRANSFER, "spidev refuses longer transfers");
                bytes.iter().for_each(|b| self.0.borrow_mut().byte(*b));
            }
            Ok(())
        }
    }
    impl embedded_hal::digital::ErrorType for Pin {
        type Error = Infallible;
    }
    impl OutputPin for Pin {
        fn set_low(&mut self) -> Result<(), Infallible> {
            match self {
                Self::Dc(c) => c.borrow_mut().data = false,
                Self::Reset(c) => c.borrow_mut().resets += 1,
            }
            Ok(())
        }
        fn set_high(&mut self) -> Result<(), Infallible> {
            if let Self::Dc(c) = self {
                c.borrow_mut().data = true;
            }
            Ok(())
        }
    }
    impl DelayNs for NoDelay {
        fn delay_ns(&mut self, _: u32) {}
    }

    fn lcd(spec: &str) -> Lcd {
        match spec.parse::<crate::Spec>().unwrap().kind {
            crate::Kind::Lcd(lcd) => lcd,
            other => panic!("{other:?}"),
        }
    }

    fn snapshot(label: &str) -> Snapshot {
        Snapshot { label: label.into(), known: true, score: 0.8, ..Snapshot::default() }
    }

    /// Shows "cat", then "dog", on the panel of `spec`; returns the controller, and how many pixels the second took.
    fn shown(spec: &str) -> (Controller, usize) {
        let lcd = lcd(spec);
        let controller = Rc::new(RefCell::new(Controller { memory: vec![0xbeef; 240 * 320], ..Controller::default() }));
        let reset = lcd.pins.rst.map(|_| Pin::Reset(controller.clone()));
        let mut second = 0;
        run(&lcd, Bus(controller.clone()), Pin::Dc(controller.clone()), reset, &mut NoDelay, &mut |panel| {
            panel.show(&snapshot("cat"))?;
            let before = controller.borrow().sent;
            panel.show(&snapshot("dog"))?;
            second = controller.borrow().sent - before;
            Ok(())
        })
        .unwrap();
        (controller.take(), second)
    }

    /// What someone sees who turns the panel as `rotate` says: (width, height) pixels.
    fn seen(controller: &Controller, lcd: &Lcd) -> (u32, u32, Vec<u16>) {
        let (w, h) = (usize::from(lcd.size.0), usize::from(lcd.size.1));
        let panel = |x: usize, y: usize| {
            controller.memory[(y + usize::from(lcd.offset.1)) * 240 + x + usize::from(lcd.offset.0)]
        };
        let (sw, sh) = if lcd.rotate.is_multiple_of(180) { (w, h) } else { (h, w) };
        let pixel = |i: usize| {
            let (x, y) = (i % sw, i / sw);
            match lcd.rotate {
                0 => panel(x, y),
                90 => panel(w - 1 - y, x),
                180 => panel(w - 1 - x, h - 1 - y),
                _ => panel(y, h - 1 - x),
            }
        };
        (sw as u32, sh as u32, (0..sw * sh).map(pixel).collect())
    }

    #[test]
    fn the_picture_arrives_on_every_panel() {
        for spec in [
            "st7789:/dev/spidev0.0,dc=25,rst=27",
            "st7789:/dev/spidev0.0,dc=25,rotate=90",
            "st7789:/dev/spidev0.0,dc=25,size=240x240,offset=0x80,rotate=180",
            "st7789:/dev/spidev0.0,dc=25,size=135x240,offset=52x40,rotate=270",
            "ili9341:/dev/spidev0.0,dc=25,rst=1",
            "ili9341:/dev/spidev0.0,dc=25,rotate=90",
        ] {
            let (controller, second) = shown(spec);
            let lcd = lcd(spec);
            let (width, height, pixels) = seen(&controller, &lcd);
            let mut expected = Canvas::new(width, height, Rgb565::BLACK);
            crate::draw(&snapshot("dog"), &mut expected).unwrap();
            let bits = |p: &Rgb565| u16::from(p.r()) << 11 | u16::from(p.g()) << 5 | u16::from(p.b());
            let wrong = expected.pixels().iter().map(bits).zip(&pixels).filter(|(a, b)| a != *b).count();
            assert_eq!(wrong, 0, "{spec}: {wrong} of {} pixels differ", pixels.len());
            assert!(controller.awake && controller.on && controller.pixel_format & 7 == 5, "{spec}");
            assert_eq!(controller.inverted, lcd.chip == Chip::St7789);
            assert_eq!(controller.madctl & 8 != 0, lcd.chip == Chip::Ili9341);
            assert_eq!(controller.resets, usize::from(lcd.pins.rst.is_some()));
            assert!(second > 0 && second < pixels.len() / 2, "{spec}: {second} pixels for another label");
        }
    }

    #[test]
    fn a_missing_bus_is_named() {
        let lcd = lcd("st7789:/dev/spidev-of-nobody,dc=25");
        let error = with_lcd(&lcd, &mut |_| Ok(())).unwrap_err().to_string();
        assert!(error.starts_with("cannot open /dev/spidev-of-nobody"), "{error}");
        assert!(error.contains("): No such file or directory"), "{error}");
    }
}
