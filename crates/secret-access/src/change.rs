//! What can happen to a Secret, and how several changes make one. Pure.

/// What happened to a tracked Secret since the subscriber was told last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Change {
    /// It was not there, and is.
    Created,
    /// It is another version of the same Secret.
    Updated,
    /// It is not there any more.
    Deleted,
    /// It was deleted, and there is one of the same name with another uid: immutable Secrets are changed that way.
    Recreated,
}

impl Change {
    /// All changes, in the order of their names.
    pub const ALL: [Self; 4] = [Self::Created, Self::Deleted, Self::Recreated, Self::Updated];

    /// The change in `snake_case`, for a metric's label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Updated => "updated",
            Self::Deleted => "deleted",
            Self::Recreated => "recreated",
        }
    }
}

impl Change {
    /// Both changes as one, as it looks to somebody who saw neither.
    ///
    /// A creation and a deletion make a deletion, not nothing: who reads in between has seen the Secret.
    pub(crate) fn then(self, next: Self) -> Self {
        match (self, next) {
            (_, Self::Deleted) => Self::Deleted,
            // It was there before the first of the two, and is another one now.
            (Self::Deleted, _)
            | (Self::Updated, Self::Created | Self::Recreated)
            | (Self::Recreated, Self::Created | Self::Updated | Self::Recreated) => Self::Recreated,
            (Self::Created, _) => Self::Created,
            (Self::Updated, Self::Updated) => Self::Updated,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_are_those_of_the_documentation() {
        let names = Change::ALL.map(Change::as_str);
        assert_eq!(names, ["created", "deleted", "recreated", "updated"]);
    }

    #[test]
    fn changes_of_one_secret_become_one() {
        use Change::{Created, Deleted, Recreated, Updated};
        for (first, second, both) in [
            (Created, Updated, Created),
            (Created, Deleted, Deleted),
            (Created, Recreated, Created),
            (Updated, Updated, Updated),
            (Updated, Deleted, Deleted),
            (Updated, Recreated, Recreated),
            (Deleted, Created, Recreated),
            (Recreated, Updated, Recreated),
            (Recreated, Deleted, Deleted),
            (Recreated, Recreated, Recreated),
        ] {
            assert_eq!(first.then(second), both, "{first:?}, {second:?}");
        }
    }

    proptest! {
        /// A Secret is absent or has an incarnation and a version; whatever happens to it, the merged change says what
        /// differs between the beginning and the end.
        #[test]
        fn a_merged_change_is_the_difference(there in any::<bool>(), steps in prop::collection::vec(0..3_u8, 1..12)) {
            let mut next = 2_u32;
            let first = there.then_some((1_u32, 1_u32));
            let mut now = first;
            let mut merged: Option<Change> = None;
            for step in steps {
                let change = match (now, step) {
                    (Some((uid, version)), 0) => {
                        now = Some((uid, version + 1));
                        Change::Updated
                    }
                    (Some(_), 1) => {
                        now = None;
                        Change::Deleted
                    }
                    (before, _) => {
                        now = Some((next, 1));
                        next += 1;
                        if before.is_some() { Change::Recreated } else { Change::Created }
                    }
                };
                merged = Some(merged.map_or(change, |merged| merged.then(change)));
            }
            let expected = match (first, now) {
                (_, None) => Change::Deleted,
                (None, Some(_)) => Change::Created,
                (Some((before, _)), Some((after, _))) if before == after => Change::Updated,
                (Some(_), Some(_)) => Change::Recreated,
            };
            // Absent before, seen and gone meanwhile: whoever read in between has to know that it is another one.
            let merged = merged.expect("there was a step");
            prop_assert!(merged == expected || (merged == Change::Recreated && expected == Change::Created));
        }
    }
}
