//! What the kernel offers for the memory: swap, limits for a service, signs of pressure.

use std::path::Path;

use chaski_boards::{nominal_mib, read_text};
use chaski_daemon::Board;

use super::machine::shown;
use super::report::Check;

const SWAP: &str = "swap";
const CGROUP: &str = "memory limit";
const PRESSURE: &str = "pressure";
/// Boards with more do without.
const SMALL_MIB: u64 = 2048;

pub(super) fn check(board: &Board, root: &Path) -> Vec<Check> {
    let size = board.detected().facts.memory_bytes.map(nominal_mib);
    let swaps = read_text(&root.join("proc/swaps")).map(|text| swap(&text, size));
    let cmdline = read_text(&root.join("proc/cmdline"));
    let controllers = read_text(&root.join("sys/fs/cgroup/cgroup.controllers"));
    let limit = (cmdline.is_some() || controllers.is_some())
        .then(|| cgroup(&cmdline.unwrap_or_default(), controllers.as_deref()));
    // Without a `proc` there is nothing to be said.
    let proc = root.join("proc/meminfo").exists();
    let pressure = proc.then(|| pressure(read_text(&root.join("proc/pressure/memory"))));
    [swaps, limit, pressure].into_iter().flatten().collect()
}

/// Swap in memory helps small boards, swap on a card wears it out. The weights themselves
/// are never swapped: they are in their file.
fn swap(swaps: &str, size_mib: Option<u64>) -> Check {
    let places: Vec<_> = swaps
        .lines()
        .skip(1)
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    let in_memory = |place: &&str| place.starts_with("/dev/zram");
    let zram = "use zram in its place: on Raspberry Pi OS \
                sudo systemctl disable --now dphys-swapfile; sudo apt install zram-tools";
    if places.is_empty() {
        return match size_mib {
            Some(size) if size < SMALL_MIB => Check::warning(
                SWAP,
                "none: other programs leave less memory to the model",
                "compress what is not used: sudo apt install zram-tools",
            ),
            _ => Check::ok(SWAP, "none"),
        };
    }
    if places.iter().all(in_memory) {
        return Check::ok(SWAP, "zram");
    }
    let file = shown(&places.join(", "));
    match size_mib {
        Some(size) if size <= SMALL_MIB => Check::warning(
            SWAP,
            format!("{file}: slow, and it wears out an SD card"),
            zram,
        ),
        _ => Check::ok(SWAP, file),
    }
}

/// Whether `MemoryMax=` of a service has an effect.
fn cgroup(cmdline: &str, controllers: Option<&str>) -> Check {
    let given = |wanted: &str| cmdline.split_whitespace().any(|word| word == wanted);
    let off = given("cgroup_disable=memory") && !given("cgroup_enable=memory");
    let missing = controllers.is_some_and(|names| !names.split_whitespace().any(|n| n == "memory"));
    if off || missing {
        return Check::warning(
            CGROUP,
            "the kernel counts no memory of services: MemoryMax= in the unit has no effect",
            "add cgroup_enable=memory to the line in /boot/firmware/cmdline.txt (Raspberry Pi OS) \
             and start again",
        );
    }
    Check::ok(CGROUP, "MemoryMax= in the unit has an effect")
}

/// Whether the kernel tells that memory is short.
fn pressure(text: Option<String>) -> Check {
    match text.filter(|text| text.starts_with("some ")) {
        Some(_) => Check::ok(PRESSURE, "the kernel tells when memory is short"),
        None => Check::warning(
            PRESSURE,
            "the kernel does not tell when memory is short (no /proc/pressure/memory)",
            "add psi=1 to the kernel's command line, if it was built with PSI",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::report::Verdict;

    #[test]
    fn swap_on_a_card_is_for_nobody() {
        let of = |line: &str, size| swap(&format!("Filename Type\n{line}\n"), size).verdict;
        assert_eq!(of("/dev/zram0 partition 1 0 5", Some(512)), Verdict::Ok);
        assert_eq!(of("/var/swap file 1 0 -2", Some(512)), Verdict::Warning);
        assert_eq!(of("/var/swap file 1 0 -2", Some(8192)), Verdict::Ok);
        assert_eq!(of("", Some(512)), Verdict::Warning);
        assert_eq!(of("", Some(8192)), Verdict::Ok);
        assert_eq!(of("", None), Verdict::Ok);
    }

    #[test]
    fn a_memory_cgroup_can_be_off_in_two_ways() {
        let of = |cmdline, controllers| cgroup(cmdline, controllers).verdict;
        assert_eq!(of("quiet", None), Verdict::Ok);
        assert_eq!(of("a cgroup_disable=memory b", None), Verdict::Warning);
        assert_eq!(
            of("cgroup_disable=memory cgroup_enable=memory", None),
            Verdict::Ok
        );
        assert_eq!(of("quiet", Some("cpuset cpu io pids")), Verdict::Warning);
        assert_eq!(of("quiet", Some("cpuset cpu io memory pids")), Verdict::Ok);
    }

    #[test]
    fn pressure_is_told_or_not() {
        let some = "some avg10=0.00 avg60=0.00 avg300=0.00 total=0".to_owned();
        assert_eq!(pressure(Some(some)).verdict, Verdict::Ok);
        assert_eq!(pressure(Some(String::new())).verdict, Verdict::Warning);
        assert_eq!(pressure(None).verdict, Verdict::Warning);
    }
}
