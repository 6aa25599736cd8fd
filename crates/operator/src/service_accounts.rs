//! `ServiceAccounts`, read by name, kept as long as Secrets are, and looked at again at their pace while services use them.

mod in_use;

use std::{
    collections::BTreeSet,
    num::NonZeroUsize,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use isvc_core::observed::{Lookup, ServiceAccountFacts};
use kube::{Api, Client};
use kube_secret_access::SecretRef;
use lru::LruCache;
use tokio::{
    sync::Notify,
    time::{Instant, sleep, sleep_until},
};
use tracing::debug;

use self::in_use::{InUse, digest, wait};
use crate::{
    error::{Action, Fault, FaultKind, PassError},
    key::ObjectKey,
    observability::metrics::AccountMetrics,
    stored::{Stored, Wire, named::StoredServiceAccount},
    triggers::Triggers,
};

/// Accounts kept at once; one is some hundred bytes, and all of them [`MOST_BYTES`] each at the most.
const MOST_KEPT: NonZeroUsize = NonZeroUsize::new(1000).expect("1000 is not 0");

/// Bytes of one that is kept. One that has more, which may be a megabyte, is asked for each time.
const MOST_BYTES: usize = 8 << 10;

/// What a text takes beside its bytes: where it is, and what the allocator adds.
const TEXT_BYTES: usize = size_of::<String>() + 16;

/// What is missing is asked for again soon: somebody is probably creating it.
const MOST_NEGATIVE_AGE: Duration = Duration::from_secs(5);

/// How often one in use is looked at again if its age says nothing, as in mode `direct`.
const USUAL_INTERVAL: Duration = Duration::from_secs(60);

/// However old an account may be, its changes are noticed within this, about: as those of Secrets.
const LONGEST_INTERVAL: Duration = Duration::from_secs(300);

/// The least time between two looks, over all accounts, and how long a failed one is left alone at the least.
const LEAST_PAUSE: Duration = Duration::from_millis(100);
const AFTER_FAILURE: Duration = Duration::from_secs(5);

/// Reads `ServiceAccounts`.
pub(crate) struct ServiceAccounts {
    client: Client,
    metrics: Arc<AccountMetrics>,
    in_use: Mutex<InUse>,
    changed: Notify,
    /// Services to look at again, because an account of theirs was seen to have changed.
    concerned: Mutex<BTreeSet<ObjectKey>>,
    kept: Mutex<LruCache<ObjectKey, Kept>>,
    max_age_milliseconds: AtomicU64,
}

/// The last answer.
struct Kept {
    asked_at: Instant,
    digest: u64,
    /// None where it is too big to be kept.
    lookup: Option<Lookup<ServiceAccountFacts>>,
}

impl ServiceAccounts {
    pub(crate) fn new(client: Client, max_age: Duration, metrics: Arc<AccountMetrics>) -> Self {
        // The unbounded constructor, because the other one allocates for all entries at once; `keep` has the bound.
        let accounts = Self {
            client,
            metrics,
            in_use: Mutex::default(),
            changed: Notify::new(),
            concerned: Mutex::default(),
            kept: Mutex::new(LruCache::unbounded()),
            max_age_milliseconds: AtomicU64::new(0),
        };
        accounts.set_max_age(max_age);
        accounts
    }

    /// How old an answer may be from now on; zero means that every read asks the API server.
    pub(crate) fn set_max_age(&self, max_age: Duration) {
        let milliseconds = u64::try_from(max_age.as_millis()).unwrap_or(u64::MAX);
        self.max_age_milliseconds.store(milliseconds, Ordering::Relaxed);
        if max_age.is_zero() {
            self.kept().clear();
        }
    }

    /// Reads one account.
    pub(crate) async fn read(&self, key: &ObjectKey) -> Result<Lookup<ServiceAccountFacts>, PassError> {
        match self.find(key) {
            Some(kept) => Ok(kept),
            None => self.read_anew(key).await,
        }
    }

    /// Reads one account as it is now.
    pub(crate) async fn read_anew(&self, key: &ObjectKey) -> Result<Lookup<ServiceAccountFacts>, PassError> {
        // Its name becomes part of a path. The rules are those for Secrets, and what breaks them does not exist.
        if SecretRef::new(key.namespace(), key.name()).is_err() {
            return Ok(Lookup::Missing);
        }
        self.ask(key).await
    }

    /// A service uses these accounts from now on, and no others.
    pub(crate) fn refer(&self, service: &ObjectKey, accounts: &[ObjectKey]) {
        // They are read now.
        let due = Instant::now() + self.interval();
        // What a pass was answered with lately: changes count from there.
        let kept = self.kept();
        lock(&self.in_use).refer(service, accounts, due, |account| {
            kept.peek(account).map(|kept| (kept.asked_at, kept.digest))
        });
        drop(kept);
        self.changed.notify_one();
    }

    /// Looks at the accounts in use again and again, one after the other, and asks for passes of those whose account has
    /// changed. Never ends.
    pub(crate) async fn follow(self: Arc<Self>, triggers: Triggers) {
        loop {
            let next = lock(&self.in_use).next().cloned();
            let due = async {
                match &next {
                    Some((due, _)) => sleep_until(*due).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = self.changed.notified() => {}
                () = due => if let Some((_, account)) = &next {
                    if let Err(error) = self.ask(account).await {
                        debug!(%error, "ServiceAccount not looked at");
                        lock(&self.in_use).put_off(account, Instant::now() + AFTER_FAILURE.max(self.interval()));
                    }
                    sleep(LEAST_PAUSE).await;
                }
            }
            for service in std::mem::take(&mut *lock(&self.concerned)) {
                triggers.referrer(service);
            }
        }
    }

    /// How old an answer may be before the account is looked at again.
    fn interval(&self) -> Duration {
        let age = Duration::from_millis(self.max_age_milliseconds.load(Ordering::Relaxed));
        if age.is_zero() {
            USUAL_INTERVAL
        } else {
            age.clamp(MOST_NEGATIVE_AGE, LONGEST_INTERVAL)
        }
    }

    /// Asks the API server.
    async fn ask(&self, key: &ObjectKey) -> Result<Lookup<ServiceAccountFacts>, PassError> {
        let asked_at = Instant::now();
        let api: Api<Wire<StoredServiceAccount>> = Api::namespaced(self.client.clone(), key.namespace());
        let answer = api.get(key.name()).await.map_err(Fault::from);
        self.metrics
            .read(answer.as_ref().map(|_| ()).map_err(|fault| fault.kind));
        let lookup = match answer {
            Ok(wire) => Lookup::Found(wire.object.facts.clone()),
            Err(fault) => match fault.kind {
                FaultKind::NotFound => Lookup::Missing,
                FaultKind::Forbidden => Lookup::Unreadable(fault.message),
                _ => {
                    let kind = StoredServiceAccount::KIND;
                    return Err(PassError::Api {
                        action: Action::Read,
                        kind,
                        key: key.clone(),
                        fault,
                    });
                }
            },
        };
        self.keep(key, asked_at, &lookup);
        let due = Instant::now() + wait(&lookup, self.interval(), MOST_NEGATIVE_AGE, fastrand::f64());
        let concerned = lock(&self.in_use).seen(key, asked_at, &lookup, due);
        if !concerned.is_empty() {
            lock(&self.concerned).extend(concerned);
            self.changed.notify_one();
        }
        Ok(lookup)
    }

    fn find(&self, key: &ObjectKey) -> Option<Lookup<ServiceAccountFacts>> {
        let most = Duration::from_millis(self.max_age_milliseconds.load(Ordering::Relaxed));
        let mut kept = self.kept();
        let Kept { asked_at, lookup, .. } = kept.get(key)?;
        let lookup = lookup.as_ref()?;
        let most = if matches!(lookup, Lookup::Found(_)) {
            most
        } else {
            most.min(MOST_NEGATIVE_AGE)
        };
        (asked_at.elapsed() < most).then(|| lookup.clone())
    }

    fn keep(&self, key: &ObjectKey, asked_at: Instant, lookup: &Lookup<ServiceAccountFacts>) {
        if self.max_age_milliseconds.load(Ordering::Relaxed) == 0 {
            return;
        }
        let is_small = !matches!(lookup, Lookup::Found(facts) if bytes(facts) > MOST_BYTES);
        let last = Kept {
            asked_at,
            digest: digest(lookup),
            lookup: is_small.then(|| lookup.clone()),
        };
        let mut kept = self.kept();
        kept.put(key.clone(), last);
        while kept.len() > MOST_KEPT.get() {
            kept.pop_lru();
        }
    }

    fn kept(&self) -> MutexGuard<'_, LruCache<ObjectKey, Kept>> {
        lock(&self.kept)
    }
}

fn bytes(facts: &ServiceAccountFacts) -> usize {
    let annotations = facts.annotations.iter().flat_map(|(key, value)| [key, value]);
    let texts = facts.secrets.iter().chain(annotations);
    texts.map(|text| text.len() + TEXT_BYTES).sum()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Consistent after every statement that could panic.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::io;

    use http::{Request, Response, StatusCode};
    use kube::client::Body;
    use tower::{BoxError, service_fn};

    use super::*;
    use crate::observability::metrics::{Metrics, tests::page};

    fn unreachable(max_age: Duration) -> ServiceAccounts {
        ServiceAccounts::new(crate::tests::unreachable_client(), max_age, Metrics::new().accounts)
    }

    /// Of an API server whose answer depends on the name that is asked for.
    async fn answer(request: Request<Body>) -> Result<Response<Body>, BoxError> {
        let name = request.uri().path().rsplit('/').next().unwrap_or_default();
        let (code, body) = match name {
            "there" => (StatusCode::OK, r#"{"metadata": {"name": "there"}}"#),
            "missing" => (StatusCode::NOT_FOUND, ""),
            "forbidden" => (StatusCode::FORBIDDEN, ""),
            "throttled" => (StatusCode::TOO_MANY_REQUESTS, ""),
            "garbage" => (StatusCode::OK, "<html>"),
            _ => return Err(io::Error::from(io::ErrorKind::ConnectionReset).into()),
        };
        Ok(Response::builder()
            .status(code)
            .body(Body::from(body.as_bytes().to_vec()))?)
    }

    #[tokio::test]
    async fn every_answer_is_counted_and_what_is_kept_is_not() {
        let metrics = Arc::new(Metrics::new());
        let client = Client::new(service_fn(answer), "default");
        let accounts = ServiceAccounts::new(client, Duration::from_secs(60), Arc::clone(&metrics.accounts));
        for name in [
            "there",
            "there",
            "missing",
            "forbidden",
            "throttled",
            "garbage",
            "reset",
        ] {
            // What comes of it is told by the counters.
            drop(accounts.read(&ObjectKey::new("ns", name)).await);
        }
        let page = page(&metrics);
        for (result, count) in [
            ("found", 1),
            ("not_found", 1),
            ("forbidden", 1),
            ("throttled", 1),
            ("malformed", 1),
            ("unavailable", 1),
            ("timeout", 0),
        ] {
            let line = format!("leanserve_serviceaccount_reads_total{{result=\"{result}\"}} {count}");
            assert!(page.lines().any(|found| found == line), "{line} is not in\n{page}");
        }
    }

    #[tokio::test]
    async fn no_name_leads_out_of_its_namespace() {
        let accounts = ServiceAccounts::new(
            Client::new(service_fn(answer), "default"),
            Duration::from_secs(60),
            Metrics::new().accounts,
        );
        let elsewhere = ObjectKey::new("ns", "../../other/serviceaccounts/there");
        let found = accounts.read(&elsewhere).await.expect("no request is needed");
        assert_eq!(found, Lookup::Missing);
    }

    #[tokio::test(start_paused = true)]
    async fn answers_age_and_missing_ones_sooner() {
        let accounts = unreachable(Duration::from_secs(60));
        let (found, missing) = (ObjectKey::new("ns", "found"), ObjectKey::new("ns", "missing"));
        accounts.keep(&found, Instant::now(), &Lookup::Found(ServiceAccountFacts::default()));
        accounts.keep(&missing, Instant::now(), &Lookup::Missing);
        assert!(accounts.find(&found).is_some() && accounts.find(&missing).is_some());
        tokio::time::advance(Duration::from_secs(6)).await;
        assert!(accounts.find(&found).is_some() && accounts.find(&missing).is_none());
        tokio::time::advance(Duration::from_secs(60)).await;
        assert!(accounts.find(&found).is_none());
    }

    #[tokio::test]
    async fn the_number_kept_is_bounded_and_zero_age_keeps_none() {
        let accounts = unreachable(Duration::from_secs(60));
        for number in 0..1100 {
            accounts.keep(
                &ObjectKey::new("ns", &number.to_string()),
                Instant::now(),
                &Lookup::Missing,
            );
        }
        assert_eq!(accounts.kept().len(), MOST_KEPT.get());
        let listing = |count| {
            Lookup::Found(ServiceAccountFacts {
                secrets: (0..count).map(|number| format!("secret-{number}")).collect(),
                ..ServiceAccountFacts::default()
            })
        };
        let key = ObjectKey::new("ns", "big");
        accounts.keep(&key, Instant::now(), &listing(100));
        assert_eq!(accounts.find(&key), Some(listing(100)));
        accounts.keep(&key, Instant::now(), &listing(40_000));
        assert_eq!(accounts.find(&key), None, "and not the one of before either");
        let (service, now) = (ObjectKey::new("ns", "service"), Instant::now());
        accounts.refer(&service, std::slice::from_ref(&key));
        let told = lock(&accounts.in_use).seen(&key, now, &listing(40_001), now);
        assert_eq!(told, [service], "a change of it is noticed all the same");
        accounts.set_max_age(Duration::ZERO);
        accounts.keep(&ObjectKey::new("ns", "a"), Instant::now(), &Lookup::Missing);
        assert_eq!(accounts.kept().len(), 0);
    }
}
