//! `[heat]`: what the node does before the machine gets too hot.

use std::time::Duration;

use serde::Deserialize;

use super::check::Problems;

/// Cooler is no heat, and hotter no processor.
const PLAUSIBLE: std::ops::RangeInclusive<f64> = 30.0..=125.0;
/// Between `ease-off` and `refuse`, in °C: there is a level between them.
pub(crate) const LEAST_APART: f64 = 2.0;
pub(super) const MAX_RECOVER_SECONDS: usize = 3600;

/// `[heat]`
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Heat {
    /// Whether it does anything.
    pub control: bool,
    /// Types of the thermal zones to look at; `None` or none: those of the processor.
    pub zones: Option<Vec<String>>,
    /// °C from which on it computes with fewer threads; `None`: by the zones' trip points.
    pub ease_off: Option<f64>,
    /// °C from which on it takes nothing new; `None`: by the zones' trip points.
    pub refuse: Option<f64>,
    /// Seconds that a level must have been too much before it is left.
    pub recover_seconds: usize,
}

impl Default for Heat {
    fn default() -> Self {
        Self {
            control: true,
            zones: None,
            ease_off: None,
            refuse: None,
            recover_seconds: 20,
        }
    }
}

impl Heat {
    /// The zones' types; none: those of the processor.
    pub fn zones(&self) -> &[String] {
        self.zones.as_deref().unwrap_or_default()
    }

    /// How long a level must have been too much before it is left.
    pub fn recover(&self) -> Duration {
        Duration::from_secs(self.recover_seconds as u64)
    }

    pub(super) fn check(&self, found: &mut Problems) {
        let (least, most) = (PLAUSIBLE.start(), PLAUSIBLE.end());
        for (key, value) in [
            ("heat.ease-off", self.ease_off),
            ("heat.refuse", self.refuse),
        ] {
            // A NaN is in no range.
            if let Some(celsius) = value.filter(|celsius| !PLAUSIBLE.contains(celsius)) {
                found.add(key, format!("is {celsius}; give {least} to {most} °C"));
            }
        }
        if let (Some(ease_off), Some(refuse)) = (self.ease_off, self.refuse)
            && refuse < ease_off + LEAST_APART
        {
            let message = format!(
                "is {refuse} °C; give at least {LEAST_APART} °C more than ease-off, {ease_off} °C"
            );
            found.add("heat.refuse", message);
        }
        if self.zones().iter().any(String::is_empty) {
            let message = "has an empty name; give types of zones, such as \"cpu-thermal\"";
            found.add("heat.zones", message);
        }
        found.range(
            "heat.recover-seconds",
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

    fn keys(heat: Heat) -> Vec<&'static str> {
        let config = Config {
            heat,
            ..Config::for_model("m")
        };
        config.problems().iter().map(|p| p.key).collect()
    }

    #[test]
    fn temperatures_have_a_range_and_an_order() {
        let of = |ease_off, refuse| {
            keys(Heat {
                ease_off,
                refuse,
                ..Heat::default()
            })
        };
        assert_eq!(of(Some(60.0), Some(62.0)), [""; 0]);
        assert_eq!(of(None, Some(62.0)), [""; 0]);
        assert_eq!(of(Some(60.0), Some(61.0)), ["heat.refuse"]);
        assert_eq!(of(Some(f64::NAN), None), ["heat.ease-off"]);
        assert_eq!(
            of(Some(29.0), Some(126.0)),
            ["heat.ease-off", "heat.refuse"]
        );
    }

    #[test]
    fn zones_have_names_and_recovery_takes_time() {
        let heat = Heat {
            zones: Some(vec!["cpu".into(), String::new()]),
            recover_seconds: 0,
            ..Heat::default()
        };
        assert_eq!(keys(heat), ["heat.zones", "heat.recover-seconds"]);
        let none = Heat {
            zones: Some(vec![]),
            ..Heat::default()
        };
        assert_eq!(keys(none), [""; 0]);
    }
}
