//! Model folders made once and kept in the user's cache.
//!
//! A folder is made in `work/` and renamed to its name when it is whole, under
//! a lock; whatever an interrupted run left in `work/` is used or cleared away.

use std::env;
use std::ffi::OsString;
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// A folder for models.
#[derive(Debug)]
pub struct Cache {
    root: PathBuf,
    /// Tells whether a model folder is whole.
    check: fn(&Path) -> Result<()>,
}

impl Cache {
    /// The folder given, or the user's cache as the XDG base directory
    /// specification has it.
    pub fn new(given: Option<PathBuf>) -> Result<Self> {
        let root = match given {
            Some(root) => root,
            None => user_cache(env::var_os("XDG_CACHE_HOME"), env::var_os("HOME"))?,
        };
        Ok(Self { root, check })
    }

    /// The model folder of this name. If there is none, or it is not whole,
    /// `make` is called with a work folder and the path at which to put it.
    pub fn model(
        &self,
        name: &str,
        make: impl FnOnce(&Path, &Path) -> Result<()>,
    ) -> Result<PathBuf> {
        fs::create_dir_all(&self.root)
            .with_context(|| format!("cannot make the cache folder {}", self.root.display()))?;
        let _lock = self.lock()?;
        let folder = self.root.join(name);
        if folder.exists() {
            match (self.check)(&folder) {
                Ok(()) => return Ok(folder),
                Err(problem) => {
                    eprintln!("The cached model is of no use ({problem:#}); making it anew");
                    remove(&folder)?;
                }
            }
        }
        let work = self.root.join("work");
        let made = work.join(name);
        remove(&made)?;
        fs::create_dir_all(&work)
            .with_context(|| format!("cannot make the folder {}", work.display()))?;
        make(&work, &made)?;
        fs::rename(&made, &folder)
            .with_context(|| format!("cannot move {} to {}", made.display(), folder.display()))?;
        // What the folder was made from is twice its size and not needed again.
        remove(&work)?;
        Ok(folder)
    }

    fn lock(&self) -> Result<File> {
        let path = self.root.join("lock");
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .with_context(|| format!("cannot open {}", path.display()))?;
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) => {
                eprintln!(
                    "Waiting for another run that prepares a model in {}",
                    self.root.display()
                );
            }
            Err(TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("cannot lock {}", path.display()));
            }
        }
        file.lock()
            .with_context(|| format!("cannot lock {}", path.display()))?;
        Ok(file)
    }
}

fn user_cache(xdg: Option<OsString>, home: Option<OsString>) -> Result<PathBuf> {
    // The specification has relative paths ignored.
    let xdg = xdg.map(PathBuf::from).filter(|path| path.is_absolute());
    let home = home.map(PathBuf::from).filter(|path| path.is_absolute());
    match (xdg, home) {
        (Some(cache), _) => Ok(cache.join("chaski")),
        (None, Some(home)) => Ok(home.join(".cache").join("chaski")),
        (None, None) => bail!("neither XDG_CACHE_HOME nor HOME is set: name a folder with --cache"),
    }
}

/// The folder has the checksums of its manifest and is by this version.
fn check(folder: &Path) -> Result<()> {
    chaski_engine::verify(folder)?;
    let manifest = fs::read(folder.join("chaski.json"))?;
    let manifest: serde_json::Value = serde_json::from_slice(&manifest)?;
    let theirs = manifest
        .get("created_by")
        .and_then(serde_json::Value::as_str);
    let ours = concat!("chaski-quantize ", env!("CARGO_PKG_VERSION"));
    if theirs != Some(ours) {
        bail!(
            "it is by {}, this is {ours}",
            theirs.unwrap_or("an unknown program")
        );
    }
    Ok(())
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write_model(folder: &Path) -> Result<()> {
        fs::create_dir(folder)?;
        fs::write(folder.join("f"), "abc")?;
        Ok(())
    }

    fn check_model(folder: &Path) -> Result<()> {
        match fs::read(folder.join("f"))?.as_slice() {
            b"abc" => Ok(()),
            _ => bail!("f is damaged"),
        }
    }

    fn cache() -> (tempfile::TempDir, Cache) {
        let folder = tempfile::tempdir().expect("a folder");
        let cache = Cache {
            root: folder.path().join("cache"),
            check: check_model,
        };
        (folder, cache)
    }

    #[test]
    fn made_once_then_found() {
        let (_folder, cache) = cache();
        let made = cache
            .model("m", |work, out| {
                fs::write(work.join("download"), "x")?;
                write_model(out)
            })
            .expect("made");
        assert!(made.join("f").is_file());
        assert!(!cache.root.join("work").exists(), "the download is removed");
        let found = cache
            .model("m", |_, _| panic!("it is there"))
            .expect("found");
        assert_eq!(found, made);
    }

    #[test]
    fn a_damaged_folder_is_made_anew() {
        let (_folder, cache) = cache();
        let made = cache.model("m", |_, out| write_model(out)).expect("made");
        fs::write(made.join("f"), "abd").expect("damage");
        let mut again = false;
        cache
            .model("m", |_, out| {
                again = true;
                write_model(out)
            })
            .expect("made anew");
        assert!(again);
        assert_eq!(fs::read(made.join("f")).expect("whole"), b"abc");
    }

    #[test]
    fn after_a_failure_the_download_stays_and_half_a_folder_does_not_count() {
        let (_folder, cache) = cache();
        let failed = cache.model("m", |work, out| {
            fs::write(work.join("download"), "x")?;
            fs::create_dir(out)?;
            bail!("interrupted")
        });
        assert!(failed.is_err());
        assert!(!cache.root.join("m").exists());
        cache
            .model("m", |work, out| {
                assert!(work.join("download").is_file());
                write_model(out)
            })
            .expect("made");
    }

    #[test]
    fn the_users_cache() {
        let path = |xdg: Option<&str>, home: Option<&str>| {
            user_cache(xdg.map(Into::into), home.map(Into::into)).ok()
        };
        assert_eq!(path(Some("/c"), Some("/h")), Some("/c/chaski".into()));
        assert_eq!(path(None, Some("/h")), Some("/h/.cache/chaski".into()));
        assert_eq!(path(Some("c"), Some("/h")), Some("/h/.cache/chaski".into()));
        assert_eq!(path(None, None), None);
    }
}
