//! `chaski.json`: what the folder holds and where it came from.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::architecture::{Architecture, BLOCK_SIZE};
use crate::convert::{Options, Scheme};
use crate::quantise::Bits;

/// Value of `format`.
pub const FORMAT: &str = "chaski-model";
/// Value of `format_version`.
pub const FORMAT_VERSION: u32 = 1;

/// Size and hash of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileEntry {
    /// Size.
    pub bytes: u64,
    /// SHA-256 in lower-case hexadecimal.
    pub sha256: String,
}

/// How the weights were quantised.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Quantisation {
    /// Bits of a weight of the layers.
    pub bits: u32,
    /// Bits of a weight of the embedding and the output head: 4 or 8.
    pub embedding_bits: u32,
    /// Weights that share a scale.
    pub block_size: usize,
    /// The scheme that was asked for.
    pub scheme: Scheme,
}

/// Where the weights came from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceEntry {
    /// `gguf` or `safetensors`.
    pub kind: String,
    /// By file name.
    pub files: BTreeMap<String, FileEntry>,
}

/// The whole manifest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Always [`FORMAT`].
    pub format: String,
    /// Changes when a reader of the old one could go wrong.
    pub format_version: u32,
    /// Program and version.
    pub created_by: String,
    /// The model's figures.
    pub architecture: Architecture,
    /// How the weights were quantised.
    pub quantisation: Quantisation,
    /// Every file of the folder but this one.
    pub files: BTreeMap<String, FileEntry>,
    /// Where the weights came from.
    pub source: SourceEntry,
}

impl Manifest {
    /// The manifest of a folder written by this version of the program.
    pub fn new(
        architecture: Architecture,
        options: &Options,
        files: BTreeMap<String, FileEntry>,
        source: SourceEntry,
    ) -> Self {
        Self {
            format: FORMAT.to_owned(),
            format_version: FORMAT_VERSION,
            created_by: concat!(env!("CARGO_PKG_NAME"), " ", env!("CARGO_PKG_VERSION")).to_owned(),
            architecture,
            quantisation: Quantisation {
                bits: Bits::Four.count(),
                embedding_bits: options.embedding_bits.count(),
                block_size: BLOCK_SIZE,
                scheme: options.scheme,
            },
            files,
            source,
        }
    }
}
