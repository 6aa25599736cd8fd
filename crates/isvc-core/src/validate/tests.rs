//! Each rule on the smallest specification that breaks it.

mod scaling;
mod told;

use serde_json::{Value, json};

use super::{UNSUPPORTED, validate};
use crate::{
    api::{InferenceService, InferenceServiceStatus, Meta},
    defaults,
    rejection::Rejection,
    settings::Settings,
};

fn parsed(meta: Value, spec: Value, deployed_as: &str) -> InferenceService {
    let meta: Meta = serde_json::from_value(meta).expect("readable metadata");
    let status = InferenceServiceStatus {
        deployment_mode: deployed_as.to_owned(),
        ..InferenceServiceStatus::default()
    };
    let mut service = InferenceService::parse(meta, spec, status).expect("a readable specification");
    defaults::apply(&mut service, &Settings::built_in()).expect("readable old fields");
    service
}

/// A model with further fields of the predictor; null takes one away.
fn predictor(fields: &Value) -> Value {
    let mut predictor = json!({"model": {"modelFormat": {"name": "sklearn"}, "storageUri": "s3://b/m"}});
    for (name, value) in fields.as_object().expect("fields") {
        predictor[name] = value.clone();
    }
    json!({"predictor": predictor})
}

#[track_caller]
fn refused(service: &InferenceService) -> Rejection {
    validate(service).expect_err("it breaks a rule")
}

/// A broken rule: the message is the field and the text, the event is the text alone.
#[track_caller]
fn check(spec: Value, field: &str, text: &str) {
    check_class(None, spec, field, text);
}

#[track_caller]
fn check_class(class: Option<&str>, spec: Value, field: &str, text: &str) {
    let annotations = class.map_or(json!({}), |class| json!({"serving.kserve.io/autoscalerClass": class}));
    let rejection = refused(&parsed(json!({"name": "m", "annotations": annotations}), spec, ""));
    assert_eq!(
        (rejection.reason, rejection.message, rejection.event),
        ("InvalidSpec", format!("{field}: {text}"), text.to_owned())
    );
}

/// What the schema of a full definition says; the event is all the API server says.
#[track_caller]
fn check_schema(spec: Value, field: &str, problem: &str) {
    let rejection = refused(&parsed(json!({"name": "m"}), spec, ""));
    let message = format!("{field}: {problem}");
    assert_eq!(rejection.message, message);
    assert_eq!(
        rejection.event,
        format!("InferenceService.serving.kserve.io \"m\" is invalid: {message}")
    );
}

#[track_caller]
fn check_accepted(class: Option<&str>, spec: Value) {
    let annotations = class.map_or(json!({}), |class| json!({"serving.kserve.io/autoscalerClass": class}));
    let service = parsed(json!({"name": "m", "annotations": annotations}), spec, "");
    assert_eq!(validate(&service), Ok(()));
}

#[test]
fn names() {
    for (name, good) in [
        ("m", true),
        ("my-name", true),
        ("abc-123", true),
        ("1abc", false),
        ("a.b", false),
        ("a-", false),
        ("", false),
    ] {
        let service = parsed(json!({"name": name}), predictor(&json!({})), "");
        assert_eq!(validate(&service).is_ok(), good, "{name:?}");
    }
    let rejection = refused(&parsed(json!({"name": "1abc"}), predictor(&json!({})), ""));
    assert_eq!(
        rejection.event,
        "the InferenceService \"1abc\" is invalid: a InferenceService name must consist of lower case alphanumeric \
         characters or '-', and must start with alphabetical character. (e.g. \"my-name\" or \"abc-123\", regex used for \
         validation is '[a-z]([-a-z0-9]*[a-z0-9])?')"
    );
}

#[test]
fn a_service_keeps_its_mode() {
    let with = |asked: &str, deployed: &str| {
        let meta = json!({"name": "m", "annotations": {"serving.kserve.io/deploymentMode": asked}});
        validate(&parsed(meta, predictor(&json!({})), deployed)).map_err(|rejection| rejection.message)
    };
    assert_eq!(with("Knative", ""), Ok(()));
    assert_eq!(with("RawDeployment", "Standard"), Ok(()));
    assert_eq!(
        with("Serverless", "Standard"),
        Err("metadata.annotations[serving.kserve.io/deploymentMode]: update rejected: deploymentMode cannot be changed from \
             'Standard' to 'Knative'"
            .to_owned())
    );
    // Reported where the mode is used, in other words.
    assert_eq!(with("Whatever", "Standard"), Ok(()));
}

#[test]
fn classes() {
    check_class(
        Some("cron"),
        predictor(&json!({})),
        "metadata.annotations[serving.kserve.io/autoscalerClass]",
        "[cron] is not a supported autoscaler class type",
    );
    for class in ["hpa", "external", "none"] {
        check_accepted(Some(class), predictor(&json!({})));
    }
}

#[test]
fn fields_of_later_versions_are_named() {
    for (spec, field) in [
        (
            json!({"predictor": {"model": {"modelFormat": {"name": "a"}}},
                "canary": [{"predictor": {"name": "b", "workerSpec": {"tensorParallelSize": 2}}}]}),
            "spec.canary[0].predictor.workerSpec: ",
        ),
        (
            predictor(&json!({"workerSpec": {"tensorParallelSize": 2}})),
            "spec.predictor.workerSpec: ",
        ),
    ] {
        let rejection = refused(&parsed(json!({"name": "m"}), spec, ""));
        assert_eq!(rejection.reason, UNSUPPORTED);
        assert!(rejection.message.starts_with(field), "{}", rejection.message);
    }
}

#[test]
fn python_path_in_any_container() {
    let container = |name: &str| json!({"name": name, "env": [{"name": "A", "value": "b"}, {"name": "PYTHONPATH"}]});
    let text = |name: &str| {
        format!(
            "the InferenceService \"m\" is invalid: setting PYTHONPATH in container \"{name}\" is not allowed for security \
             reasons"
        )
    };
    let model = json!({"modelFormat": {"name": "sklearn"}, "env": [{"name": "PYTHONPATH", "value": "/x"}]});
    check(
        predictor(&json!({"model": model})),
        "spec.predictor.model.env",
        &text(""),
    );
    check(
        json!({"predictor": {"sklearn": {"env": [{"name": "PYTHONPATH"}]}}}),
        "spec.predictor.model.env",
        &text(""),
    );
    check(
        predictor(&json!({"containers": [{"name": "a"}, container("s")]})),
        "spec.predictor.containers[1].env",
        &text("s"),
    );
    check(
        predictor(&json!({"initContainers": [container("i")]})),
        "spec.predictor.initContainers[0].env",
        &text("i"),
    );
    let mut with_transformer = predictor(&json!({}));
    with_transformer["transformer"] = json!({"containers": [container("t")]});
    check(
        with_transformer,
        "spec.transformer.containers[0].env",
        &text("kserve-container"),
    );
    let mut with_explainer = predictor(&json!({}));
    with_explainer["explainer"] = json!({"art": {"type": "SquareAttack", "env": [{"name": "PYTHONPATH"}]}});
    check(with_explainer, "spec.explainer.art.env", &text(""));
}

#[test]
fn fields_that_have_no_place_in_a_predictor() {
    let container = json!({"name": "transformer-container", "env": [{"name": "STORAGE_URI", "value": "s3://b/t"}]});
    check(
        predictor(&json!({"containers": [container]})),
        "spec.predictor.containers[0].env[STORAGE_URI]",
        "storage uri should not be specified in transformer container",
    );
    for spec in [
        predictor(&json!({"model": {"name": "x"}})),
        json!({"predictor": {"sklearn": {"name": "x"}}}),
    ] {
        check(
            spec,
            "spec.predictor.model.name",
            "the 'name' field is not allowed in standard predictor",
        );
    }
    check_accepted(None, predictor(&json!({"model": {"name": ""}})));
}

#[test]
fn places_of_several_models() {
    let field = "spec.predictor.storageUris";
    let uris = |entries: &[(&str, &str)]| {
        let entries: Vec<Value> = entries
            .iter()
            .map(|(uri, path)| json!({"uri": uri, "mountPath": path}))
            .collect();
        predictor(&json!({"model": {"modelFormat": {"name": "sklearn"}}, "storageUris": entries}))
    };
    check(
        predictor(&json!({"storageUris": [{"uri": "s3://a/b"}]})),
        field,
        "Setting both StorageURI and StorageURIs is not supported.",
    );
    check(uris(&[("s3://a/b", "/")]), field, "storage path cannot be empty");
    check(
        uris(&[("s3://a/b", "/mnt/../x")]),
        field,
        "storage path cannot contain '..' for security reasons: /mnt/../x",
    );
    check(
        uris(&[("s3://a/b", "/mnt/x"), ("s3://a/c", "/opt/y")]),
        field,
        "storage paths must have a common parent directory. Current paths: [/mnt/x /opt/y] have no common parent beyond \
         root",
    );
    check(
        uris(&[
            ("pvc://a", "/mnt/p"),
            ("pvc://b", "/mnt/p"),
            ("s3://a/b", "/mnt/m/a"),
            ("s3://a/c", "/mnt/m/b"),
        ]),
        field,
        "PVC storage paths must be unique",
    );
    check_accepted(None, uris(&[("s3://a/b", "/mnt/x"), ("pvc://c", "/opt/y")]));
    check_accepted(None, uris(&[("s3://a/b", "/models"), ("s3://a/c", "/models/more")]));
    // The container that serves need not come first.
    let server = json!({"name": "kserve-container", "env": [{"name": "STORAGE_URI", "value": "s3://a/b"}]});
    let containers = json!([{"name": "beside"}, server]);
    check(
        json!({"predictor": {"containers": containers, "storageUris": [{"uri": "s3://a/c"}]}}),
        field,
        "Setting both StorageURI and StorageURIs is not supported.",
    );
    let mut of_transformer = predictor(&json!({}));
    of_transformer["transformer"] = json!({
        "containers": [{"env": [{"name": "STORAGE_URI", "value": "s3://a/b"}]}],
        "storageUris": [{"uri": "s3://a/b"}],
    });
    check(
        of_transformer,
        "spec.transformer.storageUris",
        "Setting both StorageURI and StorageURIs is not supported.",
    );
}

#[test]
fn two_claims_at_one_place_are_found_without_other_models_beside_them() {
    let entries = json!([{"uri": "pvc://a", "mountPath": "/mnt/p"}, {"uri": "pvc://b", "mountPath": "/mnt/p"}]);
    check(
        predictor(&json!({"model": {}, "storageUris": entries})),
        "spec.predictor.storageUris",
        "PVC storage paths must be unique",
    );
}

#[test]
fn confidential_models() {
    let model = |uri: Value, confidential: Value| {
        predictor(
            &json!({"model": {"modelFormat": {"name": "sklearn"}, "storageUri": uri, "confidential": confidential}}),
        )
    };
    check(
        model(Value::Null, json!({"enabled": true})),
        "spec.predictor.model.confidential",
        "confidential model serving requires storageUri to be set",
    );
    check(
        model(json!("s3://b/m"), json!({"enabled": true, "resourceId": "kbs://x"})),
        "spec.predictor.model.confidential.resourceId",
        "spec.predictor.confidential.resourceId: Invalid value: \"kbs://x\": must be in the format \
         kbs:///<repo>/<type>/<tag>",
    );
    check_accepted(
        None,
        model(
            json!("s3://b/m"),
            json!({"enabled": true, "resourceId": "kbs:///default/model-key/v1"}),
        ),
    );
    check_accepted(None, model(Value::Null, json!({"enabled": false, "resourceId": "x"})));
}

#[test]
fn exactly_one_implementation() {
    let of_predictor = "exactly one of [Name, SKLearn, XGBoost, Tensorflow, PyTorch, Triton, ONNX, HuggingFace, PMML, \
                        LightGBM, Paddle, Model, StorageUris, StorageContainerName, WorkerSpec, PodSpec] must be specified \
                        in PredictorSpec";
    for spec in [
        json!({"predictor": {"sklearn": {"storageUri": "s3://a/b"}, "xgboost": {"storageUri": "s3://a/b"}}}),
        json!({"predictor": {"model": {}, "containers": [{"name": "kserve-container"}]}}),
        json!({"predictor": {"model": {}, "sklearn": {}}}),
    ] {
        check(spec, "spec.predictor", of_predictor);
    }
    for (name, content, text) in [
        (
            "transformer",
            json!({}),
            "exactly one of [PodSpec, ComponentExtensionSpec] must be specified in TransformerSpec",
        ),
        (
            "explainer",
            json!({}),
            "exactly one of [ART, PodSpec, ComponentExtensionSpec] must be specified in ExplainerSpec",
        ),
        (
            "explainer",
            json!({"art": {"type": "SquareAttack"}, "containers": [{"name": "a"}]}),
            "exactly one of [ART, PodSpec, ComponentExtensionSpec] must be specified in ExplainerSpec",
        ),
    ] {
        let mut spec = predictor(&json!({}));
        spec[name] = content;
        check(spec, &format!("spec.{name}"), text);
    }
    check_accepted(
        None,
        json!({"predictor": {"containers": [{"name": "a"}, {"name": "b"}]}}),
    );
    check_accepted(None, predictor(&json!({"containers": [{"name": "beside"}]})));
}

#[test]
fn an_empty_predictor_is_told_so_where_kserve_s_webhook_crashes() {
    let rejection = refused(&parsed(json!({"name": "m"}), json!({"predictor": {}}), ""));
    assert!(
        rejection.message.starts_with("spec.predictor: exactly one of [Name, "),
        "{}",
        rejection.message
    );
}

#[test]
fn the_swapped_words_about_protocols_are_explained() {
    let spec = json!({"predictor": {"containers": [{"env": [{"name": "PROTOCOL", "value": "v3"}]}]}});
    let rejection = refused(&parsed(json!({"name": "m"}), spec, ""));
    assert_eq!(rejection.event, "invalid protocol v1, v2. Must be one of [v3]");
    assert_eq!(
        rejection.message,
        "spec.predictor.containers[0].env[PROTOCOL]: invalid protocol v1, v2. Must be one of [v3] (that is: v3 is invalid, v1 \
         and v2 are valid)"
    );
    for protocol in ["v1", "v2"] {
        let env = json!([{"name": "PROTOCOL", "value": protocol}]);
        check_accepted(None, json!({"predictor": {"containers": [{"env": env}]}}));
    }
}

#[test]
fn numbers_of_replicas_and_workers() {
    for (fields, field, text) in [
        (
            json!({"containerConcurrency": -1}),
            "containerConcurrency",
            "parallelism cannot be less than 0",
        ),
        (
            json!({"minReplicas": -1}),
            "minReplicas",
            "'MinReplicas' cannot be less than 0",
        ),
        (
            json!({"maxReplicas": -1}),
            "maxReplicas",
            "'MaxReplicas' cannot be less than 0",
        ),
        (
            json!({"minReplicas": 3, "maxReplicas": 2}),
            "minReplicas",
            "'MinReplicas' cannot be greater than MaxReplicas",
        ),
    ] {
        check(predictor(&fields), &format!("spec.predictor.{field}"), text);
        let mut of_transformer = predictor(&json!({}));
        of_transformer["transformer"] = fields;
        of_transformer["transformer"]["containers"] = json!([{"image": "t"}]);
        check(of_transformer, &format!("spec.transformer.{field}"), text);
    }
    check_accepted(None, predictor(&json!({"minReplicas": 3, "maxReplicas": 0})));
    check_accepted(None, predictor(&json!({"minReplicas": 0, "maxReplicas": 1})));
}

#[test]
fn loggers() {
    for logger in [json!({}), json!({"url": "http://l"}), json!({"mode": ""})] {
        check(
            predictor(&json!({"logger": logger})),
            "spec.predictor.logger.mode",
            "invalid logger type",
        );
    }
    check(
        predictor(&json!({"logger": {"mode": "all", "storage": {"path": "/l", "key": "k"}}})),
        "spec.predictor.logger.storage",
        "invalid logger storage configuration",
    );
    let storage = json!({"path": "/l", "key": "k", "parameters": {"type": "s3"}});
    check_accepted(
        None,
        predictor(&json!({"logger": {"mode": "request", "storage": storage}})),
    );
}

#[test]
fn what_the_schema_of_a_full_definition_refuses() {
    let uris = |entry: Value| predictor(&json!({"model": {}, "storageUris": [entry]}));
    let path = "spec.predictor.storageUris[0].mountPath";
    check_schema(
        predictor(&json!({"scaleMetric": "qps"})),
        "spec.predictor.scaleMetric",
        "Unsupported value: \"qps\": supported values: \"cpu\", \"memory\", \"concurrency\", \"rps\"",
    );
    check_schema(
        predictor(&json!({"logger": {"mode": "some"}})),
        "spec.predictor.logger.mode",
        "Unsupported value: \"some\": supported values: \"all\", \"request\", \"response\"",
    );
    check_schema(
        predictor(&json!({"autoScaling": {"metrics": [{"type": "Pods"}]}})),
        "spec.predictor.autoScaling.metrics[0].type",
        "Unsupported value: \"Pods\": supported values: \"Resource\", \"External\", \"PodMetric\"",
    );
    check_schema(
        uris(json!({"uri": "", "mountPath": "/mnt/x"})),
        "spec.predictor.storageUris[0].uri",
        "Invalid value: \"\": spec.predictor.storageUris[0].uri in body should be at least 1 chars long",
    );
    for wrong in ["mnt/x", ""] {
        let problem = format!("Invalid value: \"{wrong}\": {path} in body should match '^/.*'");
        check_schema(uris(json!({"uri": "s3://a/b", "mountPath": wrong})), path, &problem);
    }
    check_schema(
        uris(json!({"uri": "s3://a/b", "mountPath": format!("/{}", "x".repeat(255))})),
        path,
        "Too long: may not be more than 255 bytes",
    );
    check_schema(
        predictor(&json!({"name": "Blue"})),
        "spec.predictor.name",
        "Invalid value: \"Blue\": spec.predictor.name in body should match '^[a-z]([-a-z0-9]*[a-z0-9])?$'",
    );
    let external = json!({"metric": {"backend": "prometheus"}, "target": {"type": "Value", "value": "many"}});
    check_schema(
        predictor(&json!({"autoScaling": {"metrics": [{"type": "External", "external": external}]}})),
        "spec.predictor.autoScaling.metrics[0].external.target.value",
        "Invalid value: \"many\": is not a quantity; write it like 500m, 2.5 or 2Gi",
    );
}

#[test]
fn an_empty_list_of_models_cannot_be_read() {
    let spec = predictor(&json!({"storageUris": []}));
    let error = InferenceService::parse(Meta::default(), spec, InferenceServiceStatus::default());
    assert_eq!(
        error.map(|_| ()).map_err(|error| error.to_string()),
        Err("spec.predictor.storageUris: Invalid value: 0: spec.predictor.storageUris in body should have at least 1 items"
            .to_owned())
    );
}

#[test]
fn variants_of_the_predictor() {
    let spec = |canary: Value| {
        json!({"predictor": {"model": {"modelFormat": {"name": "a"}}, "minReplicas": 2, "name": "stable"},
            "canary": canary})
    };
    let variant = |name: &str, percent: i32| json!({"trafficPercent": percent, "predictor": {"name": name}});
    check_accepted(None, spec(json!([variant("a", 40), variant("b", 60)])));
    let check = |canary: Value, field: &str, text: &str| check(spec(canary), field, text);
    check(
        json!([{"trafficPercent": 10, "predictor": {"model": {"modelFormat": {"name": "a"}}}}]),
        "spec.canary[0].predictor.name",
        "canary[0] predictor.name is required",
    );
    check(
        json!([variant("a", 60), variant("b", 60)]),
        "spec.canary",
        "sum of canary trafficPercent values (120) must be <= 100",
    );
    check(
        json!([variant("a", 101)]),
        "spec.canary[0].trafficPercent",
        "canary[0] trafficPercent must be between 0 and 100",
    );
    check(
        json!([variant("a", 1), variant("stable", 1)]),
        "spec.canary[1].predictor.name",
        "canary[1] predictor.name \"stable\" is taken; it must differ from the predictor's and from other canaries'",
    );
    check(
        json!([{"trafficPercent": 1, "predictor": {"name": "a", "maxReplicas": 3}}]),
        "spec.canary[0].predictor.maxReplicas",
        "canary[0] predictor.maxReplicas is not allowed; a canary is scaled by its share",
    );
    check(
        json!([{"trafficPercent": 1, "predictor": {"name": "a", "minReplicas": 3}}]),
        "spec.canary[0].predictor.minReplicas",
        "canary[0] predictor.minReplicas must not be greater than the predictor's, 2",
    );
}

#[test]
fn what_the_schema_refuses_is_refused_of_a_variant() {
    let variant = |fields: Value| {
        let mut variant = json!({"name": "a", "model": {"modelFormat": {"name": "sklearn"}}});
        for (name, value) in fields.as_object().expect("fields") {
            variant[name] = value.clone();
        }
        let mut spec = predictor(&json!({}));
        spec["canary"] = json!([{"trafficPercent": 1, "predictor": variant}]);
        spec
    };
    let path = "spec.canary[0].predictor.storageUris[0].mountPath";
    check_schema(
        variant(json!({"storageUris": [{"uri": "s3://a/b", "mountPath": "relative/x"}]})),
        path,
        &format!("Invalid value: \"relative/x\": {path} in body should match '^/.*'"),
    );
    check_schema(
        variant(json!({"logger": {"mode": "some"}})),
        "spec.canary[0].predictor.logger.mode",
        "Unsupported value: \"some\": supported values: \"all\", \"request\", \"response\"",
    );
    // The name of a variant has rules, and words, of its own.
    check(
        variant(json!({"name": "A"})),
        "spec.canary[0].predictor.name",
        "canary[0] predictor.name \"A\" must consist of lower case letters, digits or '-', start with a letter and end with \
         a letter or digit",
    );
}
