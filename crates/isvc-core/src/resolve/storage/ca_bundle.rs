//! Certificate authorities for storage back ends.

use std::path::Path;

use serde_json::{Value, json};

use crate::{
    api::Object,
    desired::CaBundle,
    named, names,
    observed::{Lookup, Observed},
    rejection::Rejection,
};

use super::super::{env, is_stopped};

/// The copy of the platform's certificate authorities that the service's namespace should have. Stopping a service keeps
/// it, for others share it.
pub(crate) fn ca_bundle_copy(observed: &Observed) -> Result<Option<CaBundle>, Rejection> {
    let namespace = &observed.service.meta.namespace;
    let Some(name) = &observed.settings.storage_initializer.ca_bundle_config_map_name else {
        return Ok(None);
    };
    // There the Pods use the original.
    if *namespace == observed.platform_namespace {
        return Ok(None);
    }
    let source = format!("{}/{name}", observed.platform_namespace);
    let setting = "storageInitializer.caBundleConfigMapName in inferenceservice-config";
    let rejection = match &observed.by_name.ca_bundle {
        Some(Lookup::Found(found)) => match &found.certificates {
            Some(certificates) if !certificates.is_empty() => {
                return Ok(Some(CaBundle {
                    namespace: namespace.clone(),
                    certificates: certificates.clone(),
                }));
            }
            _ => Rejection::new(
                "CaBundleKeyNotFound",
                format!(
                    "ConfigMap {source} has no content in key {}, and {setting} names it; add the certificates there",
                    names::CA_BUNDLE_KEY
                ),
            )
            .event(format!(
                "specified cabundle file {} not found in cabundle configmap {name}",
                names::CA_BUNDLE_KEY
            )),
        },
        None | Some(Lookup::Missing) => Rejection::new(
            "CaBundleNotFound",
            format!(
                "ConfigMap {source} not found, and {setting} names it; create it with key {}, or clear the setting",
                names::CA_BUNDLE_KEY
            ),
        )
        .event(format!("failed to get configmap {name} from cluster")),
        Some(Lookup::Unreadable(why)) => Rejection::new(
            "CaBundleNotReadable",
            format!(
                "ConfigMap {source}, which {setting} names, cannot be read; give the operator's account the right to \
                 list and watch it by name, or clear the setting: {why}"
            ),
        ),
    };
    // Stopping needs no certificates.
    if is_stopped(&observed.service) {
        return Ok(None);
    }
    Err(rejection.read_by_name())
}

/// Mounts the certificates that the container's environment or the platform's settings ask for.
pub(super) fn mount(container: &mut Object, volumes: &mut Vec<Value>, observed: &Observed) {
    let settings = &observed.settings.storage_initializer;
    let literal = |name: &str| -> Option<&str> {
        let variables = container.get("env")?.as_array()?;
        env::literal(variables, name).filter(|value| !value.is_empty())
    };
    let of_platform = settings.ca_bundle_config_map_name.as_deref().map(|name| {
        if observed.service.meta.namespace == observed.platform_namespace {
            name
        } else {
            names::CA_BUNDLE_CONFIG_MAP
        }
    });
    let Some(config_map) = literal("AWS_CA_BUNDLE_CONFIGMAP").or(of_platform).map(str::to_owned) else {
        return;
    };
    let path = literal("AWS_CA_BUNDLE")
        .and_then(|file| Path::new(file).parent())
        .map(|directory| directory.to_string_lossy().into_owned())
        .filter(|directory| !directory.is_empty())
        .unwrap_or_else(|| settings.ca_bundle_volume_mount_path.clone());
    let variables = env::list_of(container);
    env::add_if_absent(variables, "CA_BUNDLE_CONFIGMAP_NAME", &config_map);
    env::add_if_absent(variables, "CA_BUNDLE_VOLUME_MOUNT_POINT", &path);
    named::add(
        container,
        "volumeMounts",
        json!({"name": names::CA_BUNDLE_VOLUME, "mountPath": path, "readOnly": true}),
    );
    volumes.push(json!({"name": names::CA_BUNDLE_VOLUME, "configMap": {"name": config_map}}));
}
