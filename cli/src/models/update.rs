//! Takes in what lies in the store's folder `incoming`, however it comes there: copied over
//! the network file by file, or moved in at once.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};

use super::store::{INCOMING, REJECTED, Store};

/// How often to look whether a copy goes on.
const INTERVAL: Duration = Duration::from_secs(2);

/// What became of the folders.
#[derive(Debug, Default)]
pub(super) struct Updated {
    /// The models that were taken in; the last one is the current one now.
    pub(super) added: Vec<String>,
    /// Those that were not, and why.
    pub(super) rejected: Vec<(String, anyhow::Error)>,
}

/// Takes in all that is there. What is no whole model is given time, as long as
/// it changes at least every `patience`; then it goes to the folder `rejected`, with the reason
/// in a file beside it.
pub(super) fn update(store: &Store, patience: Duration) -> Result<Updated> {
    let mut updated = Updated::default();
    let incoming = store.path(INCOMING);
    for path in contents(&incoming)? {
        match take_in(store, &path, patience) {
            Ok(name) => updated.added.push(name),
            Err(problem) => {
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                let name = name.into_owned();
                reject(store, &path, &name, &problem)?;
                updated.rejected.push((name, problem));
            }
        }
    }
    Ok(updated)
}

/// What is in a folder, in order.
fn contents(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    let mut paths = Vec::new();
    for entry in entries {
        paths.push(entry?.path());
    }
    paths.sort();
    Ok(paths)
}

fn take_in(store: &Store, folder: &Path, patience: Duration) -> Result<String> {
    let name = loop {
        let before = state(folder)?;
        match add(store, folder) {
            Ok(name) => break name,
            Err(problem) if !changes(folder, &before, patience)? => return Err(problem),
            Err(_) => {}
        }
    };
    store.activate(&name)?;
    fs::remove_dir_all(folder).with_context(|| format!("cannot remove {}", folder.display()))?;
    Ok(name)
}

fn add(store: &Store, folder: &Path) -> Result<String> {
    // A link may lead anywhere, and would be deleted, not what it leads to.
    let is_folder = fs::symlink_metadata(folder)?.is_dir();
    ensure!(
        is_folder,
        "this is no model folder: put in the folder that chaski-quantize wrote"
    );
    store.add(folder, None)
}

/// Waits for a change; whether there was one.
fn changes(folder: &Path, before: &State, patience: Duration) -> Result<bool> {
    let mut waited = Duration::ZERO;
    while waited < patience {
        if state(folder)? != *before {
            return Ok(true);
        }
        sleep(INTERVAL.min(patience));
        waited += INTERVAL;
    }
    Ok(state(folder)? != *before)
}

/// Of each file its size and last change.
type State = Vec<(PathBuf, u64, SystemTime)>;

/// Of the files in a folder, or of what is none itself.
fn state(path: &Path) -> Result<State> {
    let paths = match fs::symlink_metadata(path)?.is_dir() {
        true => contents(path)?,
        false => vec![path.to_owned()],
    };
    let of_file = |file: PathBuf| -> io::Result<_> {
        let metadata = fs::symlink_metadata(&file)?;
        Ok((file, metadata.len(), metadata.modified()?))
    };
    Ok(paths.into_iter().map(of_file).collect::<io::Result<_>>()?)
}

/// Out of the way, or it would be tried for ever.
fn reject(store: &Store, folder: &Path, name: &str, problem: &anyhow::Error) -> Result<()> {
    let rejected = store.path(REJECTED);
    fs::create_dir_all(&rejected)?;
    let place = rejected.join(name);
    match fs::symlink_metadata(&place) {
        Ok(before) if before.is_dir() => fs::remove_dir_all(&place)?,
        Ok(_) => fs::remove_file(&place)?,
        Err(_) => {}
    }
    fs::rename(folder, &place)
        .with_context(|| format!("cannot move {} to {}", folder.display(), place.display()))?;
    let reason = rejected.join(format!("{name}.txt"));
    fs::write(&reason, format!("{problem:#}\n")).with_context(|| reason.display().to_string())
}
