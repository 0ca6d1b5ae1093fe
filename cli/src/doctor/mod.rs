//! `chaski doctor`: is this machine fit to be a node, and what would make it fitter?
//!
//! Each check looks at one thing and says what to change. Nothing is changed here.

mod broker;
mod kernel;
mod machine;
mod model;
mod report;
mod service;
mod storage;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::{env, io};

use anyhow::{Context, Result};
use chaski_daemon::Board;
use chaski_daemon::config::{Config, ConfigError};
use chaski_daemon::mqtt::Tls;

use report::{Check, Report};

/// Where packages put it.
pub const CONFIG: &str = "/etc/chaski/chaski.toml";

/// Where systemd puts what `LoadCredential=` of the service names; root can read it.
const CREDENTIALS: &str = "/run/credentials/chaskid.service";

/// Arguments of `chaski doctor`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The daemon's configuration file
    #[arg(long, value_name = "FILE", default_value = CONFIG)]
    config: PathBuf,
    /// A model folder to look at in place of the configuration's
    #[arg(long, value_name = "FOLDER")]
    model: Option<PathBuf>,
    /// Where the machine's proc and sys are [default: as the configuration has it, or /]
    #[arg(long, value_name = "FOLDER")]
    root: Option<PathBuf>,
    /// Print it as JSON
    #[arg(long)]
    json: bool,
}

/// Runs `chaski doctor`: success without a problem.
pub async fn run(args: &Args) -> Result<ExitCode> {
    let mut checks = Vec::new();
    let given = env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from);
    let made = Some(PathBuf::from(CREDENTIALS)).filter(|folder| folder.is_dir());
    let read = Config::read_with(&args.config, given.or(made).as_deref());
    let mut config = match &read {
        Ok(config) => config.clone(),
        Err(error) => {
            checks.push(Check::problem("configuration", error, remedy(error)));
            Config::for_model("")
        }
    };
    if let Some(folder) = &args.model {
        config.model.folder.clone_from(folder);
    }
    if let Some(root) = &args.root {
        config.metrics.system_root.clone_from(root);
    }
    if read.is_ok() {
        configuration(args, &config, &mut checks);
    }
    let board = match Board::find(&config) {
        Ok(board) => {
            checks.push(machine::board(&board));
            board
        }
        Err(error) => {
            let remedy = "correct board.profile, or remove it to have the board recognised";
            checks.push(Check::problem("board", error, remedy));
            config.board.profile = None;
            Board::find(&config).context("there is no profile for this machine")?
        }
    };
    let root = config.metrics.system_root.clone();
    let here = root == Path::new("/");
    checks.push(machine::kernels(&board, &config, here));
    let has_model = !config.model.folder.as_os_str().is_empty();
    let looked = has_model.then(|| model::look(&config.model.folder));
    let mut filled = board.fill(&config);
    match &looked {
        Some(Ok(manifest)) => {
            checks.push(model::folder(&config.model.folder, manifest));
            checks.extend(model::memory(&mut filled, manifest));
            checks.extend(storage::check(&config.model.folder, &root));
        }
        Some(Err(problem)) => checks.push(model::unusable(problem)),
        None => {}
    }
    if read.is_ok() {
        checks.push(broker::check(&config).await);
    }
    checks.extend(machine::governor(&root));
    checks.extend(machine::power(&root));
    checks.extend(machine::temperature(&filled.heat, &root));
    checks.extend(kernel::check(&board, &root));
    if here {
        checks.extend(service::check());
    }
    let report = Report::new(&board, &config, &filled.model, here, checks);
    report.print(args.json)?;
    Ok(match report.problems {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    })
}

/// What to do where there is no configuration.
fn remedy(error: &ConfigError) -> String {
    match error {
        ConfigError::Read { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
            "try again with sudo".to_owned()
        }
        ConfigError::Read { .. } => "name another with --config".to_owned(),
        _ => "chaskid.example.toml explains every key".to_owned(),
    }
}

/// The file, and the files it names.
fn configuration(args: &Args, config: &Config, checks: &mut Vec<Check>) {
    const NAME: &str = "configuration";
    let file = args.config.display();
    let before = checks.len();
    for exposed in config.broker.exposed_files() {
        checks.push(Check::warning(NAME, format!("{file}: {exposed}"), ""));
    }
    let mut problems = config.missing_files();
    // These have checks of their own.
    problems.retain(|problem| !["model.folder", "board.profile"].contains(&problem.key));
    problems.extend(Tls::load(&config.broker).err());
    for problem in problems {
        checks.push(Check::problem(NAME, format!("{file}: {problem}"), ""));
    }
    if checks.len() == before {
        checks.push(Check::ok(NAME, format!("{file} is valid")));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_read_has_its_remedy() {
        let read = |kind: io::ErrorKind| {
            remedy(&ConfigError::Read {
                path: "c".into(),
                source: kind.into(),
            })
        };
        assert!(read(io::ErrorKind::PermissionDenied).contains("sudo"));
        assert!(read(io::ErrorKind::NotFound).contains("--config"));
    }
}
