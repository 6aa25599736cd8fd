//! The clock leases are measured with.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// A clock that never goes back and does not stop while the machine sleeps. Only differences of its readings mean anything.
///
/// `std::time::Instant` stands still on Linux while the machine is suspended, and a lease does not.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock(fn() -> Duration);

impl Clock {
    /// The machine's: time since it was started.
    pub(crate) const fn boot() -> Self {
        Self(|| {
            let time = clock_gettime(ClockId::Boottime);
            let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
            let nanoseconds = u32::try_from(time.tv_nsec).unwrap_or_default();
            Duration::new(seconds, nanoseconds)
        })
    }

    /// The runtime's, which tests can stop.
    #[cfg(test)]
    pub(crate) const fn of_the_runtime() -> Self {
        use std::{sync::OnceLock, time::Instant};
        static START: OnceLock<Instant> = OnceLock::new();
        Self(|| {
            let now = tokio::time::Instant::now().into_std();
            let start = *START.get_or_init(|| now.checked_sub(Duration::from_secs(1)).unwrap_or(now));
            now.saturating_duration_since(start)
        })
    }

    pub(crate) fn now(self) -> Duration {
        (self.0)()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machines_clock_runs() {
        let before = Clock::boot().now();
        assert!(before > Duration::ZERO);
        assert!(Clock::boot().now() >= before);
    }
}
