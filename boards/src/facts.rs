//! What a machine says of its memory and processor, read from its `/proc` and `/sys`.
//!
//! What cannot be read is left out: containers hide things.

use std::fs::File;
use std::io::Read;
use std::path::Path;

/// Nothing that is read here is longer, but on machines with hundreds of cores.
const MAX_BYTES: u64 = 1 << 20;
/// The system's mask of cores ends there.
const MAX_CORES: usize = 1024;

/// What a profile needs to know of a machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Bytes of memory that Linux has.
    pub memory_bytes: Option<u64>,
    /// Numbers of the cores that are on.
    pub cores: Vec<usize>,
    /// The fastest kernels that the processor has, by the engine's name.
    pub kernels: Option<&'static str>,
    /// Whether it is an ARM; `None` where nothing says so.
    pub(crate) arm: Option<bool>,
}

impl Facts {
    /// `root` has the machine's `proc` and `sys` in it.
    pub fn read(root: &Path) -> Self {
        let text = |path: &str| read_text(&root.join(path));
        let cpuinfo = text("proc/cpuinfo").unwrap_or_default();
        let online = text("sys/devices/system/cpu/online").map(|ranges| list(&ranges));
        Self {
            memory_bytes: text("proc/meminfo").and_then(|text| memory_total(&text)),
            cores: online
                .filter(|cores| !cores.is_empty())
                .unwrap_or_else(|| processors(&cpuinfo)),
            kernels: kernels(&cpuinfo),
            arm: is_arm(&cpuinfo),
        }
    }
}

/// The fastest kernels of a processor, by the text of `/proc/cpuinfo`; `None` where it says
/// nothing of instructions.
pub fn kernels(cpuinfo: &str) -> Option<&'static str> {
    // Of the first core: boards with other cores beside it have the same instructions.
    let features = field(cpuinfo, "Features").or_else(|| field(cpuinfo, "flags"))?;
    let has = |name: &str| {
        features
            .split_ascii_whitespace()
            .any(|feature| feature == name)
    };
    let x86 = [
        (
            "avx512-vnni",
            &["avx2", "fma", "f16c", "avx512f", "avx512bw", "avx512_vnni"][..],
        ),
        ("avx512", &["avx2", "fma", "f16c", "avx512f"]),
        ("avx2", &["avx2", "fma", "f16c"]),
        ("neon-i8mm", &["asimd", "asimddp", "i8mm"]),
        ("neon-dotprod", &["asimd", "asimddp"]),
        ("neon", &["asimd"]),
    ];
    let fastest = x86
        .into_iter()
        .find(|(_, needed)| needed.iter().all(|name| has(name)));
    Some(fastest.map_or("scalar", |(name, _)| name))
}

/// What a file of `/proc` or `/sys` says, without the blanks around it; `None` where it cannot be
/// read. Of one without an end it is the first megabyte.
pub fn read_text(path: &Path) -> Option<String> {
    let bytes = read(path, MAX_BYTES)?;
    Some(String::from_utf8_lossy(&bytes).trim().to_owned())
}

/// The beginning of a file, at most so many bytes.
pub(crate) fn read(path: &Path, most: u64) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)
        .ok()?
        .take(most)
        .read_to_end(&mut bytes)
        .ok()?;
    Some(bytes)
}

fn memory_total(meminfo: &str) -> Option<u64> {
    let kibibytes = field(meminfo, "MemTotal")?.strip_suffix("kB")?;
    let kibibytes: u64 = kibibytes.trim().parse().ok()?;
    kibibytes.checked_mul(1024).filter(|bytes| *bytes > 0)
}

/// Of `name : value` lines the first of that name.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == name).then(|| value.trim())
    })
}

fn processors(cpuinfo: &str) -> Vec<usize> {
    let numbers = cpuinfo.lines().filter_map(|line| {
        let (key, value) = line.split_once(':')?;
        let number: usize = value.trim().parse().ok()?;
        (key.trim() == "processor" && number < MAX_CORES).then_some(number)
    });
    numbers.take(MAX_CORES).collect()
}

fn is_arm(cpuinfo: &str) -> Option<bool> {
    if field(cpuinfo, "CPU implementer").is_some() {
        return Some(true);
    }
    field(cpuinfo, "vendor_id").map(|_| false)
}

/// The numbers in ranges, `0-3,6`.
fn list(ranges: &str) -> Vec<usize> {
    let numbers = |range: &str| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (usize, usize) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        Some(first..last.saturating_add(1).min(MAX_CORES))
    };
    let cores = ranges.split(',').filter_map(numbers).flatten();
    cores.take(MAX_CORES).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instructions_decide_the_kernels() {
        for (features, expected) in [
            ("Features\t: fp asimd evtstrm crc32 cpuid", "neon"),
            ("Features\t: fp asimd asimdhp asimddp", "neon-dotprod"),
            ("Features\t: fp asimd asimddp i8mm bf16", "neon-i8mm"),
            ("Features\t: half thumb neon vfpv4", "scalar"),
            ("flags\t\t: sse2 avx2 fma f16c", "avx2"),
            ("flags\t\t: avx2 fma f16c avx512f", "avx512"),
            (
                "flags\t\t: avx2 fma f16c avx512f avx512bw avx512_vnni",
                "avx512-vnni",
            ),
            ("flags\t\t: sse2", "scalar"),
        ] {
            assert_eq!(kernels(features), Some(expected), "{features}");
        }
        assert_eq!(kernels("processor : 0"), None);
    }

    #[test]
    fn ranges_and_sizes_are_read_and_bounded() {
        assert_eq!(list("0-3,6\n"), [0, 1, 2, 3, 6]);
        assert_eq!(list("0-99999999999").len(), MAX_CORES);
        assert_eq!(list("x,-1,3-,").len(), 0);
        assert_eq!(list(&"0-1023,".repeat(9999)).len(), MAX_CORES);
        assert_eq!(memory_total("MemTotal:  1024 kB\n"), Some(1 << 20));
        assert_eq!(memory_total("MemTotal: 18446744073709551615 kB"), None);
        assert_eq!(memory_total("MemTotal: 0 kB"), None);
        assert_eq!(memory_total("MemFree: 3 kB"), None);
        assert_eq!(
            processors("processor : 0\nmodel name : x\nprocessor : 5\n"),
            [0, 5]
        );
        assert_eq!(processors("processor : 99999999\nprocessor : -1\n"), [0; 0]);
    }

    #[test]
    fn this_machine_has_cores_and_memory() {
        let facts = Facts::read(Path::new("/"));
        assert!(!facts.cores.is_empty());
        assert!(facts.memory_bytes.unwrap() > 1 << 28);
    }
}
