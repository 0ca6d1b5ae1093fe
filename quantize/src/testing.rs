//! A source in memory, for the tests of the output side.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::PathBuf;

use half::f16;

use crate::error::{Error, Result};
use crate::plan;
use crate::source::{Encoding, Q4Blocks, Q8Blocks, Source, TensorInfo, TextFiles};
use chaski_manifest::Architecture;

/// A tensor in memory.
pub enum Held {
    /// As f32.
    Plain(Vec<f32>),
    /// As Q4_0 (no minimums) or Q4_1.
    Q4(Q4Blocks),
    /// As Q8_0.
    Q8(Q8Blocks),
}

/// Tensors by name, with their rows and columns.
pub struct Memory {
    pub architecture: Architecture,
    pub tensors: BTreeMap<String, (usize, usize, Held)>,
}

/// Numbers between -1 and 1 that look random and are always the same.
pub fn noise(count: usize, seed: u32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(747_796_405).wrapping_add(2_891_336_453);
    (0..count)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1u32 << 23) as f32 - 1.0
        })
        .collect()
}

/// Noise with tails, as weights have them.
pub fn weights(count: usize, seed: u32) -> Vec<f32> {
    noise(count, seed)
        .iter()
        .map(|x| x * x * x + 0.2 * x)
        .collect()
}

/// Q4_1 blocks of noise (or Q4_0 without minimums).
pub fn q4_blocks(count: usize, minimums: bool) -> Q4Blocks {
    let scales: Vec<_> = noise(count, 3)
        .iter()
        .map(|x| f16::from_f32(x * 0.1))
        .collect();
    let mins = noise(count, 4);
    Q4Blocks {
        quants: (0..count * 16).map(|i| (i * 37 % 251) as u8).collect(),
        mins: scales
            .iter()
            .zip(&mins)
            .filter(|_| minimums)
            .map(|(scale, min)| f16::from_f32(-scale.to_f32() * (8.0 + 6.0 * min)))
            .collect(),
        scales,
    }
}

/// The smallest Llama: one layer, four heads, two of keys and values.
pub fn tiny() -> Memory {
    let architecture = Architecture {
        family: "llama".into(),
        hidden_size: 64,
        intermediate_size: 96,
        layers: 1,
        heads: 4,
        kv_heads: 2,
        head_dim: 16,
        vocab_size: 40,
        context_length: 128,
        rms_norm_eps: 1e-5,
        rope_theta: 10_000.0,
        rope_scaling: None,
        tied_embeddings: true,
        attention_bias: true,
        mlp_bias: false,
    };
    let tensors = plan::tensors(&architecture)
        .into_iter()
        .enumerate()
        .map(|(seed, t)| {
            let values = weights(t.rows * t.columns, seed as u32);
            (t.name, (t.rows, t.columns, Held::Plain(values)))
        })
        .collect();
    Memory {
        architecture,
        tensors,
    }
}

impl Memory {
    /// The values of a plain tensor.
    pub fn plain(&mut self, name: &str) -> &mut Vec<f32> {
        match self.tensors.get_mut(name) {
            Some((_, _, Held::Plain(values))) => values,
            _ => panic!("{name} is not plain"),
        }
    }

    /// Stores a tensor in 4-bit blocks instead.
    pub fn hold_q4(&mut self, name: &str, minimums: bool) -> &mut Q4Blocks {
        let (rows, columns, held) = self.tensors.get_mut(name).unwrap();
        *held = Held::Q4(q4_blocks(*rows * *columns / 32, minimums));
        match held {
            Held::Q4(blocks) => blocks,
            _ => unreachable!(),
        }
    }

    /// Stores a tensor as Q8_0 instead, every quant among its own.
    pub fn hold_q8(&mut self, name: &str) -> &mut Q8Blocks {
        let (rows, columns, held) = self.tensors.get_mut(name).unwrap();
        let count = *rows * *columns / 32;
        *held = Held::Q8(Q8Blocks {
            quants: (0..count * 32).map(|i| (i * 37) as u8).collect(),
            scales: noise(count, 5)
                .iter()
                .map(|x| f16::from_f32(x * 0.01))
                .collect(),
        });
        match held {
            Held::Q8(blocks) => blocks,
            _ => unreachable!(),
        }
    }
}

impl Source for Memory {
    fn kind(&self) -> &'static str {
        "safetensors"
    }

    fn files(&self) -> Vec<PathBuf> {
        Vec::new()
    }

    fn architecture(&self) -> &Architecture {
        &self.architecture
    }

    fn tensor(&self, name: &str) -> Option<TensorInfo> {
        let (rows, columns, held) = self.tensors.get(name)?;
        let encoding = match held {
            Held::Plain(_) => Encoding::F32,
            Held::Q4(blocks) if blocks.mins.is_empty() => Encoding::Q4_0,
            Held::Q4(_) => Encoding::Q4_1,
            Held::Q8(_) => Encoding::Q8_0,
        };
        Some(TensorInfo {
            name: name.to_owned(),
            rows: *rows,
            columns: *columns,
            encoding,
            bytes: (rows * columns * 4) as u64,
        })
    }

    fn tensor_names(&self) -> Vec<String> {
        self.tensors.keys().cloned().collect()
    }

    fn read_rows(&self, name: &str, rows: Range<usize>, out: &mut [f32]) -> Result<()> {
        let (_, columns, held) = self
            .tensors
            .get(name)
            .ok_or_else(|| Error::read(name, "the source does not have it"))?;
        match held {
            Held::Plain(values) => {
                out.copy_from_slice(&values[rows.start * columns..rows.end * columns]);
            }
            Held::Q4(blocks) => {
                let first = rows.start * columns;
                for (i, out) in out.iter_mut().enumerate() {
                    *out = q4_value(blocks, first + i);
                }
            }
            Held::Q8(blocks) => {
                let quants = &blocks.quants[rows.start * columns..rows.end * columns];
                let scales = &blocks.scales[rows.start * columns / 32..];
                for (i, (out, &quant)) in out.iter_mut().zip(quants).enumerate() {
                    *out = (f32::from(quant) - 128.0) * scales[i / 32].to_f32();
                }
            }
        }
        Ok(())
    }

    fn read_q4_rows(&self, name: &str, rows: Range<usize>, out: &mut Q4Blocks) -> Result<bool> {
        let Some((_, columns, Held::Q4(blocks))) = self.tensors.get(name) else {
            return Ok(false);
        };
        let (first, last) = (rows.start * columns / 32, rows.end * columns / 32);
        out.quants.extend(&blocks.quants[first * 16..last * 16]);
        out.scales.extend(&blocks.scales[first..last]);
        if !blocks.mins.is_empty() {
            out.mins.extend(&blocks.mins[first..last]);
        }
        Ok(true)
    }

    fn read_q8_rows(&self, name: &str, rows: Range<usize>, out: &mut Q8Blocks) -> Result<bool> {
        let Some((_, columns, Held::Q8(blocks))) = self.tensors.get(name) else {
            return Ok(false);
        };
        let (first, last) = (rows.start * columns / 32, rows.end * columns / 32);
        out.quants.extend(&blocks.quants[first * 32..last * 32]);
        out.scales.extend(&blocks.scales[first..last]);
        Ok(true)
    }

    fn text_files(&self) -> Result<TextFiles> {
        Ok(TextFiles {
            tokenizer: b"{}".to_vec(),
            tokenizer_config: serde_json::json!({}),
            generation_config: serde_json::json!({"bos_token_id": 1, "eos_token_id": [2, 3]}),
        })
    }
}

/// The value that Q4_0 and Q4_1 define.
pub fn q4_value(blocks: &Q4Blocks, element: usize) -> f32 {
    let (block, byte) = (element / 32, blocks.quants[element / 2]);
    let quant = if element.is_multiple_of(2) {
        byte & 15
    } else {
        byte >> 4
    };
    let scale = blocks.scales[block].to_f32();
    let min = blocks
        .mins
        .get(block)
        .map_or(-8.0 * scale, |min| min.to_f32());
    f32::from(quant) * scale + min
}
