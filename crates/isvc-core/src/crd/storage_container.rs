//! The `ClusterStorageContainer` definition.

use serde_json::Value;

use super::container::{self, ContainerShape};
use super::definition::{Definition, KSERVE_GROUP};
use super::schema::{boolean, field, item, list, object, required, string};

/// The `clusterstoragecontainers.serving.kserve.io` `CustomResourceDefinition`.
#[must_use]
pub fn cluster_storage_container() -> Value {
    let spec = object(
        "The container and the URIs it is for.",
        [
            required(
                "container",
                object(
                    "Container that fetches models.",
                    container::fields(ContainerShape::Core),
                ),
            ),
            required(
                "supportedUriFormats",
                list(
                    "URIs the container can fetch; one match is enough.",
                    item([
                        field("prefix", string("What the URI starts with.")),
                        field("regex", string("What is found in the URI, if no prefix is given.")),
                    ]),
                ),
            ),
            field(
                "workloadType",
                string("Where the container is used: initContainer or localModelDownloadJob.").default("initContainer"),
            ),
            field(
                "supportsMultiModelDownload",
                boolean("The container takes several pairs of URI and directory.").default(false),
            ),
        ],
    );
    Definition {
        group: KSERVE_GROUP,
        kind: "ClusterStorageContainer",
        singular: "clusterstoragecontainer",
        plural: "clusterstoragecontainers",
        short_names: &[],
        scope: "Cluster",
        version: "v1alpha1",
        status_subresource: false,
        columns: Vec::new(),
        description: "A container that fetches models from certain URIs.",
        fields: vec![
            field("spec", spec),
            field("disabled", boolean("Take the container out of use.")),
        ],
        rules: Vec::new(),
    }
    .into_json()
}
