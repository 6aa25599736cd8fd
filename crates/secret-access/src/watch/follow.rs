//! One scope: its lists and watches, one after the other.
//!
//! ```text
//!              ┌──────────── expired ────────────┐
//!              v                                 │
//!   begin ──> list ──> watch ──> renewed ──> watch ...
//!              ^         │ broken: wait, from the last version
//!              └ denied ─┴ denied: forget, wait long
//! ```

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::announcer::Announcer;
use super::health::{Health, Pace, Setback, Why};
use super::shared::{Epoch, Shared};
use super::store::{Listing, ScopeIndex};
use crate::answer::Sent;
use crate::failure::Failure;
use crate::fetch::stream::{self, Listed, Scope, Stream, Told};
use crate::fetch::{Ended, Event, no_fields};
use crate::flight::Flights;
use crate::options::WatchOptions;
use crate::secret_ref::SecretRef;
use crate::snapshot::ResourceVersion;
use crate::want::Fields;

/// How much longer than announced a watch may be silent. The API server ends a watch on time, within a second or two.
const GRACE: Duration = Duration::from_secs(5);

/// How long after a gap a watch is given to tell what happened meanwhile. The API server sends that at once, and says
/// nothing when it is done.
const CATCH_UP: Duration = Duration::from_secs(1);

/// A watch that ends sooner than this without a word does not count as one that works.
const LEAST_LASTING: Duration = Duration::from_secs(1);

/// The most time for all of a list.
const LONGEST_LIST: Duration = Duration::from_secs(600);

/// Keeps one scope current until something stops it.
pub(super) struct Follower {
    pub(super) shared: Arc<Shared>,
    pub(super) flights: Arc<Flights>,
    pub(super) options: Arc<WatchOptions>,
    pub(super) announcer: Arc<Announcer>,
    pub(super) scope: Arc<Scope>,
    pub(super) index: ScopeIndex,
    pub(super) epoch: Epoch,
}

/// How far it has come.
struct Progress {
    /// The list that the watch goes on from, and the version up to which everything was told.
    position: Option<(Listing, ResourceVersion)>,
    /// The last version that was ever told: a list that shows less is of another history.
    latest: Option<ResourceVersion>,
    streaming: bool,
    /// Whether the last watch told nothing, or did not end when it should have. API servers send a bookmark before they end
    /// one, so who knows what happened.
    suspicious: bool,
    pace: Pace,
}

impl Follower {
    /// Goes on until everything has to stop, and tells why.
    pub(super) async fn follow(self) -> Setback {
        let mut progress = Progress {
            position: None,
            latest: None,
            streaming: self.options.streaming,
            suspicious: false,
            pace: Pace::default(),
        };
        loop {
            let step = match progress.position {
                None => self.list(&mut progress).await,
                Some((listing, from)) => self.watch(&mut progress, listing, from).await,
            };
            let stopped = match step {
                Ok(()) => continue,
                Err(setback) => self.recover(&mut progress, setback).await,
            };
            if let Err(setback) = stopped {
                return setback;
            }
        }
    }

    /// Waits after a setback, or says that this is the end.
    async fn recover(&self, progress: &mut Progress, setback: Setback) -> Result<(), Setback> {
        let wait = match setback {
            Setback::TooMuch(_) | Setback::Stopped | Setback::Rewound => return Err(setback),
            Setback::Expired => {
                progress.position = None;
                self.set_health(Health::Syncing)?;
                progress.pace.next(None, fastrand::f64())
            }
            Setback::Denied => {
                progress.position = None;
                self.shared.forget(self.epoch, self.index, Health::Denied)?;
                self.announcer.denied(self.index);
                self.options.retry_denied_after
            }
            Setback::Broken { why, retry_after } => {
                progress.suspicious = true;
                self.set_health(Health::Broken(why))?;
                tracing::debug!(
                    ?why,
                    "the watch of Secrets is broken; their reads are requests until it is back"
                );
                progress.pace.next(retry_after, fastrand::f64())
            }
        };
        sleep(wait).await;
        Ok(())
    }

    fn set_health(&self, health: Health) -> Result<(), Setback> {
        self.shared.set_health(self.epoch, self.index, health)
    }

    /// Lists everything.
    async fn list(&self, progress: &mut Progress) -> Result<(), Setback> {
        let listed = timeout(LONGEST_LIST, self.listed(progress)).await;
        let (listing, version) = listed.unwrap_or(Err(Setback::silent()))?;
        if progress.latest.is_some_and(|latest| version < latest) {
            return Err(Setback::Rewound);
        }
        progress.latest = Some(version);
        progress.position = Some((listing, version));
        let all = self
            .shared
            .listed(self.epoch, listing, version, self.scope.namespace())?;
        self.announcer.listed(self.index, all, self.shared.size());
        Ok(())
    }

    async fn listed(&self, progress: &mut Progress) -> Result<(Listing, ResourceVersion), Setback> {
        let fields = Fields::default();
        let fetcher = self.flights.fetcher();
        if progress.streaming {
            let listing = self.shared.begin(self.epoch, self.index, Sent::now())?;
            match fetcher.streamed_list(&self.scope, &fields).await {
                Ok(stream) => match self.streamed(stream, listing).await {
                    Ok(version) => return Ok((listing, version)),
                    Err(setback) => {
                        // A server that knows nothing of it may begin an ordinary watch instead, whose list has no end.
                        progress.streaming = !matches!(setback, Setback::Broken { why: Why::Silent, .. });
                        return Err(setback);
                    }
                },
                Err(failure) if stream::refuses_streaming(failure) => progress.streaming = false,
                Err(failure) => return Err(Setback::of(failure)),
            }
        }
        // All pages show the moment of the first one.
        let listing = self.shared.begin(self.epoch, self.index, Sent::now())?;
        let mut continue_: Option<Box<str>> = None;
        loop {
            let limit = self.options.page_size;
            let page = fetcher.page(&self.scope, limit, continue_.as_deref(), &fields).await;
            let Listed {
                version,
                continue_: more,
            } = self.paged(page.map_err(Setback::of)?, listing).await?;
            if more.is_none() {
                return Ok((listing, version));
            }
            continue_ = more;
        }
    }

    /// Reads a streamed list up to the bookmark that ends it.
    async fn streamed(&self, mut stream: Stream, listing: Listing) -> Result<ResourceVersion, Setback> {
        loop {
            match self.told(&mut stream).await? {
                Told::Event(Event::Bookmark {
                    version,
                    initial_events_end: true,
                }) => return Ok(version),
                Told::Event(event) => {
                    self.apply(event, listing)?;
                }
                Told::Listed(_) | Told::Over => return Err(ended()),
            }
        }
    }

    /// Reads a page up to its end.
    async fn paged(&self, mut stream: Stream, listing: Listing) -> Result<Listed, Setback> {
        loop {
            match self.told(&mut stream).await? {
                Told::Event(event) => {
                    self.apply(event, listing)?;
                }
                Told::Listed(listed) => return Ok(listed),
                Told::Over => return Err(ended()),
            }
        }
    }

    /// What comes next, within the time after which a watch is dead.
    async fn told(&self, stream: &mut Stream) -> Result<Told, Setback> {
        let silence = timeout(self.options.heartbeat + GRACE, stream.next()).await;
        silence.map_err(|_| Setback::silent())?.map_err(Setback::of)
    }

    /// Watches until it is time for the next watch.
    async fn watch(&self, progress: &mut Progress, listing: Listing, from: ResourceVersion) -> Result<(), Setback> {
        let heartbeat = self.options.heartbeat;
        let fields = Fields::default();
        let suspicious = progress.suspicious;
        let mut opening = pin!(async {
            if suspicious {
                self.verify(from).await?;
            }
            let watch = self.flights.fetcher().watch(&self.scope, from, heartbeat, &fields);
            watch.await.map_err(Setback::of)
        });
        let stream = if let Ok(stream) = timeout(GRACE, opening.as_mut()).await {
            stream
        } else {
            // Nobody watches meanwhile.
            self.set_health(Health::Broken(Why::Silent))?;
            opening.await
        };
        let mut stream = stream?;
        let opened = Instant::now();
        // Until it tells something.
        progress.suspicious = true;
        // A watch is over by then, or nobody is there to end it.
        let dead = opened + heartbeat + GRACE;
        let mut behind = self.shared.health(self.index) != Health::Healthy;
        let mut position = from;
        loop {
            let until = if behind { opened + CATCH_UP } else { dead };
            let Ok(told) = timeout_at(until, stream.next()).await else {
                if behind {
                    behind = false;
                    self.set_health(Health::Healthy)?;
                    continue;
                }
                return Err(Setback::silent());
            };
            let event = match told.map_err(Setback::of)? {
                Told::Event(event) => event,
                Told::Over => {
                    if opened.elapsed() >= LEAST_LASTING {
                        progress.pace.reset();
                    }
                    let on_time = opened.elapsed() + GRACE >= heartbeat;
                    return if on_time { Ok(()) } else { Err(ended()) };
                }
                Told::Listed(_) => return Err(ended()),
            };
            let bookmark = if let Event::Bookmark { version, .. } = event {
                if version < from {
                    return Err(Setback::Rewound);
                }
                true
            } else {
                false
            };
            if let Some(version) = self.apply(event, listing)? {
                position = position.max(version);
                progress.position = Some((listing, position));
                progress.latest = progress.latest.max(Some(position));
                progress.suspicious = false;
                progress.pace.reset();
            }
            if bookmark && behind {
                behind = false;
                self.set_health(Health::Healthy)?;
            }
        }
    }

    /// Makes sure that the cluster has reached a version. When it was restored from a backup, an API server accepts a watch
    /// from a version that it has not reached, and tells nothing until it has.
    async fn verify(&self, version: ResourceVersion) -> Result<(), Setback> {
        let mut page = match self.flights.fetcher().page(&self.scope, 1, None, &no_fields()).await {
            Ok(page) => page,
            // The right to watch is enough for everything else.
            Err(Failure::Forbidden) => return Ok(()),
            Err(failure) => return Err(Setback::of(failure)),
        };
        loop {
            match self.told(&mut page).await? {
                Told::Event(_) => {}
                Told::Listed(listed) if listed.version < version => return Err(Setback::Rewound),
                Told::Listed(_) | Told::Over => return Ok(()),
            }
        }
    }

    /// Takes note of an event. Yields its version, up to which everything was told.
    fn apply(&self, event: Event, listing: Listing) -> Result<Option<ResourceVersion>, Setback> {
        match event {
            Event::Present(builder, metadata) => {
                let snapshot = builder.build_validated_at(Some(listing.sent.at));
                self.within_scope(snapshot.secret())?;
                self.shared.present(self.epoch, &snapshot, listing)?;
                Ok(Some(metadata.version))
            }
            Event::Gone(secret, metadata) => {
                self.within_scope(&secret)?;
                self.shared.gone(self.epoch, &secret, metadata.version)?;
                Ok(Some(metadata.version))
            }
            Event::Unusable {
                secret,
                version,
                problem,
            } => {
                tracing::warn!(%secret, problem, "a Secret cannot be held by the watch: it is requested when it is read");
                self.shared.unusable(self.epoch, &secret, version)?;
                Ok(version)
            }
            Event::Bookmark { version, .. } => Ok(Some(version)),
            Event::Ends(Ended {
                code,
                expired,
                retry_after,
            }) => Err(self.ends(code, expired, retry_after)),
        }
    }

    /// What it means that the server ended a watch with a `Status`.
    fn ends(&self, code: u16, expired: bool, retry_after: Option<Duration>) -> Setback {
        use crate::error::ReadErrorKind;
        let most = self.flights.fetcher().options().max_retry_after;
        let retry_after = retry_after.map(|wait| wait.min(most));
        let kind = match code {
            _ if expired => return Setback::Expired,
            403 => return Setback::Denied,
            401 => ReadErrorKind::Unauthorized,
            429 => ReadErrorKind::Throttled,
            _ => ReadErrorKind::Unavailable,
        };
        Setback::Broken {
            why: Why::Failed(kind),
            retry_after,
        }
    }

    /// Whoever answers with Secrets that were not asked for is not to be believed.
    fn within_scope(&self, secret: &SecretRef) -> Result<(), Setback> {
        use crate::error::ReadErrorKind;
        let within = self
            .scope
            .namespace()
            .is_none_or(|namespace| namespace == secret.namespace());
        within.then_some(()).ok_or(Setback::Broken {
            why: Why::Failed(ReadErrorKind::Malformed),
            retry_after: None,
        })
    }
}

fn ended() -> Setback {
    Setback::Broken {
        why: Why::Ended,
        retry_after: None,
    }
}
