//! Tells the probe when reads leave the watch for long, and when they are back.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::store::{Crossed, ScopeIndex};
use crate::mode::Mode;
use crate::probe::{CacheSize, Probe, Transition};
use crate::route::Reason;

/// Tells each change once, however often it is found to be so.
pub(super) struct Announcer {
    probe: Arc<dyn Probe>,
    away: Mutex<Away>,
}

/// Why reads do not go to the watch.
struct Away {
    too_much: bool,
    denied: Vec<bool>,
}

impl Announcer {
    pub(super) fn new(probe: Arc<dyn Probe>, scopes: usize) -> Self {
        Self {
            probe,
            away: Mutex::new(Away {
                too_much: false,
                denied: vec![false; scopes],
            }),
        }
    }

    /// There is more than may be held.
    pub(super) fn too_much(&self, crossed: Crossed) {
        if !std::mem::replace(&mut self.away().too_much, true) {
            self.tell(Mode::Watch, Mode::Lru, crossed.into());
        }
    }

    /// The identity may not list or watch a scope.
    pub(super) fn denied(&self, scope: ScopeIndex) {
        if !std::mem::replace(&mut self.away().denied[scope], true) {
            self.tell(Mode::Watch, Mode::Lru, Reason::WatchDenied);
        }
    }

    /// A scope is listed, and `all` of them are or not.
    pub(super) fn listed(&self, scope: ScopeIndex, all: bool, size: CacheSize) {
        let mut away = self.away();
        let back = std::mem::take(&mut away.denied[scope]) | (all && std::mem::take(&mut away.too_much));
        drop(away);
        if back {
            let CacheSize {
                entries: secrets,
                bytes,
                ..
            } = size;
            self.tell(Mode::Lru, Mode::Watch, Reason::Watched { secrets, bytes });
        }
    }

    fn tell(&self, from: Mode, to: Mode, reason: Reason) {
        tracing::info!(%from, %to, %reason, "reading Secrets in another mode");
        self.probe.transition(&Transition { from, to, reason });
    }

    fn away(&self) -> MutexGuard<'_, Away> {
        // Consistent after every statement that could panic.
        self.away.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl From<Crossed> for Reason {
    fn from(crossed: Crossed) -> Self {
        match crossed {
            Crossed::Secrets { secrets, max } => Self::WatchedTooManySecrets { secrets, max },
            Crossed::Bytes { bytes, max } => Self::WatchedTooManyBytes { bytes, max },
        }
    }
}
