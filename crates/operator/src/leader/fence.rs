//! What keeps a process that no longer leads from writing.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use thiserror::Error;
use tokio::sync::Notify;

use super::clock::Clock;

/// A write was not sent, because another replica may lead by now.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("not sent: this replica does not hold the Lease at the moment")]
pub(crate) struct NotLeading;

/// Lets writes through while this replica leads for certain.
///
/// It closes by the passing of time alone, so nothing has to run for it to close: a process that was stopped for longer than
/// its lease finds it closed when it goes on.
#[derive(Debug)]
pub(crate) struct Fence {
    clock: Clock,
    term: Mutex<Term>,
    opened: Notify,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Term {
    /// There is no election.
    Always,
    Never,
    Until {
        /// From then on nothing is sent.
        writes: Duration,
        /// From then on others may lead.
        expires: Duration,
    },
}

impl Fence {
    /// One that is always open, for an operator that is the only one.
    pub(crate) fn open(clock: Clock) -> Self {
        Self::new(clock, Term::Always)
    }

    /// One that is closed until the Lease is held.
    pub(crate) fn closed(clock: Clock) -> Self {
        Self::new(clock, Term::Never)
    }

    fn new(clock: Clock, term: Term) -> Self {
        Self {
            clock,
            term: Mutex::new(term),
            opened: Notify::new(),
        }
    }

    /// Whether a write may be sent now, and how long at most it may be on its way: none where that is not limited.
    pub(crate) fn check(&self) -> Result<Option<Duration>, NotLeading> {
        match *self.term() {
            Term::Always => Ok(None),
            Term::Never => Err(NotLeading),
            Term::Until { writes, expires } => {
                let now = self.clock.now();
                if now < writes {
                    Ok(Some(expires.saturating_sub(now)))
                } else {
                    Err(NotLeading)
                }
            }
        }
    }

    /// Waits until writes may be sent.
    pub(crate) async fn until_open(&self) {
        loop {
            let opened = self.opened.notified();
            tokio::pin!(opened);
            opened.as_mut().enable();
            if self.check().is_ok() {
                return;
            }
            opened.await;
        }
    }

    /// The Lease was renewed: writes are sent until the first time, and others may lead from the second on.
    pub(crate) fn renewed(&self, writes: Duration, expires: Duration) {
        *self.term() = Term::Until { writes, expires };
        self.opened.notify_waiters();
    }

    /// Nothing is sent from now on.
    pub(super) fn close(&self) {
        *self.term() = Term::Never;
    }

    pub(super) fn clock(&self) -> Clock {
        self.clock
    }

    fn term(&self) -> MutexGuard<'_, Term> {
        self.term.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::time::advance;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn it_closes_by_the_passing_of_time_alone() {
        let clock = Clock::of_the_runtime();
        let fence = Fence::closed(clock);
        assert_eq!(fence.check(), Err(NotLeading));
        let now = clock.now();
        fence.renewed(now + 10 * SECOND, now + 15 * SECOND);
        assert_eq!(fence.check(), Ok(Some(15 * SECOND)));
        advance(9 * SECOND).await;
        assert_eq!(
            fence.check(),
            Ok(Some(6 * SECOND)),
            "no longer than until others may lead"
        );
        advance(SECOND).await;
        assert_eq!(fence.check(), Err(NotLeading));
        let now = clock.now();
        fence.renewed(now + 10 * SECOND, now + 15 * SECOND);
        assert!(fence.check().is_ok());
        fence.close();
        assert_eq!(fence.check(), Err(NotLeading));
    }

    #[tokio::test(start_paused = true)]
    async fn those_who_wait_go_on_when_it_opens() {
        let clock = Clock::of_the_runtime();
        let fence = Arc::new(Fence::closed(clock));
        let waiting = tokio::spawn({
            let fence = Arc::clone(&fence);
            async move { fence.until_open().await }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        let now = clock.now();
        fence.renewed(now + SECOND, now + 2 * SECOND);
        waiting.await.expect("no panic");
        Fence::open(clock).until_open().await;
    }
}
