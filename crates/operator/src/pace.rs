//! Pure: how many passes the API server bears at a time. Told the time and what became of each request.
//!
//! Additive increase, multiplicative decrease, as for TCP's window: each round of good answers allows one pass more, and a
//! sign of overload halves what is allowed. What the API server bears is not known beforehand and changes.

use std::time::Duration;

use tokio::time::Instant;

/// An answer that takes longer is a sign of overload. Source: Kubernetes promises 99 of 100 requests for single objects
/// within a second (API call latency SLO of SIG Scalability).
const SLOW: Duration = Duration::from_secs(1);

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The API server answered.
    Given,
    /// It asks for fewer requests.
    Throttled,
    /// No answer came in time.
    Missing,
}

/// How many passes are allowed, between one and the most.
#[derive(Clone, Debug)]
pub(crate) struct Pace {
    most: usize,
    /// Fractions are what good answers have added up to so far.
    allowed: f64,
    /// Answers to requests sent before this tell of what has been reacted to.
    reacted_at: Option<Instant>,
}

impl Pace {
    /// Allows the most at first: a healthy API server need not be felt out.
    pub(crate) fn new(most: usize) -> Self {
        let mut pace = Self {
            most: 1,
            allowed: f64::INFINITY,
            reacted_at: None,
        };
        pace.set_most(most);
        pace
    }

    /// At most so many from now on, and at least one.
    pub(crate) fn set_most(&mut self, most: usize) {
        let unhindered = self.allowed >= as_float(self.most);
        self.most = most.max(1);
        let most = as_float(self.most);
        self.allowed = if unhindered { most } else { self.allowed.min(most) };
    }

    /// How many passes may run at a time.
    pub(crate) fn allowed(&self) -> usize {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "between 1 and the most, which was a usize"
        )]
        let allowed = self.allowed as usize;
        allowed.clamp(1, self.most)
    }

    /// A request sent at `sent` was answered at `now`, or given up.
    pub(crate) fn answered(&mut self, sent: Instant, now: Instant, answer: Answer) {
        if self.reacted_at.is_some_and(|reacted| sent < reacted) {
            return;
        }
        let slow = now.saturating_duration_since(sent) > SLOW;
        match answer {
            Answer::Given if !slow => {
                self.allowed = (self.allowed + 1.0 / self.allowed).min(as_float(self.most));
            }
            Answer::Given | Answer::Throttled | Answer::Missing => {
                self.allowed = (self.allowed / 2.0).max(1.0);
                self.reacted_at = Some(now);
            }
        }
    }
}

fn as_float(number: usize) -> f64 {
    f64::from(u32::try_from(number).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn fast(pace: &mut Pace, now: Instant) {
        pace.answered(now, now + Duration::from_millis(5), Answer::Given);
    }

    #[test]
    fn halved_by_each_sign_of_overload_and_regained_one_by_one() {
        let mut now = Instant::now();
        let mut pace = Pace::new(8);
        assert_eq!(pace.allowed(), 8);
        for (answer, took, expected) in [
            (Answer::Throttled, 1, 4),
            (Answer::Given, 1500, 2),
            (Answer::Missing, 10_000, 1),
            (Answer::Throttled, 1, 1),
        ] {
            let answered = now + Duration::from_millis(took);
            pace.answered(now, answered, answer);
            assert_eq!(pace.allowed(), expected, "{answer:?} after {took} ms");
            now = answered;
        }
        for expected in 2..=8 {
            // A round: as many answers as passes were allowed.
            for _ in 0..expected {
                fast(&mut pace, now);
            }
            assert!(pace.allowed() >= expected - 1, "{expected}");
        }
        for _ in 0..20 {
            fast(&mut pace, now);
        }
        assert_eq!(pace.allowed(), 8, "and no more than that");
    }

    #[test]
    fn what_was_sent_before_is_no_second_sign() {
        let sent = Instant::now();
        let mut pace = Pace::new(8);
        for number in 1..=8 {
            pace.answered(sent, sent + Duration::from_millis(number), Answer::Throttled);
        }
        assert_eq!(pace.allowed(), 4);
    }

    #[test]
    fn another_most_is_kept_to_and_grown_into() {
        let now = Instant::now();
        let mut pace = Pace::new(8);
        pace.set_most(3);
        assert_eq!(pace.allowed(), 3);
        pace.set_most(10);
        assert_eq!(pace.allowed(), 10, "nothing spoke against it");
        pace.answered(now, now, Answer::Throttled);
        pace.set_most(20);
        assert_eq!(pace.allowed(), 5, "that was a sign");
        pace.set_most(0);
        assert_eq!(pace.allowed(), 1, "one is the least");
    }

    proptest! {
        #[test]
        fn always_between_one_and_the_most(
            most in 0_usize..300,
            answers in prop::collection::vec((0_u64..3000, 0_u64..5000, 0_u8..3), 0..200),
        ) {
            let mut now = Instant::now();
            let mut pace = Pace::new(most);
            for (pause, took, answer) in answers {
                now += Duration::from_millis(pause);
                let answer = [Answer::Given, Answer::Throttled, Answer::Missing][usize::from(answer)];
                let before = pace.allowed();
                pace.answered(now, now + Duration::from_millis(took), answer);
                prop_assert!((1..=most.max(1)).contains(&pace.allowed()));
                prop_assert!(pace.allowed() <= before + 1, "it grows by one at most");
                prop_assert!(pace.allowed() >= before / 2, "it is halved at most");
            }
        }
    }
}
