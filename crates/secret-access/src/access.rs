//! The trait that readers depend on, and its contract.

use std::pin::Pin;
use std::sync::Arc;

use crate::error::ReadError;
use crate::secret_ref::SecretRef;
use crate::snapshot::SecretSnapshot;

/// A boxed future that may be sent to another thread: what [`SecretAccess::read`] returns.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The result of a read.
pub type ReadResult = Result<Arc<SecretSnapshot>, ReadError>;

/// Reads Secrets by name.
///
/// One required method, and usable as `dyn SecretAccess`, so that code which needs a Secret can be given any mode of this
/// crate, or a fake. [`FnAccess`] makes a fake out of a closure.
///
/// # Guarantees
///
/// These hold for every implementation in this crate.
///
/// - **Freshness.** What is returned was current at some moment after the read began, less the mode's age. In
///   [`Direct`](crate::Direct) the age is zero: a read is linearizable and sees every write that was committed before it
///   began. In [`Lru`](crate::Lru) it is [`LruOptions::max_age`](crate::LruOptions::max_age).
/// - **No way back.** A read never returns an older version of a Secret than any read of the same Secret through the same
///   access returned before it began; a Secret seen deleted is not seen again unless it was created again.
/// - **Deadlines.** A read ends within [`FetchOptions::deadline`](crate::FetchOptions::deadline), waiting included.
/// - **Cancellation.** Dropping the future is always safe. A request that was already sent goes on for the other readers
///   that wait for it, and for the cache, until its own deadline.
/// - **Concurrency.** Any number of reads may run at once. Requests in flight are bounded overall by
///   [`FetchOptions::max_in_flight`](crate::FetchOptions::max_in_flight), and to two for each Secret. Reads beyond that wait
///   in their callers' futures: nothing is queued inside.
/// - **Secrecy.** No value is logged, shown by `Debug` or carried by an error, and all buffers of this crate that held one
///   are wiped. Buffers of the HTTP and TLS stack below are not ours to wipe, apart from those handed to us whole.
///
/// # Assumptions
///
/// - The client retries nothing: see [`client`](crate::client).
/// - One access is one identity. Whoever holds it sees what that identity may see; results are never shared between
///   accesses, and two identities must not share one.
/// - Methods run within a tokio runtime with its time driver enabled.
/// - All API servers behind the client's address use one etcd, so that resource versions can be compared.
///
/// # Caveats
///
/// - Nothing is retried here. [`ReadError::retry`] says what makes sense; the caller has the backoff and the budget.
/// - A revoked right takes effect after the mode's age at the latest, not at once: cached content is not authorized anew.
/// - Snapshots live as long as somebody holds them. A cache's bounds count what it holds, not what callers keep.
///
/// # Errors
///
/// See [`ReadError`]. Errors other than [`NotFound`](ReadError::NotFound) are never cached.
pub trait SecretAccess: Send + Sync {
    /// Reads one Secret.
    fn read<'a>(&'a self, secret: &'a SecretRef) -> BoxFuture<'a, ReadResult>;
}

impl<T: SecretAccess + ?Sized> SecretAccess for Arc<T> {
    fn read<'a>(&'a self, secret: &'a SecretRef) -> BoxFuture<'a, ReadResult> {
        (**self).read(secret)
    }
}

/// A [`SecretAccess`] that asks a closure: a fake for tests.
///
/// ```
/// use std::sync::Arc;
/// use kube_secret_access::{FnAccess, ReadError, SecretAccess, SecretRef, SecretSnapshot};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let access = FnAccess::new(|secret: &SecretRef| match secret.name() {
///     "s3" => Ok(Arc::new(SecretSnapshot::builder(secret.clone()).data("user", b"me".to_vec()).build())),
///     _ => Err(ReadError::NotFound { secret: secret.clone() }),
/// });
/// let snapshot = access.read(&SecretRef::new("models", "s3")?).await?;
/// assert_eq!(snapshot.bytes("user").and_then(|bytes| bytes.as_str()), Some("me"));
/// # Ok(())
/// # }
/// ```
pub struct FnAccess<F>(F);

impl<F> FnAccess<F>
where
    F: Fn(&SecretRef) -> ReadResult + Send + Sync,
{
    /// An access that answers each read with what `answer` returns for it.
    pub fn new(answer: F) -> Self {
        Self(answer)
    }
}

impl<F> SecretAccess for FnAccess<F>
where
    F: Fn(&SecretRef) -> ReadResult + Send + Sync,
{
    fn read<'a>(&'a self, secret: &'a SecretRef) -> BoxFuture<'a, ReadResult> {
        let result = (self.0)(secret);
        Box::pin(std::future::ready(result))
    }
}
