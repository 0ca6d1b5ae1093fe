//! A GGUF file becomes a model folder, with progress on standard error.

use std::path::Path;

use anyhow::{Context, Result};
use chaski_quantize::Options;
use chaski_quantize::progress::ProgressDisplay;

/// Quantises `file` into the folder `out`, whole or not at all.
pub fn quantise(file: &Path, out: &Path) -> Result<()> {
    chaski_quantize::quantise(file, out, &Options::default(), &mut ProgressDisplay::new())
        .map(drop)
        .with_context(|| format!("cannot quantise {}", file.display()))
}
