//! Decisions that depend on what is live: stopping, ways from outside that outlive what they lead to, refusals.

use isvc_core::{
    api::{ConditionStatus, InferenceService, OwnerReference},
    decide::{Decision, decide},
    desired::{ChildKind, DesiredState},
    manifests::Manifests,
    observed::{DeploymentCondition, Live, LiveDeployment, LiveObject, LiveRoute, StorageInjection},
    report::{Applied, Refusal, report},
};
use serde_json::{Value, json};

const NOW: &str = "2026-01-01T00:00:00Z";

fn runtime() -> Value {
    json!({
        "apiVersion": "serving.kserve.io/v1alpha1", "kind": "ClusterServingRuntime", "metadata": {"name": "r"},
        "spec": {"supportedModelFormats": [{"name": "sklearn", "autoSelect": true}], "protocolVersions": ["v1"],
            "containers": [{"name": "kserve-container", "image": "server:1"}]},
    })
}

fn service(annotations: &Value, more: &Value) -> Value {
    let mut spec = json!({"predictor": {"model": {"modelFormat": {"name": "sklearn"}, "storageUri": "pvc://c"}}});
    for (field, value) in more.as_object().expect("a map") {
        spec[field] = value.clone();
    }
    json!({
        "apiVersion": "serving.kserve.io/v1beta1", "kind": "InferenceService",
        "metadata": {"name": "m", "namespace": "n", "uid": "u", "annotations": annotations},
        "spec": spec,
    })
}

fn gateway() -> Value {
    let ingress =
        json!({"enableGatewayApi": true, "kserveIngressGateway": "edge/front", "ingressDomain": "models.test"});
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "inferenceservice-config", "namespace": "kserve"},
        "data": {"ingress": ingress.to_string(), "deploy": r#"{"defaultDeploymentMode": "Standard"}"#}})
}

fn object(name: &str) -> LiveObject {
    LiveObject {
        name: name.to_owned(),
        uid: format!("uid-{name}"),
        controller: Some(OwnerReference {
            uid: "u".to_owned(),
            controller: true,
            ..OwnerReference::default()
        }),
        ..LiveObject::default()
    }
}

fn deployment(name: &str, available: &str) -> LiveDeployment {
    LiveDeployment {
        object: object(name),
        observed_generation: 1,
        conditions: vec![DeploymentCondition {
            type_: "Available".to_owned(),
            status: available.to_owned(),
            ..DeploymentCondition::default()
        }],
        owned_replicas: None,
    }
}

/// Decides about the one service of these documents, with what is live; also with its status.
fn decided(documents: impl IntoIterator<Item = Value>, live: Live) -> (isvc_core::observed::Observed, Decision) {
    let mut manifests = Manifests::new("kserve", "n", StorageInjection::Deployment);
    for document in documents {
        manifests.add(document).expect("a usable document");
    }
    let service: InferenceService = manifests.services().next().expect("one service").clone();
    let observed = manifests.observe(service, live);
    let decision = decide(&observed);
    (observed, decision)
}

fn desired(decision: &Decision) -> &DesiredState {
    decision.desired().expect("something is to be done")
}

#[test]
fn stopping_needs_no_runtime_and_no_valid_specification() {
    let stopped = json!({"serving.kserve.io/stop": "true"});
    for more in [
        json!({}),
        json!({"predictor": {"minReplicas": -1, "model": {"name": "x"}}}),
    ] {
        let live = Live {
            deployments: vec![deployment("m-predictor", "True")],
            ..Live::default()
        };
        let (observed, decision) = decided([service(&stopped, &more)], live);
        assert!(matches!(decision, Decision::Stop { .. }), "{decision:?}");
        assert_eq!(*desired(&decision), DesiredState::default());
        let report = report(&observed, &decision, &Applied::default(), NOW).expect("a status");
        assert!(report.status.is_true("Stopped"));
    }
}

#[test]
fn what_a_kept_ingress_leads_to_is_kept() {
    // The predictor was renamed: its new Deployment does not serve yet, and requests still come to the old one.
    let renamed =
        json!({"predictor": {"name": "v2", "model": {"modelFormat": {"name": "sklearn"}, "storageUri": "pvc://c"}}});
    let live = |ready: &str| Live {
        deployments: vec![deployment("m-predictor", "True"), deployment("m-v2-predictor", ready)],
        services: vec![object("m-predictor")],
        horizontal_pod_autoscalers: vec![object("m-predictor")],
        ingresses: vec![object("m")],
        ..Live::default()
    };
    let (_, decision) = decided([runtime(), service(&json!({}), &renamed)], live("False"));
    let desired_now = desired(&decision);
    assert!(desired_now.deployments.kept.contains(&"m-predictor".to_owned()));
    assert!(desired_now.services.kept.contains(&"m-predictor".to_owned()));
    assert!(
        desired_now
            .horizontal_pod_autoscalers
            .kept
            .contains(&"m-predictor".to_owned())
    );
    let (_, decision) = decided([runtime(), service(&json!({}), &renamed)], live("True"));
    assert!(
        desired(&decision).deployments.kept.is_empty(),
        "the Ingress leads elsewhere now"
    );
}

#[test]
fn the_old_way_stays_until_the_new_one_is_open() {
    let live = |accepted: bool| Live {
        deployments: vec![deployment("m-predictor", "True")],
        ingresses: vec![object("m")],
        http_routes: ["m-predictor", "m"]
            .map(|name| LiveRoute {
                object: object(name),
                has_parents: accepted,
                refused: None,
            })
            .into(),
        ..Live::default()
    };
    let all = || [runtime(), gateway(), service(&json!({}), &json!({}))];
    let (_, decision) = decided(all(), live(false));
    assert_eq!(desired(&decision).ingresses.kept, ["m"]);
    let (_, decision) = decided(all(), live(true));
    assert!(desired(&decision).ingresses.kept.is_empty());

    // Back again: routes stay until there is an Ingress.
    let back = || [runtime(), service(&json!({}), &json!({}))];
    let mut without = live(true);
    without.ingresses.clear();
    let (_, decision) = decided(back(), without);
    assert_eq!(desired(&decision).http_routes.kept, ["m-predictor", "m"]);
    let (_, decision) = decided(back(), live(true));
    assert!(desired(&decision).http_routes.kept.is_empty());

    // What becomes cluster-local is closed at once.
    let mut local = service(&json!({}), &json!({}));
    local["metadata"]["labels"] = json!({"networking.kserve.io/visibility": "cluster-local"});
    let (_, decision) = decided([runtime(), gateway(), local], live(true));
    assert!(desired(&decision).http_routes.kept.is_empty() && desired(&decision).ingresses.kept.is_empty());
}

#[test]
fn replicas_are_handed_over_to_an_autoscaler() {
    let replicas = |owned: Option<i32>, class: &str| {
        let mut predictor = deployment("m-predictor", "True");
        predictor.owned_replicas = owned;
        let live = Live {
            deployments: vec![predictor],
            ..Live::default()
        };
        let annotations = json!({"serving.kserve.io/autoscalerClass": class});
        let least = json!({"predictor": {"minReplicas": 5, "model": {"modelFormat": {"name": "sklearn"}}}});
        let (_, decision) = decided([runtime(), service(&annotations, &least)], live);
        desired(&decision).deployments.objects[0].spec["replicas"].as_i64()
    };
    assert_eq!(replicas(Some(3), "none"), Some(5));
    assert_eq!(replicas(Some(5), "hpa"), Some(5), "dropped, it would fall back to 1");
    assert_eq!(replicas(None, "hpa"), None, "the autoscaler has it");
}

#[test]
fn a_refused_canary_is_told_and_the_predictor_goes_on() {
    let canary = json!({"canary": [{"trafficPercent": 20, "predictor": {"name": "c"}}]});
    let live = Live {
        deployments: vec![deployment("m-predictor", "True")],
        ..Live::default()
    };
    let (observed, decision) = decided([runtime(), gateway(), service(&json!({}), &canary)], live);
    let refusal = |kind, name: &str| Refusal {
        kind,
        name: name.to_owned(),
        message: "policy".to_owned(),
    };
    let refused = |refused| {
        report(&observed, &decision, &Applied { refused }, NOW)
            .expect("a status")
            .status
    };
    let status = refused(vec![refusal(ChildKind::Deployment, "m-c-predictor")]);
    let find = |type_: &str| status.condition(type_).expect("the condition");
    assert_eq!(find("CanaryPredictorReady").status, ConditionStatus::False);
    assert!(find("CanaryPredictorReady").message.contains("policy"));
    assert!(status.is_true("PredictorReady"));
    assert!(!status.is_true("IngressReady"), "there is no route yet");
    let status = refused(vec![
        refusal(ChildKind::Deployment, "m-c-predictor"),
        refusal(ChildKind::HttpRoute, "m"),
    ]);
    assert!(
        status.condition("IngressReady").expect("it").message.contains("policy"),
        "each is told"
    );
}

#[test]
fn a_canary_that_gets_no_requests_takes_no_replicas_over() {
    let spec = |transformer: bool| {
        let mut spec = json!({
            "predictor": {"minReplicas": 4, "model": {"modelFormat": {"name": "sklearn"}, "storageUri": "pvc://c"}},
            "canary": [{"trafficPercent": 50, "predictor": {"name": "c"}}],
        });
        if transformer {
            spec["transformer"] = json!({"containers": [{"image": "t:1"}]});
        }
        spec
    };
    let least = |spec: &Value, gateway: Option<Value>| {
        let live = Live {
            deployments: vec![deployment("m-predictor", "True"), deployment("m-c-predictor", "True")],
            ..Live::default()
        };
        let documents = gateway.into_iter().chain([runtime(), service(&json!({}), spec)]);
        let (_, decision) = decided(documents, live);
        let scalers = &desired(&decision).horizontal_pod_autoscalers.objects;
        let predictor = scalers.iter().find(|scaler| scaler.name == "m-predictor").expect("one");
        predictor.spec["minReplicas"].as_i64()
    };
    assert_eq!(least(&spec(false), Some(gateway())), Some(2));
    assert_eq!(least(&spec(false), None), Some(4), "an Ingress does not split");
    assert_eq!(
        least(&spec(true), Some(gateway())),
        Some(4),
        "a transformer asks the predictor itself"
    );
}

#[test]
fn a_service_that_runs_again_is_not_stopped_whatever_else_is_wrong() {
    let mut service = service(&json!({}), &json!({}));
    service["status"] = json!({"deploymentMode": "Standard", "modelStatus": {"transitionStatus": ""},
        "conditions": [{"type": "Stopped", "status": "True", "severity": "Info"}]});
    let (observed, decision) = decided([service], Live::default());
    assert!(matches!(decision, Decision::Reject(_)));
    let report = report(&observed, &decision, &Applied::default(), NOW).expect("a status");
    assert!(!report.status.is_true("Stopped"));
}
