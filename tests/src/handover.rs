//! Beside a running `KServe` controller, and the way from it to leanserve and back without a Pod restart, as
//! `docs/migration.md` has it.

mod kserve;

use std::{
    collections::BTreeMap,
    io::{self, Write},
    time::Duration,
};

use k8s_openapi::api::{
    apps::v1::{Deployment, ReplicaSet},
    autoscaling::v2::HorizontalPodAutoscaler,
    coordination::v1::Lease,
    core::v1::{Event, Pod},
};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams},
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use testkit::{ControlPlane, Operator, assets, audit::AuditEntries, try_eventually};

use self::kserve::Controller;
use crate::{Failure, Installation, Running, installation, load, services, start};

const NAMESPACE: &str = "models";
const LEASE: &str = "kserve-controller-manager-leader-lock";
const CONDITION: &str = "ServedByLeanserve";
const REFUSED: &str = "leanserve_refused_inferenceservices";
/// On a busy machine.
const DEADLINE: Duration = Duration::from_secs(180);
/// How often the other's Lease is renewed while nothing may happen.
const RENEWALS: usize = 10;

/// What must stay as it is: of each Deployment who it is and how often its specification changed, of each `ReplicaSet` and
/// Pod who it is.
type Picture = BTreeMap<String, String>;

/// Goes all the way, with a line of progress for each step.
///
/// # Errors
///
/// At the first step that does not do what it should.
pub async fn run(plane: &ControlPlane) -> Result<(), Failure> {
    let program = tokio::task::spawn_blocking(|| assets::find_or_build_kserve(&mut io::stderr())).await;
    let program = program.map_err(io::Error::other)?.map_err(io::Error::other)?;
    let installation = Installation::with_definitions(plane, kserve::definitions(&program)?).await?;
    let runtimes = installation::kustomization("runtimes");
    let apply = ["apply", "--server-side", "-k", &runtimes.to_string_lossy()];
    plane.kubectl_stdout(&apply).await?;
    let client = load::client(plane).await?;
    load::namespace(&client, NAMESPACE).await?;
    let controller = Controller::install(plane, &program).await?;
    let mut kserve = controller.start()?;
    let result = steps(&installation, &client, &controller, &mut kserve).await;
    result.map_err(|failure| Failure::WithLog {
        source: Box::new(failure),
        log: format!("(KServe's controller)\n{}", end(&kserve.log())),
    })
}

async fn steps(
    installation: &Installation<'_>,
    client: &Client,
    controller: &Controller<'_>,
    kserve: &mut Operator,
) -> Result<(), Failure> {
    let plane = installation.plane;
    logged(kserve, "Starting workers").await?;
    controller.register_webhooks().await?;
    let objects = [
        services::sklearn("iris", NAMESPACE, None),
        services::custom("own", NAMESPACE),
        with_transformer("both"),
    ];
    try_eventually("KServe takes the services", DEADLINE, async || {
        let applied = plane.apply_yaml(&services::list(&objects)).await;
        applied.map_err(|error| error.to_string())
    })
    .await?;
    let all = services::api(client.clone(), NAMESPACE);
    try_eventually("three services are Ready", DEADLINE, async || {
        services::ready(&all, 3).await
    })
    .await?;
    let deployments = Api::<Deployment>::namespaced(client.clone(), NAMESPACE);
    try_eventually("their Pods run", DEADLINE, async || rolled_out(&deployments).await).await?;
    let before = picture(client).await?;
    say("KServe serves three services; leanserve comes beside it")?;

    let mut operator = Running::spawn(installation, &["--leader-elect"])?;
    let result = beside(installation, client, &mut operator, &all).await;
    result.map_err(|failure| failure.with_log(&operator.process.log()))?;
    unchanged("beside each other", &before, &picture(client).await?)?;
    say("leanserve refused all three, by Event, condition and metric, and neither wrote anything further")?;

    let result = over(client, controller, kserve, &operator, &all).await;
    result.map_err(|failure| failure.with_log(&operator.process.log()))?;
    unchanged("handed over to leanserve", &before, &picture(client).await?)?;
    say("leanserve serves all three, with the same Deployments, ReplicaSets and Pods")?;

    let result = serves(client, "leanserve", &all, 3).await;
    result.map_err(|failure| failure.with_log(&operator.process.log()))?;
    a_new_pod_gets_its_model(client).await?;
    let before = picture(client).await?;
    say("a changed service was followed by leanserve, and a new Pod got its model by KServe's webhook")?;

    let (status, killed) = operator.process.terminate(DEADLINE).await?;
    expect(status.success() && !killed, || format!("leanserve ended with {status}"))?;
    park(client, "", 1).await?;
    logged(kserve, "Starting workers").await?;
    serves(client, "KServe", &all, 4).await?;
    unchanged("handed back to KServe", &before, &picture(client).await?)?;
    say("KServe serves all three again, with the same Deployments, ReplicaSets and Pods")
}

/// leanserve beside the other: it says so, and changes nothing else.
async fn beside(
    installation: &Installation<'_>,
    client: &Client,
    operator: &mut Running,
    all: &Api<DynamicObject>,
) -> Result<(), Failure> {
    let audit = installation
        .plane
        .audit()
        .ok_or_else(|| io::Error::other("no audit log"))?;
    let begin = audit.mark().await?;
    start::ready(operator).await?;
    try_eventually("all services are refused", DEADLINE, async || {
        let refused = operator.metric(REFUSED, &[]).await.map_err(|error| error.to_string())?;
        let told = conditions(all).await?;
        let events = events(client).await?;
        if refused > 2.5 && told == ["False"; 3] && events == 3 {
            Ok(())
        } else {
            Err(format!("{refused} refused, conditions {told:?}, {events} Events"))
        }
    })
    .await?;
    let mark = audit.mark().await?;
    let leases: Api<Lease> = Api::namespaced(client.clone(), kserve::NAMESPACE);
    for _ in 0..RENEWALS {
        let version = leases.get(LEASE).await?.resource_version();
        try_eventually("KServe renews its Lease", DEADLINE, async || {
            let now = leases
                .get(LEASE)
                .await
                .map_err(|error| error.to_string())?
                .resource_version();
            if now == version { Err("not yet") } else { Ok(()) }.map_err(str::to_owned)
        })
        .await?;
    }
    let fought = writes(audit.since(&mark).await?);
    expect(fought.is_empty(), || {
        format!("written although nothing has changed: {fought}")
    })?;
    let ours = audit.since(&begin).await?.by_user(installation::USER);
    let ours = writes(ours);
    let others = ours
        .clone()
        .filtered(|entry| entry.subresource != "status" || entry.verb != "patch");
    expect(others.is_empty() && ours.len() >= 3, || {
        format!("leanserve wrote {ours}")
    })?;
    services::ready(all, 3)
        .await
        .map_err(|problem| io::Error::other(format!("not Ready any more: {problem}")).into())
        .map(|_| ())
}

/// From `KServe` to leanserve.
async fn over(
    client: &Client,
    controller: &Controller<'_>,
    kserve: &mut Operator,
    operator: &Running,
    all: &Api<DynamicObject>,
) -> Result<(), Failure> {
    configure(client, json!({"data": {"storageInjection": "annotations"}})).await?;
    try_eventually("models are left to the webhook", DEADLINE, async || {
        let log = operator.process.log();
        log.contains("storage_injection=\"annotations\"")
            .then_some(())
            .ok_or("not said")
    })
    .await?;
    park(client, "handed-over-to-leanserve", 315_360_000).await?;
    let status = try_eventually("KServe's leader gives up", DEADLINE, async || {
        kserve.exited().ok_or("it runs")
    })
    .await?;
    expect(!status.success(), || format!("KServe's controller ended with {status}"))?;
    // Its kubelet would do this: from now on it serves its webhooks and leads nothing.
    *kserve = controller.start()?;
    logged(kserve, "attempting to acquire leader lease").await?;
    try_eventually("leanserve serves all", DEADLINE, async || {
        let refused = operator.metric(REFUSED, &[]).await.map_err(|error| error.to_string())?;
        let labels = ["kind=\"Deployment\"", "verb=\"apply\""];
        let written = operator.metric("leanserve_child_writes_total", &labels).await;
        let written = written.map_err(|error| error.to_string())?;
        let told = conditions(all).await?;
        services::ready(all, 3).await?;
        if refused < 0.5 && written > 3.5 && told.is_empty() {
            Ok(())
        } else {
            Err(format!("{refused} refused, {written} Deployments, conditions {told:?}"))
        }
    })
    .await?;
    let log = kserve.log();
    expect(!log.contains("Starting workers"), || {
        "KServe's controller leads again".to_owned()
    })
}

/// Whoever serves follows a change of a service.
async fn serves(client: &Client, who: &str, all: &Api<DynamicObject>, replicas: i32) -> Result<(), Failure> {
    let change = json!({"spec": {"predictor": {"maxReplicas": replicas}}});
    try_eventually("the service can be changed", DEADLINE, async || {
        let changed = all.patch("own", &PatchParams::default(), &Patch::Merge(&change)).await;
        changed.map(drop).map_err(|error| error.to_string())
    })
    .await?;
    let autoscalers: Api<HorizontalPodAutoscaler> = Api::namespaced(client.clone(), NAMESPACE);
    try_eventually(&format!("{who} follows a change"), DEADLINE, async || {
        let found = autoscalers
            .get("own-predictor")
            .await
            .map_err(|error| error.to_string())?;
        let most = found.spec.map(|spec| spec.max_replicas);
        if most == Some(replicas) {
            Ok(())
        } else {
            Err(format!("{most:?} replicas at most"))
        }
    })
    .await?;
    Ok(())
}

async fn a_new_pod_gets_its_model(client: &Client) -> Result<(), Failure> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), NAMESPACE);
    let of_iris = ListParams::default().labels("serving.kserve.io/inferenceservice=iris");
    let old: Vec<String> = pods.list(&of_iris).await?.iter().map(ResourceExt::name_any).collect();
    for name in &old {
        pods.delete(name, &DeleteParams::default()).await?;
    }
    try_eventually(
        "a new Pod with a container that fetches the model",
        DEADLINE,
        async || {
            let found = pods.list(&of_iris).await.map_err(|error| error.to_string())?;
            let mut new = found.iter().filter(|pod| !old.contains(&pod.name_any()));
            let spec = new.find_map(|pod| pod.spec.clone()).ok_or("no new Pod")?;
            let fetches = spec
                .init_containers
                .iter()
                .flatten()
                .any(|container| container.name == "storage-initializer");
            if fetches { Ok(()) } else { Err("it has none".to_owned()) }
        },
    )
    .await?;
    let deployments = Api::<Deployment>::namespaced(client.clone(), NAMESPACE);
    try_eventually("it runs", DEADLINE, async || rolled_out(&deployments).await).await?;
    Ok(())
}

/// Writes a holder into the Lease of `KServe`'s controller.
async fn park(client: &Client, holder: &str, seconds: i32) -> Result<(), Failure> {
    let leases: Api<Lease> = Api::namespaced(client.clone(), kserve::NAMESPACE);
    let patch = json!({"spec": {"holderIdentity": holder, "leaseDurationSeconds": seconds}});
    leases
        .patch(LEASE, &PatchParams::default(), &Patch::Merge(&patch))
        .await?;
    Ok(())
}

async fn configure(client: &Client, patch: Value) -> Result<(), Failure> {
    let config_maps: Api<k8s_openapi::api::core::v1::ConfigMap> =
        Api::namespaced(client.clone(), installation::NAMESPACE);
    config_maps
        .patch("leanserve-config", &PatchParams::default(), &Patch::Merge(&patch))
        .await?;
    Ok(())
}

/// The statuses of our condition, where services have it.
async fn conditions(all: &Api<DynamicObject>) -> Result<Vec<String>, String> {
    let found = all
        .list(&ListParams::default())
        .await
        .map_err(|error| error.to_string())?;
    let conditions = found
        .iter()
        .filter_map(|service| services::condition(service, CONDITION));
    Ok(conditions.map(|(status, ..)| status).collect())
}

/// How many services have the Event that says they are refused.
async fn events(client: &Client) -> Result<usize, String> {
    let events: Api<Event> = Api::namespaced(client.clone(), NAMESPACE);
    let found = events
        .list(&ListParams::default())
        .await
        .map_err(|error| error.to_string())?;
    let refusals = found
        .iter()
        .filter(|event| event.reason.as_deref() == Some("KServeControllerRuns"));
    let names: std::collections::BTreeSet<_> = refusals.map(|event| event.involved_object.name.clone()).collect();
    Ok(names.len())
}

/// Writes by either controller.
fn writes(entries: AuditEntries) -> AuditEntries {
    let entries = entries.writes().without_leases_and_events();
    entries.filtered(|entry| entry.user == installation::USER || entry.user_agent.starts_with("manager/"))
}

async fn rolled_out(deployments: &Api<Deployment>) -> Result<(), String> {
    let found = deployments
        .list(&ListParams::default())
        .await
        .map_err(|error| error.to_string())?;
    for deployment in &found {
        let wanted = deployment.spec.as_ref().and_then(|spec| spec.replicas);
        let status = deployment.status.clone().unwrap_or_default();
        if status.available_replicas != wanted || status.replicas != wanted {
            return Err(format!(
                "{} has {:?} of {wanted:?}",
                deployment.name_any(),
                status.available_replicas
            ));
        }
    }
    if found.items.len() == 4 {
        Ok(())
    } else {
        Err(format!("{} Deployments", found.items.len()))
    }
}

async fn picture(client: &Client) -> Result<Picture, Failure> {
    let mut picture = Picture::new();
    for deployment in list::<Deployment>(client).await? {
        let value = format!(
            "{:?}, generation {:?}",
            deployment.uid(),
            deployment.metadata.generation
        );
        picture.insert(format!("Deployment {}", deployment.name_any()), value);
    }
    for set in list::<ReplicaSet>(client).await? {
        picture.insert(format!("ReplicaSet {}", set.name_any()), format!("{:?}", set.uid()));
    }
    for pod in list::<Pod>(client).await? {
        picture.insert(format!("Pod {}", pod.name_any()), format!("{:?}", pod.uid()));
    }
    Ok(picture)
}

async fn list<K>(client: &Client) -> Result<Vec<K>, Failure>
where
    K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
    K: Clone + std::fmt::Debug + DeserializeOwned,
{
    let api: Api<K> = Api::namespaced(client.clone(), NAMESPACE);
    Ok(api.list(&ListParams::default()).await?.items)
}

fn unchanged(when: &str, before: &Picture, after: &Picture) -> Result<(), Failure> {
    expect(before == after, || {
        format!("{when}, something was restarted:\n{before:#?}\n{after:#?}")
    })
}

fn expect(holds: bool, otherwise: impl FnOnce() -> String) -> Result<(), Failure> {
    if holds {
        Ok(())
    } else {
        Err(io::Error::other(otherwise()).into())
    }
}

async fn logged(program: &mut Operator, text: &str) -> Result<(), Failure> {
    let what = format!("{text:?} in the log");
    let ended = try_eventually(&what, DEADLINE, async || {
        if program.log().contains(text) {
            return Ok(None);
        }
        match program.exited() {
            Some(status) => Ok(Some(status)),
            None => Err("not yet"),
        }
    });
    match ended.await? {
        None => Ok(()),
        Some(status) => Err(io::Error::other(format!("it ended with {status}")).into()),
    }
}

fn with_transformer(name: &str) -> Value {
    let mut service = services::sklearn(name, NAMESPACE, None);
    service["spec"]["transformer"] = json!({"containers": [{
        "name": "kserve-container",
        "image": "example.com/models/transform:1",
    }]});
    service
}

fn end(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(10)..].join("\n")
}

fn say(line: &str) -> Result<(), Failure> {
    writeln!(io::stdout(), "{line}")?;
    Ok(())
}
