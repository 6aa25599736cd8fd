//! Credentials of the storage-initializer, from what is known of Secrets. Values stay in the Secrets: the Pod gets
//! references to them.

mod entry;

use std::{borrow::Cow, collections::BTreeMap};

use serde_json::{Value, json};

use crate::{
    api::{Component, InferenceService, component::StorageSpec},
    credential::CredentialFacts,
    named, names,
    observed::{Lookup, Observed, ServiceAccountFacts},
    references::NOT_LOOKED_UP,
    rejection::Rejection,
    settings::{Credentials, Settings},
};

use super::env;

/// What credentials add to the storage-initializer and its Pod.
#[derive(Clone, Debug, Default)]
pub(super) struct Injection {
    pub(super) env: Vec<Value>,
    pub(super) mounts: Vec<Value>,
    pub(super) volumes: Vec<Value>,
}

/// What the storage-initializer gets, and where the storage is.
pub(super) struct StorageCredentials {
    pub(super) injection: Injection,
    place: Option<entry::Place>,
}

impl StorageCredentials {
    /// Completes the URI of a model that `storage` describes; others stay as they are.
    pub(super) fn complete<'a>(&self, uri: &'a str) -> Result<Cow<'a, str>, Rejection> {
        match &self.place {
            Some(place) => place.complete(uri),
            None => Ok(Cow::Borrowed(uri)),
        }
    }
}

/// Works out what brings models from their storage: the entry of the storage Secret where one is meant, else what the
/// component's `ServiceAccount` injects.
pub(super) fn of_storage(
    entry: Option<&StorageSpec>,
    component: &Component,
    observed: &Observed,
) -> Result<StorageCredentials, Rejection> {
    match entry {
        Some(entry) => entry::resolve(entry, component, observed),
        None => Ok(StorageCredentials {
            injection: resolve(component, observed)?,
            place: None,
        }),
    }
}

/// The Secret a service names by annotation instead of its `ServiceAccount`'s list.
pub(crate) fn annotated_secret<'a>(
    service: &'a InferenceService,
    component: &'a Component,
    settings: &Settings,
) -> Option<&'a str> {
    let annotation = settings.credentials.storage_secret_name_annotation.as_deref()?;
    let of_component = component.annotations.get(annotation);
    of_component
        .map(String::as_str)
        .or_else(|| service.meta.annotation(annotation))
        .filter(|name| !name.is_empty())
}

/// The `ServiceAccount` of a component's Pods.
pub(crate) fn service_account(component: &Component) -> &str {
    let name = component.pod.get("serviceAccountName").and_then(Value::as_str);
    name.filter(|name| !name.is_empty()).unwrap_or("default")
}

/// A `ServiceAccount` that a field names is not there.
pub(crate) fn account_not_found(field: &str, namespace: &str, name: &str) -> Rejection {
    Rejection::new(
        "ServiceAccountNotFound",
        format!("{field}: ServiceAccount {namespace}/{name} not found; create it, or name another"),
    )
    .read_by_name()
}

/// A `ServiceAccount` that a field names cannot be read.
pub(crate) fn account_not_readable(field: &str, namespace: &str, name: &str, why: &str) -> Rejection {
    Rejection::new(
        "ServiceAccountNotReadable",
        format!("{field}: ServiceAccount {namespace}/{name} cannot be read: {why}"),
    )
    .read_by_name()
}

/// Works out what the `ServiceAccount` of a component injects, from the facts in `observed`.
pub(super) fn resolve(component: &Component, observed: &Observed) -> Result<Injection, Rejection> {
    let (service, settings) = (&observed.service, &observed.settings.credentials);
    let name = service_account(component);
    let namespace = &service.meta.namespace;
    let field = component.field("serviceAccountName");
    let account = match observed.by_name.service_accounts.get(name) {
        Some(Lookup::Found(account)) => account,
        // Nobody asked for another account than the one every namespace gets; it may be on its way.
        None | Some(Lookup::Missing) if name == "default" => &ServiceAccountFacts::default(),
        Some(Lookup::Missing) => return Err(account_not_found(&field, namespace, name)),
        Some(Lookup::Unreadable(why)) => return Err(account_not_readable(&field, namespace, name, why)),
        None => return Err(account_not_readable(&field, namespace, name, NOT_LOOKED_UP)),
    };
    let mut injection = Injection::default();
    if account.annotations.contains_key(names::ANNOTATION_ROLE_ARN) {
        injection
            .env
            .extend(s3_settings(&account.annotations, &BTreeMap::new(), settings));
    }
    let annotated = annotated_secret(service, component, &observed.settings);
    let secrets = match annotated {
        Some(secret) => vec![secret],
        None => account.secrets.iter().map(String::as_str).collect(),
    };
    for secret in secrets {
        let source = match annotated {
            Some(_) => "the service's annotation names it".to_owned(),
            None => format!("ServiceAccount {name} lists it"),
        };
        let not_readable = |why: &str| {
            Rejection::new(
                "SecretNotReadable",
                format!("Secret {namespace}/{secret} cannot be read ({source}): {why}"),
            )
            .read_by_name()
        };
        match observed.by_name.secrets.get(secret) {
            Some(Lookup::Found(facts)) => injection.add(namespace, secret, facts, settings)?,
            Some(Lookup::Missing) => {
                return Err(Rejection::new(
                    "SecretNotFound",
                    format!(
                        "Secret {namespace}/{secret} not found ({source}); create it with the key of its kind: {} for \
                         S3, {} for GCS, HF_TOKEN for Hugging Face, https-host for HTTPS",
                        settings.s3.secret_access_key_name, settings.gcs_credential_file_name
                    ),
                )
                .read_by_name());
            }
            Some(Lookup::Unreadable(why)) => return Err(not_readable(why)),
            None => return Err(not_readable(NOT_LOOKED_UP)),
        }
    }
    Ok(injection)
}

impl Injection {
    /// Adds one Secret by the first key that tells its kind.
    fn add(
        &mut self,
        namespace: &str,
        secret: &str,
        facts: &CredentialFacts,
        settings: &Credentials,
    ) -> Result<(), Rejection> {
        let has = |key: &str| facts.keys.contains(key);
        if has(&settings.s3.secret_access_key_name) {
            self.add_s3(namespace, secret, facts, settings)?;
        } else if has(&settings.gcs_credential_file_name) {
            let file = format!("/var/secrets/{}", settings.gcs_credential_file_name);
            self.mount("user-gcp-sa", secret, "/var/secrets/");
            env::set(&mut self.env, env::value("GOOGLE_APPLICATION_CREDENTIALS", &file));
        } else if has("AZ_CLIENT_ID") || has("AZURE_CLIENT_ID") || has("AZURE_ACCESS_TOKEN") {
            self.add_azure(secret, facts);
        } else if has("AZURE_STORAGE_ACCESS_KEY") {
            self.reference("AZURE_STORAGE_ACCESS_KEY", secret, "AZURE_STORAGE_ACCESS_KEY");
        } else if has("https-host") {
            // KServe copies the headers into the Pod as text. A reference gives the container the same environment and
            // keeps them in the Secret.
            if let (Some(host), true) = (facts.literals.get("https-host"), has("headers")) {
                self.reference(&format!("{host}-headers"), secret, "headers");
            }
        } else if has("HDFS_NAMENODE") {
            self.mount("hdfs-secrets", secret, "/var/secrets/kserve-hdfscreds");
        } else if has("HF_TOKEN") {
            self.reference("HF_TOKEN", secret, "HF_TOKEN");
        } else if has("MODELSCOPE_API_TOKEN") {
            self.reference("MODELSCOPE_API_TOKEN", secret, "MODELSCOPE_API_TOKEN");
        }
        Ok(())
    }

    fn add_s3(
        &mut self,
        namespace: &str,
        secret: &str,
        facts: &CredentialFacts,
        settings: &Credentials,
    ) -> Result<(), Rejection> {
        let (id, key) = (&settings.s3.access_key_id_name, &settings.s3.secret_access_key_name);
        if !facts.keys.contains(id) {
            return Err(Rejection::new(
                "SecretKeyNotFound",
                format!("Secret {namespace}/{secret} has key {key} and no key {id}; S3 credentials need both"),
            )
            .read_by_name());
        }
        let mut variables = vec![
            env::secret_key("AWS_ACCESS_KEY_ID", secret, id),
            env::secret_key("AWS_SECRET_ACCESS_KEY", secret, key),
        ];
        variables.extend(s3_settings(&facts.annotations, &facts.literals, settings));
        for variable in variables {
            env::set_literals_only(&mut self.env, variable);
        }
        Ok(())
    }

    fn add_azure(&mut self, secret: &str, facts: &CredentialFacts) {
        const VARIABLES: [(&str, Option<&str>); 9] = [
            ("AZURE_SUBSCRIPTION_ID", Some("AZ_SUBSCRIPTION_ID")),
            ("AZURE_TENANT_ID", Some("AZ_TENANT_ID")),
            ("AZURE_CLIENT_ID", Some("AZ_CLIENT_ID")),
            ("AZURE_CLIENT_SECRET", Some("AZ_CLIENT_SECRET")),
            ("AZURE_STORAGE_ACCESS_KEY", None),
            ("AZURE_ACCESS_TOKEN", None),
            ("AZURE_ACCESS_EXPIRES_ON_SECONDS", None),
            ("AZURE_ACCOUNT_NAME", None),
            ("AZURE_SERVICE_URL", None),
        ];
        for (name, legacy) in VARIABLES {
            let legacy = legacy.filter(|key| facts.keys.contains(*key));
            // The tenant is referred to even when it is absent, as in KServe.
            if legacy.is_some() || facts.keys.contains(name) || name == "AZURE_TENANT_ID" {
                self.reference(name, secret, legacy.unwrap_or(name));
            }
        }
    }

    fn reference(&mut self, name: &str, secret: &str, key: &str) {
        env::set(&mut self.env, env::secret_key(name, secret, key));
    }

    fn mount(&mut self, volume: &str, secret: &str, path: &str) {
        if named::find(&self.volumes, volume).is_none() {
            self.volumes
                .push(json!({"name": volume, "secret": {"secretName": secret}}));
            self.mounts
                .push(json!({"name": volume, "mountPath": path, "readOnly": true}));
        }
    }
}

/// S3 settings as literals: an annotation before the Secret's key of the variable's name before the platform's.
fn s3_settings(
    annotations: &BTreeMap<String, String>,
    data: &BTreeMap<String, String>,
    settings: &Credentials,
) -> Vec<Value> {
    let s3 = &settings.s3;
    let setting = |annotation: &str, key: &str, platform: &Option<String>| {
        let annotated = annotations.get(&format!("serving.kserve.io/{annotation}"));
        let value = annotated.or_else(|| data.get(key)).or(platform.as_ref());
        value.filter(|value| !value.is_empty()).cloned()
    };
    let mut variables = Vec::new();
    if let Some(endpoint) = setting("s3-endpoint", "S3_ENDPOINT", &s3.endpoint) {
        let endpoint = endpoint.trim();
        let use_https = setting("s3-usehttps", "S3_USE_HTTPS", &s3.use_https);
        let (use_https, host, url) = if let Some(host) = endpoint.strip_prefix("https://") {
            (Some("1".to_owned()), host, endpoint.to_owned())
        } else if let Some(host) = endpoint.strip_prefix("http://") {
            (Some("0".to_owned()), host, endpoint.to_owned())
        } else {
            let scheme = if use_https.as_deref() == Some("0") {
                "http"
            } else {
                "https"
            };
            (use_https, endpoint, format!("{scheme}://{endpoint}"))
        };
        if let Some(use_https) = use_https {
            variables.push(env::value("S3_USE_HTTPS", &use_https));
        }
        variables.push(env::value("S3_ENDPOINT", host));
        variables.push(env::value("AWS_ENDPOINT_URL", &url));
    }
    let others = [
        ("S3_VERIFY_SSL", "s3-verifyssl", &s3.verify_ssl),
        (
            "awsAnonymousCredential",
            "s3-useanoncredential",
            &s3.use_anonymous_credential,
        ),
        ("AWS_DEFAULT_REGION", "s3-region", &s3.region),
        ("S3_USER_VIRTUAL_BUCKET", "s3-usevirtualbucket", &s3.use_virtual_bucket),
        ("S3_USE_ACCELERATE", "s3-useaccelerate", &s3.use_accelerate),
        ("AWS_CA_BUNDLE", "s3-cabundle", &s3.ca_bundle),
        (
            "AWS_CA_BUNDLE_CONFIGMAP",
            "s3-cabundle-configmap",
            &s3.ca_bundle_config_map,
        ),
    ];
    for (name, annotation, platform) in others {
        if let Some(value) = setting(annotation, name, platform) {
            variables.push(env::value(name, &value));
        }
    }
    variables
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(keys: &[&str], literals: &[(&str, &str)]) -> CredentialFacts {
        CredentialFacts {
            keys: keys.iter().map(|key| (*key).to_owned()).collect(),
            literals: literals
                .iter()
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect(),
            ..CredentialFacts::default()
        }
    }

    #[test]
    fn headers_stay_in_their_secret_where_kserve_copies_them_into_the_pod() {
        let mut injection = Injection::default();
        let secret = facts(&["https-host", "headers"], &[("https-host", "files.test")]);
        let settings = Settings::built_in().credentials;
        injection.add("n", "web", &secret, &settings).expect("a usable Secret");
        assert_eq!(injection.env, [env::secret_key("files.test-headers", "web", "headers")]);
    }

    #[test]
    fn an_s3_secret_needs_both_keys() {
        let settings = Settings::built_in().credentials;
        let secret = facts(&[&settings.s3.secret_access_key_name], &[]);
        let rejection = Injection::default().add("n", "s3", &secret, &settings);
        let rejection = rejection.expect_err("a key is missing");
        assert_eq!(rejection.reason, "SecretKeyNotFound");
        assert!(rejection.message.contains("n/s3"), "{}", rejection.message);
    }
}
