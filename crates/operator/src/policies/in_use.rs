//! Admission policies that are about to be referred to are not deleted as unused, and the other way round.
//!
//! Between the look at a shared admission policy and the binding that refers to it there is time in which nothing in the API
//! server shows that somebody wants it. Only the leader writes, so it is enough that this process knows.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Who does what with which admission policy.
#[derive(Default)]
pub(super) struct InUse(Mutex<HashMap<Box<str>, State>>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// So many passes want it.
    Used(usize),
    /// It is being deleted.
    Retiring,
}

/// An admission policy stays as long as this is held.
pub(super) struct Use {
    of: Arc<InUse>,
    name: Box<str>,
}

/// No pass begins to use an admission policy as long as this is held.
pub(super) struct Retiring {
    of: Arc<InUse>,
    name: Box<str>,
}

impl InUse {
    /// None while it is being deleted.
    pub(super) fn take(self: &Arc<Self>, name: &str) -> Option<Use> {
        let mut states = self.lock();
        let state = states.entry(name.into()).or_insert(State::Used(0));
        match state {
            State::Retiring => return None,
            State::Used(passes) => *passes += 1,
        }
        Some(Use {
            of: Arc::clone(self),
            name: name.into(),
        })
    }

    /// None while a pass wants it, or it is being deleted already.
    pub(super) fn retire(self: &Arc<Self>, name: &str) -> Option<Retiring> {
        let mut states = self.lock();
        if states.contains_key(name) {
            return None;
        }
        states.insert(name.into(), State::Retiring);
        Some(Retiring {
            of: Arc::clone(self),
            name: name.into(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Box<str>, State>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Use {
    fn drop(&mut self) {
        let mut states = self.of.lock();
        match states.get_mut(&self.name) {
            Some(State::Used(passes)) if *passes > 1 => *passes -= 1,
            _ => {
                states.remove(&self.name);
            }
        }
    }
}

impl Drop for Retiring {
    fn drop(&mut self) {
        self.of.lock().remove(&self.name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn used_or_deleted_and_never_both() {
        let in_use = Arc::new(InUse::default());
        let first = in_use.take("a").expect("free");
        let second = in_use.take("a").expect("shared");
        assert!(in_use.retire("a").is_none());
        drop(first);
        assert!(in_use.retire("a").is_none());
        drop(second);
        let retiring = in_use.retire("a").expect("unused");
        assert!(in_use.take("a").is_none() && in_use.retire("a").is_none());
        assert!(in_use.take("b").is_some());
        drop(retiring);
        assert!(in_use.take("a").is_some());
        assert!(in_use.lock().is_empty(), "nothing is left behind");
    }
}
