//! Pure: the bounds of the webhook, from what the process may use.
//!
//! What a review may take at each stage, from the outside in:
//!
//! | stage | held | bound |
//! |---|---|---|
//! | connection | TLS and HTTP buffers, about [`CONNECTION_BYTES`] | [`Limits::connections`] |
//! | HTTP/2 connection | besides, the windows of its streams, [`HTTP2_CONNECTION_BYTES`] | [`Limits::http2_connections`] |
//! | waiting for a permit | the head, and the windows above | [`Limits::waiting`] |
//! | body | as it came | [`MOST_BODY`] each, [`Limits::body_kib`] together |
//! | parsed object | estimated before it is parsed | [`Limits::parsed_kib`] together |

/// The biggest review that is read. An API server takes objects of 3 MiB at most, and an update has two.
///
/// Source: `MaxRequestBodyBytes` in the API server's `pkg/server/config.go`.
pub(super) const MOST_BODY: usize = 7 << 20;

/// Streams of one HTTP/2 connection. RFC 9113, section 6.5.2, recommends 100 or more; fewer with wide windows serve more in the
/// same memory, because a review has come as a whole before its turn. With 100 windows of 4 KiB each body took five round
/// trips through a loop that turned others away meanwhile, and of 10,000 reviews at once 48 were checked; so all are. What does
/// not fit waits at the client, as long in all; with 8 streams, of a slower machine, a hundredth waited here for more than 50 ms.
pub(super) const MOST_STREAMS: u32 = 4;

/// What a client may send of a stream before anybody reads it: so much of each waiting review is held, and no more.
pub(super) const STREAM_WINDOW: u32 = 32 << 10;

/// What a client may send of all streams of a connection before anybody reads it: no stream takes another's.
pub(super) const CONNECTION_WINDOW: u32 = MOST_STREAMS * STREAM_WINDOW;

/// The biggest head of a request, in either version.
pub(super) const MOST_HEAD: usize = 16 << 10;

/// About what a connection takes.
const CONNECTION_BYTES: u64 = 64 << 10;

/// What a connection with several streams takes: what they may send before anybody reads it.
const HTTP2_CONNECTION_BYTES: u64 = CONNECTION_WINDOW as u64;

/// Each stage may take this part of the limit, and so may the cache of Secrets.
const SHARE: u64 = 8;

/// The limit that is reckoned with where there is none.
const NO_LIMIT: u64 = 1 << 30;

/// Permits for each CPU: a review mostly waits for the API server.
const PERMITS_PER_CPU: usize = 8;

/// The least number of permits where nobody says.
const LEAST_PERMITS: usize = 16;

/// Bounds of the webhook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Reviews that are served at a time.
    pub(super) permits: usize,
    /// Reviews that wait for a permit.
    pub(super) waiting: usize,
    /// Open connections.
    pub(super) connections: usize,
    /// Of them, those that may have several streams.
    pub(super) http2_connections: usize,
    /// Bodies that are held, in KiB.
    pub(super) body_kib: usize,
    /// Parsed objects, in KiB.
    pub(super) parsed_kib: usize,
    /// Secrets that are kept, in bytes.
    pub(super) cache_bytes: usize,
}

impl Limits {
    /// For a process with this memory limit and so many CPUs; `permits` is what the command line says.
    pub(super) fn of(limit_bytes: Option<u64>, cpus: usize, permits: Option<usize>) -> Self {
        let share = limit_bytes.unwrap_or(NO_LIMIT).min(NO_LIMIT) / SHARE;
        let number = |number: u64, least: u64, most: u64| {
            let number = number.clamp(least, most);
            usize::try_from(number).unwrap_or(usize::MAX)
        };
        let permits = permits.unwrap_or(LEAST_PERMITS.max(PERMITS_PER_CPU * cpus));
        let http2_connections = number(share / HTTP2_CONNECTION_BYTES, 4, 64);
        Self {
            permits,
            // Fewer than may arrive, so that it is a bound.
            waiting: http2_connections * MOST_STREAMS as usize,
            connections: number(share / CONNECTION_BYTES, 32, 1024),
            http2_connections,
            // One of the biggest must fit.
            body_kib: number(share / 1024, MOST_BODY as u64 / 1024, 64 << 10),
            parsed_kib: number(share / 1024, 4 << 10, 64 << 10),
            cache_bytes: number(share, 1 << 20, 64 << 20),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_of_the_limit() {
        let small = Limits::of(Some(64 << 20), 1, None);
        let expected = Limits {
            permits: 16,
            waiting: 256,
            connections: 128,
            http2_connections: 64,
            body_kib: 8 << 10,
            parsed_kib: 8 << 10,
            cache_bytes: 8 << 20,
        };
        assert_eq!(small, expected);
        let tiny = Limits::of(Some(1 << 20), 1, Some(1));
        assert_eq!((tiny.permits, tiny.body_kib), (1, 7 << 10));
        let unlimited = Limits::of(None, 16, None);
        assert_eq!((unlimited.permits, unlimited.waiting), (128, 256));
    }
}
