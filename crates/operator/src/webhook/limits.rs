//! Pure: the bounds of the webhook, from what the process may use.
//!
//! What a review may take at each stage, from the outside in:
//!
//! | stage | held | bound |
//! |---|---|---|
//! | connection | TLS and HTTP buffers, about [`CONNECTION_BYTES`] | [`Limits::connections`], of them [`Limits::http2_connections`] |
//! | waiting for a permit | the head, and of HTTP/2 a stream's window, about [`WAITING_BYTES`] | [`Limits::waiting`] |
//! | body | as it came | [`MOST_BODY`] each, [`Limits::body_kib`] together |
//! | parsed object | estimated before it is parsed | [`Limits::parsed_kib`] together |

/// The biggest review that is read. An API server takes objects of 3 MiB at most, and an update has two.
///
/// Source: `MaxRequestBodyBytes` in the API server's `pkg/server/config.go`.
pub(super) const MOST_BODY: usize = 7 << 20;

/// Streams of one HTTP/2 connection.
pub(super) const MOST_STREAMS: u32 = 100;

/// What a client may send of a stream before anybody reads it: so much of each waiting review is held, and no more.
pub(super) const STREAM_WINDOW: u32 = 4 << 10;

/// What a client may send of all streams of a connection before anybody reads it. Waiting streams that have used up their
/// windows leave enough for those that are served.
pub(super) const CONNECTION_WINDOW: u32 = MOST_STREAMS * STREAM_WINDOW + (64 << 10);

/// The biggest head of a request, in either version.
pub(super) const MOST_HEAD: usize = 16 << 10;

/// About what a connection takes.
const CONNECTION_BYTES: u64 = 64 << 10;

/// About what a connection with many streams takes beside what the streams do.
const HTTP2_CONNECTION_BYTES: u64 = 256 << 10;

/// About what a review takes that waits: its task, its head, and its window.
const WAITING_BYTES: u64 = 8 << 10;

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
        Self {
            permits,
            waiting: number(share / WAITING_BYTES, 64, 4096),
            connections: number(share / CONNECTION_BYTES, 32, 1024),
            http2_connections: number(share / HTTP2_CONNECTION_BYTES, 4, 64),
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
            waiting: 1024,
            connections: 128,
            http2_connections: 32,
            body_kib: 8 << 10,
            parsed_kib: 8 << 10,
            cache_bytes: 8 << 20,
        };
        assert_eq!(small, expected);
        let tiny = Limits::of(Some(1 << 20), 1, Some(1));
        assert_eq!((tiny.permits, tiny.body_kib), (1, 7 << 10));
        let unlimited = Limits::of(None, 16, None);
        assert_eq!((unlimited.permits, unlimited.waiting), (128, 4096));
    }
}
