//! From ticks of the TSC to wall-clock time.
//!
//! The rate is measured against the kernel's clock, first over a short sleep and then over the whole session, so
//! it gets more exact as time goes by. Times never jump by more than the error of the last estimate.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use hypovisor_machine::clock::now_ticks;

/// How long the first measurement of the rate takes.
const FIRST_MEASUREMENT: Duration = Duration::from_millis(20);
/// How often the rate is measured again.
const REFRESH: Duration = Duration::from_secs(1);

/// Converts ticks to nanoseconds.
#[derive(Clone, Debug)]
pub struct Clock {
    start_ticks: u64,
    start: Instant,
    anchor_ticks: u64,
    anchor_unix_ns: i64,
    refreshed: Instant,
    ns_per_tick: f64,
}

impl Clock {
    /// Measures the rate; takes [`FIRST_MEASUREMENT`].
    #[must_use]
    pub fn measure() -> Self {
        let (start, start_ticks) = (Instant::now(), now_ticks());
        std::thread::sleep(FIRST_MEASUREMENT);
        let mut clock = Self {
            start_ticks,
            start,
            anchor_ticks: start_ticks,
            anchor_unix_ns: 0,
            refreshed: start,
            ns_per_tick: 1.0,
        };
        clock.refresh();
        clock
    }

    /// Measures the rate again if the last measurement is old.
    pub fn tick(&mut self) {
        if self.refreshed.elapsed() >= REFRESH {
            self.refresh();
        }
    }

    fn refresh(&mut self) {
        let ticks = now_ticks();
        self.refreshed = Instant::now();
        let elapsed_ns = self.refreshed.duration_since(self.start).as_nanos() as f64;
        self.ns_per_tick = elapsed_ns / (ticks.wrapping_sub(self.start_ticks).max(1) as f64);
        self.anchor_ticks = ticks;
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.anchor_unix_ns = i64::try_from(since_epoch.as_nanos()).unwrap_or(i64::MAX);
    }

    /// Nanoseconds since the Unix epoch at `ticks`, before or after the last measurement.
    #[must_use]
    pub fn unix_ns(&self, ticks: u64) -> i64 {
        let difference = ticks.wrapping_sub(self.anchor_ticks) as i64;
        self.anchor_unix_ns.saturating_add((difference as f64 * self.ns_per_tick) as i64)
    }

    /// A duration in nanoseconds.
    #[must_use]
    pub fn duration_ns(&self, ticks: u64) -> u64 {
        (ticks as f64 * self.ns_per_tick) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_become_the_time_of_day() {
        let clock = Clock::measure();
        let before = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as i64;
        let seen = clock.unix_ns(now_ticks());
        // Two clocks read one after the other on a busy machine: generous, but it tells seconds from ticks.
        assert!((seen - before).abs() < 500_000_000, "{seen} is far from {before}");
        assert!(clock.unix_ns(clock.anchor_ticks - 1_000_000) < clock.anchor_unix_ns);
    }
}
