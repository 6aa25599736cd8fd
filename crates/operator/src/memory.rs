//! Giving memory back once there is nothing to do.
//!
//! jemalloc gives freed pages back a while after they were freed, but it looks at the time only when memory is asked for or
//! freed. A process that falls silent after much work, as after a start with many services, would keep the pages of that
//! work for good.

use std::{hint::black_box, sync::Arc, time::Duration};

use tokio::time::sleep;

use crate::{observability::metrics::Metrics, queue::Queue};

/// Longer than jemalloc waits before it gives pages back: `.cargo/config.toml` sets a second.
const SILENCE: Duration = Duration::from_secs(3);

/// jemalloc looks at the time after so many requests for memory (`DECAY_NTICKS_PER_UPDATE` is 1000).
const REQUESTS: usize = 1_100;

/// Too big for the cache of a thread, so that each request counts.
const REQUESTED: usize = 64 * 1024;

/// Has pages given back whenever no pass has run for a while and some have since the last time. Never ends.
pub(crate) async fn give_back(metrics: Arc<Metrics>, queue: Arc<Queue>) {
    let mut settled_at = None;
    let mut before = 0;
    loop {
        sleep(SILENCE).await;
        let passes = metrics.passes.count();
        if Some(passes) != settled_at && passes == before && queue.depth() == 0 {
            for _ in 0..REQUESTS {
                drop(black_box(Vec::<u8>::with_capacity(REQUESTED)));
            }
            settled_at = Some(passes);
        }
        before = passes;
    }
}
