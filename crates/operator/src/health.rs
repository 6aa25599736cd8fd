//! Is the operator alive, and is it ready?

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::sync::Notify;

use crate::observability::metrics::WatchState;

/// The executor is stuck when its heart has not beaten for so long; it beats every second.
const MOST_HEARTBEAT_AGE: Duration = Duration::from_secs(30);

/// Each watch receives a bookmark about every minute, so a longer silence means that nothing comes through.
/// Source: the API server's watch cache sends them with a period of one minute.
const MOST_CONTACT_AGE: Duration = Duration::from_secs(180);

/// What the endpoints answer from. Nothing here asks the API server.
pub(crate) struct Health {
    started: Instant,
    /// Milliseconds from `started` to the last byte from the API server, plus one; 0 before the first.
    contact: AtomicU64,
    /// Milliseconds from `started` to the last heartbeat.
    heartbeat: AtomicU64,
    /// Whether the API server sends something all the time, because something is watched.
    watches: bool,
    stopping: AtomicBool,
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Default)]
struct State {
    watches: BTreeMap<String, Watch>,
    /// What else this role needs and has not, by what it is, and why.
    lacking: BTreeMap<&'static str, String>,
    /// Why there are no settings to work with, if so.
    no_settings: Option<String>,
    /// Another replica leads: nothing is watched here, and nothing is missing for it.
    stands_by: bool,
    /// What is wrong with the Lease, if anything.
    election: Option<String>,
}

/// How far a watch has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Watch {
    /// Its first list is not complete, and why it has not come further, if something is in the way.
    Listing(Option<String>),
    /// Everything it selects is known.
    Synced,
    /// Its kind does not exist in this cluster, which counts as having no objects.
    Absent,
}

impl Health {
    /// Of a role that watches, and needs the platform's settings.
    pub(crate) fn new() -> Self {
        let state = State {
            no_settings: Some("inferenceservice-config has not been read".into()),
            ..State::default()
        };
        Self::with(true, state)
    }

    /// Of a role that watches nothing: it hears from the API server when it asks, and is ready however long ago that was.
    pub(crate) fn without_watches() -> Self {
        Self::with(false, State::default())
    }

    fn with(watches: bool, state: State) -> Self {
        Self {
            started: Instant::now(),
            contact: AtomicU64::new(0),
            heartbeat: AtomicU64::new(0),
            watches,
            stopping: AtomicBool::new(false),
            state: Mutex::new(state),
            changed: Notify::new(),
        }
    }

    /// The API server has sent something.
    pub(crate) fn contact(&self) {
        self.contact.store(self.elapsed() + 1, Ordering::Relaxed);
    }

    /// The executor runs tasks.
    pub(crate) fn beat(&self) {
        self.heartbeat.store(self.elapsed(), Ordering::Relaxed);
    }

    /// No new work from now on.
    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    /// A watch is wanted, or has come further.
    pub(crate) fn watch(&self, name: &str, watch: Watch) {
        self.state().watches.insert(name.to_owned(), watch);
        self.changed.notify_waiters();
    }

    /// How many watches are in a state.
    pub(crate) fn watches(&self, counted: WatchState) -> usize {
        let state = self.state();
        let states = state.watches.values().map(|watch| match watch {
            Watch::Listing(_) => WatchState::Listing,
            Watch::Synced => WatchState::Synced,
            Watch::Absent => WatchState::Absent,
        });
        states.filter(|state| *state == counted).count()
    }

    /// Settings are there, or why they are not.
    pub(crate) fn settings(&self, missing: Option<String>) {
        self.state().no_settings = missing;
        self.changed.notify_waiters();
    }

    /// Something that this role needs is there, or why it is not.
    pub(crate) fn lacks(&self, what: &'static str, problem: Option<String>) {
        let mut state = self.state();
        match problem {
            Some(problem) => state.lacking.insert(what, problem),
            None => state.lacking.remove(what),
        };
    }

    /// Another replica may lead: this one is ready when it could take over.
    pub(crate) fn stand_by(&self) {
        let mut state = self.state();
        state.stands_by = true;
        state.election = Some("the Lease has not been read".into());
    }

    /// This replica leads, and has to know everything that passes look at.
    pub(crate) fn lead(&self) {
        let mut state = self.state();
        state.stands_by = false;
        state.election = None;
    }

    /// The Lease can be used, or why not.
    pub(crate) fn election(&self, problem: Option<String>) {
        self.state().election = problem;
    }

    /// Waits until passes may begin: everything they look at is known.
    pub(crate) async fn until_known(&self) {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if self.state().missing().is_empty() {
                return;
            }
            changed.await;
        }
    }

    /// Whether passes may begin now.
    #[cfg(test)]
    pub(crate) fn is_known(&self) -> bool {
        self.state().missing().is_empty()
    }

    /// `/livez`: `Err` says what is wrong.
    pub(crate) fn live(&self) -> Result<(), String> {
        let age = self.age(self.heartbeat.load(Ordering::Relaxed));
        if age > MOST_HEARTBEAT_AGE {
            return Err(format!("no task has run for {} s", age.as_secs()));
        }
        Ok(())
    }

    /// `/readyz`: `Err` says everything that is missing.
    pub(crate) fn ready(&self) -> Result<(), Vec<String>> {
        let mut missing = {
            let state = self.state();
            let mut missing = if state.stands_by { Vec::new() } else { state.missing() };
            missing.extend(state.election.clone());
            missing.extend(state.lacking.iter().map(|(what, problem)| format!("{what}: {problem}")));
            missing
        };
        if self.stopping.load(Ordering::Relaxed) {
            missing.push("stopping".into());
        }
        match self.contact.load(Ordering::Relaxed) {
            _ if !self.watches => {}
            0 => missing.push("the API server has not answered yet".into()),
            contact => {
                let age = self.age(contact - 1);
                if age > MOST_CONTACT_AGE {
                    missing.push(format!("the API server has been silent for {} s", age.as_secs()));
                }
            }
        }
        if missing.is_empty() { Ok(()) } else { Err(missing) }
    }

    fn elapsed(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn age(&self, at: u64) -> Duration {
        Duration::from_millis(self.elapsed().saturating_sub(at))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn missing(&self) -> Vec<String> {
        let listing = self.watches.iter().filter_map(|(name, watch)| match watch {
            Watch::Listing(None) => Some(format!("{name}: the first list is not complete")),
            Watch::Listing(Some(problem)) => Some(format!("{name}: {problem}")),
            Watch::Synced | Watch::Absent => None,
        });
        listing.chain(self.no_settings.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn ready_names_everything_that_is_missing() {
        let health = Health::new();
        health.watch("pods", Watch::Listing(None));
        health.watch("services", Watch::Listing(Some("forbidden: no".into())));
        let missing = health.ready().expect_err("nothing is there").join("\n");
        for part in ["pods", "services: forbidden", "inferenceservice-config", "API server"] {
            assert!(missing.contains(part), "{part} is not in\n{missing}");
        }
        health.watch("pods", Watch::Synced);
        health.watch("services", Watch::Absent);
        assert_eq!(WatchState::ALL.map(|state| health.watches(state)), [1, 0, 1]);
        health.settings(None);
        health.contact();
        assert_eq!(health.ready(), Ok(()));
        health.stop();
        assert_eq!(health.ready(), Err(vec!["stopping".to_owned()]));
        assert_eq!(health.live(), Ok(()), "stopping is no reason to be killed");
    }

    #[test]
    fn who_stands_by_is_ready_when_the_lease_can_be_read() {
        let health = Health::new();
        health.contact();
        health.stand_by();
        let missing = health.ready().expect_err("the Lease is not read").join("\n");
        assert!(
            missing.contains("Lease") && !missing.contains("inferenceservice-config"),
            "{missing}"
        );
        health.election(None);
        assert_eq!(health.ready(), Ok(()));
        health.lead();
        let missing = health.ready().expect_err("settings are not read").join("\n");
        assert!(missing.contains("inferenceservice-config"), "{missing}");
        health.settings(None);
        assert_eq!(health.ready(), Ok(()));
        health.election(Some("cannot be renewed".into()));
        assert_eq!(health.ready(), Err(vec!["cannot be renewed".to_owned()]));
        assert!(health.is_known(), "passes need not wait for the Lease to be known");
    }

    #[test]
    fn a_role_without_watches_is_ready_when_it_has_what_it_needs() {
        let health = Health::without_watches();
        assert_eq!(health.ready(), Ok(()));
        health.lacks("certificate", Some("not read yet".into()));
        assert_eq!(health.ready(), Err(vec!["certificate: not read yet".to_owned()]));
        health.lacks("certificate", None);
        assert_eq!(health.ready(), Ok(()));
    }

    #[tokio::test]
    async fn passes_begin_when_everything_is_known() {
        let health = Arc::new(Health::new());
        health.watch("pods", Watch::Listing(None));
        let waiting = tokio::spawn({
            let health = Arc::clone(&health);
            async move { health.until_known().await }
        });
        tokio::task::yield_now().await;
        health.settings(None);
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        health.watch("pods", Watch::Synced);
        waiting.await.expect("no panic");
    }
}
