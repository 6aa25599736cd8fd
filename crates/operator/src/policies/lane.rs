//! How fast requests may go: a bounded number at a time, fewer where the API server is overloaded, and so many a second.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use prometheus_client::metrics::gauge::Gauge;
use tokio::time::{Instant, sleep_until};

use crate::{
    concurrency::{Concurrency, Permit},
    error::FaultKind,
    pace::Answer,
};

/// Requests of one purpose.
pub(crate) struct Lane {
    concurrency: Arc<Concurrency>,
    bucket: Option<Mutex<Bucket>>,
    /// When a sign of overload was reacted to last.
    reacted: Mutex<Option<Instant>>,
}

/// One reaction to overload in this time: what it leads to is to be seen before the next one. Otherwise the answers of one
/// moment would bring it all to a halt.
const REACTION: Duration = Duration::from_secs(1);

impl Lane {
    /// So many at a time, as fast as they are answered.
    pub(crate) fn new(most: usize) -> Self {
        Self {
            concurrency: Arc::new(Concurrency::new(most, Gauge::default())),
            bucket: None,
            reacted: Mutex::default(),
        }
    }

    /// No more than so many a second besides.
    pub(crate) fn limited(most: usize, per_second: u32) -> Self {
        Self {
            bucket: Some(Mutex::new(Bucket::new(per_second, Instant::now()))),
            ..Self::new(most)
        }
    }

    /// Waits for the right to send one request.
    pub(super) async fn enter(&self) -> Permit {
        let permit = self.concurrency.acquire().await;
        if let Some(bucket) = &self.bucket {
            let at = bucket
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take(Instant::now());
            sleep_until(at).await;
        }
        permit
    }

    /// What became of a request: none where it succeeded.
    pub(super) fn left(&self, sent: Instant, fault: Option<FaultKind>) {
        let answer = match fault {
            None
            | Some(
                FaultKind::NotFound
                | FaultKind::Forbidden
                | FaultKind::Invalid
                | FaultKind::Conflict
                | FaultKind::Expired
                | FaultKind::Unauthorized
                | FaultKind::Malformed,
            ) => Answer::Given,
            Some(FaultKind::Throttled) => Answer::Throttled,
            Some(FaultKind::Timeout | FaultKind::Unavailable) => Answer::Missing,
            // It was never sent.
            Some(FaultKind::NotLeading) => return,
        };
        let now = Instant::now();
        if answer != Answer::Given {
            let mut reacted = self.reacted.lock().unwrap_or_else(PoisonError::into_inner);
            if reacted.is_some_and(|at| now.saturating_duration_since(at) < REACTION) {
                return;
            }
            *reacted = Some(now);
        }
        self.concurrency.answered(sent, now, answer);
    }
}

/// A token bucket that holds the tokens of a tenth of a second.
struct Bucket {
    /// Between two tokens.
    interval: Duration,
    /// When the next token is there.
    next: Instant,
    burst: Duration,
}

impl Bucket {
    fn new(per_second: u32, now: Instant) -> Self {
        let burst = Duration::from_millis(100);
        Self {
            interval: Duration::from_secs(1) / per_second.max(1),
            next: now.checked_sub(burst).unwrap_or(now),
            burst,
        }
    }

    /// Takes a token; it may be used at the time returned.
    fn take(&mut self, now: Instant) -> Instant {
        let oldest = now.checked_sub(self.burst).unwrap_or(now);
        let at = self.next.max(oldest);
        self.next = at + self.interval;
        at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_tokens_than_agreed_over_time() {
        let start = Instant::now() + Duration::from_secs(10);
        let mut bucket = Bucket::new(100, start);
        let at_once = (0..50).filter(|_| bucket.take(start) <= start).count();
        assert_eq!(at_once, 11, "a tenth of a second's, and the one that is due");
        let later = start + Duration::from_secs(60);
        let mut last = later;
        for _ in 0..111 {
            last = bucket.take(later);
        }
        assert_eq!(
            last,
            later + Duration::from_secs(1),
            "tokens do not pile up while nobody takes any"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn fewer_at_a_time_after_a_sign_of_overload() {
        let lane = Lane::new(4);
        assert_eq!(lane.concurrency.allowed(), 4);
        lane.left(Instant::now(), Some(FaultKind::Throttled));
        assert_eq!(lane.concurrency.allowed(), 2);
        tokio::time::advance(Duration::from_millis(1)).await;
        lane.left(Instant::now(), Some(FaultKind::Conflict));
        lane.left(Instant::now(), Some(FaultKind::Throttled));
        assert_eq!(lane.concurrency.allowed(), 2, "that is the same overload");
        tokio::time::advance(REACTION).await;
        lane.left(Instant::now(), Some(FaultKind::Unavailable));
        assert_eq!(lane.concurrency.allowed(), 1);
    }
}
