//! The mode `lru`.

mod store;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use kube::Client;
use tokio::time::Instant;

use self::store::{Removed, Store};
use crate::access::{BoxFuture, ReadResult, SecretAccess};
use crate::answer::{Answer, Answers, Asked, Freshness, Served};
use crate::error::ReadError;
use crate::fetch::Fetcher;
use crate::flight::{Flights, Joined, Sink};
use crate::front::{Front, floors_for};
use crate::mode::Mode;
use crate::options::{AccessOptions, FetchOptions, InvalidOptions, LruOptions};
use crate::probe::Probe;
use crate::secret_ref::SecretRef;
use crate::snapshot::Source;

/// Secrets that were read are kept for a while, within hard bounds on entries, bytes and age.
///
/// A read is answered from memory if the content was current at some moment within the last
/// [`max_age`](LruOptions::max_age), and by a request otherwise. Concurrent reads of one Secret share one request. An
/// absence is remembered for [`negative_age`](LruOptions::negative_age).
///
/// The least recently used entries make room for new ones. Content too old is removed within a quarter of the age, read or
/// not, and wiped once no reader holds it.
///
/// A cache smaller than what is read in a loop hits next to nothing, because each entry is evicted just before its turn. Use
/// [`Auto`](crate::Auto) where that may happen.
///
/// Needs the right to `get` the Secrets it is asked for.
pub struct Lru {
    front: Front,
    reads: LruReads,
    deadline: Duration,
}

impl Lru {
    /// Reads with the identity of `client`, which must not retry: see [`client`](crate::client).
    ///
    /// # Errors
    ///
    /// The first option that is out of its range.
    pub fn new(
        client: Client,
        fetch: FetchOptions,
        lru: LruOptions,
        probe: Arc<dyn Probe>,
    ) -> Result<Self, InvalidOptions> {
        fetch.validate()?;
        lru.validate()?;
        let options = AccessOptions {
            fetch,
            lru,
            ..AccessOptions::for_mode(Mode::Lru)
        };
        let deadline = options.fetch.deadline;
        let front = Front::new(floors_for(&options), Arc::clone(&probe));
        let flights = Flights::new(Fetcher::new(client, options.fetch), Arc::clone(&probe));
        Ok(Self {
            front,
            reads: LruReads::new(flights, options.lru, probe),
            deadline,
        })
    }
}

impl SecretAccess for Lru {
    fn read<'a>(&'a self, secret: &'a SecretRef) -> BoxFuture<'a, ReadResult> {
        Box::pin(self.front.read(&self.reads, self.deadline, secret))
    }
}

impl fmt::Debug for Lru {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lru").finish_non_exhaustive()
    }
}

/// The mode itself.
pub(crate) struct LruReads {
    flights: Arc<Flights>,
    cache: Arc<Cache>,
    sink: Sink,
}

impl LruReads {
    pub(crate) fn new(flights: Arc<Flights>, options: LruOptions, probe: Arc<dyn Probe>) -> Self {
        let cache = Arc::new(Cache {
            max_age: options.max_age,
            state: Mutex::new(State {
                store: Store::new(options),
                swept: false,
            }),
            probe,
        });
        // A request in flight does not keep a cache alive that nobody reads from any more.
        let weak = Arc::downgrade(&cache);
        let sink: Sink = Arc::new(move |secret, answer| {
            if let Some(cache) = weak.upgrade() {
                cache.insert(secret, answer);
            }
        });
        Self { flights, cache, sink }
    }

    /// Empties the cache and keeps it empty until [`LruReads::open`].
    pub(crate) fn close(&self) {
        self.cache.change(Store::close);
    }

    /// Caches again.
    pub(crate) fn open(&self) {
        self.cache.lock().store.open();
    }
}

impl Answers for LruReads {
    fn mode(&self) -> Mode {
        Mode::Lru
    }

    fn answer<'a>(&'a self, secret: &'a SecretRef, asked: Asked) -> BoxFuture<'a, Result<Served, ReadError>> {
        Box::pin(async move {
            let hit = |answer| Served {
                answer,
                source: Source::Cache,
            };
            let freshness = if asked.anew {
                Freshness::New
            } else {
                if let Some(answer) = self.cache.look_up(secret, asked.began) {
                    return Ok(hit(answer));
                }
                Freshness::Since {
                    since: asked.began,
                    max_age: self.cache.max_age,
                }
            };
            let boarded = self.flights.board(secret, freshness);
            // A request may have been answered since the look-up. Its answer was cached before others could no longer join
            // it, so whoever did not join finds it now.
            if !asked.anew
                && boarded.joined() == Joined::Nobody
                && let Some(answer) = self.cache.look_up(secret, asked.began)
            {
                return Ok(hit(answer));
            }
            let joined = boarded.joined();
            let answer = match boarded.answer(Mode::Lru, Some(&self.sink)).await {
                // The deadline of a request sent before this read began: this read's own has time left.
                Err(ReadError::Timeout { .. }) if joined == Joined::Sent => {
                    let boarded = self.flights.board(secret, Freshness::New);
                    boarded.answer(Mode::Lru, Some(&self.sink)).await?
                }
                result => result?,
            };
            // Again, in case a read of another mode sent the request.
            self.cache.insert(secret, &answer);
            Ok(Served {
                answer,
                source: Source::Api,
            })
        })
    }
}

struct Cache {
    max_age: Duration,
    state: Mutex<State>,
    probe: Arc<dyn Probe>,
}

struct State {
    store: Store,
    /// Whether a task removes what is too old.
    swept: bool,
}

impl Cache {
    fn look_up(&self, secret: &SecretRef, began: Instant) -> Option<Answer> {
        let mut removed = Removed::default();
        let mut state = self.lock();
        let answer = state.store.look_up(secret, began, &mut removed);
        if !removed.reasons().is_empty() {
            self.probe.cache_size(state.store.size());
        }
        drop(state);
        self.report(&removed);
        answer
    }

    fn insert(self: &Arc<Self>, secret: &SecretRef, answer: &Answer) {
        self.change(|store| store.insert(secret, answer, Instant::now()));
        let mut state = self.lock();
        if !state.swept && !state.store.is_empty() {
            state.swept = true;
            drop(state);
            tokio::spawn(sweep(Sweeper(Arc::downgrade(self)), self.max_age / 4));
        }
    }

    fn change(&self, change: impl FnOnce(&mut Store) -> Removed) {
        let mut state = self.lock();
        let before = state.store.size();
        let removed = change(&mut state.store);
        let after = state.store.size();
        if before != after {
            self.probe.cache_size(after);
        }
        drop(state);
        self.report(&removed);
    }

    fn report(&self, removed: &Removed) {
        for reason in removed.reasons() {
            self.probe.evicted(*reason);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic in the probe is the only way to poison it, and leaves the store whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Marks the cache as not swept when its task ends, be it with the runtime.
struct Sweeper(Weak<Cache>);

impl Drop for Sweeper {
    fn drop(&mut self) {
        if let Some(cache) = self.0.upgrade() {
            cache.lock().swept = false;
        }
    }
}

/// Removes what is too old, so that clear text does not stay just because nobody asks for it. Ends when nothing is left.
async fn sweep(mut sweeper: Sweeper, pause: Duration) {
    loop {
        tokio::time::sleep(pause).await;
        let Some(cache) = sweeper.0.upgrade() else {
            return;
        };
        cache.change(|store| store.expire(Instant::now()));
        let mut state = cache.lock();
        if state.store.is_empty() {
            // Under the lock, so that the next insertion starts another task, whose mark is not this one's to remove.
            state.swept = false;
            sweeper.0 = Weak::new();
            return;
        }
    }
}
