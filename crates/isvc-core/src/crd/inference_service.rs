//! The `InferenceService` definition.

use serde_json::Value;

use super::component::{self, brief_framework, framework, model, storage_spec};
use super::container::{self, ContainerShape};
use super::definition::{Definition, KSERVE_GROUP, PrinterColumn};
use super::pod::{self, PodShape};
use super::rules;
use super::schema::{
    Field, Schema, boolean, field, int32, int64, integer, item, list, map, object, opaque, required, string, string_map,
};

/// Model formats that have a block of their own on the predictor, and what serves them.
const FRAMEWORKS: [(&str, &str); 10] = [
    ("sklearn", "A scikit-learn model."),
    ("xgboost", "An XGBoost model."),
    ("tensorflow", "A TensorFlow model."),
    ("pytorch", "A PyTorch model."),
    ("triton", "A model for the Triton server."),
    ("onnx", "An ONNX model."),
    ("huggingface", "A Hugging Face model."),
    ("pmml", "A PMML model."),
    ("lightgbm", "A LightGBM model."),
    ("paddle", "A Paddle model."),
];

/// The `inferenceservices.serving.kserve.io` `CustomResourceDefinition`.
///
/// Names, columns and the meaning of fields are those of `KServe`'s `v1beta1`. Inside `canary`, the blocks named after a
/// model format and the worker are stored as they come, because a second copy of their schemas would take the
/// definition near the size etcd accepts (1.5 MiB).
#[must_use]
pub fn inference_service() -> Value {
    let traffic = |filter: &str, value: &str| format!(".status.components.predictor.traffic[?(@.{filter})].{value}");
    Definition {
        group: KSERVE_GROUP,
        kind: "InferenceService",
        singular: "inferenceservice",
        plural: "inferenceservices",
        short_names: &["isvc"],
        scope: "Namespaced",
        version: "v1beta1",
        status_subresource: true,
        columns: vec![
            PrinterColumn::new("URL", "string", ".status.url"),
            PrinterColumn::new("Ready", "string", ".status.conditions[?(@.type=='Ready')].status"),
            PrinterColumn::new("Prev", "integer", &traffic("tag=='prev'", "percent")),
            PrinterColumn::new("Latest", "integer", &traffic("latestRevision==true", "percent")),
            PrinterColumn::new(
                "PrevRolledoutRevision",
                "string",
                &traffic("tag=='prev'", "revisionName"),
            ),
            PrinterColumn::new(
                "LatestReadyRevision",
                "string",
                &traffic("latestRevision==true", "revisionName"),
            ),
            PrinterColumn::age(),
        ],
        description: "A model served over HTTP or gRPC.",
        fields: vec![
            field(
                "spec",
                object(
                    "What is to be served.",
                    [
                        required("predictor", predictor()),
                        field("transformer", transformer()),
                        field("explainer", explainer()),
                        field("canary", canary()),
                    ],
                )
                .rules(rules::canaries()),
            ),
            field("status", status()),
        ],
        rules: vec![rules::name()],
    }
    .into_json()
}

fn predictor() -> Schema {
    let mut fields = predictor_fields(PodShape::Component);
    fields.extend(FRAMEWORKS.map(|(name, description)| field(name, framework(description))));
    fields.push(field("workerSpec", worker()));
    let blocks: Vec<&str> = ["model"].into_iter().chain(FRAMEWORKS.map(|(name, _)| name)).collect();
    object("The server of the model.", fields).rules(rules::predictor(&blocks))
}

fn predictor_fields(shape: PodShape) -> Vec<Field> {
    let mut fields = component::fields(shape);
    fields.extend([
        field("model", model()),
        field(
            "name",
            string("Name of this variant; it becomes part of object names.").pattern("^[a-z]([-a-z0-9]*[a-z0-9])?$"),
        ),
        field(
            "storageContainerName",
            string("ClusterStorageContainer that fetches the model."),
        ),
    ]);
    fields
}

fn worker() -> Schema {
    let mut fields = pod::fields(PodShape::Core);
    fields.extend([
        field("pipelineParallelSize", integer("Nodes the layers are spread over.")),
        field(
            "tensorParallelSize",
            integer("GPUs of a node one layer is spread over."),
        ),
    ]);
    object("Pods that share the work of one model over several nodes.", fields)
}

fn transformer() -> Schema {
    object(
        "Works on requests before and on responses after the predictor.",
        component::fields(PodShape::Component),
    )
    .rules(rules::transformer())
}

fn explainer() -> Schema {
    let mut art = container::fields(ContainerShape::Inlined);
    art.extend([
        field("type", string("Kind of explainer: SquareAttack.")),
        field("storageUri", string("Where the explainer's files are.")),
        field("runtimeVersion", string("Tag of the explainer's image.")),
        field("config", string_map("Settings of the explainer.")),
        field("storage", storage_spec()),
    ]);
    let mut fields = component::fields(PodShape::Component);
    fields.push(field("art", object("The Adversarial Robustness Toolbox.", art)));
    object("Explains predictions.", fields).rules(rules::explainer())
}

fn canary() -> Schema {
    let mut fields = predictor_fields(PodShape::Core);
    fields.extend(FRAMEWORKS.map(|(name, description)| field(name, brief_framework(description))));
    fields.push(field(
        "workerSpec",
        opaque("Pods that share the work of one model over several nodes."),
    ));
    list(
        "Variants beside the predictor that get a share of the traffic.",
        item([
            required("predictor", object("The server of the variant.", fields)),
            required(
                "trafficPercent",
                int32("Share of the traffic.").at_least(0).at_most(100),
            ),
        ]),
    )
    .atomic()
}

fn status() -> Schema {
    object(
        "What was observed last.",
        [
            field("conditions", list("How things stand, sorted by type.", condition())),
            field(
                "observedGeneration",
                int64("Generation of the component's Deployment that was observed."),
            ),
            field("annotations", string_map("Further facts.")),
            field("url", string("Address for users outside the cluster.")),
            field("address", address("Address for users inside the cluster.")),
            field(
                "components",
                map(
                    "Facts by component: predictor, transformer, explainer.",
                    component_status(),
                ),
            ),
            field("modelStatus", model_status("State of the model.")),
            field(
                "canaryStatuses",
                list("State of the canary variants.", canary_status()).atomic(),
            ),
            field(
                "deploymentMode",
                string("Mode the service was deployed in; it never changes."),
            ),
            field("servingRuntimeName", string("ServingRuntime in use.")),
            field("clusterServingRuntimeName", string("ClusterServingRuntime in use.")),
        ],
    )
    .keeping_unknown_fields()
}

fn condition() -> Schema {
    item([
        required("type", string("What the condition is about.")),
        required("status", string("True, False or Unknown.")),
        field("severity", string("Empty if it decides about Ready, else Info.")),
        field("lastTransitionTime", string("When the condition last changed.")),
        field("reason", string("Why, in one word.")),
        field("message", string("Why, in a sentence.")),
    ])
}

fn address(description: &str) -> Schema {
    object(
        description,
        [
            field("url", string("The address.")),
            field("name", string("Name of the address.")),
            field("CACerts", string("Certificates to trust, PEM encoded.")),
            field("audience", string("Audience tokens are to be made for.")),
        ],
    )
}

fn component_status() -> Schema {
    let target = item([
        field("configurationName", string("Configuration that makes the revisions.")),
        field("revisionName", string("The revision.")),
        field("latestRevision", boolean("The latest revision, whichever it is.")),
        field("percent", int64("Share of the traffic.")),
        field("tag", string("Name that gives the revision its own URL.")),
        field("url", string("The revision's own URL.")),
    ]);
    item([
        field("url", string("Address for users outside the cluster.")),
        field("restUrl", string("Address of the REST API.")),
        field("grpcUrl", string("Address of the gRPC API.")),
        field("address", address("Address for users inside the cluster.")),
        field(
            "latestCreatedRevision",
            string("Latest revision made; empty in Standard mode."),
        ),
        field(
            "latestReadyRevision",
            string("Latest revision ready; empty in Standard mode."),
        ),
        field(
            "latestRolledoutRevision",
            string("Latest revision with all traffic; empty in Standard mode."),
        ),
        field(
            "previousRolledoutRevision",
            string("The one before; empty in Standard mode."),
        ),
        field(
            "traffic",
            list("Shares of the traffic; empty in Standard mode.", target),
        ),
    ])
}

fn canary_status() -> Schema {
    item([
        required("name", string("Name of the variant.")),
        required("ready", boolean("The variant can serve.")),
        required("trafficPercent", int32("Share of the traffic.")),
        field("modelStatus", model_status("State of the variant's model.")),
    ])
}

fn model_status(description: &str) -> Schema {
    const STATES: [&str; 6] = ["", "Pending", "Standby", "Loading", "Loaded", "FailedToLoad"];
    object(
        description,
        [
            required(
                "transitionStatus",
                string("Whether the model in use is the wanted one.")
                    .default("UpToDate")
                    .one_of(&["", "UpToDate", "InProgress", "BlockedByFailedLoad", "InvalidSpec"]),
            ),
            field(
                "states",
                object(
                    "States of the models.",
                    [
                        required(
                            "activeModelState",
                            string("State of the model in use.").default("Pending").one_of(&STATES),
                        ),
                        field(
                            "targetModelState",
                            string("State of the wanted model.").default("").one_of(&STATES),
                        ),
                    ],
                ),
            ),
            field(
                "copies",
                object(
                    "Number of copies.",
                    [
                        required("failedCopies", integer("Copies that failed.").default(0)),
                        field("totalCopies", integer("Copies that serve.")),
                    ],
                ),
            ),
            field(
                "lastFailureInfo",
                object(
                    "The last failure to load.",
                    [
                        field(
                            "reason",
                            string("Why, in one word.").one_of(&[
                                "ModelLoadFailed",
                                "RuntimeUnhealthy",
                                "RuntimeDisabled",
                                "NoSupportingRuntime",
                                "RuntimeNotRecognized",
                                "InvalidPredictorSpec",
                            ]),
                        ),
                        field("message", string("Why, in a sentence.")),
                        field("exitCode", int32("Exit code of the container.")),
                        field("location", string("Pod or component that failed.")),
                        field("modelRevisionName", string("Revision that failed.")),
                        field("time", string("When it failed.").format("date-time")),
                    ],
                ),
            ),
        ],
    )
}
