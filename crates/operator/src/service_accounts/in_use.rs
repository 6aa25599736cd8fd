//! Which services use which `ServiceAccount`, what was seen of it last, and when it is looked at again. Pure: told the time.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    hash::{DefaultHasher, Hash, Hasher},
    time::Duration,
};

use isvc_core::observed::{Lookup, ServiceAccountFacts};
use tokio::time::Instant;

use crate::key::ObjectKey;

/// The accounts that services use.
#[derive(Default)]
pub(super) struct InUse {
    accounts: HashMap<ObjectKey, Used>,
    by_service: HashMap<ObjectKey, Box<[ObjectKey]>>,
    by_due: BTreeSet<(Instant, ObjectKey)>,
}

struct Used {
    services: HashSet<ObjectKey>,
    due: Instant,
    /// A digest of what a request sent at that time found: an account may list more Secrets than there is memory for.
    seen: Option<(Instant, u64)>,
}

impl InUse {
    /// A service uses these accounts from now on, and no others. The first look at a new one is due then, and tells changes
    /// from what was `seen` of it before, if anything was: when that was asked for, and its [`digest`].
    pub(super) fn refer(
        &mut self,
        service: &ObjectKey,
        accounts: &[ObjectKey],
        due: Instant,
        seen: impl Fn(&ObjectKey) -> Option<(Instant, u64)>,
    ) {
        let before = self.by_service.remove(service).unwrap_or_default();
        for account in accounts.iter().filter(|account| !before.contains(account)) {
            let used = self.accounts.entry(account.clone()).or_insert_with(|| {
                self.by_due.insert((due, account.clone()));
                Used {
                    services: HashSet::new(),
                    due,
                    seen: seen(account),
                }
            });
            used.services.insert(service.clone());
        }
        for account in before.iter().filter(|account| !accounts.contains(account)) {
            if let Some(used) = self.accounts.get_mut(account) {
                used.services.remove(service);
                if used.services.is_empty() {
                    self.by_due.remove(&(used.due, account.clone()));
                    self.accounts.remove(account);
                }
            }
        }
        if !accounts.is_empty() {
            self.by_service.insert(service.clone(), accounts.into());
        }
    }

    /// A request sent at `sent` found this; the next look is due then. Returns the services to look at again, if that is not
    /// what was seen before.
    pub(super) fn seen(
        &mut self,
        account: &ObjectKey,
        sent: Instant,
        found: &Lookup<ServiceAccountFacts>,
        due: Instant,
    ) -> Vec<ObjectKey> {
        self.put_off(account, due);
        let Some(used) = self.accounts.get_mut(account) else {
            return Vec::new();
        };
        // Two requests may overlap; the one sent later knows better.
        if used.seen.as_ref().is_some_and(|(before, _)| sent < *before) {
            return Vec::new();
        }
        let found = digest(found);
        let before = used.seen.replace((sent, found));
        match before {
            Some((_, before)) if before != found => used.services.iter().cloned().collect(),
            Some(_) | None => Vec::new(),
        }
    }

    /// The next look at an account is due then.
    pub(super) fn put_off(&mut self, account: &ObjectKey, due: Instant) {
        if let Some(used) = self.accounts.get_mut(account) {
            self.by_due.remove(&(used.due, account.clone()));
            used.due = due;
            self.by_due.insert((due, account.clone()));
        }
    }

    /// What is looked at next, and when.
    pub(super) fn next(&self) -> Option<&(Instant, ObjectKey)> {
        self.by_due.first()
    }
}

/// Only ever compared within this process.
pub(super) fn digest(found: &Lookup<ServiceAccountFacts>) -> u64 {
    let mut hasher = DefaultHasher::new();
    found.hash(&mut hasher);
    hasher.finish()
}

/// When to look again: like a Secret, missing ones sooner. `chance` is a number from 0 to 1.
pub(super) fn wait(
    found: &Lookup<ServiceAccountFacts>,
    interval: Duration,
    missing: Duration,
    chance: f64,
) -> Duration {
    let wait = match found {
        Lookup::Found(_) | Lookup::Unreadable(_) => interval,
        Lookup::Missing => missing.min(interval),
    };
    wait.mul_f64(0.9 + 0.1 * chance.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> ObjectKey {
        ObjectKey::new("ns", name)
    }

    fn found(secret: &str) -> Lookup<ServiceAccountFacts> {
        Lookup::Found(ServiceAccountFacts {
            secrets: vec![secret.to_owned()],
            ..ServiceAccountFacts::default()
        })
    }

    #[test]
    fn what_was_seen_before_an_account_was_in_use_is_what_changes_are_told_from() {
        let now = Instant::now();
        for (seen, told) in [(None, 0), (Some((now, Lookup::Missing)), 1)] {
            let mut in_use = InUse::default();
            let seen = seen.as_ref().map(|(at, found)| (*at, digest(found)));
            in_use.refer(&key("one"), &[key("a")], now, |_| seen);
            let found = Lookup::Found(ServiceAccountFacts::default());
            assert_eq!(in_use.seen(&key("a"), now, &found, now).len(), told);
        }
    }

    #[test]
    fn a_change_concerns_those_who_use_the_account() {
        let now = Instant::now();
        let at = |seconds| now + Duration::from_secs(seconds);
        let mut in_use = InUse::default();
        in_use.refer(&key("one"), &[key("a")], at(5), |_| None);
        in_use.refer(&key("two"), &[key("a")], at(6), |_| None);
        in_use.refer(&key("three"), &[key("b")], at(7), |_| None);
        assert_eq!(in_use.next(), Some(&(at(5), key("a"))));
        assert!(
            in_use.seen(&key("a"), at(1), &found("s"), at(10)).is_empty(),
            "the first look"
        );
        assert_eq!(in_use.next(), Some(&(at(7), key("b"))));
        assert!(
            in_use.seen(&key("a"), at(2), &found("s"), at(10)).is_empty(),
            "the same"
        );
        let mut concerned = in_use.seen(&key("a"), at(4), &Lookup::Missing, at(10));
        concerned.sort();
        assert_eq!(concerned, [key("one"), key("two")]);
        assert!(
            in_use.seen(&key("a"), at(3), &found("s"), at(10)).is_empty(),
            "sent before"
        );
        assert_eq!(in_use.seen(&key("a"), at(4), &found("s"), at(10)).len(), 2);
        assert!(in_use.seen(&key("unused"), at(4), &found("s"), at(10)).is_empty());
    }

    #[test]
    fn what_nobody_uses_is_forgotten() {
        let now = Instant::now();
        let mut in_use = InUse::default();
        in_use.refer(&key("one"), &[key("a")], now, |_| None);
        in_use.refer(&key("two"), &[key("a")], now, |_| None);
        in_use.refer(&key("one"), &[key("b")], now, |_| None);
        in_use.refer(&key("two"), &[], now, |_| None);
        assert_eq!(in_use.next(), Some(&(now, key("b"))));
        in_use.refer(&key("one"), &[], now, |_| None);
        in_use.refer(&key("one"), &[], now, |_| None);
        assert_eq!(in_use.next(), None);
        assert!(in_use.accounts.is_empty() && in_use.by_service.is_empty());
    }

    #[test]
    fn missing_accounts_are_looked_for_sooner() {
        let (minute, five) = (Duration::from_secs(60), Duration::from_secs(5));
        assert_eq!(wait(&found("s"), minute, five, 1.0), minute);
        assert_eq!(wait(&found("s"), minute, five, 0.0), Duration::from_secs(54));
        assert_eq!(wait(&Lookup::Missing, minute, five, 1.0), five);
        assert_eq!(
            wait(&Lookup::Missing, Duration::from_secs(2), five, 1.0),
            Duration::from_secs(2)
        );
    }
}
