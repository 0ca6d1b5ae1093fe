//! The service that uses the store.

use std::io::ErrorKind;
use std::process::{Command, ExitStatus, Stdio};

use anyhow::{Context, Result, ensure};

/// Restarts a service that runs, or that would run if it could; one that nobody wants
/// stays as it is. Does not wait for it: without a broker it would take for ever.
pub(super) fn restart(unit: &str) -> Result<()> {
    let is = |question| match systemctl(&[question, "--quiet", unit]) {
        Ok(status) => Ok(status.success()),
        // No systemd, no service.
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(false),
        Err(e) => Err(e).context("cannot run systemctl"),
    };
    if !is("is-active")? && !is("is-enabled")? {
        return Ok(());
    }
    let status = systemctl(&["restart", "--no-block", unit]).context("cannot run systemctl")?;
    ensure!(
        status.success(),
        "cannot restart {unit}: run this as root, or `systemctl restart {unit}` yourself; without \
         it the model before stays in use"
    );
    Ok(())
}

fn systemctl(arguments: &[&str]) -> std::io::Result<ExitStatus> {
    Command::new("systemctl")
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status()
}
