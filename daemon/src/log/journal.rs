//! The journal's own protocol (<https://systemd.io/JOURNAL_NATIVE_PROTOCOL/>).
//!
//! tracing-journald keeps the fields of an event out of its message: `journalctl` would show
//! that a model cannot be loaded, and not why. Here they are in both places.

use std::fmt::{self, Write as _};
use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::Path;

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

/// Where the journal listens.
pub(super) const SOCKET: &str = "/run/systemd/journal/socket";
/// By this name `journalctl -t` finds us.
const IDENTIFIER: &str = "chaskid";
/// Ours among the names of fields.
const PREFIX: &str = "CHASKI_";
/// What is kept of a field: a datagram has its limits.
const MOST_BYTES: usize = 16 * 1024;

/// A layer that sends each event to the journal.
#[derive(Debug)]
pub(super) struct Journal {
    socket: UnixDatagram,
}

impl Journal {
    pub(super) fn connect(socket: impl AsRef<Path>) -> io::Result<Self> {
        let unbound = UnixDatagram::unbound()?;
        unbound.connect(socket)?;
        // A journal that does not read must not stop the daemon.
        unbound.set_nonblocking(true)?;
        Ok(Self { socket: unbound })
    }
}

impl<S: Subscriber> Layer<S> for Journal {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut entry = Entry::default();
        event.record(&mut entry);
        // There is nobody to tell.
        let _ = self.socket.send(&entry.encode(*event.metadata().level()));
    }
}

/// The fields of an event.
#[derive(Default)]
struct Entry {
    message: String,
    /// All others, as a line shows them.
    tail: String,
    /// The same, encoded one by one.
    fields: Vec<u8>,
}

impl Entry {
    fn encode(&self, level: Level) -> Vec<u8> {
        let mut bytes = Vec::new();
        put(&mut bytes, "PRIORITY", priority(level));
        put(&mut bytes, "SYSLOG_IDENTIFIER", IDENTIFIER);
        put(
            &mut bytes,
            "MESSAGE",
            &format!("{}{}", self.message, self.tail),
        );
        bytes.extend(&self.fields);
        bytes
    }

    fn add(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            value.clone_into(&mut self.message);
            return;
        }
        // Where a library's message comes from: `RUST_LOG` is for those who must know.
        if field.name().starts_with("log.") {
            return;
        }
        // Writing to a string cannot fail.
        let _ = write!(self.tail, " {}={value}", field.name());
        let upper = field.name().to_ascii_uppercase();
        let name = upper.replace(|c: char| !c.is_ascii_alphanumeric(), "_");
        put(&mut self.fields, &format!("{PREFIX}{name}"), value);
    }
}

impl Visit for Entry {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.add(field, &format!("{value:?}"));
    }
}

/// A field by name, an equals sign and its value; one of several lines with its length.
fn put(bytes: &mut Vec<u8>, name: &str, value: &str) {
    let value = &value[..value.floor_char_boundary(MOST_BYTES)];
    bytes.extend(name.as_bytes());
    if value.contains('\n') {
        bytes.push(b'\n');
        bytes.extend((value.len() as u64).to_le_bytes());
    } else {
        bytes.push(b'=');
    }
    bytes.extend(value.as_bytes());
    bytes.push(b'\n');
}

/// As syslog counts them.
fn priority(level: Level) -> &'static str {
    match level {
        Level::ERROR => "3",
        Level::WARN => "4",
        Level::INFO => "6",
        Level::DEBUG | Level::TRACE => "7",
    }
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    /// What the journal hears of what `say` logs.
    fn heard(say: impl FnOnce()) -> Vec<u8> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let listener = UnixDatagram::bind(&path).unwrap();
        let journal = Journal::connect(&path).unwrap();
        let subscriber = tracing_subscriber::registry().with(journal);
        tracing::subscriber::with_default(subscriber, say);
        let mut bytes = vec![0; 1 << 20];
        let count = listener.recv(&mut bytes).unwrap();
        bytes.truncate(count);
        bytes
    }

    #[test]
    fn fields_are_in_the_message_and_by_themselves() {
        let problem = "no graph";
        let bytes = heard(|| {
            tracing::error!(%problem, model.layers = 3, "it cannot be loaded");
        });
        let expected = "PRIORITY=3\nSYSLOG_IDENTIFIER=chaskid\n\
                        MESSAGE=it cannot be loaded problem=no graph model.layers=3\n\
                        CHASKI_PROBLEM=no graph\nCHASKI_MODEL_LAYERS=3\n";
        assert_eq!(String::from_utf8(bytes).unwrap(), expected);
    }

    #[test]
    fn lines_are_counted() {
        let bytes = heard(|| tracing::info!("a\nb"));
        let expected = b"PRIORITY=6\nSYSLOG_IDENTIFIER=chaskid\nMESSAGE\n\x03\0\0\0\0\0\0\0a\nb\n";
        assert_eq!(bytes, expected);
    }

    #[test]
    fn a_long_value_is_cut() {
        let long = "é".repeat(MOST_BYTES);
        let bytes = heard(|| tracing::warn!(long, "x"));
        assert!(bytes.len() < 3 * MOST_BYTES, "{}", bytes.len());
        assert!(String::from_utf8(bytes).is_ok());
    }

    #[test]
    fn a_journal_that_does_not_read_is_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let _listener = UnixDatagram::bind(&path).unwrap();
        let journal = Journal::connect(&path).unwrap();
        let subscriber = tracing_subscriber::registry().with(journal);
        tracing::subscriber::with_default(subscriber, || {
            (0..10_000).for_each(|n| tracing::info!(n, "again"));
        });
    }
}
