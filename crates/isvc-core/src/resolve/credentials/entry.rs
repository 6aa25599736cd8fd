//! An entry of the storage Secret: a model that `storage` describes.

use std::borrow::Cow;

use crate::{
    api::{Component, component::StorageSpec},
    credential::StorageEntry,
    names,
    observed::{Lookup, Observed},
    rejection::Rejection,
};

use super::{super::storage, Injection, StorageCredentials, env};

/// Types of storage an entry may have.
const TYPES: [&str; 3] = ["s3", "hdfs", "webhdfs"];

/// Where the storage is, once its entry has been read.
#[derive(Clone, Debug)]
pub(super) struct Place {
    type_: String,
    bucket: Option<String>,
    /// Path of `storage` in the object.
    field: String,
}

impl Place {
    /// Puts the type, and the bucket where the type has one, for the placeholder.
    pub(super) fn complete<'a>(&self, uri: &'a str) -> Result<Cow<'a, str>, Rejection> {
        let path = uri.strip_prefix(names::SCHEME_PLACEHOLDER);
        let Some(path) = path.and_then(|path| path.strip_prefix("://")) else {
            return Ok(Cow::Borrowed(uri));
        };
        let type_ = &self.type_;
        if type_ != "s3" {
            return Ok(Cow::Owned(format!("{type_}://{path}")));
        }
        match &self.bucket {
            Some(bucket) => Ok(Cow::Owned(format!("{type_}://{bucket}/{path}"))),
            None => Err(invalid(
                &format!("format [{type_}] requires a bucket but one wasn't found in storage data or parameters"),
                &format!("{}.parameters.bucket", self.field),
                "give it there, or in the entry",
            )),
        }
    }
}

fn invalid(event: &str, field: &str, advice: &str) -> Rejection {
    Rejection::new("InvalidStorage", format!("{field}: {event}; {advice}"))
        .event(event)
        .read_by_name()
}

/// Reads the entry that `storage` means: the one of its key, else the default one of its type, else the default one.
pub(super) fn resolve(
    spec: &StorageSpec,
    component: &Component,
    observed: &Observed,
) -> Result<StorageCredentials, Rejection> {
    let field = component.field("model.storage");
    let namespace = &observed.service.meta.namespace;
    let secret = storage::storage_secret(&observed.service, component, &observed.settings);
    let parameter = |name: &str| {
        let value = spec.parameters.as_ref().and_then(|parameters| parameters.get(name));
        value.filter(|value| !value.is_empty()).cloned()
    };
    let (mut type_, mut bucket) = (parameter("type"), parameter("bucket"));
    let given = spec.key.as_deref().filter(|key| !key.is_empty());
    let key = match (given, &type_) {
        (Some(key), _) => key.to_owned(),
        (None, Some(type_)) => format!("default_{type_}"),
        (None, None) => "default".to_owned(),
    };
    let found = find(secret, &key, given.is_some(), &field, observed)?;
    let mut injection = Injection::default();
    if let Some(entry) = found {
        // A type among the parameters stands for the whole entry, as in KServe.
        if type_.is_none() {
            let at = format!("Secret {namespace}/{secret}, key {key}");
            if let Some(problem) = entry.problem {
                return Err(invalid(
                    &format!("invalid json encountered in key {key} of storage secret {secret}: {problem}"),
                    &at,
                    "make it an object like {\"type\": \"s3\", \"bucket\": \"models\"}",
                ));
            }
            if let Some(found) = &entry.type_
                && !TYPES.contains(&found.as_str())
            {
                return Err(invalid(
                    &format!(
                        "storage type must be one of [{}]. storage type [{found}] is not supported",
                        TYPES.join(", ")
                    ),
                    &at,
                    "use storageUri for other storage",
                ));
            }
            type_.clone_from(&entry.type_);
            bucket = bucket.or_else(|| entry.bucket.clone().filter(|bucket| !bucket.is_empty()));
            if let Some(config_map) = &entry.ca_bundle_config_map {
                injection.env.push(env::value("AWS_CA_BUNDLE_CONFIGMAP", config_map));
            }
        }
        injection.env.push(env::secret_key("STORAGE_CONFIG", secret, &key));
    }
    let Some(type_) = type_ else {
        return Err(invalid(
            "unable to determine storage type",
            &field,
            &format!("give parameters.type, or type in key {key} of Secret {namespace}/{secret}"),
        ));
    };
    if let Some(parameters) = spec.parameters.as_ref().filter(|parameters| !parameters.is_empty()) {
        let json = storage::parameters_json(parameters);
        injection.env.push(env::value("STORAGE_OVERRIDE_CONFIG", &json));
    }
    Ok(StorageCredentials {
        injection,
        place: Some(Place { type_, bucket, field }),
    })
}

/// The entry of a key. One that nobody asked for by its key need not be there.
fn find<'a>(
    secret: &str,
    key: &str,
    is_given: bool,
    field: &str,
    observed: &'a Observed,
) -> Result<Option<&'a StorageEntry>, Rejection> {
    let namespace = &observed.service.meta.namespace;
    let named = format!("{field}.key names {key}");
    let event = |why: &str| format!("can't read storage secret {secret}: {why}");
    let rejection = match observed.by_name.secrets.get(secret) {
        Some(Lookup::Found(facts)) => match facts.storage_entries.get(key) {
            Some(entry) => return Ok(Some(entry)),
            None => Rejection::new(
                "SecretKeyNotFound",
                format!("Secret {namespace}/{secret} has no key {key}, and {named}; add it, or name another"),
            )
            .event(format!(
                "specified storage key {key} not found in storage secret {secret}"
            )),
        },
        None | Some(Lookup::Missing) => Rejection::new(
            "SecretNotFound",
            format!("Secret {namespace}/{secret} not found, and {named} in it; create it with that key"),
        )
        .event(event(&format!("secrets \"{secret}\" not found"))),
        Some(Lookup::Unreadable(why)) => Rejection::new(
            "SecretNotReadable",
            format!("Secret {namespace}/{secret} cannot be read, and {named} in it: {why}"),
        )
        .event(event(why)),
    };
    if is_given {
        Err(rejection.read_by_name())
    } else {
        Ok(None)
    }
}
