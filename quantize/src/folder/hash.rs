//! SHA-256 of what passes through a writer, and of files.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::error::{Error, Result};
use chaski_manifest::FileEntry;

const READ_SIZE: usize = 1 << 20;

/// A writer that hashes and counts what it passes on.
#[derive(Debug)]
pub struct Hashed<W> {
    inner: W,
    hasher: Sha256,
    bytes: u64,
}

impl<W: Write> Hashed<W> {
    /// Passes on to `inner`.
    pub fn new(inner: W) -> Self {
        Self {
            inner,
            hasher: Sha256::new(),
            bytes: 0,
        }
    }

    /// Bytes so far.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The inner writer, and what has passed.
    pub fn finish(self) -> (W, FileEntry) {
        let entry = FileEntry {
            bytes: self.bytes,
            sha256: hex(&self.hasher.finalize()),
        };
        (self.inner, entry)
    }
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(buffer)?;
        self.hasher.update(buffer.get(..written).unwrap_or(buffer));
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// Hashes a file, telling of every piece; `advance` may end it by an error.
pub fn hash_file(path: &Path, mut advance: impl FnMut(u64) -> Result<()>) -> Result<FileEntry> {
    let mut file = File::open(path).map_err(Error::io("open", path))?;
    let mut hashed = Hashed::new(io::sink());
    let mut buffer = vec![0u8; READ_SIZE];
    loop {
        let read = match file.read(&mut buffer) {
            Ok(0) => return Ok(hashed.finish().1),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(Error::io("read", path)(error)),
        };
        let piece = buffer.get(..read).unwrap_or_default();
        hashed.write_all(piece).map_err(Error::io("hash", path))?;
        advance(read as u64)?;
    }
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_hashes_as_the_standard_says() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("abc");
        std::fs::write(&path, "abc").unwrap();
        let mut told = 0;
        let entry = hash_file(&path, |bytes| {
            told += bytes;
            Ok(())
        })
        .unwrap();
        assert_eq!(told, 3);
        assert_eq!(
            entry,
            FileEntry {
                bytes: 3,
                sha256: "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad".into(),
            }
        );
        let missing = hash_file(&folder.path().join("none"), |_| Ok(())).unwrap_err();
        assert!(missing.to_string().contains("none"), "{missing}");
    }
}
