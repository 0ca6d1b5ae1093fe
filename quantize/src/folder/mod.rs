//! The files of a model folder: written beside their place, moved there whole.

mod data;
mod genai;
mod hash;
mod manifest;
mod staging;

pub use data::{ALIGNMENT, DataWriter};
pub use genai::genai_config;
pub use hash::{Hashed, hash_file};
pub use manifest::{FileEntry, Manifest, Quantisation, SourceEntry};
pub use staging::{Staging, check_output};

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
