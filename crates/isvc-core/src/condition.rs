//! The rules by which conditions change each other.
//!
//! Ready follows the core conditions `PredictorReady` and `IngressReady`; every other condition is for information.

use crate::api::{
    Condition, ConditionStatus,
    status::{INGRESS_READY, PREDICTOR_READY, READY},
};

const SEVERITY_INFO: &str = "Info";

/// The conditions of a service while a pass works on them.
pub struct Conditions<'a> {
    list: &'a mut Vec<Condition>,
    now: &'a str,
}

/// What a condition is set to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Whether it holds.
    pub status: ConditionStatus,
    /// For programs.
    pub reason: String,
    /// For people.
    pub message: String,
}

impl Verdict {
    /// It holds.
    #[must_use]
    pub fn holds() -> Self {
        Self {
            status: ConditionStatus::True,
            ..Self::default()
        }
    }

    /// It does not hold, and why.
    pub fn fails(reason: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            status: ConditionStatus::False,
            reason: reason.into(),
            message: message.into(),
        }
    }
}

/// Gives conditions that say what they said before the time they had: on its way a pass may have set them to something else.
pub fn keep_times(before: &[Condition], after: &mut [Condition]) {
    for condition in after {
        let Some(known) = before.iter().find(|known| known.type_ == condition.type_) else {
            continue;
        };
        let time = condition.last_transition_time.take();
        condition.last_transition_time.clone_from(&known.last_transition_time);
        if condition != known || known.last_transition_time.is_none() {
            condition.last_transition_time = time;
        }
    }
}

impl<'a> Conditions<'a> {
    /// Works on `list`; conditions that change get `now` as their time.
    pub fn new(list: &'a mut Vec<Condition>, now: &'a str) -> Self {
        Self { list, now }
    }

    /// Starts a service that has no Ready condition yet.
    pub fn initialize(&mut self) {
        if self.find(READY).is_none() {
            for type_ in [READY, PREDICTOR_READY, INGRESS_READY] {
                self.store(type_, Verdict::default());
            }
        }
    }

    /// Sets a condition and lets Ready follow.
    pub fn set(&mut self, type_: &str, verdict: Verdict) {
        let core = is_core(type_);
        match verdict.status {
            ConditionStatus::True => {
                self.store(type_, verdict);
                self.follow();
            }
            ConditionStatus::False => {
                self.store(type_, verdict.clone());
                if core {
                    self.store(READY, verdict);
                }
            }
            ConditionStatus::Unknown => {
                self.store(type_, verdict.clone());
                let failed = [PREDICTOR_READY, INGRESS_READY]
                    .iter()
                    .any(|core| self.status(core) == Some(ConditionStatus::False));
                if failed {
                    if self.status(READY) != Some(ConditionStatus::False) {
                        self.store(
                            READY,
                            Verdict {
                                status: ConditionStatus::False,
                                ..verdict
                            },
                        );
                    }
                } else if core {
                    self.store(READY, verdict);
                }
            }
        }
    }

    /// Forgets a condition that is not about anything any more.
    pub fn remove(&mut self, type_: &str) {
        self.list.retain(|condition| condition.type_ != type_);
    }

    /// Ready after a condition became True: the latest failure wins, then what is unknown, then what is missing.
    fn follow(&mut self) {
        let core = || {
            [PREDICTOR_READY, INGRESS_READY]
                .into_iter()
                .map(|type_| self.find(type_))
        };
        let latest = |wanted: ConditionStatus| {
            core()
                .flatten()
                .filter(|condition| condition.status == wanted)
                .max_by(|a, b| a.last_transition_time.cmp(&b.last_transition_time))
                .map(|condition| Verdict {
                    status: wanted,
                    reason: condition.reason.clone(),
                    message: condition.message.clone(),
                })
        };
        let verdict = latest(ConditionStatus::False)
            .or_else(|| latest(ConditionStatus::Unknown))
            .or_else(|| core().any(|condition| condition.is_none()).then(Verdict::default))
            .unwrap_or_else(Verdict::holds);
        self.store(READY, verdict);
    }

    fn find(&self, type_: &str) -> Option<&Condition> {
        self.list.iter().find(|condition| condition.type_ == type_)
    }

    fn status(&self, type_: &str) -> Option<ConditionStatus> {
        self.find(type_).map(|condition| condition.status)
    }

    fn store(&mut self, type_: &str, verdict: Verdict) {
        let severity = if type_ == READY || is_core(type_) {
            ""
        } else {
            SEVERITY_INFO
        };
        let condition = Condition {
            last_transition_time: Some(self.now.to_owned()),
            message: verdict.message,
            reason: verdict.reason,
            severity: severity.to_owned(),
            status: verdict.status,
            type_: type_.to_owned(),
        };
        match self.list.binary_search_by(|known| known.type_.as_str().cmp(type_)) {
            Ok(index) => {
                let known = &self.list[index];
                let unchanged = Condition {
                    last_transition_time: known.last_transition_time.clone(),
                    ..condition.clone()
                };
                if *known != unchanged || known.last_transition_time.is_none() {
                    self.list[index] = condition;
                }
            }
            Err(index) => self.list.insert(index, condition),
        }
    }
}

fn is_core(type_: &str) -> bool {
    type_ == PREDICTOR_READY || type_ == INGRESS_READY
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(changes: &[(&str, Verdict)], expected: &[(&str, ConditionStatus, &str)]) {
        let mut list = Vec::new();
        for (second, (type_, verdict)) in changes.iter().enumerate() {
            let now = format!("2026-01-01T00:00:{second:02}Z");
            let mut conditions = Conditions::new(&mut list, &now);
            conditions.initialize();
            conditions.set(type_, verdict.clone());
        }
        let found: Vec<_> = list
            .iter()
            .map(|c: &Condition| (c.type_.as_str(), c.status, c.reason.as_str()))
            .collect();
        assert_eq!(found, expected);
    }

    use ConditionStatus::{False, True, Unknown};

    #[test]
    fn ready_follows_both_core_conditions() {
        check(
            &[(PREDICTOR_READY, Verdict::holds())],
            &[
                (INGRESS_READY, Unknown, ""),
                (PREDICTOR_READY, True, ""),
                (READY, Unknown, ""),
            ],
        );
        check(
            &[(PREDICTOR_READY, Verdict::holds()), (INGRESS_READY, Verdict::holds())],
            &[
                (INGRESS_READY, True, ""),
                (PREDICTOR_READY, True, ""),
                (READY, True, ""),
            ],
        );
        check(
            &[
                (PREDICTOR_READY, Verdict::fails("P", "")),
                (INGRESS_READY, Verdict::fails("I", "")),
                (PREDICTOR_READY, Verdict::holds()),
            ],
            &[
                (INGRESS_READY, False, "I"),
                (PREDICTOR_READY, True, ""),
                (READY, False, "I"),
            ],
        );
    }

    #[test]
    fn an_informational_condition_does_not_touch_ready() {
        check(
            &[
                (PREDICTOR_READY, Verdict::holds()),
                (INGRESS_READY, Verdict::holds()),
                (
                    "Stopped",
                    Verdict {
                        status: False,
                        ..Verdict::default()
                    },
                ),
            ],
            &[
                (INGRESS_READY, True, ""),
                (PREDICTOR_READY, True, ""),
                (READY, True, ""),
                ("Stopped", False, ""),
            ],
        );
    }

    #[test]
    fn a_condition_that_ends_as_it_began_keeps_its_time() {
        let pass = |before: &[Condition], now: &str, ingress: &str| {
            let mut after = before.to_vec();
            let mut conditions = Conditions::new(&mut after, now);
            conditions.set(PREDICTOR_READY, Verdict::fails("P", ""));
            conditions.set(INGRESS_READY, Verdict::fails(ingress, ""));
            keep_times(before, &mut after);
            after
        };
        let first = pass(&[], "t1", "I");
        assert_eq!(pass(&first, "t2", "I"), first, "Ready was set twice on the way");
        let changed = pass(&first, "t3", "J");
        let time = |type_: &str| changed.iter().find(|c| c.type_ == type_)?.last_transition_time.clone();
        assert_eq!(time(PREDICTOR_READY).as_deref(), Some("t1"));
        assert_eq!(time(INGRESS_READY).as_deref(), Some("t3"));
        assert_eq!(time(READY).as_deref(), Some("t3"));
    }

    #[test]
    fn the_time_changes_only_with_the_condition() {
        let mut list = Vec::new();
        Conditions::new(&mut list, "t1").set(PREDICTOR_READY, Verdict::fails("R", "m"));
        Conditions::new(&mut list, "t2").set(PREDICTOR_READY, Verdict::fails("R", "m"));
        assert!(
            list.iter()
                .all(|condition| condition.last_transition_time.as_deref() == Some("t1"))
        );
        Conditions::new(&mut list, "t3").set(PREDICTOR_READY, Verdict::fails("R", "other"));
        assert!(
            list.iter()
                .all(|condition| condition.last_transition_time.as_deref() == Some("t3"))
        );
    }
}
