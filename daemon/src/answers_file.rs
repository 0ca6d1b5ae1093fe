//! The file in which answers are written down before they are sent: a JSON text in each
//! line, the newest last. It is written anew when it has grown, and at every start.
//!
//! What is written is safe from the end of the process, and from a power cut once the
//! system has it on the disk, some seconds later: a flash memory does not bear more.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

use tracing::{error, info, warn};

use crate::config::Delivery;
use crate::replace::replace;
use crate::run::DaemonError;
use crate::service::{Kept, Service};

/// What the lines take beside the answers that are kept in memory.
const SLACK_BYTES: u64 = 256 * 1024;
/// Answers are nobody else's business.
const MODE: u32 = 0o600;

/// The file, open for more.
#[derive(Debug)]
pub(crate) struct AnswersFile {
    path: PathBuf,
    file: File,
    bytes: u64,
    /// It is written anew beyond.
    most_bytes: u64,
    /// Whether the last answer could not be written.
    failing: bool,
}

impl AnswersFile {
    /// Gives the service the answers of the run before, and goes on with their file, if
    /// there is to be one.
    pub(crate) fn take_up(
        delivery: &Delivery,
        service: &mut Service,
    ) -> Result<Option<Self>, DaemonError> {
        let Some(path) = &delivery.answers_file else {
            return Ok(None);
        };
        let most_bytes = 2 * delivery.dedup_bytes as u64 + SLACK_BYTES;
        let mut opened = || {
            let kept = read(path, 2 * most_bytes)?;
            info!(file = %path.display(), answers = kept.len(), "answers of earlier runs");
            service.restore(kept, Instant::now());
            let (file, bytes) = rewrite(path, service)?;
            Ok(Some(Self {
                path: path.clone(),
                file,
                bytes,
                most_bytes,
                failing: false,
            }))
        };
        opened().map_err(|source| DaemonError::Answers {
            path: path.clone(),
            source,
        })
    }

    /// Writes down an answer that the service is about to send. Where that fails, answers
    /// go on as without a file.
    pub(crate) fn append(&mut self, kept: &Kept, service: &Service) {
        let written = self.try_append(kept, service);
        if let Err(e) = &written
            && !self.failing
        {
            let file = self.path.display();
            error!(%file, %e, "an answer cannot be written down: after a restart it may be computed again");
        }
        self.failing = written.is_err();
    }

    fn try_append(&mut self, kept: &Kept, service: &Service) -> io::Result<()> {
        if self.bytes > self.most_bytes || self.failing {
            // The service has this one too.
            (self.file, self.bytes) = rewrite(&self.path, service)?;
            return Ok(());
        }
        let line = line(kept)?;
        self.file.write_all(&line)?;
        self.bytes += line.len() as u64;
        Ok(())
    }
}

fn line(kept: &Kept) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(kept)?;
    line.push(b'\n');
    Ok(line)
}

/// Reads so many bytes of a file at most; what is no answer is passed over.
fn read(path: &Path, most: u64) -> io::Result<Vec<Kept>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(e),
    };
    let mut kept = Vec::new();
    let mut broken = 0;
    for line in BufReader::new(file.take(most)).split(b'\n') {
        match serde_json::from_slice(&line?) {
            Ok(answer) => kept.push(answer),
            Err(_) => broken += 1,
        }
    }
    if broken > 0 {
        // The last line of a run that lost its power, mostly.
        warn!(file = %path.display(), lines = broken, "passed over what is no answer");
    }
    Ok(kept)
}

/// Writes the file anew, with all answers that are kept.
fn rewrite(path: &Path, service: &Service) -> io::Result<(File, u64)> {
    let mut text = Vec::new();
    for kept in service.kept(Instant::now()) {
        text.extend(line(&kept)?);
    }
    let file = replace(path, MODE, &text)?;
    Ok((file, text.len() as u64))
}

#[cfg(test)]
mod tests;
