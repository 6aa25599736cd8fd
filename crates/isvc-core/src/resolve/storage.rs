//! Where the model comes from, and what brings it into the Pod.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Arc, LazyLock},
};

use regex::Regex;
use serde_json::{Value, json};

use crate::{
    api::{Component, Object, StorageContainer},
    desired::CaBundle,
    merge::merge_container,
    names,
    observed::Observed,
    rejection::{RECONCILE_FAILED, Rejection},
    settings::Settings,
    validate::UNSUPPORTED,
};

use super::{
    credentials::{self, Injection},
    env,
};

const ACCEPTED_SCHEMES: [&str; 12] = [
    "gs://",
    "s3://",
    "pvc://",
    "file://",
    "https://",
    "http://",
    "hdfs://",
    "webhdfs://",
    "oci://",
    "oci+native://",
    "oci+fetch://",
    "hf://",
];

/// How a model gets into its Pod.
#[derive(Clone, Debug, PartialEq)]
pub enum Storage {
    /// The container brings its own.
    None,
    /// A claim is mounted as it is.
    Claim {
        /// Name of the `PersistentVolumeClaim`.
        claim: String,
        /// Path below the volume's root; empty for the root.
        sub_path: String,
        /// Whether the server may only read.
        read_only: bool,
    },
    /// An init container downloads it.
    Download {
        /// The storage-initializer, complete but for resources the API server defaults.
        init_container: Value,
        /// Volumes of its credentials and certificates.
        volumes: Vec<Value>,
        /// Whether the server may only read.
        read_only: bool,
    },
}

/// The annotations by which the model is asked for.
pub(super) fn annotations(_component: &Component, uri: Option<&str>) -> BTreeMap<String, String> {
    uri.map(|uri| (names::ANNOTATION_SOURCE_URI.to_owned(), uri.to_owned()))
        .into_iter()
        .collect()
}

/// Brings the models of a component into its Pod. The URI was checked before.
pub(super) fn bring(
    pod: &mut Object,
    component: &Component,
    uri: Option<&str>,
    annotations: &BTreeMap<String, String>,
    observed: &Observed,
) -> Result<(), Rejection> {
    let storage = resolve(component, uri, annotations, observed)?;
    inject(pod, &storage)
}

/// Prepares whatever brings the model; its URI was checked before.
fn resolve(
    component: &Component,
    uri: Option<&str>,
    annotations: &BTreeMap<String, String>,
    observed: &Observed,
) -> Result<Storage, Rejection> {
    let Some(uri) = uri.filter(|uri| !uri.is_empty()) else {
        return Ok(Storage::None);
    };
    let container_name = component.storage_container_name.as_deref();
    let settings = &observed.settings;
    let read_only = annotations.get(names::ANNOTATION_STORAGE_READONLY).map(String::as_str) != Some("false");
    if is_oci(uri, settings) {
        return Err(Rejection::new(
            UNSUPPORTED,
            format!(
                "spec.predictor.model.storageUri: model images are not supported by this version of leanserve ({uri})"
            ),
        ));
    }
    let container = storage_container(uri, container_name, observed)?;
    if let Some(path) = uri.strip_prefix("pvc://") {
        let (claim, sub_path) = path.split_once('/').unwrap_or((path, ""));
        return Ok(Storage::Claim {
            claim: claim.to_owned(),
            sub_path: sub_path.to_owned(),
            read_only,
        });
    }
    let injection = credentials::resolve(component, observed)?;
    download(uri, container.as_deref(), injection, observed, read_only)
}

fn is_oci(uri: &str, settings: &Settings) -> bool {
    uri.starts_with("oci+")
        || (uri.starts_with("oci://") && settings.storage_initializer.effective_oci_model_mode().is_some())
}

static BLOB: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"https://(.+?)\.blob\.core\.windows\.net/(.+)").expect("the pattern is constant and valid")
});

/// Refuses a URI that nothing here can bring; said before anything else is decided.
pub(super) fn check_uri(component: &Component, uri: Option<&str>, observed: &Observed) -> Result<(), Rejection> {
    let Some(uri) = uri.filter(|uri| !uri.is_empty()) else {
        return Ok(());
    };
    let by_container = || usable_containers(observed).any(|container| container.supports(uri));
    let local = !uri.contains("://");
    let blob = uri.contains("blob.core.windows.net");
    if local
        || (blob && BLOB.is_match(uri))
        || ACCEPTED_SCHEMES.iter().any(|scheme| uri.starts_with(scheme))
        || by_container()
    {
        return Ok(());
    }
    let message = format!(
        "StorageURI not supported: storageUri, must be one of: [{}] or match \
         https://{{}}.blob.core.windows.net/{{}}/{{}} or be an absolute or relative local path. StorageUri [{uri}] is not \
         supported",
        ACCEPTED_SCHEMES.join(", ")
    );
    Err(Rejection::new(
        "StorageUriNotSupported",
        format!("{}: {message}", component.field("storageUri")),
    )
    .event(message))
}

fn usable_containers(observed: &Observed) -> impl Iterator<Item = &Arc<StorageContainer>> {
    observed
        .storage_containers
        .iter()
        .filter(|container| !container.disabled && container.init_container)
}

fn storage_container(
    uri: &str,
    name: Option<&str>,
    observed: &Observed,
) -> Result<Option<Arc<StorageContainer>>, Rejection> {
    let Some(name) = name.filter(|name| !name.is_empty()) else {
        return Ok(usable_containers(observed)
            .find(|container| container.supports(uri))
            .cloned());
    };
    let reject = |problem: String| {
        Err(Rejection::new(
            "StorageContainerNotUsable",
            format!("spec.predictor.storageContainerName: ClusterStorageContainer \"{name}\" {problem}"),
        ))
    };
    match observed
        .storage_containers
        .iter()
        .find(|container| container.meta.name == name)
    {
        None => reject("not found".into()),
        Some(container) if container.disabled => reject("is disabled".into()),
        Some(container) if !container.init_container => reject(format!(
            "has workloadType \"{}\"; explicit selection requires \"initContainer\"",
            container.workload_type
        )),
        Some(container) if !container.supports(uri) => reject(format!("does not support storageUri \"{uri}\"")),
        Some(container) => Ok(Some(Arc::clone(container))),
    }
}

fn download(
    uri: &str,
    overlay: Option<&StorageContainer>,
    injection: Injection,
    observed: &Observed,
    read_only: bool,
) -> Result<Storage, Rejection> {
    let settings = &observed.settings.storage_initializer;
    let resources = &settings.resources;
    let mut mounts = vec![json!({"name": names::PROVISION_VOLUME, "mountPath": names::MODEL_PATH})];
    mounts.extend(injection.mounts);
    let mut init_container = json!({
        "name": names::STORAGE_INITIALIZER,
        "image": settings.image,
        "args": [uri, names::MODEL_PATH],
        "resources": {
            "requests": {"cpu": resources.cpu_request, "memory": resources.memory_request},
            "limits": {"cpu": resources.cpu_limit, "memory": resources.memory_limit},
        },
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": mounts,
    });
    if !injection.env.is_empty() {
        init_container["env"] = Value::Array(injection.env);
    }
    if let Some(overlay) = overlay {
        init_container = merge_container(&init_container, &overlay.container);
    }
    let mut volumes = injection.volumes;
    let mut container = match init_container {
        Value::Object(container) => container,
        _ => Object::new(),
    };
    ca_bundle(&mut container, &mut volumes, observed)?;
    let variables = env::list_of(&mut container);
    env::add_if_absent(variables, "HF_HUB_ENABLE_HF_TRANSFER", "1");
    env::add_if_absent(variables, "HF_XET_HIGH_PERFORMANCE", "1");
    env::add_if_absent(variables, "HF_XET_NUM_CONCURRENT_RANGE_GETS", "8");
    Ok(Storage::Download {
        init_container: Value::Object(container),
        volumes,
        read_only,
    })
}

/// The copy of the platform's certificate authorities that the service's namespace should have.
pub(super) fn ca_bundle_copy(_observed: &Observed) -> Result<Option<CaBundle>, Rejection> {
    Ok(None)
}

/// Mounts the certificates an S3 Secret or the platform settings ask for.
fn ca_bundle(container: &mut Object, volumes: &mut Vec<Value>, observed: &Observed) -> Result<(), Rejection> {
    const VOLUME: &str = "cabundle-cert";
    let settings = &observed.settings.storage_initializer;
    let variables = env::list_of(container);
    let from_env = env::literal(variables, "AWS_CA_BUNDLE_CONFIGMAP")
        .filter(|name| !name.is_empty())
        .map(str::to_owned);
    let config_map = match (from_env, &settings.ca_bundle_config_map_name) {
        (Some(name), _) => name,
        (None, None) => return Ok(()),
        (None, Some(name)) => {
            return Err(Rejection::new(
                UNSUPPORTED,
                format!(
                    "inferenceservice-config, storageInitializer.caBundleConfigMapName: copying ConfigMap \"{name}\" into \
                     namespaces is not supported by this version of leanserve"
                ),
            ));
        }
    };
    let path = env::literal(variables, "AWS_CA_BUNDLE")
        .and_then(|file| Path::new(file).parent())
        .map(|directory| directory.to_string_lossy().into_owned())
        .filter(|directory| !directory.is_empty())
        .unwrap_or_else(|| settings.ca_bundle_volume_mount_path.clone());
    env::add_if_absent(variables, "CA_BUNDLE_CONFIGMAP_NAME", &config_map);
    env::add_if_absent(variables, "CA_BUNDLE_VOLUME_MOUNT_POINT", &path);
    let mounts = container.entry("volumeMounts").or_insert_with(|| json!([]));
    if let Some(mounts) = mounts.as_array_mut() {
        mounts.push(json!({"name": VOLUME, "mountPath": path, "readOnly": true}));
    }
    volumes.push(json!({"name": VOLUME, "configMap": {"name": config_map}}));
    Ok(())
}

/// Puts the model into a Pod that has none yet. A Pod that already carries the init container is left alone, so that
/// this and `KServe`'s Pod webhook may both run.
fn inject(pod: &mut Object, storage: &Storage) -> Result<(), Rejection> {
    let present = pod.get("initContainers").and_then(Value::as_array).is_some_and(|list| {
        list.iter()
            .any(|c| c.get("name").and_then(Value::as_str) == Some(names::STORAGE_INITIALIZER))
    });
    let (volume, mount) = match storage {
        Storage::None => return Ok(()),
        Storage::Claim {
            claim,
            sub_path,
            read_only,
        } => {
            let mut mount = json!({"name": names::PVC_VOLUME, "mountPath": names::MODEL_PATH, "readOnly": read_only});
            if !sub_path.is_empty() {
                mount["subPath"] = Value::from(sub_path.as_str());
            }
            // The claim is read-only for this Pod's mount, not for the volume: KServe leaves the volume writable.
            (
                json!({"name": names::PVC_VOLUME, "persistentVolumeClaim": {"claimName": claim}}),
                mount,
            )
        }
        Storage::Download { .. } if present => return Ok(()),
        Storage::Download { read_only, .. } => (
            json!({"name": names::PROVISION_VOLUME, "emptyDir": {}}),
            json!({"name": names::PROVISION_VOLUME, "mountPath": names::MODEL_PATH, "readOnly": read_only}),
        ),
    };
    let containers = pod.get_mut("containers").and_then(Value::as_array_mut);
    let targets = containers
        .into_iter()
        .flatten()
        .filter_map(Value::as_object_mut)
        .filter(|container| {
            matches!(
                container.get("name").and_then(Value::as_str),
                Some(names::MODEL_CONTAINER | names::TRANSFORMER_CONTAINER)
            )
        });
    let mut found = false;
    for target in targets {
        found |= target.get("name").and_then(Value::as_str) == Some(names::MODEL_CONTAINER);
        let mounts = target.entry("volumeMounts").or_insert_with(|| json!([]));
        if let Some(mounts) = mounts.as_array_mut()
            && !mounts.iter().any(|known| known.get("name") == mount.get("name"))
        {
            mounts.push(mount.clone());
        }
        let variables = target.get_mut("env").and_then(Value::as_array_mut);
        if let Some(variables) = variables
            && env::literal(variables, names::ENV_STORAGE_URI).is_some_and(|uri| !uri.is_empty())
        {
            env::set(variables, env::value(names::ENV_STORAGE_URI, names::MODEL_PATH));
        }
    }
    if !found {
        return Err(Rejection::new(
            RECONCILE_FAILED,
            format!(
                "Invalid configuration: cannot find container {}",
                names::MODEL_CONTAINER
            ),
        ));
    }
    let mut add = |list: &str, items: &[Value]| {
        let list = pod.entry(list).or_insert_with(|| json!([]));
        if let Some(list) = list.as_array_mut() {
            for item in items {
                if !list.iter().any(|known| known.get("name") == item.get("name")) {
                    list.push(item.clone());
                }
            }
        }
    };
    add("volumes", &[volume]);
    if let Storage::Download {
        init_container,
        volumes,
        ..
    } = storage
    {
        add("volumes", volumes);
        add("initContainers", std::slice::from_ref(init_container));
    }
    Ok(())
}
