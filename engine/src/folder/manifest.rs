//! Reading `chaski.json`.

use std::fmt::Write as _;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use chaski_manifest::{MANIFEST, Manifest};
use sha2::{Digest, Sha256};

use crate::error::EngineError;

/// A manifest has some kilobytes.
const MOST_BYTES: u64 = 1 << 20;

/// Reads and checks the manifest of a model folder.
pub(super) fn read(folder: &Path) -> Result<Manifest, EngineError> {
    let path = folder.join(MANIFEST);
    let file = File::open(&path).map_err(|e| {
        if e.kind() == std::io::ErrorKind::NotFound {
            let problem = "not found: give a model folder that chaski-quantize wrote";
            EngineError::folder(&path, problem)
        } else {
            EngineError::io(&path)(e)
        }
    })?;
    let mut text = String::new();
    file.take(MOST_BYTES)
        .read_to_string(&mut text)
        .map_err(EngineError::io(&path))?;
    let manifest: Manifest = serde_json::from_str(&text).map_err(|e| {
        let problem = format!("{e}: not a manifest of a Chaski model folder");
        EngineError::folder(&path, problem)
    })?;
    manifest
        .check()
        .map_err(|problem| EngineError::folder(&path, problem.to_string()))?;
    Ok(manifest)
}

pub(super) fn sha256(path: &Path) -> std::io::Result<String> {
    let mut file = File::open(path)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            break;
        }
        hash.update(&buffer[..read]);
    }
    let mut text = String::with_capacity(64);
    for byte in hash.finalize() {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_manifest_says_what_to_give() {
        let folder = tempfile::tempdir().unwrap();
        let error = read(folder.path()).unwrap_err().to_string();
        assert!(error.contains("chaski-quantize"), "{error}");
    }
}
