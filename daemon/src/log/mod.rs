//! Where the log goes: to the journal if systemd reads our standard error for it, with each
//! field on its own, and else to standard error as lines.

mod journal;

use std::env;
use std::ffi::OsStr;
use std::fs::{self, Metadata};
use std::io::{self, IsTerminal};
use std::os::unix::fs::MetadataExt as _;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use journal::Journal;

/// Begins to log; `RUST_LOG` chooses more or less than `info`.
pub(crate) fn start() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let stderr = fs::metadata("/proc/self/fd/2");
    let stream = env::var_os("JOURNAL_STREAM");
    if stderr.is_ok_and(|stderr| is_stream(stream.as_deref(), &stderr))
        && let Ok(journal) = Journal::connect(journal::SOCKET)
    {
        let registry = tracing_subscriber::registry();
        return registry.with(filter).with(journal).init();
    }
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .with_target(false)
        .init();
}

/// Whether `JOURNAL_STREAM` (see systemd.exec(5)) names this file: somebody who redirects
/// our standard error inherits the variable, and wants lines.
fn is_stream(variable: Option<&OsStr>, file: &Metadata) -> bool {
    let named = variable.and_then(OsStr::to_str);
    named.is_some_and(|named| named == format!("{}:{}", file.dev(), file.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stream_is_known_by_its_numbers() {
        let file = tempfile::tempfile().unwrap().metadata().unwrap();
        let name = format!("{}:{}", file.dev(), file.ino());
        assert!(is_stream(Some(OsStr::new(&name)), &file));
        let other = format!("{}:{}", file.dev(), file.ino() + 1);
        for name in [Some(OsStr::new(&other)), Some(OsStr::new("")), None] {
            assert!(!is_stream(name, &file));
        }
    }
}
