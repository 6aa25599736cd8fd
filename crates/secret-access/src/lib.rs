//! Kubernetes Secrets read by name, on demand, within hard memory bounds.
//!
//! # The problem
//!
//! A controller that needs a few Secrets is easily made to hold all of them: the usual client caches list and watch every
//! Secret of the cluster the moment one is read. With thousands of Helm releases and certificates about, that is hundreds
//! of megabytes to gigabytes of other tenants' clear text in one process, a burst at each start, and the right to list
//! everything, until the process is killed for its memory.
//!
//! This crate reads the Secrets that are asked for and no others, with the right to `get` alone. Its memory depends on what
//! is read and not on what the cluster holds, and every bound is an option. Where `list` and `watch` are granted it may keep
//! a selection current by a watch, within the same kind of bounds, and gives that up when the selection is too big.
//!
//! # Modes
//!
//! | mode | a read is | memory | rights | pick it when |
//! |---|---|---|---|---|
//! | [`auto`](Mode::Auto) | watched if the rights allow it and the cluster is small; else cached while few Secrets are read; else a request | hard bound | `get`, more if granted | you do not know the cluster, or it may grow |
//! | [`direct`](Mode::Direct) | one request, shared by those who wait to send the same | answers in flight only | `get` | each read must see the latest write, or reads are rare |
//! | [`lru`](Mode::Lru) | answered from memory if recent enough, revalidated or requested otherwise | hard bound | `get` | the same Secrets are read again and again |
//! | [`watch`](Mode::Watch) | answered from what a selective watch delivered; others as in `lru` | hard bound | `get`, `list`, `watch` | a known selection must be at hand, and changes noticed at once |
//!
//! A binary holds a [`Switch`], which is in one of these modes and can be put into another while reads go on. Code that
//! needs Secrets takes a [`SecretAccess`]. Each read can ask for more, or be content with less, than the mode promises: see
//! [`Want`].
//!
//! # Example
//!
//! ```no_run
//! use kube_secret_access::{AccessOptions, Retry, SecretAccess, SecretRef, Switch, Want};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! // Needs one of kube's TLS features in your own Cargo.toml.
//! let config = kube::Config::infer().await?;
//! // This crate's constructor makes a client that does not retry behind your back.
//! let client = kube_secret_access::client(config)?;
//! let secrets = Switch::new(client, AccessOptions::default())?;
//!
//! match secrets.read(&SecretRef::new("models", "s3-credentials")?, Want::default()).await {
//!     Ok(snapshot) => {
//!         let key = snapshot.bytes("AWS_SECRET_ACCESS_KEY").map(|bytes| bytes.as_slice());
//!         # let _ = key;
//!     }
//!     Err(error) => match error.retry() {
//!         Retry::WhenChanged => println!("{error}; looking again at the next resync"),
//!         Retry::Backoff { at_least } => println!("{error}; trying again, not before {at_least:?}"),
//!     },
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # Identities
//!
//! An access holds one client and so one identity. What it read is handed to whoever holds the access; it is never shared
//! between accesses. If your users may see different Secrets, make one access for each identity.
//!
//! # Features and versions
//!
//! No TLS stack and no Kubernetes API version is chosen here. A binary enables one of kube's `rustls-tls` and
//! `openssl-tls`, and one version feature of k8s-openapi; checking this crate alone needs the environment variable
//! `K8S_OPENAPI_ENABLED_VERSION`.

mod access;
mod answer;
mod auto;
mod change;
mod changes;
mod direct;
mod error;
mod failure;
mod fetch;
mod flight;
mod floors;
mod front;
mod heap;
mod lru;
mod mode;
mod moment;
mod options;
mod plan;
mod probe;
mod purge;
mod retry;
mod route;
mod secret_ref;
mod snapshot;
mod squeeze;
mod switch;
mod sync;
mod want;
mod watch;

pub use self::access::{BoxFuture, FnAccess, ReadResult, SecretAccess};
pub use self::change::Change;
pub use self::changes::{Changed, Changes, ObjectRef, TrackGuard};
pub use self::error::{ReadError, ReadErrorKind, Retry, UnavailableCause};
pub use self::fetch::client;
pub use self::mode::{Mode, UnknownMode};
pub use self::options::{
    AccessOptions, AutoOptions, ChangeOptions, ClusterCountOptions, FetchOptions, InvalidOptions, LruOptions,
    RetryOptions, TypeSelector, WatchOptions,
};
pub use self::probe::{CacheSize, ClusterCount, Eviction, FinishedRead, FinishedRequest, Probe, Transition};
pub use self::purge::{Purge, Purged};
pub use self::route::Reason;
pub use self::secret_ref::{InvalidSecretRef, SecretRef};
pub use self::snapshot::{ResourceVersion, SecretBytes, SecretSnapshot, SnapshotBuilder, Source};
pub use self::squeeze::{Bodies, Squeeze};
pub use self::switch::Switch;
pub use self::want::{Freshness, Want};
