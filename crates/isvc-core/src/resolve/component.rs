//! One component: where its Pod comes from, what its objects are called and carry.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::Value;

use crate::{
    api::{Component, ComponentKind, Meta, Object, Scope, ServingRuntime},
    names,
    observed::{Observed, StorageInjection},
    rejection::Rejection,
    settings::{DeploymentMode, InferenceServiceDefaults},
};

use super::{Autoscaler, agent, is_stopped, not_made, pod, runtime, scaling, server, storage};

/// One component, ready to build.
#[derive(Clone, Debug)]
pub struct ResolvedComponent {
    /// Which one.
    pub kind: ComponentKind,
    /// Name of its objects.
    pub name: String,
    /// Labels of its objects and Pods.
    pub labels: BTreeMap<String, String>,
    /// Annotations of its objects and Pods.
    pub annotations: BTreeMap<String, String>,
    /// Further annotations of its Pods.
    pub pod_annotations: BTreeMap<String, String>,
    /// The complete core/v1 `PodSpec`.
    pub pod: Object,
    /// Number of replicas, when no autoscaler sets it.
    pub replicas: Option<i32>,
    /// apps/v1 `DeploymentStrategy`.
    pub strategy: Value,
    /// Who scales it.
    pub autoscaler: Autoscaler,
    /// Whether its Service has no address of its own.
    pub headless: bool,
    /// Whether an agent stands before the server and takes the requests.
    pub has_agent: bool,
    /// Host of the component.
    pub host: String,
    /// Name of its route from outside. Unlike `name` it has no variant.
    pub route: String,
    /// Host of that route.
    pub route_host: String,
    /// Request timeout in seconds.
    pub timeout: Option<i64>,
}

/// The runtime that was chosen.
pub(super) type Chosen = Option<(Scope, String)>;

/// Resolves the predictor or a variant of it. `meta` gets the labels its server needs, which every object of the service
/// then has.
pub(super) fn predictor(
    component: &Component,
    observed: &Observed,
    meta: &mut Meta,
) -> Result<(ResolvedComponent, Chosen), Rejection> {
    let (parts, runtime) = if let Some(model) = &component.model {
        storage::check_uri(component, model.storage_uri.as_deref(), observed)?;
        let runtime = runtime::select(model, observed)?;
        let chosen = Some((runtime.scope, runtime.meta.name.clone()));
        let mut model = model.clone();
        server::complete(&mut model, meta, &runtime);
        let parts = pod::of_model(&model, component, meta, &runtime).map_err(|r| r.runtime(chosen.clone()))?;
        (parts, Some(runtime))
    } else {
        let parts = pod::of_custom(component, meta);
        storage::check_uri(component, parts.storage_uri.as_deref(), observed)?;
        (parts, None)
    };
    let chosen = runtime
        .as_ref()
        .map(|runtime| (runtime.scope, runtime.meta.name.clone()));
    let resolved =
        assemble(component, observed, meta, parts, runtime.as_ref()).map_err(|r| r.runtime(chosen.clone()))?;
    Ok((resolved, chosen))
}

/// Resolves a transformer or explainer, which runs beside the predictor named `predictor`.
pub(super) fn beside(
    component: &Component,
    predictor: &str,
    observed: &Observed,
    meta: &Meta,
) -> Result<ResolvedComponent, Rejection> {
    let parts = pod::beside(component, predictor, meta, &observed.settings)?;
    storage::check_uri(component, parts.storage_uri.as_deref(), observed)?;
    assemble(component, observed, meta, parts, None)
}

/// The host of an object of the service.
pub(super) fn host(observed: &Observed, meta: &Meta, name: &str, kind: ComponentKind) -> Result<String, Rejection> {
    let ingress = &observed.settings.ingress;
    ingress
        .host(name, &meta.namespace, &meta.labels, &meta.annotations)
        .map_err(|error| not_made(kind, format!("failed creating host name: {error}")))
}

fn assemble(
    component: &Component,
    observed: &Observed,
    meta: &Meta,
    parts: pod::Parts,
    runtime: Option<&Arc<ServingRuntime>>,
) -> Result<ResolvedComponent, Rejection> {
    let settings = &observed.settings;
    let kind = component.kind;
    let name = names::component_object(&meta.name, component.variant.as_deref(), kind.as_str());
    let route = names::component_object(&meta.name, None, kind.as_str());
    let labels = labels(component, meta, runtime, &name);
    let mut annotations = annotations(component, meta, runtime, &settings.inference_service);
    let mut internal = storage::annotations(component, parts.storage_uri.as_deref());
    internal.extend(agent::annotations(component));
    // What the component itself says goes last.
    for (key, value) in internal {
        if !component.annotations.contains_key(&key) || settings.inference_service.disallows_annotation(&key) {
            annotations.insert(key, value);
        }
    }

    let mut pod = parts.pod;
    // Nothing will run of a stopped service, so nothing is read and a missing credential is no error.
    if !is_stopped(&observed.service) {
        storage::bring(
            &mut pod,
            component,
            parts.storage_uri.as_deref(),
            &annotations,
            observed,
        )?;
        if observed.storage_injection == StorageInjection::Deployment {
            agent::inject(&mut pod, component, &labels, &annotations, observed)?;
        }
    }
    pod::complete(&mut pod);

    check_mode(meta, kind)?;
    let component_host = host(observed, meta, &name, kind)?;
    let route_host = host(observed, meta, &route, kind)?;
    let class = annotations.get(names::ANNOTATION_AUTOSCALER_CLASS).cloned();
    // A variant has no metrics of its own, and KEDA does not scale without: its number of replicas is its share.
    let class = if component.canary.is_some() && class.as_deref() == Some("keda") {
        Some("none".to_owned())
    } else {
        class
    };
    Ok(ResolvedComponent {
        kind,
        pod_annotations: metrics_annotations(&annotations, observed),
        labels,
        pod,
        replicas: (class.as_deref() == Some("none"))
            .then_some(component.min_replicas)
            .flatten(),
        strategy: scaling::strategy(component.deployment_strategy.as_ref(), settings),
        autoscaler: scaling::resolve(class.as_deref(), component, settings)?,
        headless: settings.service.service_cluster_ip_none,
        has_agent: component.logger.is_some() || component.batcher.is_some(),
        host: component_host,
        route,
        route_host,
        timeout: component.timeout,
        annotations,
        name,
    })
}

/// Later sources win: runtime, service, component, and last what is ours to set.
fn labels(
    component: &Component,
    meta: &Meta,
    runtime: Option<&Arc<ServingRuntime>>,
    name: &str,
) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::new();
    labels.extend(runtime.iter().flat_map(|runtime| runtime.labels.clone()));
    labels.extend(meta.labels.clone());
    labels.extend(component.labels.clone());
    labels.insert(names::LABEL_INFERENCE_SERVICE.to_owned(), meta.name.clone());
    labels.insert(names::LABEL_COMPONENT.to_owned(), component.kind.as_str().to_owned());
    labels.insert(names::LABEL_APP.to_owned(), names::app_label(name));
    labels
}

/// Later sources win: runtime, service, component; each without what the settings disallow.
fn annotations(
    component: &Component,
    meta: &Meta,
    runtime: Option<&Arc<ServingRuntime>>,
    settings: &InferenceServiceDefaults,
) -> BTreeMap<String, String> {
    let mut annotations = BTreeMap::new();
    let of_runtime = runtime.map(|runtime| &runtime.annotations);
    for source in of_runtime
        .into_iter()
        .chain([&meta.annotations, &component.annotations])
    {
        annotations.extend(settings.allowed_annotations(source));
    }
    annotations
}

/// What Pods say about their metrics, where nobody else does.
///
/// A scraper is sent to the port the runtime names. `KServe` names a port of Knative's, which nothing listens on here.
fn metrics_annotations(annotations: &BTreeMap<String, String>, observed: &Observed) -> BTreeMap<String, String> {
    if observed.storage_injection == StorageInjection::Annotations {
        return BTreeMap::new();
    }
    let metrics = &observed.settings.metrics_aggregator;
    let given = |key: &str| annotations.get(key).cloned();
    let scraping =
        given(names::ANNOTATION_PROMETHEUS_SCRAPING).unwrap_or_else(|| metrics.enable_prometheus_scraping.clone());
    let mut added = BTreeMap::new();
    if scraping == "true" {
        let port = given(names::ANNOTATION_METRICS_PORT).unwrap_or_else(|| "8080".to_owned());
        let path = given(names::ANNOTATION_METRICS_PATH).unwrap_or_else(|| "/metrics".to_owned());
        added.insert("prometheus.io/port".to_owned(), port);
        added.insert("prometheus.io/path".to_owned(), path);
    }
    let aggregation = metrics.enable_metric_aggregation.clone();
    added.insert(names::ANNOTATION_METRIC_AGGREGATION.to_owned(), aggregation);
    added.insert(names::ANNOTATION_PROMETHEUS_SCRAPING.to_owned(), scraping);
    added.retain(|key, _| !annotations.contains_key(key));
    added
}

/// An annotation with an unknown mode stops the build although the platform's mode is in force, as in `KServe`.
fn check_mode(meta: &Meta, kind: ComponentKind) -> Result<(), Rejection> {
    match meta.annotation(names::ANNOTATION_DEPLOYMENT_MODE) {
        Some(mode) if DeploymentMode::parse(mode).is_none() => Err(not_made(
            kind,
            format!("unsupported deployment mode for workload: {mode}"),
        )),
        _ => Ok(()),
    }
}
