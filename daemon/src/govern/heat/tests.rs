use super::*;

const PATIENCE: Duration = Duration::from_secs(20);

fn trip(kind: TripKind, celsius: f64) -> Trip {
    Trip { kind, celsius }
}

fn limits(ease_off: Option<f64>, refuse: Option<f64>, trips: &[Trip], pi: bool) -> (f64, f64) {
    let config = config::Heat {
        ease_off,
        refuse,
        ..config::Heat::default()
    };
    let Limits { ease_off, refuse } = Limits::new(&config, trips, pi);
    (ease_off, refuse)
}

#[test]
fn limits_by_the_trip_points() {
    use TripKind::{Critical, Hot, Passive};
    let of = |trips: &[Trip], pi| limits(None, None, trips, pi);
    assert_eq!(of(&[], false), (75.0, 83.0));
    // Raspberry Pi 5: the kernel knows of 110 °C, the firmware acts at 80.
    assert_eq!(of(&[trip(Critical, 110.0)], true), (75.0, 83.0));
    // Raspberry Pi 4 with another kernel.
    assert_eq!(of(&[trip(Critical, 90.0)], false), (75.0, 83.0));
    assert_eq!(of(&[trip(Critical, 85.0)], false), (70.0, 78.0));
    // Jetson Nano.
    let nano = [trip(Critical, 102.5), trip(Hot, 98.5), trip(Passive, 97.0)];
    assert_eq!(of(&nano, false), (86.0, 94.0));
    assert_eq!(of(&[trip(Passive, 99.0)], false), (88.0, 96.0));
    // What is no temperature is no trip point.
    let none = [trip(Passive, 0.0), trip(Passive, -274.0)];
    assert_eq!(of(&none, false), (75.0, 83.0));
}

#[test]
fn limits_by_the_configuration() {
    let passive = [trip(TripKind::Passive, 97.0)];
    assert_eq!(
        limits(Some(60.0), Some(70.0), &passive, false),
        (60.0, 70.0)
    );
    assert_eq!(limits(Some(60.0), None, &passive, false), (60.0, 94.0));
    assert_eq!(limits(Some(93.5), None, &passive, false), (93.5, 95.5));
    assert_eq!(limits(None, Some(70.0), &passive, false), (62.0, 70.0));
    assert_eq!(limits(None, Some(99.0), &passive, false), (86.0, 99.0));
}

/// A controller with a clock.
struct Board {
    heat: Heat,
    now: Instant,
}

impl Board {
    fn new() -> Self {
        Self {
            heat: Heat::new(SAFE, PATIENCE),
            now: Instant::now(),
        }
    }

    /// The level after it has been so hot for so many seconds, with a reading every two.
    fn at(&mut self, celsius: f64, seconds: u64) -> HeatLevel {
        self.with(&reading(Some(celsius)), seconds)
    }

    fn with(&mut self, reading: &HeatReading, seconds: u64) -> HeatLevel {
        for _ in 0..seconds / 2 {
            self.now += Duration::from_secs(2);
            self.heat.look(reading, self.now);
        }
        self.heat.level()
    }
}

fn reading(celsius: Option<f64>) -> HeatReading {
    HeatReading {
        celsius,
        throttled: false,
        under_voltage: false,
    }
}

#[test]
fn every_level_is_entered_and_left() {
    use HeatLevel::{FewerThreads, Normal, Pauses, Refusing};
    let mut board = Board::new();
    for (celsius, level) in [
        (50.0, Normal),
        (74.9, Normal),
        (75.0, FewerThreads),
        (78.9, FewerThreads),
        (79.0, Pauses),
        (82.9, Pauses),
        (83.0, Refusing),
        (95.0, Refusing),
    ] {
        assert_eq!(board.at(celsius, 2), level, "{celsius}");
    }
    // Four degrees below where it began, and after a while.
    assert_eq!(board.at(79.1, 600), Refusing);
    assert_eq!(board.at(78.9, 20), Refusing);
    assert_eq!(board.at(78.9, 2), Pauses);
    assert_eq!(board.at(75.1, 600), Pauses);
    assert_eq!(board.at(74.9, 20), Pauses);
    assert_eq!(board.at(74.9, 2), FewerThreads);
    assert_eq!(board.at(71.1, 600), FewerThreads);
    assert_eq!(board.at(70.9, 22), Normal);
    // All at once goes too, but down it is a level at a time.
    assert_eq!(board.at(90.0, 2), Refusing);
    assert_eq!(board.at(40.0, 22), Pauses);
    assert_eq!(board.at(40.0, 20), FewerThreads);
    assert_eq!(board.at(40.0, 20), Normal);
}

#[test]
fn a_temperature_that_swings_does_not_make_the_level_swing() {
    let mut board = Board::new();
    board.at(79.0, 2);
    for _ in 0..50 {
        board.at(75.5, 2);
        assert_eq!(board.at(79.5, 2), HeatLevel::Pauses);
        // Not for long enough.
        assert_eq!(board.at(70.0, 18), HeatLevel::Pauses);
    }
}

#[test]
fn a_weak_supply_and_a_throttled_machine_have_fewer_threads() {
    let calm = reading(Some(50.0));
    for weak in [
        HeatReading {
            under_voltage: true,
            ..calm
        },
        HeatReading {
            throttled: true,
            ..calm
        },
        HeatReading {
            under_voltage: true,
            ..reading(None)
        },
    ] {
        let mut board = Board::new();
        assert_eq!(board.with(&weak, 2), HeatLevel::FewerThreads);
        assert_eq!(board.with(&weak, 600), HeatLevel::FewerThreads);
        assert_eq!(board.with(&calm, 20), HeatLevel::FewerThreads);
        assert_eq!(board.with(&calm, 2), HeatLevel::Normal);
    }
}

#[test]
fn a_machine_that_says_nothing_is_not_hot() {
    let mut board = Board::new();
    assert_eq!(board.with(&reading(None), 600), HeatLevel::Normal);
    board.at(90.0, 2);
    assert_eq!(board.with(&reading(None), 62), HeatLevel::Normal);
}

#[test]
fn the_wait_follows_the_temperature() {
    let mut board = Board::new();
    board.at(90.0, 2);
    // It does not fall.
    assert_eq!(board.heat.wait(board.now), USUAL_WAIT + PATIENCE);
    // It falls by half a degree a second: four more to go, and a while after that.
    for step in 0..15 {
        board.at(97.0 - f64::from(step), 2);
    }
    assert_eq!(board.at(83.0, 2), HeatLevel::Refusing);
    let wait = board.heat.wait(board.now);
    assert!((27..=30).contains(&wait.as_secs()), "{wait:?}");
    // Cool enough, but not for long enough.
    board.at(70.0, 2);
    assert_eq!(board.heat.wait(board.now), PATIENCE);
    let later = board.now + Duration::from_secs(18);
    assert_eq!(board.heat.wait(later), LEAST_WAIT);
}
