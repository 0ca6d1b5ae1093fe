//! `chaski models`: the model store of a board, `/var/lib/chaski/models`.

mod service;
mod store;
mod update;

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, bail};
use clap::Subcommand;

use store::Store;

/// Arguments of `chaski models`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The model store: a folder of model folders
    #[arg(
        long,
        value_name = "FOLDER",
        default_value = "/var/lib/chaski/models",
        global = true
    )]
    store: PathBuf,
    /// The service that answers with the current model, restarted after a change
    #[arg(
        long,
        value_name = "UNIT",
        default_value = "chaskid.service",
        global = true
    )]
    service: String,
    /// Let the service run on with the model that it has
    #[arg(long, global = true)]
    no_restart: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show the models in the store; `*` is the current one
    List,
    /// Copy a model folder into the store, check it, and make it the current one
    Install {
        /// The model folder, as chaski-quantize wrote it
        folder: PathBuf,
        /// Its name in the store; by default the folder's own
        #[arg(long)]
        name: Option<String>,
    },
    /// Make a model of the store the current one
    Use {
        /// Its name
        name: String,
    },
    /// Delete a model from the store
    Remove {
        /// Its name
        name: String,
    },
    /// Install what lies in the store's folder `incoming`, once it is whole
    Update {
        /// Give up a folder that is not whole and has not changed for so many seconds
        #[arg(long, value_name = "SECONDS", default_value_t = 60)]
        patience: u64,
    },
}

/// Runs `chaski models`.
pub fn run(args: &Args) -> Result<()> {
    let store = Store::open(&args.store)?;
    let mut out = io::stdout().lock();
    match &args.command {
        Command::List => {
            for entry in store.list()? {
                let mark = if entry.is_current { '*' } else { ' ' };
                writeln!(out, "{mark} {}", entry.name)?;
            }
            return Ok(());
        }
        Command::Install { folder, name } => {
            let name = store.add(folder, name.as_deref())?;
            store.activate(&name)?;
            writeln!(out, "{name} is in the store, and the current model")?;
        }
        Command::Use { name } => {
            store.activate(name)?;
            writeln!(out, "{name} is the current model")?;
        }
        Command::Remove { name } => {
            store.remove(name)?;
            writeln!(out, "{name} is removed")?;
            return Ok(());
        }
        Command::Update { patience } => {
            let updated = update::update(&store, Duration::from_secs(*patience))?;
            for name in &updated.added {
                writeln!(out, "{name} is in the store, and the current model")?;
            }
            if !updated.added.is_empty() && !args.no_restart {
                service::restart(&args.service)?;
            }
            if let [(name, problem), ..] = &updated.rejected[..] {
                let all = updated.rejected.len();
                bail!("{all} rejected, such as {name}: {problem:#}");
            }
            return Ok(());
        }
    }
    if !args.no_restart {
        service::restart(&args.service)?;
    }
    Ok(())
}
