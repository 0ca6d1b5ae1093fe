//! A hidden folder beside the output, which becomes the output when it is
//! complete and vanishes when anything goes wrong before.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File, Permissions};
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::Serialize;
use tempfile::TempDir;

use chaski_manifest::FileEntry;

use super::{Hashed, MANIFEST};
use crate::error::{Error, Result};

/// The files of an unfinished model folder.
#[derive(Debug)]
pub struct Staging {
    folder: TempDir,
    output: PathBuf,
    parent: PathBuf,
    entries: BTreeMap<String, FileEntry>,
}

/// Refuses an output that would be overwritten without `force`, that is no
/// model folder, or that holds the input.
pub fn check_output(output: &Path, input: &Path, force: bool) -> Result<()> {
    let refuse = |reason: &str| {
        Err(Error::Output {
            path: output.to_path_buf(),
            reason: reason.to_owned(),
        })
    };
    if let (Ok(output), Ok(input)) = (output.canonicalize(), input.canonicalize())
        && input.starts_with(&output)
    {
        return refuse("the input lies in the output folder; choose another output");
    }
    match fs::symlink_metadata(output) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(Error::io("look at", output)(error)),
        Ok(metadata) if !metadata.is_dir() => {
            return refuse("is there already and is no folder; choose another output");
        }
        Ok(_) => {}
    }
    let mut entries = fs::read_dir(output).map_err(Error::io("list", output))?;
    if entries.next().is_none() {
        return Ok(());
    }
    if !force {
        return refuse("is there already; choose another output, or replace it with --force");
    }
    if !output.join(MANIFEST).is_file() {
        return refuse("holds files and is no model folder, so it is not replaced");
    }
    Ok(())
}

impl Staging {
    /// Makes the hidden folder beside `output`, and the folders above it.
    pub fn create(output: &Path) -> Result<Self> {
        let Some(name) = output.file_name() else {
            return Err(Error::Output {
                path: output.to_path_buf(),
                reason: "is no name of a folder".to_owned(),
            });
        };
        let parent = match output.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent.to_path_buf(),
            _ => PathBuf::from("."),
        };
        fs::create_dir_all(&parent).map_err(Error::io("create", &parent))?;
        let mut prefix = OsString::from(".");
        prefix.push(name);
        prefix.push(".");
        let folder = open_to_umask(tempfile::Builder::new().prefix(&prefix).suffix(".partial"))
            .tempdir_in(&parent)
            .map_err(Error::io("create a folder in", &parent))?;
        Ok(Self {
            folder,
            output: output.to_path_buf(),
            parent,
            entries: BTreeMap::new(),
        })
    }

    /// Path of a file within the unfinished folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Notes a file that was written at its [`Self::path`].
    pub fn note(&mut self, name: &str, entry: FileEntry) {
        self.entries.insert(name.to_owned(), entry);
    }

    /// Writes and notes a file.
    pub fn write(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        let path = self.path(name);
        let file = File::create_new(&path).map_err(Error::io("create", &path))?;
        let mut hashed = Hashed::new(file);
        hashed.write_all(bytes).map_err(Error::io("write", &path))?;
        let (file, entry) = hashed.finish();
        file.sync_all().map_err(Error::io("write", &path))?;
        self.note(name, entry);
        Ok(())
    }

    /// Writes and notes a file of JSON.
    pub fn write_json(&mut self, name: &str, value: &impl Serialize) -> Result<()> {
        let mut text = serde_json::to_vec_pretty(value)
            .map_err(|error| Error::io("write", &self.path(name))(error.into()))?;
        text.push(b'\n');
        self.write(name, &text)
    }

    /// The files so far.
    pub fn entries(&self) -> &BTreeMap<String, FileEntry> {
        &self.entries
    }

    /// Moves the folder to its place, replacing an old one that
    /// [`check_output`] let pass.
    pub fn publish(self) -> Result<()> {
        let Self {
            folder,
            output,
            parent,
            ..
        } = self;
        sync_folder(folder.path())?;
        // A rename replaces nothing or an empty folder by itself; a full one is
        // moved aside first, and back if the new one cannot take its place.
        let aside = if fs::read_dir(&output).is_ok_and(|mut entries| entries.next().is_some()) {
            let aside = tempfile::Builder::new()
                .prefix(".replaced.")
                .tempdir_in(&parent)
                .map_err(Error::io("create a folder in", &parent))?;
            fs::rename(&output, aside.path().join("old"))
                .map_err(Error::io("move aside", &output))?;
            Some(aside)
        } else {
            None
        };
        if let Err(error) = fs::rename(folder.path(), &output) {
            if let Some(aside) = aside {
                let old = aside.path().join("old");
                if fs::rename(&old, &output).is_err() {
                    // Better a stray folder than a lost model.
                    let _ = aside.keep();
                }
            }
            return Err(Error::io("move the finished folder to", &output)(error));
        }
        // It is no longer where its guard would remove it.
        let _ = folder.keep();
        sync_folder(&parent)
    }
}

/// Temporary folders are private by default; a model is as readable as any
/// other file of its owner.
#[cfg(unix)]
fn open_to_umask<'a, 'b, 'c>(
    builder: &'c mut tempfile::Builder<'a, 'b>,
) -> &'c mut tempfile::Builder<'a, 'b> {
    use std::os::unix::fs::PermissionsExt;
    builder.permissions(Permissions::from_mode(0o777))
}

fn sync_folder(path: &Path) -> Result<()> {
    File::open(path)
        .and_then(|folder| folder.sync_all())
        .map_err(Error::io("write", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_dropped_folder_leaves_nothing() {
        let home = tempfile::tempdir().unwrap();
        let mut staging = Staging::create(&home.path().join("model")).unwrap();
        staging.write("a", b"text").unwrap();
        assert_eq!(names(home.path()).len(), 1);
        drop(staging);
        assert!(names(home.path()).is_empty());
    }

    #[test]
    fn a_published_folder_replaces_an_old_one() {
        let home = tempfile::tempdir().unwrap();
        let output = home.path().join("deep/model");
        let mut staging = Staging::create(&output).unwrap();
        staging.write_json(MANIFEST, &1).unwrap();
        assert_eq!(staging.entries()[MANIFEST].bytes, 2);
        staging.publish().unwrap();
        assert_eq!(names(&output), [MANIFEST]);

        let mut staging = Staging::create(&output).unwrap();
        staging.write("new", b"").unwrap();
        staging.publish().unwrap();
        assert_eq!(names(&output), ["new"]);
        assert_eq!(names(&home.path().join("deep")), ["model"]);
    }

    #[test]
    fn only_model_folders_are_replaced() {
        let home = tempfile::tempdir().unwrap();
        let output = home.path().join("model");
        let input = home.path().join("input.gguf");
        fs::write(&input, "").unwrap();
        let check = |force| check_output(&output, &input, force).map_err(|e| e.to_string());

        check(false).unwrap();
        fs::create_dir(&output).unwrap();
        check(false).unwrap();
        fs::write(output.join("letter.txt"), "").unwrap();
        assert!(check(false).unwrap_err().contains("--force"));
        assert!(check(true).unwrap_err().contains("no model folder"));
        fs::write(output.join(MANIFEST), "").unwrap();
        assert!(check(false).unwrap_err().contains("--force"));
        check(true).unwrap();
        let inside = check_output(home.path(), &input, true).unwrap_err();
        assert!(inside.to_string().contains("input lies in"), "{inside}");
    }

    #[cfg(unix)]
    #[test]
    fn a_published_folder_is_as_readable_as_any() {
        use std::os::unix::fs::PermissionsExt;
        let home = tempfile::tempdir().unwrap();
        let plain = home.path().join("plain");
        fs::create_dir(&plain).unwrap();
        let output = home.path().join("model");
        Staging::create(&output).unwrap().publish().unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode();
        assert_eq!(mode(&output), mode(&plain));
    }
}
