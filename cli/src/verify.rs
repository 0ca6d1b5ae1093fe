//! `chaski verify`: is a model folder what its manifest says?

use std::io::{self, Write};
use std::path::PathBuf;

use anyhow::Result;

/// Arguments of `chaski verify`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The model folder
    folder: PathBuf,
}

/// Runs `chaski verify`.
pub fn run(args: &Args) -> Result<()> {
    chaski_engine::verify(&args.folder)?;
    writeln!(
        io::stdout().lock(),
        "{}: every file is as the manifest says",
        args.folder.display()
    )?;
    Ok(())
}
