//! What each kind of model server expects: defaults before merging, and the image after.

use std::sync::LazyLock;

use regex::Regex;
use serde_json::{Value, json};

use crate::{
    api::{Meta, Model, Object, ServingRuntime},
    names,
};

use super::{env, runtime::lowest_protocol};

/// Kind of the server a runtime runs: its annotation, else what its name stands for.
pub(super) fn server_type(runtime: &ServingRuntime) -> &str {
    runtime
        .meta
        .annotation(names::ANNOTATION_SERVER_TYPE)
        .unwrap_or(match runtime.meta.name.as_str() {
            "kserve-mlserver" => "mlserver",
            "kserve-torchserve" => "torchserve",
            "kserve-tritonserver" => "tritonserver",
            "kserve-tensorflow-serving" => "tensorflow-serving",
            "kserve-huggingfaceserver" => "huggingfaceserver",
            "kserve-vllmserver" => "vllmserver",
            _ => "",
        })
}

/// Completes a model for its server, in memory.
pub(super) fn complete(model: &mut Model, meta: &mut Meta, runtime: &ServingRuntime) {
    let protocol = model.protocol_version.take().filter(|protocol| !protocol.is_empty());
    let without_model = model.is_without_storage();
    match server_type(runtime) {
        "mlserver" => {
            model.protocol_version = Some(protocol.unwrap_or_else(|| "v2".to_owned()));
            let env = env::list_of(&mut model.container);
            if without_model {
                env::add_if_absent(env, "MLSERVER_LOAD_MODELS_AT_STARTUP", "false");
            } else {
                env::add_if_absent(env, "MLSERVER_MODEL_NAME", &meta.name);
                env::add_if_absent(env, "MLSERVER_MODEL_URI", names::MODEL_PATH);
            }
            let class = match model.format.as_str() {
                "xgboost" => "mlserver_xgboost.XGBoostModel",
                "lightgbm" => "mlserver_lightgbm.LightGBMModel",
                "mlflow" => "mlserver_mlflow.MLflowRuntime",
                _ => "mlserver_sklearn.SKLearnModel",
            };
            meta.labels
                .insert(names::LABEL_MODEL_CLASS.to_owned(), class.to_owned());
        }
        "torchserve" => {
            let protocol = protocol.unwrap_or_else(|| "v1".to_owned());
            let envelope = if matches!(protocol.as_str(), "v2" | "grpc-v2") {
                "kservev2"
            } else {
                "kserve"
            };
            meta.labels
                .insert(names::LABEL_SERVICE_ENVELOPE.to_owned(), envelope.to_owned());
            env::set(
                env::list_of(&mut model.container),
                json!({"name": "PROTOCOL_VERSION", "value": protocol}),
            );
            model.protocol_version = Some(protocol);
        }
        "tritonserver" => {
            model.protocol_version = Some(protocol.unwrap_or_else(|| "v2".to_owned()));
            if without_model {
                let args = model.container.entry("args").or_insert_with(|| json!([]));
                if let Some(args) = args.as_array_mut() {
                    args.push(Value::from("--model-control-mode=explicit"));
                }
            }
        }
        _ => model.protocol_version = Some(protocol.unwrap_or_else(|| lowest_protocol(runtime))),
    }
}

static TAG: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"(:([\w.\-_]*))$").expect("the pattern is constant and valid"));

/// The server's image: the model's version as its tag, and the variant for GPUs where servers have one.
pub(super) fn adjust_image(container: &mut Object, runtime_version: Option<&str>, server_type: &str) {
    let Some(image) = container.get("image").and_then(Value::as_str) else {
        return;
    };
    if let Some(adjusted) = adjusted_image(image, runtime_version, server_type, wants_gpu(container)) {
        container.insert("image".to_owned(), Value::from(adjusted));
    }
}

fn adjusted_image(image: &str, version: Option<&str>, server_type: &str, gpu: bool) -> Option<String> {
    if image.contains("@sha256:") {
        return None;
    }
    let tag = TAG.find(image);
    if let Some(version) = version.filter(|version| !version.is_empty()) {
        let repository = tag.map_or(image, |tag| &image[..tag.start()]);
        return Some(format!("{repository}:{version}"));
    }
    let tag = tag?;
    match server_type {
        "tensorflow-serving" | "torchserve" | "huggingfaceserver" if gpu && !image.ends_with("-gpu") => {
            Some(format!("{image}-gpu"))
        }
        "vllmserver" if !gpu && !image[..tag.start()].ends_with("-cpu") => {
            Some(format!("{}-cpu{}", &image[..tag.start()], tag.as_str()))
        }
        _ => None,
    }
}

fn wants_gpu(container: &Object) -> bool {
    container
        .get("resources")
        .and_then(|resources| resources.get("limits"))
        .and_then(Value::as_object)
        .is_some_and(|limits| {
            limits
                .keys()
                .any(|key| key == "nvidia.com/gpu" || key.starts_with("nvidia.com/mig"))
        })
}

#[cfg(test)]
mod tests {
    use super::adjusted_image;

    #[track_caller]
    fn check(image: &str, version: Option<&str>, server_type: &str, gpu: bool, expected: Option<&str>) {
        assert_eq!(adjusted_image(image, version, server_type, gpu).as_deref(), expected);
    }

    #[test]
    fn a_version_replaces_the_tag() {
        check("reg/a:1", Some("2"), "", false, Some("reg/a:2"));
        check("reg/a", Some("2"), "", false, Some("reg/a:2"));
        check("reg:5000/a", Some("2"), "", false, Some("reg:5000/a:2"));
        check("reg/a@sha256:0", Some("2"), "", true, None);
    }

    #[test]
    fn servers_with_variants_follow_the_gpu() {
        check("reg/tf:1", None, "tensorflow-serving", true, Some("reg/tf:1-gpu"));
        check("reg/tf:1-gpu", None, "tensorflow-serving", true, None);
        check("reg/tf:1", None, "tensorflow-serving", false, None);
        check("reg/sk:1", None, "sklearnserver", true, None);
        check(
            "vllm/vllm-openai:x",
            None,
            "vllmserver",
            false,
            Some("vllm/vllm-openai-cpu:x"),
        );
        check("vllm/vllm-openai:x", None, "vllmserver", true, None);
    }
}
