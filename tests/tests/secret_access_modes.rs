//! The mode is changed again and again while Secrets are written and read, against a real API server and etcd.
//!
//! Each Secret's value is a number that only grows. The writer notes when each write began and when it was acknowledged,
//! so for any moment it is known which number was certainly committed and which was certainly not begun. Against that,
//! and against each other, all reads are judged.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Secret;
use kube::Client;
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube_secret_access::{
    AccessOptions, FinishedRead, Mode, Probe, SecretAccess, SecretRef, SecretSnapshot, Source, Switch, Transition, Want,
};
use leanserve_tests::readers;
use serde_json::json;
use testkit::{ControlPlane, TestNamespace, eventually};
use tokio::task::JoinSet;

const SECRETS: usize = 8;
const READERS: usize = 6;
const FLIPS: usize = 200;
/// The order of modes: each comes after each other one.
const MODES: [Mode; 12] = [
    Mode::Lru,
    Mode::Direct,
    Mode::Auto,
    Mode::Watch,
    Mode::Lru,
    Mode::Auto,
    Mode::Direct,
    Mode::Watch,
    Mode::Auto,
    Mode::Lru,
    Mode::Watch,
    Mode::Direct,
];
const MAX_AGE: Duration = Duration::from_secs(1);
/// How long a dead watch may go unnoticed: the shortest heartbeat there is, and 5 s.
const WATCH_AGE: Duration = Duration::from_secs(10);
/// Against a test that hangs; generous, because nothing is measured.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two reads of one reader: hits alone would otherwise take all the processor's time from the API server.
const PAUSE: Duration = Duration::from_millis(1);

const ACCOUNT: &str = "reader";

/// What the identity may do with the Secrets of its namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rights {
    Get,
    GetListWatch,
}

impl Rights {
    fn verbs(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::GetListWatch => "get, list, watch",
        }
    }

    /// How old a read in this mode may be.
    fn age(self, mode: Mode) -> Duration {
        match (self, mode) {
            (_, Mode::Direct) => Duration::ZERO,
            (Self::GetListWatch, Mode::Watch | Mode::Auto) => WATCH_AGE,
            _ => MAX_AGE,
        }
    }

    fn options(self, mode: Mode, namespace: &str) -> AccessOptions {
        // With the right to get alone, more Secrets are read than `auto` caches, so that it changes over as well.
        let few = self == Self::Get && mode == Mode::Auto;
        let threshold = if few { SECRETS / 2 } else { 100 };
        let mut options = AccessOptions::default().with_bounds(threshold, 1 << 20, MAX_AGE);
        options.mode = mode;
        options.watch.namespaces = vec![namespace.to_owned()];
        options.watch.heartbeat = Duration::from_secs(5);
        options
    }
}

/// A namespace with a `ServiceAccount` that has these rights on Secrets there, and no others.
async fn namespace(plane: &ControlPlane, rights: Rights) -> TestNamespace {
    let namespace = plane.namespace("secret-modes").await.expect("a namespace");
    let verbs = rights.verbs();
    let rules = format!(r#"{{apiGroups: [""], resources: [secrets], verbs: [{verbs}]}}"#);
    let rights = readers::account(&namespace.name, ACCOUNT, &rules);
    plane.apply_yaml(&rights).await.expect("rights are granted");
    namespace
}

fn name(number: usize) -> String {
    format!("s{number}")
}

fn object(number: usize, version: u64) -> Secret {
    serde_json::from_value(json!({
        "metadata": {"name": name(number)},
        "stringData": {"version": version.to_string(), "filler": "x".repeat(500)},
    }))
    .expect("a Secret")
}

/// One write: the number it wrote, when it began, when it was acknowledged.
struct Write {
    version: u64,
    began: Instant,
    done: Option<Instant>,
}

/// What is known about one Secret.
#[derive(Default)]
struct Timeline {
    writes: Vec<Write>,
    /// The greatest number that any finished read returned.
    returned: u64,
}

impl Timeline {
    /// The number that was certainly committed by then.
    fn committed(&self, by: Instant) -> u64 {
        let write = self
            .writes
            .iter()
            .rfind(|write| write.done.is_some_and(|done| done <= by));
        write.map_or(0, |write| write.version)
    }

    /// The greatest number that may have been visible by then.
    fn begun(&self, by: Instant) -> u64 {
        let write = self.writes.iter().rfind(|write| write.began <= by);
        write.map_or(0, |write| write.version)
    }
}

impl Timeline {
    /// Whether a read may have returned `value`, which earlier reads bound from below.
    fn judge(&mut self, value: u64, least: u64, age: Duration, began: Instant, ended: Instant) -> Result<(), String> {
        let committed = began.checked_sub(age).map_or(0, |by| self.committed(by));
        let possible = self.begun(ended);
        self.returned = self.returned.max(value);
        if value < least {
            Err(format!("{value} after {least} had been returned"))
        } else if value < committed {
            Err(format!(
                "{value} is older than {age:?}: {committed} was committed by then"
            ))
        } else if value > possible {
            Err(format!("{value} was not written yet, {possible} was"))
        } else {
            Ok(())
        }
    }
}

struct World {
    rights: Rights,
    namespace: String,
    switch: Switch,
    /// Odd while the mode is being changed.
    flips: AtomicU64,
    timelines: Vec<Mutex<Timeline>>,
    writes: AtomicUsize,
    reads: AtomicUsize,
    /// Reads of which the mode is certain, by mode.
    certain: [AtomicUsize; Mode::ALL.len()],
    done: AtomicBool,
}

impl World {
    fn timeline(&self, number: usize) -> MutexGuard<'_, Timeline> {
        self.timelines[number].lock().expect("no panic while locked")
    }

    fn running(&self) -> bool {
        !self.done.load(Ordering::SeqCst)
    }
}

#[derive(Default)]
struct Counts {
    cached: AtomicUsize,
    watched: AtomicUsize,
    aged: AtomicUsize,
    transitions: AtomicUsize,
    refused: AtomicUsize,
    rewound: AtomicUsize,
    failed: AtomicUsize,
}

impl Probe for Counts {
    fn read_finished(&self, read: &FinishedRead) {
        if read.source == Source::Watch {
            self.watched.fetch_add(1, Ordering::SeqCst);
        }
        if matches!(read.source, Source::Cache | Source::Watch) {
            self.cached.fetch_add(1, Ordering::SeqCst);
        } else if read.mode != Mode::Direct {
            self.aged.fetch_add(1, Ordering::SeqCst);
        }
        if read.error.is_some() {
            self.failed.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn transition(&self, _: &Transition) {
        self.transitions.fetch_add(1, Ordering::SeqCst);
    }

    fn stale_answer_refused(&self, _: Mode) {
        self.refused.fetch_add(1, Ordering::SeqCst);
    }

    fn cluster_rewound(&self) {
        self.rewound.fetch_add(1, Ordering::SeqCst);
    }
}

async fn write(world: Arc<World>, client: Client, number: usize) {
    let secrets: Api<Secret> = Api::namespaced(client, &world.namespace);
    let mut version = 1;
    while world.running() {
        version += 1;
        let write = Write {
            version,
            began: Instant::now(),
            done: None,
        };
        world.timeline(number).writes.push(write);
        let patch = Patch::Merge(object(number, version));
        secrets
            .patch(&name(number), &PatchParams::default(), &patch)
            .await
            .expect("the write is accepted");
        let done = Instant::now();
        world.timeline(number).writes.last_mut().expect("just pushed").done = Some(done);
        world.writes.fetch_add(1, Ordering::SeqCst);
    }
}

fn version(snapshot: &SecretSnapshot) -> u64 {
    let text = snapshot
        .bytes("version")
        .and_then(|bytes| bytes.as_str())
        .expect("it is always there");
    text.parse().expect("a number")
}

/// Reads in turn until the end. Returns how many reads it made; any reading that must not be is a panic.
async fn read(world: Arc<World>, reader: usize) -> usize {
    let mut own = [0; SECRETS];
    let mut reads = 0;
    while world.running() {
        let number = (reads * (reader + 1) + reader) % SECRETS;
        let secret = SecretRef::new(&world.namespace, &name(number)).expect("a valid name");
        let flips = world.flips.load(Ordering::SeqCst);
        let mode = world.switch.mode();
        let least = world.timeline(number).returned;
        let began = Instant::now();
        let snapshot = world
            .switch
            .read(&secret, Want::default())
            .await
            .expect("no read fails");
        let ended = Instant::now();
        let value = version(&snapshot);
        let certain = flips.is_multiple_of(2) && world.flips.load(Ordering::SeqCst) == flips;
        let age = if certain {
            world.rights.age(mode)
        } else {
            WATCH_AGE.max(MAX_AGE)
        };

        let judged = world
            .timeline(number)
            .judge(value, least.max(own[number]), age, began, ended);
        let context = format!(
            "{} in {mode}, {:?}, certain: {certain}",
            name(number),
            snapshot.source()
        );
        assert_eq!(judged, Ok(()), "{context}");
        if certain {
            assert!(mode != Mode::Direct || snapshot.source() == Source::Api, "{context}");
            let index = Mode::ALL.iter().position(|known| *known == mode).expect("one of all");
            world.certain[index].fetch_add(1, Ordering::SeqCst);
        }
        own[number] = value;
        reads += 1;
        world.reads.fetch_add(1, Ordering::SeqCst);
        tokio::time::sleep(PAUSE).await;
    }
    reads
}

/// Waits until there are this many more of something.
async fn more(what: &str, count: &AtomicUsize, more: usize) {
    let target = count.load(Ordering::SeqCst) + more;
    eventually(what, PATIENCE, async || {
        let now = count.load(Ordering::SeqCst);
        if now >= target {
            Ok(())
        } else {
            Err(format!("{now} of {target}"))
        }
    })
    .await;
}

/// Changes the mode, each time after some reads and writes in the one before. Now and then, where entries grow old, after
/// they did.
async fn flip(world: &World, counts: &Counts) {
    for number in 0..FLIPS {
        let mode = MODES[number % MODES.len()];
        world.flips.fetch_add(1, Ordering::SeqCst);
        world
            .switch
            .set(world.rights.options(mode, &world.namespace))
            .expect("valid options");
        world.flips.fetch_add(1, Ordering::SeqCst);
        more("reads in this mode", &world.reads, 3 * READERS).await;
        more("writes meanwhile", &world.writes, 2).await;
        // In the mode lru.
        if number % 24 == 0 {
            more("entries that grow too old", &counts.aged, SECRETS).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_get_no_read_fails_goes_back_or_is_too_old_while_the_mode_changes() {
    judge(Rights::Get).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_watch_no_read_fails_goes_back_or_is_too_old_while_the_mode_changes() {
    judge(Rights::GetListWatch).await;
}

#[expect(clippy::too_many_lines, reason = "one story: set up, run, judge")]
#[expect(clippy::print_stdout, reason = "the figures of a run, with --nocapture")]
async fn judge(rights: Rights) {
    let plane = ControlPlane::shared().await;
    let namespace = namespace(plane, rights).await;
    let admin = plane.client().await.expect("a client");
    let secrets: Api<Secret> = Api::namespaced(admin.clone(), &namespace.name);
    let began = Instant::now();
    for number in 0..SECRETS {
        secrets
            .create(&PostParams::default(), &object(number, 1))
            .await
            .expect("it is created");
    }
    let first = || Timeline {
        writes: vec![Write {
            version: 1,
            began,
            done: Some(Instant::now()),
        }],
        returned: 0,
    };
    let mark = match plane.audit() {
        Some(audit) => Some(audit.mark().await.expect("a mark in the audit log")),
        None => None,
    };

    let counts = Arc::new(Counts::default());
    let client = readers::client_of(plane, &namespace.name, ACCOUNT).await;
    let switch = Switch::with_probe(client, rights.options(Mode::Direct, &namespace.name), counts.clone())
        .expect("valid options");
    let world = Arc::new(World {
        rights,
        namespace: namespace.name.clone(),
        switch,
        flips: AtomicU64::new(0),
        timelines: (0..SECRETS).map(|_| Mutex::new(first())).collect(),
        writes: AtomicUsize::new(0),
        reads: AtomicUsize::new(0),
        certain: Default::default(),
        done: AtomicBool::new(false),
    });

    let mut writers = JoinSet::new();
    for number in 0..SECRETS {
        writers.spawn(write(world.clone(), admin.clone(), number));
    }
    let mut readers = JoinSet::new();
    for reader in 0..READERS {
        readers.spawn(read(world.clone(), reader));
    }
    // A reader or writer that panics ends the test at once, with its own message.
    tokio::select! {
        () = flip(&world, &counts) => {}
        Some(ended) = readers.join_next() => panic!("a reader ended: {:?}", ended.expect("no reader panics")),
        Some(ended) = writers.join_next() => panic!("a writer ended: {:?}", ended.expect("no writer panics")),
    }
    world.done.store(true, Ordering::SeqCst);
    let mut reads = Vec::new();
    while let Some(ended) = readers.join_next().await {
        reads.push(ended.expect("no reader panics"));
    }
    while let Some(ended) = writers.join_next().await {
        ended.expect("no writer panics");
    }

    let load = |count: &AtomicUsize| count.load(Ordering::SeqCst);
    println!(
        "rights to {}: {FLIPS} changes, {} writes, {} reads ({} from cache, {} of them from a watch; certain: {:?} of {:?}), {} reads of modes that cache not from cache, {} changes of auto, {} older answers refused, in {:?}",
        rights.verbs(),
        load(&world.writes),
        load(&world.reads),
        load(&counts.cached),
        load(&counts.watched),
        world.certain.iter().map(load).collect::<Vec<_>>(),
        Mode::ALL,
        load(&counts.aged),
        load(&counts.transitions),
        load(&counts.refused),
        began.elapsed(),
    );
    assert_eq!(reads.iter().sum::<usize>(), load(&world.reads));
    assert!(
        world.certain.iter().all(|certain| load(certain) >= 100),
        "each mode was put to the test"
    );
    assert!(load(&counts.cached) > 0);
    match rights {
        Rights::Get => assert!(load(&counts.transitions) > 0 && load(&counts.watched) == 0),
        Rights::GetListWatch => assert!(load(&counts.watched) > 100, "the watch was put to the test"),
    }
    assert_eq!((load(&counts.failed), load(&counts.rewound)), (0, 0));

    if let (Some(audit), Some(mark)) = (plane.audit(), mark) {
        let entries = audit.since(&mark).await.expect("the audit log");
        let entries = entries.by_service_account(&namespace.name, ACCOUNT);
        assert!(entries.len() > FLIPS, "{entries}");
        for entry in entries.iter() {
            let (verb, code) = (entry.verb.as_str(), entry.code);
            let asked = (entry.resource.as_str(), entry.namespace.as_str());
            assert_eq!(asked, ("secrets", namespace.name.as_str()), "{entry}");
            let (allowed, denied) = match rights {
                Rights::Get => (verb == "get", verb != "get" && code == 403),
                Rights::GetListWatch => (["get", "list", "watch"].contains(&verb), false),
            };
            assert!(denied || (allowed && code == 200), "{entry}");
            assert!(
                verb != "get" || !entry.uri.contains('?'),
                "a quorum read has no parameters: {entry}"
            );
        }
    }
}
