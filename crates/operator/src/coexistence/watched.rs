//! What looks at the Lease of `KServe`'s controller tell, one after the other.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;

use super::Running;

/// Who holds the Lease while `KServe`'s controller is to stand by, as `docs/migration.md` has it.
pub(super) const PARKED: &str = "handed-over-to-leanserve";

/// A controller whose Lease has not changed for so long does not run any more. A rolling update, a crash with its back-off or
/// the pull of an image leave the Lease alone for a minute or two, and are no hand-over.
pub(super) const SILENCE: Duration = Duration::from_secs(300);

/// How long a controller that was there is given to end once its Lease is parked or gone: one whose Lease was taken writes on
/// until its renew deadline of 10 s, and one whose Lease was deleted makes it anew within seconds.
const ENDING: Duration = Duration::from_secs(20);

/// Looks further apart than this show no silence: the API server was away, or this machine was suspended, and so the other
/// controller could not renew either.
const GAP: Duration = Duration::from_secs(30);

/// How often, and for how long, a process that has never seen the Lease is refused until it takes the right for missing.
/// An API server that starts refuses everything until it has read the roles. The number is there because time alone also
/// passes while the machine is suspended.
const REFUSALS: (u32, Duration) = (30, Duration::from_secs(300));

/// How one look ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Look {
    Lease(Sight),
    Forbidden,
    Failed,
}

/// What a look has shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Sight {
    Gone,
    Parked,
    /// The version of the Lease, whoever holds it. One that nobody holds may be taken at any moment.
    Version(String),
}

impl Sight {
    pub(super) fn of(lease: Option<&Lease>) -> Self {
        let Some(lease) = lease else { return Self::Gone };
        let holder = lease.spec.as_ref().and_then(|spec| spec.holder_identity.as_deref());
        if holder == Some(PARKED) {
            Self::Parked
        } else {
            Self::Version(lease.metadata.resource_version.clone().unwrap_or_default())
        }
    }
}

/// What was seen of the Lease. Its times are those of another machine's clock and are not looked at: a Lease that changes is
/// renewed.
#[derive(Debug, Default)]
pub(super) struct Watched {
    running: Running,
    seen: Option<Seen>,
    /// How many looks were refused one after the other, and since when.
    refused: Option<(u32, Duration)>,
}

#[derive(Debug)]
struct Seen {
    /// None where the Lease is gone or parked.
    version: Option<String>,
    since: Duration,
    looked: Duration,
}

impl Watched {
    /// What follows from a look that was asked for at `asked` and had ended by `now`.
    pub(super) fn judge(&mut self, look: Look, asked: Duration, now: Duration) -> Running {
        let refused = self.refused.take();
        self.running = match look {
            Look::Failed => self.running,
            Look::Forbidden => self.judge_refusal(refused, now),
            Look::Lease(Sight::Gone | Sight::Parked) => self.judge_sight(None, asked, now),
            Look::Lease(Sight::Version(version)) => self.judge_sight(Some(version), asked, now),
        };
        self.running
    }

    /// What was known stays so: a right that was there is not taken away for good by an API server that starts.
    fn judge_refusal(&mut self, refused: Option<(u32, Duration)>, now: Duration) -> Running {
        let (count, since) = refused.map_or((1, now), |(count, since)| (count.saturating_add(1), since));
        self.refused = Some((count, since));
        let (most, long) = REFUSALS;
        if self.seen.is_none() && count >= most && now.saturating_sub(since) >= long {
            // Without the right nothing can ever be told, and services marked long ago would never be served.
            return Running::No;
        }
        self.running
    }

    /// There is no version where the Lease is gone or parked.
    fn judge_sight(&mut self, version: Option<String>, asked: Duration, now: Duration) -> Running {
        let patience = if version.is_some() { SILENCE } else { ENDING };
        match &mut self.seen {
            Some(seen) if seen.version == version => {
                if asked.saturating_sub(seen.looked) > GAP {
                    seen.since = now;
                }
                seen.looked = now;
                if asked.saturating_sub(seen.since) >= patience {
                    Running::No
                } else {
                    self.running
                }
            }
            seen => {
                let running = match (seen.is_some(), version.is_some()) {
                    (true, true) => Running::Yes,
                    (true, false) => self.running,
                    (false, true) => Running::Unknown,
                    (false, false) => Running::No,
                };
                *seen = Some(Seen {
                    version,
                    since: now,
                    looked: now,
                });
                running
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{
        Running::{No, Unknown, Yes},
        *,
    };

    const GONE: Look = Look::Lease(Sight::Gone);
    const TAKEN_OVER: Look = Look::Lease(Sight::Parked);

    fn version(version: &str) -> Look {
        Look::Lease(Sight::Version(version.to_owned()))
    }

    /// Looks at the Lease every five seconds, from the end of one line to the time of the next.
    fn check(name: &str, lines: &[(u64, Look, Running)]) {
        let (mut watched, mut at) = (Watched::default(), 0);
        for (until, look, expected) in lines {
            loop {
                let now = Duration::from_secs(at);
                let found = watched.judge(look.clone(), now, now);
                at += 5;
                if at > *until {
                    assert_eq!(found, *expected, "{name}: {look:?} at {now:?}");
                    break;
                }
            }
        }
    }

    #[test]
    fn a_lease_that_is_renewed_means_a_controller() {
        check("none", &[(0, GONE, No), (5, GONE, No)]);
        check(
            "renewed, then silent, then renewed",
            &[
                (0, version("1"), Unknown),
                (5, version("4"), Yes),
                (300, version("4"), Yes),
                (305, version("4"), No),
                (310, version("4"), No),
                (315, version("5"), Yes),
            ],
        );
        check(
            "left over by one that is gone",
            &[
                (295, version("1"), Unknown),
                (300, version("1"), No),
                (900, version("1"), No),
            ],
        );
        check(
            "deleted",
            &[
                (0, version("1"), Unknown),
                (5, version("2"), Yes),
                (25, GONE, Yes),
                (30, GONE, No),
            ],
        );
        check(
            "deleted, and made anew by the one that runs",
            &[
                (0, GONE, No),
                (5, version("1"), Yes),
                (10, GONE, Yes),
                (15, version("2"), Yes),
            ],
        );
        check(
            "an ordinary gap",
            &[
                (0, version("1"), Unknown),
                (5, version("2"), Yes),
                (120, version("2"), Yes),
                (125, version("3"), Yes),
            ],
        );
    }

    #[test]
    fn a_parked_lease_is_a_hand_over() {
        check("at the start, at once", &[(0, TAKEN_OVER, No), (600, TAKEN_OVER, No)]);
        check(
            "whatever was before",
            &[
                (0, version("1"), Unknown),
                (20, TAKEN_OVER, Unknown),
                (25, TAKEN_OVER, No),
            ],
        );
        check(
            "beside a controller that has yet to end, and back",
            &[
                (0, version("1"), Unknown),
                (5, version("2"), Yes),
                (25, TAKEN_OVER, Yes),
                (30, TAKEN_OVER, No),
                (35, version("4"), Yes),
            ],
        );
    }

    #[test]
    fn a_look_that_fails_changes_nothing() {
        for look in [Look::Forbidden, Look::Failed] {
            check("at the start", &[(60, look.clone(), Unknown)]);
            check(
                "beside a controller",
                &[
                    (0, version("1"), Unknown),
                    (5, version("2"), Yes),
                    (3600, look.clone(), Yes),
                ],
            );
            check(
                "while waiting",
                &[(0, version("1"), Unknown), (3600, look.clone(), Unknown)],
            );
            check("alone", &[(0, GONE, No), (3600, look.clone(), No)]);
            // The other had as little chance to renew, and gets all the time again.
            check(
                "silence around it",
                &[
                    (0, version("1"), Unknown),
                    (5, version("2"), Yes),
                    (200, version("2"), Yes),
                    (600, look, Yes),
                    (900, version("2"), Yes),
                    (905, version("2"), No),
                ],
            );
        }
        check("unreachable for ever", &[(3600, Look::Failed, Unknown)]);
    }

    #[test]
    fn only_who_was_refused_for_long_and_from_the_start_takes_the_right_for_missing() {
        check(
            "refused",
            &[(295, Look::Forbidden, Unknown), (300, Look::Forbidden, No)],
        );
        check(
            "not one after the other",
            &[
                (200, Look::Forbidden, Unknown),
                (205, Look::Failed, Unknown),
                (505, Look::Forbidden, Unknown),
                (510, Look::Forbidden, No),
                (515, version("1"), Unknown),
                (520, version("2"), Yes),
                (3600, Look::Forbidden, Yes),
            ],
        );
        // A suspended machine: much time, few looks.
        let mut watched = Watched::default();
        for hour in 0..5 {
            let now = Duration::from_secs(hour * 3600);
            assert_eq!(watched.judge(Look::Forbidden, now, now), Unknown);
        }
    }

    #[test]
    fn a_suspended_machine_has_seen_no_silence() {
        let mut watched = Watched::default();
        for (at, version, expected) in [(0, "1", Unknown), (5, "2", Yes), (3600, "2", Yes), (3605, "2", Yes)] {
            let now = Duration::from_secs(at);
            let look = Look::Lease(Sight::Version(version.to_owned()));
            assert_eq!(watched.judge(look, now, now), expected, "at {now:?}");
        }
    }

    #[test]
    fn a_lease_is_parked_by_its_holder() {
        let lease = |holder: &str| {
            let lease = json!({"metadata": {"resourceVersion": "7"}, "spec": {"holderIdentity": holder}});
            serde_json::from_value::<Lease>(lease).expect("a Lease")
        };
        let held = Sight::Version("7".to_owned());
        assert_eq!(Sight::of(None), Sight::Gone);
        assert_eq!(Sight::of(Some(&lease(PARKED))), Sight::Parked);
        assert_eq!(Sight::of(Some(&lease("pod_1"))), held);
        assert_eq!(Sight::of(Some(&lease(""))), held, "it is free to be taken");
    }
}
