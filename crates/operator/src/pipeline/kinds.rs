//! Kinds that not every service has, or not every cluster.

use std::collections::BTreeMap;

use isvc_core::{
    decide::{Decision, decide},
    desired::{CaBundle, ChildKind, DesiredState},
    observed::StorageInjection,
};
use serde_json::{Value, json};

use super::{DEPLOYMENT, SERVICE, World, server::Fault};
use crate::{apply::Outcome, reconcile};

const ROUTE: &str = "/apis/gateway.networking.k8s.io/v1/namespaces/ns/httproutes/iris";
const SCALED_OBJECT: &str = "/apis/keda.sh/v1alpha1/namespaces/ns/scaledobjects/iris-predictor";
const AUTOSCALER: &str = "/apis/autoscaling/v2/namespaces/ns/horizontalpodautoscalers/iris-predictor";
const COPY: &str = "/api/v1/namespaces/ns/configmaps/global-ca-bundle";

impl World {
    fn settings(&self, data: &[(&str, Value)]) {
        let data: BTreeMap<_, _> = data
            .iter()
            .map(|(key, value)| ((*key).to_owned(), value.to_string()))
            .collect();
        assert!(self.reconciler.platform.apply(Some(&data)), "they are good, and new");
    }

    fn annotate(&self, annotations: Value) {
        self.server.patch(SERVICE, |service| {
            service["metadata"]["annotations"] = annotations;
        });
        self.catch_up();
    }

    /// The Deployment's controller has done its work.
    fn deployment_is_ready(&self) {
        self.server.patch(DEPLOYMENT, |deployment| {
            deployment["status"] = json!({"observedGeneration": 1, "conditions": [
                {"type": "Available", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"},
            ]});
        });
        self.catch_up();
    }

    /// What the core wants for the service now.
    async fn desired(&self) -> DesiredState {
        let key = crate::key::ObjectKey::new("ns", "iris");
        let observer = &self.reconciler.observer;
        let stored = observer.caches.inference_services.find(&key).expect("it is there");
        let settings = self.reconciler.platform.settings().expect("they are in force");
        let facts = observer.observe(stored.parse().expect("valid"), settings).await;
        match decide(&facts.expect("it can be read")) {
            Decision::Build { desired, .. } => *desired,
            other => panic!("{other:?}"),
        }
    }

    async fn outcome(&self, desired: &DesiredState) -> Outcome {
        let key = crate::key::ObjectKey::new("ns", "iris");
        let observer = &self.reconciler.observer;
        let service = observer
            .caches
            .inference_services
            .find(&key)
            .expect("it is there")
            .meta();
        let live = observer.live(&service);
        let applied = self
            .reconciler
            .applier
            .apply(&observer.caches, &service, &live, desired);
        applied.await.expect("nothing fails")
    }

    /// Applies without being refused anything, and says what was written.
    async fn apply(&self, desired: &DesiredState) -> Vec<String> {
        let outcome = self.outcome(desired).await;
        assert!(outcome.applied.refused.is_empty(), "{:?}", outcome.applied.refused);
        outcome.written
    }

    fn condition(&self, type_: &str) -> Value {
        let service = self.server.objects()[SERVICE].clone();
        let conditions = service["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let found = conditions.into_iter().find(|condition| condition["type"] == type_);
        found.unwrap_or_default()
    }
}

fn gateway() -> (&'static str, Value) {
    let ingress = json!({
        "enableGatewayApi": true, "kserveIngressGateway": "kserve/gateway",
        "ingressGateway": "knative-serving/knative-ingress-gateway", "ingressDomain": "example.com",
    });
    ("ingress", ingress)
}

#[tokio::test(start_paused = true)]
async fn routes_come_with_readiness_follow_their_gateway_and_go() {
    let world = World::new();
    world.settings(&[gateway()]);
    world.converge().await;
    assert!(!world.server.objects().contains_key(ROUTE), "nothing is ready yet");
    world.deployment_is_ready();
    world.converge().await;
    let made = world.server.objects();
    assert_eq!(made[ROUTE]["spec"]["parentRefs"][0]["name"], "gateway");
    assert_eq!(world.condition("IngressReady")["reason"], "ParentStatusNotAvailable");

    let answer =
        |status: &str| json!({"parents": [{"conditions": [{"type": "Accepted", "status": status, "reason": "R"}]}]});
    for (status, expected) in [("False", "False"), ("True", "True")] {
        for route in [ROUTE, &format!("{ROUTE}-predictor")] {
            world.server.patch(route, |route| route["status"] = answer(status));
        }
        world.catch_up();
        world.converge().await;
        assert_eq!(world.condition("IngressReady")["status"], expected);
    }

    let writes = world.server.writes();
    assert_eq!(world.pass().await, Ok(reconcile::Outcome::Settled));
    assert_eq!(world.server.writes(), writes, "a steady pass");

    world.annotate(json!({"serving.kserve.io/stop": "true"}));
    world.converge().await;
    let left: Vec<_> = world.server.objects().into_keys().collect();
    assert!(!left.iter().any(|path| path.contains("httproutes")), "{left:?}");
}

#[tokio::test(start_paused = true)]
async fn a_kind_the_cluster_lacks_is_named_and_made_once_it_is_there() {
    let world = World::new();
    world.converge().await;
    let cache = &world.reconciler.observer.caches.scaled_objects;
    let mut wanted = world.desired().await;
    std::mem::swap(&mut wanted.horizontal_pod_autoscalers, &mut wanted.scaled_objects);
    cache.set_served(false);
    let writes = world.server.writes();
    let outcome = world.outcome(&wanted).await;
    let refusal = outcome.applied.refused.first().expect("it is refused");
    assert_eq!(
        (refusal.kind, &*refusal.name),
        (ChildKind::ScaledObject, "iris-predictor")
    );
    assert!(
        refusal.message.contains("scaledobjects.keda.sh is not installed"),
        "{}",
        refusal.message
    );
    assert_eq!(outcome.written, [""; 0], "the autoscaler there is stays");
    assert_eq!(world.outcome(&wanted).await.written, [""; 0]);
    assert_eq!(world.server.writes(), writes, "nothing is sent in vain");

    assert!(cache.set_served(true));
    let switched = [
        "deleted HorizontalPodAutoscaler iris-predictor",
        "created ScaledObject iris-predictor",
    ];
    assert_eq!(world.apply(&wanted).await, switched);
    assert!(world.apply(&wanted).await.is_empty());
    world.catch_up();
    assert!(world.apply(&wanted).await.is_empty());
    let back = [
        "deleted ScaledObject iris-predictor",
        "created HorizontalPodAutoscaler iris-predictor",
    ];
    assert_eq!(world.apply(&world.desired().await).await, back);
    assert!(!world.server.objects().contains_key(SCALED_OBJECT));
    assert!(world.server.objects().contains_key(AUTOSCALER));
}

#[tokio::test(start_paused = true)]
async fn a_kind_that_has_gone_unnoticed_is_named_too() {
    let world = World::new();
    world.converge().await;
    let mut wanted = world.desired().await;
    std::mem::swap(&mut wanted.horizontal_pod_autoscalers, &mut wanted.scaled_objects);
    let gone = Fault::Message(404, "the server could not find the requested resource");
    world.server.fail_always("PATCH", SCALED_OBJECT, gone);
    let refused = world.outcome(&wanted).await.applied.refused.remove(0);
    assert!(
        refused.message.contains("scaledobjects.keda.sh is not installed"),
        "{}",
        refused.message
    );
}

#[tokio::test(start_paused = true)]
async fn a_copy_of_the_certificates_is_made_and_repaired_and_never_deleted() {
    let world = World::new();
    world.converge().await;
    let wanted = DesiredState {
        ca_bundle: Some(CaBundle {
            namespace: "ns".into(),
            certificates: "-----BEGIN CERTIFICATE-----".into(),
        }),
        ..world.desired().await
    };
    assert_eq!(world.apply(&wanted).await, ["updated ConfigMap global-ca-bundle"]);
    assert!(world.server.objects()[COPY]["metadata"]["ownerReferences"].is_null());
    assert!(world.apply(&wanted).await.is_empty());
    world.catch_up();
    assert!(world.apply(&wanted).await.is_empty());
    for deleted in [false, true] {
        if deleted {
            world.server.remove(COPY);
        } else {
            world
                .server
                .patch(COPY, |copy| copy["data"]["cabundle.crt"] = json!("other"));
        }
        world.catch_up();
        assert_eq!(world.apply(&wanted).await.len(), 1, "deleted: {deleted}");
        let copy = world.server.objects()[COPY]["data"]["cabundle.crt"].clone();
        assert_eq!(copy, "-----BEGIN CERTIFICATE-----", "deleted: {deleted}");
    }
    world.catch_up();
    assert!(
        world.apply(&world.desired().await).await.is_empty(),
        "nobody wants it any more"
    );
    assert!(world.server.objects().contains_key(COPY));
}

#[tokio::test(start_paused = true)]
async fn other_certificates_are_seen_and_a_name_the_settings_no_longer_have_is_not() {
    let world = World::new();
    let source = &world.reconciler.observer.ca_bundle;
    let settings = |name: &str| {
        world.settings(&[(
            "storageInitializer",
            json!({"image": "i", "memoryRequest": "1", "memoryLimit": "1", "cpuRequest": "1", "cpuLimit": "1",
                "caBundleConfigMapName": name}),
        )]);
        let settings = world.reconciler.platform.settings().expect("they are in force");
        source.settings(&settings);
        settings
    };
    let first = settings("first");
    assert!(source.read(&first).await.is_err(), "nobody has shown it yet");
    let second = settings("second");
    assert!(
        source.read(&first).await.is_err(),
        "these settings are not in force any more"
    );
    assert!(source.read(&second).await.is_err(), "nor this");
}

#[tokio::test(start_paused = true)]
async fn the_way_of_injection_is_seen_by_the_next_pass() {
    let world = World::new();
    let observed = async || {
        let key = crate::key::ObjectKey::new("ns", "iris");
        let observer = &world.reconciler.observer;
        let stored = observer.caches.inference_services.find(&key).expect("it is there");
        let settings = world.reconciler.platform.settings().expect("built in");
        let service = stored.parse().expect("valid");
        let facts = observer.observe(service, settings).await.expect("it can be read");
        (facts.storage_injection, facts.platform_namespace)
    };
    assert_eq!(observed().await, (StorageInjection::Deployment, "kserve".to_owned()));
    let injection = &world.reconciler.observer.injection;
    assert!(injection.set(StorageInjection::Annotations));
    assert!(!injection.set(StorageInjection::Annotations), "no news");
    assert_eq!(observed().await.0, StorageInjection::Annotations);
}

#[tokio::test(start_paused = true)]
async fn what_a_removed_component_had_is_deleted() {
    let world = World::new();
    world.server.patch(SERVICE, |service| {
        service["spec"]["transformer"] = json!({"containers": [{"name": "kserve-container", "image": "transform:1"}]});
    });
    world.catch_up();
    world.converge().await;
    let of_transformer = || {
        let made = world.server.objects().into_keys();
        made.filter(|path| path.ends_with("/iris-transformer")).count()
    };
    assert_eq!(of_transformer(), 3, "a Deployment, a Service and an autoscaler");
    world.server.patch(SERVICE, |service| {
        service["spec"]["transformer"].take();
    });
    world.catch_up();
    world.converge().await;
    assert_eq!(of_transformer(), 0);
    assert!(world.server.objects().contains_key(DEPLOYMENT));
}

#[tokio::test(start_paused = true)]
async fn a_frozen_service_is_left_alone_while_it_is_ready() {
    let world = World::new();
    world.converge().await;
    world.deployment_is_ready();
    world.converge().await;
    assert_eq!(world.condition("Ready")["status"], "True");
    world.annotate(json!({"serving.kserve.io/disable-auto-update": "true"}));
    world.converge().await;
    let before = world.server.objects()[DEPLOYMENT].clone();
    let runtime = "/apis/serving.kserve.io/v1alpha1/clusterservingruntimes/sklearn";
    world.server.patch(runtime, |runtime| {
        runtime["spec"]["containers"][0]["image"] = json!("server:2");
    });
    world.catch_up();
    world.converge().await;
    assert_eq!(world.server.objects()[DEPLOYMENT], before);
    world.annotate(json!({}));
    world.converge().await;
    assert_ne!(world.server.objects()[DEPLOYMENT], before);
}
