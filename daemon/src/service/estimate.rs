//! How long those who wait will have to.

use std::time::Duration;

/// Weight of the newest in the average.
const NEWEST: f64 = 0.2;
/// Before anything was computed.
const FIRST_GUESS: Duration = Duration::from_secs(5);
/// Less than this is not worth telling.
const LEAST: Duration = Duration::from_secs(1);

/// A moving average of the time that a request takes.
#[derive(Debug, Default)]
pub(super) struct Estimate {
    seconds: Option<f64>,
}

impl Estimate {
    /// A request was computed in this time.
    pub(super) fn computed(&mut self, took: Duration) {
        let took = took.as_secs_f64();
        self.seconds = Some(match self.seconds {
            Some(average) => average + NEWEST * (took - average),
            None => took,
        });
    }

    /// Time until `waiting` requests are computed, and the one that has run for `running`.
    pub(super) fn wait(&self, waiting: usize, running: Option<Duration>) -> Duration {
        let each = self.seconds.unwrap_or(FIRST_GUESS.as_secs_f64());
        // One that takes longer than others will not end at once for that.
        let rest = running.map_or(0.0, |elapsed| (each - elapsed.as_secs_f64()).max(0.0));
        let seconds = each * waiting as f64 + rest;
        Duration::try_from_secs_f64(seconds)
            .unwrap_or(Duration::MAX)
            .max(LEAST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(s: f64) -> Duration {
        Duration::from_secs_f64(s)
    }

    #[test]
    fn the_average_follows_the_newest() {
        let mut estimate = Estimate::default();
        assert_eq!(estimate.wait(2, None), FIRST_GUESS * 2);
        estimate.computed(seconds(10.0));
        assert_eq!(estimate.wait(3, None), seconds(30.0));
        estimate.computed(seconds(20.0));
        assert_eq!(estimate.wait(1, None), seconds(12.0));
    }

    #[test]
    fn the_running_one_counts_for_what_is_left_of_it() {
        let mut estimate = Estimate::default();
        estimate.computed(seconds(10.0));
        assert_eq!(estimate.wait(1, Some(seconds(4.0))), seconds(16.0));
        assert_eq!(estimate.wait(1, Some(seconds(40.0))), seconds(10.0));
        assert_eq!(estimate.wait(0, Some(seconds(40.0))), LEAST);
    }
}
