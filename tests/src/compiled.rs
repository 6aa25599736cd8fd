//! What policies compile to, applied without the controller.

use isvc_core::policy::{self, Compiled, Policy, Template, names};
use kube::{
    Api, Client,
    api::{DynamicObject, Patch, PatchParams, PostParams},
    core::{ApiResource, GroupVersionKind},
};
use serde_json::Value;

use crate::failure::Failure;

/// Templates of the cluster.
#[must_use]
pub fn templates(client: &Client) -> Api<DynamicObject> {
    cluster_wide(
        client,
        names::GROUP,
        names::VERSION,
        names::TEMPLATE_KIND,
        names::TEMPLATE_RESOURCE,
    )
}

/// Policies of the cluster.
#[must_use]
pub fn policies(client: &Client) -> Api<DynamicObject> {
    cluster_wide(
        client,
        names::GROUP,
        names::VERSION,
        names::POLICY_KIND,
        names::POLICY_RESOURCE,
    )
}

/// Admission policies of the cluster.
#[must_use]
pub fn admission_policies(client: &Client) -> Api<DynamicObject> {
    let (group, version) = (names::ADMISSION_GROUP, names::ADMISSION_VERSION);
    cluster_wide(
        client,
        group,
        version,
        names::ADMISSION_POLICY_KIND,
        names::ADMISSION_POLICY_RESOURCE,
    )
}

/// Bindings of the cluster.
#[must_use]
pub fn bindings(client: &Client) -> Api<DynamicObject> {
    let (group, version) = (names::ADMISSION_GROUP, names::ADMISSION_VERSION);
    cluster_wide(client, group, version, names::BINDING_KIND, names::BINDING_RESOURCE)
}

fn cluster_wide(client: &Client, group: &str, version: &str, kind: &str, plural: &str) -> Api<DynamicObject> {
    let resource = ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), plural);
    Api::all_with(client.clone(), &resource)
}

/// Stores an object and answers with what is stored.
///
/// # Errors
///
/// When the API server refuses it.
pub async fn apply(api: &Api<DynamicObject>, object: &Value) -> Result<Value, kube::Error> {
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    let parameters = PatchParams::apply("test").force();
    let stored = api.patch(name, &parameters, &Patch::Apply(object)).await?;
    Ok(serde_json::to_value(stored).unwrap_or_default())
}

/// Stores an object in place of what may be there. Unlike a server-side apply, which takes its body for YAML, it takes every
/// character.
async fn store(api: &Api<DynamicObject>, object: &Value) -> Result<Value, Failure> {
    let mut object: DynamicObject = serde_json::from_value(object.clone()).map_err(unmet)?;
    let name = object.metadata.name.clone().unwrap_or_default();
    let parameters = PostParams::default();
    let stored = match api.get_opt(&name).await? {
        None => api.create(&parameters, &object).await?,
        Some(there) => {
            object.metadata.resource_version = there.metadata.resource_version;
            api.replace(&name, &parameters, &object).await?
        }
    };
    serde_json::to_value(stored).map_err(unmet)
}

/// Stores a template and a policy and applies what they compile to, as the controller does. Whether it is in force already
/// the caller has to see.
///
/// # Errors
///
/// When something is refused, or the policy does not fit its template.
pub async fn enforce(client: &Client, template: &Value, policy: &Value) -> Result<Compiled, Failure> {
    let template = store(&templates(client), template).await?;
    let policy = store(&policies(client), policy).await?;
    let template = Template::parse(&template).map_err(unmet)?;
    let policy = Policy::parse(&policy).map_err(unmet)?;
    let parameters = policy::check_parameters(&template, &policy)
        .map_err(|problems| unmet(problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")))?;
    let compiled = policy::build(&template, &policy, &parameters);
    apply(&admission_policies(client), &compiled.admission_policy).await?;
    for binding in [Some(&compiled.binding), compiled.audit_binding.as_ref()]
        .into_iter()
        .flatten()
    {
        apply(&bindings(client), binding).await?;
    }
    Ok(compiled)
}

#[allow(clippy::needless_pass_by_value, reason = "so that map_err takes it")]
fn unmet(problem: impl std::fmt::Display) -> Failure {
    Failure::Unmet(problem.to_string())
}
