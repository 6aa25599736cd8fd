//! Pure: how much memory the parts may take, of the container's limit, where nobody says.

use kube_secret_access::{FetchOptions, LruOptions};

/// Passes at a time where memory is no matter.
const MOST_PASSES: u64 = 8;

/// What a pass may take while it runs: Pods, objects as they are sent, Secrets as they are read.
const PASS_BYTES: u64 = 8 << 20;

/// Of the limit, the part that the Secrets held may take. With a watch there may be twice as much: what it holds and the cache
/// beside it.
const CACHE_SHARE: u64 = 4;

/// Of the limit, the part that bodies on their way may take.
const IN_FLIGHT_SHARE: u64 = 8;

/// The least a cache is worth having.
const LEAST_CACHE: u64 = 1 << 20;

/// What bounds are derived from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Given {
    /// The container's limit, where there is one.
    pub(crate) limit_bytes: Option<u64>,
    /// Passes at a time, where the command line says.
    pub(crate) passes: Option<usize>,
}

/// Bounds of what takes memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Budget {
    pub(crate) cache_bytes: usize,
    pub(crate) bytes_in_flight: usize,
    pub(crate) passes: usize,
}

impl Budget {
    /// Without a limit, and with much memory, the library's own defaults.
    pub(crate) fn of(given: Given) -> Self {
        let (cache, fetch) = (LruOptions::default().max_bytes, FetchOptions::default());
        let limit = given.limit_bytes.unwrap_or(u64::MAX);
        let share = |part: u64, least: usize, most: usize| {
            let share = usize::try_from(limit / part).unwrap_or(usize::MAX);
            share.clamp(least, most)
        };
        let least_cache = usize::try_from(LEAST_CACHE).unwrap_or(usize::MAX);
        let passes = (limit / PASS_BYTES).clamp(1, MOST_PASSES);
        Self {
            cache_bytes: share(CACHE_SHARE, least_cache, cache),
            // One body must fit.
            bytes_in_flight: share(IN_FLIGHT_SHARE, fetch.max_body_bytes, fetch.max_bytes_in_flight),
            passes: given.passes.unwrap_or(usize::try_from(passes).unwrap_or(1)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_of_the_limit() {
        const MIB: usize = 1 << 20;
        let (kib, mib) = (1024, 1 << 20);
        for (limit, cache, in_flight, passes) in [
            (None, 64 * MIB, 8 * MIB, 8),
            (Some(1024 * mib), 64 * MIB, 8 * MIB, 8),
            (Some(160 * mib), 40 * MIB, 8 * MIB, 8),
            (Some(64 * mib), 16 * MIB, 8 * MIB, 8),
            (Some(40 * mib), 10 * MIB, 5 * MIB, 5),
            (Some(16 * mib), 4 * MIB, 4 * MIB, 2),
            (Some(kib), MIB, 4 * MIB, 1),
        ] {
            let budget = Budget::of(Given {
                limit_bytes: limit,
                passes: None,
            });
            let found = (budget.cache_bytes, budget.bytes_in_flight, budget.passes);
            assert_eq!(found, (cache, in_flight, passes), "of {limit:?}");
        }
    }

    #[test]
    fn the_command_line_says_how_many_passes() {
        let given = Given {
            limit_bytes: Some(1 << 20),
            passes: Some(30),
        };
        assert_eq!(Budget::of(given).passes, 30);
    }
}
