//! The bytes of all bodies in flight, bounded together.
//!
//! A body of unknown length grows while it arrives, and each growth asks for more. Were the whole budget one pool, requests
//! that each hold a part could wait for each other for ever. So the most that one body may take is set aside for one request
//! at a time: whoever cannot have more from the pool waits for it or for that lane, and the one in the lane always ends.

use tokio::sync::{Semaphore, SemaphorePermit};

use crate::options::FetchOptions;

/// What every body may take without asking. There are at most as many as requests in flight.
const FREE: usize = 64 * 1024;

const OPEN: &str = "no semaphore of this module is ever closed";

/// What all bodies may take.
pub(super) struct InFlight {
    /// Bytes beyond [`FREE`], in KiB: what all requests share.
    pool: Semaphore,
    /// Whoever holds this may take as much as one body may have.
    lane: Semaphore,
}

impl InFlight {
    pub(super) fn new(options: &FetchOptions) -> Self {
        let shared = options.max_bytes_in_flight.saturating_sub(options.max_body_bytes);
        Self {
            pool: Semaphore::new(shared / 1024),
            lane: Semaphore::new(1),
        }
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
    pub(super) async fn grow(&mut self, bytes: usize) {
        if bytes <= self.held || self.lane.is_some() {
            return;
        }
        let more = (bytes - self.held).div_ceil(1024);
        let InFlight { pool, lane } = self.in_flight;
        let permits = u32::try_from(more).unwrap_or(u32::MAX);
        tokio::select! {
            biased;
            permit = pool.acquire_many(permits) => {
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
    fn waits(growth: impl Future<Output = ()>) -> bool {
        let mut growth = std::pin::pin!(growth);
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        growth.as_mut().poll(&mut context).is_pending()
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
                        lease.grow(size).await;
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
