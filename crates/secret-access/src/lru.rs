//! The mode `lru`.

mod store;

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::time::Instant;

use self::store::{Removed, Store};
use crate::access::BoxFuture;
use crate::answer::{Answer, Answers, Asked, Recency, Sent, Served};
use crate::error::{ReadError, ReadErrorKind};
use crate::flight::{Boarded, Flights, Joined, Sink};
use crate::mode::Mode;
use crate::options::LruOptions;
use crate::probe::{CacheSize, Probe};
use crate::purge::{Purge, Purged};
use crate::route::{self, LookUp};
use crate::secret_ref::SecretRef;
use crate::snapshot::ResourceVersion;
use crate::sync::{Mutex, MutexGuard, PoisonError, sleep, spawn};
use crate::want::{Fields, Freshness};

/// The mode itself: Secrets that were read are kept for a while, within hard bounds.
pub(crate) struct LruReads {
    flights: Arc<Flights>,
    cache: Arc<Cache>,
    sink: Sink,
}

impl LruReads {
    pub(crate) fn new(flights: Arc<Flights>, options: LruOptions, probe: Arc<dyn Probe>) -> Self {
        let cache = Arc::new(Cache {
            options: options.clone(),
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

    /// What to do about a read, as things stand.
    fn look_up(&self, secret: &SecretRef, asked: Asked<'_>) -> LookUp {
        let held = self.cache.held(secret, asked.began);
        route::look_up(held, asked, &self.cache.options)
    }

    fn board(&self, secret: &SecretRef, recency: Recency, fields: &Fields, base: Option<&Answer>) -> Boarded {
        let base = base.and_then(|base| base.found.clone());
        self.flights.board(secret, recency, fields, base)
    }

    async fn requested(
        &self,
        secret: &SecretRef,
        asked: Asked<'_>,
        recency: Recency,
        held: Option<&Answer>,
    ) -> Result<Served, ReadError> {
        let fields = match held.and_then(|held| held.found.as_deref()) {
            // Or two readers with different needs would take turns at evicting each other's copy.
            Some(found) => &found.fields().union(asked.want.fields()),
            None => asked.want.fields(),
        };
        let boarded = self.board(secret, recency, fields, held);
        // A request may have been answered since the look-up. Its answer was cached before others could no longer join it,
        // so whoever did not join finds it now: also who gathers with a reader that just found it, and sends nothing.
        if boarded.joined() != Joined::Sent
            && let LookUp::Serve(served) = self.look_up(secret, asked)
        {
            return Ok(served);
        }
        let joined = boarded.joined();
        let replied = match boarded.answer(Mode::Lru, Some(&self.sink)).await {
            // The deadline of a request sent before this read began: this read's own has time left.
            Err(ReadError::Timeout { .. }) if joined == Joined::Sent => {
                let boarded = self.board(secret, Recency::New, fields, held);
                boarded.answer(Mode::Lru, Some(&self.sink)).await?
            }
            result => result?,
        };
        // Again, in case a read of another mode sent the request.
        self.cache.insert(secret, &replied.answer);
        Ok(replied.into())
    }

    /// A copy to serve although it is too old, because the API server cannot be reached.
    fn stale(&self, secret: &SecretRef, asked: Asked<'_>, error: &ReadError) -> Option<Served> {
        let unavailable = matches!(
            error.kind(),
            ReadErrorKind::Unavailable | ReadErrorKind::Timeout | ReadErrorKind::Throttled
        );
        let tolerated = unavailable && !asked.anew && asked.want.freshness() == Freshness::Mode;
        let held = tolerated.then(|| self.cache.held(secret, asked.began)).flatten()?;
        route::stale(&held, asked, &self.cache.options)
    }
}

impl Answers for LruReads {
    fn mode(&self) -> Mode {
        Mode::Lru
    }

    fn at_hand(&self, secret: &SecretRef, asked: Asked<'_>) -> Option<Served> {
        match self.look_up(secret, asked) {
            LookUp::Serve(served) => Some(served),
            LookUp::Request { .. } | LookUp::Refuse => None,
        }
    }

    fn answer<'a>(&'a self, secret: &'a SecretRef, asked: Asked<'a>) -> BoxFuture<'a, Result<Served, ReadError>> {
        Box::pin(async move {
            match self.look_up(secret, asked) {
                LookUp::Serve(served) => Ok(served),
                LookUp::Refuse => Err(ReadError::NotCached { secret: secret.clone() }),
                LookUp::Request { recency, held } => {
                    match self.requested(secret, asked, recency, held.as_ref()).await {
                        Ok(served) => Ok(served),
                        Err(error) => self.stale(secret, asked, &error).ok_or(error),
                    }
                }
            }
        })
    }

    fn purge(&self, level: Purge) -> Purged {
        let now = Instant::now();
        self.cache.change(|store| store.purge(level, now))
    }

    fn squeeze(&self, max_bytes: usize) -> Purged {
        self.cache.change(|store| store.squeeze(max_bytes))
    }

    fn held(&self) -> CacheSize {
        self.cache.lock().store.size()
    }

    fn confirm(&self, secret: &SecretRef, uid: &str, version: ResourceVersion, sent: Sent) {
        self.cache.lock().store.confirm(secret, uid, version, sent);
    }
}

struct Cache {
    options: LruOptions,
    state: Mutex<State>,
    probe: Arc<dyn Probe>,
}

struct State {
    store: Store,
    /// Whether a task removes what is not used any more.
    swept: bool,
}

impl Cache {
    fn held(&self, secret: &SecretRef, now: Instant) -> Option<Answer> {
        self.lock().store.held(secret, now)
    }

    fn insert(self: &Arc<Self>, secret: &SecretRef, answer: &Answer) {
        // What is known by its version alone has no age that a later read could be content with.
        if !answer.sent.is_proof() {
            return;
        }
        self.change(|store| store.insert(secret, answer, Instant::now()));
        let mut state = self.lock();
        if !state.swept && !state.store.is_empty() {
            state.swept = true;
            drop(state);
            let pause = self.options.max_age.min(self.options.max_idle) / 4;
            spawn(sweep(Sweeper(Arc::downgrade(self)), pause));
        }
    }

    fn change(&self, change: impl FnOnce(&mut Store) -> Removed) -> Purged {
        let mut state = self.lock();
        let before = state.store.size();
        let removed = change(&mut state.store);
        let after = state.store.size();
        if before != after {
            self.probe.cache_size(after);
        }
        drop(state);
        for reason in removed.reasons() {
            self.probe.evicted(*reason);
        }
        Purged {
            entries: before.entries.saturating_sub(after.entries),
            bytes: before.bytes.saturating_sub(after.bytes),
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

/// Removes what is not used, so that clear text does not stay just because nobody asks for it. Ends when nothing is left.
async fn sweep(mut sweeper: Sweeper, pause: Duration) {
    loop {
        sleep(pause).await;
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
