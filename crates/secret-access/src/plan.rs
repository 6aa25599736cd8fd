//! Pure: what one request has to bring so that all its readers are served.

use std::sync::Arc;

use crate::answer::{Answer, Recency, Sent, Served};
use crate::snapshot::{ResourceVersion, SecretSnapshot, Source};
use crate::want::Fields;

/// A request that is not answered yet.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// What is copied out of the answer.
    pub(crate) fields: Fields,
    /// Ask for this version or a later one instead of a quorum: enough while no reader needs more.
    pub(crate) at_least: Option<ResourceVersion>,
    /// A copy in memory: when it is still current, its content need not be fetched.
    pub(crate) base: Option<Arc<SecretSnapshot>>,
}

impl Plan {
    pub(crate) fn new(recency: Recency, fields: &Fields, base: Option<Arc<SecretSnapshot>>) -> Self {
        Self {
            fields: fields.clone(),
            at_least: match recency {
                Recency::Version(version) => Some(version),
                Recency::New | Recency::Since { .. } => None,
            },
            base,
        }
    }

    /// Serves one more reader, before the request is sent.
    pub(crate) fn take_on(&mut self, recency: Recency, fields: &Fields, base: Option<Arc<SecretSnapshot>>) {
        self.fields = self.fields.union(fields);
        self.at_least = match (self.at_least, recency) {
            (Some(planned), Recency::Version(version)) => Some(planned.max(version)),
            (None, _) | (_, Recency::New | Recency::Since { .. }) => None,
        };
        let version = |base: &Option<Arc<SecretSnapshot>>| base.as_ref().map(|base| base.resource_version());
        if version(&base) > version(&self.base) {
            self.base = base;
        }
    }

    /// Whether the request, sent at `sent`, serves a reader who comes after that.
    pub(crate) fn serves(&self, recency: Recency, sent: Sent) -> bool {
        match recency {
            Recency::New => false,
            Recency::Since { since, max_age } => {
                self.at_least.is_none() && since.saturating_duration_since(sent.at) <= max_age
            }
            // A quorum read that is already sent may have missed the version.
            Recency::Version(version) => self.at_least.is_some_and(|planned| planned >= version),
        }
    }

    /// The copy whose metadata are enough to ask for, if there is one that has all fields and is big enough to be worth it.
    pub(crate) fn worth_revalidating(&self, least_bytes: usize) -> Option<&Arc<SecretSnapshot>> {
        let base = self.base.as_ref()?;
        (base.cost() >= least_bytes && base.fields().covers(&self.fields)).then_some(base)
    }
}

/// What a request brought.
#[derive(Debug, Clone)]
pub(crate) struct Replied {
    pub(crate) answer: Answer,
    /// Whether the content came from memory and only its being current from the API server.
    pub(crate) revalidated: bool,
}

impl From<Replied> for Served {
    fn from(replied: Replied) -> Self {
        Self {
            answer: replied.answer,
            source: if replied.revalidated {
                Source::Revalidated
            } else {
                Source::Api
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::Instant;

    use super::*;
    use crate::secret_ref::SecretRef;
    use crate::want::Want;

    fn version(number: u64) -> Recency {
        Recency::Version(ResourceVersion::new(number))
    }

    fn base(number: u64, bytes: usize, want: &Want) -> Arc<SecretSnapshot> {
        let secret = SecretRef::new("ns", "s").expect("valid");
        let builder = SecretSnapshot::builder(secret).resource_version(number);
        let builder = builder.data("k", vec![0; bytes]).fields(want.fields().clone());
        Arc::new(builder.build())
    }

    #[test]
    fn one_reader_who_needs_a_quorum_makes_it_one() {
        let all = Fields::default();
        let mut plan = Plan::new(version(5), &all, None);
        plan.take_on(version(9), &all, None);
        plan.take_on(version(7), &all, None);
        assert_eq!(plan.at_least, Some(ResourceVersion::new(9)));
        plan.take_on(Recency::New, &all, None);
        plan.take_on(version(11), &all, None);
        assert_eq!(plan.at_least, None);
    }

    #[test]
    fn a_request_on_its_way_serves_whom_it_can() {
        let all = Fields::default();
        let sent = Sent::now();
        let aged = |seconds| Recency::Since {
            since: sent.at + Duration::from_secs(10),
            max_age: Duration::from_secs(seconds),
        };
        let quorum = Plan::new(Recency::New, &all, None);
        assert!(!quorum.serves(Recency::New, sent));
        assert!(quorum.serves(aged(10), sent) && !quorum.serves(aged(9), sent));
        assert!(!quorum.serves(version(1), sent));
        let versioned = Plan::new(version(5), &all, None);
        assert!(versioned.serves(version(5), sent) && !versioned.serves(version(6), sent));
        assert!(!versioned.serves(aged(10), sent), "it says nothing about time");
    }

    #[test]
    fn the_newest_copy_with_all_fields_is_revalidated() {
        let a = Want::default().keys(["a"]);
        let b = Want::default().keys(["b"]);
        let mut plan = Plan::new(Recency::New, a.fields(), Some(base(3, 5000, &a)));
        plan.take_on(Recency::New, a.fields(), Some(base(2, 5000, &a)));
        plan.take_on(Recency::New, a.fields(), None);
        let found = plan.worth_revalidating(4000).expect("big and complete");
        assert_eq!(found.resource_version(), ResourceVersion::new(3));
        let cost = found.cost();
        assert!(plan.worth_revalidating(cost).is_some() && plan.worth_revalidating(cost + 1).is_none());
        plan.take_on(Recency::New, a.fields(), Some(base(4, 5000, &a)));
        assert_eq!(
            plan.worth_revalidating(0).map(|base| base.resource_version()),
            Some(ResourceVersion::new(4))
        );
        plan.take_on(Recency::New, b.fields(), None);
        assert!(plan.worth_revalidating(0).is_none(), "nobody copied b");
        assert!(plan.fields.covers(a.fields()) && plan.fields.covers(b.fields()));
    }

    #[test]
    fn ages_are_counted_from_sending() {
        let plan = Plan::new(Recency::New, &Fields::default(), None);
        let sent = Sent::now();
        let since = Recency::Since {
            since: Instant::now(),
            max_age: Duration::ZERO,
        };
        let earlier = Sent {
            at: sent
                .at
                .checked_sub(Duration::from_secs(1))
                .expect("the clock is past a second"),
            ..sent
        };
        assert!(!plan.serves(since, earlier));
    }
}
