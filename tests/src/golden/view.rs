//! What exists in each namespace, followed by watches, and when it changed last.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use futures::StreamExt;
use kube::{
    Client, ResourceExt,
    api::DynamicObject,
    runtime::{WatchStreamExt, watcher, watcher::Event},
};
use serde_json::Value;
use tokio::{task::JoinSet, time::Instant};

use super::kinds::{KINDS, Kind};

/// A copy of what the API server has of the followed kinds.
#[derive(Debug)]
pub(super) struct View {
    state: Arc<Mutex<State>>,
    /// The watches end with the view.
    _watches: JoinSet<()>,
}

type State = HashMap<String, Namespace>;

/// One namespace.
#[derive(Clone, Debug, Default)]
pub(super) struct Namespace {
    /// Objects by kind and name.
    pub(super) objects: BTreeMap<(&'static str, String), Value>,
    /// The hashes of all Pod templates there ever were: statuses name `ReplicaSets` that are gone.
    pub(super) hashes: BTreeSet<String>,
    /// When something changed that counts.
    pub(super) changed: Option<Instant>,
}

impl View {
    pub(super) fn follow(client: &Client) -> Self {
        let state = Arc::default();
        let mut watches = JoinSet::new();
        for kind in KINDS.iter().filter(|kind| kind.followed) {
            watches.spawn(follow(client.clone(), kind, Arc::clone(&state)));
        }
        Self {
            state,
            _watches: watches,
        }
    }

    /// A copy of what is in a namespace.
    pub(super) fn namespace(&self, name: &str) -> Namespace {
        lock(&self.state).get(name).cloned().unwrap_or_default()
    }

    /// When something changed last in a namespace.
    pub(super) fn changed(&self, name: &str) -> Option<Instant> {
        lock(&self.state).get(name)?.changed
    }

    /// Forgets a namespace that is being deleted.
    pub(super) fn forget(&self, name: &str) {
        lock(&self.state).remove(name);
    }
}

impl Namespace {
    /// The objects of a kind.
    pub(super) fn of(&self, kind: &str) -> impl Iterator<Item = &Value> {
        let of_kind = self.objects.iter().filter(move |((known, _), _)| *known == kind);
        of_kind.map(|(_, object)| object)
    }

    pub(super) fn get(&self, kind: &'static str, name: &str) -> Option<&Value> {
        self.objects.get(&(kind, name.to_owned()))
    }
}

async fn follow(client: Client, kind: &'static Kind, state: Arc<Mutex<State>>) {
    let api = kube::Api::<DynamicObject>::all_with(client, &kind.resource());
    let events = watcher(api, watcher::Config::default()).default_backoff();
    let mut events = std::pin::pin!(events);
    // A failed watch begins anew with a list; until then nothing changes here, and what waits does not settle on the old
    // state for longer than the pause between two tries.
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Apply(object) | Event::InitApply(object)) => put(&state, kind, &object),
            Ok(Event::Delete(object)) => remove(&state, kind, &object),
            Ok(Event::Init | Event::InitDone) | Err(_) => {}
        }
    }
}

fn put(state: &Mutex<State>, kind: &'static Kind, object: &DynamicObject) {
    let (Some(namespace), name) = (object.namespace(), object.name_any()) else {
        return;
    };
    let Ok(value) = serde_json::to_value(object) else {
        return;
    };
    let mut state = lock(state);
    let space = state.entry(namespace).or_default();
    if counts(kind, &value) {
        space.changed = Some(Instant::now());
    }
    if kind.name == "ReplicaSet"
        && let Some(hash) = value["metadata"]["labels"]["pod-template-hash"].as_str()
    {
        space.hashes.insert(hash.to_owned());
    }
    space.objects.insert((kind.name, name), value);
}

fn remove(state: &Mutex<State>, kind: &'static Kind, object: &DynamicObject) {
    let Some(namespace) = object.namespace() else { return };
    if let Some(space) = lock(state).get_mut(&namespace) {
        space.objects.remove(&(kind.name, object.name_any()));
        space.changed = Some(Instant::now());
    }
}

/// Kubernetes' own controllers repeat their Events for ever.
fn counts(kind: &Kind, object: &Value) -> bool {
    kind.name != "Event" || object["involvedObject"]["kind"] == "InferenceService"
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    // What is in it is whole after every change, even if somebody panicked.
    state.lock().unwrap_or_else(PoisonError::into_inner)
}
