//! Which files of a folder hold the weights, and which tensor is in which.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Component, Path, PathBuf};

use serde::Deserialize;

use super::json::read_json;
use crate::error::{Error, Result};

const INDEX: &str = "model.safetensors.index.json";
const SINGLE: &str = "model.safetensors";
const MAX_INDEX_BYTES: u64 = 64 << 20;

/// The files with the weights.
pub(crate) struct WeightFiles {
    /// The folder of all files.
    pub(crate) folder: PathBuf,
    /// The index, where the model is sharded.
    pub(crate) index: Option<PathBuf>,
    /// Each shard once, in order of name.
    pub(crate) shards: Vec<PathBuf>,
    /// Which of the shards holds a tensor, where there is an index.
    pub(crate) weight_map: BTreeMap<String, usize>,
}

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

/// Finds the weights of a folder, or those of a `.safetensors` file.
pub(crate) fn find(path: &Path) -> Result<WeightFiles> {
    let is_folder = fs::metadata(path)
        .map_err(Error::io("open", path))?
        .is_dir();
    let folder = if is_folder {
        path.to_path_buf()
    } else {
        match path.parent() {
            Some(parent) if parent != Path::new("") => parent.to_path_buf(),
            _ => PathBuf::from("."),
        }
    };
    let index = folder.join(INDEX);
    if index.is_file() {
        let files = sharded(&folder, &index)?;
        // A single file of the folder that is no shard stands for itself.
        if is_folder
            || files
                .shards
                .iter()
                .any(|shard| shard.file_name() == path.file_name())
        {
            return Ok(files);
        }
    }
    let file = if is_folder {
        only_file(&folder)?
    } else {
        path.to_path_buf()
    };
    Ok(WeightFiles {
        folder,
        index: None,
        shards: vec![file],
        weight_map: BTreeMap::new(),
    })
}

fn sharded(folder: &Path, index: &Path) -> Result<WeightFiles> {
    let Index { weight_map } = read_json(index, MAX_INDEX_BYTES)?;
    let mut names: Vec<&String> = weight_map.values().collect();
    names.sort();
    names.dedup();
    let mut shards = Vec::new();
    for name in &names {
        let mut parts = Path::new(name.as_str()).components();
        if !matches!(
            (parts.next(), parts.next()),
            (Some(Component::Normal(_)), None)
        ) {
            return Err(Error::malformed(
                index,
                format!("shard {name:?} is not a plain file name"),
            ));
        }
        let shard = folder.join(name);
        if !shard.is_file() {
            return Err(Error::malformed(
                index,
                format!("shard {name} is missing from the folder; download it too"),
            ));
        }
        shards.push(shard);
    }
    let mut places = BTreeMap::new();
    for (tensor, file) in &weight_map {
        if let Ok(place) = names.binary_search(&file) {
            places.insert(tensor.clone(), place);
        }
    }
    Ok(WeightFiles {
        folder: folder.to_path_buf(),
        index: Some(index.to_path_buf()),
        shards,
        weight_map: places,
    })
}

fn only_file(folder: &Path) -> Result<PathBuf> {
    let single = folder.join(SINGLE);
    if single.is_file() {
        return Ok(single);
    }
    let mut found = Vec::new();
    let mut pickled = false;
    for entry in fs::read_dir(folder).map_err(Error::io("list", folder))? {
        let path = entry.map_err(Error::io("list", folder))?.path();
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("safetensors") => found.push(path),
            Some("bin" | "pth" | "pt") => pickled = true,
            _ => {}
        }
    }
    match (found.pop(), found.is_empty(), pickled) {
        (Some(file), true, _) => Ok(file),
        (Some(_), false, _) => Err(Error::not_a_model(
            folder,
            format!("several .safetensors files but no {INDEX}; download it, or name one file"),
        )),
        (None, _, true) => Err(Error::unsupported(
            folder,
            "the weights are PyTorch pickles; load and save them with transformers' \
             save_pretrained, which writes safetensors",
        )),
        (None, _, false) => Err(Error::not_a_model(folder, "no .safetensors file in it")),
    }
}
