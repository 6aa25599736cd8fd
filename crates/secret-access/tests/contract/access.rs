//! Accesses of every kind, and what to expect of each.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use kube_secret_access::{
    AccessOptions, CacheSize, ClusterCount, Eviction, FinishedRead, FinishedRequest, Mode, Probe, SecretRef, Switch,
    Transition,
};
use testkit::fake_api::FakeApi;

/// How an access reads: a mode and the rights it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Direct,
    Lru,
    /// Without asking for a watch.
    Auto,
    /// With the right to get alone.
    WatchDenied,
    /// With the right to get alone.
    AutoDenied,
}

impl Kind {
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        [Self::Direct, Self::Lru, Self::Auto, Self::WatchDenied, Self::AutoDenied].into_iter()
    }

    pub(crate) fn mode(self) -> Mode {
        match self {
            Self::Direct => Mode::Direct,
            Self::Lru => Mode::Lru,
            Self::Auto | Self::AutoDenied => Mode::Auto,
            Self::WatchDenied => Mode::Watch,
        }
    }

    /// Whether small working sets are answered from memory.
    pub(crate) fn caches(self) -> bool {
        self.mode() != Mode::Direct
    }

    pub(crate) fn access(self, api: &FakeApi, options: AccessOptions) -> Arc<Switch> {
        self.probed(api, options, Arc::new(()))
    }

    pub(crate) fn probed(self, api: &FakeApi, mut options: AccessOptions, probe: Arc<dyn Probe>) -> Arc<Switch> {
        options.mode = self.mode();
        match self {
            Self::Direct | Self::Lru => {}
            Self::Auto => options.auto.watch = false,
            Self::WatchDenied | Self::AutoDenied => {
                api.forbid("list", "secrets");
                api.forbid("watch", "secrets");
            }
        }
        Arc::new(Switch::with_probe(api.client(), options, probe).expect("valid options"))
    }
}

/// Options that send each request once, for tests that count them.
pub(crate) fn without_retries() -> AccessOptions {
    let mut options = AccessOptions::default();
    options.fetch.retry.max_retries = 0;
    options
}

pub(crate) fn secret(name: &str) -> SecretRef {
    SecretRef::new("ns", name).expect("a valid name")
}

pub(crate) fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Lets every task that can run do so, without time passing.
pub(crate) async fn settle() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

/// Writes down what it is told.
#[derive(Default)]
pub(crate) struct Recorder(Mutex<Told>);

#[derive(Default, Clone)]
pub(crate) struct Told {
    pub(crate) reads: Vec<FinishedRead>,
    pub(crate) requests: Vec<FinishedRequest>,
    pub(crate) joined: usize,
    pub(crate) sizes: Vec<CacheSize>,
    pub(crate) evicted: Vec<Eviction>,
    pub(crate) transitions: Vec<Transition>,
    pub(crate) switched: Vec<(Mode, Mode)>,
    pub(crate) refused: usize,
    pub(crate) rewound: usize,
    pub(crate) counts: Vec<ClusterCount>,
}

impl Recorder {
    pub(crate) fn told(&self) -> Told {
        self.0.lock().expect("no test panics while recording").clone()
    }

    fn note(&self, note: impl FnOnce(&mut Told)) {
        note(&mut self.0.lock().expect("no test panics while recording"));
    }
}

impl Probe for Recorder {
    fn read_finished(&self, read: &FinishedRead) {
        self.note(|told| told.reads.push(*read));
    }

    fn request_finished(&self, request: &FinishedRequest) {
        self.note(|told| told.requests.push(*request));
    }

    fn flight_joined(&self, _: Mode) {
        self.note(|told| told.joined += 1);
    }

    fn cache_size(&self, size: CacheSize) {
        self.note(|told| told.sizes.push(size));
    }

    fn evicted(&self, reason: Eviction) {
        self.note(|told| told.evicted.push(reason));
    }

    fn transition(&self, transition: &Transition) {
        self.note(|told| told.transitions.push(*transition));
    }

    fn switched(&self, from: Mode, to: Mode) {
        self.note(|told| told.switched.push((from, to)));
    }

    fn stale_answer_refused(&self, _: Mode) {
        self.note(|told| told.refused += 1);
    }

    fn cluster_rewound(&self) {
        self.note(|told| told.rewound += 1);
    }

    fn cluster_count(&self, count: ClusterCount) {
        self.note(|told| told.counts.push(count));
    }
}
