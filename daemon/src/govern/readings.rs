//! What is read for a decision, from `/proc` and `/sys`.

use chaski_boards::read_text;
use procfs_core::process::Status;
use procfs_core::{FromRead, Meminfo, MemoryPressure};

use super::machine::Machine;

/// A zone has at most a dozen trip points.
const MOST_TRIPS: usize = 32;
/// Of the firmware's bits: what it does now because of too little voltage, and of heat.
const UNDER_VOLTAGE: u32 = 1;
const THROTTLED: u32 = 1 << 2;

/// How hot the machine is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct HeatReading {
    pub(super) celsius: Option<f64>,
    /// Whether the machine is held down for heat already. The "soft" limit of a Raspberry
    /// Pi 3 B+ does not count: it is at 60 °C and takes away little.
    pub(super) throttled: bool,
    pub(super) under_voltage: bool,
}

/// How much memory there is.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct MemoryReading {
    /// Bytes that the machine can still give.
    pub(super) available: Option<u64>,
    /// Bytes of this process.
    pub(super) resident: Option<u64>,
    /// Percent of the last ten seconds that some task waited for memory,
    pub(super) some: Option<f64>,
    /// and all of them.
    pub(super) full: Option<f64>,
}

/// What is done at a trip point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TripKind {
    /// The processor's clock is lowered.
    Passive,
    /// Somebody is told.
    Hot,
    /// The machine is switched off.
    Critical,
}

/// A temperature at which something is done.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Trip {
    pub(crate) kind: TripKind,
    pub(crate) celsius: f64,
}

/// The memory that could be taken, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct MemoryThere {
    /// Of the machine.
    pub(crate) total: Option<u64>,
    /// What it can still give.
    pub(crate) available: Option<u64>,
    /// What this process has taken and gives back before it loads a model.
    pub(crate) own: u64,
    /// What its cgroup may take, or one that this is in.
    pub(crate) cgroup: Option<u64>,
}

impl Machine {
    pub(super) fn heat(&self) -> HeatReading {
        let (throttled, under_voltage) = match self.firmware() {
            Some(bits) => (bits & THROTTLED != 0, bits & UNDER_VOLTAGE != 0),
            None => (self.cooling().is_some_and(|c| c.throttled), false),
        };
        HeatReading {
            celsius: self.temperature(),
            throttled,
            under_voltage,
        }
    }

    /// The trip points of the zones that count, and what they are for. Those at which a
    /// fan goes faster are none.
    pub(super) fn trips(&self) -> Vec<Trip> {
        let mut trips = Vec::new();
        for zone in self.thermal_zones() {
            for number in 0..MOST_TRIPS {
                let value =
                    |what| read_text(&zone.folder.join(format!("trip_point_{number}_{what}")));
                let Some(kind) = value("type") else { break };
                let kind = match kind.as_str() {
                    "passive" => TripKind::Passive,
                    "hot" => TripKind::Hot,
                    "critical" => TripKind::Critical,
                    _ => continue,
                };
                if let Some(millidegrees) = value("temp").and_then(|t| t.parse::<f64>().ok()) {
                    let celsius = millidegrees / 1000.0;
                    trips.push(Trip { kind, celsius });
                }
            }
        }
        trips
    }

    pub(super) fn pressure(&self) -> MemoryReading {
        let memory = self.memory();
        // Not there where the kernel does not measure it.
        let stalls = MemoryPressure::from_file(self.file("proc/pressure/memory")).ok();
        MemoryReading {
            available: memory.available_bytes,
            resident: memory.resident_bytes,
            some: stalls.as_ref().map(|stalls| f64::from(stalls.some.avg10)),
            full: stalls.as_ref().map(|stalls| f64::from(stalls.full.avg10)),
        }
    }

    /// The memory that could be taken now.
    pub(super) fn memory_there(&self) -> MemoryThere {
        let machine = Meminfo::from_file(self.file("proc/meminfo")).ok();
        let own = Status::from_file("/proc/self/status").ok();
        MemoryThere {
            total: machine.as_ref().map(|memory| memory.mem_total),
            available: machine.and_then(|memory| memory.mem_available),
            own: own
                .and_then(|own| own.rssanon)
                .unwrap_or(0)
                .saturating_mul(1024),
            cgroup: self.cgroup_limit(),
        }
    }

    /// The least limit of our cgroup (v2) and those it is in.
    fn cgroup_limit(&self) -> Option<u64> {
        let groups = read_text(&self.file("proc/self/cgroup"))?;
        let path = groups.lines().find_map(|line| line.strip_prefix("0::"))?;
        let top = self.file("sys/fs/cgroup");
        let mut folder = top.join(path.trim_start_matches('/'));
        let mut least: Option<u64> = None;
        // The names come from the kernel; none leads out of its tree.
        while folder.starts_with(&top) {
            for file in ["memory.max", "memory.high"] {
                let limit = read_text(&folder.join(file)).and_then(|limit| limit.parse().ok());
                least = least.into_iter().chain(limit).min();
            }
            if !folder.pop() {
                break;
            }
        }
        least
    }
}

#[cfg(test)]
mod tests {
    use super::super::machine::tests::Fake;
    use super::*;

    const FIRMWARE: &str = "sys/devices/platform/soc/soc:firmware/get_throttled";

    #[test]
    fn nothing_of_a_machine_that_says_nothing() {
        let machine = Fake::new(&[]).machine();
        let heat = HeatReading {
            celsius: None,
            throttled: false,
            under_voltage: false,
        };
        assert_eq!(machine.heat(), heat);
        assert_eq!(machine.trips(), []);
        let pressure = machine.pressure();
        assert_eq!((pressure.available, pressure.some), (None, None));
        let there = machine.memory_there();
        assert_eq!((there.total, there.cgroup), (None, None));
        assert!(there.own > 1 << 16);
    }

    #[test]
    fn the_firmware_of_a_raspberry_pi() {
        let fake = Fake::new(&[
            ("sys/class/thermal/thermal_zone0/type", "cpu-thermal"),
            ("sys/class/thermal/thermal_zone0/temp", "61000"),
            (FIRMWARE, "0"),
        ]);
        let flags = |bits: &str| {
            fake.write(FIRMWARE, bits);
            let heat = fake.machine().heat();
            assert_eq!(heat.celsius, Some(61.0));
            (heat.throttled, heat.under_voltage)
        };
        assert_eq!(flags("0"), (false, false));
        // Since it was switched on, but not now.
        assert_eq!(flags("f0000"), (false, false));
        // Too little voltage, and a clock that is capped for it.
        assert_eq!(flags("3"), (false, true));
        assert_eq!(flags("4"), (true, false));
        // The soft limit.
        assert_eq!(flags("8"), (false, false));
    }

    #[test]
    fn trip_points_of_a_jetson() {
        let zone = |file: &str| format!("sys/class/thermal/thermal_zone0/{file}");
        let files = [
            ("type", "CPU-therm"),
            ("temp", "44500"),
            ("trip_point_0_type", "critical"),
            ("trip_point_0_temp", "102500"),
            ("trip_point_1_type", "active"),
            ("trip_point_1_temp", "51000"),
            ("trip_point_2_type", "passive"),
            ("trip_point_2_temp", "97000"),
            // A gap: there are no more.
            ("trip_point_4_type", "passive"),
            ("trip_point_4_temp", "60000"),
        ]
        .map(|(file, text)| (zone(file), text));
        let files = files.each_ref().map(|(path, text)| (path.as_str(), *text));
        let trip = |kind, celsius| Trip { kind, celsius };
        let expected = [
            trip(TripKind::Critical, 102.5),
            trip(TripKind::Passive, 97.0),
        ];
        assert_eq!(Fake::new(&files).machine().trips(), expected);
    }

    #[test]
    fn stalls_and_what_is_available() {
        let fake = Fake::new(&[
            (
                "proc/meminfo",
                "MemTotal:  1000 kB\nMemFree: 10 kB\nMemAvailable:  200 kB\nBuffers: 1 kB\nCached: 1 kB\n\
                 SwapCached: 0 kB\nActive: 1 kB\nInactive: 1 kB\nSwapTotal: 0 kB\nSwapFree: 0 kB\n\
                 Dirty: 0 kB\nWriteback: 0 kB\nMapped: 1 kB\nSlab: 1 kB\nCommitted_AS: 1 kB\n\
                 VmallocTotal: 1 kB\nVmallocUsed: 0 kB\nVmallocChunk: 0 kB",
            ),
            (
                "proc/pressure/memory",
                "some avg10=12.50 avg60=1.00 avg300=0.00 total=123\n\
                 full avg10=3.25 avg60=0.00 avg300=0.00 total=45",
            ),
        ]);
        let pressure = fake.machine().pressure();
        assert_eq!(pressure.available, Some(200 << 10));
        assert_eq!((pressure.some, pressure.full), (Some(12.5), Some(3.25)));
        assert_eq!(fake.machine().memory_there().total, Some(1000 << 10));
    }

    #[test]
    fn the_least_limit_of_all_cgroups() {
        let fake = Fake::new(&[
            (
                "proc/self/cgroup",
                "1:name=x:/y\n0::/system.slice/chaski.service",
            ),
            (
                "sys/fs/cgroup/system.slice/chaski.service/memory.max",
                "max",
            ),
            (
                "sys/fs/cgroup/system.slice/chaski.service/memory.high",
                "900",
            ),
            ("sys/fs/cgroup/system.slice/memory.max", "800"),
        ]);
        assert_eq!(fake.machine().memory_there().cgroup, Some(800));
        fake.write(
            "sys/fs/cgroup/system.slice/chaski.service/memory.max",
            "700",
        );
        assert_eq!(fake.machine().memory_there().cgroup, Some(700));
        let unlimited = Fake::new(&[("proc/self/cgroup", "0::/")]);
        assert_eq!(unlimited.machine().memory_there().cgroup, None);
    }
}
