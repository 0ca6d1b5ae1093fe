//! Where weights come from: one trait over Hugging Face folders and GGUF files.

mod blocks;
mod gguf;
mod llama;
mod map;
mod random;
mod rows;
mod safetensors;
#[cfg(test)]
mod testing;

use std::fs;
use std::io::Read as _;
use std::ops::Range;
use std::path::{Path, PathBuf};

use self::gguf::Gguf;
pub use self::random::Random;
use self::safetensors::HuggingFace;
use crate::error::{Error, Result};
use chaski_manifest::Architecture;

/// How a source stores a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Encoding {
    F32,
    F16,
    Bf16,
    Q8_0,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q4K,
    Q5K,
    Q6K,
}

/// One tensor of a source, by its Hugging Face name
/// (`model.layers.0.self_attn.q_proj.weight`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    /// Hugging Face name.
    pub name: String,
    /// Rows and columns, row-major; a vector has one row.
    pub rows: usize,
    /// Columns: the input features of a weight matrix.
    pub columns: usize,
    /// As it is stored.
    pub encoding: Encoding,
    /// Bytes it takes in the source.
    pub bytes: u64,
}

/// Blocks of 32 weights in 4 bits as Q4_0 and Q4_1 hold them, in row order.
///
/// `weight = scale * q + min`; Q4_0 has `min = -8 * scale`, told by `mins` being empty.
#[derive(Clone, Debug, Default)]
pub struct Q4Blocks {
    /// 16 bytes a block; byte i holds element 2i in its low and 2i+1 in its high
    /// nibble (ONNX order, not GGUF's).
    pub quants: Vec<u8>,
    /// One a block.
    pub scales: Vec<half::f16>,
    /// One a block, or none (Q4_0).
    pub mins: Vec<half::f16>,
}

/// Blocks of 32 weights in 8 bits as Q8_0 holds them, in row order.
///
/// `weight = scale * (q - 128)`.
#[derive(Clone, Debug, Default)]
pub struct Q8Blocks {
    /// 32 bytes a block, each 128 more than GGUF's signed one (ONNX order).
    pub quants: Vec<u8>,
    /// One a block.
    pub scales: Vec<half::f16>,
}

/// The text side of a model, as the files of the model folder hold it.
#[derive(Clone, Debug)]
pub struct TextFiles {
    /// `tokenizer.json`, byte for byte where the source has one.
    pub tokenizer: Vec<u8>,
    /// `tokenizer_config.json`, with the chat template inside.
    pub tokenizer_config: serde_json::Value,
    /// `generation_config.json`: at least `bos_token_id` and `eos_token_id`.
    pub generation_config: serde_json::Value,
}

/// An opened and checked source of a Llama's weights.
pub trait Source: Send + Sync {
    /// `"gguf"`, `"safetensors"` or `"random"`.
    fn kind(&self) -> &'static str;
    /// Every file the weights and texts come from, for the manifest's hashes.
    fn files(&self) -> Vec<PathBuf>;
    /// The model's figures.
    fn architecture(&self) -> &Architecture;
    /// The tensor of that Hugging Face name.
    fn tensor(&self, name: &str) -> Option<TensorInfo>;
    /// Names of all tensors, to report those that nothing uses.
    fn tensor_names(&self) -> Vec<String>;
    /// Dequantises rows (in Hugging Face's row order) into `out`, `rows.len() * columns` values.
    fn read_rows(&self, name: &str, rows: Range<usize>, out: &mut [f32]) -> Result<()>;
    /// Appends rows of a Q4_0 or Q4_1 tensor without touching their values;
    /// `false` when the tensor is stored otherwise.
    fn read_q4_rows(&self, name: &str, rows: Range<usize>, out: &mut Q4Blocks) -> Result<bool>;
    /// Appends rows of a Q8_0 tensor without touching their values; `false`
    /// when the tensor is stored otherwise.
    fn read_q8_rows(&self, name: &str, rows: Range<usize>, out: &mut Q8Blocks) -> Result<bool> {
        let _ = (name, rows, out);
        Ok(false)
    }
    /// Tokenizer, chat template and generation settings.
    fn text_files(&self) -> Result<TextFiles>;
}

/// Opens a GGUF file, a Hugging Face folder, or a `.safetensors` file beside its
/// `config.json`, and checks that all of a Llama is there.
///
/// The files are mapped: they must not be rewritten while the source is open.
pub fn open(path: &Path) -> Result<Box<dyn Source>> {
    let metadata = fs::metadata(path).map_err(Error::io("open", path))?;
    if metadata.is_dir() {
        return Ok(Box::new(HuggingFace::open(path)?));
    }
    if !metadata.is_file() {
        return Err(Error::not_a_model(path, "neither a file nor a folder"));
    }
    let mut magic = [0; gguf::MAGIC.len()];
    let mut file = fs::File::open(path).map_err(Error::io("open", path))?;
    // A file too short for any magic is told apart by its name alone.
    let is_gguf = file.read_exact(&mut magic).is_ok() && magic == gguf::MAGIC;
    let extension = path.extension().and_then(|extension| extension.to_str());
    match (is_gguf, extension) {
        (true, _) => Ok(Box::new(Gguf::open(path)?)),
        (false, Some("safetensors")) => Ok(Box::new(HuggingFace::open(path)?)),
        (false, Some("gguf")) => Err(Error::malformed(
            path,
            "it does not start with GGUF as a .gguf file should",
        )),
        (false, _) => Err(Error::not_a_model(
            path,
            "give a GGUF file, a Hugging Face folder, or a .safetensors file beside its \
             config.json",
        )),
    }
}
