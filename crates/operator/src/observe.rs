//! The only reader: gathers every fact a decision may use.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use futures::{StreamExt, TryStreamExt, stream};
use isvc_core::{
    api::{InferenceService, InvalidField, Meta},
    credential::{CredentialFacts, LITERAL_KEYS, is_storage_annotation, storage_entry},
    decide, names,
    observed::{ByName, Live, LiveObject, Lookup, Observed, StorageInjection},
    settings::Settings,
};
use kube_secret_access::{ReadError, SecretAccess, SecretRef, SecretSnapshot, Want};

use crate::{
    ca_bundle::CaBundleSource,
    cache::Cache,
    error::PassError,
    injection::Injection,
    key::ObjectKey,
    references::{References, Referring},
    service_accounts::ServiceAccounts,
    stored::{
        child::{Autoscalers, ChildType, Deployments, HttpRoutes, Ingresses, ScaledObjects, Services, StoredChild},
        named::StoredCaBundle,
        pod::StoredPod,
        runtime::{StoredClusterRuntime, StoredRuntime, StoredStorageContainer},
        service::StoredService,
    },
};

/// Secrets of one service that are read at the same time.
const READS_AT_ONCE: usize = 4;

/// Everything the watches keep.
#[derive(Default)]
pub(crate) struct Caches {
    pub(crate) inference_services: Arc<Cache<StoredService>>,
    pub(crate) services: Arc<Cache<StoredChild<Services>>>,
    pub(crate) deployments: Arc<Cache<StoredChild<Deployments>>>,
    pub(crate) autoscalers: Arc<Cache<StoredChild<Autoscalers>>>,
    pub(crate) scaled_objects: Arc<Cache<StoredChild<ScaledObjects>>>,
    pub(crate) ingresses: Arc<Cache<StoredChild<Ingresses>>>,
    pub(crate) http_routes: Arc<Cache<StoredChild<HttpRoutes>>>,
    pub(crate) ca_bundles: Arc<Cache<StoredCaBundle>>,
    pub(crate) pods: Arc<Cache<StoredPod>>,
    pub(crate) runtimes: Arc<Cache<StoredRuntime>>,
    pub(crate) cluster_runtimes: Arc<Cache<StoredClusterRuntime>>,
    pub(crate) storage_containers: Arc<Cache<StoredStorageContainer>>,
}

/// Reads what a pass needs, from the caches and, for what must not be cached cluster-wide, by name.
pub(crate) struct Observer {
    pub(crate) caches: Caches,
    pub(crate) secrets: Arc<dyn SecretAccess>,
    pub(crate) accounts: Arc<ServiceAccounts>,
    pub(crate) references: References,
    pub(crate) ca_bundle: Arc<CaBundleSource>,
    pub(crate) injection: Arc<Injection>,
    pub(crate) cluster_domain: String,
    pub(crate) platform_namespace: String,
}

impl Observer {
    /// Gathers the facts about one service.
    pub(crate) async fn observe(
        &self,
        service: InferenceService,
        settings: Arc<Settings>,
    ) -> Result<Observed, PassError> {
        let live = self.live(&service.meta);
        // What is read and what is decided follow the same setting, even if it changes in between.
        let storage_injection = self.injection.now();
        let by_name = self.read_by_name(&service, &settings, storage_injection, &live).await?;
        let caches = &self.caches;
        let runtimes = caches.runtimes.in_namespace(&service.meta.namespace);
        Ok(Observed {
            runtimes: usable(runtimes.iter().map(|runtime| runtime.parsed())),
            cluster_runtimes: usable(caches.cluster_runtimes.in_namespace("").iter().map(|one| one.parsed())),
            storage_containers: usable(
                caches
                    .storage_containers
                    .in_namespace("")
                    .iter()
                    .map(|one| one.parsed()),
            ),
            by_name,
            live,
            cluster_domain: self.cluster_domain.clone(),
            platform_namespace: self.platform_namespace.clone(),
            storage_injection,
            service,
            settings,
        })
    }

    /// The children of a service, as they are known now, our own writes included.
    pub(crate) fn live(&self, service: &Meta) -> Live {
        let key = ObjectKey::new(&service.namespace, &service.name);
        let caches = &self.caches;
        let copy = ObjectKey::new(&service.namespace, names::CA_BUNDLE_CONFIG_MAP);
        let deployments = caches.deployments.owned_by(&key);
        let http_routes = caches.http_routes.owned_by(&key);
        Live {
            deployments: deployments.iter().map(|child| child.live_deployment()).collect(),
            services: live_of(&caches.services, &key),
            horizontal_pod_autoscalers: live_of(&caches.autoscalers, &key),
            scaled_objects: live_of(&caches.scaled_objects, &key),
            ingresses: live_of(&caches.ingresses, &key),
            http_routes: http_routes.iter().map(|child| child.live_route()).collect(),
            ca_bundle: caches.ca_bundles.find(&copy).and_then(|copy| copy.digest),
            pods: caches.pods.owned_by(&key).iter().map(|pod| pod.live()).collect(),
        }
    }

    async fn read_by_name(
        &self,
        service: &InferenceService,
        settings: &Settings,
        storage_injection: StorageInjection,
        live: &Live,
    ) -> Result<ByName, PassError> {
        let wanted = decide::wanted(service, settings, storage_injection, live);
        let namespace = service.meta.namespace.as_str();
        let key = ObjectKey::new(namespace, &service.meta.name);
        let referring = self.references.begin(&key);
        let accounts: Vec<_> = wanted
            .service_accounts
            .iter()
            .map(|name| ObjectKey::new(namespace, name))
            .collect();
        referring.accounts(&accounts);
        let mut names = wanted.secrets.clone();
        let mut service_accounts = BTreeMap::new();
        for account in &accounts {
            let found = self.accounts.read(account).await?;
            names.extend(decide::secrets_of(&wanted, account.name(), &found));
            service_accounts.insert(account.name().to_owned(), found);
        }
        let (refer, storage_secrets) = (&referring, &wanted.storage_secrets);
        let secrets = stream::iter(names)
            .map(|name| async move {
                let reading = Reading::of(&name, storage_secrets);
                let lookup = self.credential(namespace, &name, reading, refer).await?;
                Ok::<_, PassError>((lookup, name))
            })
            .buffer_unordered(READS_AT_ONCE)
            .map_ok(|(lookup, name)| (name, lookup))
            .try_collect::<BTreeMap<_, _>>();
        let secrets = secrets.await?;
        referring.end();
        Ok(ByName {
            service_accounts,
            secrets,
            ca_bundle: self.ca_bundle.read(settings).await?,
        })
    }

    async fn credential(
        &self,
        namespace: &str,
        name: &str,
        reading: Reading,
        referring: &Referring<'_>,
    ) -> Result<Lookup<CredentialFacts>, PassError> {
        let secret = match SecretRef::new(namespace, name) {
            Ok(secret) => secret,
            Err(error) => return Ok(Lookup::Unreadable(error.to_string())),
        };
        referring.secret(&secret);
        credential(&*self.secrets, &secret, reading, Want::default()).await
    }
}

/// Reads what decisions may know of a Secret.
pub(crate) async fn credential(
    secrets: &dyn SecretAccess,
    secret: &SecretRef,
    reading: Reading,
    want: Want,
) -> Result<Lookup<CredentialFacts>, PassError> {
    match secrets.read(secret, want).await {
        Ok(snapshot) => Ok(Lookup::Found(facts(&snapshot, reading))),
        Err(error) => lookup(error),
    }
}

fn live_of<K: ChildType>(cache: &Cache<StoredChild<K>>, service: &ObjectKey) -> Vec<LiveObject> {
    cache.owned_by(service).iter().map(|child| child.live()).collect()
}

/// What a failed read means: an answer about the Secret, or no answer.
fn lookup(error: ReadError) -> Result<Lookup<CredentialFacts>, PassError> {
    match error {
        ReadError::NotFound { .. } => Ok(Lookup::Missing),
        ReadError::Forbidden { .. } | ReadError::TooLarge { .. } | ReadError::Malformed { .. } => {
            Ok(Lookup::Unreadable(error.to_string()))
        }
        ReadError::Unauthorized { .. }
        | ReadError::Throttled { .. }
        | ReadError::Timeout { .. }
        | ReadError::NotCached { .. }
        | ReadError::Unavailable { .. } => Err(error.into()),
    }
}

/// How much is taken from a Secret.
#[derive(Clone, Copy)]
pub(crate) enum Reading {
    /// Its keys and settings.
    Keys,
    /// Also what the values say of storage: it is the storage Secret.
    WithEntries,
}

impl Reading {
    /// How a Secret of this name is read.
    pub(crate) fn of(name: &str, storage_secrets: &BTreeSet<String>) -> Self {
        if storage_secrets.contains(name) {
            Self::WithEntries
        } else {
            Self::Keys
        }
    }
}

/// Takes from a Secret what decisions may know: its keys and the few values that are settings. No other value leaves here.
fn facts(snapshot: &SecretSnapshot, reading: Reading) -> CredentialFacts {
    let annotations = snapshot.annotations().filter(|(key, _)| is_storage_annotation(key));
    let literals = LITERAL_KEYS.iter().filter_map(|key| {
        let text = snapshot.bytes(key)?.as_str()?;
        Some(((*key).to_owned(), text.to_owned()))
    });
    let storage_entries = match reading {
        Reading::Keys => BTreeMap::new(),
        Reading::WithEntries => snapshot
            .keys()
            .filter_map(|key| Some((key.to_owned(), storage_entry(snapshot.bytes(key)?.as_slice()))))
            .collect(),
    };
    CredentialFacts {
        storage_entries,
        keys: snapshot.keys().map(str::to_owned).collect(),
        annotations: annotations
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect(),
        literals: literals.collect(),
    }
}

/// Those that could be read. The others were reported when they changed, and count as not there.
fn usable<'a, T: 'a>(parsed: impl Iterator<Item = &'a Result<Arc<T>, InvalidField>>) -> Vec<Arc<T>> {
    parsed
        .filter_map(|parsed| parsed.as_ref().ok())
        .map(Arc::clone)
        .collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn secret() -> SecretRef {
        SecretRef::new("ns", "s3").expect("valid")
    }

    #[test]
    fn only_keys_and_settings_are_taken_from_a_secret() {
        let snapshot = SecretSnapshot::builder(secret())
            .data("AWS_SECRET_ACCESS_KEY", b"planted".to_vec())
            .data("S3_ENDPOINT", b"minio:9000".to_vec())
            .annotation("serving.kserve.io/s3-usehttps", "0")
            .annotation("other", "planted")
            .build();
        let facts = facts(&snapshot, Reading::Keys);
        assert!(facts.keys.contains("AWS_SECRET_ACCESS_KEY"));
        assert_eq!(facts.literals["S3_ENDPOINT"], "minio:9000");
        assert_eq!(facts.annotations.len(), 1);
        assert!(facts.storage_entries.is_empty());
        assert!(!format!("{facts:?}").contains("planted"));
    }

    #[test]
    fn of_the_storage_secret_the_storage_is_taken_and_no_credential() {
        let snapshot = SecretSnapshot::builder(secret())
            .data(
                "main",
                br#"{"type":"s3","bucket":"models","secret_access_key":"planted"}"#.to_vec(),
            )
            .data("broken", b"planted".to_vec())
            .build();
        let facts = facts(&snapshot, Reading::WithEntries);
        assert_eq!(facts.storage_entries["main"].bucket.as_deref(), Some("models"));
        assert!(facts.storage_entries["broken"].problem.is_some());
        assert!(!format!("{facts:?}").contains("planted"));
    }

    #[test]
    fn answers_about_the_secret_are_facts_and_silence_is_an_error() {
        assert_eq!(
            lookup(ReadError::NotFound { secret: secret() }).expect("a fact"),
            Lookup::Missing
        );
        let forbidden = lookup(ReadError::Forbidden { secret: secret() }).expect("a fact");
        assert!(matches!(forbidden, Lookup::Unreadable(why) if why.contains("ns/s3")));
        assert!(
            lookup(ReadError::Timeout {
                secret: secret(),
                deadline: Duration::from_secs(1)
            })
            .is_err()
        );
        assert!(lookup(ReadError::Unauthorized { secret: secret() }).is_err());
    }
}
