//! A Llama of random weights, of the shape that a `config.json` tells.
//!
//! For measurements: speed and memory depend on a model's shape, not on what it
//! has learnt. The weights are there in blocks from the beginning, so that a
//! model of billions is written as fast as the disk takes it.

mod stream;
mod tokenizer;
mod weights;

use std::collections::HashMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde_json::Value;

use self::weights::Weights;
use super::llama::{Expected, expected_tensors};
use super::safetensors::{MAX_CONFIG_BYTES, config, json, texts};
use super::{Encoding, Q4Blocks, Q8Blocks, Source, TensorInfo, TextFiles};
use crate::error::{Error, Result};
use crate::plan::{EMBEDDING, HEAD};
use crate::quantise::Bits;
use chaski_manifest::{Architecture, BLOCK_SIZE};

/// Weights that come from a seed and are never held: every row is computed when
/// it is read, the same each time.
///
/// Matrices are Q4_0 (the embedding and the head Q8_0 where they are to have 8
/// bits), of mean 0 and a standard deviation of one over the root of the
/// columns, so that activations stay about 1; norms are 1, biases small.
pub struct Random {
    config_path: PathBuf,
    config: Value,
    architecture: Architecture,
    tokenizer: Option<PathBuf>,
    embedding_bits: Bits,
    seed: u64,
    tensors: HashMap<String, Expected>,
}

impl Random {
    /// Reads the shape from a Hugging Face `config.json`; the texts come from
    /// the folder `tokenizer`, or are of bytes without one.
    ///
    /// # Errors
    /// A config that cannot be read, is of no Llama, or has a figure that none
    /// can have, by the name of its key.
    pub fn open(
        config_path: &Path,
        tokenizer: Option<&Path>,
        embedding_bits: Bits,
        seed: u64,
    ) -> Result<Self> {
        let config: Value = json::read_json(config_path, MAX_CONFIG_BYTES)?;
        let architecture = config::architecture(config_path, &config)?;
        let tensors = expected_tensors(&architecture)
            .map(|expected| (expected.name.clone(), expected))
            .collect();
        Ok(Self {
            config_path: config_path.to_path_buf(),
            config,
            architecture,
            tokenizer: tokenizer.map(Path::to_path_buf),
            embedding_bits,
            seed,
            tensors,
        })
    }

    fn encoding(&self, expected: &Expected) -> Encoding {
        let table = expected.name == EMBEDDING || expected.name == HEAD;
        match (expected.vector, table, self.embedding_bits) {
            (true, _, _) => Encoding::F32,
            (false, true, Bits::Eight) => Encoding::Q8_0,
            (false, _, _) => Encoding::Q4_0,
        }
    }

    /// A tensor and the rows wanted of it, if it has them.
    fn find<'a>(&'a self, name: &str, rows: &Range<usize>) -> Result<(&'a Expected, Weights<'a>)> {
        let expected = self
            .tensors
            .get(name)
            .ok_or_else(|| Error::read(name, "not a tensor of the model"))?;
        if rows.start > rows.end || rows.end > expected.rows {
            let reason = format!("it has {} rows, {rows:?} were asked for", expected.rows);
            return Err(Error::read(name, reason));
        }
        Ok((
            expected,
            Weights::new(self.seed, &expected.name, expected.columns),
        ))
    }
}

impl Source for Random {
    fn kind(&self) -> &'static str {
        "random"
    }

    fn files(&self) -> Vec<PathBuf> {
        let mut files = vec![self.config_path.clone()];
        if let Some(folder) = &self.tokenizer {
            files.extend(texts::files(folder));
        }
        files
    }

    fn architecture(&self) -> &Architecture {
        &self.architecture
    }

    fn tensor(&self, name: &str) -> Option<TensorInfo> {
        let expected = self.tensors.get(name)?;
        let encoding = self.encoding(expected);
        let row_bytes = encoding.row_bytes(expected.columns)? as u64;
        Some(TensorInfo {
            name: name.to_owned(),
            rows: expected.rows,
            columns: expected.columns,
            encoding,
            bytes: row_bytes.saturating_mul(expected.rows as u64),
        })
    }

    fn tensor_names(&self) -> Vec<String> {
        let mut names: Vec<_> = self.tensors.keys().cloned().collect();
        names.sort();
        names
    }

    fn read_rows(&self, name: &str, rows: Range<usize>, out: &mut [f32]) -> Result<()> {
        let (expected, weights) = self.find(name, &rows)?;
        if out.len() != rows.len().saturating_mul(expected.columns) {
            return Err(Error::read(name, "rows of another length were asked for"));
        }
        match self.encoding(expected) {
            Encoding::Q4_0 => {
                let mut blocks = Q4Blocks::default();
                weights.q4_rows(rows, &mut blocks);
                let quants = blocks.quants.iter().flat_map(|byte| [byte & 15, byte >> 4]);
                for (i, (out, quant)) in out.iter_mut().zip(quants).enumerate() {
                    *out = (f32::from(quant) - 8.0) * blocks.scales[i / BLOCK_SIZE].to_f32();
                }
            }
            Encoding::Q8_0 => {
                let mut blocks = Q8Blocks::default();
                weights.q8_rows(rows, &mut blocks);
                for (i, (out, &quant)) in out.iter_mut().zip(&blocks.quants).enumerate() {
                    *out = (f32::from(quant) - 128.0) * blocks.scales[i / BLOCK_SIZE].to_f32();
                }
            }
            _ if name.ends_with("bias") => weights.biases(out),
            _ => out.fill(1.0),
        }
        Ok(())
    }

    fn read_q4_rows(&self, name: &str, rows: Range<usize>, out: &mut Q4Blocks) -> Result<bool> {
        let (expected, weights) = self.find(name, &rows)?;
        let stored = self.encoding(expected) == Encoding::Q4_0;
        if stored {
            weights.q4_rows(rows, out);
        }
        Ok(stored)
    }

    fn read_q8_rows(&self, name: &str, rows: Range<usize>, out: &mut Q8Blocks) -> Result<bool> {
        let (expected, weights) = self.find(name, &rows)?;
        let stored = self.encoding(expected) == Encoding::Q8_0;
        if stored {
            weights.q8_rows(rows, out);
        }
        Ok(stored)
    }

    fn text_files(&self) -> Result<TextFiles> {
        let vocabulary = self.architecture.vocab_size;
        match &self.tokenizer {
            Some(folder) => texts::read(folder, &self.config, vocabulary),
            None => tokenizer::of_bytes(&self.config_path, &self.config, vocabulary),
        }
    }
}

#[cfg(test)]
mod tests;
