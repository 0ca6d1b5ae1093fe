//! The container: header, metadata and the table of tensors of a GGUF file.

use std::collections::HashMap;
use std::path::Path;

use super::encodings::encoding;
use super::reader::Reader;
use super::value::{Kind, Value};
use crate::error::{Error, Result};
use crate::source::Encoding;
use crate::source::map::Mapping;
use crate::source::rows::StoredRows;

/// What every GGUF file starts with.
pub(crate) const MAGIC: [u8; 4] = *b"GGUF";

const DEFAULT_ALIGNMENT: u64 = 32;
const MAX_DIMENSIONS: u32 = 4;
// Key length, value type and a byte of value; name length, dimension count, type, offset.
const LEAST_METADATA_BYTES: usize = 8 + 4 + 1;
const LEAST_TENSOR_BYTES: usize = 8 + 4 + 4 + 8;

/// A tensor by its GGUF name.
#[derive(Clone, Debug)]
pub(super) struct Tensor {
    /// Innermost dimension last, as everywhere else.
    pub(super) shape: Vec<u64>,
    pub(super) stored: StoredRows,
}

/// A mapped GGUF file, its header read and checked.
pub(super) struct File {
    pub(super) map: Mapping,
    metadata: HashMap<String, Value>,
    pub(super) tensors: HashMap<String, Tensor>,
}

impl File {
    pub(super) fn open(path: &Path) -> Result<Self> {
        let map = Mapping::open(path)?;
        let mut reader = Reader::new(path, map.bytes());
        let (tensor_count, metadata_count) = read_header(path, &mut reader)?;
        let mut metadata = HashMap::new();
        for _ in 0..metadata_count {
            let key = reader.string("a metadata key")?;
            let value = Value::read(&mut reader, key)?;
            if metadata.insert(key.to_owned(), value).is_some() {
                return Err(reader.malformed(format!("metadata key {key} comes twice")));
            }
        }
        if let Some(Value::Unsigned(parts @ 2..)) = metadata.get("split.count") {
            return Err(Error::unsupported(
                path,
                format!(
                    "this is one of {parts} parts of a split GGUF; join them with \
                     llama.cpp's `llama-gguf-split --merge`"
                ),
            ));
        }
        let tensors = read_tensors(
            path,
            &map,
            &mut reader,
            tensor_count,
            alignment(path, &metadata)?,
        )?;
        Ok(Self {
            map,
            metadata,
            tensors,
        })
    }

    pub(super) fn path(&self) -> &Path {
        self.map.path()
    }

    /// An error about this file.
    pub(super) fn malformed(&self, reason: impl Into<String>) -> Error {
        Error::malformed(self.path(), reason)
    }

    /// An error about this file.
    pub(super) fn unsupported(&self, reason: impl Into<String>) -> Error {
        Error::unsupported(self.path(), reason)
    }

    fn wrong(&self, key: &str, wanted: &str) -> Error {
        self.malformed(format!("metadata {key} is not {wanted}"))
    }

    /// Whether there is such metadata.
    pub(super) fn has(&self, key: &str) -> bool {
        self.metadata.contains_key(key)
    }

    /// A number of things.
    pub(super) fn count(&self, key: &str) -> Result<Option<usize>> {
        self.metadata
            .get(key)
            .map(|value| {
                match *value {
                    Value::Unsigned(count) => usize::try_from(count).ok(),
                    Value::Signed(count) => usize::try_from(count).ok(),
                    _ => None,
                }
                .ok_or_else(|| self.wrong(key, "a whole number"))
            })
            .transpose()
    }

    /// A number of things that must be told.
    pub(super) fn needed_count(&self, key: &str) -> Result<usize> {
        self.count(key)?
            .ok_or_else(|| self.malformed(format!("metadata {key} is missing")))
    }

    /// A real number.
    pub(super) fn number(&self, key: &str) -> Result<Option<f64>> {
        self.metadata
            .get(key)
            .map(|value| match value {
                Value::Float(number) => Ok(*number),
                _ => Err(self.wrong(key, "a floating-point number")),
            })
            .transpose()
    }

    /// Yes or no.
    pub(super) fn flag(&self, key: &str) -> Result<Option<bool>> {
        self.metadata
            .get(key)
            .map(|value| match value {
                Value::Bool(flag) => Ok(*flag),
                _ => Err(self.wrong(key, "a boolean")),
            })
            .transpose()
    }

    /// A text.
    pub(super) fn text(&self, key: &str) -> Result<Option<&str>> {
        self.metadata
            .get(key)
            .map(|value| match value {
                Value::String(range) => self
                    .map
                    .bytes()
                    .get(range.clone())
                    .and_then(|bytes| std::str::from_utf8(bytes).ok())
                    .ok_or_else(|| self.wrong(key, "UTF-8")),
                _ => Err(self.wrong(key, "a string")),
            })
            .transpose()
    }

    /// The number of elements of an array, and their bytes, if its elements are of a kind.
    fn array(&self, key: &str, kinds: &[Kind]) -> Result<Option<(usize, &[u8])>> {
        self.metadata
            .get(key)
            .map(|value| match value {
                Value::Array(kind, count, range) if kinds.contains(kind) => self
                    .map
                    .bytes()
                    .get(range.clone())
                    .map(|bytes| (*count, bytes))
                    .ok_or_else(|| self.wrong(key, "within the file")),
                _ => Err(self.wrong(key, &format!("an array of {kinds:?}"))),
            })
            .transpose()
    }

    /// How many elements an array has.
    pub(super) fn array_length(&self, key: &str) -> Option<usize> {
        match self.metadata.get(key) {
            Some(Value::Array(_, count, _)) => Some(*count),
            _ => None,
        }
    }

    /// An array of texts, without copying them.
    pub(super) fn texts(&self, key: &str) -> Result<Option<Vec<&str>>> {
        let Some((count, bytes)) = self.array(key, &[Kind::String])? else {
            return Ok(None);
        };
        let mut reader = Reader::new(self.path(), bytes);
        let mut texts = Vec::with_capacity(count);
        for _ in 0..count {
            texts.push(reader.string(key)?);
        }
        Ok(Some(texts))
    }

    /// An array of 32-bit whole numbers.
    pub(super) fn integers(&self, key: &str) -> Result<Option<Vec<i32>>> {
        let array = self.array(key, &[Kind::I32, Kind::U32])?;
        Ok(array.map(|(_, bytes)| {
            let numbers = bytes.as_chunks().0.iter();
            numbers.map(|&number| i32::from_le_bytes(number)).collect()
        }))
    }

    /// An array of single-precision numbers.
    pub(super) fn floats(&self, key: &str) -> Result<Option<Vec<f32>>> {
        let array = self.array(key, &[Kind::F32])?;
        Ok(array.map(|(_, bytes)| {
            let numbers = bytes.as_chunks().0.iter();
            numbers.map(|&number| f32::from_le_bytes(number)).collect()
        }))
    }
}

/// Magic, version, number of tensors and of metadata entries.
fn read_header(path: &Path, reader: &mut Reader<'_>) -> Result<(u64, u64)> {
    if reader.u32("the magic")? != u32::from_le_bytes(MAGIC) {
        return Err(Error::not_a_model(path, "it does not start with GGUF"));
    }
    match reader.u32("the version")? {
        2 | 3 => {}
        version if version.swap_bytes() <= 3 && version != 0 => {
            return Err(Error::unsupported(path, "a big-endian GGUF"));
        }
        version => {
            return Err(Error::unsupported(
                path,
                format!("GGUF version {version}; 2 and 3 are read"),
            ));
        }
    }
    let tensors = reader.count(LEAST_TENSOR_BYTES, "the number of tensors")?;
    let metadata = reader.count(LEAST_METADATA_BYTES, "the number of metadata entries")?;
    Ok((tensors, metadata))
}

fn alignment(path: &Path, metadata: &HashMap<String, Value>) -> Result<u64> {
    match metadata.get("general.alignment") {
        None => Ok(DEFAULT_ALIGNMENT),
        Some(&Value::Unsigned(alignment))
            if alignment.is_power_of_two() && (8..=1 << 20).contains(&alignment) =>
        {
            Ok(alignment)
        }
        Some(_) => Err(Error::malformed(
            path,
            "general.alignment is not a power of two between 8 and 1048576",
        )),
    }
}

fn read_tensors(
    path: &Path,
    map: &Mapping,
    reader: &mut Reader<'_>,
    count: u64,
    alignment: u64,
) -> Result<HashMap<String, Tensor>> {
    // First the whole table: the data start after it.
    let mut entries = Vec::new();
    for _ in 0..count {
        entries.push(Entry::read(path, reader, alignment)?);
    }
    let data = (reader.position() as u64).next_multiple_of(alignment);
    let mut tensors = HashMap::new();
    for entry in entries {
        let stored = entry.place(data, map.bytes().len()).ok_or_else(|| {
            Error::malformed(
                path,
                format!("tensor {} does not lie within the file", entry.name),
            )
        })?;
        let tensor = Tensor {
            shape: entry.shape,
            stored,
        };
        if tensors.insert(entry.name.clone(), tensor).is_some() {
            return Err(Error::malformed(
                path,
                format!("tensor {} comes twice", entry.name),
            ));
        }
    }
    refuse_overlaps(path, &tensors)?;
    Ok(tensors)
}

/// A line of the table of tensors.
struct Entry {
    name: String,
    shape: Vec<u64>,
    encoding: Encoding,
    offset: u64,
}

impl Entry {
    fn read(path: &Path, reader: &mut Reader<'_>, alignment: u64) -> Result<Self> {
        let name = reader.string("a tensor's name")?.to_owned();
        let dimensions = reader.u32(&name)?;
        if !(1..=MAX_DIMENSIONS).contains(&dimensions) {
            return Err(reader.malformed(format!("tensor {name} has {dimensions} dimensions")));
        }
        let mut shape = Vec::new();
        for _ in 0..dimensions {
            shape.push(reader.u64(&name)?);
        }
        // Outermost dimensions of 1 are padding.
        while shape.len() > 1 && shape.last() == Some(&1) {
            shape.pop();
        }
        shape.reverse();
        let encoding = encoding(path, &name, reader.u32(&name)?)?;
        let offset = reader.u64(&name)?;
        if !offset.is_multiple_of(alignment) {
            return Err(reader.malformed(format!(
                "tensor {name} starts at {offset}, no multiple of {alignment}"
            )));
        }
        Ok(Self {
            name,
            shape,
            encoding,
            offset,
        })
    }

    fn place(&self, data: u64, file_bytes: usize) -> Option<StoredRows> {
        let (columns, outer) = self.shape.split_last()?;
        let rows = outer
            .iter()
            .try_fold(1u64, |rows, &size| rows.checked_mul(size))?;
        StoredRows::new(
            rows.try_into().ok()?,
            (*columns).try_into().ok()?,
            self.encoding,
            data.checked_add(self.offset)?.try_into().ok()?,
            file_bytes,
        )
    }
}

fn refuse_overlaps(path: &Path, tensors: &HashMap<String, Tensor>) -> Result<()> {
    let mut ranges: Vec<_> = tensors
        .iter()
        .map(|(name, tensor)| (tensor.stored.range(), name))
        .collect();
    ranges.sort_by_key(|(range, _)| (range.start, range.end));
    for pair in ranges.windows(2) {
        if let [(before, name), (after, other)] = pair
            && before.end > after.start
        {
            return Err(Error::malformed(
                path,
                format!("tensors {name} and {other} overlap"),
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
