//! The storage-initializer: the init container that downloads models.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::{
    api::{Object, StorageContainer},
    merge::merge_container,
    named, names,
    rejection::Rejection,
};

use super::{
    super::{credentials::StorageCredentials, env},
    Request, ca_bundle,
    image::Image,
};

/// Where the credentials of an image registry are mounted.
const REGISTRY_AUTH_PATH: &str = "/mnt/oci-fetch-auth";

/// One model to download.
pub(super) struct Download<'a> {
    /// Where it is.
    pub(super) uri: &'a str,
    /// Where it goes.
    pub(super) path: &'a str,
}

/// The init container and the volumes it needs.
pub(super) struct Initializer {
    container: Object,
    volumes: Vec<Value>,
}

impl Initializer {
    fn new(request: &Request<'_>) -> Self {
        let settings = &request.settings().storage_initializer;
        let resources = &settings.resources;
        let container = [
            ("name", json!(names::STORAGE_INITIALIZER)),
            ("image", json!(settings.image)),
            ("args", json!([])),
            (
                "resources",
                json!({
                    "requests": {"cpu": resources.cpu_request, "memory": resources.memory_request},
                    "limits": {"cpu": resources.cpu_limit, "memory": resources.memory_limit},
                }),
            ),
            ("terminationMessagePolicy", json!("FallbackToLogsOnError")),
        ];
        Self {
            container: container
                .into_iter()
                .map(|(key, value)| (key.to_owned(), value))
                .collect(),
            volumes: Vec::new(),
        }
    }

    /// Downloads models into one volume, given by name and mount path.
    pub(super) fn download(
        downloads: &[Download<'_>],
        (volume, path): (&str, &str),
        credentials: StorageCredentials,
        overlay: Option<&StorageContainer>,
        request: &Request<'_>,
    ) -> Result<Self, Rejection> {
        let mut initializer = Self::new(request);
        for download in downloads {
            let uri = credentials.complete(download.uri)?;
            initializer.argue(&[&uri, download.path]);
        }
        initializer.mount(
            json!({"name": volume, "mountPath": path}),
            json!({"name": volume, "emptyDir": {}}),
        );
        let injection = credentials.injection;
        for mount in injection.mounts {
            named::add(&mut initializer.container, "volumeMounts", mount);
        }
        initializer.volumes.extend(injection.volumes);
        if !injection.env.is_empty() {
            initializer
                .container
                .insert("env".to_owned(), Value::Array(injection.env));
        }
        if let Some(overlay) = overlay {
            let merged = merge_container(&Value::Object(initializer.container), &overlay.container);
            initializer.container = match merged {
                Value::Object(container) => container,
                _ => Object::new(),
            };
        }
        ca_bundle::mount(&mut initializer.container, &mut initializer.volumes, request.observed);
        let variables = env::list_of(&mut initializer.container);
        env::add_if_absent(variables, "HF_HUB_ENABLE_HF_TRANSFER", "1");
        env::add_if_absent(variables, "HF_XET_HIGH_PERFORMANCE", "1");
        env::add_if_absent(variables, "HF_XET_NUM_CONCURRENT_RANGE_GETS", "8");
        Ok(initializer)
    }

    /// Fetches images, each into a volume of its own; beside what it downloads, if anything. A registry is asked with the
    /// Pod's first pull Secret and not with credentials for storage.
    pub(super) fn fetch(downloading: Option<Self>, images: &[&Image<'_>], pod: &Object, request: &Request<'_>) -> Self {
        let mut initializer = downloading.unwrap_or_else(|| Self::new(request));
        for image in images {
            initializer.argue(&[&format!("oci://{}", image.reference), image.path]);
        }
        let pull_secrets = pod.get("imagePullSecrets").and_then(Value::as_array);
        let pull_secret = pull_secrets.and_then(|secrets| named::name_of(secrets.first()?));
        if let Some(secret) = pull_secret.filter(|secret| !secret.is_empty()) {
            let file = format!("{REGISTRY_AUTH_PATH}/config.json");
            env::set(
                env::list_of(&mut initializer.container),
                env::value("KSERVE_OCI_DOCKER_CONFIG", &file),
            );
            initializer.mount(
                json!({"name": names::OCI_FETCH_AUTH_VOLUME, "mountPath": REGISTRY_AUTH_PATH, "readOnly": true}),
                json!({
                    "name": names::OCI_FETCH_AUTH_VOLUME,
                    "secret": {
                        "secretName": secret,
                        "items": [{"key": ".dockerconfigjson", "path": "config.json"}],
                        // 0400: only its owner may read it.
                        "defaultMode": 0o400,
                    },
                }),
            );
        }
        ca_bundle::mount(&mut initializer.container, &mut initializer.volumes, request.observed);
        if request.settings().storage_initializer.oci_insecure_registry {
            env::set(
                env::list_of(&mut initializer.container),
                env::value("KSERVE_OCI_INSECURE_REGISTRY", "true"),
            );
        }
        for image in images {
            initializer.mount(
                json!({"name": image.volume, "mountPath": image.path}),
                json!({"name": image.volume, "emptyDir": {}}),
            );
        }
        initializer
    }

    /// Tells it where the key of an encrypted model is.
    pub(super) fn decrypt(&mut self, annotations: &BTreeMap<String, String>) {
        if annotations.get(names::ANNOTATION_CONFIDENTIAL).map(String::as_str) != Some("true") {
            return;
        }
        let variables = env::list_of(&mut self.container);
        env::set(variables, env::value("CONFIDENTIAL_ENABLED", "true"));
        if let Some(resource) = annotations.get(names::ANNOTATION_CONFIDENTIAL_RESOURCE) {
            env::set(variables, env::value("CONFIDENTIAL_RESOURCE_ID", resource));
        }
    }

    /// Puts it into the Pod, as the last init container.
    pub(super) fn place(self, pod: &mut Object) {
        for volume in self.volumes {
            named::add(pod, "volumes", volume);
        }
        named::add(pod, "initContainers", Value::Object(self.container));
    }

    fn argue(&mut self, args: &[&str]) {
        if let Some(known) = self.container.get_mut("args").and_then(Value::as_array_mut) {
            known.extend(args.iter().map(|arg| Value::from(*arg)));
        }
    }

    fn mount(&mut self, mount: Value, volume: Value) {
        named::add(&mut self.container, "volumeMounts", mount);
        self.volumes.push(volume);
    }
}

/// Runs the storage-initializer as the user that an annotation names.
pub(super) fn run_as(pod: &mut Object, request: &Request<'_>) -> Result<(), Rejection> {
    let Some(uid) = request.annotations.get(names::ANNOTATION_INITIALIZER_UID) else {
        return Ok(());
    };
    let uid: i64 = uid.parse().ok().filter(|uid| *uid >= 0).ok_or_else(|| {
        Rejection::new(
            "InvalidAnnotation",
            format!(
                "annotation {} of the {}'s Pods is not the number of a user: {uid:?}",
                names::ANNOTATION_INITIALIZER_UID,
                request.component.kind.as_str()
            ),
        )
    })?;
    let containers = pod.get_mut("initContainers").and_then(Value::as_array_mut);
    let initializers = containers
        .into_iter()
        .flatten()
        .filter(|container| named::is_named(container, names::STORAGE_INITIALIZER));
    for container in initializers.filter_map(Value::as_object_mut) {
        super::image::run_container_as(container, uid);
    }
    Ok(())
}
