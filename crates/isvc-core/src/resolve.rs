//! A specification and the facts around it, turned into something buildable, or a [`Rejection`].

mod agent;
mod canary;
mod component;
mod credentials;
pub(crate) mod env;
mod exposure;
#[cfg(test)]
mod fixture;
mod pod;
mod runtime;
mod scaling;
mod server;
mod storage;

use serde_json::Value;

pub use canary::ResolvedCanary;
pub(crate) use canary::can_be_split;
pub use component::ResolvedComponent;
pub(crate) use credentials::{account_not_found, account_not_readable, annotated_secret, service_account};
pub(crate) use exposure::is_internal;
pub use exposure::{Exposure, Routes};
pub use runtime::PassedOver;
pub(crate) use runtime::passed_over;
pub use scaling::Autoscaler;
pub(crate) use storage::{ca_bundle_copy, credential_problems, needs, specified_uri, storage_secret};

use crate::{
    api::{ComponentKind, InferenceService, Meta, Scope},
    desired::CaBundle,
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
    /// The predictor.
    pub predictor: ResolvedComponent,
    /// Transformer and explainer, where they are given and can be built.
    pub beside: Vec<ResolvedComponent>,
    /// Variants of the predictor, in order.
    pub canaries: Vec<ResolvedCanary>,
    /// A component beside the predictor that cannot be built, and why. Its objects stay as they are.
    pub rejected: Option<(ComponentKind, Rejection)>,
    /// The copy of the platform's certificate authorities that the namespace should have.
    pub ca_bundle: Option<CaBundle>,
    /// How the service is reached from outside.
    pub exposure: Exposure,
    /// Host of the service.
    pub host: String,
    /// URL of the service from outside.
    pub url: String,
}

impl Resolved {
    /// The components that can be built, in the order in which they are reconciled.
    pub fn components(&self) -> impl Iterator<Item = &ResolvedComponent> {
        std::iter::once(&self.predictor).chain(&self.beside)
    }

    /// The components and the variants of the predictor that can be built.
    pub fn workloads(&self) -> impl Iterator<Item = &ResolvedComponent> {
        let canaries = self.canaries.iter().filter_map(|canary| canary.component.as_ref().ok());
        self.components().chain(canaries)
    }

    /// A component, if it is given and can be built.
    #[must_use]
    pub fn component(&self, kind: ComponentKind) -> Option<&ResolvedComponent> {
        self.components().find(|component| component.kind == kind)
    }

    /// The component that requests reach first.
    #[must_use]
    pub fn entry(&self) -> &ResolvedComponent {
        self.component(ComponentKind::Transformer).unwrap_or(&self.predictor)
    }
}

/// Resolves a service whose defaults are applied.
///
/// # Errors
/// [`Rejection`] says what is wrong and what it waits for.
pub fn resolve(observed: &Observed) -> Result<Resolved, Rejection> {
    let service = &observed.service;
    validate::validate(service)?;
    let mut meta = service.meta.clone();
    let canaries = canary::resolve(observed);
    let stable = canary::stable(observed, &canaries);
    let (predictor, runtime) = component::predictor(&stable, observed, &mut meta)?;
    let named = |rejection: Rejection| rejection.runtime(runtime.clone());
    let host = component::host(observed, &meta, &meta.name, ComponentKind::Predictor).map_err(named)?;
    let exposure = exposure::resolve(&meta, &host, &observed.settings).map_err(named)?;
    let ca_bundle = storage::ca_bundle_copy(observed).map_err(named)?;
    let mut beside = Vec::new();
    let mut rejected = None;
    for given in service.spec.transformer.iter().chain(&service.spec.explainer) {
        match component::beside(given, &predictor.name, observed, &meta) {
            Ok(component) => beside.push(component),
            Err(rejection) => {
                rejected = Some((given.kind, rejection));
                break;
            }
        }
    }
    Ok(Resolved {
        runtime,
        predictor,
        beside,
        canaries,
        rejected,
        ca_bundle,
        exposure,
        url: format!("{}://{host}", observed.settings.ingress.url_scheme),
        host,
        meta,
    })
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

/// Why the objects of a component cannot be made, in `KServe`'s words.
fn not_made(kind: ComponentKind, problem: impl std::fmt::Display) -> Rejection {
    Rejection::new(
        RECONCILE_FAILED,
        format!("fails to create NewRawKubeReconciler for {}: {problem}", kind.as_str()),
    )
}

/// Strategic merge of two containers, for the modules below.
fn merge_containers(base: &Value, patch: &Value) -> Value {
    merge::merge_container(base, patch)
}
