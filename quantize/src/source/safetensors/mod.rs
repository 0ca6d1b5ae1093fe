//! A Llama as a Hugging Face folder: `config.json`, safetensors, tokenizer files.

pub(super) mod config;
mod files;
pub(crate) mod json;
mod largest_id;
mod shard;
pub(super) mod texts;

use std::collections::HashMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde_json::Value;

use self::files::WeightFiles;
use self::shard::Shard;
use super::llama::expected_tensors;
use super::rows::StoredRows;
use super::{Q4Blocks, Source, TensorInfo, TextFiles};
use crate::error::{Error, Result};
use chaski_manifest::Architecture;

/// No config is larger.
pub(super) const MAX_CONFIG_BYTES: u64 = 16 << 20;

/// An opened and checked folder.
pub(crate) struct HuggingFace {
    config_path: PathBuf,
    config: Value,
    architecture: Architecture,
    weights: WeightFiles,
    shards: Vec<Shard>,
    /// The tensors of the model, with the shard that holds each.
    tensors: HashMap<String, (usize, StoredRows)>,
}

impl HuggingFace {
    /// Opens a folder, or a `.safetensors` file in such a folder.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let weights = files::find(path)?;
        let config_path = weights.folder.join("config.json");
        if !config_path.is_file() {
            return Err(Error::not_a_model(
                &weights.folder,
                "the folder has no config.json, which tells the model's figures",
            ));
        }
        let config: Value = json::read_json(&config_path, MAX_CONFIG_BYTES)?;
        let architecture = config::architecture(&config_path, &config)?;
        let shards = weights
            .shards
            .iter()
            .map(|path| Shard::open(path))
            .collect::<Result<Vec<_>>>()?;
        let tensors = find_tensors(&architecture, &weights, &shards)?;
        Ok(Self {
            config_path,
            config,
            architecture,
            weights,
            shards,
            tensors,
        })
    }

    fn stored(&self, name: &str) -> Result<(&Shard, &StoredRows)> {
        self.tensors
            .get(name)
            .and_then(|(place, stored)| Some((self.shards.get(*place)?, stored)))
            .ok_or_else(|| Error::read(name, "not a tensor of the model"))
    }
}

fn find_tensors(
    architecture: &Architecture,
    weights: &WeightFiles,
    shards: &[Shard],
) -> Result<HashMap<String, (usize, StoredRows)>> {
    let mut tensors = HashMap::new();
    for expected in expected_tensors(architecture) {
        // Without an index there is one file, which holds everything.
        let place = match &weights.index {
            None => Some(0),
            Some(_) => weights.weight_map.get(&expected.name).copied(),
        };
        let shard = place.and_then(|place| Some((place, shards.get(place)?)));
        let found = match shard {
            Some((place, shard)) => shard.find(&expected)?.map(|stored| (place, stored)),
            None => None,
        };
        let Some(found) = found else {
            let path = match (shard, &weights.index) {
                (Some((_, shard)), _) => shard.map.path(),
                (None, Some(index)) => index,
                (None, None) => &weights.folder,
            };
            return Err(Error::MissingTensor {
                path: path.to_path_buf(),
                name: expected.name,
            });
        };
        tensors.insert(expected.name, found);
    }
    Ok(tensors)
}

impl Source for HuggingFace {
    fn kind(&self) -> &'static str {
        "safetensors"
    }

    fn files(&self) -> Vec<PathBuf> {
        let mut files = self.weights.shards.clone();
        files.extend(self.weights.index.clone());
        files.push(self.config_path.clone());
        files.extend(texts::files(&self.weights.folder));
        files
    }

    fn architecture(&self) -> &Architecture {
        &self.architecture
    }

    fn tensor(&self, name: &str) -> Option<TensorInfo> {
        self.tensors.get(name).map(|(_, stored)| stored.info(name))
    }

    fn tensor_names(&self) -> Vec<String> {
        let mut names: Vec<String> = self
            .shards
            .iter()
            .flat_map(Shard::names)
            // Buffers of old checkpoints that `config.json` tells as well.
            .filter(|name| !name.ends_with(".rotary_emb.inv_freq"))
            .collect();
        names.sort();
        names.dedup();
        names
    }

    fn read_rows(&self, name: &str, rows: Range<usize>, out: &mut [f32]) -> Result<()> {
        let (shard, stored) = self.stored(name)?;
        stored.read(name, &shard.map, rows, |row| row, out)
    }

    fn read_q4_rows(&self, name: &str, _: Range<usize>, _: &mut Q4Blocks) -> Result<bool> {
        self.stored(name)?;
        Ok(false)
    }

    fn text_files(&self) -> Result<TextFiles> {
        texts::read(
            &self.weights.folder,
            &self.config,
            self.architecture.vocab_size,
        )
    }
}

#[cfg(test)]
mod tests;
