//! What predictor, transformer and explainer have in common, and the blocks that serve models.

mod auto_scaling;

use super::container::{self, ContainerShape};
use super::pod::{self, PodShape};
use super::schema::{
    Field, Schema, boolean, field, int_or_string, int32, int64, integer, item, list, object, required, string,
    string_map, strings,
};
use auto_scaling::auto_scaling;

/// The fields of every component: scaling, roll-out, logging, models and the Pod.
pub(super) fn fields(shape: PodShape) -> Vec<Field> {
    let mut all = pod::fields(shape);
    all.extend([
        field("minReplicas", int32("Fewest replicas; 1 if absent.")),
        field("maxReplicas", int32("Most replicas; raised to minReplicas if smaller.")),
        field(
            "scaleTarget",
            int32("Target of the scale metric, used where autoScaling is absent."),
        ),
        field(
            "scaleMetric",
            string("Metric to scale by; the autoscaler of Standard mode knows cpu and memory.").one_of(&[
                "cpu",
                "memory",
                "concurrency",
                "rps",
            ]),
        ),
        field(
            "scaleMetricType",
            string("Kind of the scale target; accepted, and without effect here.").one_of(&[
                "Utilization",
                "Value",
                "AverageValue",
            ]),
        ),
        field("autoScaling", auto_scaling()),
        field(
            "containerConcurrency",
            int64("Requests one container works on at a time; sets its number of workers."),
        ),
        field("timeout", int64("Seconds a routed request may take.")),
        field(
            "canaryTrafficPercent",
            int64("Share of traffic for the latest revision; without effect in Standard mode."),
        ),
        field("logger", logger()),
        field(
            "batcher",
            object(
                "Joins requests into batches.",
                [
                    field("maxBatchSize", integer("Most requests in a batch.")),
                    field("maxLatency", integer("Milliseconds to wait for a batch to fill.")),
                    field("timeout", integer("Seconds a batch may take.")),
                ],
            ),
        ),
        field(
            "labels",
            string_map("Labels for the component's objects and Pods; these win over all others."),
        ),
        field(
            "annotations",
            string_map("Annotations for the component's objects and Pods; these win over all others."),
        ),
        field("deploymentStrategy", deployment_strategy()),
        field("storageUris", storage_uris()),
    ]);
    all
}

fn deployment_strategy() -> Schema {
    object(
        "How old Pods are replaced; replaces the platform's default as a whole.",
        [
            field("type", string("RollingUpdate or Recreate.")),
            field(
                "rollingUpdate",
                object(
                    "Bounds of a rolling update.",
                    [
                        field(
                            "maxSurge",
                            int_or_string("Pods above the wanted number, by number or percentage."),
                        ),
                        field(
                            "maxUnavailable",
                            int_or_string("Pods that may be missing, by number or percentage."),
                        ),
                    ],
                ),
            ),
        ],
    )
}

fn storage_uris() -> Schema {
    list(
        "Models to fetch, each into its own directory; not together with storageUri.",
        item([
            required("uri", string("Where the model is.").min_length(1)),
            field(
                "mountPath",
                string("Absolute directory the model appears in.")
                    .default("/mnt/models")
                    .max_length(255)
                    .pattern("^/.*"),
            ),
        ]),
    )
    .atomic()
    .min_items(1)
}

fn logger() -> Schema {
    object(
        "Sends requests and responses to a sink as CloudEvents.",
        [
            field("url", string("Sink; the platform's default if empty.")),
            field("mode", string("What is sent.").one_of(&["all", "request", "response"])),
            field("metadataHeaders", strings("Request headers to send along.")),
            field("metadataAnnotations", strings("Annotations to send along.")),
            field("marshallerUrl", string("Service that encodes the records.")),
            field("batchSize", integer("Records written at a time.")),
            field(
                "batchInterval",
                string("Longest wait before records are written, such as 10s."),
            ),
            field(
                "storage",
                object(
                    "Object storage to write records to.",
                    [
                        field("path", string("Path in the storage.")),
                        field(
                            "parameters",
                            string_map("Overrides of the storage settings, such as type or format."),
                        ),
                        field("key", string("Key in the storage Secret.")),
                        field(
                            "serviceAccountName",
                            string("ServiceAccount whose credentials are used."),
                        ),
                    ],
                ),
            ),
        ],
    )
}

/// What a block that serves models has besides its container: location, versions, protocol.
pub(super) fn model_source() -> Vec<Field> {
    vec![
        field(
            "storageUri",
            string("Where the model is, such as s3://bucket/path, pvc://claim/path or hf://org/name."),
        ),
        field("runtimeVersion", string("Tag of the runtime's image.")),
        field(
            "protocolVersion",
            string("Inference protocol: v1, v2, grpc-v1 or grpc-v2."),
        ),
        field("storage", storage_spec()),
        field(
            "confidential",
            object(
                "Decryption of an encrypted model inside a trusted environment.",
                [
                    required("enabled", boolean("The model is encrypted.")),
                    field(
                        "resourceId",
                        string("Key at the key broker, as kbs:///repository/type/tag."),
                    ),
                ],
            ),
        ),
    ]
}

/// A model's place in a configured storage.
pub(super) fn storage_spec() -> Schema {
    object(
        "Where the model is, by a key of the storage Secret.",
        [
            field("key", string("Entry of the storage Secret.")),
            field("path", string("Path of the model in the storage.")),
            field(
                "parameters",
                string_map("Overrides of the entry, such as type or bucket."),
            ),
            field("schemaPath", string("Path of the model's schema file.")),
        ],
    )
}

/// A block named after a model format: the older way to write `model`.
pub(super) fn framework(description: &str) -> Schema {
    let mut fields = container::fields(ContainerShape::Inlined);
    fields.extend(model_source());
    object(description, fields)
}

/// The same block where space is short: the model's place is typed, the container's fields are stored as they come.
pub(super) fn brief_framework(description: &str) -> Schema {
    object(description, model_source()).keeping_unknown_fields()
}

/// The `model` block.
pub(super) fn model() -> Schema {
    let mut fields = container::fields(ContainerShape::Inlined);
    fields.extend(model_source());
    fields.extend([
        field(
            "modelFormat",
            object(
                "Format of the model; with it a runtime is found.",
                [
                    required(
                        "name",
                        string("Name of the format, such as sklearn, xgboost or huggingface."),
                    ),
                    field("version", string("Version of the format, compared as text.")),
                ],
            ),
        ),
        field(
            "runtime",
            string("ServingRuntime or ClusterServingRuntime to use; found by format if absent."),
        ),
    ]);
    object(
        "The model and, where wanted, changes to the runtime's container.",
        fields,
    )
}
