//! What the machine's memory gives to threads that do nothing but read: the bound
//! of decode, which reads all weights for each token.

use std::hint::black_box;
use std::sync::Barrier;
use std::time::Instant;
use std::{fs, thread};

use core_affinity::CoreId;
use serde::Serialize;

/// Reads of the whole buffer; the best counts.
const PASSES: usize = 6;
const LEAST_BYTES: u64 = 256 << 20;
const MOST_BYTES: u64 = 2 << 30;

/// The buffer that is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Buffer {
    /// Its size.
    pub bytes: u64,
    /// The machine's largest cache, where the system says.
    pub cache_bytes: Option<u64>,
}

impl Buffer {
    /// Four times the caches, as memory allows.
    fn here() -> Self {
        let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        Self::sized(cache_bytes(), available_bytes(&meminfo))
    }

    fn sized(cache_bytes: Option<u64>, available: Option<u64>) -> Self {
        let wanted = cache_bytes.unwrap_or(0).saturating_mul(4);
        let wanted = wanted.clamp(LEAST_BYTES, MOST_BYTES);
        Self {
            bytes: available.map_or(wanted, |available| wanted.min(available / 4)),
            cache_bytes,
        }
    }

    /// Whether it is so small that a good part of it stays in the cache.
    pub fn fits_cache(self) -> bool {
        self.cache_bytes
            .is_some_and(|cache| self.bytes < cache.saturating_mul(2))
    }
}

/// Bytes per second that each of these numbers of threads reads, pinned to `cores`
/// as a model's are; none where there is no memory for it. The buffer is gone when
/// this returns.
pub fn measure(threads: &[usize], cores: &[usize]) -> Option<(Buffer, Vec<f64>)> {
    let buffer = Buffer::here();
    let values = usize::try_from(buffer.bytes / 4).ok()?;
    let mut memory: Vec<f32> = Vec::new();
    memory.try_reserve_exact(values).ok()?;
    // Not zeros, which the system may keep in one page.
    memory.resize(values, 1.0);
    let speeds = threads.iter().map(|&threads| read(&memory, threads, cores));
    Some((buffer, speeds.collect()))
}

fn read(memory: &[f32], threads: usize, cores: &[usize]) -> f64 {
    let parts: Vec<&[f32]> = memory
        .chunks(memory.len().div_ceil(threads).max(1))
        .collect();
    let barrier = Barrier::new(parts.len());
    let barrier = &barrier;
    let best = thread::scope(|scope| {
        let readers: Vec<_> = parts
            .iter()
            .enumerate()
            .map(|(reader, part)| {
                let core = cores.get(reader % cores.len().max(1));
                scope.spawn(move || {
                    if let Some(&id) = core {
                        // The engine has warned where that is refused.
                        core_affinity::set_for_current(CoreId { id });
                    }
                    seconds(part, barrier)
                })
            })
            .collect();
        let seconds = readers.into_iter().filter_map(|reader| reader.join().ok());
        seconds.fold(f64::INFINITY, f64::min)
    });
    size_of_val(memory) as f64 / best
}

/// The shortest time from when all threads begin to when all are done.
fn seconds(part: &[f32], barrier: &Barrier) -> f64 {
    let mut best = f64::INFINITY;
    for _ in 0..PASSES {
        barrier.wait();
        let start = Instant::now();
        black_box(chaski_engine::bench::read(part));
        barrier.wait();
        best = best.min(start.elapsed().as_secs_f64());
    }
    best
}

fn cache_bytes() -> Option<u64> {
    let levels = fs::read_dir("/sys/devices/system/cpu/cpu0/cache").ok()?;
    let size = |level: fs::DirEntry| fs::read_to_string(level.path().join("size")).ok();
    levels
        .filter_map(|level| parse_size(&size(level.ok()?)?))
        .max()
}

/// `2048K`, as sysfs writes it.
fn parse_size(text: &str) -> Option<u64> {
    let text = text.trim();
    let (number, unit) = match text.strip_suffix('M') {
        Some(number) => (number, 1 << 20),
        None => (text.strip_suffix('K')?, 1 << 10),
    };
    number.parse::<u64>().ok()?.checked_mul(unit)
}

fn available_bytes(meminfo: &str) -> Option<u64> {
    let line = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_buffer_passes_the_cache_and_leaves_memory() {
        let (gigabyte, megabyte) = (1 << 30, 1 << 20);
        let sized = |cache: u64, available: u64| Buffer::sized(Some(cache), Some(available));
        assert_eq!(sized(2 * megabyte, 8 * gigabyte).bytes, LEAST_BYTES);
        assert_eq!(sized(128 * megabyte, 8 * gigabyte).bytes, 512 * megabyte);
        let small = sized(2 * megabyte, gigabyte / 2);
        assert_eq!((small.bytes, small.fits_cache()), (128 * megabyte, false));
        assert!(sized(128 * megabyte, gigabyte / 2).fits_cache());
        assert_eq!(Buffer::sized(None, None).bytes, LEAST_BYTES);
    }

    #[test]
    fn sizes_as_the_system_writes_them() {
        assert_eq!(parse_size("2048K\n"), Some(2 << 20));
        assert_eq!(parse_size("1M"), Some(1 << 20));
        assert_eq!(parse_size("many"), None);
        assert_eq!(
            available_bytes("MemTotal: 9 kB\nMemAvailable:    5 kB\n"),
            Some(5 * 1024)
        );
        assert_eq!(available_bytes(""), None);
    }

    #[test]
    fn every_number_of_threads_reads() {
        let memory = vec![1.0; 1000];
        for threads in [1, 2, 3, 8] {
            let speed = read(&memory, threads, &[]);
            assert!(speed.is_finite() && speed > 0.0);
        }
    }
}
