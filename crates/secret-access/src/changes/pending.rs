//! Pure: changes that a subscriber has not taken yet, one for each Secret.

use std::collections::{BTreeMap, HashMap};

use crate::change::Change;
use crate::secret_ref::SecretRef;

/// At most one change for each Secret, the longest waiting first.
#[derive(Debug, Default)]
pub(super) struct Pending {
    by_secret: HashMap<SecretRef, (u64, Change)>,
    by_age: BTreeMap<u64, SecretRef>,
    next: u64,
}

impl Pending {
    /// Adds a change, or merges it into the one that waits. The place in the queue is that of the first.
    pub(super) fn push(&mut self, secret: &SecretRef, change: Change) {
        if let Some((_, waiting)) = self.by_secret.get_mut(secret) {
            *waiting = waiting.then(change);
            return;
        }
        self.by_secret.insert(secret.clone(), (self.next, change));
        self.by_age.insert(self.next, secret.clone());
        self.next += 1;
    }

    /// Takes the change that has waited longest.
    pub(super) fn pop(&mut self) -> Option<(SecretRef, Change)> {
        let (_, secret) = self.by_age.pop_first()?;
        let (_, change) = self.by_secret.remove(&secret)?;
        Some((secret, change))
    }

    /// Nobody refers to the Secret any more.
    pub(super) fn remove(&mut self, secret: &SecretRef) {
        if let Some((age, _)) = self.by_secret.remove(secret) {
            self.by_age.remove(&age);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn secret(number: usize) -> SecretRef {
        SecretRef::new("ns", &format!("s{number}")).expect("valid")
    }

    #[test]
    fn the_longest_waiting_comes_first_and_nothing_is_left_behind() {
        let mut pending = Pending::default();
        for (number, change) in [
            (1, Change::Updated),
            (2, Change::Created),
            (1, Change::Deleted),
            (3, Change::Updated),
        ] {
            pending.push(&secret(number), change);
        }
        pending.remove(&secret(3));
        pending.remove(&secret(4));
        assert_eq!(pending.pop(), Some((secret(1), Change::Deleted)));
        assert_eq!(pending.pop(), Some((secret(2), Change::Created)));
        assert_eq!(pending.pop(), None);
        assert!(pending.by_age.is_empty() && pending.by_secret.is_empty());
    }

    proptest! {
        #[test]
        fn is_a_queue_of_secrets(steps in prop::collection::vec((0..3_u8, 0..6_usize), 0..100)) {
            let mut pending = Pending::default();
            let mut model: Vec<usize> = Vec::new();
            for (step, number) in steps {
                match step {
                    0 => {
                        pending.push(&secret(number), Change::Updated);
                        if !model.contains(&number) {
                            model.push(number);
                        }
                    }
                    1 => {
                        pending.remove(&secret(number));
                        model.retain(|other| *other != number);
                    }
                    _ => {
                        let popped = pending.pop().map(|(secret, _)| secret);
                        let expected = (!model.is_empty()).then(|| secret(model.remove(0)));
                        prop_assert_eq!(popped, expected);
                    }
                }
                prop_assert_eq!(pending.by_age.len(), model.len());
                prop_assert_eq!(pending.by_secret.len(), model.len());
            }
        }
    }
}
