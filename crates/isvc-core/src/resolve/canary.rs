//! Variants of the predictor that take a share of the requests.

use std::borrow::Cow;

use super::{ResolvedComponent, component, is_internal};
use crate::{
    api::{Canary, Component},
    decide::live_deployment,
    names,
    observed::Observed,
    readiness,
    rejection::Rejection,
};

/// One variant, ready to build or not.
#[derive(Clone, Debug)]
pub struct ResolvedCanary {
    /// Name of the variant.
    pub name: String,
    /// Name of its objects.
    pub object: String,
    /// Share of the requests, in percent.
    pub traffic_percent: i32,
    /// Whether it serves.
    pub ready: bool,
    /// Whether it gets its share of the requests: it serves, can be built, and routes lead to the predictor.
    pub takes_requests: bool,
    /// What it is made of. Why it cannot be built, otherwise; its objects then stay as they are.
    pub component: Result<ResolvedComponent, Rejection>,
}

/// Resolves the variants. One that cannot be built does not keep the others back.
pub(super) fn resolve(observed: &Observed) -> Vec<ResolvedCanary> {
    let service = &observed.service;
    let stable = &service.spec.predictor;
    let one = |canary: &Canary| {
        let object = names::component_object(&service.meta.name, Some(canary.name()), stable.kind.as_str());
        let mut predictor = canary.predictor.clone();
        predictor.min_replicas = Some(replicas(canary, stable));
        let mut meta = service.meta.clone();
        let resolved = component::predictor(&predictor, observed, &mut meta);
        let ready = readiness::of(live_deployment(&observed.live, &object)).is_ready();
        ResolvedCanary {
            name: canary.name().to_owned(),
            ready,
            takes_requests: ready && resolved.is_ok() && can_be_split(observed),
            object,
            traffic_percent: canary.traffic_percent,
            component: resolved.map(|(component, _)| component),
        }
    };
    service.spec.canaries.iter().map(one).collect()
}

/// Whether requests can be split between the predictor and its variants: only routes have weights, and a transformer asks
/// the predictor itself.
pub(crate) fn can_be_split(observed: &Observed) -> bool {
    let (service, ingress) = (&observed.service, &observed.settings.ingress);
    ingress.gateway.is_some() && !is_internal(&service.meta, ingress) && service.spec.transformer.is_none()
}

/// How many replicas a variant has at least: as it says, or its share of the predictor's, rounded up.
fn replicas(canary: &Canary, stable: &Component) -> i32 {
    canary.given.min_replicas.unwrap_or_else(|| {
        let share = i64::from(stable.min_replicas.unwrap_or(1)) * i64::from(canary.traffic_percent);
        i32::try_from((share + 99).div_euclid(100)).unwrap_or(i32::MAX)
    })
}

/// The predictor beside its variants: what variants that get requests take over, it need not have; one replica always stays.
pub(super) fn stable<'a>(observed: &'a Observed, canaries: &[ResolvedCanary]) -> Cow<'a, Component> {
    let spec = &observed.service.spec;
    let taken_over: i32 = spec
        .canaries
        .iter()
        .zip(canaries)
        .filter(|(_, resolved)| resolved.takes_requests)
        .map(|(canary, _)| replicas(canary, &spec.predictor))
        .fold(0, i32::saturating_add);
    let mut predictor = Cow::Borrowed(&spec.predictor);
    if let Some(least) = spec.predictor.min_replicas.filter(|_| taken_over > 0) {
        predictor.to_mut().min_replicas = Some(least.saturating_sub(taken_over).max(1));
    }
    predictor
}
