//! What was found so far. It grows with the policies that are violated and never with the services.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use isvc_core::policy::status::{AuditSample, MAX_SAMPLES};
use memory_guard::{Level, Shed};

use super::{services::Service, warnings::Broken};
use crate::memory::shedders;

/// Most samples of all policies together; policies that are violated later have a number and no samples.
const MOST_SAMPLES: usize = 20_000;
/// Most characters of a message in a sample.
const MOST_MESSAGE: usize = 200;

/// What was found, by the name of the binding.
#[derive(Debug, Default)]
pub(super) struct Findings {
    of: HashMap<String, Found>,
    samples: usize,
    room: Room,
}

/// Whether there is memory for more samples. Clones are the same.
#[derive(Clone, Debug, Default)]
pub(super) struct Room {
    is_short: Arc<AtomicBool>,
}

impl Shed for Room {
    fn name(&self) -> &'static str {
        shedders::SAMPLES
    }

    /// Numbers stay exact; services that are found meanwhile are not named.
    fn shed(&self, level: Level) {
        self.is_short.store(level > Level::Normal, Ordering::Relaxed);
    }
}

/// What was found of one policy.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) violations: u64,
    pub(super) samples: Vec<AuditSample>,
}

/// What was found altogether.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    /// Pairs of a service and a policy that it breaks.
    pub(crate) violations: u64,
    /// Policies that are broken.
    pub(crate) policies: u64,
}

impl Findings {
    /// Nothing yet, with samples as long as there is room.
    pub(super) fn within(room: Room) -> Self {
        Self {
            room,
            ..Self::default()
        }
    }

    /// A service breaks these; each binding counts once, whatever number of rules it was.
    pub(super) fn add(&mut self, service: &Service, broken: HashMap<String, String>) {
        let most = if self.room.is_short.load(Ordering::Relaxed) {
            self.samples
        } else {
            MOST_SAMPLES
        };
        for (binding, message) in broken {
            let found = self.of.entry(binding).or_default();
            found.violations += 1;
            if found.samples.len() < MAX_SAMPLES && self.samples < most {
                self.samples += 1;
                found.samples.push(AuditSample {
                    namespace: service.namespace.clone(),
                    name: service.name.clone(),
                    message: message.chars().take(MOST_MESSAGE).collect(),
                });
            }
        }
    }

    /// What was found of the policy with this binding.
    pub(super) fn of(&self, binding: &str) -> Option<&Found> {
        self.of.get(binding)
    }

    pub(super) fn totals(&self) -> Totals {
        Totals {
            violations: self.of.values().map(|found| found.violations).sum(),
            policies: self.of.len() as u64,
        }
    }
}

/// The bindings of one answer or of several about one service, each with the first message.
pub(super) fn merge(into: &mut HashMap<String, String>, broken: Vec<Broken>) {
    for Broken { binding, message } in broken {
        into.entry(binding).or_insert(message);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn broken(bindings: &[&str]) -> HashMap<String, String> {
        let pairs = bindings.iter().map(|binding| ((*binding).to_owned(), "x".repeat(300)));
        pairs.collect()
    }

    #[test]
    fn counts_are_exact_and_samples_bounded() {
        let mut findings = Findings::default();
        for number in 0..1000 {
            let service = Service {
                namespace: "n".to_owned(),
                name: number.to_string(),
            };
            findings.add(&service, broken(if number % 2 == 0 { &["a", "b"] } else { &["a"] }));
        }
        let found = findings.of("a").expect("found");
        assert_eq!((found.violations, found.samples.len()), (1000, MAX_SAMPLES));
        assert!(found.samples.iter().all(|sample| sample.message.len() == MOST_MESSAGE));
        assert_eq!(findings.of("b").map(|found| found.violations), Some(500));
        assert!(findings.of("c").is_none());
        assert_eq!(
            findings.totals(),
            Totals {
                violations: 1500,
                policies: 2
            }
        );
    }

    #[test]
    fn while_memory_is_short_numbers_stay_exact_and_samples_do_not_grow() {
        let room = Room::default();
        let mut findings = Findings::within(room.clone());
        let mut add = |name: &str| {
            let service = Service {
                namespace: "n".to_owned(),
                name: name.to_owned(),
            };
            findings.add(&service, broken(&["a"]));
            let found = findings.of("a").expect("found");
            let names: Vec<_> = found.samples.iter().map(|sample| sample.name.clone()).collect();
            (found.violations, names.join(" "))
        };
        assert_eq!(add("first"), (1, "first".to_owned()));
        for (violations, level) in [(2, Level::Shrink), (3, Level::Purge), (4, Level::Refuse)] {
            room.shed(level);
            assert_eq!(add("another"), (violations, "first".to_owned()));
        }
        room.shed(Level::Normal);
        assert_eq!(add("last"), (5, "first last".to_owned()));
    }

    #[test]
    fn the_first_message_of_a_binding_stays() {
        let one = |message: &str| Broken {
            binding: "a".to_owned(),
            message: message.to_owned(),
        };
        let mut all = HashMap::new();
        merge(&mut all, vec![one("first"), one("second")]);
        merge(&mut all, vec![one("third")]);
        assert_eq!(all, HashMap::from([("a".to_owned(), "first".to_owned())]));
    }
}
