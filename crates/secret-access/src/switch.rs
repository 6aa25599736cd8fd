//! The access a binary holds: its mode can be changed while it is in use.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use kube::Client;
use tokio::time::Instant;

use crate::access::{BoxFuture, ReadResult, SecretAccess};
use crate::answer::{Answers, Observe};
use crate::auto::AutoReads;
use crate::changes::{Ask, Asking, Changes, ObjectRef, Observation, TrackGuard, Tracker};
use crate::direct::DirectReads;
use crate::fetch::Fetcher;
use crate::flight::Flights;
use crate::floors::Floors;
use crate::front::{Front, floors_for};
use crate::lru::LruReads;
use crate::mode::Mode;
use crate::options::{AccessOptions, InvalidOptions};
use crate::probe::{CacheSize, Probe};
use crate::purge::{Purge, Purged};
use crate::secret_ref::SecretRef;
use crate::squeeze::Squeeze;
use crate::want::Want;
use crate::watch::{Sighted, Sighting, Watch, WatchReads};

/// Reads Secrets in a mode that can be changed at any time.
///
/// # Guarantees
///
/// Beside those of [`SecretAccess`]:
///
/// - [`set`](Switch::set) takes effect for every read that begins after it returns. Reads in progress end in the mode they
///   began in; none fails because of the change.
/// - No read goes back in time across a change: whatever was returned in the old mode, the new one returns the same
///   version or a later one. A read whose first answer would be older asks the API server again.
/// - Nothing is older than the age of the mode in force when the read began.
///
/// # Assumptions
///
/// Versions of Secrets come from one etcd, whose revisions only grow; deleting and creating a Secret anew raises its
/// version too. When the cluster is restored from a backup, versions jump back. A request that is sent later and brings a
/// lower version is how that shows; the API server's word is then taken over what was seen before, all that was read
/// from the lost history is requested anew, and [`Probe::cluster_rewound`] is told.
///
/// # Caveats
///
/// A change starts with an empty cache. The old mode's cache is freed when the last read in progress ends.
///
/// ```no_run
/// use kube_secret_access::{AccessOptions, Mode, SecretAccess, SecretRef, Switch, Want};
///
/// # async fn example(config: kube::Config) -> Result<(), Box<dyn std::error::Error>> {
/// let client = kube_secret_access::client(config)?;
/// let secrets = Switch::new(client, AccessOptions::default())?;
/// let s3 = SecretRef::new("models", "s3-credentials")?;
/// let first = secrets.read(&s3, Want::default()).await?;
/// secrets.set(AccessOptions::for_mode(Mode::Direct))?;
/// let second = secrets.read(&s3, Want::default()).await?;
/// assert!(second.resource_version() >= first.resource_version());
/// # Ok(())
/// # }
/// ```
pub struct Switch {
    client: Client,
    floors: Arc<Floors>,
    front: Front,
    tracker: Arc<Tracker>,
    /// Each read takes a reference along.
    current: Arc<RwLock<Arc<Current>>>,
    /// In force whatever the mode. Held while that changes, so that neither change misses the other.
    squeeze: Mutex<Squeeze>,
}

/// What is in force.
struct Current {
    reads: Arc<dyn Answers>,
    flights: Arc<Flights>,
    options: AccessOptions,
}

impl Switch {
    /// Reads with the identity of `client`, which must not retry: see [`client`](crate::client).
    ///
    /// # Errors
    ///
    /// The first option that is out of its range.
    pub fn new(client: Client, options: AccessOptions) -> Result<Self, InvalidOptions> {
        Self::with_probe(client, options, Arc::new(()))
    }

    /// The same, and tells `probe` what happens.
    ///
    /// # Errors
    ///
    /// The first option that is out of its range.
    pub fn with_probe(client: Client, options: AccessOptions, probe: Arc<dyn Probe>) -> Result<Self, InvalidOptions> {
        options.validate()?;
        let floors = Arc::new(Floors::new(floors_for(&options)));
        let tracker = Tracker::new(Arc::clone(&floors), Arc::clone(&probe), &options);
        let observer: Arc<dyn Observe> = tracker.clone();
        let front = Front::new(Arc::clone(&floors), observer, Arc::clone(&probe));
        let flights = Flights::new(Fetcher::new(client.clone(), options.fetch.clone()), probe);
        let current = Arc::new(RwLock::new(Arc::new(Current::new(
            flights,
            options,
            front.probe(),
            &tracker,
        ))));
        Ok(Self {
            client,
            floors,
            front,
            tracker,
            current,
            squeeze: Mutex::default(),
        })
    }

    /// Watches over a Secret on behalf of `owner`, until the guard is dropped. References are counted: the same owner may
    /// refer to the same Secret several times.
    ///
    /// # Guarantees
    ///
    /// - What changes from now on is told to all subscribers of [`Switch::changes`], with `owner` among the owners. So an
    ///   owner that tracks a Secret and *then* reads it misses nothing.
    /// - An owner that reads a Secret and then tracks it misses nothing either: changes are told from what a read through
    ///   this access returned last. (Should somebody else have read something newer in between, then from that. Where
    ///   several owners share Secrets, track first.)
    /// - Without any read before, the first look tells from what changes are told; it is taken at once.
    /// - References outlive changes of the mode.
    ///
    /// # Caveats
    ///
    /// What was read is remembered for about twice as many Secrets as a cache may hold, and for 4096 at least. Tracking a
    /// Secret whose last read is forgotten is like tracking one that was never read.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime, if nothing was tracked before.
    pub fn track(&self, secret: SecretRef, owner: ObjectRef) -> TrackGuard {
        let (guard, start) = TrackGuard::new(&self.tracker, secret, owner);
        if let Some(number) = start {
            self.tracker.start(number, self.ask());
        }
        guard
    }

    /// What happens to tracked Secrets from now on.
    pub fn changes(&self) -> Changes {
        Changes::new(&self.tracker)
    }

    /// The most time from a change of a tracked Secret until it is told, as things stand.
    ///
    /// With the right to `get` alone that is [`poll_interval`](crate::ChangeOptions::poll_interval), or (n + 1) /
    /// [`max_polls_per_second`](crate::ChangeOptions::max_polls_per_second) for n tracked Secrets if that is longer, and
    /// [`FetchOptions::deadline`](crate::FetchOptions::deadline) for the answer. Mostly it is far less: half the interval on
    /// average, `fast_poll_interval` where something has changed lately, and milliseconds where a watch tells.
    ///
    /// # Assumptions
    ///
    /// - The API server answers: each poll within the deadline, and on average fast enough for 4 at a time to keep up with
    ///   `max_polls_per_second`. While it refuses, throttles or is silent, nothing is noticed.
    /// - With so many Secrets that (n + 1) / `max_polls_per_second` is about `poll_interval` or more, the time a poll takes
    ///   comes on top of it.
    /// - Reads leave a free slot among [`FetchOptions::max_in_flight`](crate::FetchOptions::max_in_flight).
    /// - The runtime wakes the background task in time.
    /// - A watch that is taken for healthy is: a broken one is noticed
    ///   [`WatchOptions::heartbeat`](crate::WatchOptions::heartbeat) and 5 s after it fell silent, and polls begin then.
    /// - When Secrets or options are added, the longer of the delays before and after holds for one more round.
    #[must_use]
    pub fn change_delay(&self) -> Duration {
        self.tracker.delay()
    }

    /// What the background task asks with. It keeps nothing of this access alive.
    fn ask(&self) -> Ask {
        let current = Arc::downgrade(&self.current);
        let probe = Arc::downgrade(self.front.probe());
        Arc::new(move || {
            let (current, probe) = (current.upgrade()?, probe.upgrade()?);
            let current = Arc::clone(&current.read().unwrap_or_else(PoisonError::into_inner));
            Some(Asking {
                reads: Arc::clone(&current.reads),
                flights: Arc::clone(&current.flights),
                options: current.options.clone(),
                probe,
            })
        })
    }

    /// Puts other options into force. The same options again change nothing, and keep the cache.
    ///
    /// # Errors
    ///
    /// The first option that is out of its range; then everything stays as it was.
    pub fn set(&self, options: AccessOptions) -> Result<(), InvalidOptions> {
        options.validate()?;
        let squeeze = self.squeezed();
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        if current.options == options {
            return Ok(());
        }
        // Shared across modes as long as possible: the bound on requests in flight is one for old and new together.
        let flights = if current.options.fetch == options.fetch {
            Arc::clone(&current.flights)
        } else {
            let fetcher = Fetcher::new(self.client.clone(), options.fetch.clone());
            Flights::new(fetcher, Arc::clone(self.front.probe()))
        };
        self.floors.resize(floors_for(&options));
        self.tracker.configure(&options);
        let next = Arc::new(Current::new(flights, options, self.front.probe(), &self.tracker));
        next.squeeze(*squeeze);
        let old = std::mem::replace(&mut *current, next);
        let (from, to) = (old.options.mode, current.options.mode);
        drop(current);
        drop(squeeze);
        // Wiping a big cache takes a moment: not under the lock.
        drop(old);
        self.front.probe().switched(from, to);
        Ok(())
    }

    /// The mode in force.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.current().options.mode
    }

    /// The options in force.
    #[must_use]
    pub fn options(&self) -> AccessOptions {
        self.current().options.clone()
    }

    /// Drops part of what is held, for when memory is short, and says how much that was.
    ///
    /// Values are wiped at once, unless readers still hold them, and their memory goes back to the allocator. Whether it
    /// goes back to the operating system is the allocator's business: with jemalloc set `dirty_decay_ms` to a second or so,
    /// with glibc call `malloc_trim`.
    ///
    /// ```no_run
    /// # fn example(secrets: &kube_secret_access::Switch) {
    /// let purged = secrets.purge(kube_secret_access::Purge::Half);
    /// println!("dropped {} entries of {} bytes", purged.entries, purged.bytes);
    /// # }
    /// ```
    #[allow(clippy::must_use_candidate, reason = "called for what it drops")]
    pub fn purge(&self, level: Purge) -> Purged {
        self.current().reads.purge(level)
    }

    /// Makes do with less until further notice, for when memory is short, and says what that dropped. [`Squeeze::NONE`] goes
    /// back to the options. Stays in force when [`Switch::set`] changes them.
    ///
    /// - What is cached beyond [`Squeeze::max_bytes`] goes at once, the less valuable first, and with 0 nothing is kept any
    ///   more. Answers are as fresh as ever; there are just more requests.
    /// - A watch that holds more is ended, as by [`Purge::All`]; what it held is read by name until it is begun
    ///   again, after [`WatchOptions::retry_denied_after`](crate::WatchOptions::retry_denied_after).
    /// - Big answers wait for each other or are not taken at all, as [`Bodies`](crate::Bodies) says.
    ///
    /// Not to be called by a [`Probe`] that is being told something.
    ///
    /// ```no_run
    /// # fn example(secrets: &kube_secret_access::Switch) {
    /// use kube_secret_access::{Bodies, Squeeze};
    ///
    /// secrets.squeeze(Squeeze::new(1 << 20, Bodies::OneBig));
    /// // When there is enough memory again:
    /// secrets.squeeze(Squeeze::NONE);
    /// # }
    /// ```
    #[allow(clippy::must_use_candidate, reason = "called for what it drops")]
    pub fn squeeze(&self, squeeze: Squeeze) -> Purged {
        let mut squeezed = self.squeezed();
        *squeezed = squeeze;
        self.current().squeeze(squeeze)
    }

    /// What is held at the moment, by cache and watch together.
    #[must_use]
    pub fn held(&self) -> CacheSize {
        self.current().reads.held()
    }

    fn squeezed(&self) -> MutexGuard<'_, Squeeze> {
        self.squeeze.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn current(&self) -> Arc<Current> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Current {
    fn new(flights: Arc<Flights>, options: AccessOptions, probe: &Arc<dyn Probe>, tracker: &Arc<Tracker>) -> Self {
        let lru = || LruReads::new(Arc::clone(&flights), options.lru.clone(), Arc::clone(probe));
        let auto = || AutoReads::new(&flights, &options, Arc::clone(probe));
        let watch = || {
            let sighted = Some(sighted(tracker));
            Watch::new(Arc::clone(&flights), options.watch.clone(), Arc::clone(probe), sighted)
        };
        let reads: Arc<dyn Answers> = match options.mode {
            Mode::Direct => Arc::new(DirectReads::new(Arc::clone(&flights))),
            Mode::Lru => Arc::new(lru()),
            Mode::Watch => Arc::new(WatchReads::new(Mode::Watch, watch(), Arc::new(lru()))),
            Mode::Auto if options.auto.watch => Arc::new(WatchReads::new(Mode::Auto, watch(), Arc::new(auto()))),
            Mode::Auto => Arc::new(auto()),
        };
        Self {
            reads,
            flights,
            options,
        }
    }

    fn squeeze(&self, squeeze: Squeeze) -> Purged {
        self.flights.fetcher().squeeze(squeeze.bodies());
        self.reads.squeeze(squeeze.max_bytes())
    }

    /// The shorter of the mode's and the reader's own.
    fn deadline(&self, want: &Want) -> Duration {
        let deadline = self.options.fetch.deadline;
        want.deadline().map_or(deadline, |own| own.min(deadline))
    }
}

/// Tells the tracker what a watch sees.
fn sighted(tracker: &Arc<Tracker>) -> Sighted {
    let tracker = Arc::downgrade(tracker);
    Arc::new(move |sighting| {
        let Some(tracker) = tracker.upgrade() else {
            return;
        };
        match sighting {
            Sighting::Seen { secret, seen, as_of } => tracker.observe(secret, &Observation::told(seen, as_of)),
            Sighting::Resynced { .. } => tracker.resynced(),
        }
    })
}

impl SecretAccess for Switch {
    fn read<'a>(&'a self, secret: &'a SecretRef, want: Want) -> BoxFuture<'a, ReadResult> {
        let began = Instant::now();
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        // Most reads are answered from memory: those need no state of a future, and no count of a reference.
        if let Some(result) = self.front.at_hand(&*current.reads, began, secret, &want) {
            return Box::pin(std::future::ready(result));
        }
        let current = Arc::clone(&current);
        Box::pin(async move {
            let deadline = current.deadline(&want);
            self.front.read(&*current.reads, began, deadline, secret, &want).await
        })
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        self.tracker.close();
    }
}

impl fmt::Debug for Switch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Switch")
            .field("mode", &self.mode())
            .finish_non_exhaustive()
    }
}
