//! `chaskid`: answers over MQTT until it is told to stop.

#![forbid(unsafe_code)]

mod log;

use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use chaski_daemon::Reload;
use chaski_daemon::config::Config;
use chaski_daemon::mqtt::Tls;
use clap::{Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tracing::{error, info, warn};

/// Answers questions over MQTT with a Llama model on this machine.
#[derive(Parser)]
#[command(name = "chaskid", version, args_conflicts_with_subcommands = true)]
struct Arguments {
    /// The configuration file.
    #[arg(long, value_name = "FILE", required = true)]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Check a configuration file and the files it names, and do nothing else.
    Validate {
        /// The configuration file.
        file: PathBuf,
    },
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let result = match (arguments.command, arguments.config) {
        (Some(Command::Validate { file }), _) => validate(&file).map(|()| ExitCode::SUCCESS),
        (None, Some(file)) => serve(&file),
        // clap asks for one of the two.
        (None, None) => Err(anyhow::anyhow!("give --config FILE")),
    };
    match result {
        Ok(code) => code,
        Err(e) => {
            eprintln!("chaskid: {e:#}");
            ExitCode::FAILURE
        }
    }
}

fn validate(file: &Path) -> anyhow::Result<()> {
    let config = Config::read(file)?;
    for exposed in config.broker.exposed_files() {
        eprintln!("{}: warning: {exposed}", file.display());
    }
    let mut problems = config.missing_files();
    problems.extend(Tls::load(&config.broker).err());
    if problems.is_empty() {
        println!("{}: valid", file.display());
        return Ok(());
    }
    let list: String = problems
        .iter()
        .map(|problem| format!("\n  {problem}"))
        .collect();
    anyhow::bail!("{}:{list}", file.display());
}

/// An error is one from before there was a log; a later one is in the log.
fn serve(file: &Path) -> anyhow::Result<ExitCode> {
    let config = Config::read(file)?;
    log::start();
    for exposed in config.broker.exposed_files() {
        warn!("{exposed}");
    }
    // All that computes has a thread of its own; the rest waits.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let result = runtime.block_on(async {
        let shutdown = shutdown_signal().context("cannot listen for signals")?;
        let reload = Reload {
            file: file.to_owned(),
            asked: hangups().context("cannot listen for signals")?,
        };
        chaski_daemon::run(config, Some(reload), shutdown)
            .await
            .map_err(anyhow::Error::from)
    });
    // A name look-up may still be under way; the process does not wait for it.
    runtime.shutdown_background();
    Ok(match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            error!("{e:#}");
            ExitCode::FAILURE
        }
    })
}

/// Completes with the first SIGTERM or SIGINT.
fn shutdown_signal() -> io::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        let name = tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        };
        info!(signal = name, "stopping");
    })
}

/// A message for each SIGHUP.
fn hangups() -> io::Result<mpsc::Receiver<()>> {
    let mut hangup = signal(SignalKind::hangup())?;
    let (asked, hangups) = mpsc::channel(1);
    tokio::spawn(async move {
        while hangup.recv().await.is_some() {
            info!(signal = "SIGHUP", "reading the configuration again");
            // One that waits is enough.
            let _ = asked.try_send(());
        }
    });
    Ok(hangups)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_manual_is_what_the_program_says() {
        chaski_manual::check(Arguments::command(), "8");
    }
}
