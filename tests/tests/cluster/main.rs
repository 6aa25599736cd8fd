//! The operator's binary, with the rights of `deploy/` and no more, against a real control plane.

mod changes;
mod conditions;
mod definitions;
mod deletion;
mod kill;
mod kubectl;
mod leader;
mod memory;
mod modes;
mod rules;
mod scope;
mod secrecy;
mod settings;
mod steady;

use std::time::Duration;

use kube::{Api, Client, api::DynamicObject};
use leanserve_tests::{Installation, Scope, services};

/// The most anything may take here on a busy machine.
const DEADLINE: Duration = Duration::from_secs(120);

/// What nearly every test begins with: an installation, a namespace, and a client as admin.
async fn prepare(prefix: &str) -> (&'static Installation<'static>, Scope, Client) {
    let installation = Installation::shared().await;
    let scope = installation.scope(prefix).await.expect("a namespace for the test");
    let client = installation.plane.client().await.expect("a client");
    (installation, scope, client)
}

/// Services of a test's namespace.
fn services_of(client: &Client, scope: &Scope) -> Api<DynamicObject> {
    services::api(client.clone(), scope.name())
}
