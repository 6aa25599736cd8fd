//! The access a binary holds: its mode can be changed while it is in use.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use kube::Client;

use crate::access::{BoxFuture, ReadResult, SecretAccess};
use crate::answer::Answers;
use crate::auto::AutoReads;
use crate::direct::DirectReads;
use crate::fetch::Fetcher;
use crate::flight::Flights;
use crate::front::{Front, floors_for};
use crate::lru::LruReads;
use crate::mode::Mode;
use crate::options::{AccessOptions, InvalidOptions};
use crate::probe::Probe;
use crate::secret_ref::SecretRef;

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
/// use kube_secret_access::{AccessOptions, Mode, SecretAccess, SecretRef, Switch};
///
/// # async fn example(config: kube::Config) -> Result<(), Box<dyn std::error::Error>> {
/// let client = kube_secret_access::client(config)?;
/// let secrets = Switch::new(client, AccessOptions::default())?;
/// let s3 = SecretRef::new("models", "s3-credentials")?;
/// let first = secrets.read(&s3).await?;
/// secrets.set(AccessOptions::for_mode(Mode::Direct))?;
/// let second = secrets.read(&s3).await?;
/// assert!(second.resource_version() >= first.resource_version());
/// # Ok(())
/// # }
/// ```
pub struct Switch {
    client: Client,
    front: Front,
    current: RwLock<Current>,
}

/// What is in force. Cheap to clone: each read takes one along.
#[derive(Clone)]
struct Current {
    reads: Arc<dyn Answers>,
    flights: Arc<Flights>,
    options: Arc<AccessOptions>,
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
        let front = Front::new(floors_for(&options), Arc::clone(&probe));
        let flights = Flights::new(Fetcher::new(client.clone(), options.fetch.clone()), probe);
        let current = RwLock::new(Current::new(flights, options, front.probe()));
        Ok(Self { client, front, current })
    }

    /// Puts other options into force. The same options again change nothing, and keep the cache.
    ///
    /// # Errors
    ///
    /// The first option that is out of its range; then everything stays as it was.
    pub fn set(&self, options: AccessOptions) -> Result<(), InvalidOptions> {
        options.validate()?;
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        if *current.options == options {
            return Ok(());
        }
        // Shared across modes as long as possible: the bound on requests in flight is one for old and new together.
        let flights = if current.options.fetch == options.fetch {
            Arc::clone(&current.flights)
        } else {
            let fetcher = Fetcher::new(self.client.clone(), options.fetch.clone());
            Flights::new(fetcher, Arc::clone(self.front.probe()))
        };
        self.front.resize(floors_for(&options));
        let next = Current::new(flights, options, self.front.probe());
        let old = std::mem::replace(&mut *current, next);
        let (from, to) = (old.options.mode, current.options.mode);
        drop(current);
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
        AccessOptions::clone(&self.current().options)
    }

    fn current(&self) -> Current {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Current {
    fn new(flights: Arc<Flights>, options: AccessOptions, probe: &Arc<dyn Probe>) -> Self {
        let reads: Arc<dyn Answers> = match options.mode {
            Mode::Direct => Arc::new(DirectReads::new(Arc::clone(&flights))),
            Mode::Lru => Arc::new(LruReads::new(
                Arc::clone(&flights),
                options.lru.clone(),
                Arc::clone(probe),
            )),
            Mode::Auto => Arc::new(AutoReads::new(&flights, &options, Arc::clone(probe))),
        };
        Self {
            reads,
            flights,
            options: Arc::new(options),
        }
    }

    fn deadline(&self) -> Duration {
        self.options.fetch.deadline
    }
}

impl SecretAccess for Switch {
    fn read<'a>(&'a self, secret: &'a SecretRef) -> BoxFuture<'a, ReadResult> {
        Box::pin(async move {
            let current = self.current();
            self.front.read(&*current.reads, current.deadline(), secret).await
        })
    }
}

impl fmt::Debug for Switch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Switch")
            .field("mode", &self.mode())
            .finish_non_exhaustive()
    }
}
