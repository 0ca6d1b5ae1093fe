//! Read-only mapping of an input file: the one place of this program with unsafe code.
#![allow(unsafe_code)]

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use memmap2::{Mmap, UncheckedAdvice};

use crate::error::{Error, Result};

/// After this many bytes were read, the pages are given back, so that the resident
/// memory does not grow to the size of the model.
const RELEASE_AFTER: usize = 64 << 20;

/// A mapped input file.
pub(crate) struct Mapping {
    path: PathBuf,
    map: Mmap,
    read_since_release: AtomicUsize,
}

impl Mapping {
    /// Maps a regular file.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        // Asked before opening: to open a FIFO would wait for a writer.
        let metadata = fs::metadata(path).map_err(Error::io("open", path))?;
        if !metadata.is_file() {
            return Err(Error::not_a_model(path, "not a regular file"));
        }
        let file = File::open(path).map_err(Error::io("open", path))?;
        // SAFETY: the mapping is private and read-only. As with every mapped file,
        // nobody may truncate or rewrite it meanwhile; whoever rewrites a model while
        // it is being converted gets a wrong result or a SIGBUS, as `source::open`
        // says, but no other memory is touched.
        let map = unsafe { Mmap::map(&file) }.map_err(Error::io("map", path))?;
        Ok(Self {
            path: path.to_path_buf(),
            map,
            read_since_release: AtomicUsize::new(0),
        })
    }

    /// The file's contents.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.map
    }

    /// Where the file is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Notes that `bytes` were read and need not stay in memory.
    pub(crate) fn done_with(&self, bytes: usize) {
        let before = self.read_since_release.fetch_add(bytes, Ordering::Relaxed);
        if before.saturating_add(bytes) < RELEASE_AFTER {
            return;
        }
        self.read_since_release.store(0, Ordering::Relaxed);
        // SAFETY: MADV_DONTNEED loses what was written to private pages, and nothing
        // ever writes to this mapping: a later access, of this or another thread,
        // reads the same bytes from the file again.
        let released: io::Result<()> =
            unsafe { self.map.unchecked_advise(UncheckedAdvice::DontNeed) };
        // Only advice: a system that does not take it works as well, with more memory.
        drop(released);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn released_pages_read_the_same_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, [7u8; 10_000]).unwrap();
        let map = Mapping::open(&path).unwrap();
        assert_eq!(map.bytes().len(), 10_000);
        map.done_with(RELEASE_AFTER);
        assert!(map.bytes().iter().all(|&byte| byte == 7));
        assert_eq!(map.read_since_release.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn only_regular_files() {
        let folder = tempfile::tempdir().unwrap();
        assert!(matches!(
            Mapping::open(folder.path()),
            Err(Error::NotAModel { .. })
        ));
        assert!(matches!(
            Mapping::open(&folder.path().join("missing")),
            Err(Error::Io { .. })
        ));
    }
}
