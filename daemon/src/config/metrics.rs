//! `[metrics]`: what the node tells of itself now and then.

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use super::check::Problems;

const MAX_INTERVAL_SECONDS: u64 = 86_400;

/// `[metrics]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Metrics {
    /// Seconds from one message to the next; 0: none at all.
    pub interval_seconds: u64,
    /// Where the machine's `proc` and `sys` are.
    pub system_root: PathBuf,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            interval_seconds: 30,
            system_root: PathBuf::from("/"),
        }
    }
}

impl Metrics {
    /// From one message to the next; `None`: none at all.
    pub fn interval(&self) -> Option<Duration> {
        (self.interval_seconds > 0).then(|| Duration::from_secs(self.interval_seconds))
    }

    pub(super) fn check(&self, found: &mut Problems) {
        if self.interval_seconds > MAX_INTERVAL_SECONDS {
            found.add(
                "metrics.interval-seconds",
                format!(
                    "is {}; give at most {MAX_INTERVAL_SECONDS}, or 0 for no metrics",
                    self.interval_seconds
                ),
            );
        }
        if self.system_root.as_os_str().is_empty() {
            let message = "is empty; give \"/\", or where the machine's proc and sys are";
            found.add("metrics.system-root", message);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn an_interval_of_zero_is_none() {
        let of = |interval_seconds| Metrics {
            interval_seconds,
            ..Metrics::default()
        };
        assert_eq!(of(0).interval(), None);
        assert_eq!(of(5).interval(), Some(Duration::from_secs(5)));
    }

    #[test]
    fn bounds() {
        let config = Config {
            metrics: Metrics {
                interval_seconds: MAX_INTERVAL_SECONDS + 1,
                system_root: PathBuf::new(),
            },
            ..Config::for_model("m")
        };
        let keys: Vec<_> = config.problems().iter().map(|p| p.key).collect();
        assert_eq!(keys, ["metrics.interval-seconds", "metrics.system-root"]);
    }
}
