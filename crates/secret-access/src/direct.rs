//! The mode `direct`: one GET a read, and nothing kept.

use std::sync::Arc;

use crate::access::BoxFuture;
use crate::answer::{Answers, Asked, Recency, Sent, Served};
use crate::error::ReadError;
use crate::flight::{Flights, Joined};
use crate::mode::Mode;
use crate::probe::CacheSize;
use crate::purge::{Purge, Purged};
use crate::secret_ref::SecretRef;
use crate::snapshot::ResourceVersion;
use crate::want::Freshness;

/// The mode itself.
pub(crate) struct DirectReads {
    flights: Arc<Flights>,
}

impl DirectReads {
    pub(crate) fn new(flights: Arc<Flights>) -> Self {
        Self { flights }
    }
}

impl Answers for DirectReads {
    fn mode(&self) -> Mode {
        Mode::Direct
    }

    fn at_hand(&self, _: &SecretRef, _: Asked<'_>) -> Option<Served> {
        None
    }

    fn answer<'a>(&'a self, secret: &'a SecretRef, asked: Asked<'a>) -> BoxFuture<'a, Result<Served, ReadError>> {
        Box::pin(async move {
            let recency = match asked.want.freshness() {
                Freshness::Cached => return Err(ReadError::NotCached { secret: secret.clone() }),
                _ if asked.anew => Recency::New,
                Freshness::Mode | Freshness::Quorum => Recency::New,
                Freshness::AtMost(max_age) => Recency::Since {
                    since: asked.began,
                    max_age,
                },
                Freshness::AtLeast(version) => Recency::Version(version),
            };
            let fields = asked.want.fields();
            let boarded = self.flights.board(secret, recency, fields, None);
            let joined = boarded.joined();
            match boarded.answer(Mode::Direct, None).await {
                // The deadline of a request sent before this read began: this read's own has time left.
                Err(ReadError::Timeout { .. }) if joined == Joined::Sent => {
                    let boarded = self.flights.board(secret, Recency::New, fields, None);
                    Ok(boarded.answer(Mode::Direct, None).await?.into())
                }
                result => Ok(result?.into()),
            }
        })
    }

    fn purge(&self, _: Purge) -> Purged {
        Purged::default()
    }

    fn held(&self) -> CacheSize {
        CacheSize::default()
    }

    fn squeeze(&self, _: usize) -> Purged {
        Purged::default()
    }

    fn confirm(&self, _: &SecretRef, _: &str, _: ResourceVersion, _: Sent) {}
}
