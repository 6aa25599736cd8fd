//! The `ServingRuntime` and `ClusterServingRuntime` definitions.

use serde_json::Value;

use super::container::{self, ContainerShape, env_var};
use super::definition::{Definition, KSERVE_GROUP, PrinterColumn};
use super::pod;
use super::schema::{
    Field, Schema, boolean, field, int32, integer, item, list, object, required, string, string_map, strings,
};

/// The `servingruntimes.serving.kserve.io` `CustomResourceDefinition`.
#[must_use]
pub fn serving_runtime() -> Value {
    Definition {
        group: KSERVE_GROUP,
        kind: "ServingRuntime",
        singular: "servingruntime",
        plural: "servingruntimes",
        scope: "Namespaced",
        ..runtime("A model server that the InferenceServices of its namespace may use.")
    }
    .into_json()
}

/// The `clusterservingruntimes.serving.kserve.io` `CustomResourceDefinition`.
#[must_use]
pub fn cluster_serving_runtime() -> Value {
    Definition {
        group: KSERVE_GROUP,
        kind: "ClusterServingRuntime",
        singular: "clusterservingruntime",
        plural: "clusterservingruntimes",
        scope: "Cluster",
        ..runtime("A model server that all InferenceServices may use.")
    }
    .into_json()
}

fn runtime(description: &'static str) -> Definition {
    Definition {
        group: KSERVE_GROUP,
        kind: "",
        singular: "",
        plural: "",
        short_names: &[],
        scope: "",
        version: "v1alpha1",
        status_subresource: false,
        columns: vec![
            PrinterColumn::new("Disabled", "boolean", ".spec.disabled"),
            PrinterColumn::new("ModelType", "string", ".spec.supportedModelFormats[*].name"),
            PrinterColumn::new("Containers", "string", ".spec.containers[*].name"),
            PrinterColumn::age(),
        ],
        description,
        fields: vec![field("spec", spec()), field("status", object("Always empty.", []))],
        rules: Vec::new(),
    }
}

fn spec() -> Schema {
    let mut fields = pod_fields();
    fields.extend([
        field(
            "supportedModelFormats",
            list("Model formats the server can load.", model_format()),
        ),
        field(
            "protocolVersions",
            strings("Inference protocols it speaks: v1, v2, grpc-v1, grpc-v2; all if empty."),
        ),
        field("disabled", boolean("Take the runtime out of use.")),
        field(
            "multiModel",
            boolean("One Pod serves many InferenceServices; not chosen in Standard mode."),
        ),
        field("workerSpec", worker()),
        field(
            "replicas",
            integer("Pods of the runtime; for ModelMesh, without effect here."),
        ),
        field(
            "grpcEndpoint",
            string("Management endpoint; for ModelMesh, without effect here."),
        ),
        field(
            "grpcDataEndpoint",
            string("gRPC data endpoint; for ModelMesh, without effect here."),
        ),
        field(
            "httpDataEndpoint",
            string("HTTP data endpoint; for ModelMesh, without effect here."),
        ),
        field(
            "storageHelper",
            object(
                "Fetching of models; for ModelMesh, without effect here.",
                [field("disabled", boolean("Do not fetch."))],
            ),
        ),
        field(
            "builtInAdapter",
            object(
                "Adapter to a known server; for ModelMesh, without effect here.",
                [
                    field("serverType", string("Kind of server.")),
                    field("runtimeManagementPort", integer("Port the server is managed by.")),
                    field("memBufferBytes", integer("Memory kept free of models.")),
                    field("modelLoadingTimeoutMillis", integer("Longest time a model may load.")),
                    field("env", list("Environment variables of the adapter.", env_var())),
                ],
            ),
        ),
    ]);
    object("The model server.", fields)
}

fn model_format() -> Schema {
    item([
        required("name", string("Name of the format.")),
        field("version", string("Version of the format, compared as text.")),
        field(
            "autoSelect",
            boolean("May be chosen for services that name no runtime."),
        ),
        field(
            "priority",
            int32("Runtimes with a higher one are chosen first.").at_least(1),
        ),
    ])
}

fn worker() -> Schema {
    let mut fields = pod_fields();
    fields.extend([
        field("pipelineParallelSize", integer("Nodes the layers are spread over.")),
        field(
            "tensorParallelSize",
            integer("GPUs of a node one layer is spread over."),
        ),
    ]);
    object("Pods that share the work of one model over several nodes.", fields)
}

fn pod_fields() -> Vec<Field> {
    vec![
        required(
            "containers",
            list(
                "Containers of the Pod; kserve-container is the model server.",
                item(container::fields(ContainerShape::Core)),
            ),
        ),
        field(
            "labels",
            string_map("Labels for the predictor's objects and Pods; all others win over these."),
        ),
        field(
            "annotations",
            string_map("Annotations for the predictor's objects and Pods; all others win over these."),
        ),
        field("nodeSelector", string_map("Labels the node must have.")),
        pod::volumes(),
        pod::affinity(),
        pod::tolerations(),
        pod::image_pull_secrets(),
        pod::resource_claims(),
        pod::scheduler_name(),
        pod::host_ipc(),
    ]
}
