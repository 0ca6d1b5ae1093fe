//! `chaski tokenize`: text to token ids, for comparing tokenizers.

use std::io::{self, BufRead, Write};

use anyhow::{Context, Result};

use crate::model_options::ModelOptions;

/// Arguments of `chaski tokenize`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    model: ModelOptions,
    /// Do not add the special tokens (such as the beginning of sequence)
    #[arg(long)]
    no_special: bool,
    /// Each line in is a JSON string, each line out a JSON array [default: plain text, ids with spaces]
    #[arg(long)]
    json: bool,
}

/// Runs `chaski tokenize`.
pub fn run(args: &Args) -> Result<()> {
    let model = args.model.load()?;
    let mut out = io::stdout().lock();
    for (number, line) in (1..).zip(io::stdin().lock().lines()) {
        let line = line.context("cannot read standard input")?;
        let text = if args.json {
            serde_json::from_str(&line)
                .with_context(|| format!("line {number} is not a JSON string"))?
        } else {
            line
        };
        let ids = model
            .encode(&text, !args.no_special)
            .with_context(|| format!("cannot encode line {number}"))?;
        if args.json {
            writeln!(out, "{}", serde_json::to_string(&ids)?)?;
        } else {
            let words: Vec<String> = ids.iter().map(u32::to_string).collect();
            writeln!(out, "{}", words.join(" "))?;
        }
    }
    Ok(())
}
