//! Amounts, and bounds on them.

/// How much of something: what is held, or what may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Load {
    pub(crate) entries: usize,
    pub(crate) weight: usize,
}

/// What there was too much of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bound {
    Entries,
    Weight,
}

impl Load {
    fn of(self, bound: Bound) -> usize {
        match bound {
            Bound::Entries => self.entries,
            Bound::Weight => self.weight,
        }
    }

    pub(crate) fn add(&mut self, entries: usize, weight: usize) {
        self.entries += entries;
        self.weight += weight;
    }

    pub(crate) fn subtract(&mut self, entries: usize, weight: usize) {
        self.entries -= entries;
        self.weight -= weight;
    }

    /// Which of two bounds it is beyond, the entries first.
    pub(crate) fn beyond(self, bounds: Self) -> Option<Bound> {
        [Bound::Entries, Bound::Weight]
            .into_iter()
            .find(|bound| self.of(*bound) > bounds.of(*bound))
    }
}

/// The part of a bound that one of so many groups has.
pub(crate) struct Share {
    pub(crate) bound: Bound,
    pub(crate) bounds: Load,
    pub(crate) groups: usize,
}

impl Share {
    pub(crate) fn exceeded_by(&self, load: Load) -> bool {
        load.of(self.bound).saturating_mul(self.groups) > self.bounds.of(self.bound)
    }
}
