//! What systemd is told: that the daemon is ready, what it is at, and that it lives.
//!
//! Without systemd nobody listens, and nothing is sent. See sd_notify(3).

use std::env;
use std::fmt::Write as _;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::{Duration, Instant};

use sd_notify::NotifyState;
use tracing::{debug, error, info};

/// Looks at the daemon for every time that systemd waits for a sign of life. A step that
/// takes almost as long as systemd waits is then still seen to end in time.
const LOOKS: u32 = 4;

/// The other end of `NOTIFY_SOCKET`.
#[derive(Debug)]
pub(super) struct Systemd {
    watchdog: Watchdog,
    status: String,
    /// Whether it was to be told that requests are answered, and did not hear it.
    owes_ready: bool,
}

impl Systemd {
    /// As the environment has it.
    pub(super) fn new() -> Self {
        let patience = sd_notify::watchdog_enabled();
        if let Some(patience) = patience {
            info!(?patience, "systemd watches");
        }
        Self {
            watchdog: Watchdog::new(patience, Instant::now()),
            status: String::new(),
            owes_ready: false,
        }
    }

    /// What `systemctl status` shows.
    pub(super) fn status(&mut self, status: String) {
        if self.owes_ready {
            self.ready();
        }
        if self.status != status && tell(&[NotifyState::Status(&status)]) {
            self.status = status;
        }
    }

    /// Requests are answered from now on; also after [`Self::reloading`].
    pub(super) fn ready(&mut self) {
        self.owes_ready = !tell(&[NotifyState::Ready]);
    }

    /// The configuration is read again.
    pub(super) fn reloading(&self) {
        match NotifyState::monotonic_usec_now() {
            Ok(now) => {
                tell(&[NotifyState::Reloading, now]);
            }
            Err(e) => debug!(%e, "no clock for systemd"),
        }
    }

    /// The daemon goes down.
    pub(super) fn stopping(&mut self) {
        self.status("going down".to_owned());
        tell(&[NotifyState::Stopping]);
    }

    /// When [`Self::look`] is to be called.
    pub(super) fn due(&self) -> Option<Instant> {
        self.watchdog.due
    }

    /// Gives a sign of life, if there is one. `pulse`: grows while something is computed;
    /// `None` where nothing need be.
    pub(super) fn look(&mut self, pulse: Option<u64>) {
        if self.watchdog.look(pulse, Instant::now()) {
            tell(&[NotifyState::Watchdog]);
        }
    }
}

/// Whether it was heard, or nobody is there. One who does not listen is not waited for, as
/// `sd_notify::notify` would: the daemon's work does not depend on it.
fn tell(states: &[NotifyState<'_>]) -> bool {
    let sent = send(states);
    if let Err(e) = &sent {
        debug!(%e, "systemd does not hear us");
    }
    sent.is_ok()
}

fn send(states: &[NotifyState<'_>]) -> io::Result<()> {
    let Some(name) = env::var_os("NOTIFY_SOCKET") else {
        return Ok(());
    };
    let address = match name.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(&name)?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    socket.connect_addr(&address)?;
    let mut text = String::new();
    for state in states {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{state}");
    }
    socket.send(text.as_bytes()).map(|_| ())
}

/// Whether the inference thread goes on. That the connection is served is shown by the
/// caller, who serves it.
#[derive(Debug)]
struct Watchdog {
    interval: Option<Duration>,
    due: Option<Instant>,
    pulse: Option<u64>,
}

impl Watchdog {
    fn new(patience: Option<Duration>, now: Instant) -> Self {
        let interval = patience.map(|patience| patience / LOOKS);
        Self {
            interval,
            due: interval.map(|_| now),
            pulse: None,
        }
    }

    /// Whether there is life.
    fn look(&mut self, pulse: Option<u64>, now: Instant) -> bool {
        self.due = self.interval.and_then(|interval| now.checked_add(interval));
        let before = std::mem::replace(&mut self.pulse, pulse);
        let alive = pulse.is_none() || pulse != before;
        if !alive {
            error!("the running request does not go on");
        }
        alive
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_does_not_go_on_is_not_alive() {
        let now = Instant::now();
        let mut watchdog = Watchdog::new(Some(Duration::from_secs(8)), now);
        assert_eq!(watchdog.due, Some(now));
        for (pulse, alive) in [
            (None, true),
            (None, true),
            // A request begins; it need not have come to anything yet.
            (Some(0), true),
            (Some(0), false),
            (Some(1), true),
            (Some(7), true),
            (Some(7), false),
            (None, true),
            (Some(7), true),
        ] {
            assert_eq!(watchdog.look(pulse, now), alive, "{pulse:?}");
        }
        assert_eq!(watchdog.due, Some(now + Duration::from_secs(2)));
    }

    #[test]
    fn without_a_watchdog_nothing_is_due() {
        let mut watchdog = Watchdog::new(None, Instant::now());
        assert_eq!(watchdog.due, None);
        watchdog.look(None, Instant::now());
        assert_eq!(watchdog.due, None);
    }
}
