//! The mode `direct`.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use kube::Client;

use crate::access::{BoxFuture, ReadResult, SecretAccess};
use crate::answer::{Answers, Asked, Freshness, Served};
use crate::error::ReadError;
use crate::fetch::Fetcher;
use crate::flight::Flights;
use crate::front::Front;
use crate::mode::Mode;
use crate::options::{FetchOptions, InvalidOptions};
use crate::probe::Probe;
use crate::secret_ref::SecretRef;
use crate::snapshot::Source;

/// One GET a read, and nothing kept.
///
/// Reads are linearizable: each sees every write that was committed before it began. Readers of one Secret that wait for
/// their turn share one request, but none joins a request that was sent before it came, so at most two requests for one
/// Secret are in flight.
///
/// Memory is what the answers on their way take: at most [`max_in_flight`](FetchOptions::max_in_flight) bodies of
/// [`max_body_bytes`](FetchOptions::max_body_bytes), each beside the values decoded from it for a moment.
///
/// Needs the right to `get` the Secrets it is asked for.
pub struct Direct {
    front: Front,
    reads: DirectReads,
    deadline: Duration,
}

impl Direct {
    /// Reads with the identity of `client`, which must not retry: see [`client`](crate::client).
    ///
    /// # Errors
    ///
    /// The first option that is out of its range.
    pub fn new(client: Client, options: FetchOptions, probe: Arc<dyn Probe>) -> Result<Self, InvalidOptions> {
        options.validate()?;
        let deadline = options.deadline;
        let flights = Flights::new(Fetcher::new(client, options), Arc::clone(&probe));
        Ok(Self {
            // Every read asks anew, so there is nothing an older answer could come from. One floor is the least there is.
            front: Front::new(1, probe),
            reads: DirectReads::new(flights),
            deadline,
        })
    }
}

impl SecretAccess for Direct {
    fn read<'a>(&'a self, secret: &'a SecretRef) -> BoxFuture<'a, ReadResult> {
        Box::pin(self.front.read(&self.reads, self.deadline, secret))
    }
}

impl fmt::Debug for Direct {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Direct").finish_non_exhaustive()
    }
}

/// The mode itself.
pub(crate) struct DirectReads {
    flights: Arc<Flights>,
}

impl DirectReads {
    pub(crate) fn new(flights: Arc<Flights>) -> Self {
        Self { flights }
    }
}

impl Answers for DirectReads {
    fn mode(&self) -> Mode {
        Mode::Direct
    }

    fn answer<'a>(&'a self, secret: &'a SecretRef, _: Asked) -> BoxFuture<'a, Result<Served, ReadError>> {
        Box::pin(async move {
            let answer = self
                .flights
                .board(secret, Freshness::New)
                .answer(Mode::Direct, None)
                .await?;
            Ok(Served {
                answer,
                source: Source::Api,
            })
        })
    }
}
