//! What is looked at before the first frame, and told in a line each: memory and disk. What is wrong with a camera is
//! said when it is opened.

use crate::settings::{Choice, Settings};
use edge_system::check;
use edge_system::slot::{Slot, Slots};
use std::path::Path;

/// What is no reason to stop, but may be one soon: asked before the package is loaded.
pub fn warnings(settings: &Settings) -> Vec<String> {
    let packages = match &settings.package {
        Choice::BuiltIn => vec![],
        Choice::File(path) => vec![path.clone()],
        Choice::Slots(folder) => {
            let slots = Slots::new(folder);
            let choice = slots.choice();
            // While a package is on trial both are in memory.
            let both = choice.trial.is_some() && !settings.trial.time.is_zero() && settings.trial.share > 0.0;
            Slot::BOTH.iter().filter(|slot| both || **slot == choice.active).map(|slot| slots.package(*slot)).collect()
        }
    };
    let bytes = packages.iter().filter_map(|path| std::fs::metadata(path).ok()).map(|m| m.len()).sum();
    let log = &settings.log;
    let written = (log.path != Path::new("-")).then(|| check::log_space(&log.path, log.rotation.map(|r| r.total)));
    check::memory(bytes).into_iter().chain(written.flatten()).map(|trouble| trouble.to_string()).collect()
}
