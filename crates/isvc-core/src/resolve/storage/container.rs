//! `ClusterStorageContainers`: what is laid over the storage-initializer.

use std::sync::Arc;

use crate::{api::StorageContainer, observed::Observed, rejection::Rejection};

use super::{super::not_made, Request};

/// Those that may be laid over an init container.
pub(super) fn usable(observed: &Observed) -> impl Iterator<Item = &Arc<StorageContainer>> {
    observed
        .storage_containers
        .iter()
        .filter(|container| !container.disabled && container.init_container)
}

/// The one a component names, else the first that supports the URI.
pub(super) fn find(uri: &str, request: &Request<'_>) -> Result<Option<Arc<StorageContainer>>, Rejection> {
    let name = request.component.storage_container_name.as_deref();
    let Some(name) = name.filter(|name| !name.is_empty()) else {
        return Ok(usable(request.observed)
            .find(|container| container.supports(uri))
            .cloned());
    };
    let reject = |problem: &str, advice: &str| {
        let field = request.component.field("storageContainerName");
        let message = format!("ClusterStorageContainer \"{name}\" {problem}");
        Err(Rejection::new("StorageContainerNotUsable", format!("{field}: {message}; {advice}")).event(message))
    };
    let known = &request.observed.storage_containers;
    match known.iter().find(|container| container.meta.name == name) {
        None => reject("not found", "create it, or name another"),
        Some(container) if container.disabled => reject("is disabled", "enable it, or name another"),
        Some(container) if !container.init_container => reject(
            &format!(
                "has workloadType \"{}\"; explicit selection requires \"initContainer\"",
                container.workload_type
            ),
            "name another",
        ),
        Some(container) if !container.supports(uri) => reject(
            &format!("does not support storageUri \"{uri}\""),
            "add the URI's form to its supportedUriFormats, or name another",
        ),
        Some(container) => Ok(Some(Arc::clone(container))),
    }
}

/// As [`find`], for a list that begins with this URI.
pub(super) fn find_for_list(uri: &str, request: &Request<'_>) -> Result<Option<Arc<StorageContainer>>, Rejection> {
    match find(uri, request)? {
        Some(found) if !found.multi_model_download => {
            let container = found.container.get("name").and_then(serde_json::Value::as_str);
            let event = format!(
                "storage container \"{}\" does not support multi-model download; use the default kserve storage \
                 initializer or a compatible storage container",
                container.unwrap_or_default()
            );
            let mut rejection = not_made(request.component.kind, event);
            rejection.message = format!(
                "{}: ClusterStorageContainer \"{}\" downloads one model at a time; set its supportsMultiModelDownload if \
                 its image can download several, or name another in storageContainerName",
                request.component.field("storageUris"),
                found.meta.name
            );
            Err(rejection)
        }
        found => Ok(found),
    }
}
