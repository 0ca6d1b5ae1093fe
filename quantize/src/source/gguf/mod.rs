//! A Llama as one GGUF file.

mod bpe;
mod encodings;
mod figures;
mod file;
mod names;
mod pre_tokenizers;
mod reader;
mod rope;
mod spm;
#[cfg(test)]
mod testing;
mod tokenizer;
mod value;
mod vocabulary;

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::path::{Path, PathBuf};

use self::file::File;
pub(crate) use self::file::MAGIC;
use self::names::{RowOrder, gguf_name};
use super::llama::expected_tensors;
use super::rows::StoredRows;
use super::{Encoding, Q4Blocks, Q8Blocks, Source, TensorInfo, TextFiles, blocks};
use crate::error::{Error, Result};
use chaski_manifest::Architecture;

/// An opened and checked file.
pub(crate) struct Gguf {
    file: File,
    architecture: Architecture,
    /// By Hugging Face name.
    tensors: HashMap<String, StoredRows>,
}

impl Gguf {
    /// Opens a file and checks that all of a Llama is there.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let file = File::open(path)?;
        let architecture = figures::architecture(&file)?;
        let tensors = find_tensors(&file, &architecture)?;
        Ok(Self {
            file,
            architecture,
            tensors,
        })
    }

    fn stored(&self, name: &str) -> Result<&StoredRows> {
        self.tensors
            .get(name)
            .ok_or_else(|| Error::read(name, "not a tensor of the model"))
    }

    /// Hands over the bytes of rows of a tensor whose encoding is `wanted`;
    /// `false` where it is not.
    fn each_row(
        &self,
        name: &str,
        rows: Range<usize>,
        wanted: impl Fn(Encoding) -> bool,
        mut take: impl FnMut(Encoding, &[u8]),
    ) -> Result<bool> {
        let stored = self.stored(name)?;
        stored.check(name, &rows)?;
        if !wanted(stored.encoding) {
            return Ok(false);
        }
        let order = RowOrder::of(name, &self.architecture);
        let bytes = rows.len() * stored.row_bytes();
        for row in rows {
            let row = stored.row(name, &self.file.map, order.stored_at(row))?;
            take(stored.encoding, row);
        }
        self.file.map.done_with(bytes);
        Ok(true)
    }
}

fn find_tensors(file: &File, architecture: &Architecture) -> Result<HashMap<String, StoredRows>> {
    let mut tensors = HashMap::new();
    let mut used = HashSet::from([rope::ROPE_FREQS.to_owned()]);
    for expected in expected_tensors(architecture) {
        let missing = |name| Error::MissingTensor {
            path: file.path().to_path_buf(),
            name,
        };
        let Some(name) = gguf_name(&expected.name) else {
            return Err(missing(expected.name));
        };
        let Some(tensor) = file.tensors.get(&name) else {
            return Err(missing(name));
        };
        if tensor.shape != expected.shape() {
            return Err(Error::WrongShape {
                path: file.path().to_path_buf(),
                name,
                found: tensor.shape.clone(),
                expected: expected.shape(),
            });
        }
        tensors.insert(expected.name, tensor.stored.clone());
        used.insert(name);
    }
    // A bias or a norm that a Llama has not would change every answer if left out.
    let unknown = file
        .tensors
        .keys()
        .filter(|name| !used.contains(*name))
        .min();
    if let Some(name) = unknown {
        return Err(file.unsupported(format!("tensor {name}, which a Llama has not")));
    }
    Ok(tensors)
}

impl Source for Gguf {
    fn kind(&self) -> &'static str {
        "gguf"
    }

    fn files(&self) -> Vec<PathBuf> {
        vec![self.file.path().to_path_buf()]
    }

    fn architecture(&self) -> &Architecture {
        &self.architecture
    }

    fn tensor(&self, name: &str) -> Option<TensorInfo> {
        self.tensors.get(name).map(|stored| stored.info(name))
    }

    fn tensor_names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.tensors.keys().cloned().collect();
        names.sort();
        names
    }

    fn read_rows(&self, name: &str, rows: Range<usize>, out: &mut [f32]) -> Result<()> {
        let stored = self.stored(name)?;
        let order = RowOrder::of(name, &self.architecture);
        if stored.rows > 1 || order.is_plain() {
            let stored_at = |row| order.stored_at(row);
            return stored.read(name, &self.file.map, rows, stored_at, out);
        }
        // A bias: its values stand for the rows of the weight.
        if out.len() != stored.columns {
            let reason = format!("{} values asked for, it has {}", out.len(), stored.columns);
            return Err(Error::read(name, reason));
        }
        let mut values = vec![0.0; stored.columns];
        stored.read(name, &self.file.map, rows, |row| row, &mut values)?;
        for (column, out) in out.iter_mut().enumerate() {
            *out = values
                .get(order.stored_at(column))
                .copied()
                .unwrap_or(f32::NAN);
        }
        Ok(())
    }

    fn read_q4_rows(&self, name: &str, rows: Range<usize>, out: &mut Q4Blocks) -> Result<bool> {
        let wanted = |encoding| matches!(encoding, Encoding::Q4_0 | Encoding::Q4_1);
        self.each_row(name, rows, wanted, |encoding, row| {
            blocks::append_q4(encoding, row, out);
        })
    }

    fn read_q8_rows(&self, name: &str, rows: Range<usize>, out: &mut Q8Blocks) -> Result<bool> {
        let wanted = |encoding| encoding == Encoding::Q8_0;
        self.each_row(name, rows, wanted, |_, row| blocks::append_q8(row, out))
    }

    fn text_files(&self) -> Result<TextFiles> {
        tokenizer::text_files(&self.file, &self.architecture)
    }
}

#[cfg(test)]
mod tests;
