//! What a status says about the way to a service from outside.

use crate::{
    api::{
        InferenceServiceStatus,
        status::{Address, INGRESS_READY},
    },
    build::entry_port,
    condition::{Conditions, Verdict},
    observed::{Live, Observed},
    resolve::{Exposure, Resolved},
};

/// Reports whether the service can be reached, and where.
pub(super) fn report(status: &mut InferenceServiceStatus, resolved: &Resolved, observed: &Observed, now: &str) {
    let obstacle = match &resolved.exposure {
        Exposure::Nothing => None,
        Exposure::Ingress { .. } => unready(status, resolved),
        Exposure::Routes(_) => unaccepted(resolved, &observed.live),
    };
    let mut conditions = Conditions::new(&mut status.conditions, now);
    if let Some(obstacle) = obstacle {
        conditions.set(INGRESS_READY, obstacle);
        return;
    }
    conditions.set(INGRESS_READY, Verdict::holds());
    let entry = resolved.entry();
    let port = if entry.headless {
        format!(":{}", entry_port(entry))
    } else {
        String::new()
    };
    let (name, namespace, domain) = (&entry.name, &resolved.meta.namespace, &observed.cluster_domain);
    status.url = Some(resolved.url.clone());
    status.address = Some(Address {
        url: Some(format!("http://{name}.{namespace}.svc.{domain}{port}")),
    });
}

/// The first component that keeps the Ingress from being made.
fn unready(status: &InferenceServiceStatus, resolved: &Resolved) -> Option<Verdict> {
    let component = resolved
        .components()
        .find(|component| !status.is_true(component.kind.condition()))?;
    Some(Verdict::fails(
        format!("{} ingress not created", component.kind.title()),
        "",
    ))
}

/// The first route that is not there, or that its Gateway has not accepted.
pub(crate) fn unaccepted(resolved: &Resolved, live: &Live) -> Option<Verdict> {
    let components = resolved
        .components()
        .map(|component| (component.kind.title(), component.route.as_str()));
    let all = components.chain([("InferenceService", resolved.meta.name.as_str())]);
    for (title, name) in all {
        let route = live.http_routes.iter().find(|route| route.object.name == name);
        let verdict = match route {
            None => Verdict::fails(
                format!("{title} Deployment NotReady"),
                format!("{title} HTTPRoute not created"),
            ),
            Some(route) if !route.has_parents => {
                Verdict::fails("ParentStatusNotAvailable", format!("{title} HttpRouteNotReady"))
            }
            Some(route) => match &route.refused {
                Some(refused) => Verdict::fails(refused.reason.clone(), format!("{title} {}", refused.message)),
                None => continue,
            },
        };
        return Some(verdict);
    }
    None
}
