//! Pure: how a watch is doing, and how long it waits after what went wrong.

use std::time::Duration;

use super::store::Crossed;
use crate::error::ReadErrorKind;
use crate::failure::Failure;

/// How a watch is doing. It answers reads in [`Health::Healthy`] alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Health {
    /// Everything has to be listed (again).
    Syncing,
    /// What is held is what the watch told, and the watch is alive.
    Healthy,
    /// The connection is gone; another one is being made.
    Broken(Why),
    /// The identity has no right to list or watch; asked again now and then.
    Denied,
    /// There is more than may be held; looked at again now and then.
    TooMuch(Crossed),
    /// The memory was asked back; begun again later.
    Purged,
}

/// What happened to a watch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Why {
    /// Nothing was heard for too long.
    Silent,
    /// The server ended it early, and again.
    Ended,
    /// A request failed, or an answer broke off.
    Failed(ReadErrorKind),
    /// The versions went backwards.
    Rewound,
}

/// What keeps a list or a watch from going on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Setback {
    /// The history asked for is gone: everything has to be listed.
    Expired,
    Denied,
    TooMuch(Crossed),
    /// Somebody else decided that this ends.
    Stopped,
    /// The versions went backwards: what is held is of a history that is lost.
    Rewound,
    Broken {
        why: Why,
        retry_after: Option<Duration>,
    },
}

impl Setback {
    pub(super) fn silent() -> Self {
        Self::Broken {
            why: Why::Silent,
            retry_after: None,
        }
    }

    pub(super) fn of(failure: Failure) -> Self {
        if crate::fetch::stream::is_expired(failure) {
            return Self::Expired;
        }
        match failure {
            Failure::Forbidden => Self::Denied,
            Failure::Throttled(retry_after) | Failure::Unavailable(_, retry_after) => Self::Broken {
                why: Why::Failed(failure.kind()),
                retry_after,
            },
            Failure::NotFound
            | Failure::Unauthorized
            | Failure::TooLarge(_)
            | Failure::Malformed(_)
            | Failure::Timeout(_) => Self::Broken {
                why: Why::Failed(failure.kind()),
                retry_after: None,
            },
        }
    }
}

/// Waits between attempts to connect: random between nothing and a bound that doubles, so that watches which broke together
/// do not come back together.
#[derive(Debug, Default)]
pub(super) struct Pace {
    failures: u32,
}

const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(30);

impl Pace {
    /// It worked.
    pub(super) fn reset(&mut self) {
        self.failures = 0;
    }

    /// The most to wait after one more failure.
    pub(super) fn longest(&mut self) -> Duration {
        let wait = FIRST_WAIT.saturating_mul(2_u32.saturating_pow(self.failures));
        self.failures = self.failures.saturating_add(1);
        wait.min(LONGEST_WAIT)
    }

    /// How long to wait after one more failure, where `random` is between 0 and 1. What the server asks for comes on top.
    pub(super) fn next(&mut self, retry_after: Option<Duration>, random: f64) -> Duration {
        self.longest().mul_f64(random) + retry_after.unwrap_or_default()
    }
}

/// Waits after too much was found: doubled each time in a row.
#[derive(Debug)]
pub(super) struct Rests {
    first: Duration,
    next: Duration,
}

const LONGEST_REST: Duration = Duration::from_secs(3600);

impl Rests {
    pub(super) fn new(first: Duration) -> Self {
        Self { first, next: first }
    }

    /// It fitted.
    pub(super) fn reset(&mut self) {
        self.next = self.first;
    }

    pub(super) fn next(&mut self) -> Duration {
        let rest = self.next;
        self.next = rest.saturating_mul(2).min(LONGEST_REST.max(self.first));
        rest
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::UnavailableCause;

    #[test]
    fn waits_double_up_to_a_bound_and_begin_again() {
        let mut pace = Pace::default();
        let waits: Vec<u128> = (0..10).map(|_| pace.longest().as_millis()).collect();
        assert_eq!(waits, [100, 200, 400, 800, 1600, 3200, 6400, 12_800, 25_600, 30_000]);
        for _ in 0..100 {
            assert_eq!(pace.longest(), LONGEST_WAIT);
        }
        pace.reset();
        assert_eq!(pace.next(None, 0.5), FIRST_WAIT / 2);
        assert_eq!(pace.next(Some(Duration::from_secs(7)), 0.0), Duration::from_secs(7));
    }

    #[test]
    fn rests_double_up_to_an_hour_and_begin_again() {
        let minutes = |count: u64| Duration::from_secs(60 * count);
        let mut rests = Rests::new(minutes(25));
        assert_eq!(
            [rests.next(), rests.next(), rests.next(), rests.next()],
            [25, 50, 60, 60].map(minutes)
        );
        rests.reset();
        assert_eq!(rests.next(), minutes(25));
        let mut long = Rests::new(minutes(90));
        assert_eq!([long.next(), long.next()], [minutes(90); 2]);
    }

    #[test]
    fn every_failure_has_its_meaning() {
        let wait = Some(Duration::from_secs(3));
        let broken = |kind, retry_after| Setback::Broken {
            why: Why::Failed(kind),
            retry_after,
        };
        let status = |code| Failure::Unavailable(UnavailableCause::Status(code), wait);
        for (failure, setback) in [
            (status(410), Setback::Expired),
            (status(500), broken(ReadErrorKind::Unavailable, wait)),
            (Failure::Forbidden, Setback::Denied),
            (Failure::Throttled(wait), broken(ReadErrorKind::Throttled, wait)),
            (Failure::Unauthorized, broken(ReadErrorKind::Unauthorized, None)),
            (Failure::NotFound, broken(ReadErrorKind::NotFound, None)),
            (Failure::Malformed("x"), broken(ReadErrorKind::Malformed, None)),
            (Failure::TooLarge(1), broken(ReadErrorKind::TooLarge, None)),
            (Failure::Timeout(FIRST_WAIT), broken(ReadErrorKind::Timeout, None)),
        ] {
            assert_eq!(Setback::of(failure), setback, "{failure:?}");
        }
    }
}
