//! `[control]`: what the node may be told over MQTT. Nothing, unless it is here.

use std::path::PathBuf;

use serde::Deserialize;

use super::check::Problems;

/// `[control]`
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Control {
    /// `drain` and `resume`.
    pub drain: bool,
    /// `reload`: to read the configuration file again.
    pub reload: bool,
    /// `model`: to load another of the model folders in here; `None`: not allowed.
    pub models_folder: Option<PathBuf>,
}

impl Control {
    /// Whether any command is allowed.
    pub fn is_enabled(&self) -> bool {
        self.drain || self.reload || self.models_folder.is_some()
    }

    pub(super) fn check(&self, found: &mut Problems) {
        let folder = self.models_folder.as_ref();
        if folder.is_some_and(|folder| folder.as_os_str().is_empty()) {
            let message = "is empty; give a folder of model folders, or leave it out";
            found.add("control.models-folder", message);
        }
    }
}
