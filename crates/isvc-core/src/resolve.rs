//! A specification and the facts around it, turned into something buildable, or a [`Rejection`].

mod credentials;
pub(crate) mod env;
mod exposure;
mod pod;
mod runtime;
mod scaling;
mod server;
mod storage;

use std::{collections::BTreeMap, sync::Arc};

use serde_json::Value;

pub(crate) use credentials::{annotated_secret, service_account};
pub use exposure::Exposure;
pub use scaling::Autoscaler;
pub use storage::Storage;

use crate::{
    api::{ComponentKind, InferenceService, Meta, Object, Scope, ServingRuntime},
    merge, names,
    observed::Observed,
    rejection::{RECONCILE_FAILED, Rejection},
    settings::{DeploymentMode, Settings},
    validate,
};

/// What a specification means.
#[derive(Clone, Debug)]
pub struct Resolved {
    /// Metadata of the service, with what defaulting and the model server add in memory.
    pub meta: Meta,
    /// The runtime in use; none for a custom predictor.
    pub runtime: Option<(Scope, String)>,
    /// Whether the service is stopped: nothing of it should exist.
    pub stopped: bool,
    /// The predictor.
    pub predictor: ResolvedComponent,
    /// How the service is reached from outside.
    pub exposure: Exposure,
    /// Host of the service.
    pub host: String,
    /// URL of the service from outside.
    pub url: String,
    /// Class of the Ingress.
    pub ingress_class: Option<String>,
}

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
    /// Host of the component.
    pub host: String,
}

/// Resolves a service whose defaults are applied.
///
/// # Errors
/// [`Rejection`] says what is wrong and what it waits for.
pub fn resolve(observed: &Observed) -> Result<Resolved, Rejection> {
    let service = &observed.service;
    let settings = &observed.settings;
    validate::validate(service)?;
    let mut meta = service.meta.clone();
    let predictor = &service.spec.predictor;
    let (parts, runtime) = if let Some(model) = &predictor.model {
        storage::check_uri(model.storage_uri.as_deref(), observed)?;
        let runtime = runtime::select(model, observed)?;
        let chosen = Some((runtime.scope, runtime.meta.name.clone()));
        let mut model = model.clone();
        server::complete(&mut model, &mut meta, &runtime);
        let parts = pod::of_model(&model, predictor, &meta, &runtime).map_err(|r| r.runtime(chosen.clone()))?;
        (parts, Some(runtime))
    } else {
        let parts = pod::of_custom(predictor, &meta);
        storage::check_uri(parts.storage_uri.as_deref(), observed)?;
        (parts, None)
    };
    let chosen = runtime
        .as_ref()
        .map(|runtime| (runtime.scope, runtime.meta.name.clone()));
    let mut resolved = assemble(observed, &meta, parts, runtime.as_ref()).map_err(|r| r.runtime(chosen.clone()))?;
    resolved.runtime = chosen;
    resolved.stopped = is_stopped(service);
    if settings.ingress.enable_gateway_api && resolved.exposure == Exposure::Ingress {
        resolved.exposure = Exposure::Unsupported;
    }
    Ok(resolved)
}

/// Whether the annotation stops the service.
#[must_use]
pub fn is_stopped(service: &InferenceService) -> bool {
    service
        .meta
        .annotation(names::ANNOTATION_STOP)
        .is_some_and(|value| value.eq_ignore_ascii_case("true"))
}

/// The mode that decides whether a service is ours: what status says, else the annotation, else the platform's.
#[must_use]
pub fn deployment_mode(service: &InferenceService, settings: &Settings) -> DeploymentMode {
    DeploymentMode::parse(&service.status.deployment_mode)
        .or_else(|| {
            service
                .meta
                .annotation(names::ANNOTATION_DEPLOYMENT_MODE)
                .and_then(DeploymentMode::parse)
        })
        .unwrap_or(settings.deploy.default_deployment_mode)
}

fn assemble(
    observed: &Observed,
    meta: &Meta,
    parts: pod::Parts,
    runtime: Option<&Arc<ServingRuntime>>,
) -> Result<Resolved, Rejection> {
    let (service, settings) = (&observed.service, &observed.settings);
    let predictor = &service.spec.predictor;
    let kind = ComponentKind::Predictor;
    let name = names::component_object(&meta.name, predictor.variant.as_deref(), kind.as_str());

    let mut labels = BTreeMap::new();
    labels.extend(runtime.iter().flat_map(|runtime| runtime.labels.clone()));
    labels.extend(meta.labels.clone());
    labels.extend(predictor.labels.clone());
    labels.insert(names::LABEL_INFERENCE_SERVICE.to_owned(), meta.name.clone());
    labels.insert(names::LABEL_COMPONENT.to_owned(), kind.as_str().to_owned());
    labels.insert(names::LABEL_APP.to_owned(), names::app_label(&name));

    let allowed = |map: &BTreeMap<String, String>| -> BTreeMap<String, String> {
        let disallowed = &settings.inference_service.annotation_disallowed_list;
        map.iter()
            .filter(|(key, _)| !disallowed.contains(key))
            .map(|(k, v)| (k.clone(), v.clone()))
            .collect()
    };
    let mut annotations = BTreeMap::new();
    annotations.extend(runtime.iter().flat_map(|runtime| allowed(&runtime.annotations)));
    annotations.extend(allowed(&meta.annotations));
    if let Some(uri) = &parts.storage_uri {
        annotations.insert(names::ANNOTATION_SOURCE_URI.to_owned(), uri.clone());
    }
    annotations.extend(allowed(&predictor.annotations));

    let mut storage_uri = parts.storage_uri.as_deref();
    if is_stopped(service) {
        // Nothing will run, so nothing is read and a missing credential is no error.
        storage_uri = None;
    }
    let storage = storage::resolve(
        storage_uri,
        predictor.storage_container_name.as_deref(),
        &annotations,
        observed,
    )?;
    let mut pod = parts.pod;
    storage::inject(&mut pod, &storage)?;
    pod::complete(&mut pod);

    check_mode(meta)?;
    let host = |name: &str| {
        settings
            .ingress
            .host(name, &meta.namespace, &meta.labels, &meta.annotations)
            .map_err(|error| {
                Rejection::new(
                    RECONCILE_FAILED,
                    format!("fails to create NewRawKubeReconciler for predictor: failed creating host name: {error}"),
                )
            })
    };
    let component_host = host(&name)?;
    let service_host = host(&meta.name)?;
    let class = annotations.get(names::ANNOTATION_AUTOSCALER_CLASS).cloned();
    let autoscaler = scaling::resolve(class.as_deref(), predictor)?;
    let mut pod_annotations = BTreeMap::new();
    for (key, value) in [
        (
            names::ANNOTATION_METRIC_AGGREGATION,
            &settings.metrics_aggregator.enable_metric_aggregation,
        ),
        (
            names::ANNOTATION_PROMETHEUS_SCRAPING,
            &settings.metrics_aggregator.enable_prometheus_scraping,
        ),
    ] {
        if !annotations.contains_key(key) {
            pod_annotations.insert(key.to_owned(), value.clone());
        }
    }
    let component = ResolvedComponent {
        kind,
        name,
        labels,
        annotations,
        pod_annotations,
        pod,
        replicas: (class.as_deref() == Some("none"))
            .then_some(predictor.min_replicas)
            .flatten(),
        strategy: scaling::strategy(predictor.deployment_strategy.as_ref(), settings),
        autoscaler,
        headless: settings.service.service_cluster_ip_none,
        host: component_host,
    };
    Ok(Resolved {
        meta: meta.clone(),
        runtime: None,
        stopped: false,
        predictor: component,
        exposure: exposure::resolve(meta, &settings.ingress),
        url: format!("{}://{service_host}", settings.ingress.url_scheme),
        ingress_class: settings.ingress.ingress_class_name.clone(),
        host: service_host,
    })
}

/// An annotation with an unknown mode stops the build although the platform's mode is in force, as in `KServe`.
fn check_mode(meta: &Meta) -> Result<(), Rejection> {
    match meta.annotation(names::ANNOTATION_DEPLOYMENT_MODE) {
        Some(mode) if DeploymentMode::parse(mode).is_none() => Err(Rejection::new(
            RECONCILE_FAILED,
            format!(
                "fails to create NewRawKubeReconciler for predictor: unsupported deployment mode for workload: {mode}"
            ),
        )),
        _ => Ok(()),
    }
}

/// Strategic merge of two containers, for the modules below.
fn merge_containers(base: &Value, patch: &Value) -> Value {
    merge::merge_container(base, patch)
}
