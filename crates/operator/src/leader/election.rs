//! Who may lead: what a look at the Lease means. Pure; the clock's readings are handed in.

use std::time::Duration;

/// Holders that promise to be gone after longer than this are not believed.
const MOST_LEASE: Duration = Duration::from_secs(3600);

/// The times of an election.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Timing {
    /// How long the Lease is left to a holder that does not renew it.
    pub(crate) lease_duration: Duration,
    /// How long a holder that cannot renew it goes on writing. Less than `lease_duration`.
    pub(crate) renew_deadline: Duration,
    /// How often it is renewed or looked at.
    pub(crate) retry_period: Duration,
}

/// What the Lease says, as far as it matters here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    /// Changes with every renewal.
    pub(crate) version: String,
    /// Nobody, where it was given back.
    pub(crate) holder: Option<String>,
    /// How long the holder may go without renewing it.
    pub(crate) duration: Option<Duration>,
}

/// What is to be done about the Lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// There is none: make it.
    Create,
    /// It may be taken, and was ours before.
    Resume,
    /// It may be taken from whoever held it.
    Take,
    /// Another holds it.
    Wait,
    /// Another has taken it from us.
    Lost {
        /// Who; empty when it was taken and given back.
        to: String,
    },
}

/// What one replica knows.
///
/// The times in the Lease are those of other machines' clocks and are not looked at. A holder is taken for gone when its
/// record has not changed for the duration it names, measured here.
#[derive(Debug)]
pub(crate) struct Election {
    identity: String,
    timing: Timing,
    /// The record of another, by its version, and when it was first seen.
    seen: Option<(String, Duration)>,
    has_led: bool,
}

impl Election {
    /// `identity` has to be that of this process and of no other, before or after it.
    pub(crate) fn new(identity: String, timing: Timing) -> Self {
        Self {
            identity,
            timing,
            seen: None,
            has_led: false,
        }
    }

    /// What the Lease means, that was asked for at `asked` and had arrived by `now`.
    pub(crate) fn judge(&mut self, record: Option<&Record>, asked: Duration, now: Duration) -> Verdict {
        let Some(record) = record else {
            return Verdict::Create;
        };
        let holder = record.holder.as_deref().filter(|holder| !holder.is_empty());
        if holder == Some(self.identity.as_str()) {
            return Verdict::Resume;
        }
        if self.has_led {
            let to = holder.unwrap_or_default().to_owned();
            return Verdict::Lost { to };
        }
        if holder.is_none() {
            return Verdict::Take;
        }
        match &self.seen {
            Some((version, since)) if *version == record.version => {
                // It was this record still when the request was sent; what happened since then is not known.
                if asked.saturating_sub(*since) >= self.patience(record) {
                    Verdict::Take
                } else {
                    Verdict::Wait
                }
            }
            _ => {
                self.seen = Some((record.version.clone(), now));
                Verdict::Wait
            }
        }
    }

    /// The Lease is ours.
    pub(crate) fn leads(&mut self) {
        self.has_led = true;
        self.seen = None;
    }

    /// The Lease was lost before any work began: there is nothing here that could be out of date.
    pub(crate) fn begins_anew(&mut self) {
        self.has_led = false;
    }

    /// Whether the Lease was ever ours.
    pub(crate) fn has_led(&self) -> bool {
        self.has_led
    }

    pub(crate) fn identity(&self) -> &str {
        &self.identity
    }

    pub(crate) fn timing(&self) -> Timing {
        self.timing
    }

    /// How long this holder is waited for: what it promises, which may have been configured otherwise than here.
    fn patience(&self, record: &Record) -> Duration {
        record
            .duration
            .filter(|duration| (Duration::from_secs(1)..=MOST_LEASE).contains(duration))
            .unwrap_or(self.timing.lease_duration)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMING: Timing = Timing {
        lease_duration: Duration::from_secs(15),
        renew_deadline: Duration::from_secs(10),
        retry_period: Duration::from_secs(2),
    };

    fn record(version: &str, holder: &str, seconds: u64) -> Record {
        Record {
            version: version.to_owned(),
            holder: (!holder.is_empty()).then(|| holder.to_owned()),
            duration: Some(Duration::from_secs(seconds)),
        }
    }

    /// Looks at one Lease after the other, each with the second at which it was seen.
    fn check(looks: &[(u64, Option<Record>, Verdict)]) {
        let mut election = Election::new("me".to_owned(), TIMING);
        for (at, record, expected) in looks {
            let at = Duration::from_secs(*at);
            assert_eq!(
                &election.judge(record.as_ref(), at, at),
                expected,
                "at {at:?}: {record:?}"
            );
        }
    }

    #[test]
    fn nobody_holds_it() {
        check(&[(0, None, Verdict::Create)]);
        check(&[(0, Some(record("1", "", 1)), Verdict::Take)]);
        let mut empty = record("1", "", 1);
        empty.holder = Some(String::new());
        check(&[(0, Some(empty), Verdict::Take)]);
    }

    #[test]
    fn a_holder_that_renews_is_left_alone_however_long() {
        let mut looks = Vec::new();
        for at in (0..600).step_by(14) {
            looks.push((at, Some(record(&at.to_string(), "other", 15)), Verdict::Wait));
        }
        check(&looks);
    }

    #[test]
    fn a_holder_that_is_silent_is_replaced_after_the_time_it_names() {
        for (named, seconds) in [(15, 15), (30, 30), (5, 5), (0, 15), (1_000_000, 15)] {
            let silent = || Some(record("7", "other", named));
            check(&[
                (100, silent(), Verdict::Wait),
                (100 + seconds - 1, silent(), Verdict::Wait),
                (100 + seconds, silent(), Verdict::Take),
            ]);
        }
    }

    #[test]
    fn the_time_begins_anew_with_each_renewal_and_each_holder() {
        check(&[
            (0, Some(record("1", "other", 15)), Verdict::Wait),
            (14, Some(record("2", "other", 15)), Verdict::Wait),
            (28, Some(record("2", "other", 15)), Verdict::Wait),
            (28, Some(record("3", "third", 15)), Verdict::Wait),
            (42, Some(record("3", "third", 15)), Verdict::Wait),
            (43, Some(record("3", "third", 15)), Verdict::Take),
        ]);
    }

    #[test]
    fn an_answer_proves_nothing_beyond_the_moment_it_was_asked_for() {
        let second = Duration::from_secs;
        let mut election = Election::new("me".to_owned(), TIMING);
        let silent = record("1", "other", 15);
        // The first answer took long: it may have been true only when it arrived.
        assert_eq!(election.judge(Some(&silent), second(0), second(5)), Verdict::Wait);
        // The second was asked for 14 s later, and may have been true only then.
        assert_eq!(election.judge(Some(&silent), second(19), second(30)), Verdict::Wait);
        assert_eq!(election.judge(Some(&silent), second(20), second(30)), Verdict::Take);
    }

    #[test]
    fn what_is_ours_is_resumed_and_what_another_has_is_lost() {
        let mine = record("1", "me", 15);
        check(&[(0, Some(mine.clone()), Verdict::Resume)]);
        let mut election = Election::new("me".to_owned(), TIMING);
        let at = Duration::from_secs(1);
        election.leads();
        assert!(election.has_led());
        assert_eq!(election.judge(Some(&mine), at, at), Verdict::Resume);
        assert_eq!(election.judge(None, at, at), Verdict::Create);
        let other = election.judge(Some(&record("2", "other", 15)), at, at);
        assert_eq!(other, Verdict::Lost { to: "other".to_owned() });
        let given_back = election.judge(Some(&record("3", "", 1)), at, at);
        assert_eq!(given_back, Verdict::Lost { to: String::new() });
    }
}
