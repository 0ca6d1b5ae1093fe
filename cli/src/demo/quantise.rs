//! A GGUF file becomes a model folder, with progress on standard error.

use std::path::Path;

use anyhow::{Context, Result};
use chaski_quantize::progress::ProgressDisplay;
use chaski_quantize::{Bits, Options};

/// Quantises `file` into the folder `out`, whole or not at all.
pub fn quantise(file: &Path, out: &Path) -> Result<()> {
    let options = Options {
        // The models that one tries first are small, and their embedding, which
        // is the head as well, suffers visibly at 4 bits.
        embedding_bits: Bits::Eight,
        ..Options::default()
    };
    chaski_quantize::quantise(file, out, &options, &mut ProgressDisplay::new())
        .map(drop)
        .with_context(|| format!("cannot quantise {}", file.display()))
}
