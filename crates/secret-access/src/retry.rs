//! Pure: which failed requests are sent again, and when. Told the time and given the dice.

use std::time::Duration;

use crate::error::UnavailableCause;
use crate::failure::Failure;
use crate::options::RetryOptions;

/// What one retry costs, so that a request can earn a hundredth of it.
const RETRY_COST: u32 = 100;

/// The most that can be saved up: ten retries at once after a quiet time.
const MOST_SAVED: u32 = 10 * RETRY_COST;

/// How many retries the requests so far have earned.
///
/// Each request earns [`RetryOptions::budget_percent`] hundredths of a retry. So in the long run at most that share of all
/// requests are repetitions, however many of them fail.
#[derive(Debug)]
pub(crate) struct Budget {
    saved: u32,
}

impl Budget {
    /// A new budget allows a few retries, so that the very first requests may fail once too.
    pub(crate) fn new(options: &RetryOptions) -> Self {
        let saved = if options.budget_percent == 0 { 0 } else { MOST_SAVED };
        Self { saved }
    }

    /// A request is sent for the first time.
    pub(crate) fn earn(&mut self, options: &RetryOptions) {
        self.saved = (self.saved + u32::from(options.budget_percent)).min(MOST_SAVED);
    }

    fn spend(&mut self) -> bool {
        let affordable = self.saved >= RETRY_COST;
        if affordable {
            self.saved -= RETRY_COST;
        }
        affordable
    }

    /// How long to wait before a request that failed this way is sent again, or `None` when it is not.
    ///
    /// `retries` is how often it was sent again already, `left` what remains of its deadline, and `roll` a random number from
    /// 0 to 1.
    pub(crate) fn wait(
        &mut self,
        failure: Failure,
        retries: u32,
        left: Duration,
        roll: f64,
        options: &RetryOptions,
    ) -> Option<Duration> {
        if retries >= options.max_retries {
            return None;
        }
        let Passing::Yes(asked) = passing(failure) else {
            return None;
        };
        let backoff = options.first_wait.saturating_mul(1 << retries.min(16));
        // What the server asks for is kept to, and the dice come on top of it.
        let wait = asked.unwrap_or_default() + backoff.mul_f64(roll.clamp(0.0, 1.0));
        // Nothing is left for the answer otherwise.
        (wait < left && self.spend()).then_some(wait)
    }
}

/// Whether a failure may pass by itself.
enum Passing {
    /// With the wait that the API server asked for.
    Yes(Option<Duration>),
    No,
}

fn passing(failure: Failure) -> Passing {
    match failure {
        Failure::Throttled(asked) | Failure::Unavailable(UnavailableCause::Connection(_), asked) => Passing::Yes(asked),
        Failure::Unavailable(UnavailableCause::Status(status), asked) if status >= 500 => Passing::Yes(asked),
        Failure::Unauthorized => Passing::Yes(None),
        Failure::Unavailable(
            UnavailableCause::Status(_)
            | UnavailableCause::Credentials
            | UnavailableCause::Abandoned
            | UnavailableCause::MemoryShort,
            _,
        )
        | Failure::NotFound
        | Failure::Forbidden
        | Failure::TooLarge(_)
        | Failure::Malformed(_)
        | Failure::Timeout(_) => Passing::No,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LONG: Duration = Duration::from_secs(10);
    const BROKEN: Failure = Failure::Unavailable(UnavailableCause::Connection(None), None);

    fn wait(failure: Failure, retries: u32, left: Duration, roll: f64) -> Option<Duration> {
        let options = RetryOptions::default();
        Budget::new(&options).wait(failure, retries, left, roll, &options)
    }

    #[test]
    fn only_what_may_pass_is_tried_again() {
        let second = Some(Duration::from_secs(1));
        for (failure, retried) in [
            (BROKEN, true),
            (Failure::Unavailable(UnavailableCause::Status(500), None), true),
            (Failure::Unavailable(UnavailableCause::Status(503), second), true),
            (Failure::Throttled(None), true),
            (Failure::Throttled(second), true),
            (Failure::Unauthorized, true),
            (Failure::Unavailable(UnavailableCause::Status(404), None), false),
            (Failure::Unavailable(UnavailableCause::Credentials, None), false),
            (Failure::Unavailable(UnavailableCause::Abandoned, None), false),
            (Failure::Unavailable(UnavailableCause::MemoryShort, None), false),
            (Failure::NotFound, false),
            (Failure::Forbidden, false),
            (Failure::TooLarge(1), false),
            (Failure::Malformed("x"), false),
            (Failure::Timeout(LONG), false),
        ] {
            assert_eq!(wait(failure, 0, LONG, 0.5).is_some(), retried, "{failure:?}");
        }
    }

    #[test]
    fn waits_double_are_random_and_add_to_what_the_server_asks() {
        let milliseconds = Duration::from_millis;
        assert_eq!(wait(BROKEN, 0, LONG, 1.0), Some(milliseconds(100)));
        assert_eq!(wait(BROKEN, 1, LONG, 1.0), Some(milliseconds(200)));
        assert_eq!(wait(BROKEN, 1, LONG, 0.25), Some(milliseconds(50)));
        assert_eq!(wait(BROKEN, 2, LONG, 1.0), None, "twice is the most");
        let throttled = Failure::Throttled(Some(Duration::from_secs(2)));
        assert_eq!(wait(throttled, 0, LONG, 1.0), Some(milliseconds(2100)));
        assert_eq!(
            wait(throttled, 0, milliseconds(2100), 1.0),
            None,
            "no time would be left"
        );
        assert_eq!(wait(throttled, 0, milliseconds(2101), 1.0), Some(milliseconds(2100)));
    }

    #[test]
    fn what_is_spent_is_earned_again() {
        let options = RetryOptions::default();
        let mut budget = Budget::new(&options);
        let mut afford = |requests: usize| {
            (0..requests).for_each(|_| budget.earn(&options));
            std::iter::repeat_with(|| budget.wait(BROKEN, 0, LONG, 0.0, &options))
                .take_while(Option::is_some)
                .count()
        };
        assert_eq!([afford(0), afford(9), afford(1), afford(25)], [10, 0, 1, 2]);
    }

    #[test]
    fn without_a_budget_nothing_is_tried_again() {
        let options = RetryOptions {
            budget_percent: 0,
            ..RetryOptions::default()
        };
        let mut budget = Budget::new(&options);
        budget.earn(&options);
        assert_eq!(budget.wait(BROKEN, 0, LONG, 0.0, &options), None);
    }

    proptest! {
        #[test]
        fn the_share_of_retries_stays_within_the_budget(
            percent in 1_u8..=100,
            failing in prop::collection::vec(any::<bool>(), 1..2000),
        ) {
            let options = RetryOptions { budget_percent: percent, ..RetryOptions::default() };
            let mut budget = Budget::new(&options);
            let mut retries = 0;
            for (requests, fails) in (1_u32..).zip(failing) {
                budget.earn(&options);
                if fails && budget.wait(BROKEN, 0, LONG, 0.0, &options).is_some() {
                    retries += 1;
                }
                prop_assert!(retries * RETRY_COST <= MOST_SAVED + requests * u32::from(percent));
            }
        }

        #[test]
        fn saving_has_an_end(requests in 0_u32..5000) {
            let options = RetryOptions { budget_percent: 100, ..RetryOptions::default() };
            let mut budget = Budget::new(&options);
            for _ in 0..requests {
                budget.earn(&options);
            }
            let afforded = (0..).take_while(|_| budget.wait(BROKEN, 0, LONG, 0.0, &options).is_some()).take(100).count();
            prop_assert_eq!(afforded, 10);
        }
    }
}
