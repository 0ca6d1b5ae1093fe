//! Writes the external data file: one range of bytes after another, each
//! beginning on a page so that it can be mapped by itself.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use half::f16;

use chaski_manifest::FileEntry;

use super::Hashed;
use crate::error::{Error, Result};
use crate::onnx::weights::Placement;

/// Every range begins at a multiple of this.
pub const ALIGNMENT: u64 = 4096;
const BUFFER: usize = 1 << 20;

/// Writes ranges of bytes and hashes them as they go.
#[derive(Debug)]
pub struct DataWriter {
    writer: Hashed<BufWriter<File>>,
    path: PathBuf,
    begin: u64,
}

impl DataWriter {
    /// Creates the file.
    pub fn create(path: &Path) -> Result<Self> {
        let file = File::create_new(path).map_err(Error::io("create", path))?;
        Ok(Self {
            writer: Hashed::new(BufWriter::with_capacity(BUFFER, file)),
            path: path.to_path_buf(),
            begin: 0,
        })
    }

    /// Pads to the next page, where a range begins.
    pub fn begin(&mut self) -> Result<()> {
        let position = self.writer.bytes();
        let padding = position.next_multiple_of(ALIGNMENT) - position;
        // Less than a page, so the conversion is exact.
        self.write(&[0; ALIGNMENT as usize][..padding as usize])?;
        self.begin = self.writer.bytes();
        Ok(())
    }

    /// Appends to the range.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.writer
            .write_all(bytes)
            .map_err(Error::io("write", &self.path))
    }

    /// Ends the range and tells where it is.
    pub fn end(&mut self) -> Placement {
        Placement {
            offset: self.begin,
            length: self.writer.bytes() - self.begin,
        }
    }

    /// Writes a whole range.
    pub fn range(&mut self, bytes: &[u8]) -> Result<Placement> {
        self.begin()?;
        self.write(bytes)?;
        Ok(self.end())
    }

    /// Writes a whole range of f16.
    pub fn range_f16(&mut self, values: &[f16]) -> Result<Placement> {
        self.elements(values, f16::to_le_bytes)
    }

    /// Writes a whole range of f32.
    pub fn range_f32(&mut self, values: &[f32]) -> Result<Placement> {
        self.elements(values, f32::to_le_bytes)
    }

    /// Appends f32 values to the range.
    pub fn write_f32(&mut self, values: &[f32]) -> Result<()> {
        self.write_elements(values, f32::to_le_bytes)
    }

    fn elements<T: Copy, const N: usize>(
        &mut self,
        values: &[T],
        bytes: fn(T) -> [u8; N],
    ) -> Result<Placement> {
        self.begin()?;
        self.write_elements(values, bytes)?;
        Ok(self.end())
    }

    fn write_elements<T: Copy, const N: usize>(
        &mut self,
        values: &[T],
        bytes: fn(T) -> [u8; N],
    ) -> Result<()> {
        for part in values.chunks(BUFFER / 8) {
            let part: Vec<u8> = part.iter().flat_map(|&value| bytes(value)).collect();
            self.write(&part)?;
        }
        Ok(())
    }

    /// Flushes the file down to the disk.
    pub fn finish(self) -> Result<FileEntry> {
        let (buffered, entry) = self.writer.finish();
        let file = buffered
            .into_inner()
            .map_err(|error| Error::io("write", &self.path)(error.into_error()))?;
        file.sync_all().map_err(Error::io("write", &self.path))?;
        Ok(entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_begin_on_pages() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data");
        let mut writer = DataWriter::create(&path).unwrap();
        let first = writer.range(&[1, 2, 3]).unwrap();
        let second = writer.range_f32(&[1.5]).unwrap();
        let third = writer.range(&[9; 4096]).unwrap();
        let fourth = writer.range_f16(&[f16::ONE]).unwrap();
        let entry = writer.finish().unwrap();

        let place = |offset, length| Placement { offset, length };
        assert_eq!(first, place(0, 3));
        assert_eq!(second, place(4096, 4));
        assert_eq!(third, place(8192, 4096));
        assert_eq!(fourth, place(12288, 2));
        let bytes = std::fs::read(&path).unwrap();
        assert_eq!(entry.bytes, 12290);
        assert_eq!(bytes.len(), 12290);
        assert_eq!(bytes[..5], [1, 2, 3, 0, 0]);
        assert_eq!(bytes[4096..4100], 1.5f32.to_le_bytes());
        assert_eq!(bytes[12288..], [0x00, 0x3c]);
        assert_eq!(super::super::hash_file(&path, |_| Ok(())).unwrap(), entry);
    }

    #[test]
    fn an_existing_file_is_not_overwritten() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(DataWriter::create(file.path()).is_err());
    }
}
