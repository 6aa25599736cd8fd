//! Waiting until a process's memory has come to rest.

use std::{collections::VecDeque, time::Duration};

use testkit::Operator;
use tokio::time::Instant;

pub(in crate::bench) use super::subject::Reading;

/// Memory that changes by no more than this is at rest.
const SWING_KIB: u64 = 64;
const PAUSE: Duration = Duration::from_millis(250);
/// So many samples, or fifteen seconds: jemalloc keeps freed pages for up to ten (`opt.dirty_decay_ms`).
const SAMPLES: usize = 60;
const DEADLINE: Duration = Duration::from_secs(120);

/// What goes up and down by no more than this part of it for a minute does not come to rest: it does as much beside an API
/// server that is at its limit, whose watches end and are begun again.
const SWING_PART: u64 = 20;
const SWINGING: usize = 240;

/// Its memory once that has come to rest: the median of the last fifteen seconds, or, when it has not after two minutes and moves by
/// a little (a twentieth), of the last minute.
///
/// # Errors
///
/// When it still moves by more, or cannot be read.
pub(in crate::bench) async fn settled(process: &Operator) -> Result<Reading, String> {
    after_a_while(process, |window| {
        window.swinging().ok_or_else(|| {
            format!(
                "its memory did not come to rest within {} s: {} to {} KiB at the end",
                DEADLINE.as_secs(),
                window.samples.iter().min().unwrap_or(&0),
                window.most()
            )
        })
    })
    .await
}

/// The same of what may go on working: when it has not come to rest after two minutes, the most of the last minute, which is
/// never less than what it would be at rest.
///
/// # Errors
///
/// When its memory cannot be read.
pub(in crate::bench) async fn settled_or_most(process: &Operator) -> Result<Reading, String> {
    after_a_while(process, |window| Ok(window.swinging().unwrap_or_else(|| window.most()))).await
}

/// Its memory once that has come to rest, and else what is made of the samples after two minutes.
async fn after_a_while(
    process: &Operator,
    otherwise: impl Fn(&Window) -> Result<u64, String>,
) -> Result<Reading, String> {
    let deadline = Instant::now() + DEADLINE;
    let mut window = Window::default();
    loop {
        let memory = process.memory().map_err(|error| error.to_string())?;
        let is_over = Instant::now() >= deadline;
        let resident_kib = match window.add(memory.resident_kib) {
            None if is_over => Some(otherwise(&window)?),
            at_rest => at_rest,
        };
        if let Some(resident_kib) = resident_kib {
            return Ok(Reading {
                settled: mebibytes(resident_kib),
                anonymous: mebibytes(memory.anonymous_kib),
                peak: mebibytes(memory.peak_kib),
            });
        }
        tokio::time::sleep(PAUSE).await;
    }
}

fn mebibytes(kib: u64) -> f64 {
    #[allow(clippy::cast_precision_loss, reason = "no process has 2^53 KiB")]
    let kib = kib as f64;
    kib / 1024.0
}

/// The last samples.
#[derive(Default)]
struct Window {
    samples: VecDeque<u64>,
}

impl Window {
    /// Adds a sample; the median of the last ones once there are enough and they are at rest.
    fn add(&mut self, kib: u64) -> Option<u64> {
        if self.samples.len() == SWINGING {
            self.samples.pop_front();
        }
        self.samples.push_back(kib);
        self.median_of(SAMPLES, |_| SWING_KIB)
    }

    /// The median of more of them, which move by a little.
    fn swinging(&self) -> Option<u64> {
        self.median_of(SWINGING, |greatest| greatest / SWING_PART)
    }

    /// The most of the last ones.
    fn most(&self) -> u64 {
        self.samples.iter().copied().max().unwrap_or_default()
    }

    /// The median of so many samples, if they move by no more than what is allowed for the greatest.
    fn median_of(&self, count: usize, allowed: impl Fn(u64) -> u64) -> Option<u64> {
        let mut sorted: Vec<u64> = self.samples.iter().rev().take(count).copied().collect();
        sorted.sort_unstable();
        let (least, greatest) = (*sorted.first()?, *sorted.last()?);
        (sorted.len() == count && greatest - least <= allowed(greatest)).then(|| sorted[count / 2])
    }
}

#[cfg(test)]
mod tests {
    use super::{SAMPLES, SWING_KIB, SWINGING, Window};

    fn first_rest(samples: impl IntoIterator<Item = u64>) -> Option<(usize, u64)> {
        let mut window = Window::default();
        let mut found = samples.into_iter().map(|sample| window.add(sample)).enumerate();
        found.find_map(|(index, median)| Some((index, median?)))
    }

    #[test]
    fn rest_takes_a_full_window_within_the_swing() {
        assert_eq!(first_rest(vec![100; SAMPLES - 1]), None);
        assert_eq!(first_rest(vec![100; SAMPLES]), Some((SAMPLES - 1, 100)));
        let swinging = (0..).map(|index| 1_000 + (index % 2) * (SWING_KIB + 1));
        assert_eq!(first_rest(swinging.take(200)), None);
        let at_the_limit = (0..).map(|index| 1_000 + (index % 2) * SWING_KIB);
        assert!(first_rest(at_the_limit.take(200)).is_some());
    }

    #[test]
    fn what_goes_on_moving_by_a_little_counts_as_its_median() {
        let window = |samples: Vec<u64>| Window {
            samples: samples.into(),
        };
        let swinging = |least: u64| (0..SWINGING).map(move |index| if index % 9 == 7 { 20_000 } else { least });
        assert_eq!(window(swinging(19_000).collect()).swinging(), Some(19_000));
        assert_eq!(window(swinging(18_999).collect()).swinging(), None);
        assert_eq!(window(swinging(19_000).skip(1).collect()).swinging(), None);
        // A twentieth in fifteen seconds is growth, and not a swing.
        let growing = (0..480).map(|index| 20_000 + index * 1_000 / 60);
        assert_eq!(first_rest(growing.clone()), None);
        let mut grown = Window::default();
        for sample in growing {
            grown.add(sample);
        }
        assert_eq!(grown.swinging(), None);
        assert_eq!(Window::default().swinging(), None);
    }

    #[test]
    fn what_was_before_the_rest_does_not_count() {
        let samples = (0..50).map(|step| 5_000 + step * 100).chain(vec![10_000; 100]);
        assert_eq!(first_rest(samples), Some((50 + SAMPLES - 1, 10_000)));
    }
}
