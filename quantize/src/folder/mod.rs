//! The files of a model folder: written beside their place, moved there whole.

mod data;
mod genai;
mod hash;
mod staging;

pub use chaski_manifest::{
    GENAI_CONFIG, GENERATION_CONFIG, MANIFEST, MODEL, MODEL_DATA, TOKENIZER, TOKENIZER_CONFIG,
};
pub use data::{ALIGNMENT, DataWriter};
pub use genai::genai_config;
pub use hash::{Hashed, hash_file};
pub use staging::{Staging, check_output};
