//! Objects as somebody wrote them, without a cluster: what a decision observes when all there is are files.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use base64::Engine;
use serde_json::Value;
use thiserror::Error;

use crate::{
    api::{
        InferenceService, InferenceServiceStatus, InvalidField, Meta, Scope, ServingRuntime, StorageContainer,
        fields::Fields,
    },
    credential::{self, CredentialFacts},
    decide, names,
    observed::{ByName, CaBundleSource, Live, Lookup, Observed, ServiceAccountFacts, StorageInjection},
    settings::{Settings, SettingsError},
};

/// Name of the `ConfigMap` with the platform's settings.
const SETTINGS: &str = "inferenceservice-config";

/// Why a document cannot be used.
#[derive(Debug, Error)]
pub enum ManifestError {
    /// A field of the document.
    #[error("{kind} {name}: {source}")]
    Field {
        /// Its kind.
        kind: String,
        /// Its name, with its namespace where it has one.
        name: String,
        /// The field.
        source: InvalidField,
    },
    /// The platform's settings.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// It is no object of Kubernetes.
    #[error("{0}")]
    NoObject(InvalidField),
}

/// Namespace and name.
type Key = (String, String);

/// Everything that was written down.
#[derive(Clone, Debug)]
pub struct Manifests {
    settings: Arc<Settings>,
    platform_namespace: String,
    default_namespace: String,
    storage_injection: StorageInjection,
    secrets: BTreeMap<Key, CredentialFacts>,
    accounts: BTreeMap<Key, ServiceAccountFacts>,
    ca_bundles: BTreeMap<String, CaBundleSource>,
    runtimes: BTreeMap<Key, Arc<ServingRuntime>>,
    cluster_runtimes: BTreeMap<String, Arc<ServingRuntime>>,
    storage_containers: BTreeMap<String, Arc<StorageContainer>>,
    services: BTreeMap<Key, InferenceService>,
    ignored: Vec<String>,
}

impl Manifests {
    /// Nothing yet, and the built-in settings. Objects without a namespace are read as of `default_namespace`.
    #[must_use]
    pub fn new(platform_namespace: &str, default_namespace: &str, storage_injection: StorageInjection) -> Self {
        Self {
            settings: Arc::new(Settings::built_in()),
            platform_namespace: platform_namespace.to_owned(),
            default_namespace: default_namespace.to_owned(),
            storage_injection,
            secrets: BTreeMap::new(),
            accounts: BTreeMap::new(),
            ca_bundles: BTreeMap::new(),
            runtimes: BTreeMap::new(),
            cluster_runtimes: BTreeMap::new(),
            storage_containers: BTreeMap::new(),
            services: BTreeMap::new(),
            ignored: Vec::new(),
        }
    }

    /// Adds one document, or each item of a List; one of the same kind and name replaces the one before. Kinds that no
    /// decision reads are passed over, see [`ignored`](Self::ignored).
    ///
    /// # Errors
    /// [`ManifestError`] names the document and what is wrong with it.
    pub fn add(&mut self, document: Value) -> Result<(), ManifestError> {
        let mut object = Fields::new("document", document).map_err(ManifestError::NoObject)?;
        let text = |object: &mut Fields, field: &str| object.take::<String>(field).map_err(ManifestError::NoObject);
        let kind = text(&mut object, "kind")?.unwrap_or_default();
        let api_version = text(&mut object, "apiVersion")?.unwrap_or_default();
        if kind.is_empty() {
            return Err(ManifestError::NoObject(InvalidField::new(
                "document.kind",
                "is missing; each document is an object of Kubernetes with apiVersion, kind and metadata",
            )));
        }
        if kind == "List" {
            let items: Vec<Value> = object
                .take("items")
                .map_err(ManifestError::NoObject)?
                .unwrap_or_default();
            return items.into_iter().try_for_each(|item| self.add(item));
        }
        let meta: Option<Meta> = object.take("metadata").map_err(ManifestError::NoObject)?;
        let mut meta = meta.unwrap_or_default();
        if meta.namespace.is_empty() && !is_cluster_scoped(&kind) {
            meta.namespace.clone_from(&self.default_namespace);
        }
        let name = match meta.namespace.as_str() {
            "" => meta.name.clone(),
            namespace => format!("{namespace}/{}", meta.name),
        };
        self.store(&api_version, &kind, meta, object)
            .map_err(|error| match error {
                Problem::Field(source) => ManifestError::Field { kind, name, source },
                Problem::Settings(error) => error.into(),
            })
    }

    fn store(&mut self, api_version: &str, kind: &str, meta: Meta, mut object: Fields) -> Result<(), Problem> {
        let key = (meta.namespace.clone(), meta.name.clone());
        let group = api_version.split_once('/').map_or("", |(group, _)| group);
        match (group, kind) {
            ("", "Secret") => {
                self.secrets.insert(key, secret(&meta, &mut object)?);
            }
            ("", "ServiceAccount") => {
                self.accounts.insert(key, service_account(&meta, &mut object)?);
            }
            ("", "ConfigMap") if meta.namespace == self.platform_namespace => {
                let data: BTreeMap<String, String> = object.take("data")?.unwrap_or_default();
                if meta.name == SETTINGS {
                    self.settings = Arc::new(Settings::parse(&data).map_err(Problem::Settings)?);
                } else {
                    let certificates = data.get(names::CA_BUNDLE_KEY).map(|text| Arc::from(text.as_str()));
                    self.ca_bundles.insert(meta.name, CaBundleSource { certificates });
                }
            }
            ("serving.kserve.io", "ServingRuntime") => {
                let runtime = ServingRuntime::parse(Scope::Namespace, meta, object.take_value("spec"))?;
                self.runtimes.insert(key, Arc::new(runtime));
            }
            ("serving.kserve.io", "ClusterServingRuntime") => {
                let runtime = ServingRuntime::parse(Scope::Cluster, meta, object.take_value("spec"))?;
                self.cluster_runtimes.insert(key.1, Arc::new(runtime));
            }
            ("serving.kserve.io", "ClusterStorageContainer") => {
                let disabled = object.take("disabled")?;
                let container = StorageContainer::parse(meta, object.take_value("spec"), disabled)?;
                self.storage_containers.insert(key.1, Arc::new(container));
            }
            ("serving.kserve.io", names::INFERENCE_SERVICE_KIND) => {
                let status: Option<InferenceServiceStatus> = object.take("status")?;
                let service = InferenceService::parse(meta, object.take_value("spec"), status.unwrap_or_default())?;
                self.services.insert(key, service);
            }
            _ => self.ignored.push(format!("{kind} {}/{}", key.0, key.1)),
        }
        Ok(())
    }

    /// Forgets an object, as if it had never been added.
    pub fn remove(&mut self, kind: &str, namespace: &str, name: &str) {
        let key = (namespace.to_owned(), name.to_owned());
        match kind {
            "Secret" => drop(self.secrets.remove(&key)),
            "ServiceAccount" => drop(self.accounts.remove(&key)),
            "ConfigMap" => drop(self.ca_bundles.remove(name)),
            "ServingRuntime" => drop(self.runtimes.remove(&key)),
            "ClusterServingRuntime" => drop(self.cluster_runtimes.remove(name)),
            "ClusterStorageContainer" => drop(self.storage_containers.remove(name)),
            names::INFERENCE_SERVICE_KIND => drop(self.services.remove(&key)),
            _ => {}
        }
    }

    /// The services, by namespace and name.
    pub fn services(&self) -> impl Iterator<Item = &InferenceService> {
        self.services.values()
    }

    /// The runtimes of each namespace, and those of the cluster.
    pub(crate) fn runtimes_by_scope(&self) -> Vec<Vec<Arc<ServingRuntime>>> {
        let mut by_namespace: BTreeMap<&str, Vec<Arc<ServingRuntime>>> = BTreeMap::new();
        for (key, runtime) in &self.runtimes {
            by_namespace.entry(&key.0).or_default().push(Arc::clone(runtime));
        }
        let of_cluster = self.cluster_runtimes.values().cloned().collect();
        by_namespace.into_values().chain([of_cluster]).collect()
    }

    /// The settings in force.
    #[must_use]
    pub fn settings(&self) -> &Arc<Settings> {
        &self.settings
    }

    /// Documents that no decision reads, as kind, namespace and name.
    #[must_use]
    pub fn ignored(&self) -> &[String] {
        &self.ignored
    }

    /// The facts about a service whose children are `live`. What was not written down counts as not there.
    #[must_use]
    pub fn observe(&self, service: InferenceService, live: Live) -> Observed {
        let namespace = service.meta.namespace.clone();
        let wanted = decide::wanted(&service, &self.settings, self.storage_injection, &live);
        let mut secrets = wanted.secrets.clone();
        let mut service_accounts = BTreeMap::new();
        for name in &wanted.service_accounts {
            let account = find(&self.accounts, &namespace, name);
            secrets.extend(decide::secrets_of(&wanted, name, &account));
            service_accounts.insert(name.clone(), account);
        }
        let secrets = secrets.into_iter().map(|name| {
            let mut found = find(&self.secrets, &namespace, &name);
            if let Lookup::Found(facts) = &mut found
                && !wanted.storage_secrets.contains(&name)
            {
                facts.storage_entries.clear();
            }
            (name, found)
        });
        let ca_bundle = self.settings.storage_initializer.ca_bundle_config_map_name.as_ref();
        let ca_bundle = ca_bundle.map(|name| match self.ca_bundles.get(name) {
            Some(found) => Lookup::Found(found.clone()),
            None => Lookup::Missing,
        });
        let of_namespace = self.runtimes.iter().filter(|(key, _)| key.0 == namespace);
        Observed {
            by_name: ByName {
                service_accounts,
                secrets: secrets.collect(),
                ca_bundle,
            },
            runtimes: of_namespace.map(|(_, runtime)| Arc::clone(runtime)).collect(),
            cluster_runtimes: self.cluster_runtimes.values().cloned().collect(),
            storage_containers: self.storage_containers.values().cloned().collect(),
            settings: Arc::clone(&self.settings),
            live,
            cluster_domain: "cluster.local".to_owned(),
            platform_namespace: self.platform_namespace.clone(),
            storage_injection: self.storage_injection,
            service,
        }
    }
}

enum Problem {
    Field(InvalidField),
    Settings(SettingsError),
}

impl From<InvalidField> for Problem {
    fn from(error: InvalidField) -> Self {
        Self::Field(error)
    }
}

fn find<T: Clone>(known: &BTreeMap<Key, T>, namespace: &str, name: &str) -> Lookup<T> {
    match known.get(&(namespace.to_owned(), name.to_owned())) {
        Some(found) => Lookup::Found(found.clone()),
        None => Lookup::Missing,
    }
}

fn is_cluster_scoped(kind: &str) -> bool {
    kind.starts_with("Cluster") || matches!(kind, "Namespace" | "CustomResourceDefinition")
}

fn storage_annotations(meta: &Meta) -> BTreeMap<String, String> {
    let kept = meta
        .annotations
        .iter()
        .filter(|(key, _)| credential::is_storage_annotation(key));
    kept.map(|(key, value)| (key.clone(), value.clone())).collect()
}

/// What may be known of a Secret. Its other values are dropped here.
fn secret(meta: &Meta, object: &mut Fields) -> Result<CredentialFacts, InvalidField> {
    let encoded: BTreeMap<String, String> = object.take_secret("data")?.unwrap_or_default();
    let plain: BTreeMap<String, String> = object.take_secret("stringData")?.unwrap_or_default();
    let value = |key: &str| -> Option<String> {
        plain.get(key).cloned().or_else(|| {
            let bytes = base64::engine::general_purpose::STANDARD.decode(encoded.get(key)?.trim());
            String::from_utf8(bytes.ok()?).ok()
        })
    };
    let keys: BTreeSet<String> = encoded.keys().chain(plain.keys()).cloned().collect();
    let entry = |key: &String| {
        (
            key.clone(),
            credential::storage_entry(value(key).unwrap_or_default().as_bytes()),
        )
    };
    Ok(CredentialFacts {
        storage_entries: keys.iter().map(entry).collect(),
        keys,
        annotations: storage_annotations(meta),
        literals: credential::LITERAL_KEYS
            .iter()
            .filter_map(|key| Some(((*key).to_owned(), value(key)?)))
            .collect(),
    })
}

fn service_account(meta: &Meta, object: &mut Fields) -> Result<ServiceAccountFacts, InvalidField> {
    let secrets = object.take_objects("secrets")?;
    let name = |secret: &Value| secret.get("name")?.as_str().map(str::to_owned);
    Ok(ServiceAccountFacts {
        secrets: secrets.iter().filter_map(name).collect(),
        annotations: storage_annotations(meta),
    })
}
