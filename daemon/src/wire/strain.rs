//! How heat and want of memory hold a node back.

use serde::{Deserialize, Serialize};

/// What a node does against heat, the least first.
#[derive(
    Clone, Copy, Debug, Default, Serialize, Deserialize, PartialEq, Eq, PartialOrd, Ord, Hash,
)]
#[serde(rename_all = "snake_case")]
pub enum HeatLevel {
    /// Nothing.
    #[default]
    Normal,
    /// It computes with half of its threads.
    FewerThreads,
    /// It also pauses after each token for as long as that took.
    Pauses,
    /// It pauses longer, and takes nothing new.
    Refusing,
}

impl HeatLevel {
    /// Every level, in their order.
    pub const ALL: [Self; 4] = [
        Self::Normal,
        Self::FewerThreads,
        Self::Pauses,
        Self::Refusing,
    ];

    /// The name, as sent.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "normal",
            Self::FewerThreads => "fewer_threads",
            Self::Pauses => "pauses",
            Self::Refusing => "refusing",
        }
    }
}

/// What a node does against want of memory, the least first.
#[derive(
    Clone, Copy, Debug, Default, Serialize, Deserialize, PartialEq, Eq, PartialOrd, Ord, Hash,
)]
#[serde(rename_all = "snake_case")]
pub enum MemoryLevel {
    /// Nothing.
    #[default]
    Normal,
    /// It keeps no KV cache from one request to the next.
    Tight,
    /// It also takes nothing new.
    Refusing,
}

impl MemoryLevel {
    /// Every level, in their order.
    pub const ALL: [Self; 3] = [Self::Normal, Self::Tight, Self::Refusing];

    /// The name, as sent.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "normal",
            Self::Tight => "tight",
            Self::Refusing => "refusing",
        }
    }
}

/// Part of the metrics: what the node does against heat and want of memory.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, PartialEq, Eq)]
pub struct StrainMetrics {
    /// Against heat.
    pub heat: HeatLevel,
    /// Against want of memory.
    pub memory: MemoryLevel,
    /// Threads that compute now; `None` before the model is loaded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub threads: Option<ThreadMetrics>,
}

/// Threads that compute.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct ThreadMetrics {
    /// A prompt.
    pub prefill: usize,
    /// A token of the answer.
    pub decode: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_that_are_sent() {
        for level in HeatLevel::ALL {
            assert_eq!(serde_json::to_value(level).unwrap(), level.as_str());
        }
        for level in MemoryLevel::ALL {
            assert_eq!(serde_json::to_value(level).unwrap(), level.as_str());
        }
        assert!(HeatLevel::ALL.is_sorted() && MemoryLevel::ALL.is_sorted());
    }
}
