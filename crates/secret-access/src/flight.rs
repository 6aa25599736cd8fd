//! Requests shared by readers.
//!
//! All readers of one Secret that can be served by one request are. A reader says how old the request may be (see
//! [`Recency`]): a reader that wants a fresh answer shares with others that wait to send, never with a request already
//! sent. Readers who come while one is on its way gather behind it, and at most two for one Secret are in flight: the second
//! is sent beside the first if that takes long. Until it is sent, a
//! request takes on what each reader that joins needs: its fields, and a quorum if one of them demands it.
//!
//! ```text
//!            first reader           a slot of this Secret
//!            of its kind            and of all is free          answered
//!     (none) ───────────> gathering ─────────────────────> sent ────────> done
//!                             ^                              ^
//!                    any reader joins          only readers join that
//!                                              take a request this old
//! ```
//!
//! Nothing is queued here: each reader waits for the slots in its own future, and the first to have both sends for all
//! that gathered. A request that was sent runs in a task of its own, so it survives its readers; there are never more
//! such tasks than slots.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit, watch};
use tokio::time::Instant;

use crate::answer::{Answer, Recency, Sent};
use crate::error::{ReadError, ReadErrorKind, UnavailableCause};
use crate::failure::Failure;
use crate::fetch::{Fetcher, Metadata};
use crate::mode::Mode;
use crate::plan::{Plan, Replied};
use crate::probe::{FinishedRequest, Probe};
use crate::retry::Budget;
use crate::secret_ref::SecretRef;
use crate::snapshot::SecretSnapshot;
use crate::sync::{Mutex, MutexGuard, PoisonError, sleep, spawn};
use crate::want::Fields;

/// How long readers gather behind a request for the same Secret before theirs is sent beside it: then there are two in
/// flight, which is the most. A healthy API server answers sooner, and one request serves all that gathered meanwhile.
const OVERTAKE_AFTER: Duration = Duration::from_millis(100);

const OPEN: &str = "no semaphore of this module is ever closed";

/// Is handed the answer of a request as soon as it is there, whether or not a reader still waits for it.
pub(crate) type Sink = Arc<dyn Fn(&SecretRef, &Answer) + Send + Sync>;

/// Shares requests between readers, and bounds them.
pub(crate) struct Flights {
    fetcher: Fetcher,
    slots: Arc<Semaphore>,
    by_secret: Mutex<HashMap<SecretRef, Entry>>,
    retries: Mutex<Budget>,
    probe: Arc<dyn Probe>,
}

/// What is going on about one Secret.
struct Entry {
    /// Readers and requests that refer to this entry. It is removed when the last one leaves.
    seats: usize,
    gathering: Option<(Arc<Flight>, Plan)>,
    /// The request sent last, until it is answered. The one before it may still be on its way; nobody joins it any more.
    sent: Option<(Arc<Flight>, Plan)>,
    slots: Arc<Slots>,
}

/// What bounds the requests for one Secret.
struct Slots {
    first: Arc<Semaphore>,
    /// For a request beside one that takes long.
    second: Arc<Semaphore>,
}

/// One request, planned, sent or answered.
struct Flight(watch::Sender<Phase>);

#[derive(Clone)]
enum Phase {
    Gathering,
    Sent(Sent),
    Done(Result<Replied, ReadError>),
}

impl Flights {
    pub(crate) fn new(fetcher: Fetcher, probe: Arc<dyn Probe>) -> Arc<Self> {
        let options = fetcher.options();
        let slots = Arc::new(Semaphore::new(options.max_in_flight));
        let retries = Mutex::new(Budget::new(&options.retry));
        Arc::new(Self {
            fetcher,
            slots,
            by_secret: Mutex::default(),
            retries,
            probe,
        })
    }

    pub(crate) fn fetcher(&self) -> &Fetcher {
        &self.fetcher
    }

    /// Finds a request to wait for that is recent enough and brings these fields, or plans one. `base` is a copy in memory
    /// that may save fetching the content again.
    pub(crate) fn board(
        self: &Arc<Self>,
        secret: &SecretRef,
        recency: Recency,
        fields: &Fields,
        base: Option<Arc<SecretSnapshot>>,
    ) -> Boarded {
        let mut by_secret = self.lock();
        let entry = by_secret.entry(secret.clone()).or_insert_with(|| Entry {
            seats: 0,
            gathering: None,
            sent: None,
            slots: Arc::new(Slots {
                first: Arc::new(Semaphore::new(1)),
                second: Arc::new(Semaphore::new(1)),
            }),
        });
        entry.seats += 1;
        let recent = entry.sent.as_ref().filter(|(flight, plan)| match *flight.0.borrow() {
            Phase::Sent(sent) => plan.fields.covers(fields) && plan.serves(recency, sent),
            Phase::Gathering | Phase::Done(_) => false,
        });
        let (flight, joined) = if let Some((flight, _)) = recent {
            (Arc::clone(flight), Joined::Sent)
        } else if let Some((flight, plan)) = &mut entry.gathering {
            plan.take_on(recency, fields, base);
            (Arc::clone(flight), Joined::Gathering)
        } else {
            let flight = Arc::new(Flight(watch::Sender::new(Phase::Gathering)));
            entry.gathering = Some((Arc::clone(&flight), Plan::new(recency, fields, base)));
            (flight, Joined::Nobody)
        };
        let slots = Arc::clone(&entry.slots);
        drop(by_secret);
        let seat = Seat {
            flights: Arc::clone(self),
            secret: secret.clone(),
        };
        Boarded {
            seat,
            flight,
            joined,
            slots,
        }
    }

    /// Sends what `flight` plans, unless another reader just did.
    fn send(
        self: &Arc<Self>,
        secret: &SecretRef,
        flight: &Arc<Flight>,
        slots: [OwnedSemaphorePermit; 2],
        sink: Option<Sink>,
    ) {
        let mut by_secret = self.lock();
        let entry = by_secret.get_mut(secret).expect("the caller has a seat");
        let planned = entry.gathering.take_if(|(gathering, _)| Arc::ptr_eq(gathering, flight));
        let Some((_, plan)) = planned else {
            return;
        };
        entry.sent = Some((Arc::clone(flight), plan.clone()));
        entry.seats += 1;
        // Under the lock: from here on nobody joins who needs a newer request than this.
        let sent = Sent::now();
        flight.0.send_replace(Phase::Sent(sent));
        drop(by_secret);

        let landing = Landing {
            seat: Seat {
                flights: Arc::clone(self),
                secret: secret.clone(),
            },
            flight: Arc::clone(flight),
            result: Err(abandoned(secret)),
            sink,
        };
        spawn(async move {
            let mut landing = landing;
            let Seat { flights, secret } = &landing.seat;
            let result = flights.fetch(secret, sent, &plan).await;
            landing.result = result.map_err(|failure| failure.named(secret.clone()));
            drop(landing);
            drop(slots);
        });
    }

    /// Sends the request, and sends it again while that makes sense and its deadline allows.
    async fn fetch(&self, secret: &SecretRef, sent: Sent, plan: &Plan) -> Result<Replied, Failure> {
        let options = self.fetcher.options();
        let deadline = sent.at + options.deadline;
        self.budget().earn(&options.retry);
        let mut retries = 0;
        loop {
            let began = Instant::now();
            let result = self.fetcher.fetch(secret, sent, plan, deadline).await;
            self.probe.request_finished(&FinishedRequest {
                error: match &result {
                    Ok(replied) => replied.answer.found.is_none().then_some(ReadErrorKind::NotFound),
                    Err(failure) => Some(failure.kind()),
                },
                elapsed: began.elapsed(),
            });
            let Err(failure) = result else {
                return result;
            };
            let left = deadline.saturating_duration_since(Instant::now());
            let wait = self
                .budget()
                .wait(failure, retries, left, fastrand::f64(), &options.retry);
            let Some(wait) = wait else {
                return Err(failure);
            };
            retries += 1;
            sleep(wait).await;
        }
    }

    /// The metadata of one Secret as of now, or that there is none. Waits for a slot like every request.
    pub(crate) async fn metadata(&self, secret: &SecretRef) -> (Sent, Result<Option<Metadata>, Failure>) {
        let _slot = self.slot().await;
        let sent = Sent::now();
        let deadline = sent.at + self.fetcher.options().deadline;
        (sent, self.fetcher.metadata(secret, deadline).await)
    }

    /// Waits for a slot, for a request of another kind.
    pub(crate) async fn slot(&self) -> SemaphorePermit<'_> {
        self.slots.acquire().await.expect(OPEN)
    }

    fn budget(&self) -> MutexGuard<'_, Budget> {
        // A number: consistent whatever panicked.
        self.retries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<SecretRef, Entry>> {
        // Entries are consistent after every statement that could panic.
        self.by_secret.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn abandoned(secret: &SecretRef) -> ReadError {
    Failure::Unavailable(UnavailableCause::Abandoned, None).named(secret.clone())
}

/// Whom a reader found when it came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Joined {
    /// Nobody: the reader planned the request.
    Nobody,
    /// Others that wait to send it.
    Gathering,
    /// Others that wait for the answer.
    Sent,
}

/// A reader's place on a request.
pub(crate) struct Boarded {
    seat: Seat,
    flight: Arc<Flight>,
    joined: Joined,
    slots: Arc<Slots>,
}

impl Boarded {
    /// Whom the reader shares the request with so far.
    pub(crate) fn joined(&self) -> Joined {
        self.joined
    }

    /// Waits for the answer, and sends the request when it is this reader's turn to. Then `sink` gets the answer too.
    pub(crate) async fn answer(self, mode: Mode, sink: Option<&Sink>) -> Result<Replied, ReadError> {
        let Seat { flights, secret } = &self.seat;
        if self.joined != Joined::Nobody {
            flights.probe.flight_joined(mode);
        }
        let mut phase = self.flight.0.subscribe();
        let gathering = matches!(*phase.borrow(), Phase::Gathering);
        if gathering {
            tokio::select! {
                biased;
                // Somebody else sent it.
                _ = phase.wait_for(|phase| !matches!(phase, Phase::Gathering)) => {}
                slots = self.free_slots() => flights.send(secret, &self.flight, slots, sink.cloned()),
            }
        }
        match phase.wait_for(|phase| matches!(phase, Phase::Done(_))).await.as_deref() {
            Ok(Phase::Done(result)) => result.clone(),
            // The sender lives in `flight`, which this reader holds, and sending always ends in `Done`.
            Ok(Phase::Gathering | Phase::Sent(_)) | Err(_) => Err(abandoned(secret)),
        }
    }

    /// Waits until the request may be sent. In this order: a Secret that nobody answers for must not take the slots of
    /// others while its readers gather.
    async fn free_slots(&self) -> [OwnedSemaphorePermit; 2] {
        let Slots { first, second } = &*self.slots;
        let overtaking = async {
            sleep(OVERTAKE_AFTER).await;
            Arc::clone(second).acquire_owned().await
        };
        let of_secret = tokio::select! {
            biased;
            slot = Arc::clone(first).acquire_owned() => slot,
            slot = overtaking => slot,
        };
        let of_secret = of_secret.expect(OPEN);
        let of_all = Arc::clone(&self.seat.flights.slots).acquire_owned().await.expect(OPEN);
        [of_secret, of_all]
    }
}

/// Keeps the entry of a Secret alive.
struct Seat {
    flights: Arc<Flights>,
    secret: SecretRef,
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut by_secret = self.flights.lock();
        if let Some(entry) = by_secret.get_mut(&self.secret) {
            entry.seats -= 1;
            if entry.seats == 0 {
                by_secret.remove(&self.secret);
            }
        }
    }
}

/// Ends a request that was sent, however its task ends: answered, by a panic, or with its runtime.
struct Landing {
    seat: Seat,
    flight: Arc<Flight>,
    result: Result<Replied, ReadError>,
    sink: Option<Sink>,
}

impl Drop for Landing {
    fn drop(&mut self) {
        // The cache before the readers: a read that begins after another one returned must find what that one saw.
        if let (Some(sink), Ok(replied)) = (&self.sink, &self.result) {
            sink(&self.seat.secret, &replied.answer);
        }
        let mut by_secret = self.seat.flights.lock();
        if let Some(entry) = by_secret.get_mut(&self.seat.secret)
            && entry
                .sent
                .as_ref()
                .is_some_and(|(sent, _)| Arc::ptr_eq(sent, &self.flight))
        {
            entry.sent = None;
        }
        drop(by_secret);
        let result = std::mem::replace(&mut self.result, Err(abandoned(&self.seat.secret)));
        self.flight.0.send_replace(Phase::Done(result));
    }
}
