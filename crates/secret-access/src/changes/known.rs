//! Pure: what is known about a tracked Secret, and what an observation changes about it.

use std::sync::Arc;

use super::Change;
use crate::answer::Sent;
use crate::floors::Floor;
use crate::moment::Moment;
use crate::snapshot::ResourceVersion;

/// What somebody saw of a Secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Seen {
    /// It was there, in this version.
    Present {
        /// Its `metadata.uid`.
        uid: Arc<str>,
        /// Its `metadata.resourceVersion`.
        version: ResourceVersion,
    },
    /// It was not there.
    Gone,
}

/// What was seen, and what that proves.
#[derive(Debug, Clone)]
pub(crate) struct Observation {
    pub(crate) seen: Seen,
    /// When the request was sent that found it; unproven for an event of a watch.
    pub(crate) sent: Sent,
    /// Where the history of the cluster stood at that observation, if that is known: of two observations with one, the
    /// later is the one with the greater.
    pub(crate) as_of: Option<ResourceVersion>,
}

impl Observation {
    /// What a request found out.
    pub(crate) fn asked(seen: Seen, sent: Sent) -> Self {
        Self {
            seen,
            sent,
            as_of: None,
        }
    }

    /// What a watch told.
    pub(crate) fn told(seen: Seen, as_of: Option<ResourceVersion>) -> Self {
        Self {
            seen,
            sent: Sent::unproven(),
            as_of,
        }
    }
}

/// What is known about a Secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Known {
    /// Nothing yet.
    Nothing,
    Present {
        uid: Arc<str>,
        version: ResourceVersion,
        /// When that was learnt last: requests sent later are later.
        at: Moment,
    },
    Absent {
        as_of: Option<ResourceVersion>,
        at: Moment,
    },
}

/// What an observation means, given what is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing was known: this is what changes are told from.
    Baseline,
    /// It is as it was.
    Same,
    Changed(Change),
    /// It is older than what is known.
    Old,
    /// Nobody can tell which of the two is the later: ask again.
    Unclear,
}

impl Known {
    /// What a read handed out last, as its floor remembers it.
    pub(super) fn from_floor(floor: Floor) -> Self {
        match floor {
            Floor::Version { version, uid, known } => Self::Present {
                uid,
                version,
                at: known,
            },
            Floor::Absent { known, .. } => Self::Absent { as_of: None, at: known },
            Floor::Moment(_) => Self::Nothing,
        }
    }

    /// Takes an observation in.
    pub(super) fn observe(&mut self, observation: &Observation) -> Verdict {
        let verdict = self.judge(observation);
        match verdict {
            Verdict::Baseline | Verdict::Same | Verdict::Changed(_) => *self = Self::now(observation),
            Verdict::Old | Verdict::Unclear => {}
        }
        verdict
    }

    fn now(observation: &Observation) -> Self {
        let at = Moment::next();
        match &observation.seen {
            Seen::Present { uid, version } => Self::Present {
                uid: Arc::clone(uid),
                version: *version,
                at,
            },
            Seen::Gone => Self::Absent {
                as_of: observation.as_of,
                at,
            },
        }
    }

    fn judge(&self, observation: &Observation) -> Verdict {
        match (self, &observation.seen) {
            // What a selector left out may still be there, and that it is not was known before.
            (Self::Nothing, Seen::Gone) if observation.is_hearsay() => Verdict::Unclear,
            (Self::Nothing, _) => Verdict::Baseline,
            (Self::Present { uid, version, at }, Seen::Present { uid: now, version: v }) => {
                if v == version && uid == now {
                    return Verdict::Same;
                }
                // A lower version that was asked for later comes from a restored backup.
                if v < version && !observation.is_after(*at) {
                    return Verdict::Old;
                }
                Verdict::Changed(if uid == now { Change::Updated } else { Change::Recreated })
            }
            (Self::Present { version, at, .. }, Seen::Gone) => match observation.order(*at, Some(*version)) {
                Order::Later => Verdict::Changed(Change::Deleted),
                Order::Earlier => Verdict::Old,
                Order::Unknown => Verdict::Unclear,
            },
            (Self::Absent { as_of, at }, Seen::Present { .. }) => match observation.order(*at, *as_of) {
                Order::Later => Verdict::Changed(Change::Created),
                Order::Earlier => Verdict::Old,
                Order::Unknown => Verdict::Unclear,
            },
            (Self::Absent { .. }, Seen::Gone) if observation.is_hearsay() => Verdict::Old,
            (Self::Absent { .. }, Seen::Gone) => Verdict::Same,
        }
    }

    /// What lies between two states, if the other one is certain to be the later.
    pub(super) fn change_to(&self, later: &Self) -> Option<Change> {
        match (self, later) {
            (
                Self::Present { uid, version, .. },
                Self::Present {
                    uid: now, version: v, ..
                },
            ) if v > version => Some(if uid == now { Change::Updated } else { Change::Recreated }),
            (Self::Present { at, .. }, Self::Absent { at: later, .. }) if later > at => Some(Change::Deleted),
            (Self::Absent { at, .. }, Self::Present { at: later, .. }) if later > at => Some(Change::Created),
            _ => None,
        }
    }
}

enum Order {
    Earlier,
    Later,
    Unknown,
}

impl Observation {
    /// Whether it proves nothing but that an event was sent.
    fn is_hearsay(&self) -> bool {
        !self.sent.is_proof() && self.as_of.is_none()
    }

    /// Whether the request was sent after that moment.
    fn is_after(&self, at: Moment) -> bool {
        self.sent.moment > at
    }

    /// This observation against something learnt at a moment, when the cluster's history stood at `stood`.
    fn order(&self, at: Moment, stood: Option<ResourceVersion>) -> Order {
        if self.is_after(at) {
            return Order::Later;
        }
        let own = match &self.seen {
            Seen::Present { version, .. } => Some(*version),
            Seen::Gone => self.as_of,
        };
        match (own, stood) {
            (Some(own), Some(stood)) if own > stood => Order::Later,
            (Some(own), Some(stood)) if own < stood => Order::Earlier,
            _ => Order::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn present(uid: &str, version: u64) -> Seen {
        Seen::Present {
            uid: uid.into(),
            version: ResourceVersion::new(version),
        }
    }

    fn asked(seen: Seen, sent: Sent) -> Observation {
        Observation::asked(seen, sent)
    }

    fn told(seen: Seen, as_of: Option<u64>) -> Observation {
        Observation::told(seen, as_of.map(ResourceVersion::new))
    }

    #[test]
    fn what_is_asked_for_later_is_believed() {
        let mut known = Known::Nothing;
        for (seen, verdict) in [
            (present("a", 5), Verdict::Baseline),
            (present("a", 5), Verdict::Same),
            (present("a", 6), Verdict::Changed(Change::Updated)),
            (present("b", 9), Verdict::Changed(Change::Recreated)),
            (Seen::Gone, Verdict::Changed(Change::Deleted)),
            (Seen::Gone, Verdict::Same),
            (present("c", 12), Verdict::Changed(Change::Created)),
            (present("c", 3), Verdict::Changed(Change::Updated)),
        ] {
            assert_eq!(known.observe(&asked(seen.clone(), Sent::now())), verdict, "{seen:?}");
        }
        let mut absent = Known::Nothing;
        assert_eq!(absent.observe(&asked(Seen::Gone, Sent::now())), Verdict::Baseline);
        assert_eq!(
            absent.observe(&asked(present("a", 1), Sent::now())),
            Verdict::Changed(Change::Created)
        );
    }

    /// Two requests overlap: nothing that the earlier one brings may be told as a change.
    #[test]
    fn answers_that_arrive_out_of_order_tell_nothing_false() {
        let early = Sent::now();
        for (known, late, verdict) in [
            (present("a", 5), present("a", 4), Verdict::Old),
            (present("b", 5), present("a", 4), Verdict::Old),
            (present("a", 5), Seen::Gone, Verdict::Unclear),
            (Seen::Gone, present("a", 4), Verdict::Unclear),
            (Seen::Gone, Seen::Gone, Verdict::Same),
            // A version orders what moments cannot.
            (present("a", 5), present("a", 6), Verdict::Changed(Change::Updated)),
            (present("a", 5), present("b", 6), Verdict::Changed(Change::Recreated)),
        ] {
            let mut state = Known::Nothing;
            state.observe(&asked(known.clone(), Sent::now()));
            let before = state.clone();
            assert_eq!(
                state.observe(&asked(late.clone(), early)),
                verdict,
                "{known:?} {late:?}"
            );
            if matches!(verdict, Verdict::Old | Verdict::Unclear) {
                assert_eq!(state, before);
            }
        }
    }

    #[test]
    fn an_event_of_a_watch_is_worth_what_it_proves() {
        let mut known = Known::Nothing;
        assert_eq!(
            known.observe(&told(Seen::Gone, None)),
            Verdict::Unclear,
            "it may have left the selection"
        );
        assert_eq!(known.observe(&told(present("a", 5), None)), Verdict::Baseline);
        assert_eq!(
            known.observe(&told(present("a", 7), None)),
            Verdict::Changed(Change::Updated)
        );
        assert_eq!(known.observe(&told(present("a", 6), None)), Verdict::Old, "a replay");
        assert_eq!(known.observe(&told(Seen::Gone, None)), Verdict::Unclear);
        assert_eq!(known.observe(&told(Seen::Gone, Some(6))), Verdict::Old);
        assert_eq!(
            known.observe(&told(Seen::Gone, Some(8))),
            Verdict::Changed(Change::Deleted)
        );
        assert_eq!(
            known.observe(&told(present("a", 7), None)),
            Verdict::Old,
            "from before it was deleted"
        );
        assert_eq!(
            known.observe(&told(present("b", 9), None)),
            Verdict::Changed(Change::Created)
        );
        // An absence found by a request has no version to compare with.
        assert_eq!(
            known.observe(&asked(Seen::Gone, Sent::now())),
            Verdict::Changed(Change::Deleted)
        );
        assert_eq!(known.observe(&told(present("b", 9), None)), Verdict::Unclear);
        assert_eq!(known.observe(&told(Seen::Gone, None)), Verdict::Old);
    }

    #[test]
    fn a_floor_is_what_changes_are_told_from() {
        let (uid, version): (Arc<str>, _) = ("a".into(), ResourceVersion::new(5));
        let floor = Floor::Version {
            version,
            uid: Arc::clone(&uid),
            known: Moment::next(),
        };
        let mut known = Known::from_floor(floor);
        let mut other = known.clone();
        assert_eq!(known.observe(&asked(present("a", 5), Sent::now())), Verdict::Same);
        assert_eq!(
            other.observe(&asked(present("b", 6), Sent::now())),
            Verdict::Changed(Change::Recreated)
        );
        assert_eq!(known.change_to(&other), Some(Change::Recreated));
        assert_eq!(other.change_to(&known), None, "that way is back");
        let absent = Known::from_floor(Floor::Absent {
            sent: Moment::next(),
            known: Moment::next(),
        });
        assert_eq!(known.change_to(&absent), Some(Change::Deleted));
        assert_eq!(absent.change_to(&known), None);
        assert_eq!(Known::from_floor(Floor::Moment(Moment::next())), Known::Nothing);
        assert_eq!(Known::Nothing.change_to(&known), None);
    }
}
