//! `chaski.json`, the manifest of a model folder, and the names of the folder's
//! files: what the quantiser writes and the engine reads
//! (`docs/model-folder.md`). Types and checks only; no files are touched here.

#![forbid(unsafe_code)]

mod architecture;
mod manifest;

pub use architecture::{Architecture, BLOCK_SIZE, RopeScaling};
pub use manifest::{
    FORMAT, FORMAT_VERSION, FileEntry, Manifest, Quantisation, Scheme, SourceEntry,
};

/// The graph.
pub const MODEL: &str = "model.onnx";
/// The weights.
pub const MODEL_DATA: &str = "model.onnx.data";
/// ONNX Runtime GenAI's description.
pub const GENAI_CONFIG: &str = "genai_config.json";
/// The tokenizer.
pub const TOKENIZER: &str = "tokenizer.json";
/// The chat template and special tokens.
pub const TOKENIZER_CONFIG: &str = "tokenizer_config.json";
/// Default sampling settings.
pub const GENERATION_CONFIG: &str = "generation_config.json";
/// The manifest.
pub const MANIFEST: &str = "chaski.json";

/// A manifest, or a part of one, that says what cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Invalid(pub String);
