//! The model folder on disk (`docs/model-folder.md`).

mod manifest;
#[allow(unsafe_code)]
mod mapping;

use std::path::{Path, PathBuf};

use chaski_manifest::Manifest;
pub(crate) use mapping::{Mapping, Span};

use crate::error::EngineError;

pub(crate) use chaski_manifest::{MODEL as GRAPH, MODEL_DATA as DATA};

/// A model folder whose manifest has been read and whose files have the sizes
/// that the manifest says.
#[derive(Debug)]
pub(crate) struct Folder {
    path: PathBuf,
    manifest: Manifest,
}

impl Folder {
    /// Reads the manifest and checks that the files are there, whole by size.
    /// (Their hashes would take longer than the whole load: see [`verify`].)
    pub(crate) fn open(path: &Path) -> Result<Self, EngineError> {
        let manifest = manifest::read(path)?;
        for (name, entry) in &manifest.files {
            let file = path.join(name);
            let size = std::fs::metadata(&file)
                .map_err(EngineError::io(&file))?
                .len();
            if size != entry.bytes {
                let problem = format!(
                    "{size} bytes where the manifest says {}: copy the model folder again",
                    entry.bytes
                );
                return Err(EngineError::folder(file, problem));
            }
        }
        Ok(Self {
            path: path.to_path_buf(),
            manifest,
        })
    }

    pub(crate) fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

/// Reads every file of a model folder and compares its SHA-256 with the
/// manifest's: what to do after a copy by an unreliable way, or on a worn SD
/// card.
///
/// # Errors
/// The first file that is missing or differs, by name.
pub fn verify(folder: &Path) -> Result<(), EngineError> {
    let folder = Folder::open(folder)?;
    for (name, entry) in &folder.manifest.files {
        let path = folder.file(name);
        let found = manifest::sha256(&path).map_err(EngineError::io(&path))?;
        if !found.eq_ignore_ascii_case(&entry.sha256) {
            let problem = format!(
                "SHA-256 is {found} where the manifest says {}: copy the model folder again",
                entry.sha256
            );
            return Err(EngineError::folder(path, problem));
        }
    }
    Ok(())
}
