//! What the bench ran on.

use std::fs;
use std::thread;

use serde::Serialize;

/// The processor, in words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Machine {
    /// The processor's or the board's name.
    pub processor: String,
    /// `x86_64`, `aarch64`, ...
    pub architecture: &'static str,
    /// Threads that can run at once.
    pub cores: usize,
}

impl Machine {
    /// This machine.
    pub fn here() -> Self {
        let board = fs::read_to_string("/proc/device-tree/model").ok();
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        Self {
            processor: processor(board.as_deref(), &cpuinfo),
            architecture: std::env::consts::ARCH,
            cores: thread::available_parallelism().map_or(1, usize::from),
        }
    }
}

/// Boards say their name in the device tree, PCs the processor's in cpuinfo;
/// ARM's cpuinfo has numbers only.
fn processor(board: Option<&str>, cpuinfo: &str) -> String {
    let board = board.map(|name| name.trim_matches(['\0', '\n', ' ']));
    if let Some(name) = board.filter(|name| !name.is_empty()) {
        return name.to_owned();
    }
    if let Some(name) = value(cpuinfo, "model name") {
        return name.to_owned();
    }
    match (
        value(cpuinfo, "CPU implementer"),
        value(cpuinfo, "CPU part"),
    ) {
        (Some(implementer), Some(part)) => format!("CPU implementer {implementer} part {part}"),
        _ => "unknown processor".to_owned(),
    }
}

fn value<'a>(cpuinfo: &'a str, key: &str) -> Option<&'a str> {
    cpuinfo.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        let value = value.trim();
        (name.trim() == key && !value.is_empty()).then_some(value)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_board_is_named_by_its_device_tree() {
        assert_eq!(
            processor(
                Some("Raspberry Pi 4 Model B Rev 1.4\0"),
                "model name\t: x\n"
            ),
            "Raspberry Pi 4 Model B Rev 1.4"
        );
    }

    #[test]
    fn a_pc_by_its_processor_and_other_arms_by_number() {
        assert_eq!(
            processor(None, "model name\t: Some CPU @ 2GHz\n"),
            "Some CPU @ 2GHz"
        );
        assert_eq!(
            processor(Some("\0"), "CPU implementer\t: 0x41\nCPU part\t: 0xd08\n"),
            "CPU implementer 0x41 part 0xd08"
        );
        assert_eq!(processor(None, ""), "unknown processor");
    }
}
