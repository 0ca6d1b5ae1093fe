//! The service of systemd, where there is systemd.

use std::process::{Command, Stdio};

use super::report::Check;

const NAME: &str = "service";
const UNIT: &str = "chaskid.service";

/// What systemd says of it; nothing where it does not run.
pub(super) fn check() -> Option<Check> {
    let output = Command::new("systemctl")
        .args([
            "show",
            UNIT,
            "--property=LoadState,ActiveState,SubState,Result,NRestarts",
        ])
        .stdin(Stdio::null())
        .output()
        .ok()?;
    output
        .status
        .success()
        .then(|| judge(&String::from_utf8_lossy(&output.stdout)))
}

fn judge(shown: &str) -> Check {
    let of = |key: &str| {
        let line = shown
            .lines()
            .find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        line.unwrap_or_default()
    };
    if of("LoadState") != "loaded" {
        return Check::ok(NAME, format!("{UNIT} is not installed"));
    }
    let restarts = match of("NRestarts") {
        "" | "0" => String::new(),
        n => format!(", started again {n} times"),
    };
    let state = format!(
        "{UNIT} is {} ({}){restarts}",
        of("ActiveState"),
        of("SubState")
    );
    let log = format!("journalctl -u {UNIT} -n 50 says why");
    match of("ActiveState") {
        "active" | "reloading" if restarts.is_empty() => Check::ok(NAME, state),
        "active" | "reloading" | "activating" => Check::warning(NAME, state, log),
        "failed" => Check::problem(NAME, format!("{state}: {}", of("Result")), log),
        _ => Check::warning(NAME, state, format!("sudo systemctl enable --now {UNIT}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::report::Verdict;

    #[test]
    fn states_of_a_service() {
        let of = |load: &str, active: &str, restarts: &str| {
            judge(&format!(
                "Result=exit-code\nNRestarts={restarts}\nLoadState={load}\nActiveState={active}\n\
                 SubState=x\n"
            ))
            .verdict
        };
        assert_eq!(of("loaded", "active", "0"), Verdict::Ok);
        assert_eq!(of("loaded", "active", "7"), Verdict::Warning);
        assert_eq!(of("loaded", "activating", "0"), Verdict::Warning);
        assert_eq!(of("loaded", "failed", "0"), Verdict::Problem);
        assert_eq!(of("loaded", "inactive", "0"), Verdict::Warning);
        assert_eq!(of("not-found", "inactive", "0"), Verdict::Ok);
        assert_eq!(judge("").verdict, Verdict::Ok);
    }
}
