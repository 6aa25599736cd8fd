//! Rules about where models are and where they appear.

use std::{collections::BTreeSet, sync::LazyLock};

use regex::Regex;
use serde_json::Value;

use super::invalid;
use crate::{
    api::{Component, component::StorageUri},
    names,
    rejection::Rejection,
    resolve::specified_uri,
};

static KEY_OF_MODEL: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new("^kbs:///[A-Za-z0-9_.-]+/[A-Za-z0-9_.-]+/[A-Za-z0-9_.-]+$").expect("the pattern is constant and valid")
});

pub(super) fn check(component: &Component) -> Result<(), Rejection> {
    let entries = &component.storage_uris;
    if entries.is_empty() {
        return Ok(());
    }
    let refuse = |message: String| Err(invalid(&component.field("storageUris"), message));
    if specified_uri(component).is_some() {
        return refuse("Setting both StorageURI and StorageURIs is not supported.".to_owned());
    }
    for entry in entries {
        let path = path(entry);
        if path.trim_matches('/').is_empty() {
            return refuse("storage path cannot be empty".to_owned());
        }
        if path.contains("..") {
            return refuse(format!("storage path cannot contain '..' for security reasons: {path}"));
        }
    }
    let (claims, others): (Vec<_>, Vec<_>) = entries.iter().partition(|entry| entry.uri.starts_with("pvc://"));
    let paths: Vec<&str> = others.into_iter().map(path).collect();
    // They share one volume, which is mounted at their common parent.
    let tops: BTreeSet<&str> = paths.iter().filter_map(|path| top(path)).collect();
    if tops.len() > 1 {
        return refuse(format!(
            "storage paths must have a common parent directory. Current paths: [{}] have no common parent beyond root",
            paths.join(" ")
        ));
    }
    // KServe looks at claims only where there are two other entries as well.
    let mut taken = BTreeSet::new();
    if !claims.into_iter().all(|entry| taken.insert(path(entry))) {
        return refuse("PVC storage paths must be unique".to_owned());
    }
    Ok(())
}

fn path(entry: &StorageUri) -> &str {
    entry.mount_path.as_deref().unwrap_or(names::MODEL_PATH)
}

/// The first directory of a path.
fn top(path: &str) -> Option<&str> {
    path.split('/').find(|part| !part.is_empty())
}

/// An encrypted model is fetched from one place, and its key is named in full.
pub(super) fn confidential(component: &Component) -> Result<(), Rejection> {
    let Some(model) = &component.model else {
        return Ok(());
    };
    let Some(confidential) = model.confidential.as_ref().filter(|it| it.enabled) else {
        return Ok(());
    };
    if model.storage_uri.as_deref().is_none_or(str::is_empty) {
        return Err(invalid(
            &component.field("model.confidential"),
            "confidential model serving requires storageUri to be set",
        ));
    }
    match confidential.resource_id.as_deref() {
        Some(id) if !id.is_empty() && !KEY_OF_MODEL.is_match(id) => Err(invalid(
            &component.field("model.confidential.resourceId"),
            format!(
                "spec.predictor.confidential.resourceId: Invalid value: {}: must be in the format \
                 kbs:///<repo>/<type>/<tag>",
                Value::from(id)
            ),
        )),
        _ => Ok(()),
    }
}
