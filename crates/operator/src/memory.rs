//! Memory: guarded while the operator works, and given back once there is nothing to do.
//!
//! jemalloc gives freed pages back a while after they were freed, but it looks at the time only when memory is asked for or
//! freed. A process that falls silent after much work, as after a start with many services, would keep the pages of that
//! work for good; and one that is about to be killed for its memory has no time to wait. So it is told.

pub(crate) mod budget;
pub(crate) mod guard;
pub(crate) mod shedders;

use std::time::Duration;

use tokio::time::sleep;

/// Without work for so long, there is nothing to do.
const SILENCE: Duration = Duration::from_secs(1);

/// Has pages given back whenever nothing was done for a while and something was since the last time. `idle_at` says how much
/// was done so far, such as how many passes have run, and nothing while there is something to do. Never ends.
pub(crate) async fn give_back(idle_at: impl Fn() -> Option<u64> + Send) {
    let mut settled_at = None;
    let mut before = None;
    loop {
        sleep(SILENCE).await;
        let done = idle_at();
        if done.is_some() && done != settled_at && done == before {
            release();
            settled_at = done;
        }
        before = done;
    }
}

/// Has the allocator give back all pages that nothing is in.
#[cfg(feature = "jemalloc")]
fn release() {
    use tikv_jemalloc_ctl::{Access, AsName};

    let arenas: u32 = b"arenas.narenas\0".name().read().unwrap_or_default();
    for arena in 0..arenas {
        // Pages that may wait for no time at all go at once. One that was never used says so, and has nothing to give.
        let name = format!("arena.{arena}.dirty_decay_ms\0");
        let wait = name.name();
        if let Ok(before) = wait.update(0_isize) {
            // It was accepted a moment ago.
            let _ = wait.write(before);
        }
    }
}

/// The C library's allocator cannot be told without unsafe code.
#[cfg(not(feature = "jemalloc"))]
fn release() {}

#[cfg(all(test, feature = "jemalloc"))]
mod tests {
    use super::release;

    /// Resident memory that no file backs, in bytes.
    fn resident() -> u64 {
        let status = std::fs::read_to_string("/proc/self/status").expect("tests run on Linux");
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
        let kib = line
            .and_then(|line| line.trim().strip_suffix(" kB"))
            .expect("a number of kB");
        1024 * kib.trim().parse::<u64>().expect("a number of kB")
    }

    #[test]
    fn what_was_freed_goes_back_at_once() {
        const BYTES: usize = 64 << 20;
        // Pieces, because one big block would be given back by itself.
        let pieces: Vec<Vec<u8>> = (0..BYTES / 65_536).map(|_| vec![1; 65_536]).collect();
        let full = resident();
        drop(pieces);
        release();
        let given_back = full.saturating_sub(resident());
        assert!(given_back > BYTES as u64 / 5 * 4, "{given_back} of {BYTES}");
    }
}
