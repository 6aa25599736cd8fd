//! Whether and how a service is reached from outside the cluster.

use std::collections::BTreeMap;

use crate::{
    api::{ComponentKind, Meta},
    names,
    rejection::Rejection,
    settings::{GatewayRef, Ingress, Settings},
};

use super::not_made;

/// How a service is reached from outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Exposure {
    /// By an Ingress, once its components are ready.
    Ingress {
        /// Class of the Ingress.
        class: Option<String>,
    },
    /// By `HTTPRoutes` of the Gateway API, one for each component that is ready and one for the service.
    Routes(Box<Routes>),
    /// Not at all: it is kept inside the cluster, or the platform creates routes by other means.
    Nothing,
}

/// What the `HTTPRoutes` of one service have in common.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Routes {
    /// The Gateway they attach to.
    pub gateway: GatewayRef,
    /// Labels of all routes.
    pub labels: BTreeMap<String, String>,
    /// Annotations of all routes.
    pub annotations: BTreeMap<String, String>,
    /// Host names of the service's own route.
    pub hostnames: Vec<String>,
    /// Path under which the service is also reached on the shared domain.
    pub path: Option<String>,
    /// Whether requests are cut off after the component's timeout.
    pub with_timeouts: bool,
}

/// Whether a service is kept inside the cluster, or exposed by other means than ours.
pub(crate) fn is_internal(meta: &Meta, ingress: &Ingress) -> bool {
    let label = meta.labels.get(names::LABEL_VISIBILITY).map(String::as_str);
    label == Some(names::VISIBILITY_CLUSTER_LOCAL) || ingress.is_internal_domain() || ingress.disable_ingress_creation
}

pub(super) fn resolve(meta: &Meta, host: &str, settings: &Settings) -> Result<Exposure, Rejection> {
    let ingress = &settings.ingress;
    if is_internal(meta, ingress) {
        return Ok(Exposure::Nothing);
    }
    let Some(gateway) = ingress.gateway.clone() else {
        return Ok(Exposure::Ingress {
            class: ingress.ingress_class_name.clone(),
        });
    };
    let path = ingress
        .path(&meta.name, &meta.namespace)
        .map_err(|error| not_made(ComponentKind::Predictor, error))?;
    Ok(Exposure::Routes(Box::new(Routes {
        gateway,
        labels: settings.inference_service.allowed_labels(&meta.labels).collect(),
        annotations: settings
            .inference_service
            .allowed_annotations(&meta.annotations)
            .collect(),
        hostnames: hostnames(host, path.is_some(), ingress),
        path,
        with_timeouts: !ingress.disable_http_route_timeout,
    })))
}

/// The service's host, the same below every further domain, and the shared domain itself for paths.
fn hostnames(host: &str, with_path: bool, ingress: &Ingress) -> Vec<String> {
    let mut hostnames = vec![host.to_owned()];
    let mut add = |name: String| {
        if !hostnames.contains(&name) {
            hostnames.push(name);
        }
    };
    if let Some(stem) = host.strip_suffix(&ingress.ingress_domain) {
        ingress
            .additional_ingress_domains
            .iter()
            .map(|domain| format!("{stem}{domain}"))
            .filter(|name| Ingress::is_host(name))
            .for_each(&mut add);
    }
    if with_path {
        add(ingress.ingress_domain.clone());
    }
    hostnames
}
