//! `model.onnx.data` mapped into memory: weights are used where they lie.

use std::fs::File;
use std::path::Path;

use memmap2::Mmap;

use crate::error::EngineError;

#[cfg(target_endian = "big")]
compile_error!("model.onnx.data is little-endian and used in place");

/// A range of bytes of the data file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) offset: usize,
    pub(crate) bytes: usize,
}

/// The mapped data file.
#[derive(Debug)]
pub(crate) struct Mapping(Mmap);

impl Mapping {
    pub(crate) fn open(path: &Path) -> Result<Self, EngineError> {
        let file = File::open(path).map_err(EngineError::io(path))?;
        // SAFETY: the map is read-only. A model folder is replaced by renaming,
        // never written in place, as docs/model-folder.md asks; a file cut short
        // under a running engine ends it by SIGBUS, like any mapped program.
        let map = unsafe { Mmap::map(&file) }.map_err(EngineError::io(path))?;
        Ok(Self(map))
    }

    /// `None` where the span is not inside the file.
    pub(crate) fn bytes(&self, span: Span) -> Option<&[u8]> {
        self.0
            .get(span.offset..span.offset.checked_add(span.bytes)?)
    }

    /// The span as f16 bits; `None` also where it is misaligned.
    pub(crate) fn u16s(&self, span: Span) -> Option<&[u16]> {
        bytemuck::try_cast_slice(self.bytes(span)?).ok()
    }

    /// The span as f32; `None` also where it is misaligned.
    pub(crate) fn f32s(&self, span: Span) -> Option<&[f32]> {
        bytemuck::try_cast_slice(self.bytes(span)?).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_checked() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data");
        std::fs::write(&path, [0, 0, 128, 63, 0, 60]).unwrap();
        let map = Mapping::open(&path).unwrap();
        let span = |offset, bytes| Span { offset, bytes };
        assert_eq!(map.f32s(span(0, 4)), Some(&[1.0f32][..]));
        assert_eq!(map.u16s(span(4, 2)), Some(&[0x3c00u16][..]));
        assert_eq!(map.bytes(span(5, 2)), None);
        assert_eq!(map.bytes(span(usize::MAX, 2)), None);
        assert_eq!(map.f32s(span(2, 4)), None);
        assert_eq!(map.f32s(span(0, 3)), None);
    }
}
