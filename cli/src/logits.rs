//! `chaski logits`: the numbers before any choice, for comparing engines.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use crate::model_options::ModelOptions;

/// Arguments of `chaski logits`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    model: ModelOptions,
    /// The prompt as token ids
    #[arg(long, value_name = "ID,..", value_delimiter = ',', required = true)]
    ids: Vec<u32>,
    /// Prefill only the first K ids and decode the rest one by one
    #[arg(long, value_name = "K")]
    split: Option<usize>,
    /// Where the logits of the last position go: f32, little-endian
    #[arg(long, value_name = "FILE")]
    output: PathBuf,
}

/// Runs `chaski logits`.
pub fn run(args: &Args) -> Result<()> {
    let (prefill, decode) = split(&args.ids, args.split)?;
    let model = args.model.load()?;
    let mut session = model.session().context("cannot make a session")?;
    let mut bytes = little_endian(session.prefill(prefill).context("prefill failed")?);
    for &id in decode {
        bytes = little_endian(session.decode(id).context("decode failed")?);
    }
    fs::write(&args.output, bytes)
        .with_context(|| format!("cannot write {}", args.output.display()))
}

fn split(ids: &[u32], at: Option<usize>) -> Result<(&[u32], &[u32])> {
    match ids.split_at_checked(at.unwrap_or(ids.len())) {
        Some((prefill, decode)) if !prefill.is_empty() => Ok((prefill, decode)),
        _ => bail!("--split must be from 1 to the number of ids, {}", ids.len()),
    }
}

fn little_endian(logits: &[f32]) -> Vec<u8> {
    logits
        .iter()
        .flat_map(|logit| logit.to_le_bytes())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_within_the_ids_only() {
        let ids = [1, 2, 3];
        assert_eq!(split(&ids, None).expect("whole"), (&ids[..], &[][..]));
        assert_eq!(split(&ids, Some(1)).expect("one"), (&[1][..], &[2, 3][..]));
        assert!(split(&ids, Some(0)).is_err());
        assert!(split(&ids, Some(4)).is_err());
        assert!(split(&[], None).is_err());
    }

    #[test]
    fn logits_are_little_endian() {
        assert_eq!(little_endian(&[1.0, -2.0]), [0, 0, 128, 63, 0, 0, 0, 192]);
    }
}
