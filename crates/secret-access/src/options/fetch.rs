//! How the API server is asked, and asked again.

use std::time::Duration;

use super::{InvalidOptions, KIB, MIB, between, check};

/// How the API server is asked, in every mode.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct FetchOptions {
    /// The most time a read takes, and the most time one request takes. Default: 10 s. A healthy API server answers in
    /// milliseconds and gives up on etcd after some seconds; kube's clients have no deadline of their own.
    pub deadline: Duration,
    /// The biggest body accepted, in bytes after decompression. Default: 4 MiB. The API server stores at most 1 MiB of
    /// `data`; base64 makes 1.4 MiB of it, and annotations, labels and managed fields come on top.
    pub max_body_bytes: usize,
    /// The most requests in flight at once, over all Secrets. Default: 16, which a single API server answers at some
    /// thousands a second; with `max_body_bytes` it bounds the memory that answers take while they arrive. A live change
    /// lets requests already sent finish beside the new bound.
    pub max_in_flight: usize,
    /// The longest `Retry-After` passed on to the caller; longer ones are cut to it. Default: 60 s, so that one odd header
    /// cannot silence a reader for hours.
    pub max_retry_after: Duration,
    /// The most bytes that bodies of reads by name take beyond their first 64 KiB each, over all requests; at least
    /// `max_body_bytes`. Default: 8 MiB. Those first 64 KiB are enough for most Secrets and never waited for. A bigger body
    /// takes more as it grows, and waits when there is no more: one at a time may always go on to its end. Lists and watches
    /// are not counted: each holds one object at a time, of at most `max_body_bytes`.
    pub max_bytes_in_flight: usize,
    /// A held Secret whose content takes at least this many bytes is revalidated by its metadata, which take about 1 kB
    /// whatever its size; a smaller one is simply fetched again. Default: 2 KiB.
    pub revalidate_bytes: usize,
    /// What is tried again within a read's deadline.
    pub retry: RetryOptions,
}

/// Which failed requests are sent again, and how many of them.
///
/// Only what may pass by itself is tried again: broken connections, HTTP 429 and 5xx, and a token not accepted (which is
/// rotated). A wait that the API server asks for is kept; if it is longer than what is left of the deadline, the read fails at
/// once with [`ReadError::Throttled`](crate::ReadError::Throttled), which carries it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RetryOptions {
    /// The most times one request is sent again. Default: 2. 0 turns retries off.
    pub max_retries: u32,
    /// The first wait, about; each further one is twice as long. The actual wait is random between nothing and that, so that
    /// readers that failed together do not come back together. Default: 100 ms.
    pub first_wait: Duration,
    /// Out of 100 requests, how many may be repetitions in the long run, over all Secrets together. Default: 10. When the API
    /// server is down, that is all it gets on top.
    pub budget_percent: u8,
}

impl Default for RetryOptions {
    fn default() -> Self {
        Self {
            max_retries: 2,
            first_wait: Duration::from_millis(100),
            budget_percent: 10,
        }
    }
}

impl RetryOptions {
    pub(super) fn validate(&self) -> Result<(), InvalidOptions> {
        check(self.max_retries <= 10, "fetch.retry.max_retries", "must be at most 10")?;
        check(
            between(self.first_wait, Duration::from_millis(1), Duration::from_secs(60)),
            "fetch.retry.first_wait",
            "must be between 1 ms and 1 min",
        )?;
        check(
            self.budget_percent <= 100,
            "fetch.retry.budget_percent",
            "must be at most 100",
        )
    }
}

impl Default for FetchOptions {
    fn default() -> Self {
        Self {
            deadline: Duration::from_secs(10),
            max_body_bytes: 4 * MIB,
            max_in_flight: 16,
            max_retry_after: Duration::from_secs(60),
            max_bytes_in_flight: 8 * MIB,
            revalidate_bytes: 2 * KIB,
            retry: RetryOptions::default(),
        }
    }
}

impl FetchOptions {
    /// Checks each field's range.
    ///
    /// # Errors
    ///
    /// The first field that is out of its range.
    pub fn validate(&self) -> Result<(), InvalidOptions> {
        check(
            between(self.deadline, Duration::from_millis(1), Duration::from_secs(300)),
            "fetch.deadline",
            "must be between 1 ms and 5 min",
        )?;
        check(
            (KIB..=64 * MIB).contains(&self.max_body_bytes),
            "fetch.max_body_bytes",
            "must be between 1 KiB and 64 MiB",
        )?;
        check(
            (1..=1024).contains(&self.max_in_flight),
            "fetch.max_in_flight",
            "must be between 1 and 1024",
        )?;
        check(
            self.max_retry_after <= Duration::from_secs(3600),
            "fetch.max_retry_after",
            "must be at most 1 h",
        )?;
        check(
            self.max_bytes_in_flight >= self.max_body_bytes && self.max_bytes_in_flight <= 1024 * MIB,
            "fetch.max_bytes_in_flight",
            "must be at least fetch.max_body_bytes and at most 1 GiB",
        )?;
        self.retry.validate()
    }
}
