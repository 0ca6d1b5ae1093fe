//! `[home-assistant]`: how Home Assistant comes to know of this node.

use serde::Deserialize;

use super::check::Problems;

const MAX_PREFIX_BYTES: usize = 256;

/// `[home-assistant]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct HomeAssistant {
    /// Whether the node describes itself to it.
    pub discovery: bool,
    /// What its topics begin with.
    pub prefix: String,
}

impl Default for HomeAssistant {
    fn default() -> Self {
        Self {
            discovery: true,
            prefix: "homeassistant".to_owned(),
        }
    }
}

impl HomeAssistant {
    pub(super) fn check(&self, found: &mut Problems) {
        let prefix = self.prefix.as_str();
        let bad = |c: char| matches!(c, '+' | '#') || c.is_control();
        let problem = if prefix.is_empty() {
            "is empty; Home Assistant's own default is \"homeassistant\"".to_owned()
        } else if prefix.len() > MAX_PREFIX_BYTES {
            format!("has more than {MAX_PREFIX_BYTES} bytes")
        } else if prefix.contains(bad) || prefix.starts_with('$') || prefix.ends_with('/') {
            "give the beginning of a topic, without `+`, `#`, a leading `$` and a last `/`"
                .to_owned()
        } else {
            return;
        };
        found.add("home-assistant.prefix", problem);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn a_prefix_is_the_beginning_of_a_topic() {
        let keys = |prefix: &str| -> Vec<_> {
            let config = Config {
                home_assistant: HomeAssistant {
                    prefix: prefix.to_owned(),
                    ..HomeAssistant::default()
                },
                ..Config::for_model("m")
            };
            config.problems().iter().map(|p| p.key).collect()
        };
        assert_eq!(keys("home/assistant"), [""; 0]);
        for bad in ["", "a/+", "#", "$SYS", "a/", &"x".repeat(257)] {
            assert_eq!(keys(bad), ["home-assistant.prefix"], "{bad}");
        }
    }
}
