//! Tests of whole passes against an API server in memory, with faults at every call. They assert state, never order.

mod kinds;
mod server;

use std::{sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube_secret_access::{FnAccess, ReadError, SecretRef};
use serde_json::{Value, json};

use self::server::{Fault, Server};
use crate::{
    apply::Applier,
    ca_bundle::CaBundleSource,
    coexistence::{Coexistence, Running},
    events::Events,
    health::Health,
    key::ObjectKey,
    observability::metrics::Metrics,
    observe::{Caches, Observer},
    platform::Platform,
    reconcile::{Outcome, PutOff, Reconciler},
    references::References,
    report::Reporter,
    service_accounts::ServiceAccounts,
    stored::{
        Stored, Wire,
        child::{ChildType, StoredChild},
    },
};

const SERVICE: &str = "/apis/serving.kserve.io/v1beta1/namespaces/ns/inferenceservices/iris";
const DEPLOYMENT: &str = "/apis/apps/v1/namespaces/ns/deployments/iris-predictor";

/// A reconciler, the API server it talks to, and watches that catch up when they are told to.
struct World {
    server: Arc<Server>,
    reconciler: Reconciler,
    _health: Arc<Health>,
}

impl World {
    fn new() -> Self {
        let server = Arc::new(Server::default());
        server.create(
            "/apis/serving.kserve.io/v1alpha1/clusterservingruntimes/sklearn",
            json!({"spec": {
                "supportedModelFormats": [{"name": "sklearn", "version": "1", "autoSelect": true}],
                "protocolVersions": ["v1"],
                "containers": [{"name": "kserve-container", "image": "server:1", "args": ["--model_dir=/mnt/models"]}],
            }}),
        );
        server.create("/api/v1/namespaces/ns/serviceaccounts/default", json!({}));
        server.create(
            SERVICE,
            json!({"spec": {"predictor": {"model": {
                "modelFormat": {"name": "sklearn"}, "storageUri": "gs://bucket/model",
            }}}}),
        );
        let client = server.client();
        let (metrics, health) = (Arc::new(Metrics::new()), Arc::new(Health::new()));
        let (events, send) = Events::new(client.clone(), Arc::clone(&metrics));
        tokio::spawn(send);
        let nowhere = ObjectReference::default();
        let platform = Platform::new(
            events.clone(),
            Arc::clone(&metrics),
            Arc::clone(&health),
            "kserve".to_owned(),
            nowhere,
        );
        platform.apply(None);
        let world = Self {
            reconciler: reconciler(client, platform, events, metrics),
            server,
            _health: health,
        };
        world.catch_up();
        world
    }

    /// The watches show everything there is.
    fn catch_up(&self) {
        let caches = &self.reconciler.observer.caches;
        self.relist(&caches.inference_services);
        self.relist(&caches.services);
        self.relist(&caches.deployments);
        self.relist(&caches.autoscalers);
        self.relist(&caches.scaled_objects);
        self.relist(&caches.ingresses);
        self.relist(&caches.http_routes);
        self.relist(&caches.ca_bundles);
        self.relist(&caches.cluster_runtimes);
    }

    fn relist<T: Stored>(&self, cache: &crate::cache::Cache<T>) {
        let relist = cache.begin(None);
        for object in self.server.list(T::PLURAL) {
            let wire: Wire<T> = serde_json::from_str(&object.to_string()).expect("an object of the kind");
            cache.listed(&relist, wire.object);
        }
        cache.finish(&relist);
    }

    async fn pass(&self) -> Result<Outcome, String> {
        let key = ObjectKey::new("ns", "iris");
        self.reconciler.pass(&key).await.map_err(|error| error.to_string())
    }

    /// Passes as the controller would run them: again after a failure or a write, until nothing is left to write. The
    /// watches catch up only in the end, and that changes nothing.
    async fn converge(&self) {
        self.settle().await;
        self.catch_up();
        self.settle().await;
    }

    async fn settle(&self) {
        for _ in 0..10 {
            match self.pass().await {
                Ok(Outcome::Settled) => return,
                Ok(Outcome::Unreported(delay)) => tokio::time::sleep(delay).await,
                _ => {}
            }
        }
        panic!("it does not settle in ten passes");
    }

    /// Everything that was made, without what differs from run to run.
    fn made(&self) -> Value {
        let mut objects = self.server.objects();
        for object in objects.values_mut() {
            let metadata = object["metadata"].as_object_mut().expect("objects have metadata");
            metadata.retain(|key, _| matches!(key.as_str(), "name" | "labels" | "annotations"));
            for condition in object["status"]["conditions"].as_array_mut().into_iter().flatten() {
                condition["lastTransitionTime"].take();
            }
        }
        json!(objects)
    }
}

fn reconciler(client: Client, platform: Platform, events: Events, metrics: Arc<Metrics>) -> Reconciler {
    let caches = Caches::default();
    let reporter = Reporter {
        client: client.clone(),
        cache: Arc::clone(&caches.inference_services),
        events,
        metrics: Arc::clone(&metrics),
        told: crate::told::Told::default(),
    };
    let secrets = FnAccess::new(|secret: &SecretRef| Err(ReadError::NotFound { secret: secret.clone() }));
    let accounts = Arc::new(ServiceAccounts::new(
        client.clone(),
        Duration::ZERO,
        Arc::clone(&metrics.accounts),
    ));
    let observer = Observer {
        caches,
        secrets: Arc::new(secrets),
        references: References::new(None, Arc::clone(&accounts)),
        accounts,
        ca_bundle: Arc::new(CaBundleSource::new("kserve".into(), Duration::from_secs(10))),
        injection: Arc::default(),
        cluster_domain: "cluster.local".into(),
        platform_namespace: "kserve".into(),
    };
    let coexistence = Arc::new(Coexistence::new("kserve".into(), metrics.coexistence.clone()));
    coexistence.is(Running::No);
    let applier = Applier::new(client, metrics);
    Reconciler {
        platform: Arc::new(platform),
        observer,
        applier,
        reporter,
        coexistence,
        put_off: PutOff::default(),
    }
}

#[tokio::test(start_paused = true)]
async fn a_second_pass_writes_nothing() {
    let world = World::new();
    world.converge().await;
    let made = world.server.objects();
    assert!(made.contains_key(DEPLOYMENT), "made: {:?}", made.keys());
    assert!(made[SERVICE]["status"]["conditions"].is_array());
    let before = world.server.writes();
    for _ in 0..3 {
        assert_eq!(world.pass().await, Ok(Outcome::Settled));
        world.catch_up();
    }
    assert_eq!(world.server.writes(), before);
}

#[tokio::test(start_paused = true)]
async fn the_first_status_waits_a_little_for_the_controller_of_deployments() {
    let world = World::new();
    let waits = |outcome| matches!(outcome, Ok(Outcome::Unreported(_)));
    assert!(waits(world.pass().await));
    assert!(waits(world.pass().await), "nothing has happened yet");
    assert!(world.server.objects()[SERVICE]["status"].is_null());
    world.server.patch(DEPLOYMENT, |deployment| {
        deployment["status"] = json!({"observedGeneration": 1});
    });
    world.catch_up();
    assert_eq!(world.pass().await, Ok(Outcome::Written));
    assert!(world.server.objects()[SERVICE]["status"]["conditions"].is_array());

    let world = World::new();
    let Ok(Outcome::Unreported(delay)) = world.pass().await else {
        panic!("it is built, and that is all there is to say");
    };
    tokio::time::sleep(delay).await;
    assert_eq!(world.pass().await, Ok(Outcome::Written), "it does not wait for ever");
}

#[tokio::test(start_paused = true)]
async fn every_call_may_fail_and_the_end_is_the_same() {
    let expected = World::new();
    expected.converge().await;
    let calls = expected.server.calls();
    assert!(calls > 5, "a first pass takes some calls, not {calls}");
    for call in 0..calls {
        for fault in [
            Fault::Answer(401),
            Fault::Answer(409),
            Fault::Answer(429),
            Fault::Answer(500),
            Fault::Answer(503),
            Fault::Reset,
            Fault::AnswerLost,
            Fault::Garbage,
        ] {
            let world = World::new();
            world.server.fail(call, fault);
            world.converge().await;
            assert_eq!(world.made(), expected.made(), "call {call}, {fault:?}");
            assert_eq!(world.server.deletes(), 0, "call {call}, {fault:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_another_controller_serves_is_left_alone_and_said_so() {
    let world = World::new();
    let served = |world: &World| world.server.objects()[SERVICE]["status"]["conditions"].clone();
    let of_ours = |conditions: &Value| {
        let mut all = conditions.as_array().cloned().unwrap_or_default();
        all.retain(|condition| condition["type"] == "ServedByLeanserve");
        all
    };
    // As KServe's controller begins: a finalizer first, a status later.
    world.reconciler.coexistence.is(Running::Yes);
    world.server.patch(SERVICE, |service| {
        service["metadata"]["finalizers"] = json!(["inferenceservice.finalizers"]);
    });
    world.catch_up();
    assert_eq!(world.pass().await, Ok(Outcome::Settled));
    assert_eq!(world.server.writes(), 0, "the first status is its own");
    let ready = json!({"type": "Ready", "status": "Unknown", "lastTransitionTime": "2026-01-01T00:00:00Z"});
    world.server.patch(SERVICE, |service| {
        service["status"] = json!({"conditions": [ready], "fieldOfTheirs": 1});
    });
    world.catch_up();
    assert_eq!(world.pass().await, Ok(Outcome::Written));
    let said = of_ours(&served(&world));
    assert_eq!(said.len(), 1, "{said:?}");
    assert_eq!(
        (&said[0]["status"], &said[0]["severity"]),
        (&json!("False"), &json!("Info"))
    );
    assert!(
        said[0]["message"]
            .as_str()
            .is_some_and(|text| text.contains("docs/migration.md"))
    );
    assert_eq!(served(&world)[0], ready, "the rest is as it was");
    assert_eq!(world.server.objects()[SERVICE]["status"]["fieldOfTheirs"], 1);
    let writes = world.server.writes();
    for _ in 0..3 {
        world.catch_up();
        assert_eq!(world.pass().await, Ok(Outcome::Settled));
    }
    assert_eq!((world.server.writes(), writes), (1, 1), "it is said once");
    assert!(!world.server.objects().contains_key(DEPLOYMENT));

    // Deleted meanwhile, it is for its own controller to let go.
    let before = world.server.objects()[SERVICE].clone();
    world.server.patch(SERVICE, |service| {
        service["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:01Z");
    });
    world.catch_up();
    assert_eq!(world.pass().await, Ok(Outcome::Settled));
    assert_eq!(world.server.writes(), writes);
    world.server.patch(SERVICE, |service| *service = before);
    world.catch_up();

    world.reconciler.coexistence.is(Running::No);
    world.converge().await;
    assert!(world.server.objects().contains_key(DEPLOYMENT), "served now");
    assert!(of_ours(&served(&world)).is_empty());
}

#[tokio::test(start_paused = true)]
async fn nothing_is_touched_until_it_is_known_whether_another_controller_runs() {
    let world = World::new();
    world.reconciler.coexistence.is(Running::Unknown);
    world.server.patch(SERVICE, |service| {
        service["metadata"]["finalizers"] = json!(["inferenceservice.finalizers"]);
    });
    world.catch_up();
    for _ in 0..3 {
        assert_eq!(world.pass().await, Ok(Outcome::Settled));
        tokio::time::sleep(Duration::from_secs(3600)).await;
    }
    assert_eq!(
        world.server.calls(),
        0,
        "marked, it is left alone for as long as it takes"
    );
    world.server.patch(SERVICE, |service| {
        service["metadata"]["finalizers"] = json!([]);
    });
    world.catch_up();
    let Ok(Outcome::Unreported(delay)) = world.pass().await else {
        panic!("a new service may yet be marked")
    };
    assert_eq!(world.server.calls(), 0);
    tokio::time::sleep(delay).await;
    world.converge().await;
    assert!(
        world.server.objects().contains_key(DEPLOYMENT),
        "the other has not marked it"
    );
}

#[tokio::test(start_paused = true)]
async fn a_foreign_object_is_left_alone_and_named() {
    let world = World::new();
    let foreign = world.server.create(DEPLOYMENT, json!({"spec": {"replicas": 7}}));
    world.catch_up();
    assert_eq!(world.pass().await, Ok(Outcome::Written), "a Service and the status");
    assert_eq!(world.pass().await, Ok(Outcome::Waiting));
    assert_eq!(world.server.objects()[DEPLOYMENT], foreign);
    let writes = world.server.writes();
    assert_eq!(world.pass().await, Ok(Outcome::Waiting));
    assert_eq!(world.server.writes(), writes, "waiting for it to go takes no write");
    let status = world.server.objects()[SERVICE]["status"].to_string();
    assert!(status.contains("iris-predictor exists and does not belong"), "{status}");
    world.server.remove(DEPLOYMENT);
    world.converge().await;
    assert!(world.server.objects().contains_key(DEPLOYMENT));
}

#[tokio::test(start_paused = true)]
async fn a_refused_child_is_told_in_the_status_and_not_retried_at_once() {
    let schema = Fault::Message(500, "failed to create typed patch object (x): duplicate entries");
    for fault in [Fault::Answer(403), Fault::Answer(422), schema] {
        let world = World::new();
        world.server.fail_always("PATCH", DEPLOYMENT, fault);
        assert_eq!(world.pass().await, Ok(Outcome::Written), "{fault:?}");
        assert_eq!(world.pass().await, Ok(Outcome::Waiting), "{fault:?}");
        let status = world.server.objects()[SERVICE]["status"].to_string();
        assert!(status.contains("fails to reconcile predictor"), "{status}");
        assert!(!world.server.objects().contains_key(DEPLOYMENT));
    }
}

#[tokio::test(start_paused = true)]
async fn a_child_of_ours_recreated_by_somebody_else_is_not_overwritten() {
    let world = World::new();
    world.converge().await;
    // The watch has not seen yet that our Deployment was deleted and another one made in its place.
    world.server.remove(DEPLOYMENT);
    let foreign = world.server.create(DEPLOYMENT, json!({"spec": {"replicas": 7}}));
    world.server.patch(SERVICE, |service| {
        service["spec"]["predictor"]["model"]["storageUri"] = json!("gs://bucket/other");
    });
    let caches = &world.reconciler.observer.caches;
    world.relist(&caches.inference_services);
    assert!(world.pass().await.is_err());
    assert_eq!(world.server.objects()[DEPLOYMENT], foreign);
}

#[tokio::test(start_paused = true)]
async fn a_stale_service_never_overwrites_a_newer_status() {
    let world = World::new();
    world.server.patch(SERVICE, |service| {
        service["metadata"]["labels"] = json!({"changed": "meanwhile"});
    });
    assert!(matches!(world.pass().await, Ok(Outcome::Unreported(_))));
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(world.pass().await.is_err_and(|error| error.contains("conflict")));
    // The conflict has made it read the service anew: no watch is needed to get on.
    assert!(world.pass().await.is_ok());
    assert!(world.server.objects()[SERVICE]["status"]["conditions"].is_array());
    assert_eq!(
        world.server.objects()[SERVICE]["metadata"]["labels"]["changed"],
        "meanwhile"
    );
}

#[tokio::test(start_paused = true)]
async fn only_the_one_finalizer_is_removed_from_a_service_being_deleted() {
    let world = World::new();
    world.converge().await;
    world.server.patch(SERVICE, |service| {
        service["metadata"]["finalizers"] = json!(["a", "inferenceservice.finalizers", "b"]);
        service["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    });
    world.catch_up();
    let before = world.server.objects();
    assert_eq!(world.pass().await, Ok(Outcome::Settled));
    assert_eq!(
        world.server.objects()[SERVICE]["metadata"]["finalizers"],
        json!(["a", "b"])
    );
    assert_eq!(world.server.objects()[DEPLOYMENT], before[DEPLOYMENT]);
}

#[tokio::test(start_paused = true)]
async fn a_service_of_another_mode_is_not_touched() {
    let world = World::new();
    world.server.patch(SERVICE, |service| {
        service["metadata"]["annotations"] = json!({"serving.kserve.io/deploymentMode": "Knative"});
        service["metadata"]["finalizers"] = json!(["inferenceservice.finalizers"]);
        service["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    });
    world.catch_up();
    assert_eq!(world.pass().await, Ok(Outcome::Settled));
    world.server.patch(SERVICE, |service| {
        service["metadata"]["deletionTimestamp"] = Value::Null;
    });
    world.catch_up();
    assert_eq!(world.pass().await, Ok(Outcome::Settled));
    assert_eq!(world.server.writes(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_child_nobody_wants_any_more_is_deleted() {
    let world = World::new();
    world.converge().await;
    let autoscaler = "/apis/autoscaling/v2/namespaces/ns/horizontalpodautoscalers/iris-predictor";
    assert!(world.server.objects().contains_key(autoscaler));
    world.server.patch(SERVICE, |service| {
        service["metadata"]["annotations"] = json!({"serving.kserve.io/autoscalerClass": "none"});
    });
    world.catch_up();
    world.converge().await;
    assert!(!world.server.objects().contains_key(autoscaler));
    assert!(world.server.objects().contains_key(DEPLOYMENT));
}

#[test]
fn the_kinds_that_are_applied_are_those_that_are_watched() {
    fn url<K: ChildType>() -> String {
        <Wire<StoredChild<K>> as kube::Resource>::url_path(&(), Some("ns"))
    }
    use crate::stored::child::{Autoscalers, Deployments, HttpRoutes, Ingresses, ScaledObjects, Services};
    assert_eq!(url::<Services>(), "/api/v1/namespaces/ns/services");
    assert_eq!(url::<Deployments>(), "/apis/apps/v1/namespaces/ns/deployments");
    assert_eq!(
        url::<Autoscalers>(),
        "/apis/autoscaling/v2/namespaces/ns/horizontalpodautoscalers"
    );
    assert_eq!(url::<Ingresses>(), "/apis/networking.k8s.io/v1/namespaces/ns/ingresses");
    assert_eq!(
        url::<HttpRoutes>(),
        "/apis/gateway.networking.k8s.io/v1/namespaces/ns/httproutes"
    );
    assert_eq!(
        url::<ScaledObjects>(),
        "/apis/keda.sh/v1alpha1/namespaces/ns/scaledobjects"
    );
}
