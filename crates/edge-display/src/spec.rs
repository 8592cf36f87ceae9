//! What `--display` can name, and how: `st7789:/dev/spidev0.0,dc=25,rst=27,size=240x240,rotate=0`.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// A display: where it is and what it is.
#[derive(Clone, Debug, PartialEq)]
pub struct Spec {
    text: String,
    /// What it is.
    pub kind: Kind,
}

/// A kind of display with everything that has to be known of it.
#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    /// `fb0`, `fb:/dev/fb0`: a Linux framebuffer.
    Framebuffer {
        /// Its device.
        device: PathBuf,
        /// Where the kernel says of what size it is.
        sysfs: PathBuf,
    },
    /// `st7789:…`, `ili9341:…`: a small LCD panel.
    Lcd(Lcd),
    /// `ssd1306:/dev/i2c-1`: a small OLED panel.
    Oled {
        /// The bus.
        device: PathBuf,
        /// Its address on the bus.
        address: u8,
        /// 64 or 32 pixels; the width is 128.
        height: u32,
        /// Whether it hangs upside down.
        upside_down: bool,
    },
    /// `png:FILE`: a picture that is written anew.
    Png {
        /// The file.
        path: PathBuf,
        /// Width and height in pixels.
        size: (u32, u32),
    },
}

/// A panel with a MIPI controller on SPI.
#[derive(Clone, Debug, PartialEq)]
pub struct Lcd {
    /// Its controller.
    pub chip: Chip,
    /// The bus and chip select.
    pub device: PathBuf,
    /// The lines besides the bus.
    pub pins: Pins,
    /// Width and height in pixels before it is turned.
    pub size: (u16, u16),
    /// Where the panel's first pixel lies in the controller's memory, in pixels before it is turned.
    pub offset: (u16, u16),
    /// Degrees clockwise: 0, 90, 180 or 270.
    pub rotate: u16,
    /// Whether the panel shows the opposite of what it is sent; most ST7789 panels do.
    pub invert: bool,
    /// Whether its pixels are in the order blue, green, red.
    pub bgr: bool,
    /// Clock of the bus in Hz.
    pub speed: u32,
    /// Whether the bus rests high (SPI mode 3), as panels without a chip select want it, and not low (mode 0).
    pub rests_high: bool,
}

/// A controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chip {
    /// Sitronix ST7789.
    St7789,
    /// Ilitek ILI9341.
    Ili9341,
}

/// GPIO lines, by their number on the chip.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pins {
    /// The character device of the chip.
    pub chip: PathBuf,
    /// Says whether a byte is data or a command.
    pub dc: u32,
    /// Resets the panel; some boards have no such line.
    pub rst: Option<u32>,
    /// Lights the panel.
    pub backlight: Option<u32>,
}

/// Why text names no display.
#[derive(Debug, thiserror::Error)]
#[error("{text:?} names no display: {why}")]
pub struct SpecError {
    text: String,
    why: String,
}

/// What can be named, for whoever named something else.
const KNOWN: &str = "fb0, fb:/dev/fb0, st7789:/dev/spidev0.0,dc=25, ili9341:/dev/spidev0.0,dc=25, ssd1306:/dev/i2c-1 \
                     and png:FILE are known";

/// The largest picture or panel, in pixels on a side.
const MAX_SIDE: u32 = 4096;

impl FromStr for Spec {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<Self, SpecError> {
        let kind = parse(text).map_err(|why| SpecError { text: text.into(), why })?;
        Ok(Self { text: text.into(), kind })
    }
}

impl fmt::Display for Spec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn parse(text: &str) -> Result<Kind, String> {
    let (kind, rest) = text.split_once(':').unwrap_or((text, ""));
    let (place, options) = rest.split_once(',').unwrap_or((rest, ""));
    let mut options = Options::parse(options)?;
    let device = |default: &str| if place.is_empty() { PathBuf::from(default) } else { PathBuf::from(place) };
    let found = match kind {
        "fb0" if rest.is_empty() => framebuffer("/dev/fb0".into(), &mut options),
        "fb" => framebuffer(device("/dev/fb0"), &mut options),
        "st7789" => lcd(Chip::St7789, device("/dev/spidev0.0"), &mut options)?,
        "ili9341" => lcd(Chip::Ili9341, device("/dev/spidev0.0"), &mut options)?,
        "ssd1306" => {
            let height = match options.take("size").unwrap_or("128x64") {
                "128x64" => 64,
                "128x32" => 32,
                other => return Err(format!("size={other}: an SSD1306 has 128x64 or 128x32 pixels")),
            };
            let upside_down = match options.number("rotate")? {
                None | Some(0) => false,
                Some(180) => true,
                Some(other) => return Err(format!("rotate={other}: an SSD1306 can be turned by 0 or 180 degrees")),
            };
            let address = options.number("addr")?.unwrap_or(0x3c);
            if !(0x03..=0x77).contains(&address) {
                return Err(format!("addr={address:#04x}: addresses on I2C are from 0x03 to 0x77"));
            }
            Kind::Oled { device: device("/dev/i2c-1"), address: address as u8, height, upside_down }
        }
        "png" if !place.is_empty() => {
            let (width, height) = options.size("size")?.unwrap_or((320, 240));
            if width < 16 || height < 16 {
                return Err(format!("size={width}x{height}: at least 16x16 pixels are needed"));
            }
            Kind::Png { path: place.into(), size: (width, height) }
        }
        "png" => return Err("the file to write is missing, as in png:/run/edge-camera.png".into()),
        _ => return Err(KNOWN.into()),
    };
    options.finish()?;
    Ok(found)
}

fn framebuffer(device: PathBuf, options: &mut Options<'_>) -> Kind {
    let name = device.file_name().unwrap_or_default();
    let sysfs = options.take("sysfs").map(PathBuf::from);
    let sysfs = sysfs.unwrap_or_else(|| PathBuf::from("/sys/class/graphics").join(name));
    Kind::Framebuffer { device, sysfs }
}

fn lcd(chip: Chip, device: PathBuf, options: &mut Options<'_>) -> Result<Kind, String> {
    let dc = options.number("dc")?.ok_or("dc=LINE is missing, the GPIO line of the panel's DC (or D/C, A0, RS) pin")?;
    let pins = Pins {
        chip: options.take("gpio").unwrap_or("/dev/gpiochip0").into(),
        dc,
        rst: options.number("rst")?,
        backlight: options.number("bl")?,
    };
    let square = chip == Chip::St7789;
    let (width, height) = options.size("size")?.unwrap_or(if square { (240, 240) } else { (240, 320) });
    let (x, y) = options.size("offset")?.unwrap_or((0, 0));
    // What the controllers have memory for.
    if width == 0 || height == 0 || width + x > 240 || height + y > 320 {
        return Err(format!(
            "size={width}x{height},offset={x}x{y}: the controller has 240x320 pixels before the panel is turned"
        ));
    }
    let rotate = options.number("rotate")?.unwrap_or(0);
    if ![0, 90, 180, 270].contains(&rotate) {
        return Err(format!("rotate={rotate}: 0, 90, 180 and 270 degrees clockwise are possible"));
    }
    let speed = options.number("speed")?.unwrap_or(32_000_000);
    if !(100_000..=100_000_000).contains(&speed) {
        return Err(format!("speed={speed}: from 100000 to 100000000 Hz are possible"));
    }
    let rests_high = match options.number("mode")? {
        None | Some(0) => false,
        Some(3) => true,
        Some(other) => return Err(format!("mode={other}: these panels know the SPI modes 0 and 3")),
    };
    Ok(Kind::Lcd(Lcd {
        chip,
        device,
        pins,
        size: (width as u16, height as u16),
        offset: (x as u16, y as u16),
        rotate: rotate as u16,
        invert: options.number("invert")?.map_or(square, |n| n != 0),
        bgr: options.number("bgr")?.map_or(!square, |n| n != 0),
        speed,
        rests_high,
    }))
}

/// `name=value` pairs; what nobody takes is unknown.
struct Options<'a>(Vec<(&'a str, &'a str)>);

impl<'a> Options<'a> {
    fn parse(text: &'a str) -> Result<Self, String> {
        let pairs = text.split(',').filter(|part| !part.is_empty());
        let pair = |part: &'a str| part.split_once('=').ok_or_else(|| format!("{part:?} is not NAME=VALUE"));
        Ok(Self(pairs.map(pair).collect::<Result<_, _>>()?))
    }

    fn take(&mut self, name: &str) -> Option<&'a str> {
        let at = self.0.iter().position(|(n, _)| *n == name)?;
        Some(self.0.remove(at).1)
    }

    /// A number, decimal or with `0x`.
    fn number(&mut self, name: &str) -> Result<Option<u32>, String> {
        let Some(text) = self.take(name) else { return Ok(None) };
        let number = match text.strip_prefix("0x") {
            Some(hex) => u32::from_str_radix(hex, 16).ok(),
            None => text.parse().ok(),
        };
        number.map(Some).ok_or_else(|| format!("{name}={text}: not a number"))
    }

    /// Two numbers, as in 240x320.
    fn size(&mut self, name: &str) -> Result<Option<(u32, u32)>, String> {
        let Some(text) = self.take(name) else { return Ok(None) };
        let side = |s: &str| s.parse().ok().filter(|n| *n <= MAX_SIDE);
        let size = text.split_once('x').and_then(|(w, h)| Some((side(w)?, side(h)?)));
        size.map(Some).ok_or_else(|| format!("{name}={text}: not two numbers up to {MAX_SIDE}, such as 240x240"))
    }

    fn finish(self) -> Result<(), String> {
        match self.0.first() {
            None => Ok(()),
            Some((name, _)) => Err(format!("the option {name} has no meaning here, or stands twice")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(text: &str) -> Kind {
        text.parse::<Spec>().unwrap().kind
    }

    #[test]
    fn every_kind_is_understood() {
        let fb = Kind::Framebuffer { device: "/dev/fb0".into(), sysfs: "/sys/class/graphics/fb0".into() };
        assert_eq!(kind("fb0"), fb);
        assert_eq!(kind("fb:/dev/fb0"), fb);
        let Kind::Framebuffer { sysfs, .. } = kind("fb:/tmp/x,sysfs=/tmp/y") else { panic!() };
        assert_eq!(sysfs, PathBuf::from("/tmp/y"));
        let Kind::Lcd(lcd) = kind("st7789:/dev/spidev0.1,dc=25,rst=27,bl=24,size=240x240,rotate=90") else { panic!() };
        assert_eq!((lcd.chip, lcd.size, lcd.rotate, lcd.invert), (Chip::St7789, (240, 240), 90, true));
        let pins = Pins { chip: "/dev/gpiochip0".into(), dc: 25, rst: Some(27), backlight: Some(24) };
        assert_eq!((lcd.device, lcd.pins), ("/dev/spidev0.1".into(), pins));
        let Kind::Lcd(lcd) = kind("ili9341:,dc=9,offset=0x80,size=200x240,speed=1000000") else { panic!() };
        assert_eq!((lcd.offset, lcd.speed, lcd.bgr), ((0, 80), 1_000_000, true));
        let oled = |device: &str, address, height, upside_down| Kind::Oled {
            device: device.into(),
            address,
            height,
            upside_down,
        };
        assert_eq!(kind("ssd1306:/dev/i2c-1"), oled("/dev/i2c-1", 0x3c, 64, false));
        assert_eq!(kind("ssd1306:/dev/i2c-3,addr=0x3d,size=128x32,rotate=180"), oled("/dev/i2c-3", 0x3d, 32, true));
        assert_eq!(kind("png:/run/a.png"), Kind::Png { path: "/run/a.png".into(), size: (320, 240) });
        assert_eq!(kind("png:a.png,size=128x64"), Kind::Png { path: "a.png".into(), size: (128, 64) });
    }

    #[test]
    fn mistakes_are_named() {
        for (text, why) in [
            ("", "are known"),
            ("hdmi", "are known"),
            ("fb0:x", "are known"),
            ("png:", "the file to write is missing"),
            ("png:a,size=4x4", "at least 16x16"),
            ("png:a,size=99999x4", "not two numbers"),
            ("png:a,colour=red", "the option colour has no meaning here"),
            ("png:a,size=64x64,size=64x64", "stands twice"),
            ("st7789:/dev/spidev0.0", "dc=LINE is missing"),
            ("st7789:/dev/spidev0.0,dc=x", "dc=x: not a number"),
            ("st7789:/dev/spidev0.0,dc=1,rotate=45", "rotate=45"),
            ("ili9341:/dev/spidev0.0,dc=1,size=320x240", "240x320 pixels before the panel is turned"),
            ("ili9341:/dev/spidev0.0,dc=1,mode=1", "SPI modes 0 and 3"),
            ("ssd1306:/dev/i2c-1,addr=0x80", "0x03 to 0x77"),
            ("ssd1306:/dev/i2c-1,size=64x48", "128x64 or 128x32"),
            ("ssd1306:/dev/i2c-1,upside", "not NAME=VALUE"),
        ] {
            let error = text.parse::<Spec>().unwrap_err().to_string();
            assert!(error.contains(why) && error.starts_with(&format!("{text:?}")), "{text}: {error}");
        }
    }
}
