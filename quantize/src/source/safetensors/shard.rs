//! One `.safetensors` file: its header checked, its data mapped.

use std::collections::HashSet;
use std::fmt;
use std::path::Path;

use ::safetensors::SafeTensors;
use ::safetensors::tensor::{Dtype, Metadata};
use serde::de::{Deserialize, Deserializer, Error as _, IgnoredAny, MapAccess, Visitor};

use crate::error::{Error, Result};
use crate::source::Encoding;
use crate::source::llama::Expected;
use crate::source::map::Mapping;
use crate::source::rows::StoredRows;

/// The header of a 405B's shard takes some hundred kilobytes.
const MAX_HEADER_BYTES: u64 = 16 << 20;
const LENGTH_BYTES: usize = 8;

/// A mapped file and where its tensors lie.
pub(crate) struct Shard {
    pub(crate) map: Mapping,
    metadata: Metadata,
    /// Where the tensors' offsets count from.
    data: usize,
}

impl Shard {
    /// Maps a file and checks its header.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let map = Mapping::open(path)?;
        let bytes = map.bytes();
        let Some(length) = bytes.first_chunk::<LENGTH_BYTES>() else {
            return Err(Error::malformed(
                path,
                "truncated: no room for the header's length",
            ));
        };
        let length = u64::from_le_bytes(*length);
        if length > MAX_HEADER_BYTES {
            return Err(Error::malformed(
                path,
                format!("the header's length, {length}, is above {MAX_HEADER_BYTES}"),
            ));
        }
        if let Some(header) = bytes.get(LENGTH_BYTES..LENGTH_BYTES + length as usize) {
            serde_json::from_slice::<UniqueNames>(header)
                .map_err(|error| Error::malformed(path, format!("header: {error}")))?;
        }
        let (length, metadata) = SafeTensors::read_metadata(bytes)
            .map_err(|error| Error::malformed(path, format!("header: {error}")))?;
        Ok(Self {
            map,
            metadata,
            data: LENGTH_BYTES + length,
        })
    }

    /// Names of all tensors of the file.
    pub(crate) fn names(&self) -> Vec<String> {
        self.metadata.offset_keys()
    }

    /// The rows of a tensor, whose shape must be the expected one; `None` if the file
    /// has no such tensor.
    pub(crate) fn find(&self, expected: &Expected) -> Result<Option<StoredRows>> {
        let path = self.map.path();
        let Some(info) = self.metadata.info(&expected.name) else {
            return Ok(None);
        };
        let found: Vec<u64> = info.shape.iter().map(|&size| size as u64).collect();
        if found != expected.shape() {
            return Err(Error::WrongShape {
                path: path.to_path_buf(),
                name: expected.name.clone(),
                found,
                expected: expected.shape(),
            });
        }
        let encoding = match info.dtype {
            Dtype::F32 => Encoding::F32,
            Dtype::F16 => Encoding::F16,
            Dtype::BF16 => Encoding::Bf16,
            other => {
                return Err(Error::unsupported(
                    path,
                    format!(
                        "tensor {} is stored as {other:?}; F32, F16 and BF16 are read",
                        expected.name
                    ),
                ));
            }
        };
        let outside = || {
            Error::malformed(
                path,
                format!("tensor {} does not lie within the file", expected.name),
            )
        };
        let start = self
            .data
            .checked_add(info.data_offsets.0)
            .ok_or_else(outside)?;
        StoredRows::new(
            expected.rows,
            expected.columns,
            encoding,
            start,
            self.map.bytes().len(),
        )
        .map(Some)
        .ok_or_else(outside)
    }
}

/// Reads through a JSON object and refuses a name that comes twice, of which parsers
/// would silently take either.
struct UniqueNames;

impl<'de> Deserialize<'de> for UniqueNames {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Names;
        impl<'de> Visitor<'de> for Names {
            type Value = UniqueNames;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object of tensors")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<UniqueNames, A::Error> {
                let mut seen = HashSet::new();
                while let Some((name, IgnoredAny)) = map.next_entry::<String, IgnoredAny>()? {
                    if seen.contains(&name) {
                        return Err(A::Error::custom(format!("tensor {name} comes twice")));
                    }
                    seen.insert(name);
                }
                Ok(UniqueNames)
            }
        }
        deserializer.deserialize_map(Names)
    }
}
