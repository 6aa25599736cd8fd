//! Times of single operations, and a thread to take them on.

use std::{
    fs, io,
    time::{Duration, Instant},
};

use crate::Failure;

/// Does `work` in a runtime of one thread, as the operator has it, on a thread that does nothing else.
pub(super) async fn alone<T, F>(work: impl FnOnce() -> F + Send + 'static) -> Result<T, Failure>
where
    F: Future<Output = Result<T, Failure>>,
    T: Send + 'static,
{
    let done = tokio::task::spawn_blocking(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(work())
    });
    done.await.map_err(io::Error::other)?
}

/// Times in nanoseconds.
#[derive(Default)]
pub(super) struct Times(Vec<f64>);

impl Times {
    pub(super) fn with_capacity(count: usize) -> Self {
        Self(Vec::with_capacity(count))
    }

    pub(super) fn add(&mut self, time: Duration) {
        self.0.push(nanoseconds(time));
    }

    /// What at least this share of all times do not exceed; `None` when there are none.
    pub(super) fn percentile(&mut self, percent: usize) -> Option<f64> {
        self.0.sort_unstable_by(f64::total_cmp);
        let rank = (self.0.len() * percent).div_ceil(100).max(1);
        self.0.get(rank - 1).copied()
    }

    /// [`percentile`](Self::percentile), where a measurement without times has failed.
    pub(super) fn measured(&mut self, percent: usize) -> Result<f64, Failure> {
        Ok(self.percentile(percent).ok_or_else(|| io::Error::other("no times"))?)
    }
}

#[allow(clippy::cast_precision_loss, reason = "2^53 ns are a hundred days")]
pub(super) fn nanoseconds(time: Duration) -> f64 {
    time.as_nanos() as f64
}

/// What two readings of the clock, one after the other, are apart: half of them at most this much, in nanoseconds.
pub(super) fn clock() -> Result<f64, Failure> {
    const PAIRS: usize = 100_000;
    let mut times = Times::with_capacity(PAIRS);
    for _ in 0..PAIRS {
        let began = Instant::now();
        times.add(began.elapsed());
    }
    times.measured(50)
}

/// The time that the calling thread was on a processor, as the kernel's scheduler counts it.
pub(super) fn thread_cpu() -> io::Result<Duration> {
    let path = "/proc/thread-self/schedstat";
    let text = fs::read_to_string(path)?;
    let time = text.split(' ').next().and_then(|time| time.parse().ok());
    time.map(Duration::from_nanos)
        .ok_or_else(|| io::Error::other(format!("{path} is not as expected")))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Times, clock, thread_cpu};

    #[test]
    fn percentiles_are_values_that_were_there() {
        let mut times = Times::default();
        assert_eq!(times.percentile(50), None);
        for nanoseconds in (1..=200).rev() {
            times.add(Duration::from_nanos(nanoseconds));
        }
        for (percent, expected) in [(0, 1.0), (1, 2.0), (50, 100.0), (99, 198.0), (100, 200.0)] {
            assert_eq!(times.percentile(percent), Some(expected), "{percent}");
        }
    }

    #[test]
    fn clocks_run() {
        assert!(clock().expect("times") > 0.0);
        let before = thread_cpu().expect("Linux has it");
        let mut sum = 0_u64;
        let after = loop {
            sum = std::hint::black_box(sum + 1);
            let now = thread_cpu().expect("Linux has it");
            if now > before {
                break now;
            }
        };
        assert!(after > before);
    }
}
