//! Our definition of `InferenceService` refuses what `KServe`'s webhook refuses, in its words, where the language of its
//! rules allows.

use kube::{
    Api,
    api::{DynamicObject, Patch, PatchParams, PostParams},
};
use leanserve_tests::{installation::kustomization, services};
use serde_json::{Value, json};
use testkit::{ControlPlane, Options, eventually};

use crate::{DEADLINE, prepare, services_of};

const PREDICTOR: &str = "exactly one of [Name, SKLearn, XGBoost, Tensorflow, PyTorch, Triton, ONNX, HuggingFace, PMML, \
                         LightGBM, Paddle, Model, StorageUris, StorageContainerName, WorkerSpec, PodSpec] must be \
                         specified in PredictorSpec";

/// A service with further fields of its specification, merged into it.
fn service(name: &str, spec: &Value) -> DynamicObject {
    let mut service = services::sklearn(name, "unused", None);
    service["metadata"] = json!({"name": name});
    merge(&mut service["spec"], spec);
    serde_json::from_value(service).expect("a service is an object")
}

fn merge(target: &mut Value, patch: &Value) {
    match patch.as_object() {
        Some(patch) if target.is_object() => {
            for (name, value) in patch {
                if value.is_null() {
                    target.as_object_mut().expect("it is one").remove(name);
                } else {
                    merge(&mut target[name.as_str()], value);
                }
            }
        }
        _ => *target = patch.clone(),
    }
}

/// What the API server answers, when nothing is kept of it.
async fn answer(services: &Api<DynamicObject>, service: &DynamicObject) -> Result<(), String> {
    let parameters = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    let answer = services.create(&parameters, service).await;
    answer.map(|_| ()).map_err(|error| error.to_string())
}

async fn check(services: &Api<DynamicObject>, spec: Value, expected: Result<(), &str>) {
    match (answer(services, &service("m", &spec)).await, expected) {
        (Ok(()), Ok(())) => {}
        (Err(found), Err(text)) => assert!(found.contains(text), "{spec}: {found}"),
        (found, expected) => panic!("{spec}: {found:?}, not {expected:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_kserves_webhook_refuses_is_refused_in_its_words() {
    let (_, scope, client) = prepare("rules").await;
    let services = services_of(&client, &scope);
    let predictor = |fields: Value| json!({"predictor": fields});
    for name in ["1abc", "a.b"] {
        let found = answer(&services, &service(name, &json!({}))).await;
        let found = found.expect_err("the name is refused");
        let text =
            format!("the InferenceService \"{name}\" is invalid: a InferenceService name must consist of lower case");
        assert!(found.contains(&text), "{found}");
    }
    let canary = |predictor: Value, percent: i32| json!({"trafficPercent": percent, "predictor": predictor});
    let uris = json!([{"uri": "s3://a/b", "mountPath": "/"}]);
    let refused = [
        (predictor(json!({"model": null})), PREDICTOR),
        (predictor(json!({"sklearn": {"storageUri": "s3://a/b"}})), PREDICTOR),
        (
            predictor(json!({"containers": [{"name": "kserve-container"}]})),
            PREDICTOR,
        ),
        (
            json!({"transformer": {}}),
            "exactly one of [PodSpec, ComponentExtensionSpec] must be specified in TransformerSpec",
        ),
        (
            json!({"explainer": {}}),
            "exactly one of [ART, PodSpec, ComponentExtensionSpec] must be specified in ExplainerSpec",
        ),
        (
            predictor(json!({"model": {"name": "x"}})),
            "the 'name' field is not allowed in standard predictor",
        ),
        (
            predictor(json!({"model": null, "sklearn": {"name": "x"}})),
            "the 'name' field is not allowed in standard predictor",
        ),
        (
            predictor(json!({"storageUris": [{"uri": "s3://a/b"}]})),
            "Setting both StorageURI and StorageURIs is not supported.",
        ),
        (
            predictor(json!({"model": {"storageUri": null}, "storageUris": uris})),
            "storage path cannot be empty",
        ),
        (
            predictor(json!({"model": {"storageUri": null, "confidential": {"enabled": true}}})),
            "confidential model serving requires storageUri to be set",
        ),
        (
            predictor(json!({"model": {"confidential": {"enabled": true, "resourceId": "kbs://x"}}})),
            "spec.predictor.confidential.resourceId: Invalid value: \"kbs://x\": must be in the format",
        ),
        (
            predictor(json!({"minReplicas": -1})),
            "'MinReplicas' cannot be less than 0",
        ),
        (
            predictor(json!({"maxReplicas": -1})),
            "'MaxReplicas' cannot be less than 0",
        ),
        (
            predictor(json!({"minReplicas": 3, "maxReplicas": 2})),
            "'MinReplicas' cannot be greater than MaxReplicas",
        ),
        (
            json!({"transformer": {"containers": [{"image": "t"}], "containerConcurrency": -1}}),
            "parallelism cannot be less than 0",
        ),
        (predictor(json!({"logger": {"url": "http://l"}})), "invalid logger type"),
        (
            predictor(json!({"logger": {"mode": "all", "storage": {"path": "/l"}}})),
            "invalid logger storage configuration",
        ),
        (json!({"canary": [canary(json!({}), 10)]}), "predictor.name is required"),
        (
            json!({"canary": [canary(json!({"name": "a"}), 60), canary(json!({"name": "b"}), 60)]}),
            "sum of canary trafficPercent values must be <= 100",
        ),
        // Of the schema.
        (predictor(json!({"scaleMetric": "qps"})), "Unsupported value: \"qps\""),
        (predictor(json!({"storageUris": []})), "should have at least 1 items"),
    ];
    for (spec, text) in refused {
        check(&services, spec, Err(text)).await;
    }
    let accepted = [
        json!({}),
        predictor(json!({"model": {"name": ""}})),
        predictor(json!({"model": null, "containers": [{"name": "a"}, {"name": "b"}]})),
        predictor(json!({"containers": [{"name": "beside"}]})),
        predictor(json!({"minReplicas": 3, "maxReplicas": 0})),
        predictor(json!({"minReplicas": 0, "maxReplicas": 1})),
        json!({"explainer": {"art": {"type": "SquareAttack"}}}),
        predictor(json!({"logger": {"mode": "all"}})),
        json!({"canary": [canary(json!({"name": "a"}), 40), canary(json!({"name": "b"}), 60)]}),
    ];
    for spec in accepted {
        check(&services, spec, Ok(())).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_predictor_is_renamed_together_with_its_model() {
    let (_, scope, client) = prepare("renamed").await;
    let services = services_of(&client, &scope);
    let blue = service("m", &json!({"predictor": {"name": "blue"}}));
    services.create(&PostParams::default(), &blue).await.expect("created");
    let renamed = async |model: Value| {
        let patch = json!({"spec": {"predictor": {"name": "green", "model": model}}});
        let answer = services
            .patch("m", &PatchParams::default(), &Patch::Merge(&patch))
            .await;
        answer.map(|_| ()).map_err(|error| error.to_string())
    };
    let refused = renamed(json!({})).await.expect_err("the model is the same");
    assert!(
        refused.contains("predictor.name change requires a model change (e.g. storageUri)"),
        "{refused}"
    );
    assert_eq!(renamed(json!({"storageUri": "s3://models/other"})).await, Ok(()));
}

/// The definition as it is installed.
fn definition() -> Value {
    let file = kustomization("base/crds").join("serving.kserve.io_inferenceservices.yaml");
    let text = std::fs::read_to_string(&file).expect("deploy/ has the definitions");
    serde_saphyr::from_str(&text).expect("it is YAML")
}

/// Removes the rules from a definition.
fn without_rules(node: &mut Value) {
    match node {
        Value::Object(fields) => {
            fields.remove("x-kubernetes-validations");
            fields.values_mut().for_each(without_rules);
        }
        Value::Array(items) => items.iter_mut().for_each(without_rules),
        _ => {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_broke_rules_before_they_came_still_gets_its_status() {
    // A control plane of its own: the definitions of the shared one stay as they are.
    let plane = ControlPlane::start(Options::bare()).await.expect("a control plane");
    let definition = definition();
    let mut before = definition.clone();
    without_rules(&mut before);
    plane.apply_yaml(&before.to_string()).await.expect("applied");
    let client = plane.client().await.expect("a client");
    let services = services::api(client, "default");
    let bad = service(
        "1bad",
        &json!({"predictor": {"minReplicas": 3, "maxReplicas": 2, "sklearn": {}}}),
    );
    eventually("the service is created", DEADLINE, async || {
        let created = services.create(&PostParams::default(), &bad).await;
        created.map(|_| ()).map_err(|error| error.to_string())
    })
    .await;
    plane.apply_yaml(&definition.to_string()).await.expect("applied");
    // The API server takes a moment to look at the new definition.
    eventually("the rules are in force", DEADLINE, async || {
        match answer(&services, &service("2bad", &json!({}))).await {
            Err(_) => Ok(()),
            Ok(()) => Err("a bad name is accepted".to_owned()),
        }
    })
    .await;
    let parameters = PatchParams::default();
    let status = json!({"status": {"url": "http://bad"}});
    services
        .patch_status("1bad", &parameters, &Patch::Merge(&status))
        .await
        .expect("the status is written");
    let label = json!({"metadata": {"labels": {"a": "b"}}});
    services
        .patch("1bad", &parameters, &Patch::Merge(&label))
        .await
        .expect("labels are written");
    let change = json!({"spec": {"predictor": {"timeout": 4}}});
    let refused = services.patch("1bad", &parameters, &Patch::Merge(&change)).await;
    let refused = refused.expect_err("what is changed must keep the rules").to_string();
    assert!(
        refused.contains("'MinReplicas' cannot be greater than MaxReplicas"),
        "{refused}"
    );
    plane.stop().await.expect("stopped");
}
