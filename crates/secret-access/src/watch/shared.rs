//! What the tasks of a watch and its readers share.

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use tokio::sync::Notify;

use super::health::{Health, Setback};
use super::store::{Applied, Bounds, Listing, ScopeIndex, Store};
use super::{Sighted, Sighting};
use crate::answer::{Answer, Sent};
use crate::changes::Seen;
use crate::options::WatchOptions;
use crate::probe::CacheSize;
use crate::secret_ref::SecretRef;
use crate::snapshot::{ResourceVersion, SecretSnapshot};

/// What the tasks of a watch and its readers share.
pub(super) struct Shared {
    state: RwLock<State>,
    bounds: Bounds,
    sighted: Option<Sighted>,
    /// Whether a Secret can leave the selection without being deleted.
    by_label: bool,
    /// Tells the tasks that the memory was asked back.
    pub(super) purged: Notify,
    /// Tells the tasks that the versions went backwards.
    pub(super) rewound: Notify,
}

struct State {
    store: Store,
    health: Vec<Health>,
    /// Which scopes have been listed since the tasks began.
    listed: Vec<bool>,
    /// How much of the bounds may be used.
    percent: u8,
    /// How many bytes may be used because memory is short.
    squeezed: usize,
    /// Whether all scopes were listed within it, since somebody [asked](Shared::take_accepted).
    accepted: bool,
    /// Counts how often all was stopped: whoever began before that has nothing to say any more.
    epoch: u64,
}

/// When a task began: see [`State::epoch`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Epoch(u64);

impl Shared {
    pub(super) fn new(scopes: usize, options: &WatchOptions, sighted: Option<Sighted>) -> Self {
        Self {
            state: RwLock::new(State {
                store: Store::default(),
                health: vec![Health::Syncing; scopes],
                listed: vec![false; scopes],
                percent: 100,
                squeezed: usize::MAX,
                accepted: false,
                epoch: 0,
            }),
            bounds: Bounds {
                secrets: options.max_secrets,
                bytes: options.max_bytes,
            },
            sighted,
            by_label: options.labels.is_some(),
            purged: Notify::new(),
            rewound: Notify::new(),
        }
    }

    /// What is held of a Secret, if the watch it comes from is healthy.
    pub(super) fn held(&self, secret: &SecretRef) -> Option<Answer> {
        let state = self.read();
        let (scope, answer) = state.store.held(secret)?;
        (state.health[scope] == Health::Healthy).then_some(answer)
    }

    pub(super) fn health(&self, scope: ScopeIndex) -> Health {
        self.read().health[scope]
    }

    pub(super) fn size(&self) -> CacheSize {
        self.read().store.size()
    }

    pub(super) fn confirm(&self, secret: &SecretRef, uid: &str, version: ResourceVersion, sent: Sent) {
        self.write().store.confirm(secret, uid, version, sent);
    }

    /// Begins everything anew, within so many percent of the bounds.
    pub(super) fn start(&self, percent: u8) -> Epoch {
        let mut state = self.write();
        state.percent = percent;
        Epoch(state.epoch)
    }

    /// Stays within so many bytes from now on. Says whether what is held does.
    pub(super) fn squeeze(&self, max_bytes: usize) -> bool {
        let mut state = self.write();
        state.squeezed = max_bytes;
        state.store.size().bytes <= max_bytes
    }

    /// Ends everything and drops what is held. Says how much that was.
    pub(super) fn stop(&self, health: Health) -> CacheSize {
        let mut state = self.write();
        state.epoch += 1;
        state.health.fill(health);
        state.listed.fill(false);
        let store = std::mem::take(&mut state.store);
        drop(state);
        // Wiping takes a moment: not under the lock.
        store.size()
    }

    /// Whether all scopes were listed within the bounds since the last time.
    pub(super) fn take_accepted(&self) -> bool {
        std::mem::take(&mut self.write().accepted)
    }

    /// The latest version that was told of.
    pub(super) fn known(&self, secret: &SecretRef) -> Option<ResourceVersion> {
        self.read().store.known(secret)
    }

    pub(super) fn begin(&self, epoch: Epoch, scope: ScopeIndex, sent: Sent) -> Result<Listing, Setback> {
        Ok(self.current(epoch)?.store.begin(scope, sent))
    }

    pub(super) fn present(&self, epoch: Epoch, snapshot: &SecretSnapshot, listing: Listing) -> Result<(), Setback> {
        let mut state = self.current(epoch)?;
        let mut bounds = self.bounds.percent(state.percent);
        bounds.bytes = bounds.bytes.min(state.squeezed);
        let applied = state
            .store
            .present(snapshot, listing, bounds)
            .map_err(Setback::TooMuch)?;
        drop(state);
        if applied == Applied::Newer {
            let version = snapshot.resource_version();
            let uid = Arc::clone(snapshot.shared_uid());
            self.tell(Sighting::Seen {
                secret: snapshot.secret(),
                seen: Seen::Present { uid, version },
                as_of: Some(version),
            });
        }
        Ok(())
    }

    pub(super) fn gone(&self, epoch: Epoch, secret: &SecretRef, version: ResourceVersion) -> Result<(), Setback> {
        let news = self.current(epoch)?.store.gone(secret, version);
        if news {
            self.tell_gone(secret, version);
        }
        Ok(())
    }

    pub(super) fn unusable(
        &self,
        epoch: Epoch,
        secret: &SecretRef,
        version: Option<ResourceVersion>,
    ) -> Result<(), Setback> {
        self.current(epoch)?.store.unusable(secret, version);
        Ok(())
    }

    /// A list that shows everything up to `version` is over, and the scope healthy. Says whether with it all scopes were listed
    /// for the first time.
    pub(super) fn listed(
        &self,
        epoch: Epoch,
        listing: Listing,
        version: ResourceVersion,
        namespace: Option<&str>,
    ) -> Result<bool, Setback> {
        let mut state = self.current(epoch)?;
        let gone = state.store.end(listing, version);
        state.health[listing.scope] = Health::Healthy;
        let first = !std::mem::replace(&mut state.listed[listing.scope], true);
        let all = first && state.listed.iter().all(|listed| *listed);
        if all {
            state.percent = 100;
            state.accepted = true;
        }
        drop(state);
        for secret in &gone {
            self.tell_gone(secret, version);
        }
        self.tell(Sighting::Resynced { namespace });
        Ok(all)
    }

    pub(super) fn set_health(&self, epoch: Epoch, scope: ScopeIndex, health: Health) -> Result<(), Setback> {
        self.current(epoch)?.health[scope] = health;
        Ok(())
    }

    /// Drops what a scope holds.
    pub(super) fn forget(&self, epoch: Epoch, scope: ScopeIndex, health: Health) -> Result<(), Setback> {
        let mut state = self.current(epoch)?;
        state.health[scope] = health;
        let taken = state.store.take_scope(scope);
        drop(state);
        drop(taken);
        Ok(())
    }

    fn tell_gone(&self, secret: &SecretRef, version: ResourceVersion) {
        self.tell(Sighting::Seen {
            secret,
            seen: Seen::Gone,
            as_of: (!self.by_label).then_some(version),
        });
    }

    fn tell(&self, sighting: Sighting<'_>) {
        if let Some(sighted) = &self.sighted {
            sighted(sighting);
        }
    }

    fn current(&self, epoch: Epoch) -> Result<RwLockWriteGuard<'_, State>, Setback> {
        let state = self.write();
        if state.epoch == epoch.0 {
            Ok(state)
        } else {
            Err(Setback::Stopped)
        }
    }

    // The state is consistent after every statement that could panic.
    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    fn snapshot(name: &str, version: u64) -> SecretSnapshot {
        SecretSnapshot::builder(SecretRef::new("ns", name).expect("valid"))
            .uid("u")
            .resource_version(version)
            .build()
    }

    /// What is told of a list of `a` and `b` and of what follows it, in words.
    fn story(labels: Option<&str>) -> Vec<String> {
        let told: Arc<Mutex<Vec<String>>> = Arc::default();
        let sink = Arc::clone(&told);
        let sighted: Sighted = Arc::new(move |sighting| {
            let text = match sighting {
                Sighting::Seen { secret, seen, as_of } => {
                    let as_of = as_of.map(ResourceVersion::number);
                    match seen {
                        Seen::Present { uid, version } => format!("{} {uid} {version} {as_of:?}", secret.name()),
                        Seen::Gone => format!("{} gone {as_of:?}", secret.name()),
                    }
                }
                Sighting::Resynced { namespace } => format!("resynced {namespace:?}"),
            };
            sink.lock().expect("nobody panics with it").push(text);
        });
        let options = WatchOptions {
            labels: labels.map(str::to_owned),
            ..WatchOptions::default()
        };
        let shared = Shared::new(1, &options, Some(sighted));
        let epoch = shared.start(100);
        let version = ResourceVersion::new;
        let run = || -> Result<(), Setback> {
            let listing = shared.begin(epoch, 0, Sent::now())?;
            shared.present(epoch, &snapshot("a", 5), listing)?;
            shared.present(epoch, &snapshot("b", 6), listing)?;
            assert!(
                shared.held(snapshot("a", 5).secret()).is_none(),
                "not before the list is over"
            );
            assert!(shared.listed(epoch, listing, version(7), None)?);
            assert!(shared.held(snapshot("a", 5).secret()).is_some());
            shared.present(epoch, &snapshot("a", 5), listing)?;
            shared.present(epoch, &snapshot("a", 8), listing)?;
            shared.gone(epoch, snapshot("a", 8).secret(), version(9))?;
            shared.gone(epoch, snapshot("a", 8).secret(), version(9))?;
            let again = shared.begin(epoch, 0, Sent::now())?;
            assert!(
                !shared.listed(epoch, again, version(10), Some("ns"))?,
                "only the first time"
            );
            shared.stop(Health::Purged);
            shared.present(epoch, &snapshot("late", 11), again)
        };
        assert_eq!(run(), Err(Setback::Stopped));
        assert_eq!(shared.size(), CacheSize::default());
        told.lock().expect("nobody panics with it").clone()
    }

    #[test]
    fn news_are_told_once_and_in_order() {
        assert_eq!(
            story(None),
            [
                "a u 5 Some(5)",
                "b u 6 Some(6)",
                "resynced None",
                "a u 8 Some(8)",
                "a gone Some(9)",
                "b gone Some(10)",
                "resynced Some(\"ns\")",
            ]
        );
    }

    #[test]
    fn where_labels_select_nobody_knows_whether_it_was_deleted() {
        let gone: Vec<String> = story(Some("l"))
            .into_iter()
            .filter(|told| told.contains("gone"))
            .collect();
        assert_eq!(gone, ["a gone None", "b gone None"]);
    }
}
