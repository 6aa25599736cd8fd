//! Repairs of what others have changed, counted: two who undo each other's work must not do so for ever.

use std::{collections::HashMap, time::Duration};

use tokio::time::Instant;

use crate::backoff::Doubling;

/// Repairs of one policy within the window after which it is a fight.
const FIGHT: usize = 5;
const WINDOW: Duration = Duration::from_secs(600);

/// Between repairs during a fight.
const PAUSE: Doubling = Doubling {
    first: Duration::from_secs(60),
    most: Duration::from_secs(300),
};

/// Passes that may begin anew after a repair without finding anything to repair: our own writes may look like somebody else's
/// when a watch shows them before they are answered, and changes that need no repair must not keep a pass from its end.
const BEGIN_ANEW: u8 = 3;

/// How many policies are kept count of. With more at a time the oldest counts are given up: their repairs are more frequent, and
/// what is changed again waits for the end of a pass.
const MOST: usize = 256;

/// The repairs of the last minutes, by policy.
#[derive(Default)]
pub(super) struct Repairs(HashMap<Box<str>, Count>);

#[derive(Default)]
struct Count {
    /// The latest ones, oldest first.
    at: Vec<Instant>,
    /// How often a repair had to wait in a row.
    pauses: u32,
    /// No repair before.
    not_before: Option<Instant>,
    /// How many passes have begun anew since the last repair.
    anew: u8,
}

/// What is to be done about a difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Put it back.
    Repair,
    /// Put it back for the last time in a while.
    RepairAndPause,
    /// Leave it until then.
    Wait(Duration),
}

impl Repairs {
    /// A policy's objects are not what they should be, although it did not change.
    pub(super) fn found(&mut self, policy: &str, now: Instant) -> Verdict {
        if !self.0.contains_key(policy) && self.0.len() >= MOST {
            self.make_room(now);
        }
        let count = self.0.entry(policy.into()).or_default();
        if let Some(wait) = count.not_before.and_then(|at| at.checked_duration_since(now))
            && !wait.is_zero()
        {
            return Verdict::Wait(wait);
        }
        count.at.retain(|at| now.saturating_duration_since(*at) < WINDOW);
        if count.at.is_empty() {
            (count.pauses, count.not_before) = (0, None);
        }
        count.at.push(now);
        count.anew = 0;
        if count.at.len() < FIGHT && count.pauses == 0 {
            return Verdict::Repair;
        }
        count.at.drain(..count.at.len().saturating_sub(FIGHT - 1));
        count.not_before = Some(now + PAUSE.delay(count.pauses, fastrand::f64()));
        count.pauses = count.pauses.saturating_add(1);
        Verdict::RepairAndPause
    }

    /// Whether a pass over a policy that was repaired before may end before what it waits for, because something has changed again.
    pub(super) fn may_begin_anew(&self, policy: &str) -> bool {
        self.0.get(policy).is_some_and(|count| count.anew < BEGIN_ANEW)
    }

    /// Such a pass has ended.
    pub(super) fn begins_anew(&mut self, policy: &str) {
        if let Some(count) = self.0.get_mut(policy) {
            count.anew = count.anew.saturating_add(1);
        }
    }

    /// How often a policy was repaired lately and how long it counts as fought over at the least, if it does.
    pub(super) fn contested(&self, policy: &str, now: Instant) -> Option<(u32, Duration)> {
        let count = self.0.get(policy)?;
        count.not_before?;
        let last = count.at.last()?;
        let over = (*last + WINDOW).checked_duration_since(now)?;
        let repairs = u32::try_from(count.at.len()).unwrap_or(u32::MAX);
        (!over.is_zero()).then_some((repairs.saturating_add(1), over))
    }

    /// Whether any policy is fought over.
    pub(super) fn is_any_contested(&self, now: Instant) -> bool {
        self.0.keys().any(|policy| self.contested(policy, now).is_some())
    }

    /// The policy is gone, or means something else now.
    pub(super) fn forget(&mut self, policy: &str) {
        self.0.remove(policy);
    }

    fn make_room(&mut self, now: Instant) {
        self.0.retain(|_, count| {
            let last = count.at.last();
            last.is_some_and(|at| now.saturating_duration_since(*at) < WINDOW)
        });
        while self.0.len() >= MOST {
            let oldest = self.0.iter().min_by_key(|(_, count)| count.at.last().copied());
            let Some(oldest) = oldest.map(|(name, _)| name.clone()) else {
                return;
            };
            self.0.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn the_fifth_repair_in_ten_minutes_is_a_fight_and_backs_off() {
        let start = Instant::now();
        let mut repairs = Repairs::default();
        for number in 0..4 {
            assert_eq!(repairs.found("a", start + number * SECOND), Verdict::Repair);
            assert_eq!(repairs.contested("a", start), None);
        }
        let fifth = start + 5 * SECOND;
        assert_eq!(repairs.found("a", fifth), Verdict::RepairAndPause);
        assert!(repairs.contested("a", fifth).is_some());
        let Verdict::Wait(first) = repairs.found("a", fifth + SECOND) else {
            panic!("it has to wait");
        };
        assert!(first < PAUSE.first);
        let sixth = fifth + PAUSE.first;
        assert_eq!(repairs.found("a", sixth), Verdict::RepairAndPause, "it goes on, slowly");
        let Verdict::Wait(second) = repairs.found("a", sixth) else {
            panic!("it has to wait");
        };
        assert!(second >= PAUSE.first, "longer each time");
        assert_eq!(repairs.found("b", sixth), Verdict::Repair, "others are not concerned");
    }

    #[test]
    fn a_repair_lets_few_passes_begin_anew() {
        let start = Instant::now();
        let mut repairs = Repairs::default();
        repairs.begins_anew("a");
        assert!(!repairs.may_begin_anew("a"), "nothing was repaired");
        for number in 0..2 {
            repairs.found("a", start + number * SECOND);
            for _ in 0..BEGIN_ANEW {
                assert!(repairs.may_begin_anew("a"));
                repairs.begins_anew("a");
            }
            assert!(!repairs.may_begin_anew("a"), "it has to come to its end");
        }
    }

    #[test]
    fn peace_returns_after_ten_quiet_minutes() {
        let start = Instant::now();
        let mut repairs = Repairs::default();
        for _ in 0..5 {
            repairs.found("a", start);
        }
        assert!(repairs.contested("a", start + WINDOW - SECOND).is_some());
        assert_eq!(repairs.contested("a", start + WINDOW), None);
        assert_eq!(repairs.found("a", start + WINDOW), Verdict::Repair);
        assert_eq!(repairs.contested("a", start + WINDOW), None);
    }

    #[test]
    fn the_number_kept_count_of_is_bounded() {
        let start = Instant::now();
        let mut repairs = Repairs::default();
        for number in 0..3 * MOST {
            repairs.found(
                &number.to_string(),
                start + SECOND * u32::try_from(number % 7).expect("small"),
            );
            assert!(repairs.0.len() <= MOST);
        }
        repairs.forget("0");
    }
}
