//! `[delivery]`: how long an answer is kept for those who ask again.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use super::check::Problems;

const MAX_DEDUP_SECONDS: u64 = 86_400;
const MAX_DEDUP_ENTRIES: usize = 4096;
const MAX_DEDUP_BYTES: usize = 256 * 1024 * 1024;
/// The file of answers in a state directory.
const ANSWERS: &str = "answers";

/// `[delivery]`
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Delivery {
    /// How long an answer is kept; 0: not at all.
    pub dedup_seconds: u64,
    /// Answers that are kept.
    pub dedup_entries: usize,
    /// Bytes of them.
    pub dedup_bytes: usize,
    /// Where they are written down, for the next run of the daemon; `None`: nowhere.
    pub answers_file: Option<PathBuf>,
}

impl Default for Delivery {
    fn default() -> Self {
        Self {
            dedup_seconds: 600,
            dedup_entries: 256,
            dedup_bytes: 1024 * 1024,
            answers_file: None,
        }
    }
}

impl Delivery {
    /// How long an answer is kept.
    pub fn dedup_time(&self) -> Duration {
        Duration::from_secs(self.dedup_seconds)
    }

    /// Where answers are written down if the file does not say.
    pub(super) fn settle(&mut self, state_directory: Option<&Path>) {
        if self.answers_file.is_none() && self.dedup_seconds > 0 {
            self.answers_file = state_directory.map(|folder| folder.join(ANSWERS));
        }
    }

    pub(super) fn check(&self, found: &mut Problems) {
        if self.dedup_seconds > MAX_DEDUP_SECONDS {
            found.add(
                "delivery.dedup-seconds",
                format!(
                    "is {}; give at most {MAX_DEDUP_SECONDS}",
                    self.dedup_seconds
                ),
            );
        }
        found.range(
            "delivery.dedup-entries",
            self.dedup_entries,
            0,
            MAX_DEDUP_ENTRIES,
        );
        found.range("delivery.dedup-bytes", self.dedup_bytes, 0, MAX_DEDUP_BYTES);
        let file = self.answers_file.as_ref();
        if file.is_some_and(|file| file.file_name().is_none()) {
            let message = "names no file; give one in a folder that is there, or leave it out";
            found.add("delivery.answers-file", message);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn a_service_has_a_place_for_answers() {
        let settled = |answers_file: Option<&str>, dedup_seconds, state: Option<&str>| {
            let mut delivery = Delivery {
                answers_file: answers_file.map(PathBuf::from),
                dedup_seconds,
                ..Delivery::default()
            };
            delivery.settle(state.map(Path::new));
            delivery.answers_file.map(|file| file.display().to_string())
        };
        let state = Some("/var/lib/chaski");
        assert_eq!(
            settled(None, 600, state).as_deref(),
            Some("/var/lib/chaski/answers")
        );
        assert_eq!(settled(Some("mine"), 600, state).as_deref(), Some("mine"));
        assert_eq!(settled(None, 600, None), None);
        assert_eq!(settled(None, 0, state), None);
    }

    #[test]
    fn ranges() {
        let config = Config {
            delivery: Delivery {
                dedup_seconds: MAX_DEDUP_SECONDS + 1,
                dedup_entries: MAX_DEDUP_ENTRIES + 1,
                dedup_bytes: MAX_DEDUP_BYTES + 1,
                answers_file: Some(PathBuf::new()),
            },
            ..Config::for_model("m")
        };
        let keys: Vec<_> = config.problems().iter().map(|p| p.key).collect();
        assert_eq!(
            keys,
            [
                "delivery.dedup-seconds",
                "delivery.dedup-entries",
                "delivery.dedup-bytes",
                "delivery.answers-file"
            ]
        );
    }
}
