//! A bare client that makes the same writes: the same children by server-side apply, and a status each. It knows from the
//! start what to write, watches nothing and compares nothing.

use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::{
    apps::v1::Deployment,
    autoscaling::v2::HorizontalPodAutoscaler,
    core::v1::{self, Namespace},
};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{ApiResource, DynamicObject, ListParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::shape::{self, Shapes};
use crate::{Failure, services};

/// Names the manager of its fields.
const MANAGER: &str = "bare-client";

/// All that is written for one service.
struct Writes {
    children: Vec<(ApiResource, Value)>,
    service: DynamicObject,
}

/// Creates as many services as there are in the namespaces `measured`, in namespaces of its own, and then writes what
/// leanserve has written for those. Returns how many services it has got through in a second.
pub(super) async fn run(
    client: &Client,
    shapes: Shapes,
    count: usize,
    measured: &str,
    at_once: usize,
) -> Result<f64, Failure> {
    const PREFIX: &str = "peer";
    shape::create(client, shapes, PREFIX, 0..count).await?;
    let last = shape::namespace(measured, count - 1);
    let namespaces: Api<Namespace> = Api::all(client.clone());
    namespaces.get(&last).await?;
    let mut all = Vec::with_capacity(count);
    let mut number = 0;
    while number < count {
        let (from, to) = (shape::namespace(measured, number), shape::namespace(PREFIX, number));
        let mut here = learned(client, &from, &to).await?;
        number += here.len();
        all.append(&mut here);
    }
    all.truncate(count);
    let begun = Instant::now();
    stream::iter(all)
        .map(|writes| write(client, writes))
        .buffer_unordered(at_once)
        .try_for_each(|()| std::future::ready(Ok(())))
        .await?;
    #[allow(clippy::cast_precision_loss, reason = "far fewer than 2^52 services")]
    let count = count as f64;
    Ok(count / begun.elapsed().as_secs_f64())
}

async fn write(client: &Client, writes: Writes) -> Result<(), Failure> {
    let namespace = writes.service.namespace().unwrap_or_default();
    let parameters = PatchParams::apply(MANAGER);
    for (kind, child) in &writes.children {
        let name = child["metadata"]["name"].as_str().unwrap_or_default();
        let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), &namespace, kind);
        api.patch(name, &parameters, &Patch::Apply(child)).await?;
    }
    let service = &writes.service;
    services::api(client.clone(), &namespace)
        .replace_status(&service.name_any(), &PostParams::default(), service)
        .await?;
    Ok(())
}

/// What leanserve has written in one namespace, made to fit another.
async fn learned(client: &Client, from: &str, to: &str) -> Result<Vec<Writes>, Failure> {
    let mut services = services::api(client.clone(), from)
        .list(&ListParams::default())
        .await?
        .items;
    let mut children: Vec<(ApiResource, Value)> = Vec::new();
    children.append(&mut listed::<v1::Service>(client, from).await?);
    children.append(&mut listed::<Deployment>(client, from).await?);
    children.append(&mut listed::<HorizontalPodAutoscaler>(client, from).await?);
    let mine = services::api(client.clone(), to)
        .list(&ListParams::default())
        .await?
        .items;
    let mut all = Vec::with_capacity(mine.len());
    for mut service in mine {
        let Some(at) = services.iter().position(|other| other.name_any() == service.name_any()) else {
            continue;
        };
        service.data["status"] = services.swap_remove(at).data["status"].take();
        let of_service = children
            .iter()
            .filter(|(_, child)| child["metadata"]["ownerReferences"][0]["name"] == service.name_any())
            .map(|(kind, child)| {
                let mut child = child.clone();
                child["metadata"]["namespace"] = json!(to);
                child["metadata"]["ownerReferences"][0]["uid"] = json!(service.uid());
                (kind.clone(), child)
            })
            .collect();
        all.push(Writes {
            children: of_service,
            service,
        });
    }
    Ok(all)
}

/// The children of a kind, reduced to the fields that leanserve owns.
async fn listed<K>(client: &Client, namespace: &str) -> Result<Vec<(ApiResource, Value)>, Failure>
where
    K: Resource<DynamicType = ()>,
{
    let kind = ApiResource::erase::<K>(&());
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &kind);
    let found = api.list(&ListParams::default()).await?.items.into_iter();
    let applied = found.filter_map(|mut object| {
        let managed = object.metadata.managed_fields.take()?;
        let ours = managed
            .into_iter()
            .find(|entry| entry.operation.as_deref() == Some("Apply"))?;
        let name = object.name_any();
        let whole = serde_json::to_value(object).ok()?;
        let mut part = owned(&whole, &ours.fields_v1?.0);
        part["apiVersion"] = json!(kind.api_version);
        part["kind"] = json!(kind.kind);
        part["metadata"]["name"] = json!(name);
        Some((kind.clone(), part))
    });
    Ok(applied.collect())
}

/// The part of a value that `fieldsV1` names.
fn owned(value: &Value, fields: &Value) -> Value {
    let steps: Vec<_> = fields
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(step, _)| *step != ".")
        .collect();
    if steps.is_empty() {
        return value.clone();
    }
    match value {
        Value::Array(elements) => {
            let chosen = elements.iter().filter_map(|element| {
                let (_, below) = steps.iter().find(|(step, _)| is_of(element, step))?;
                Some(owned(element, below))
            });
            Value::Array(chosen.collect())
        }
        whole => {
            let chosen = steps.iter().filter_map(|(step, below)| {
                let name = step.strip_prefix("f:")?;
                Some((name.to_owned(), owned(whole.get(name)?, below)))
            });
            Value::Object(chosen.collect())
        }
    }
}

/// Whether a step of `fieldsV1` means this element of a list.
fn is_of(element: &Value, step: &str) -> bool {
    let parsed = |text: &str| serde_json::from_str::<Value>(text).unwrap_or_default();
    match step.split_once(':') {
        Some(("k", keys)) => parsed(keys)
            .as_object()
            .is_some_and(|keys| keys.iter().all(|(key, value)| element.get(key) == Some(value))),
        Some(("v", text)) => parsed(text) == *element,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::owned;

    #[test]
    fn only_what_is_owned_is_taken() {
        let object =
            json!({"spec": {"replicas": 1, "env": [{"name": "A", "value": "1"}, {"name": "B"}], "args": ["x"]}});
        let fields = json!({"f:spec": {
            "f:env": {"k:{\"name\":\"A\"}": {".": {}, "f:name": {}, "f:value": {}}}, "f:args": {},
        }});
        let expected = json!({"spec": {"env": [{"name": "A", "value": "1"}], "args": ["x"]}});
        assert_eq!(owned(&object, &fields), expected);
    }
}
