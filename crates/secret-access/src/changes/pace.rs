//! Pure: how long to wait until a Secret is polled again. Given the dice.

use std::time::Duration;

use tokio::time::Instant;

use crate::failure::Failure;
use crate::options::ChangeOptions;

/// For how long a Secret that has changed, or is missing since, is polled at the fast pace: what changed once is often
/// about to change again, and what is missing is about to be created.
const LIVELY: Duration = Duration::from_secs(60);

/// A wait is random between this part of it and all of it.
const LEAST_PART: f64 = 0.9;

/// The pace of one Secret.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Pace {
    /// Until when the fast pace holds.
    lively_until: Option<Instant>,
    wait: Duration,
    failures: u32,
}

impl Pace {
    /// Of a Secret that is there and has not changed lately.
    pub(super) fn calm(options: &ChangeOptions) -> Self {
        Self {
            lively_until: None,
            wait: options.poll_interval,
            failures: 0,
        }
    }

    /// The Secret has changed, or was found missing.
    pub(super) fn quicken(&mut self, options: &ChangeOptions, now: Instant) {
        self.lively_until = Some(now + LIVELY);
        self.wait = options.fast_poll_interval;
    }

    /// The wait before the first poll.
    pub(super) fn first(&self, roll: f64) -> Duration {
        part(self.wait, roll)
    }

    /// The wait after an answer.
    pub(super) fn answered(&mut self, options: &ChangeOptions, now: Instant, roll: f64) -> Duration {
        self.failures = 0;
        let wait = match self.lively_until {
            Some(until) if now < until => options.fast_poll_interval,
            Some(_) | None => self.wait.saturating_mul(2),
        };
        self.wait = wait.clamp(options.fast_poll_interval, options.poll_interval);
        part(self.wait, roll)
    }

    /// The wait after a poll that brought no answer.
    pub(super) fn failed(&mut self, failure: Failure, options: &ChangeOptions, roll: f64) -> Duration {
        let doubled = options.fast_poll_interval.saturating_mul(1 << self.failures.min(16));
        self.failures = self.failures.saturating_add(1);
        let wait = match failure {
            // Passes when somebody changes the rights or the Secret.
            Failure::Forbidden | Failure::NotFound | Failure::TooLarge(_) => options.poll_interval,
            Failure::Unauthorized
            | Failure::Throttled(_)
            | Failure::Malformed(_)
            | Failure::Unavailable(..)
            | Failure::Timeout(_) => doubled.min(options.poll_interval),
        };
        part(wait, roll).max(asked_for(failure).unwrap_or_default())
    }

    /// Other options: no wait is longer than they allow.
    pub(super) fn adjust(&mut self, options: &ChangeOptions) {
        let normal = self.wait.clamp(options.fast_poll_interval, options.poll_interval);
        self.wait = if self.lively_until.is_none() {
            options.poll_interval
        } else {
            normal
        };
    }
}

/// The time in which the API server wants no requests.
pub(super) fn asked_for(failure: Failure) -> Option<Duration> {
    match failure {
        Failure::Throttled(wait) => Some(wait.unwrap_or(Duration::from_secs(1))),
        Failure::Unavailable(_, wait) => wait,
        Failure::NotFound
        | Failure::Forbidden
        | Failure::Unauthorized
        | Failure::TooLarge(_)
        | Failure::Malformed(_)
        | Failure::Timeout(_) => None,
    }
}

fn part(wait: Duration, roll: f64) -> Duration {
    wait.mul_f64(LEAST_PART + (1.0 - LEAST_PART) * roll.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::UnavailableCause;

    fn seconds(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    #[test]
    fn a_calm_secret_is_polled_once_an_interval_about() {
        let options = ChangeOptions::default();
        let mut pace = Pace::calm(&options);
        let now = Instant::now();
        assert_eq!(pace.first(1.0), seconds(60.0));
        for _ in 0..3 {
            assert_eq!(pace.answered(&options, now, 0.0), seconds(54.0));
            assert_eq!(pace.answered(&options, now, 0.5), seconds(57.0));
        }
    }

    #[test]
    fn a_lively_one_is_polled_fast_for_a_minute_and_then_less_and_less() {
        let options = ChangeOptions::default();
        let start = Instant::now();
        let mut pace = Pace::calm(&options);
        pace.quicken(&options, start);
        assert_eq!(pace.first(0.0), seconds(4.5));
        let mut now = start;
        let mut waits = Vec::new();
        for _ in 0..18 {
            let wait = pace.answered(&options, now, 1.0);
            waits.push(wait.as_secs());
            now += wait;
        }
        assert_eq!(waits[..12], [5; 12]);
        assert_eq!(waits[12..], [10, 20, 40, 60, 60, 60]);
        pace.quicken(&options, now);
        assert_eq!(pace.answered(&options, now, 1.0), seconds(5.0));
    }

    #[test]
    fn failures_wait_longer_each_time_and_as_long_as_is_asked_for() {
        let options = ChangeOptions::default();
        let mut pace = Pace::calm(&options);
        let timeout = Failure::Timeout(seconds(10.0));
        let waits: Vec<_> = (0..6).map(|_| pace.failed(timeout, &options, 1.0).as_secs()).collect();
        assert_eq!(waits, [5, 10, 20, 40, 60, 60]);
        pace.answered(&options, Instant::now(), 1.0);
        assert_eq!(pace.failed(timeout, &options, 0.0), seconds(4.5), "an answer ends it");
        let throttled = Failure::Throttled(Some(seconds(30.0)));
        assert_eq!(Pace::calm(&options).failed(throttled, &options, 1.0), seconds(30.0));
        let busy = Failure::Unavailable(UnavailableCause::Status(503), Some(seconds(2.0)));
        assert_eq!(Pace::calm(&options).failed(busy, &options, 1.0), seconds(5.0));
        assert_eq!(
            Pace::calm(&options).failed(Failure::Forbidden, &options, 1.0),
            seconds(60.0)
        );
        assert_eq!(asked_for(Failure::Throttled(None)), Some(seconds(1.0)));
        assert_eq!(asked_for(timeout), None);
    }

    #[test]
    fn other_options_hold_at_once() {
        let mut options = ChangeOptions::default();
        let mut pace = Pace::calm(&options);
        options.poll_interval = seconds(10.0);
        pace.adjust(&options);
        assert_eq!(pace.first(1.0), seconds(10.0));
        pace.quicken(&options, Instant::now());
        options.fast_poll_interval = seconds(8.0);
        pace.adjust(&options);
        assert_eq!(pace.first(1.0), seconds(8.0));
    }
}
