//! When memory will be gone, if use goes on as it did.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// Use over the last minutes, in a bounded number of samples.
///
/// The trend is the median of the slopes between all pairs of samples (the estimator of Theil and Sen): it stays what it is
/// while up to 29 % of the samples are off, as a burst or a purge makes them.
#[derive(Clone, Debug, Default)]
pub struct Projection {
    samples: VecDeque<(Instant, u64)>,
    slope: Option<f64>,
}

impl Projection {
    /// Samples are at least this far apart.
    pub const SPACING: Duration = Duration::from_secs(10);

    /// The most samples that are kept: ten minutes.
    pub const MOST: usize = 60;

    /// Fewer samples are no trend.
    pub const LEAST: usize = 6;

    /// What would last longer counts as lasting for ever.
    pub const FARTHEST: Duration = Duration::from_secs(30 * 24 * 3600);

    /// Takes a sample, unless it comes too soon after the last one.
    pub fn record(&mut self, now: Instant, used_bytes: u64) {
        let due = self
            .samples
            .back()
            .is_none_or(|(last, _)| now.saturating_duration_since(*last) >= Self::SPACING);
        if !due {
            return;
        }
        while self.samples.len() >= Self::MOST {
            self.samples.pop_front();
        }
        self.samples.push_back((now, used_bytes));
        self.slope = self.estimate();
    }

    /// Forgets what was, because it says nothing about what comes.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// Bytes by which use grows in a second; negative where it falls. `None` while there are too few samples.
    #[must_use]
    pub fn slope(&self) -> Option<f64> {
        self.slope
    }

    fn estimate(&self) -> Option<f64> {
        let points = self.points();
        if points.len() < Self::LEAST {
            return None;
        }
        let mut slopes = Vec::with_capacity(points.len() * (points.len() - 1) / 2);
        for (index, (at, used)) in points.iter().enumerate() {
            slopes.extend(
                points[index + 1..]
                    .iter()
                    .map(|(later, then)| (then - used) / (later - at)),
            );
        }
        Some(median(slopes))
    }

    /// In how long `headroom_bytes` will be used up; `None` where use does not grow, or so slowly that it takes longer than
    /// [`Projection::FARTHEST`].
    #[must_use]
    pub fn gone_in(&self, headroom_bytes: u64) -> Option<Duration> {
        let slope = self.slope().filter(|slope| *slope > 0.0)?;
        #[allow(clippy::cast_precision_loss, reason = "a millionth of a byte more or less")]
        let seconds = headroom_bytes as f64 / slope;
        (seconds <= Self::FARTHEST.as_secs_f64()).then(|| Duration::from_secs_f64(seconds))
    }

    /// Seconds since the first sample, and bytes.
    fn points(&self) -> Vec<(f64, f64)> {
        let Some((first, _)) = self.samples.front() else {
            return Vec::new();
        };
        let point = |(at, used): &(Instant, u64)| {
            #[allow(clippy::cast_precision_loss, reason = "far fewer than 2^53 bytes are used")]
            let used = *used as f64;
            (at.saturating_duration_since(*first).as_secs_f64(), used)
        };
        self.samples.iter().map(point).collect()
    }
}

/// Of at least one number.
fn median(mut numbers: Vec<f64>) -> f64 {
    let count = numbers.len();
    let (below, upper, _) = numbers.select_nth_unstable_by(count / 2, f64::total_cmp);
    if count % 2 == 1 {
        return *upper;
    }
    let lower = below.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    f64::midpoint(lower, *upper)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn projection(used: impl IntoIterator<Item = u64>) -> Projection {
        let start = Instant::now();
        let mut projection = Projection::default();
        for (number, used) in (0_u32..).zip(used) {
            projection.record(start + number * Projection::SPACING, used);
        }
        projection
    }

    #[test]
    fn steady_growth_ends_when_headroom_is_used_up() {
        let growing = projection((0..20).map(|number| 1_000_000 + number * 10_000));
        assert_eq!(growing.slope(), Some(1000.0));
        assert_eq!(growing.gone_in(60_000), Some(Duration::from_secs(60)));
        assert_eq!(growing.gone_in(0), Some(Duration::ZERO));
        assert_eq!(growing.gone_in(u64::MAX), None, "that lasts for ever");
    }

    #[test]
    fn what_does_not_grow_lasts() {
        assert_eq!(projection([5; 30]).gone_in(100), None);
        assert_eq!(projection((0..30).rev()).gone_in(100), None);
        assert_eq!(projection([]).gone_in(100), None);
        assert_eq!(projection(0..5).slope(), None, "too few");
    }

    #[test]
    fn samples_come_at_a_pace_and_are_forgotten() {
        let start = Instant::now();
        let mut projection = Projection::default();
        for tenth in 0..100_u32 {
            projection.record(start + tenth * Duration::from_millis(100), 7);
        }
        assert_eq!(projection.samples.len(), 1);
        projection.record(start + Projection::SPACING, 7);
        projection.record(start, 7);
        assert_eq!(projection.samples.len(), 2, "time does not go back");
        projection.clear();
        assert_eq!(projection.slope(), None);
    }

    #[test]
    fn medians() {
        for (numbers, expected) in [
            (vec![3.0], 3.0),
            (vec![3.0, 1.0], 2.0),
            (vec![9.0, 1.0, 2.0], 2.0),
            (vec![4.0, 1.0, 3.0, 2.0], 2.5),
        ] {
            assert!((median(numbers.clone()) - expected).abs() < 1e-12, "{numbers:?}");
        }
    }

    proptest! {
        /// However many samples come, memory is bounded and the latest are known.
        #[test]
        fn bounded(used in prop::collection::vec(0_u64..1_000_000, 0..300)) {
            let projection = projection(used.iter().copied());
            prop_assert!(projection.samples.len() <= Projection::MOST);
            prop_assert_eq!(projection.samples.back().map(|(_, used)| *used), used.last().copied());
        }

        /// A quarter of the samples may be anything.
        #[test]
        fn outliers_do_not_bend_the_trend(
            rate in 1_u32..1000, start in 1_000_000_u64..2_000_000,
            spikes in prop::collection::btree_map(0_usize..60, 0_u64..1_000_000_000, 0..15),
        ) {
            let used = (0..60_usize).map(|number| {
                spikes.get(&number).copied().unwrap_or(start + 10 * u64::from(rate) * number as u64)
            });
            let slope = projection(used).slope().expect("enough samples");
            let rate = f64::from(rate);
            // All pairs without a spike agree exactly: at least (45 choose 2) of (60 choose 2), more than half.
            prop_assert!((slope - rate).abs() < 1e-6, "{slope} instead of {rate}");
        }

        /// The trend does not depend on how much is used, only on how that changes.
        #[test]
        fn shifting_changes_nothing(used in prop::collection::vec(0_u64..1_000_000, 6..60), more in 0_u64..1_000_000) {
            let before = projection(used.iter().copied()).slope().expect("enough samples");
            let after = projection(used.iter().map(|used| used + more)).slope().expect("enough samples");
            prop_assert!((before - after).abs() < 1e-6);
        }
    }
}
