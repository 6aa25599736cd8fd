//! What the operator is given to do.

use std::{
    fmt::Debug,
    time::{Duration, Instant},
};

use futures::{StreamExt, stream};
use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{Namespace, Secret},
};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams},
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use testkit::try_eventually;

use super::{Cluster, PATIENCE};
use crate::{Failure, services};

/// Image of the model server.
pub const MODEL_SERVER: &str = "leanserve/model-server:e2e";
/// Image of the init container.
pub const STORAGE_INITIALIZER: &str = "leanserve/storage-initializer:e2e";
/// Requests on their way at a time.
const AT_ONCE: usize = 64;
/// What the scenarios make that does not go with a namespace of theirs, and these namespaces, have this label.
pub const MARK: &str = "leanserve.dev/e2e";

/// A namespace that goes with the scenario.
#[allow(
    missing_debug_implementations,
    reason = "it holds a cluster's client, which has nothing to show"
)]
pub struct Room<'a> {
    cluster: &'a Cluster,
    /// Its name.
    pub name: String,
}

/// The runtime and the init container for models of the format `e2e`.
fn platform() -> Value {
    json!({"apiVersion": "v1", "kind": "List", "items": [
        {
            "apiVersion": "serving.kserve.io/v1alpha1",
            "kind": "ClusterServingRuntime",
            "metadata": {"name": "leanserve-e2e", "labels": {MARK: "true"}},
            "spec": {
                "supportedModelFormats": [{"name": "e2e", "version": "1", "autoSelect": true}],
                "protocolVersions": ["v1"],
                "containers": [{
                    "name": "kserve-container",
                    "image": MODEL_SERVER,
                    "imagePullPolicy": "IfNotPresent",
                    "args": ["--model_name={{.Name}}", "--model_dir=/mnt/models", "--http_port=8080"],
                    "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}, "limits": {"cpu": "1", "memory": "64Mi"}},
                }],
            },
        },
        {
            "apiVersion": "serving.kserve.io/v1alpha1",
            "kind": "ClusterStorageContainer",
            "metadata": {"name": "leanserve-e2e", "labels": {MARK: "true"}},
            "spec": {
                "workloadType": "initContainer",
                "container": {
                    "name": "storage-initializer",
                    "image": STORAGE_INITIALIZER,
                    "imagePullPolicy": "IfNotPresent",
                    "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}, "limits": {"cpu": "1", "memory": "64Mi"}},
                },
                "supportedUriFormats": [{"prefix": "s3://"}],
            },
        },
    ]})
}

impl<'a> Room<'a> {
    /// Makes the namespace, and the runtime and init container that services in it use.
    ///
    /// # Errors
    ///
    /// When the API server refuses.
    pub async fn open(cluster: &'a Cluster, name: &str) -> Result<Self, Failure> {
        let name = format!("e2e-{name}");
        remove(cluster, &name).await?;
        let namespace = json!({
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {"name": name, "labels": {MARK: "true"}},
        });
        cluster.plane.apply_yaml(&namespace.to_string()).await?;
        cluster.plane.apply_yaml(&platform().to_string()).await?;
        Ok(Self { cluster, name })
    }

    /// Removes the namespace and waits until it is gone.
    ///
    /// # Errors
    ///
    /// When it does not go.
    pub async fn close(self) -> Result<(), Failure> {
        remove(self.cluster, &self.name).await
    }

    /// Applies objects.
    ///
    /// # Errors
    ///
    /// When the API server refuses.
    pub async fn apply(&self, objects: &[Value]) -> Result<(), Failure> {
        for some in objects.chunks(500) {
            self.cluster.plane.apply_yaml(&services::list(some)).await?;
        }
        Ok(())
    }

    /// Applies so many services, `model-0` and on, each with an account and a Secret of its own, `store-0` and on, of this many
    /// bytes and this round, and waits until all are built.
    ///
    /// # Errors
    ///
    /// When the API server refuses, or they are not built in time.
    pub async fn services(&self, count: usize, bytes: usize, round: usize) -> Result<(), Failure> {
        let mut objects = Vec::new();
        for number in 0..count {
            let secret = format!("store-{number}");
            objects.push(credentials(&secret, &self.name, bytes, round));
            objects.push(account(&secret, &self.name, std::slice::from_ref(&secret)));
            objects.push(unplaced(&format!("model-{number}"), &self.name, Some(&secret)));
        }
        self.apply(&objects).await?;
        self.deployments(count).await
    }

    /// How many Deployments are there.
    ///
    /// # Errors
    ///
    /// When the API server does not answer.
    pub async fn count_deployments(&self) -> Result<usize, kube::Error> {
        let deployments: Api<Deployment> = Api::namespaced(self.cluster.client.clone(), &self.name);
        Ok(deployments.list_metadata(&ListParams::default()).await?.items.len())
    }

    /// Waits until so many Deployments are there.
    ///
    /// # Errors
    ///
    /// When they are not in time.
    pub async fn deployments(&self, count: usize) -> Result<(), Failure> {
        let what = format!("{count} Deployments in {}", self.name);
        try_eventually(&what, PATIENCE * 2, async || {
            match self.count_deployments().await.map_err(|error| error.to_string())? {
                found if found >= count => Ok(()),
                found => Err(format!("{found}")),
            }
        })
        .await?;
        Ok(())
    }

    /// Secrets in it.
    #[must_use]
    pub fn secrets(&self) -> Api<Secret> {
        Api::namespaced(self.cluster.client.clone(), &self.name)
    }
}

/// Removes what the scenarios made and nothing else, also what a run left that did not get to its end: what is in its
/// namespaces would count in the next. Needs the definitions of `KServe`.
///
/// # Errors
///
/// When something does not go.
pub async fn sweep(cluster: &Cluster) -> Result<(), Failure> {
    let namespaces: Api<Namespace> = Api::all(cluster.client.clone());
    for namespace in namespaces.list(&ListParams::default().labels(MARK)).await? {
        remove(cluster, &namespace.name_any()).await?;
    }
    let kinds = "clusterservingruntimes,clusterstoragecontainers,clusterroles,clusterrolebindings";
    cluster
        .plane
        .kubectl_stdout(&["delete", kinds, "--selector", MARK])
        .await?;
    Ok(())
}

/// Of a deletion: an object that was gone before is as good.
pub(super) fn deleted<T>(answer: Result<T, kube::Error>) -> Result<(), kube::Error> {
    match answer {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        answer => answer.map(|_| ()),
    }
}

async fn remove(cluster: &Cluster, name: &str) -> Result<(), Failure> {
    let namespaces: Api<Namespace> = Api::all(cluster.client.clone());
    deleted(namespaces.delete(name, &DeleteParams::default()).await)?;
    try_eventually(
        &format!("namespace {name} is gone"),
        PATIENCE * 4,
        async || match namespaces.get_opt(name).await {
            Ok(None) => Ok(()),
            Ok(Some(_)) => Err("there".to_owned()),
            Err(error) => Err(error.to_string()),
        },
    )
    .await?;
    Ok(())
}

/// A service whose Pods run and serve.
#[must_use]
pub fn serving(name: &str, namespace: &str, account: Option<&str>) -> Value {
    let mut service = services::sklearn(name, namespace, account);
    service["spec"]["predictor"]["model"]["modelFormat"]["name"] = json!("e2e");
    service
}

/// A service that is reconciled like any other but whose Pods fit on no node: for many of them on a small machine.
#[must_use]
pub fn unplaced(name: &str, namespace: &str, account: Option<&str>) -> Value {
    let mut service = serving(name, namespace, account);
    service["spec"]["predictor"]["nodeSelector"] = json!({"leanserve.dev/e2e": "nowhere"});
    service
}

/// A Secret with S3 credentials that is this big, as a merge patch and as an object. `round` tells versions apart: it is
/// in the endpoint, which shows in the Deployments of services that use the Secret.
#[must_use]
pub fn credentials(name: &str, namespace: &str, bytes: usize, round: usize) -> Value {
    let filler: String = std::iter::repeat_n('x', bytes).collect();
    json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "annotations": {
                "serving.kserve.io/s3-endpoint": format!("store-{round}.example:9000"),
                "serving.kserve.io/s3-usehttps": "0",
            },
        },
        "stringData": {"AWS_ACCESS_KEY_ID": "AKIAEXAMPLE", "AWS_SECRET_ACCESS_KEY": "none", "padding": filler},
    })
}

/// An account that lists Secrets.
#[must_use]
pub fn account(name: &str, namespace: &str, secrets: &[String]) -> Value {
    let secrets: Vec<Value> = secrets.iter().map(|name| json!({"name": name})).collect();
    json!({
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": {"name": name, "namespace": namespace},
        "secrets": secrets,
    })
}

/// The endpoint that the Deployment of a service shows, as the number of its round.
///
/// # Errors
///
/// When there is no such Deployment.
pub async fn round_of(deployments: &Api<Deployment>, service: &str) -> Result<Option<usize>, Failure> {
    let deployment = deployments.get(&format!("{service}-predictor")).await?;
    Ok(round_in(&deployment))
}

/// The round of the credentials that a Deployment was built with.
#[must_use]
pub fn round_in(deployment: &Deployment) -> Option<usize> {
    let template = deployment.spec.as_ref()?.template.spec.as_ref()?;
    let containers = template.init_containers.iter().flatten();
    let mut variables = containers.flat_map(|container| container.env.iter().flatten());
    let endpoint = variables.find(|variable| variable.name == "AWS_ENDPOINT_URL")?;
    let (_, rest) = endpoint.value.as_deref()?.split_once("store-")?;
    rest.split('.').next()?.parse().ok()
}

/// Changes objects in turn, this many a second, for this long; gives how many changes were made.
///
/// # Errors
///
/// When the API server refuses one.
pub async fn churn<K>(
    objects: &Api<K>,
    names: &[String],
    per_second: usize,
    length: Duration,
    patch: impl Fn(usize) -> Value,
) -> Result<usize, Failure>
where
    K: Clone + DeserializeOwned + Debug,
{
    let started = Instant::now();
    let mut made = 0;
    while started.elapsed() < length {
        let elapsed = usize::try_from(started.elapsed().as_millis()).unwrap_or(usize::MAX);
        let due = elapsed.saturating_mul(per_second) / 1000;
        // What is due by now, at most a second's worth at once.
        let batch = due.saturating_sub(made).min(per_second);
        if batch == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
            continue;
        }
        let outcomes: Vec<_> = stream::iter(made..made + batch)
            .map(|number| {
                let name = &names[number % names.len()];
                let patch = Patch::Merge(patch(number));
                async move { objects.patch_metadata(name, &PatchParams::default(), &patch).await }
            })
            .buffer_unordered(AT_ONCE)
            .collect()
            .await;
        for outcome in outcomes {
            outcome?;
        }
        made += batch;
    }
    Ok(made)
}

/// Names of objects, for reports.
#[must_use]
pub fn names(objects: &[impl ResourceExt]) -> String {
    let names: Vec<String> = objects.iter().map(ResourceExt::name_any).collect();
    names.join(" ")
}

/// A count as a figure of a report.
#[must_use]
#[allow(clippy::cast_precision_loss, reason = "counts here are far below 2^52")]
pub fn as_f64(count: usize) -> f64 {
    count as f64
}
