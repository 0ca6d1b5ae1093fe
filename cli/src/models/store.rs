//! A folder of model folders, and a link `current` to the one that a node answers with.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use chaski_engine::MANIFEST;

use crate::digest;

/// The link.
const CURRENT: &str = "current";
/// Where models are put that are to be taken in; see [`super::update`].
pub(super) const INCOMING: &str = "incoming";
/// Where those go that were not.
pub(super) const REJECTED: &str = "rejected";
/// Names that no model may have.
const RESERVED: [&str; 3] = [CURRENT, INCOMING, REJECTED];
/// Begins the name of what is not whole yet.
const UNFINISHED: &str = ".new-";
/// Of the manifest's hash, in the name of another version of a model.
const VERSION_DIGITS: usize = 8;

/// The store in a folder.
#[derive(Debug)]
pub(super) struct Store {
    root: PathBuf,
}

/// A model in the store.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) is_current: bool,
}

impl Store {
    pub(super) fn open(root: &Path) -> Result<Self> {
        ensure!(
            root.is_dir(),
            "{} is no folder: create it, or name the model store with --store",
            root.display()
        );
        let root = root.to_owned();
        Ok(Self { root })
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// Its models, by name.
    pub(super) fn list(&self) -> Result<Vec<Entry>> {
        let current = self.current();
        let mut entries = Vec::new();
        for name in folders(&self.root)? {
            if check_name(&name).is_ok() && self.path(&name).join(MANIFEST).is_file() {
                let is_current = current.as_deref() == Some(&*name);
                entries.push(Entry { name, is_current });
            }
        }
        Ok(entries)
    }

    /// What the link leads to, if it is a model of the store.
    pub(super) fn current(&self) -> Option<String> {
        let target = self.path(CURRENT).canonicalize().ok()?;
        let root = self.root.canonicalize().ok()?;
        let name = target.strip_prefix(root).ok()?.to_str()?;
        Some(name.to_owned())
    }

    /// Copies a model folder into the store, whole or not at all, and gives the name that it
    /// has there: its own, with a part of its checksum if there is another model of that name.
    pub(super) fn add(&self, folder: &Path, name: Option<&str>) -> Result<String> {
        let folder = folder
            .canonicalize()
            .with_context(|| folder.display().to_string())?;
        let own = folder.file_name().and_then(|name| name.to_str());
        let name = name.or(own).context("give the model a --name")?;
        check_name(name)?;
        let (name, is_there) = self.name_for(name, &folder)?;
        if is_there {
            return Ok(name);
        }
        let unfinished = self.path(&format!("{UNFINISHED}{name}"));
        if unfinished.exists() {
            fs::remove_dir_all(&unfinished).with_context(|| unfinished.display().to_string())?;
        }
        let added = copy(&folder, &unfinished)
            .and_then(|()| Ok(chaski_engine::verify(&unfinished)?))
            .and_then(|()| {
                publish(&unfinished)?;
                fs::rename(&unfinished, self.path(&name))?;
                sync(&self.root)
            });
        if added.is_err() {
            // The problem is told; what is left of this is swept up by the next try.
            let _ = fs::remove_dir_all(&unfinished);
        }
        added.with_context(|| format!("cannot copy {} into the store", folder.display()))?;
        Ok(name)
    }

    /// A name that is free, or that this very model has already.
    fn name_for(&self, name: &str, folder: &Path) -> Result<(String, bool)> {
        let manifest = digest::sum_file(&folder.join(MANIFEST))?.sha256;
        let is_same = |name: &str| {
            let there = digest::sum_file(&self.path(name).join(MANIFEST));
            // A damaged copy is none.
            there.is_ok_and(|there| there.sha256 == manifest)
                && chaski_engine::verify(&self.path(name)).is_ok()
        };
        let version = manifest.get(..VERSION_DIGITS).unwrap_or_default();
        for name in [name.to_owned(), format!("{name}-{version}")] {
            if !self.path(&name).exists() {
                return Ok((name, false));
            }
            if is_same(&name) {
                return Ok((name, true));
            }
        }
        bail!(
            "{} is in the store and damaged: `chaski models remove` it first",
            self.path(name).display()
        )
    }

    /// Makes a model the current one, at once: there is no time without one.
    pub(super) fn activate(&self, name: &str) -> Result<()> {
        check_name(name)?;
        let manifest = self.path(name).join(MANIFEST);
        ensure!(
            manifest.is_file(),
            "no model {name:?} in {}: `chaski models list` shows those there are",
            self.root.display()
        );
        let current = self.path(CURRENT);
        if let Ok(there) = fs::symlink_metadata(&current) {
            ensure!(
                there.is_symlink(),
                "{} is no link: move it away, or give the store another folder",
                current.display()
            );
        }
        let beside = self.path(&format!("{UNFINISHED}{CURRENT}"));
        let _ = fs::remove_file(&beside);
        symlink(name, &beside)
            .and_then(|()| fs::rename(&beside, &current))
            .with_context(|| format!("cannot make the link {}", current.display()))?;
        sync(&self.root)
    }

    /// Deletes a model that is not the current one.
    pub(super) fn remove(&self, name: &str) -> Result<()> {
        check_name(name)?;
        ensure!(
            self.current().as_deref() != Some(name),
            "{name} is the current model: `chaski models use` another one first"
        );
        let folder = self.path(name);
        fs::remove_dir_all(&folder).with_context(|| format!("cannot remove {}", folder.display()))
    }
}

/// The names of the folders in a folder, in order; links are none.
fn folders(folder: &Path) -> Result<Vec<String>> {
    let entries = fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            names.extend(entry.file_name().into_string().ok());
        }
    }
    names.sort();
    Ok(names)
}

/// A name is one part of a path, and none that means something else.
fn check_name(name: &str) -> Result<()> {
    ensure!(
        !name.is_empty() && !name.starts_with('.') && !name.contains('/'),
        "{name:?} is no name for a model: give one without `/` and without a dot in front"
    );
    ensure!(
        !RESERVED.contains(&name),
        "{name:?} means something else in a model store: give the model another --name"
    );
    Ok(())
}

/// Copies the files that the manifest names, and the manifest. Nobody else may read them
/// until they are known to be a model.
fn copy(from: &Path, to: &Path) -> Result<()> {
    let manifest = chaski_engine::Model::look(from)?;
    DirBuilder::new()
        .mode(0o700)
        .create(to)
        .with_context(|| to.display().to_string())?;
    let names = manifest.files.keys().map(String::as_str);
    for name in names.chain([MANIFEST]) {
        let from = from.join(name);
        copy_file(&from, &to.join(name)).with_context(|| from.display().to_string())?;
    }
    Ok(())
}

fn copy_file(from: &Path, to: &Path) -> io::Result<()> {
    if !fs::symlink_metadata(from)?.is_file() {
        return Err(io::Error::other("this is no file"));
    }
    let mut file = File::create_new(to)?;
    io::copy(&mut File::open(from)?, &mut file)?;
    file.sync_all()
}

/// Lets everybody read a model: the daemon, which is another user, does.
fn publish(folder: &Path) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        fs::set_permissions(entry?.path(), fs::Permissions::from_mode(0o644))?;
    }
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755))?;
    sync(folder)
}

/// What was renamed in a folder survives a power cut after this.
fn sync(folder: &Path) -> Result<()> {
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .with_context(|| folder.display().to_string())
}
