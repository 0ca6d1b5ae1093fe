//! The way back to the last good model: a new one that cannot be loaded, or that ends the
//! process whenever it is, does not take a node off the air that nobody watches.
//!
//! What came up is written down in a file, and so is what is about to be tried, before it
//! is: a start that ends the process is known in the next one.

mod record;

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use chaski_engine::MANIFEST;
use sha2::{Digest, Sha256};
use tracing::{info, warn};

use crate::replace::replace;
use record::{Candidate, Record};

/// The record has some hundred bytes, a manifest some thousand.
const MOST_BYTES: u64 = 1 << 20;
/// Whoever may look into its folder may read it.
const MODE: u32 = 0o666;
/// What is kept of a model's complaint.
const MOST_PROBLEM_BYTES: usize = 1000;

/// Which model to load next, and what became of those before.
#[derive(Debug)]
pub(crate) struct LastGood {
    file: PathBuf,
    record: Record,
    /// The configured folder; `None` for what leads nowhere.
    wanted: Option<Candidate>,
    /// Its name and why it is not there, if it is not.
    missing: Option<String>,
    /// What is left to try.
    plan: Vec<Candidate>,
    current: Option<Candidate>,
}

/// Another model than the configured one runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct InsteadOf {
    /// The folder of the configured one.
    pub(crate) folder: PathBuf,
    /// What is wrong with it.
    pub(crate) reason: String,
}

impl LastGood {
    /// Takes up the record in `file`, for the model at `folder`, which may be a link.
    pub(crate) fn take_up(file: &Path, folder: &Path) -> Self {
        let record = read(file).unwrap_or_else(|e| {
            warn!(file = %file.display(), %e, "the record of good models cannot be read: it begins anew");
            Record::default()
        });
        let (wanted, missing) = match candidate(folder) {
            Ok(candidate) => (Some(candidate), None),
            Err(e) => (None, Some(format!("{}: {e}", folder.display()))),
        };
        let plan = record.plan(wanted.as_ref());
        Self {
            file: file.to_owned(),
            record,
            wanted,
            missing,
            plan,
            current: None,
        }
    }

    /// The folder to try next; `None` when all were tried.
    pub(crate) fn next(&mut self) -> Option<PathBuf> {
        if self.plan.is_empty() {
            return None;
        }
        let candidate = self.plan.remove(0);
        if self.wanted.as_ref() != Some(&candidate) {
            let reason = self.reason();
            warn!(folder = %candidate.folder.display(), reason, "back to a model that came up before");
        }
        let folder = candidate.folder.clone();
        self.current = Some(candidate);
        Some(folder)
    }

    /// The one that [`Self::next`] gave is about to be loaded.
    pub(crate) fn starting(&mut self) {
        if let Some(candidate) = &self.current {
            self.record.starting(candidate);
            self.write();
        }
    }

    /// Whether the one that is being tried never came up.
    pub(crate) fn is_new(&self) -> bool {
        let current = self.current.as_ref();
        current.is_some_and(|candidate| !self.record.is_good(candidate))
    }

    /// The one that is being tried said why not.
    pub(crate) fn failed(&mut self, problem: &str) {
        let Some(candidate) = self.current.take() else {
            return;
        };
        let end = problem.floor_char_boundary(MOST_PROBLEM_BYTES);
        self.record.failed(&candidate, problem[..end].to_owned());
        self.write();
    }

    /// The one that is being tried answers.
    pub(crate) fn came_up(&mut self) {
        if let Some(candidate) = &self.current {
            self.record.came_up(candidate);
            self.write();
        }
    }

    /// The daemon ends before it is known.
    pub(crate) fn stopped(&mut self) {
        if let Some(candidate) = &self.current {
            self.record.forget_trial(candidate);
            self.write();
        }
    }

    /// What was wanted, where something else runs.
    pub(crate) fn instead_of(&self, configured: &Path) -> Option<InsteadOf> {
        let current = self.current.as_ref()?;
        (self.wanted.as_ref() != Some(current)).then(|| InsteadOf {
            folder: match &self.wanted {
                Some(wanted) => wanted.folder.clone(),
                None => configured.to_owned(),
            },
            reason: self.reason(),
        })
    }

    /// Why it is not the configured one.
    fn reason(&self) -> String {
        let of_wanted = |wanted| self.record.reason(wanted);
        let reason = self.wanted.as_ref().and_then(of_wanted);
        reason.or_else(|| self.missing.clone()).unwrap_or_default()
    }

    /// A record that cannot be written does not keep the node from its work.
    fn write(&self) {
        if let Err(e) = write(&self.file, &self.record) {
            warn!(file = %self.file.display(), %e, "the record of good models cannot be written");
        }
    }
}

/// The model in a folder as it is now.
fn candidate(folder: &Path) -> io::Result<Candidate> {
    let real = folder.canonicalize()?;
    let mut hash = Sha256::new();
    let mut manifest = Vec::new();
    // One without a manifest is wrong, and loading it says how.
    if let Ok(file) = File::open(real.join(MANIFEST)) {
        file.take(MOST_BYTES).read_to_end(&mut manifest)?;
    }
    hash.update(&manifest);
    // A link that was made anew: somebody wants it to be tried again.
    let link = fs::symlink_metadata(folder)?;
    if link.is_symlink() {
        hash.update(link.mtime().to_le_bytes());
        hash.update(link.mtime_nsec().to_le_bytes());
    }
    Ok(Candidate {
        folder: real,
        version: hex::encode(hash.finalize()),
    })
}

fn read(file: &Path) -> io::Result<Record> {
    let mut text = Vec::new();
    match File::open(file) {
        Ok(file) => file.take(MOST_BYTES).read_to_end(&mut text)?,
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            info!(file = %file.display(), "no model came up here yet");
            return Ok(Record::default());
        }
        Err(e) => return Err(e),
    };
    Ok(serde_json::from_slice(&text)?)
}

fn write(file: &Path, record: &Record) -> io::Result<()> {
    replace(file, MODE, &serde_json::to_vec(record)?)?;
    Ok(())
}

#[cfg(test)]
mod tests;
