//! What the machine says of its memory, heat and power, read from `/proc` and `/sys`.
//!
//! What cannot be read is left out: boards differ, and containers hide things.

use std::fs;
use std::path::{Path, PathBuf};

use procfs_core::process::Status;
use procfs_core::{FromRead, Meminfo};

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

/// Where to look.
#[derive(Clone, Debug)]
pub struct Machine {
    root: PathBuf,
}

impl Machine {
    /// `root` has the machine's `proc` and `sys` in it.
    pub fn new(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
        }
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
        let zones: Vec<_> = self
            .class("thermal", "thermal_zone")
            .filter_map(|zone| {
                let millidegrees: f64 = read(&zone.join("temp"))?.parse().ok()?;
                let celsius = millidegrees / 1000.0;
                let kind = read(&zone.join("type"))?.to_lowercase();
                let plausible = PLAUSIBLE_CELSIUS.contains(&celsius);
                plausible.then_some((kind, celsius))
            })
            .collect();
        let is_processor = |kind: &str| PROCESSOR_ZONES.iter().any(|name| kind.contains(name));
        let hottest = |wanted: &dyn Fn(&str) -> bool| {
            let zones = zones.iter().filter(|(kind, _)| wanted(kind));
            zones.map(|(_, celsius)| *celsius).reduce(f64::max)
        };
        hottest(&is_processor).or_else(|| hottest(&|_| true))
    }

    /// By the firmware of a Raspberry Pi, or else by what the kernel does against heat.
    pub fn throttling(&self) -> Option<ThrottlingMetrics> {
        let bits = GET_THROTTLED
            .iter()
            .find_map(|file| read(&self.root.join(file)));
        let bits = bits.and_then(|hex| u32::from_str_radix(hex.trim_start_matches("0x"), 16).ok());
        match bits {
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
            sensors.find(|sensor| read(&sensor.join("name")).as_deref() == Some(PI_SUPPLY))?;
        Some(read(&supply.join("in0_lcrit_alarm"))? == "1")
    }

    /// Whether the kernel holds down the clock of the processor.
    fn cooling(&self) -> Option<ThrottlingMetrics> {
        let states: Vec<u64> = self
            .class("thermal", "cooling_device")
            .filter(|device| {
                read(&device.join("type")).is_some_and(|kind| kind.contains("cpufreq"))
            })
            .filter_map(|device| read(&device.join("cur_state"))?.parse().ok())
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

fn read(file: &Path) -> Option<String> {
    Some(fs::read_to_string(file).ok()?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fake(tempfile::TempDir);

    impl Fake {
        fn new(files: &[(&str, &str)]) -> Self {
            let folder = tempfile::tempdir().unwrap();
            for (path, text) in files {
                let path = folder.path().join(path);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, format!("{text}\n")).unwrap();
            }
            Self(folder)
        }

        fn machine(&self) -> Machine {
            Machine::new(self.0.path())
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
        let memory = Machine::new(Path::new("/")).memory();
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
