//! Single flight and the change of modes under a scheduler that tries many interleavings.
//!
//! The sources of the library are compiled here a second time: `crate::sync` is shuttle's instead of the standard library's
//! and tokio's, and `crate::fetch` is a server in memory that takes its time. What lies between, and is driven here, is the
//! product's own code: flights, floors, cache, the modes direct and lru. How `Front` and `Switch` put these together is
//! repeated in a few lines, without deadlines. (The unit tests of the sources come along and run a second time.)

#![expect(
    dead_code,
    unreachable_pub,
    unused_imports,
    reason = "only a part of the library is driven here"
)]

#[path = "../src"]
mod library {
    pub(crate) mod access;
    pub(crate) mod answer;
    pub(crate) mod change;
    pub(crate) mod direct;
    pub(crate) mod error;
    pub(crate) mod failure;
    pub(crate) mod flight;
    pub(crate) mod floors;
    pub(crate) mod heap;
    pub(crate) mod lru;
    pub(crate) mod mode;
    pub(crate) mod moment;
    pub(crate) mod options;
    pub(crate) mod plan;
    pub(crate) mod probe;
    pub(crate) mod purge;
    pub(crate) mod retry;
    pub(crate) mod route;
    pub(crate) mod secret_ref;
    pub(crate) mod snapshot;
    pub(crate) mod squeeze;
    pub(crate) mod want;
}

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use shuttle::future::{JoinHandle, block_on, yield_now};
use shuttle::sync::{Mutex as ModelMutex, RwLock};
use tokio::time::Instant;

use self::answer::{Answer, Answers, Asked, Sent, Served};
use self::direct::DirectReads;
use self::flight::Flights;
use self::floors::Floors;
#[allow(unused_imports, reason = "the library's own sources name these as crate::...")]
use self::library::*;
use self::lru::LruReads;
use self::options::{FetchOptions, LruOptions};
use self::secret_ref::SecretRef;
use self::snapshot::SecretSnapshot;
use self::want::Want;

/// The primitives of `src/sync.rs`, on shuttle's scheduler.
mod sync {
    use std::cell::Cell;
    use std::sync::TryLockError;
    use std::time::Duration;

    pub(crate) use std::sync::{MutexGuard, PoisonError};

    pub(crate) use shuttle::future::spawn;

    thread_local! {
        /// Whether this thread runs a model, and not one of the library's unit tests.
        pub(crate) static MODELLED: Cell<bool> = const { Cell::new(false) };
    }

    /// A mutex at which the scheduler may turn to another task, whether or not it is free.
    #[derive(Default)]
    pub(crate) struct Mutex<T>(std::sync::Mutex<T>);

    impl<T> Mutex<T> {
        pub(crate) fn new(value: T) -> Self {
            Self(std::sync::Mutex::new(value))
        }

        pub(crate) fn lock(&self) -> Result<MutexGuard<'_, T>, PoisonError<MutexGuard<'_, T>>> {
            if !MODELLED.get() {
                return self.0.lock();
            }
            loop {
                shuttle::thread::yield_now();
                match self.0.try_lock() {
                    Ok(guard) => return Ok(guard),
                    Err(TryLockError::Poisoned(poisoned)) => return Err(poisoned),
                    Err(TryLockError::WouldBlock) => {}
                }
            }
        }
    }

    /// Seconds do not pass here; fractions of one do, sooner or later.
    pub(crate) async fn sleep(duration: Duration) {
        if duration >= Duration::from_secs(1) {
            std::future::pending::<()>().await;
        }
        shuttle::future::yield_now().await;
    }
}

/// The API server: one Secret whose version grows, and requests that are answered some time after they were sent.
mod fetch {
    use super::*;
    pub(crate) use crate::failure::Failure;
    use crate::plan::{Plan, Replied};
    use crate::snapshot::ResourceVersion;

    #[derive(Clone)]
    pub(crate) struct Fetcher {
        pub(crate) server: Arc<Server>,
        pub(crate) options: FetchOptions,
    }

    pub(crate) struct Metadata {
        pub(crate) uid: Box<str>,
        pub(crate) version: ResourceVersion,
    }

    #[derive(Default)]
    pub(crate) struct Server {
        pub(crate) version: ModelMutex<u64>,
        pub(crate) requests: AtomicUsize,
        pub(crate) in_flight: AtomicUsize,
        pub(crate) most_in_flight: AtomicUsize,
    }

    impl Fetcher {
        pub(crate) fn options(&self) -> &FetchOptions {
            &self.options
        }

        pub(crate) async fn fetch(
            &self,
            secret: &SecretRef,
            sent: Sent,
            _: &Plan,
            _: Instant,
        ) -> Result<Replied, Failure> {
            let server = &self.server;
            server.requests.fetch_add(1, Ordering::SeqCst);
            let in_flight = server.in_flight.fetch_add(1, Ordering::SeqCst) + 1;
            server.most_in_flight.fetch_max(in_flight, Ordering::SeqCst);
            yield_now().await;
            let version = *server.version.lock().expect("no panic while locked");
            yield_now().await;
            server.in_flight.fetch_sub(1, Ordering::SeqCst);
            let found = (version > 0).then(|| {
                let snapshot = SecretSnapshot::builder(secret.clone()).resource_version(version);
                Arc::new(snapshot.build_validated_at(Some(sent.at)))
            });
            let answer = Answer { found, sent };
            let revalidated = false;
            Ok(Replied { answer, revalidated })
        }

        pub(crate) async fn metadata(&self, _: &SecretRef, _: Instant) -> Result<Option<Metadata>, Failure> {
            yield_now().await;
            Ok(None)
        }
    }
}

use self::fetch::{Fetcher, Server};

/// How often each scenario is run with other interleavings.
const RUNS: usize = 3000;

struct World {
    server: Arc<Server>,
    floors: Floors,
    current: RwLock<Arc<dyn Answers>>,
    direct: Arc<dyn Answers>,
    lru: Arc<dyn Answers>,
}

impl World {
    fn new() -> Arc<Self> {
        let server = Arc::new(Server::default());
        let fetcher = Fetcher {
            server: Arc::clone(&server),
            options: FetchOptions::default(),
        };
        let flights = Flights::new(fetcher, Arc::new(()));
        let direct: Arc<dyn Answers> = Arc::new(DirectReads::new(Arc::clone(&flights)));
        let lru: Arc<dyn Answers> = Arc::new(LruReads::new(flights, LruOptions::default(), Arc::new(())));
        Arc::new(Self {
            server,
            floors: Floors::new(16),
            current: RwLock::new(Arc::clone(&lru)),
            direct,
            lru,
        })
    }

    fn write(&self) -> u64 {
        let mut version = self.server.version.lock().expect("no panic while locked");
        *version += 1;
        *version
    }

    fn written(&self) -> u64 {
        *self.server.version.lock().expect("no panic while locked")
    }

    fn set(&self, mode: &Arc<dyn Answers>) {
        *self.current.write().expect("no panic while locked") = Arc::clone(mode);
    }

    /// What `Front::read` does, without its deadline and its probe.
    async fn read(&self, want: &Want) -> u64 {
        let secret = secret();
        let began = Instant::now();
        let mode = Arc::clone(&*self.current.read().expect("no panic while locked"));
        let asked = |anew| Asked { began, anew, want };
        if let Some(served) = mode.at_hand(&secret, asked(false))
            && self.floors.pass(&secret, &served.answer).is_some()
        {
            return version(&served);
        }
        let floor = self.floors.floor(&secret);
        let mut served = mode.answer(&secret, asked(false)).await.expect("the server answers");
        if !floor.admits(&served.answer) {
            served = mode.answer(&secret, asked(true)).await.expect("the server answers");
            assert!(floor.admits(&served.answer), "asked anew, it is never older");
        }
        self.floors.record(&secret, &served.answer);
        version(&served)
    }
}

/// Runs a scenario many times, each with other interleavings.
fn modelled(scenario: fn()) {
    self::sync::MODELLED.set(true);
    shuttle::check_random(scenario, RUNS);
}

fn secret() -> SecretRef {
    SecretRef::new("ns", "s").expect("valid")
}

fn version(served: &Served) -> u64 {
    let found = served.answer.found.as_ref();
    found.map_or(0, |found| found.resource_version().number())
}

fn all(tasks: Vec<JoinHandle<()>>) {
    block_on(async {
        for task in tasks {
            task.await.expect("no task is cancelled");
        }
    });
}

fn share_one_request() {
    let world = World::new();
    world.write();
    let readers = (0..4).map(|_| {
        let world = Arc::clone(&world);
        shuttle::future::spawn(async move {
            assert_eq!(world.read(&Want::default()).await, 1);
        })
    });
    all(readers.collect());
    assert_eq!(world.server.requests.load(Ordering::SeqCst), 1);
}

fn never_join_what_was_sent() {
    let world = World::new();
    let readers = (0..4).map(|_| {
        let world = Arc::clone(&world);
        shuttle::future::spawn(async move {
            let written = world.write();
            assert!(
                world.read(&Want::quorum()).await >= written,
                "a read sees its own write"
            );
        })
    });
    all(readers.collect());
    assert!(world.server.most_in_flight.load(Ordering::SeqCst) <= 2);
}

fn never_go_back() {
    let world = World::new();
    world.write();
    let mut tasks: Vec<_> = (0..3)
        .map(|number| {
            let world = Arc::clone(&world);
            shuttle::future::spawn(async move {
                let mut last = 0;
                for round in 0..3 {
                    let quorum = (number + round) % 2 == 0;
                    let before = world.written();
                    let want = if quorum { Want::quorum() } else { Want::default() };
                    let read = world.read(&want).await;
                    assert!(read >= last, "{read} after {last}");
                    assert!(!quorum || read >= before, "a quorum sees what was written before");
                    last = read;
                }
            })
        })
        .collect();
    let switching = Arc::clone(&world);
    tasks.push(shuttle::future::spawn(async move {
        for mode in [&switching.direct, &switching.lru, &switching.direct] {
            switching.set(mode);
            switching.write();
            yield_now().await;
        }
    }));
    // Whoever gives up leaves nobody behind who waits for it.
    let hasty = Arc::clone(&world);
    tasks.push(shuttle::future::spawn(async move {
        for polls in 0..3 {
            let want = Want::quorum();
            let mut read = Box::pin(hasty.read(&want));
            for _ in 0..polls {
                if futures_poll(&mut read).await.is_ready() {
                    break;
                }
                yield_now().await;
            }
        }
    }));
    all(tasks);
    assert!(world.server.most_in_flight.load(Ordering::SeqCst) <= 2);
}

/// Polls once.
async fn futures_poll<F: Future + Unpin>(future: &mut F) -> std::task::Poll<F::Output> {
    std::future::poll_fn(|context| std::task::Poll::Ready(std::pin::Pin::new(&mut *future).poll(context))).await
}

/// The control: a cache that forgets to compare versions is found out.
fn forgetful_cache() {
    let world = World::new();
    world.write();
    let held = Arc::new(ModelMutex::new(0));
    let tasks = (0..2).map(|_| {
        let (world, held) = (Arc::clone(&world), Arc::clone(&held));
        shuttle::future::spawn(async move {
            let mut last = 0;
            for _ in 0..2 {
                world.write();
                let read = world.written();
                yield_now().await;
                // Whoever is last wins, whatever it read.
                *held.lock().expect("no panic while locked") = read;
                yield_now().await;
                let now = *held.lock().expect("no panic while locked");
                assert!(now >= last.max(read), "went back");
                last = now;
            }
        })
    });
    all(tasks.collect());
}

#[test]
fn readers_content_with_an_age_share_one_request() {
    modelled(share_one_request);
}

#[test]
fn readers_that_demand_a_quorum_never_join_what_was_sent() {
    modelled(never_join_what_was_sent);
}

#[test]
fn no_reader_goes_back_while_modes_change_and_readers_give_up() {
    modelled(never_go_back);
}

#[test]
#[should_panic(expected = "went back")]
fn the_model_finds_a_reader_that_goes_back() {
    modelled(forgetful_cache);
}
