use super::machine::tests::Fake;
use super::*;

const TEMP: &str = "sys/class/thermal/thermal_zone0/temp";
const PRESSURE: &str = "proc/pressure/memory";

fn fake() -> (Fake, Config) {
    let fake = Fake::new(&[
        ("sys/class/thermal/thermal_zone0/type", "cpu-thermal"),
        (TEMP, "50000"),
        (PRESSURE, ""),
    ]);
    let mut config = Config::for_model("m");
    config.metrics.system_root = fake.0.path().to_owned();
    (fake, config)
}

fn stall(fake: &Fake, percent: u32) {
    let line = |kind| format!("{kind} avg10={percent}.00 avg60=0.00 avg300=0.00 total=1");
    fake.write(PRESSURE, &[line("some"), line("full")].join("\n"));
}

#[test]
fn heat_is_answered_with_less_effort() {
    let (fake, config) = fake();
    let start = Instant::now();
    let mut governor = Governor::new(&config, start);
    // It may have been hot before we came.
    assert_eq!(governor.due(false), Some(start));
    assert_eq!(governor.look(start), []);
    assert_eq!(governor.due(false), Some(start + IDLE));
    assert_eq!(governor.due(true), Some(start + SOON));
    assert_eq!(governor.effort(), Effort::default());
    assert_eq!(governor.strain(start), Strain::default());
    assert_eq!(governor.status(), None);
    for (temp, halvings, pause_percent) in [(75_000, 1, 0), (79_000, 1, 100), (83_000, 2, 300)] {
        fake.write(TEMP, &temp.to_string());
        let events = governor.look(start);
        let [
            Event::Heat {
                level,
                temperature_celsius,
                under_voltage: None,
            },
        ] = events[..]
        else {
            panic!("{events:?}")
        };
        assert_eq!(level, governor.heat_level());
        assert_eq!(temperature_celsius, Some(f64::from(temp) / 1000.0));
        let effort = governor.effort();
        assert_eq!(
            (effort.halvings, effort.pause_percent),
            (halvings, pause_percent)
        );
        assert!(effort.keeps_cache && governor.status().is_some());
        // It is looked at often, computing or not.
        assert_eq!(governor.due(false), Some(start + SOON));
    }
    let strain = governor.strain(start);
    assert_eq!(strain.heat, HeatLevel::Refusing);
    let refusing = strain.refusing.unwrap();
    assert_eq!(refusing.code, ErrorCode::Overheated);
    assert!(refusing.until > start);
}

#[test]
fn want_of_memory_costs_the_cache_and_then_new_work() {
    let (fake, config) = fake();
    let now = Instant::now();
    let mut governor = Governor::new(&config, now);
    stall(&fake, 5);
    assert_eq!(governor.look(now), []);
    stall(&fake, 9);
    assert_eq!(governor.look(now), []);
    fake.write(PRESSURE, "some avg10=20.00 avg60=0.00 avg300=0.00 total=1\nfull avg10=1.00 avg60=0.00 avg300=0.00 total=1");
    assert_eq!(governor.look(now).len(), 1);
    assert_eq!(governor.memory_level(), MemoryLevel::Tight);
    let effort = governor.effort();
    assert!(!effort.keeps_cache && effort.halvings == 0);
    assert_eq!(governor.strain(now), Strain::default());
    stall(&fake, 50);
    governor.look(now);
    let refusing = governor.strain(now).refusing.unwrap();
    assert_eq!(refusing.code, ErrorCode::LowMemory);
    // Heat is the worse reason.
    fake.write(TEMP, "90000");
    governor.look(now);
    assert_eq!(
        governor.strain(now).refusing.map(|r| r.code),
        Some(ErrorCode::Overheated)
    );
    let status = governor.status().unwrap();
    assert!(
        status.contains("hot") && status.contains("memory"),
        "{status}"
    );
}

#[test]
fn what_is_switched_off_does_nothing() {
    let (fake, mut config) = fake();
    config.heat.control = false;
    config.memory.control = false;
    let now = Instant::now();
    let mut governor = Governor::new(&config, now);
    assert_eq!(governor.due(true), None);
    fake.write(TEMP, "90000");
    stall(&fake, 90);
    assert_eq!(governor.look(now), []);
    assert_eq!(governor.effort(), Effort::default());
    // And can be switched on and off again while it runs.
    config.heat.control = true;
    governor.configure(&config);
    assert_eq!(governor.look(now).len(), 1);
    config.heat.control = false;
    governor.configure(&config);
    assert_eq!(governor.heat_level(), HeatLevel::Normal);
    assert_eq!(governor.effort(), Effort::default());
}
