//! Who is let in: permits before anything is read, a bounded number that waits for them, and bytes.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicUsize, Ordering},
    },
    time::Duration,
};

use memory_guard::Level;
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::{Instant, timeout_at},
};

use super::limits::Limits;
use crate::{
    memory::shedders,
    observability::metrics::{Shed, WebhookMetrics},
};

/// Lets reviews in.
pub(crate) struct Gate {
    permits: Semaphore,
    waiting: AtomicUsize,
    most_waiting: usize,
    /// KiB of bodies.
    bodies: Semaphore,
    /// KiB of parsed objects.
    parsed: Semaphore,
    parsed_kib: usize,
    /// How short memory is: index in [`Level::ALL`].
    level: AtomicU8,
    metrics: Arc<WebhookMetrics>,
}

/// The right to serve one review, given back when dropped.
pub(crate) struct Turn<'a> {
    _permit: SemaphorePermit<'a>,
    _serving: Counted<'a>,
    /// How long it was waited for.
    pub(super) waited: Duration,
}

/// One more, until dropped.
struct Counted<'a>(&'a prometheus_client::metrics::gauge::Gauge);

impl<'a> Counted<'a> {
    fn new(gauge: &'a prometheus_client::metrics::gauge::Gauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// A place among those that wait.
struct Place<'a> {
    gate: &'a Gate,
    _waiting: Counted<'a>,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.gate.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Gate {
    pub(super) fn new(limits: &Limits, metrics: Arc<WebhookMetrics>) -> Self {
        metrics.permits.set(i64::try_from(limits.permits).unwrap_or(i64::MAX));
        Self {
            permits: Semaphore::new(limits.permits),
            waiting: AtomicUsize::new(0),
            most_waiting: limits.waiting,
            bodies: Semaphore::new(limits.body_kib),
            parsed: Semaphore::new(limits.parsed_kib),
            parsed_kib: limits.parsed_kib,
            level: AtomicU8::new(0),
            metrics,
        }
    }

    /// Waits for a permit, in the order of arrival, and not beyond `until`.
    pub(super) async fn enter(&self, until: Instant) -> Result<Turn<'_>, Shed> {
        let arrived = Instant::now();
        let level = self.level();
        if level >= Level::Refuse {
            return Err(Shed::Memory);
        }
        if let Ok(permit) = self.permits.try_acquire() {
            return Ok(self.turn(permit, arrived));
        }
        let place = self.place(level)?;
        let permit = timeout_at(until, self.permits.acquire()).await;
        drop(place);
        match permit {
            Ok(permit) => Ok(self.turn(permit.expect("the semaphore is never closed"), arrived)),
            Err(_) => Err(Shed::Waited),
        }
    }

    /// Room for a body of so many bytes; it was found small enough before.
    pub(super) async fn body(&self, bytes: usize) -> SemaphorePermit<'_> {
        let permit = self.bodies.acquire_many(kib(bytes)).await;
        permit.expect("the semaphore is never closed")
    }

    /// Room for an object that takes so many bytes once it is parsed.
    pub(super) async fn parsed(&self, bytes: usize) -> Result<SemaphorePermit<'_>, Shed> {
        let kib = kib(bytes);
        if kib as usize > self.parsed_kib {
            return Err(Shed::TooLarge);
        }
        let permit = self.parsed.acquire_many(kib).await;
        Ok(permit.expect("the semaphore is never closed"))
    }

    /// Whether nobody is served and nobody waits.
    pub(super) fn is_idle(&self) -> bool {
        self.metrics.serving.get() == 0 && self.waiting.load(Ordering::Relaxed) == 0
    }

    fn turn<'a>(&'a self, permit: SemaphorePermit<'a>, arrived: Instant) -> Turn<'a> {
        Turn {
            _permit: permit,
            _serving: Counted::new(&self.metrics.serving),
            waited: arrived.elapsed(),
        }
    }

    fn place(&self, level: Level) -> Result<Place<'_>, Shed> {
        let most = match level {
            Level::Normal => self.most_waiting,
            Level::Shrink => self.most_waiting / 2,
            Level::Purge | Level::Refuse => 0,
        };
        let waiting = self.waiting.fetch_add(1, Ordering::Relaxed);
        let place = Place {
            gate: self,
            _waiting: Counted::new(&self.metrics.waiting),
        };
        if waiting < most {
            Ok(place)
        } else if level > Level::Normal {
            Err(Shed::Memory)
        } else {
            Err(Shed::QueueFull)
        }
    }

    fn level(&self) -> Level {
        let index = usize::from(self.level.load(Ordering::Relaxed));
        Level::ALL.get(index).copied().unwrap_or_default()
    }
}

fn kib(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(1024).max(1)).unwrap_or(u32::MAX)
}

/// Lets fewer wait while memory is short, and nobody in when it is nearly used up.
pub(crate) struct Reviews(pub(super) Arc<Gate>);

impl memory_guard::Shed for Reviews {
    fn name(&self) -> &'static str {
        shedders::REVIEWS
    }

    fn shed(&self, level: Level) {
        let index = Level::ALL.iter().position(|one| *one == level).unwrap_or_default();
        self.0
            .level
            .store(u8::try_from(index).unwrap_or_default(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use memory_guard::Shed as _;

    use super::*;

    fn gate(permits: usize, waiting: usize) -> Arc<Gate> {
        let limits = Limits {
            permits,
            waiting,
            ..Limits::of(Some(64 << 20), 1, None)
        };
        Arc::new(Gate::new(&limits, Arc::new(WebhookMetrics::new())))
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(2)
    }

    #[tokio::test(start_paused = true)]
    async fn so_many_are_served_and_so_many_wait() {
        let gate = gate(1, 1);
        let first = gate.enter(soon()).await.expect("a permit is free");
        let mut second = Box::pin(gate.enter(soon()));
        assert!(futures::poll!(&mut second).is_pending());
        assert_eq!(gate.enter(soon()).await.err(), Some(Shed::QueueFull));
        assert_eq!((gate.metrics.serving.get(), gate.metrics.waiting.get()), (1, 1));
        tokio::time::advance(Duration::from_secs(1)).await;
        drop(first);
        let second = second.await.expect("its turn has come");
        assert_eq!(second.waited, Duration::from_secs(1));
        assert_eq!(gate.enter(soon()).await.err(), Some(Shed::Waited));
        drop(second);
        assert!(gate.is_idle());
    }

    #[tokio::test(start_paused = true)]
    async fn who_goes_away_leaves_its_place() {
        let gate = gate(1, 1);
        let first = gate.enter(soon()).await.expect("a permit is free");
        let mut gone = Box::pin(gate.enter(soon()));
        assert!(futures::poll!(&mut gone).is_pending());
        drop(gone);
        let mut second = Box::pin(gate.enter(soon()));
        assert!(futures::poll!(&mut second).is_pending(), "there is a place again");
        drop(first);
        assert!(second.await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn memory_that_is_short_lets_fewer_wait_and_at_last_nobody_in() {
        let gate = gate(1, 2);
        let reviews = Reviews(Arc::clone(&gate));
        reviews.shed(Level::Purge);
        let first = gate.enter(soon()).await.expect("a permit is free");
        assert_eq!(gate.enter(soon()).await.err(), Some(Shed::Memory), "nobody waits");
        drop(first);
        reviews.shed(Level::Refuse);
        assert_eq!(gate.enter(soon()).await.err(), Some(Shed::Memory));
        reviews.shed(Level::Normal);
        assert!(gate.enter(soon()).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn bytes_are_bounded() {
        let gate = gate(8, 8);
        let biggest = gate.body(super::super::limits::MOST_BODY).await;
        let mut second = Box::pin(gate.body(super::super::limits::MOST_BODY));
        assert!(futures::poll!(&mut second).is_pending());
        drop(biggest);
        drop(second.await);
        assert_eq!(gate.parsed(9 << 20).await.err(), Some(Shed::TooLarge));
        assert!(gate.parsed(8 << 20).await.is_ok());
    }
}
