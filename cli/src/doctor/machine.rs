//! Board, processor, supply and heat.

use std::fs;
use std::path::Path;

use chaski_boards::{Recognised, read_text};
use chaski_daemon::config::{Config, Heat};
use chaski_daemon::{Board, Machine};
use chaski_engine::Backend;

use super::report::{Check, Verdict};

const GOVERNOR: &str = "governor";
const POWER: &str = "power";
const TEMPERATURE: &str = "temperature";
const KERNELS: &str = "kernels";

/// Which board it is.
pub(super) fn board(board: &Board) -> Check {
    let detected = board.detected();
    let finding = format!("{}, by {}", detected.profile.title, detected.by);
    match detected.by {
        Recognised::Architecture => Check::ok(
            "board",
            format!(
                "{finding}; nothing is set for it (a container may hide the device tree: then set \
                 board.profile)"
            ),
        ),
        _ => Check::ok("board", finding),
    }
}

/// Whether the kernels are those that the board should have.
pub(super) fn kernels(board: &Board, config: &Config, here: bool) -> Check {
    let detected = board.detected();
    let available: Vec<_> = Backend::available().iter().map(|b| b.name()).collect();
    if let Some(wish) = config.model.backend.as_deref().filter(|_| here)
        && !available.contains(&wish)
    {
        let finding = format!("model.backend is {wish:?}, which this processor does not have");
        let remedy = format!("give one of {}, or leave it out", available.join(", "));
        return Check::problem(KERNELS, finding, remedy);
    }
    let fastest = match here {
        true => Some(Backend::detect().name()),
        false => detected.facts.kernels,
    };
    let Some(fastest) = fastest else {
        return Check::ok(KERNELS, "the machine does not tell its instructions");
    };
    match detected.profile.processor.kernels.as_deref() {
        Some(expected) if expected != fastest => Check::warning(
            KERNELS,
            format!("{fastest}, where the profile expects {expected}"),
            "if this is no such board, set board.profile; if it is one, run a 64-bit system",
        ),
        _ => match &config.model.backend {
            Some(wish) if wish != fastest => Check::warning(
                KERNELS,
                format!("{wish} by model.backend; {fastest} is faster"),
                "leave model.backend out",
            ),
            _ => Check::ok(KERNELS, fastest),
        },
    }
}

/// Who decides on the clock of the processor.
pub(super) fn governor(root: &Path) -> Option<Check> {
    let policies = fs::read_dir(root.join("sys/devices/system/cpu/cpufreq")).ok()?;
    let mut governors = Vec::new();
    for policy in policies.flatten() {
        let driver = read_text(&policy.path().join("scaling_driver")).unwrap_or_default();
        if let Some(governor) = read_text(&policy.path().join("scaling_governor")) {
            // These decide by themselves, whatever it is called.
            let own = driver.contains("pstate") && governor == "powersave";
            governors.push(if own {
                "schedutil".to_owned()
            } else {
                governor
            });
        }
    }
    governors.sort();
    governors.dedup();
    let name = shown(&governors.join(", "));
    let waits = ["ondemand", "powersave", "conservative", "userspace"];
    if governors.is_empty() {
        return None;
    }
    if !governors
        .iter()
        .any(|governor| waits.contains(&governor.as_str()))
    {
        return Some(Check::ok(GOVERNOR, name));
    }
    let finding = match governors.iter().any(|governor| governor == "powersave") {
        true => format!("{name}: the processor stays at its lowest clock"),
        false => format!("{name}: the clock rises some time after an answer has begun"),
    };
    Some(Check::warning(
        GOVERNOR,
        finding,
        "echo performance | sudo tee /sys/devices/system/cpu/cpufreq/policy*/scaling_governor\n\
         (until the next start; it takes some tenths of a watt at rest; schedutil takes none, and \
         rises sooner than ondemand)",
    ))
}

/// Supply and throttling, where the machine tells of them.
pub(super) fn power(root: &Path) -> Option<Check> {
    let state = Machine::at(root, Vec::new()).throttling()?;
    let supply = "take the board's own supply, with a short and thick cable";
    let cooling = "see to its cooling: a heat sink or a fan";
    let (verdict, finding, remedy) = if state.under_voltage == Some(true) {
        (
            Verdict::Problem,
            "the supply gives too little voltage",
            supply,
        )
    } else if state.throttled {
        (
            Verdict::Warning,
            "the processor is slowed down now",
            cooling,
        )
    } else if state.under_voltage_since_boot == Some(true) {
        let finding = "the supply gave too little voltage since the start";
        (Verdict::Warning, finding, supply)
    } else if state.throttled_since_boot == Some(true) {
        (
            Verdict::Warning,
            "the processor was slowed down since the start",
            cooling,
        )
    } else {
        (Verdict::Ok, "not slowed down", "")
    };
    Some(Check::new(POWER, verdict, finding, remedy))
}

/// How warm it is, against the limits.
pub(super) fn temperature(heat: &Heat, root: &Path) -> Option<Check> {
    let zones = heat.zones().iter().map(|zone| zone.to_lowercase());
    let celsius = Machine::at(root, zones.collect()).temperature()?;
    // Without them the daemon goes by the kernel's own limits.
    let (Some(ease_off), Some(refuse)) = (heat.ease_off, heat.refuse) else {
        return Some(Check::ok(TEMPERATURE, format!("{celsius:.1} °C")));
    };
    let kernel = lowest_trip(root, heat.zones());
    let own = kernel.map(|trip| format!(", the kernel slows down at {trip:.1} °C"));
    let finding = format!(
        "{celsius:.1} °C; the node eases off at {ease_off} °C and takes nothing new at {refuse} °C{}",
        own.unwrap_or_default()
    );
    let cooling = "see to its cooling: a heat sink, a fan, a place with air";
    if celsius >= refuse {
        return Some(Check::problem(TEMPERATURE, finding, cooling));
    }
    if celsius >= ease_off {
        return Some(Check::warning(TEMPERATURE, finding, cooling));
    }
    if kernel.is_some_and(|trip| trip <= ease_off) {
        let remedy = "a lower ease-off in [heat] would be ahead of it";
        return Some(Check::warning(TEMPERATURE, finding, remedy));
    }
    Some(Check::ok(TEMPERATURE, finding))
}

/// Where the kernel begins to slow the processor down, in °C.
fn lowest_trip(root: &Path, zones: &[String]) -> Option<f64> {
    let folder = fs::read_dir(root.join("sys/class/thermal")).ok()?;
    let mut lowest: Option<f64> = None;
    for zone in folder.flatten().map(|zone| zone.path()) {
        if !read_text(&zone.join("type")).is_some_and(|kind| zones.contains(&kind)) {
            continue;
        }
        // Linux has at most so many.
        for number in 0..12 {
            let file = |name: &str| read_text(&zone.join(format!("trip_point_{number}_{name}")));
            let Some(kind) = file("type") else {
                break;
            };
            let trip = file("temp").and_then(|text| text.parse::<f64>().ok());
            let trip = trip.map(|millidegrees| millidegrees / 1000.0);
            // Some that are not in use are below zero.
            if kind == "passive" && trip.is_some_and(|trip| trip > 0.0) {
                lowest = match (lowest, trip) {
                    (Some(a), Some(b)) => Some(a.min(b)),
                    (a, b) => a.or(b),
                };
            }
        }
    }
    lowest
}

/// Text from the machine, short and without control characters.
pub(super) fn shown(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(200).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, format!("{text}\n")).unwrap();
        }
        root
    }

    #[test]
    fn governors_that_wait_are_told_of() {
        let of = |files: &[(&str, &str)]| {
            let files: Vec<_> = files
                .iter()
                .map(|(name, text)| (format!("sys/devices/system/cpu/cpufreq/{name}"), *text))
                .collect();
            let files: Vec<_> = files
                .iter()
                .map(|(path, text)| (path.as_str(), *text))
                .collect();
            governor(machine(&files).path()).map(|check| check.verdict)
        };
        assert_eq!(of(&[]), None);
        assert_eq!(
            of(&[("policy0/scaling_governor", "performance")]),
            Some(Verdict::Ok)
        );
        assert_eq!(
            of(&[("policy0/scaling_governor", "schedutil")]),
            Some(Verdict::Ok)
        );
        assert_eq!(
            of(&[("policy0/scaling_governor", "ondemand")]),
            Some(Verdict::Warning)
        );
        let mixed = [
            ("policy0/scaling_governor", "performance"),
            ("policy4/scaling_governor", "powersave"),
        ];
        assert_eq!(of(&mixed), Some(Verdict::Warning));
        let intel = [
            ("policy0/scaling_governor", "powersave"),
            ("policy0/scaling_driver", "intel_pstate"),
        ];
        assert_eq!(of(&intel), Some(Verdict::Ok));
    }

    #[test]
    fn supply_and_heat_now_are_worse_than_before() {
        let of = |bits: &str| {
            let root = machine(&[("sys/devices/platform/soc/soc:firmware/get_throttled", bits)]);
            power(root.path()).map(|check| check.verdict)
        };
        assert_eq!(of("0"), Some(Verdict::Ok));
        assert_eq!(of("50005"), Some(Verdict::Problem));
        assert_eq!(of("50000"), Some(Verdict::Warning));
        assert_eq!(of("80008"), Some(Verdict::Warning));
        assert_eq!(of("xyz"), None);
    }

    #[test]
    fn the_lowest_trip_of_the_processor_counts() {
        let zone = "sys/class/thermal/thermal_zone0";
        let files = [
            (format!("{zone}/type"), "cpu-thermal"),
            (format!("{zone}/trip_point_0_type"), "critical"),
            (format!("{zone}/trip_point_0_temp"), "30000"),
            (format!("{zone}/trip_point_1_type"), "passive"),
            (format!("{zone}/trip_point_1_temp"), "75000"),
            (format!("{zone}/trip_point_2_type"), "passive"),
            (format!("{zone}/trip_point_2_temp"), "70000"),
        ];
        let files: Vec<_> = files
            .iter()
            .map(|(path, text)| (path.as_str(), *text))
            .collect();
        let root = machine(&files);
        assert_eq!(
            lowest_trip(root.path(), &["cpu-thermal".to_owned()]),
            Some(70.0)
        );
        assert_eq!(lowest_trip(root.path(), &["gpu-thermal".to_owned()]), None);
    }
}
