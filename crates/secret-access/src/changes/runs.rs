//! Which of a row of numbered slots are taken.

use std::collections::BTreeMap;

/// A set of slots, kept as runs of neighbours, so that a free one is found without walking over those that are taken.
#[derive(Debug, Default)]
pub(super) struct Runs {
    /// The first and the last slot of each run. Two runs never touch.
    last_by_first: BTreeMap<u64, u64>,
}

impl Runs {
    /// The greatest free slot that is at most `slot`; `None` when all of them down to 0 are taken.
    pub(super) fn free_at_most(&self, slot: u64) -> Option<u64> {
        match self.run_at(slot) {
            Some((first, _)) => first.checked_sub(1),
            None => Some(slot),
        }
    }

    /// Takes a free slot.
    pub(super) fn take(&mut self, slot: u64) {
        debug_assert!(self.run_at(slot).is_none(), "slot {slot} is free");
        let mut run = (slot, slot);
        if let Some(before) = slot.checked_sub(1)
            && let Some((first, _)) = self.run_at(before)
        {
            self.last_by_first.remove(&first);
            run.0 = first;
        }
        if let Some(last) = self.last_by_first.remove(&(slot + 1)) {
            run.1 = last;
        }
        self.last_by_first.insert(run.0, run.1);
    }

    /// Gives a taken slot back.
    pub(super) fn give_back(&mut self, slot: u64) {
        let Some((first, last)) = self.run_at(slot) else {
            return;
        };
        self.last_by_first.remove(&first);
        if first < slot {
            self.last_by_first.insert(first, slot - 1);
        }
        if slot < last {
            self.last_by_first.insert(slot + 1, last);
        }
    }

    /// The run that `slot` is part of.
    fn run_at(&self, slot: u64) -> Option<(u64, u64)> {
        let (first, last) = self.last_by_first.range(..=slot).next_back()?;
        (slot <= *last).then_some((*first, *last))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn is_a_set_of_slots(steps in prop::collection::vec((any::<bool>(), 0_u64..24), 0..200)) {
            let mut runs = Runs::default();
            let mut model = BTreeSet::new();
            for (take, slot) in steps {
                if take && model.insert(slot) {
                    runs.take(slot);
                } else if !take {
                    model.remove(&slot);
                    runs.give_back(slot);
                }
                for slot in 0..26 {
                    let free = (0..=slot).rev().find(|slot| !model.contains(slot));
                    prop_assert_eq!(runs.free_at_most(slot), free);
                }
                let count = model.iter().filter(|slot| **slot == 0 || !model.contains(&(**slot - 1))).count();
                prop_assert_eq!(runs.last_by_first.len(), count, "neighbours are one run");
            }
        }
    }
}
