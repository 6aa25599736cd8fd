//! The bytes of all bodies in flight, bounded together.
//!
//! A body of unknown length grows while it arrives, and each growth asks for more. Were the whole budget one pool, requests
//! that each hold a part could wait for each other for ever. So the most that one body may take is set aside for one request
//! at a time: whoever cannot have more from the pool waits for it or for that lane, and the one in the lane always ends.

use std::sync::atomic::{AtomicU8, Ordering};

use tokio::sync::{Semaphore, SemaphorePermit};

use crate::options::FetchOptions;
use crate::squeeze::Bodies;

/// What every body may take without asking. There are at most as many as requests in flight.
const FREE: usize = 64 * 1024;

const OPEN: &str = "no semaphore of this module is ever closed";

/// What all bodies may take.
pub(super) struct InFlight {
    /// Bytes beyond [`FREE`], in KiB: what all requests share.
    pool: Semaphore,
    /// Whoever holds this may take as much as one body may have.
    lane: Semaphore,
    /// [`Bodies`] in force.
    bodies: AtomicU8,
}

/// No big body is taken at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct MemoryShort;

impl InFlight {
    pub(super) fn new(options: &FetchOptions) -> Self {
        let shared = options.max_bytes_in_flight.saturating_sub(options.max_body_bytes);
        Self {
            pool: Semaphore::new(shared / 1024),
            lane: Semaphore::new(1),
            bodies: AtomicU8::new(Bodies::All as u8),
        }
    }

    /// Takes these big bodies from now on. What bodies already hold they keep.
    pub(super) fn squeeze(&self, bodies: Bodies) {
        self.bodies.store(bodies as u8, Ordering::Relaxed);
    }

    fn takes(&self, bodies: Bodies) -> bool {
        self.bodies.load(Ordering::Relaxed) <= bodies as u8
    }

    /// For one body.
    pub(super) fn lease(&self) -> Lease<'_> {
        Lease {
            in_flight: self,
            held: FREE,
            pooled: None,
            lane: None,
        }
    }
}

/// What one body may take. Given back when dropped.
pub(super) struct Lease<'b> {
    in_flight: &'b InFlight,
    held: usize,
    pooled: Option<SemaphorePermit<'b>>,
    lane: Option<SemaphorePermit<'b>>,
}

impl Lease<'_> {
    /// Waits until this body may take `bytes` in all.
    ///
    /// # Errors
    ///
    /// It is big, and none such is taken at the moment.
    pub(super) async fn grow(&mut self, bytes: usize) -> Result<(), MemoryShort> {
        if bytes <= self.held || self.lane.is_some() {
            return Ok(());
        }
        if !self.in_flight.takes(Bodies::OneBig) {
            return Err(MemoryShort);
        }
        let more = (bytes - self.held).div_ceil(1024);
        let InFlight { pool, lane, .. } = self.in_flight;
        let permits = u32::try_from(more).unwrap_or(u32::MAX);
        tokio::select! {
            biased;
            permit = pool.acquire_many(permits), if self.in_flight.takes(Bodies::All) => {
                let permit = permit.expect(OPEN);
                self.held += more * 1024;
                match &mut self.pooled {
                    Some(pooled) => pooled.merge(permit),
                    None => self.pooled = Some(permit),
                }
            }
            permit = lane.acquire() => {
                self.lane = Some(permit.expect(OPEN));
                // The lane alone is enough for any body.
                self.pooled = None;
            }
        }
        // It may have waited for long.
        if self.in_flight.takes(Bodies::OneBig) {
            Ok(())
        } else {
            Err(MemoryShort)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    const MIB: usize = 1024 * 1024;

    fn in_flight(max_bytes_in_flight: usize, max_body_bytes: usize) -> InFlight {
        InFlight::new(&FetchOptions {
            max_body_bytes,
            max_bytes_in_flight,
            ..FetchOptions::default()
        })
    }

    /// Whether it would have to wait.
    fn waits(growth: impl Future<Output = Result<(), MemoryShort>>) -> bool {
        let mut growth = std::pin::pin!(growth);
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        match growth.as_mut().poll(&mut context) {
            std::task::Poll::Ready(grown) => {
                assert_eq!(grown, Ok(()));
                false
            }
            std::task::Poll::Pending => true,
        }
    }

    #[test]
    fn one_big_body_or_none_where_memory_is_short() {
        let in_flight = in_flight(8 * MIB, MIB);
        let mut before = in_flight.lease();
        assert!(!waits(before.grow(FREE + MIB)), "the pool");
        in_flight.squeeze(Bodies::OneBig);
        let (mut first, mut second) = (in_flight.lease(), in_flight.lease());
        assert!(!waits(first.grow(FREE + 1)), "the lane");
        assert!(waits(second.grow(FREE + 1)), "although the pool has room");
        in_flight.squeeze(Bodies::NoneBig);
        assert!(!waits(first.grow(MIB)), "it has all it may need already");
        assert!(!waits(second.grow(FREE)), "small ones are always taken");
        let refused = |lease: &mut Lease<'_>| {
            let mut growth = std::pin::pin!(lease.grow(FREE + 1));
            let mut context = std::task::Context::from_waker(std::task::Waker::noop());
            growth.as_mut().poll(&mut context) == std::task::Poll::Ready(Err(MemoryShort))
        };
        assert!(refused(&mut second));
        in_flight.squeeze(Bodies::All);
        assert!(!waits(second.grow(FREE + 1)), "the pool again");
    }

    #[tokio::test]
    async fn whoever_waited_is_refused_as_well() {
        let in_flight = Arc::new(in_flight(MIB, MIB));
        let mut first = in_flight.lease();
        assert!(!waits(first.grow(FREE + 1)));
        let waiting = Arc::clone(&in_flight);
        let second = tokio::spawn(async move { waiting.lease().grow(FREE + 1).await });
        tokio::task::yield_now().await;
        in_flight.squeeze(Bodies::NoneBig);
        drop(first);
        assert_eq!(second.await.expect("no panic"), Err(MemoryShort));
        in_flight.squeeze(Bodies::All);
        assert!(!waits(in_flight.lease().grow(FREE + 1)), "nothing is left behind");
    }

    #[test]
    fn small_bodies_never_wait() {
        let in_flight = in_flight(MIB, MIB);
        let mut leases: Vec<_> = (0..1000).map(|_| in_flight.lease()).collect();
        for lease in &mut leases {
            assert!(!waits(lease.grow(FREE)));
        }
    }

    #[test]
    fn what_is_shared_runs_out_and_then_one_goes_on_alone() {
        let in_flight = in_flight(2 * MIB, MIB);
        let mut first = in_flight.lease();
        let mut second = in_flight.lease();
        let mut third = in_flight.lease();
        assert!(!waits(first.grow(FREE + MIB)), "the pool");
        assert!(!waits(second.grow(FREE + 1)), "the lane");
        assert!(!waits(second.grow(MIB)), "which is enough for a whole body");
        assert!(waits(third.grow(FREE + 1)));
        drop(second);
        assert!(!waits(third.grow(FREE + 1)), "the lane again");
        let mut fourth = in_flight.lease();
        assert!(waits(fourth.grow(FREE + 1)));
        drop(first);
        assert!(!waits(fourth.grow(FREE + MIB)), "the pool again");
    }

    #[tokio::test]
    async fn bodies_that_grow_together_all_end_within_the_bound() {
        let in_flight = Arc::new(in_flight(3 * MIB, MIB));
        let used = Arc::new(AtomicUsize::new(0));
        let most = Arc::new(AtomicUsize::new(0));
        let bodies: Vec<_> = (0..50)
            .map(|_| {
                let (in_flight, used, most) = (Arc::clone(&in_flight), Arc::clone(&used), Arc::clone(&most));
                tokio::spawn(async move {
                    let mut lease = in_flight.lease();
                    let mut mine = 0;
                    for size in [FREE, 2 * FREE, 4 * FREE, 8 * FREE, MIB] {
                        lease.grow(size).await.expect("memory is not short");
                        let now = used.fetch_add(size - mine, Ordering::SeqCst) + size - mine;
                        most.fetch_max(now, Ordering::SeqCst);
                        mine = size;
                        tokio::task::yield_now().await;
                    }
                    used.fetch_sub(mine, Ordering::SeqCst);
                })
            })
            .collect();
        for body in bodies {
            body.await.expect("no panic");
        }
        let most = most.load(Ordering::SeqCst);
        assert!(most <= 3 * MIB + 50 * FREE, "{most}");
        assert!(most >= 2 * MIB, "or nothing was tested: {most}");
    }
}
