//! The mode `watch`.
//!
//! A selection of Secrets is listed once and kept current by watches. What is held answers reads as long as the watch is
//! healthy; everything else is read as in the mode `lru`: Secrets outside the selection, Secrets that are not there, and all
//! of them while the watch is not healthy. So the store is never asked whether a Secret exists, only what it holds.

mod announcer;
mod follow;
mod health;
mod shared;
mod store;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::{AbortHandle, JoinSet};

use self::announcer::Announcer;
use self::follow::Follower;
use self::health::{Health, Rests, Setback, Why};
use self::shared::Shared;
use crate::access::BoxFuture;
use crate::answer::{Answer, Answers, Asked, Sent, Served};
use crate::changes::Seen;
use crate::error::ReadError;
use crate::fetch::stream::Scope;
use crate::flight::Flights;
use crate::mode::Mode;
use crate::options::WatchOptions;
use crate::probe::{CacheSize, Probe};
use crate::purge::{Purge, Purged};
use crate::secret_ref::SecretRef;
use crate::snapshot::{ResourceVersion, Source};
use crate::want::Freshness;

/// Told what the watch sees, in order for each Secret. Called from the watch's tasks: it must not block.
pub(crate) type Sighted = Arc<dyn Fn(Sighting<'_>) + Send + Sync>;

/// Something that a watch saw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Sighting<'a> {
    Seen {
        secret: &'a SecretRef,
        seen: Seen,
        /// Where the cluster's history stood. Unknown for a Secret that is gone where labels select, because it may only
        /// have lost its label.
        as_of: Option<ResourceVersion>,
    },
    /// A list is over: of what is selected in this namespace (or in all of them), everything was told that is there, and
    /// everything that was told before and is not there any more.
    Resynced { namespace: Option<&'a str> },
}

/// The watch alone: answers what it can, and leaves the rest to others.
pub(crate) struct Watch {
    shared: Arc<Shared>,
    start: Start,
    task: Mutex<Option<AbortHandle>>,
}

/// What the task is made of.
#[derive(Clone)]
struct Start {
    shared: Arc<Shared>,
    flights: Arc<Flights>,
    options: Arc<WatchOptions>,
    scopes: Arc<[Arc<Scope>]>,
    announcer: Arc<Announcer>,
}

impl Watch {
    /// Begins at once where there is a runtime, and with the first read otherwise.
    pub(crate) fn new(
        flights: Arc<Flights>,
        options: WatchOptions,
        probe: Arc<dyn Probe>,
        sighted: Option<Sighted>,
    ) -> Self {
        let scopes: Arc<[Arc<Scope>]> = Scope::all_of(&options).into_iter().map(Arc::new).collect();
        let shared = Arc::new(Shared::new(scopes.len(), &options, sighted));
        let announcer = Arc::new(Announcer::new(probe, scopes.len()));
        let watch = Self {
            shared: Arc::clone(&shared),
            start: Start {
                shared,
                flights,
                options: Arc::new(options),
                scopes,
                announcer,
            },
            task: Mutex::default(),
        };
        if tokio::runtime::Handle::try_current().is_ok() {
            watch.start();
        }
        watch
    }

    /// Begins, unless it has begun. Only within a runtime.
    pub(crate) fn start(&self) {
        let mut task = self.task.lock().unwrap_or_else(PoisonError::into_inner);
        // A task that is over was shut down with its runtime.
        if task.as_ref().is_none_or(AbortHandle::is_finished) {
            *task = Some(tokio::spawn(run(self.start.clone())).abort_handle());
        }
    }

    /// The answer, if the watch may give it.
    pub(crate) fn at_hand(&self, secret: &SecretRef, asked: Asked<'_>) -> Option<Served> {
        if asked.anew {
            return None;
        }
        let at_least = match asked.want.freshness() {
            Freshness::Mode | Freshness::Cached => None,
            Freshness::AtLeast(version) => Some(version),
            // A watch proves nothing about now.
            Freshness::Quorum | Freshness::AtMost(_) => return None,
        };
        let answer = self.shared.held(secret)?;
        let version = answer.found.as_ref().map(|found| found.resource_version());
        (version >= at_least).then_some(Served {
            answer,
            source: Source::Watch,
        })
    }

    /// Whether what others offer is older than what the watch has told.
    pub(crate) fn outdates(&self, secret: &SecretRef, served: &Served) -> bool {
        let found = served.answer.found.as_ref().map(|found| found.resource_version());
        found.is_some() && found < self.known(secret)
    }

    /// The latest version that the watch told of, be it that of a deletion.
    fn known(&self, secret: &SecretRef) -> Option<ResourceVersion> {
        self.shared.known(secret)
    }

    /// Drops what is held, and begins anew.
    pub(crate) fn rewind(&self) {
        self.shared.stop(Health::Broken(Why::Rewound));
        self.shared.rewound.notify_one();
    }

    /// Drops what is held if that is all of everything; the watch begins again after
    /// [`WatchOptions::retry_denied_after`]. To drop a part would only make requests of its reads.
    pub(crate) fn purge(&self, level: Purge) -> Purged {
        if level < Purge::All {
            return Purged::default();
        }
        let size = self.shared.stop(Health::Purged);
        self.shared.purged.notify_one();
        Purged {
            entries: size.entries,
            bytes: size.bytes,
        }
    }

    /// Holds at most so many bytes from now on, and no more than configured. A watch that holds more already is ended like by
    /// [`Watch::purge`]; one that comes to hold more has found too much.
    pub(crate) fn squeeze(&self, max_bytes: usize) -> Purged {
        if self.shared.squeeze(max_bytes) {
            return Purged::default();
        }
        self.purge(Purge::All)
    }

    /// See [`Answers::watched`].
    pub(crate) fn watched(&self, secret: &SecretRef) -> Option<Answer> {
        self.shared.held(secret)
    }

    /// See [`Answers::confirm`].
    pub(crate) fn confirm(&self, secret: &SecretRef, uid: &str, version: ResourceVersion, sent: Sent) {
        self.shared.confirm(secret, uid, version, sent);
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut task = self.task.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(task) = task.take() {
            task.abort();
        }
        drop(task);
        // The task is gone soon; what it held is gone now.
        self.shared.stop(Health::Purged);
    }
}

/// The mode itself: the watch, and another mode for all that the watch does not answer.
pub(crate) struct WatchReads {
    mode: Mode,
    watch: Watch,
    otherwise: Arc<dyn Answers>,
}

impl WatchReads {
    /// A watch before `otherwise`, which together are the mode `mode`.
    pub(crate) fn new(mode: Mode, watch: Watch, otherwise: Arc<dyn Answers>) -> Self {
        Self { mode, watch, otherwise }
    }
}

impl Answers for WatchReads {
    fn mode(&self) -> Mode {
        self.mode
    }

    fn at_hand(&self, secret: &SecretRef, asked: Asked<'_>) -> Option<Served> {
        self.watch.at_hand(secret, asked).or_else(|| {
            let served = self.otherwise.at_hand(secret, asked)?;
            (!self.watch.outdates(secret, &served)).then_some(served)
        })
    }

    fn answer<'a>(&'a self, secret: &'a SecretRef, asked: Asked<'a>) -> BoxFuture<'a, Result<Served, ReadError>> {
        Box::pin(async move {
            self.watch.start();
            if let Some(served) = self.watch.at_hand(secret, asked) {
                return Ok(served);
            }
            let served = self.otherwise.answer(secret, asked).await?;
            if !self.watch.outdates(secret, &served) || asked.want.freshness() == Freshness::Cached {
                return Ok(served);
            }
            // A copy from before the watch told that there is something later.
            let known = self.watch.known(secret);
            let served = self.otherwise.answer(secret, Asked { anew: true, ..asked }).await?;
            let found = served.answer.found.as_ref().map(|found| found.resource_version());
            if found.is_some() && found < known {
                // Requested later, and yet older than what was known: the watch told of a history that is lost.
                self.watch.rewind();
            }
            Ok(served)
        })
    }

    fn purge(&self, level: Purge) -> Purged {
        self.watch.purge(level) + self.otherwise.purge(level)
    }

    fn squeeze(&self, max_bytes: usize) -> Purged {
        self.watch.squeeze(max_bytes) + self.otherwise.squeeze(max_bytes)
    }

    fn held(&self) -> CacheSize {
        self.watch.shared.size() + self.otherwise.held()
    }

    fn watched(&self, secret: &SecretRef) -> Option<Answer> {
        self.watch.watched(secret)
    }

    fn confirm(&self, secret: &SecretRef, uid: &str, version: ResourceVersion, sent: Sent) {
        self.watch.confirm(secret, uid, version, sent);
        self.otherwise.confirm(secret, uid, version, sent);
    }
}

/// Drops what is held, so that no read is answered from it.
struct Ended(Arc<Shared>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.stop(Health::Purged);
    }
}

/// All scopes, until too much is found; and again after a rest.
async fn run(start: Start) {
    let Start { shared, options, .. } = &start;
    // Nothing keeps what is held current any more when this ends, be it with its runtime.
    let _ended = Ended(Arc::clone(shared));
    let mut rests = Rests::new(options.retry_denied_after);
    let mut percent = 100;
    loop {
        let setback = tokio::select! {
            setback = follow_all(&start, percent) => setback,
            () = shared.purged.notified() => Setback::Stopped,
            () = shared.rewound.notified() => Setback::Rewound,
        };
        if shared.take_accepted() {
            rests.reset();
            percent = 100;
        }
        let rest = match setback {
            Setback::TooMuch(crossed) => {
                shared.stop(Health::TooMuch(crossed));
                start.announcer.too_much(crossed);
                percent = options.return_below_percent;
                rests.next()
            }
            Setback::Rewound => {
                tracing::warn!("resource versions went backwards: was the cluster restored from a backup?");
                shared.stop(Health::Broken(Why::Rewound));
                Duration::ZERO
            }
            // Purged: whoever did it has stopped everything.
            Setback::Stopped | Setback::Expired | Setback::Denied | Setback::Broken { .. } => {
                options.retry_denied_after
            }
        };
        tokio::select! {
            () = tokio::time::sleep(rest) => {}
            // Whoever found out while this was stopping already.
            () = shared.rewound.notified() => {}
        }
        // What was purged during the rest is no reason to rest again.
        tokio::select! {
            biased;
            () = shared.purged.notified() => {}
            () = std::future::ready(()) => {}
        }
    }
}

/// All scopes, each in a task of its own, until one says that all have to stop.
async fn follow_all(start: &Start, percent: u8) -> Setback {
    let epoch = start.shared.start(percent);
    // Dropping it ends the tasks.
    let mut tasks = JoinSet::new();
    for (index, scope) in start.scopes.iter().enumerate() {
        let follower = Follower {
            shared: Arc::clone(&start.shared),
            flights: Arc::clone(&start.flights),
            options: Arc::clone(&start.options),
            announcer: Arc::clone(&start.announcer),
            scope: Arc::clone(scope),
            index,
            epoch,
        };
        tasks.spawn(follower.follow());
    }
    if let Some(Ok(setback)) = tasks.join_next().await {
        return setback;
    }
    // A panic of the probe's or of whoever is told. Begun anew like after a purge.
    start.shared.stop(Health::Purged);
    Setback::Stopped
}
