//! Commands for a node.

use serde::{Deserialize, Serialize};

/// A command on `chaski/<node>/control`, where it is JSON.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct ControlRequest {
    /// `drain`, `resume`, `reload` or `model`.
    pub command: String,
    /// With `model`: the name of the folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
}

/// The answer to one that was carried out.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct ControlReply {
    /// The command.
    pub command: String,
    /// The node.
    pub node: String,
    /// What its status is now: `online` or `draining`.
    pub state: String,
    /// After `reload`: sections that differ and need a restart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restart_needed: Option<Vec<String>>,
    /// After `model`: its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// After `model`: seconds it took to load.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load_seconds: Option<f64>,
}
