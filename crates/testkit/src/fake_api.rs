//! An in-memory API server for `core/v1` objects that are read by name, with scripted faults.
//!
//! [`FakeApi`] answers like kube-apiserver where the difference matters to a reader: one revision counter for the
//! whole store, a new uid for every incarnation, a watch cache that can lag behind the store, `limit`, `continue` and
//! `remainingItemCount`, metadata-only answers, watches with bookmarks and `410 Gone`, and the server's own `Status`
//! bodies. Everything else is refused loudly, so that a test cannot pass on something that was never modelled.
//!
//! Time is tokio's: under a paused clock every delay, watch timeout and bookmark is exact and takes no real time.
//!
//! ```
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//! use k8s_openapi::api::core::v1::Secret;
//! use testkit::fake_api::{Fault, FakeApi, RequestMatch, Times};
//!
//! let api = FakeApi::new();
//! let stored = api.put_secret("default", "db", &[("password", b"hunter2")]);
//! api.inject(RequestMatch::verb("get").named("default", "db"), Times::N(1), Fault::status(500));
//!
//! let secrets: kube::Api<Secret> = kube::Api::namespaced(api.client(), "default");
//! assert!(secrets.get("db").await.is_err());
//! let read = secrets.get("db").await.unwrap();
//! assert_eq!(read.metadata.resource_version, Some(stored.resource_version.to_string()));
//! assert_eq!(api.count("get", "secrets"), 2);
//! # });
//! ```

mod answer;
mod body;
mod fault;
mod request;
mod selector;
mod service;
mod store;
mod watch;

use std::{
    collections::BTreeSet,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use serde_json::{Value, json};

pub use self::{
    body::Ending,
    fault::{Fault, Gate, RequestMatch, Times},
    request::RecordedRequest,
    service::FakeService,
    store::Version,
};
use self::{fault::Plan, store::Store, watch::Interjection};

/// An in-memory API server; clones share one store.
#[derive(Clone)]
pub struct FakeApi {
    shared: Arc<Shared>,
}

/// What the service, the watches and the test share.
struct Shared {
    state: Mutex<State>,
    /// Bumped after every change that a waiting request or watch may be waiting for.
    wake: tokio::sync::watch::Sender<u64>,
    bytes_sent: AtomicU64,
    in_flight: AtomicUsize,
    peak_in_flight: AtomicUsize,
    cancelled: AtomicUsize,
    open_watches: AtomicUsize,
}

struct State {
    store: Store,
    plans: Vec<Plan>,
    requests: Vec<RecordedRequest>,
    forbidden: BTreeSet<(String, String)>,
    /// Watches opened before this generation end.
    watch_generation: u64,
    /// What was said to the watches that were open at the time.
    interjections: Vec<Interjection>,
}

impl Shared {
    /// The state, also after a test panicked while holding it: the panic is that test's own report.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self) {
        self.wake.send_modify(|count| *count += 1);
    }
}

impl Default for FakeApi {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for FakeApi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FakeApi").finish_non_exhaustive()
    }
}

impl FakeApi {
    /// An empty server that grants every right and fails nothing.
    #[must_use]
    pub fn new() -> Self {
        Self {
            shared: Arc::new(Shared {
                state: Mutex::new(State {
                    store: Store::new(),
                    plans: Vec::new(),
                    requests: Vec::new(),
                    forbidden: BTreeSet::new(),
                    watch_generation: 0,
                    interjections: Vec::new(),
                }),
                wake: tokio::sync::watch::Sender::new(0),
                bytes_sent: AtomicU64::new(0),
                in_flight: AtomicUsize::new(0),
                peak_in_flight: AtomicUsize::new(0),
                cancelled: AtomicUsize::new(0),
                open_watches: AtomicUsize::new(0),
            }),
        }
    }

    /// A client of this server with no retry layer. It lives on the calling runtime.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    #[must_use]
    pub fn client(&self) -> kube::Client {
        kube::Client::new(self.service(), "default")
    }

    /// The server as a tower service, for a client with layers of the test's own.
    #[must_use]
    pub fn service(&self) -> FakeService {
        FakeService::new(Arc::clone(&self.shared))
    }
}

/// Objects.
#[allow(clippy::must_use_candidate, reason = "called for what they do to the store")]
impl FakeApi {
    /// Creates the object, or replaces the one of its name, as a client's write would: `apiVersion` v1, `kind`, and
    /// `metadata.namespace` and `metadata.name` are needed; the server owns `uid`, `resourceVersion` and
    /// `creationTimestamp`. A replacement keeps the uid.
    ///
    /// # Panics
    ///
    /// When the object lacks one of those fields or is of a kind that is not modelled (Secret, `ServiceAccount` and
    /// `ConfigMap` are).
    pub fn put(&self, object: Value) -> Version {
        let version = self.shared.state().store.put(object);
        self.shared.wake();
        version
    }

    /// Creates or replaces an opaque Secret with this data, given as plain bytes.
    pub fn put_secret(&self, namespace: &str, name: &str, data: &[(&str, &[u8])]) -> Version {
        let data: serde_json::Map<String, Value> = data
            .iter()
            .map(|(key, value)| {
                let value = k8s_openapi::ByteString(value.to_vec());
                ((*key).to_owned(), json!(value))
            })
            .collect();
        self.put(json!({
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"namespace": namespace, "name": name},
            "type": "Opaque",
            "data": data,
        }))
    }

    /// Deletes an object; the version is that of the deletion. `None` when there is none.
    pub fn delete(&self, resource: &str, namespace: &str, name: &str) -> Option<Version> {
        let version = self.shared.state().store.delete(resource, namespace, name);
        self.shared.wake();
        version
    }

    /// Deletes a Secret; the version is that of the deletion. `None` when there is none.
    pub fn delete_secret(&self, namespace: &str, name: &str) -> Option<Version> {
        self.delete("secrets", namespace, name)
    }

    /// The stored object.
    #[must_use]
    pub fn stored(&self, resource: &str, namespace: &str, name: &str) -> Option<Value> {
        self.shared.state().store.live(resource, namespace, name)
    }

    /// The store's revision: the resourceVersion of the latest write to anything.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.shared.state().store.revision()
    }

    /// Lets `writes` writes to objects of other resources happen: the revision moves, nothing seen here changes.
    pub fn advance(&self, writes: u64) {
        self.shared.state().store.advance(writes);
        self.shared.wake();
    }

    /// Stops the watch cache where it is: reads that it answers and watches no longer see writes, until
    /// [`thaw_watch_cache`](Self::thaw_watch_cache). A read at a newer resourceVersion waits 3 s and gets a 504, as
    /// from a kube-apiserver that has fallen behind its etcd.
    pub fn freeze_watch_cache(&self) {
        self.shared.state().store.freeze();
    }

    /// Lets the watch cache catch up.
    pub fn thaw_watch_cache(&self) {
        self.shared.state().store.thaw();
        self.shared.wake();
    }

    /// Forgets history up to now: watches from an older version get 410, and so do open `continue` tokens.
    pub fn compact(&self) {
        self.shared.state().store.compact();
        self.shared.wake();
    }
}

/// Rights.
impl FakeApi {
    /// Takes a right away: the verb (`get`, `list` or `watch`) on the resource is answered with 403, and a
    /// `SelfSubjectAccessReview` says so. Open watches stay open, as on a real server.
    pub fn forbid(&self, verb: &str, resource: &str) {
        self.shared
            .state()
            .forbidden
            .insert((verb.to_owned(), resource.to_owned()));
    }

    /// Gives a right back.
    pub fn permit(&self, verb: &str, resource: &str) {
        self.shared
            .state()
            .forbidden
            .remove(&(verb.to_owned(), resource.to_owned()));
    }
}

/// Faults.
impl FakeApi {
    /// Plans a fault for the requests that match. Plans are tried in the order they were made; one that is used up
    /// is skipped.
    pub fn inject(&self, when: RequestMatch, times: Times, fault: Fault) {
        self.shared.state().plans.push(Plan::new(when, times, fault));
    }

    /// Holds matching requests before the server reads anything, until the gate opens.
    #[must_use = "requests are held until the gate opens"]
    pub fn hold(&self, when: RequestMatch) -> Gate {
        let gate = Gate::new();
        self.inject(when, Times::Always, Fault::HoldRequest(gate.clone()));
        gate
    }

    /// Holds the answers of matching requests: the server has read the store, the client has not heard yet.
    #[must_use = "answers are held until the gate opens"]
    pub fn hold_answers(&self, when: RequestMatch) -> Gate {
        let gate = Gate::new();
        self.inject(when, Times::Always, Fault::HoldAnswer(gate.clone()));
        gate
    }

    /// Drops every plan. Requests already held stay held until their gate opens.
    pub fn clear_faults(&self) {
        self.shared.state().plans.clear();
    }

    /// Ends every open watch, as a restarting server or a load balancer does.
    pub fn close_watches(&self) {
        self.shared.state().watch_generation += 1;
        self.shared.wake();
    }
}

/// What goes wrong with open watches. Those opened later are not concerned.
impl FakeApi {
    /// Sends this event on every open watch, whatever it selects, after the events so far: a duplicate, a replay, or
    /// nonsense.
    pub fn say_on_watches(&self, event: &Value) {
        let line = body::json(event) + "\n";
        self.interject(Interjection::Said(line.into()));
    }

    /// Sends these bytes on every open watch; they should end with a line feed.
    pub fn say_bytes_on_watches(&self, bytes: &[u8]) {
        self.interject(Interjection::Said(bytes.to_vec().into()));
    }

    /// Sends half a line on every open watch, and that end.
    pub fn cut_watches(&self, ending: Ending) {
        self.interject(Interjection::Cut(ending));
    }

    /// Says nothing more on any open watch and never ends it, like a connection whose other end is gone.
    pub fn silence_watches(&self) {
        self.interject(Interjection::Silence);
    }

    fn interject(&self, interjection: Interjection) {
        self.shared.state().interjections.push(interjection);
        self.shared.wake();
    }
}

/// What was seen.
impl FakeApi {
    /// Every request so far, in order of arrival.
    #[must_use]
    pub fn requests(&self) -> Vec<RecordedRequest> {
        self.shared.state().requests.clone()
    }

    /// How many requests there were with this verb (`get`, `list`, `watch`) on this resource.
    #[must_use]
    pub fn count(&self, verb: &str, resource: &str) -> usize {
        self.shared
            .state()
            .requests
            .iter()
            .filter(|request| request.verb == verb && request.resource == resource)
            .count()
    }

    /// Forgets the requests and the counters; what is in flight or open stays counted.
    pub fn forget_requests(&self) {
        self.shared.state().requests.clear();
        self.shared.bytes_sent.store(0, Ordering::SeqCst);
        self.shared.cancelled.store(0, Ordering::SeqCst);
        self.shared.peak_in_flight.store(self.in_flight(), Ordering::SeqCst);
    }

    /// Requests that wait for the head of their answer right now.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.shared.in_flight.load(Ordering::SeqCst)
    }

    /// The most requests that were ever in flight at once.
    #[must_use]
    pub fn peak_in_flight(&self) -> usize {
        self.shared.peak_in_flight.load(Ordering::SeqCst)
    }

    /// Requests whose client went away before the head of the answer.
    #[must_use]
    pub fn cancelled(&self) -> usize {
        self.shared.cancelled.load(Ordering::SeqCst)
    }

    /// Watches that are open right now.
    #[must_use]
    pub fn open_watches(&self) -> usize {
        self.shared.open_watches.load(Ordering::SeqCst)
    }

    /// Body bytes that clients have pulled so far: shows that a reader stopped in the middle of a huge answer.
    #[must_use]
    pub fn bytes_sent(&self) -> u64 {
        self.shared.bytes_sent.load(Ordering::SeqCst)
    }
}
