//! Threads pinned to the cores that the user names.
//!
//! On a board with fast and slow cores, or one that other programs use as well,
//! a team works best on chosen cores: its members do equal shares of each job.

use core_affinity::CoreId;

use crate::error::EngineError;

/// The system's mask of cores ends there.
const MOST: usize = 1024;

/// Checks that there are cores of these numbers.
pub(crate) fn check(cores: &[usize]) -> Result<(), EngineError> {
    let there = there();
    match cores.iter().find(|core| !list(&there).contains(core)) {
        _ if cores.is_empty() => Err(EngineError::Option(
            "an empty list of cores: name at least one, or leave the option out".into(),
        )),
        None => Ok(()),
        Some(core) => Err(EngineError::Option(format!(
            "core {core} does not exist: this machine has {there}"
        ))),
    }
}

/// The core of a member of a team, if it is to have one.
pub(crate) fn of_member(cores: &[usize], member: usize) -> Option<usize> {
    cores.get(member % cores.len().max(1)).copied()
}

/// Keeps the calling thread on a core that [`check`] has seen. Where the system
/// refuses (a container may have other cores) the thread goes on as it was.
pub(crate) fn pin(core: usize) {
    if !core_affinity::set_for_current(CoreId { id: core }) {
        tracing::warn!(
            core,
            "the system does not let this thread be pinned to the core, perhaps since its \
             cgroup has others: it computes unpinned"
        );
    }
}

/// The machine's cores as ranges, `0-3,6`.
fn there() -> String {
    // Those that this process may use are fewer in a container.
    if let Ok(online) = std::fs::read_to_string("/sys/devices/system/cpu/online") {
        return online.trim().to_owned();
    }
    let allowed = core_affinity::get_core_ids().unwrap_or_default();
    let numbers: Vec<_> = allowed.iter().map(|core| core.id.to_string()).collect();
    numbers.join(",")
}

/// The numbers in ranges.
fn list(ranges: &str) -> Vec<usize> {
    let numbers = |range: &str| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        Some(first..last.saturating_add(1).min(MOST))
    };
    ranges.split(',').filter_map(numbers).flatten().collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Cores that this thread may use.
    pub(crate) fn allowed() -> Vec<usize> {
        let ids = core_affinity::get_core_ids().unwrap_or_default();
        ids.iter().map(|core| core.id).collect()
    }

    #[test]
    fn ranges_are_read() {
        assert_eq!(list("0-3,6"), [0, 1, 2, 3, 6]);
        assert_eq!(list("0"), [0]);
        assert_eq!(list("1020-99999").len(), 4);
        assert_eq!(list("").len() + list("x-y").len() + list("3-1").len(), 0);
    }

    #[test]
    fn cores_that_are_not_there_are_named() {
        assert!(check(&allowed()).is_ok());
        let error = check(&[0, 5000]).unwrap_err().to_string();
        assert!(
            error.contains("core 5000") && error.contains(&there()),
            "{error}"
        );
        assert!(check(&[]).is_err());
    }

    #[test]
    fn a_pinned_thread_has_one_core() {
        let pinned = std::thread::spawn(|| {
            let last = allowed().last().copied().unwrap();
            pin(last);
            (last, allowed())
        });
        let (core, now) = pinned.join().unwrap();
        assert_eq!(now, [core]);
    }

    #[test]
    fn members_take_turns() {
        let cores: Vec<_> = (0..4).map(|member| of_member(&[4, 6, 7], member)).collect();
        assert_eq!(cores, [Some(4), Some(6), Some(7), Some(4)]);
        assert_eq!(of_member(&[], 2), None);
    }
}
