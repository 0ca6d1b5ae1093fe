//! What the machine says of its memory, heat and power, read from `/proc` and `/sys`.
//!
//! What cannot be read is left out: boards differ, and containers hide things.

use std::fs;
use std::path::{Path, PathBuf};

use chaski_boards::read_text;
use procfs_core::process::Status;
use procfs_core::{FromRead, Meminfo};

use crate::config::Config;
use crate::wire::{MemoryMetrics, ThrottlingMetrics};

/// Beyond these a sensor is broken or not there.
const PLAUSIBLE_CELSIUS: std::ops::Range<f64> = -40.0..150.0;
/// What the names of thermal zones of the processor have in them. Other zones may be far
/// from it: one of the Jetson Nano says 100 °C at all times.
const PROCESSOR_ZONES: [&str; 3] = ["cpu", "x86_pkg", "soc"];
/// The Raspberry Pi's firmware, by the kernel of Raspberry Pi OS: up to the 4, and of the 5.
const GET_THROTTLED: [&str; 2] = [
    "sys/devices/platform/soc/soc:firmware/get_throttled",
    "sys/devices/platform/soc@107c000000/soc@107c000000:firmware/get_throttled",
];
/// The driver by which kernels without that file tell of the Raspberry Pi's supply.
const PI_SUPPLY: &str = "rpi_volt";

/// A thermal zone with a temperature.
#[derive(Clone, Debug)]
pub(super) struct Zone {
    /// Its type, in lower case.
    kind: String,
    celsius: f64,
    /// In `/sys`.
    pub(super) folder: PathBuf,
}

/// Where to look.
#[derive(Clone, Debug)]
pub struct Machine {
    root: PathBuf,
    /// Types of thermal zones, in lower case; none: those of the processor.
    zones: Vec<String>,
}

impl Machine {
    /// As the configuration has it: where the machine's `proc` and `sys` are, and which
    /// thermal zones count.
    pub(crate) fn new(config: &Config) -> Self {
        let zones = config.heat.zones().iter().map(|zone| zone.to_lowercase());
        Self::at(&config.metrics.system_root, zones.collect())
    }

    /// `root` has the machine's `proc` and `sys` in it; `zones`, in lower case, are those that
    /// count, and none those of the processor.
    pub fn at(root: &Path, zones: Vec<String>) -> Self {
        Self {
            root: root.to_owned(),
            zones,
        }
    }

    /// A file of the machine.
    pub(super) fn file(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    /// Of this process, and of the machine.
    pub fn memory(&self) -> MemoryMetrics {
        // Of this process, wherever the machine's are.
        let status = Status::from_file("/proc/self/status").ok();
        let kibibytes = status.and_then(|status| status.vmrss);
        let machine = Meminfo::from_file(self.root.join("proc/meminfo")).ok();
        MemoryMetrics {
            resident_bytes: kibibytes.map(|k| k.saturating_mul(1024)),
            available_bytes: machine.and_then(|memory| memory.mem_available),
        }
    }

    /// Of the hottest part of the processor, in °C.
    pub fn temperature(&self) -> Option<f64> {
        let zones = self.thermal_zones();
        zones.into_iter().map(|zone| zone.celsius).reduce(f64::max)
    }

    /// The thermal zones that count: those that are named; otherwise those of the
    /// processor, or all where none is known as such.
    pub(super) fn thermal_zones(&self) -> Vec<Zone> {
        let mut zones: Vec<Zone> = self
            .class("thermal", "thermal_zone")
            .filter_map(|folder| {
                let millidegrees: f64 = read_text(&folder.join("temp"))?.parse().ok()?;
                let celsius = millidegrees / 1000.0;
                let kind = read_text(&folder.join("type"))?.to_lowercase();
                PLAUSIBLE_CELSIUS.contains(&celsius).then_some(Zone {
                    kind,
                    celsius,
                    folder,
                })
            })
            .collect();
        let is_processor = |zone: &Zone| {
            let mut names = PROCESSOR_ZONES.iter();
            names.any(|name| zone.kind.contains(name))
        };
        if !self.zones.is_empty() {
            zones.retain(|zone| self.zones.contains(&zone.kind));
        } else if zones.iter().any(is_processor) {
            zones.retain(is_processor);
        }
        zones
    }

    /// What the firmware of a Raspberry Pi says; `None` on other boards.
    pub(super) fn firmware(&self) -> Option<u32> {
        let mut files = GET_THROTTLED.iter();
        let hex = files.find_map(|file| read_text(&self.root.join(file)))?;
        u32::from_str_radix(hex.trim_start_matches("0x"), 16).ok()
    }

    /// By the firmware of a Raspberry Pi, or else by what the kernel does against heat.
    pub fn throttling(&self) -> Option<ThrottlingMetrics> {
        match self.firmware() {
            Some(bits) => Some(pi_throttling(bits)),
            None => match (self.cooling(), self.pi_supply()) {
                (None, None) => None,
                (cooling, under_voltage) => Some(ThrottlingMetrics {
                    under_voltage,
                    ..cooling.unwrap_or_default()
                }),
            },
        }
    }

    /// Whether a Raspberry Pi has too little voltage, as it was seen last.
    fn pi_supply(&self) -> Option<bool> {
        let mut sensors = self.class("hwmon", "hwmon");
        let supply =
            sensors.find(|sensor| read_text(&sensor.join("name")).as_deref() == Some(PI_SUPPLY))?;
        Some(read_text(&supply.join("in0_lcrit_alarm"))? == "1")
    }

    /// Whether the kernel holds down the clock of the processor.
    pub(super) fn cooling(&self) -> Option<ThrottlingMetrics> {
        let states: Vec<u64> = self
            .class("thermal", "cooling_device")
            .filter(|device| {
                read_text(&device.join("type")).is_some_and(|kind| kind.contains("cpufreq"))
            })
            .filter_map(|device| read_text(&device.join("cur_state"))?.parse().ok())
            .collect();
        (!states.is_empty()).then(|| ThrottlingMetrics {
            throttled: states.iter().any(|&state| state > 0),
            ..ThrottlingMetrics::default()
        })
    }

    /// The folders of one kind in `/sys/class`.
    fn class(&self, class: &str, kind: &'static str) -> impl Iterator<Item = PathBuf> + use<> {
        let folder = fs::read_dir(self.root.join("sys/class").join(class));
        let entries = folder.into_iter().flatten().flatten();
        let of_kind = entries.filter(move |e| e.file_name().to_string_lossy().starts_with(kind));
        of_kind.map(|entry| entry.path())
    }
}

/// The bits of `vcgencmd get_throttled`, as the documentation of Raspberry Pi OS has them.
fn pi_throttling(bits: u32) -> ThrottlingMetrics {
    const UNDER_VOLTAGE: u32 = 1;
    /// Frequency capped, throttled, soft temperature limit.
    const SLOWER: u32 = 0b1110;
    let since_boot = bits >> 16;
    ThrottlingMetrics {
        throttled: bits & SLOWER != 0,
        throttled_since_boot: Some(since_boot & SLOWER != 0),
        under_voltage: Some(bits & UNDER_VOLTAGE != 0),
        under_voltage_since_boot: Some(since_boot & UNDER_VOLTAGE != 0),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A folder with the files of a machine.
    pub(in crate::govern) struct Fake(pub(in crate::govern) tempfile::TempDir);

    impl Fake {
        pub(in crate::govern) fn new(files: &[(&str, &str)]) -> Self {
            let folder = tempfile::tempdir().unwrap();
            for (path, text) in files {
                let path = folder.path().join(path);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, format!("{text}\n")).unwrap();
            }
            Self(folder)
        }

        pub(in crate::govern) fn machine(&self) -> Machine {
            Machine::at(self.0.path(), vec![])
        }

        pub(in crate::govern) fn write(&self, path: &str, text: &str) {
            fs::write(self.0.path().join(path), format!("{text}\n")).unwrap();
        }
    }

    #[test]
    fn a_machine_that_says_nothing() {
        let fake = Fake::new(&[]);
        let machine = fake.machine();
        assert_eq!(machine.temperature(), None);
        assert_eq!(machine.throttling(), None);
        let memory = machine.memory();
        assert_eq!(memory.available_bytes, None);
        // This one is asked of the system itself.
        assert!(memory.resident_bytes.unwrap() > 1 << 20);
    }

    #[test]
    fn this_machine_has_memory() {
        let memory = Machine::at(Path::new("/"), vec![]).memory();
        assert!(memory.available_bytes.unwrap() > 1 << 20);
    }

    #[test]
    fn a_raspberry_pi() {
        let fake = Fake::new(&[
            ("sys/class/thermal/thermal_zone0/type", "cpu-thermal"),
            ("sys/class/thermal/thermal_zone0/temp", "51540"),
            (GET_THROTTLED[0], "50008"),
        ]);
        assert_eq!(fake.machine().temperature(), Some(51.54));
        let throttling = fake.machine().throttling().unwrap();
        let expected = ThrottlingMetrics {
            throttled: true,
            throttled_since_boot: Some(true),
            under_voltage: Some(false),
            under_voltage_since_boot: Some(true),
        };
        assert_eq!(throttling, expected);
    }

    #[test]
    fn a_raspberry_pi_5_by_two_kernels() {
        let fake = Fake::new(&[(GET_THROTTLED[1], "1")]);
        let throttling = fake.machine().throttling().unwrap();
        assert_eq!(throttling.under_voltage, Some(true));
        let fake = Fake::new(&[
            ("sys/class/hwmon/hwmon0/name", "cpu_thermal"),
            ("sys/class/hwmon/hwmon1/name", "rpi_volt"),
            ("sys/class/hwmon/hwmon1/in0_lcrit_alarm", "1"),
        ]);
        let throttling = fake.machine().throttling().unwrap();
        assert_eq!(
            (throttling.throttled, throttling.under_voltage),
            (false, Some(true))
        );
        assert_eq!(throttling.under_voltage_since_boot, None);
    }

    #[test]
    fn a_jetson() {
        let zone = |n: u32, file: &str| format!("sys/class/thermal/thermal_zone{n}/{file}");
        let device = |n: u32, file: &str| format!("sys/class/thermal/cooling_device{n}/{file}");
        let files = [
            (zone(0, "type"), "AO-therm"),
            (zone(0, "temp"), "49000"),
            (zone(1, "type"), "CPU-therm"),
            (zone(1, "temp"), "44500"),
            (zone(2, "type"), "PMIC-Die"),
            (zone(2, "temp"), "100000"),
            (zone(3, "type"), "cpu-broken"),
            (zone(3, "temp"), "-256000"),
            (device(0, "type"), "pwm-fan"),
            (device(0, "cur_state"), "3"),
            (device(1, "type"), "thermal-cpufreq-0"),
            (device(1, "cur_state"), "0"),
        ];
        let files = files.each_ref().map(|(path, text)| (path.as_str(), *text));
        let fake = Fake::new(&files);
        assert_eq!(fake.machine().temperature(), Some(44.5));
        let throttling = fake.machine().throttling().unwrap();
        assert_eq!(throttling, ThrottlingMetrics::default());
        let hot = fake.0.path().join(device(1, "cur_state"));
        fs::write(hot, "2\n").unwrap();
        assert!(fake.machine().throttling().unwrap().throttled);
    }

    #[test]
    fn zones_that_are_named() {
        let zone = |n: u32, file: &str| format!("sys/class/thermal/thermal_zone{n}/{file}");
        let files = [
            (zone(0, "type"), "cpu-thermal"),
            (zone(0, "temp"), "40000"),
            (zone(1, "type"), "Board-Therm"),
            (zone(1, "temp"), "60000"),
        ];
        let files = files.each_ref().map(|(path, text)| (path.as_str(), *text));
        let fake = Fake::new(&files);
        assert_eq!(fake.machine().temperature(), Some(40.0));
        let mut config = Config::for_model("m");
        config.metrics.system_root = fake.0.path().to_owned();
        config.heat.zones = Some(vec!["Board-therm".into()]);
        assert_eq!(Machine::new(&config).temperature(), Some(60.0));
        config.heat.zones = Some(vec!["oven".into()]);
        assert_eq!(Machine::new(&config).temperature(), None);
    }

    #[test]
    fn the_bits_of_the_firmware() {
        assert_eq!(
            pi_throttling(0),
            ThrottlingMetrics {
                throttled: false,
                throttled_since_boot: Some(false),
                under_voltage: Some(false),
                under_voltage_since_boot: Some(false),
            }
        );
        assert!(pi_throttling(0b1).under_voltage.unwrap());
        for slower in [0b10, 0b100, 0b1000] {
            assert!(pi_throttling(slower).throttled, "{slower}");
            assert_eq!(pi_throttling(slower << 16).throttled_since_boot, Some(true));
        }
    }
}
