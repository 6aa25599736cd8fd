//! Pure: from a reading to a level.

use thiserror::Error;

use crate::reading::Reading;

/// How short memory is. Ordered: what is greater is worse.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// There is enough.
    #[default]
    Normal,
    /// Make do with less: smaller caches, fewer things at a time.
    Shrink,
    /// Drop what can be had again, give pages back to the system, do one thing at a time.
    Purge,
    /// As [`Level::Purge`], and take nothing big any more.
    Refuse,
}

impl Level {
    /// All levels, from the best to the worst.
    pub const ALL: [Self; 4] = [Self::Normal, Self::Shrink, Self::Purge, Self::Refuse];

    /// In `snake_case`, for logs and labels.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "normal",
            Self::Shrink => "shrink",
            Self::Purge => "purge",
            Self::Refuse => "refuse",
        }
    }
}

/// At which part of the limit each level begins, in percent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Thresholds {
    shrink: u8,
    purge: u8,
    refuse: u8,
}

/// Thresholds that are no ascending percentages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the thresholds {shrink}, {purge}, {refuse} must ascend, from {least} at least to {most} at most", least = Thresholds::LEAST, most = Thresholds::MOST)]
pub struct InvalidThresholds {
    shrink: u8,
    purge: u8,
    refuse: u8,
}

impl Default for Thresholds {
    /// 70, 85 and 92 %.
    fn default() -> Self {
        Self {
            shrink: 70,
            purge: 85,
            refuse: 92,
        }
    }
}

impl Thresholds {
    /// A level is left when use is this many points below its threshold: more than one caches' worth of noise, less than
    /// what a purge brings.
    pub const HYSTERESIS: u8 = 5;

    /// The lowest threshold.
    pub const LEAST: u8 = 10;

    /// The highest threshold: at 100 % the kernel kills.
    pub const MOST: u8 = 99;

    /// From this percentage of time lost, the next level is taken, though not [`Level::Refuse`].
    const STALLED: f64 = 10.0;

    /// Until that percentage has fallen below this.
    const STALLED_NO_MORE: f64 = 5.0;

    /// Thresholds in percent of the limit.
    ///
    /// # Errors
    ///
    /// They do not ascend, or are out of range.
    pub fn new(shrink: u8, purge: u8, refuse: u8) -> Result<Self, InvalidThresholds> {
        if Self::LEAST <= shrink && shrink < purge && purge < refuse && refuse <= Self::MOST {
            Ok(Self { shrink, purge, refuse })
        } else {
            Err(InvalidThresholds { shrink, purge, refuse })
        }
    }

    /// The percentage at which a level begins.
    #[must_use]
    pub fn percent(&self, level: Level) -> u8 {
        match level {
            Level::Normal => 0,
            Level::Shrink => self.shrink,
            Level::Purge => self.purge,
            Level::Refuse => self.refuse,
        }
    }

    /// The level after `former`, with this reading. Without a limit it is always [`Level::Normal`].
    ///
    /// It rises to the highest level whose threshold is reached, and falls to the highest level that was not left: one is
    /// left [`Thresholds::HYSTERESIS`] points below its threshold. Where use is beyond a threshold and tasks lose more than
    /// a tenth of their time waiting for memory, the level is one higher, up to [`Level::Purge`]: the kernel is busy taking
    /// back pages that are needed again at once.
    #[must_use]
    pub fn level(&self, reading: &Reading, former: Level) -> Level {
        let Some(limit) = reading.limit_bytes else {
            return Level::Normal;
        };
        let reached = |percent: u8| u128::from(reading.used_bytes) * 100 >= u128::from(limit) * u128::from(percent);
        let highest = |lowered: u8| {
            let levels = Level::ALL.into_iter().rev();
            levels
                .filter(|level| reached(self.percent(*level).saturating_sub(lowered)))
                .max()
                .unwrap_or_default()
        };
        let entered = highest(0);
        // Not left yet, as far as it was entered at all.
        let by_use = entered.max(former.min(highest(Self::HYSTERESIS)));
        let bar = if former > by_use {
            Self::STALLED_NO_MORE
        } else {
            Self::STALLED
        };
        let stalled = reading.stall.is_some_and(|stall| stall.some_percent >= bar);
        match by_use {
            Level::Shrink if stalled => Level::Purge,
            by_use => by_use,
        }
    }

    /// Bytes that can be used before [`Level::Purge`] begins; `u64::MAX` where there is no limit.
    #[must_use]
    pub fn room_bytes(&self, reading: &Reading) -> u64 {
        let Some(limit) = reading.limit_bytes else {
            return u64::MAX;
        };
        let purge = self.next_threshold_bytes(Level::Shrink, limit).unwrap_or(limit);
        purge.saturating_sub(reading.used_bytes)
    }

    /// Bytes of the limit at which the level above this one begins; `None` above the highest.
    #[must_use]
    pub fn next_threshold_bytes(&self, level: Level, limit_bytes: u64) -> Option<u64> {
        let next = Level::ALL.into_iter().find(|other| *other > level)?;
        let bytes = u128::from(limit_bytes) * u128::from(self.percent(next)) / 100;
        Some(u64::try_from(bytes).unwrap_or(limit_bytes))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::{psi::Stall, reading::Origin};

    fn reading(used: u64, limit: Option<u64>, stalled: f64) -> Reading {
        Reading {
            used_bytes: used,
            limit_bytes: limit,
            origin: Origin::CgroupV2,
            stall: Some(Stall {
                some_percent: stalled,
                full_percent: 0.0,
                some_total: Duration::ZERO,
                full_total: Duration::ZERO,
            }),
        }
    }

    #[test]
    fn up_at_once_and_down_after_some_points() {
        use Level::{Normal, Purge, Refuse, Shrink};
        let thresholds = Thresholds::default();
        for (former, used, expected) in [
            (Normal, 0, Normal),
            (Normal, 69, Normal),
            (Normal, 70, Shrink),
            (Normal, 85, Purge),
            (Normal, 92, Refuse),
            (Normal, 150, Refuse),
            (Shrink, 66, Shrink),
            (Shrink, 65, Shrink),
            (Shrink, 64, Normal),
            (Purge, 81, Purge),
            (Purge, 80, Purge),
            (Purge, 79, Shrink),
            (Purge, 66, Shrink),
            (Purge, 10, Normal),
            (Refuse, 88, Refuse),
            (Refuse, 87, Refuse),
            (Refuse, 86, Purge),
            (Refuse, 80, Purge),
            (Refuse, 64, Normal),
        ] {
            let level = thresholds.level(&reading(used, Some(100), 0.0), former);
            assert_eq!(level, expected, "{used} % after {former:?}");
        }
        assert_eq!(thresholds.level(&reading(500, None, 50.0), Refuse), Normal, "no limit");
        assert_eq!(
            thresholds.level(&reading(u64::MAX, Some(u64::MAX), 0.0), Normal),
            Refuse
        );
        assert_eq!(
            thresholds.level(&reading(0, Some(0), 0.0), Normal),
            Refuse,
            "nothing is allowed"
        );
    }

    #[test]
    fn time_lost_makes_it_worse_where_use_is_high_already() {
        use Level::{Normal, Purge, Refuse, Shrink};
        let thresholds = Thresholds::default();
        for (former, used, stalled, expected) in [
            (Normal, 50, 90.0, Normal),
            (Normal, 72, 9.9, Shrink),
            (Normal, 72, 10.0, Purge),
            (Shrink, 72, 7.0, Shrink),
            (Purge, 72, 7.0, Purge),
            (Purge, 72, 4.0, Shrink),
            (Purge, 50, 90.0, Normal),
            (Normal, 86, 90.0, Purge),
            (Normal, 93, 0.0, Refuse),
        ] {
            let level = thresholds.level(&reading(used, Some(100), stalled), former);
            assert_eq!(level, expected, "{used} %, {stalled} % stalled, after {former:?}");
        }
    }

    #[test]
    fn thresholds_must_ascend_within_bounds() {
        assert!(Thresholds::new(70, 85, 92).is_ok_and(|made| made == Thresholds::default()));
        assert!(Thresholds::new(10, 11, 12).is_ok() && Thresholds::new(97, 98, 99).is_ok());
        for (shrink, purge, refuse) in [(9, 50, 60), (50, 50, 60), (50, 60, 60), (60, 50, 70), (80, 90, 100)] {
            let error = Thresholds::new(shrink, purge, refuse).expect_err("out of range");
            assert!(
                error.to_string().contains("must ascend, from 10 at least to 99"),
                "{error}"
            );
        }
    }

    #[test]
    fn the_next_threshold_in_bytes() {
        let thresholds = Thresholds::default();
        assert_eq!(thresholds.next_threshold_bytes(Level::Normal, 1000), Some(700));
        assert_eq!(thresholds.next_threshold_bytes(Level::Purge, 1000), Some(920));
        assert_eq!(thresholds.next_threshold_bytes(Level::Refuse, 1000), None);
        let huge = thresholds.next_threshold_bytes(Level::Normal, u64::MAX);
        assert!(huge.is_some_and(|bytes| bytes > u64::MAX / 2 && bytes < u64::MAX));
    }

    prop_compose! {
        fn thresholds()(shrink in 10_u8..90, purge in 1_u8..5, refuse in 1_u8..5) -> Thresholds {
            Thresholds::new(shrink, shrink + purge, shrink + purge + refuse).expect("ascending")
        }
    }

    proptest! {
        /// The level is never lower than use demands, and never higher than it was allowed to stay.
        #[test]
        fn between_what_is_entered_and_what_is_left(
            thresholds in thresholds(), used in 0_u64..2000, former in prop::sample::select(Level::ALL.to_vec()),
        ) {
            let level = thresholds.level(&reading(used, Some(1000), 0.0), former);
            for other in Level::ALL {
                let threshold = u64::from(thresholds.percent(other)) * 10;
                if used >= threshold {
                    prop_assert!(level >= other);
                }
                if level == other && used < threshold {
                    prop_assert!(former >= other, "entered below its threshold");
                    prop_assert!(used + 10 * u64::from(Thresholds::HYSTERESIS) >= threshold, "kept too long");
                }
            }
        }

        /// Wobbling by less than the hysteresis around any use lets the level settle and never fall.
        #[test]
        fn noise_does_not_make_it_flap(
            thresholds in thresholds(), centre in 0_u64..1000, noise in prop::collection::vec(0_u64..50, 2..60),
        ) {
            let mut level = Level::Normal;
            for wobble in noise {
                let next = thresholds.level(&reading(centre + wobble, Some(1000), 0.0), level);
                prop_assert!(next >= level, "it only settles upwards");
                level = next;
            }
        }

        /// More use is never a lower level.
        #[test]
        fn monotonous(thresholds in thresholds(), used in 0_u64..1000, more in 0_u64..1000,
            former in prop::sample::select(Level::ALL.to_vec()), stalled in 0.0_f64..100.0) {
            let lower = thresholds.level(&reading(used, Some(1000), stalled), former);
            let higher = thresholds.level(&reading(used + more, Some(1000), stalled), former);
            prop_assert!(lower <= higher);
        }
    }
}
