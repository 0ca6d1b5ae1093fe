//! `[memory]`: how much of it the node may take, and what it does when it runs out.

use std::time::Duration;

use serde::Deserialize;

use super::check::Problems;
use super::heat::MAX_RECOVER_SECONDS;

/// More has no board.
const MAX_MIB: u64 = 1 << 24;

/// `[memory]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Memory {
    /// Whether it does anything when the machine runs out of memory.
    pub control: bool,
    /// MiB that the node may take, the weights included; `None`: what the machine has
    /// but `reserve_mib`.
    pub budget_mib: Option<u64>,
    /// MiB that are left to others; `None`: by the machine's size.
    pub reserve_mib: Option<u64>,
    /// Seconds that a level must have been too much before it is left.
    pub recover_seconds: usize,
}

impl Default for Memory {
    fn default() -> Self {
        Self {
            control: true,
            budget_mib: None,
            reserve_mib: None,
            recover_seconds: 20,
        }
    }
}

impl Memory {
    /// How long a level must have been too much before it is left.
    pub fn recover(&self) -> Duration {
        Duration::from_secs(self.recover_seconds as u64)
    }

    pub(super) fn check(&self, found: &mut Problems) {
        if self.budget_mib == Some(0) {
            found.add(
                "memory.budget-mib",
                "is 0; leave it out for what the machine has",
            );
        }
        for (key, value) in [
            ("memory.budget-mib", self.budget_mib),
            ("memory.reserve-mib", self.reserve_mib),
        ] {
            if let Some(mib) = value.filter(|&mib| mib > MAX_MIB) {
                found.add(key, format!("is {mib}; give at most {MAX_MIB}"));
            }
        }
        found.range(
            "memory.recover-seconds",
            self.recover_seconds,
            1,
            MAX_RECOVER_SECONDS,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn sizes_have_bounds() {
        let keys = |budget_mib, reserve_mib, recover_seconds| -> Vec<&str> {
            let mut config = Config::for_model("m");
            config.memory = Memory {
                control: true,
                budget_mib,
                reserve_mib,
                recover_seconds,
            };
            config.problems().iter().map(|p| p.key).collect()
        };
        assert_eq!(keys(Some(300), Some(0), 1), [""; 0]);
        assert_eq!(
            keys(Some(0), Some(MAX_MIB + 1), 3601),
            [
                "memory.budget-mib",
                "memory.reserve-mib",
                "memory.recover-seconds"
            ]
        );
    }
}
