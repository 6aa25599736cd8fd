//! The trait that readers depend on, and its contract.

use std::pin::Pin;
use std::sync::Arc;

use crate::error::ReadError;
use crate::secret_ref::SecretRef;
use crate::snapshot::SecretSnapshot;
use crate::want::Want;

/// A boxed future that may be sent to another thread: what [`SecretAccess::read`] returns.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The result of a read.
pub type ReadResult = Result<Arc<SecretSnapshot>, ReadError>;

/// Reads Secrets by name.
///
/// One required method, and usable as `dyn SecretAccess`, so that code which needs a Secret can be given a
/// [`Switch`](crate::Switch) in any mode, or a fake. [`FnAccess`] makes a fake out of a closure.
///
/// # Guarantees
///
/// These hold for [`Switch`](crate::Switch) in every mode.
///
/// - **Freshness.** What is returned is as fresh as the read's [`Want`] says: see [`Freshness`](crate::Freshness). Without
///   a wish it is as fresh as the mode promises: see [`Mode`](crate::Mode).
/// - **No way back.** A read never returns an older version of a Secret than any read of the same Secret through the same
///   access returned before it began, whatever the mode and whichever API server answers; a Secret seen deleted is not seen
///   again unless it was created again, and one that was is noticed by its uid, immutable or not.
/// - **Deadlines.** A read ends within its own deadline or that of [`FetchOptions::deadline`](crate::FetchOptions::deadline),
///   whichever is shorter, waiting and retries included.
/// - **Cancellation.** Dropping the future is always safe. A request that was already sent goes on for the other readers
///   that wait for it, and for the cache, until its own deadline.
/// - **Concurrency.** Any number of reads may run at once. Requests in flight are bounded overall by
///   [`FetchOptions::max_in_flight`](crate::FetchOptions::max_in_flight) and in bytes by
///   [`FetchOptions::max_bytes_in_flight`](crate::FetchOptions::max_bytes_in_flight), and to two for each Secret. Readers
///   content with an age share one request; readers that demand a quorum share those that are not sent yet. Reads beyond the
///   bounds wait in their callers' futures: nothing is queued inside.
/// - **Secrecy.** No value is logged, shown by `Debug` or carried by an error, and all buffers of this crate that held one
///   are wiped. Keys and annotations that nobody asked for are never copied out of an answer. Buffers of the HTTP and TLS
///   stack below are not ours to wipe, apart from those handed to us whole.
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
/// - A read begins when [`read`](SecretAccess::read) is called, and may be answered from memory there and then.
/// - A few failures are tried again within the deadline, out of a budget: see [`RetryOptions`](crate::RetryOptions). Beyond
///   that, [`ReadError::retry`] says what makes sense.
/// - A revoked right takes effect after the mode's age at the latest, not at once: cached content is not authorized anew.
/// - Snapshots live as long as somebody holds them. A cache's bounds count what it holds, not what callers keep.
///
/// # Errors
///
/// See [`ReadError`]. Errors other than [`NotFound`](ReadError::NotFound) are never cached.
pub trait SecretAccess: Send + Sync {
    /// Reads one Secret as `want` says; [`Want::default`] is what the mode promises.
    fn read<'a>(&'a self, secret: &'a SecretRef, want: Want) -> BoxFuture<'a, ReadResult>;
}

impl<T: SecretAccess + ?Sized> SecretAccess for Arc<T> {
    fn read<'a>(&'a self, secret: &'a SecretRef, want: Want) -> BoxFuture<'a, ReadResult> {
        (**self).read(secret, want)
    }
}

/// A [`SecretAccess`] that asks a closure: a fake for tests. What a reader wants beside the name is not looked at.
///
/// ```
/// use std::sync::Arc;
/// use kube_secret_access::{FnAccess, ReadError, SecretAccess, SecretRef, SecretSnapshot, Want};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let access = FnAccess::new(|secret: &SecretRef| match secret.name() {
///     "s3" => Ok(Arc::new(SecretSnapshot::builder(secret.clone()).data("user", b"me".to_vec()).build())),
///     _ => Err(ReadError::NotFound { secret: secret.clone() }),
/// });
/// let snapshot = access.read(&SecretRef::new("models", "s3")?, Want::default()).await?;
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
    fn read<'a>(&'a self, secret: &'a SecretRef, _: Want) -> BoxFuture<'a, ReadResult> {
        let result = (self.0)(secret);
        Box::pin(std::future::ready(result))
    }
}
