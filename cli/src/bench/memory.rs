//! How much memory this process holds, as Linux counts it.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use serde::Serialize;

/// Figures of `/proc/self/status`, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Memory {
    /// Most that was ever resident (`VmHWM`).
    pub peak_resident_bytes: u64,
    /// Resident now and belonging to this process alone (`RssAnon`): heap, KV cache.
    pub anonymous_bytes: u64,
    /// Resident now and backed by files (`RssFile`): the mapped weights; the
    /// system may drop and re-read these pages.
    pub file_bytes: u64,
}

impl Memory {
    /// The figures of this process now; `None` where there is no such file.
    pub fn now() -> Option<Self> {
        Self::parse(&fs::read_to_string("/proc/self/status").ok()?)
    }

    /// Picks the figures out of the text of `/proc/PID/status`.
    pub fn parse(status: &str) -> Option<Self> {
        Some(Self {
            peak_resident_bytes: field(status, "VmHWM")?,
            anonymous_bytes: field(status, "RssAnon")?,
            file_bytes: field(status, "RssFile")?,
        })
    }
}

/// Starts the peak anew, so that each configuration of a bench has its own.
/// Returns false where the kernel does not allow it (containers, old kernels).
pub fn reset_peak() -> bool {
    fs::write("/proc/self/clear_refs", "5").is_ok()
}

/// The most anonymous memory that was seen. Linux keeps no such figure, so a
/// thread looks again and again.
#[derive(Debug, Default)]
pub struct AnonymousPeak(u64);

impl AnonymousPeak {
    /// Between two looks, each of which takes some 30 microseconds: little enough
    /// to see what a load holds for a moment, too often for what is timed.
    const INTERVAL: Duration = Duration::from_millis(1);

    /// Watches while `work` runs.
    pub fn during<T>(&mut self, work: impl FnOnce() -> T) -> T {
        /// Ends the watch, also when the work panics.
        struct Done<'a>(&'a AtomicBool);
        impl Drop for Done<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::Relaxed);
            }
        }
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            let watch = thread::Builder::new().spawn_scoped(scope, || {
                let mut most = 0;
                while !done.load(Ordering::Relaxed) {
                    most = most.max(anonymous());
                    thread::sleep(Self::INTERVAL);
                }
                most
            });
            let guard = Done(&done);
            let result = work();
            self.look();
            drop(guard);
            // Without a thread it is what single looks have seen.
            if let Some(most) = watch.ok().and_then(|watch| watch.join().ok()) {
                self.0 = self.0.max(most);
            }
            result
        })
    }

    /// Looks once.
    pub fn look(&mut self) {
        self.0 = self.0.max(anonymous());
    }

    /// The most seen so far, in bytes; 0 where the system does not tell.
    pub fn bytes(&self) -> u64 {
        self.0
    }
}

fn anonymous() -> u64 {
    Memory::now().map_or(0, |memory| memory.anonymous_bytes)
}

fn field(status: &str, name: &str) -> Option<u64> {
    let rest = status
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    let kibibytes: u64 = rest.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}

/// Bytes for people: `1.25 GB`, `93.1 MB`, `512 B` (powers of 1000).
pub fn human(bytes: u64) -> String {
    const UNITS: [(f64, &str); 3] = [(1e9, "GB"), (1e6, "MB"), (1e3, "kB")];
    for (size, unit) in UNITS {
        let value = bytes as f64 / size;
        if value >= 1.0 {
            let decimals = if value < 10.0 { 2 } else { 1 };
            return format!("{value:.decimals$} {unit}");
        }
    }
    format!("{bytes} B")
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &str = "Name:\tchaski\nVmPeak:\t  900000 kB\nVmHWM:\t  212345 kB\n\
                          VmRSS:\t  200000 kB\nRssAnon:\t   12000 kB\nRssFile:\t  188000 kB\n\
                          RssShmem:\t       0 kB\n";

    #[test]
    fn picks_the_three_figures() {
        assert_eq!(
            Memory::parse(STATUS),
            Some(Memory {
                peak_resident_bytes: 212_345 * 1024,
                anonymous_bytes: 12_000 * 1024,
                file_bytes: 188_000 * 1024,
            })
        );
    }

    #[test]
    fn a_missing_or_malformed_figure_is_none() {
        assert_eq!(
            Memory::parse(&STATUS.replace("VmHWM:", "VmHWMx:")),
            None,
            "a name that only begins alike is another field"
        );
        assert_eq!(Memory::parse(&STATUS.replace("12000 kB", "many kB")), None);
        assert_eq!(
            Memory::parse(&STATUS.replace("12000 kB", "18446744073709551615 kB")),
            None,
            "the product overflows"
        );
        assert_eq!(Memory::parse(""), None);
    }

    #[test]
    fn reads_this_process() {
        let memory = Memory::now().expect("Linux has /proc/self/status");
        assert!(memory.peak_resident_bytes >= memory.anonymous_bytes);
    }

    #[test]
    fn the_peak_sees_what_was_held_for_a_moment() {
        const SIZE: usize = 64 << 20;
        let mut peak = AnonymousPeak::default();
        peak.look();
        let before = peak.bytes();
        peak.during(|| {
            let held = std::hint::black_box(vec![1u8; SIZE]);
            thread::sleep(Duration::from_millis(50));
            drop(held);
        });
        assert!(
            peak.bytes() >= before + SIZE as u64 / 2,
            "{before} {peak:?}"
        );
    }

    #[test]
    fn bytes_for_people() {
        assert_eq!(human(0), "0 B");
        assert_eq!(human(999), "999 B");
        assert_eq!(human(1_500), "1.50 kB");
        assert_eq!(human(93_100_000), "93.1 MB");
        assert_eq!(human(1_250_000_000), "1.25 GB");
    }
}
