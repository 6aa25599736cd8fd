//! What a reader asks for beside the name: how fresh, by when, and which fields.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use crate::snapshot::ResourceVersion;

/// Beyond this many names it is cheaper to copy all than to look each one up.
const MOST_NAMES: usize = 64;

/// How one read wants its answer. The default is what the mode promises, with the mode's deadline and all fields.
///
/// ```
/// use std::time::Duration;
/// use kube_secret_access::{Freshness, Want};
///
/// let want = Want::at_most(Duration::from_secs(5)).within(Duration::from_secs(1)).keys(["tls.crt", "tls.key"]);
/// assert_eq!(want.freshness(), Freshness::AtMost(Duration::from_secs(5)));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[must_use]
pub struct Want {
    freshness: Freshness,
    deadline: Option<Duration>,
    fields: Fields,
}

/// How fresh an answer has to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Freshness {
    /// As fresh as the mode promises: see [`Mode`](crate::Mode).
    #[default]
    Mode,
    /// Current at some moment after the read began. For a Secret already held, a quorum read of its metadata proves that;
    /// the content is fetched only if it moved.
    Quorum,
    /// At least this `resourceVersion`, such as one seen in an event or read elsewhere. Answered by a held copy that is new
    /// enough, or by `GET ?resourceVersion=...`, which the API server serves from its watch cache without asking etcd. If it
    /// does not reach that version in time, as after restoring a cluster from a backup, a quorum is asked and believed. Says
    /// nothing about how old the answer is, so [`SecretSnapshot::validated_at`](crate::SecretSnapshot::validated_at) may be
    /// `None`.
    AtLeast(ResourceVersion),
    /// Current at some moment within this time before the read began, or after. A held copy that is older is revalidated by
    /// a quorum read, as for [`Freshness::Quorum`].
    AtMost(Duration),
    /// Whatever is held, however old; never a request. Fails with [`ReadError::NotCached`](crate::ReadError::NotCached) when
    /// nothing is held that the reader may see without going back in time.
    Cached,
}

impl Want {
    /// An answer that was current after the read began.
    pub fn quorum() -> Self {
        Self::from(Freshness::Quorum)
    }

    /// An answer that is at least as new as `version`.
    pub fn at_least(version: ResourceVersion) -> Self {
        Self::from(Freshness::AtLeast(version))
    }

    /// An answer that was current at most `age` before the read began.
    pub fn at_most(age: Duration) -> Self {
        Self::from(Freshness::AtMost(age))
    }

    /// An answer from memory, or none.
    pub fn cached() -> Self {
        Self::from(Freshness::Cached)
    }

    /// Ends the read after `deadline` at the latest. The mode's own deadline
    /// ([`FetchOptions::deadline`](crate::FetchOptions::deadline)) holds if it is shorter.
    pub fn within(mut self, deadline: Duration) -> Self {
        self.deadline = Some(deadline);
        self
    }

    /// Only these keys of `data` are needed: others are dropped while the answer is decoded and take no memory.
    ///
    /// A snapshot may have more keys than were asked for, when other readers of the same Secret wanted those.
    pub fn keys<'n>(mut self, names: impl IntoIterator<Item = &'n str>) -> Self {
        self.fields.data = Names::only(names);
        self
    }

    /// Only these annotations are needed: see [`Want::keys`].
    pub fn annotations<'n>(mut self, names: impl IntoIterator<Item = &'n str>) -> Self {
        self.fields.annotations = Names::only(names);
        self
    }

    /// How fresh the answer has to be.
    #[must_use]
    pub fn freshness(&self) -> Freshness {
        self.freshness
    }

    /// The reader's own deadline.
    #[must_use]
    pub fn deadline(&self) -> Option<Duration> {
        self.deadline
    }

    /// Which fields are needed.
    pub(crate) fn fields(&self) -> &Fields {
        &self.fields
    }
}

impl From<Freshness> for Want {
    fn from(freshness: Freshness) -> Self {
        Self {
            freshness,
            ..Self::default()
        }
    }
}

/// Which entries of a Secret are copied out of an answer.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Fields {
    /// Keys of `data`.
    pub(crate) data: Names,
    /// Names of annotations.
    pub(crate) annotations: Names,
}

impl Fields {
    /// Whether what was decoded with `self` has all that `wanted` asks for.
    pub(crate) fn covers(&self, wanted: &Self) -> bool {
        self.data.covers(&wanted.data) && self.annotations.covers(&wanted.annotations)
    }

    /// The fields of both.
    pub(crate) fn union(&self, other: &Self) -> Self {
        Self {
            data: self.data.union(&other.data),
            annotations: self.annotations.union(&other.annotations),
        }
    }

    /// Bytes on the heap, for the accounting of caches. Shared sets are counted by each holder: they are small.
    pub(crate) fn heap_bytes(&self) -> usize {
        self.data.heap_bytes() + self.annotations.heap_bytes()
    }
}

/// A set of names, or all there are.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) enum Names {
    #[default]
    All,
    Only(Arc<BTreeSet<Box<str>>>),
}

impl Names {
    fn only<'n>(names: impl IntoIterator<Item = &'n str>) -> Self {
        Self::bounded(names.into_iter().map(Box::from).collect())
    }

    fn bounded(names: BTreeSet<Box<str>>) -> Self {
        if names.len() > MOST_NAMES {
            Self::All
        } else {
            Self::Only(Arc::new(names))
        }
    }

    /// Whether entries of this name are copied.
    pub(crate) fn contains(&self, name: &str) -> bool {
        match self {
            Self::All => true,
            Self::Only(names) => names.contains(name),
        }
    }

    fn covers(&self, wanted: &Self) -> bool {
        match (self, wanted) {
            (Self::All, _) => true,
            (Self::Only(_), Self::All) => false,
            (Self::Only(held), Self::Only(wanted)) => Arc::ptr_eq(held, wanted) || wanted.is_subset(held),
        }
    }

    fn union(&self, other: &Self) -> Self {
        if self.covers(other) {
            return self.clone();
        }
        match (self, other) {
            (Self::Only(one), Self::Only(other)) => Self::bounded(one.union(other).cloned().collect()),
            (Self::All, _) | (_, Self::All) => Self::All,
        }
    }

    fn heap_bytes(&self) -> usize {
        match self {
            Self::All => 0,
            Self::Only(names) => names.iter().map(|name| name.len() + size_of::<Box<str>>() + 16).sum(),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn keys(names: &[&str]) -> Fields {
        Want::default().keys(names.iter().copied()).fields
    }

    #[test]
    fn all_covers_everything_and_is_covered_by_nothing_less() {
        let all = Fields::default();
        assert!(all.covers(&all) && all.covers(&keys(&["a"])));
        assert!(!keys(&["a"]).covers(&all));
        assert!(keys(&["a", "b"]).covers(&keys(&["b"])) && !keys(&["b"]).covers(&keys(&["a", "b"])));
        assert!(!keys(&[]).covers(&keys(&["a"])) && keys(&["a"]).covers(&keys(&[])));
        let annotations = Want::default().annotations(["a"]).fields;
        assert!(!annotations.covers(&all) && annotations.data.contains("any"));
        assert!(annotations.annotations.contains("a") && !annotations.annotations.contains("b"));
    }

    #[test]
    fn a_long_list_of_names_becomes_all() {
        let names: Vec<String> = (0..=MOST_NAMES).map(|number| number.to_string()).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        assert_eq!(keys(&names).data, Names::All);
        assert_ne!(keys(&names[1..]).data, Names::All);
        assert_eq!(keys(&names[1..]).union(&keys(&names[..1])).data, Names::All);
    }

    proptest! {
        #[test]
        fn a_union_covers_both_and_holds_no_more(
            one in prop::collection::btree_set("[a-e]", 0..5),
            other in prop::collection::btree_set("[a-e]", 0..5),
        ) {
            let fields = |names: &BTreeSet<String>| keys(&names.iter().map(String::as_str).collect::<Vec<_>>());
            let union = fields(&one).union(&fields(&other));
            prop_assert!(union.covers(&fields(&one)) && union.covers(&fields(&other)));
            for name in ["a", "b", "c", "d", "e"] {
                prop_assert_eq!(union.data.contains(name), one.contains(name) || other.contains(name));
            }
        }
    }
}
