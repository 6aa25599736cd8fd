//! Which `CustomResourceDefinitions` a run uses.

use std::{
    io,
    path::{Path, PathBuf},
};

use serde_json::Value;

use crate::{Failure, installation::kustomization};

/// The definitions, and where they come from.
#[derive(Debug)]
pub(super) struct Definitions {
    /// In words, for the one who reads the output.
    pub(super) source: String,
    pub(super) objects: Vec<Value>,
}

impl Definitions {
    /// Those of `KServe`, Gateway API and KEDA in the given folder, or beside the repository in `shared/crds`. Without
    /// such a folder leanserve's own, and small ones for the two others' kinds.
    pub(super) fn find(folder: Option<&Path>) -> Result<Self, Failure> {
        let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let beside = repository.join("../shared/crds");
        let theirs = match folder {
            Some(folder) => Some(folder.to_owned()),
            None => beside.is_dir().then_some(beside),
        };
        let (source, folders): (&str, Vec<PathBuf>) = match &theirs {
            Some(folder) => (
                "KServe's full ones, Gateway API's and KEDA's",
                vec![folder.join("kserve-full"), folder.join("others")],
            ),
            None => (
                "leanserve's own and small ones for HTTPRoutes and ScaledObjects; with CRDS=DIR those of KServe, Gateway \
                 API and KEDA are used",
                vec![kustomization("base/crds"), repository.join("golden/crds")],
            ),
        };
        let mut objects = Vec::new();
        for folder in folders {
            for path in yaml_files(&folder)? {
                objects.extend(golden::read_documents(&path).map_err(io::Error::other)?);
            }
        }
        objects.retain(|object| object["kind"] == "CustomResourceDefinition");
        objects.iter_mut().for_each(names_are_optional);
        Ok(Self {
            source: source.to_owned(),
            objects,
        })
    }
}

/// `KServe`'s schema demands a container's name, which the recording's defaulting webhook had filled in before the schema
/// was looked at. Here no webhook runs, and the operator fills it in later.
fn names_are_optional(definition: &mut Value) {
    if definition["spec"]["names"]["kind"] != "InferenceService" {
        return;
    }
    let versions = definition["spec"]["versions"].as_array_mut();
    for version in versions.into_iter().flatten() {
        for container in [
            "predictor/properties/containers/items",
            "transformer/properties/containers/items",
            "explainer/properties/containers/items",
            "canary/items/properties/predictor/properties/model",
        ] {
            let required = format!("/schema/openAPIV3Schema/properties/spec/properties/{container}/required");
            if let Some(required) = version.pointer_mut(&required).and_then(Value::as_array_mut) {
                required.retain(|field| field != "name");
            }
        }
    }
}

fn yaml_files(folder: &Path) -> Result<Vec<PathBuf>, Failure> {
    let failed = |error| io::Error::other(format!("{}: {error}", folder.display()));
    let mut files = Vec::new();
    for entry in folder.read_dir().map_err(failed)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "yaml") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}
